"""Training users are adapted on item vectors that were fitted without their ratings."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from metarec.data import RatingData, synthetic_population
from metarec.factors import WarmStart
from metarec.recommender import MetaRecommender
from metarec.systems import item_vectors
from metarec.training import TrainingConfig

Pairs = dict[Any, float]
SYSTEMS: list[dict[str, Any]] = [
    {},
    {"meta": "meta-sgd", "learner": "bayesian"},
    {"model": "attention"},
    {"model": "mlp", "meta": "metamind", "learner": "attention"},
    {"goal": "clicks"},
]


def name_of(user: int) -> str:
    return f"user {user}"


@pytest.fixture(scope="module")
def named(data: RatingData) -> RatingData:
    """The population with labels that are not rows, and genres to look at."""
    users = data.users.assign(user_id=[name_of(u) for u in range(data.n_users)])
    odd = [("odd",) if n % 2 else ("even",) for n in range(data.n_items)]
    return replace(data, users=users, items=data.items.assign(genres=odd))


@pytest.fixture(scope="module")
def histories(named: RatingData) -> dict[str, Pairs]:
    """Everybody's whole history: users 0 to 149 are learned from."""
    found = {}
    for user, own in named.ratings.groupby("user"):
        pairs = zip(own["item"], own["rating"].astype(float), strict=True)
        found[name_of(int(str(user)))] = dict(pairs)
    return found


def fit(data: RatingData, **settings: Any) -> MetaRecommender:
    config = TrainingConfig(epochs=3, learning_rate=0.05)
    recommender = MetaRecommender(dim=2, config=config, **settings)
    return recommender.fit(data, torch.arange(150), progress=False)


@pytest.fixture(scope="module", params=SYSTEMS, ids=str)
def recommender(request: pytest.FixtureRequest, named: RatingData) -> MetaRecommender:
    return fit(named, **request.param)


