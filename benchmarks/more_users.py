"""What more users bring, what ten ratings cannot say, and what streaming costs.

    python benchmarks/more_users.py

Populations of `crowd.py`, whose first 200 users are kept aside: they are the same
people in every size. The Gaussian model is fitted to the others, in a process for each
fit, which reports its processor time and its peak of resident memory, and is judged
beside the biases, the posterior with the true parameters, and the score that the
ratings were made from. The first population of a size is fitted in three ways: chunks
kept in memory, chunks read again in every sweep, all ratings one chunk. An interrupted
run goes on where it stopped. Writes more_users.csv (differences, with intervals) and
streaming.csv (the fits) into benchmarks/results.
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
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from crowd import ITEMS, draw

from metarec.data import SyntheticTruth
from metarec.evaluation import cold_start, write_table
from metarec.factors import GaussianFactorModel, ItemMean, UserItemBias, sums
from metarec.metrics import paired_bootstrap
from metarec.scale import open_store, write_store
from metarec.systems import hold_out
from metarec.tasks import UserHistories

K, TESTED = 10, 200  # ratings; users kept aside
LEARNED = 5_000  # users, at most, who give the prior where the items are known
SEEDS = {1_000: (0, 1, 2), 10_000: (0, 1, 2), 100_000: (0,)}
METHODS = ("item mean", "biases", "Gaussian", "known items", "known", "truth")
RIVALS = ("biases", "known")
WAYS = {"kept": {}, "read again": {"KEPT": 0}, "one chunk": {"CHUNK": 2**62}}


def make(folder: Path, n_users: int, seed: int) -> None:
    """Draw the population into a store; keep what its ratings were made from."""
    if (folder / "truth.pkl").exists():
        return
    shutil.rmtree(folder / "store", ignore_errors=True)
    truth = draw(folder / "ratings.parquet", n_users, seed=seed)
    items = pd.DataFrame({"item_id": np.arange(ITEMS)})
    write_store(folder / "store", folder / "ratings.parquet", items=items)
    (folder / "ratings.parquet").unlink()
    with (folder / "truth.pkl").open("wb") as file:
        pickle.dump(truth, file)


def split(folder: Path) -> tuple[UserHistories, torch.Tensor, torch.Tensor]:
    """Histories, users to train on, and users to choose by, as `MetaRecommender`."""
    histories = UserHistories(open_store(folder / "store"))
    users = torch.arange(TESTED, len(histories.start) - 1)
    return histories, *hold_out(histories, users)


def fit(folder: Path, way: str) -> None:
    """Fit the Gaussian model in this process; the model and the costs go into files."""
    torch.set_num_threads(1)
    for name, value in WAYS[way].items():
        setattr(sums, name, value)
    histories, train, validation = split(folder)
    start = time.process_time()
    model = GaussianFactorModel.fit(histories, train)
    spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"ratings": int(histories.count(train).sum()), "processor_s": spent}
    found["chunks"] = len(sums.rating_sums(histories, train, model.offset))
    found["peak_gb"] = peak / (1e9 if sys.platform == "darwin" else 1e6)
    found["noise"] = float(model.noise)
    if way == "kept":
        model.choose_temper(histories, validation)
        with (folder / "gaussian.pkl").open("wb") as file:
            pickle.dump(model, file)
    (folder / f"{way}.json").write_text(json.dumps(found))


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
    """The true items; the users' prior and the noise are learned by EM."""
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


def floor(truth: SyntheticTruth, histories: UserHistories, user: int) -> float:
    """RMSE of the score that a user's query ratings were made from."""
    _, item, rating = histories.ratings_of(torch.tensor([user]))
    item, rating = item[histories.reserved :].numpy(), rating[histories.reserved :]
    taste = truth.q_i[item] @ truth.p_u[user]
    score = truth.mu + truth.b_i[item] + truth.b_u[user] + taste
    return float(np.sqrt(((score.clip(1, 5) - rating.numpy()) ** 2).mean()))


def judge(folder: Path) -> pd.DataFrame:
    """RMSE of each user kept aside, after ten ratings."""
    torch.set_num_threads(1)
    histories, users, validation = split(folder)
    everybody, rest = torch.cat([users, validation]), torch.arange(TESTED)
    truth, gaussian = (
        pickle.loads((folder / f"{name}.pkl").read_bytes())
        for name in ("truth", "gaussian")
    )
    predictors = (
        ItemMean.fit(histories, everybody),
        UserItemBias.fit(histories, everybody),
        gaussian,
        known_items(truth, histories, users),
        known(truth),
    )
    found = {
        name: cold_start(predictor, histories, rest, [K])["rmse"].to_numpy()
        for name, predictor in zip(METHODS[:-1], predictors, strict=True)
    }
    found["truth"] = np.array([floor(truth, histories, user) for user in range(TESTED)])
    return pd.DataFrame(found)


def differences(errors: dict[int, dict[int, pd.DataFrame]]) -> pd.DataFrame:
    """Means over the users of all seeds, and paired differences with intervals.

    ``errors`` holds for each size and seed a table, a row a user. Each method stands
    against the biases, against the exact posterior, and against itself in the smallest
    population of the same seeds. ``least`` and ``most`` are those of single seeds.
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


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, every fit in a child process, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="400 and 500 users")
    work = Path("_build") / "more_users"
    parser.add_argument("--work", type=Path, default=work, help="stores and models")
    out = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=out, help="folder of the tables")
    parser.add_argument("--fit", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.fit:
        return fit(Path(given.fit[0]), given.fit[1])
    fits: list[dict[str, object]] = []
    errors: dict[int, dict[int, pd.DataFrame]] = {}
    for n_users, seeds in ({400: (0, 1), 500: (0,)} if given.quick else SEEDS).items():
        errors[n_users] = {}
        for seed in seeds:
            folder = given.work / f"{n_users}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            make(folder, n_users, seed)
            for way in WAYS if seed == 0 else ("kept",):
                print(f"== {n_users} users, seed {seed}: {way}", flush=True)
                if not (folder / f"{way}.json").exists():
                    command = [sys.executable, __file__, "--fit", str(folder), way]
                    subprocess.run(command, check=True)
                if not (folder / "errors.pkl").exists():
                    judge(folder).to_pickle(folder / "errors.pkl")
                found = json.loads((folder / f"{way}.json").read_text())
                fits.append({"users": n_users, "seed": seed, "way": way} | found)
            errors[n_users][seed] = pd.read_pickle(folder / "errors.pkl")
    notes = [
        f"synthetic users, 100 ratings each on average, {ITEMS} items, the first "
        f"{TESTED} users kept aside; the Gaussian model, 8 factors, 30 sweeps",
        f"{platform.machine()}, Python {platform.python_version()}",
    ]
    command = "python benchmarks/more_users.py"
    about = [
        *notes,
        "kept: chunks read once; read again: in every sweep; one chunk: all ratings; "
        "processor_s: one thread, a machine with other work, so factors under two say "
        "nothing; peak_gb: most resident memory of the process",
    ]
    write_table(given.out / "streaming.csv", pd.DataFrame(fits), command, about)
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
    write_table(given.out / "more_users.csv", differences(errors), command, about)


if __name__ == "__main__":
    main()
