"""The rivals of meta-learning against slow loops and scikit-learn."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity

from metarec.baselines import ALS, GenreRidge, ItemKNN, PooledMLP, Popularity, UserKNN
from metarec.baselines.neighbours import _similarity, _table
from metarec.data import RatingData
from metarec.evaluation import check_no_leak
from metarec.factors import (
    GaussianFactorModel,
    GlobalMean,
    ItemMean,
    UserItemBias,
    cross_fit,
)
from metarec.learners import stable_share
from metarec.tasks import (
    Examples,
    LeakageError,
    Tasks,
    UserHistories,
    UserSplit,
    split_users,
)
from metarec.training import TrainingConfig
from metarec.validation import Predictor, validation_score

USERS, NEW = torch.arange(150), torch.arange(150, 200)


def traits(n_items: int) -> torch.Tensor:
    """Three item features: two yes or no, one a number."""
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(n_items, 3, generator=generator, dtype=torch.float64)
    table[:, :2] = (table[:, :2] > 0).double()
    return table


def pooled(histories: UserHistories, split: UserSplit, epochs: int = 3) -> PooledMLP:
    gaussian = GaussianFactorModel.fit(histories, split.train, dim=2, sweeps=5)
    return PooledMLP.fit(
        histories,
        split.train,
        cross_fit(gaussian, histories, split.train),
        traits(histories.n_items),
        lambda model: validation_score(model, histories, split.validation),
        TrainingConfig(epochs=epochs, learning_rate=0.003),
    )


def tuned(histories: UserHistories, split: UserSplit) -> PooledMLP:
    def validate(model: PooledMLP) -> float:
        return validation_score(model, histories, split.validation)

    return pooled(histories, split).fine_tuned(validate)


FITS: dict[str, Callable[[UserHistories, UserSplit], Predictor]] = {
    "global mean": lambda h, s: GlobalMean.fit(h, s.train),
    "popularity": lambda h, s: Popularity.fit(h, s.train),
    "item-kNN": lambda h, s: ItemKNN.fit(h, s.train),
    "user-kNN": lambda h, s: UserKNN.fit(h, s.train),
    "ALS": lambda h, s: ALS.fit(h, s.train, dim=2),
    "genre ridge": lambda h, s: GenreRidge.fit(h, s.train, traits(h.n_items)),
    "pooled MLP": pooled,
    "pooled MLP, fine-tuned": tuned,
}
ON_BIASES = ("item-kNN", "user-kNN", "ALS")


@pytest.fixture(scope="module")
def histories(data: RatingData) -> UserHistories:
    return UserHistories(data)


@pytest.fixture(scope="module")
def models(histories: UserHistories) -> dict[str, Predictor]:
    split = split_users(200, n_validation=20)
    return {name: fit(histories, split) for name, fit in FITS.items()}


@pytest.fixture(scope="module")
def tasks(histories: UserHistories) -> Tasks:
    """New users with K = 0, 1, 2, ... ratings."""
    return histories.tasks(NEW, torch.arange(50) % 16)


def residuals(data: RatingData, bias: UserItemBias, users: range) -> pd.DataFrame:
    """Ratings less biases of the users: a row for each user, NaN where not rated."""
    offset = bias.offset.double().numpy()
    b_0 = float(bias.mean_bias)
    table = pd.DataFrame(np.nan, index=list(users), columns=range(data.n_items))
    for user in users:
        own = data.ratings[data.ratings["user"] == user]
        rest = own["rating"].to_numpy(float) - offset[own["item"]] - b_0
        b_u = rest.sum() / (len(rest) + bias.user_shrinkage)
        table.loc[user, own["item"].to_numpy()] = rest - b_u
    return table


def slow_similarity(a: np.ndarray, b: np.ndarray, shrinkage: float) -> float:
    """Cosine over what both have, by scikit-learn, times n / (n + shrinkage)."""
    both = ~np.isnan(a) & ~np.isnan(b)
    if not both.any():
        return 0.0
    cosine = cosine_similarity(a[both][None], b[both][None]).item()
    return both.sum() / (both.sum() + shrinkage) * cosine


def test_the_global_mean_is_one_number(
    data: RatingData, histories: UserHistories, tasks: Tasks
) -> None:
    mean = data.ratings.loc[data.ratings["user"] < 150, "rating"].mean()
    scores = GlobalMean.fit(histories, USERS).predict(tasks.support, tasks.query.x)
    assert scores.shape == tasks.query.x.shape
    torch.testing.assert_close(scores, torch.full(scores.shape, float(mean)))


def test_popularity_counts_ratings(
    data: RatingData, histories: UserHistories, tasks: Tasks
) -> None:
    table = data.ratings[data.ratings["user"] < 150]
    count = np.bincount(table["item"], minlength=data.n_items)
    x = tasks.query.x
    scores = Popularity.fit(histories, USERS).predict(tasks.support, x)
    np.testing.assert_array_equal(scores, count[x.numpy()])


def test_item_neighbours_are_those_of_a_slow_loop(
    data: RatingData, histories: UserHistories, tasks: Tasks
) -> None:
    model = replace(ItemKNN.fit(histories, USERS, shrinkage=7), doubt=0.5)
    table = residuals(data, model.bias, range(150)).to_numpy()
    support, x = tasks.support, tasks.query.x
    base = model.bias.predict(support, x)
    own = (support.y - model.bias.predict(support, support.x)).numpy()
    scores = model.predict(support, x)
    for t in (0, 1, 3, 15):
        seen = support.x[t, support.mask[t]].tolist()
        for n, item in enumerate(x[t, :4].tolist()):
            s = [slow_similarity(table[:, item], table[:, j], 7) for j in seen]
            move = np.dot(s, own[t, : len(seen)]) / (0.5 + np.abs(s).sum())
            expected = float(base[t, n]) + move
            assert scores[t, n].item() == pytest.approx(expected, abs=1e-4)


def test_user_neighbours_are_those_of_a_slow_loop(
    data: RatingData, histories: UserHistories, tasks: Tasks
) -> None:
    model = replace(UserKNN.fit(histories, USERS), shrinkage=4, doubt=0.5)
    table = residuals(data, model.bias, range(150)).to_numpy()
    support, x = tasks.support, tasks.query.x
    base = model.bias.predict(support, x)
    scores = model.predict(support, x)
    for t in (0, 3, 15):
        mask = support.mask[t]
        mine = np.full(data.n_items, np.nan)
        rest = support.y - model.bias.predict(support, support.x)
        mine[support.x[t, mask]] = rest[t, mask]
        s = np.array([slow_similarity(mine, row, 4) for row in table])
        for n, item in enumerate(x[t, :4].tolist()):
            knows = ~np.isnan(table[:, item])
            move = s[knows] @ table[knows, item] / (0.5 + np.abs(s[knows]).sum())
            expected = float(base[t, n]) + move
            assert scores[t, n].item() == pytest.approx(expected, abs=1e-4)


def test_similarity_without_shrinkage_is_a_cosine_where_all_is_rated() -> None:
    rest = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    found = _similarity(rest, torch.ones(6, 9), rest, torch.ones(6, 9), 0.0)
    np.testing.assert_allclose(found, cosine_similarity(rest), atol=1e-5)


def test_nothing_in_common_is_no_similarity() -> None:
    one, two = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert _similarity(one, one, two, two, 5.0).item() == 0


def test_the_residual_table_is_filled_where_there_is_a_rating(
    data: RatingData, histories: UserHistories
) -> None:
    bias = UserItemBias.fit(histories, USERS)
    rest, rated = _table(histories.everything(USERS, data.n_items), bias)
    expected = residuals(data, bias, range(150))
    np.testing.assert_array_equal(rated, expected.notna())
    np.testing.assert_allclose(rest, expected.fillna(0), atol=1e-4)


def solved(z: np.ndarray, rest: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Ridge with one penalty for each column: scikit-learn's on scaled columns."""
    scale = 1 / np.sqrt(penalty)
    ridge = Ridge(alpha=1.0, fit_intercept=False, solver="svd").fit(z * scale, rest)
    return scale * ridge.coef_