def test_a_training_user_is_adapted_on_the_vectors_without_them(
    named: RatingData,
    histories: dict[str, Pairs],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[WarmStart] = []

    def spy(*parts: Any, **more: Any) -> WarmStart:
        made.append(item_vectors(*parts, **more))
        return made[0]

    monkeypatch.setattr("metarec.systems.item_vectors", spy)
    recommender, n_items = fit(named), named.n_items
    (warm,), parts = made, set()
    rate = recommender.meta.log_scale.exp().item()
    start = recommender.model.head.numpy().astype(float)
    phi = np.c_[warm.factors.numpy(), np.ones(6 * n_items)].astype(float)
    offset = warm.offset.numpy().astype(float)
    for user in range(0, 160, 3):
        # The row is 0 for validation users, and for those beyond the 150.
        row = int(warm.item_rows[user])
        parts.add(row // n_items)
        mine = histories[name_of(user)]
        rated, stars = np.array(list(mine)), np.array(list(mine.values()))
        w, own, of_all = start, phi[row + rated], phi[:n_items]
        for _ in range(5):
            w = w + rate * own.T @ (stars - offset[row + rated] - own @ w)
        found = recommender.adapt(mine, user_id=name_of(user))
        expected = offset[:n_items] + of_all @ w
        np.testing.assert_allclose(found.score(), expected, atol=1e-4)
        np.testing.assert_allclose(found.head, w, atol=1e-4)
        anonymous = recommender.adapt(mine).score()
        assert torch.equal(found.score(), anonymous) == (row == 0)
        # Whoever has the label of nobody is new, whatever it is.
        for label in (user, "somebody", None, [user]):
            new = recommender.adapt(mine, user_id=label).score()
            assert torch.equal(new, anonymous)
    assert parts == set(range(6))


def test_lists_of_many_are_those_of_one_by_one(
    recommender: MetaRecommender,
    histories: dict[str, Pairs],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Known users, users to validate on and new ones, mixed and in batches of 7."""
    monkeypatch.setattr(
        "metarec.recommender.many.user_batches",
        lambda n, *_: [(first, min(first + 7, n)) for first in range(0, n, 7)],
    )
    order = np.random.default_rng(0).permutation(200)[:60].tolist()
    given = {
        name_of(u): dict(list(histories[name_of(u)].items())[: u % 31]) for u in order
    }
    lists = recommender.recommend_all(given, 5, 40, surprise=0.3, progress=False)
    assert lists["user_id"].unique().tolist() == list(given)
    differ = 0
    for label, rows in lists.groupby("user_id"):
        alone = recommender.adapt(given[label], user_id=label).recommend(5, 40, 0.3)
        rows = rows.reset_index(drop=True)
        assert rows["rank"].tolist() == list(range(1, len(alone) + 1))
        pd.testing.assert_frame_equal(rows[alone.columns.tolist()], alone, rtol=1e-5)
        new = recommender.adapt(given[label]).recommend(5, 40, 0.3)
        differ += not np.allclose(new["score"], alone["score"], atol=1e-6)
    assert 20 < differ < 50


@settings(max_examples=40, deadline=None, derandomize=True)
@given(users=some.lists(some.integers(0, 205), unique=True, max_size=12))
def test_whoever_else_is_asked_for_changes_no_list(
    plain: MetaRecommender, histories: dict[str, Pairs], users: list[int]
) -> None:
    given = {name_of(u): histories.get(name_of(u), {}) for u in users}
    lists = plain.recommend_all(given, 4, progress=False)
    assert lists["user_id"].tolist() == [name for name in given for _ in range(4)]
    for label, rows in lists.groupby("user_id"):
        alone = plain.adapt(given[label], user_id=label).recommend(4)
        assert rows["item_id"].tolist() == alone["item_id"].tolist()


@pytest.fixture(scope="module")
def plain(named: RatingData) -> MetaRecommender:
    return fit(named)


def test_effects_are_those_of_vectors_without_the_user(
    plain: MetaRecommender, histories: dict[str, Pairs]
) -> None:
    mine = histories[name_of(0)]
    own, new = plain.adapt(mine, user_id=name_of(0)), plain.adapt(mine)
    table = own.explain(3).set_index("item_id")
    item = next(iter(mine))
    fewer = {other: stars for other, stars in mine.items() if other != item}
    left = plain.adapt(fewer, user_id=name_of(0)).score()[3]
    expected = float(own.score()[3] - left)
    assert table.loc[item, "effect"] == pytest.approx(expected, abs=1e-5)
    assert not np.allclose(own.predict(), new.predict(), atol=1e-4)


@pytest.mark.parametrize(
    "label",
    [int, str, lambda n: ("shop", n), lambda n: UUID(int=n), np.int64],
    ids=["int", "str", "tuple", "uuid", "int64"],
)
def test_a_file_knows_whose_table_is_whose(
    data: RatingData, label: Any, tmp_path: Path
) -> None:
    names = [label(n + 1000) for n in range(data.n_users)]
    users = pd.DataFrame({"user_id": pd.Series(names, dtype=object)})
    recommender = fit(replace(data, users=users))
    recommender.save(tmp_path / "one")
    again = MetaRecommender.load(tmp_path / "one")
    mine = {3: 5.0, 10: 1.0, 42: 4.0}
    for user in (0, 1, 2, 3, 160):
        found = again.adapt(mine, user_id=names[user]).score()
        assert torch.equal(found, recommender.adapt(mine, user_id=names[user]).score())
    everybody = dict.fromkeys(names, mine)
    pd.testing.assert_frame_equal(
        again.recommend_all(everybody, 3, progress=False),
        recommender.recommend_all(everybody, 3, progress=False),
    )
    apart = {round(float(again.adapt(mine, user_id=n).score()[5]), 5) for n in names}
    assert len(apart) == 6


def test_user_labels_that_no_file_holds_are_refused_before_training(
    data: RatingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [frozenset([n]) for n in range(data.n_users)]
    monkeypatch.setattr("metarec.systems.fit_system", None)
    with pytest.raises(ValueError, match=r"named by a frozenset.*name them by text"):
        fit(replace(data, users=pd.DataFrame({"user_id": names})))


def test_lists_have_no_copies(named: RatingData, histories: dict[str, Pairs]) -> None:
    """They train it, and no user's part is left out of it."""
    recommender, mine = fit(named, goal="lists"), histories[name_of(0)]
    own = recommender.adapt(mine, user_id=name_of(0)).score()
    assert torch.equal(own, recommender.adapt(mine).score())


@pytest.mark.parametrize("learner", ["gradient", "bayesian"])
def test_whole_histories_of_training_users_stay_nearer_the_scale(learner: str) -> None:
    """Few users with many ratings each: their own ratings pulled the item vectors."""
    sizes = {"n_users": 60, "n_items": 300, "ratings_per_user": 100}
    data, _ = synthetic_population(**sizes, dim=2, seed=1)
    recommender = MetaRecommender(learner=learner, config=TrainingConfig(epochs=5))
    recommender.fit(data, progress=False)
    farthest = []
    for user, own in data.ratings.groupby("user"):
        pairs = list(zip(own["item"], own["rating"].astype(float), strict=True))
        people = [recommender.adapt(pairs, user_id=name) for name in (user, None)]
        listed = [person.recommend(300)["score"] for person in people]
        farthest.append([(score - 3).abs().max() for score in listed])
    named, new = np.array(farthest).T
    # Validation users, a tenth, are in no copy.
    assert (named == new).sum() == 6
    assert (new - named).mean() > 0.015
    assert named.max() < new.max() - 0.03 and named.max() < 2 + 1.25
