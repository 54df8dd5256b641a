"""The seconds of the chapters, printed whenever nbval runs them, and other processors.

nbval reports each cell as a test, so the durations are there; this sums them by
notebook. A chapter over a minute is a line of the summary. It fails nothing: how long a
chapter takes depends on the machine and on what else runs there.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

MINUTE = 60.0  # seconds

# A draw of a processor that rounds otherwise: IPython runs the file in each kernel.
DISTURBED = Path(__file__).parents[1] / "tests" / "disturbed.py"
if os.environ.get("METAREC_DISTURB"):
    os.environ["PYTHONSTARTUP"] = str(DISTURBED)

_seconds: defaultdict[str, float] = defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up a notebook's cells; the first one's setup starts the kernel."""
    name = report.nodeid.split("::")[0]
    if name.endswith(".ipynb"):
        _seconds[name] += report.duration


def summary(seconds: dict[str, float]) -> list[str]:
    """Return a line for each chapter, then one for each that takes over a minute."""
    named = sorted(seconds.items())
    lines = [f"{spent:6.1f}  {name}" for name, spent in named]
    return lines + [
        f"OVER A MINUTE: {name} took {spent:.0f} s"
        for name, spent in named
        if spent > MINUTE
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the durations, and the chapters that students wait for."""
    if _seconds:
        terminalreporter.section("seconds a chapter")
        for line in summary(_seconds):
            terminalreporter.line(line)
