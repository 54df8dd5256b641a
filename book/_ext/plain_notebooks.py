"""The download button gives a plain notebook, and Colab opens the same one.

After the build every chapter under ``_sources`` is replaced by its plain form (see
`plain_cells`), so the theme's own button leads to it. Where the repository is known,
and on GitHub, the theme's button opens the chapter in Colab. Colab reads from
repositories only: the workflow that publishes the site also puts the plain notebooks on
a branch of their own, and the button leads there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from docutils import nodes
from plain_cells import Chapter, plain
from pybtex.database import parse_file
from remote import COLAB, branch, repository
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

if TYPE_CHECKING:
    from metarec_book import Page

BRANCH = "notebooks"
# What the theme writes on the buttons, and what a reader can guess from.
WORDS = {".ipynb": "Notebook", ".md": "Text of this page", ".pdf": "Print or PDF"}


def buttons(page: Page) -> None:
    """Say what the downloads are, and lead Colab to the plain notebooks."""
    for text in page.soup.select(".btn__text-container"):
        word = text.get_text(strip=True)
        text.string = WORDS.get(word, word)
    for button in page.soup.select(".btn-download-source-button"):
        if button["href"].endswith(".ipynb"):
            button["title"] = "Download as a plain notebook"
    for button in page.soup.select(f"a[href^='{COLAB}']"):
        opened = f"/blob/{branch(page.root)}/"
        button["href"] = button["href"].replace(opened, f"/blob/{BRANCH}/")
        button["title"] = "Open the plain notebook in Colab"


def equation_numbers(env: BuildEnvironment) -> dict[str, str]:
    """Label to number, as the pages show them."""
    found: dict[str, str] = {}
    for label, (page, number) in env.get_domain("math").data["objects"].items():
        figures = env.toc_fignumbers.get(page, {}).get("displaymath", {})
        digits = figures.get(nodes.make_id(f"equation-{label}"), ())
        found[label] = ".".join(map(str, digits)) or str(number)
    return found


def write(app: Sphinx) -> None:
    """Put the plain notebooks in the place of the chapters' sources."""
    root = Path(app.srcdir)
    references = parse_file(str(root / "book" / "references.bib"))
    numbers = equation_numbers(app.env)
    address = repository(root)
    for page in sorted(app.env.found_docs):
        source = Path(app.env.doc2path(page))
        if source.suffix == ".ipynb":
            chapter = Chapter(page, references, numbers, address, branch(root))
            notebook = nbformat.read(source, as_version=4)
            target = Path(app.outdir) / "_sources" / f"{page}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(plain(notebook, chapter), target)
