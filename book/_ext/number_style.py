"""Numbers of a text and its tables in one style, whatever printed them.

Python writes -0.003, and chapters write .5 or 0.5. On the site a minus is a minus, a
fraction has its zero, no zero is negative, and an interval or a mean with its spread
stays on one line. Code, formulas and drawings are left as they are. A link takes in the
plural's s that stands behind it.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

TAG = re.compile(r"(<!--.*?-->|<[^>]*>)", re.DOTALL)
OPENS = re.compile(r"<(pre|code|script|style|svg|textarea|button)\b")
FORMULA = re.compile(r'<(?:span|div) class="math[ "]')
NEGATIVE_ZERO = re.compile(r"(?<![\w.,])[-\u2212](0?\.0+|0)(?![\d.])")
MINUS = re.compile(r"(?<![\w.)\]-])-(?=\.?\d)")
NO_ZERO = re.compile(r"(?<![\w.])\.(?=\d)")
NUMBER = r"[+\u2212]?\d+(?:\.\d+)?"
ONE_LINE = re.compile(
    rf"\[{NUMBER}, {NUMBER}\]|(?<![\w.]){NUMBER} \u00b1 {NUMBER}", re.ASCII
)
PLURAL = re.compile(r"((?:</span>|</code>)*</a>)([a-z]{1,3})\b")


def in_style(text: str) -> str:
    """A piece of plain text with its numbers in style."""
    text = NEGATIVE_ZERO.sub(r"\1", text)
    text = NO_ZERO.sub("0.", MINUS.sub("\u2212", text))
    return ONE_LINE.sub(r'<span class="unbroken">\g<0></span>', text)


def restyle(body: str) -> str:
    """Treat the text of a page, and leave what is inside of code and formulas."""
    parts, until, depth = [], "", 0
    for part in TAG.split(PLURAL.sub(r"\2\1", body)):
        if not part.startswith("<"):
            part = part if until else in_style(part)
        elif until:
            depth += part.startswith(f"<{until}") - part.startswith(f"</{until}")
            until = until if depth else ""
        elif found := OPENS.match(part):
            until, depth = found.group(1), 1
        elif FORMULA.match(part):
            until, depth = part[1:].split()[0], 1
        parts.append(part)
    return "".join(parts)


def restyle_page(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Treat one page, before it is written."""
    if body := context.get("body"):
        context["body"] = restyle(body)


def setup(app: Sphinx) -> dict[str, Any]:
    """Look at each page before it is written."""
    app.connect("html-page-context", restyle_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
