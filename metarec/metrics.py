"""How a recommender is judged: rating errors, quality of lists, and their spread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Ceiling",
    "Interval",
    "Reliability",
    "auc",
    "bootstrap_means",
    "chance_ndcg",
    "chance_precision",
    "coverage",
    "dcg",
    "expected_calibration_error",
    "gaussian_nll",
    "log_loss",
    "mae",
    "ndcg",
    "paired_bootstrap",
    "precision",
    "recall",
    "reliability",
    "rmse",
    "tie_ceiling",
    "tied_relevance",
    "user_mae",
    "user_rmse",
]


def rmse(prediction: Tensor, rating: Tensor) -> float:
    """Root of the mean squared error over all ratings, in stars (pooled RMSE).

    RMSE = sqrt(mean (r_hat - r)^2); both arguments have the same shape.
    Raises ``ValueError`` when the shapes differ, since broadcasting would hide it.

    Built in: matrix-factorization
    """
    _same_shape(prediction, rating)
    return float((prediction - rating).square().mean().sqrt())


def mae(prediction: Tensor, rating: Tensor) -> float:
    """Mean absolute error over all ratings, in stars.

    Built in: matrix-factorization
    """
    _same_shape(prediction, rating)
    return float((prediction - rating).abs().mean())


def user_rmse(prediction: Tensor, rating: Tensor, mask: Tensor) -> Tensor:
    """RMSE of each user over their own query, shape (B,), in stars.

    RMSE_u = sqrt(sum_n mask (r_hat - r)^2 / sum_n mask); arguments have shape (B, N).
    Every user counts once when these are averaged, however many ratings they gave.

    Built in: tasks
    """
    _same_shape(prediction, rating)
    error = torch.where(mask, prediction - rating, 0.0)
    return (error.square().sum(-1) / mask.sum(-1).clamp(min=1)).sqrt()


def user_mae(prediction: Tensor, rating: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error of each user over their own query, shape (B,), in stars.

    Built in: tasks
    """
    _same_shape(prediction, rating)
    error = torch.where(mask, prediction - rating, 0.0)
    return error.abs().sum(-1) / mask.sum(-1).clamp(min=1)


def gaussian_nll(mean: Tensor, variance: Tensor, rating: Tensor) -> Tensor:
    """-log N(r; mean, variance), in nats, of each rating; arguments have one shape.

    1/2 [(r - mean)^2 / variance + log(2 pi variance)].

    Built in: bayesian
    """
    _same_shape(mean, rating)
    square = (rating - mean).square() / variance
    return 0.5 * (square + (2 * torch.pi * variance).log())


def coverage(mean: Tensor, variance: Tensor, rating: Tensor, level: float) -> float:
    """Share of the ratings inside the central predictive interval of ``level``.

    The interval is mean +- z sqrt(variance), closed, z the quantile at (1 + level) / 2.
    Calibrated predictions cover ``level`` of the ratings. Arguments have one shape.

    Raises ``ValueError`` if ``level`` is not between 0 and 1.
    Built in: bayesian
    """
    _same_shape(mean, rating)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    z = torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64))
    inside = (rating - mean).abs() <= z * variance.sqrt()
    return float(inside.double().mean())


def log_loss(probability: Tensor, click: Tensor, mask: Tensor) -> Tensor:
    """Mean of -log p(click) over each user's query, shape (B,), in nats.

    -[y log p + (1 - y) log(1 - p)], with p kept within [eps, 1 - eps] (eps of its
    type), as scikit-learn does; log 2 for one who always says 1/2. Arguments have
    shape (B, N). Raises ``ValueError`` for a p outside [0, 1].

    Built in: leaderboard
    """
    _same_shape(probability, click)
    p = _probability(torch.where(mask, probability, 0.5))
    eps = torch.finfo(p.dtype).eps
    p = p.clamp(eps, 1 - eps)
    each = -torch.where(click > 0, p.log(), (1 - p).log())
    return torch.where(mask, each, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)


def auc(score: Tensor, click: Tensor, mask: Tensor) -> Tensor:
    """Probability that a click scores above a non-click, ties counted half: (B,).

    The area under the ROC curve of each user; .5 is chance, nan where all are clicks
    or none is. Arguments have shape (B, N). One row with everybody's is the pooled AUC,
    which also asks whether scores of different users compare.

    Source: Hanley & McNeil (1982).
    Built in: leaderboard
    """
    _same_shape(score, click)
    clicked, not_clicked = mask & (click > 0), mask & (click <= 0)
    rest = torch.where(not_clicked, score, torch.inf).sort(-1).values
    asked = torch.where(clicked, score, -torch.inf)
    below = torch.searchsorted(rest, asked) + torch.searchsorted(
        rest, asked, right=True
    )
    won = torch.where(clicked, below, 0).sum(-1).double() / 2
    return won / (clicked.sum(-1) * not_clicked.sum(-1))


