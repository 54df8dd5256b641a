"""The one judge: protocols, what they measure, and the score that training reads."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor

from metarec import metrics
from metarec.tasks import SUPPORT_SIZES, Examples, Tasks, UserHistories, one_thread

__all__ = ["Predictor", "validation_score"]

USERS_AT_ONCE = 1024  # users judged at once, at supports of 16: the bound on memory
# From k, how many ratings users have, (U,), and how many are reserved: how many are
# support, and how many stand before the query, one number or one for each user.
Cut = Callable[[int, Tensor, int], tuple[int | Tensor, int | Tensor]]
# From predictor, tasks and histories to a table with one row for each task.
Measures = Callable[..., pd.DataFrame]


class Predictor(Protocol):
    """Whatever turns a support set into predictions, baselines and learners alike.

    Plumbing
    --------
    A type.
    """

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N) of the items ``x`` (B, N) for the users of ``support``.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.
        x
            Items to score, shape (B, N).

        Returns
        -------
        Tensor
            Scores, in stars, shape (B, N).
        """


def validation_score(
    predictor: Predictor,
    histories: UserHistories,
    users: Tensor,
    sizes: Sequence[int] | None = None,
    goal: str = "stars",
) -> float:
    """Mean over ``users`` and ``sizes`` of what a goal looks at: for early stopping.

    Per-user RMSE of the ratings after the reserved ones for stars, their log-loss for
    clicks, and for lists minus nDCG@10 of what is liked after the support, among all
    items but those.

    Parameters
    ----------
    predictor
        What is judged.
    histories
        Ratings of all users, each user's in one order.
    users
        Validation users, shape (U,).
    sizes
        Support sizes K; if not given 1, 5 and 10 for lists, else those of 1, 3, 5, 10
        and 15 that are no more than the reserved ratings.
    goal
        What the predictions are: "stars", "clicks" or "lists".

    Returns
    -------
    float
        RMSE in stars, log-loss in nats or minus nDCG@10: lower is better.

    Raises
    ------
    ValueError
        If no user has more ratings than the reserved ones, or likes any for lists.

    Built in
    --------
    maml
    """
    users, protocol = histories.usable(users), "cold-start" if goal == "stars" else goal
    if sizes is None:
        few = [k for k in (1, 3, 5, 10, 15) if k <= histories.reserved]
        sizes = (1, 5, 10) if goal == "lists" else few or (0,)
    brief = {"brief": True} if goal == "lists" else {}
    table = judge(predictor, histories, users, protocol, sizes, **brief)
    # The first measure, after user and k.
    error = float(table.iloc[:, 2].mean())
    return -error if goal == "lists" else error


def errors_of(
    predictor: Predictor, tasks: Tasks, histories: UserHistories
) -> pd.DataFrame:
    """For each task user, rmse, mae, unclipped and n (see `cold_start`).

    Parameters
    ----------
    predictor
        What is judged.
    tasks
        Tasks of these users.
    histories
        Ratings of all users, each user's in one order.

    Plumbing
    --------
    Shared by the protocols that predict stars.
    """
    query, (raw, stars) = tasks.query, predictions(predictor, tasks, histories)
    return _table(
        user=tasks.user,
        rmse=metrics.user_rmse(stars, query.y, query.mask),
        mae=metrics.user_mae(stars, query.y, query.mask),
        unclipped=metrics.user_rmse(raw, query.y, query.mask),
        n=query.mask.sum(-1),
    )


def clicks_of(
    predictor: Predictor, tasks: Tasks, histories: UserHistories
) -> pd.DataFrame:
    """For each task user, log_loss (nats), auc and n.

    A click is a like (see `RatingScale`); auc is nan for who likes all or nothing.
    Beside them the predictions and clicks of each, of which `judge` makes pooled_auc
    and calibration_error: those of all users together.

    Parameters
    ----------
    predictor
        What is judged, whose scores are probabilities.
    tasks
        Tasks of these users.
    histories
        Ratings of all users, each user's in one order.

    Plumbing
    --------
    The protocol of clicks.
    """
    mask, click = tasks.query.mask, tasks.query.y >= histories.scale.like
    p = predictions(predictor, tasks, histories)[0]
    return _table(
        user=tasks.user,
        log_loss=metrics.log_loss(p, click, mask),
        auc=metrics.auc(p, click, mask),
        n=mask.sum(-1),
        every=[(p[row][m], click[row][m]) for row, m in enumerate(mask)],
    )


def _pooled(table: pd.DataFrame) -> pd.DataFrame:
    """For each k what is asked of the predictions of all users together."""
    for _, rows in table.groupby("k"):
        p, click = map(torch.cat, zip(*rows["every"], strict=True))
        auc = metrics.auc(p[None], click[None], torch.ones_like(click)[None])
        table.loc[rows.index, "pooled_auc"] = float(auc)
        error = metrics.expected_calibration_error(p, click)
        table.loc[rows.index, "calibration_error"] = error
    return table.drop(columns="every")


