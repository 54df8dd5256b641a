"""What a predictor is, and its error on users kept aside: what early stopping reads."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from metarec.metrics import log_loss, rank_candidates, user_rmse
from metarec.tasks import Examples, LeakageError, Tasks, UserHistories

__all__ = ["Predictor", "check_disjoint", "validation_score"]

USERS_AT_ONCE = 1024  # users judged at once, at supports of 16: the bound on memory


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
    sizes: Sequence[int] = (1, 3, 5, 10, 15),
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
        Support sizes K.
    goal
        What the predictions are: "stars", "clicks" or "lists".

    Returns
    -------
    float
        RMSE in stars, log-loss in nats or minus nDCG@10: lower is better.

    Raises
    ------
    ValueError
        If no user has more ratings than the reserved ones.

    Built in
    --------
    maml
    """
    users = histories.usable(users)
    if not len(users):
        raise ValueError(
            f"no user has more than {histories.reserved} ratings, so none has a query"
        )
    error = _GOALS[goal]
    # The mean is taken in double precision, as in the tables of `cold_start`.
    errors = torch.zeros(len(sizes), len(users), dtype=torch.float64)
    for row, k in enumerate(sizes):
        for some in in_batches(histories, users, k):
            tasks = histories.tasks(users[some], k, k if goal == "lists" else None)
            check_disjoint(tasks)
            errors[row, some] = error(predictor, tasks, histories).double()
    return float(np.nanmean(errors.flatten().numpy()))


def _star_error(predictor: Predictor, tasks: Tasks, histories: UserHistories) -> Tensor:
    score, query = predictions(predictor, tasks, histories)[1], tasks.query
    return user_rmse(score, query.y, query.mask)


def _click_error(
    predictor: Predictor, tasks: Tasks, histories: UserHistories
) -> Tensor:
    p, query = predictions(predictor, tasks, histories)[0], tasks.query
    liked = (query.y >= histories.scale.like).to(p)
    return log_loss(p.clamp(0, 1), liked, query.mask)


def _list_error(predictor: Predictor, tasks: Tasks, histories: UserHistories) -> Tensor:
    """Minus nDCG@10 of each user's list, nan where nothing is liked later."""
    return -rank_candidates(*on_catalogue(predictor, tasks, histories)).ndcg


@torch.no_grad()
def on_catalogue(
    predictor: Predictor, tasks: Tasks, histories: UserHistories
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of all items, what is liked later and what is not yet rated, (B, I) each.

    Parameters
    ----------
    predictor
        What is judged.
    tasks
        Tasks whose query is all after the support.
    histories
        Ratings of all users, each user's in one order.

    Plumbing
    --------
    Lists are judged by it, and chosen in training.
    """
    support, query = tasks.support, tasks.query
    nothing = torch.zeros(len(tasks), histories.n_items)
    liked = query.mask & (query.y >= histories.scale.like)
    relevant = nothing.scatter_add(1, query.x, liked.float()) > 0
    unseen = nothing.scatter_add(1, support.x, support.mask.float()) == 0
    everything = torch.arange(histories.n_items).expand(len(tasks), -1)
    return predictor.predict(support, everything), relevant, unseen


_GOALS = {"stars": _star_error, "clicks": _click_error, "lists": _list_error}


def in_batches(histories: UserHistories, users: Tensor, k: int) -> Sequence[Tensor]:
    """Places in ``users``, so many at a time as memory holds; none if there are none.

    Parameters
    ----------
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).
    k
        Most ratings in a support.
    """
    at_once = max(USERS_AT_ONCE * 16 // max(k, 16), 1)
    order = torch.arange(len(users))
    # Of many, those of like length come together: they are padded less.
    if len(users) > at_once:
        order = histories.count(users).argsort(stable=True)
    batches: Sequence[Tensor] = order.split(at_once)
    return batches if len(users) else []


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
        raise ValueError(
            f"{bad} of {int(tasks.query.mask.sum())} predictions are nan: a method "
            "must answer for every user and item, with a mean if it knows nothing"
        )
    return scores, scores.clamp(histories.scale.low, histories.scale.high)


def check_disjoint(tasks: Tasks) -> None:
    """Refuse tasks whose query holds an item of the support.

    Inputs must be items, (B, N), as those of `UserHistories`.

    Parameters
    ----------
    tasks
        Tasks whose inputs are items, shape (B, N).

    Raises
    ------
    LeakageError
        If a query holds an item of its support.

    Plumbing
    --------
    The protocols call it on whatever they judge.
    """
    support, query = tasks.support, tasks.query
    # Padding names an item too, so only places under both masks count.
    same = support.x[:, :, None] == query.x[:, None, :]
    same = same & support.mask[:, :, None] & query.mask[:, None, :]
    if same.any():
        task = int(same.any(2).any(1).nonzero()[0])
        raise LeakageError(
            f"user {int(tasks.user[task])} has an item of the support in the query "
            f"({int(same.any(1).sum())} such ratings in all): the answer was given away"
        )
