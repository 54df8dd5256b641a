"""The doors of the recommender: what it takes, and one sentence for what it refuses."""

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import torch

from metarec.data import RatingData, rating_data
from metarec.recommender import MetaRecommender, UnknownItemError
from metarec.systems import System
from metarec.training import TrainingConfig

SHORT = TrainingConfig(epochs=1)
RATINGS = {3: 5.0, 10: 1.0, 42: 4.0}
FIXTURES = Path(__file__).parent / "fixtures" / "version-0.1"


def short(**settings: Any) -> MetaRecommender:
    return MetaRecommender(**{"dim": 2, "config": SHORT} | settings)


def fit(data: Any, **settings: Any) -> MetaRecommender:
    return short(**settings).fit(data, progress=False)


def table(data: RatingData) -> pd.DataFrame:
    """The ratings as a person has them: labels, in four columns of these names."""
    names = ["user", "item", "rating", "timestamp"]
    return pd.DataFrame({name: data.ratings[name].to_numpy() for name in names})


@pytest.fixture(scope="module")
def fitted(data: RatingData) -> MetaRecommender:
    return fit(data)


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "csv", "parquet"])
def test_fit_takes_what_rating_data_takes(
    data: RatingData, fitted: MetaRecommender, kind: str, tmp_path: Path
) -> None:
    frame = table(data)
    given: Any = frame
    if kind == "polars":
        given = pytest.importorskip("polars").from_pandas(frame)
    elif kind == "arrow":
        given = pytest.importorskip("pyarrow").Table.from_pandas(frame)
    elif kind == "csv":
        given = str(tmp_path / "x.csv")
        frame.to_csv(given, index=False)
    elif kind == "parquet":
        given = tmp_path / "x.parquet"
        frame.to_parquet(given)
    again = fit(given).adapt(RATINGS)
    assert np.array_equal(again.predict(), fitted.adapt(RATINGS).predict())


def test_another_fit_leaves_who_was_adapted(data: RatingData) -> None:
    recommender = fit(data)
    person = recommender.adapt(RATINGS)
    before, rated = person.predict(), person.explain(3)["item_id"].tolist()
    turned = table(data).assign(rating=lambda own: 6 - own["rating"])
    recommender.fit(turned[turned["item"] > 1], progress=False)
    assert np.array_equal(person.predict(), before)
    assert person.explain(3)["item_id"].tolist() == rated
    assert len(recommender.adapt(RATINGS).predict()) < len(before)


@pytest.mark.parametrize("other", [5, object(), "no-such-file.csv"], ids=type)
def test_what_holds_no_ratings_is_refused(other: object) -> None:
    with pytest.raises((ValueError, FileNotFoundError)):
        short().fit(other)


