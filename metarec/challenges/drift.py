"""The protocol for interests that drift: predict what comes next, over and over."""

import pandas as pd
import torch
from torch import Tensor

from metarec.challenges.forgetting import KalmanFilter
from metarec.learners import Posterior
from metarec.metrics import user_rmse
from metarec.tasks import Examples, UserHistories
from metarec.validation import Predictor


def prequential(
    predictor: Predictor,
    histories: UserHistories,
    users: Tensor,
    block: int = 10,
    first: int = 50,
) -> pd.DataFrame:
    """Predict each ``block`` of a user's ratings from all the ratings before it.

    The first block follows the ``first`` ratings; the support stands in order of time,
    newest last. One row for each user and block: user, block, seen (ratings in the
    support), n (in the block) and rmse (stars, over the block, predictions clipped to
    the scale). `rmse_of_users` makes one number a user of it. Users with no more than
    ``first`` ratings are left out.

    Parameters
    ----------
    predictor
        What is judged.
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).
    block
        Ratings in a block.
    first
        Ratings before the first block.

    Returns
    -------
    pd.DataFrame
        One row for each user and block: user, block, seen, n and rmse.

    Raises
    ------
    ValueError
        If ``block`` is below 1, ``first`` below 0, or no user is long enough.

    Source
    ------
    Dawid (1984).

    Built in
    --------
    sparsity-and-drift
    """
    if block < 1 or first < 0:
        raise ValueError(f"need block >= 1 and first >= 0, got {block} and {first}")
    # Longest first: those who still have ratings are always the first rows.
    users = users[histories.count(users).argsort(descending=True, stable=True)]
    users = users[histories.count(users) > first]
    if len(users) == 0:
        raise ValueError(f"no user has more than first = {first} ratings: lower it")
    count = histories.count(users)
    everything = histories.everything(users, int(count[0]))
    belief = None
    if isinstance(predictor, KalmanFilter):
        belief, told = predictor.start(len(users)), 0
    tables = []
    for seen in range(first, int(count[0]), block):
        here = int((count > seen).sum())
        query = _part(everything, here, seen, seen + block)
        with torch.no_grad():
            if isinstance(predictor, KalmanFilter) and belief:
                mean, covariance, noise = belief
                belief = Posterior(mean[:here], covariance[:here], noise)
                # What came since the last block: a belief holds all before.
                news = _part(everything, here, told, seen)
                belief, told = predictor.observe(belief, news), seen
                scores = predictor.score(belief, query.x)
            else:
                support = _part(everything, here, 0, seen)
                scores = predictor.predict(support, query.x)
        scores = scores.clamp(histories.scale.low, histories.scale.high)
        columns = {
            "user": users[:here].numpy(),
            "block": (seen - first) // block,
            "seen": seen,
            "n": query.mask.sum(-1).numpy(),
            "rmse": user_rmse(scores, query.y, query.mask).double().numpy(),
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def rmse_of_users(table: pd.DataFrame) -> pd.Series:
    """RMSE of each user over all their blocks: ``sqrt(sum n RMSE^2 / sum n)``.

    ``table`` is what `prequential` returns, or some of its rows.

    Parameters
    ----------
    table
        A table with one row for each user and block.

    Returns
    -------
    pd.Series
        RMSE, in stars, by user.

    Plumbing
    --------
    A sum over the rows of `prequential`.
    """
    square = (table["n"] * table["rmse"] ** 2).groupby(table["user"]).sum()
    return (square / table.groupby("user")["n"].sum()) ** 0.5


def _part(history: Examples, users: int, start: int, stop: int) -> Examples:
    """The ratings ``start`` to ``stop`` of the first ``users``."""
    columns = history.x, history.y, history.mask
    x, y, mask = (column[:users, start:stop] for column in columns)
    profile = None if history.profile is None else history.profile[:users]
    return Examples(x, y, mask, profile)
