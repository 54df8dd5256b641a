"""Draw the picture that a shared link shows: the three maps as rings, and a sentence.

    python book/_tools/card.py

writes ``book/_static/social-card.png``, 1200 by 630 pixels, which is committed.
"""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Circle
from PIL import Image

CARD = Path(__file__).resolve().parents[1] / "_static" / "social-card.png"
COLOURS = 64
INK, SOFT, PAPER = "#1b2430", "#55616f", "#ffffff"
BLUE, AMBER, GREEN = "#1d5fab", "#c06a14", "#1d8a63"


def draw() -> Figure:
    """The picture, in units of pixels."""
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1200), ylim=(0, 630))
    axes.axis("off")
    rings = [(330, 215, BLUE, "M"), (270, 145, AMBER, "A"), (212, 72, GREEN, "f")]
    for y, radius, colour, name in rings:
        axes.add_patch(Circle((290, y), radius, fill=False, ec=colour, lw=16))
        axes.text(
            *(290, y + radius - 46 if name != "f" else y - 2),
            name,
            color=colour,
            size=40,
            family="serif",
            style="italic",
            ha="center",
            va="center",
        )
    axes.text(570, 390, "metarec", color=INK, size=62, weight="bold")
    axes.text(574, 318, "everything is a map", color=INK, size=33)
    lines = "From three ratings to a list of films:\na course on learning to recommend"
    axes.text(574, 185, lines, color=SOFT, size=21, linespacing=1.5)
    return figure


if __name__ == "__main__":
    drawn = io.BytesIO()
    draw().savefig(drawn)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(COLOURS).save(CARD, optimize=True)