class Reliability(NamedTuple):
    """Mean prediction, share of clicks and number of cases in each bin that has any.

    Plumbing: what `reliability` returns.
    """

    predicted: Tensor
    observed: Tensor
    cases: Tensor


def reliability(probability: Tensor, click: Tensor, bins: int = 10) -> Reliability:
    """Put predictions into ``bins`` of equal width and compare with what happened.

    Arguments have shape (N,). Raises ``ValueError`` for a p outside [0, 1].

    Source: Niculescu-Mizil & Caruana (2005).
    Built in: leaderboard
    """
    _same_shape(probability, click)
    p = _probability(probability).double()
    place = (p * bins).long().clamp(max=bins - 1)
    count = torch.bincount(place, minlength=bins)
    some = count > 0
    means = [
        (torch.bincount(place, value.double(), bins) / count)[some]
        for value in (p, click)
    ]
    return Reliability(means[0], means[1], count[some])


def expected_calibration_error(
    probability: Tensor, click: Tensor, bins: int = 10
) -> float:
    """Mean over cases of |mean prediction - share of clicks| in the case's bin.

    0 for calibrated predictions and infinite data; few data have some by chance.
    Arguments have shape (N,).

    Source: Guo et al. (2017).
    Built in: leaderboard
    """
    table = reliability(probability, click, bins)
    gap = (table.predicted - table.observed).abs()
    return float((gap * table.cases).sum() / table.cases.sum())


def _probability(p: Tensor) -> Tensor:
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            "a probability lies outside [0, 1]: pass probabilities, not scores"
        )
    return p


def dcg(relevance: Tensor, k: int | None = None, exponential: bool = False) -> Tensor:
    """Discounted cumulative gain of items listed in rank order, shape (...,).

    DCG@k = sum_{j=1..k} gain_j / log2(j + 1), gain the relevance itself, or
    2^relevance - 1 if ``exponential``. ``relevance`` has shape (..., N), best rank
    first.

    Source: Järvelin & Kekäläinen (2002).
    Built in: how-a-benchmark-fools-you
    """
    top = relevance[..., :k].double()
    gain = torch.exp2(top) - 1 if exponential else top
    rank = torch.arange(1, top.shape[-1] + 1, dtype=torch.float64)
    return (gain / torch.log2(rank + 1)).sum(-1)


def ndcg(
    score: Tensor, relevance: Tensor, k: int | None = None, exponential: bool = False
) -> Tensor:
    """DCG of the ranking by ``score`` over the DCG of the best possible ranking.

    Both arguments have shape (..., N) and cover *all* candidates: the ideal is taken
    over every relevant item, retrieved or not. Equal scores keep their given order;
    where nothing is relevant the result is 0.

    Source: Järvelin & Kekäläinen (2002).
    Built in: how-a-benchmark-fools-you
    """
    _same_shape(score, relevance)
    order = score.argsort(dim=-1, descending=True, stable=True)
    found = dcg(relevance.gather(-1, order), k, exponential)
    ideal = dcg(relevance.sort(-1, descending=True).values, k, exponential)
    return torch.where(ideal > 0, found / ideal.clamp(min=1e-300), 0.0)