# Labels of every kind that is hashable and that a file can hold.
KINDS = {
    "text": str,
    "zeros": "{:03d}".format,
    "uuid": lambda n: UUID(int=n),
    "date": lambda n: date.fromordinal(700_000 + n),
    "datetime": lambda n: datetime(2020, 1, 1, n % 24, n // 24),
    "zoned": lambda n: pd.Timestamp(n, unit="s", tz="Europe/Zurich"),
    "decimal": lambda n: Decimal(n) / 4,
    "tuple": lambda n: ("shop", n),
    "nested": lambda n: ((n, "a"), date.fromordinal(700_000 + n)),
    "float": lambda n: n + 0.5,
    "numpy": np.int16,
    "mixed": lambda n: n if n % 2 else str(n),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_kind_train_adapt_save_and_load(
    data: RatingData, kind: str, tmp_path: Path
) -> None:
    label = [KINDS[kind](n) for n in range(data.n_items)]
    frame = table(data)
    for role in ("user", "item"):
        names = [KINDS[kind](n) for n in frame[role].tolist()]
        frame[role] = pd.Series(names, dtype=object)
    recommender = fit(frame)
    ratings = {label[item]: stars for item, stars in RATINGS.items()}
    person = recommender.adapt(ratings)
    listed = person.recommend(80)
    assert len(listed) == 77 and not set(listed["item_id"]) & set(ratings)
    assert set(person.explain(label[20])["item_id"]) == set(ratings)
    assert person.predict([label[20]]).shape == (1,)
    rated = pd.DataFrame({"item_id": pd.Series(list(ratings), dtype=object)})
    rated = rated.assign(rating=list(ratings.values()))
    assert np.array_equal(recommender.adapt(rated).predict(), person.predict())

    recommender.save(tmp_path / "one")
    again = MetaRecommender.load(tmp_path / "one")
    twin = again.adapt(ratings).recommend(80)
    assert twin["item_id"].tolist() == listed["item_id"].tolist()
    assert twin["score"].tolist() == listed["score"].tolist()

    users = {label[1]: ratings, label[2]: {}}
    lists = again.recommend_all(users, n=3, progress=False)
    assert lists["user_id"].tolist() == [label[1]] * 3 + [label[2]] * 3
    first = lists[lists["rank"] == 1]["item_id"].tolist()
    assert first[0] == listed["item_id"].tolist()[0]


def test_labels_that_no_file_holds_are_refused_before_training(
    data: RatingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = table(data)
    frame["item"] = [frozenset([n]) for n in frame["item"]]
    names = pd.DataFrame({"item_id": [frozenset([n]) for n in range(data.n_items)]})
    monkeypatch.setattr("metarec.systems.fit_system", None)
    with pytest.raises(ValueError, match=r"named by a frozenset.*name them by text"):
        short().fit(rating_data(frame, items=names))


def test_an_unknown_item_is_named_or_left_out_and_counted(
    fitted: MetaRecommender,
) -> None:
    more = RATINGS | {999: 4.0, "x": 2.0}
    with pytest.raises(UnknownItemError, match=r"^unknown item 999 \(2 in all\)"):
        fitted.adapt(more)
    with pytest.warns(
        UserWarning, match=r"^2 ratings of items that are not known are left out"
    ):
        person = fitted.adapt(more, unknown="ignore")
    expected = fitted.adapt(RATINGS)
    assert np.array_equal(person.predict(), expected.predict())

    both = {"Ada": RATINGS, "Ben": {999: 4.0, 3: 2.0}, "Cy": {999: 1.0}}
    with pytest.raises(UnknownItemError, match=r"^user 'Ben': unknown item 999"):
        fitted.recommend_all(both, progress=False)
    rows = [(user, *pair) for user, own in both.items() for pair in own.items()]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])
    with pytest.raises(UnknownItemError, match=r"^user 'Ben': unknown item 999"):
        fitted.recommend_all(frame, progress=False)
    known = {"Ada": RATINGS, "Ben": {3: 2.0}, "Cy": {}}
    expected_lists = fitted.recommend_all(known, n=4, progress=False)
    for ratings in (both, frame):
        with pytest.warns(UserWarning, match="2 ratings of items"):
            lists = fitted.recommend_all(ratings, 4, progress=False, unknown="ignore")
        pd.testing.assert_frame_equal(lists, expected_lists)
    with pytest.raises(UnknownItemError, match="unknown item 999"):
        expected.predict([3, 999])
    for label in (999, [3], (1, [3]), None):
        with pytest.raises(UnknownItemError, match="unknown item"):
            expected.explain(label)
        with pytest.raises(UnknownItemError, match="unknown item"):
            rated = pd.DataFrame({"item_id": [label], "rating": 4.0})
            fitted.adapt(rated)


def test_nothing_and_one_label_are_understood(fitted: MetaRecommender) -> None:
    nobody = fitted.adapt().predict()
    for nothing in (None, [], {}, pd.Series(dtype=float), np.zeros((0, 2))):
        assert np.array_equal(fitted.adapt(nothing).predict(), nobody)
    person = fitted.adapt(pd.Series(RATINGS))
    assert np.array_equal(person.predict(), fitted.adapt(RATINGS).predict())
    assert person.predict(7) == person.predict([7]) == person.predict()[7]
    assert np.array_equal(person.predict(np.array([7, 3])), person.predict()[[7, 3]])


def test_a_text_is_one_label(data: RatingData) -> None:
    frame = table(data)
    frame["item"] = "i" + frame["item"].astype(str)
    person = fit(frame).adapt({"i3": 4.0})
    assert person.predict("i3").tolist() == person.predict(["i3"]).tolist()
    with pytest.raises(UnknownItemError, match=r"unknown item '3'.*such as 'i0'"):
        person.predict("3")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dim": -1}, "dim=-1 will not do: pass a whole number from 1 up"),
        ({"dim": 2.0}, "dim=2.0"),
        ({"dim": "8"}, "dim='8'"),
        ({"reserved": 0}, "reserved=0 will not do: pass a whole number from 1 up"),
        ({"reserved": None}, "reserved=None"),
        ({"seed": None}, "seed=None will not do: pass a whole number from 0 up"),
        ({"seed": -3}, "seed=-3"),
        ({"config": {"epochs": 3}}, "config=.* pass a TrainingConfig"),
        ({"steps": -1}, "steps=-1"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"implicit": "no"}, "implicit='no' will not do: pass True or False"),
        ({"full": 2, "meta": "meta-sgd"}, "full=2"),
        ({"model": ["mf"]}, "choose one of mf, mlp, attention"),
        ({"meta": None}, "choose one of maml"),
        ({"device": "abacus"}, 'device=.abacus.*pass "cpu"'),
        ({"device": "cuda:77"}, 'device=.cuda:77.*pass "cpu"'),
        ({"device": 1.5}, "device=1.5"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_meant_is_refused(
    setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MetaRecommender(**setting)


def test_numbers_of_numpy_are_numbers(data: RatingData, tmp_path: Path) -> None:
    config = TrainingConfig(epochs=np.int64(1), seed=np.int64(0))  # type: ignore[arg-type]
    settings = {"dim": np.int64(2), "seed": np.int32(0), "steps": np.int8(5)}
    for _ in range(2):
        one = short(config=config, reserved=np.int64(15), **settings)
        one.fit(data, checkpoint=tmp_path / "run", progress=np.bool_(False))
    one.save(tmp_path / "one")
    again = MetaRecommender.load(tmp_path / "one")
    assert again.system == System() and again.dim == 2 and again.config == SHORT


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"users": [0, 0, 1]}, "each once"),
        ({"users": [0.5]}, "pass rows of data.users"),
        ({"users": ["Ada"]}, "pass rows of data.users"),
        ({"users": torch.tensor([0, 200])}, "0 to 199"),
        ({"users": [-1, 3]}, "0 to 199"),
        ({"users": torch.ones(20, 2, dtype=torch.long)}, "pass rows"),
        ({"checkpoint": 3}, "checkpoint=3 will not do: pass the name of a file"),
        ({"progress": "no"}, "progress='no'"),
    ],
)
def test_fit_says_what_to_pass(
    data: RatingData, call: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        short().fit(data, **call)


def test_users_come_as_any_whole_numbers(data: RatingData) -> None:
    some = torch.arange(0, 100, 2)
    expected = short().fit(data, some, progress=False).adapt(RATINGS).predict()
    for users in (some.tolist(), some.numpy().astype("int32"), range(0, 100, 2)):
        again = short().fit(data, users, progress=False)
        assert np.array_equal(again.adapt(RATINGS).predict(), expected)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (5, "cannot be read"),
        ("i3", "cannot be read"),
        ([3, 4], "pass {item: stars}, pairs"),
        ([(3, "many")], "could not convert"),
        ({3: None}, "cannot be read"),
        ({3: 10**400}, "cannot be read"),
        ({3: 1j}, "cannot be read"),
        ({3: float("inf")}, "the rating inf of item 3 is not on the scale 1 to 5"),
        ({3: [5]}, "cannot be read"),
        (pd.DataFrame({"item_id": [3]}), "has no column .'rating'"),
        (pd.DataFrame([[3, 4, 5]], columns=["item_id", "rating", "rating"]), "or two"),
    ],
)
def test_ratings_that_cannot_be_read(
    fitted: MetaRecommender, ratings: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fitted.adapt(ratings)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ([(1, 3, 4.0)], "pass a mapping"),
        (None, "ratings=None"),
        ({"Ada": 5}, "cannot be read"),
        ({"columns": ["user_id", "item_id"]}, "has no column .'rating'"),
        ({"rating": ["good"]}, "the rating nan"),
        ({"rating": [None]}, "the rating nan"),
        ({"user_id": [None]}, "a row has no user_id"),
    ],
    ids=str,
)
def test_tables_that_cannot_be_read(
    fitted: MetaRecommender, ratings: Any, message: str
) -> None:
    frame = pd.DataFrame({"user_id": [1], "item_id": [3], "rating": [4.0]})
    if isinstance(ratings, dict) and "Ada" not in ratings:
        columns = ratings.pop("columns", list(frame))
        ratings = frame.assign(**ratings)[columns]
    with pytest.raises(ValueError, match=message):
        fitted.recommend_all(ratings, progress=False)


