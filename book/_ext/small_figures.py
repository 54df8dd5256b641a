"""Figures with a palette of 128 colours: a third of the bytes, the same picture.

Matplotlib writes every pixel in full colour. A figure of lines and areas has few
colours, so a palette is enough; the notebooks' committed outputs stay as they are.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image
from sphinx.application import Sphinx

COLOURS = 128


def smaller(data: bytes) -> bytes:
    """The PNG with a palette, or as it is if that saves nothing."""
    with Image.open(io.BytesIO(data)) as image:
        if image.mode == "P":
            return data
        paper = Image.new("RGBA", image.size, "white")
        flat = Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    few = flat.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    few.save(packed, "PNG", optimize=True)
    return min(packed.getvalue(), data, key=len)


def shrink(app: Sphinx, error: Exception | None) -> None:
    """Pack the figures of the site."""
    if error is None and app.builder.name == "html":
        for path in (Path(app.outdir) / "_images").glob("*.png"):
            path.write_bytes(smaller(path.read_bytes()))


def setup(app: Sphinx) -> dict[str, Any]:
    """Wait until the figures are there."""
    app.connect("build-finished", shrink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
