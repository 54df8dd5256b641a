"""Ways to a word: the letters above the glossary, and the index in the menu."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bs4 import BeautifulSoup

if TYPE_CHECKING:
    from metarec_book import Page


def letters(page: Page) -> None:
    """Above a glossary, a link to the first term of each letter."""
    glossary = page.article.select_one("dl.glossary")
    if glossary is None:
        return
    first: dict[str, str] = {}
    for term in glossary.select("dt[id]"):
        letter = term.get_text(strip=True)[0].upper()
        if letter.isascii():
            first.setdefault(letter, str(term["id"]))
    links = "".join(f'<a href="#{at}">{one}</a>' for one, at in sorted(first.items()))
    row = f'<nav class="letters" aria-label="Terms by letter">{links}</nav>'
    glossary.insert_before(BeautifulSoup(row, "html.parser"))


def index(page: Page) -> None:
    """In the menu, the index after the glossary."""
    for link in page.soup.select("nav.bd-links li.toctree-l1 > a"):
        if link.get_text(strip=True) == "Glossary":
            here = page.path == page.site / "genindex.html"
            address = page.soup.html.get("data-content_root", "") + "genindex.html"
            now = " current active" if here else ""
            entry = (
                f'<li class="toctree-l1{now}"><a class="reference internal" '
                f'href="{"#" if here else address}">Index</a></li>'
            )
            link.parent.insert_after(BeautifulSoup(entry, "html.parser"))
