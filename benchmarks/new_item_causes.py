"""What the differences on new items come from: one change at a time.

    python benchmarks/new_item_causes.py

The rows of new_items.csv say how methods differ. These say why, each against a case in
which one thing is otherwise: the parts of the prior's covariance, of the label, of the
reading of features where both sides are new; a film's random ratings against its
earliest; raters of the newest films by how many ratings of them were learned from, and
the same raters on random films with as few. Writes results/new_item_causes.csv. --quick
is one fold of a small draw, to see it run.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from both_cold import BothCold, learn_offset
from common import FOLDS
from item_fold import ItemFold
from torch import Tensor
from tqdm import tqdm

from metarec.data import RatingData, load_movielens_100k, synthetic_population
from metarec.evaluation import write_table
from metarec.factors import GaussianFactorModel
from metarec.features import item_features
from metarec.metrics import paired_bootstrap
from metarec.tasks import split_users
from metarec.validation import Predictor, validation_score

SIZES = (0, 1, 3, 5, 10, 15)
SCALES = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
KNOWN = 20  # ratings of a rater that were learned from
Case = tuple[str, str, pd.DataFrame]


def uncorrelated(covariance: Tensor) -> Tensor:
    """The variances alone."""
    return covariance.diag().diag()


def correlations(covariance: Tensor) -> Tensor:
    """The same with every variance 1."""
    scale = covariance.diag().sqrt()
    return covariance / scale / scale[:, None]


def with_covariance(
    fold: ItemFold, covariance: Tensor, scales: tuple[float, ...] = (1.0,)
) -> GaussianFactorModel:
    """The fold's Gaussian model with another prior, its scale chosen on validation."""

    def scaled(scale: float) -> GaussianFactorModel:
        model = copy.copy(fold.gaussian)
        model.user_covariance = scale * covariance
        model.choose_temper(fold.sealed, fold.split.validation)
        return model

    validation = fold.sealed, fold.split.validation
    return min(map(scaled, scales), key=lambda m: validation_score(m, *validation))


def prior(data: RatingData, number: int) -> Iterator[Case]:
    """The prior's covariance as fitted, and without its parts."""
    fold = ItemFold(data, number)
    full = fold.gaussian.user_covariance
    cases = {
        "as fitted": (full, (1.0,)),
        "no correlations": (uncorrelated(full), (1.0,)),
        "one variance": (correlations(full), SCALES),
        "one variance, no correlations": (torch.eye(len(full)).double(), SCALES),
    }
    for case, how in cases.items():
        yield "prior", case, fold.judge(with_covariance(fold, *how), SIZES)


def label(data: RatingData, number: int) -> Iterator[Case]:
    """The label's parts; what is hidden is "not known", a column of zeros."""
    fold = ItemFold(data, number)
    yield "label", "nothing", fold.judge(fold.gaussian, (0, 5))
    full = fold.histories.profile
    year = torch.arange(full.shape[1]) == full.shape[1] - 1
    for case, kept in {"year": year, "genres": ~year, "both": year | True}.items():
        for histories in (fold.histories, fold.sealed):
            histories.profile = full * kept
        model, train = copy.copy(fold.gaussian), fold.split.train
        model.choose_profile(fold.sealed, train, fold.split.validation)
        model.choose_temper(fold.sealed, fold.split.validation)
        yield "label", case, fold.judge(model, (0, 5))


def order(data: RatingData, number: int) -> Iterator[Case]:
    """Whether the query is what follows random ratings or a film's earliest."""
    fold = ItemFold(data, number)
    model, n = fold.with_users, data.ratings["item"].value_counts()
    for name in ("random", "time"):
        errors = ItemFold(data, number, order=name).judge(model, (0,))
        of_film = errors["user"].map(n)
        for group, low, high in (
            ("all films", 0, np.inf),
            ("films with 30 or fewer", 0, 30),
            ("films with more than 30", 31, np.inf),
        ):
            part = errors[of_film.between(low, high)]
            yield f"order: {group}", name, part


