"""Baselines against closed forms, and what they recover of a known population."""

import numpy as np
import pandas as pd
import pytest
import torch

from metarec.data import (
    RatingData,
    SyntheticTruth,
    load_movielens_100k,
    rating_data,
)
from metarec.evaluation import cold_start
from metarec.factors import GaussianFactorModel, ItemMean, UserItemBias, cross_fit
from metarec.factors.sums import RatingSums, SufficientStatistics, moments
from metarec.features import item_features
from metarec.systems import Parts, System, build_system
from metarec.tasks import Examples, UserHistories, split_users

USERS = torch.arange(150)


@pytest.fixture(scope="module")
def histories(data: RatingData) -> UserHistories:
    return UserHistories(data)


@pytest.fixture(scope="module")
def gaussian(histories: UserHistories) -> GaussianFactorModel:
    return GaussianFactorModel.fit(histories, USERS, dim=2, sweeps=40)


def test_the_item_mean_is_the_mean_with_a_few_more_ratings(
    data: RatingData, histories: UserHistories
) -> None:
    table = data.ratings[data.ratings["user"] < 150]
    mu = table["rating"].mean()
    model = ItemMean.fit(histories, USERS, shrinkage=4)
    for item, group in table.groupby("item"):
        expected = (group["rating"].sum() + 4 * mu) / (len(group) + 4)
        assert model.offset[item].item() == pytest.approx(expected, abs=1e-5)


def test_the_bias_of_a_new_user_is_a_ridge_regression(histories: UserHistories) -> None:
    model = UserItemBias.fit(histories, USERS)
    tasks = histories.tasks(torch.arange(150, 160), 5)
    found = model.predict(tasks.support, tasks.query.x) - model.offset[tasks.query.x]
    rest = tasks.support.y - model.offset[tasks.support.x] - model.mean_bias
    # min_b sum (rest - b)^2 + lambda b^2
    ridge = model.mean_bias + rest.sum(1) / (5 + model.user_shrinkage)
    torch.testing.assert_close(found, ridge[:, None].expand_as(found))


def test_biases_solve_their_ridge_problem(histories: UserHistories) -> None:
    model = UserItemBias.fit(histories, USERS)
    user, item, rating = histories.ratings_of(USERS)
    mu = rating.mean()
    n_items = histories.n_items
    design = np.zeros((len(rating), 150 + n_items))
    design[np.arange(len(rating)), user] = 1
    design[np.arange(len(rating)), 150 + item] = 1
    penalty = np.diag([15.0] * 150 + [5.0] * n_items)
    target = design.T @ (rating - mu).numpy()
    solution = np.linalg.solve(design.T @ design + penalty, target)
    found = (model.offset - mu).numpy()
    np.testing.assert_allclose(found, solution[150:], atol=2e-3)


def test_a_posterior_without_item_doubt_is_ridge_in_the_norm_of_the_prior(
    histories: UserHistories, gaussian: GaussianFactorModel
) -> None:
    sure = GaussianFactorModel(2)
    sure.__dict__.update(gaussian.__dict__)
    sure.v_cov = torch.zeros_like(gaussian.v_cov)
    tasks = histories.tasks(torch.arange(150, 200), 10)
    mean, covariance, _ = sure.posterior(tasks.support)
    inverse = np.linalg.inv(sure.user_covariance.numpy())
    prior = sure.user_mean.numpy()
    for t in range(50):
        items = tasks.support.x[t]
        z = np.column_stack([sure.q[items].numpy(), np.ones(10)])
        rest = (tasks.support.y[t] - sure.offset[items]).numpy()
        precision = inverse + z.T @ z / float(sure.noise)
        right = inverse @ prior + z.T @ rest / float(sure.noise)
        np.testing.assert_allclose(
            mean[t], np.linalg.solve(precision, right), atol=1e-9
        )
        np.testing.assert_allclose(covariance[t], np.linalg.inv(precision), atol=1e-9)


