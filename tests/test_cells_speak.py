"""Chapters that hold the bar of "What a chapter looks like"; the list grows."""

import ast
import re
import statistics

import pytest
from nbformat import NotebookNode, from_dict
from test_book import chapter, made, notebooks, ran
from test_practice import OPTION

HOLD = [
    "book/foundations/matrix-factorization",
    "book/learning-to-learn/meta-sgd",
    "book/the-system/new-items",
    "book/at-scale/scaling",
    "book/at-scale/many-users",
    "book/the-system/published",
]
FOLDED = {"hide-input", "hide-cell", "remove-cell", "remove-input"}
DEFINES = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def silent(cell: NotebookNode) -> bool:
    defines = all(isinstance(n, DEFINES) for n in ast.parse(cell.source).body)
    return not defines and not notebooks.shows(cell)


def faults(notebook: NotebookNode) -> dict[str, bool]:
    texts = [cell.source for cell in notebook.cells]
    end = next((n for n, t in enumerate(texts) if "## Exercises" in t), len(texts))
    code = notebooks.code_cells(NotebookNode(cells=notebook.cells[:end]))
    seen = [c for c in code if not FOLDED & set(c.metadata.get("tags", []))]
    lines = [len([x for x in c.source.split("\n") if x.strip()]) for c in seen]
    # Each guess is followed by one cell whose output is out of sight.
    hidden = [c for c in seen if "hide-output" in c.metadata.get("tags", [])]
    questions = re.split(r"^\*\*\d", "\n".join(texts), flags=re.MULTILINE)[1:]
    options = [[(m[2], m[3]) for m in OPTION.finditer(q)] for q in questions]
    right = [[f[:3] for _, f in some].index("Yes") for some in options]
    sizes = [[len(option) for option, _ in some] for some in options]
    return {
        "silent": sum(map(silent, seen)) > len(seen) / 4,
        "long": statistics.median(lines) > 6 or max(lines) > 20,
        "wide": any(len(x) > 88 for c in code for x in c.source.split("\n")),
        "in sight": "\n".join(texts).count("**Guess.**") != len(hidden),
        "few": len(right) < 4,
        "one place": max(map(right.count, right)) > len(right) / 2,
        "unequal": any(max(some) > 1.35 * min(some) for some in sizes),
    }


@pytest.mark.parametrize("page", HOLD)
def test_a_chapter_holds_the_bar(page: str) -> None:
    assert [name for name, found in faults(chapter(page)).items() if found] == []


def test_each_fault_is_found() -> None:
    text = "**Guess.** How much?\n\n**1. Why?**\n\n```{dropdown} a. So\nNo.\n```\n\n"
    text += "```{dropdown} b. Or else so\nYes.\n```\n"
    guess = {"cell_type": "markdown", "source": text, "metadata": {}, "id": "g"}
    cells = [ran("y = '" + "z" * 90 + "'"), ran("\n".join("a" * 21))]
    assert all(faults(made(*map(from_dict, [guess, *cells]))).values())
