"""Populations that several test modules share, and one thread for all of them."""

import pytest
import torch

from metarec.data import RatingData, SyntheticTruth, synthetic_population

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def population() -> tuple[RatingData, SyntheticTruth]:
    """Users with known tastes: 200 of them, 30 ratings each."""
    return synthetic_population(n_users=200, n_items=80, dim=2, seed=3)


@pytest.fixture(scope="session")
def data(population: tuple[RatingData, SyntheticTruth]) -> RatingData:
    return population[0]
