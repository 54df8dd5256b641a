"""Any DataFrame or CSV: what is accepted, and what each kind of bad input is told."""

import dataclasses
import hashlib

import numpy as np
import pandas as pd
import pytest

from metarec.data import (
    RatingScale,
    rating_data,
    read_csv,
    synthetic_population,
)

GOOD = {
    "user": ["bo", "al", "bo"],
    "item": [30, 10, 10],
    "rating": [5, 1, 3],
    "timestamp": [7, 8, 9],
}


def frame(**columns):
    return pd.DataFrame(GOOD | columns)


def test_canonical_columns_and_indices():
    data = rating_data(frame(), name="mine")
    assert data.ratings.dtypes.astype(str).to_dict() == {
        "user": "int64",
        "item": "int64",
        "rating": "float32",
        "timestamp": "int64",
    }
    # Source order is kept; indices follow the sorted labels.
    assert data.ratings.to_numpy().tolist() == [
        [1, 1, 5, 7],
        [0, 0, 1, 8],
        [1, 0, 3, 9],
    ]
    assert data.users["user_id"].tolist() == ["al", "bo"]
    assert data.items["item_id"].tolist() == [10, 30]
    assert data.items["title"].tolist() == ["10", "30"]
    assert data.items["year"].isna().all()
    assert data.items["genres"].tolist() == [(), ()]
    assert (data.n_users, data.n_items, data.name) == (2, 2, "mine")


def test_input_is_left_alone_and_its_index_ignored():
    given = frame().set_axis([5, 5, 5])
    before = given.copy()
    data = rating_data(given)
    pd.testing.assert_frame_equal(given, before)
    assert data.ratings.index.tolist() == [0, 1, 2]


def test_mapping_and_unknown_timestamps():
    renamed = frame().rename(columns={"user": "who", "rating": "stars"})
    del renamed["timestamp"]
    data = rating_data(renamed, columns={"user": "who", "rating": "stars"})
    assert data.ratings["timestamp"].tolist() == [0, 0, 0]


def test_datetimes_become_seconds():
    days = pd.to_datetime([86400, 0, 10**9], unit="s")
    data = rating_data(frame(timestamp=days))
    assert data.ratings["timestamp"].tolist() == [86400, 0, 10**9]


def test_tables_of_users_and_items_fix_the_order_and_keep_the_unrated():
    users = pd.DataFrame({"user_id": ["bo", "cy", "al"], "age": [1, 2, 3]})
    items = pd.DataFrame(
        {"item_id": [10, 20, 30], "title": list("abc"), "genres": [("x",), (), ["y"]]}
    )
    data = rating_data(frame(), users=users, items=items)
    assert data.ratings["user"].tolist() == [0, 2, 0]
    assert data.ratings["item"].tolist() == [2, 0, 0]
    assert (data.n_users, data.n_items) == (3, 3)
    assert data.users["age"].tolist() == [1, 2, 3]
    assert data.items["genres"].tolist() == [("x",), (), ("y",)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rating": [5, np.nan, 3]}, "row 1: column 'rating' is empty"),
        ({"rating": [5, 1, "good"]}, "row 2: 'good' in 'rating' is not a number"),
        ({"rating": [5, np.inf, 3]}, "row 1: inf in 'rating' is not a number"),
        (
            {"rating": [5, 0, 7]},
            r"row 1 \(and 1 more rows\): rating 0 is off the scale",
        ),
        ({"user": ["bo", None, "al"]}, "row 1: column 'user' is empty"),
        ({"item": [30, np.nan, 10]}, "row 1: column 'item' is empty"),
        ({"timestamp": [7, 8, np.nan]}, "row 2: column 'timestamp' is empty"),
        ({"timestamp": ["today", "8", "9"]}, "row 0: 'today' in 'timestamp' is not a"),
        (
            {"timestamp": pd.to_datetime(["2020-01-01", None, "2020-01-01"])},
            "row 1: column 'timestamp' is empty",
        ),
        ({"item": [10, 10, 10]}, "user bo rated item 10 more than once, in rows 0, 2"),
    ],
)
def test_bad_rows_are_named(columns, message):
    with pytest.raises(ValueError, match=message):
        rating_data(frame(**columns))


