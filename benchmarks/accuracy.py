"""Name one system on validation users, then compare it with the Gaussian model.

    python benchmarks/accuracy.py

The candidate with the smallest validation RMSE over the five folds is judged on test
users against the Gaussian factor model with side information and a tempered noise: K =
3, 5, 10, in RMSE and MAE, paired over users, 95% intervals by bootstrap stratified by
fold, and Holm's correction over the six comparisons. The same again on other cuts of
the same users into folds. Writes benchmarks/results/accuracy.csv. That rival does not
read which items were rated: `equal_information.py` has those that do.
"""

from __future__ import annotations

import argparse
import platform
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
TESTED = [(k, metric) for k in (3, 5, 10) for metric in ("rmse", "mae")]
KEYS = ["fold", "user"]


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
    parser.add_argument("--partitions", type=int, default=5, help="fresh ones")
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
    pairs = zip(folds, trained[chosen], strict=True)
    mine = pd.concat([fold.judge(meta) for fold, meta in pairs])
    theirs = pd.concat([fold.judge(fold.gaussian) for fold in folds])
    tables = [compare(mine, theirs).assign(partition=0)]
    print(tables[0].to_string(), flush=True)
    for seed in tqdm(range(1, arguments.partitions + 1), desc="other partitions"):
        mine, theirs = [], []
        for number in FOLDS:
            fold = Fold(data, number, Protocol(seed=seed))
            mine.append(fold.judge(train(fold, chosen)))
            theirs.append(fold.judge(fold.gaussian))
        fresh = compare(pd.concat(mine), pd.concat(theirs)).assign(partition=seed)
        print(fresh.to_string(), flush=True)
        tables.append(fresh)
    validation = ", ".join(f"{s} {v:.4f}" for s, v in scores.items())
    write_table(
        arguments.out,
        pd.concat(tables),
        "python benchmarks/accuracy.py",
        [
            f"system: {chosen}, chosen by validation RMSE: {validation}",
            "baseline: GaussianFactorModel with item features, temper by validation",
            "partition 0 is the seed of the course; 1 and up cut the same users anew",
            "low, high: 95% bootstrap over test users; p: sign flips; p_holm: Holm "
            "over K = 3, 5, 10 in rmse and mae, within a partition",
            f"torch {torch.__version__}, Python {platform.python_version()}",
        ],
    )


if __name__ == "__main__":
    main()
