"""Fit, adapt and recommend for 1,000, 10,000 and 100,000 users x 20,000 items.

    python benchmarks/population.py

The population is synthetic, 100 ratings a user on average, sorted into a store on disk
and read from there. Every stage runs in a process of its own, which reports its seconds
and its peak of resident memory (pages of the store that the system keeps for it count).
Epochs are timed after the item vectors, which are fitted once. The last users are kept
aside: errors are theirs, beside those of the item mean, of biases and of the truth. An
interrupted run goes on where it stopped. Writes benchmarks/results/population.csv.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from crowd import ITEMS, draw
from tqdm import tqdm

from metarec.data import RatingColumns
from metarec.evaluation import cold_start, write_table
from metarec.factors import ItemMean, UserItemBias
from metarec.recommender import MetaRecommender
from metarec.scale import open_store, write_store
from metarec.tasks import UserHistories
from metarec.training import TrainingConfig

STEPS, K = 14_000, 10
Stage = Callable[[Path, int], dict[str, float]]


def recommender(epochs: int) -> MetaRecommender:
    """Meta-SGD with a Bayesian head; every population gets about as many steps."""
    config = TrainingConfig(epochs=epochs, patience=epochs)
    return MetaRecommender(meta="meta-sgd", learner="bayesian", config=config)


def n_tested(n_users: int) -> int:
    """Number of users who are kept aside."""
    return min(1000, n_users // 5)


def n_epochs(n_users: int) -> int:
    """Epochs for about the same number of meta-batches of 32."""
    return max(4, min(60, STEPS * 32 // n_users))


def make(folder: Path, n_users: int) -> dict[str, float]:
    """Draw the population; keep what its last users' ratings were made from."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    truth = draw(folder / "ratings.parquet", n_users)
    items = pd.DataFrame({"item_id": np.arange(ITEMS)})
    store = write_store(folder / "store", folder / "ratings.parquet", items=items)
    (folder / "ratings.parquet").unlink()
    score = []
    for user in range(n_users - n_tested(n_users), n_users):
        item = store.item[store.start[user] : store.start[user + 1]]
        taste = truth.q_i[item] @ truth.p_u[user]
        score.append(truth.mu + truth.b_i[item] + truth.b_u[user] + taste)
    np.save(folder / "score.npy", np.concatenate(score))
    return {"ratings": len(store.item), "longest": int(np.diff(store.start).max())}


def items(folder: Path, n_users: int) -> dict[str, float]:
    """Fit the item vectors, which are kept beside the checkpoint; no meta-training."""
    (folder / "run.items").unlink(missing_ok=True)
    recommender(0).fit(*training(folder, n_users), folder / "run")
    return {}


def train(folder: Path, n_users: int) -> dict[str, float]:
    """Meta-train, and time what is left when reading the item vectors is taken off.

    Processor time, user and system: the machine may have other things to do.
    """
    (folder / "run").unlink(missing_ok=True)
    epochs = n_epochs(n_users)
    start = time.process_time()
    recommender(0).fit(*training(folder, n_users), folder / "run", progress=False)
    between = time.process_time()
    model = recommender(epochs).fit(*training(folder, n_users), folder / "run")
    spent = time.process_time() - between - (between - start)
    model.save(folder / "model")
    users = n_users - n_tested(n_users)
    return {"epochs": epochs, "us_per_user_epoch": 1e6 * spent / epochs / users}


def judge(folder: Path, n_users: int) -> dict[str, float]:
    """RMSE of the users kept aside, after 10 ratings."""
    store, users = training(folder, n_users)
    histories = UserHistories(store)
    rest = torch.arange(len(users), n_users)
    methods = {
        "rmse": MetaRecommender.load(folder / "model").meta,
        "rmse_item_mean": ItemMean.fit(histories, users),
        "rmse_bias": UserItemBias.fit(histories, users),
    }
    found = {
        name: cold_start(method, histories, rest, [K])["rmse"].mean()
        for name, method in methods.items()
    }
    first = int(store.start[len(users)])
    error = np.load(folder / "score.npy").clip(1, 5) - store.rating[first:]
    own = np.split(error, store.start[len(users) + 1 : -1] - first)
    floor = [np.sqrt((e[histories.reserved :] ** 2).mean()) for e in own]
    return found | {"rmse_truth": float(np.mean(floor))}


