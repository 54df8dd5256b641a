"""Whole stars: what is exactly at a threshold, and what shares its place."""

import numpy as np
import pandas as pd
import pytest
import torch

from metarec.data import RatingData, rating_data
from metarec.evaluation import rank_catalogue
from metarec.factors import ItemMean, lift_vectors
from metarec.models import Bernoulli, Softmax
from metarec.tasks import UserHistories


@pytest.fixture(scope="module")
def stars(data: RatingData) -> RatingData:
    """The shared population, whose users give 1, 2, 3, 4 or 5 stars."""
    whole = data.ratings.assign(rating=data.ratings["rating"].round().clip(1, 5))
    return rating_data(whole, scale=data.scale, users=data.users, items=data.items)


@pytest.fixture(scope="module")
def histories(stars: RatingData) -> UserHistories:
    return UserHistories(stars)


def likes(histories: UserHistories, user: int, rows: slice) -> list[int]:
    """Items that a user gave four stars or five, among these of their ratings."""
    _, item, rating = histories.ratings_of(torch.tensor([user]))
    item, rating = item[rows], rating[rows]
    four = rating == 4
    assert set(rating.tolist()) <= {1, 2, 3, 4, 5}
    return sorted(item[four | (rating == 5)].tolist())


def test_many_ratings_stand_exactly_at_the_threshold(stars: RatingData) -> None:
    assert (stars.ratings["rating"] == stars.scale.like).mean() > 0.15


def test_four_stars_are_relevant_in_the_ranking(histories: UserHistories) -> None:
    users = torch.arange(150, 200)
    model = ItemMean.fit(histories, torch.arange(150))
    table = rank_catalogue(model, histories, users, sizes=(0, 5), at=10)
    assert table.index.tolist() == list(range(len(table)))
    assert set(table["k"]) == {0, 5}
    for row in table.itertuples():
        assert row.n_relevant == len(likes(histories, row.user, slice(row.k, None)))


def test_four_stars_are_likes_of_a_list(histories: UserHistories) -> None:
    users = torch.arange(20)
    tasks = histories.tasks(users, 6, 6)
    softmax, n = Softmax(histories.scale.like), histories.n_items
    support = softmax.read(tasks.support, n)
    query = softmax.read(tasks.query, n, tasks.support)
    zeros_and_ones = histories.likes().tasks(users, 6, 6).support
    for row in range(20):
        early = likes(histories, row, slice(6))
        late = likes(histories, row, slice(6, None))
        assert support.y[row].nonzero()[:, 0].tolist() == early
        assert query.y[row].nonzero()[:, 0].tolist() == late
        marked = zeros_and_ones.x[row][zeros_and_ones.y[row] == 1]
        assert sorted(marked.tolist()) == early
    assert set(zeros_and_ones.y.unique().tolist()) == {0, 1}
    clicks = Bernoulli(histories.scale.like).read(tasks.support, n)
    assert torch.equal(clicks.y, zeros_and_ones.y)


def test_a_list_starts_at_the_logarithm_of_its_likes(
    stars: RatingData, histories: UserHistories
) -> None:
    start = lift_vectors(histories, torch.arange(150), dim=4)
    own = stars.ratings[stars.ratings["user"] < 150]
    count = np.bincount(own["item"][own["rating"].isin([4, 5])], minlength=80)
    torch.testing.assert_close(start.offset, torch.tensor(np.log(count + 0.5)).float())


def lifts(stars: RatingData) -> np.ndarray:
    """Who rated the row's item likes the column's how much oftener than by chance."""
    own = stars.ratings[stars.ratings["user"] < 150]
    rated = pd.crosstab(own["user"], own["item"]).reindex(columns=range(80))
    rated = rated.fillna(0).to_numpy(float)
    liked = np.zeros_like(rated)
    at = own["rating"] >= 4
    liked[own["user"][at], own["item"][at]] = 1
    chance = rated.sum(0)[:, None] * liked.sum(0) / 150
    return np.log((rated.T @ liked + 20) / (chance + 20))


def test_the_start_of_a_list_counts_who_meets_whom(
    stars: RatingData, histories: UserHistories
) -> None:
    """Item vectors are the best factors of rank dim of the shrunk log-lift."""
    start, lift = lift_vectors(histories, torch.arange(150), dim=80), lifts(stars)
    value, vector = np.linalg.eigh((lift + lift.T) / 2)
    expected = vector * value.clip(0) @ vector.T
    q = start.factors.double().numpy()
    np.testing.assert_allclose(q @ q.T, expected, atol=1e-5)
    few = lift_vectors(histories, torch.arange(150), dim=3).factors.double().numpy()
    best = vector[:, -3:] * value[-3:] @ vector[:, -3:].T
    np.testing.assert_allclose(few @ few.T, best, atol=1e-5)


def test_items_beyond_those_whose_pairs_are_counted_come_near_to_their_row(
    stars: RatingData, histories: UserHistories, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, lift = stars.ratings[stars.ratings["user"] < 150], lifts(stars)
    count = np.bincount(own["item"], minlength=80)
    by_count = (-count).argsort()
    falls = (np.diff(count[by_count]) < 0).nonzero()[0] + 1  # no tie at the border
    paired = int(falls[falls >= 40][0])
    most, rest = by_count[:paired], by_count[paired:]
    monkeypatch.setattr("metarec.factors.warm_start.PAIRED", paired)
    q = lift_vectors(histories, torch.arange(150), dim=3).factors.double().numpy()
    square = lift[np.ix_(most, most)]
    value, vector = np.linalg.eigh((square + square.T) / 2)
    best = vector[:, -3:] * value[-3:] @ vector[:, -3:].T
    np.testing.assert_allclose(q[most] @ q[most].T, best, atol=1e-5)
    nearest = np.linalg.lstsq(q[most], lift[np.ix_(rest, most)].T)[0].T
    np.testing.assert_allclose(q[rest], nearest, atol=1e-5)
    assert np.abs(q[rest]).max() > 0.1
