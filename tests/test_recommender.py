"""The full system: a user arrives, gets a list, an explanation; files and bad input."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from metarec.data import RatingData, SyntheticTruth
from metarec.evaluation import check_no_leak, cold_start
from metarec.meta import MAML
from metarec.recommender import MetaRecommender, UnknownItemError
from metarec.recommender.many import user_batches
from metarec.tasks import UserHistories, UserSplit
from metarec.training import TrainingConfig, meta_train

USERS = torch.arange(150)
RATINGS = {3: 5.0, 10: 1.0, 42: 4.0, 55: 2.0, 70: 4.5}


def fit(data: RatingData) -> MetaRecommender:
    config = TrainingConfig(epochs=10, learning_rate=0.05)
    return MetaRecommender(dim=2, config=config).fit(data, USERS, progress=False)


@pytest.fixture(scope="module")
def recommender(data: RatingData) -> MetaRecommender:
    return fit(data)


@pytest.fixture(scope="module")
def described(data: RatingData) -> RatingData:
    """The same ratings, with something known of users and of items."""
    gender = ["F", "M"] * (data.n_users // 2)
    genres = [("odd",) if n % 2 else ("even",) for n in range(data.n_items)]
    return replace(
        data,
        users=data.users.assign(gender=gender),
        items=data.items.assign(genres=genres),
    )


def test_ten_ratings_help_new_users(
    population: tuple[RatingData, SyntheticTruth], recommender: MetaRecommender
) -> None:
    data, _ = population
    histories = UserHistories(data)
    table = cold_start(recommender.meta, histories, torch.arange(150, 200))
    error = table.groupby("k")["rmse"].mean()
    assert error[10] < error[5] < error[1] < error[0]
    assert error[10] < 0.9 * error[0]


def test_nothing_of_a_user_outside_enters(data: RatingData) -> None:
    split = UserSplit(USERS, torch.tensor([], dtype=torch.long), torch.arange(150, 200))
    check_no_leak(lambda d: fit(d).meta, data, split)


def test_adapting_is_a_few_steps_on_the_sum_of_squares(
    recommender: MetaRecommender,
) -> None:
    model = recommender.meta.model
    w = model.head.detach().numpy().astype(float)
    rate = recommender.meta.log_scale.exp().item()
    items = [list(RATINGS).index(i) for i in RATINGS]
    assert items == sorted(items)
    q = model.item_factors[list(RATINGS)].numpy().astype(float)
    phi = np.column_stack([q, np.ones(5)])
    rest = np.array(list(RATINGS.values())) - model.item_offset[list(RATINGS)].numpy()
    for _ in range(recommender.system.steps):
        w = w + rate * phi.T @ (rest - phi @ w)
    np.testing.assert_allclose(recommender.adapt(RATINGS).head, w, atol=1e-5)


def test_what_was_learned_is_what_serves(
    data: RatingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def spy(meta: MAML, *rest: object) -> None:
        meta_train(meta, *rest)  # type: ignore[arg-type]
        trained.append(meta)

    monkeypatch.setattr("metarec.systems.meta_train", spy)
    served, learned = fit(data).meta, trained[0]
    assert learned.log_scale.item() != pytest.approx(np.log(0.01), abs=1e-3)
    assert torch.equal(served.log_scale, learned.log_scale)
    assert torch.equal(served.model.head, learned.model.head)


def test_a_list_holds_unseen_items_best_first(recommender: MetaRecommender) -> None:
    user = recommender.adapt(RATINGS)
    table = user.recommend(100)
    assert len(table) == 75 and not set(table["item_id"]) & set(RATINGS)
    assert (table["score"].diff().dropna() <= 0).all()
    best = table["item_id"].tolist()[:5]
    stars = user.predict()
    stars[list(RATINGS)] = -1
    assert set(best) == set(np.argsort(-stars, kind="stable")[:5]) or stars.max() == 5
    often = user.recommend(100, min_ratings=60)["item_id"]
    counts = recommender.items.set_index("item_id")["ratings"]
    assert 0 < len(often) < 75 and (counts[often] >= 60).all()


def test_a_better_rating_raises_the_score_of_the_item(
    recommender: MetaRecommender,
) -> None:
    low, high = (recommender.adapt({3: stars}).predict([3])[0] for stars in (1, 5))
    assert high > low + 0.1


def test_an_effect_is_the_score_less_the_score_without(
    recommender: MetaRecommender,
) -> None:
    table = recommender.adapt(RATINGS).explain(20).set_index("item_id")
    whole = recommender.adapt(RATINGS).score()[20]
    for item in RATINGS:
        fewer = {other: stars for other, stars in RATINGS.items() if other != item}
        left = recommender.adapt(fewer).score()[20]
        assert table.loc[item, "effect"] == pytest.approx(float(whole - left), abs=1e-5)
    assert (table["effect"].abs().diff().dropna() <= 0).all()


def test_effects_that_tie_stay_in_the_order_of_the_ratings(
    recommender: MetaRecommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without one of 60 ratings the score is 0 or 1, with all of them 0.
    scores = (torch.arange(61) % 2)[:, None].float()
    monkeypatch.setattr(
        "metarec.recommender.personal.score_items", lambda *_: scores.clone()
    )
    rated = np.random.default_rng(0).permutation(80)[:60].tolist()
    found = recommender.adapt([(item, 3.0) for item in rated]).explain(rated[0])
    assert found["item_id"].tolist() == rated[1::2] + rated[::2]


def test_no_ratings_give_the_prior(recommender: MetaRecommender) -> None:
    user = recommender.adapt()
    assert torch.equal(user.head, recommender.meta.model.head)
    assert len(user.explain(3)) == 0 and len(user.recommend(3)) == 3
    assert np.array_equal(user.predict(), recommender.adapt({}).predict())


def test_three_ways_to_hand_over_ratings(recommender: MetaRecommender) -> None:
    pairs = list(RATINGS.items())
    table = pd.DataFrame(pairs, columns=["item_id", "rating"])
    expected = recommender.adapt(RATINGS).predict()
    for ratings in (pairs, table, iter(pairs)):
        assert np.array_equal(recommender.adapt(ratings).predict(), expected)


@pytest.mark.parametrize(
    ("ratings", "error", "match"),
    [
        ({999: 4.0}, UnknownItemError, "unknown item 999 .* such as 0"),
        ({3: 6.0}, ValueError, "rating 6.0 of item 3 is not on the scale 1 to 5"),
        ({3: float("nan")}, ValueError, "rating nan of item 3"),
        ([(3, 4.0), (3, 5.0)], ValueError, "item 3 is rated twice"),
        (pd.DataFrame({"item": [3]}), ValueError, "rename its columns"),
    ],
)
def test_bad_ratings_say_what_to_do(
    recommender: MetaRecommender, ratings: object, error: type, match: str
) -> None:
    with pytest.raises(error, match=match):
        recommender.adapt(ratings)  # type: ignore[arg-type]


def test_more_users_than_items_rate_what_others_rate(
    recommender: MetaRecommender,
) -> None:
    many = {user: {0: 4.0, 1: 3.0} for user in range(len(recommender.items) + 9)}
    listed = recommender.recommend_all(many, 1, progress=False)
    assert listed["user_id"].tolist() == list(many)
    with pytest.raises(ValueError, match="user 85: item 1 is rated twice"):
        recommender.recommend_all(many | {85: [(1, 3.0), (1, 4.0)]}, progress=False)


def test_saving_and_loading_keep_every_answer(
    recommender: MetaRecommender, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    recommender.save(path)
    loaded = MetaRecommender.load(path)
    for ratings in ({}, RATINGS):
        one, two = (r.adapt(ratings) for r in (recommender, loaded))
        assert np.array_equal(one.predict(), two.predict())
        pd.testing.assert_frame_equal(one.recommend(9), two.recommend(9))
        pd.testing.assert_frame_equal(one.explain(3), two.explain(3))
    assert loaded.config == recommender.config and loaded.scale == recommender.scale


@pytest.mark.parametrize(
    "parts",
    [
        {"model": "mlp", "implicit": True},
        {"model": "attention", "meta": "metamind"},
        {"learner": "attention"},
    ],
    ids=str,
)
def test_a_file_says_its_sizes_and_one_of_version_0_1_is_read(
    described: RatingData, parts: dict[str, Any], tmp_path: Path
) -> None:
    fitted = MetaRecommender(dim=2, config=TrainingConfig(epochs=1), **parts)
    fitted.fit(described, USERS, progress=False)
    expected = fitted.adapt(RATINGS).predict()
    fitted.save(tmp_path / "new")
    with safe_open(tmp_path / "new", framework="pt") as file:
        about = json.loads(file.metadata()["metarec"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    sizes = about.pop("sizes")
    assert sizes == {
        "n_items": 80,
        "n_rows": 480,
        "dim": 2,
        "n_features": 2,
        "n_profile": 2,
        "n_tasks": 135,
    }
    # Version 0.1 wrote no sizes: they follow from the shapes.
    about["format"] = "metarec recommender 2"
    text = {"metarec": json.dumps(about)}
    save_file(tensors, tmp_path / "old", metadata=text)
    for name in ("new", "old"):
        again = MetaRecommender.load(tmp_path / name).adapt(RATINGS)
        assert np.array_equal(again.predict(), expected)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(FileNotFoundError, match="no file"):
        MetaRecommender.load(path)
    path.write_bytes(b"garbage that is no model at all")
    with pytest.raises(ValueError, match="no saved recommender"):
        MetaRecommender.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="of this version"):
        MetaRecommender.load(path)


def test_before_fitting_there_is_nothing_to_adapt() -> None:
    with pytest.raises(RuntimeError, match="call fit"):
        MetaRecommender().adapt({1: 3})


def test_too_few_users_are_refused(data: RatingData) -> None:
    with pytest.raises(ValueError, match="at least 20"):
        MetaRecommender().fit(data, torch.arange(10))


def test_fitting_twice_gives_the_same(
    data: RatingData, recommender: MetaRecommender
) -> None:
    again = fit(data).meta.state_dict()
    for name, value in recommender.meta.state_dict().items():
        assert torch.equal(value, again[name])


@pytest.mark.parametrize(("wide", "most"), [(True, 2**18), (False, 2**21)])
def test_users_are_cut_into_what_memory_holds(wide: bool, most: int) -> None:
    for n_items in (most // 4, most // 3, 2 * most):
        parts = list(user_batches(9, n_items, wide))
        sizes = [last - first for first, last in parts]
        assert [user for part in parts for user in range(*part)] == [*range(9)]
        # As many as fit, or one alone.
        assert sizes[0] == max(1, most // n_items)
