"""Fit, adapt and recommend for 1,000, 10,000 and 100,000 users x 20,000 items.

    python benchmarks/population.py

The populations are synthetic, some of each size, 100 ratings a user on average, sorted
into a store on disk and read from there. The first 200 users are kept aside: they are
the same people in every size, and errors are theirs. Every stage runs in a process of
its own, which reports its processor time and its peak of resident memory (pages of the
store that the system keeps for it count). Stages that tell what it costs, and not how
well it predicts, run for the first population of a size alone. An interrupted run goes
on where it stopped. Writes benchmarks/results/population.csv, a row for each stage, and
population_errors.csv, differences over all populations of a size with their intervals.
"""

from __future__ import annotations

import argparse
import json
import pickle
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

from metarec.data import RatingColumns, SyntheticTruth
from metarec.evaluation import cold_start, write_table
from metarec.factors import GaussianFactorModel, ItemMean, UserItemBias, sums
from metarec.metrics import paired_bootstrap
from metarec.recommender import MetaRecommender
from metarec.scale import open_store, write_store
from metarec.systems import hold_out
from metarec.tasks import UserHistories
from metarec.training import TrainingConfig

STEPS, K, TESTED = 6_200, 10, 200  # meta-batches; ratings; users kept aside
LEARNED = 5_000  # users, at most, who give the prior where the items are known
SEEDS = {1_000: (0, 1, 2), 10_000: (0, 1, 2), 100_000: (0, 1, 2)}
Stage = Callable[[Path, int], dict[str, float]]
METHODS = ("item mean", "biases", "Gaussian", "meta", "known items", "known", "truth")
RIVALS = ("biases", "Gaussian", "known")


def recommender(epochs: int) -> MetaRecommender:
    """Meta-SGD with a Bayesian head; the epoch that validates best is kept."""
    config = TrainingConfig(epochs=epochs, patience=epochs)
    return MetaRecommender(meta="meta-sgd", learner="bayesian", config=config)


def n_epochs(n_users: int) -> int:
    """Epochs for about the same number of meta-batches of 32."""
    return max(2, round(STEPS * 32 / (n_users - TESTED)))


def make(folder: Path, n_users: int, seed: int = 0) -> dict[str, float]:
    """Draw the population; keep what the ratings of its first users were made from."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    truth = draw(folder / "ratings.parquet", n_users, seed=seed)
    items = pd.DataFrame({"item_id": np.arange(ITEMS)})
    store = write_store(folder / "store", folder / "ratings.parquet", items=items)
    (folder / "ratings.parquet").unlink()
    with (folder / "truth.pkl").open("wb") as file:
        pickle.dump(truth, file)
    return {"ratings": len(store.item), "longest": int(np.diff(store.start).max())}


def fit(folder: Path, n_users: int) -> dict[str, float]:
    """Fit the Gaussian model, chunk by chunk, what is read kept; no meta-training."""
    histories, train, validation = split(folder, n_users)
    start = time.process_time()
    model = GaussianFactorModel.fit(histories, train)
    spent = time.process_time() - start
    model.choose_temper(histories, validation)
    with (folder / "gaussian.pkl").open("wb") as file:
        pickle.dump(model, file)
    chunks = len(sums.rating_sums(histories, train, model.offset))
    return {"fit_s": spent, "chunks": chunks, "noise": float(model.noise)}


def fit_rereading(folder: Path, n_users: int) -> dict[str, float]:
    """The same fit, each chunk read again in each sweep."""
    sums.KEPT = 0
    return fit(folder, n_users)


def fit_at_once(folder: Path, n_users: int) -> dict[str, float]:
    """The same fit, all ratings in one chunk."""
    sums.CHUNK = 2**62
    return fit(folder, n_users)


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
    return {
        "epochs": epochs,
        "us_per_user_epoch": 1e6 * spent / epochs / (n_users - TESTED),
    }


def known(truth: SyntheticTruth) -> GaussianFactorModel:
    """The model with the true items, prior and noise: its posterior is the exact one.

    Exact but for the clipping of ratings to the scale, which the formula leaves out.
    """
    model = GaussianFactorModel(truth.q_i.shape[1])
    model.v = torch.tensor(np.column_stack([truth.q_i, truth.b_i]))
    model.v_cov = torch.zeros(len(model.v), model.dim + 1, model.dim + 1).double()
    model.offset, model.mu = truth.mu + model.v[:, -1], torch.tensor(truth.mu)
    model.user_mean = torch.zeros(model.dim + 1).double()
    model.user_covariance = torch.tensor(truth.covariance)
    model.noise = torch.tensor(truth.sigma).double() ** 2
    return model


def known_items(
    truth: SyntheticTruth, histories: UserHistories, users: torch.Tensor
) -> GaussianFactorModel:
    """The true items, and the users' prior and the noise learned by EM."""
    model = known(truth)
    model.user_covariance = torch.eye(model.dim + 1).double()
    model.noise = torch.tensor(1.0).double()
    own = model.mu.expand(histories.n_items)
    tables = sums.rating_sums(histories, users[:LEARNED], own)
    for _ in range(30):
        statistics = model._e_step(tables)
        model._m_step_users(statistics)
        model._m_step_noise(statistics)
    return model


