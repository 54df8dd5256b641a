"""Ratings on disk: more of them than fit into memory, read where they are needed."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
import pandas as pd
import torch

from metarec.data.custom import FIVE_STARS, _described
from metarec.data.table import RatingColumns, RatingData, RatingScale
from metarec.tasks import UserHistories

_FORMAT = "metarec ratings 1"
_COLUMNS = {"start": "<i8", "item": "<i4", "rating": "<f4"}


class RatingChunk(NamedTuple):
    """The ratings of some users, user after user, each user's in order of time.

    Parameters
    ----------
    counts
        Number of ratings of each user, shape (users,).
    item
        Rows of the items, user after user in order of time, shape (n,).
    rating
        The ratings in the same order, shape (n,).

    Plumbing
    --------
    What `RatingStore.write` takes, one at a time.
    """

    counts: np.ndarray
    item: np.ndarray
    rating: np.ndarray


@dataclass(frozen=True, eq=False)
class RatingStore(RatingColumns):
    """A folder of ratings, user after user, of which only what is asked for is read.

    Each of the `RatingColumns` is one file in numpy's own format, and the arrays are
    maps of these files: opening reads nothing of them, and the system reads, keeps and
    drops pages as they are used.

    Parameters
    ----------
    name
        Name of the data set.
    users
        One row for each user.
    items
        One row for each item.
    scale
        The ratings that are allowed.
    citation
        How to cite the data, and the terms of their use.
    start
        First row of each user and the end of the last, int64, shape (n_users + 1,).
    item
        Row of the item of each rating, int32, shape (n,).
    rating
        The ratings, float32, shape (n,).

    Plumbing
    --------
    The chapter many-users builds a small one of its own.
    """

    @classmethod
    def write(
        cls,
        path: str | Path,
        chunks: Iterable[RatingChunk],
        items: pd.DataFrame,
        users: pd.DataFrame | None = None,
        scale: RatingScale = FIVE_STARS,
        name: str = "custom",
        citation: str = "",
    ) -> Self:
        """Write one chunk of users after the other, aside, then rename the folder.

        No more than a chunk is in memory.

        Parameters
        ----------
        path
            The folder to make.
        chunks
            Ratings of some users after those of others.
        items
            Table of items, as for `rating_data`.
        users
            Table of users; they are numbered from 0 if it is not given.
        scale
            The ratings that are allowed.
        name
            Name of the data set.
        citation
            How to cite the data, and the terms of their use.

        Returns
        -------
        RatingStore
            The store, opened.

        Raises
        ------
        FileExistsError
            If something stands at the path.
        ValueError
            For a rating that is NaN or off the scale, an item that is not in the table,
            an item rated twice, counts that do not fit, or no rating. The message names
            the user.
        """
        path, items = Path(path), _described(items)
        if path.exists():
            raise FileExistsError(f"{path} exists: delete it, or name another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Beside its final place: a rename finishes it, and a kill leaves no half.
        folder = Path(tempfile.mkdtemp(".part", path.name, path.parent))
        try:
            n_users, n = _write_columns(folder, chunks, len(items), scale)
            if n == 0:
                raise ValueError(f"{path}: there is no rating to write")
            if users is None:
                users = pd.DataFrame({"user_id": np.arange(n_users)})
            if len(users) != n_users:
                raise ValueError(
                    f"the table of users has {len(users)} rows, and the chunks hold "
                    f"{n_users} users: give every user a count, 0 if need be"
                )
            about = {
                "format": _FORMAT,
                "name": name,
                "citation": citation,
                "n_users": n_users,
                "n_ratings": n,
                "scale": asdict(scale),
                "users": _listed(users),
                "items": _listed(items),
            }
            (folder / "about.json").write_text(json.dumps(about))
            folder.chmod(0o755)
            os.rename(folder, path)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls.open(path)

    @classmethod
    def write_data(cls, path: str | Path, data: RatingData, chunk: int = 1000) -> Self:
        """Write a table that is in memory, each user's ratings sorted by time.

        Parameters
        ----------
        path
            The folder to make.
        data
            The ratings.
        chunk
            Number of users in a chunk.

        Returns
        -------
        RatingStore
            The store, opened.
        """
        known = UserHistories(data)
        chunks = (
            RatingChunk(known.count(some).numpy(), item.numpy(), rating.numpy())
            for some in torch.arange(data.n_users).split(chunk)
            for _, item, rating in [known.ratings_of(some)]
        )
        about = data.scale, data.name, data.citation
        return cls.write(path, chunks, data.items, data.users, *about)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Map the columns of a folder that ``write`` made.

        Parameters
        ----------
        path
            The folder.

        Returns
        -------
        RatingStore
            The store.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it is of another version, or a file is cut off or does not fit the
            others.
        """
        path = Path(path)
        if not (path / "about.json").is_file():
            raise FileNotFoundError(f"{path} holds no ratings: `write` makes a store")
        try:
            about = json.loads((path / "about.json").read_text())
        except ValueError as error:
            raise ValueError(f"{path}/about.json cannot be read: {error}") from error
        if about.get("format") != _FORMAT:
            raise ValueError(
                f"{path} calls itself {about.get('format')!r}, not {_FORMAT!r}: write "
                "it again with this version"
            )
        n, n_users = about["n_ratings"], about["n_users"]
        sizes = {"start": n_users + 1, "item": n, "rating": n}
        column = {name: _mapped(path, name, size) for name, size in sizes.items()}
        start = column["start"]
        if start[0] != 0 or start[-1] != n or (np.diff(start) < 0).any():
            raise ValueError(f"{path}/start.npy does not fit the {n} ratings")
        return cls(
            name=about["name"],
            **column,
            users=pd.DataFrame(about["users"]),
            items=_described(pd.DataFrame(about["items"])),
            scale=RatingScale(**about["scale"]),
            citation=about["citation"],
        )


