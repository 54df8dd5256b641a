"""The learning path: a map of all chapters, and above each title the place on it.

The parts, their order and their chapters are read from the table of contents, the
titles from the chapters, so the map cannot disagree with the book.

``{learning-path}`` draws the map. Its body has one line a part: ``Caption: what it is
about``. Only parts that are named there are on the map.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective


@dataclass(frozen=True)
class Part:
    """A part of the book: its caption, its chapters, and how many came before."""

    caption: str
    chapters: tuple[str, ...]
    before: int


def parts(root: Path) -> list[Part]:
    """The parts that have chapters to work through, in order."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found: list[Part] = []
    for part in toc.get("parts", []):
        files = [entry["file"] for entry in part["chapters"]]
        if all((root / f"{file}.ipynb").exists() for file in files):
            before = sum(len(earlier.chapters) for earlier in found)
            found.append(Part(part["caption"], tuple(files), before))
    return found


class path_map(nodes.General, nodes.Element):
    """Where the map stands; drawn when all titles are known."""


class LearningPath(SphinxDirective):
    """``{learning-path}``: the map."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Read what each part is about."""
        about = {}
        for line in self.content:
            caption, _, text = line.partition(":")
            if text:
                about[caption.strip()] = text.strip()
        self.env.note_dependency(str(Path(self.env.srcdir) / "_toc.yml"))
        return [path_map("", about=about)]


def station(app: Sphinx, page: str, file: str, number: int) -> str:
    """One chapter: a number in a ring, and its title."""
    title = app.env.titles[file].astext()
    address = app.builder.get_relative_uri(page, file)
    return (
        f'<li><a href="{escape(address)}"><span class="path-number">{number}</span>'
        f'<span class="path-title">{escape(title)}</span></a></li>'
    )


def draw(app: Sphinx, page: str, about: dict[str, str]) -> str:
    """The map as a list of lists: a part is a line, a chapter a station."""
    book = parts(Path(app.srcdir))
    if unknown := set(about) - {part.caption for part in book}:
        raise ExtensionError(f"learning-path: no part {', '.join(sorted(unknown))}")
    lines = []
    shown = [part for part in book if part.caption in about]
    for at, part in enumerate(shown, start=1):
        stations = "".join(
            station(app, page, file, part.before + n)
            for n, file in enumerate(part.chapters, start=1)
        )
        lines.append(
            f'<li class="path-line part-{at}"><p class="path-name">'
            f"<strong>{escape(part.caption)}</strong> {escape(about[part.caption])}</p>"
            f'<ol class="path-stations">{stations}</ol></li>'
        )
    return (
        f'<nav class="path" aria-label="Learning path"><ol>{"".join(lines)}</ol></nav>'
    )


def resolve(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Put the map where the directive stands."""
    for node in list(doctree.findall(path_map)):
        text = draw(app, page, node["about"]) if app.builder.format == "html" else ""
        node.replace_self(nodes.raw("", text, format="html"))


def place(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Say above a chapter's title which part it is in, and how far along the path."""
    book = parts(Path(app.srcdir))
    total = sum(len(part.chapters) for part in book)
    for at, part in enumerate(book, start=1):
        if pagename in part.chapters and context.get("body"):
            number = part.before + part.chapters.index(pagename) + 1
            context["body"] = (
                f'<p class="eyebrow part-{at}"><span class="eyebrow__part">'
                f"{escape(part.caption)}</span> Chapter {number} of {total}</p>"
                f"{context['body']}"
            )


def colour(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Give the captions in the sidebar the class of their part, and arrows a name."""
    make = context.get("generate_toctree_html")
    if make is None:
        return

    def coloured(*args: Any, **options: Any) -> Any:
        made = make(*args, **options)
        if options.get("kind") != "sidebar":
            return made
        # The arrow that unfolds a chapter's own pages has no text.
        text = str(made).replace("<summary>", '<summary aria-label="Pages below">')
        for at, part in enumerate(parts(Path(app.srcdir)), start=1):
            text = re.sub(
                rf'class="caption"([^>]*><span class="caption-text">'
                rf"{re.escape(escape(part.caption))}<)",
                rf'class="caption part-{at}"\1',
                text,
            )
        return text

    context["generate_toctree_html"] = coloured


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive, and connect to the pages."""
    app.add_node(path_map)
    app.add_directive("learning-path", LearningPath)
    app.connect("doctree-resolved", resolve)
    app.connect("html-page-context", place)
    # After the theme has put its function there.
    app.connect("html-page-context", colour, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
