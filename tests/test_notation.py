"""The notation page and the formulas of the chapters agree."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from test_book import CHAPTERS, chapter

PAGE = Path(__file__).resolve().parents[1] / "book" / "reference" / "notation.md"
START = "book/index"
LOCAL = "## Used in one chapter only"

GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa "
    "lambda mu nu xi pi varpi rho varrho sigma varsigma tau upsilon phi varphi chi psi "
    "omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
).split()
OTHER = ["ell", "nabla", "circ"]
# Letters that are no symbols of the course: the identity, and the circle's number.
CONSTANTS = {"I", r"\pi"}
# Kinds of subscript that count: ratings and items, tasks and times, slots, features.
RUNNING = {"", "i", "t", "m", "f", "#"}
GROUP = r"\{(?:[^{}]|\{[^{}]*\})*\}"
SCRIPT = rf"{GROUP}|\\[A-Za-z]+|[A-Za-z0-9]"
SYMBOL = re.compile(
    rf"(?:\\(hat|bar|tilde|mathbf|boldsymbol)\s*\{{?\s*)?(\\[A-Za-z]+|[A-Za-z])\}}?"
    rf"(?:'|\s*\^\s*(?:{SCRIPT}))?(?:\s*_\s*({SCRIPT}))?"
)
WORDS = re.compile(
    rf"\\(?:text|mathrm|operatorname|textbf|mathbb|mathcal|begin|end)\*?\s*(?:{GROUP}|\w)"
)


class Symbol(NamedTuple):
    """A letter, what stands on it (hat, bar, bold), and the kind of its subscript."""

    letter: str
    over: str
    below: str

    @property
    def bare(self) -> Symbol:
        """The same without hat or bar: a mean needs no line of its own."""
        bold = self.over in {"mathbf", "boldsymbol"}
        return self if bold else self._replace(over="")


def kind(subscript: str) -> str:
    r"""What a subscript says: i, j and n count the same things, and so do s and t.

    A number stands for any of them: "#". What is no index keeps its name.
    """
    text = re.sub(r"[{}\s\\,]|\+1|-1|_[un]", "", subscript)
    if text in {"max", "min"}:
        return text
    text = re.sub(r"[jn]", "i", text).replace("s", "t")
    return re.sub(r"\d+|T|N|M", "#", text)


def symbols(tex: str) -> Iterator[Symbol]:
    """The symbols of a formula, those in subscripts included."""
    for found in SYMBOL.finditer(WORDS.sub(" ", tex)):
        over, letter, below = found.groups(default="")
        name = letter.lstrip("\\")
        if len(letter) == 1 or name in GREEK or name in OTHER:
            yield Symbol(letter, over, kind(below))
        if re.search(r"[\\_A-Z]", below) and len(below) > 1:
            yield from symbols(below)


def formulas(text: str) -> list[str]:
    """What stands between dollars, and not in code."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    text = re.sub(r"`[^`\n]*`", "", text)
    found = re.findall(r"\$\$(.+?)\$\$|(?<![\\$])\$([^$]+?)\$", text, flags=re.S)
    return [display or inline for display, inline in found]


@cache
def used(page: str) -> frozenset[Symbol]:
    """The symbols of a chapter's formulas, or of the start page's."""
    if page == START:
        text = (PAGE.parents[1] / "index.md").read_text(encoding="utf-8")
        return frozenset(s for f in formulas(text) for s in symbols(f))
    cells = [c.source for c in chapter(page).cells if c.cell_type == "markdown"]
    return frozenset(s for f in formulas("\n\n".join(cells)) for s in symbols(f))


def rows(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Symbols, and stems of the pages named, of each row of the page's tables."""
    for line in text.split("\n"):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| $"):
            yield formulas(cells[0]), re.findall(r"/([\w-]+)\.(?:ipynb|md)", line)


def columns(text: str, at: int) -> str:
    """One column of all tables."""
    lines = [line.strip("|").split(" | ") for line in text.split("\n")]
    return "\n".join(line[at] for line in lines if len(line) > at + 1)


def one(tex: str) -> Symbol:
    """The symbol that a formula of the first column is."""
    return next(iter(symbols(tex)))


def parts_of_the_page() -> tuple[str, str]:
    shared, _, local = PAGE.read_text(encoding="utf-8").partition(LOCAL)
    return shared, local


def needs_an_entry(symbol: Symbol) -> bool:
    """Greek letters, bold ones, capitals, and all that have a subscript."""
    if symbol.letter in CONSTANTS:
        return False
    if symbol.letter.lstrip("\\") in OTHER:
        return False
    greek = symbol.letter.lstrip("\\") in GREEK
    bold = symbol.over in {"mathbf", "boldsymbol"}
    return greek or bold or symbol.letter.isupper() or bool(symbol.below)


def explains(entry: Symbol, symbol: Symbol) -> bool:
    """Whether a line of the page explains a symbol.

    As the page says: one with a running index is a part of the one without, and where
    one user is at hand the index u is left out.
    """
    if (entry.letter, entry.bare.over) != (symbol.letter, symbol.bare.over):
        return False
    both = {entry.below.replace("u", ""), symbol.below.replace("u", "")}
    return len(both) == 1 or both <= RUNNING


def missing(page: str, entries: set[Symbol]) -> set[str]:
    """Symbols of a chapter that neither it alone nor the whole course explains."""
    return {
        "_".join(filter(None, [symbol.letter, symbol.below]))
        for symbol in used(page)
        if needs_an_entry(symbol)
        and not any(explains(entry, symbol) for entry in entries)
    }


def stem(page: str) -> str:
    return page.split("/")[-1]


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_symbols_of_a_chapter_are_on_the_notation_page(page: str) -> None:
    shared, local = parts_of_the_page()
    entries = {one(tex) for tex_row, _ in rows(shared) for tex in tex_row}
    entries |= {
        one(tex)
        for tex_row, stems in rows(local)
        for tex in tex_row
        if stem(page) in stems
    }
    assert missing(page, entries) == set()


def test_what_the_notation_page_defines_is_used_where_it_says() -> None:
    text = "".join(parts_of_the_page())
    by_stem = {stem(page): used(page) for page in [START, *CHAPTERS]}
    shapes = {s for f in formulas(columns(text, 2)) for s in symbols(f)}
    idle = [
        f"{tex} in {name}"
        for tex_row, stems in rows(text)
        for tex in tex_row
        for name in stems
        if one(tex) not in by_stem[name] | shapes
    ]
    assert idle == []


def first_in(symbol: Symbol, elsewhere: set[str]) -> str:
    """The first page whose formulas have the symbol, but for those named."""
    pages = [START, *CHAPTERS]
    having = [stem(page) for page in pages if symbol in used(page)]
    return next(name for name in having if name not in elsewhere)


def test_first_in_is_the_first_chapter_that_has_the_symbol() -> None:
    """Asked of the first line of each symbol, and of pages that no other line names.

    A symbol is told from another by its letter, hat and subscript, not by its prime. So
    a letter with a second meaning is looked for where that has no line.
    """
    shared, local = parts_of_the_page()
    lines = defaultdict(list)
    for tex_row, stems in [*rows(shared), *rows(local)]:
        for tex in tex_row:
            lines[one(tex)] += stems
    seen: set[Symbol] = set()
    wrong = []
    for tex_row, stems in rows(shared):
        for tex in tex_row if stems else []:
            first = first_in(one(tex), set(lines[one(tex)]) - set(stems))
            if one(tex) not in seen and first != stems[0]:
                wrong.append(f"{tex}: {first}, not {stems[0]}")
            seen.add(one(tex))
    assert wrong == []


def test_a_local_symbol_has_one_chapter_and_one_line() -> None:
    lines = defaultdict(list)
    for tex_row, stems in rows(parts_of_the_page()[1]):
        assert len(stems) == 1, f"{tex_row} names {stems}"
        for tex in tex_row:
            lines[tex, stems[0]].append(tex)
    assert [key for key, found in lines.items() if len(found) > 1] == []


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (
            r"\hat r_{ui} = \mu + b_i",
            [("r", "hat", "ui"), (r"\mu", "", ""), ("b", "", "i")],
        ),
        (r"\lambda_{\max}", [(r"\lambda", "", "max")]),
        (r"\mathbf{w}^\top \phi_j", [("w", "mathbf", ""), (r"\phi", "", "i")]),
        (r"\sum_{j \in S_u} y_j", [("j", "", ""), ("S", "", "u"), ("y", "", "i")]),
        (r"\tilde{L}_{S_u}", [("L", "tilde", "S"), ("S", "", "u")]),
        (r"\mathrm{diag}(\tau^2)", [(r"\tau", "", "")]),
        (r"w_{t+1}", [("w", "", "t")]),
    ],
)
def test_the_lint_reads(tex: str, expected: list[tuple[str, str, str]]) -> None:
    assert [tuple(symbol) for symbol in symbols(tex)] == expected


def test_the_lint_finds_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = frozenset(symbols(r"\zeta q_i \bar c W_1 x"))
    monkeypatch.setitem(globals(), "used", lambda _: found)
    assert missing("page", {Symbol("q", "", "i")}) == {r"\zeta", "W_#"}
