"""The rivals for lists against scikit-learn and slow loops."""

from copy import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor

from metarec.baselines import BesidePopularity
from metarec.baselines.lists import cosine, ease, implicit_als, lift
from metarec.data import RatingData, clicks
from metarec.evaluation import Fold, Protocol, check_no_leak, fitted, rank_catalogue
from metarec.evaluation.methods import CLICKS, LISTS, list_rival
from metarec.factors import ItemMean
from metarec.systems import System
from metarec.tasks import Examples, LeakageError
from metarec.validation import Predictor

USERS = torch.arange(150)


@pytest.fixture(scope="module")
def tables(data: RatingData) -> tuple[Tensor, Tensor]:
    """What training users rated, and what they liked, by a loop over ratings."""
    rated, liked = np.zeros((2, len(USERS), data.n_items), dtype=np.float32)
    for row in data.ratings.itertuples():
        if row.user < len(USERS):
            rated[row.user, row.item] = 1
            liked[row.user, row.item] = row.rating >= 4
    rated[:, 7] = liked[:, 7] = 0  # nobody knows item 7
    return torch.tensor(rated), torch.tensor(liked)


def one_each(n_items: int) -> Tensor:
    """As many users as items, each of whom chose one."""
    return torch.eye(n_items)


def test_neighbours_are_scikit_learns_cosines(tables: tuple[Tensor, Tensor]) -> None:
    seen, liked = tables
    found = cosine(seen, liked, 0.0)(one_each(seen.shape[1]))
    expected = cosine_similarity(seen.T.numpy())
    np.fill_diagonal(expected, 0)
    assert np.allclose(found, expected, atol=1e-6)
    shrunk = cosine(seen, liked, 3.0)(one_each(seen.shape[1]))
    for i, j in ((0, 1), (5, 2), (9, 9), (7, 3)):
        both = int((seen[:, i] * seen[:, j]).sum()) * (i != j)
        size = float((seen[:, i].sum() * seen[:, j].sum()).sqrt())
        assert shrunk[i, j].item() == pytest.approx(both / (size + 3))


def test_a_lift_is_how_much_oftener_than_by_chance(
    tables: tuple[Tensor, Tensor],
) -> None:
    seen, liked = tables
    found = lift(seen, liked, 2.0)(one_each(seen.shape[1]))
    for j, i in ((0, 1), (5, 2), (9, 9), (7, 3)):
        users = [u for u in range(len(seen)) if seen[u, j]]
        both = sum(int(liked[u, i]) for u in users)
        chance = len(users) * float(liked[:, i].sum()) / len(seen)
        expected = np.log((both + 2) / (chance + 2))
        assert found[j, i].item() == pytest.approx(expected, abs=1e-5)


def test_ease_is_a_ridge_regression_of_each_item_on_all_others(
    tables: tuple[Tensor, Tensor],
) -> None:
    seen, liked = tables
    found = ease(seen, liked, 4.0)(one_each(seen.shape[1]))
    x = seen.double().numpy()
    for j in (0, 5, 7, 31):
        others = np.delete(np.arange(x.shape[1]), j)
        ridge = Ridge(alpha=4.0, fit_intercept=False, solver="cholesky")
        weights = ridge.fit(x[:, others], x[:, j]).coef_
        assert np.allclose(found[others, j], weights, atol=1e-5)
        assert found[j, j] == 0


def test_a_choice_is_folded_in_by_weighted_ridge_regression(
    tables: tuple[Tensor, Tensor],
) -> None:
    seen, liked = tables
    move = implicit_als(seen, liked, (5.0, 3.0, 4))
    # What stands in the closure: the vectors of the items.
    cells = move.__closure__ or ()
    parts = (cell.cell_contents for cell in cells)
    (items,) = (part for part in parts if isinstance(part, Tensor))
    assert items.shape == (seen.shape[1], 4)
    chosen = liked[:5]
    for row, score in zip(chosen.numpy(), move(chosen), strict=True):
        ridge = Ridge(alpha=3.0, fit_intercept=False, solver="cholesky")
        ridge.fit(items.numpy(), row, sample_weight=1 + 5 * row)
        assert np.allclose(score, items.numpy() @ ridge.coef_, atol=1e-4)


