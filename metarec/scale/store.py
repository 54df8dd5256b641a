"""Ratings on disk: more of them than fit into memory, read where they are needed."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pandas as pd

from metarec.data import RatingColumns, RatingScale
from metarec.data.custom import FIVE_STARS, _described, _index, _mapping
from metarec.data.frames import _as_written

# What does not fit into this, the engine sorts on disk, beside its tables.
_LIMITS = {"memory_limit": "300MB", "threads": 2}
_TYPES = {"item": np.int32, "rating": np.float32}
# Whole seconds, of a number or a date; without a column all are alike.
_TIME = """floor(coalesce(
try_cast("{0}" AS DOUBLE), epoch(try_cast("{0}"::VARCHAR AS TIMESTAMP))))"""
_CAST = {"rating": 'try_cast("{0}" AS DOUBLE)', "timestamp": _TIME}
_AGAIN = """SELECT rowid FROM given QUALIFY row_number() OVER
(PARTITION BY "user", item ORDER BY timestamp {0}, rowid {0}) > 1"""
_SORTED = """SELECT items.code::INT AS item, rating, given.rowid AS line FROM given
JOIN users ON users.label = "user" JOIN items ON items.label = item
ORDER BY users.code, timestamp, line"""


def write_store(
    path: str | Path,
    source: str | Path,
    columns: Mapping[str, str] | None = None,
    scale: RatingScale = FIVE_STARS,
    duplicates: Literal["error", "first", "last"] = "error",
    users: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    citation: str = "",
) -> RatingColumns:
    """Sort ratings of any number user after user, each user's by time, into a folder.

    DuckDB reads and sorts, on disk where memory does not do. The ratings become one
    Arrow file, the tables of users and items Parquet files. All is written aside, and
    the folder is renamed at the end: who finds a store finds all of it.

    Parameters
    ----------
    path
        The folder to make.
    source
        A Parquet file, or a CSV file with a header, whose separator DuckDB finds by
        itself. A pattern such as ``part-*.parquet`` names many.
    columns
        Role (user, item, rating, timestamp) to name of the column; a role that is left
        out has its own name.
    scale
        The ratings that are allowed.
    duplicates
        What to do with two ratings of a pair: refuse them, or keep one.
    users
        Table of users, as for `rating_data`.
    items
        Table of items, as for `rating_data`.
    citation
        How to cite the data, and the terms of their use.

    Returns
    -------
    RatingColumns
        The store, opened.

    Raises
    ------
    FileExistsError
        If something stands at the path.
    ValueError
        As `rating_data`, and if the source cannot be read.

    Plumbing
    --------
    The chapter many-users writes one.
    """
    path, duckdb, arrow = Path(path), *map(_large, ("duckdb", "pyarrow"))
    if path.exists():
        raise FileExistsError(f"{path} exists: delete it, or name another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"name": Path(source).stem, "citation": citation, "scale": asdict(scale)}
    # Beside its final place: a rename finishes it, and a kill leaves no half.
    with TemporaryDirectory(".part", path.name, path.parent) as aside:
        folder = Path(aside, "store")
        folder.mkdir()
        try:
            with duckdb.connect(f"{aside}/tables", config=_LIMITS) as engine:
                text = _read(engine, str(source), columns, duplicates)
                users = _coded(engine, "user", users, text)
                items = _described(_coded(engine, "item", items, text))
                ordered = engine.sql(_SORTED).to_arrow_reader(2**17)
                _write(arrow, ordered, Path(aside), scale, about)
        except (duckdb.Error, ValueError) as error:
            raise ValueError(f"{source}: {error}") from error
        users.to_parquet(folder / "users.parquet")
        items.drop(columns="n_ratings").to_parquet(folder / "items.parquet")
        folder.rename(path)
    return open_store(path)


def open_store(path: str | Path) -> RatingColumns:
    """Map what `write_store` made: a page is read when somebody looks there.

    Parameters
    ----------
    path
        The folder.

    Returns
    -------
    RatingColumns
        The store. Who writes into its arrays writes into a copy of the page.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If a file is missing, cut off or does not fit the others.

    Plumbing
    --------
    The chapter many-users reads one.
    """
    path, arrow = Path(path), _large("pyarrow")
    if not path.is_dir():
        raise FileNotFoundError(f"{path} holds no ratings: write_store makes a store")
    try:
        page = np.memmap(path / "ratings.arrow", np.uint8, "c")
        batch = arrow.ipc.open_file(arrow.py_buffer(page)).get_batch(0)
        about = json.loads(batch.schema.metadata[b"metarec"])
        column: dict[str, Any] = {}
        for name, dtype in _TYPES.items():
            first = batch[name].buffers()[1].address - page.ctypes.data
            column[name] = page[first : first + 4 * len(batch)].view(dtype)
        users = pd.read_parquet(path / "users.parquet")
        count = users.pop("n_ratings")
        if (count < 0).any() or count.sum() != len(batch):
            raise ValueError(f"users of {count.sum()} ratings, not of {len(batch)}")
        items = _described(pd.read_parquet(path / "items.parquet"))
    except (OSError, ValueError, KeyError, TypeError, arrow.ArrowException) as error:
        raise ValueError(f"{path} is damaged ({error}): write it again") from error
    about["scale"] = RatingScale(**about["scale"])
    start = np.concatenate([[0], count.cumsum()])
    return RatingColumns(**about, **column, start=start, users=users, items=items)


def _large(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is missing: pip install metarec[large]") from error


def _refuse(engine: Any, rows: str, why: str) -> None:
    """Raise if a query finds rows, and name the first."""
    if found := engine.sql(f"{rows} ORDER BY rowid LIMIT 1").fetchall():
        raise ValueError(f"row {found[0][0]}: {why}")


def _read(engine: Any, source: str, columns: Any, duplicates: str) -> bool:
    """Bring the source into a table of the engine; tell whether its labels are text."""
    if text := ".parquet" not in source:
        table = engine.read_csv(source, all_varchar=True, header=True)
    else:
        table = engine.read_parquet(source)
    named = _mapping(table.limit(0).df(), columns)
    cast = {"rating": "NULL", "timestamp": "0"}
    cast |= {role: _CAST.get(role, '"{0}"').format(c) for role, c in named.items()}
    chosen = ", ".join(f'{value} AS "{role}"' for role, value in cast.items())
    table.project(chosen).create("given")
    if not engine.sql("SELECT 1 FROM given LIMIT 1").fetchall():
        raise ValueError("there is no rating to write")
    for role in cast:
        empty = f'SELECT rowid FROM given WHERE "{role}" IS NULL'
        why = f"{named.get(role)!r} is empty or no {role}; correct or drop it"
        _refuse(engine, empty, why)
    again = _AGAIN.format("DESC" if duplicates == "last" else "ASC")
    if duplicates in ("first", "last"):
        engine.sql(f"DELETE FROM given WHERE rowid IN ({again})")
    _refuse(engine, again, 'this pair was rated before; keep the "first" or "last"')
    return text


def _coded(engine: Any, role: str, table: Any, text: bool) -> Any:
    """Give the engine the row of each label, as in `rating_data`, and count ratings."""
    each = f'SELECT "{role}" AS label, count(*) AS n FROM given GROUP BY label'
    found = engine.sql(each).df()
    label = _as_written(found["label"]) if text else found["label"]
    table, found["code"] = _index(label, table, role)
    engine.register(f"{role}s", found)
    count = found.set_index("code")["n"].reindex(range(len(table)), fill_value=0)
    return table.assign(n_ratings=count)


def _write(arrow: Any, rows: Any, aside: Path, scale: RatingScale, about: Any) -> None:
    """Append batch after batch to a file for each column, whose maps become one."""
    with (aside / "item").open("wb") as item, (aside / "rating").open("wb") as rating:
        for batch in rows:
            stars = batch["rating"].to_numpy()
            if (off := ~scale.contains(stars)).any():
                row = batch["line"].to_numpy()[off][0]
                raise ValueError(f"row {row}: {stars[off][0]:g} is not on {scale}")
            item.write(batch["item"].to_numpy())
            rating.write(stars.astype(np.float32))
    maps = [np.memmap(aside / name, dtype, "r") for name, dtype in _TYPES.items()]
    about = {"metarec": json.dumps(about)}
    batch = arrow.record_batch([*map(arrow.array, maps)], [*_TYPES], metadata=about)
    with arrow.ipc.new_file(aside / "store" / "ratings.arrow", batch.schema) as file:
        file.write(batch)