def test_a_call_says_what_to_pass(fitted: MetaRecommender) -> None:
    person = fitted.adapt(RATINGS)
    for bad in (0, -1, 2.5, "ten", None):
        with pytest.raises(ValueError, match=r"n=.*a whole number from 1 up"):
            person.recommend(bad)
        with pytest.raises(ValueError, match=r"n=.*a whole number from 1 up"):
            fitted.recommend_all({"Ada": {}}, bad, progress=False)
    with pytest.raises(ValueError, match="min_ratings=-1"):
        person.recommend(3, min_ratings=-1)
    with pytest.raises(ValueError, match="min_ratings='5'"):
        fitted.recommend_all({"Ada": {}}, 3, min_ratings="5")
    with pytest.raises(ValueError, match="return_std='yes'"):
        person.predict(return_std="yes")
    for bad in ("drop", None, ["ignore"]):
        with pytest.raises(ValueError, match='pass "error" or "ignore"'):
            fitted.adapt({}, unknown=bad)
    for bad in (24, "F", [("age", 24)]):
        with pytest.raises(ValueError, match=r"user=.* will not do: pass a mapping"):
            fitted.adapt({}, user=bad)
        with pytest.raises(ValueError, match=r"user=.* will not do: pass a mapping"):
            fitted.recommend_all({"Ada": {}}, users={"Ada": bad}, progress=False)
    with pytest.raises(ValueError, match=r"users=.* pass a mapping"):
        fitted.recommend_all({"Ada": {}}, users=[24])
    for path in (None, 3):
        with pytest.raises(ValueError, match=r"path=.* pass the name of a file"):
            fitted.save(path)
        with pytest.raises(ValueError, match=r"path=.* pass the name of a file"):
            MetaRecommender.load(path)
    with pytest.raises(RuntimeError, match="call fit"):
        MetaRecommender().save("x")


