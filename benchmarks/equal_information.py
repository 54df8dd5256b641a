"""Compare the named system with rivals of equal information, from committed errors.

    python benchmarks/equal_information.py

`accuracy.py` names a system on validation users: the MLP with MAML, a Bayesian head and
the implicit shift. It reads ratings, item features, which items were rated, and the
user's profile. Here it meets the Gaussian model with the first two, with three and with
all four of them, on both splits of the users, from the errors of each user that
``python -m metarec.evaluation`` has left. Writes
benchmarks/results/equal_information.csv within seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from metarec.evaluation import Leaderboard, write_table

RESULTS = Path(__file__).parent / "results"
SPLITS = {"users": "leaderboard", "time": "leaderboard-by-date"}
SYSTEM = "mlp + maml + bayesian + implicit"
RIVALS = ["gaussian", "gaussian + implicit", "gaussian + users + implicit"]


def compare(folder: str, metric: str) -> pd.DataFrame:
    """Difference to each rival at each K, with its 95% interval."""
    errors = pd.read_csv(RESULTS / folder / "errors.csv.xz")
    errors = errors[errors["method"].isin([SYSTEM, *RIVALS])]
    if metric == "mae":
        # The board compares what stands under this name.
        errors = errors.rename(columns={"rmse": "mae", "mae": "rmse"})
    table = Leaderboard(errors, RIVALS[0]).against(RIVALS)
    return table[["rival", "k", "difference", "low", "high"]]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    out = RESULTS / "equal_information.csv"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    tables = [
        compare(folder, metric).assign(split=split, metric=metric)
        for split, folder in SPLITS.items()
        for metric in ("rmse", "mae")
    ]
    notes = [
        f"system: {SYSTEM}, named by accuracy.py; rival: what the Gaussian model reads",
        "split users: five folds; time: by date of sign-up, one fold",
        "difference: error of the system less that of the rival; low, high: 95% "
        "bootstrap over test users, stratified by fold",
    ]
    command = "python benchmarks/equal_information.py"
    write_table(arguments.out, pd.concat(tables), command, notes)


if __name__ == "__main__":
    main()
