"""The directive ``finding``: a result on the start page, read from a committed table.

    ```{finding} leaderboard/summary.csv
    :title: Where it loses
    :row: method=mf + maml + gradient; k=10
    :columns: difference, low, high
    :better: lower
    :unit: stars
    :axis: 0.016
    :verdict: loses

    What was compared with what, and the chapter that shows it.
    ```

The numbers come from the one row that is named. They are turned so that above zero is
better. The verdict is what the sentence claims; the build stops where the interval says
otherwise. ``axis`` is the largest value that the drawing shows: cards in one unit share
it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

SHOWN = {"gains": "gains", "loses": "loses", "undecided": "no difference seen"}


@dataclass(frozen=True)
class Gain:
    """A difference and its interval; above zero is better."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        if self.low > 0:
            return "gains"
        return "loses" if self.high < 0 else "undecided"


def pick(path: Path, row: str) -> dict[str, str]:
    """The one row of a table with these entries, ``name=value; name=value``."""
    wanted = dict(pair.strip().split("=", 1) for pair in row.split(";"))
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(line for line in file if not line.startswith("#"))
        found = [x for x in table if all(x.get(k) == v for k, v in wanted.items())]
    if len(found) != 1:
        raise ValueError(f"{path.name} has {len(found)} rows with {row}")
    return found[0]


def gain(row: dict[str, str], columns: str, lower_is_better: bool) -> Gain:
    """The difference in three columns of a row, turned so that above zero is better."""
    value, low, high = (float(row[name.strip()]) for name in columns.split(","))
    return Gain(-value, -high, -low) if lower_is_better else Gain(value, low, high)


def number(value: float) -> str:
    """A number with its sign, a true minus."""
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def drawing(one: Gain, axis: float) -> str:
    """The interval beside zero, as an SVG that a screen reader passes over."""
    low, at, high = (150 + 140 * x / axis for x in (one.low, one.value, one.high))
    return (
        '<svg class="finding-interval" viewBox="0 0 300 34" aria-hidden="true">'
        '<line class="finding-axis" x1="6" x2="294" y1="10" y2="10"/>'
        '<line class="finding-zero" x1="150" x2="150" y1="1" y2="19"/>'
        f'<line class="finding-bar" x1="{low:.1f}" x2="{high:.1f}" y1="10" y2="10"/>'
        f'<circle class="finding-dot" cx="{at:.1f}" cy="10" r="5.5"/>'
        '<text x="6" y="31">worse</text>'
        '<text x="150" y="31" text-anchor="middle">0</text>'
        '<text x="294" y="31" text-anchor="end">better</text></svg>'
    )


def card(title: str, one: Gain, unit: str, axis: float) -> str:
    """The head of a card: title and verdict, number, interval."""
    return (
        f'<p class="finding-title"><strong>{escape(title)}</strong> '
        f'<span class="finding-verdict">{SHOWN[one.verdict]}</span></p>'
        f'<p class="finding-number">{number(one.value)} '
        f'<span class="finding-unit">{escape(unit)}</span></p>'
        f'<p class="finding-range">95% interval [{number(one.low)}, '
        f"{number(one.high)}]</p>{drawing(one, axis)}"
    )


class Finding(SphinxDirective):
    """``{finding} table``: one card."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {
        "title": directives.unchanged_required,
        "row": directives.unchanged_required,
        "columns": directives.unchanged_required,
        "better": lambda word: directives.choice(word, ("lower", "higher")),
        "unit": directives.unchanged_required,
        "axis": float,
        "verdict": lambda word: directives.choice(word, tuple(SHOWN)),
    }

    def run(self) -> list[nodes.Node]:
        """Read the row, check the claim, draw the card."""
        self.assert_has_content()
        path = Path(self.env.srcdir) / "benchmarks" / "results" / self.arguments[0]
        self.env.note_dependency(str(path))
        options = self.options
        try:
            row = pick(path, options["row"])
            one = gain(row, options["columns"], options["better"] == "lower")
        except (OSError, KeyError, ValueError) as error:
            raise self.error(f"finding: {error}") from error
        if one.verdict != options["verdict"]:
            raise self.error(f"finding: {options['row']}: {one.verdict}, by the table")
        if max(abs(one.low), abs(one.high)) > options["axis"]:
            raise self.error(f"finding: {options['row']} leaves the axis")
        box = nodes.container(classes=["finding", f"finding-{one.verdict}"])
        self.set_source_info(box)
        head = card(options["title"], one, options["unit"], options["axis"])
        box += nodes.raw("", head, format="html")
        self.state.nested_parse(self.content, self.content_offset, box)
        return [box]