def recall(score: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Share of the relevant items that stand among the first ``k`` by ``score``.

    ``relevant`` is boolean, shape (..., N); where nothing is relevant the result is 0.

    Built in: how-a-benchmark-fools-you
    """
    _same_shape(score, relevant)
    top = score.argsort(dim=-1, descending=True, stable=True)[..., :k]
    hits = relevant.gather(-1, top).sum(-1).double()
    return hits / relevant.sum(-1).clamp(min=1)


def precision(score: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Share of the first ``k`` places by ``score`` that hold a relevant item.

    ``relevant`` (..., N) is boolean, or holds the probability that an item is relevant
    (see `tied_relevance`): then the result is the expected share. Equal scores keep
    their given order; places beyond the N-th count as misses.

    Built in: how-a-benchmark-fools-you
    """
    _same_shape(score, relevant)
    top = score.argsort(dim=-1, descending=True, stable=True)[..., :k]
    return relevant.gather(-1, top).double().sum(-1) / k


def chance_precision(relevant: Tensor, k: int) -> Tensor:
    """Expected `precision` of a random order of the N items: R / N while k <= N.

    ``relevant`` (..., N) is boolean, or a probability; R is its sum.

    Built in: how-a-benchmark-fools-you
    """
    n = relevant.shape[-1]
    return relevant.double().mean(-1) * min(k, n) / k


def chance_ndcg(
    relevance: Tensor, k: int | None = None, exponential: bool = False
) -> Tensor:
    """Expected `ndcg` of a random order of the N items, exactly.

    Each place expects the mean gain, so
    E[nDCG@k] = mean gain / ideal DCG@k * sum_{j=1..k} 1 / log2(j + 1); 0 where nothing
    is relevant. ``relevance`` (..., N) is binary or graded. With R >= k relevant
    items of one grade it is R / N, the chance of precision.

    Built in: how-a-benchmark-fools-you
    """
    gain = torch.exp2(relevance.double()) - 1 if exponential else relevance.double()
    found = dcg(gain.mean(-1, keepdim=True).expand(gain.shape), k)
    ideal = dcg(gain.sort(-1, descending=True).values, k)
    return torch.where(ideal > 0, found / ideal.clamp(min=1e-300), 0.0)


def tied_relevance(rating: Tensor, n: int) -> Tensor:
    """Probability that an item is among the ``n`` best when coins order equal ratings.

    1 above the n-th highest rating, 0 below it, and (n - a) / g for the g items that
    share it, a the number of items above. ``rating`` and the result: shape (..., N).

    Raises ``ValueError`` unless 1 <= n <= N.
    Built in: how-a-benchmark-fools-you
    """
    if not 1 <= n <= rating.shape[-1]:
        raise ValueError(f"n must lie in 1..{rating.shape[-1]}, the items, got {n}")
    edge = rating.sort(-1, descending=True).values[..., n - 1, None]
    above, level = rating > edge, rating == edge
    share = (n - above.sum(-1, keepdim=True)) / level.sum(-1, keepdim=True).double()
    return torch.where(level, share, above.double())


class Ceiling(NamedTuple):
    """The best precision and nDCG that can be expected, each of shape (...,).

    Built in: how-a-benchmark-fools-you
    """

    precision: Tensor
    ndcg: Tensor


def tie_ceiling(rating: Tensor, n: int, k: int) -> Ceiling:
    """What an oracle scores who knows every rating, but not how coins order equals.

    Relevant are the ``n`` highest of the N ratings, equal ones ordered by coin flips.
    The best list puts the most probable first, so with p_(1) >= p_(2) >= ... from
    `tied_relevance`: precision@k = sum_{j<=k} p_(j) / k and
    nDCG@k = sum_{j<=k} p_(j) / log2(j + 1) / sum_{j<=min(k,n)} 1 / log2(j + 1).

    Raises ``ValueError`` unless 1 <= n <= N.
    Built in: how-a-benchmark-fools-you
    """
    p = tied_relevance(rating, n)
    best = p.sort(-1, descending=True).values
    ideal = dcg(torch.ones(n), k)
    return Ceiling(precision(p, p, k), dcg(best, k) / ideal)


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval.

    Built in: maml
    """

    mean: float
    low: float
    high: float


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    strata: np.ndarray | None = None,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of ``a - b`` over users with its percentile bootstrap interval.

    Users are resampled with replacement, within each stratum (fold) where ``strata``
    names one per user; ``a`` and ``b`` stay paired, so what all methods share cancels.
    The interval is conditional on the fitted models. Negative: ``a`` errs less.

    Raises ``ValueError`` when the two do not cover the same users.
    Source: Efron & Tibshirani (1993), chapter 13.
    Built in: maml
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            f"a and b must hold one number for each of the same users, but have "
            f"shapes {a.shape} and {b.shape}"
        )
    means = bootstrap_means((a - b)[:, None], strata, draws, seed)[:, 0]
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float((a - b).mean()), float(low), float(high))


def bootstrap_means(
    values: np.ndarray,
    strata: np.ndarray | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> np.ndarray:
    """Means of the columns of ``values`` (users, M) in each resample: (draws, M).

    All columns see the same resamples. Users are drawn within each stratum.

    Plumbing: `paired_bootstrap` for one column, the leaderboard for all its methods.
    """
    strata = np.zeros(len(values)) if strata is None else np.asarray(strata)
    rng = np.random.default_rng(seed)
    total = np.zeros((draws, values.shape[1]))
    for stratum in np.unique(strata):
        members = values[strata == stratum]
        weight = rng.multinomial(
            len(members), np.full(len(members), 1 / len(members)), size=draws
        )
        total += weight @ members
    return total / len(values)


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"shapes differ: {tuple(a.shape)} against {tuple(b.shape)}; they would "
            "broadcast into a number that means nothing"
        )