def judge(folder: Path, n_users: int) -> dict[str, float]:
    """RMSE of the users kept aside, after 10 ratings; those of each user in a file."""
    histories, users, _ = split(folder, n_users)
    everybody, rest = torch.arange(TESTED, n_users), torch.arange(TESTED)
    with (folder / "truth.pkl").open("rb") as file:
        truth = pickle.load(file)
    with (folder / "gaussian.pkl").open("rb") as file:
        gaussian = pickle.load(file)
    predictors = (
        ItemMean.fit(histories, everybody),
        UserItemBias.fit(histories, everybody),
        gaussian,
        MetaRecommender.load(folder / "model").meta,
        known_items(truth, histories, users),
        known(truth),
    )
    found = {
        name: cold_start(predictor, histories, rest, [K])["rmse"].to_numpy()
        for name, predictor in zip(METHODS[:-1], predictors, strict=True)
    }
    found["truth"] = np.array([floor(truth, histories, user) for user in range(TESTED)])
    pd.DataFrame(found).to_pickle(folder / "errors.pkl")
    return {}


def floor(truth: SyntheticTruth, histories: UserHistories, user: int) -> float:
    """RMSE of the score that a user's query ratings were made from."""
    _, item, rating = histories.ratings_of(torch.tensor([user]))
    item, rating = item[histories.reserved :].numpy(), rating[histories.reserved :]
    taste = truth.q_i[item] @ truth.p_u[user]
    score = truth.mu + truth.b_i[item] + truth.b_u[user] + taste
    return float(np.sqrt(((score.clip(1, 5) - rating.numpy()) ** 2).mean()))


def adapt(folder: Path, n_users: int) -> dict[str, float]:
    """Load the model, adapt to one user after the other and make their lists."""
    model, store = MetaRecommender.load(folder / "model"), open_store(folder / "store")
    given = rows(store, 0, TESTED).groupby("user_id")
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


JUDGED: dict[str, Stage] = {
    stage.__name__: stage for stage in (make, fit, items, train, judge)
}
STAGES = JUDGED | {
    stage.__name__: stage for stage in (fit_rereading, fit_at_once, adapt, recommend)
}


def training(folder: Path, n_users: int) -> tuple[RatingColumns, torch.Tensor]:
    """The store and the users to learn from."""
    return open_store(folder / "store"), torch.arange(TESTED, n_users)


def split(
    folder: Path, n_users: int
) -> tuple[UserHistories, torch.Tensor, torch.Tensor]:
    """Histories, and users to train on and to choose by, as `MetaRecommender` cuts."""
    store, users = training(folder, n_users)
    histories = UserHistories(store)
    return histories, *hold_out(histories, users)


def rows(store: RatingColumns, first: int, last: int) -> pd.DataFrame:
    """The first ten ratings of some users as a table."""
    at = (store.start[first:last, None] + np.arange(K)).reshape(-1)
    user = np.repeat(np.arange(first, last), K)
    columns = {"user_id": user, "item_id": store.item[at], "rating": store.rating[at]}
    return pd.DataFrame(columns)


def run_stage(name: str, folder: Path, n_users: int, seed: int) -> None:
    """One stage, in this process; what it found goes into a file."""
    torch.set_num_threads(1)
    start = time.process_time()
    own = (
        make(folder, n_users, seed) if name == "make" else STAGES[name](folder, n_users)
    )
    spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_gb = peak / (1e9 if sys.platform == "darwin" else 1e6)
    found = {"users": n_users, "seed": seed, "stage": name, "processor_s": spent}
    (folder / f"{name}.json").write_text(json.dumps(found | own | {"peak_gb": peak_gb}))


