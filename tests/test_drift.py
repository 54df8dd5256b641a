"""Forgetting: no drift is the static posterior, and known drift is followed."""

from __future__ import annotations

import ast
import copy
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
import torch

from benchmarks.forgetting import (
    Decayed,
    KalmanFilter,
    Windowed,
    prequential,
    rmse_of_users,
)
from metarec.data import RatingData, SyntheticTruth, synthetic_population
from metarec.factors import GaussianFactorModel
from metarec.learners import Posterior
from metarec.metrics import paired_bootstrap
from metarec.tasks import Examples, UserHistories, split_users

CHAPTER = Path(__file__).parents[1] / "book/the-system/sparsity-and-drift.ipynb"
DEFINING = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
NEVER = math.inf
HALF_LIVES = (25, 50, 100, NEVER)


@pytest.fixture(scope="module")
def histories(data: RatingData) -> UserHistories:
    return UserHistories(data)


@pytest.fixture(scope="module")
def model(histories: UserHistories) -> GaussianFactorModel:
    """Fitted, so that its item vectors are uncertain; the taste and bias correlate."""
    fitted = GaussianFactorModel.fit(histories, torch.arange(150), dim=2)
    fitted.user_covariance = torch.tensor(
        [[1.0, 0.0, 0.3], [0.0, 1.0, -0.4], [0.3, -0.4, 0.6]], dtype=torch.float64
    )
    fitted.temper = 1.3
    return fitted


@pytest.fixture
def support(histories: UserHistories) -> Examples:
    """Ten users with 0 to 27 ratings each."""
    everything = histories.everything(torch.arange(150, 160), 27)
    count = torch.arange(0, 30, 3)
    return replace(everything, mask=torch.arange(27) < count[:, None])


@cache
def defined() -> SimpleNamespace:
    """What the chapter on drift defines, without what it runs."""
    nodes = [
        node
        for cell in nbformat.read(CHAPTER, as_version=4).cells
        if cell.cell_type == "code"
        for node in ast.parse(cell.source).body
        if isinstance(node, DEFINING)
    ]
    names: dict[str, Any] = {}
    exec(compile(ast.Module(nodes, []), CHAPTER.name, "exec"), names)
    return SimpleNamespace(**names)


def moving(half_life: float) -> tuple[UserHistories, SyntheticTruth, torch.Tensor]:
    size = {"ratings_per_user": 100, "seed": 5, "clip": False}
    still, truth = synthetic_population(240, 120, **size)
    data, _ = defined().drifting(still, truth, half_life, seed=5)
    return UserHistories(data), truth, torch.arange(160, 240)


def knowing(truth: SyntheticTruth) -> GaussianFactorModel:
    """The model with the truth in the place of what is learned."""
    dim, n = truth.q_i.shape[1], len(truth.b_i)
    known = GaussianFactorModel(dim)
    b_i = torch.tensor(truth.b_i)
    known.v = torch.cat([torch.tensor(truth.q_i), b_i[:, None]], 1)
    known.v_cov = torch.zeros(n, dim + 1, dim + 1, dtype=torch.float64)
    known.offset = truth.mu + b_i
    known.noise = torch.tensor(truth.sigma**2, dtype=torch.float64)
    known.user_mean = torch.zeros(dim + 1, dtype=torch.float64)
    known.user_covariance = torch.tensor(truth.covariance)
    return known


# The population, which the chapter sets in motion.


def test_nobody_moves_at_an_infinite_half_life() -> None:
    size = {"ratings_per_user": 20, "seed": 2, "clip": False}
    still, truth = synthetic_population(30, 40, **size)
    data, path = defined().drifting(still, truth, NEVER)
    assert data.content_hash() == still.content_hash()
    assert (path == np.c_[truth.p_u, truth.b_u][:, None]).all()
    # All that a half-life changes is the way from the first rating on.
    moving, other = defined().drifting(still, truth, 3)
    assert (other[:, 0] == path[:, 0]).all()
    same = (moving.ratings["rating"] == still.ratings["rating"]).to_numpy()
    assert same[::20].all() and same.mean() < 0.3


