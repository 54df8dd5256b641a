"""The directive ``interactive``: a small figure with sliders, drawn by ``figures.js``.

    ```{interactive} inner-rate
    What the figure shows, in a sentence.
    ```

The sentence is what a reader without scripts, a printed page or Jupyter shows.
"""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SCRIPT, STYLE = "figures.js", "figures.css"
FIGURES = ("inner-rate", "prior-variance", "task-attention")


def known(name: str) -> str:
    """The name of a figure, or an error that names all."""
    return str(directives.choice(name, FIGURES))


class Interactive(SphinxDirective):
    """A box that the script fills."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """Return the box with its sentence."""
        self.assert_has_content()
        try:
            name = known(self.arguments[0])
        except ValueError as error:
            raise self.error(str(error)) from error
        box = nodes.container(classes=["live", f"live-{name}"])
        self.set_source_info(box)
        self.state.nested_parse(self.content, self.content_offset, box)
        return [box]


def link_files(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Load script and style sheet where a page has a figure, and nowhere else."""
    if doctree is not None and any(
        "live" in box["classes"] for box in doctree.findall(nodes.container)
    ):
        app.add_css_file(STYLE)
        app.add_js_file(SCRIPT, loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and what it loads."""
    app.add_directive("interactive", Interactive)
    app.connect("html-page-context", link_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
