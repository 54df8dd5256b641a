"""What the book asks of Sphinx: what is set, what is brought, and one pass over a page.

1. Set, before the build: where the repository is (`remote`), and the folder of the
   cache of executed notebooks. It is keyed by the package, the requirements, the
   committed tables and how figures are drawn. jupyter-cache compares code cells only,
   so without this an edit of ``metarec``, or of a table that a chapter reads, would
   publish yesterday's outputs.
2. Brought, from installed packages: fonts, and MathJax, so that no page asks another
   host for anything; and the demo's model, trained here.
3. Each built page is parsed once, and each of `STEPS` changes it, in their order.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import a_to_z
import class_page
import demo
import figures
import findings
import fonts
import house_style
import learning_path
import notes
import panels
import plain_notebooks
import remote
from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.fileutil import copy_asset

# The one file of MathJax that the site needs: TeX in, SVG out.
MATHJAX = ("sphinx-mathjax-offline", "static/mathjax/tex-svg.js")
# What only some pages load, by what such a page has in it.
LOADED = {
    ".live": ("figures.css", "figures.js"),
    "#demo": ("demo.css", demo.SCRIPT, "demo.js"),
    "#search-results": ("search.js",),
}
# What themes and extensions load and the site does not use: thebe, which jupyter-book
# adds in any case, and which prints an error; and two thousand icons, 1.5 MB, of which
# a page shows a dozen that are in the theme's font as well.
SPARE = (
    "script:is([src*='thebe'], [type*='thebe'], [src*='fontawesome.js']), "
    "script:-soup-contains('thebe', 'kernelName'), link[href*='thebe']"
)


class Page:
    """A built page, parsed."""

    def __init__(self, root: Path, site: Path, path: Path) -> None:
        self.root, self.site, self.path = root, site, path  # root: of the sources
        # As the table of contents names it: book/foundations/data.
        self.name = path.relative_to(site).with_suffix("").as_posix()
        self.soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        # The page's own text; the page at the root has none.
        own = self.soup.select_one("article.bd-article")
        self.article = own or self.soup.new_tag("article")

    def beside(self, address: str) -> Path:
        """The file that an address in the page leads to."""
        return self.path.parent / address


def load(page: Page) -> None:
    """Link what this page needs, and nothing that no page needs."""
    for tag in page.soup.select(SPARE):
        tag.decompose()
    to_root = page.soup.html.get("data-content_root", "")
    for selector, names in LOADED.items():
        for name in names if page.soup.select_one(selector) else ():
            digest = zlib.crc32((page.site / "_static" / name).read_bytes())
            address = f"{to_root}_static/{name}?v={digest:08x}"
            if name.endswith(".css"):
                tag = page.soup.new_tag("link", rel="stylesheet", href=address)
            else:
                tag = page.soup.new_tag("script", src=address, defer="defer")
            page.soup.head.append(tag)


def share(page: Page) -> None:
    """Claim nothing about the site's address where it is not known."""
    if not remote.site_address(page.root):
        for address in page.soup.select("meta[property='og:url']"):
            address.decompose()
        for image in page.soup.select("meta[property='og:image']"):
            image["content"] = page.soup.html["data-content_root"] + image["content"]


# The order matters in two places: a plural joins its link before the text behind a
# formula is cut, and figures are measured before they are packed.
STEPS: tuple[Callable[[Page], None], ...] = (
    load,
    share,
    a_to_z.index,
    a_to_z.letters,
    learning_path.sidebar,
    learning_path.stations,
    plain_notebooks.buttons,
    panels.opening,
    panels.quiz,
    house_style.plurals,
    house_style.numbers,
    house_style.punctuation,
    house_style.tables,
    house_style.signatures,
    figures.at_half,
    figures.pack,
    learning_path.place,
)
DONE = "data-finished"
DIRECTIVES = {
    "calendar": class_page.Calendar,
    "finding": findings.Finding,
    "handout": class_page.Handout,
    "interactive": figures.Interactive,
    "learning-path": learning_path.LearningPath,
}


def finish(app: Sphinx, error: Exception | None) -> None:
    """Take each built page through the steps; write what is made from all of them."""
    if error is not None or app.builder.name != "html":
        return
    site, found = Path(app.outdir), notes.Notes()
    for path in sorted(site.rglob("*.html")):
        # The theme leaves two templates among its static files.
        if "_static" in path.parts:
            continue
        page = Page(Path(app.srcdir), site, path)
        # A build of what has changed leaves other pages as they were finished.
        if not page.soup.html.has_attr(DONE):
            for step in STEPS:
                step(page)
            page.soup.html[DONE] = ""
            path.write_text(str(page.soup), encoding="utf-8")
        found |= notes.collect(page)
    notes.write(site, found)
    plain_notebooks.write(app)


def bring(app: Sphinx) -> None:
    """Put fonts, MathJax and the demo's model among the site's static files.

    Before the pages are read, so that a missing package or data set is known early.
    """
    if app.builder.name == "html":
        root, static = Path(app.srcdir), Path(app.outdir) / "_static"
        static.mkdir(parents=True, exist_ok=True)
        copy_asset(fonts.installed(*MATHJAX), static / "mathjax")
        fonts.write_fonts(root, static)
        demo.write_model(root, static)


def cache_key(root: Path) -> str:
    """Hash what decides a chapter's outputs, beside its own cells."""
    tables = sorted((root / "benchmarks" / "results").rglob("*.csv"))
    return demo.hash_of(root, *tables, root / "book" / "_ext" / "figures.py")


def configure(app: Sphinx, config: Config) -> None:
    """Set what must be computed."""
    root = Path(app.srcdir)
    cache = root / "_build" / ".jupyter_cache" / cache_key(root)
    config.nb_execution_cache_path = str(cache)
    config.html_theme_options.update(remote.options(root))
    config.ogp_site_url = remote.site_address(root)
    figures.ask_for_pixels(root)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives, and connect the three."""
    for name, directive in DIRECTIVES.items():
        app.add_directive(name, directive)
    app.connect("source-read", learning_path.add_pieces)
    # Before myst-nb and the theme read their configuration.
    app.connect("config-inited", configure, priority=100)
    app.connect("builder-inited", bring)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
