"""Ratings from any DataFrame or CSV file, checked on the way in."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from metarec.data.table import RatingData, RatingScale

Duplicates = Literal["error", "last"]
FIVE_STARS = RatingScale(1, 5)
_ROLES = ("user", "item", "rating", "timestamp")


def rating_data(
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    scale: RatingScale = FIVE_STARS,
    name: str = "custom",
    users: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    duplicates: Duplicates = "error",
    citation: str = "",
) -> RatingData:
    """Check a table of ratings and bring it into the canonical form.

    Timestamps are seconds or datetimes. The tables of users and items fix the order of
    the indices and may hold rows without a rating; without them the indices follow the
    sorted labels. Of ratings of one pair ``duplicates="last"`` keeps the latest, by
    timestamp and then by order.

    Parameters
    ----------
    frame
        One row for each rating.
    columns
        Role (user, item, rating, timestamp) to name of the column; a role that is left
        out has its own name.
    scale
        The ratings that are allowed.
    name
        Name of the data set.
    users
        Table with a column user_id, which fixes the order of the indices.
    items
        Table with a column item_id and, where known, title, year and genres.
    duplicates
        What to do with two ratings of a pair: refuse them, or keep the last.
    citation
        How to cite the data, and the terms of their use.

    Returns
    -------
    RatingData
        The checked ratings.

    Raises
    ------
    ValueError
        For a missing column, an empty table, a missing value, a rating that is not a
        number or not on the scale, a pair rated twice, a user or item that its table
        does not know. The message names the column, or the row counted from 0.
    """
    columns = _mapping(frame, columns)
    if frame.empty:
        raise ValueError(f"{name}: the table has no rows; at least one is needed")
    ratings = pd.DataFrame(
        {
            "user": frame[columns["user"]].to_numpy(),
            "item": frame[columns["item"]].to_numpy(),
            "rating": _numbers(frame, columns["rating"]).to_numpy(),
            "timestamp": _seconds(frame, columns.get("timestamp")),
        }
    )
    for role in ("user", "item"):
        _reject(
            ratings[role].isna(),
            f"column {columns[role]!r} is empty; drop such rows, or fill them in",
        )
    off = ~scale.contains(ratings["rating"].to_numpy())
    _reject(
        off,
        f"rating {ratings['rating'][off.argmax()]:g} is off the scale {scale}; "
        "correct it, or declare the scale of your data: scale=RatingScale(low, high)",
    )
    users, ratings["user"] = _index(ratings["user"], users, "user")
    items, ratings["item"] = _index(ratings["item"], items, "item")
    ratings = _unique_pairs(ratings, users, items, duplicates)
    ratings = ratings.astype(
        {"user": "int64", "item": "int64", "rating": "float32", "timestamp": "int64"}
    )
    items = _described(items)
    return RatingData(name, users, items, scale, citation, ratings)


def read_csv(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    scale: RatingScale = FIVE_STARS,
    duplicates: Duplicates = "error",
) -> RatingData:
    r"""Read a comma-separated file with a header; see `rating_data` for the rest.

    Parameters
    ----------
    path
        The file.
    columns
        Role (user, item, rating, timestamp) to name of the column; a role that is left
        out has its own name.
    scale
        The ratings that are allowed.
    duplicates
        What to do with two ratings of a pair: refuse them, or keep the last.

    Returns
    -------
    RatingData
        The checked ratings.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        As `rating_data`, where row 0 is the first line below the header.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from metarec.data import RatingScale, read_csv
    >>> path = Path(mkdtemp()) / "stars.csv"
    >>> lines = ["user,item,rating", "Ada,Alien,5", "Ada,Brazil,2", "Ben,Alien,4"]
    >>> _ = path.write_text("\n".join(lines))
    >>> data = read_csv(path, scale=RatingScale(1, 5, 1))
    >>> data.n_users, data.n_items
    (2, 2)
    """
    try:
        frame, name = pd.read_csv(path), Path(path).stem
        return rating_data(frame, columns, scale, name, duplicates=duplicates)
    except ValueError as error:  # pandas' errors of parsing and decoding are some too
        raise ValueError(f"{path}: {error}") from error


def _mapping(frame: pd.DataFrame, columns: Mapping[str, str] | None) -> dict[str, str]:
    """Complete the mapping role -> column, and check that the columns are there."""
    given = dict(columns or {})
    if unknown := set(given) - set(_ROLES):
        raise ValueError(
            f"columns maps {sorted(unknown)}; its keys are {', '.join(_ROLES)}"
        )
    mapping = {role: given.get(role, role) for role in _ROLES}
    if "timestamp" not in given and "timestamp" not in frame:
        del mapping["timestamp"]
    for role, column in mapping.items():
        if column not in frame:
            raise ValueError(
                f"no column {column!r} for the {role}; the table has "
                f"{', '.join(map(repr, frame.columns))}. Say which one it is: "
                f"columns={{{role!r}: ...}}"
            )
    return mapping


def _reject(bad: pd.Series | np.ndarray, message: str) -> None:
    """Raise if any row is bad, naming the first."""
    if (rows := np.flatnonzero(bad)).size:
        more = f" (and {rows.size - 1} more rows)" if rows.size > 1 else ""
        raise ValueError(f"row {rows[0]}{more}: {message}")


def _first(values: pd.Series, bad: np.ndarray) -> object:
    """Return the first bad value, as Python's own type; anything if there is none."""
    return values.iloc[[int(bad.argmax())]].tolist()[0]


