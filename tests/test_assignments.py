"""The assignments grade as they should: right answers, wrong ones and broken files."""

from __future__ import annotations

import ast
import html
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from answers import Answer
from nbclient import NotebookClient
from nbformat import NotebookNode

from assignments.__main__ import main
from assignments.collect import find, repaired
from assignments.course import ROOT, Assignment, assignment, assignments
from assignments.grading import export, feedback, grade
from assignments.handout import make_handout
from assignments.withhold import without_body
from metarec.data import load_movielens_100k

pytestmark = pytest.mark.classroom

IDS = list(assignments())
SEED = 11


def answers(id: str) -> dict[str, dict[str, Answer]]:
    module = import_module(f"answers.{id.replace('-', '_')}")
    return {"wrong": module.WRONG, "unusual": module.UNUSUAL}


@cache
def source(id: str) -> NotebookNode:
    return nbformat.read(assignments()[id].source / f"{id}.ipynb", as_version=4)


def grade_id(cell: NotebookNode) -> str:
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def points(id: str) -> dict[str, float]:
    """What each automatically graded part is worth."""
    return {
        grade_id(cell): cell.metadata.nbgrader.points
        for cell in source(id).cells
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade")
    }


def answered(id: str, answer: Answer) -> NotebookNode:
    """The reference solution with an answer's changes."""
    notebook = nbformat.from_dict(json.loads(json.dumps(source(id))))
    for name in {*answer.cells, *answer.edits}:
        (cell,) = [cell for cell in notebook.cells if grade_id(cell) == name]
        cell.source = answer.cells.get(name, cell.source)
        if name in answer.edits:
            old, new = answer.edits[name]
            assert old in cell.source, f"{name} has no {old!r} to replace"
            cell.source = cell.source.replace(old, new)
    return notebook


@pytest.fixture(scope="session")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("course")


_handouts: dict[str, Path] = {}


@pytest.fixture(params=IDS)
def task(request: pytest.FixtureRequest, course: Path) -> Assignment:
    """An assignment whose hand-out has been made."""
    id = request.param
    if id not in _handouts:
        _handouts[id] = make_handout(assignments()[id], course)
    return assignments()[id]


_results: dict[str, dict[str, dict[str, dict[str, object]]]] = {}


def results(task: Assignment, course: Path) -> dict[str, dict[str, dict[str, object]]]:
    """Scores and texts of all answers to an assignment, and of the reference."""
    if task.id not in _results:
        every = {"reference": Answer()}
        for kind, found in answers(task.id).items():
            every |= {f"{kind}: {name}": answer for name, answer in found.items()}
        cells = {
            name: [
                {"grade_id": grade_id(cell), "source": cell.source}
                for cell in answered(task.id, answer).cells
                if cell.cell_type == "code"
                and "demo" not in cell.metadata.get("tags", [])
            ]
            for name, answer in every.items()
        }
        done = subprocess.run(
            [sys.executable, "-m", "answers.run", str(course), task.id],
            input=json.dumps(cells),
            capture_output=True,
            text=True,
            cwd=ROOT / "tests",
            env={**os.environ, "METAREC_GRADING_SEED": str(SEED)},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        _results[task.id] = json.loads(done.stdout)
    return _results[task.id]


def test_the_reference_solution_gets_full_marks(task: Assignment, course: Path) -> None:
    found = results(task, course)["reference"]
    text = "\n".join(str(part["text"]) for part in found.values())
    assert {name: part["score"] for name, part in found.items()} == points(task.id), (
        text
    )


def test_right_but_unusual_answers_get_full_marks(
    task: Assignment, course: Path
) -> None:
    assert len(answers(task.id)["unusual"]) >= 3
    for name, answer in results(task, course).items():
        if name.startswith("unusual"):
            text = "\n".join(str(part["text"]) for part in answer.values())
            scores = {part: found["score"] for part, found in answer.items()}
            assert scores == points(task.id), f"{name}\n{text}"


def test_wrong_answers_lose_their_part_alone_and_are_told_why(
    task: Assignment, course: Path
) -> None:
    wrong = answers(task.id)["wrong"]
    assert len(wrong) >= 6
    full, complaints = points(task.id), []
    for name, answer in wrong.items():
        assert answer.loses and answer.says, name
        found = results(task, course)[f"wrong: {name}"]
        for part, most in full.items():
            score, text = found[part]["score"], str(found[part]["text"])
            if part not in answer.loses and score != most:
                complaints.append(f"{name} costs marks on {part} too\n{text}")
            elif part in answer.loses and not (
                isinstance(score, float) and score < most
            ):
                complaints.append(f"{name} costs nothing on {part}\n{text}")
            elif part in answer.loses and not re.search(answer.says, text, re.I):
                complaints.append(
                    f"{name}: {part} does not say {answer.says!r}\n{text}"
                )
    assert not complaints, "\n\n".join(complaints)


def test_every_stub_is_its_solution_without_the_body(
    task: Assignment, course: Path
) -> None:
    release = nbformat.read(
        course / "release" / task.id / f"{task.id}.ipynb", as_version=4
    )
    stubs = {grade_id(cell): cell for cell in release.cells if grade_id(cell)}
    solutions = [
        cell
        for cell in source(task.id).cells
        if cell.cell_type == "code"
        and cell.metadata.get("nbgrader", {}).get("solution")
    ]
    assert solutions
    for cell in solutions:
        assert "BEGIN SOLUTION" in cell.source
        stub = stubs[grade_id(cell)].source
        assert "SOLUTION" not in stub
        assert signatures(stub) == signatures(cell.source)
        for function in functions(stub):
            last = function.body[-1]
            assert isinstance(last, ast.Raise), f"{function.name} is done"
            assert "NotImplementedError" in ast.unparse(last)
    texts = "\n".join(cell.source for cell in release.cells)
    assert "hidden" not in texts.lower().replace("hidden tests", "")


def functions(source: str) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]


