"""Tables as a reader needs them: numbers to the right, and no empty header cell.

pandas and Markdown leave both open. A column whose cells are all numbers gets the
class ``num``, which the style sheet sets to the right. A header cell without text says
nothing to a screen reader: it becomes a plain cell; and where pandas gives the name of
the index a row of its own, with nothing else in it, it moves up into the corner.
"""

from __future__ import annotations

import re
from typing import Any

from bs4 import BeautifulSoup, Tag
from sphinx.application import Sphinx

TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL)
NUMBER = re.compile(
    r"[+\-\N{MINUS SIGN}]?\s*(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*%?"
    r"|nan|-|\N{EN DASH}",
    re.IGNORECASE,
)


def cells(row: Tag) -> list[Tag]:
    """The cells of one row, headers among them."""
    return [cell for cell in row.find_all(["th", "td"]) if isinstance(cell, Tag)]


def text(cell: Tag) -> str:
    """What is written in a cell."""
    return cell.get_text(" ", strip=True)


def lift_index_names(head: Tag) -> None:
    """Move the names of the index into the corner, if they have a row of their own."""
    rows = head.find_all("tr")
    if len(rows) != 2:
        return
    upper, lower = cells(rows[0]), cells(rows[1])
    names = [text(cell) for cell in lower]
    n = len([name for name in names if name])
    plain = len(upper) == len(lower) and not any(c.get("colspan") for c in upper)
    corner = n and all(names[:n]) and not any(text(cell) for cell in upper[:n])
    if plain and corner:
        for cell, name in zip(upper, names[:n], strict=False):
            cell.string = name
        rows[1].decompose()


def name_or_demote(head: Tag) -> None:
    """Give header cells their direction; one without text becomes a plain cell."""
    for cell in head.find_all("th"):
        if text(cell) or cell.find("img"):
            cell["scope"] = "colgroup" if cell.get("colspan") else "col"
        else:
            cell.name = "td"


def mark_numbers(table: Tag) -> None:
    """Class ``num`` for each column whose cells are all numbers, header included."""
    body = table.find("tbody")
    if not isinstance(body, Tag):
        return
    rows = [cells(row) for row in body.find_all("tr")]
    width = max((len(row) for row in rows), default=0)
    full = [row for row in rows if len(row) == width]
    for at in range(width):
        column = [text(row[at]) for row in full]
        if not all(NUMBER.fullmatch(word) for word in column if word):
            continue
        if not any(re.search(r"\d", word) for word in column):
            continue
        for row in full + [cells(row) for row in table.select("thead tr")]:
            # From the right, since a header may have fewer cells than the body.
            place = at - width
            if -place <= len(row) and not row[place].get("colspan"):
                row[place]["class"] = [*row[place].get("class", []), "num"]


def improve(markup: str) -> str:
    """One table's markup, improved."""
    soup = BeautifulSoup(markup, "html.parser")
    table = soup.find("table")
    if not isinstance(table, Tag):
        return markup
    # pandas' attributes for pages without a style sheet.
    del table["border"]
    for row in table.select("thead tr"):
        del row["style"]
    for row in table.select("tbody tr"):
        for cell in row.find_all("th", recursive=False):
            cell["scope"] = "row"
            if not text(cell) and not cell.find("img"):
                cell.name = "td"
                del cell["scope"]
    head = table.find("thead")
    if isinstance(head, Tag):
        lift_index_names(head)
        name_or_demote(head)
    mark_numbers(table)
    return str(soup)


def page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Improve every table of a page."""
    if body := context.get("body"):
        context["body"] = TABLE.sub(lambda found: improve(found.group()), body)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to the pages."""
    app.connect("html-page-context", page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
