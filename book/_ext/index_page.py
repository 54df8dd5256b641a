"""The index: terms in another script share one section at its end.

Sphinx gives each first character a section of its own. That suits an alphabet, and
makes a page of one-line sections out of the glossary's Chinese terms.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

OTHER = "\N{CJK UNIFIED IDEOGRAPH-4E2D}\N{CJK UNIFIED IDEOGRAPH-6587}"  # Chinese


def gather(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Join the sections whose heading is in no Latin script."""
    if pagename != "genindex":
        return
    sections = list(
        zip(context["genindexentries"], context["genindexcounts"], strict=True)
    )
    latin = [s for s in sections if s[0][0].isascii()]
    rest = [s for s in sections if not s[0][0].isascii()]
    if rest:
        entries = [entry for (_, found), _ in rest for entry in found]
        latin.append(((OTHER, entries), sum(count for _, count in rest)))
    context["genindexentries"] = [section for section, _ in latin]
    context["genindexcounts"] = [count for _, count in latin]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to the page."""
    app.connect("html-page-context", gather)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