def test_the_path_is_stationary_with_the_stated_half_life() -> None:
    still, truth = synthetic_population(8000, 50, ratings_per_user=41)
    _, path = defined().drifting(still, truth, 20)
    for step in (0, 20, 40):
        spread = np.cov(path[:, step].T)
        assert np.allclose(spread, truth.covariance, atol=0.04)
    first = path[:, 0]
    for lag, left in ((20, 0.5), (40, 0.25)):
        cross = first.T @ path[:, lag] / len(first)
        assert np.allclose(cross, left * truth.covariance, atol=0.03)


def test_the_ratings_follow_the_path() -> None:
    still, truth = synthetic_population(500, 60, clip=False)
    data, path = defined().drifting(still, truth, 9)
    table = data.ratings
    item = table["item"].to_numpy()
    w = path.reshape(-1, 3)
    score = truth.mu + truth.b_i[item] + w[:, 2] + (w[:, :2] * truth.q_i[item]).sum(1)
    rest = table["rating"].to_numpy() - score
    assert abs(rest.std() - truth.sigma) < 0.01
    assert abs(rest.mean()) < 0.02


# The learners.


def test_without_drift_the_filter_is_the_static_posterior(
    model: GaussianFactorModel, support: Examples
) -> None:
    mean, covariance, _ = model.posterior(support)
    belief = KalmanFilter(model, NEVER, NEVER).posterior(support)
    assert torch.allclose(belief.mean, mean, atol=1e-8, rtol=0)
    assert torch.allclose(belief.covariance, covariance, atol=1e-8, rtol=0)
    x = torch.arange(80).expand(10, -1)
    for learner in (
        KalmanFilter(model, NEVER, NEVER),
        Decayed(model, NEVER),
        Windowed(model, 27),
    ):
        given = learner.predict(support, x)
        assert torch.allclose(given, model.predict(support, x), atol=1e-6)


@pytest.mark.parametrize(("taste", "bias"), [(7, 7), (30, 4), (NEVER, 5), (6, NEVER)])
def test_the_filter_equals_one_dense_solve(
    model: GaussianFactorModel, histories: UserHistories, taste: float, bias: float
) -> None:
    """All w_t as one Gaussian with Cov(w_s, w_t) = L diag(a^|s-t|) L', solved at once.

    Written with numpy, in the dual form for w at the last rating. The own uncertainty
    of an item's vector is a set of further observations of value 0: E[z z'] = z z' +
    sum_k f_k f_k', and f_k . w = 0 + noise adds f_k f_k' / s to the precision.
    """
    n, dim = 23, 3
    support = histories.everything(torch.tensor([171]), n)
    item = support.x[0].numpy()
    root = np.linalg.cholesky(model.user_covariance.numpy())
    left = 2.0 ** (-1 / np.array([taste, taste, bias]))
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    cov = np.einsum("ik,stk,jk->sitj", root, left ** lag[..., None], root)
    cov = cov.reshape(n * dim, n * dim)
    z = np.c_[model.q.numpy()[item], np.ones(n)]
    rows, values = [], []
    for t in range(n):
        own = np.linalg.cholesky(model.v_cov[item[t], :2, :2].numpy()).T
        for phi in [z[t], *np.c_[own, np.zeros(2)]]:
            row = np.zeros(n * dim)
            row[t * dim : (t + 1) * dim] = phi
            rows.append(row)
        values += [float(support.y[0, t] - model.offset[item[t]]), 0.0, 0.0]
    design, value = np.array(rows), np.array(values)
    mean = np.tile(model.user_mean.numpy(), n)
    noise = float(model.temper * model.noise)
    gram = design @ cov @ design.T + noise * np.eye(len(value))
    gain = np.linalg.solve(gram, design @ cov).T
    after = mean + gain @ (value - design @ mean)
    spread = cov - gain @ design @ cov

    belief = KalmanFilter(model, taste, bias).posterior(support)
    assert np.allclose(belief.mean[0], after[-dim:], atol=1e-8)
    assert np.allclose(belief.covariance[0], spread[-dim:, -dim:], atol=1e-8)


