"""A copy of the package without the pieces that an assignment asks for."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable
from pathlib import Path


def withhold(package: Path, target: Path, names: Iterable[str], why: str) -> None:
    """Copy ``package`` to ``target``; the named pieces raise ``NotImplementedError``.

    A name is a function ("metrics.rmse"), a method ("meta.MetaLearner.loss") or a class
    ("meta.MAML": all its methods). Signatures and docstrings stay.

    Raises ``ValueError`` for a name that the package does not define.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__"))
    for name in names:
        file, inside = _file_of(target, name.split("."))
        source = file.read_text(encoding="utf-8")
        file.write_text(without_body(source, inside, why), encoding="utf-8")


def _file_of(package: Path, parts: list[str]) -> tuple[Path, list[str]]:
    """The module that a dotted name is in, and what is left of the name."""
    place = package
    for used, part in enumerate(parts):
        if (place / f"{part}.py").is_file():
            return place / f"{part}.py", parts[used + 1 :]
        place = place / part
    raise ValueError(f"{'.'.join(parts)} is not in a module of {package.name}")


def without_body(source: str, name: list[str], why: str) -> str:
    """The source with one function, or each method of a class, left to be written."""
    body: list[ast.stmt] = ast.parse(source).body
    node: ast.stmt | None = None
    for part in name:
        kinds = (ast.FunctionDef, ast.ClassDef)
        found = [n for n in body if isinstance(n, kinds) and n.name == part]
        if not found:
            raise ValueError(f"there is no {'.'.join(name)} to withhold")
        node, body = found[0], found[0].body
    functions = (
        [node]
        if isinstance(node, ast.FunctionDef)
        else [n for n in body if isinstance(n, ast.FunctionDef)]
    )
    if not functions:
        raise ValueError(f"{'.'.join(name)} has no method to withhold")
    lines = source.split("\n")
    for function in reversed(functions):
        _empty(lines, function, why)
    return "\n".join(lines)


def _empty(lines: list[str], function: ast.FunctionDef, why: str) -> None:
    """Replace a function's statements, but not its docstring, by one that raises."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    start = (first.end_lineno or 0) if documented else first.lineno - 1
    indent = " " * first.col_offset
    raising = f"{indent}raise NotImplementedError({why!r})"
    lines[start : function.end_lineno] = [raising]
