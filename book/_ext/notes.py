"""Hover notes: what the script ``hover.js`` shows beside a link.

A glossary term, a citation and an equation are explained where they are used: a small
box shows the definition, the reference or the formula. The texts are written into
``_static/notes.js``, a script and not a data file, since a page that is opened from the
disk may not load data. The keys are the pages and anchors that the links point to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from docutils import nodes
from sphinx.addnodes import glossary
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinxcontrib.bibtex.domain import BibtexDomain

SCRIPT, STYLE, NOTES = "hover.js", "hover.css", "notes.js"
# The few signs that formulas in the glossary use, as plain text.
SIGNS = {
    r"\theta": "\N{GREEK SMALL LETTER THETA}",
    r"\alpha": "\N{GREEK SMALL LETTER ALPHA}",
    "_0": "\N{SUBSCRIPT ZERO}",
}


def plain(node: nodes.Element) -> str:
    """A node's text in one line, its formulas as plain text."""
    copy = node.deepcopy()
    for formula in list(copy.findall(nodes.math)):
        text = formula.astext()
        for sign, letter in SIGNS.items():
            text = text.replace(sign, letter)
        formula.replace_self(nodes.Text(text))
    return " ".join(copy.astext().split())


def terms(doctree: nodes.document) -> dict[str, list[str]]:
    """Anchor to term and definition, for each term of the glossaries of a page."""
    found: dict[str, list[str]] = {}
    for box in doctree.findall(glossary):
        for item in box.findall(nodes.definition_list_item):
            names = [part for part in item if isinstance(part, nodes.term)]
            text = " ".join(plain(p) for p in item.findall(nodes.definition))
            title = ", ".join(plain(name) for name in names)
            for name in names:
                found.update({anchor: [title, text] for anchor in name["ids"]})
    return found


def references(env: BuildEnvironment) -> dict[str, dict[str, list[str]]]:
    """Page, then anchor, to reference: the entries of all bibliographies."""
    domain = cast(BibtexDomain, env.get_domain("cite"))
    found: dict[str, dict[str, list[str]]] = {}
    for entry in domain.citations:
        page = found.setdefault(entry.bibliography_key.docname, {})
        text = entry.formatted_entry.text.render_as("text")
        page[entry.citation_id] = ["", " ".join(text.split())]
    return found


def equations(doctree: nodes.document) -> dict[str, list[str]]:
    """Anchor to TeX, for each equation of a page that has a number."""
    return {
        nodes.make_id(f"equation-{block['label']}"): ["", block.astext().strip()]
        for block in doctree.findall(nodes.math_block)
        if block.get("label")
    }


def collect(env: BuildEnvironment) -> dict[str, list[str]]:
    """Address, from the root of the site, to title and text of what it leads to."""
    pages = references(env)
    for page in env.found_docs:
        doctree = env.get_doctree(page)
        pages.setdefault(page, {}).update(terms(doctree) | equations(doctree))
    return {
        f"{page}.html#{anchor}": note
        for page in sorted(pages)
        for anchor, note in sorted(pages[page].items())
    }


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the texts among the site's static files."""
    if error is None and app.builder.format == "html":
        text = json.dumps(collect(app.env), ensure_ascii=False, indent=0)
        path = Path(app.outdir) / "_static" / NOTES
        path.write_text(f"window.METAREC_NOTES = {text};\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Link the scripts and the style sheet; write the texts when all pages are read."""
    app.add_css_file(STYLE)
    for script in (NOTES, SCRIPT):
        app.add_js_file(script, loading_method="defer")
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
