"""Numbers, formulas and tables in one style, whatever printed them.

Python writes -0.003, and chapters write .5 or 0.5. On the site a minus is a minus, a
fraction has its zero, no zero is negative, and an interval or a mean with its spread
stays on one line, as a formula stays with its comma. A link takes in the plural's s
that stands behind it. In a table numbers stand to the right, and no header cell is
empty. Code, formulas and drawings are left as they are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bs4 import BeautifulSoup, NavigableString, Tag

if TYPE_CHECKING:
    from metarec_book import Page

LEFT_ALONE = {"pre", "code", "script", "style", "svg", "textarea", "button"}
NEGATIVE_ZERO = re.compile(r"(?<![\w.,])[-\u2212](0?\.0+|0)(?![\d.])")
MINUS = re.compile(r"(?<![\w.)\]-])-(?=\.?\d)")
NO_ZERO = re.compile(r"(?<![\w.])\.(?=\d)")
NUMBER = r"[+\u2212]?\d+(?:\.\d+)?"
ONE_LINE = re.compile(
    rf"(\[{NUMBER}, {NUMBER}\]|(?<![\w.]){NUMBER} \u00b1 {NUMBER})", re.ASCII
)
PLURAL = re.compile(r"[a-z]{1,3}\b")
OPENING = re.compile(r"[(\u201c]+$")
CLOSING = re.compile(r"^[,.;:?)\u201d\u2019]+")
NUMBER_CELL = re.compile(
    r"[+\-\N{MINUS SIGN}]?\s*(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*%?"
    r"|nan|-|\N{EN DASH}",
    re.IGNORECASE,
)
FACTORY = BeautifulSoup("", "html.parser")


def unbroken(*content: str | Tag) -> Tag:
    """Something that stays on one line."""
    span = FACTORY.new_tag("span", attrs={"class": "unbroken"})
    span.extend(content)
    return span


def texts(node: Tag) -> list[NavigableString]:
    """The pieces of prose in a node, without code, formulas and drawings."""
    found: list[NavigableString] = []
    for child in node.children:
        if type(child) is NavigableString:  # a comment is another type
            found.append(child)
        elif isinstance(child, Tag) and not is_code_or_formula(child):
            found += texts(child)
    return found


def is_code_or_formula(tag: Tag) -> bool:
    """Tell what is left alone."""
    return tag.name in LEFT_ALONE or "math" in tag.get_attribute_list("class")


def plurals(page: Page) -> None:
    """Let a link take in the few letters behind it."""
    for link in page.article.find_all("a"):
        after = link.next_sibling
        ending = PLURAL.match(after) if type(after) is NavigableString else None
        if ending:
            inner = link
            while inner.contents and isinstance(inner.contents[-1], Tag):
                inner = inner.contents[-1]
            inner.append(ending[0])
            after.replace_with(after[ending.end() :])


def in_style(text: str) -> str:
    """A piece of plain text with its numbers in style."""
    text = NEGATIVE_ZERO.sub(r"\1", text)
    return NO_ZERO.sub("0.", MINUS.sub("\u2212", text))


def numbers(page: Page) -> None:
    """Numbers in style; intervals, and means with a spread, on one line."""
    for text in texts(page.article):
        parts = ONE_LINE.split(in_style(text))
        if parts != [text]:
            text.replace_with(
                *(unbroken(x) if at % 2 else x for at, x in enumerate(parts) if x)
            )


def punctuation(page: Page) -> None:
    """Keep a comma or a bracket on the line of the formula that it belongs to.

    A browser may break a line before or after a formula, as beside a picture: the comma
    would begin the next line, and the opening bracket end the last one.
    """
    for formula in page.article.select("span.math"):
        before, after = formula.previous_sibling, formula.next_sibling
        start = OPENING.search(before) if type(before) is NavigableString else None
        end = CLOSING.search(after) if type(after) is NavigableString else None
        if start or end:
            whole = formula.wrap(unbroken())
        if start:
            before.replace_with(before[: start.start()])
            whole.insert(0, start[0])
        if end:
            after.replace_with(after[end.end() :])
            whole.append(end[0])


def cells(row: Tag) -> list[Tag]:
    """The cells of one row, headers among them."""
    return list(row.find_all(["th", "td"]))


def written(cell: Tag) -> str:
    """What is written in a cell."""
    return str(cell.get_text(" ", strip=True))


def lift_index_names(head: Tag) -> None:
    """Move the names of pandas' index from a row of their own into the corner."""
    rows = head.find_all("tr")
    if len(rows) != 2:
        return
    upper, lower = cells(rows[0]), cells(rows[1])
    names = [written(cell) for cell in lower]
    n = len([name for name in names if name])
    plain = len(upper) == len(lower) and not any(c.get("colspan") for c in upper)
    if plain and n and all(names[:n]) and not any(map(written, upper[:n])):
        for cell, name in zip(upper, names[:n], strict=False):
            cell.string = name
        rows[1].decompose()


def name_or_demote(cell: Tag, scope: str) -> None:
    """Give a header cell its direction; without text it becomes a plain cell."""
    if written(cell) or cell.find("img"):
        cell["scope"] = scope
    else:
        cell.name = "td"


def mark_numbers(table: Tag) -> None:
    """Class ``num`` for each column whose cells are all numbers, header included."""
    rows = [cells(row) for row in table.select("tbody tr")]
    width = max(map(len, rows), default=0)
    full = [row for row in rows if len(row) == width]
    for at in range(width):
        column = [written(row[at]) for row in full]
        if not all(NUMBER_CELL.fullmatch(word) for word in column if word):
            continue
        if not any(re.search(r"\d", word) for word in column):
            continue
        for row in full + [cells(row) for row in table.select("thead tr")]:
            # From the right, since a header may have fewer cells than the body.
            place = at - width
            if -place <= len(row) and not row[place].get("colspan"):
                row[place]["class"] = [*row[place].get("class", []), "num"]


def tables(page: Page) -> None:
    """Tables as a reader needs them."""
    for table in page.article.find_all("table"):
        # pandas' attributes for pages without a style sheet.
        del table["border"]
        for row in table.select("thead tr"):
            del row["style"]
        for head in table.find_all("thead", limit=1):
            lift_index_names(head)
        for cell in table.select("thead th"):
            name_or_demote(cell, "colgroup" if cell.get("colspan") else "col")
        for cell in table.select("tbody tr > th"):
            name_or_demote(cell, "row")
        mark_numbers(table)


def signatures(page: Page) -> None:
    """Make the arguments of a signature lines: a screen reader reads no list there."""
    for part in page.article.select("dt.sig dl, dt.sig dd"):
        part.name, part["class"] = "span", "sig-line"
