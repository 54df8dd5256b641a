"""Populations that several test modules share, one thread, and no write elsewhere."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from metarec.data import RatingData, SyntheticTruth, synthetic_population

torch.set_num_threads(1)


class ByFixtures(LoadScopeScheduling):
    """Keep a file's tests on one worker, but each assignment's apart."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        if file.endswith("test_assignments.py") and "[" in test:
            return test.partition("[")[2]
        return file


def pytest_xdist_make_scheduler(
    config: pytest.Config, log: object
) -> LoadScopeScheduling:
    """Tests of one file share fixtures that take long to make."""
    return ByFixtures(config, log)


# A test that asks for one of these reads the built site.
OF_THE_SITE = {"site", "server", "browser"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the built site, so that a loop without a book leaves it out."""
    for item in items:
        if OF_THE_SITE & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.site)


# Tests that may leave something: in the cache of data sets, or where the site is built.
ELSEWHERE = {"slow", "site", "classroom", "benchmark"}
# What Python and the tools of testing keep for themselves.
KEPT = {"__pycache__", ".pytest_cache", ".hypothesis"}
PASSING, ROOT = (
    Path(tempfile.gettempdir()).resolve(),
    Path(__file__).resolve().parents[1],
)
CHANGES = ("os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate")
guarded = False


def writes(event: str, arguments: tuple[object, ...]) -> Path | None:
    """The path that an audited event writes to, if it writes."""
    path = arguments[0] if arguments else None
    if event in CHANGES:
        path = arguments[event in ("os.rename", "os.link", "os.symlink")]
    elif event != "open" or not int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):  # type: ignore[call-overload]
        return None
    return Path(os.fsdecode(path)).resolve() if isinstance(path, str | bytes) else None


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse what a test writes outside the folders for passing things."""
    if not guarded or (path := writes(event, arguments)) is None:
        return
    own = path.is_relative_to(PASSING) and not path.is_relative_to(ROOT)
    if not own and not KEPT & set(path.parts) and path != Path(os.devnull):
        raise PermissionError(f"a test writes outside its own folder: {path}")


sys.addaudithook(watch)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Watch while a test runs, unless its mark says that it may write elsewhere."""
    global guarded
    guarded = not ELSEWHERE & {mark.name for mark in item.iter_markers()}
    try:
        return (yield)
    finally:
        guarded = False


@pytest.fixture(autouse=True)
def style() -> Iterator[None]:
    """What a test sets for its figures does not reach the next test."""
    with mpl.rc_context():
        yield


@pytest.fixture(scope="session")
def population() -> tuple[RatingData, SyntheticTruth]:
    """Users with known tastes: 200 of them, 30 ratings each."""
    return synthetic_population(n_users=200, n_items=80, dim=2, seed=3)


@pytest.fixture(scope="session")
def data(population: tuple[RatingData, SyntheticTruth]) -> RatingData:
    return population[0]