def adapt(folder: Path, n_users: int) -> dict[str, float]:
    """Load the model, adapt to one user after the other and make their lists."""
    model, given = MetaRecommender.load(folder / "model"), table(folder, n_users, 300)
    users = [dict(zip(t["item_id"], t["rating"], strict=True)) for _, t in given]
    start = time.process_time()
    for ratings in users:
        model.adapt(ratings).recommend()
    return {"ms_per_user": 1e3 * (time.process_time() - start) / len(users)}


def recommend(folder: Path, n_users: int) -> dict[str, float]:
    """Lists of ten for all users, from their first ten ratings."""
    model = MetaRecommender.load(folder / "model")
    store = open_store(folder / "store")
    start, lists = time.process_time(), 0
    for first in tqdm(range(0, n_users, 10_000), "lists"):
        last = min(first + 10_000, n_users)
        lists += len(model.recommend_all(rows(store, first, last), progress=False))
    spent = time.process_time() - start
    assert lists == 10 * n_users
    return {"ms_per_user": 1e3 * spent / n_users}


STAGES: dict[str, Stage] = {
    stage.__name__: stage for stage in (make, items, train, judge, adapt, recommend)
}


def training(folder: Path, n_users: int) -> tuple[RatingColumns, torch.Tensor]:
    """The store and the users to learn from."""
    users = torch.arange(n_users - n_tested(n_users))
    return open_store(folder / "store"), users


def rows(store: RatingColumns, first: int, last: int) -> pd.DataFrame:
    """The first ten ratings of some users as a table."""
    at = (store.start[first:last, None] + np.arange(K)).reshape(-1)
    user = np.repeat(np.arange(first, last), K)
    columns = {"user_id": user, "item_id": store.item[at], "rating": store.rating[at]}
    return pd.DataFrame(columns)


def table(folder: Path, n_users: int, most: int) -> pd.api.typing.DataFrameGroupBy:
    """The first ten ratings of some users who were not trained on."""
    first = n_users - n_tested(n_users)
    store = open_store(folder / "store")
    return rows(store, first, min(first + most, n_users)).groupby("user_id")


def run_stage(name: str, folder: Path, n_users: int) -> None:
    """One stage, in this process; what it found goes into a file."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    found = STAGES[name](folder, n_users)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_gb = peak / (1e9 if sys.platform == "darwin" else 1e6)
    found = {"users": n_users, "stage": name, "seconds": seconds} | found
    (folder / f"{name}.json").write_text(json.dumps(found | {"peak_gb": peak_gb}))


def main() -> None:
    """Run what is missing, every stage in a child process, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    sizes = [1_000, 10_000, 100_000]
    parser.add_argument("--users", type=int, nargs="+", default=sizes)
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    work = Path("_build") / "population"
    parser.add_argument("--work", type=Path, default=work, help="for stores and runs")
    out = Path(__file__).parent / "results" / "population.csv"
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        return run_stage(given.stage, given.work, given.users[0])
    found = []
    for n_users in given.users:
        folder = given.work / str(n_users)
        if given.fresh:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        for name in STAGES:
            print(f"== {n_users} users: {name}", flush=True)
            if not (folder / f"{name}.json").exists():
                options = ["--users", str(n_users), "--work", str(folder)]
                command = [sys.executable, __file__, "--stage", name, *options]
                subprocess.run(command, check=True)
            found.append(json.loads((folder / f"{name}.json").read_text()))
    results = pd.DataFrame(found)
    print(results.to_string(index=False, float_format="%.3f"))
    notes = [
        f"synthetic users, 100 ratings each on average, {ITEMS} items; mf + meta-sgd + "
        "bayesian, meta-batch 32, one thread, each stage in a process of its own",
        "us_per_user_epoch: microseconds of an epoch, validation included, for each "
        "user that is learned from; ms_per_user: one by one (adapt), in batches "
        "(recommend); both are processor time, seconds are not; peak_gb: most resident "
        "memory of the process",
        f"rmse: after {K} ratings, query after the 15th, mean over users kept aside; "
        "rmse_truth: the score that the ratings were made from",
        f"{platform.machine()}, Python {platform.python_version()}",
    ]
    write_table(given.out, results, "python benchmarks/population.py", notes)


if __name__ == "__main__":
    main()
