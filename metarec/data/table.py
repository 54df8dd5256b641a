"""The canonical table of ratings: its columns, its checks and its content hash."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

# The columns of canonical ratings, of which the content hash is taken.
LAYOUT = {"user": "<i8", "item": "<i8", "rating": "<f4", "timestamp": "<i8"}


@dataclass(frozen=True)
class RatingScale:
    """The ratings that are allowed: low, low + step, ..., high.

    Without a step every value in [low, high] is allowed.

    Parameters
    ----------
    low
        The lowest rating.
    high
        The highest rating.
    step
        Distance between neighbours; None allows all values between.

    Raises
    ------
    ValueError
        If the scale is empty.
    """

    low: float
    high: float
    step: float | None = None

    def __post_init__(self) -> None:
        """Refuse an empty scale."""
        if not self.low < self.high:
            raise ValueError(f"a scale needs low < high, not {self.low}, {self.high}")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step {self.step} does not fit into {self}")

    def __str__(self) -> str:
        """Write the scale as in "1 to 5 in steps of 1"."""
        steps = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.low:g} to {self.high:g}{steps}"

    @property
    def like(self) -> float:
        """The rating from which on an item is liked, ``low + 3/4 (high - low)``.

        4 and 5 of 1 to 5; of 0 and 1, the 1.
        """
        return self.low + 0.75 * (self.high - self.low)

    def contains(self, ratings: np.ndarray) -> np.ndarray:
        """Tell for each rating, shape (n,), whether it lies on the scale.

        Parameters
        ----------
        ratings
            Ratings, shape (n,).

        Returns
        -------
        np.ndarray
            True where a rating is allowed, shape (n,).
        """
        inside = (ratings >= self.low) & (ratings <= self.high)
        if self.step is None:
            return inside
        steps = (np.where(inside, ratings, self.low) - self.low) / self.step
        return inside & (np.abs(steps - np.round(steps)) < 1e-4)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What is known of users and items beside the ratings, in whatever form these are.

    ``users``, one row a user: ``user_id`` (the label in the source), then what is
    known, for MovieLens age (int64), gender and occupation (str). ``items``, one row an
    item: ``item_id`` (the label in the source), title (str), year (Int64, <NA> if
    unknown) and genres (a tuple of str, empty if unknown). ``citation`` says how to
    cite the data and under which terms they may be used.

    Parameters
    ----------
    name
        Name of the data set.
    users
        Indices of users, shape (U,).
    items
        Rows of the item table, shape (..., N).
    scale
        The ratings that are allowed.
    citation
        How to cite the data, and the terms of their use.

    Plumbing
    --------
    The half that `RatingData` and `RatingColumns` share.
    """

    name: str
    users: pd.DataFrame
    items: pd.DataFrame
    scale: RatingScale
    citation: str

    @property
    def n_users(self) -> int:
        """Number of users, those without a rating included."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Number of items, those without a rating included."""
        return len(self.items)


@dataclass(frozen=True, eq=False)
class RatingData(Catalogue):
    """One set of ratings in the canonical form, whatever file it came from.

    ``ratings``, one row a rating, in the order of the source file:

    =========  =======  =================================================
    column     dtype    meaning
    =========  =======  =================================================
    user       int64    row of ``users``, 0 .. n_users - 1
    item       int64    row of ``items``, 0 .. n_items - 1
    rating     float32  on ``scale``
    timestamp  int64    seconds since 1970-01-01 UTC, 0 where unknown
    =========  =======  =================================================

    A pair ``(user, item)`` occurs once; ``users`` and ``items`` are those of
    `Catalogue`.

    Built by `rating_data`, `read_csv` and the loaders, which check all of this.

    Parameters
    ----------
    name
        Name of the data set.
    users
        One row for each user: user_id, then what is known.
    items
        One row for each item: item_id, title, year and genres.
    scale
        The ratings that are allowed.
    citation
        How to cite the data, and the terms of their use.
    ratings
        One row for each rating, see above.
    """

    ratings: pd.DataFrame

    def content_hash(self) -> str:
        """Return a SHA-256 over the three tables, as 64 hexadecimal digits.

        It depends on the names of the columns, the values and the order of the rows,
        and neither on the platform nor on the file that the tables were read from.

        Returns
        -------
        str
            The hash.
        """
        digest = hashlib.sha256()
        for column, dtype in LAYOUT.items():
            digest.update(self.ratings[column].to_numpy().astype(dtype).tobytes())
        # As JSON, so that neither pandas' types nor the platform's enter the hash.
        for table in (self.users, self.items):
            values = [table[column].astype(object).tolist() for column in table]
            plain = [[None if v is pd.NA else v for v in column] for column in values]
            text = json.dumps([list(table.columns), plain], default=str)
            digest.update(text.encode("ascii"))
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class RatingColumns(Catalogue):
    """Ratings as flat columns, user after user: what need not fit into memory.

    User u owns the rows ``start[u]`` to ``start[u + 1]`` of ``item`` and ``rating``, in
    order of time. All that is not a column of ratings is small, as in `Catalogue`.

    Parameters
    ----------
    name
        Name of the data set.
    users
        Indices of users, shape (U,).
    items
        Rows of the item table, shape (..., N).
    scale
        The ratings that are allowed.
    citation
        How to cite the data, and the terms of their use.
    start
        First row of each user and the end of the last, shape (n_users + 1,).
    item
        Row of the item of each rating, shape (n,).
    rating
        The ratings, shape (n,).

    Shapes
    ------
    ``start`` (n_users + 1,) int64, ``item`` (n,) int32, row of ``items``, ``rating``
    (n,) float32.

    Plumbing
    --------
    `open_store` maps these columns from disk; whoever reads them need not know.
    """

    start: np.ndarray
    item: np.ndarray
    rating: np.ndarray
