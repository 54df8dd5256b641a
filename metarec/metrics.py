"""How a recommender is judged: rating errors, quality of lists, and their spread."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

__all__ = ["coverage", "mae", "rmse", "user_mae", "user_rmse", "auc", "log_loss"]
__all__ += ["expected_calibration_error", "chance_ndcg", "chance_precision", "dcg"]
__all__ += ["ndcg", "precision", "recall", "Interval", "bootstrap_means", "holm"]
__all__ += ["paired_bootstrap", "Ranking", "listed", "overlap", "rank_candidates"]
__all__ += ["share_shown", "simultaneous_bootstrap"]

# How far predicted stars, and their intervals, lie from the ratings.


def rmse(prediction: Tensor, rating: Tensor) -> float:
    """Root of the mean squared error over all ratings, in stars (pooled RMSE).

    ``RMSE = sqrt(mean (r_hat - r)^2)``; both arguments have the same shape.

    Parameters
    ----------
    prediction
        Predicted ratings, in stars, shape (...,).
    rating
        Ratings, in stars, of the same shape (...,).

    Returns
    -------
    float
        The error, in stars.

    Raises
    ------
    ValueError
        If the shapes differ, since broadcasting would hide it.

    Built in
    --------
    matrix-factorization
    """
    _same_shape(prediction, rating)
    return float((prediction - rating).square().mean().sqrt())


def mae(prediction: Tensor, rating: Tensor) -> float:
    """Mean absolute error over all ratings, in stars.

    Parameters
    ----------
    prediction
        Predicted ratings, in stars, shape (...,).
    rating
        Ratings, in stars, of the same shape (...,).

    Returns
    -------
    float
        The error, in stars.

    Built in
    --------
    matrix-factorization
    """
    _same_shape(prediction, rating)
    return float((prediction - rating).abs().mean())


def user_rmse(prediction: Tensor, rating: Tensor, mask: Tensor) -> Tensor:
    """RMSE of each user over their own query, shape (B,), in stars.

    ``RMSE_u = sqrt(sum_n mask (r_hat - r)^2 / sum_n mask)``; arguments have shape (B,
    N). Every user counts once when these are averaged, however many ratings they gave.

    Parameters
    ----------
    prediction
        Predicted ratings, in stars, shape (B, N).
    rating
        Ratings, in stars, shape (B, N).
    mask
        True where there is an example, shape (B, N).

    Returns
    -------
    Tensor
        The error of each user, in stars, shape (B,).

    Built in
    --------
    tasks
    """
    _same_shape(prediction, rating, mask)
    return _mean((prediction - rating).square(), mask).sqrt()


def user_mae(prediction: Tensor, rating: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error of each user over their own query, shape (B,), in stars.

    Parameters
    ----------
    prediction
        Predicted ratings, in stars, shape (B, N).
    rating
        Ratings, in stars, shape (B, N).
    mask
        True where there is an example, shape (B, N).

    Returns
    -------
    Tensor
        The error of each user, in stars, shape (B,).

    Built in
    --------
    tasks
    """
    _same_shape(prediction, rating, mask)
    return _mean((prediction - rating).abs(), mask)


def coverage(mean: Tensor, variance: Tensor, rating: Tensor, level: float) -> float:
    """Share of the ratings inside the central predictive interval of ``level``.

    The interval is ``mean +- z sqrt(variance)``, closed, z the quantile at (1 + level)
    / 2. Calibrated predictions cover ``level`` of the ratings. Arguments have one
    shape.

    Parameters
    ----------
    mean
        Predicted means, in stars, shape (...,).
    variance
        Predicted variances, of the shape of the means (...,).
    rating
        Ratings, of the shape of the means (...,).
    level
        Probability of the interval, between 0 and 1.

    Returns
    -------
    float
        The share, between 0 and 1.

    Raises
    ------
    ValueError
        If ``level`` is not between 0 and 1.

    Built in
    --------
    bayesian
    """
    _same_shape(mean, variance, rating)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    z = torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64))
    return float(((rating - mean).abs() <= z * variance.sqrt()).double().mean())


# How good a predicted probability of a click is.


