"""Ways to forget, on MovieLens users with long histories: benchmarks/results/drift.csv.

    python benchmarks/drift.py

Users with 100 ratings or more; each block of 10 after the first 50 is predicted from
all ratings before it. Windows, half-lives and the temper of the noise are chosen on
validation users, per fold. The same again with ties of time shuffled, and in random
order, where there is no drift to find. What is done is kept beside the table, so a run
that was interrupted goes on; --fresh begins anew.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pandas as pd
from common import already, options
from forgetting import Decayed, KalmanFilter, Windowed, prequential, rmse_of_users
from torch import Tensor
from tqdm import tqdm

from metarec.data import RatingData, load_movielens_100k
from metarec.evaluation import Fold, write_table
from metarec.factors import GaussianFactorModel
from metarec.metrics import paired_bootstrap
from metarec.tasks import ORDERS, UserHistories
from metarec.validation import Predictor

NEVER = float("inf")
LONG = 100
HALF_LIVES = (25, 50, 100, 200, 400, NEVER)
TEMPERS = (0.7, 1.0, 1.5, 2.5)
# Shown whatever validation says.
FIXED = {
    "last 15": lambda model: Windowed(model, 15),
    "last 30": lambda model: Windowed(model, 30),
    "decay, half-life 50": lambda model: Decayed(model, 50),
    "filter, bias 50": lambda model: KalmanFilter(model, NEVER, 50),
    "filter, bias 100": lambda model: KalmanFilter(model, NEVER, 100),
    "filter, bias and taste 100": lambda model: KalmanFilter(model, 100, 100),
}


def long_users(histories: UserHistories, users: Tensor) -> Tensor:
    """Those of ``users`` with 100 ratings or more."""
    return users[histories.count(users) >= LONG]


def best(make: Callable[[float], Predictor], values: tuple, fold: Fold) -> float:
    """The value whose predictor errs least on validation users."""
    users = long_users(fold.sealed, fold.split.validation)

    def error(value: float) -> float:
        table = prequential(make(value), fold.sealed, users)
        return float(rmse_of_users(table).mean())

    return min(values, key=error)


def chosen(fold: Fold) -> dict[str, tuple[str, Predictor]]:
    """Each method with its setting, by validation users; the temper is the static's."""

    def tempered(temper: float) -> GaussianFactorModel:
        model = copy.copy(fold.gaussian)
        model.temper = temper
        return model

    model = tempered(best(tempered, TEMPERS, fold))
    windows = (15, 30, 60, 120, 240)
    window = best(lambda n: Windowed(model, int(n)), windows, fold)
    decay = best(lambda h: Decayed(model, h), HALF_LIVES, fold)
    bias = best(lambda h: KalmanFilter(model, NEVER, h), HALF_LIVES, fold)
    taste = best(lambda h: KalmanFilter(model, h, bias), HALF_LIVES[1:], fold)
    return {
        "static": (f"temper {model.temper:g}", model),
        "window": (f"{window:g}", Windowed(model, int(window))),
        "decay": (f"{decay:g}", Decayed(model, decay)),
        "filter, bias": (f"{bias:g}", KalmanFilter(model, NEVER, bias)),
        "filter": (f"{taste:g}/{bias:g}", KalmanFilter(model, taste, bias)),
        **{name: ("fixed", make(model)) for name, make in FIXED.items()},
    }


def run_fold(data: RatingData, number: int) -> pd.DataFrame:
    """Errors of the long test users of one fold: method, order, user, rmse."""
    fold = Fold(data, number)
    methods = chosen(fold)
    users = long_users(fold.histories, fold.split.test)
    rows = []
    for order in ORDERS:
        histories = UserHistories(data, order, seed=number)
        for name, (setting, predictor) in methods.items():
            errors = rmse_of_users(prequential(predictor, histories, users))
            table = errors.rename("rmse").reset_index()
            rows.append(table.assign(order=order, method=name, setting=setting))
    return pd.concat(rows).assign(fold=number)


def summary(errors: pd.DataFrame, span: pd.Series) -> pd.DataFrame:
    """One row for each order, set of users and method, against the static posterior."""
    days = errors["user"].map(span)
    groups = {"all": days >= 0, "over 30 days": days > 30, "within 1 day": days < 1}
    rows = []
    for order in ORDERS:
        for who, where in groups.items():
            part = errors[where & (errors["order"] == order)]
            keys = ["fold", "user"]
            static = part[part["method"] == "static"].set_index(keys)["rmse"]
            for method, group in part.groupby("method", sort=False):
                mine = group.set_index(keys)["rmse"].loc[static.index]
                fold = mine.index.get_level_values("fold").to_numpy()
                gap = paired_bootstrap(mine.to_numpy(), static.to_numpy(), strata=fold)
                settings = group.groupby("fold")["setting"].first()
                row = {"order": order, "users": who, "method": method}
                row |= {"settings": " ".join(settings.drop_duplicates())}
                if method in ("static", "window", "decay", "filter, bias", "filter"):
                    row["settings"] = ", ".join(settings)
                row |= {"n": len(mine), "rmse": mine.mean()}
                row |= {"rmse_fold_0": mine.loc[0].mean(), "over_static": gap.mean}
                rows.append(row | {"low": gap.low, "high": gap.high})
    return pd.DataFrame(rows)


def main() -> None:
    """Read the arguments, run what is not done yet, write the table."""
    arguments = options(__doc__, "drift", folds=5)
    done = already(arguments.store)
    data = load_movielens_100k()
    for number in tqdm(range(arguments.folds), desc="drift", unit="fold"):
        if not len(done) or not (done["fold"] == number).any():
            done = pd.concat([done, run_fold(data, number)], ignore_index=True)
            done.to_pickle(arguments.store)
    stamps = data.ratings.groupby("user")["timestamp"]
    days = (stamps.max() - stamps.min()) / 86_400
    write_table(
        arguments.out,
        summary(done[done["fold"] < arguments.folds], days),
        "python benchmarks/drift.py",
        [
            f"MovieLens-100K, folds 0 to {arguments.folds - 1} by user (seed 0), users "
            f"with {LONG} ratings or more; blocks of 10 after the first 50",
            "model: GaussianFactorModel with item features; settings by validation "
            "users of each fold in order of time; filter: half-lives taste/bias",
            "users: all, or those whose ratings span more than 30 days or under 1 day",
            "rmse: of each user over all blocks, mean over users; over_static, low, "
            "high: paired difference, 95% bootstrap stratified by fold; seed of "
            "shuffled orders: the fold",
        ],
    )
    arguments.store.unlink()


if __name__ == "__main__":
    main()
