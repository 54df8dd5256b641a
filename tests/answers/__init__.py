"""Answers that students give: wrong ones by name, and right but unusual ones."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """An answer as a change of the reference solution.

    ``cells`` gives solution cells a new source, by their grade id; ``edits`` replaces
    text in them. A wrong answer ``loses`` marks on these parts and on no other, and the
    feedback there ``says`` what is wrong (a regular expression, any case).
    """

    cells: dict[str, str] = field(default_factory=dict)
    edits: dict[str, tuple[str, str]] = field(default_factory=dict)
    loses: tuple[str, ...] = ()
    says: str = ""