def test_als_folds_a_user_in_by_ridge_regression(
    histories: UserHistories, tasks: Tasks
) -> None:
    model = ALS.fit(histories, USERS, dim=3, sweeps=3)
    support, w = tasks.support, model.fold_in(tasks.support)
    bias = UserItemBias.fit(histories, USERS)
    z = np.column_stack([model.z[:, :-1].numpy(), np.ones(len(model.z))])
    start = float(bias.mean_bias)
    penalty = np.array([10.0] * 3 + [15.0])
    for t in range(1, 16):
        items = support.x[t, support.mask[t]].numpy()
        rest = support.y[t, : len(items)] - bias.offset[items] - start
        np.testing.assert_allclose(w[t], solved(z[items], rest, penalty), atol=1e-6)
        score = bias.offset[tasks.query.x[t]].numpy() + start
        score = score + z[tasks.query.x[t]] @ w[t].numpy()
        found = model.predict(support, tasks.query.x)[t]
        np.testing.assert_allclose(found, score, atol=1e-5)


def test_als_starts_at_small_vectors(histories: UserHistories) -> None:
    """Twenty turns do not reach the end: the start is part of the answer."""
    start = ALS.fit(histories, USERS, dim=3, sweeps=0).z
    g = torch.Generator().manual_seed(0)
    drawn = torch.randn(len(start), 3, generator=g).double()
    torch.testing.assert_close(start[:, :-1], 0.3 * drawn)
    assert (start[:, -1] == 1).all()


