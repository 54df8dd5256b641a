"""Warm rating prediction: Surprise's figures again, metarec's on the same folds.

    python benchmarks/warm.py

MovieLens-100K, the five random folds of ratings that Surprise's own benchmark cuts. Its
methods, as they come, must give the figures that its authors publish. Each method of
metarec is judged on the same folds, where the support of a known user is all of the
user's training ratings. What is done is kept beside the table, so a run that was
interrupted goes on; --fresh begins anew. Without Surprise (see
benchmarks/requirements.txt) only metarec's rows are made, and the table says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pandas as pd
import torch
from common import already, options
from torch import Tensor
from tqdm import tqdm
from warm_table import UserTable, train_table

from metarec.baselines import ALS, ItemKNN, UserKNN
from metarec.data import RatingData, load_movielens_100k
from metarec.evaluation import write_table
from metarec.factors import GaussianFactorModel, GlobalMean, ItemMean, UserItemBias
from metarec.features import item_features
from metarec.models import MatrixFactorization
from metarec.tasks import Examples, UserHistories
from metarec.validation import Predictor

FOLDS = 5
AT_ONCE = 100  # users predicted in one batch, to bound the memory


class WarmFold:
    """One fold of the ratings: ``known`` to train on, ``hidden`` to predict.

    Both hold every user. ``rows`` are the known ratings in the order in which Surprise
    reads them, which its stochastic descent depends on; ``features`` (n_items, F) what
    is known of the items beside the ratings.
    """

    def __init__(self, data: RatingData, number: int) -> None:
        self.features = item_features(data)
        folds = rating_folds(len(data.ratings))
        rest = np.concatenate([f for i, f in enumerate(folds) if i != number])
        self.rows = data.ratings.iloc[rest]
        self.users = torch.arange(data.n_users)
        self.known = UserHistories(replace(data, ratings=self.rows))
        hidden = replace(data, ratings=data.ratings.iloc[folds[number]])
        self.hidden = UserHistories(hidden)

    def predict(self, predictor: Predictor) -> Tensor:
        """Scores of the hidden ratings, flat, for users whose support is all known."""
        parts = []
        for users in self.users.split(AT_ONCE):
            support, query = (
                histories.everything(users, int(histories.count(users).max()))
                for histories in (self.known, self.hidden)
            )
            with torch.no_grad():
                parts.append(predictor.predict(support, query.x)[query.mask])
        return torch.cat(parts)

    def errors(self, scores: Tensor) -> dict[str, float]:
        """RMSE and MAE over the hidden ratings, clipped to the scale."""
        _, _, rating = self.hidden.ratings_of(self.users)
        scale = self.hidden.scale
        gap = (scores.clamp(scale.low, scale.high) - rating).double()
        rmse = gap.square().mean().sqrt()
        return {"rmse": float(rmse), "mae": float(gap.abs().mean())}


def rating_folds(n_ratings: int, seed: int = 0) -> list[np.ndarray]:
    """Rows of each fold, as Surprise's KFold(n_splits=5, random_state=0) draws them."""
    order = np.arange(n_ratings)
    # The old generator on purpose: the folds must be theirs to the row.
    np.random.RandomState(seed).shuffle(order)
    return np.array_split(order, FOLDS)


@dataclass(frozen=True)
class UserMean:
    """Every item gets the mean of the user's support."""

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """The same score (B, N) for all items."""
        total = torch.where(support.mask, support.y, 0.0).sum(-1)
        return (total / support.mask.sum(-1))[:, None].expand(x.shape)


@dataclass(frozen=True)
class UserPlusItemMean:
    """Mean of the user plus mean of the item minus mean of all, nothing shrunk."""

    item: ItemMean
    overall: GlobalMean

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N)."""
        user = UserMean().predict(support, x)
        return user + self.item.predict(support, x) - self.overall.predict(support, x)


@dataclass(frozen=True)
class Table:
    """A `UserTable` asked as the others are: the support says whose row it is."""

    table: UserTable

    @classmethod
    def fit(cls, histories: UserHistories, users: Tensor) -> Table:
        """Train for 30 epochs.

        Of five settings this one was best for a tenth of fold 0's known ratings.
        """
        generator = torch.Generator().manual_seed(0)
        model = MatrixFactorization(histories.n_items, 32, generator)
        table = UserTable(model, len(users), generator)
        ratings = histories.ratings_of(users)
        train_table(table, *ratings, penalty=0.1, progress=False)
        return cls(table)

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N) from the row of each user; the support itself is not read."""
        if support.user is None:
            raise ValueError("the support must say who its users are")
        users = support.user[:, None].expand(x.shape)
        return self.table(users.reshape(-1), x.reshape(-1)).reshape(x.shape)


def item_mean(fold: WarmFold) -> ItemMean:
    """Means of the items; the trace of shrinkage defines those without a rating."""
    return ItemMean.fit(fold.known, fold.users, shrinkage=1e-6)


@dataclass(frozen=True)
class Ours:
    """A method of metarec, what fits it, and the method of Surprise to beside it."""

    name: str
    against: str
    fit: Callable[[WarmFold], Predictor]
    source = "metarec"

    def run(self, fold: WarmFold) -> Tensor:
        """Scores of the hidden ratings."""
        return fold.predict(self.fit(fold))