def signatures(source: str) -> list[tuple[str, str, str | None]]:
    """Name, arguments and docstring of the functions at the top of a cell."""
    return [
        (node.name, ast.unparse(node.args), ast.get_docstring(node))
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
    ]


def test_a_hand_out_holds_no_answer(task: Assignment, course: Path) -> None:
    release = course / "release" / task.id
    assert not (release / "hidden").exists()
    raising = "this piece is what you build"
    for name in task.withheld:
        file, inside = package_file(release / "metarec", name.split("."))
        found = ast.parse(file.read_text(encoding="utf-8"))
        for part in inside:
            (found,) = [n for n in found.body if getattr(n, "name", "") == part]
        nodes = found.body if isinstance(found, ast.ClassDef) else [found]
        for node in nodes:
            if isinstance(node, ast.FunctionDef):
                assert raising in ast.unparse(node.body[-1]), f"{name} is still there"


def package_file(package: Path, parts: list[str]) -> tuple[Path, list[str]]:
    for n in range(len(parts), 0, -1):
        file = package.joinpath(*parts[:n]).with_suffix(".py")
        if file.is_file():
            return file, parts[n:]
    raise AssertionError(f"no module holds {'.'.join(parts)}")


PLUGGED = re.compile(r"""\bplug\(\s*["']([\w.]+)["']""")


def public(name: str) -> bool:
    """Tell whether a dotted name of the package is one that a reader is shown."""
    parts = name.split(".")
    if any(part.startswith("_") for part in parts):
        return False
    for n in range(len(parts) - 1, 0, -1):
        with suppress(ModuleNotFoundError):
            module = import_module(".".join(["metarec", *parts[:n]]))
            return parts[n] in getattr(module, "__all__", vars(module))
    raise AssertionError(f"no module holds {name}")


def test_hand_outs_withhold_and_plug_public_names_alone() -> None:
    assert public("metrics.rmse") and public("meta.MetaLearner.loss")
    assert not public("meta._key") and not public("meta.MetaLearner._theta_0")
    named = {name for task in assignments().values() for name in task.withheld}
    for id in IDS:
        named |= set(PLUGGED.findall("\n".join(c.source for c in source(id).cells)))
    assert len(named) > 30
    assert [name for name in sorted(named) if not public(name)] == []


