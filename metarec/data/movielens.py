"""MovieLens 100K, 1M and latest-small, each from the layout that it is published in.

No row of MovieLens may be passed on without GroupLens' permission, so nothing is
shipped here: the data are fetched, checked against a checksum, and kept in a cache.
"""

import csv
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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import platformdirs

from metarec.data.custom import rating_data
from metarec.data.table import RatingData, RatingScale

logger = logging.getLogger(__name__)
Source = str | Path | None

# How to cite the data, checksums, and words that the files leave out.
_FACTS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
CITATION: str = _FACTS["citation"]
GENRES_100K: list[str] = _FACTS["genres_100k"]
OCCUPATIONS_1M: list[str] = _FACTS["occupations_1m"]
ARCHIVE_SHA256: dict[str, str] = _FACTS["archive_sha256"]
# Of the canonical table, so the same whichever file it was read from.
CONTENT_100K: str = _FACTS["content_sha256_100k"]
GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
RECBOLE = "recbole==1.2.1"
RECBOLE_FILES = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
TIMEOUT = 10  # seconds without an answer before the next route is tried

# The folders, within a zip file or a given folder, that the files may lie in.
_FOLDERS = ["", "ml-100k", "ml-1m", "ml-latest-small"]
_FOLDERS += ["recbole/dataset_example/ml-100k"]  # in its wheel
# "Title (1995)", and once "Title (1995) (V)"
_TITLE = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*(?:\(\w+\))?$")
_RATING_COLUMNS = ["user", "item", "rating", "timestamp"]
_USER_COLUMNS = ["user_id", "age", "gender", "occupation", "zip"]


def cache_folder() -> Path:
    """Return the folder that fetched data are kept in: METAREC_CACHE, or the user's."""
    given = os.environ.get("METAREC_CACHE")
    return Path(given or platformdirs.user_cache_dir("metarec"))


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
    if path := path or os.environ.get("METAREC_DATA"):
        return _checked_100k(Path(path).expanduser())
    if data := _cached_100k():
        return data
    return _checked_100k(_fetch("ml-100k", progress))


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
    source = Path(path).expanduser() if path else _fetch("ml-1m", progress)
    files = _read_files(source, ("ratings.dat", "users.dat", "movies.dat"))
    ratings = _table(files["ratings.dat"], "::", _RATING_COLUMNS)
    columns = ["user_id", "gender", "age", "occupation", "zip"]
    users = _table(files["users.dat"], "::", columns)
    users["occupation"] = users["occupation"].map(dict(enumerate(OCCUPATIONS_1M)))
    films = ["item_id", "title", "genres"]
    items = _table(files["movies.dat"], "::", films, "latin-1")
    items["genres"] = items["genres"].str.split("|").map(tuple)
    return _movielens("ml-1m", RatingScale(1, 5, 1), ratings, users, items)


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
    source = Path(path).expanduser() if path else _fetch("ml-latest-small", progress)
    files = _read_files(source, ("ratings.csv", "movies.csv"))
    ratings = _table(files["ratings.csv"], ",").set_axis(_RATING_COLUMNS, axis=1)
    films = ["item_id", "title", "genres"]
    items = _table(files["movies.csv"], ",").set_axis(films, axis=1)
    genres = items["genres"].str.removeprefix("(no genres listed)").str.split("|")
    items["genres"] = genres.map(lambda words: tuple(filter(None, words)))
    users = pd.DataFrame({"user_id": ratings["user"].unique()})
    scale = RatingScale(0.5, 5, 0.5)
    return _movielens("ml-latest-small", scale, ratings, users, items)


def read_movielens_100k(source: Path) -> RatingData:
    """Read a zip file or folder in GroupLens' or in RecBole's layout, as it is.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    ValueError
        If it is in neither layout.
    """
    files = _read_files(source, ("u.data", "u.user", "u.item"), RECBOLE_FILES)
    if "u.data" in files:
        ratings = _table(files["u.data"], "\t", _RATING_COLUMNS)
        users = _table(files["u.user"], "|", _USER_COLUMNS)
        columns = ["item_id", "title", "date", "video", "url", *GENRES_100K]
        items = _table(files["u.item"], "|", columns, "latin-1")
        flags = items[GENRES_100K].to_numpy() == 1
        items["genres"] = [tuple(itertools.compress(GENRES_100K, f)) for f in flags]
    else:
        ratings, items, users = (_table(content, "\t") for content in files.values())
        ratings.columns, users.columns = _RATING_COLUMNS, _USER_COLUMNS
        items.columns = ["item_id", "title", "year", "genres"]
        # Put GroupLens' titles together again: RecBole took the last parentheses for
        # the year, and misspelt the one title that has none.
        items["title"] = items["title"] + " (" + items["year"].astype(str) + ")"
        items["title"] = items["title"].replace("unkonwn (unkonwn)", "unknown")
        items["genres"] = items["genres"].str.split(" ").map(tuple)
    return _movielens("ml-100k", RatingScale(1, 5, 1), ratings, users, items)


