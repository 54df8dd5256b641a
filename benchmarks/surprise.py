"""Best bets or most yours: lists against the knob ``surprise``.

    python benchmarks/surprise.py

Items are ranked by score - surprise x the score that somebody unknown has (K = 0), as
``recommend(surprise=...)`` does: for a list model a difference of log-probabilities,
for a model of stars one of stars. Five folds by user, support = the earliest K ratings.
Writes results/surprise.csv.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import torch
from common import FOLDS, already, options
from torch import Tensor
from tqdm import tqdm

from metarec.data import load_movielens_100k
from metarec.evaluation import Fold, fitted, rank_catalogue, write_table
from metarec.tasks import Examples
from metarec.validation import Predictor

LISTS = "mf + maml + in-context + lists"
METHODS = ("popularity", "softmax MAML", LISTS, "mf + maml + gradient")
SURPRISES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SIZES = (1, 3, 5, 10)
MEASURES = ["ndcg", "recall", "hit", "coverage", "overlap"]


@dataclass(frozen=True)
class Surprising:
    """A predictor that takes off what it would say of somebody unknown."""

    predictor: Predictor
    surprise: float

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N)."""
        nothing = replace(support, mask=torch.zeros_like(support.mask))
        scores = self.predictor.predict(support, x)
        return scores - self.surprise * self.predictor.predict(nothing, x)


def judge(predictor: Predictor, fold: Fold) -> pd.DataFrame:
    """Quality, coverage and overlap of the test users' lists at each setting."""
    tables = []
    for surprise in SURPRISES:
        other = Surprising(predictor, surprise)
        table = rank_catalogue(other, fold.histories, fold.split.test, SIZES)
        means = table.groupby("k")[MEASURES].mean().reset_index()
        tables.append(means.assign(surprise=surprise))
    return pd.concat(tables)


def main() -> None:
    """Judge each method on each fold that is not done yet, and write the table."""
    arguments = options(__doc__ or "", "surprise")
    data, done = load_movielens_100k(), already(arguments.store)
    for number in tqdm(FOLDS, desc="surprise", unit="fold"):
        if len(done) and number in set(done["fold"]):
            continue
        fold = Fold(data, number)
        tables = [
            judge(fitted(name, fold), fold).assign(method=name) for name in METHODS
        ]
        done = pd.concat([done, *(table.assign(fold=number) for table in tables)])
        done.to_pickle(arguments.store)
    table = done.groupby(["method", "k", "surprise"])[MEASURES].mean().reset_index()
    notes = [
        "MovieLens-100K, five folds by user (seed 0), test users; K = earliest K "
        "ratings, query = the rest, candidates = all items but the K, 10 places",
        "ranked by score - surprise x score at K = 0; score: a log-probability but for "
        "a constant (softmax MAML, in-context), stars (mf + maml + gradient), log of "
        "likes (popularity: the same for all, and at surprise 1 a random order)",
        "coverage: share of the catalogue on any list of a fold's test users; overlap: "
        "how many of ten items two users share, mean over pairs; averaged over folds",
    ]
    write_table(arguments.out, table, "python benchmarks/surprise.py", notes)
    arguments.store.unlink()


if __name__ == "__main__":
    main()
