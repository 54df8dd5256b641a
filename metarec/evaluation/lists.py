"""The protocol for lists: rank all that a new user has not seen."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from metarec import metrics
from metarec.evaluation.cold_start import PROTOCOLS
from metarec.tasks import UserHistories
from metarec.validation import Predictor, on_catalogue


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
        If no user is left at some K.

    Built in
    --------
    lists
    """
    tables, left_out = [], {}
    for k in sizes:
        tasks = histories.tasks(users[histories.count(users) > k], k, k)
        score, relevant, unseen = on_catalogue(predictor, tasks, histories)
        judged = relevant.any(-1)
        left_out[k] = len(users) - int(judged.sum())
        if left_out[k] == len(users):
            raise ValueError(
                f"no user has rated an item {histories.scale.like:g} or more after the "
                f"first {k}: there is nothing to find; ask for a smaller K or other "
                "users"
            )
        score, relevant, unseen = score[judged], relevant[judged], unseen[judged]
        result = metrics.rank_candidates(score, relevant, unseen, at)
        alike = torch.zeros_like(score)
        chance = metrics.rank_candidates(alike, relevant, unseen, at)
        shown, n_relevant = metrics.listed(score, unseen, at), relevant.sum(-1)
        columns = {"user": tasks.user[judged], **result._asdict()}
        columns["overlap"] = metrics.overlap(shown)
        columns["n_relevant"] = n_relevant
        columns |= {f"chance_{name}": v for name, v in chance._asdict().items()}
        columns["ceiling_recall"] = n_relevant.clamp(max=at) / n_relevant.double()
        table = pd.DataFrame({name: v.numpy() for name, v in columns.items()})
        table.insert(1, "k", k)
        tables.append(table.assign(coverage=metrics.share_shown(shown)))
    table = pd.concat(tables, ignore_index=True)
    table.attrs["left_out"] = left_out
    return table
