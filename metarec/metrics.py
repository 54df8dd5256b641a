"""How a recommender is judged: rating errors, quality of lists, and their spread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Interval",
    "coverage",
    "dcg",
    "gaussian_nll",
    "mae",
    "ndcg",
    "paired_bootstrap",
    "recall",
    "rmse",
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


def dcg(relevance: Tensor, k: int | None = None, exponential: bool = False) -> Tensor:
    """Discounted cumulative gain of items listed in rank order, shape (...,).

    DCG@k = sum_{j=1..k} gain_j / log2(j + 1), gain the relevance itself, or
    2^relevance - 1 if ``exponential``. ``relevance`` has shape (..., N), best rank
    first.

    Source: Jarvelin & Kekalainen (2002).
    Built in: full-system
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

    Source: Jarvelin & Kekalainen (2002).
    Built in: full-system
    """
    _same_shape(score, relevance)
    order = score.argsort(dim=-1, descending=True, stable=True)
    found = dcg(relevance.gather(-1, order), k, exponential)
    ideal = dcg(relevance.sort(-1, descending=True).values, k, exponential)
    return torch.where(ideal > 0, found / ideal.clamp(min=1e-300), 0.0)


def recall(score: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Share of the relevant items that stand among the first ``k`` by ``score``.

    ``relevant`` is boolean, shape (..., N); where nothing is relevant the result is 0.

    Built in: full-system
    """
    _same_shape(score, relevant)
    top = score.argsort(dim=-1, descending=True, stable=True)[..., :k]
    hits = relevant.gather(-1, top).sum(-1).double()
    return hits / relevant.sum(-1).clamp(min=1)


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
    names one per user; a and b stay paired, so what all methods share cancels. The
    interval is conditional on the fitted models. Negative means that ``a`` errs less.

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
    difference = a - b
    strata = np.zeros(len(difference)) if strata is None else np.asarray(strata)
    rng = np.random.default_rng(seed)
    total = np.zeros(draws)
    for stratum in np.unique(strata):
        members = difference[strata == stratum]
        weight = rng.multinomial(
            len(members), np.full(len(members), 1 / len(members)), size=draws
        )
        total += weight @ members
    tail = (1 - level) / 2
    low, high = np.quantile(total / len(difference), [tail, 1 - tail])
    return Interval(float(difference.mean()), float(low), float(high))


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"shapes differ: {tuple(a.shape)} against {tuple(b.shape)}; they would "
            "broadcast into a number that means nothing"
        )