@dataclass(frozen=True)
class Theirs:
    """A method of Surprise, with the settings that it comes with."""

    name: str
    against = ""
    source = "surprise"

    def run(self, fold: WarmFold) -> Tensor:
        """Scores of the hidden ratings."""
        library = import_module("surprise")
        method = getattr(library, self.name)
        drawn = {"random_state": 0} if self.name in ("SVD", "SVDpp", "NMF") else {}
        quiet = {"verbose": False} if "Baseline" in self.name else {}
        scale = fold.known.scale
        reader = library.Reader(rating_scale=(scale.low, scale.high))
        columns = fold.rows[["user", "item", "rating"]]
        known = library.Dataset.load_from_df(columns, reader).build_full_trainset()
        algorithm = method(**drawn, **quiet).fit(known)
        ratings = (part.tolist() for part in fold.hidden.ratings_of(fold.users))
        hidden = list(zip(*ratings, strict=True))
        return torch.tensor([answer.est for answer in algorithm.test(hidden)])


METHODS: list[Ours | Theirs] = [
    Ours("global mean", "", lambda f: GlobalMean.fit(f.known, f.users)),
    Ours("user mean", "", lambda f: UserMean()),
    Ours("item mean", "", item_mean),
    Ours(
        "user + item mean",
        "",
        lambda f: UserPlusItemMean(item_mean(f), GlobalMean.fit(f.known, f.users)),
    ),
    Ours("UserItemBias", "BaselineOnly", lambda f: UserItemBias.fit(f.known, f.users)),
    Ours("ItemKNN", "KNNBaseline", lambda f: ItemKNN.fit(f.known, f.users)),
    Ours("UserKNN", "KNNBaseline", lambda f: UserKNN.fit(f.known, f.users)),
    Ours("UserTable", "SVD", lambda f: Table.fit(f.known, f.users)),
    Ours("ALS", "SVD", lambda f: ALS.fit(f.known, f.users)),
    Ours(
        "GaussianFactorModel",
        "SVD",
        lambda f: GaussianFactorModel.fit(f.known, f.users),
    ),
    Ours(
        "GaussianFactorModel, item features",
        "SVDpp",
        lambda f: GaussianFactorModel.fit(f.known, f.users, features=f.features),
    ),
    *map(Theirs, ("BaselineOnly", "SlopeOne", "NMF", "KNNBaseline", "SVD", "SVDpp")),
]
# RMSE and MAE that Surprise's authors publish for five random folds; those of the
# means are for the five folds u1-u5 that come with the data.
PUBLISHED = {
    "SVD": (0.934, 0.737),
    "SVDpp": (0.919, 0.721),
    "NMF": (0.963, 0.758),
    "SlopeOne": (0.946, 0.743),
    "KNNBaseline": (0.931, 0.733),
    "BaselineOnly": (0.944, 0.748),
    "global mean": (1.1256, 0.9447),
    "user mean": (1.0437, 0.8362),
    "item mean": (1.0246, 0.8174),
    "user + item mean": (0.9694, 0.7617),
}


def summary(done: pd.DataFrame) -> pd.DataFrame:
    """One row for each method: means over the folds, sd of the RMSE over them."""
    rows = []
    for method in METHODS:
        mine = done[done["method"] == method.name]
        if mine.empty:
            continue
        row = {"method": method.name, "source": method.source}
        row |= {"against": method.against}
        row |= {"rmse": mine["rmse"].mean(), "mae": mine["mae"].mean()}
        row |= {"sd": mine["rmse"].std()}
        rmse, mae = PUBLISHED.get(method.name, (np.nan, np.nan))
        rows.append(row | {"published_rmse": rmse, "published_mae": mae})
    return pd.DataFrame(rows)


def main() -> None:
    """Read the arguments, run what is not done yet, write the table."""
    arguments = options(__doc__, "warm")
    here = find_spec("surprise") is not None
    methods = [m for m in METHODS if here or m.source == "metarec"]
    data = load_movielens_100k()
    done = already(arguments.store)
    finished = set(zip(done["fold"], done["method"], strict=True)) if len(done) else ()
    bar = tqdm(total=FOLDS * len(methods), desc="warm", unit="fit")
    for number in range(FOLDS):
        fold = WarmFold(data, number)
        for method in methods:
            bar.set_postfix_str(f"fold {number}, {method.name}")
            if (number, method.name) not in finished:
                row = {"fold": number, "method": method.name}
                row |= fold.errors(method.run(fold))
                done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
                done.to_pickle(arguments.store)
            bar.update()
    bar.close()
    library = (
        f"scikit-surprise {version('scikit-surprise')}, its settings as they come"
        if here
        else "Surprise could not be imported: its rows are left out"
    )
    write_table(
        arguments.out,
        summary(done),
        "python benchmarks/warm.py",
        [
            library,
            "MovieLens-100K, ratings in file order, five folds as Surprise's "
            "KFold(n_splits=5, random_state=0) cuts them; the support of a known user "
            "is all of the user's training ratings",
            "rmse, mae: over all ratings of a fold, means over folds; sd: of rmse over "
            "folds",
            "against: the method of Surprise beside which a method of metarec stands",
            "published: by Surprise's authors for folds cut as these; for the means, "
            "figures of the folds u1-u5, which are others: comparable to about .006",
            "settings of metarec's methods: as they come, chosen for new users of "
            "these data; UserTable: chosen on a tenth of fold 0's known ratings",
        ],
    )
    arguments.store.unlink()


if __name__ == "__main__":
    main()