def _numbers(frame: pd.DataFrame, column: str) -> pd.Series:
    values = frame[column]
    missing = values.isna()
    _reject(missing, f"column {column!r} is empty (NaN); drop such rows")
    numbers = pd.to_numeric(values, errors="coerce")
    bad = ~np.isfinite(numbers.to_numpy("float64"))
    _reject(bad, f"{_first(values, bad)!r} in {column!r} is not a number")
    return numbers.astype("float64")


def _seconds(frame: pd.DataFrame, column: str | None) -> np.ndarray:
    if column is None:
        return np.zeros(len(frame), dtype="int64")
    values = frame[column]
    if pd.api.types.is_datetime64_any_dtype(values):
        _reject(values.isna(), f"column {column!r} is empty (NaT); drop such rows")
        utc = pd.to_datetime(values, utc=True)
        return ((utc - pd.Timestamp(0, tz="UTC")) // pd.Timedelta("1s")).to_numpy()
    return _numbers(frame, column).to_numpy().astype("int64")


def _index(
    labels: pd.Series, table: pd.DataFrame | None, role: str
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the table of users or items, and each rating's row in it."""
    key = f"{role}_id"
    if table is None:
        codes, unique = pd.factorize(labels, sort=True)
        return pd.DataFrame({key: unique}), codes
    if key not in table:
        raise ValueError(f"the table of {role}s has no column {key!r}")
    if not (index := pd.Index(table[key])).is_unique:
        twice = _first(table[key], index.duplicated())
        raise ValueError(f"{key} {twice!r} stands twice in the table of {role}s")
    codes = index.get_indexer(pd.Index(labels))
    unknown = codes < 0
    _reject(
        unknown,
        f"{role} {_first(labels, unknown)!r} is not in the table of {role}s; add it",
    )
    return table.reset_index(drop=True), codes


def _unique_pairs(
    ratings: pd.DataFrame, users: pd.DataFrame, items: pd.DataFrame, duplicates: str
) -> pd.DataFrame:
    pair = ["user", "item"]
    if duplicates == "last":
        latest = ratings.sort_values("timestamp", kind="stable")
        kept = latest.drop_duplicates(pair, keep="last").sort_index()
        return kept.reset_index(drop=True)
    again = ratings.duplicated(pair).to_numpy()
    if again.any():
        first = ratings.loc[again.argmax(), pair]
        rows = np.flatnonzero((ratings[pair] == first).all(axis=1))
        raise ValueError(
            f"user {users['user_id'][first['user']]} rated item "
            f"{items['item_id'][first['item']]} more than once, in rows "
            f"{', '.join(map(str, rows[:3]))}; repeated rows in all: {again.sum()}. "
            'Keep each pair\'s latest with duplicates="last", or clean the table'
        )
    return ratings


def _described(items: pd.DataFrame) -> pd.DataFrame:
    """Give every item a title (else its label), a year and genres (else unknown)."""
    genres = items.get("genres", pd.Series([()] * len(items), dtype=object))
    plain = genres.map(lambda words: isinstance(words, str) or not np.iterable(words))
    _reject(plain, "the genres of an item are a tuple of words, one word a genre")
    described = pd.DataFrame(
        {
            "item_id": items["item_id"],
            "title": items.get("title", items["item_id"]).astype("str"),
            "year": pd.Series(items.get("year", pd.NA), items.index, dtype="Int64"),
            "genres": genres.map(tuple),
        }
    )
    return described.join(items.drop(columns=described.columns, errors="ignore"))


def clicks(data: RatingData, at: float = 4.0) -> RatingData:
    """Turn ratings into clicks: 1 where a rating is ``at`` or more, 0 elsewhere.

    The same pairs with the scale 0, 1.

    Parameters
    ----------
    data
        Ratings in stars.
    at
        Stars from which on a rating is a click.

    Returns
    -------
    RatingData
        The same pairs with the scale 0, 1.

    Raises
    ------
    ValueError
        If all would be alike.
    """
    liked = data.ratings["rating"] >= at
    if liked.all() or not liked.any():
        raise ValueError(
            f"every rating is on the same side of {at:g}: choose a value within "
            f"{data.ratings['rating'].min():g} to {data.ratings['rating'].max():g}"
        )
    table = data.ratings.assign(rating=liked.astype("float32"))
    scale = RatingScale(0, 1, 1)
    return replace(data, name=f"{data.name} clicks", ratings=table, scale=scale)
