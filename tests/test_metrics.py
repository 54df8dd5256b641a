"""Metrics against scikit-learn and the published cases of other libraries."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import mean_absolute_error, ndcg_score, root_mean_squared_error

from metarec.metrics import (
    auc,
    bootstrap_means,
    chance_ndcg,
    chance_precision,
    coverage,
    dcg,
    expected_calibration_error,
    holm,
    log_loss,
    mae,
    ndcg,
    paired_bootstrap,
    precision,
    recall,
    rmse,
    simultaneous_bootstrap,
    user_mae,
    user_rmse,
)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_dcg_and_ndcg_of_the_scikit_learn_documentation() -> None:
    relevance = tensor(10, 0, 0, 1, 5)
    score = tensor(0.1, 0.2, 0.3, 4, 70)
    ranked = relevance[score.argsort(descending=True)]
    assert dcg(ranked).item() == pytest.approx(9.49946, abs=1e-5)
    assert dcg(ranked, 2).item() == pytest.approx(5.63093, abs=1e-5)
    assert ndcg(score, relevance).item() == pytest.approx(0.69569, abs=1e-5)
    score = tensor(0.05, 1.1, 1, 0.5, 0)
    assert ndcg(score, relevance).item() == pytest.approx(0.49368, abs=1e-5)
    assert ndcg(score, relevance, 4).item() == pytest.approx(0.35202, abs=1e-5)


def test_ties_keep_their_order() -> None:
    score, relevance = tensor(1, 0, 0, 0, 1), tensor(10, 0, 0, 1, 5)
    assert ndcg(score.flip(0), relevance.flip(0), 1).item() == pytest.approx(0.5)
    assert ndcg(score, relevance, 1).item() == pytest.approx(1.0)


@pytest.mark.parametrize(("rank", "value"), [(1, 1), (2, 0.6309297536), (3, 0.5)])
def test_one_relevant_item_as_pytrec_eval_has_it(rank: int, value: float) -> None:
    relevance = torch.zeros(5)
    relevance[rank - 1] = 1
    score = torch.arange(5, 0, -1.0)
    assert ndcg(score, relevance).item() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize(
    ("run", "linear", "exponential"),
    [([1, 2, 3, 4, 5], 0.61081, 0.63477), ([10, 5, 2, 4, 3], 0.82098, 0.64912)],
)
def test_graded_cases_of_ranx(
    run: list[int], linear: float, exponential: float
) -> None:
    relevance = torch.zeros(11)
    for item, grade in {2: 5, 4: 4, 5: 3, 10: 2}.items():
        relevance[item] = grade
    score = torch.full((11,), -1.0)
    for rank, item in enumerate(run):
        score[item] = 10 - rank
    assert ndcg(score, relevance, 5).item() == pytest.approx(linear, abs=1e-5)
    found = ndcg(score, relevance.exp2() - 1, 5).item()
    assert found == pytest.approx(exponential, abs=1e-5)


def test_the_ideal_is_taken_over_all_relevant_items() -> None:
    relevance = tensor(3, 2, 3, 0, 1, 2, 3, 2)
    score = torch.arange(8, 0, -1.0, dtype=torch.float64)
    assert ndcg(score, relevance, 6).item() == pytest.approx(0.785, abs=5e-4)
    alone = ndcg(score[:6], relevance[:6], 6).item()
    assert alone == pytest.approx(0.961, abs=5e-4)


def test_ndcg_is_scikit_learns_on_random_lists() -> None:
    rng = np.random.default_rng(0)
    relevance, score = rng.integers(0, 6, (40, 30)), rng.normal(size=(40, 30))
    found = ndcg(torch.tensor(score), torch.tensor(relevance).double(), 10)
    assert found.mean().item() == pytest.approx(ndcg_score(relevance, score, k=10))


def test_nothing_relevant_counts_zero() -> None:
    assert ndcg(torch.rand(2, 4), torch.zeros(2, 4)).tolist() == [0, 0]
    assert recall(torch.rand(4), torch.zeros(4).bool(), 2).item() == 0


def test_recall_counts_hits_over_all_relevant() -> None:
    relevant = torch.tensor([True, False, True, True])
    assert recall(tensor(4, 3, 2, 1), relevant, 2).item() == pytest.approx(1 / 3)
    assert recall(tensor(4, 1, 2, 3), relevant, 3).item() == pytest.approx(1.0)


def test_errors_are_scikit_learns_pooled_and_user_by_user() -> None:
    rng = np.random.default_rng(1)
    rating, guess = rng.normal(size=(2, 6, 9))
    mask = rng.random((6, 9)) < 0.6
    mask[:, 0] = True
    r, g, m = (torch.tensor(a) for a in (rating, guess, mask))
    assert rmse(g, r) == pytest.approx(
        root_mean_squared_error(rating.ravel(), guess.ravel())
    )
    assert mae(g, r) == pytest.approx(
        mean_absolute_error(rating.ravel(), guess.ravel())
    )
    for u in range(6):
        own = rating[u, mask[u]], guess[u, mask[u]]
        assert user_rmse(g, r, m)[u].item() == pytest.approx(
            root_mean_squared_error(*own)
        )
        assert user_mae(g, r, m)[u].item() == pytest.approx(mean_absolute_error(*own))


def test_what_is_padded_does_not_count_even_if_it_is_nan() -> None:
    guess = torch.tensor([[3.0, torch.nan]])
    rating, mask = torch.tensor([[4.0, 0.0]]), torch.tensor([[True, False]])
    assert user_rmse(guess, rating, mask).item() == 1
    assert user_mae(guess, rating, mask).item() == 1
    sure, click = torch.tensor([[0.25, torch.nan], [0.5, 7.0]]), torch.tensor([[1, 0]])
    for found, expected in zip(
        log_loss(sure, click.expand(2, 2), mask.expand(2, 2)), (4.0, 2.0), strict=True
    ):
        assert found.item() == pytest.approx(np.log(expected))


OF_ONE_SHAPE: dict[str, tuple[Callable[..., object], int]] = {
    "rmse": (rmse, 2),
    "mae": (mae, 2),
    "user_rmse": (user_rmse, 3),
    "user_mae": (user_mae, 3),
    "coverage": (lambda *each: coverage(*each, 0.9), 3),
    "log_loss": (log_loss, 3),
    "auc": (auc, 3),
    "expected_calibration_error": (expected_calibration_error, 2),
    "ndcg": (ndcg, 2),
    "recall": (lambda *each: recall(*each, 2), 2),
    "precision": (lambda *each: precision(*each, 2), 2),
}


@pytest.mark.parametrize("name", OF_ONE_SHAPE)
@pytest.mark.parametrize("other", [(5, 1), (1, 4), (4,), (1,), ()])
def test_shapes_that_broadcast_are_refused(name: str, other: tuple[int, ...]) -> None:
    metric, n = OF_ONE_SHAPE[name]
    for place in range(n):
        shapes = [(5, 4)] * n
        shapes[place] = other
        arguments = [torch.ones(shape, dtype=torch.bool) for shape in shapes]
        arguments[0] = arguments[0].float()
        with pytest.raises(ValueError, match=r"shapes differ.*of one shape"):
            metric(*arguments)


OF_A_ROW: dict[str, tuple[Callable[..., torch.Tensor], str]] = {
    "user_rmse": (user_rmse, "stars stars mask"),
    "user_mae": (user_mae, "stars stars mask"),
    "log_loss": (log_loss, "share mask mask"),
    "auc": (auc, "share mask mask"),
    "dcg": (lambda gain: dcg(gain, 4), "stars"),
    "ndcg": (lambda *each: ndcg(*each, 4), "share stars"),
    "recall": (lambda *each: recall(*each, 4), "share mask"),
    "precision": (lambda *each: precision(*each, 4), "share mask"),
    "chance_ndcg": (lambda gain: chance_ndcg(gain, 4), "stars"),
    "chance_precision": (lambda found: chance_precision(found, 4), "mask"),
}


@pytest.mark.parametrize("name", OF_A_ROW)
def test_a_batch_of_users_is_judged_as_one_user_after_another(name: str) -> None:
    metric, kinds = OF_A_ROW[name]
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(len(kinds.split()), 5, 6, generator=generator)
    make = {"share": share, "stars": (5 * share).ceil(), "mask": share > 0.4}
    batch = [make[kind][place] for place, kind in enumerate(kinds.split())]
    found = metric(*batch)
    assert found.shape == (5,)
    for row in range(5):
        alone = metric(*(each[row : row + 1] for each in batch))
        torch.testing.assert_close(found[row : row + 1], alone, equal_nan=True)


def test_the_bootstrap_interval_is_the_normal_one_for_many_users() -> None:
    rng = np.random.default_rng(2)
    shared = rng.normal(0, 5, 1000)
    a, b = shared + rng.normal(0.1, 1, 1000), shared + rng.normal(0, 1, 1000)
    found = paired_bootstrap(a, b)
    half = 1.96 * (a - b).std(ddof=1) / np.sqrt(1000)
    assert found.mean == pytest.approx((a - b).mean())
    assert found.low == pytest.approx(found.mean - half, abs=0.006)
    assert found.high == pytest.approx(found.mean + half, abs=0.006)
    assert paired_bootstrap(a, b) == found


def test_the_level_of_an_interval_and_the_number_of_its_draws() -> None:
    rng = np.random.default_rng(2)
    a, zero = rng.normal(0.1, 1, 1000), np.zeros(1000)
    half = a.std(ddof=1) / np.sqrt(1000) * stats.norm.ppf(0.75)
    found = paired_bootstrap(a, zero, level=0.5, draws=4000)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)
    assert found != paired_bootstrap(a, zero, level=0.5, draws=4000, seed=1)
    means = bootstrap_means(np.c_[a, 2 * a], None, draws=50, seed=3)
    assert means.shape == (50, 2)
    np.testing.assert_allclose(means[:, 1], 2 * means[:, 0])
    # Each stratum counts by its size.
    fold = np.repeat([0, 1], [900, 100])
    shifted = np.where(fold == 1, 5.0, 0.0)
    np.testing.assert_allclose(bootstrap_means(shifted[:, None], fold, 20), 0.5)


def test_strata_take_their_spread_out_of_the_interval() -> None:
    fold = np.repeat([0, 1], 200)
    a = np.where(fold == 0, -1.0, 1.0)
    assert paired_bootstrap(a, np.zeros(400), fold) == (0, 0, 0)
    assert paired_bootstrap(a, np.zeros(400)).high > 0.05
    with pytest.raises(ValueError, match="same users"):
        paired_bootstrap(a, np.zeros(3))


def reach_in_errors(gaps: np.ndarray) -> float:
    """The half-width of simultaneous intervals, in standard errors of the mean."""
    mean, low, high = simultaneous_bootstrap(gaps)
    np.testing.assert_allclose(mean, gaps.mean(0))
    np.testing.assert_allclose(high - mean, mean - low)
    errors = (high - mean) / (gaps.std(0) / np.sqrt(len(gaps)))
    assert np.ptp(errors) < 0.1
    return float(errors.mean())


def test_simultaneous_intervals_are_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(400, 9))
    # One comparison, and nine that are the same, need no correction.
    for alike in (columns[:, :1], np.outer(columns[:, 0], np.arange(1, 10))):
        assert reach_in_errors(alike) == pytest.approx(1.96, abs=0.05)
    # Nine that have nothing to do with each other: Sidak, a trace below Bonferroni.
    found, bonferroni = reach_in_errors(columns), stats.norm.ppf(1 - 0.025 / 9)
    sidak = stats.norm.ppf((1 + 0.95 ** (1 / 9)) / 2)
    assert found == pytest.approx(sidak, abs=0.05) and sidak < bonferroni
    # All pairs of nine share columns: the studentised range, well below Bonferroni.
    first, second = np.triu_indices(9, 1)
    pairs = columns[:, first] - columns[:, second]
    tukey = stats.studentized_range.ppf(0.95, 9, np.inf) / np.sqrt(2)
    assert reach_in_errors(pairs) == pytest.approx(tukey, abs=0.05)
    assert tukey < stats.norm.ppf(1 - 0.025 / 36) - 0.08


@pytest.mark.slow
def test_simultaneous_intervals_hold_the_truth_all_together() -> None:
    rng = np.random.default_rng(1)
    truth, fold = np.linspace(-0.2, 0.2, 9), np.repeat([0, 1], [50, 30])
    together = alone = 0
    for _ in range(60):
        shared = 0.5 * rng.normal(size=(80, 1)) + fold[:, None]
        gaps = truth + shared + rng.normal(size=(80, 9))
        # The strata are fixed, so what differs between them is no part of the spread.
        expected = truth + fold.mean()
        _, low, high = simultaneous_bootstrap(gaps, fold)
        together += ((low < expected) & (expected < high)).all()
        ends = np.quantile(bootstrap_means(gaps, fold, 1000), [0.025, 0.975], axis=0)
        alone += ((ends[0] < expected) & (expected < ends[1])).all()
    assert 0.88 < together / 60 <= 1 and alone / 60 < 0.8


def test_a_column_that_does_not_vary_has_no_part_in_the_others() -> None:
    rng = np.random.default_rng(0)
    gaps = rng.normal(size=(50, 2))
    both = simultaneous_bootstrap(np.c_[gaps, np.zeros(50)])
    np.testing.assert_allclose(both[:, :2], simultaneous_bootstrap(gaps))
    assert (both[:, 2] == 0).all()
    narrow = simultaneous_bootstrap(gaps, level=0.5)
    assert (narrow[1] > both[1, :2]).all()


def test_coverage_counts_the_closed_central_interval() -> None:
    g = torch.Generator().manual_seed(0)
    # Neither at 0 nor of one width, where a sign or a root too many shows nothing.
    mean, spread = 5 * torch.rand(2, 20_000, generator=g) + 0.1
    variance = spread.square()
    rating = mean + spread * torch.randn(20_000, generator=g)
    for level in (0.5, 0.9):
        low, high = stats.norm.interval(level, mean.numpy(), spread.numpy())
        r = rating.numpy()
        expected = ((r >= low) & (r <= high)).mean()
        found = coverage(mean, variance, rating, level)
        assert abs(found - expected) < 2e-4 and abs(found - level) < 0.01
    # Closed: a rating at the very end is inside, and an interval may be a point.
    point = torch.ones(3)
    assert coverage(point, 0 * point, torch.tensor([1.0, 1.5, 0.5]), 0.9) == 1 / 3
    for wrong in (0, 1, 90):
        with pytest.raises(ValueError, match="between 0 and 1"):
            coverage(mean, variance, rating, wrong)


def test_holm_is_the_step_down_of_bonferroni() -> None:
    assert np.allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    assert np.allclose(holm(np.array([0.6, 0.01, 0.9])), [1, 0.03, 1])
    rng = np.random.default_rng(0)
    p = rng.random(9)
    for place, value in enumerate(p):
        smaller = [(9 - (p < q).sum()) * q for q in p if q <= value]
        assert holm(p)[place] == pytest.approx(min(1, max(smaller)))
