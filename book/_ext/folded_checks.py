"""Folds the cells that only check and publish the numbers of a text.

Such a cell ends in ``glue(...)`` and shows nothing: the number appears in a sentence
below it. A reader wants the sentence, and sometimes the cell. What a later cell in full
view makes use of stays in view as well.
"""

from __future__ import annotations

import ast
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

SHOW = "The numbers of the text below, computed and checked"
HIDE = "Fold the check"


def names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell sets, and those that it takes from cells before it."""
    made, taken = set[str](), set[str]()
    for statement in ast.parse(source).body:
        parts = list(ast.walk(statement))
        inside = {n.arg for n in parts if isinstance(n, ast.arg)}
        for part in parts:
            if isinstance(part, ast.comprehension | ast.For):
                inside |= {n.id for n in ast.walk(part.target) if hasattr(n, "id")}
        found = [n for n in parts if isinstance(n, ast.Name)]
        read = {n.id for n in found if isinstance(n.ctx, ast.Load)}
        taken |= read - inside - made
        made |= {n.id for n in found if isinstance(n.ctx, ast.Store)}
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            made.add(statement.name)
    return made, taken


def foldable(cells: list[tuple[str, bool]]) -> list[bool]:
    """Tell for each cell, given its source and whether it shows something."""
    fold, needed = [], set[str]()
    for source, shows in reversed(cells):
        made, taken = names(source)
        fold.append("glue(" in source and not shows and not made & needed)
        if not fold[-1]:
            needed = needed - made | taken
    return fold[::-1]


def fold_checks(app: Sphinx, doctree: nodes.document) -> None:
    """Mark the cells to fold, as a tag ``hide-input`` would."""
    found = [
        node
        for node in doctree.findall(nodes.container)
        if node.get("nb_element") == "cell_code" and node.children
    ]
    cells = [(node[0].astext(), len(node) > 1) for node in found]
    for node, fold in zip(found, foldable(cells), strict=True):
        if fold and not node.get("hide_mode"):
            node["hide_mode"] = "input"
            node["prompt_show"], node["prompt_hide"] = SHOW, HIDE


def setup(app: Sphinx) -> dict[str, Any]:
    """Look at each page as it is read."""
    app.connect("doctree-read", fold_checks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