@pytest.mark.parametrize(
    ("scale", "liked"),
    [
        ((1, 5, 1), [4, 5]),
        ((0.5, 5, 0.5), [4, 4.5, 5]),
        ((0, 1, 1), [1]),
        ((1, 10, 1), [8, 9, 10]),
    ],
)
def test_the_upper_quarter_of_a_scale_is_liked(
    scale: tuple[float, float, float], liked: list[float]
) -> None:
    steps = np.arange(scale[0], scale[1] + scale[2], scale[2])
    assert steps[steps >= RatingScale(*scale).like].tolist() == liked


def test_ratings_between_the_steps_are_off_the_scale():
    half_stars = RatingScale(0.5, 5, 0.5)
    assert rating_data(frame(rating=[0.5, 4.5, 5]), scale=half_stars).n_users == 2
    with pytest.raises(ValueError, match=r"rating 4\.25 is off .* in steps of 0\.5"):
        rating_data(frame(rating=[0.5, 4.25, 5]), scale=half_stars)
    with pytest.raises(ValueError, match="row 0: rating 0 is off"):
        rating_data(frame(rating=[0, 4.5, 5]), scale=half_stars)
    tenths = RatingScale(0, 1, 0.1)
    assert tenths.contains(np.arange(11) / 10).all()


@pytest.mark.parametrize("bounds", [(5, 1), (1, 1), (1, 5, 0), (1, 5, 6), (np.nan, 5)])
def test_impossible_scales(bounds):
    with pytest.raises(ValueError, match=r"low < high|does not fit"):
        RatingScale(*bounds)


def test_missing_column_says_what_there_is_and_what_to_give():
    with pytest.raises(ValueError, match=r"'rating' for the rating.*'stars'.*columns="):
        rating_data(frame().rename(columns={"rating": "stars"}))
    with pytest.raises(ValueError, match="no column 'when' for the timestamp"):
        rating_data(frame().drop(columns="timestamp"), columns={"timestamp": "when"})
    with pytest.raises(
        ValueError, match=r"columns maps \['stars'\]; its keys are user"
    ):
        rating_data(frame(), columns={"stars": "rating"})


def test_empty_table():
    with pytest.raises(ValueError, match="no rows"):
        rating_data(frame().iloc[:0])


def test_labels_that_the_tables_do_not_know():
    with pytest.raises(
        ValueError, match="row 1: user 'al' is not in the table of users"
    ):
        rating_data(frame(), users=pd.DataFrame({"user_id": ["bo"]}))
    with pytest.raises(ValueError, match="row 0: item 30 is not in the table of items"):
        rating_data(frame(), items=pd.DataFrame({"item_id": [10]}))
    with pytest.raises(ValueError, match="item_id 10 stands twice"):
        rating_data(frame(), items=pd.DataFrame({"item_id": [10, 10, 30]}))
    with pytest.raises(ValueError, match="table of users has no column 'user_id'"):
        rating_data(frame(), users=pd.DataFrame({"id": ["bo"]}))
    words = pd.DataFrame({"item_id": [10, 30], "genres": [("a",), 3]})
    with pytest.raises(
        ValueError, match="row 1: the genres of an item are words, such"
    ):
        rating_data(frame(), items=words)


def test_genres_in_a_file_are_words_in_one_text(tmp_path):
    # The table of items that a shop exports: no cell of a CSV is a tuple.
    file, films = tmp_path / "ratings.csv", tmp_path / "films.csv"
    file.write_text("user,item,rating\n" + "".join(f"u,{n},3\n" for n in range(5)))
    texts = ["War|Comedy", '"War, Comedy"', "Film-Noir;War", "", "Drama"]
    lines = "".join(f"{n},{text}\n" for n, text in enumerate(texts))
    films.write_text("item_id,genres\n" + lines)
    data = read_csv(file, items=films)
    both = ("War", "Comedy")
    assert data.items["genres"].tolist() == [
        *(both, both, ("Film-Noir", "War"), (), ("Drama",))
    ]


