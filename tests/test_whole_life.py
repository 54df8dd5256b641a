"""A recommender for every user: what the tables of whole lives say, and a few runs."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from metarec import MetaRecommender
from metarec.data import RatingData, load_movielens_100k
from metarec.evaluation import Fold, read_table
from metarec.evaluation.methods import BASELINES, SYSTEMS

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks/results"
GRID = list(SYSTEMS)[:27]
BAYESIAN = "mf + maml + bayesian"


def board(folder: str) -> pd.DataFrame:
    return read_table(RESULTS / "leaderboard" / folder / "summary.csv")


@pytest.fixture(scope="module")
def movielens() -> RatingData:
    return load_movielens_100k(progress=False)


@pytest.fixture(scope="module")
def fold(movielens: RatingData) -> Fold:
    return Fold(movielens)


@pytest.mark.parametrize("protocol", ["whole-life", "last-20"])
def test_every_method_is_judged_on_whole_lives(protocol: str) -> None:
    table = board(protocol)
    of_stars = {name for name, system in SYSTEMS.items() if system.goal == "stars"}
    assert {*BASELINES, *GRID} <= set(table["method"]) <= {*BASELINES, *of_stars}
    assert len(GRID) == 27
    # Clipping hides nothing of a system: no prediction is far off the scale.
    systems = table[table["method"].isin(GRID)]
    assert (systems["unclipped"] - systems["rmse"]).between(0, 0.02).all()


def test_at_hundreds_of_ratings_every_system_is_near_the_bayesian_one() -> None:
    table = board("last-20").pivot_table("difference", "method", "k")
    for k in (200, 300):
        assert (table.loc[GRID, k] < table.loc[BAYESIAN, k] + 0.05).all()
        assert (table.loc[GRID, k] < table.loc["user mean", k] - 0.1).all()


def test_whole_histories_leave_no_score_of_any_system_far_off_the_scale() -> None:
    table = pd.read_csv(RESULTS / "extremes.csv", comment="#")
    assert len(table) == 27 and (table["beyond"] < 1.25).all()


def test_more_of_a_life_never_makes_a_system_worse() -> None:
    table = board("whole-life").pivot_table("rmse", "method", "k")
    assert (table.loc[GRID].diff(axis=1).iloc[:, 1:] < 0).all(axis=None)
    assert (table.loc[GRID].sub(table.loc["biases"]) < 0).all(axis=None)


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["gradient", "bayesian"])
def test_lists_from_whole_histories_stay_near_the_scale(
    movielens: RatingData, fold: Fold, learner: str
) -> None:
    users = torch.cat([fold.split.train, fold.split.validation])
    fitted = MetaRecommender(learner=learner).fit(movielens, users, progress=False)
    items = movielens.items["item_id"].to_numpy()[movielens.ratings["item"]]
    labels = movielens.users["user_id"].to_numpy()[movielens.ratings["user"]]
    given = movielens.ratings.assign(user_id=labels, item_id=items)
    lists = fitted.recommend_all(given, progress=False)
    assert lists["user_id"].nunique() == movielens.n_users
    assert lists["score"].between(1 - 1.25, 5 + 1.25).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["mf + maml + gradient", "mf + meta-sgd + gradient", "mf + metamind + gradient"],
)
def test_gradient_descent_holds_at_hundreds_of_ratings_and_is_itself_at_few(
    fold: Fold, name: str
) -> None:
    ours = fold.train(SYSTEMS[name])
    rival = fold.train(SYSTEMS[BAYESIAN])
    long, sure = (
        fold.judge(method, (200, 300), "last-20").groupby("k")["rmse"].mean()
        for method in (ours, rival)
    )
    assert (long < sure + 0.05).all()
    few = fold.judge(ours).groupby("k")["rmse"].mean()
    errors = pd.read_csv(RESULTS / "leaderboard/errors.csv.xz")
    known = errors[(errors["method"] == name) & (errors["fold"] == 0)]
    assert (few - known.groupby("k")["rmse"].mean()).abs().max() < 0.001
