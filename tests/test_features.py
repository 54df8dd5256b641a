"""Side information as numbers."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from metarec.data import clicks, load_movielens_100k, synthetic_population
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
    for at in (1, 6):
        with pytest.raises(ValueError, match="same side"):
            clicks(data, at=at)
