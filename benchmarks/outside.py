"""Rivals that the course does not teach, in its own protocol for new users.

    python benchmarks/outside.py

MovieLens-100K, five folds by user, support = the earliest K ratings. Surprise has no
answer for a new user, so its methods are trained anew for each fold and K on the
training users' ratings and the test users' supports. LensKit folds a new user in.
Settings are chosen, of a few, on the validation users of fold 0. The errors of each
user are kept in --store, one file for each fold and method, so a run that was
interrupted goes on; --fresh begins anew. A library that is not installed (see
benchmarks/requirements.txt) is left out, and the table says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from common import FOLDS, SIZES
from torch import Tensor
from tqdm import tqdm

from metarec.data import load_movielens_100k
from metarec.evaluation import Fold, Leaderboard, write_table
from metarec.tasks import Examples
from metarec.training import save_aside
from metarec.validation import Predictor, validation_score

HERE = Path(__file__).parent
RIVAL = "gaussian"
Settings = dict[str, Any]


def known_ratings(fold: Fold) -> pd.DataFrame:
    """The training users' ratings: user, item, rating."""
    parts = fold.sealed.ratings_of(fold.split.train)
    columns = zip(("user", "item", "rating"), parts, strict=True)
    return pd.DataFrame({name: part.numpy() for name, part in columns})


@dataclass(frozen=True)
class Retrained:
    """A method of Surprise, trained anew with whatever supports it is asked about.

    All users of one call are trained on together: their supports, never their queries.
    """

    name: str
    known: pd.DataFrame
    scale: tuple[float, float]
    settings: Settings

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N); a user without support is unknown to Surprise."""
        library = import_module("surprise")
        task, column = support.mask.nonzero(as_tuple=True)
        first = int(self.known["user"].max()) + 1
        new = {"user": first + task.numpy()}
        new |= {"item": support.x[task, column].numpy()}
        new |= {"rating": support.y[task, column].numpy()}
        table = pd.concat([self.known, pd.DataFrame(new)], ignore_index=True)
        reader = library.Reader(rating_scale=self.scale)
        known = library.Dataset.load_from_df(table, reader).build_full_trainset()
        method = getattr(library, self.name)(**self.settings).fit(known)
        scores = torch.zeros(x.shape)
        for user, wanted in enumerate(x):
            # Padding repeats an item: asked for each item once, this is soon done.
            items, place = wanted.unique(return_inverse=True)
            answers = [method.predict(first + user, i).est for i in items.tolist()]
            scores[user] = torch.tensor(answers)[place]
        return scores


@dataclass(frozen=True)
class FoldedIn:
    """A pipeline of LensKit, trained on training users; a support is a user's history.

    What its scorer cannot score, LensKit's damped biases do. ``rated`` (n_items,) is
    true for the items of the training users.
    """

    pipeline: Any
    rated: Tensor

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N), one query of LensKit for each user."""
        data = import_module("lenskit.data")
        scores = torch.zeros(x.shape)
        # LensKit's item-kNN breaks off at an item that it was not trained on.
        told = support.mask & self.rated[support.x]
        for task, mask in enumerate(told):
            history = data.ItemList(
                item_ids=support.x[task, mask].numpy(),
                rating=support.y[task, mask].numpy(),
            )
            query = data.RecQuery(history_items=history)
            # Padding repeats an item, and a list of LensKit holds each item once.
            items, place = x[task].unique(return_inverse=True)
            wanted = data.ItemList(item_ids=items.numpy())
            answer = self.pipeline.run("rating-predictor", query=query, items=wanted)
            scores[task] = torch.as_tensor(answer.scores())[place]
        return scores


def surprise(name: str) -> Callable[[Fold, Settings], Predictor]:
    """Take a method of Surprise: it is trained once the supports are known."""

    def fit(fold: Fold, settings: Settings) -> Predictor:
        scale = fold.histories.scale
        table = known_ratings(fold)
        return Retrained(name, table, (scale.low, scale.high), settings)

    return fit


def lenskit(module: str, name: str) -> Callable[[Fold, Settings], Predictor]:
    """Fit a scorer of LensKit on the training users."""

    def fit(fold: Fold, settings: Settings) -> Predictor:
        basic, data = import_module("lenskit.basic"), import_module("lenskit.data")
        scorer = getattr(import_module(module), name)(**settings)
        pipeline = import_module("lenskit.pipeline").predict_pipeline(
            scorer, fallback=basic.BiasScorer(damping=5.0)
        )
        table = (
            known_ratings(fold)
            .add_suffix("_id")
            .rename(columns={"rating_id": "rating"})
        )
        options = import_module("lenskit.training").TrainingOptions(rng=0)
        pipeline.train(data.from_interactions_df(table), options)
        _, item, _ = fold.sealed.ratings_of(fold.split.train)
        rated = torch.bincount(item, minlength=fold.histories.n_items) > 0
        return FoldedIn(pipeline, rated)

    return fit


