"""Figures: sharp, small in bytes, and some with sliders.

The chapters run for the site under a profile of IPython that asks matplotlib for
figures of double resolution, as a notebook may with ``retina``. Each is shown at half
its size and is a link to itself: on a phone it fits the screen, and opens large. The
committed notebooks keep small figures.

Matplotlib writes every pixel in full colour. A figure of lines and areas has few
colours, so on the site a palette is enough: a third of the bytes, the same picture.

    ```{interactive} inner-rate
    What the figure shows, in a sentence.
    ```

is a small figure with sliders, drawn by ``figures.js``. The sentence is what a reader
without scripts, a printed page or Jupyter shows.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bs4 import BeautifulSoup
from docutils import nodes
from docutils.parsers.rst import directives
from PIL import Image
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from metarec_book import Page

PIXELS = 2  # a side, in the place of one
COLOURS = 128
PROFILE = 'c.InlineBackend.figure_formats = {"retina"}\n'
SLIDERS = ("inner-rate", "prior-variance", "task-attention")


def ask_for_pixels(root: Path) -> None:
    """Write the profile, and let the kernels find it."""
    home = root / "_build" / ".ipython"
    file = home / "profile_default" / "ipython_kernel_config.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PROFILE, encoding="utf-8")
    os.environ["IPYTHONDIR"] = str(home)


def at_half(page: Page) -> None:
    """Show each figure that a cell drew in the width that it was drawn for."""
    link = BeautifulSoup("", "html.parser").new_tag
    for image in page.article.select("div.cell_output img"):
        with Image.open(page.beside(image["src"])) as picture:
            image["style"] = f"width: {round(picture.width / PIXELS)}px;"
        if image.parent.name != "a":  # Sphinx links a figure that names its width
            image.wrap(link("a", href=image["src"], attrs={"class": "image-reference"}))


def pack(page: Page) -> None:
    """Write the page's figures with a palette."""
    for image in page.article.select("img[src$='.png']"):
        path = page.beside(image["src"])
        path.write_bytes(smaller(path.read_bytes()))


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


class Interactive(SphinxDirective):
    """A box that the script fills."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the box with its sentence."""
        self.assert_has_content()
        try:
            name = directives.choice(self.arguments[0], SLIDERS)
        except ValueError as error:
            raise self.error(str(error)) from error
        box = nodes.container(classes=["live", f"live-{name}"])
        self.set_source_info(box)
        self.state.nested_parse(self.content, self.content_offset, box)
        return [box]
