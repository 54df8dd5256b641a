"""MovieLens 100K, 1M and latest-small, each from the layout that it is published in.

No row of MovieLens may be passed on without GroupLens' permission, so nothing is
shipped here: the data are fetched, checked against a checksum, and kept in a cache.
"""

import io
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from platformdirs import user_cache_dir

from metarec.data.custom import rating_data
from metarec.data.table import RatingData

logger = logging.getLogger(__name__)
Source = str | Path | None

# How to cite the data, checksums, and for each set the layouts that it is published in:
# files of ratings, users and items, separators, columns, and what else differs.
_FACTS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
NAMES = [*_FACTS["layouts"]]
GENRES_100K: list[str] = _FACTS["genres_100k"]
ARCHIVE_SHA256: dict[str, str] = _FACTS["archive_sha256"]
# Of the canonical table, so the same whichever file it was read from.
CONTENT_100K: str = _FACTS["content_sha256_100k"]
GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
RECBOLE = "recbole==1.2.1"
TIMEOUT = 10  # seconds without an answer before the next route is tried

# The folders, within a zip file or a given folder, that the files may lie in.
_FOLDERS = ["", *NAMES, "recbole/dataset_example/ml-100k"]
# "Title (1995)", and once "Title (1995) (V)"
_TITLE = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*(?:\(\w+\))?$")


def cache_folder() -> Path:
    """Return the folder that fetched data are kept in: METAREC_CACHE, or the user's."""
    return Path(os.environ.get("METAREC_CACHE") or user_cache_dir("metarec"))


def load_movielens_100k(path: Source = None, progress: bool = True) -> RatingData:
    """Load MovieLens-100K: 100,000 ratings of 1,682 films by 943 users, in 1997-98.

    Without a path the environment variable ``METAREC_DATA`` may name one. Without
    either the cache is read, and if it is empty the archive is fetched from GroupLens
    or, failing that, the RecBole 1.2.1 wheel by pip. Every route ends in the same
    table, of the same content hash. Titles stand without the year; the year is the
    title's, not the release date's; genres have the order of GroupLens' flags.

    Parameters
    ----------
    path
        The archive ml-100k.zip, the RecBole wheel, or a folder with the files of
        either.
    progress
        Whether to show a progress bar on a terminal.

    Returns
    -------
    RatingData
        The ratings.

    Raises
    ------
    ValueError
        If the path holds something else.
    FileNotFoundError
        If no route works: the message lists every route's reason and says which file to
        put where.
    """
    return load_movielens("ml-100k", path, progress)


def load_movielens_1m(path: Source = None, progress: bool = True) -> RatingData:
    """Load MovieLens-1M: 1,000,209 ratings of 3,883 films by 6,040 users, in 2000-03.

    A user's ``age`` is the lower end of a band (1 means below 18).

    Parameters
    ----------
    path
        The archive ml-1m.zip or a folder with its files; cache or GroupLens if not
        given.
    progress
        Whether to show a progress bar on a terminal.

    Returns
    -------
    RatingData
        The ratings.

    Raises
    ------
    ValueError
        If the path holds something else.
    FileNotFoundError
        If no route works, as for `load_movielens_100k`.
    """
    return load_movielens("ml-1m", path, progress)


def load_movielens_small(path: Source = None, progress: bool = True) -> RatingData:
    """Load MovieLens-latest-small (of 9/2018): 100,836 ratings in half stars.

    Nothing is known of a user but the label.

    Parameters
    ----------
    path
        The archive ml-latest-small.zip or a folder with its files; cache or GroupLens
        if not given.
    progress
        Whether to show a progress bar on a terminal.

    Returns
    -------
    RatingData
        The ratings.

    Raises
    ------
    ValueError
        If the path holds something else.
    FileNotFoundError
        If no route works, as for `load_movielens_100k`.
    """
    return load_movielens("ml-latest-small", path, progress)