def test_with_known_items_it_is_the_online_posterior_that_moves() -> None:
    histories, truth, users = moving(12)
    model = knowing(truth)
    support = histories.everything(users, 30)
    sigma, a = model.user_covariance, 2 ** (-1 / 12)
    belief = KalmanFilter(model, 12, 12).start(len(users))
    for n in range(30):
        moved = a**2 * belief.covariance + (1 - a**2) * sigma
        belief = Posterior(a * belief.mean, moved, belief.noise)
        item = support.x[:, n]
        phi = torch.cat([model.q[item], torch.ones(len(users), 1)], 1).double()
        rest = support.y[:, n] - model.offset[item]
        belief = belief.update(phi, rest - (phi * belief.mean).sum(-1))
    theirs = KalmanFilter(model, 12, 12).posterior(support)
    assert torch.allclose(belief.mean, theirs.mean, atol=1e-8)
    assert torch.allclose(belief.covariance, theirs.covariance, atol=1e-8)


def test_the_prior_stays_where_it_is(model: GaussianFactorModel) -> None:
    """Moving without ratings changes nothing, whatever the two half-lives."""
    learner = KalmanFilter(model, 50, 3)
    keep, fresh = learner._dynamics()
    sigma = model.user_covariance
    assert torch.allclose(keep @ sigma @ keep.T + fresh, sigma)
    assert (torch.linalg.eigvalsh(fresh) > -1e-12).all()
    nothing = Examples(*(torch.zeros(2, 0, dtype=t) for t in (int, float, bool)))
    x = torch.arange(80).expand(2, -1)
    assert torch.allclose(learner.predict(nothing, x), model.predict(nothing, x))


def test_a_window_sees_the_newest_ratings_alone(
    model: GaussianFactorModel, histories: UserHistories
) -> None:
    full = histories.everything(torch.arange(150, 160), 20)
    newest = Examples(full.x[:, -6:], full.y[:, -6:], full.mask[:, -6:])
    x = torch.arange(80).expand(10, -1)
    given = Windowed(model, 6).predict(full, x)
    assert torch.equal(given, model.predict(newest, x))


def test_a_decayed_rating_counts_as_a_fraction_of_itself(
    model: GaussianFactorModel, histories: UserHistories
) -> None:
    """At half-life 1 the older of two ratings has half the precision of the newer."""
    full = histories.everything(torch.arange(150, 160), 2)
    one = Examples(full.x[:, 1:], full.y[:, 1:], full.mask[:, 1:])
    z = torch.cat([model.q[full.x], torch.ones(10, 2, 1)], -1).double()
    exact = copy.copy(model)
    exact.v_cov = torch.zeros_like(model.v_cov)
    precision = exact.user_covariance.inverse()
    s = exact.temper * exact.noise
    weight = torch.tensor([0.5, 1.0], dtype=torch.float64)
    gram = torch.einsum("n,bni,bnj->bij", weight, z, z) / s
    rest = full.y - exact.offset[full.x]
    side = torch.einsum("n,bni,bn->bi", weight, z, rest) / s
    side = side + precision @ exact.user_mean
    w = torch.linalg.solve(precision + gram, side)
    x = torch.arange(80).expand(10, -1)
    scores = exact.offset[x] + w[:, -1:] + w[:, :-1] @ exact.q.T
    assert torch.allclose(Decayed(exact, 1).predict(full, x), scores.float(), atol=1e-5)
    assert not torch.allclose(Decayed(exact, 1).predict(one, x), scores.float())


def test_padding_does_not_matter(model: GaussianFactorModel, support: Examples) -> None:
    spoiled = replace(
        support,
        x=torch.where(support.mask, support.x, 79),
        y=torch.where(support.mask, support.y, torch.nan),
    )
    belief, other = (KalmanFilter(model, 9, 4).posterior(s) for s in (support, spoiled))
    assert torch.equal(belief.mean, other.mean)


def test_settings_that_make_no_sense_are_refused(
    model: GaussianFactorModel,
) -> None:
    with pytest.raises(ValueError, match="last >= 1"):
        Windowed(model, 0)
    with pytest.raises(ValueError, match="half-life must be above 0"):
        Decayed(model, 0)
    for taste, bias in ((0, 5), (5, math.nan)):
        with pytest.raises(ValueError, match="half-life must be above 0"):
            KalmanFilter(model, taste, bias)
    shifted = copy.copy(model)
    shifted.implicit = torch.zeros(80, 2)
    with pytest.raises(ValueError, match="learn_implicit"):
        KalmanFilter(shifted, 5, 5)


# The protocol.