def learned_from(fold: ItemFold) -> Tensor:
    """Ratings of each rater that are in training."""
    _, rater, _ = fold.sealed.ratings_of(fold.split.train)
    return torch.bincount(rater, minlength=fold.histories.n_items)


def errors_by(fold: ItemFold, model: Predictor, k: int) -> pd.DataFrame:
    """Squared errors of all query ratings: film, rater, square."""
    films = fold.histories.usable(fold.split.test)
    support, query = (tasks := fold.histories.tasks(films, k)).support, tasks.query
    stars = model.predict(support, query.x).clamp(1, 5)
    film = tasks.user[:, None].expand_as(query.x)
    columns = {"film": film, "rater": query.x, "square": (stars - query.y) ** 2}
    return pd.DataFrame({n: t[query.mask].numpy() for n, t in columns.items()})


def rooted(errors: pd.DataFrame, by: str, k: int) -> pd.DataFrame:
    """RMSE of each film or rater."""
    mean = errors.groupby(by)["square"].mean() ** 0.5
    return mean.rename("rmse").rename_axis("user").reset_index().assign(k=k)


def newest(data: RatingData, number: int) -> Iterator[Case]:
    """The newest films and random ones, by all raters and by those who are known."""
    folds = {"random films": ItemFold(data, number)}
    if number == 0:
        folds["newest films"] = ItemFold(data, newest=True)
    for (name, fold), k in product(folds.items(), (0, 15)):
        errors = errors_by(fold, fold.with_users, k)
        known = (learned_from(fold) >= KNOWN).numpy()[errors["rater"]]
        yield "newest: all raters", name, rooted(errors, "film", k)
        yield "newest: known raters", name, rooted(errors[known], "film", k)


def thinned(data: RatingData, number: int, few: Tensor) -> RatingData:
    """At most ``few`` ratings of a fold's training films by each user, drawn."""
    train = ItemFold(data, number).split.train
    table = data.ratings.sample(frac=1, random_state=number)
    rows = table["item"].isin(train.numpy())
    rank = table[rows].groupby("user").cumcount()
    kept = ~rows | (rank.reindex(table.index) < few.numpy()[table["user"]])
    return replace(data, ratings=table[kept].sort_index())


def raters(data: RatingData, number: int) -> Iterator[Case]:
    """Who is hardly known on the newest films, on random ones: known, and as little."""
    few = learned_from(ItemFold(data, newest=True))
    whole, thin = (ItemFold(d, number) for d in (data, thinned(data, number, few)))
    thin.histories = whole.histories  # supports and queries are the same
    for k in (0, 15):
        for case, fold in (("known", whole), ("as little known", thin)):
            errors = errors_by(fold, fold.with_users, k)
            cold = (few < KNOWN).numpy()[errors["rater"]]
            yield "raters", case, rooted(errors[cold], "rater", k)


def both_new(data: RatingData, number: int) -> Iterator[Case]:
    """Three readings of features where user and item are new, in all combinations."""
    split, items = (split_users(n, number) for n in (data.n_users, data.n_items))
    cold = BothCold.of(data, split, items.test, 0)
    seen, features = cold.seen.seal(split.test), item_features(data)
    plain, reading = (
        GaussianFactorModel.fit(seen, split.train, features=f) for f in (None, features)
    )
    names = ("offsets", "item vectors", "users")
    for on in product((False, True), repeat=3):
        model = copy.copy(reading if on[1] else plain)
        if on[0]:
            own, model.features = model.features, reading.features
            learn_offset(model, seen, split.train)
            model.features = own
        if on[2]:
            model.choose_profile(seen, split.train, split.validation)
        model.choose_temper(seen, split.validation)
        case = " + ".join(n for n, o in zip(names, on, strict=True) if o) or "nothing"
        yield "both new", case, cold.judge(model, (0, 1, 5, 15))


