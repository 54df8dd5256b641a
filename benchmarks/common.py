"""What the benchmarks share: the folds and support sizes of the course's protocol."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from metarec.evaluation import Fold
from metarec.systems import System

FOLDS = range(5)
SIZES = (0, 1, 3, 5, 10, 15)


def evaluate(fold: Fold, system: System) -> pd.DataFrame:
    """Train a system on one fold and judge it."""
    return fold.judge(fold.train(system), SIZES)


def options(doc: str, name: str, folds: int | None = None) -> argparse.Namespace:
    """Read --fresh and --out (and --folds); ``store`` is where a run goes on from."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    if folds is not None:
        parser.add_argument("--folds", type=int, default=folds, help="how many of five")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    out = Path(__file__).parent / "results" / f"{name}.csv"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    arguments.store = arguments.out.with_suffix(".partial.pkl")
    if arguments.fresh:
        arguments.store.unlink(missing_ok=True)
    torch.set_num_threads(1)
    return arguments


def already(store: Path) -> pd.DataFrame:
    """What an interrupted run has left, or nothing."""
    return pd.read_pickle(store) if store.exists() else pd.DataFrame()
