"""The rooms of the package: who may import whom, and what the front door costs."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

import metarec

NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT),
    *(tokenize.DEDENT, tokenize.ENDMARKER),
}
PACKAGE = Path(metarec.__file__).parent
# A module imports only from rooms above its own.
ROOMS = (
    "data features tasks metrics validation plots models learners "
    "factors meta training systems baselines recommender evaluation challenges "
    "scale serve"
).split()


def imports(source: str) -> Iterator[str]:
    """The modules of metarec that a module imports when it runs."""
    tree = ast.parse(source)
    only_for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - only_for_types:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def upward(room: str, source: str) -> list[str]:
    """Rooms that a module of ``room`` may not import."""
    parts = [name.split(".") for name in imports(source)]
    found = {own[1] for own in parts if own[0] == "metarec" and len(own) > 1}
    return sorted(n for n in found if ROOMS.index(n) > ROOMS.index(room))


def modules() -> dict[Path, str]:
    """Each module but the front door, and its room."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE)
        if inside.name != "__init__.py" or len(inside.parts) > 1:
            found[path] = inside.with_suffix("").parts[0]
    return found


def test_every_room_is_in_the_order() -> None:
    assert set(modules().values()) == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_run_one_way(room: str) -> None:
    for path, own in modules().items():
        if own == room:
            assert upward(room, path.read_text(encoding="utf-8")) == [], path


def test_an_arrow_that_runs_back_is_found() -> None:
    source = "def f():\n    from metarec.evaluation.run import x\n"
    assert upward("recommender", source) == ["evaluation"]
    assert upward("scale", source) == []


def code_lines(source: str) -> int:
    """Lines of code: blank lines, comments and docstrings apart."""
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documentation |= set(range(node.lineno, (node.end_lineno or 0) + 1))
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            found |= set(range(token.start[0], token.end[0] + 1))
    return len(found - documentation)


def test_the_package_is_small_and_no_module_is_long() -> None:
    files = PACKAGE.rglob("*.py")
    size = {path: code_lines(path.read_text(encoding="utf-8")) for path in files}
    assert sum(size.values()) <= 4750
    assert {path.name: n for path, n in size.items() if n > 300} == {}


def test_only_code_is_counted() -> None:
    assert code_lines('"""A.\n\nB."""\n\nx = [\n    1,  # why\n]\n# C\n') == 3


def loaded(statement: str) -> set[str]:
    """What a fresh Python has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_front_door_loads_what_is_asked_for() -> None:
    assert not loaded("import metarec") & {"torch", "pandas", "matplotlib"}
    assert not loaded("from metarec import read_csv") & {"torch", "matplotlib"}
    found = loaded("from metarec import MetaRecommender")
    assert not found & {"matplotlib", "metarec.evaluation", "metarec.plots"}
    assert "matplotlib" not in loaded("from metarec import Leaderboard, run_methods")


def test_every_name_at_the_front_door_is_there() -> None:
    for name in dir(metarec):
        assert getattr(metarec, name) is not None
    from metarec.recommender import MetaRecommender

    assert metarec.MetaRecommender is MetaRecommender
    with pytest.raises(AttributeError, match="no attribute 'Recommender'"):
        metarec.Recommender  # noqa: B018


def test_types_are_published() -> None:
    assert (resources.files("metarec") / "py.typed").is_file()
