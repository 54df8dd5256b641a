"""What a link to a page shows where it is shared: a title, a description, a picture.

The description is the page's first paragraph. The picture is drawn when the site is
built. Its address must be a full one; the address of the site is derived from the
repository's own remote, and where there is none, nothing is claimed about it.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from remote import repository
from sphinx.application import Sphinx

CARD = "_static/social-card.png"
LONGEST = 200
GITHUB = re.compile(r"https://github\.com/([\w-]+)/([\w.-]+)")
# Inside these a paragraph is not the page's own first.
ASIDE = (nodes.Admonition, nodes.container, nodes.table, nodes.list_item)
INK, SOFT, PAPER = "#1b2430", "#55616f", "#ffffff"
BLUE, AMBER, GREEN = "#1d5fab", "#c06a14", "#1d8a63"


def site_address(root: Path) -> str:
    """The address that GitHub Pages gives the repository; empty if there is none."""
    found = GITHUB.fullmatch(repository(root))
    if found is None:
        return ""
    owner, name = found.groups()
    return f"https://{owner.lower()}.github.io/{name}/"


def description(doctree: nodes.document) -> str:
    """The first paragraph of a page's text that has no formula in it, cut at a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        parent, inside = paragraph.parent, False
        while parent is not None and not inside:
            inside = isinstance(parent, ASIDE)
            parent = parent.parent
        text = " ".join(paragraph.astext().split())
        if inside or next(iter(paragraph.findall(nodes.math)), None) or len(text) < 40:
            continue
        if len(text) <= LONGEST:
            return text
        return text[: LONGEST - 4].rsplit(" ", 1)[0].rstrip(",;:") + " ..."
    return ""


def tags(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Add the tags to a page's head."""
    if doctree is None:
        return
    address = site_address(Path(app.srcdir))
    card = address + CARD if address else context["pathto"](CARD, 1)
    title = re.sub(r"<[^>]+>", "", context.get("title", ""))
    values = {
        "og:type": "article",
        "og:site_name": "metarec",
        "og:title": title,
        "og:description": description(doctree),
        "og:image": card,
        "og:image:alt": "metarec: everything is a map. Three rings, one in the other.",
        "og:url": f"{address}{pagename}.html" if address else "",
    }
    text = values["og:description"]
    lines = [f'<meta name="description" content="{escape(text)}">'] if text else []
    lines += [
        f'<meta property="{name}" content="{escape(value)}">'
        for name, value in values.items()
        if value
    ]
    lines.append('<meta name="twitter:card" content="summary_large_image">')
    context["metatags"] = context.get("metatags", "") + "\n".join(lines)


def draw_card(path: Path) -> None:
    """Draw the picture, 1200 by 630: the three maps as rings, and the sentence."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1200), ylim=(0, 630))
    axes.axis("off")
    rings = [(330, 215, BLUE, "M"), (270, 145, AMBER, "A"), (212, 72, GREEN, "f")]
    for y, radius, colour, name in rings:
        axes.add_patch(Circle((290, y), radius, fill=False, ec=colour, lw=16))
        axes.text(
            *(290, y + radius - 46 if name != "f" else y - 2),
            name,
            color=colour,
            size=40,
            family="serif",
            style="italic",
            ha="center",
            va="center",
        )
    axes.text(570, 390, "metarec", color=INK, size=62, weight="bold")
    axes.text(574, 318, "everything is a map", color=INK, size=33)
    lines = "From three ratings to a list of films:\na course on learning to recommend"
    axes.text(574, 185, lines, color=SOFT, size=21, linespacing=1.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def write_card(app: Sphinx, error: Exception | None) -> None:
    """Put the picture among the site's static files."""
    if error is None and app.builder.format == "html":
        draw_card(Path(app.outdir) / CARD)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to the pages, and to the end of the build."""
    app.connect("html-page-context", tags)
    app.connect("build-finished", write_card)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
