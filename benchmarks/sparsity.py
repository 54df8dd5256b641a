"""Thin the training data and measure the loss: benchmarks/results/sparsity.csv.

    python benchmarks/sparsity.py

A share of the training ratings (of each training user, in their order), or a share of
the training users, is kept; validation and test users keep everything. What is kept at
one share is part of what is kept at the next. What is done is kept beside the table, so
a run that was interrupted goes on; --fresh begins anew.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from common import already, options
from tqdm import tqdm

from metarec.data import RatingData, load_movielens_100k
from metarec.evaluation import Fold, write_table
from metarec.metrics import paired_bootstrap
from metarec.systems import System

BASELINE = "gaussian"
SYSTEMS = [
    System("mf", "maml", "gradient"),
    System("mf", "maml", "bayesian"),
    System("mlp", "maml", "bayesian", implicit=True),
]
NAMES = [BASELINE, *map(str, SYSTEMS)]
CELLS = [("ratings", share) for share in (1.0, 0.5, 0.25, 0.1)]
CELLS += [("users", share) for share in (0.5, 0.25, 0.1)]
SIZES = (5, 10)
CELL = ["what", "share"]
KEYS = ["fold", "user"]


def thinned(data: RatingData, train: np.ndarray, share: float, seed: int) -> RatingData:
    """Keep a random ``share`` of each training user's ratings, at least one each."""
    table = data.ratings
    key = pd.Series(np.random.default_rng(seed).random(len(table)), table.index)
    rank = key.groupby(table["user"]).rank(method="first")
    count = table.groupby("user")["rating"].transform("size")
    kept = (rank <= np.ceil(share * count)) | ~table["user"].isin(train)
    return replace(data, ratings=table[kept].reset_index(drop=True))


def thin_fold(data: RatingData, number: int, what: str, share: float) -> Fold:
    """A fold of which a share of the training ratings or users is left."""
    fold = Fold(data, number)
    train = fold.split.train
    if what == "ratings":
        return Fold(thinned(data, train.numpy(), share, number), number)
    order = torch.from_numpy(np.random.default_rng(number).permutation(len(train)))
    kept, _ = order[: round(share * len(train))].sort()
    fold.split = replace(fold.split, train=train[kept])
    return fold


def judged(fold: Fold, name: str) -> pd.DataFrame:
    """Errors of the test users by the baseline, or by a system that is trained here."""
    system = dict(zip(NAMES[1:], SYSTEMS, strict=True)).get(name)
    predictor = fold.train(system) if system else fold.gaussian
    return fold.judge(predictor, SIZES).assign(
        system=name,
        n_ratings=int(fold.sealed.count(fold.split.train).sum()),
        n_tasks=len(fold.train_users),
    )


def summary(errors: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell, system and K, with three paired differences."""
    cells = dict(tuple(errors.groupby([*CELL, "system", "k"])))
    rows = []
    for what, share in CELLS:
        for name in NAMES:
            for k in SIZES:
                group = cells[what, share, name, k]
                mine = group.set_index(KEYS)["rmse"]
                fold = mine.index.get_level_values("fold").to_numpy()
                means = mine.groupby("fold").mean()
                row = {"what": what, "share": share, "system": name, "k": k}
                sizes = group.groupby("fold")[["n_ratings", "n_tasks"]].first()
                row |= sizes.mean().round().astype(int).to_dict()
                row |= {"rmse": means.mean(), "rmse_fold_0": means.loc[0]}
                rivals = {
                    "full": ("ratings", 1.0, name),
                    "gaussian": (what, share, BASELINE),
                    "ratings": ("ratings", share, name),
                }
                for rival, where in rivals.items():
                    theirs = cells[*where, k].set_index(KEYS)["rmse"].loc[mine.index]
                    gap = paired_bootstrap(
                        mine.to_numpy(), theirs.to_numpy(), strata=fold
                    )
                    row |= {f"over_{rival}": gap.mean}
                    row |= {f"low_{rival}": gap.low, f"high_{rival}": gap.high}
                rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    """Read the arguments, run what is not done yet, write the table."""
    arguments = options(__doc__, "sparsity", folds=3)
    done = already(arguments.store)
    data = load_movielens_100k()
    folds = range(arguments.folds)
    bar = tqdm(total=len(folds) * len(CELLS) * len(NAMES), desc="sparsity", unit="row")
    for number in folds:
        for cell in CELLS:
            fold = None
            for name in NAMES:
                key = [number, *cell, name]
                columns = ["fold", *CELL, "system"]
                if not len(done) or not (done[columns] == key).all(axis=1).any():
                    fold = fold or thin_fold(data, number, *cell)
                    table = judged(fold, name)
                    table = table.assign(**dict(zip(CELL, cell, strict=True)))
                    done = pd.concat([done, table], ignore_index=True)
                    done.to_pickle(arguments.store)
                bar.update()
    bar.close()
    write_table(
        arguments.out,
        summary(done[done["fold"] < arguments.folds]),
        "python benchmarks/sparsity.py",
        [
            f"MovieLens-100K, folds 0 to {arguments.folds - 1} by user (seed 0); what "
            "is kept is drawn with the number of the fold as seed; nested shares",
            "n_ratings, n_tasks: of the training users, and how many have more than 15",
            "rmse: of each test user, averaged over users, then folds; K earliest",
            "over_full, low, high: paired difference to the same system on all "
            "training data; over_gaussian: to the baseline on the same data; "
            "over_ratings: to the same system on the same share of every user's "
            "ratings; 95% bootstrap over test users, stratified by fold (below 0 is "
            "better)",
            "gaussian: GaussianFactorModel with item features, temper by validation",
        ],
    )
    arguments.store.unlink()


if __name__ == "__main__":
    main()
