"""What the benchmarks share: the folds and support sizes of the course's protocol."""

from __future__ import annotations

import pandas as pd

from metarec.evaluation import Fold
from metarec.systems import System

FOLDS = range(5)
SIZES = (0, 1, 3, 5, 10, 15)


def evaluate(fold: Fold, system: System) -> pd.DataFrame:
    """Train a system on one fold and judge it."""
    return fold.judge(fold.train(system), SIZES)
