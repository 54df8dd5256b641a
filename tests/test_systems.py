"""All systems on a population whose tastes are known."""

from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from metarec.data import RatingData, rating_data, synthetic_population
from metarec.evaluation import Fold, cold_start
from metarec.features import item_features
from metarec.meta import MAML
from metarec.metrics import rank_candidates
from metarec.recommender import MetaRecommender
from metarec.systems import (
    GOALS,
    LEARNERS,
    METAS,
    MODELS,
    Parts,
    System,
    fit_system,
    hold_out,
    item_vectors,
)
from metarec.tasks import TaskSampler, UserHistories
from metarec.training import TrainingConfig
from metarec.validation import validation_score

GRID = list(product(MODELS, METAS, LEARNERS))
RATINGS = {3: 5, 17: 1, 39: 4, 8: 3}


@cache
def population() -> RatingData:
    """200 users, 80 items; genres, years and user columns that say nothing."""
    plain, _ = synthetic_population(n_users=200, n_items=80, dim=2, seed=3)
    rng = np.random.default_rng(0)
    genres = [tuple(g for g in ("a", "b") if rng.random() < 0.5) for _ in range(80)]
    items = plain.items.assign(year=rng.integers(1970, 2000, 80), genres=genres)
    users = plain.users.assign(
        age=rng.integers(18, 70, 200), gender=rng.choice(["F", "M"], 200)
    )
    return rating_data(plain.ratings, scale=plain.scale, users=users, items=items)


@cache
def choosers() -> RatingData:
    """The same users and items; what users choose and like is mostly of their kind.

    In `population` nobody chooses, so that a list has next to nothing to learn from.
    """
    plain, rng, rows = population(), np.random.default_rng(1), []
    for user in range(200):
        own = np.arange(80) % 4 == user % 4
        weight = np.where(own, 8.0, 1.0) * np.linspace(2, 1, 80)
        chosen = rng.choice(80, 30, replace=False, p=weight / weight.sum())
        for time, item in enumerate(chosen):
            stars = rng.integers(3, 6) if own[item] else rng.integers(1, 5)
            rows.append((f"u{user:03}", int(item), int(stars), time))
    table = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    users = plain.users.assign(user_id=[f"u{user:03}" for user in range(200)])
    return rating_data(table, scale=plain.scale, users=users, items=plain.items)


def data_for(goal: str) -> RatingData:
    return choosers() if goal == "lists" else population()


@cache
def fitted(
    model: str,
    meta: str,
    learner: str,
    implicit: bool = False,
    full: bool = False,
    goal: str = "stars",
) -> MetaRecommender:
    recommender = MetaRecommender(
        model,
        meta,
        learner,
        dim=2,
        implicit=implicit,
        full=full,
        goal=goal,
        config=TrainingConfig(epochs=6, learning_rate=0.03),
    )
    return recommender.fit(data_for(goal), torch.arange(160), progress=False)


def list_of_ten(recommender: MetaRecommender, histories: UserHistories) -> Tensor:
    """nDCG@10 of what strangers like after ten ratings: without the ten, and with."""
    tasks = histories.tasks(torch.arange(160, 200), 10, 10)
    unknown = replace(tasks.support, mask=torch.zeros_like(tasks.support.mask))
    read = recommender.model.likelihood.read(tasks.query, 80, tasks.support)
    x = torch.arange(80).expand(40, -1)
    scores = (recommender.meta.predict(s, x) for s in (unknown, tasks.support))
    lists = (rank_candidates(score, read.y > 0, read.mask, 10) for score in scores)
    return torch.stack([one.ndcg.nanmean() for one in lists])


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize(("model", "meta", "learner"), GRID)
def test_a_system_learns_adapts_and_recommends(
    model: str, meta: str, learner: str, goal: str, tmp_path: Path
) -> None:
    recommender = fitted(model, meta, learner, goal=goal)
    histories, strangers = UserHistories(data_for(goal)), torch.arange(160, 200)
    if goal == "lists":
        before, after = list_of_ten(recommender, histories)
        assert after > before + 0.05
    elif goal == "stars":
        error = cold_start(recommender.meta, histories, strangers, (0, 5))
        error = error.groupby("k")["rmse"].mean()
        assert error[5] < error[0] - 0.05
    else:
        before, after = (
            validation_score(recommender.meta, histories, strangers, (k,), goal)
            for k in (0, 5)
        )
        assert after < before - 0.05

    person = recommender.adapt(RATINGS, user={"age": 30})
    listed = person.recommend(76)
    assert not set(listed["item_id"]) & set(RATINGS)
    assert listed["score"].is_monotonic_decreasing and len(listed) == 76
    first = int(listed["item_id"][0])
    effects = person.explain(first).set_index("item_id")["effect"]
    assert set(effects.index) == set(RATINGS)
    others = {item: stars for item, stars in RATINGS.items() if item != 17}
    row = torch.tensor([first])
    left = recommender.adapt(others, user={"age": 30}).score(row)
    assert effects[17] == pytest.approx(float(person.score(row) - left), abs=1e-4)
    ratings = {"somebody": RATINGS, "nobody": {}}
    both = recommender.recommend_all(ratings, 5, surprise=0.7, progress=False)
    for label, group in both.groupby("user_id"):
        own = recommender.adapt(ratings[label]).recommend(5, surprise=0.7)
        assert group["item_id"].tolist() == own["item_id"].tolist()
        assert group["score"].to_numpy() == pytest.approx(own["score"], abs=1e-5)

    recommender.save(tmp_path / "one")
    again = MetaRecommender.load(tmp_path / "one")
    assert again.system == recommender.system
    twin = again.adapt(RATINGS, user={"age": 30})
    assert np.array_equal(twin.predict(), person.predict())

    if learner in ("bayesian", "in-context") and goal == "stars":
        _, std = person.predict(return_std=True)
        _, before = recommender.adapt().predict(return_std=True)
        assert (std < before).all() and (std > 0).all()
    else:
        why = 'learner="bayesian"' if goal == "stars" else "predicts no stars"
        with pytest.raises(ValueError, match=why):
            person.predict(return_std=True)


