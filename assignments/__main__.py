"""The instructor's four commands: handout, grade, feedback, export."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from assignments.course import HERE, assignment, assignments


def main(arguments: list[str] | None = None) -> int:
    """Run one command; print what it made, or what is wrong and what to do."""
    options = parser().parse_args(arguments)
    course = options.course.resolve()
    try:
        options.run(options, course)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="python -m assignments",
        description="Hand out, grade, comment and export the course's assignments.",
    )
    top.add_argument(
        "--course",
        type=Path,
        default=HERE,
        metavar="FOLDER",
        help="where hand-outs, submissions and the gradebook are kept "
        "(default: the folder assignments/ itself)",
    )
    commands = top.add_subparsers(title="commands", required=True)
    known = ", ".join(assignments())

    handout = commands.add_parser("handout", help="make what students get, as a zip")
    handout.add_argument("id", nargs="*", help=f"one of {known}; all if none is given")
    handout.set_defaults(run=_handout)

    grade = commands.add_parser("grade", help="grade a folder of submissions")
    grade.add_argument("id", help=f"one of {known}")
    grade.add_argument(
        "folder", type=Path, help="<student>.ipynb or <student>/ID.ipynb"
    )
    grade.add_argument(
        "--seed", type=int, help="of the hidden checks; kept in seed.txt"
    )
    grade.add_argument("--processes", type=int, default=2, help="at a time (default 2)")
    grade.set_defaults(run=_grade)

    feedback = commands.add_parser("feedback", help="write a page for each student")
    feedback.add_argument("id", help=f"one of {known}")
    feedback.set_defaults(run=_feedback)

    export = commands.add_parser("export", help="write all marks to a CSV file")
    export.add_argument(
        "--to", type=Path, help="the file (default: grades.csv in the course's folder)"
    )
    export.set_defaults(run=_export)
    return top


def _handout(options: argparse.Namespace, course: Path) -> None:
    from assignments.handout import make_handout

    chosen = [assignment(id) for id in options.id] or list(assignments().values())
    for task in tqdm(chosen, desc="hand-outs", disable=None):
        tqdm.write(f"{task.title}: {make_handout(task, course)}")


def _grade(options: argparse.Namespace, course: Path) -> None:
    from assignments.collect import find
    from assignments.grading import grade

    task = assignment(options.id)
    results = grade(task, options.folder, course, options.processes, seed=options.seed)
    total = len(find(options.folder, task.id))
    for graded in tqdm(results, desc="grading", total=total, disable=None):
        note = f"   ({graded.problem})" if graded.problem else ""
        tqdm.write(f"{graded.student:30} {graded.score:g} of {graded.most:g}{note}")
    print(f"Next: python -m assignments feedback {task.id}")


def _feedback(options: argparse.Namespace, course: Path) -> None:
    from assignments.grading import feedback

    folder = feedback(assignment(options.id).id, course)
    print(f"Feedback: {folder}, one folder for each student")


def _export(options: argparse.Namespace, course: Path) -> None:
    from assignments.grading import export

    target = options.to or course / "grades.csv"
    table = export(course, target)
    print(f"{len(table)} marks of {table['student'].nunique()} students: {target}")


if __name__ == "__main__":
    sys.exit(main())
