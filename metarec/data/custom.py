"""Ratings from any table or file, checked on the way in."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import pandas as pd

from metarec.data.frames import column_of, likely_cause, to_frame
from metarec.data.table import LAYOUT, RatingColumns, RatingData, RatingScale

Ratings = TypeVar("Ratings", RatingData, RatingColumns, RatingData | RatingColumns)
Columns = Mapping[str, str | int | None]
Duplicates = Literal["error", "first", "last", "mean"]
FIVE_STARS = RatingScale(1, 5)
ROLES = tuple(LAYOUT)
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_TWO_KINDS = {"integer", "string"}


def rating_data(
    table: Any,
    columns: Columns | None = None,
    scale: RatingScale | Sequence[float] = FIVE_STARS,
    name: str = "custom",
    users: Any = None,
    items: Any = None,
    duplicates: Duplicates = "error",
    citation: str = "",
    not_rated: float | Sequence[float] = (),
    time_format: str | None = None,
) -> RatingData:
    """Check a table of ratings and bring it into the canonical form.

    The tables of users and items fix the order of the indices and may hold rows without
    a rating; without them the indices follow the sorted labels.

    Feedback without stars (purchases, plays, plain pairs) has the rating left out,
    ``columns={"rating": None}``: each pair is a 1 on the scale 0 to 1, at its first
    time, from which lists are learned as it is (clicks draw what was not taken as 0,
    see `clicks`).

    Parameters
    ----------
    table
        One row for each rating: a DataFrame (pandas, polars), an Arrow table, or the
        path of a file that `read_csv` reads without being told how.
    columns
        Role (user, item, rating, timestamp) to name of the column, or its position from
        0; None (on a command line ``rating=``) leaves rating or timestamp out. A role
        that is not given has its own name or, in a table without names, its place in
        this order.
    scale
        The ratings that are allowed, also as (low, high) or (low, high, step); 1 to 5
        if not given.
    name
        Name of the data set.
    users
        Table with a column user_id, which fixes the order of the indices.
    items
        Table with a column item_id and, where known, title, year and genres: a tuple of
        words, or text with ``|``, a comma or a semicolon between them.
    duplicates
        What to do with two ratings of a pair: refuse them, keep the first or the last,
        by timestamp and then by order, or keep the last with the mean rating.
    citation
        How to cite the data, and the terms of their use.
    not_rated
        Numbers in the column of ratings that mean "not rated", such as 0, -1 or NaN:
        these rows are left out.
    time_format
        What the timestamps are: "s", "ms", "us" or "ns" since 1970, or a format such as
        "%d.%m.%Y". Where it is not given, numbers are seconds, and text is a date.

    Returns
    -------
    RatingData
        The checked ratings.

    Raises
    ------
    ValueError
        For a missing column, an empty table, a missing value, a rating that is not a
        number or not on the scale, a time that is none, a pair rated twice, a user or
        item that its table does not know. The message names the column, or the row
        counted from 0.
    """
    if duplicates not in get_args(Duplicates):
        known = ", ".join(map(repr, get_args(Duplicates)))
        raise ValueError(f"duplicates={duplicates!r} is none of {known}")
    try:
        scale = scale if isinstance(scale, RatingScale) else RatingScale(*scale)
    except TypeError as error:
        raise ValueError("pass scale=(LOW, HIGH) or scale=(LOW, HIGH, STEP)") from error
    frame = to_frame(table, [(columns or {}).get(role, role) for role in ROLES[:2]])
    at = _mapping(frame, columns)
    given = {role: frame[column].array for role, column in at.items()}
    ratings = pd.DataFrame({"rating": 1.0, "timestamp": 0} | given)[[*ROLES]]
    if "rating" not in at:  # buying again is no contradiction
        scale, duplicates, not_rated = RatingScale(0, 1, 1), "first", ()
    stars = _numbers(ratings["rating"], at.get("rating"), not_rated)
    ratings = ratings.loc[stars.index].assign(rating=stars)
    if ratings.empty:
        raise ValueError(f"{name}: the table has no rows; at least one is needed")
    for role, column in at.items():
        empty = f"column {column!r} is empty; drop such rows, or fill them in"
        _reject(ratings[role], ratings[role].isna(), empty)
    off = ~scale.contains(stars.to_numpy())
    hint = f"rating VALUE is off the scale {scale}; correct it, or declare the "
    hint += "scale of your data: scale=RatingScale(low, high)"
    if (stars[off] < scale.low).any():
        hint += "; if it means that there is no rating, say not_rated=VALUE"
    _reject(stars, off, hint)
    if "timestamp" in at:
        time = ratings["timestamp"]
        ratings["timestamp"] = _seconds(time, at["timestamp"], time_format)
    labels = ratings[["user", "item"]]
    users, ratings["user"] = _index(ratings["user"], users, "user")
    items, ratings["item"] = _index(ratings["item"], items, "item")
    if duplicates == "mean":
        scale = replace(scale, step=None)
    ratings = _unique_pairs(ratings, labels, duplicates)
    ratings = ratings.reset_index(drop=True).astype(LAYOUT)
    return RatingData(name, users, _described(items), scale, citation, ratings)


def read_csv(
    path: str | Path,
    columns: Columns | None = None,
    scale: RatingScale | Sequence[float] = FIVE_STARS,
    sep: str = ",",
    encoding: str = "utf-8",
    header: bool = True,
    **more: Any,
) -> RatingData:
    r"""Read ratings from a file: text with separators, Parquet or JSON lines.

    The suffix says which: ``.parquet``, ``.jsonl``, or any other for text. Files may be
    compressed (``.gz``, ``.bz2``, ``.zip``). A label in text is what the file says,
    "007" as well as "7"; labels are numbers if all of them are written as such.

    Parameters
    ----------
    path
        The file.
    columns
        Role (user, item, rating, timestamp) to name of the column, or its position from
        0; None leaves rating or timestamp out. A role that is not given has its own
        name or, without a header, its place in this order.
    scale
        The ratings that are allowed, also as (low, high) or (low, high, step).
    sep
        What separates the columns: by default a comma.
    encoding
        How characters are written.
    header
        Whether the first line names the columns.
    **more
        Further settings of `rating_data`: users, items, duplicates, not_rated,
        time_format, citation.

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
    >>> from metarec.data import read_csv
    >>> path = Path(mkdtemp()) / "stars.csv"
    >>> lines = ["user;item;stars", "Ada;007;5", "Ada;7;2", "Ben;007;4"]
    >>> _ = path.write_text("\n".join(lines))
    >>> data = read_csv(path, {"rating": "stars"}, scale=(1, 5, 1), sep=";")
    >>> data.items["item_id"].tolist()
    ['007', '7']
    """
    try:
        columns = ({} if header else {"user": 0, "item": 1}) | dict(columns or {})
        labels = [columns.get(role, role) for role in ROLES[:2]]
        frame = to_frame(Path(path), labels, sep=sep, encoding=encoding, header=header)
        return rating_data(frame, columns, scale, **({"name": Path(path).stem} | more))
    except ValueError as error:  # pandas' errors of parsing and decoding are some too
        raise ValueError(f"{path}: {error}") from error


def as_ratings(data: Any) -> RatingData | RatingColumns:
    """Take ratings as they are, or whatever `rating_data` reads without being told how.

    Parameters
    ----------
    data
        Ratings, a store, a table, or the path of a file.

    Returns
    -------
    RatingData | RatingColumns
        The ratings.

    Raises
    ------
    ValueError
        As `rating_data`.

    Plumbing
    --------
    The door of `MetaRecommender.fit`.
    """
    if isinstance(data, RatingData | RatingColumns):
        return data
    try:
        return rating_data(data)
    except ValueError as error:
        hint = "arguments of read_csv and rating_data: read the table with one of them"
        raise ValueError(f"{error} ({hint} first)") from error


def _mapping(frame: pd.DataFrame, columns: Columns | None) -> dict[str, Any]:
    """Find the column of each role that is not left out."""
    given = dict(columns or {})
    if unknown := set(given) - set(ROLES):
        known = ", ".join(ROLES)
        raise ValueError(f"columns maps {sorted(unknown)}; its keys are {known}")
    numbered = all(isinstance(name, int) for name in frame)
    mapping = {}
    for place, role in enumerate(ROLES):
        wanted = given.get(role, place if numbered else role)
        column = column_of(frame, wanted)
        left_out = wanted in (None, "") and role in ROLES[2:]
        if left_out or (column is None and role == "timestamp" and role not in given):
            continue
        if column is None:
            hint = likely_cause(frame) or f"say which: columns={{{role!r}: NAME}}"
            if role == "rating":
                hint += ", or that there are no stars: columns={'rating': None}"
            there = ", ".join(map(repr, frame.columns))
            text = f"no column {wanted!r} for the {role}; the table has {there}; {hint}"
            raise ValueError(text)
        mapping[role] = column
    for column in mapping.values():
        if [*frame.columns, *mapping.values()].count(column) > 2:
            raise ValueError(f"column {column!r} stands for two roles, or occurs twice")
    return mapping


def _reject(values: pd.Series, bad: pd.Series | np.ndarray, message: str) -> None:
    """Raise if any value is bad, and name the first (VALUE) and its row."""
    if (rows := np.flatnonzero(bad)).size:
        more = f" (and {rows.size - 1} more rows)" if rows.size > 1 else ""
        # As Python's own type, a whole number without its point.
        value = repr(values.iloc[rows[:1]].tolist()[0]).removesuffix(".0")
        text = message.replace("VALUE", value)
        raise ValueError(f"row {values.index[rows[0]]}{more}: {text}")


def _numbers(
    values: pd.Series, column: Any, unless: float | Sequence[float] = ()
) -> pd.Series:
    """The column as numbers, without the rows of ``unless``."""
    numbers: pd.Series = pd.to_numeric(values, errors="coerce")
    word = (numbers.isna() & values.notna()) | pd.api.types.is_bool_dtype(numbers)
    numbers = numbers.astype("float64").mask(word, np.inf)
    numbers = numbers[~numbers.isin(np.atleast_1d(unless))]
    values = values[numbers.index]
    _reject(values, np.isinf(numbers), f"VALUE in {column!r} is not a number")
    return numbers


def _seconds(values: pd.Series, column: Any, time_format: str | None) -> pd.Series:
    """Whole seconds since 1970 from numbers, dates or text."""
    if not (time_format in (None, *_UNITS) or "%" in str(time_format)):
        units = ", ".join(map(repr, _UNITS))
        raise ValueError(f"time_format={time_format!r} is none of {units}, '%d.%m.%Y'")
    dates = pd.api.types.is_datetime64_any_dtype(values) or "%" in str(time_format)
    if not dates and pd.to_numeric(values, errors="coerce").notna().any():
        seconds: pd.Series = _numbers(values, column) / _UNITS[time_format or "s"]
        # Seconds reach 10^11 in the year 5138, milliseconds did so in 1973.
        far = seconds.abs() > (1e11 if time_format is None else 9e18)
        hint = f"VALUE in {column!r} is far from any time in seconds: pass "
        hint += "time_format='ms' for milliseconds (or 'us', 'ns', 's')"
        _reject(values, far, hint)
        return (seconds // 1).astype("int64")
    text = values if time_format is None else values.astype(str)
    parse = partial(pd.to_datetime, text, utc=True, errors="coerce")
    time: Any = parse(format=time_format or "ISO8601")
    other = time
    if time_format is None and time.isna().any():
        with warnings.catch_warnings(action="ignore"):  # that no format fits all
            time, other = parse(), parse(dayfirst=True)
    how = "say how dates are written, time_format='%d.%m.%Y', or leave them out"
    hint = f"VALUE in {column!r} is not a date like those above it: {how}"
    _reject(values, time.isna(), hint + ", columns={'timestamp': None}")
    hint = f"VALUE in {column!r} may be either of two days: {how}"
    _reject(values, time.ne(other) & other.notna(), hint)
    whole: pd.Series = time.dt.tz_localize(None).astype("datetime64[s]")
    return whole.astype("int64")


def _index(labels: pd.Series, table: Any, role: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the table of users or items, and each rating's row in it."""
    key = f"{role}_id"
    try:
        if table is None:
            codes, unique = pd.factorize(labels, sort=True)
            return pd.DataFrame({key: unique}), codes
        table = to_frame(table).reset_index(drop=True)
        if key not in table:
            raise ValueError(f"the table of {role}s has no column {key!r}")
        # One file may write all labels as numbers, and the other not.
        if {pd.api.types.infer_dtype(x) for x in (labels, table[key])} == _TWO_KINDS:
            labels, table[key] = labels.astype(str), table[key].astype(str)
        again = table[key].duplicated()
        _reject(table[key], again, f"{key} VALUE stands twice in the table of {role}s")
        codes = pd.Index(table[key]).get_indexer(pd.Index(labels))
    except TypeError as error:
        raise ValueError(f"a {role} cannot be told from others: {error}") from error
    _reject(labels, codes < 0, f"{role} VALUE is not in the table of {role}s; add it")
    return table, codes


