"""The protocol for lists: rank all that a new user has not seen."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from metarec.lists import LIKE, list_tasks
from metarec.tasks import UserHistories
from metarec.validation import Predictor

LIST_SIZES = (0, 1, 5, 10)
"""The sizes K of the support set at which the course judges a list.

Plumbing
--------
A constant.
"""


class Ranking(NamedTuple):
    """nDCG@n and Recall@n of each user, shape (B,).

    Parameters
    ----------
    ndcg
        NDCG@n of each user, shape (B,).
    recall
        Recall@n of each user, shape (B,).

    Plumbing
    --------
    What the functions of this module return.
    """

    ndcg: Tensor
    recall: Tensor


def rank_candidates(
    score: Tensor, relevant: Tensor, candidates: Tensor, at: int = 10
) -> Ranking:
    """Judge each user's ranking of their candidates, in expectation over ties.

    All have shape (B, I), ``relevant`` and ``candidates`` boolean. Items of equal score
    share their places: each stands at each of the places of its group with the same
    probability, so the order in which items are stored helps nobody. With ``r_j`` the
    expected relevance at place j and R the number of relevant candidates,

    ``nDCG@n = sum_{j<=n} r_j / log2(j + 1) / sum_{j<=min(n,R)} 1 / log2(j + 1)`` and
    ``Recall@n = sum_{j<=n} r_j / R``; both are nan for a user with ``R = 0``.

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
        Both measures, shape (B,).

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
    if score[candidates].isnan().any():
        raise ValueError("a score is nan, so its item has no place in the ranking")
    # What is no candidate stands behind every candidate, also behind one at -inf.
    lowest = torch.finfo(score.dtype).min
    score = torch.where(candidates, score.clamp(min=lowest), -torch.inf)
    score, order = score.sort(dim=-1, descending=True)
    hit = (relevant & candidates).gather(-1, order).double()
    new = torch.ones_like(order)
    new[:, 1:] = score[:, 1:] != score[:, :-1]
    # Equal scores share one group, and each member its mean relevance at every place.
    group = new.cumsum(-1) - 1
    total, size = (
        torch.zeros_like(hit).scatter_add_(-1, group, part)
        for part in (hit, torch.ones_like(hit))
    )
    first = (total / size.clamp(min=1)).gather(-1, group[:, :at])
    n_relevant = hit.sum(-1)
    found = (first * _discount(first.shape[-1])).sum(-1)
    return Ranking(found / _ideal(n_relevant, at), first.sum(-1) / n_relevant)


def chance_ranking(n_relevant: Tensor, n_candidates: Tensor, at: int = 10) -> Ranking:
    """What a random order of the candidates scores on average, exactly.

    Every place holds a relevant item with probability ``R / C``, so ``nDCG@n = R / C *
    (sum_{j<=min(n,C)} 1 / log2(j + 1)) / ideal``, with the ideal that of R relevant
    items, and ``Recall@n = min(n, C) / C``.

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
        The expectations, shape (B,).

    Built in
    --------
    leaderboard
    """
    # A list is no longer than its candidates.
    places = n_candidates.clamp(max=at)
    gain = n_relevant / n_candidates * _ideal(places, at)
    return Ranking(gain / _ideal(n_relevant, at), places / n_candidates.double())


def rank_catalogue(
    predictor: Predictor,
    histories: UserHistories,
    users: Tensor,
    sizes: Sequence[int] = LIST_SIZES,
    at: int = 10,
) -> pd.DataFrame:
    """Judge the lists that ``predictor`` makes for users it has not met.

    The support is a user's earliest K ratings, candidates are all items of the
    catalogue but those K, and relevant is what the user rated `LIKE` or more
    afterwards. So the query shrinks as K grows, and no curve over K is a curve over
    information alone: compare methods at one K. See `rank_candidates` for ties.

    One row for each user and K: user, k, ndcg, recall (at ``at`` places),
    ``n_relevant``, and what bounds them: ``chance_ndcg`` and ``chance_recall`` under a
    random order, ``ceiling_recall = min(n, R) / R`` (the ceiling of ndcg is 1). Users
    without a relevant item are left out; ``table.attrs["left_out"]`` counts them for
    each K.

    Parameters
    ----------
    predictor
        What is judged.
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).
    sizes
        Support sizes K.
    at
        Length n of the list.

    Returns
    -------
    pd.DataFrame
        One row for each user and K.

    Raises
    ------
    ValueError
        If no user is left at some K.

    Built in
    --------
    leaderboard
    """
    tables, left_out = [], {}
    for k in sizes:
        # What was liked after the first K, in a list of all items but those K.
        lists = list_tasks(histories, users, k).query
        relevant, candidates = lists.y > 0, lists.mask
        judged = relevant.any(-1)
        left_out[k] = int((~judged).sum())
        if left_out[k] == len(users):
            raise ValueError(
                f"no user has rated an item {LIKE} or more after the first {k}: there "
                "is nothing to find; ask for a smaller K or other users"
            )
        support = replace(histories.everything(users, k), user=None)
        with torch.no_grad():
            score = predictor.predict(support, lists.x)
        relevant, candidates = relevant[judged], candidates[judged]
        result = rank_candidates(score[judged], relevant, candidates, at)
        n_relevant = relevant.sum(-1)
        chance = chance_ranking(n_relevant, candidates.sum(-1), at)
        columns = {
            "user": users[judged],
            "k": torch.full_like(users[judged], k),
            "ndcg": result.ndcg,
            "recall": result.recall,
            "n_relevant": n_relevant,
            "chance_ndcg": chance.ndcg,
            "chance_recall": chance.recall,
            "ceiling_recall": n_relevant.clamp(max=at) / n_relevant.double(),
        }
        tables.append(pd.DataFrame({name: v.numpy() for name, v in columns.items()}))
    table = pd.concat(tables, ignore_index=True)
    table.attrs["left_out"] = left_out
    return table


def _discount(places: int) -> Tensor:
    return 1 / torch.log2(torch.arange(places, dtype=torch.float64) + 2)


def _ideal(n_relevant: Tensor, at: int) -> Tensor:
    """DCG@n of the best order with so many relevant items, nan for none."""
    ideal = torch.cat([torch.tensor([torch.nan]).double(), _discount(at).cumsum(0)])
    return ideal[n_relevant.long().clamp(max=at)]
