"""Time the fit of the item vectors beside that of libraries a user would pick instead.

    python benchmarks/factor_fit.py

`GaussianFactorModel.fit` (30 sweeps), LensKit's biased ALS (10 epochs) and implicit's
ALS (15 iterations), vectors of length 8, on one and two threads: 2.0 million synthetic
ratings (20,000 users, 10,000 items) and MovieLens-100K. Every fit has a process of its
own, which reads the ratings, fits a small table to warm up, and times the fit alone.
All ways run in turn, round after round; a ratio is the median of the ratios within
rounds. One rating in twenty is held out, and its error is that of users whose other
ratings are known; implicit fits clicks and predicts no rating. A library that is not
installed (see benchmarks/requirements.txt) is left out, and the table says so. Writes
benchmarks/results/factor_fit.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from speed import processor

from metarec.data import RatingData, load_movielens_100k, synthetic_population
from metarec.evaluation import write_table
from metarec.factors import GaussianFactorModel
from metarec.tasks import UserHistories

THREADS, DIM, JUDGED = (1, 2), 8, 1000
VARIABLES = "OMP MKL OPENBLAS RAYON".split()
# A fit takes a table; what comes back predicts ratings of (user, items), or is None.
Scores = Callable[[int, np.ndarray], np.ndarray]
Fit = Callable[[], Scores | None]


def metarec(data: RatingData) -> Fit:
    """The Gaussian model; a user is folded in by all their ratings."""
    histories = UserHistories(data)

    def fit() -> Scores:
        everyone = torch.arange(data.n_users)
        model = GaussianFactorModel.fit(histories, everyone, DIM)

        def scores(user: int, items: np.ndarray) -> np.ndarray:
            support = histories.everything(torch.tensor([user]), len(data.ratings))
            return model.predict(support, torch.tensor(items)[None])[0].numpy()

        return scores

    return fit


def lenskit(data: RatingData) -> Fit:
    """LensKit's biased matrix factorisation by alternating least squares."""
    parts = import_module("lenskit.data")
    names = {"user": "user_id", "item": "item_id"}
    dataset = parts.from_interactions_df(data.ratings.rename(columns=names))
    options = import_module("lenskit.training").TrainingOptions(rng=0)
    scorer = import_module("lenskit.als").BiasedMFScorer(embedding_size=DIM, epochs=10)

    def fit() -> Scores:
        scorer.train(dataset, options)

        def scores(user: int, items: np.ndarray) -> np.ndarray:
            found = scorer(parts.RecQuery(user_id=user), parts.ItemList(item_ids=items))
            return np.asarray(found.scores())

        return scores

    return fit


def implicit(data: RatingData) -> Fit:
    """Alternating least squares for clicks; a rating is a confidence."""
    als = import_module("implicit.als")
    sparse = import_module("scipy.sparse")
    cells = [data.ratings[name].to_numpy() for name in ("rating", "user", "item")]
    shape = data.n_users, data.n_items
    table = sparse.csr_matrix((cells[0], cells[1:]), shape, dtype=np.float32)
    threads = torch.get_num_threads()
    model = als.AlternatingLeastSquares(DIM, num_threads=threads, random_state=0)
    return lambda: model.fit(table, show_progress=False)


WAYS = {"metarec": metarec, "lenskit": lenskit, "implicit": implicit}


def without_some(data: RatingData) -> tuple[RatingData, pd.DataFrame]:
    """The data without one rating in twenty, and the ratings that were held out."""
    out = np.random.default_rng(0).random(len(data.ratings)) < 0.05
    known = replace(data, ratings=data.ratings[~out].reset_index(drop=True))
    return known, data.ratings[out]


def tables(quick: bool) -> dict[str, RatingData]:
    """What is fitted."""
    if quick:
        return {"small": synthetic_population(60, 50, 2, 20)[0]}
    large, _ = synthetic_population(20_000, 10_000, DIM, 100)
    movies = load_movielens_100k(progress=False)
    return {"2.0M synthetic": large, "MovieLens-100K": movies}


def rmse(scores: Scores, data: RatingData, held_out: pd.DataFrame) -> float:
    """Error over the held-out ratings of the first users, on the scale."""
    few = held_out[held_out["user"] < JUDGED]
    scale, square = data.scale, 0.0
    for user, own in few.groupby("user"):
        found = scores(int(user), own["item"].to_numpy())
        square += np.square(found.clip(scale.low, scale.high) - own["rating"]).sum()
    return float(np.sqrt(square / len(few)))


def measure(way: str, data: RatingData) -> dict[str, Any]:
    """Seconds of one fit, and the error where there is one."""
    known, held_out = without_some(data)
    WAYS[way](synthetic_population(60, 50, 2, 20)[0])()
    fit = WAYS[way](known)
    start = time.perf_counter()
    scores = fit()
    found = {"seconds": time.perf_counter() - start}
    return found if scores is None else found | {"rmse": rmse(scores, data, held_out)}


def in_child(way: str, threads: int, path: Path) -> dict[str, Any]:
    """The same in a process of its own, which has so many threads from its start."""
    command = [sys.executable, __file__, "--child", way, str(threads), str(path)]
    limits = {f"{name}_NUM_THREADS": str(threads) for name in VARIABLES}
    run = subprocess.run(
        command, env=os.environ | limits, check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def main(words: list[str] | None = None) -> None:
    """Run all ways in turn and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="times all ways run")
    parser.add_argument("--quick", action="store_true", help="tiny, to see it run")
    out = Path(__file__).parent / "results" / "factor_fit.csv"
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.child:
        way, threads, path = given.child
        torch.set_num_threads(int(threads))
        print(json.dumps(measure(way, pickle.loads(Path(path).read_bytes()))))
        return
    ways = [name for name in WAYS if find_spec(name) is not None]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, data in tables(given.quick).items():
            path = Path(folder) / "data.pickle"
            path.write_bytes(pickle.dumps(data))
            about = {"data": name, "ratings": len(without_some(data)[0].ratings)}
            for turn in range(given.rounds):
                for threads in THREADS:
                    for way in ways:
                        row = about | {"threads": threads, "way": way, "round": turn}
                        rows.append(row | in_child(way, threads, path))
                        print(rows[-1], flush=True)
    table = summary(pd.DataFrame(rows))
    print(table.to_string(index=False, float_format="%.3f"))
    left_out = [f"not timed: {name}, not installed" for name in set(WAYS) - set(ways)]
    versions = [f"{name} {version(name)}" for name in ways if name != "metarec"]
    notes = [
        f"vectors of length {DIM}, {given.rounds} rounds, {processor()}, "
        f"{os.cpu_count()} cores; {', '.join(versions)}",
        "seconds: median; times_lenskit: how many times LensKit's, median of ratios "
        f"within rounds; rmse: held-out ratings of the first {JUDGED} users",
    ]
    command = "python benchmarks/factor_fit.py"
    write_table(given.out, table, command, notes + left_out)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians over rounds, and of the ratios to LensKit within rounds."""
    keys = ["data", "ratings", "threads"]
    if "lenskit" in set(rows["way"]):
        other = rows[rows["way"] == "lenskit"].set_index([*keys, "round"])["seconds"]
        other = other.rename("other").reset_index()
        rows = rows.merge(other, on=[*keys, "round"])
        rows["times_lenskit"] = rows["seconds"] / rows["other"]
    columns = [name for name in ("seconds", "times_lenskit", "rmse") if name in rows]
    found = rows.groupby([*keys, "way"], sort=False)[columns].median()
    return found.reset_index()


if __name__ == "__main__":
    main()