def log_loss(probability: Tensor, click: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``-log p(click)`` over each user's query, shape (B,), in nats.

    ``-[y log p + (1 - y) log(1 - p)]``, with p kept within [eps, 1 - eps] (eps of its
    type), as scikit-learn does; ``log 2`` for one who always says 1/2. Arguments have
    shape (B, N).

    Parameters
    ----------
    probability
        Predicted probabilities of a click, shape (B, N).
    click
        1 for a click, 0 for none, shape (B, N).
    mask
        True where there is an example, shape (B, N).

    Returns
    -------
    Tensor
        The loss of each user, in nats, shape (B,).

    Raises
    ------
    ValueError
        For a probability outside [0, 1].

    Built in
    --------
    lists
    """
    _same_shape(probability, click, mask)
    eps = torch.finfo(probability.dtype).eps
    # One sure and wrong prediction must not make the mean infinite.
    p = _probability(torch.where(mask, probability, 0.5)).clamp(eps, 1 - eps)
    return _mean(-torch.where(click > 0, p.log(), (1 - p).log()), mask)


def auc(score: Tensor, click: Tensor, mask: Tensor) -> Tensor:
    """Probability that a click scores above a non-click, ties counted half: (B,).

    The area under the ROC curve of each user; .5 is chance, nan where all are clicks
    or none is. Arguments have shape (B, N). One row with everybody's is the pooled AUC,
    which also asks whether scores of different users compare.

    Parameters
    ----------
    score
        Scores, shape (B, N).
    click
        1 for a click, 0 for none, shape (B, N).
    mask
        True where there is an example, shape (B, N).

    Returns
    -------
    Tensor
        The area of each user, shape (B,).

    Source
    ------
    Hanley & McNeil (1982).

    Built in
    --------
    lists
    """
    _same_shape(score, click, mask)
    clicked, not_clicked = mask & (click > 0), mask & (click <= 0)
    rest = torch.where(not_clicked, score, torch.inf).sort(-1).values
    # What is not asked about stands at an end of the scale, and counts nothing.
    asked = torch.where(clicked, score, -torch.inf)
    below = torch.searchsorted(rest, asked)
    below = below + torch.searchsorted(rest, asked, right=True)
    won = torch.where(clicked, below, 0).sum(-1).double() / 2
    return won / (clicked.sum(-1) * not_clicked.sum(-1))


def expected_calibration_error(probability: Tensor, click: Tensor) -> float:
    """Mean distance between prediction and share of clicks, over ten bins of all cases.

    A case counts the distance between the mean prediction and the share of clicks in
    its bin. 0 for calibrated predictions and infinite data; few data have some by
    chance.

    Parameters
    ----------
    probability
        Predicted probabilities, shape (N,).
    click
        1 for a click, 0 for none, shape (N,).

    Returns
    -------
    float
        The error, between 0 and 1.

    Raises
    ------
    ValueError
        If shapes differ, or for probabilities outside [0, 1].

    Source
    ------
    Guo et al. (2017).

    Built in
    --------
    lists
    """
    _same_shape(probability, click)
    p = _probability(probability).double()
    place = (10 * p).long().clamp(max=9)
    # A bin's gap of means times its cases is its gap of sums.
    gap = torch.bincount(place, p - click.double())
    return float(gap.abs().sum() / len(p))


# How good a list is, and what chance scores.


def dcg(relevance: Tensor, k: int | None = None) -> Tensor:
    """Discounted cumulative gain of items listed in rank order, shape (...,).

    ``DCG@k = sum_{j=1..k} relevance_j / log2(j + 1)``. For the exponential gain pass
    ``2^relevance - 1``.

    Parameters
    ----------
    relevance
        Relevance in rank order, best rank first, shape (..., N).
    k
        Number of places that count; all N if not given.

    Returns
    -------
    Tensor
        The gain of each list, shape (...,).

    Source
    ------
    Järvelin & Kekäläinen (2002).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    top = relevance[..., :k].double()
    place = torch.arange(top.shape[-1], dtype=torch.float64)
    return (top / torch.log2(place + 2)).sum(-1)


def ndcg(score: Tensor, relevance: Tensor, k: int | None = None) -> Tensor:
    """DCG of the ranking by ``score`` over the DCG of the best possible ranking.

    Both arguments have shape (..., N) and cover *all* candidates: the ideal is taken
    over every relevant item, retrieved or not. Equal scores keep their given order;
    where nothing is relevant the result is 0.

    Parameters
    ----------
    score
        Scores, shape (..., N).
    relevance
        Relevance of all candidates, shape (..., N).
    k
        Number of places that count; all N if not given.

    Returns
    -------
    Tensor
        One number for each list, shape (...,).

    Source
    ------
    Järvelin & Kekäläinen (2002).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    _same_shape(score, relevance)
    return _of_ideal(dcg(_first(score, relevance, k), k), relevance, k)


def recall(score: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Share of the relevant items that stand among the first ``k`` by ``score``.

    ``relevant`` is boolean, shape (..., N); where nothing is relevant the result is 0.

    Parameters
    ----------
    score
        Scores, shape (..., N).
    relevant
        Whether an item is relevant, shape (..., N).
    k
        Number of places that count.

    Returns
    -------
    Tensor
        One number for each list, shape (...,).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    _same_shape(score, relevant)
    return _first(score, relevant, k).double().sum(-1) / relevant.sum(-1).clamp(min=1)


def precision(score: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Share of the first ``k`` places by ``score`` that hold a relevant item.

    ``relevant`` (..., N) is boolean, or holds the probability that an item is relevant:
    then the result is the expected share. Equal scores keep their given order; places
    beyond the N-th count as misses.

    Parameters
    ----------
    score
        Scores, shape (..., N).
    relevant
        Whether an item is relevant, or the probability of it, shape (..., N).
    k
        Number of places that count.

    Returns
    -------
    Tensor
        One number for each list, shape (...,).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    _same_shape(score, relevant)
    return _first(score, relevant, k).double().sum(-1) / k


def chance_precision(relevant: Tensor, k: int) -> Tensor:
    """Expected `precision` of a random order of the N items.

    It is ``R / N`` while ``k <= N``.

    ``relevant`` (..., N) is boolean, or a probability; R is its sum.

    Parameters
    ----------
    relevant
        Whether an item is relevant, or the probability of it, shape (..., N).
    k
        Length of the list.

    Returns
    -------
    Tensor
        The expectation, shape (...,).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    return relevant.double().mean(-1) * min(k, relevant.shape[-1]) / k


def chance_ndcg(relevance: Tensor, k: int | None = None) -> Tensor:
    """Expected `ndcg` of a random order of the N items, exactly.

    Each place expects the mean gain, so ``E[nDCG@k] = mean gain / ideal DCG@k *
    sum_{j=1..k} 1 / log2(j + 1)``; 0 where nothing is relevant. With ``R >= k``
    relevant items of one grade it is ``R / N``, the chance of precision.

    Parameters
    ----------
    relevance
        Relevance, binary or graded, shape (..., N).
    k
        Length of the list; all N places if not given.

    Returns
    -------
    Tensor
        The expectation, shape (...,).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    gain = relevance.double()
    # In a random order every place expects the mean gain.
    return _of_ideal(dcg(gain.mean(-1, keepdim=True).expand(gain.shape), k), gain, k)


# How far a mean over users would move with other users.


class Ranking(NamedTuple):
    """NDCG@n, Recall@n and hit rate of each user, each of shape (B,).

    Parameters
    ----------
    ndcg
        NDCG@n of each user, shape (B,).
    recall
        Recall@n of each user, shape (B,).
    hit
        Probability that the list holds a relevant item, shape (B,).

    Plumbing
    --------
    What `rank_candidates` returns.
    """

    ndcg: Tensor
    recall: Tensor
    hit: Tensor


def rank_candidates(
    score: Tensor, relevant: Tensor, candidates: Tensor, at: int = 10
) -> Ranking:
    """Judge each user's ranking of their candidates, in expectation over ties.

    All have shape (B, I), ``relevant`` and ``candidates`` boolean. Items of equal score
    share their places: each stands at each of the places of its group with the same
    probability, so the order in which items are stored helps nobody, and where all
    scores are equal the result is that of chance, exactly. With ``r_j`` the
    expected relevance at place j and R the number of relevant candidates,

    ``nDCG@n = sum_{j<=n} r_j / log2(j + 1) / sum_{j<=min(n,R)} 1 / log2(j + 1)`` and
    ``Recall@n = sum_{j<=n} r_j / R``; both are nan for a user with ``R = 0``. A hit is
    a list with any relevant item.

    Parameters
    ----------
    score
        Scores, shape (B, I).
    relevant
        Whether an item is relevant, shape (B, I).
    candidates
        Whether an item is a candidate, shape (B, I).
    at
        Length n of the list.

    Returns
    -------
    Ranking
        The measures, each of shape (B,).

    Raises
    ------
    ValueError
        If a score is not a number: it would rank anywhere.

    Source
    ------
    Järvelin & Kekäläinen (2002); McSherry & Najork (2008) for the ties.

    Built in
    --------
    lists
    """
    score = _with_candidates_first(score, candidates)
    relevant = relevant & candidates
    top, who = score.topk(min(at, score.shape[-1]))
    # How many share the places of each group, and how many of them are relevant; the
    # last group may go on behind the list.
    alike = top[:, :, None] == top[:, None, :]
    size, total = alike.sum(-1), (alike & relevant.gather(-1, who)[:, None]).sum(-1)
    tied, is_last = score == top[:, -1:], top == top[:, -1:]
    size = torch.where(is_last, tied.sum(-1, keepdim=True), size)
    total = torch.where(is_last, (tied & relevant).sum(-1, keepdim=True), total)
    expected = total / size.double()
    # That place j holds none either, once the places of its group before it held none.
    first = (top[:, None, :] > top[:, :, None]).sum(-1)
    left = size - torch.arange(top.shape[-1]) + first
    miss = ((left - total).clamp(min=0) / left.double()).prod(-1)
    n_relevant = relevant.sum(-1, keepdim=True)
    ideal = dcg(torch.arange(at) < n_relevant)
    return Ranking(dcg(expected) / ideal, expected.sum(-1) / n_relevant[:, 0], 1 - miss)


def listed(score: Tensor, candidates: Tensor, at: int = 10) -> Tensor:
    """Probability that an item stands on a user's list of the best candidates, (B, I).

    1 or 0 but for items of equal score at the end of the list, which share its last
    places.

    Parameters
    ----------
    score
        Scores, shape (B, I).
    candidates
        Whether an item is a candidate, shape (B, I).
    at
        Length n of the list.

    Returns
    -------
    Tensor
        The probabilities, shape (B, I).

    Raises
    ------
    ValueError
        If a score is not a number.

    Plumbing
    --------
    What `overlap` and `share_shown` are counted from.
    """
    score = _with_candidates_first(score, candidates)
    last = score.topk(min(at, score.shape[-1])).values[:, -1:]
    above, tied = score > last, score == last
    share = (at - above.sum(-1, keepdim=True)) / tied.sum(-1, keepdim=True).double()
    return torch.where(tied, share.clamp(max=1), above.double()) * candidates


def overlap(listed: Tensor) -> Tensor:
    """How many items of a user's list stand on another user's as well, on average.

    With ``n_i`` the lists that hold item i, ``sum_{i in L_u} (n_i - 1) / (U - 1)``: its
    mean over users is the mean over pairs of users. nan for one user.

    Parameters
    ----------
    listed
        1 where an item stands on a user's list, or the probability, shape (U, I).

    Returns
    -------
    Tensor
        The number of items for each user, shape (U,).

    Built in
    --------
    lists
    """
    return (listed * (listed.sum(0) - listed)).sum(-1) / (len(listed) - 1)


def share_shown(listed: Tensor) -> float:
    """Share of the catalogue that stands on any user's list.

    In expectation where ``listed`` holds probabilities.

    Parameters
    ----------
    listed
        1 where an item stands on a user's list, or the probability, shape (U, I).

    Returns
    -------
    float
        The share, between 0 and 1.

    Built in
    --------
    lists
    """
    return float((1 - (1 - listed).prod(0)).mean())


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
        raise ValueError(f"a and b, {a.shape} and {b.shape}, are not of the same users")
    means = bootstrap_means((a - b)[:, None], strata, draws, seed)[:, 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float((a - b).mean()), float(low), float(high))


def bootstrap_means(
    values: np.ndarray, strata: np.ndarray | None, draws: int = 10_000, seed: int = 0
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


def simultaneous_bootstrap(
    gaps: np.ndarray, strata: np.ndarray | None = None, level: float = 0.95
) -> np.ndarray:
    """Mean of each column of ``gaps`` with intervals that hold all together, (3, M).

    M comparisons on the same users, one column each. In how many standard errors does
    the worst of them lie off, ``t = max_m |mean*_m - mean_m| / se_m``, over resamples
    of the users? With q its quantile at ``level``, ``mean_m +- q se_m`` holds the truth
    for every m at once in a share ``level`` of all data sets, where an interval for
    each alone misses some. Columns that move together make q smaller than Bonferroni's.

    Parameters
    ----------
    gaps
        Error of each user under each method less that under the rival, (users, M).
    strata
        Stratum (fold) of each user, shape (users,); one for all if not given.
    level
        Probability that all intervals hold.

    Returns
    -------
    np.ndarray
        Means, lower ends and upper ends, shape (3, M).

    Source
    ------
    Westfall & Young (1993).

    Built in
    --------
    leaderboard

    Examples
    --------
    >>> import numpy as np
    >>> from metarec.metrics import paired_bootstrap, simultaneous_bootstrap
    >>> gaps = np.random.default_rng(0).normal(0.2, 1, (100, 9))
    >>> mean, low, high = simultaneous_bootstrap(gaps)
    >>> alone = paired_bootstrap(gaps[:, 0], np.zeros(100))
    >>> bool(low[0] < alone.low and alone.high < high[0])
    True
    """
    mean, means = gaps.mean(0), bootstrap_means(gaps, strata)
    error = means.std(0)
    # A column that does not vary has no part in the maximum.
    t = np.abs(means - mean) / np.where(error > 0, error, np.inf)
    reach = np.quantile(t.max(1), level) * error
    return np.stack([mean, mean - reach, mean + reach])


def holm(p: ArrayLike) -> np.ndarray:
    """Adjusted p-values, valid for all comparisons together.

    The j-th smallest of n, from 1, becomes ``max_{i<=j} min(1, (n - i + 1) p_i)``.

    Parameters
    ----------
    p
        P-values, shape (n,).

    Returns
    -------
    np.ndarray
        The adjusted values, in the order of ``p``, shape (n,).

    Source
    ------
    Holm (1979).

    Plumbing
    --------
    The leaderboard, against several rivals.
    """
    p = np.asarray(p)
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1)[np.argsort(order)]


# What they share.


def _same_shape(*tensors: Tensor) -> None:
    """Refuse shapes that would broadcast."""
    shapes = [str(tuple(each.shape)) for each in tensors]
    if len(set(shapes)) > 1:
        hint = "broadcast they would mean nothing; pass tensors of one shape"
        raise ValueError(f"shapes differ: {' against '.join(shapes)}: {hint}")


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over each user's query: (B, N) to (B,)."""
    # Selected, not multiplied: what stands under a false mask may be nan.
    return torch.where(mask, values, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)


def _first(score: Tensor, of: Tensor, k: int | None) -> Tensor:
    """What the first ``k`` items by ``score`` have, in order; ties keep theirs."""
    return of.gather(-1, score.argsort(dim=-1, descending=True, stable=True)[..., :k])


def _of_ideal(found: Tensor, relevance: Tensor, k: int | None) -> Tensor:
    """A DCG over that of the best ranking, 0 where nothing is relevant."""
    ideal = dcg(relevance.sort(-1, descending=True).values, k)
    return torch.where(ideal > 0, found / ideal.clamp(min=1e-300), 0.0)


def _probability(p: Tensor) -> Tensor:
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("outside [0, 1]: pass probabilities, not scores")
    return p


def _with_candidates_first(score: Tensor, candidates: Tensor) -> Tensor:
    """The scores; what is no candidate stands behind all, also behind one at -inf."""
    if (score.isnan() & candidates).any():
        raise ValueError("a score is nan, so its item has no place in the ranking")
    lowest = torch.finfo(score.dtype).min
    return torch.where(candidates, score.clamp(min=lowest), -torch.inf)
