"""Grade collected notebooks with nbgrader, each in a process that can be stopped."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from nbgrader.api import Gradebook, MissingEntry, SubmittedAssignment

from assignments.collect import Submission, collect, find
from assignments.command import NbgraderError, nbgrader
from assignments.course import Assignment

SECONDS = 180  # for one notebook
SECONDS_A_CELL = 60


@dataclass(frozen=True)
class Graded:
    """A student, the points, the most there are, and what was wrong with the file."""

    student: str
    score: float
    most: float
    problem: str = ""


def seed_of(course: Path, seed: int | None = None) -> int:
    """The seed of the hidden checks, kept in seed.txt so that grades can be repeated.

    The first use draws one; a ``seed`` that is given replaces it.
    """
    file = course / "seed.txt"
    if seed is not None or not file.exists():
        seed = secrets.randbelow(10**9) if seed is None else seed
        file.write_text(f"{seed}\n", encoding="utf-8")
    return int(file.read_text(encoding="utf-8"))


def grade(
    task: Assignment,
    folder: Path,
    course: Path,
    processes: int = 2,
    seconds: float = SECONDS,
    seconds_a_cell: int = SECONDS_A_CELL,
    seed: int | None = None,
) -> Iterator[Graded]:
    """Grade each submission in ``folder``; yield the results as they come.

    Raises ``ValueError`` if the hand-out was never made or nobody handed in.
    """
    release = course / "release" / task.id / f"{task.id}.ipynb"
    if not release.exists():
        raise ValueError(f"make the hand-out of {task.id!r} before you grade it")
    submissions = find(folder, task.id)
    seed_of(course, seed)

    def one(submission: Submission) -> Graded:
        target = course / "submitted" / submission.student / task.id
        notebook = target / f"{task.id}.ipynb"
        problem = collect(submission, release, notebook)
        command = ["autograde", task.id, "--create", "--force"]
        command.append(f"--student={submission.student}")
        command.append(f"--Execute.timeout={seconds_a_cell}")
        try:
            nbgrader(course, *command, seconds=seconds)
        except NbgraderError as error:
            # What cannot be graded is graded as if nothing had been written.
            problem = "; ".join(filter(None, [problem, str(error)[-300:]]))
            shutil.copy(release, notebook)
            nbgrader(course, *command, seconds=seconds)
        if problem:
            _comment(course, task.id, submission.student, problem)
        return _result(course, task.id, submission.student, problem)

    def each() -> Iterator[Graded]:
        with ThreadPoolExecutor(processes) as pool:
            yield from pool.map(one, submissions)

    return each()


def gradebook(course: Path) -> Gradebook:
    """Nbgrader's database of the course."""
    return Gradebook(f"sqlite:///{course / 'gradebook.db'}", "metarec")


def _result(course: Path, id: str, student: str, problem: str) -> Graded:
    with gradebook(course) as book:
        try:
            found = book.find_submission(id, student)
        except MissingEntry:
            return Graded(student, 0.0, 0.0, problem or "nbgrader refused it")
        return Graded(student, float(found.score), float(found.max_score), problem)


def _comment(course: Path, id: str, student: str, problem: str) -> None:
    """Say in the student's feedback what was wrong with the file."""
    with gradebook(course) as book:
        try:
            notebook = book.find_submission_notebook(id, id, student)
        except MissingEntry:
            return
        for comment in notebook.comments[:1]:
            comment.manual_comment = f"About the file that you handed in: {problem}."
        book.db.commit()


def feedback(id: str, course: Path) -> Path:
    """Write each graded notebook as a page for its student; return their folder.

    Raises ``NbgraderError`` with nbgrader's own words if it refuses.
    """
    nbgrader(course, "generate_feedback", id, "--force")
    return course / "feedback"


def export(course: Path, target: Path) -> pd.DataFrame:
    """Write the marks of every student, by part, to a CSV file, and return them.

    Columns: student, assignment, part, points, most, needs_a_reader (a written answer
    that nobody has marked yet). Written aside, then renamed: a full disk loses nothing.
    """
    rows = []
    with gradebook(course) as book:
        for submission in book.db.query(SubmittedAssignment).all():
            rows += [
                (
                    submission.student.id,
                    submission.assignment.name,
                    grade.name,
                    float(grade.score),
                    float(grade.max_score),
                    bool(grade.needs_manual_grade),
                )
                for notebook in submission.notebooks
                for grade in notebook.grades
            ]
    columns = ["student", "assignment", "part", "points", "most", "needs_a_reader"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.sort_values(columns[:3], ignore_index=True)
    aside = target.with_name(f"{target.name}.partial")
    table.to_csv(aside, index=False)
    aside.replace(target)
    return table
