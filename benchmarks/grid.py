"""Run the 27 systems on MovieLens-100K and write benchmarks/results/grid.csv.

    python benchmarks/grid.py

Five folds of users, support = the earliest K ratings, query = all after the 15th, RMSE
of each user averaged over users. What is done is kept beside the table, so a run that
was interrupted goes on; --fresh begins anew.
"""

from __future__ import annotations

import argparse
import platform
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from common import FOLDS, SIZES, Fold, evaluate, write_table
from tqdm import tqdm

from metarec.data import load_movielens_100k
from metarec.metrics import paired_bootstrap
from metarec.systems import LEARNERS, METAS, MODELS, System

HERE = Path(__file__).parent
PARTS = ["model", "meta", "learner"]


def summary(errors: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """One row for each system and K: RMSE, and how far it is from the biases."""
    keys = ["fold", "user"]
    rows = []
    for (*parts, k), group in errors.groupby([*PARTS, "k"], sort=False):
        mine = group.set_index(keys)["rmse"]
        theirs = baseline[baseline["k"] == k].set_index(keys)["rmse"].loc[mine.index]
        fold = mine.index.get_level_values("fold").to_numpy()
        gap = paired_bootstrap(mine.to_numpy(), theirs.to_numpy(), strata=fold)
        means = mine.groupby("fold").mean()
        row = dict(zip(PARTS, parts, strict=True)) | {"k": k, "rmse": means.mean()}
        row |= {"mae": group.groupby("fold")["mae"].mean().mean()}
        row |= {"rmse_fold_0": means.loc[0], "sd_folds": means.std()}
        row |= {"over_bias": gap.mean}
        rows.append(row | {"low": gap.low, "high": gap.high})
    return pd.DataFrame(rows)


def main() -> None:
    """Read the arguments, run what is not done yet, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "grid.csv")
    arguments = parser.parse_args()
    store = arguments.out.with_suffix(".partial.pkl")
    if arguments.fresh:
        store.unlink(missing_ok=True)
    torch.set_num_threads(1)
    done = pd.read_pickle(store) if store.exists() else pd.DataFrame()
    data = load_movielens_100k()
    grid = [System(*parts) for parts in product(MODELS, METAS, LEARNERS)]
    bar = tqdm(total=len(FOLDS) * len(grid), desc="grid", unit="system")
    baselines = []
    for number in FOLDS:
        fold = Fold(data, number)
        baselines.append(fold.judge(fold.bias()))
        for system in grid:
            named = {part: getattr(system, part) for part in PARTS}
            is_done = (
                len(done)
                and (done[["fold", *PARTS]] == [number, *named.values()])
                .all(axis=1)
                .any()
            )
            if not is_done:
                table = evaluate(fold, system).assign(**named)
                done = pd.concat([done, table], ignore_index=True)
                done.to_pickle(store)
            bar.update()
    bar.close()
    table = summary(done, pd.concat(baselines))
    write_table(
        arguments.out,
        table,
        "python benchmarks/grid.py",
        [
            "MovieLens-100K, five folds by user (seed 0), test users; K = earliest "
            f"ratings, K in {SIZES}",
            "rmse, mae: of each user, averaged over users, then folds",
            "rmse_fold_0, sd_folds: rmse of the first fold, its sd over folds",
            "over_bias, low, high: paired difference to UserItemBias over the test "
            "users, 95% bootstrap stratified by fold (below 0 is better)",
            f"torch {torch.__version__}, Python {platform.python_version()}",
        ],
    )
    store.unlink()


if __name__ == "__main__":
    main()