def _movielens(name: str, scale: RatingScale, *tables: pd.DataFrame) -> RatingData:
    """Take the years out of the titles, and number users and items by their labels."""
    ratings, users, items = tables
    whole = items["title"].str.strip()
    parts = whole.str.extract(_TITLE)
    films = items[["item_id", "genres"]].assign(
        title=parts["title"].fillna(whole),
        year=pd.to_numeric(parts["year"]).astype("Int64"),
    )
    users = users.filter(["user_id", "age", "gender", "occupation"])
    users, films = users.sort_values("user_id"), films.sort_values("item_id")
    return rating_data(ratings, None, scale, name, users, films, citation=CITATION)


def _cached_100k() -> RatingData | None:
    """Read the cache; a file that does not match its checksum is set aside."""
    for name in ("ml-100k.zip", "ml-100k-recbole.zip"):
        file = cache_folder() / name
        try:
            return _checked_100k(file)
        except FileNotFoundError:
            continue
        except ValueError as error:
            aside = file.with_suffix(".corrupt")
            logger.warning("the cached file is moved to %s: %s", aside, error)
            os.replace(file, aside)
    return None


def _checked_100k(source: Path) -> RatingData:
    data = read_movielens_100k(source)
    if data.content_hash() != CONTENT_100K:
        raise ValueError(
            f"{source} is laid out like MovieLens-100K but holds other content; "
            f"get the original from {GROUPLENS}ml-100k.zip"
        )
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
    raise FileNotFoundError(
        "\n  - ".join([f"{name} could not be fetched.", *failures])
        + f"\nDownload {GROUPLENS}{name}.zip on another machine and put it at "
        f"{cache_folder() / name}.zip, or give its path to the loader."
    )


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
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--retries=1"]
    options += [f"--timeout={TIMEOUT}", RECBOLE, "--dest"]
    cache_folder().mkdir(parents=True, exist_ok=True)
    target = cache_folder() / "ml-100k-recbole.zip"
    # Beside the cached file: moved there in one step, it is never half a file.
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        run = subprocess.run([*pip, *options, folder], capture_output=True, text=True)
        if run.returncode:
            reason = run.stderr.strip() or f"pip ended with {run.returncode}"
            raise OSError(reason.splitlines()[-1])
        wheel = next(Path(folder).glob("*.whl"))
        _checked_100k(wheel)
        os.replace(wheel, target)
    return target


def _read_files(source: Path, *layouts: tuple[str, ...]) -> dict[str, bytes]:
    """Read the files of the first layout that a zip file, wheel or folder holds."""
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    try:
        if source.is_dir():
            files = _pick(source, layouts)
        else:
            with zipfile.ZipFile(source) as archive:
                files = _pick(zipfile.Path(archive), layouts)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        cut = "is not a sound zip file, perhaps a download was cut short"
        raise ValueError(f"{source} {cut}: {error}") from error
    if not files:
        wanted = " or ".join(", ".join(names) for names in layouts)
        raise ValueError(f"{source} does not hold the files {wanted}")
    return files


def _pick(
    root: Path | zipfile.Path, layouts: Sequence[tuple[str, ...]]
) -> dict[str, bytes]:
    for folder, names in itertools.product(_FOLDERS, layouts):
        places = [root.joinpath(folder, name) for name in names]
        if all(place.is_file() for place in places):
            return {place.name: place.read_bytes() for place in places}
    return {}


def _table(
    content: bytes, sep: str, names: list[str] | None = None, encoding: str = "utf-8"
) -> pd.DataFrame:
    """Read a table without a header (``names`` given), or replace its header."""
    return pd.read_csv(
        # A separator of two characters would take pandas' slow parser.
        io.BytesIO(content.replace(b"::", b"\t") if sep == "::" else content),
        sep="\t" if sep == "::" else sep,
        names=names,
        header=None if names else 0,
        encoding=encoding,
        keep_default_na=False,
        quoting=csv.QUOTE_MINIMAL if sep == "," else csv.QUOTE_NONE,
    )