def test_each_goal_answers_its_own_question() -> None:
    stars, clicks, lists = (fitted(*GRID[0], goal=goal) for goal in GOALS)
    histories, someone = UserHistories(population()), torch.arange(160, 161)
    _, item, rating = histories.ratings_of(someone)
    known = dict(zip(item[:10].tolist(), rating[:10].tolist(), strict=True))
    scale = population().scale
    assert ((stars.adapt(known).predict() - 3.5).std()) > 0.2
    assert (stars.adapt(known).predict() <= scale.high).all()
    p = clicks.adapt(known).predict()
    assert ((p > 0) & (p < 1)).all()
    odds = clicks.adapt(known).score().sigmoid().numpy()
    assert np.allclose(p, odds, atol=1e-6)
    share = lists.adapt(known).predict()
    assert share.sum() == pytest.approx(1, abs=1e-4)
    some = lists.adapt(known).predict([3, 17])
    assert np.allclose(some, share[[3, 17]])  # a share of all, whatever is asked for
    assert lists.dim == 2 and MetaRecommender(goal="lists").dim == 16
    assert MetaRecommender().dim == 8
    with pytest.raises(ValueError, match="goal='list' does not exist: choose one of"):
        MetaRecommender(goal="list")


@pytest.mark.parametrize("goal", GOALS)
def test_surprise_takes_off_what_everybody_gets(goal: str) -> None:
    recommender = fitted(*GRID[0], goal=goal)
    me, nobody = recommender.adapt(RATINGS), recommender.adapt()
    for surprise in (0.0, 0.4, 1):
        expected = me.score() - surprise * nobody.score()
        mine = me.recommend(80, surprise=surprise)
        found = expected[torch.tensor(mine["item_id"].to_numpy())].numpy()
        assert mine["score"].to_numpy() == pytest.approx(found, abs=1e-6)
    assert nobody.recommend(3, surprise=1)["score"].tolist() == [0, 0, 0]
    for wrong in (-0.1, 1.5, np.nan, "1"):
        with pytest.raises(ValueError, match=r"surprise=.* pass a number from 0 to 1"):
            me.recommend(surprise=wrong)
        with pytest.raises(ValueError, match=r"surprise=.* pass a number from 0 to 1"):
            recommender.recommend_all({}, surprise=wrong)


def test_what_nobody_likes_teaches_no_list() -> None:
    data = population()
    poor = data.ratings.assign(rating=data.ratings["rating"].clip(1, 3))
    poor = rating_data(poor, scale=data.scale, items=data.items)
    for goal in ("clicks", "lists"):
        with pytest.raises(ValueError, match=r'no rating is 4 or more.*goal="stars"'):
            MetaRecommender(goal=goal).fit(poor, progress=False)


@pytest.mark.parametrize("model", MODELS)
def test_no_two_of_the_nine_cells_predict_the_same(model: str) -> None:
    scores = {
        cell: fitted(model, *cell).adapt(RATINGS).score().numpy()
        for cell in product(METAS, LEARNERS)
    }
    for one, other in product(scores, scores):
        if one < other:
            gap = np.abs(scores[one] - scores[other]).max()
            assert gap > 1e-3, f"{one} and {other} are the same"