def als_objective(model: ALS, histories: UserHistories) -> float:
    """What ALS minimises, with the best users' weights for its item vectors."""
    everything = histories.everything(USERS, histories.n_items)
    w = model.fold_in(everything)
    error = everything.y - model.predict(everything, everything.x)
    size = (w.square() @ model.penalty.diagonal()).sum()
    size = size + model.penalty[0, 0] * model.z[:, :-1].square().sum()
    return float(error[everything.mask].square().sum() + size)


def test_each_turn_of_als_lowers_its_objective(histories: UserHistories) -> None:
    losses = [
        als_objective(ALS.fit(histories, USERS, dim=2, sweeps=n), histories)
        for n in (1, 2, 4, 20)
    ]
    assert all(b < a - 0.01 for a, b in pairwise(losses))


def test_als_stops_where_each_item_is_a_ridge_regression(
    data: RatingData, histories: UserHistories
) -> None:
    model = ALS.fit(histories, USERS, dim=2, sweeps=300)
    bias = UserItemBias.fit(histories, USERS)
    everything = histories.everything(USERS, histories.n_items)
    w = model.fold_in(everything).numpy()
    table = data.ratings[data.ratings["user"] < 150]
    for item, group in list(table.groupby("item"))[:10]:
        own = w[group["user"]]
        rest = group["rating"] - float(bias.offset[item] + bias.mean_bias)
        expected = solved(own[:, :-1], rest - own[:, -1], np.array([10.0] * 2))
        np.testing.assert_allclose(model.z[item, :-1], expected, atol=1e-3)


def test_genres_are_weighed_by_ridge_regression(
    histories: UserHistories, tasks: Tasks
) -> None:
    features = traits(histories.n_items)
    penalty = torch.tensor([4.0, 4.0, 4.0, 2.0]).double().diag()
    model = GenreRidge.fit(histories, USERS, features)
    model = replace(model, penalty=penalty)
    mean = ItemMean.fit(histories, USERS)
    support, x = tasks.support, tasks.query.x
    z = np.column_stack([features.numpy(), np.ones(len(features))])
    scores = model.predict(support, x)
    for t in range(1, 16):
        items = support.x[t, support.mask[t]].numpy()
        rest = support.y[t, : len(items)] - mean.offset[items]
        w = solved(z[items], rest.numpy(), np.array([4.0, 4.0, 4.0, 2.0]))
        expected = mean.offset[x[t]].numpy() + z[x[t]] @ w
        np.testing.assert_allclose(scores[t], expected, atol=1e-5)


