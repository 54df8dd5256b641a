"""Judge lists and clicks on MovieLens-100K: the calls of the command, in a row.

    python benchmarks/ranking.py

The tables go to results/lists, results/lists-by-date and results/clicks. What is done
is kept in _build, so a run that was interrupted goes on; --fresh begins anew.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from metarec.evaluation.__main__ import main

ROOT = Path(__file__).parents[1]
RIVALS = [
    "item-kNN + popularity",
    "popularity",
    "naive-Bayes lift",
    "EASE + popularity",
]
SYSTEMS = ["softmax MAML", "mf + maml + in-context + lists"]
LISTS = ["--goal", "lists", "--methods", "baselines", "gaussian"]
LISTS += [name + seeds for name in SYSTEMS for seeds in ("", ", 5 seeds")]
LISTS += ["--rival", *RIVALS]
CALLS = {
    "lists": LISTS,
    "lists-by-date": [*LISTS, "--split", "time"],
    "clicks": [
        *("--goal", "clicks", "--methods", "baselines"),
        *("mf + maml + gradient + clicks", "mf + maml + bayesian + clicks"),
    ],
}
KEPT = ("summary.csv", "rivals.csv", "costs.csv", "errors.csv.xz")


if __name__ == "__main__":
    for name, words in CALLS.items():
        out = ROOT / "_build" / name
        if main(["--data", "ml-100k", *words, "--out", str(out), *sys.argv[1:]]):
            sys.exit(1)
        results = ROOT / "benchmarks" / "results" / name
        results.mkdir(parents=True, exist_ok=True)
        for kept in KEPT:
            if (out / kept).exists():
                shutil.copy(out / kept, results / kept)
