"""The table of execution times as a reader wants it: chapters by title, and seconds.

myst-nb's ``{nb-exec-table}`` lists files by path, with dates and its own words for how
they were run. Here the chapters take its place, in the order of the book.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from myst_nb.ext.execution_tables import ExecutionStatsNode
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform


def seconds(env: Any) -> dict[str, float]:
    """How long each notebook ran, in the order of the book."""
    ran = NbMetadataCollector.get_doc_data(env)
    found = {}
    for page in env.toctree_includes.get(env.config.root_doc, []):
        data = ran.get(page, {}).get("exec_data") or {}
        if data.get("runtime") is not None:
            found[page] = float(data["runtime"])
    return found


def link(env: Any, chapter: str, page: str) -> nodes.Node:
    """A link to a chapter by its title."""
    return addnodes.pending_xref(
        "",
        nodes.inline("", env.titles[chapter].astext()),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{chapter}",
        refdoc=page,
        refexplicit=True,
        refwarn=True,
    )


def row(*cells: nodes.Node) -> nodes.row:
    """One line of the table."""
    entries = [nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells]
    return nodes.row("", *entries)


def table(env: Any, page: str) -> nodes.Element:
    """The table, or a sentence where no chapter was run."""
    times = seconds(env)
    if not times:
        return nodes.paragraph("", "No chapter was run when this copy was built.")
    shown = {chapter: f"{time:.1f}" for chapter, time in times.items()}
    body = [
        row(link(env, chapter, page), nodes.Text(time))
        for chapter, time in shown.items()
    ]
    total = f"{sum(map(float, shown.values())):.1f}"  # of the rows, as they stand
    body.append(row(nodes.strong("", "All together"), nodes.strong("", total)))
    group = nodes.tgroup(
        "",
        nodes.colspec(colwidth=80),
        nodes.colspec(colwidth=20),
        nodes.thead("", row(nodes.Text("chapter"), nodes.Text("seconds"))),
        nodes.tbody("", *body),
        cols=2,
    )
    return nodes.table("", group, classes=["colwidths-auto"])


class Times(SphinxPostTransform):
    """Put the table where myst-nb would put its own."""

    default_priority = 7  # myst-nb's has 8, the resolver of links 10

    def run(self, **_: Any) -> None:
        """Replace the place holder."""
        for node in list(self.document.findall(ExecutionStatsNode)):
            node.replace_self(table(self.env, self.env.docname))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the transform."""
    app.add_post_transform(Times)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
