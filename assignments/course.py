"""What the course consists of: its assignments, as each one's assignment.toml says."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Assignment:
    """One assignment: its id, its place in the calendar, and what is withheld.

    ``withheld`` names the pieces that the hand-out's copy of the package lacks;
    ``own_files`` says that students hand in data files beside the notebook.
    """

    id: str
    title: str
    week: int
    chapters: tuple[str, ...]
    objectives: tuple[str, ...]
    withheld: tuple[str, ...]
    own_files: bool = False

    @property
    def source(self) -> Path:
        """The folder with the notebook that holds the reference solution."""
        return HERE / "source" / self.id


@cache
def assignments() -> dict[str, Assignment]:
    """The assignments by id, in the order of the calendar."""
    found = []
    for file in (HERE / "source").glob("*/assignment.toml"):
        entry = tomllib.loads(file.read_text(encoding="utf-8"))
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in entry.items()
        }
        found.append(Assignment(id=file.parent.name, **fields))
    return {task.id: task for task in sorted(found, key=lambda task: task.week)}


def assignment(id: str) -> Assignment:
    """The assignment of that id; ``ValueError`` lists the ids there are."""
    if id not in assignments():
        raise ValueError(f"no assignment {id!r}; there are {', '.join(assignments())}")
    return assignments()[id]
