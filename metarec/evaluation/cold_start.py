"""A cold start and a catalogue to rank: the two protocols of the course."""

from collections.abc import Sequence

import pandas as pd
from torch import Tensor

from metarec.tasks import SUPPORT_SIZES, UserHistories
from metarec.validation import PROTOCOLS, Predictor, judge


def cold_start(
    predictor: Predictor,
    histories: UserHistories,
    users: Tensor,
    sizes: Sequence[int] = SUPPORT_SIZES,
) -> pd.DataFrame:
    """Judge ``predictor`` on users it has not met, after K of their ratings each.

    One row for each user and K: user, k, rmse, mae (stars, over that user's query,
    predictions clipped to the scale), unclipped (the RMSE without clipping) and n, the
    ratings in the query. The query is the same for every K.

    Parameters
    ----------
    predictor
        What is judged.
    histories
        Ratings of all users, each user's in one order.
    users
        Users to judge on, shape (U,).
    sizes
        Support sizes K.

    Returns
    -------
    pd.DataFrame
        One row for each user and K: user, k, rmse, mae, unclipped and n.

    Raises
    ------
    ValueError
        If no user has more ratings than the reserved ones.
    LeakageError
        If support and query share an item.

    Built in
    --------
    tasks

    Examples
    --------
    >>> import torch
    >>> from metarec.data import synthetic_population
    >>> from metarec.evaluation import cold_start
    >>> from metarec.factors import UserItemBias
    >>> from metarec.tasks import UserHistories
    >>> data, truth = synthetic_population(n_users=40, n_items=60, seed=0)
    >>> histories = UserHistories(data)
    >>> model = UserItemBias.fit(histories, torch.arange(30))
    >>> table = cold_start(model, histories, torch.arange(30, 40), sizes=(0, 5))
    >>> list(table.columns), len(table)
    (['user', 'k', 'rmse', 'mae', 'unclipped', 'n'], 20)
    """
    return judge(predictor, histories, users, "cold-start", sizes)


def rank_catalogue(
    predictor: Predictor,
    histories: UserHistories,
    users: Tensor,
    sizes: Sequence[int] = PROTOCOLS["lists"][1],
    at: int = 10,
) -> pd.DataFrame:
    """Judge the lists that ``predictor`` makes for users it has not met.

    The support is a user's earliest K ratings, candidates are all items of the
    catalogue but those K, and relevant is what the user liked afterwards (see
    `RatingScale`: 4 or more of 5 stars). So the query shrinks as K grows, and no curve
    over K is a curve over information alone: compare methods at one K. See
    `rank_candidates` for ties.

    One row for each user and K: user, k, ndcg, recall, hit (at ``at`` places), overlap
    (how many of them stand on another user's list, on average), coverage (share of the
    catalogue on any of these users' lists), ``n_relevant``, and what bounds
    them: ``chance_ndcg``, ``chance_recall`` and ``chance_hit`` under a random order,
    ``ceiling_recall = min(n, R) / R`` (the ceiling of ndcg and hit is 1). Users without
    a relevant item are left out; ``table.attrs["left_out"]`` counts them for each K.

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
        If no user is left.

    Built in
    --------
    lists
    """
    table = judge(predictor, histories, users, "lists", sizes, at=at)
    there = table["k"].value_counts()
    table.attrs["left_out"] = {k: len(users) - int(there.get(k, 0)) for k in sizes}
    return table