def test_a_folder_is_no_file_to_save_to(
    fitted: MetaRecommender, tmp_path: Path
) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder: pass the name of a file"):
        fitted.save(tmp_path)
    assert not list(tmp_path.parent.glob("*.part"))


def test_records_are_told_how_to_be_passed(fitted: MetaRecommender) -> None:
    records: Any = [{"item_id": 3, "rating": 5.0}]
    with pytest.raises(ValueError, match=r"pass \{item: stars\}, pairs .* or a table"):
        fitted.adapt(records)
    assert len(fitted.adapt(pd.DataFrame(records)).recommend(3)) == 3


def test_what_is_not_known_of_a_user_is_the_average(data: RatingData) -> None:
    users = data.users.assign(age=[None, *range(20, 219)], gender=["F", "M"] * 100)
    frame = table(data)
    users["gender"] = users["gender"].where(users.index != 3)
    described = rating_data(frame, users=users)
    recommender = fit(described, model="mlp")
    nobody = recommender.adapt(RATINGS).predict()
    for user in ({"age": None}, {"age": float("nan")}, {"gender": None}, {}):
        found = recommender.adapt(RATINGS, user=user).predict()
        np.testing.assert_array_equal(found, nobody)
    lists = recommender.recommend_all(
        {"a": RATINGS, "b": RATINGS}, users={"a": {"age": None}}, progress=False
    )
    first, second = (own["item_id"].tolist() for _, own in lists.groupby("user_id"))
    assert first == second and lists["score"].notna().all()


