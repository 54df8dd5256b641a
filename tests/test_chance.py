"""Chance levels and ceilings against the enumeration of every order."""

from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from metarec.metrics import (
    chance_ndcg,
    chance_precision,
    dcg,
    ndcg,
    precision,
)

GRADES = [
    [0, 1, 1, 0, 1, 0],
    [5, 4, 4, 1, 3, 2],
    [0, 0, 2, 0, 0, 0],
    [3, 3, 3, 3, 3, 3],
]


def orders(n: int) -> torch.Tensor:
    """All n! rankings, as scores: (n!, n)."""
    return torch.tensor(list(permutations(range(n)))).double()


@pytest.mark.parametrize("k", [1, 3, 6])
def test_precision_is_the_share_of_hits_in_the_list(k: int) -> None:
    rng = np.random.default_rng(0)
    score, relevant = rng.normal(size=(20, 6)), rng.random((20, 6)) < 0.4
    found = precision(torch.tensor(score), torch.tensor(relevant), k)
    for u in range(20):
        best = sorted(range(6), key=lambda i, u=u: -score[u, i])[:k]
        assert found[u].item() == pytest.approx(relevant[u, best].mean())


def test_a_list_longer_than_the_candidates_has_misses() -> None:
    everything = torch.ones(3).bool()
    assert precision(torch.arange(3.0), everything, 5).item() == pytest.approx(0.6)
    assert chance_precision(everything, 5).item() == pytest.approx(0.6)


@pytest.mark.parametrize("grades", GRADES)
@pytest.mark.parametrize("k", [1, 2, 5, 6, 8])
def test_chance_is_the_mean_over_every_order(grades: list[int], k: int) -> None:
    score = orders(6)
    relevance = torch.tensor(grades).double()
    each = relevance.expand(len(score), -1)
    found = chance_ndcg(relevance, k).item()
    assert found == pytest.approx(ndcg(score, each, k).mean().item())
    relevant = relevance > 0
    expected = precision(score, relevant.expand(len(score), -1), k).mean().item()
    assert chance_precision(relevant, k).item() == pytest.approx(expected)


def test_chance_is_what_scikit_learn_gives_to_a_constant() -> None:
    # scikit-learn averages over the orders of equal scores.
    rng = np.random.default_rng(1)
    relevance = rng.integers(0, 6, (50, 12))
    for k in (1, 5, 12):
        found = chance_ndcg(torch.tensor(relevance), k).mean().item()
        expected = ndcg_score(relevance, np.zeros((50, 12)), k=k)
        assert found == pytest.approx(expected)


def test_where_nothing_is_relevant_chance_is_zero() -> None:
    assert chance_ndcg(torch.zeros(2, 4), 3).tolist() == [0, 0]
    assert chance_precision(torch.zeros(4).bool(), 3).item() == 0


def test_half_of_ten_is_chance_one_half_for_both() -> None:
    relevant = torch.arange(10) < 5
    assert chance_precision(relevant, 5).item() == 0.5
    assert chance_ndcg(relevant, 5).item() == pytest.approx(0.5)


def coin_flips(rating: torch.Tensor, n: int) -> torch.Tensor:
    """The relevant set under every way to order the items: (N!, N)."""
    coin = orders(len(rating))
    best = (rating + coin / 100).topk(n).indices
    return torch.zeros_like(coin).scatter_(1, best, 1)


def test_expected_precision_takes_the_coins_out() -> None:
    rating, score = torch.tensor([5.0, 4, 4, 4, 2]), torch.tensor([0.1, 3, 2, 1, 0])
    relevant = coin_flips(rating, 3)
    expected = precision(score.expand(len(relevant), -1), relevant.bool(), 3).mean()
    found = precision(score, relevant.double().mean(0), 3)
    assert found.item() == pytest.approx(expected.item())


def test_the_ideal_has_one_place_for_each_relevant_item() -> None:
    assert dcg(torch.ones(2), 4).item() == pytest.approx(1 + 1 / np.log2(3))