def test_the_last_of_duplicates_is_by_time_then_by_order():
    twice = pd.DataFrame(
        [
            ("a", 1, 5, 30),  # the latest of (a, 1), though first in the file
            ("a", 1, 1, 10),
            ("b", 1, 2, 10),  # a tie in time: the later row counts
            ("b", 1, 4, 10),
            ("a", 2, 3, 20),
        ],
        columns=["user", "item", "rating", "timestamp"],
    )
    data = rating_data(twice, duplicates="last")
    assert data.ratings.to_numpy().tolist() == [
        [0, 0, 5, 30],
        [1, 0, 4, 10],
        [0, 1, 3, 20],
    ]
    assert data.ratings.index.tolist() == [0, 1, 2]


def test_read_csv(tmp_path):
    path = tmp_path / "films.csv"
    frame().rename(columns={"rating": "stars"}).to_csv(path, index=False)
    data = read_csv(path, columns={"rating": "stars"})
    assert data.name == "films"
    assert data.content_hash() == rating_data(frame()).content_hash()
    with pytest.raises(ValueError, match=r"films\.csv: no column 'rating'.*'stars'"):
        read_csv(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"films\.csv: No columns"):
        read_csv(path)
    path.write_bytes("user,item,rating\nJosé,1,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"films\.csv: 'utf-8' codec can't decode"):
        read_csv(path)
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "none.csv")


def test_content_hash_sees_every_value_and_nothing_else():
    users = pd.DataFrame({"user_id": ["al", "bo"], "age": [30, 40]})
    items = pd.DataFrame(
        {"item_id": [10, 30], "title": ["é", "b"], "year": [1999, None]}
    )
    data = rating_data(frame(), users=users, items=items)
    base = data.content_hash()
    assert (
        base == rating_data(frame(), users=users, items=items, name="x").content_hash()
    )
    changed = [
        rating_data(frame(rating=[4, 1, 3]), users=users, items=items),
        rating_data(frame(timestamp=[7, 8, 8]), users=users, items=items),
        rating_data(frame().iloc[[1, 0, 2]], users=users, items=items),
        rating_data(frame(), users=users.assign(age=[30, 41]), items=items),
        rating_data(frame(), users=users.rename(columns={"age": "x"}), items=items),
        rating_data(frame(), users=users, items=items.assign(year=[1999, 2000])),
        rating_data(frame(), users=users, items=items.assign(genres=[("a",), ()])),
    ]
    assert len({base, *(other.content_hash() for other in changed)}) == 8
    # The definition, written out by hand.
    tables = (
        '[["user_id", "age"], [["al", "bo"], [30, 40]]]'
        '[["item_id", "title", "year", "genres"], '
        '[[10, 30], ["\\u00e9", "b"], [1999, null], [[], []]]]'
    )
    columns = [
        np.array([1, 0, 1], "<i8"),
        np.array([1, 0, 0], "<i8"),
        np.array([5, 1, 3], "<f4"),
        np.array([7, 8, 9], "<i8"),
    ]
    content = b"".join(column.tobytes() for column in columns) + tables.encode()
    assert base == hashlib.sha256(content).hexdigest()


def test_rating_data_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        rating_data(frame()).name = "other"


def test_synthetic_ratings_follow_their_truth():
    data, truth = synthetic_population(300, 50, 2, 20, noise=0.1, seed=1, clip=False)
    user, item = data.ratings["user"].to_numpy(), data.ratings["item"].to_numpy()
    score = truth.mu + truth.b_i[item] + truth.b_u[user]
    score += np.einsum("nd,nd->n", truth.p_u[user], truth.q_i[item])
    residual = data.ratings["rating"].to_numpy() - score
    assert residual.std() == pytest.approx(truth.sigma, rel=0.05)
    assert abs(residual.mean()) < 0.01
    assert data.ratings.groupby("user").size().eq(20).all()
    assert data.n_items == 50