def test_implicit_als_starts_at_small_vectors(tables: tuple[Tensor, Tensor]) -> None:
    """It stops after eight turns, so that its start is part of what it answers."""
    seen, liked = tables
    move = implicit_als(seen, liked, (5.0, 3.0, 4), sweeps=0)
    cells = (cell.cell_contents for cell in move.__closure__ or ())
    (items,) = (cell for cell in cells if isinstance(cell, Tensor))
    g = torch.Generator().manual_seed(0)
    torch.testing.assert_close(items, torch.randn(len(items), 4, generator=g) / 10)


def test_each_turn_lowers_what_implicit_als_minimises(
    tables: tuple[Tensor, Tensor],
) -> None:
    seen, liked = tables

    def objective(sweeps: int) -> float:
        move = implicit_als(seen, liked, (5.0, 3.0, 4), sweeps=sweeps)
        parts = (cell.cell_contents for cell in move.__closure__ or ())
        (items,) = (part for part in parts if isinstance(part, Tensor))
        score = move(seen)
        people = torch.linalg.lstsq(items, score.T).solution
        error = (1 + 5 * seen) * (seen - score).square()
        size = people.square().sum() + items.square().sum()
        return float(error.sum() + 3 * size)

    losses = [objective(n) for n in (1, 2, 4, 8)]
    assert all(a > b for a, b in pairwise(losses))


@pytest.fixture(scope="module")
def data(data: RatingData) -> RatingData:
    """Whole stars: 4 is a like."""
    return replace(data, ratings=data.ratings.round({"rating": 0}))


@pytest.fixture(scope="module")
def fold(data: RatingData) -> Fold:
    return Fold(data, 0, Protocol(folds=3))


def scores(model: Predictor, fold: Fold, k: int) -> Tensor:
    users = fold.split.test[:10]
    everything = torch.arange(fold.histories.n_items).expand(10, -1)
    return model.predict(fold.histories.everything(users, k), everything)


def test_a_score_is_popularity_and_what_the_likes_say(
    data: RatingData, fold: Fold
) -> None:
    popularity, _, liked = fold.choices
    move = cosine(liked, liked, 1.0)
    found = scores(BesidePopularity(popularity, move, 4.0, 3.0, 0.5), fold, 6)
    own = data.ratings[data.ratings["user"].isin(fold.split.train.numpy())]
    rows = own.pivot_table("rating", "user", "item").reindex(columns=range(80))
    likes = (rows >= 4).to_numpy().astype(float)
    both = likes.T @ likes
    size = np.sqrt(np.diag(both))
    table = both / (size[:, None] * size + 1)
    np.fill_diagonal(table, 0)
    for row, user in enumerate(fold.split.test[:10].tolist()):
        _, item, rating = fold.histories.ratings_of(torch.tensor([user]))
        chosen = item[:6][rating[:6] >= 4].tolist()
        move = sum((table[j] for j in chosen), np.zeros(80))
        expected = np.log(likes.sum(0) + 0.5) + 3 * move / max(len(chosen), 1) ** 0.5
        assert np.allclose(found[row], expected, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in LISTS if name != "chance"])
def test_without_ratings_all_is_popularity(
    name: str, fold: Fold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold, "validate", lambda model, goal: -model.weight)
    model, plain = fitted(name, fold), fold.choices[0].expand(10, -1)
    assert torch.equal(scores(model, fold, 0), plain)
    assert torch.equal(scores(model, fold, 5), plain) == (name == "popularity")