@torch.no_grad()
def lists_of(
    predictor: Predictor,
    tasks: Tasks,
    histories: UserHistories,
    at: int = 10,
    brief: bool = False,
) -> pd.DataFrame:
    """For each task with a relevant item the measures of `rank_catalogue`.

    Parameters
    ----------
    predictor
        What is judged.
    tasks
        Tasks whose query is all after the support.
    histories
        Ratings of all users, each user's in one order.
    at
        Length n of the list.
    brief
        Whether to leave it at how good the lists are, as training asks every epoch.

    Plumbing
    --------
    The protocol of lists.
    """
    support, query, n_items = tasks.support, tasks.query, histories.n_items
    liked = (query.y >= histories.scale.like).float()
    relevant = query.table(liked, n_items) > 0
    unseen = support.table(torch.ones_like(support.y), n_items) == 0
    everything = torch.arange(n_items).expand(len(tasks), -1)
    score, judged = predictor.predict(support, everything), relevant.any(-1)
    score, relevant, unseen = score[judged], relevant[judged], unseen[judged]
    rank = partial(metrics.rank_candidates, relevant=relevant, candidates=unseen, at=at)
    result = {"user": tasks.user[judged]} | rank(score)._asdict()
    if brief:
        return _table(**result)
    # Where all scores are alike, a list is drawn by chance.
    chance = rank(torch.zeros_like(score))._asdict()
    shown, n_relevant = metrics.listed(score, unseen, at), relevant.sum(-1)
    return _table(
        **result,
        overlap=metrics.overlap(shown),
        n_relevant=n_relevant,
        **{f"chance_{name}": value for name, value in chance.items()},
        ceiling_recall=n_relevant.clamp(max=at) / n_relevant.double(),
        coverage=metrics.share_shown(shown),
    )


def _table(**columns: Any) -> pd.DataFrame:
    """Columns in double precision, numbers in all rows."""
    table = pd.DataFrame(columns)
    return table.astype(dict.fromkeys(table.select_dtypes("float32"), "float64"))


def _first(k: int, count: Tensor, reserved: int) -> tuple[int, int]:
    return k, reserved


def _share(k: int, count: Tensor, reserved: int) -> tuple[Tensor, Tensor]:
    return (count * k // 100,) * 2


def _last(k: int, count: Tensor, reserved: int) -> tuple[int, Tensor]:
    # Who is too short for both has no query, and is not judged.
    return k, torch.where(count < k + 20, count, count - 20)


_UP_TO_400 = (0, 5, 10, 15, 25, 50, 100, 150, 200, 300, 400)
PROTOCOLS: dict[str, tuple[str, Sequence[int], Cut, Measures]] = {
    "cold-start": ("K = {}", SUPPORT_SIZES, _first, errors_of),
    "whole-life": ("{}% given", (10, 25, 50, 80), _share, errors_of),
    "last-20": ("{} given", _UP_TO_400, _last, errors_of),
    "lists": ("K = {}", (0, 1, 5, 10), lambda k, *_: (k, k), lists_of),
    "clicks": ("K = {}", (0, 1, 3, 5, 10, 15), _first, clicks_of),
}
"""The protocols by name: what k says, the sizes k, what is cut and what is measured.

``cold-start``: the first K, and all after the reserved ones. ``whole-life``: the first
k percent of a history of any length, and the rest. ``last-20``: the first k, and the
last 20, for users who have both. ``lists``: the first K, and what is liked later among
all items (see `rank_catalogue`). ``clicks``: as cold-start, what is liked among them.

Plumbing
--------
A constant.
"""


@one_thread()
def judge(
    predictor: Predictor,
    histories: UserHistories,
    users: Tensor,
    protocol: str,
    sizes: Sequence[int] | None = None,
    **settings: int,
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
        Sizes k; those of the protocol if not given, up to the reserved ratings where
        the query comes after them.
    settings
        Of the measures, such as the length ``at`` of a list.

    Returns
    -------
    pd.DataFrame
        One row for each user and k, as those of `cold_start` and `rank_catalogue`.

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
    _, default, cut, measures = PROTOCOLS[protocol]
    count, reserved = histories.count(users), histories.reserved
    if sizes is None:
        sizes = [k for k in default if cut is not _first or k <= reserved]
    parts = []
    for size in sizes:
        n = cut(size, count, reserved)
        k, after = (torch.as_tensor(each).expand(len(users)) for each in n)
        judged = (after < count).nonzero()[:, 0]
        at_once = max(USERS_AT_ONCE * 16 // max([16, *k.tolist()]), 1)
        if protocol == "lists":  # what they have in common is asked of all of them
            at_once = len(users)
        # Of many, those of like length come together: they are padded less.
        if len(judged) > at_once:
            judged = judged[count[judged].argsort(stable=True)]
        for some in judged.split(at_once) if len(judged) else []:
            tasks = histories.tasks(users[some], k[some], after[some])
            tasks.check_disjoint()
            table = measures(predictor, tasks, histories, **settings)
            table.insert(1, "k", size)
            parts.append(table)
    if not any(map(len, parts)):
        text = f"before the query of {protocol} ({reserved} reserved): none has a query"
        raise ValueError(f"no user has ratings {text}, there is nothing to find")
    # However the users were batched.
    table = pd.concat(parts).sort_values(["k", "user"], ignore_index=True)
    return _pooled(table) if "every" in table else table


def predictions(
    predictor: Predictor, tasks: Tasks, histories: UserHistories
) -> tuple[Tensor, Tensor]:
    """Predict the query of each task: as it comes, and clipped to the scale, (B, N).

    Parameters
    ----------
    predictor
        What is judged.
    tasks
        Tasks to predict the query of.
    histories
        Ratings of all users, each user's in one order.

    Raises
    ------
    ValueError
        For a prediction that is not a number: a mean over users would leave its user
        out, and the rest might look good.
    """
    with torch.no_grad():
        scores = predictor.predict(tasks.support, tasks.query.x)
    if bad := int((scores.isnan() & tasks.query.mask).sum()):
        raise ValueError(f"{bad} predictions are nan: a method must always answer")
    return scores, scores.clamp(histories.scale.low, histories.scale.high)
