"""Figures with twice the pixels, for the screens that have them.

The chapters run for the site under a profile of IPython that asks matplotlib for
figures of double resolution, as a notebook may with ``retina``. Each is shown at half
its size, so Sphinx makes it a link to itself: on a phone it fits the screen, and opens
large. The committed notebooks keep small figures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.config import Config

PIXELS = 2  # a side, in the place of one
PROFILE = 'c.InlineBackend.figure_formats = {"retina"}\n'


def ask(app: Sphinx, config: Config) -> None:
    """Write the profile, and let the kernels find it."""
    home = Path(app.srcdir) / "_build" / ".ipython"
    file = home / "profile_default" / "ipython_kernel_config.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PROFILE, encoding="utf-8")
    os.environ["IPYTHONDIR"] = str(home)


def show_at_half(app: Sphinx, doctree: nodes.document) -> None:
    """Give each figure that a cell drew the width that it was drawn for."""
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") == "cell_code_output":
            for image in cell.findall(nodes.image):
                with Image.open(Path(app.srcdir) / image["uri"]) as picture:
                    image["width"] = f"{round(picture.width / PIXELS)}px"


def setup(app: Sphinx) -> dict[str, Any]:
    """Before the chapters run, and as each is read."""
    app.connect("config-inited", ask)
    app.connect("doctree-read", show_at_half)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
