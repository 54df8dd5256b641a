"""Many users at once: their ratings into batches, and scores into lists."""

import warnings
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


class UnknownItemError(KeyError):
    """An item that the recommender was not trained on.

    Plumbing
    --------
    Raised by `MetaRecommender.adapt` and `PersonalModel.predict`.
    """

    def __str__(self) -> str:
        """Give the message without the quotes that ``KeyError`` puts around it."""
        return str(self.args[0])


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


def rows_of(known: Mapping[Any, int], labels: Sequence[Any]) -> np.ndarray:
    """The row of each label, shape (n,), and -1 of one that is not known."""

    def row(label: Any) -> int:
        try:
            return known.get(label, -1)
        except TypeError:  # a list, say, which cannot name anything
            return -1

    return np.array([row(label) for label in labels], dtype=np.int64)


def unknown_item(
    known: Mapping[Any, int], labels: Sequence[Any], bad: np.ndarray, who: str = ""
) -> UnknownItemError:
    """Name the first label that is ``bad``, and say what to do."""
    return UnknownItemError(
        f"{who}unknown item {labels[int(bad.argmax())]!r} ({bad.sum()} in all): items "
        "are named by the item_id of the training data, such as "
        f"{next(iter(known))!r}; leave unknown ones out or fit again with data that "
        "hold them"
    )


def user_ratings(
    ratings: Mapping[Any, Any] | pd.DataFrame,
    known: Mapping[Any, int],
    scale: RatingScale,
    unknown: str = "error",
) -> UserRatings:
    """Check the ratings of many users and sort them by user, in order of appearance.

    ``known`` holds the row of each item's label. Ratings of other items are an error,
    or with ``unknown="ignore"`` left out, and a warning counts them.

    Raises
    ------
    UnknownItemError
        For an item that is not known; the message names the user.
    ValueError
        For a rating off the scale or given twice; the message names the user.
    """
    if unknown not in ("error", "ignore"):
        raise ValueError(f'unknown={unknown!r} will not do: pass "error" or "ignore"')
    if isinstance(ratings, pd.DataFrame):
        position, found = pd.factorize(ratings["user_id"])
        if (position < 0).any():
            raise ValueError("a row has no user_id: drop it, or fill it in")
        user, label = found.tolist(), ratings["item_id"].tolist()
        rating = pd.to_numeric(ratings["rating"], errors="coerce").to_numpy(float)
    else:
        user = list(ratings)
        position = np.repeat(np.arange(len(user)), [len(r) for r in ratings.values()])
        pairs = [pair for own in ratings.values() for pair in own]
        label = [label for label, _ in pairs]
        rating = np.array([stars for _, stars in pairs], dtype=float)
    item = rows_of(known, label)
    strange, off = item < 0, ~scale.contains(rating)
    again = pd.Series(position * len(known) + item).duplicated().to_numpy()
    bad = np.where(strange, unknown == "error", off | again)
    if bad.any():
        at = int(bad.argmax())
        who, what = user[position[at]], label[at]
        mine = "" if who is None else f"user {who!r}: "
        if strange[at]:
            raise unknown_item(known, label, strange, mine)
        why = f"item {what!r} is rated twice: keep one of the ratings"
        if off[at]:
            why = (
                f"the rating {rating[at]} of item {what!r} is not on the scale {scale}"
            )
        raise ValueError(mine + why)
    if strange.any():
        lost = f"{strange.sum()} ratings of items that are not known are left out"
        warnings.warn(lost, stacklevel=3)
        position, item, rating = (x[~strange] for x in (position, item, rating))
    # Stable, since the order of a user's ratings may mean something to a learner.
    order = np.argsort(position, kind="stable")
    count = np.bincount(position, minlength=len(user))
    start = np.concatenate([[0], count.cumsum()])
    return UserRatings(user, start, item[order], rating[order])


def finite(*values: Tensor) -> None:
    """Raise ``FloatingPointError`` in place of an answer that is no number."""
    if not all(bool(value.isfinite().all()) for value in values):
        raise FloatingPointError(
            "the inner loop diverged on a user's ratings: fit with fewer steps or "
            'learner="bayesian"'
        )


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
    items = torch.arange(n_items, device=support.x.device)[None]
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