def test_blocks_cover_what_follows_the_first_ratings(
    model: GaussianFactorModel, histories: UserHistories
) -> None:
    users = torch.arange(150, 200)
    table = prequential(model, histories, users, block=8, first=10)
    assert list(table) == ["user", "block", "seen", "n", "rmse"]
    one = table[table["user"] == 163]
    assert one["seen"].tolist() == [10, 18, 26]
    assert one["n"].tolist() == [8, 8, 4]
    assert one["block"].tolist() == [0, 1, 2]
    whole = histories.everything(torch.tensor([163]), 30)
    seen = Examples(whole.x[:, :18], whole.y[:, :18], whole.mask[:, :18])
    error = model.predict(seen, whole.x[:, 18:26]).clamp(1, 5) - whole.y[:, 18:26]
    assert one["rmse"].iloc[1] == pytest.approx(float(error.square().mean().sqrt()))
    total = (one["n"] * one["rmse"] ** 2).sum() / 20
    assert rmse_of_users(table)[163] == pytest.approx(total**0.5)


def test_carrying_the_belief_on_is_the_same_as_starting_over(
    model: GaussianFactorModel, histories: UserHistories
) -> None:
    learner = KalmanFilter(model, 20, 10)

    class StartsOver:
        def predict(self, support: Examples, x: torch.Tensor) -> torch.Tensor:
            return learner.predict(support, x)

    users = torch.arange(150, 200)
    a, b = (
        prequential(p, histories, users, block=7, first=4)
        for p in (learner, StartsOver())
    )
    assert np.allclose(a["rmse"], b["rmse"], atol=1e-6)


def test_no_block_is_predicted_from_itself_or_later(
    model: GaussianFactorModel, data: RatingData
) -> None:
    table = data.ratings.copy()
    late = table.groupby("user").cumcount() >= 20
    table.loc[late, "rating"] = 6 - table.loc[late, "rating"]
    other = UserHistories(replace(data, ratings=table))
    users = torch.arange(150, 200)
    for learner in (model, Windowed(model, 5), KalmanFilter(model, 20, 10)):
        before, after = (
            prequential(learner, h, users, first=10)
            for h in (UserHistories(data), other)
        )
        early = before["seen"] == 10
        assert (before["rmse"] == after["rmse"])[early].all()
        assert (before["rmse"] != after["rmse"])[~early].all()


def test_users_of_all_lengths_and_none(
    model: GaussianFactorModel, data: RatingData
) -> None:
    table = data.ratings
    place = table.groupby("user").cumcount()
    ragged = UserHistories(replace(data, ratings=table[place < 5 + table["user"] % 20]))
    users = torch.arange(100, 160)
    result = prequential(KalmanFilter(model, 9, 9), ragged, users, block=3, first=8)
    counted = result.groupby("user")["n"].sum()
    assert counted.to_dict() == {
        u: 5 + u % 20 - 8 for u in users.tolist() if 5 + u % 20 > 8
    }
    with pytest.raises(ValueError, match="lower it"):
        prequential(model, ragged, users, first=50)
    with pytest.raises(ValueError, match="block >= 1"):
        prequential(model, ragged, users, block=0)


# What the course claims.


def chosen(model: GaussianFactorModel, histories: UserHistories) -> KalmanFilter:
    """One half-life for taste and bias, by validation users."""
    validation = split_users(240).validation

    def error(half_life: float) -> float:
        learner = KalmanFilter(model, half_life, half_life)
        return rmse_of_users(prequential(learner, histories, validation, 10, 30)).mean()

    best = min(HALF_LIVES, key=error)
    return KalmanFilter(model, best, best)


@pytest.mark.parametrize("half_life", [30, NEVER])
def test_drift_is_followed_where_it_is_and_costs_little_where_not(
    half_life: float,
) -> None:
    histories, truth, _ = moving(half_life)
    split = split_users(240)
    model = GaussianFactorModel.fit(histories, split.train, dim=2, sweeps=15)
    aware = chosen(model, histories)
    fixed = KalmanFilter(model, 400, 400)
    oracle = KalmanFilter(knowing(truth), half_life, half_life)
    static, mine, theirs, best = (
        rmse_of_users(prequential(p, histories, split.test, 10, 30)).to_numpy()
        for p in (model, aware, fixed, oracle)
    )
    gap = paired_bootstrap(mine, static)
    if half_life == NEVER:
        assert mine.mean() < 1.01 * static.mean()
        # A half-life that is fixed, and long, costs more than one that is chosen.
        assert static.mean() < theirs.mean() < 1.03 * static.mean()
    else:
        assert gap.high < -0.05
        assert aware.taste in (25, 50)
    assert best.mean() < mine.mean() < 1.05 * best.mean()