def differences(errors: dict[int, dict[int, pd.DataFrame]]) -> pd.DataFrame:
    """Means over the users of all seeds, and paired differences with intervals.

    ``errors`` holds for each size and seed a table, a row a user. Each method stands
    against the biases, against the Gaussian model, against the exact posterior and
    against itself in the smallest population of the same seeds. ``least`` and ``most``
    are those of the differences of single seeds.
    """
    found = []
    for n_users, tables in errors.items():
        smallest = {seed: errors[min(errors)][seed] for seed in tables}
        pairs = [(m, other, tables) for m in METHODS for other in RIVALS if m != other]
        if n_users > min(errors):
            pairs += [(method, method, smallest) for method in METHODS]
        for method, rival, others in pairs:
            a = [table[method].to_numpy() for table in tables.values()]
            b = [table[rival].to_numpy() for table in others.values()]
            seed = np.repeat(list(tables), [len(own) for own in a])
            gap = paired_bootstrap(np.concatenate(a), np.concatenate(b), seed)
            single = [(x - y).mean() for x, y in zip(a, b, strict=True)]
            row = {"method": method, "users": n_users, "seeds": len(tables)}
            row |= {"rmse": np.mean([x.mean() for x in a])}
            row |= {"against": "smallest" if method == rival else rival}
            row |= {"difference": gap.mean, "low": gap.low, "high": gap.high}
            found.append(row | {"least": min(single), "most": max(single)})
    return pd.DataFrame(found)


def main() -> None:
    """Run what is missing, every stage in a child process, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--seeds", type=int, nargs="+", help="of every size")
    parser.add_argument("--quick", action="store_true", help="400 and 500 users")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    work = Path("_build") / "population"
    parser.add_argument("--work", type=Path, default=work, help="for stores and runs")
    out = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=out, help="folder of the tables")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        return run_stage(given.stage, given.work, given.users[0], given.seeds[0])
    if given.quick:
        given.users, given.seeds = (400, 500), (0,)
    found: list[dict[str, float]] = []
    errors: dict[int, dict[int, pd.DataFrame]] = {}
    for n_users in given.users:
        errors[n_users] = {}
        seeds = given.seeds or SEEDS.get(n_users, (0,))
        for seed in seeds:
            folder = given.work / f"{n_users}-{seed}"
            if given.fresh:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            for name in STAGES if seed == min(seeds) else JUDGED:
                print(f"== {n_users} users, seed {seed}: {name}", flush=True)
                if not (folder / f"{name}.json").exists():
                    options = ["--users", str(n_users), "--seeds", str(seed)]
                    options += ["--work", str(folder), "--stage", name]
                    subprocess.run([sys.executable, __file__, *options], check=True)
                found.append(json.loads((folder / f"{name}.json").read_text()))
            errors[n_users][seed] = pd.read_pickle(folder / "errors.pkl")
    notes = [
        f"synthetic users, 100 ratings each on average, {ITEMS} items, the first "
        f"{TESTED} users kept aside; one thread, each stage in a process of its own",
        f"{platform.machine()}, Python {platform.python_version()}",
    ]
    results = pd.DataFrame(found)
    print(results.to_string(index=False, float_format="%.3f"))
    about = [
        *notes,
        "train: mf + meta-sgd + bayesian, meta-batch 32; us_per_user_epoch: "
        "microseconds of an epoch, validation included, for each user that is learned "
        "from; ms_per_user: one by one (adapt), in batches (recommend)",
        "fit: the Gaussian model, fit_s for its sweeps; rereading: every chunk read "
        "again in every sweep; at_once: all ratings one chunk",
        "times are processor time, of all threads; peak_gb: most resident memory of "
        "the process",
    ]
    command = "python benchmarks/population.py"
    write_table(given.out / "population.csv", results, command, about)
    table = differences(errors)
    print(table.to_string(index=False, float_format="%.4f"))
    about = [
        *notes,
        f"rmse: after {K} ratings, query after the 15th, mean over the users kept "
        "aside of all seeds, a population each; difference: paired over users, 95% "
        "bootstrap intervals within seeds; least, most: of single seeds",
        "against smallest: the same method in the smallest population, whose users "
        "kept aside are the same people",
        "known: the posterior with the true items, prior and noise; known items: the "
        f"prior and the noise learned from {LEARNED} users at most; truth: the score "
        "that the ratings were made from",
    ]
    write_table(given.out / "population_errors.csv", table, command, about)


if __name__ == "__main__":
    main()
