"""The time budget of the chapters, checked whenever nbval runs them.

A chapter may take 60 seconds, and 30 on average over the book. nbval reports each cell
as a test, so the durations are there; this sums them by notebook. A chapter over budget
is run once more, and the smaller time counts.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

CHAPTER, AVERAGE = 60.0, 30.0  # seconds, on two cores

# IPython runs this in each kernel: a processor that rounds otherwise, see the file.
DISTURBED = Path(__file__).parents[1] / "tests" / "disturbed.py"
if os.environ.get("METAREC_DISTURB"):
    os.environ["PYTHONSTARTUP"] = str(DISTURBED)

_seconds: defaultdict[str, float] = defaultdict(float)


def over_budget(seconds: dict[str, float]) -> list[str]:
    """Say which chapters, or their average, are over the budget."""
    found = [
        f"{name} took {spent:.0f} s, the budget is {CHAPTER:.0f} s"
        for name, spent in sorted(seconds.items())
        if spent > CHAPTER
    ]
    if seconds and (average := sum(seconds.values()) / len(seconds)) > AVERAGE:
        found.append(
            f"the average chapter took {average:.0f} s, the budget is {AVERAGE:.0f} s"
        )
    return found


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up a notebook's cells; the first one's setup starts the kernel."""
    name = report.nodeid.split("::")[0]
    if name.endswith(".ipynb"):
        _seconds[name] += report.duration


def run_again(path: Path) -> float:
    """Seconds of one more run, alone: a shared machine can be slow for a while."""
    client = NotebookClient(nbformat.read(path, as_version=4), timeout=120)
    start = time.perf_counter()
    client.execute(cwd=path.parent)
    return time.perf_counter() - start


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that is over budget, on the process that sees all reports."""
    if hasattr(session.config, "workerinput"):
        return
    for name, spent in _seconds.items():
        if spent > CHAPTER:
            _seconds[name] = min(spent, run_again(session.config.rootpath / name))
    if over_budget(_seconds) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the durations, and what is over budget."""
    if not _seconds:
        return
    terminalreporter.section("seconds a chapter")
    for name, spent in sorted(_seconds.items()):
        terminalreporter.line(f"{spent:6.1f}  {name}")
    for line in over_budget(_seconds):
        terminalreporter.line(f"OVER BUDGET: {line}", red=True)
