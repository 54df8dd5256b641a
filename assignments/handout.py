"""From an assignment with its solution to what a student gets."""

from __future__ import annotations

import shutil
import tomllib
import zipfile
from pathlib import Path

from assignments.command import nbgrader
from assignments.course import HERE, ROOT, Assignment
from assignments.withhold import withhold

_PACKED = zipfile.ZIP_DEFLATED

# Beside what the package needs, a student needs somewhere to open the notebook.
NOTEBOOK = ["jupyterlab", "ipykernel"]

README = """# {title}

1. Make an environment: `python3 -m venv .venv`, then
   `.venv/bin/pip install -r requirements.txt` (Windows: `.venv\\Scripts\\pip`).
2. Open the notebook: `.venv/bin/jupyter lab {id}.ipynb`.
3. Fill in the cells that raise `NotImplementedError`. Below each is a cell that checks
   your answer and says what is wrong. More checks run when the answer is graded: on
   other numbers and shapes, and on the cases at the edge that the notebook names.
4. Before you hand in: restart the kernel, run all cells, save. Hand in `{id}.ipynb`
   alone{extra}.

Keep the names of the functions and do not delete cells; add as many as you like.
The folder `metarec` is the course's package without what you build here. Chapters to
read first: {chapters}.
"""


def prepare(task: Assignment, course: Path) -> None:
    """Put the source, its checks and the package without its answer into a course.

    In the course's own folder the notebook and its checks are there already.
    """
    target = course / "source" / task.id
    if target != task.source:
        shutil.rmtree(target, ignore_errors=True)
        own = shutil.ignore_patterns("metarec", "classroom", "__pycache__")
        shutil.copytree(task.source, target, ignore=own)
        shutil.copy(HERE / "nbgrader_config.py", course)
        _renew(HERE / "hidden", course / "hidden")
        _renew(HERE / "classroom", course / "classroom")
    _renew(HERE / "classroom", target / "classroom")
    why = f"this piece is what you build in the assignment {task.title!r}"
    withhold(ROOT / "metarec", target / "metarec", task.withheld, why)
    (target / "README.md").write_text(_readme(task), encoding="utf-8")
    (target / "requirements.txt").write_text(requirements(), encoding="utf-8")


def make_handout(task: Assignment, course: Path) -> Path:
    """Make ``release/<id>`` and a zip of it with nbgrader; return the zip.

    Raises ``NbgraderError`` with nbgrader's own words if it refuses.
    """
    course.mkdir(parents=True, exist_ok=True)
    prepare(task, course)
    nbgrader(course, "generate_assignment", task.id, "--create", "--force")
    release = course / "release" / task.id
    return _zip(release)


def requirements() -> str:
    """What a student installs: the package's dependencies, and Jupyter."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        needed = tomllib.load(file)["project"]["dependencies"]
    return "\n".join([*needed, *NOTEBOOK]) + "\n"


def _zip(folder: Path) -> Path:
    """Zip a folder, the same bytes for the same files."""
    target = folder.with_suffix(".zip")
    aside = folder.with_suffix(".zip.partial")
    with zipfile.ZipFile(aside, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(folder.parent).as_posix()
                archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), _PACKED)
    aside.replace(target)
    return target


def _renew(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def _readme(task: Assignment) -> str:
    extra = ", with your data file if it is not MovieLens" if task.own_files else ""
    chapters = ", ".join(task.chapters)
    return README.format(id=task.id, title=task.title, extra=extra, chapters=chapters)
