"""Hover notes: what the script ``hover.js`` shows beside a link.

A glossary term, a citation and an equation are explained where they are used: a small
box shows the definition, the reference or the formula. The texts are written into
``_static/notes.js``, a script and not a data file, since a page that is opened from the
disk may not load data. The keys are the pages and anchors that the links point to.
"""

from __future__ import annotations

import json
from copy import copy
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from bs4 import Tag

if TYPE_CHECKING:
    from metarec_book import Page

NOTES = "_static/notes.js"
# The few signs that formulas in the glossary use, as plain text.
SIGNS = {
    r"\theta": "\N{GREEK SMALL LETTER THETA}",
    r"\alpha": "\N{GREEK SMALL LETTER ALPHA}",
    "_0": "\N{SUBSCRIPT ZERO}",
}
Notes = dict[str, tuple[str, str]]


def collect(page: Page) -> Notes:
    """Address, from the root of the site, to title and text of what it leads to."""
    found = terms(page.article) | references(page.article) | equations(page.article)
    return {f"{page.name}.html#{anchor}": note for anchor, note in found.items()}


def terms(article: Tag) -> Notes:
    """Anchor to term and definition, for each term of the glossaries of a page."""
    found: Notes = {}
    for definition in article.select("dl.glossary > dd"):
        before = definition.find_previous_siblings(["dt", "dd"])
        names = list(takewhile(lambda one: one.name == "dt", before))[::-1]
        title = ", ".join(map(plain, names))
        found |= {str(name["id"]): (title, plain(definition)) for name in names}
    return found


def references(article: Tag) -> Notes:
    """Anchor to reference, for each entry of a bibliography."""
    entries = article.select("div.citation[id]")
    return {str(one["id"]): ("", plain(one.select("p")[-1])) for one in entries}


def equations(article: Tag) -> Notes:
    """Anchor to TeX, for each equation of a page that has a number."""
    return {
        str(block["id"]): ("", tex(block.find_all(string=True, recursive=False)))
        for block in article.select("div.math[id^='equation-']")
    }


def tex(parts: list[str]) -> str:
    """What stands between the signs that open and close a formula."""
    return "".join(parts).strip().removeprefix(r"\[").removesuffix(r"\]").strip()


def plain(tag: Tag) -> str:
    """A tag's text in one line, its formulas as plain text."""
    shown = copy(tag)
    for link in shown.select("a.headerlink"):
        link.decompose()
    for formula in shown.select("span.math"):
        text = formula.get_text().removeprefix(r"\(").removesuffix(r"\)")
        for sign, letter in SIGNS.items():
            text = text.replace(sign, letter)
        formula.string = text
    return " ".join(shown.get_text().split())


def write(site: Path, notes: Notes) -> None:
    """Write the texts among the site's static files."""
    text = json.dumps(dict(sorted(notes.items())), ensure_ascii=False, indent=0)
    (site / NOTES).write_text(f"window.METAREC_NOTES = {text};\n", encoding="utf-8")