def test_synthetic_users_have_the_covariance_that_is_given():
    _, truth = synthetic_population(20_000, 5, 3, 1, seed=2)
    weights = np.column_stack([truth.p_u, truth.b_u])
    np.testing.assert_allclose(np.cov(weights.T), truth.covariance, atol=0.02)
    correlated = truth.covariance - np.diag(np.diag(truth.covariance))
    assert np.abs(correlated).max() > 0.05


def test_synthetic_items_have_the_spread_that_is_given():
    data, truth = synthetic_population(2, 20_000, 4, 20_000, seed=2, clip=False)
    assert truth.mu == 3.5
    assert abs(truth.b_i.mean()) < 0.01 and truth.b_i.std() == pytest.approx(0.4, 0.02)
    assert np.abs(truth.q_i.mean(0)).max() < 0.02
    np.testing.assert_allclose(np.cov(truth.q_i.T), np.eye(4) / 4, atol=0.01)
    spread = np.linalg.eigvalsh(
        [
            synthetic_population(1, 2, 3, 1, seed=seed)[1].covariance
            for seed in range(40)
        ]
    )
    assert spread.min() >= 0.1 and spread.min(1).mean() < 0.15
    # Each diagonal entry is 0.1 and four squares of variance 0.09.
    assert spread.sum(1).mean() / 4 == pytest.approx(0.1 + 4 * 0.09, rel=0.1)
    assert data.ratings["timestamp"].diff().dropna().unique().tolist() == [60]
    assert data.ratings.groupby("user")["item"].nunique().eq(20_000).all()


def test_synthetic_users_meet_all_items_alike():
    data, _ = synthetic_population(4000, 10, 1, 3, seed=2)
    count = data.ratings["item"].value_counts()
    assert count.between(1100, 1300).all() and len(count) == 10


def test_synthetic_time_seed_scale_and_errors():
    data, _ = synthetic_population(20, 10, 1, 10, seed=3)
    assert data.ratings.groupby("user")["timestamp"].diff().dropna().gt(0).all()
    assert data.ratings["rating"].between(1, 5).all()
    again, _ = synthetic_population(20, 10, 1, 10, seed=3)
    other, _ = synthetic_population(20, 10, 1, 10, seed=4)
    assert data.content_hash() == again.content_hash() != other.content_hash()
    assert data.citation.startswith("Synthetic") and "free to use" in data.citation
    with pytest.raises(ValueError, match="ratings_per_user must lie in 1"):
        synthetic_population(20, 10, 1, 11)


def test_a_seed_means_the_same_population_in_every_version():
    """Chapters print what they found in populations named by a seed."""
    data, truth = synthetic_population(3, 4, 2, 2, seed=1)
    found = data.ratings.drop(columns="timestamp").to_numpy().round(3).tolist()
    assert found == [
        [0, 1, 4.619],
        [0, 2, 3.66],
        [1, 0, 1.683],
        [1, 2, 3.07],
        [2, 0, 3.618],
        [2, 1, 3.329],
    ]
    assert truth.b_u.round(3).tolist() == [0.212, -0.249, 0.004]
    assert truth.p_u.round(3).tolist()[0] == [-0.114, 0.495]
    assert truth.covariance.diagonal().round(3).tolist() == [0.172, 0.14, 0.161]


def test_what_is_not_known_of_an_item_is_unknown():
    items = pd.DataFrame(
        {
            "item_id": [10, 30],
            "title": [None, "b"],
            "year": [None, "1999"],
            "genres": [np.nan, ("x",)],
        }
    )
    known = rating_data(frame(), items=items).items
    assert known["title"].tolist() == ["10", "b"]
    assert known["year"].isna().tolist() == [True, False] and known["year"][1] == 1999
    assert known["genres"].tolist() == [(), ("x",)]
    with pytest.raises(ValueError, match=r"row 1: 1999\.5 is not a year"):
        rating_data(frame(), items=items.assign(year=[None, 1999.5]))