def _unique_pairs(
    ratings: pd.DataFrame, labels: pd.DataFrame, duplicates: str
) -> pd.DataFrame:
    pair = ["user", "item"]
    again = ratings.duplicated(pair)
    if not again.any():
        return ratings
    if duplicates == "error":
        user, item = labels[again].iloc[0]
        rows = labels.index[(ratings[pair] == ratings[pair][again].iloc[0]).all(axis=1)]
        where = f"rows {', '.join(map(str, rows[:3]))}; repeated rows: {again.sum()}"
        hint = 'keep each pair\'s latest, duplicates="last" (or "first", "mean")'
        text = f"user {user} rated item {item} more than once, in {where}; {hint}"
        raise ValueError(text)
    ratings = ratings.sort_values("timestamp", kind="stable")
    if duplicates == "mean":
        ratings["rating"] = ratings.groupby(pair)["rating"].transform("mean")
    keep: Any = "first" if duplicates == "first" else "last"
    return ratings.drop_duplicates(pair, keep=keep).sort_index()


def _described(items: pd.DataFrame) -> pd.DataFrame:
    """Give every item a title (else its label), a year and genres (else unknown)."""
    first = ["item_id", "title", "year", "genres"]
    items = items.reindex(columns=[*first, *items.columns.drop(first, errors="ignore")])
    genres = items["genres"].astype(object).where(items["genres"].notna(), "")
    # In a file the words of an item are one text.
    text = genres.map(lambda words: isinstance(words, str))
    genres = genres.mask(text, genres[text].str.split(r"\s*[|,;]\s*", regex=True))
    remedy = "the genres of an item are words, such as 'Comedy|War', not VALUE"
    _reject(genres, ~genres.map(np.iterable).astype(bool), remedy)
    genres = genres.map(lambda words: tuple(filter(None, words)))
    known = _numbers(items["year"].astype(object).dropna(), "year")
    _reject(known, (known % 1 != 0) | (known.abs() > 1e6), "VALUE is not a year")
    year = known.astype("Int64").reindex(items.index)
    title = items["title"].astype(object).fillna(items["item_id"].astype(object))
    return items.assign(title=title.astype(str), year=year, genres=genres)