@dataclass(frozen=True)
class Rival:
    """A method from outside: its library, how to fit it, the settings to choose from.

    The first settings are those that it comes with.
    """

    library: str
    fit: Callable[[Fold, Settings], Predictor]
    settings: tuple[Settings, ...]

    def choose(self, fold: Fold) -> Settings:
        """The settings with the smallest RMSE of validation users at K = 3 and 10."""
        if len(self.settings) == 1:
            return self.settings[0]

        def error(settings: Settings) -> float:
            predictor = self.fit(fold, settings)
            users = fold.split.validation
            return validation_score(predictor, fold.sealed, users, (3, 10))

        return min(self.settings, key=error)


DISTRIBUTIONS = {"surprise": "scikit-surprise", "lenskit": "lenskit"}
QUIET = {"verbose": False}
PEARSON = {"name": "pearson_baseline", "user_based": False, "shrinkage": 100}
RIVALS = {
    "Surprise SVD": Rival(
        "surprise",
        surprise("SVD"),
        (
            {"random_state": 0},
            {"random_state": 0, "reg_all": 0.1},
            {"random_state": 0, "reg_all": 0.1, "n_epochs": 40},
            {"random_state": 0, "reg_all": 0.1, "n_factors": 20},
        ),
    ),
    "LensKit BiasedMF": Rival(
        "lenskit",
        lenskit("lenskit.als", "BiasedMFScorer"),
        (
            {},
            {"regularization": 0.3},
            {"regularization": {"user": 0.3, "item": 0.1}},
            {"regularization": {"user": 1.0, "item": 0.1}},
        ),
    ),
    "LensKit ItemKNN": Rival(
        "lenskit",
        lenskit("lenskit.knn", "ItemKNNScorer"),
        ({}, {"min_nbrs": 3}, {"min_nbrs": 5}),
    ),
    "Surprise KNNBaseline": Rival(
        "surprise",
        surprise("KNNBaseline"),
        (QUIET, {**QUIET, "sim_options": PEARSON, "min_k": 5}),
    ),
}


def main() -> None:
    """Read the arguments, run what is not done yet, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    out = HERE / "results" / "outside.csv"
    parser.add_argument("--out", type=Path, default=out)
    store = HERE.parent / "_build" / "outside"
    parser.add_argument("--store", type=Path, default=store, help="per-user errors")
    arguments = parser.parse_args()
    if arguments.fresh:
        for path in arguments.store.glob("*.csv"):
            path.unlink()
    torch.set_num_threads(1)
    data = load_movielens_100k()
    folds = [Fold(data, number) for number in FOLDS]
    here = {n: r for n, r in RIVALS.items() if find_spec(r.library) is not None}
    bar = tqdm(total=len(folds) * (1 + len(here)), desc="outside", unit="fit")

    def judged(number: int, method: str, fit: Callable[[], Predictor]) -> pd.DataFrame:
        slug = method.lower().replace(" ", "-")
        path = arguments.store / f"{number}-{slug}.csv"
        bar.set_postfix_str(f"fold {number}, {method}")
        if not path.exists():
            table = folds[number].judge(fit(), SIZES).assign(method=method)
            save_aside(path, partial(table.to_csv, index=False))
        bar.update()
        return pd.read_csv(path)

    tables = [judged(n, RIVAL, partial(getattr, folds[n], "gaussian")) for n in FOLDS]
    notes = []
    for method, rival in here.items():
        bar.set_postfix_str(f"settings of {method}")
        settings = rival.choose(folds[0])
        chosen = settings or "those that it comes with"
        notes.append(
            f"{method} ({rival.library} {version(DISTRIBUTIONS[rival.library])}), "
            f"settings: {chosen}"
        )
        tables += [
            judged(n, method, partial(rival.fit, folds[n], settings)) for n in FOLDS
        ]
    bar.close()
    notes += [f"{n}: its library is not installed" for n in RIVALS if n not in here]
    write_table(
        arguments.out,
        Leaderboard(pd.concat(tables, ignore_index=True), RIVAL).summary,
        "python benchmarks/outside.py",
        [
            *notes,
            "MovieLens-100K, five folds by user (seed 0), test users; K = earliest "
            "ratings, query = all after the 15th",
            "rmse, mae: of each user, averaged over users, then folds; sd_folds: of "
            "rmse; pooled_rmse: over all ratings",
            "difference, low, high: rmse less that of the Gaussian factor model with "
            "item features, paired over users, 95% bootstrap stratified by fold and "
            "conditional on the fitted models",
        ],
    )


if __name__ == "__main__":
    main()