@pytest.mark.parametrize(("model", "meta", "learner"), GRID)
def test_every_meta_parameter_gets_a_gradient(
    model: str, meta: str, learner: str
) -> None:
    system = fitted(model, meta, learner).meta
    histories = UserHistories(population())
    sampler = TaskSampler(histories, torch.arange(160, 200), (5,), meta_batch=40)
    (tasks,) = sampler(torch.Generator().manual_seed(0))
    frozen = {"model.item_factors", "model.item_offset"}
    trained = {n: p for n, p in system.named_parameters() if n not in frozen}
    for value in trained.values():
        value.requires_grad_(True)
    try:
        gradients = torch.autograd.grad(
            system.loss(tasks), list(trained.values()), allow_unused=True
        )
    finally:
        system.requires_grad_(False)
    for name, gradient in zip(trained, gradients, strict=True):
        assert gradient is not None and gradient.abs().sum() > 0, name


@pytest.mark.parametrize(("implicit", "full"), [(True, False), (True, True)])
def test_the_options_train_too(implicit: bool, full: bool, tmp_path: Path) -> None:
    recommender = fitted("mf", "meta-sgd", "bayesian", implicit, full)
    assert recommender.meta.model.implicit.abs().sum() > 0
    recommender.save(tmp_path / "one")
    again = MetaRecommender.load(tmp_path / "one").adapt(RATINGS)
    assert np.array_equal(again.predict(), recommender.adapt(RATINGS).predict())
    nobody = recommender.adapt().head
    assert torch.equal(nobody, recommender.meta.model.head)
    # The prior of these four items, whatever the stars.
    items = torch.tensor([list(RATINGS)])
    y = recommender.meta.model.implicit[items[0]].sum(0) / 2
    shifted = recommender.meta.prior(recommender.adapt(RATINGS).support).mean["head"]
    torch.testing.assert_close(shifted[0, :-1], nobody[:-1] + y)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"model": "svd"}, "choose one of mf, mlp, attention"),
        ({"meta": "reptile"}, "choose one of maml, meta-sgd, metamind"),
        (
            {"learner": "bayes"},
            "choose one of gradient, bayesian, attention, in-context",
        ),
        ({"full": True}, 'meta="meta-sgd"'),
    ],
)
def test_parts_that_do_not_exist_are_refused(parts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        System(**parts)


def test_what_is_not_known_of_a_user_is_refused() -> None:
    with pytest.raises(ValueError, match="shoe_size"):
        fitted("mlp", "maml", "bayesian").adapt({}, user={"shoe_size": 42})


def test_data_without_side_information_serve_every_recommender() -> None:
    plain, _ = synthetic_population(n_users=60, n_items=40, seed=1)
    config = TrainingConfig(epochs=2)
    for model in ("mf", "mlp"):
        small = MetaRecommender(model, dim=2, config=config)
        assert len(small.fit(plain, progress=False).adapt({3: 5}).recommend(5)) == 5
    mf = MetaRecommender("mf", dim=2, config=config).fit(plain, progress=False)
    alike = MetaRecommender("attention", dim=2, config=config)
    with pytest.warns(UserWarning, match="equals matrix factorisation"):
        alike.fit(plain, progress=False)
    torch.testing.assert_close(mf.adapt(RATINGS).score(), alike.adapt(RATINGS).score())


def test_the_recommender_and_the_evaluation_follow_one_recipe(
    data: RatingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever fits a system builds, samples and trains in `systems.fit_system`."""
    calls = []

    def stop(system: System, *rest: object, **more: object) -> MAML:
        calls.append(system)
        raise KeyboardInterrupt

    for place in ("systems", "evaluation.fold"):  # one asks by the room, one by name
        monkeypatch.setattr(f"metarec.{place}.fit_system", stop)
    with pytest.raises(KeyboardInterrupt):
        MetaRecommender(dim=2).fit(data, progress=False)
    with pytest.raises(KeyboardInterrupt):
        Fold(data).train(System("mlp"))
    assert [system.model for system in calls] == ["mf", "mlp"]


def test_a_system_is_the_same_each_time_and_serves_new_users(data: RatingData) -> None:
    histories = UserHistories(data)
    train, validation = hold_out(histories, torch.arange(data.n_users))
    assert len(validation) == data.n_users // 10
    assert not torch.isin(train, validation).any()
    features = item_features(data)
    config = TrainingConfig(epochs=2)
    found = []
    for _ in range(2):
        warm = item_vectors(histories, train, features, dim=2)
        parts = Parts.of(histories, train, warm, features)
        score = partial(validation_score, histories=histories, users=validation)
        meta = fit_system(System(), parts, histories, train, score, config)
        assert len(meta.model.item_factors) == data.n_items  # the copies are gone
        found.append(meta.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
