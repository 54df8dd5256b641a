"""The protocol for new users, and the guard against leaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metarec.data import RatingData
from metarec.metrics import user_mae, user_rmse
from metarec.tasks import SUPPORT_SIZES, Examples, Tasks, UserHistories, UserSplit

__all__ = [
    "LeakageError",
    "Predictor",
    "check_no_leak",
    "cold_start",
    "validation_score",
]


class Predictor(Protocol):
    """Whatever turns a support set into predictions, baselines and learners alike.

    Plumbing: a type.
    """

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N) of the items ``x`` (B, N) for the users of ``support``."""


def _clipped(predictor: Predictor, tasks: Tasks, histories: UserHistories) -> Tensor:
    with torch.no_grad():
        scores = predictor.predict(tasks.support, tasks.query.x)
    return scores.clamp(histories.scale.low, histories.scale.high)


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

    Raises ``ValueError`` if no user has more ratings than the reserved ones.
    Built in: tasks
    """
    users = histories.usable(users)
    if len(users) == 0:
        raise ValueError(
            f"no user has more than {histories.reserved} ratings, so none has a query"
        )
    tables = []
    for k in sizes:
        tasks = histories.tasks(users, k)
        query = tasks.query
        scores = _clipped(predictor, tasks, histories)
        columns = {
            "user": users.numpy(),
            "k": k,
            "rmse": user_rmse(scores, query.y, query.mask).double().numpy(),
            "mae": user_mae(scores, query.y, query.mask).double().numpy(),
            "n": query.mask.sum(-1).numpy(),
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


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


class LeakageError(AssertionError):
    """Ratings of test users changed what was learned from training users.

    Plumbing: raised by `check_no_leak`.
    """


def check_no_leak(
    fit: Callable[[RatingData], Predictor],
    data: RatingData,
    split: UserSplit,
    seed: int = 0,
) -> None:
    """Fit twice, the second time with the test users' ratings scrambled, and compare.

    Both what test users rated and how they rated it change. The two must predict the
    same, to the last bit, for the same support sets: those of the training users, on
    every item that stands in their queries.

    Raises `LeakageError` if a prediction moved.
    Built in: tasks
    """
    table = data.ratings.copy()
    of_test = table["user"].isin(split.test.numpy()).to_numpy()
    rng = np.random.default_rng(seed)
    values = np.unique(table["rating"])
    table.loc[of_test, "rating"] = rng.choice(values, of_test.sum())
    # Another item for every item: a user still rates each of them once.
    other = rng.permutation(data.n_items)
    table.loc[of_test, "item"] = other[table.loc[of_test, "item"]]
    histories = UserHistories(data)
    probe = histories.tasks(histories.usable(split.train), min(5, histories.reserved))
    before, after = (
        _clipped(fit(version), probe, histories)
        for version in (data, replace(data, ratings=table))
    )
    moved = int((before != after).sum())
    if moved:
        raise LeakageError(
            f"{moved} of {before.numel()} predictions changed when only the ratings of "
            "test users did: something of a test user enters a training statistic"
        )
