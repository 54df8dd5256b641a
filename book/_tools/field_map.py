"""Draw the map of the field: what each method learns, and how it adapts.

    python book/_tools/field_map.py

writes ``book/_static/field-map.svg`` and, for narrow screens, ``field-map-tall.svg``,
which are committed. The words on the methods stand on the page
``book/reference/map-of-the-field.md``; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

STATIC = Path(__file__).resolve().parents[1] / "_static"
FACES = "-apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', Arial"
SIZE = 16  # of the letters
PAD, GAP, HIGH = 10, 8, 32  # in a chip, between chips, a chip's height

ADAPTS = ["steps of descent", "a posterior", "one pass of a network", "not at all"]
BUILT = {"MAML", "FOMAML", "ANIL", "Meta-SGD", "MetaMind", "ALPaCA"}
GENERAL = {"Reptile", "iMAML", "BOIL", "CAVIA", "PLATIPUS", "ABML"} | {
    *("hypernetworks", "prior-fitted networks"),
    *(BUILT - {"MetaMind"}),
}


@dataclass(frozen=True)
class Row:
    """What M learns; for each way to adapt, the methods."""

    prior: str
    methods: dict[str, list[str]] = field(default_factory=dict)


ROWS = [
    Row(
        "one start",
        {
            ADAPTS[0]: [
                *("MAML", "FOMAML", "Reptile", "iMAML", "ANIL", "BOIL", "CAVIA"),
                *("MeLU", "MetaHIN"),
            ]
        },
    ),
    Row("a start and rates", {ADAPTS[0]: ["Meta-SGD", "MetaCF", "MeLON"]}),
    Row(
        "a start for each task",
        {
            ADAPTS[0]: ["MetaMind", "MAMO", "PNMTA", "Meta-Embedding", "MWUF"],
            ADAPTS[3]: ["CLCRec"],
        },
    ),
    Row("a distribution", {ADAPTS[1]: ["ALPaCA", "PLATIPUS", "ABML"]}),
    Row(
        "a network",
        {
            ADAPTS[2]: [
                *("hypernetworks", "TaNP", "prior-fitted networks"),
                "language models",
            ]
        },
    ),
]
NAMES = [n for row in ROWS for some in row.methods.values() for n in some]
STYLE = """
    .three-maps { --ink: #1b2430; --soft: #55616f; --paper: #ffffff; --panel: #f4f6f9; --rule: #d5dbe3; }
    .three-maps { --blue: #1d5fab; --amber: #9a4b06; --green: #136c4d; }
    @media (prefers-color-scheme: dark) {
      .three-maps { --ink: #e4e9ef; --soft: #a7b2bf; --paper: #12171d; --panel: #1b222b; --rule: #36414d; }
      .three-maps { --blue: #7fb6f0; --amber: #f0aa68; --green: #69cda8; }
    }
    .three-maps .m { fill: var(--blue); } .three-maps .a { fill: var(--amber); } .three-maps .f { fill: var(--green); }
    .three-maps .ink { fill: var(--ink); } .three-maps .panel { fill: var(--panel); }
    .three-maps .sheet { fill: var(--paper); stroke: var(--rule); stroke-width: 1.5; }
    .three-maps .rated { stroke: var(--green); stroke-width: 2; }
    .three-maps .name { fill: var(--paper); font: italic 24px 'Iowan Old Style', 'Palatino Linotype', Palatino, Georgia, serif; }
    .three-maps .mid { text-anchor: middle; } .three-maps .bold { font-weight: 600; }
"""  # noqa: E501
TITLE = "The methods of the field on the course's three maps"
ABOUT = (
    "A table. Its rows are what the meta-learner M learns, its columns how the "
    "task-learner A adapts; a green edge marks a method whose f is a recommender."
)


def wide_as(text: str) -> int:
    """About how many pixels a text takes, in a usual face."""
    units = sum(0.7 if c.isupper() else 0.3 if c in "il-t" else 0.56 for c in text)
    return round(units * SIZE)


def chip(name: str, x: float, y: float) -> str:
    """A method in a box: green if it recommends, bold if the course builds it."""
    edge = "sheet" if name in GENERAL else "sheet rated"
    face = "ink mid bold" if name in BUILT else "ink mid"
    width = wide_as(name) + 2 * PAD
    return (
        f'<rect class="{edge}" x="{x}" y="{y}" width="{width}" height="{HIGH}" rx="8"/>'
        f'<text class="{face}" x="{x + width / 2}" y="{y + 21}">{escape(name)}</text>'
    )


def flow(names: list[str], left: float, top: float, room: float) -> tuple[str, float]:
    """Chips in lines no wider than the room, and where they end."""
    parts, x, y = [], left, top
    for name in names:
        width = wide_as(name) + 2 * PAD
        if x > left and x + width > left + room:
            x, y = left, y + HIGH + GAP
        parts.append(chip(name, x, y))
        x += width + GAP
    return "\n  ".join(parts), y + HIGH


def disc(letter: str, kind: str, x: float, y: float) -> str:
    """A map's sign."""
    return (
        f'<circle class="{kind}" cx="{x}" cy="{y}" r="19"/>'
        f'<text class="name mid" x="{x}" y="{y + 8}">{letter}</text>'
    )


def legend(x: float, y: float) -> str:
    """What the green edge and the bold names mean, in two lines."""
    return (
        disc("f", "f", x + 19, y + 24)
        + f'<text class="ink" x="{x + 50}" y="{y + 20}">green edge: f recommends</text>'
        + f'<text class="ink" x="{x + 50}" y="{y + 42}">'
        + '<tspan class="bold">bold</tspan>: built in this course</text>'
    )


def label(text: str, kind: str, x: float, y: float, centre: bool = False) -> str:
    """The name of a row or a column."""
    place = f"{kind} bold mid" if centre else f"{kind} bold"
    return f'<text class="{place}" x="{x}" y="{y}">{text}</text>'


def document(parts: list[str], kind: str, width: int, height: float) -> str:
    """The whole picture."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" '
        f'class="three-maps three-maps--{kind}" role="img"\n'
        f'  aria-labelledby="field-{kind}-title field-{kind}-desc" '
        f'font-size="{SIZE}"\n  font-family="{FACES}, sans-serif">\n'
        f'  <title id="field-{kind}-title">{TITLE}</title>\n'
        f'  <desc id="field-{kind}-desc">{ABOUT} {in_words()}</desc>\n'
        f"  <style>{STYLE}  </style>\n  "
    )
    return head + "\n  ".join(parts) + "\n</svg>\n"


def in_words() -> str:
    """The table, for those who do not see it."""
    return " ".join(
        f"{row.prior}, {way}: {', '.join(names)}."
        for row in ROWS
        for way, names in row.methods.items()
    ).replace("&", "and")


def wide() -> str:
    """A table: M downwards, A to the right."""
    lefts, rooms = [178, 416, 524, 712], [230, 110, 180, 84]
    parts = [
        disc("M", "m", 35, 30) + label("learns", "m", 62, 36),
        disc("A", "a", 195, 30) + label("adapts by", "a", 222, 36),
    ]
    parts += [label(way, "a", x, 76) for way, x in zip(ADAPTS, lefts, strict=True)]
    y = 92.0
    for row in ROWS:
        drawn, bottom = [], y
        for way, names in row.methods.items():
            at = ADAPTS.index(way)
            chips, end = flow(names, lefts[at], y + 12, rooms[at])
            drawn.append(chips)
            bottom = max(bottom, end)
        height = bottom + 12 - y
        parts.append(
            f'<rect class="panel" y="{y:.0f}" width="800" height="{height:.0f}" '
            'rx="12"/>'
        )
        parts.append(label(row.prior, "m", 16, y + 33))
        parts += drawn
        y += height + 8
    parts.append(legend(lefts[0], y + 4))
    return document(parts, "wide", 800, y + 58)


def tall() -> str:
    """One below the other, for a phone."""
    parts = [
        disc("M", "m", 22, 24) + label("learns", "m", 50, 30),
        disc("A", "a", 142, 24) + label("adapts by", "a", 170, 30),
    ]
    y = 56.0
    for row in ROWS:
        drawn, bottom = [], y + 36
        for way, names in row.methods.items():
            drawn.append(label(way, "a", 14, bottom + 14))
            chips, bottom = flow(names, 14, bottom + 26, 334)
            bottom += 12
            drawn.append(chips)
        parts.append(
            f'<rect class="panel" y="{y:.0f}" width="360" height="{bottom - y:.0f}" '
            'rx="12"/>'
        )
        parts.append(label(row.prior, "m", 14, y + 26))
        parts += drawn
        y = bottom + 10
    parts.append(legend(4, y))
    return document(parts, "tall", 360, y + 56)


if __name__ == "__main__":
    (STATIC / "field-map.svg").write_text(wide(), encoding="utf-8")
    (STATIC / "field-map-tall.svg").write_text(tall(), encoding="utf-8")