def test_without_features_genre_ridge_is_a_shrunk_user_mean(
    histories: UserHistories, tasks: Tasks
) -> None:
    model = GenreRidge.fit(histories, USERS, torch.zeros(histories.n_items, 0))
    mean = ItemMean.fit(histories, USERS)
    support = tasks.support
    rest = torch.where(support.mask, support.y - mean.offset[support.x], 0.0)
    expected = rest.sum(1) / (support.mask.sum(1) + 15)
    found = model.predict(support, tasks.query.x) - mean.offset[tasks.query.x]
    torch.testing.assert_close(found, expected[:, None].expand_as(found))


def test_the_pooled_network_ignores_the_support(
    models: dict[str, Predictor], tasks: Tasks
) -> None:
    nothing = replace(tasks.support, mask=torch.zeros_like(tasks.support.mask))
    x = tasks.query.x
    plain, fine = models["pooled MLP"], models["pooled MLP, fine-tuned"]
    assert torch.equal(plain.predict(tasks.support, x), plain.predict(nothing, x))
    assert not torch.equal(fine.predict(tasks.support, x), fine.predict(nothing, x))


def test_the_pooled_network_is_trained_on_every_rating(
    histories: UserHistories, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tasks] = []

    def train(meta, batches, *_) -> None:
        seen.extend(batches(torch.Generator().manual_seed(0)))

    monkeypatch.setattr("metarec.systems.meta_train", train)
    split = split_users(200, n_validation=20)
    pooled(histories, split)
    n = sum(int(part.query.mask.sum()) for part in seen)
    assert n == int(histories.count(split.train).sum())
    assert not any(part.support.mask.any() for part in seen)
    assert histories.reserved == 15


def test_pooled_training_pulls_a_bad_start_back(histories: UserHistories) -> None:
    split = split_users(200, n_validation=20)
    gaussian = GaussianFactorModel.fit(histories, split.train, dim=2, sweeps=5)
    warm = cross_fit(gaussian, histories, split.train)

    def validate(model: PooledMLP) -> float:
        return validation_score(model, histories, split.validation, (0,))

    model = PooledMLP.fit(
        histories,
        split.train,
        replace(warm, mean_bias=warm.mean_bias + 1),
        traits(histories.n_items),
        validate,
        TrainingConfig(epochs=20, learning_rate=0.05),
    )
    bias = UserItemBias.fit(histories, split.train)
    assert float(model.meta.model.head[-1].detach()) < warm.mean_bias + 0.5
    assert (
        validate(model)
        < validation_score(bias, histories, split.validation, (0,)) + 0.02
    )


def test_fine_tuning_is_gradient_descent_on_the_head(
    models: dict[str, Predictor], tasks: Tasks
) -> None:
    fine = models["pooled MLP, fine-tuned"]
    model, rate = fine.meta.model, fine.meta.log_scale.exp().detach()
    scores = fine.predict(tasks.support, tasks.query.x)
    for t in (1, 5, 15):
        mask, profile = tasks.support.mask[t], tasks.support.profile[t]
        x, y = tasks.support.x[t, mask], tasks.support.y[t, mask]
        w = model.head.detach().clone().requires_grad_()
        phi = model.features(x, profile).detach()
        share = stable_share(rate, (phi.T @ phi)[None])
        cut = rate if share is None else share[0] * rate
        for _ in range(5):
            loss = 0.5 * (y - model.offset(x) - phi @ w).square().sum()
            (gradient,) = torch.autograd.grad(loss, w)
            w = (w - cut * gradient).detach().requires_grad_()
        query = tasks.query.x[t]
        expected = model.offset(query) + model.features(query, profile) @ w
        torch.testing.assert_close(scores[t], expected.detach(), atol=1e-4, rtol=0)


