"""How far a mean over users would move with other users."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval.

    Parameters
    ----------
    mean
        The mean.
    low
        Lower end.
    high
        Upper end.

    Built in
    --------
    maml
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

    Parameters
    ----------
    a
        Error of each user under the one method, shape (users,).
    b
        Error of each user under the other, shape (users,).
    strata
        Stratum (fold) of each user, shape (users,); one for all if not given.
    draws
        Number of resamples.
    level
        Probability of the interval.
    seed
        Seed of everything that is drawn.

    Returns
    -------
    Interval
        The mean difference and its interval.

    Raises
    ------
    ValueError
        When the two do not cover the same users.

    Source
    ------
    Efron & Tibshirani (1993), chapter 13.

    Built in
    --------
    maml
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

    Parameters
    ----------
    values
        One row for each user, shape (users, M).
    strata
        Stratum (fold) of each user, shape (users,); one for all if not given.
    draws
        Number of resamples.
    seed
        Seed of everything that is drawn.

    Returns
    -------
    np.ndarray
        The means, shape (draws, M).

    Plumbing
    --------
    `paired_bootstrap` for one column, the leaderboard for all its methods.
    """
    strata = np.zeros(len(values)) if strata is None else np.asarray(strata)
    rng = np.random.default_rng(seed)
    total = np.zeros((draws, values.shape[1]))
    for stratum in np.unique(strata):
        members = values[strata == stratum]
        # How often each user was drawn: a product with it is a resample's sum.
        n = len(members)
        total += rng.multinomial(n, np.full(n, 1 / n), size=draws) @ members
    return total / len(values)
