"""Keeps a comma or a full stop on the line of the formula that it follows.

A browser may break a line after a formula, as after a picture, and the comma would
begin the next one.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

FORMULA = re.compile(r'(<span class="math[^>]*>[^<]*</span>)([,.;:?)\u201d\u2019]+)')


def keep(body: str) -> str:
    """Each formula in one piece with the punctuation after it."""
    return FORMULA.sub(r'<span class="unbroken">\1\2</span>', body)


def keep_on_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Treat the text of one page."""
    if body := context.get("body"):
        context["body"] = keep(body)


def setup(app: Sphinx) -> dict[str, Any]:
    """Look at each page before it is written."""
    app.connect("html-page-context", keep_on_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
