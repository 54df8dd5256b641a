"""The protocol for interests that drift: predict what comes next, over and over."""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import pandas as pd
import torch
from torch import Tensor

from metarec.learners import Posterior
from metarec.metrics import user_rmse
from metarec.tasks import Examples, UserHistories
from metarec.validation import Predictor


@runtime_checkable
class Online(Predictor, Protocol):
    """A predictor that carries its belief on instead of starting over.

    ``predict(support, x)`` equals ``score(observe(start(B), support), x)``.

    Plumbing
    --------
    A type.
    """

    def start(self, n: int) -> Posterior:
        """What is believed of ``n`` users before any rating.

        Parameters
        ----------
        n
            Number of users B.

        Returns
        -------
        Posterior
            The belief, a posterior of n heads.
        """

    def observe(self, belief: Posterior, ratings: Examples) -> Posterior:
        """What is believed after further ratings, in order of time.

        Parameters
        ----------
        belief
            What is believed of each user, a posterior of B heads.
        ratings
            Further ratings, in order of time.

        Returns
        -------
        Posterior
            The belief after them.
        """

    def score(self, belief: Posterior, x: Tensor) -> Tensor:
        """Scores (B, N) of the items ``x`` (B, N).

        Parameters
        ----------
        belief
            What is believed of each user, a posterior of B heads.
        x
            Items to score, shape (B, N).

        Returns
        -------
        Tensor
            Scores, shape (B, N).
        """


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
    online = predictor if isinstance(predictor, Online) else None
    belief = online.start(len(users)) if online else None
    tables, told = [], 0
    for seen in range(first, int(count[0]), block):
        here = int((count > seen).sum())
        query = _part(everything, here, seen, seen + block)
        with torch.no_grad():
            if online and belief:
                mean, covariance, noise = belief
                belief = Posterior(mean[:here], covariance[:here], noise)
                # What came since the last block: a belief holds all before.
                news = _part(everything, here, told, seen)
                belief, told = online.observe(belief, news), seen
                scores = online.score(belief, query.x)
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
    part = Examples(*(column[:users, start:stop] for column in columns))
    known = history.profile
    return part if known is None else replace(part, profile=known[:users])
