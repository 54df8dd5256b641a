"""Where a chapter stands in the book, and what has been built by then.

The parts, their order and their chapters are read from the table of contents, the
titles from the chapters, so that nothing here can disagree with the book.

``{learning-path}`` draws the map of all chapters. Its body has one line a part:
``Caption: what it is about``. Only parts that are named there are on the map. Above the
title of each chapter stands its place on the path. Near its end stands a folded list:
what it builds (its notebook's metadata, ``metarec.builds``), then what the chapters
before it have built, each a link to its entry in the API reference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from metarec_book import Page

# The list of pieces stands before this section, or at the end of the page.
BEFORE = "## Further reading"
FACTORY = BeautifulSoup("", "html.parser")


def parts(root: Path) -> dict[str, list[str]]:
    """Caption to chapters, for the parts that have chapters to work through."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    for part in toc.get("parts", []):
        files = [entry["file"] for entry in part["chapters"]]
        if all((root / f"{file}.ipynb").exists() for file in files):
            found[part["caption"]] = files
    return found


def chapters(root: Path) -> list[str]:
    """All chapters, in the order of the book."""
    return [chapter for files in parts(root).values() for chapter in files]


def chapter(root: Path, stem: str) -> str:
    """The page of a chapter by its file's name; ``ValueError`` if there is none."""
    found = [*(root / "book").glob(f"*/{stem}.ipynb")]
    if len(found) != 1:
        raise ValueError(f"there is no chapter {stem!r}")
    return found[0].relative_to(root).with_suffix("").as_posix()


class LearningPath(SphinxDirective):
    """``{learning-path}``: the map, as a list of parts, each with its chapters."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Parse the list's Markdown where the directive stands."""
        said = [line.partition(":") for line in self.content]
        about = {caption.strip(): text.strip() for caption, _, text in said if text}
        toc = Path(self.env.srcdir) / "_toc.yml"
        self.env.note_dependency(str(toc))
        book = parts(toc.parent)
        if unknown := set(about) - set(book):
            raise self.error(f"learning-path: no part {', '.join(sorted(unknown))}")
        lines = []
        for caption in filter(about.__contains__, book):
            lines.append(f"1. **{caption}** {about[caption]}")
            lines += [f"   1. {{doc}}`/{file}`" for file in book[caption]]
        inside = self.parse_text_to_nodes("\n".join(lines))
        return [nodes.container("", *inside, classes=["path"])]


def stations(page: Page) -> None:
    """Give the map its structure: a part is a line, a chapter a numbered station."""
    for box in page.article.select("div.path"):
        box.name, box["aria-label"], box["class"] = "nav", "Learning path", "path"
        for at, line in enumerate(box.select(":scope > ol > li"), start=1):
            line["class"] = f"path-line part-{at}"
            line.p["class"], line.ol["class"] = "path-name", "path-stations"
        for number, link in enumerate(box.select(".path-stations a"), start=1):
            link.span["class"] = "path-title"
            ring = FACTORY.new_tag("span", attrs={"class": "path-number"})
            ring.string = str(number)
            link.insert(0, ring)
            link.parent.unwrap()  # a paragraph


def place(page: Page) -> None:
    """Say above a chapter's title which part it is in, and how far along the path."""
    book = chapters(page.root)
    for at, (part, files) in enumerate(parts(page.root).items(), start=1):
        if page.name in files:
            above = FACTORY.new_tag("p", attrs={"class": f"eyebrow part-{at}"})
            caption = FACTORY.new_tag("span", attrs={"class": "eyebrow__part"})
            caption.string = part
            number = book.index(page.name) + 1
            above.extend([caption, f" Chapter {number} of {len(book)}"])
            page.article.insert(0, above)


def sidebar(page: Page) -> None:
    """Give the captions in the sidebar the class of their part, and arrows a name."""
    number = {caption: at for at, caption in enumerate(parts(page.root), start=1)}
    for caption in page.soup.select("nav.bd-links p.caption"):
        if at := number.get(caption.get_text(strip=True)):
            caption["class"] = ["caption", f"part-{at}"]
    # The arrow that unfolds a chapter's own pages has no text.
    for arrow in page.soup.select("nav.bd-links summary"):
        arrow["aria-label"] = "Pages below"


def builds(root: Path, page: str) -> list[str]:
    """The full names that a chapter builds."""
    notebook = json.loads((root / f"{page}.ipynb").read_text(encoding="utf-8"))
    return list(notebook["metadata"].get("metarec", {}).get("builds", []))


def built_so_far(root: Path, page: str) -> list[tuple[str, list[str]]]:
    """The chapter and its pieces, then the chapters before it that built some."""
    book = chapters(root)
    if page not in book:
        return []
    order = [page, *book[: book.index(page)]]
    return [(chapter, names) for chapter in order if (names := builds(root, chapter))]


def pieces(page: str, found: list[tuple[str, list[str]]]) -> str:
    """The Markdown of the folded list."""
    number = sum(len(names) for _, names in found)
    title = f"Pieces of metarec built so far: {number}"
    lines = [f":::{{dropdown}} {title}", ":class-container: pieces", ""]
    for chapter, names in found:
        short = [(name.removeprefix("metarec."), name) for name in names]
        links = ", ".join(f"{{py:obj}}`{text} <{name}>`" for text, name in short)
        term = "In this chapter" if chapter == page else f"{{doc}}`/{chapter}`"
        lines += [term, f": {links}", ""]
    return "\n".join([*lines, ":::"])


def add_pieces(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the list into a chapter that is read."""
    root = Path(app.srcdir)
    found = built_so_far(root, page)
    if not found:
        return
    for chapter, _ in found:
        app.env.note_dependency(str(root / f"{chapter}.ipynb"))
    notebook = json.loads(source[0])
    texts = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    at = next((cell for cell in texts if BEFORE in "".join(cell["source"])), texts[-1])
    before, heading, after = "".join(at["source"]).partition(BEFORE)
    at["source"] = f"{before}\n\n{pieces(page, found)}\n\n{heading}{after}"
    source[0] = json.dumps(notebook)
