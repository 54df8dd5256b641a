"""The index: one line for each name and term, and a sentence on what is in it.

Sphinx gives each first character a section of its own. That suits an alphabet, and
makes a page of one-line sections out of the glossary's Chinese terms. It lists a module
twice, below its own name and below "module", where its name is a line without a link.
"""

from __future__ import annotations

from typing import Any

from jinja2 import DictLoader
from sphinx.application import Sphinx

OTHER = "\N{CJK UNIFIED IDEOGRAPH-4E2D}\N{CJK UNIFIED IDEOGRAPH-6587}"  # Chinese
MODULE = "module"
ABOUT = (
    "Here are the public names of the package, the terms of the glossary in bold, and "
    "the Chinese terms last."
)
PAGE = """{%% extends "genindex.html" %%}
{%% block body %%}
{{ super() | replace("</h1>", "</h1>\\n<p>%s</p>", 1) }}
{%% endblock %%}
"""

Entry = tuple[str, Any]


def linked(entries: list[Entry]) -> list[Entry]:
    """Entries where a module's name is its link, and no list of modules is left."""
    found = []
    for name, (links, below, key) in entries:
        if name == MODULE and not links:
            continue
        own = [link for title, targets in below if title == MODULE for link in targets]
        rest = [(title, targets) for title, targets in below if title != MODULE]
        found.append((name, (links + own, rest, key)))
    return found


def gather(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> str | None:
    """Link the modules, and join the sections whose heading is in no Latin script."""
    if pagename != "genindex":
        return None
    sections = [(title, linked(found)) for title, found in context["genindexentries"]]
    latin = [s for s in sections if s[0].isascii() and s[1]]
    rest = [line for s in sections if not s[0].isascii() for line in s[1]]
    context["genindexentries"] = latin + ([(OTHER, rest)] if rest else [])
    context["genindexcounts"] = [
        sum(1 + len(below) for _, (_, below, _) in found)
        for _, found in context["genindexentries"]
    ]
    return "about_genindex.html"


def add_page(app: Sphinx) -> None:
    """Let the builder find the page: Sphinx's own, with a sentence below its title."""
    loaders = getattr(getattr(app.builder, "templates", None), "loaders", None)
    if loaders is not None:
        loaders.append(DictLoader({"about_genindex.html": PAGE % ABOUT}))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to the page."""
    app.connect("builder-inited", add_page)
    app.connect("html-page-context", gather)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
