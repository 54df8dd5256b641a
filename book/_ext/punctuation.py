"""Keeps a comma or a bracket on the line of the formula that it belongs to.

A browser may break a line before or after a formula, as beside a picture: the comma
would begin the next line, and the opening bracket end the last one.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

FORMULA = re.compile(
    r'([(\u201c]*)(<span class="math[^>]*>[^<]*</span>)([,.;:?)\u201d\u2019]*)'
)


def keep(body: str) -> str:
    """Each formula in one piece with the punctuation around it."""

    def whole(found: re.Match[str]) -> str:
        before, formula, after = found.groups()
        alone = not (before or after)
        return formula if alone else f'<span class="unbroken">{found.group()}</span>'

    return FORMULA.sub(whole, body)


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
