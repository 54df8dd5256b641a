"""Side information as numbers."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from metarec.data import (
    clicks,
    load_movielens_100k,
    rating_data,
    synthetic_population,
)
from metarec.features import UserFeatures, item_feature_names, item_features

USERS = pd.DataFrame(
    {
        "user_id": [1, 2, 3, 4],
        "age": [20, 30, 40, 50],
        "gender": ["F", "M", "M", "M"],
        "occupation": ["writer", "other", "writer", "artist"],
    }
)


def test_columns_are_centred_and_a_known_user_is_their_row() -> None:
    features = UserFeatures.fit(USERS)
    table = features.encode(USERS)
    assert features.names[:3] == ("age", "gender=F", "gender=M")
    torch.testing.assert_close(table.mean(0), torch.zeros(6))
    known = USERS.loc[2, ["age", "gender", "occupation"]].to_dict()
    torch.testing.assert_close(features.encode_one(known), table[2:3])


def test_what_is_not_known_counts_as_the_mean() -> None:
    features = UserFeatures.fit(USERS)
    assert torch.equal(features.encode_one(None), torch.zeros(1, 6))
    only_age = features.encode_one({"age": 50})
    assert only_age[0, 0] == pytest.approx((50 - 35) / 15)
    assert torch.equal(only_age[0, 1:], torch.zeros(5))
    with pytest.raises(ValueError, match="shoe_size"):
        features.encode_one({"shoe_size": 42})


def test_data_without_side_information_have_no_columns() -> None:
    plain, _ = synthetic_population(n_users=10, n_items=40)
    assert UserFeatures.fit(plain.users).encode(plain.users).shape == (10, 0)
    assert item_features(plain).shape == (40, 0) and item_feature_names(plain) == []


@pytest.mark.slow
def test_the_columns_of_movielens_have_names() -> None:
    data = load_movielens_100k(progress=False)
    names, table = item_feature_names(data), item_features(data)
    assert len(names) == table.shape[1] == 20 and names[-1] == "year"
    toy_story = {n for n, v in zip(names, table[0], strict=True) if v == 1}
    assert toy_story == {"Animation", "Children's", "Comedy"}


@pytest.mark.slow
def test_a_click_is_a_rating_of_four_or_more() -> None:
    data = load_movielens_100k(progress=False)
    clicked = clicks(data)
    assert (clicked.ratings["rating"] == (data.ratings["rating"] >= 4)).all()
    assert clicked.scale.contains(clicked.ratings["rating"].to_numpy()).all()
    with pytest.raises(ValueError, match="choose a value within 1 to 5"):
        clicks(data, at=6)


def test_prices_and_categories_are_features() -> None:
    plain, _ = synthetic_population(n_users=10, n_items=6, ratings_per_user=5)
    items = pd.DataFrame(
        {
            "item_id": range(6),
            "genres": [("b",), None, ("a", "b"), (), (), ()],
            "year": [1990, None, 2020, None, None, None],
            "price": [1.0, 3.0, None, 1.0, 3.0, float("inf")],
            "category": ["tea", "tea", "jam", None, "", "jam"],
            "tags": [["hot", "new"], ["new"], ("hot",), None, [], ["hot"]],
            "sold": [True, False, True, False, True, False],
            "text": [f"number {i}" for i in range(6)],
            "since": pd.date_range("2024-01-01", periods=6),
        }
    )
    data = rating_data(plain.ratings, scale=plain.scale, items=items)
    with pytest.warns(UserWarning, match=r"\['text', 'since'\] are no features"):
        table = item_features(data)
        names = item_feature_names(data)
    known = pd.DataFrame(table.numpy(), columns=names)
    words = ["category=jam", "category=tea", "tags=hot", "tags=new"]
    assert names == ["a", "b", "year", "price", *words, "sold"]
    assert known["b"].tolist() == [1, 0, 1, 0, 0, 0]
    assert known["year"].tolist() == [-1, 0, 1, 0, 0, 0]  # of 15 years
    assert known["price"].tolist() == [-1, 1, 0, -1, 1, 0]  # a missing one: the mean
    assert known["category=tea"].tolist() == [1, 1, 0, 0, 0, 0]
    assert known["tags=hot"].tolist() == [1, 0, 1, 0, 0, 1]
    assert known["sold"].tolist() == [1, -1, 1, -1, 1, -1]


def test_a_vocabulary_is_bounded() -> None:
    brands = [f"brand {i // 2}" for i in range(600)] + ["big"] * 600
    features = UserFeatures.fit(pd.DataFrame({"brand": brands}))
    assert len(features.names) == 100 and "brand=big" in features.names
    with pytest.warns(UserWarning, match="brand"):
        small = UserFeatures.fit(pd.DataFrame({"brand": brands[:600]}))
    assert small.names == ()


def test_an_unknown_person_is_the_average_person() -> None:
    some = USERS.assign(age=[None, 30, 40, 50], gender=[None, "M", "M", "F"])
    features = UserFeatures.fit(some)
    table = features.encode(some)
    assert features.mean[0] == pytest.approx(40 / 15)  # of those who say it
    assert table[0, :3].tolist() == [0, 0, 0]
    third = 1 / 3
    assert table[1, 1:3].tolist() == pytest.approx([-third, third])
    nobody = torch.zeros(1, len(features.names))
    for nothing in (None, float("nan"), pd.NA, float("inf")):
        assert torch.equal(features.encode_one({"age": nothing}), nobody)
    for nothing in (None, float("nan"), "", "X", []):
        assert torch.equal(features.encode_one({"gender": nothing}), nobody)
    with pytest.raises(ValueError, match="age should be a number"):
        features.encode_one({"age": "old"})


def test_other_columns_of_users_and_files_of_version_01() -> None:
    users = USERS.assign(income=[10, 20, 30, 40], gender=[1, 2, 2, 2])
    features = UserFeatures.fit(users)
    assert features.names[1:3] == ("gender=1", "gender=2")  # a code is no amount
    some = UserFeatures.fit(users.assign(gender=[None, 1, 2, 2]))
    assert some.names[1:3] == ("gender=1", "gender=2")  # floats, since one is missing
    assert UserFeatures.fit(pd.DataFrame({"title": ["Dr", "Dr"]})).names == ()
    income = features.encode_one({"income": 40})[0, -1]
    assert income == pytest.approx(15 / users["income"].std(ddof=0))
    old = UserFeatures(("age", "gender=F"), (2.0, 0.5))
    assert old.encode_one({"age": 45, "gender": "F"}).tolist() == [[1.0, 0.5]]


def test_genres_are_0_and_1_and_a_year_counts_from_the_mean() -> None:
    plain, _ = synthetic_population(n_users=5, n_items=3, ratings_per_user=2)
    genres, years = [("War",), ("Drama", "War"), ()], pd.array([1980, None, 2010])
    items = plain.items.assign(genres=genres, year=years.astype("Int64"))
    data = replace(plain, items=items)
    assert item_feature_names(data) == ["Drama", "War", "year"]
    expected = torch.tensor([[0, 1, -1.0], [1, 1, 0], [0, 0, 1]]).double()
    torch.testing.assert_close(item_features(data), expected)


def test_a_click_is_a_rating_of_so_much_or_more() -> None:
    plain, _ = synthetic_population(n_users=10, n_items=40, ratings_per_user=20)
    whole = plain.ratings.assign(rating=plain.ratings["rating"].round().clip(1, 5))
    data = replace(plain, ratings=whole)
    found = clicks(data, at=3)
    expected = data.ratings["rating"].isin([3, 4, 5])
    assert found.ratings["rating"].tolist() == expected.astype(float).tolist()
    assert (found.scale.low, found.scale.high, found.scale.step) == (0, 1, 1)
    assert set(whole["rating"]) >= {1, 5}
    for at in (1, 6):
        with pytest.raises(ValueError, match=f"same side of {at}: .* within 1 to 5"):
            clicks(data, at=at)
