"""Guards against leaks: what must not move a prediction, and what must not be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from metarec.data import RatingData
from metarec.evaluation.cold_start import Predictor, clipped
from metarec.tasks import UserHistories, UserSplit


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
        clipped(fit(version), probe, histories)
        for version in (data, replace(data, ratings=table))
    )
    moved = int((before != after).sum())
    if moved:
        raise LeakageError(
            f"{moved} of {before.numel()} predictions changed when only the ratings of "
            "test users did: something of a test user enters a training statistic"
        )