def test_withholding_keeps_signature_and_docstring_and_refuses_unknown_names() -> None:
    text = (
        'class A:\n    """A."""\n    def f(self):\n        """F."""\n        return x\n'
    )
    emptied = without_body(text, ["A", "f"], "yours")
    expected = ast.parse(text.replace("return x", "raise NotImplementedError('yours')"))
    assert ast.dump(ast.parse(emptied)) == ast.dump(expected)
    assert without_body(text, ["A"], "yours") == emptied
    with pytest.raises(ValueError, match="no g to withhold"):
        without_body(text, ["g"], "yours")
    with pytest.raises(ValueError, match="no assignment"):
        assignment("knitting")


def test_nbgrader_gives_full_marks_to_the_reference_and_none_to_the_untouched(
    task: Assignment, course: Path, tmp_path: Path
) -> None:
    nbformat.write(source(task.id), tmp_path / "reference.ipynb")
    untouched = course / "release" / task.id / f"{task.id}.ipynb"
    shutil.copy(untouched, tmp_path / "untouched.ipynb")
    found = {g.student: g for g in grade(task, tmp_path, course, seed=SEED)}
    automatic = sum(points(task.id).values())
    assert found["reference"].score == automatic
    assert found["untouched"].score == 0
    assert found["reference"].problem == found["untouched"].problem == ""
    errors = {
        output.ename
        for cell in autograded(course, "untouched", task.id).cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    }
    assert errors <= {"NotImplementedError"}


def autograded(course: Path, student: str, id: str) -> NotebookNode:
    path = course / "autograded" / student / id / f"{id}.ipynb"
    return nbformat.read(path, as_version=4)


LOOP = """\
def inner_update(loss, weights, alpha):
    while True:
        try:
            sum(range(10**7))
        except BaseException:
            pass
"""


def broken(folder: Path, release: Path) -> dict[str, set[str]]:
    """Submissions of which something is broken, and the parts that it costs."""
    every = {"part-1", "part-2", "part-3", "part-4"}
    hurt: dict[str, set[str]] = {}

    def submit(student: str, notebook: NotebookNode, *parts: str) -> None:
        nbformat.write(notebook, folder / f"{student}.ipynb")
        hurt[student] = set(parts)

    def with_update(text: str) -> NotebookNode:
        return answered("inner-loop", Answer(cells={"inner-update": text}))

    submit("hangs-in-a-function", with_update(LOOP), "part-1")
    submit("hangs-in-a-cell", with_update("while True:\n    pass"), "part-1")
    submit("raises", with_update("raise RuntimeError('the end')"), "part-1")
    submit("exits", with_update("def inner_update(*_):\n    exit(1)"), "part-1")
    submit(
        "kills-the-process",
        with_update("import os\ndef inner_update(*_):\n    os._exit(1)"),
        "part-1",
    )
    submit("kills-the-kernel", with_update("import os\nos._exit(1)"), *every)
    submit("syntax", with_update("def inner_update(loss, weights alpha):"), "part-1")
    submit(
        "wrong-shape",
        with_update("def inner_update(loss, weights, alpha):\n    return [1, 2]"),
        "part-1",
    )
    submit(
        "warns",
        with_update(
            "import sys, warnings\nwarnings.warn('old')\n"
            + source_of("inner-update").replace(
                "    gradient", "    print('x', file=sys.stderr)\n    gradient", 1
            )
        ),
    )
    renamed = source_of("inner-loop").replace("inner_loop", "inner_loops")
    submit(
        "renamed",
        answered("inner-loop", Answer(cells={"inner-loop": renamed})),
        "part-2",
    )
    deleted = answered("inner-loop", Answer())
    gone = {"setup", "part-1", "inner-loop", "part-2"}
    deleted.cells = [cell for cell in deleted.cells if grade_id(cell) not in gone]
    submit("deletes-cells", deleted, "part-2")
    twice = answered("inner-loop", Answer())
    for id in ("inner-loop", "part-2", "setup"):
        (place,) = [i for i, cell in enumerate(twice.cells) if grade_id(cell) == id]
        twice.cells.insert(place, nbformat.from_dict(dict(twice.cells[place])))
    submit("duplicates-cells", twice)
    tampered = answered("inner-loop", Answer(cells={"inner-update": "pass"}))
    for cell in tampered.cells:
        if grade_id(cell) == "part-1":
            cell.source, cell.metadata.nbgrader.points = "100.0", 100.0
    submit("edits-the-check", tampered, "part-1")
    (folder / "not-a-notebook.ipynb").write_text("{", encoding="utf-8")
    (folder / "empty-folder").mkdir()
    hurt |= {"not-a-notebook": every, "empty-folder": every}
    return hurt


