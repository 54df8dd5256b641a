"""Guards against leaks: what must not move a prediction, and what must not be read."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from metarec.data import RatingData
from metarec.tasks import LeakageError, UserHistories, UserSplit
from metarec.validation import Predictor, predictions


def check_no_leak(
    fit: Callable[[RatingData], Predictor], data: RatingData, split: UserSplit
) -> None:
    """Fit twice, the second time with the test users' ratings scrambled, and compare.

    What test users rated, how they rated it and what is known of them all change. The
    two must predict the same, to the last bit, for the same support sets: those of the
    training users, on every item that stands in their queries.

    Parameters
    ----------
    fit
        Fits a predictor on a data set.
    data
        The ratings.
    split
        Who is trained on, and who is tested.

    Raises
    ------
    LeakageError
        If a prediction moved, or if a predictor does not take user features whose
        vocabulary comes from training users.

    Built in
    --------
    tasks
    """
    table = data.ratings.copy()
    of_test = table["user"].isin(split.test.numpy()).to_numpy()
    rng = np.random.default_rng(0)
    table.loc[of_test, "rating"] = rng.choice(np.unique(table["rating"]), of_test.sum())
    # Another item for every item: a user still rates each of them once.
    other = rng.permutation(data.n_items)
    table.loc[of_test, "item"] = other[table.loc[of_test, "item"]]
    people, test = data.users.copy(), data.users.index.isin(split.test.numpy())
    for column, known in data.users.drop(columns="user_id").items():
        number = pd.api.types.is_numeric_dtype(known)
        changed = known.max() + 1 - known if number else f"nobody's {column}"
        people[column] = np.where(test, changed, known)
    histories = UserHistories(data, vocabulary=split.train)
    probe = histories.tasks(histories.usable(split.train), min(5, histories.reserved))
    fitted = [fit(data), fit(replace(data, ratings=table, users=people))]
    try:
        before, after = (predictions(p, probe, histories)[1] for p in fitted)
    except ValueError as error:
        raise LeakageError(f"the vocabulary came from others: {error}") from error
    if moved := int((before != after).sum()):
        why = "something of a test user enters a training statistic"
        raise LeakageError(f"{moved} of {before.numel()} predictions changed: {why}")
