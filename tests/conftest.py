"""Populations that several test modules share, and one thread for all of them."""

import pytest
import torch

from metarec.data import RatingData, SyntheticTruth, synthetic_population

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests on one worker, and so an assignment's, for their fixtures."""
    for item in items:
        task = getattr(item, "callspec", None)
        group = item.path.name
        if group == "test_assignments.py" and task is not None:
            group = str(task.params.get("task", group))
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def population() -> tuple[RatingData, SyntheticTruth]:
    """Users with known tastes: 200 of them, 30 ratings each."""
    return synthetic_population(n_users=200, n_items=80, dim=2, seed=3)


@pytest.fixture(scope="session")
def data(population: tuple[RatingData, SyntheticTruth]) -> RatingData:
    return population[0]