def draw(mean: torch.Tensor, cov: torch.Tensor, n: int = 100_000) -> torch.Tensor:
    """Samples (n, ...) of Gaussians with these means and covariances."""
    root = torch.linalg.cholesky(cov)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, *mean.shape, generator=generator, dtype=torch.float64)
    return mean + torch.einsum("bij,nbj->nbi", root, noise)


def uncertain(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means (n, 3) and covariances (n, 3, 3) with correlations."""
    generator = torch.Generator().manual_seed(seed)
    mean, root = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((n, 3), (n, 3, 3))
    )
    return mean, 0.3 * root @ root.mT + 0.1 * torch.eye(3).double()


def test_moments_are_those_of_samples() -> None:
    mean, cov = uncertain(2, 5)
    v = draw(mean, cov)
    z = torch.cat([v[..., :2], torch.ones_like(v[..., :1])], -1)
    found = moments(mean, cov)
    expected = (z, z[..., :, None] * z[..., None, :], z * v[..., 2:])
    for have, samples in zip(found, expected, strict=True):
        torch.testing.assert_close(have, samples.mean(0), atol=0.03, rtol=0.02)


def test_the_noise_is_the_mean_squared_residual_over_samples() -> None:
    model = GaussianFactorModel(2)
    model.v, model.v_cov = uncertain(3, 6)
    w, cov = uncertain(2, 7)
    user, item = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2])
    rating = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    table = RatingSums(user, item, rating, 2, 3)
    model._m_step_noise(SufficientStatistics.of(table, w, cov, torch.float64))
    ws, vs = draw(w, cov)[:, user], draw(model.v, model.v_cov).flip(0)[:, item]
    score = vs[..., 2] + ws[..., 2] + (ws[..., :2] * vs[..., :2]).sum(-1)
    expected = (rating - score).square().mean()
    torch.testing.assert_close(model.noise, expected, rtol=0.02, atol=0)


def test_features_say_of_items_what_a_ridge_regression_on_the_rated_says() -> None:
    model = GaussianFactorModel(2)
    model.v, model.v_cov = uncertain(4, 6)
    model.item_mean, model.item_covariance = torch.zeros(4, 3).double(), torch.eye(3)
    model.item_covariance = model.item_covariance.double()
    model.noise = torch.tensor(0.5).double()
    seen = torch.tensor([True, True, True, False])
    f = torch.tensor([[1.0, 0, 2], [1, 1, -1], [1, 3, 0], [1, 2, 2]]).double()
    model.features = f
    user, item = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2])
    rating = torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    table = RatingSums(user, item, rating, 2, 4)
    model._m_step_items(SufficientStatistics.of(table, *uncertain(2, 7), torch.float64))
    # A penalty is a row more: sqrt(10) of each feature, next to nothing of the mean.
    penalty = torch.tensor([1e-5, 10, 10]).double().sqrt().diag()
    rows = torch.cat([f[seen], penalty])
    target = torch.cat([model.v[seen], torch.zeros(3, 3).double()])
    effect = torch.linalg.lstsq(rows, target).solution
    torch.testing.assert_close(model.item_mean, f @ effect)


def regressions(
    rows: list[list[tuple[int, float]]],
    other: tuple[np.ndarray, np.ndarray],
    mean: np.ndarray,
    spread: np.ndarray,
    noise: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Half a sweep of EM, user by user (or item by item), as the formula says it."""
    means, covariances = [], []
    for own, centre in zip(rows, mean, strict=True):
        precision = np.linalg.inv(spread)
        pull = precision @ centre
        for j, rest in own:
            z, doubt = np.append(other[0][j][:-1], 1), other[1][j].copy()
            bias = z * other[0][j][-1] + np.append(doubt[:-1, -1], 0)
            doubt[-1], doubt[:, -1] = 0, 0
            precision = precision + (np.outer(z, z) + doubt) / noise
            pull = pull + (z * rest - bias) / noise
        covariances.append(np.linalg.inv(precision))
        means.append(covariances[-1] @ pull)
    return np.array(means), np.array(covariances)


def test_sweeps_of_em_are_those_of_the_formula(histories: UserHistories) -> None:
    users, n_items = torch.arange(40), histories.n_items
    fast = GaussianFactorModel.fit(histories, users, dim=2, sweeps=3)
    slow = GaussianFactorModel(2)
    slow.__dict__.update(
        GaussianFactorModel.fit(histories, users, 2, sweeps=0).__dict__
    )
    slow._start(UserItemBias.fit(histories, users), slow.mu, None, seed=0)
    user, item, rating = (t.tolist() for t in histories.ratings_of(users))
    of_user: list[list[tuple[int, float]]] = [[] for _ in users]
    of_item: list[list[tuple[int, float]]] = [[] for _ in range(n_items)]
    for u, i, r in zip(user, item, rating, strict=True):
        of_user[u].append((i, r - slow.mu.item()))
        of_item[i].append((u, r - slow.mu.item()))
    items = slow.v.numpy(), slow.v_cov.numpy()
    m, noise = np.zeros((40, 3)), slow.noise.item()
    spread, item_spread = slow.user_covariance.numpy(), slow.item_covariance.numpy()
    item_mean = np.zeros((n_items, 3))
    seen = np.array([len(own) > 0 for own in of_item])
    for _ in range(3):
        w, w_cov = regressions(of_user, items, m, spread, noise)
        m = np.tile(w.mean(0), (40, 1))
        spread = w_cov.mean(0) + (w - m).T @ (w - m) / 40
        items = v, v_cov = regressions(
            of_item, (w, w_cov), item_mean, item_spread, noise
        )
        item_mean = np.tile(v[seen].sum(0) / (seen.sum() + 1e-5), (n_items, 1))
        step = (v - item_mean)[seen]
        item_spread = v_cov[seen].mean(0) + step.T @ step / seen.sum()
        squares = []
        for u, i, r in zip(user, item, rating, strict=True):
            p, q = np.append(w[u][:-1], 1), v[i]
            doubt = w_cov[u].copy()
            doubt[-1], doubt[:, -1] = 0, 0
            second = (np.outer(q, q) + v_cov[i]) * (np.outer(p, p) + doubt)
            rest = r - slow.mu.item() - w[u][-1]
            cross = q @ (p * rest - np.append(w_cov[u][:-1, -1], 0))
            squares.append(rest**2 + w_cov[u][-1, -1] - 2 * cross + second.sum())
        noise = np.mean(squares)
    assert fast.noise.item() == pytest.approx(noise, rel=1e-6)
    slow.v, slow.v_cov = torch.tensor(v), torch.tensor(v_cov)
    slow.item_mean, slow.item_covariance = torch.tensor(item_mean), torch.tensor(spread)
    slow.user_mean, slow.user_covariance = torch.tensor(m[0]), torch.tensor(spread)
    slow._whiten()
    for name in ("v", "v_cov", "user_covariance"):
        torch.testing.assert_close(
            getattr(fast, name), getattr(slow, name), rtol=0, atol=1e-5
        )


def test_em_starts_at_the_biases_with_a_prior_of_one_star(
    histories: UserHistories,
) -> None:
    """Where EM stops short of the maximum, its start is part of the answer."""
    features = torch.ones(histories.n_items, 2).double()
    start = GaussianFactorModel.fit(histories, USERS, 3, features, sweeps=0, seed=4)
    bias = UserItemBias.fit(histories, USERS)
    rating = histories.ratings_of(USERS)[2]
    torch.testing.assert_close(start.mu, rating.double().mean())
    g = torch.Generator().manual_seed(4)
    drawn = torch.randn(histories.n_items, 3, generator=g, dtype=torch.float64)
    torch.testing.assert_close(start.q, 0.3 * drawn)
    torch.testing.assert_close(start.v[:, 3], bias.offset.double() - start.mu)
    assert start.user_covariance.diag().tolist() == [1, 1, 1, 0.2]
    assert start.item_covariance.diag().tolist() == [0.1, 0.1, 0.1, 0.3]
    torch.testing.assert_close(start.noise, torch.tensor(0.9, dtype=torch.float64))
    assert not start.v_cov.any()
    assert start.user_mean.tolist() == [0, 0, 0, bias.mean_bias]
    assert start.features.tolist() == [[1, 1, 1]] * histories.n_items


def test_doubt_about_items_and_temper_weaken_the_evidence(
    histories: UserHistories, gaussian: GaussianFactorModel
) -> None:
    support = histories.tasks(torch.tensor([160]), 10).support
    items = support.x[0]
    q = draw(gaussian.q[items], gaussian.v_cov[items][:, :2, :2])
    z = torch.cat([q, torch.ones_like(q[..., :1])], -1)
    second = (z[..., :, None] * z[..., None, :]).mean(0).sum(0)
    gaussian.temper = 2.0
    covariance = gaussian.posterior(support).covariance
    gaussian.temper = 1.0
    precision = gaussian.user_covariance.inverse() + second / (2 * gaussian.noise)
    torch.testing.assert_close(covariance[0].inverse(), precision, rtol=0.01, atol=0.05)


def test_no_rating_gives_the_prior(gaussian: GaussianFactorModel) -> None:
    nothing = torch.zeros(1, 1)
    empty = Examples(nothing.long(), nothing, nothing.bool())
    mean, covariance, _ = gaussian.posterior(empty)
    torch.testing.assert_close(mean[0], gaussian.user_mean, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        covariance[0], gaussian.user_covariance, atol=1e-12, rtol=0
    )


def test_em_recovers_the_noise_and_predicts_new_users_nearly_as_the_truth_does(
    population: tuple[RatingData, SyntheticTruth],
    histories: UserHistories,
    gaussian: GaussianFactorModel,
) -> None:
    _, truth = population
    assert float(gaussian.noise) ** 0.5 == pytest.approx(truth.sigma, rel=0.1)
    best = GaussianFactorModel(2)
    best.__dict__.update(gaussian.__dict__)
    best.v = torch.tensor(np.column_stack([truth.q_i, truth.b_i]))
    best.v_cov = torch.zeros_like(gaussian.v_cov)
    best.offset = torch.tensor(truth.mu + truth.b_i)
    best.user_mean = torch.zeros(3, dtype=torch.float64)
    best.user_covariance = torch.tensor(truth.covariance)
    best.noise = torch.tensor(truth.sigma**2)
    table = [
        cold_start(model, histories, torch.arange(150, 200)).groupby("k")["rmse"].mean()
        for model in (best, gaussian, UserItemBias.fit(histories, USERS))
    ]
    oracle, learned, bias = table
    assert (oracle <= learned + 0.005).all()
    assert learned[10] < oracle[10] + 0.35 * (bias[10] - oracle[10])
    assert learned[15] < learned[5] < learned[0]


def test_the_units_are_those_of_a_unit_prior(gaussian: GaussianFactorModel) -> None:
    torch.testing.assert_close(
        gaussian.user_covariance[:2, :2], torch.eye(2, dtype=torch.float64)
    )


def test_a_change_of_units_changes_no_score(gaussian: GaussianFactorModel) -> None:
    other = GaussianFactorModel(2)
    other.__dict__.update(gaussian.__dict__)
    other.user_mean = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    spread = torch.tensor([[2.0, 0.3, 0.1], [0.3, 0.5, 0], [0.1, 0, 0.2]]).double()
    other.user_covariance = spread
    scores = [other.v[:, 2] + other.v[:, :2] @ other.user_mean[:2] + other.user_mean[2]]
    variance = [_score_variance(other)]
    other._whiten()
    scores.append(other.v[:, 2] + other.user_mean[2])
    variance.append(_score_variance(other))
    torch.testing.assert_close(*scores)
    torch.testing.assert_close(*variance)


def _score_variance(model: GaussianFactorModel) -> torch.Tensor:
    z = torch.cat([model.q, torch.ones(len(model.q), 1).double()], 1)
    return torch.einsum("id,de,ie->i", z, model.user_covariance, z)


def test_cross_fitted_vectors_do_not_know_their_user(
    histories: UserHistories, gaussian: GaussianFactorModel
) -> None:
    warm = cross_fit(gaussian, histories, USERS, parts=5)
    n = histories.n_items
    assert warm.factors.shape == (6 * n, 2) and warm.offset.shape == (6 * n,)
    assert warm.item_rows[150:].unique().tolist() == [0]
    assert sorted(warm.item_rows[:150].unique().tolist()) == [
        n * j for j in range(1, 6)
    ]
    user = 7
    other = UserHistories.__new__(UserHistories)
    other.__dict__.update(histories.__dict__)
    other.rating = histories.rating.clone()
    own = slice(int(histories.start[user]), int(histories.start[user + 1]))
    other.rating[own] = 6 - other.rating[own]
    changed = cross_fit(gaussian, other, USERS, parts=5)
    rows = slice(int(warm.item_rows[user]), int(warm.item_rows[user]) + n)
    assert torch.equal(warm.factors[rows], changed.factors[rows])
    assert torch.equal(warm.offset[rows], changed.offset[rows])
    assert not torch.equal(warm.offset, changed.offset)  # the other copies did move


def test_the_temper_is_the_best_of_its_grid(
    histories: UserHistories, gaussian: GaussianFactorModel
) -> None:
    users = torch.arange(150, 175)
    gaussian.choose_temper(histories, users)
    chosen = gaussian.temper
    scores = {}
    for temper in (1.0, 1.5, 2.0, 2.5, 3.0):
        gaussian.temper = temper
        scores[temper] = cold_start(gaussian, histories, users, (1, 3, 5, 10, 15))[
            "rmse"
        ].mean()
    assert chosen == min(scores, key=scores.__getitem__)
    gaussian.temper = 1.0


@pytest.mark.parametrize("best", [1.0, 1.5, 2.0, 2.5, 3.0])
def test_the_temper_is_chosen_over_the_whole_grid(
    histories: UserHistories, best: float
) -> None:
    class Tempered(GaussianFactorModel):
        """Off by a star for each unit that the temper lies from the best."""

        def predict(
            self, support: Examples, x: torch.Tensor, weight: object = None
        ) -> torch.Tensor:
            return 3.4 + (torch.zeros(x.shape) + self.temper - best)

    model = Tempered(2)
    model.choose_temper(histories, torch.arange(150, 200))
    assert model.temper == best


def test_the_temper_is_chosen_at_sizes_that_are_reserved(data: RatingData) -> None:
    asked = set()

    class Asked(GaussianFactorModel):
        def predict(
            self, support: Examples, x: torch.Tensor, weight: object = None
        ) -> torch.Tensor:
            asked.update(support.mask.sum(1).tolist())
            return torch.full(x.shape, 3.0)

    few = UserHistories(data, reserved=5)
    Asked(2).choose_temper(few, torch.arange(150, 200))
    assert asked == {1, 3, 5}


@pytest.fixture(scope="module")
def generous(data: RatingData) -> UserHistories:
    """Every second user gave 5 stars to a few items: the mean bias is not 0."""
    table, generous = data.ratings, data.ratings["user"] % 2 == 1
    table = table.assign(rating=table["rating"].mask(generous, 5.0))
    kept = table[~generous | (table.groupby("user").cumcount() < 8)]
    return UserHistories(
        rating_data(kept, scale=data.scale, users=data.users, items=data.items)
    )


def test_the_mean_bias_is_that_of_the_training_users(generous: UserHistories) -> None:
    model = UserItemBias.fit(generous, USERS)
    user, item, rating = generous.ratings_of(USERS)
    rest = pd.Series(rating - model.offset[item]).groupby(user.numpy())
    expected = (rest.sum() / (rest.count() + model.user_shrinkage)).mean()
    assert float(model.mean_bias) == pytest.approx(expected, abs=1e-3)
    assert expected > 0.02


def test_the_mean_bias_travels_to_the_start_of_the_head(
    generous: UserHistories,
) -> None:
    mean = float(UserItemBias.fit(generous, USERS).mean_bias)
    gaussian = GaussianFactorModel.fit(generous, USERS, dim=2, sweeps=3)
    assert gaussian.user_mean.tolist() == pytest.approx([0, 0, mean])
    warm = cross_fit(gaussian, generous, USERS)
    assert warm.mean_bias == pytest.approx(mean)
    parts = Parts.of(generous, USERS, warm, torch.zeros(80, 0))
    head = build_system(System(), parts).model.head
    assert head.tolist() == pytest.approx([0, 0, mean])


def test_the_choice_of_items_is_the_ridge_regression_of_tastes(
    data: RatingData,
) -> None:
    histories, users = UserHistories(data), torch.arange(150)
    model = GaussianFactorModel.fit(histories, users, dim=2, sweeps=5)
    tastes = model.posterior(histories.everything(users, 30))[0][:, :-1]
    model.learn_implicit(histories, users, draws=4, seed=5)
    # The same sets as dense rows, and least squares with extra rows for the ridge.
    generator = torch.Generator().manual_seed(5)
    rows = []
    for _ in range(4):
        chosen = histories.draw_windows(users, (1, 2, 3, 5, 10, 15), generator)
        dense = torch.zeros(150, 80, dtype=torch.float64)
        dense.scatter_add_(1, chosen.x, chosen.mask.double())
        rows.append(dense / dense.sum(1, keepdim=True).sqrt())
    left = torch.cat([torch.cat(rows) / 2, torch.eye(80).double()])
    right = torch.cat([tastes.repeat(4, 1) / 2, torch.zeros(80, 2).double()])
    expected = torch.linalg.lstsq(left, right).solution
    torch.testing.assert_close(model.implicit, expected, rtol=0, atol=1e-8)


def test_the_choice_of_items_shifts_the_prior(data: RatingData) -> None:
    histories = UserHistories(data)
    model = GaussianFactorModel.fit(histories, torch.arange(150), dim=2, sweeps=5)
    support = histories.tasks(torch.tensor([160]), 4).support
    nothing = histories.tasks(torch.tensor([160]), 0).support
    plain, before, _ = model.posterior(support)
    model.learn_implicit(histories, torch.arange(150))
    shifted, after, _ = model.posterior(support)
    torch.testing.assert_close(model.posterior(nothing)[0][0], model.user_mean)
    assert torch.equal(before, after)
    shift = torch.cat([model.implicit[support.x[0]].sum(0) / 2, torch.zeros(1)])
    moved = before[0] @ model.user_covariance.inverse() @ shift
    torch.testing.assert_close(shifted[0], plain[0] + moved)


def test_windows_are_successive_and_half_begin_at_the_start(data: RatingData) -> None:
    histories, users = UserHistories(data), torch.arange(200)
    drawn = histories.draw_windows(users, (3,), torch.Generator().manual_seed(0))
    starts = []
    for user, items in zip(users, drawn.x, strict=True):
        own = histories.item[histories.start[user] : histories.start[user + 1]]
        (at,) = torch.nonzero(own == items[0])[0].tolist()
        assert torch.equal(own[at : at + 3], items)
        starts.append(at)
    assert 90 < starts.count(0) < 130 and max(starts) > 20


@pytest.mark.slow
def test_features_of_items(data: RatingData) -> None:
    data = load_movielens_100k(progress=False)
    features = item_features(data)
    assert features.shape == (1682, 20) and torch.isfinite(features).all()
    words = data.items["genres"].map(len).to_numpy()
    assert np.array_equal(features[:, :19].sum(1).numpy(), words)
    assert features[266, 19] == 0  # the year of item 267 is not known


@pytest.mark.slow
def test_movielens_rows_of_the_design_on_one_fold() -> None:
    data = load_movielens_100k(progress=False)
    histories = UserHistories(data)
    split = split_users(data.n_users, 0)
    bias = UserItemBias.fit(histories, split.train)
    model = GaussianFactorModel.fit(
        histories, split.train, features=item_features(data)
    )
    model.choose_temper(histories, split.validation)
    ours, rival = (
        cold_start(m, histories, split.test).groupby("k")["rmse"].mean()
        for m in (model, bias)
    )
    assert ours[10] < rival[10] - 0.005 and ours[0] == pytest.approx(rival[0], abs=1e-3)
