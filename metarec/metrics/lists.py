"""How good a list is, and what chance scores."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from metarec.metrics.ratings import same_shape


def dcg(relevance: Tensor, k: int | None = None, exponential: bool = False) -> Tensor:
    """Discounted cumulative gain of items listed in rank order, shape (...,).

    ``DCG@k = sum_{j=1..k} gain_j / log2(j + 1)``, gain the relevance itself, or
    ``2^relevance - 1`` if ``exponential``.

    Parameters
    ----------
    relevance
        Relevance in rank order, best rank first, shape (..., N).
    k
        Number of places that count; all N if not given.
    exponential
        Whether the gain is ``2^relevance - 1`` in place of the relevance.

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

    Parameters
    ----------
    score
        Scores, shape (..., N).
    relevance
        Relevance of all candidates, shape (..., N).
    k
        Number of places that count; all N if not given.
    exponential
        Whether the gain is ``2^relevance - 1`` in place of the relevance.

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
    same_shape(score, relevance)
    order = score.argsort(dim=-1, descending=True, stable=True)
    found = dcg(relevance.gather(-1, order), k, exponential)
    ideal = dcg(relevance.sort(-1, descending=True).values, k, exponential)
    return torch.where(ideal > 0, found / ideal.clamp(min=1e-300), 0.0)


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
    same_shape(score, relevant)
    top = score.argsort(dim=-1, descending=True, stable=True)[..., :k]
    hits = relevant.gather(-1, top).sum(-1).double()
    return hits / relevant.sum(-1).clamp(min=1)


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
    same_shape(score, relevant)
    top = score.argsort(dim=-1, descending=True, stable=True)[..., :k]
    return relevant.gather(-1, top).double().sum(-1) / k


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
    n = relevant.shape[-1]
    return relevant.double().mean(-1) * min(k, n) / k


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
    found = dcg(gain.mean(-1, keepdim=True).expand(gain.shape), k)
    ideal = dcg(gain.sort(-1, descending=True).values, k)
    return torch.where(ideal > 0, found / ideal.clamp(min=1e-300), 0.0)


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
    What `rank_candidates` and `chance_ranking` return.
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
    probability, so the order in which items are stored helps nobody. With ``r_j`` the
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
    leaderboard
    """
    score, order = _ranked(score, candidates)
    first, last = _tied(score, score[:, :at])
    found = (relevant & candidates).gather(-1, order).cumsum(-1)
    # How many relevant items share the places of each group, and how many places.
    total = pad(found, (1, 0)).gather(-1, last) - pad(found, (1, 0)).gather(-1, first)
    size = last - first
    expected = total / size.double()
    # That place j holds none either, once the places of its group before it held none.
    before = torch.arange(size.shape[-1]) - first
    miss = ((size - total - before).clamp(min=0) / (size - before).double()).prod(-1)
    n_relevant = found[:, -1]
    gain = (expected * _discount(expected.shape[-1])).sum(-1)
    recall = expected.sum(-1) / n_relevant
    return Ranking(gain / _ideal(n_relevant, at), recall, 1 - miss)


def chance_ranking(n_relevant: Tensor, n_candidates: Tensor, at: int = 10) -> Ranking:
    """What a random order of the candidates scores on average, exactly.

    Every place holds a relevant item with probability ``R / C``, so ``nDCG@n = R / C *
    (sum_{j<=min(n,C)} 1 / log2(j + 1)) / ideal``, with the ideal that of R relevant
    items, ``Recall@n = min(n, C) / C``, and the list misses with probability
    ``prod_{j<=min(n,C)} (C - R - j + 1) / (C - j + 1)``.

    Parameters
    ----------
    n_relevant
        Number of relevant candidates, shape (B,).
    n_candidates
        Number of candidates, shape (B,).
    at
        Length n of the list.

    Returns
    -------
    Ranking
        The expectations, each of shape (B,).

    Built in
    --------
    leaderboard
    """
    # A list is no longer than its candidates.
    places = n_candidates.clamp(max=at)
    gain = n_relevant / n_candidates * _ideal(places, at)
    left = (n_candidates[:, None] - torch.arange(at)).clamp(min=1).double()
    miss = ((left - n_relevant[:, None]).clamp(min=0) / left).prod(-1)
    recall = places / n_candidates.double()
    return Ranking(gain / _ideal(n_relevant, at), recall, 1 - miss)


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
    score, order = _ranked(score, candidates)
    first, last = _tied(score, score)
    share = ((at - first) / (last - first).double()).clamp(0, 1)
    return torch.zeros_like(share).scatter(-1, order, share) * candidates


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

    Plumbing
    --------
    A column of `rank_catalogue`.
    """
    others = listed.sum(0) - listed
    return (listed * others).sum(-1) / (len(listed) - 1)


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

    Plumbing
    --------
    A column of `rank_catalogue`.
    """
    return float((1 - (1 - listed).prod(0)).mean())


def _ranked(score: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Scores from the best down and whose they are, both (B, I)."""
    if score[candidates].isnan().any():
        raise ValueError("a score is nan, so its item has no place in the ranking")
    # What is no candidate stands behind every candidate, also behind one at -inf.
    lowest = torch.finfo(score.dtype).min
    score = torch.where(candidates, score.clamp(min=lowest), -torch.inf)
    return score.sort(dim=-1, descending=True)


def _tied(ranked: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """First place of those who score as much, and the first place behind them."""
    first = torch.searchsorted(-ranked, -score)
    return first, torch.searchsorted(-ranked, -score, right=True)


def _discount(places: int) -> Tensor:
    return 1 / torch.log2(torch.arange(places, dtype=torch.float64) + 2)


def _ideal(n_relevant: Tensor, at: int) -> Tensor:
    """DCG@n of the best order with so many relevant items, nan for none."""
    ideal = torch.cat([torch.tensor([torch.nan]).double(), _discount(at).cumsum(0)])
    return ideal[n_relevant.long().clamp(max=at)]