def test_the_settings_are_those_that_validate_best(
    fold: Fold, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def validate(model: BesidePopularity, goal: str) -> float:
        tried.append((model.like, model.weight, model.power))
        assert goal == "lists"
        return abs(model.weight - 2) + abs(model.power - 0.5) + (model.like > 1)

    monkeypatch.setattr(fold, "validate", validate)
    best = list_rival(cosine, (1, 3), (1, 2, 4), fold)
    assert len(tried) == 2 * 2 * 3 * 4 and len({*tried}) == 24
    assert (best.like, best.weight, best.power) == (1.0, 2, 0.5)


def test_validation_is_the_mean_quality_of_lists(fold: Fold) -> None:
    model = fitted("popularity", fold)
    found = fold.validate(model, "lists")
    users = fold.split.validation
    table = rank_catalogue(model, fold.histories, users, (1, 5, 10))
    assert found == pytest.approx(-table.groupby("k")["ndcg"].mean().mean(), rel=0.01)
    # No test user is looked at.
    for goal in ("lists", "clicks", "stars"):
        with pytest.raises(LeakageError):
            sealed = fold.sealed.seal(users[:1])
            spoilt = copy(fold)
            spoilt.sealed = sealed
            spoilt.validate(fitted("item's like-rate", fold), goal)


def test_the_like_rate_is_the_shrunk_item_mean_of_likes(
    data: RatingData, fold: Fold
) -> None:
    likes = Fold(clicks(data), 0, Protocol(3))
    expected = ItemMean.fit(likes.sealed, likes.split.train).offset
    assert torch.allclose(fitted("item's like-rate", fold).offset, expected)
    assert torch.allclose(fitted("item's like-rate", likes).offset, expected)


def test_the_logit_of_users_and_items_knows_no_taste(fold: Fold) -> None:
    model = fitted("user + item logit", fold)
    odds = scores(model, fold, 10).logit()
    gap = odds - odds[:1]
    assert torch.allclose(gap, gap[:, :1].expand_as(gap), atol=1e-3)
    assert gap[:, 0].std() > 0.1
    better, worse = (
        fold.validate(fitted(name, fold), "clicks")
        for name in ("user + item logit", "item's like-rate")
    )
    assert better < worse


def test_padding_does_not_matter(fold: Fold) -> None:
    popularity, rated, liked = fold.choices
    model = BesidePopularity(popularity, lift(rated, liked, 2.0), 1.0, 1.0, 1.0)
    support = fold.histories.everything(fold.split.test[:4], 3)
    fills = ((support.x, 7), (support.y, torch.nan), (support.mask, 0))
    wider = Examples(
        *(torch.cat([p, torch.full_like(p[:, :2], fill)], 1) for p, fill in fills)
    )
    x = torch.arange(fold.histories.n_items).expand(4, -1)
    assert torch.equal(model.predict(support, x), model.predict(wider, x))


@pytest.mark.parametrize("name", [*LISTS, *CLICKS])
def test_a_rival_learns_from_training_users_alone(name: str, data: RatingData) -> None:
    class OnScale:
        """Scores squeezed into the scale, where clipping leaves them alone."""

        def __init__(self, model: Predictor) -> None:
            self.model = model

        def predict(self, support: Examples, x: Tensor) -> Tensor:
            return 1 + 4 * self.model.predict(support, x).sigmoid()

    def fit(data: RatingData) -> OnScale:
        fold = Fold(data, 0, Protocol(folds=3))
        fold.validate = lambda model, goal: getattr(model, "weight", 0.0)
        return OnScale(fitted(name, fold))

    check_no_leak(fit, data, Fold(data, 0, Protocol(folds=3)).split)


def test_the_mean_of_seeds_is_that_of_their_scores(
    fold: Fold, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def train(system: System, seed: int = 0) -> ItemMean:
        asked.append((str(system), seed))
        return ItemMean(torch.full((80,), float(seed)))

    monkeypatch.setattr(fold, "train", train)
    model = fitted("mf + maml + gradient, 4 seeds", fold)
    assert asked == [("mf + maml + gradient", seed) for seed in range(4)]
    assert (scores(model, fold, 2) == 1.5).all()
    with pytest.raises(ValueError, match="no method is called 'biases, 4 seeds'"):
        fitted("biases, 4 seeds", fold)


def test_one_seed_is_not_another(data: RatingData) -> None:
    fold = Fold(data, 0, Protocol(folds=3))
    fold.train_users  # noqa: B018
    one, again, other = (
        scores(fold.train(System("mlp", "maml", "bayesian"), seed), fold, 3)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, again) and not torch.allclose(one, other, atol=1e-3)


def test_what_is_liked_follows_the_scale(data: RatingData, fold: Fold) -> None:
    assert torch.equal(fold.choices[2], Fold(clicks(data), 0, Protocol(3)).choices[2])
