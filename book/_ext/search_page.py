"""The page of search results: excerpts in words, by ``search.js``."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def link_script(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Load the script on this page alone."""
    if pagename == "search":
        app.add_js_file("search.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to the page."""
    app.connect("html-page-context", link_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
