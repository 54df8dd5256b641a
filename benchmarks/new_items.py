"""Judge methods on new items, and on new users who meet them.

    python benchmarks/new_items.py

Items as tasks: five folds of the items, K ratings of an item revealed (random ones, or
its earliest), the query everything after the first 15 and the same for every K; and the
newest fifth of the items held out in place of random ones. Both cold: the test users of
a fold, K ratings each, judged on the held-out items of that fold, of which K' ratings
by training users are known. And what age, gender and occupation are worth where the
users alone are new. Writes benchmarks/results/new_items.csv; what is done is kept
beside it, so a run that was interrupted goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
from both_cold import BothCold, learn_offset
from common import FOLDS, options
from item_fold import ItemFold
from tqdm import tqdm

from metarec.data import RatingData, load_movielens_100k
from metarec.evaluation import Fold, write_table
from metarec.factors import GaussianFactorModel, ItemMean, UserItemBias
from metarec.features import item_features
from metarec.metrics import paired_bootstrap
from metarec.systems import System
from metarec.tasks import split_users
from metarec.training import save_aside

MEAN, BIAS = "mean", "user + item bias"
GAUSSIAN, FEATURES = "gaussian", "gaussian + features"
METHODS = (MEAN, BIAS, GAUSSIAN, FEATURES)
SYSTEMS = [System("mf", "maml", "gradient"), System("mf", "maml", "bayesian")]
NETWORK = System("mlp", "maml", "bayesian")
SETTINGS = {
    "random items, random ratings": {"order": "random"},
    "random items, earliest ratings": {"order": "time"},
    "newest items, random ratings": {"order": "random", "newest": True},
}
BOTH = "new users, new items"
USERS = "new users, known items"
SHOWN = (0, 5, 10)
KEYS = ["fold", "user"]


def judge_items(
    data: RatingData, setting: str, number: int
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Errors on new items of every method fitted on a fold's training items."""
    fold = ItemFold(data, number, **SETTINGS[setting])
    train = fold.sealed, fold.split.train
    yield MEAN, fold.judge(ItemMean.fit(*train))
    yield BIAS, fold.judge(UserItemBias.fit(*train))
    yield GAUSSIAN, fold.judge(fold.gaussian)
    yield FEATURES, fold.judge(fold.with_users)
    for system in SYSTEMS * ("earliest" not in setting):
        yield str(system), fold.judge(fold.train(system))


def judge_network(
    data: RatingData, setting: str, number: int
) -> Iterator[tuple[str, pd.DataFrame]]:
    """The same for a meta-learned network that reads the items' features."""
    fold = ItemFold(data, number, **SETTINGS[setting])
    yield str(NETWORK), fold.judge(fold.train(NETWORK))


def judge_users(
    data: RatingData, setting: str, number: int
) -> Iterator[tuple[str, pd.DataFrame]]:
    """What the features of users are worth, by the protocol of the course."""
    fold = Fold(data, number)
    yield GAUSSIAN, fold.judge(fold.gaussian)
    yield FEATURES, fold.judge(fold.with_users)


def judge_pairs(
    data: RatingData, setting: str, number: int, shown: int
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Errors on new items, for every new user, of methods fitted on training users."""
    split, items = (split_users(n, number) for n in (data.n_users, data.n_items))
    cold = BothCold.of(data, split, items.test, shown)
    seen = cold.seen.seal(split.test)
    plain = GaussianFactorModel.fit(seen, split.train)
    plain.choose_temper(seen, split.validation)
    model = GaussianFactorModel.fit(seen, split.train, features=item_features(data))
    learn_offset(model, seen, split.train)
    model.choose_profile(seen, split.train, split.validation)
    model.choose_temper(seen, split.validation)
    mean, bias = (kind.fit(seen, split.train) for kind in (ItemMean, UserItemBias))
    for method, predictor in zip(METHODS, (mean, bias, plain, model), strict=True):
        yield method, cold.judge(predictor).assign(fold=number, shown=shown)


Job = Callable[..., Iterator[tuple[str, pd.DataFrame]]]


def jobs() -> Iterator[tuple[Job, tuple]]:
    """What is to be judged: a function and its arguments beside the data."""
    for setting, chosen in SETTINGS.items():
        for number in FOLDS[:1] if "newest" in chosen else FOLDS:
            yield judge_items, (setting, number)
    for number in FOLDS:
        yield judge_users, (USERS, number)
    for number, shown in product(FOLDS, SHOWN):
        yield judge_pairs, (BOTH, number, shown)
    # The network takes a quarter of the time; one fold shows where it stands.
    yield judge_network, (next(iter(SETTINGS)), 0)


def run(data: RatingData, store: Path) -> pd.DataFrame:
    """Do the jobs that are not in the store yet; all errors, one row a task and K."""
    done = pd.read_pickle(store) if store.exists() else {}
    for job, arguments in tqdm(list(jobs()), desc="new items", unit="fit"):
        key = (job.__name__, *arguments)
        if key not in done:
            tables = [
                table.assign(setting=arguments[0], method=method)
                for method, table in job(data, *arguments)
            ]
            done[key] = pd.concat(tables)
            save_aside(store, partial(pd.to_pickle, done))
    return pd.concat(list(done.values()), ignore_index=True)


def summary(errors: pd.DataFrame, rival: str) -> pd.DataFrame:
    """One row for each cell and method: RMSE, MAE, and the distance from ``rival``."""
    rows = []
    cells = ["setting", "shown", "k"]
    for cell, group in errors.groupby(cells, sort=False, dropna=False):
        theirs = group[group["method"] == rival].set_index(KEYS)
        for method, own in group.groupby("method", sort=False):
            mine = own.set_index(KEYS)
            fold = mine.index.get_level_values("fold").to_numpy()
            both = mine["rmse"].to_numpy(), theirs.loc[mine.index, "rmse"].to_numpy()
            gap = paired_bootstrap(*both, strata=fold)
            means = mine.groupby("fold")[["rmse", "mae"]].mean()
            row = dict(zip(cells, cell, strict=True)) | {"method": method}
            row |= means.mean().to_dict() | {"rmse_fold_0": means.loc[0, "rmse"]}
            row |= {"tasks": len(mine), "folds": len(means), "over": gap.mean}
            rows.append(row | {"low": gap.low, "high": gap.high})
    return pd.DataFrame(rows).assign(rival=rival)


def main() -> None:
    """Judge everything and write the table."""
    arguments = options(__doc__, "new_items")
    errors = run(load_movielens_100k(), arguments.store)
    both = errors["setting"] == BOTH
    write_table(
        arguments.out,
        pd.concat([summary(errors[~both], GAUSSIAN), summary(errors[both], BIAS)]),
        "python benchmarks/new_items.py",
        [
            "MovieLens-100K, folds and choices by seed 0; tasks with more than 15 "
            "ratings, query = all after the 15th (both new: all of new items)",
            "rmse, mae: of each item (where users are new: of each user), averaged, "
            "then over folds; rmse_fold_0: of the first; folds: on how many",
            "k: ratings of the item (where users are new: of the user); shown: K', "
            "ratings of each new item by training users, where both are new",
            "+ features: genres and year of new items, age, gender and occupation of "
            "new users; where users alone are new, items' features are in both models",
            "over, low, high: paired difference to the rival, 95% bootstrap over tasks "
            "stratified by fold (below 0 is better)",
        ],
    )
    arguments.store.unlink()


if __name__ == "__main__":
    main()
