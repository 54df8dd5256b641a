"""Name one system on validation users, then compare it with the Gaussian model.

    python benchmarks/accuracy.py

The candidate with the smallest validation RMSE over the five folds is judged on test
users against three Gaussian factor models with a tempered noise: one that reads item
features, one that reads which items were rated as well, as the candidate does, and one
that knows users' features besides, as a network with them does. K = 3, 5, 10, in RMSE
and MAE, paired over users, 95% intervals by bootstrap stratified by fold, and Holm's
correction over the six comparisons with a rival. The same again on other partitions of
the same users into folds. Writes benchmarks/results/accuracy.csv after each partition.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import FOLDS, SIZES
from tqdm import tqdm

from metarec.data import load_movielens_100k
from metarec.evaluation import Fold, Protocol, write_table
from metarec.metrics import holm, paired_bootstrap
from metarec.systems import System
from metarec.validation import Predictor

GAUSSIAN = "gaussian + implicit"
CANDIDATES = [
    GAUSSIAN,
    System("mf", "maml", "bayesian"),
    System("mf", "maml", "bayesian", implicit=True),
    System("mf", "meta-sgd", "bayesian", implicit=True),
    System("mf", "metamind", "bayesian", implicit=True),
    System("mlp", "maml", "bayesian", implicit=True),
    System("mf", "maml", "attention", implicit=True),
]
RIVALS: dict[str, Callable[[Fold], Predictor]] = {
    "gaussian": lambda fold: fold.gaussian,
    "gaussian + implicit": lambda fold: fold.with_implicit,
    "gaussian + users + implicit": lambda fold: fold.shifted(fold.with_users),
}
TESTED = [(k, metric) for k in (3, 5, 10) for metric in ("rmse", "mae")]
KEYS = ["fold", "user"]
NOTES = [
    "baseline: GaussianFactorModel with item features, temper by validation; rival: "
    "what it knows besides",
    "partition 0 is the seed of the course, 1 and up cut the same users into other "
    "folds",
    "low, high: 95% bootstrap over test users; p: sign flips; p_holm: Holm over K = 3, "
    "5, 10 in rmse and mae, within a rival and partition",
    f"torch {torch.__version__}, Python {platform.python_version()}",
]


def train(fold: Fold, candidate: System | str) -> Predictor:
    """A candidate fitted on one fold."""
    return (
        fold.train(candidate) if isinstance(candidate, System) else fold.with_implicit
    )


def compare(mine: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Means and paired differences at every K, with p-values after Holm."""
    rows = []
    for k in SIZES:
        a = mine[mine["k"] == k].set_index(KEYS)
        b = theirs[theirs["k"] == k].set_index(KEYS).loc[a.index]
        fold = a.index.get_level_values("fold").to_numpy()
        for metric in ("rmse", "mae"):
            x, y = a[metric].to_numpy(), b[metric].to_numpy()
            gap = paired_bootstrap(x, y, strata=fold)
            row = {"k": k, "metric": metric}
            row |= {"system": a.groupby("fold")[metric].mean().mean()}
            row |= {"baseline": b.groupby("fold")[metric].mean().mean()}
            row |= {"difference": gap.mean, "low": gap.low, "high": gap.high}
            rows.append(row | {"p": p_value(x - y, fold)})
    table = pd.DataFrame(rows)
    tested = [
        (k, m) in TESTED for k, m in zip(table["k"], table["metric"], strict=True)
    ]
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].to_numpy())
    return table


def judge(fold: Fold, system: Predictor) -> pd.DataFrame:
    """Errors of a system and of its rivals on the test users of a fold."""
    names = {"system": system} | {name: fit(fold) for name, fit in RIVALS.items()}
    return pd.concat(fold.judge(m, SIZES).assign(method=n) for n, m in names.items())


def compare_all(judged: list[pd.DataFrame]) -> pd.DataFrame:
    """`compare` with each of the rivals."""
    of = dict(tuple(pd.concat(judged).groupby("method")))
    return pd.concat(compare(of["system"], of[r]).assign(rival=r) for r in RIVALS)


def p_value(gap: np.ndarray, fold: np.ndarray, draws: int = 20_000) -> float:
    """Two-sided p of a mean difference of 0, by flipping signs at random."""
    rng = np.random.default_rng(0)
    weight = np.zeros(len(gap))
    for number in np.unique(fold):
        inside = fold == number
        weight[inside] = 1 / inside.sum() / len(np.unique(fold))
    signs = rng.integers(0, 2, (draws, len(gap))) * 2 - 1
    null = np.abs(signs @ (weight * gap))
    return float((1 + (null >= abs(weight @ gap)).sum()) / (1 + draws))


def main() -> None:
    """Choose on validation users, then judge once on test users."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--partitions", type=int, default=5, help="other ones")
    out = Path(__file__).parent / "results" / "accuracy.csv"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_movielens_100k()
    folds = [Fold(data, n) for n in tqdm(FOLDS, desc="baseline")]
    scores, trained = {}, {}
    for system in tqdm(CANDIDATES, desc="candidates"):
        trained[system] = [train(fold, system) for fold in folds]
        values = [f.validate(m) for f, m in zip(folds, trained[system], strict=True)]
        scores[system] = float(np.mean(values))
        print(f"{system!s:50s} validation RMSE {scores[system]:.4f}", flush=True)
    chosen = min(scores, key=scores.__getitem__)
    print(f"chosen: {chosen}", flush=True)
    validation = ", ".join(f"{s} {v:.4f}" for s, v in scores.items())
    notes = [f"system: {chosen}, chosen by validation RMSE: {validation}", *NOTES]
    tables = []
    for seed in range(arguments.partitions + 1):
        judged = []
        for number in tqdm(FOLDS, desc=f"partition {seed}"):
            fold = Fold(data, number, Protocol(seed=seed)) if seed else folds[number]
            system = train(fold, chosen) if seed else trained[chosen][number]
            judged.append(judge(fold, system))
        tables.append(compare_all(judged).assign(partition=seed))
        print(tables[-1].to_string(), flush=True)
        command = "python benchmarks/accuracy.py"
        write_table(arguments.out, pd.concat(tables), command, notes)


if __name__ == "__main__":
    main()