def clicks(data: RatingData, at: float = 4.0, unseen: int = 0) -> RatingData:
    """Turn ratings into clicks: 1 where a rating is ``at`` or more, 0 elsewhere.

    Counts, of plays say, become clicks by a threshold: 230 plays against 1 say that
    somebody came back and hardly by how much more they like it, and a click has a scale
    and a likelihood.

    Where all that is known is what was taken, 1 alone teaches nothing: with ``unseen``
    items are drawn, alike among those that anybody has, that the user has not. They
    stand last in time, so that supports are of clicks, as in use.

    Parameters
    ----------
    data
        Ratings in stars, or counts.
    at
        Stars, or the count, from which on a rating is a click.
    unseen
        How many draws to make for each of a user's ratings; what falls on an item that
        the user has is not drawn again.

    Returns
    -------
    RatingData
        The same pairs, and those that were drawn, with the scale 0, 1.

    Raises
    ------
    ValueError
        If all would be alike.
    """
    liked = data.ratings["rating"] >= at
    if (liked.all() and not unseen) or not liked.any():
        low, high = data.ratings["rating"].agg(["min", "max"])
        hint = f"choose a value within {low:g} to {high:g}"
        raise ValueError(f"every rating is on the same side of {at:g}: {hint}")
    table = data.ratings.assign(rating=liked.astype("float32"))
    drawn = table.loc[table.index.repeat(unseen)]
    # An item that nobody has may be new, which is no reason to dislike it.
    some = np.random.default_rng(0).choice(table["item"].unique(), len(drawn))
    last = drawn.groupby("user")["timestamp"].transform("max")
    drawn = drawn.assign(item=some, rating=np.float32(0), timestamp=last)
    table = pd.concat([table, drawn]).drop_duplicates(["user", "item"])
    table, scale = table.reset_index(drop=True), RatingScale(0, 1, 1)
    return replace(data, name=f"{data.name} clicks", ratings=table, scale=scale)


def for_goal(data: Ratings, goal: str) -> Ratings:
    """Feedback without stars as a goal needs it; other ratings as they are.

    Lists are learned from what was taken, in order. Clicks need what was not taken as
    well: four items are drawn as 0 for each that was taken, see `clicks`.

    Parameters
    ----------
    data
        The ratings.
    goal
        What is to be learned: "stars", "clicks" or "lists".

    Returns
    -------
    RatingData | RatingColumns
        The ratings to learn from.

    Raises
    ------
    ValueError
        If every rating is 1 and the goal is stars, or clicks of a store.

    Plumbing
    --------
    The door of `MetaRecommender.fit` and of the evaluation.
    """
    rating = data.rating if isinstance(data, RatingColumns) else data.ratings["rating"]
    if goal == "lists" or data.scale != RatingScale(0, 1, 1) or not (rating == 1).all():
        return data
    if goal == "clicks" and not isinstance(data, RatingColumns):
        return clicks(data, at=1, unseen=4)
    missing = "stars to predict" if goal == "stars" else "0 in the store"
    raise ValueError(f'every rating is 1: there are no {missing}; take goal="lists"')
