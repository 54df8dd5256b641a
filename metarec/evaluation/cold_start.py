"""The protocol for new users: nested supports, one query for every K."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from metarec.metrics import user_mae, user_rmse
from metarec.tasks import SUPPORT_SIZES, Tasks, UserHistories, one_thread
from metarec.validation import (
    Predictor,
    check_disjoint,
    clipped,
    in_batches,
    judged_users,
)


@one_thread()
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
        One row for each user and K: user, k, rmse, mae and n.

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
    (['user', 'k', 'rmse', 'mae', 'n'], 20)
    """
    users = judged_users(histories, users)
    batches = in_batches(histories, users)
    back = torch.cat(list(batches)).argsort().numpy()
    tables = []
    for k in sizes:
        parts = []
        for some in batches:
            tasks = histories.tasks(users[some], k)
            check_disjoint(tasks)
            parts.append(errors_of(predictor, tasks, histories, k))
        tables.append(pd.concat(parts).iloc[back])
    return pd.concat(tables, ignore_index=True)


def errors_of(
    predictor: Predictor, tasks: Tasks, histories: UserHistories, k: int
) -> pd.DataFrame:
    """One row for each task: user, k, rmse, mae and n (see `cold_start`).

    Parameters
    ----------
    predictor
        What is judged.
    tasks
        Tasks of these users.
    histories
        Ratings of all users, each user's in one order.
    k
        Support size K.

    Plumbing
    --------
    Shared by the protocols that predict stars.
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
