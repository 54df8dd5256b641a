"""Many users at once, in batches and in threads: the answers of one after the other."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

from metarec.data import RatingData, rating_data
from metarec.recommender import MetaRecommender, UnknownItemError
from metarec.recommender.many import best_items
from metarec.training import TrainingConfig

SYSTEMS = [
    {},
    {"meta": "meta-sgd", "learner": "bayesian"},
    {"model": "mlp"},
    {"model": "attention"},
    {"model": "mlp", "meta": "metamind", "learner": "attention"},
]
Given = dict[int, list[tuple[int, float]]]


@pytest.fixture(scope="module")
def described(data: RatingData) -> RatingData:
    """The population with ages and genres, for the systems that look at them."""
    rng = np.random.default_rng(0)
    users = data.users.assign(age=rng.integers(18, 60, data.n_users))
    genres = [
        tuple(np.array(["a", "b", "c"])[row]) for row in rng.random((80, 3)) < 0.5
    ]
    items = pd.DataFrame({"item_id": np.arange(80), "genres": genres})
    return rating_data(data.ratings, users=users, items=items)


@pytest.fixture(scope="module", params=SYSTEMS, ids=str)
def recommender(
    request: pytest.FixtureRequest, described: RatingData
) -> MetaRecommender:
    config = TrainingConfig(epochs=2)
    model = MetaRecommender(dim=2, config=config, **request.param)
    return model.fit(described, torch.arange(150), progress=False)


@pytest.fixture(scope="module")
def given(data: RatingData) -> Given:
    """0 to 20 ratings each of 50 users."""
    found = {}
    for user in range(150, 200):
        own = data.ratings[data.ratings["user"] == user].head((user - 150) % 21)
        found[user] = list(zip(own["item"], own["rating"].astype(float), strict=True))
    return found


def test_lists_in_batches_are_those_of_one_by_one(
    recommender: MetaRecommender, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {user: {"age": user - 130} for user in given if user % 2}
    monkeypatch.setattr(
        "metarec.recommender.many.user_batches",
        lambda n, *_: [(0, 17), (17, 18), (18, n)],
    )
    found = recommender.recommend_all(given, 7, 40, about, progress=False)
    assert found.columns.tolist() == ["user_id", "rank", "item_id", "title", "score"]
    for user, rows in found.groupby("user_id"):
        alone = recommender.adapt(given[user], about.get(user)).recommend(7, 40)
        rows = rows.reset_index(drop=True)
        assert rows["rank"].tolist() == list(range(1, len(alone) + 1))
        pd.testing.assert_frame_equal(rows[alone.columns.tolist()], alone, rtol=1e-5)
    assert found["user_id"].unique().tolist() == list(given)


def test_eight_threads_give_the_answers_of_one(
    recommender: MetaRecommender, given: Given
) -> None:
    def scores(user: int) -> torch.Tensor:
        return recommender.adapt(given[user], {"age": 30}).score()

    users = list(given) * 8
    alone = [scores(user) for user in users]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(scores, users))
    assert all(map(torch.equal, alone, together))


@pytest.fixture(scope="module")
def plain(data: RatingData) -> MetaRecommender:
    config = TrainingConfig(epochs=0)
    return MetaRecommender(dim=2, config=config).fit(data, progress=False)


def test_a_table_of_ratings_serves_as_well(
    plain: MetaRecommender, given: Given
) -> None:
    given = {user: pairs for user, pairs in given.items() if pairs}
    rows = [(user, *pair) for user, pairs in given.items() for pair in pairs]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])
    expected = plain.recommend_all(given, progress=False)
    pd.testing.assert_frame_equal(plain.recommend_all(table, progress=False), expected)
    # Rows of users in turn: each user's stay in their order.
    mixed = table.iloc[np.random.default_rng(0).permutation(len(table))]
    found = plain.recommend_all(mixed, progress=False)
    assert found["user_id"].unique().tolist() == mixed["user_id"].unique().tolist()
    back = found.sort_values(["user_id", "rank"], ignore_index=True)
    pd.testing.assert_frame_equal(back, expected, rtol=1e-5)


def test_nobody_gets_no_list(plain: MetaRecommender) -> None:
    assert len(plain.recommend_all({}, progress=False)) == 0
    assert len(plain.recommend_all({"new": {}}, 3, progress=False)) == 3
    assert len(plain.recommend_all({"new": {}}, 3, 10**9, progress=False)) == 0


@pytest.mark.parametrize(
    ("ratings", "error", "match"),
    [
        ({"x": {3: 4.0}, "y": {999: 4.0}}, UnknownItemError, "unknown item 999"),
        (
            {"x": {3: 4.0}, "y": {5: 6.0}},
            ValueError,
            "user 'y': the rating 6.0 of item 5",
        ),
        ({"y": {5: float("nan")}}, ValueError, "user 'y': the rating nan"),
        ({"y": [(5, 2), (5, 3)]}, ValueError, "user 'y': item 5 is rated twice"),
        (pd.DataFrame({"user_id": [1]}), ValueError, "no column .* 'rating'"),
        (
            pd.DataFrame({"user_id": [None], "item_id": [3], "rating": [4]}),
            ValueError,
            "no user_id",
        ),
    ],
)
def test_bad_ratings_name_the_user(
    plain: MetaRecommender, ratings: object, error: type, match: str
) -> None:
    with pytest.raises(error, match=match):
        plain.recommend_all(ratings, progress=False)  # type: ignore[arg-type]


def test_the_best_are_those_of_a_stable_sort() -> None:
    score = np.random.default_rng(0).integers(0, 4, (30, 12)).astype(float)
    score[score == 0] = -np.inf
    for n in (0, 1, 5, 12, 20):
        row, rank, column = best_items(score, n)
        for at in range(30):
            expected = np.argsort(-score[at], kind="stable")[:n]
            expected = expected[score[at][expected] > -np.inf]
            assert column[row == at].tolist() == expected.tolist()
            assert rank[row == at].tolist() == list(range(len(expected)))
