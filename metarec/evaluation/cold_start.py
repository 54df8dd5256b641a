"""The protocols for stars: cold start, whole lives, and what comes last in a life."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from metarec import metrics
from metarec.metrics import user_mae, user_rmse
from metarec.tasks import SUPPORT_SIZES, Tasks, UserHistories, one_thread
from metarec.validation import Predictor, check_disjoint, in_batches, predictions

PROTOCOLS: dict[str, tuple[str, Sequence[int]]] = {
    "cold-start": ("K = {}", SUPPORT_SIZES),
    "whole-life": ("{}% given", (10, 25, 50, 80)),
    "last-20": ("{} given", (0, 5, 10, 15, 25, 50, 100, 150, 200, 300, 400)),
    "lists": ("K = {}", (0, 1, 5, 10)),
    "clicks": ("K = {}", (0, 1, 3, 5, 10, 15)),
}
"""The protocols by name: what k says, and the sizes k.

``cold-start``: the first K, and all after the reserved ones. ``whole-life``: the first
k percent of a history of any length, and the rest. ``last-20``: the first k, and the
last 20, for users who have both. ``lists``: the first K, and what is liked later among
all items (see `rank_catalogue`). ``clicks``: as cold-start, what is liked among them.

Plumbing
--------
A constant.
"""


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


@one_thread()
def judge(
    predictor: Predictor,
    histories: UserHistories,
    users: Tensor,
    protocol: str,
    sizes: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Judge ``predictor`` on users it has not met, under such as "whole-life".

    Parameters
    ----------
    predictor
        What is judged.
    histories
        Ratings of all users, each user's in one order.
    users
        Users to judge on, shape (U,).
    protocol
        Name of the protocol.
    sizes
        Sizes k; those of the protocol if not given.

    Returns
    -------
    pd.DataFrame
        One row for each user and k, as those of `cold_start`.

    Raises
    ------
    ValueError
        If no user has enough ratings.
    LeakageError
        If support and query share an item.

    Plumbing
    --------
    `cold_start` and the command ``python -m metarec.evaluation``.
    """
    count, parts = histories.count(users), []
    for size in PROTOCOLS[protocol][1] if sizes is None else sizes:
        # How many ratings are support, and how many stand before the query: (U,) each.
        k, after = (torch.full_like(count, n) for n in (size, histories.reserved))
        if protocol == "whole-life":
            k = after = count * size // 100
        elif protocol == "last-20":
            # Who is too short for both has no query, and is not judged.
            after = torch.where(count < size + 20, count, count - 20)
        judged = (after < count).nonzero()[:, 0]
        longest = max(k.tolist(), default=0)
        for some in in_batches(histories, users[judged], longest):
            rows = judged[some]
            # In a cold start all have one K, and the query begins where it always does.
            same = protocol in ("cold-start", "clicks")
            cut = (size,) if same else (k[rows], after[rows])
            tasks = histories.tasks(users[rows], *cut)
            check_disjoint(tasks)
            errors = clicks_of if protocol == "clicks" else errors_of
            parts.append(errors(predictor, tasks, histories, size))
    if not parts:
        raise ValueError(
            f"no user has more ratings than stand before the query of {protocol} "
            f"({histories.reserved} are reserved), so none has a query"
        )
    # However the users were batched.
    return pd.concat(parts).sort_values(["k", "user"], ignore_index=True)


def errors_of(
    predictor: Predictor, tasks: Tasks, histories: UserHistories, k: int
) -> pd.DataFrame:
    """One row for each task: user, k, rmse, mae, unclipped and n (see `cold_start`).

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
    query, (raw, scores) = tasks.query, predictions(predictor, tasks, histories)
    columns = {
        "user": tasks.user.numpy(),
        "k": k,
        "rmse": user_rmse(scores, query.y, query.mask).double().numpy(),
        "mae": user_mae(scores, query.y, query.mask).double().numpy(),
        "unclipped": user_rmse(raw, query.y, query.mask).double().numpy(),
        "n": query.mask.sum(-1).numpy(),
    }
    return pd.DataFrame(columns)


def clicks_of(
    predictor: Predictor, tasks: Tasks, histories: UserHistories, k: int
) -> pd.DataFrame:
    """One row for each task: user, k, log_loss (nats), auc and n.

    A click is a like (see `RatingScale`); auc is nan for who likes all or nothing.
    Beside them, of the predictions of all tasks together, pooled_auc and
    calibration_error.

    Parameters
    ----------
    predictor
        What is judged, whose scores are probabilities.
    tasks
        Tasks of these users.
    histories
        Ratings of all users, each user's in one order.
    k
        Support size K.

    Plumbing
    --------
    The protocol of clicks.
    """
    mask, click = tasks.query.mask, tasks.query.y >= histories.scale.like
    p = predictions(predictor, tasks, histories)[0]
    columns = {
        "user": tasks.user.numpy(),
        "k": k,
        "log_loss": metrics.log_loss(p, click, mask).double().numpy(),
        "auc": metrics.auc(p, click, mask).numpy(),
        "n": mask.sum(-1).numpy(),
    }
    p, click = p[mask], click[mask]
    columns["pooled_auc"] = float(metrics.auc(p[None], click[None], mask[mask][None]))
    columns["calibration_error"] = metrics.expected_calibration_error(p, click)
    return pd.DataFrame(columns)
