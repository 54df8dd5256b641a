"""Compare the 27 systems with the shrunk biases: benchmarks/results/grid.csv.

    python -m metarec.evaluation --methods all    (the long run)
    python benchmarks/grid.py leaderboard-ml-100k/errors.csv.xz

Reads the errors of each user that the evaluation command wrote, and trains nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from common import SIZES

from metarec.evaluation import Leaderboard, write_table
from metarec.systems import GRID, System

HERE = Path(__file__).parent
PARTS = ["model", "meta", "learner"]


def summary(errors: pd.DataFrame) -> pd.DataFrame:
    """One row for each system and K: RMSE, and how far it is from the biases."""
    grid = {str(System(*parts)): parts for parts in GRID}
    ours = errors["method"].isin([*grid, "biases"]) & errors["k"].isin(SIZES)
    board = Leaderboard(errors[ours], rival="biases")
    table = board.summary[board.summary["method"] != "biases"]
    first = errors[errors["fold"] == 0].groupby(["method", "k"])["rmse"].mean()
    table = table.join(first.rename("rmse_fold_0"), on=["method", "k"])
    names = pd.DataFrame(table["method"].map(grid).tolist(), table.index, PARTS)
    columns = ["k", "rmse", "mae", "rmse_fold_0", "sd_folds"]
    table = table.rename(columns={"difference": "over_bias"})
    return names.join(table[[*columns, "over_bias", "low", "high"]])


def main() -> None:
    """Read the errors, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    errors = HERE / "results" / "leaderboard" / "errors.csv.xz"
    parser.add_argument("errors", type=Path, nargs="?", default=errors)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "grid.csv")
    arguments = parser.parse_args()
    notes = [
        "MovieLens-100K, five folds by user (seed 0), test users; K = earliest "
        f"ratings, K in {SIZES}",
        "rmse, mae: of each user, averaged over users, then folds",
        "rmse_fold_0, sd_folds: rmse of the first fold, its sd over folds",
        "over_bias, low, high: paired difference to UserItemBias over the test "
        "users, 95% bootstrap stratified by fold (below 0 is better)",
    ]
    table = summary(pd.read_csv(arguments.errors))
    write_table(arguments.out, table, "python benchmarks/grid.py", notes)


if __name__ == "__main__":
    main()