def test_blocks_of_users_of_unequal_length_equal_a_slow_loop(
    data: RatingData,
) -> None:
    """One user has more blocks than all others, some have none."""
    place = data.ratings.groupby("user").cumcount()
    kept = data.ratings[place < 8 + data.ratings["user"] % 20]
    uneven = UserHistories(replace(data, ratings=kept))
    users = torch.tensor([4, 19, 10, 0, 12])  # 12, 27, 18, 8 and 20 ratings
    model = GaussianFactorModel.fit(uneven, torch.arange(100, 200), dim=2, sweeps=3)
    rows = {}
    for user in users.tolist():
        _, item, rating = uneven.ratings_of(torch.tensor([user]))
        for block, seen in enumerate(range(8, len(item), 4)):
            known = Examples(
                item[None, :seen], rating[None, :seen], torch.ones(1, seen).bool()
            )
            new = slice(seen, seen + 4)
            guess = model.predict(known, item[None, new])[0].clamp(1, 5)
            error = (guess - rating[new]).square().mean().sqrt()
            rows[user, block] = seen, len(item[new]), error.item()
    for predictor in (model, KalmanFilter(model, NEVER, NEVER)):
        table = prequential(predictor, uneven, users, block=4, first=8)
        assert set(zip(table["user"], table["block"], strict=True)) == set(rows)
        for row in table.itertuples():
            seen, n, error = rows[row.user, row.block]
            assert (row.seen, row.n) == (seen, n)
            assert row.rmse == pytest.approx(error, abs=1e-4)
        mine = table[table["user"] == 19]
        total = (mine["n"] * mine["rmse"] ** 2).sum() / mine["n"].sum()
        assert rmse_of_users(table)[19] == pytest.approx(total**0.5)
    with pytest.raises(ValueError, match="no user has more than first = 27"):
        prequential(model, uneven, users, first=27)
    for wrong in ({"block": 0}, {"first": -1}):
        with pytest.raises(ValueError, match="need block >= 1 and first >= 0"):
            prequential(model, uneven, users, **wrong)


# The chapter, which builds its own.


@pytest.fixture(scope="module")
def chapter() -> SimpleNamespace:
    return defined()


def test_the_chapter_forgets_as_the_benchmark_does(
    chapter: SimpleNamespace, model: GaussianFactorModel, histories: UserHistories
) -> None:
    full, x = histories.everything(torch.arange(150, 160), 20), torch.arange(80)
    for theirs, mine in (
        (chapter.Window(model, 6), Windowed(model, 6)),
        (chapter.Decay(model, 9), Decayed(model, 9)),
        (chapter.Decay(model, NEVER), model),
        (chapter.Filter(model, 30, 4), KalmanFilter(model, 30, 4)),
        (chapter.Filter(model, NEVER, NEVER), KalmanFilter(model, NEVER, NEVER)),
    ):
        given = theirs.predict(full, x.expand(10, -1))
        assert torch.allclose(given, mine.predict(full, x.expand(10, -1)), atol=1e-6)


def test_the_chapter_judges_as_the_benchmark_does(
    chapter: SimpleNamespace, model: GaussianFactorModel, data: RatingData
) -> None:
    """Users of unequal length, by the static posterior and by a filter."""
    table = data.ratings
    place = table.groupby("user").cumcount()
    ragged = UserHistories(
        replace(data, ratings=table[place < 12 + table["user"] % 18])
    )
    users = torch.arange(150, 200)
    for theirs, mine in (
        (model, model),
        (chapter.Filter(model, 30, 4), KalmanFilter(model, 30, 4)),
    ):
        given = chapter.judge(theirs, ragged, users, first=8)
        table = prequential(mine, ragged, users, first=8)
        assert np.allclose(given, rmse_of_users(table), atol=1e-5)
