"""The directive ``handout``: an assignment's entry on the page for the class.

What it says is read from the assignment itself, so that page and hand-out agree.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from assignments.course import Assignment

ROOT = Path(__file__).resolve().parents[2]


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
    worth = f"{automatic:g} points" + (f", {written:g} by hand" if written else "")
    read = ", ".join(f"{{doc}}`/{chapter(stem)}`" for stem in task.chapters)
    return [
        f"Read {read}. Then you can:",
        "",
        *(f"- {objective}" for objective in task.objectives),
        "",
        f"{{download}}`Hand-out <handouts/{task.id}.zip>`, {worth}.",
    ]


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


def chapter(stem: str) -> str:
    """The page of a chapter by its stem; ``ValueError`` if there is none."""
    found = list((ROOT / "book").glob(f"*/{stem}.ipynb"))
    if len(found) != 1:
        raise ValueError(f"no chapter {stem!r}")
    return found[0].relative_to(ROOT).with_suffix("").as_posix()


class Handout(SphinxDirective):
    """``{handout} id``: the entry of one assignment."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the entry's Markdown where the directive stands."""
        task = course()[self.arguments[0]]
        source = str(task.source / "assignment.toml")
        self.env.note_dependency(source)
        box = nodes.container(classes=["handout"])
        self.state.nested_parse(StringList(entry(task), source), 0, box)
        return [box]


class Calendar(SphinxDirective):
    """``{calendar}``: which assignment is due in which week, as a table."""

    def run(self) -> list[nodes.Node]:
        """Parse the table's Markdown where the directive stands."""
        lines = ["| week | read | hand out | worth |", "|---|---|---|---|"]
        for task in course().values():
            read = ", ".join(f"{{doc}}`/{chapter(stem)}`" for stem in task.chapters)
            lines.append(
                f"| {task.week} | {read} | {{ref}}`{task.title} <handout-{task.id}>` "
                f"| {sum(points(task)):g} |"
            )
        box = nodes.container(classes=["calendar"])
        self.state.nested_parse(StringList(lines, __file__), 0, box)
        return [box]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the two directives."""
    app.add_directive("handout", Handout)
    app.add_directive("calendar", Calendar)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