def test_the_rate_of_fine_tuning_is_the_one_that_validation_likes(
    models: dict[str, Predictor],
) -> None:
    def validate(model: PooledMLP) -> float:
        return abs(float(model.meta.log_scale.exp()) - 0.03)

    best = models["pooled MLP"].fine_tuned(validate, steps=2)
    assert float(best.meta.log_scale.exp()) == pytest.approx(0.03)
    assert best.meta.learner.steps == 2


@pytest.mark.parametrize("name", FITS)
def test_what_stands_under_the_mask_does_not_matter(
    name: str, models: dict[str, Predictor], tasks: Tasks
) -> None:
    support, x = tasks.support, tasks.query.x
    other = Examples(
        x=torch.where(support.mask, support.x, 7),
        y=torch.where(support.mask, support.y, torch.nan),
        mask=support.mask,
        profile=support.profile,
    )
    expected = models[name].predict(support, x)
    assert expected.isfinite().all()
    torch.testing.assert_close(models[name].predict(other, x), expected)


@pytest.mark.parametrize("name", FITS)
def test_a_wider_batch_does_not_matter(
    name: str, models: dict[str, Predictor], histories: UserHistories, tasks: Tasks
) -> None:
    alone = histories.tasks(NEW[3:4], 3)
    together = models[name].predict(tasks.support, tasks.query.x)[3:4]
    one = models[name].predict(alone.support, alone.query.x)
    torch.testing.assert_close(one, together[:, : one.shape[1]])


@pytest.mark.parametrize("name", FITS)
def test_no_rating_gives_what_everybody_gets(
    name: str, models: dict[str, Predictor], histories: UserHistories
) -> None:
    nobody = histories.tasks(NEW, 0)
    scores = models[name].predict(nobody.support, nobody.query.x)
    assert scores.isfinite().all()
    base, train = models[name], split_users(200, n_validation=20).train
    if name in ON_BIASES:
        base = UserItemBias.fit(histories, train)
    elif name == "genre ridge":
        base = ItemMean.fit(histories, train)
    elif name == "pooled MLP, fine-tuned":
        base = models["pooled MLP"]
    torch.testing.assert_close(scores, base.predict(nobody.support, nobody.query.x))


@pytest.mark.parametrize("name", FITS)
def test_a_rival_learns_from_training_users_alone(name: str, data: RatingData) -> None:
    split = split_users(data.n_users, n_validation=20)

    def fit(d: RatingData) -> Predictor:
        model = FITS[name](UserHistories(d, vocabulary=split.train), split)
        return _OnScale(model) if name == "popularity" else model

    check_no_leak(fit, data, split)


def test_a_neighbour_among_the_test_users_is_found(data: RatingData) -> None:
    split = split_users(data.n_users)
    everyone = torch.cat([split.train, split.test])
    for kind in (ItemKNN, UserKNN, ALS):
        with pytest.raises(LeakageError):
            check_no_leak(
                lambda d, kind=kind: kind.fit(UserHistories(d), everyone), data, split
            )


class _OnScale:
    """Counts squeezed into the scale of stars, where clipping leaves them alone."""

    def __init__(self, model: Predictor) -> None:
        self.model = model

    def predict(self, support: Examples, x: torch.Tensor) -> torch.Tensor:
        return 1 + self.model.predict(support, x) / 1000


def test_rivals_find_taste_that_biases_do_not(
    models: dict[str, Predictor], histories: UserHistories
) -> None:
    users = split_users(200, n_validation=20).test
    bias = UserItemBias.fit(histories, split_users(200, n_validation=20).train)
    base = validation_score(bias, histories, users, (15,))
    for name in ON_BIASES:
        assert validation_score(models[name], histories, users, (15,)) < base - 0.005
