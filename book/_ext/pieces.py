"""Pieces of `metarec` built so far: a folded list near the end of each chapter.

What a chapter builds stands in its notebook's metadata, ``metarec.builds``. The list
has this chapter's pieces first, then those of the chapters before it, and links each to
its entry in the API reference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx_design.shared import create_component

# The list stands before this section, or at the end of the page.
BEFORE = "Further reading"


def chapters(root: Path) -> list[str]:
    """The pages that are notebooks, in the order of the book."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    files = [
        entry["file"] for part in toc.get("parts", []) for entry in part["chapters"]
    ]
    return [file for file in files if (root / f"{file}.ipynb").exists()]


def builds(root: Path, page: str) -> list[str]:
    """The full names that a chapter builds."""
    notebook = json.loads((root / f"{page}.ipynb").read_text(encoding="utf-8"))
    return list(notebook["metadata"].get("metarec", {}).get("builds", []))


def built_so_far(root: Path, page: str) -> list[tuple[str, list[str]]]:
    """The chapter and its pieces, then the chapters before it that built some."""
    book = chapters(root)
    if page not in book:
        return []
    order = [page, *book[: book.index(page)]]
    return [(chapter, names) for chapter in order if (names := builds(root, chapter))]


def link_to(name: str, page: str) -> nodes.Node:
    """A link to a name's entry in the reference; the name without the package."""
    text = name.removeprefix("metarec.")
    link = addnodes.pending_xref(
        "",
        nodes.literal("", text, classes=["xref", "py", "py-obj"]),
        refdomain="py",
        reftype="obj",
        reftarget=name,
        refdoc=page,
        refwarn=True,
    )
    return link


def link_to_chapter(chapter: str, page: str) -> nodes.Node:
    """A link to a chapter by its title."""
    return addnodes.pending_xref(
        "",
        nodes.inline("", ""),
        refdomain="std",
        reftype="doc",
        reftarget=f"/{chapter}",
        refdoc=page,
        refexplicit=False,
        refwarn=True,
    )


def folded(page: str, found: list[tuple[str, list[str]]]) -> nodes.Element:
    """The list in a drop-down."""
    number = sum(len(names) for _, names in found)
    entries = []
    for chapter, names in found:
        here = chapter == page
        term = nodes.Text("In this chapter") if here else link_to_chapter(chapter, page)
        text = nodes.paragraph()
        for at, name in enumerate(names):
            text += [nodes.Text(", ")] if at else []
            text += link_to(name, page)
        entries.append(
            nodes.definition_list_item(
                "", nodes.term("", "", term), nodes.definition("", text)
            )
        )
    title = f"Pieces of metarec built so far: {number}"
    return create_component(
        "dropdown",
        opened=False,
        type="dropdown",
        has_title=True,
        icon=None,
        chevron=None,
        container_classes=["sd-mb-3", "pieces"],
        title_classes=[],
        body_classes=[],
        children=[
            nodes.rubric("", title),
            nodes.definition_list("", *entries, classes=["pieces-list"]),
        ],
    )


def add(app: Sphinx, doctree: nodes.document) -> None:
    """Put the list into a chapter that has been read."""
    root, page = Path(app.srcdir), app.env.docname
    found = built_so_far(root, page)
    if not found:
        return
    for chapter, _ in found:
        app.env.note_dependency(str(root / f"{chapter}.ipynb"))
    box = folded(page, found)
    for section in doctree.findall(nodes.section):
        if isinstance(section[0], nodes.title) and section[0].astext() == BEFORE:
            section.parent.insert(section.parent.index(section), box)
            return
    section = next(iter(doctree.findall(nodes.section)), doctree)
    section += box


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to every page that has been read."""
    app.connect("doctree-read", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
