"""Many users at once: their ratings into batches, and scores into lists."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metarec.data import RatingScale
from metarec.data.frames import to_frame
from metarec.learners import Parameters, predict
from metarec.models import RatingModel, Softmax, likelihood_of
from metarec.tasks import Examples, padded
from metarec.training import check


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
    start: Tensor
    item: Tensor
    rating: Tensor

    def batch(self, at: np.ndarray, row: np.ndarray) -> Examples:
        """Pad the ratings of the users in these places, from the items' rows on."""
        users, begin = torch.from_numpy(at), torch.from_numpy(row[at])
        first, length = self.start[users], self.start.diff()[users]
        own = padded(self.item, self.rating, first, length)
        return replace(own, x=own.x + begin[:, None])


def rows_of(known: Mapping[Any, int], labels: Sequence[Any]) -> np.ndarray:
    """The row of each label, shape (n,), and -1 of one that is not known."""
    rows = np.full(len(labels), -1)
    for place, label in enumerate(labels):
        with suppress(TypeError):  # a list, say, even in a tuple, names nothing
            rows[place] = known.get(label, -1)
    return rows


def unknown_item(
    known: Mapping[Any, int], labels: Sequence[Any], bad: np.ndarray, who: str = ""
) -> UnknownItemError:
    """Name the first label that is ``bad``, and say what to do."""
    return UnknownItemError(
        f"{who}unknown item {labels[int(bad.argmax())]!r} ({bad.sum()} in all): items "
        f"are named by the item_id of the training data, such as {next(iter(known))!r};"
        " leave unknown ones out or fit again with data that hold them"
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
    if hasattr(ratings, "columns"):
        table = _columns(ratings, "user_id", "item_id", "rating")
        position, found = pd.factorize(table["user_id"])
        if (position < 0).any():
            raise ValueError("a row has no user_id: drop it, or fill it in")
        user, label = found.tolist(), table["item_id"].tolist()
        rating = pd.to_numeric(table["rating"], errors="coerce").to_numpy(float)
    else:
        check(ratings=ratings)
        user, pairs = list(ratings), list(map(_as_pairs, ratings.values()))
        position = np.repeat(np.arange(len(user)), list(map(len, pairs)))
        label = [label for own in pairs for label, _ in own]
        rating = np.array([stars for own in pairs for _, stars in own], dtype=float)
    item = rows_of(known, label)
    strange, off = item < 0, ~scale.contains(rating)
    # A place more than there are items, for those that are not known.
    again = pd.Index(position * (len(known) + 1) + item).duplicated()
    bad = np.where(strange, unknown == "error", off | again)
    if bad.any():
        at = int(bad.argmax())
        who, what = user[position[at]], f"item {label[at]!r}"
        mine = "" if who is None else f"user {who!r}: "
        if strange[at]:
            raise unknown_item(known, label, strange, mine)
        twice = f"{what} is rated twice: keep one of the ratings"
        wrong = f"the rating {rating[at]} of {what} is not on the scale {scale.low:g} "
        raise ValueError(mine + (f"{wrong}to {scale.high:g}" if off[at] else twice))
    if strange.any():
        lost = f"{strange.sum()} ratings of items that are not known are left out"
        warnings.warn(lost, stacklevel=3)
        position, item, rating = (x[~strange] for x in (position, item, rating))
    # Stable, since the order of a user's ratings may mean something to a learner.
    order = np.argsort(position, kind="stable")
    count = np.bincount(position, minlength=len(user))
    start = np.concatenate([[0], count.cumsum()])
    flat = map(torch.from_numpy, (start, item[order], rating[order].astype("f4")))
    return UserRatings(user, *flat)


def _as_pairs(ratings: Any) -> list[tuple[Any, float]]:
    """One user's ratings as pairs (item, stars), whatever form they come in."""
    if ratings is None:
        return []
    if hasattr(ratings, "columns"):
        table = _columns(ratings, "item_id", "rating")
        ratings = table.itertuples(index=False, name=None)
    pairs = ratings.items() if hasattr(ratings, "items") else ratings
    try:
        return [(label, float(stars)) for label, stars in pairs]
    except (TypeError, ValueError, OverflowError) as error:
        ways = "{item: stars}, pairs (item, stars) or a table with item_id and rating"
        got = f"ratings={ratings!r:.60} cannot be read ({error})"
        raise ValueError(f"{got}: pass {ways}") from error


def _columns(table: Any, *needed: str) -> pd.DataFrame:
    """A table as one of pandas, with the columns that are needed, each once."""
    frame = to_frame(table)
    if missing := [name for name in needed if list(frame.columns).count(name) != 1]:
        text = f"a table of ratings has no column {missing}, or two, in {[*frame]}: "
        raise ValueError(f"{text}rename its columns to {' and '.join(needed)}")
    return frame[[*needed]]


def finite(*values: Tensor) -> None:
    """Raise ``FloatingPointError`` in place of an answer that is no number."""
    if not all(bool(value.isfinite().all()) for value in values):
        raise FloatingPointError("the inner loop diverged: fit with fewer steps")


def score_items(
    model: RatingModel, weights: Parameters, support: Examples, items: Tensor | None
) -> Tensor:
    """Scores (B, N) of ``items`` (N,) or all under each user's own weights, finite.

    Stars; the log-odds of a like; or the logarithm of an item's share of the list.

    Parameters
    ----------
    model
        The model whose parameters are adapted.
    weights
        Each task's own weights, by name, with a leading task axis.
    support
        Ratings to adapt on, of B users or tasks.
    items
        Rows of the item table, shape (N,), or None for all.
    """
    # What an item's share is, depends on all.
    lists = isinstance(likelihood_of(model), Softmax)
    scored = torch.arange(model.n_items) if lists or items is None else items
    with torch.no_grad():
        score = predict(model, weights, scored.to(support.x.device), support.profile)
    finite(score)
    if lists:
        score = score.log_softmax(-1)
        return score if items is None else score[:, items.to(score.device)]
    return score


def best_unseen(
    scores: Tensor, support: Examples, items: pd.DataFrame, n: int, min_ratings: int
) -> dict[str, Any]:
    """The n best of each row of ``scores`` (B, I): item_id, title, score, row, rank.

    Items that the user rated are not among them, nor those that few others did. They
    are columns: a table takes longer to cut than to make.
    """
    support = support.like(scores)
    rated = support.x[support.mask] % len(items)  # whichever copy they were read from
    scores[support.mask.nonzero()[:, 0], rated] = -torch.inf
    if min_ratings:
        # Few ratings make a mean that is high by chance: -inf keeps it off the list.
        scores[:, torch.tensor(items["ratings"].to_numpy() < min_ratings)] = -torch.inf
    score = scores.cpu().numpy()
    row, rank, item = best_items(score, n)
    named = {name: items[name].array[item] for name in ("item_id", "title")}
    return named | {"score": score[row, item], "row": row, "rank": rank + 1}


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
    return ((first, min(first + size, n_users)) for first in range(0, n_users, size))