def source_of(id: str) -> str:
    return next(c.source for c in source("inner-loop").cells if grade_id(c) == id)


def test_nothing_that_a_student_hands_in_stops_the_grader(
    course: Path, tmp_path: Path
) -> None:
    task = assignments()["inner-loop"]
    make_handout(task, course)
    full = points(task.id)
    hurt = broken(tmp_path, course / "release" / task.id / f"{task.id}.ipynb")
    found = {
        graded.student: graded
        for graded in grade(task, tmp_path, course, seconds_a_cell=20, seed=SEED)
    }
    assert set(found) == set(hurt)
    marks = export(course, tmp_path / "grades.csv")
    mine = marks[marks["student"].isin(hurt)]
    lost = {
        student: set(rows["part"][rows["points"] < rows["most"]])
        for student, rows in mine.groupby("student")
    }
    assert lost == hurt
    assert len(mine) == len(hurt) * len(full)
    assert "cannot be read" in found["not-a-notebook"].problem
    assert "no notebook" in found["empty-folder"].problem
    assert "missing" in found["deletes-cells"].problem
    assert "more than once" in found["duplicates-cells"].problem
    assert found["raises"].problem == ""

    pages = feedback(task.id, course)
    says = {
        "hangs-in-a-function": "does a loop never end",
        "renamed": "There is a `inner_loops`",
        "wrong-shape": "should be a dictionary and is a list",
        "kills-the-process": "ended the Python process",
        "deletes-cells": "was missing",
    }
    for student, words in says.items():
        page = pages / student / task.id / f"{task.id}.html"
        text = html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))
        assert words in text, f"{student} is not told: {words}"


def test_a_command_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    course = ["--course", str(tmp_path / "course")]
    (tmp_path / "course").mkdir()
    (tmp_path / "none").mkdir()
    assert main([*course, "grade", "inner-loop", str(tmp_path / "none")]) == 1
    assert "make the hand-out" in capsys.readouterr().err
    assert main([*course, "handout", "knitting"]) == 1
    assert "there are " in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"expected <student>.ipynb"):
        find(tmp_path / "none", "inner-loop")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(word in said for word in ("handout", "grade", "feedback", "export"))


def test_a_right_answer_makes_recommendations(task: Assignment, course: Path) -> None:
    """The hand-out with the answers filled in, as a student runs it, demos and all."""
    try:
        load_movielens_100k(progress=False)
    except (OSError, RuntimeError) as error:
        pytest.skip(f"no MovieLens-100K: {error}")
    folder = course / "release" / task.id
    handed_out = nbformat.read(folder / f"{task.id}.ipynb", as_version=4)
    notebook, problems = repaired(source(task.id), handed_out)
    assert problems == []
    NotebookClient(notebook, timeout=120).execute(cwd=folder)
    shown = [
        output
        for cell in notebook.cells
        if "demo" in cell.metadata.get("tags", [])
        for output in cell.outputs
    ]
    assert any("text/html" in output.get("data", {}) for output in shown), "no table"
    checks = [cell for cell in notebook.cells if grade_id(cell) in points(task.id)]
    said = "".join(output.text for cell in checks for output in cell.outputs)
    assert "[ok]" in said and "[no]" not in said and "[--]" not in said


def test_the_untouched_hand_out_says_only_that_it_is_not_done(
    task: Assignment, course: Path
) -> None:
    folder = course / "release" / task.id
    notebook = nbformat.read(folder / f"{task.id}.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=120, allow_errors=True)
    client.execute(cwd=folder)
    errors = [
        (cell.source[:60], output.ename)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error" and output.ename != "NotImplementedError"
    ]
    assert errors == []
