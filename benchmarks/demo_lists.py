"""The lists of the demo page on people it has not met: best bets, most yours, stars.

    python benchmarks/demo_lists.py

The page's list learner and its model of stars are trained on each of five folds by user
as the build trains them. Lists hold films with 50 ratings or more, as on the page.
Writes results/demo_lists.csv.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from common import FOLDS, already, options
from surprise import Surprising
from torch import Tensor
from tqdm import tqdm

from metarec.data import load_movielens_100k
from metarec.evaluation import Fold, fitted, rank_catalogue, write_table
from metarec.metrics import paired_bootstrap
from metarec.systems import System, item_vectors
from metarec.tasks import Examples
from metarec.validation import Predictor

sys.path.append(str(Path(__file__).parents[1] / "book" / "_tools"))
from demo_model import EPOCHS, MIN_RATINGS, list_learner, trained

SIZES = (3, 5, 10)
MEASURES = ["ndcg", "recall", "hit", "coverage", "overlap"]


@dataclass(frozen=True)
class Shown:
    """A predictor whose films that the page does not know come last."""

    predictor: Predictor
    known: Tensor

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N)."""
        scores = self.predictor.predict(support, x)
        return torch.where(self.known[x], scores, scores - 1e3)


def methods(fold: Fold) -> dict[str, Predictor]:
    """The page's lists, trained without the test users, and popularity beside them."""
    histories, users = fold.sealed, fold.split.train
    group = histories, fold.train_users, fold.split.validation, fold.features
    lists = list_learner(group, users)
    warm = item_vectors(histories, users, fold.features)
    system = System("mf", "meta-sgd", "bayesian")
    return {
        "popularity": fitted("popularity", fold),
        "best bets": lists,
        "most yours": Surprising(lists, 1.0),
        "by expected stars": trained(system, warm, group, EPOCHS["stars"]),
    }


def judge(fold: Fold) -> pd.DataFrame:
    """One row for each method, test user and K."""
    known = fold.sealed.item_counts(fold.split.train) >= MIN_RATINGS
    tables = []
    for name, predictor in methods(fold).items():
        test = fold.histories, fold.split.test, SIZES
        table = rank_catalogue(Shown(predictor, known), *test)
        tables.append(table.assign(method=name, fold=fold.number))
    return pd.concat(tables)


def summary(done: pd.DataFrame) -> pd.DataFrame:
    """Means over users, and each method's nDCG less that of popularity, paired."""
    table = done.groupby(["method", "k"], sort=False)[MEASURES].mean()
    wide = done.pivot_table("ndcg", ["k", "fold", "user"], "method")
    for method, k in table.index:
        ndcg = wide.loc[k]
        pair = ndcg[method].to_numpy(), ndcg["popularity"].to_numpy()
        gap = paired_bootstrap(*pair, ndcg.index.get_level_values("fold").to_numpy())
        table.loc[(method, k), ["over_popularity", "low", "high"]] = list(gap)
    return table.reset_index()


def main() -> None:
    """Judge each fold that is not done yet, and write the table."""
    arguments = options(__doc__ or "", "demo_lists")
    data, done = load_movielens_100k(), already(arguments.store)
    for number in tqdm(FOLDS, desc="demo_lists", unit="fold"):
        if len(done) and number in set(done["fold"]):
            continue
        done = pd.concat([done, judge(Fold(data, number))])
        done.to_pickle(arguments.store)
    notes = [
        "MovieLens-100K, five folds by user (seed 0), test users; K = earliest K "
        "ratings, query = the rest; listed are films with 50 ratings or more of "
        "training users, and any film but the K counts as missed",
        "most yours: log p(i | user) - log p(i); over_popularity: nDCG@10 less that of "
        "popularity, paired by user, with a 95% interval",
        "coverage: share of the catalogue on any list of a fold's test users; overlap: "
        "how many of ten films two users share, mean over pairs; averaged over users",
    ]
    command = "python benchmarks/demo_lists.py"
    write_table(arguments.out, summary(done), command, notes)
    arguments.store.unlink()


if __name__ == "__main__":
    main()