def read_movielens(name: str, source: Path) -> RatingData:
    """Read a zip file, wheel or folder in the first layout that it holds, as it is.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    ValueError
        If it is in no layout of the data set.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    layouts = _FACTS["layouts"][name]
    try:
        root: Any = source
        if not source.is_dir():
            root = zipfile.Path(io.BytesIO(source.read_bytes()))
        for folder, layout in itertools.product(_FOLDERS, layouts):
            files = [root.joinpath(folder, file) for file in layout["files"]]
            if all(file.is_file() for file in files):
                return _canonical(name, layout, [file.read_bytes() for file in files])
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        cut = "is not a sound zip file, perhaps a download was cut short"
        raise ValueError(f"{source} {cut}: {error}") from error
    # Where nothing is known of users but who has rated, both are read from one file.
    names = " or ".join(", ".join(dict.fromkeys(each["files"])) for each in layouts)
    raise ValueError(f"{source} does not hold the files {names}")


def _canonical(name: str, layout: Any, files: list[bytes]) -> RatingData:
    """Bring the files of any layout into one form: years, genres, labels in order."""
    tables: list[pd.DataFrame] = []
    for content, table in zip(files, layout["tables"], strict=True):
        how = layout["read"] | table
        if how["sep"] == "::":  # two characters would take pandas' slow parser
            content, how["sep"] = content.replace(b"::", b"\t"), "\t"
        tables.append(pd.read_csv(io.BytesIO(content), keep_default_na=False, **how))
    ratings, users, items = tables
    users = users.filter(["user_id", "age", "gender", "occupation"]).drop_duplicates()
    if names := layout.get("occupations"):
        users["occupation"] = users["occupation"].map(dict(enumerate(names)))
    if "genres" not in items:  # a column of flags for each
        named = pd.Series(GENRES_100K, GENRES_100K, dtype=object) + "|"
        items["genres"] = items[GENRES_100K] @ named
    if "year" in items:
        # Put GroupLens' titles together again: RecBole took the last parentheses for
        # the year, and misspelt the one title that has none.
        items["title"] = items["title"] + " (" + items["year"].astype(str) + ")"
        items["title"] = items["title"].replace("unkonwn (unkonwn)", "unknown")
    whole = items["title"].str.strip()
    parts = whole.str.extract(_TITLE)
    films = parts.assign(item_id=items["item_id"], title=parts["title"].fillna(whole))
    films["genres"] = items["genres"].str.replace(layout["genres"], "|", regex=False)
    users, films = users.sort_values("user_id"), films.sort_values("item_id")
    cite, scale = _FACTS["citation"], layout["scale"]
    return rating_data(ratings, None, scale, name, users, films, citation=cite)


def load_movielens(name: str, path: Source, progress: bool) -> RatingData:
    """Read the path or, where there is none, the cache or what is fetched."""
    if name == "ml-100k":
        path = path or os.environ.get("METAREC_DATA")
    if path:
        return _checked(name, Path(path).expanduser())
    # Of the other sets the downloader itself looks into the cache.
    for file in ("ml-100k.zip", "ml-100k-recbole.zip") if name == "ml-100k" else ():
        cached = cache_folder() / file
        try:
            return _checked(name, cached)
        except FileNotFoundError:
            continue
        except ValueError as error:
            aside = cached.with_suffix(".corrupt")
            logger.warning("the cached file is moved to %s: %s", aside, error)
            os.replace(cached, aside)
    return _checked(name, _fetch(name, progress))


def _checked(name: str, source: Path) -> RatingData:
    data = read_movielens(name, source)
    if name == "ml-100k" and data.content_hash() != CONTENT_100K:
        remedy = f"get the original from {GROUPLENS}{name}.zip"
        raise ValueError(f"{source} has the files but holds other content; {remedy}")
    return data


def _fetch(name: str, progress: bool) -> Path:
    """Bring a published file into the cache, by the first route that works."""
    routes: dict[str, Callable[[], Path]] = {}
    routes["GroupLens' archive"] = partial(_fetch_archive, name, progress)
    if name == "ml-100k":
        routes[f"the wheel {RECBOLE} by pip"] = _fetch_wheel
    failures: list[str] = []
    for route, fetch in routes.items():
        if failures:
            logger.warning("%s: %s; trying %s", name, failures[-1], route)
        try:
            return fetch()
        except (OSError, ValueError) as error:
            failures.append(f"{route}: {error}")
    failed = "\n  - ".join([f"{name} could not be fetched.", *failures])
    remedy = f"Download {GROUPLENS}{name}.zip on another machine and put it at "
    remedy += f"{cache_folder() / name}.zip, or give its path to the loader."
    raise FileNotFoundError(f"{failed}\n{remedy}")


def _fetch_archive(name: str, progress: bool) -> Path:
    """Download an archive of GroupLens into the cache, unless a sound one is there."""
    import pooch  # here, since it loads tqdm's notebook bar, which warns in a chapter

    file, bar = f"{name}.zip", progress and sys.stderr.isatty()
    web = pooch.HTTPDownloader(timeout=TIMEOUT, progressbar=bar)
    url, known = GROUPLENS + file, ARCHIVE_SHA256[name]
    return Path(pooch.retrieve(url, known, file, cache_folder(), downloader=web))


def _fetch_wheel() -> Path:
    """Let pip, as the user has configured it, fetch the wheel, which is a zip file."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
    pip += ["--quiet", "--no-deps", "--only-binary=:all:", "--retries=1"]
    pip += [f"--timeout={TIMEOUT}", RECBOLE, "--dest"]
    cache_folder().mkdir(parents=True, exist_ok=True)
    target = cache_folder() / "ml-100k-recbole.zip"
    # Beside the cached file: moved there in one step, it is never half a file.
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        run = subprocess.run([*pip, folder], capture_output=True, text=True)
        if run.returncode:
            reason = run.stderr.strip() or f"pip ended with {run.returncode}"
            raise OSError(reason.splitlines()[-1])
        wheel = next(Path(folder).glob("*.whl"))
        _checked("ml-100k", wheel)
        os.replace(wheel, target)
    return target
