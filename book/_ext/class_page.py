"""The directives ``handout`` and ``calendar`` of the page for the class.

What they say is read from the assignments and the chapters, so that they all agree.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from docutils import nodes
from learning_path import chapter
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from assignments.course import Assignment

ROOT = Path(__file__).resolve().parents[2]
READING = re.compile(r"\*\*(?:Time:|Reading time)\*\* (\d+) minutes")


def course() -> dict[str, Assignment]:
    """The assignments by id, read from the repository that the book stands in."""
    sys.path.insert(0, str(ROOT))
    try:
        from assignments.course import assignments
    finally:
        sys.path.remove(str(ROOT))
    return assignments()


def entry(task: Assignment) -> list[str]:
    """The Markdown of one assignment: what to read, what is learned, the hand-out."""
    automatic, written = points(task)
    worth = f"{automatic + written:g} points"
    if written:
        worth += f", {written:g} of them marked by hand"
    size = f"zip, {archive(task).stat().st_size / 1000:.0f} kB"
    read = ", ".join(f"{{doc}}`/{chapter(ROOT, stem)}`" for stem in task.chapters)
    return [
        f"Read {read}. In the hand-out you:",
        "",
        *(f"- {objective}" for objective in task.objectives),
        "",
        f"{{download}}`Hand-out of week {task.week} <handouts/{task.id}.zip>` "
        f"({size}), {worth}.",
    ]


def archive(task: Assignment) -> Path:
    """The zip that a student gets; made before the site is built."""
    return ROOT / "book/assignments/handouts" / f"{task.id}.zip"


def points(task: Assignment) -> tuple[float, float]:
    """Points that are graded automatically, and by hand."""
    notebook = nbformat.read(task.source / f"{task.id}.ipynb", as_version=4)
    automatic = written = 0.0
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("grade") and mark.get("solution"):
            written += mark["points"]
        elif mark.get("grade"):
            automatic += mark["points"]
    return automatic, written


def opening(stem: str) -> tuple[str, int]:
    """A chapter's title without what follows its colon, and its minutes of reading."""
    notebook = nbformat.read(ROOT / f"{chapter(ROOT, stem)}.ipynb", as_version=4)
    text = notebook.cells[0].source
    minutes = READING.search(text)
    if not minutes:
        raise ValueError(f"chapter {stem!r} does not say how long it takes to read")
    return text.split("\n")[0].lstrip("# ").partition(":")[0], int(minutes[1])


def week(task: Assignment) -> str:
    """The row of one assignment in the calendar."""
    openings = {stem: opening(stem) for stem in task.chapters}
    read = ", ".join(
        f"{{doc}}`{title} </{chapter(ROOT, stem)}>`"
        for stem, (title, _) in openings.items()
    )
    minutes = sum(time for _, time in openings.values())
    return (
        f"| {task.week} | {read} ({minutes}\N{NO-BREAK SPACE}min) | "
        f"{{ref}}`{task.title} <handout-{task.id}>` | {sum(points(task)):g} |"
    )


class Handout(SphinxDirective):
    """``{handout} id``: the entry of one assignment."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the entry's Markdown where the directive stands."""
        task = course()[self.arguments[0]]
        self.env.note_dependency(str(task.source / "assignment.toml"))
        self.env.note_dependency(str(archive(task)))
        inside = self.parse_text_to_nodes("\n".join(entry(task)))
        return [nodes.container("", *inside, classes=["handout"])]


class Calendar(SphinxDirective):
    """``{calendar}``: which assignment is due in which week, as a table."""

    def run(self) -> list[nodes.Node]:
        """Parse the table's Markdown where the directive stands."""
        lines = ["| week | read | hand-out | points |", "|---|---|---|---|"]
        for task in course().values():
            lines.append(week(task))
            for stem in task.chapters:
                self.env.note_dependency(str(ROOT / f"{chapter(ROOT, stem)}.ipynb"))
        inside = self.parse_text_to_nodes("\n".join(lines))
        return [nodes.container("", *inside, classes=["calendar"])]
