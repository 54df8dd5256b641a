"""A part of an assignment: what it asks for, and the checks that it is graded by."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import torch
from classroom.compare import Wrong
from classroom.sandbox import Outcome, isolated_outcome_of, outcome_of

SECONDS = 10.0
"""How long one check may take when an answer is graded."""

SECONDS_AFTER_A_STOP = 2.0
"""How long the next checks of a part may take once one was stopped."""


def grading() -> bool:
    """Tell whether nbgrader runs this notebook, and not a student."""
    return os.environ.get("NBGRADER_EXECUTION") == "autograde"


@dataclass(frozen=True)
class Student:
    """The notebook's names, as its student left them, and a source of random numbers.

    ``student.maml_loss`` is the object of that name; ``Wrong`` if there is none.
    """

    names: dict[str, Any]
    random: torch.Generator

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self.names:
            return self.names[name]
        text = f"there is no `{name}`: was it renamed, or its cell deleted or not run?"
        if close := get_close_matches(name, list(self.names), 1):
            text += f" There is a `{close[0]}`."
        raise Wrong(text)

    def normal(self, *shape: int) -> torch.Tensor:
        """Numbers from a standard normal distribution, float64, of this shape."""
        return torch.randn(*shape, generator=self.random, dtype=torch.float64)

    def integer(self, low: int, high: int) -> int:
        """A number from ``low`` to ``high``, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.random))


@dataclass(frozen=True)
class Check:
    """One thing that is looked at, what it is worth, and how."""

    title: str
    points: float
    run: Callable[[Student], None]


@dataclass(frozen=True)
class Part:
    """A part of an assignment.

    ``reading`` says where the book teaches it. ``given`` holds right versions of pieces
    that other parts ask for: when an answer is graded they take the place of the
    student's, so that one mistake costs the marks of one part.
    """

    name: str
    title: str
    reading: str
    checks: tuple[Check, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def points(self) -> float:
        """What the part is worth with all its checks."""
        return sum(check.points for check in self.checks)

    def with_check(
        self, title: str, points: float, run: Callable[[Student], None]
    ) -> Part:
        """The part with one more check at its end."""
        return replace(self, checks=(*self.checks, Check(title, points, run)))

    def with_given(self, **pieces: Any) -> Part:
        """The part with right versions of what other parts ask for."""
        return replace(self, given={**self.given, **pieces})

    def show(self, names: dict[str, Any]) -> None:
        """Check an answer in the student's own notebook, and print what was found.

        Nothing happens while nbgrader grades: then `score` does it.
        """
        if not grading():
            self._report(names, seed=0, grade=False)

    def score(self, names: dict[str, Any]) -> float:
        """Grade an answer with the instructor's seed: print why, return the points."""
        # The first use imports hundreds of modules: once here, not in every child.
        torch.func.grad(torch.square)(torch.tensor(1.0))
        seed = int(os.environ.get("METAREC_GRADING_SEED", "1"))
        return self._report(names, seed, grade=True)

    def _report(self, names: dict[str, Any], seed: int, grade: bool) -> float:
        print(f"{self.name}. {self.title}")
        total, seconds = 0.0, SECONDS
        for number, check in enumerate(self.checks):
            own_seconds = seconds if grade else None
            outcome = self._outcome(check, names, seed + number, own_seconds)
            if outcome.status == "stopped":
                seconds = SECONDS_AFTER_A_STOP
            earned = check.points if outcome.status == "passed" else 0.0
            total += earned
            mark = {"passed": "ok", "missing": "--"}.get(outcome.status, "no")
            worth = f" ({earned:g} of {check.points:g})" if grade else ""
            print(f"  [{mark}] {check.title}{worth}")
            for line in outcome.message.strip().splitlines():
                print(f"       {line}")
        if total < self.points:
            print(f"  Where to read: {self.reading}")
        if grade:
            print(f"  {total:g} of {self.points:g} points")
        return total

    def _outcome(
        self, check: Check, names: dict[str, Any], seed: int, seconds: float | None
    ) -> Outcome:
        """Run a check; with a limit in ``seconds`` apart, and with what is given."""
        student = Student(names, torch.Generator().manual_seed(seed))
        if seconds is None:
            return outcome_of(lambda: check.run(student))
        own = dict(names)
        names.update(self.given)
        try:
            return isolated_outcome_of(lambda: check.run(student), seconds)
        finally:
            names.clear()
            names.update(own)
