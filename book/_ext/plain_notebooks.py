"""The download button gives a plain notebook, and Colab opens the same one.

After the build every chapter under ``_sources`` is replaced by its plain form (see
`plain_cells`), so the theme's own button leads to it. Where the repository is known,
and on GitHub, a button opens the notebook in Colab. Colab reads from repositories only:
the workflow that publishes the site also puts the notebooks on a branch of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from plain_cells import Chapter, plain
from pybtex.database import parse_file
from remote import branch, repository
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

BRANCH = "notebooks"
COLAB = "https://colab.research.google.com/github"
# What the theme writes on the buttons, and what a reader can guess from.
WORDS = {".ipynb": "Notebook", ".md": "Text of this page", ".pdf": "Print or PDF"}


def equation_numbers(env: BuildEnvironment) -> dict[str, str]:
    """Label to number, as the pages show them."""
    found: dict[str, str] = {}
    for label, (page, number) in env.get_domain("math").data["objects"].items():
        shown = str(number)
        if env.config.math_numfig and env.config.numfig:
            figures = env.toc_fignumbers.get(page, {}).get("displaymath", {})
            digits = figures.get(nodes.make_id(f"equation-{label}"), ())
            shown = ".".join(map(str, digits)) or shown
        found[label] = shown
    return found


def is_chapter(app: Sphinx, page: str) -> bool:
    """Tell a notebook from another page."""
    return page in app.env.found_docs and app.env.doc2path(page).endswith(".ipynb")


def write(app: Sphinx, error: Exception | None) -> None:
    """Put the plain notebooks in the place of the chapters' sources."""
    if error is not None or app.builder.format != "html":
        return
    root = Path(app.srcdir)
    references = parse_file(str(root / "book" / "references.bib"))
    numbers = equation_numbers(app.env)
    address = repository(root)
    for page in sorted(app.env.found_docs):
        if is_chapter(app, page):
            chapter = Chapter(page, references, numbers, address, branch(root))
            notebook = nbformat.read(app.env.doc2path(page), as_version=4)
            target = Path(app.outdir) / "_sources" / f"{page}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(plain(notebook, chapter), target)


def colab_address(address: str, page: str) -> str:
    """Where Colab opens a chapter; empty if the repository is not on GitHub."""
    path = address.removeprefix("https://github.com/")
    if path == address or path.count("/") != 1:
        return ""
    return f"{COLAB}/{path}/blob/{BRANCH}/{page}.ipynb"


def buttons(
    app: Sphinx, page: str, template: str, context: dict[str, Any], *_: Any
) -> None:
    """Say what the downloads are; add the button to Colab."""
    shown = context.get("header_buttons", [])
    for group in shown:
        for button in group.get("buttons", []):
            button["text"] = WORDS.get(button["text"], button["text"])
            if button["label"] == "download-source-button" and is_chapter(app, page):
                button["tooltip"] = "Download as a plain notebook"
    if not is_chapter(app, page):
        return
    address = colab_address(repository(Path(app.srcdir)), page)
    if address:
        button = {
            "type": "link",
            "url": address,
            "text": "Colab",
            "tooltip": "Open the plain notebook in Colab",
            "icon": "_static/images/logo_colab.png",
            "label": "launch-colab-button",
        }
        group = {
            "type": "group",
            "tooltip": "Run this chapter",
            "icon": "fas fa-rocket",
            "buttons": [button],
            "label": "launch-buttons",
        }
        shown.insert(0, group)


def setup(app: Sphinx) -> dict[str, Any]:
    """Change the buttons when the theme has made them, the sources at the end."""
    app.connect("html-page-context", buttons, priority=900)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
