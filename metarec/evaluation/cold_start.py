"""The protocol for new users: nested supports, one query for every K."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from metarec.evaluation.leaks import check_disjoint
from metarec.evaluation.predictor import Predictor, clipped
from metarec.metrics import user_mae, user_rmse
from metarec.tasks import SUPPORT_SIZES, Tasks, UserHistories

_TOGETHER = 1024  # users judged at once: the bound on memory


def cold_start(
    predictor: Predictor,
    histories: UserHistories,
    users: Tensor,
    sizes: Sequence[int] = SUPPORT_SIZES,
) -> pd.DataFrame:
    """Judge ``predictor`` on users it has not met, after K of their ratings each.

    One row for each user and K: user, k, rmse, mae (stars, over that user's query,
    predictions clipped to the scale) and n, the ratings in the query. The query is the
    same for every K.

    Raises ``ValueError`` if no user has more ratings than the reserved ones and
    `LeakageError` if support and query share an item.
    Built in: tasks
    """
    users = histories.usable(users)
    if len(users) == 0:
        raise ValueError(
            f"no user has more than {histories.reserved} ratings, so none has a query"
        )
    order = torch.arange(len(users))
    if len(users) > _TOGETHER:  # users of like length are padded less
        order = histories.count(users).argsort(stable=True)
    back = order.argsort().numpy()
    tables = []
    for k in sizes:
        parts = []
        for some in users[order].split(_TOGETHER):
            tasks = histories.tasks(some, k)
            check_disjoint(tasks)
            parts.append(errors_of(predictor, tasks, histories, k))
        tables.append(pd.concat(parts).iloc[back])
    return pd.concat(tables, ignore_index=True)


def errors_of(
    predictor: Predictor, tasks: Tasks, histories: UserHistories, k: int
) -> pd.DataFrame:
    """One row for each task: user, k, rmse, mae and n (see `cold_start`).

    Plumbing: shared by the protocols that predict stars.
    """
    query = tasks.query
    scores = clipped(predictor, tasks, histories)
    columns = {
        "user": tasks.user.numpy(),
        "k": k,
        "rmse": user_rmse(scores, query.y, query.mask).double().numpy(),
        "mae": user_mae(scores, query.y, query.mask).double().numpy(),
        "n": query.mask.sum(-1).numpy(),
    }
    return pd.DataFrame(columns)


def validation_score(
    predictor: Predictor,
    histories: UserHistories,
    users: Tensor,
    sizes: Sequence[int] = (1, 3, 5, 10, 15),
) -> float:
    """Mean per-user RMSE over ``users`` and ``sizes``: what early stopping looks at.

    Built in: maml
    """
    return float(cold_start(predictor, histories, users, sizes)["rmse"].mean())