def test_fit_says_when_nothing_was_learned(data: RatingData) -> None:
    # Users differ in their means alone, and no step is taken towards them.
    means = table(data).assign(rating=1.0 + data.ratings["user"] % 5)
    means.loc[::2, "rating"] = data.ratings["rating"][::2]
    with pytest.warns(UserWarning, match="no better than item and user biases"):
        fit(means, steps=0)


def test_fit_is_silent_where_something_was_learned(
    data: RatingData, recwarn: pytest.WarningsRecorder
) -> None:
    fit(data, config=TrainingConfig(epochs=5, learning_rate=0.05))
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]


def test_ratings_that_are_all_alike_are_named(data: RatingData) -> None:
    with pytest.warns(UserWarning, match=r"^all ratings are 4: nothing"):
        recommender = fit(table(data).assign(rating=4.0))
    for ratings in ({}, {3: 4.0}, {3: 1.0, 5: 5.0}):
        listed = recommender.adapt(ratings).recommend(5)
        assert len(listed) == 5 and np.isfinite(listed["score"]).all()


def test_no_answer_is_better_than_one_that_is_no_number(data: RatingData) -> None:
    recommender = fit(data)
    person = recommender.adapt(RATINGS)
    with torch.no_grad():
        recommender.model.item_factors[3] = torch.nan
    for call in (
        lambda: recommender.adapt(RATINGS),
        lambda: recommender.recommend_all({"Ada": {}}, progress=False),
        person.recommend,
        person.predict,
        lambda: person.explain(20),
    ):
        with pytest.raises(FloatingPointError, match="inner loop diverged"):
            call()


@pytest.mark.parametrize(
    ("setting", "differs"),
    [
        ({"steps": 1}, "steps is 1 and was 5"),
        ({"learner": "bayesian"}, "learner is 'bayesian' and was 'gradient'"),
        ({"meta": "meta-sgd"}, "meta is 'meta-sgd' and was 'maml'"),
        ({"model": "mlp"}, "model is 'mlp' and was 'mf'"),
        ({"dim": 3}, "dim is 3 and was 2"),
        ({"seed": 1}, "seed is 1 and was 0"),
        ({"reserved": 10}, "reserved is 10 and was 15"),
        ({"implicit": True}, "implicit is True and was False"),
        ({"config": TrainingConfig(clip=2.0)}, "clip is 2.0 and was 10.0"),
    ],
    ids=str,
)
def test_a_run_does_not_go_on_with_another(
    data: RatingData, setting: dict[str, Any], differs: str, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    short().fit(data, checkpoint=path, progress=False)
    with pytest.raises(ValueError, match=f"{differs}.*delete it"):
        short(**setting).fit(data, checkpoint=path, progress=False)


def test_a_run_knows_its_ratings_and_goes_on_for_longer(
    data: RatingData, tmp_path: Path
) -> None:
    path, longer = tmp_path / "run", TrainingConfig(epochs=3)
    short().fit(data, checkpoint=path, progress=False)
    again = short(config=longer).fit(data, checkpoint=path, progress=False)
    straight = short(config=longer).fit(data, progress=False)
    assert np.array_equal(
        again.adapt(RATINGS).predict(), straight.adapt(RATINGS).predict()
    )
    other = table(data)
    other.loc[0, "rating"] = 3.21
    with pytest.raises(ValueError, match=r"ratings is '.*' and was '.*'"):
        short().fit(other, checkpoint=path, progress=False)


@pytest.mark.parametrize("model", ["mf", "mlp", "attention"])
def test_a_model_of_version_0_1_answers_as_it_did(model: str) -> None:
    """Saved by that version from an invented population, with what it said."""
    said = json.loads((FIXTURES / "scores.json").read_text())
    (name,) = (name for name in said if name.startswith(model))
    recommender = MetaRecommender.load(FIXTURES / f"{name}.safetensors")
    ratings = {3: 5.0, 17: 1.0, 8: 3.5}
    known = recommender.adapt(ratings, user={"age": 30})
    np.testing.assert_allclose(known.score(), said[name]["known"], atol=1e-5)
    nobody = recommender.adapt().score()
    np.testing.assert_allclose(nobody, said[name]["nobody"], atol=1e-5)
    assert known.recommend(3)["item_id"].tolist() == said[name]["list"]
