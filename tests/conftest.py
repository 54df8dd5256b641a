"""Populations that several test modules share, and one thread for all of them."""

from collections.abc import Iterator

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