def five(data: RatingData, number: int) -> Iterator[Case]:
    """Five ratings of every new film, or five by the user: earliest or random."""
    split, items = (split_users(n, number) for n in (data.n_users, data.n_items))
    cold = BothCold.of(data, split, items.test, 0)
    drawn = BothCold.of(data, split, items.test, 0, order="random")
    shown = BothCold.of(data, split, items.test, 5)

    def fitted(case: BothCold) -> GaussianFactorModel:
        seen = case.seen.seal(split.test)
        model = GaussianFactorModel.fit(seen, split.train, features=item_features(data))
        learn_offset(model, seen, split.train)
        model.choose_temper(seen, split.validation)
        return model

    none, film = fitted(cold), "of the film"
    tables = {"none": cold.judge(none, (0,)), film: shown.judge(fitted(shown), (0,))}
    for case, how in (("earliest", cold), ("random", drawn)):
        tables[f"by the user, {case}"] = how.judge(none, (5,)).assign(k=0)
    yield from (("five", case, table) for case, table in tables.items())
    for case in ("by the user, random", film):
        yield "five: one or the other", case, tables[case]


QUESTIONS = (prior, label, order, newest, raters, both_new, five)


def unpaired(mine: pd.Series, theirs: pd.Series, draws: int = 2000) -> tuple:
    """Difference of the means of two sets, and its 95% bootstrap interval."""
    rng = np.random.default_rng(0)
    means = [
        rng.choice(part.to_numpy(), (draws, len(part))).mean(1)
        for part in (mine, theirs)
    ]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return mine.mean() - theirs.mean(), low, high


def summary(errors: pd.DataFrame) -> pd.DataFrame:
    """One row for each question, case and K, against the question's first case."""
    rows = []
    for (question, k), group in errors.groupby(["question", "k"], sort=False):
        cases = {
            case: part.set_index(["fold", "user"])["rmse"]
            for case, part in group.groupby("case", sort=False)
        }
        first = next(iter(cases.values()))
        for case, own in cases.items():
            if question.startswith("newest"):
                over, low, high = unpaired(own, first) if own is not first else [0] * 3
            else:
                fold = own.index.get_level_values("fold").to_numpy()
                theirs = first.loc[own.index].to_numpy()
                gap = paired_bootstrap(own.to_numpy(), theirs, strata=fold)
                over, low, high = gap.mean, gap.low, gap.high
            row = {"question": question, "case": case, "k": k, "tasks": len(own)}
            row |= {"rmse": own.mean(), "rmse_fold_0": own.loc[0].mean()}
            rows.append(row | {"over": over, "low": low, "high": high})
    return pd.DataFrame(rows)


def small() -> RatingData:
    """A draw with genres, years and ages."""
    data, _ = synthetic_population(n_users=120, n_items=80, seed=0)
    genres = [("Drama",), ("Comedy", "War"), ("Drama", "War"), ("Comedy",)] * 20
    years = pd.array([1900 + i for i in range(80)], dtype="Int64")
    items = data.items.assign(genres=pd.Series(genres), year=years)
    return replace(data, items=items, users=data.users.assign(age=range(120)))


def main(argv: list[str] | None = None) -> None:
    """Ask every question on five folds and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny, to see it run")
    out = Path(__file__).parent / "results" / "new_item_causes.csv"
    parser.add_argument("--out", type=Path, default=out)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    data = small() if given.quick else load_movielens_100k()
    jobs = list(product(QUESTIONS, FOLDS[:1] if given.quick else FOLDS))
    errors = pd.concat(
        table.assign(question=question, case=case, fold=number)
        for ask, number in tqdm(jobs, desc="causes", unit="fold")
        for question, case, table in ask(data, number)
    )
    write_table(
        given.out,
        summary(errors),
        "python benchmarks/new_item_causes.py" + given.quick * " --quick",
        [
            "MovieLens-100K, folds and choices by seed 0; protocol of new_items.csv",
            "rmse: of each film (raters: of each rater who has under 20 ratings of "
            "older films; both new, five: of each new user), averaged over all folds; "
            "rmse_fold_0: over the first",
            "over, low, high: difference to the question's first case, 95% bootstrap, "
            "paired over tasks and stratified by fold (newest: of two sets of films)",
            "one variance: its size chosen on validation films; known raters: with 20 "
            "or more ratings learned from; newest films: one split, as fold 0",
        ],
    )


if __name__ == "__main__":
    main()
