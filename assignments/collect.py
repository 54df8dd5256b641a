"""From a folder of submissions, as they come, to one notebook for each student.

Whatever a student did to the notebook, what nbgrader gets has every cell of the
hand-out exactly once and in order; the student's answers and extra cells stay.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

LARGEST = 20 * 2**20  # bytes; a notebook with more was not made by hand


@dataclass(frozen=True)
class Submission:
    """A student's id, the notebook handed in, and what is wrong with it."""

    student: str
    notebook: Path | None
    problem: str = ""


def find(folder: Path, id: str) -> list[Submission]:
    """Submissions in ``folder``, by student.

    A student is a file ``<student>.ipynb`` or a folder ``<student>/`` with one notebook
    (or one named ``<id>.ipynb``) anywhere inside.

    Raises ``ValueError`` if there is no folder, or nobody in it.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of submissions")
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            found.append(_in_folder(entry, id))
        elif entry.suffix == ".ipynb":
            found.append(Submission(entry.stem, entry))
    if not found:
        raise ValueError(
            f"nobody in {folder}: expected <student>.ipynb or <student>/{id}.ipynb"
        )
    names = [s.student for s in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"more than one submission of {sorted(twice)} in {folder}")
    return found


def _in_folder(entry: Path, id: str) -> Submission:
    notebooks = [
        path
        for path in sorted(entry.rglob("*.ipynb"))
        if ".ipynb_checkpoints" not in path.parts
    ]
    named = [path for path in notebooks if path.stem == id]
    choice = named or notebooks
    if len(choice) == 1:
        return Submission(entry.name, choice[0])
    text = f"{len(choice)} notebooks, one expected" if choice else "no notebook"
    return Submission(entry.name, None, text)


def collect(submission: Submission, release: Path, target: Path) -> str:
    """Write a notebook that can be graded to ``target``; return what was wrong."""
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir(parents=True)
    template = nbformat.read(release, as_version=4)
    notebook, problems = template, [submission.problem]
    if submission.notebook is not None:
        try:
            if submission.notebook.stat().st_size > LARGEST:
                raise ValueError(f"larger than {LARGEST // 2**20} MB")
            given = nbformat.read(submission.notebook, as_version=4)
            notebook, problems = repaired(given, template)
        except Exception as error:
            problems = [f"the notebook cannot be read ({error})"[:300]]
        _copy_data(submission, target.parent)
    nbformat.write(notebook, target)
    return "; ".join(problem for problem in problems if problem)


def _copy_data(submission: Submission, target: Path) -> None:
    """Data files handed in with a notebook come along; code beside it does not."""
    if submission.notebook is None or submission.notebook.parent.name == "":
        return
    if submission.notebook.stem == submission.student:
        return
    for path in submission.notebook.parent.iterdir():
        if path.suffix in {".csv", ".txt"} and path.is_file():
            shutil.copy(path, target / path.name)


def repaired(
    given: NotebookNode, template: NotebookNode
) -> tuple[NotebookNode, list[str]]:
    """The student's notebook with every cell of the template once and in order.

    A cell of the hand-out that is missing comes back as it was handed out; of a
    duplicated one the last that is not as it was handed out is kept as the answer, and
    the others lose their place; locked cells get their own text. The student's other
    cells stay behind the cell that they followed.
    """
    result = nbformat.v4.new_notebook(metadata=template.metadata)
    ids = [cell_id(cell) for cell in template.cells]
    originals = dict(zip(ids, template.cells, strict=True))
    answers: dict[str, NotebookNode] = {}
    followers: dict[str | None, list[NotebookNode]] = {None: []}
    problems = []
    last: str | None = None
    for cell in given.cells:
        id = cell_id(cell)
        if id not in originals:
            followers.setdefault(last, []).append(_plain(cell))
            continue
        if id in answers:
            problems.append(f"cell {id} was there more than once")
            cell = _last_answer(answers[id], cell, originals[id])
        answers[id] = cell
        last = id
    result.cells += followers[None]
    for id, original in originals.items():
        if id not in answers and _is_marked(original):
            problems.append(f"cell {id} was missing and is put back as handed out")
        result.cells.append(_answered(original, answers.get(id)))
        result.cells += followers.get(id, [])
    for number, cell in enumerate(result.cells):
        cell["id"] = f"cell-{number}"
    return result, problems


def cell_id(cell: NotebookNode) -> str:
    """Nbgrader's id of a cell, or the notebook's own where it has none."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id") or cell.get("id", ""))


def _is_marked(cell: NotebookNode) -> bool:
    return "nbgrader" in cell.metadata


def _is_answer(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def _answered(original: NotebookNode, answer: NotebookNode | None) -> NotebookNode:
    """The cell of the hand-out, with the student's text where it asks for one."""
    cell = original.copy()
    cell.metadata = original.metadata.copy()
    if answer is not None and (_is_answer(original) or not _is_marked(original)):
        cell.source = answer.source
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
    return cell


def _last_answer(
    first: NotebookNode, second: NotebookNode, original: NotebookNode
) -> NotebookNode:
    return first if second.source == original.source else second


def _plain(cell: NotebookNode) -> NotebookNode:
    """A student's own cell: no id and no marks of nbgrader's."""
    if cell.cell_type != "code":
        return nbformat.v4.new_markdown_cell(cell.source)
    tags = [t for t in cell.metadata.get("tags", []) if t == "demo"]
    metadata = {"tags": tags} if tags else {}
    return nbformat.v4.new_code_cell(cell.source, metadata=metadata)
