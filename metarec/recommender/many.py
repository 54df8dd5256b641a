"""Many users at once: their ratings into batches, and scores into lists."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metarec.data import RatingScale
from metarec.learners import Parameters, dot, is_head, likelihood_of, predict
from metarec.models import RatingModel
from metarec.tasks import Examples


class UserRatings(NamedTuple):
    """The ratings of many users, flat and sorted by user.

    Parameters
    ----------
    user
        Labels of the users.
    start
        Where the rows of each user begin, shape (users + 1,).
    item
        Rows of the items, shape (n,).
    rating
        Ratings in the same order, shape (n,).
    """

    user: Sequence[Any]
    start: np.ndarray
    item: np.ndarray
    rating: np.ndarray

    def batch(self, first: int, last: int, profile: Tensor) -> Examples:
        """Pad the ratings of users ``first`` to ``last`` into one batch."""
        rows = slice(self.start[first], self.start[last])
        count = np.diff(self.start[first : last + 1])
        mask = np.arange(max(1, int(count.max()))) < count[:, None]
        x, y = np.zeros(mask.shape, np.int64), np.zeros(mask.shape, np.float32)
        x[mask], y[mask] = self.item[rows], self.rating[rows]
        examples = map(torch.from_numpy, (x, y, mask))
        return replace(Examples(*examples), profile=profile)


def user_ratings(
    ratings: Mapping[Any, list[tuple[Any, float]]] | pd.DataFrame,
    items: pd.Index,
    scale: RatingScale,
) -> UserRatings:
    """Check the ratings of many users and sort them by user, in order of appearance.

    Raises
    ------
    KeyError
        For an item that is not in the table, with its label.
    ValueError
        For a rating off the scale or given twice; the message names the user.
    """
    if isinstance(ratings, pd.DataFrame):
        position, found = pd.factorize(ratings["user_id"])
        user = found.tolist()
        if (position < 0).any():
            raise ValueError(
                "a row of the table has no user_id: drop it, or fill it in"
            )
        labels = pd.Index(ratings["item_id"])
        rating = ratings["rating"].to_numpy(dtype=float)
    else:
        user = list(ratings)
        position = np.repeat(np.arange(len(user)), [len(r) for r in ratings.values()])
        pairs = [pair for own in ratings.values() for pair in own]
        labels = pd.Index([label for label, _ in pairs], dtype=object)
        rating = np.array([stars for _, stars in pairs], dtype=float)
    item = items.get_indexer(labels) if len(labels) else np.zeros(0, np.int64)
    if (unknown := item < 0).any():
        raise KeyError(labels[int(unknown.argmax())])
    off = ~scale.contains(rating)
    again = pd.Series(position * len(items) + item).duplicated().to_numpy()
    if (bad := off | again).any():
        at = int(bad.argmax())
        who, label = user[position[at]], labels[at]
        what = f"item {label!r} is rated twice: keep one of the ratings"
        if off[at]:
            what = f"the rating {rating[at]} of item {label!r} is not on the scale "
            what += f"{scale.low:g} to {scale.high:g}"
        raise ValueError(what if who is None else f"user {who!r}: {what}")
    # Stable, since the order of a user's ratings may mean something to a learner.
    order = np.argsort(position, kind="stable")
    count = np.bincount(position, minlength=len(user))
    start = np.concatenate([[0], count.cumsum()])
    return UserRatings(user, start, item[order], rating[order])


def score_all(
    model: RatingModel, weights: Parameters, support: Examples, n_items: int
) -> Tensor:
    """Scores (B, n_items) of every item under each user's own weights.

    Parameters
    ----------
    model
        The model whose parameters are adapted.
    weights
        Each task's own weights, by name, with a leading task axis.
    support
        Ratings to adapt on, of B users or tasks.
    n_items
        Number of items.
    """
    items = torch.arange(n_items)[None]
    if not is_head(model, weights):
        each = items.expand(len(support), -1)
        return predict(model, weights, each, support.profile)
    phi = model.features(items, support.profile)
    head = weights["head"]
    # One matrix product where features are the same for all.
    taste = head @ phi[0].T if len(phi) == 1 else dot(phi, head)
    return likelihood_of(model).mean(model.offset(items) + taste)


def best_items(score: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The n highest of each row of ``score`` (B, I), -inf apart: row, rank, column.

    Ties are in the order of columns, as a stable sort leaves them.
    """
    n = min(n, score.shape[1])
    if n == 0:
        return (np.zeros(0, np.int64),) * 3
    # Only what reaches the n-th best is sorted; ties at the edge are cut by rank.
    least = np.partition(score, -n, axis=1)[:, -n]
    row, column = np.nonzero((score >= least[:, None]) & (score > -np.inf))
    order = np.lexsort((-score[row, column], row))
    row, column = row[order], column[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    kept = rank < n
    return row[kept], rank[kept], column[kept]


def user_batches(n_users: int, n_items: int, wide: bool) -> Iterator[tuple[int, int]]:
    """Cut users into ranges whose scores, or features where ``wide``, fit in memory."""
    size = max(1, (2**18 if wide else 2**21) // max(n_items, 1))
    for first in range(0, n_users, size):
        yield first, min(first + size, n_users)