def _write_columns(
    folder: Path, chunks: Iterable[RatingChunk], n_items: int, scale: RatingScale
) -> tuple[int, int]:
    """Append chunk after chunk to the files; the numbers of users and of ratings."""
    n_users = n = 0
    files = {name: (folder / f"{name}.npy").open("wb") for name in _COLUMNS}
    try:
        for name, file in files.items():
            _header(file, name, 0)
        files["start"].write(np.zeros(1, _COLUMNS["start"]).tobytes())
        for chunk in chunks:
            _check(chunk, n_users, n_items, scale)
            # Where each user of the chunk ends is where the next one starts.
            start = n + np.cumsum(chunk.counts)
            values = {"start": start, "item": chunk.item, "rating": chunk.rating}
            for name, value in values.items():
                files[name].write(value.astype(_COLUMNS[name]).tobytes())
            n_users, n = n_users + len(chunk.counts), n + len(chunk.item)
        for name, size in (("start", n_users + 1), ("item", n), ("rating", n)):
            files[name].seek(0)
            _header(files[name], name, size)
    finally:
        for file in files.values():
            file.close()
    return n_users, n


def _header(file: BinaryIO, name: str, size: int) -> None:
    """Write numpy's header, which leaves room for a size that is known at the end."""
    about = {"descr": _COLUMNS[name], "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(file, about)


def _check(chunk: RatingChunk, before: int, n_items: int, scale: RatingScale) -> None:
    """Refuse what is wrong, by the number of the first user it is wrong for."""
    count, item, rating = (np.asarray(column) for column in chunk)
    total = int(count.sum())
    if (count < 0).any() or not total == len(item) == len(rating):
        raise ValueError(
            f"the chunk that begins with user {before} counts {total} ratings and "
            f"holds {len(item)} items and {len(rating)} ratings"
        )
    user = np.repeat(np.arange(before, before + len(count)), count)
    again = pd.Series(user * n_items + item).duplicated().to_numpy()
    outside = (item < 0) | (item >= n_items)
    for bad, what in (
        (np.isnan(rating), "has a rating that is NaN: drop it"),
        (~scale.contains(rating), f"has a rating off the scale {scale}"),
        (outside, f"has an item that is not in 0..{n_items - 1}, the rows of items"),
        (again, "has rated an item twice: keep one of the ratings"),
    ):
        if bad.any():
            at = int(bad.argmax())
            raise ValueError(
                f"user {user[at]} {what} (item {item[at]}, rating {rating[at]:g})"
            )


def _mapped(path: Path, name: str, size: int) -> np.ndarray:
    """Map one file; who writes into the array writes into a copy of the page."""
    file = path / f"{name}.npy"
    try:
        column: np.ndarray = np.load(file, mmap_mode="c")
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{file} is missing, cut off or no column of ratings ({error}): write the "
            "store again"
        ) from error
    if column.shape != (size,) or column.dtype != _COLUMNS[name]:
        raise ValueError(
            f"{file} holds {column.shape} of {column.dtype}, and the store needs "
            f"({size},) of {_COLUMNS[name]}: write it again"
        )
    return column


def _listed(table: pd.DataFrame) -> dict[str, list[object]]:
    """A table's columns as JSON takes them; what is unknown is null."""
    plain = {name: table[name].astype(object).tolist() for name in table}
    return {
        str(name): [None if value is pd.NA else value for value in column]
        for name, column in plain.items()
    }
