"""Random tables, files and calls: a sound answer or one sentence, and nothing else.

What may come back in place of an answer is in ``REFUSED``: whoever calls reads why. No
answer holds a number that is not finite. The draws are the same each time.
"""

import string
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarec.data import RatingData, RatingScale, rating_data, read_csv
from metarec.recommender import MetaRecommender, UnknownItemError, files
from metarec.training import TrainingConfig

pytestmark = [
    pytest.mark.slow,
    # `fit` says where there was nothing to learn, `adapt` what it left out.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
REFUSED = (ValueError, UnknownItemError, FileNotFoundError)


def examples(n: int) -> Callable[[Any], Any]:
    """As many examples, the same on every machine, however slow that is."""
    return settings(
        max_examples=n,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def answer(call: Callable[[], Any]) -> Any:
    """What a call gives, or None where it was refused in words."""
    try:
        return call()
    except REFUSED as error:
        assert len(str(error)) > 10, "a refusal says why"
        return None


# Labels -------------------------------------------------------------------------------

words = st.text(max_size=4) | st.text(string.printable, max_size=4)
plain = st.integers(-(2**70), 2**70) | words | st.floats(allow_nan=False)
dates = st.dates(date(1700, 1, 1), date(2200, 1, 1))
moments = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))
labels = plain | st.uuids() | dates | moments | st.decimals(allow_nan=False)
labels |= st.tuples(plain, st.uuids() | dates) | st.booleans()
nothing = st.sampled_from([None, np.nan, pd.NA, pd.NaT, ""])
odd = st.lists(st.integers(), max_size=2) | st.frozensets(st.integers()) | st.binary()
anything = labels | nothing | odd | st.dictionaries(words, words, max_size=1)


@given(st.lists(labels, max_size=5))
@examples(300)
def test_labels_come_back_from_a_file_as_they_were(given_labels: list[Any]) -> None:
    try:
        text = files.as_json(given_labels)
    except ValueError:
        assert not all(isinstance(label, str | int) for label in given_labels)
        return
    for one, other in zip(given_labels, files.of_json(text), strict=True):
        again = files.label_of(other)
        assert again == one and hash(again) == hash(one)


# Tables -------------------------------------------------------------------------------

ids = [
    st.integers(0, 8),
    st.sampled_from(["007", "7", "a", "b", "A", " a", "ü"]),
    st.integers(0, 5).map(str),
    st.uuids(),
    dates,
    moments,
    st.tuples(st.integers(0, 2), st.sampled_from("ab")),
    st.floats(0, 4),
    labels,
    anything,
]
whole_stars = st.integers(1, 5)
stars = [
    whole_stars,
    st.floats(1, 5),
    whole_stars.map(str),
    st.booleans(),
    whole_stars | nothing,
    whole_stars.map(Decimal),
    st.floats() | st.integers() | nothing,
    anything,
]
times = [
    st.integers(0, 2**31),
    st.integers(-(2**63), 2**63 - 1),
    moments,
    dates.map(str),
    st.floats(),
    anything,
]
dtypes = st.sampled_from(
    [None, None, None, "category", "string", "Int64", "float32", "int8", "boolean"]
)
scales = st.sampled_from(
    [(1, 5), (0, 1), (-1e9, 1e9), (1, 5, 1), RatingScale(0.5, 5, 0.5), (5, 1), (1,)]
)


@st.composite
def tables(draw: Any, most: int = 12) -> pd.DataFrame:
    """One row for each rating, in columns of any kind."""
    n = draw(st.integers(0, most))
    columns = {}
    for role, kinds in {"user": ids, "item": ids, "rating": stars}.items():
        values = draw(st.lists(draw(st.sampled_from(kinds)), min_size=n, max_size=n))
        columns[role] = pd.Series(values, dtype=object).infer_objects()
    if draw(st.booleans()):
        values = draw(st.lists(draw(st.sampled_from(times)), min_size=n, max_size=n))
        columns["timestamp"] = pd.Series(values, dtype=object).infer_objects()
    for role in columns:
        if dtype := draw(dtypes):
            with suppress(TypeError, ValueError, OverflowError):
                columns[role] = columns[role].astype(dtype)
    frame = pd.DataFrame(columns)
    if n and draw(st.booleans()):
        frame = frame.iloc[draw(st.permutations(range(n)))]
    if draw(st.integers(0, 9)) == 0:
        frame = frame.drop(columns=draw(st.sampled_from(list(frame))))
    if draw(st.integers(0, 9)) == 0:
        frame.index = pd.Index([0] * len(frame))
    return frame


def contents(frame: pd.DataFrame) -> str:
    return repr([frame.index, *((name, list(frame[name])) for name in frame)])


def check_sound(data: RatingData) -> None:
    """Codes in range, ratings on the scale, each pair once, labels told apart."""
    ratings = data.ratings
    assert len(ratings) and ratings["rating"].dtype == "float32"
    for role, table in (("user", data.users), ("item", data.items)):
        assert ratings[role].between(0, len(table) - 1).all()
        names = table[f"{role}_id"].tolist()
        assert len(set(names)) == len(names) and not pd.isna(pd.Series(names)).any()
    assert not ratings.duplicated(["user", "item"]).any()
    assert np.isfinite(ratings["rating"]).all()
    slack = 1e-6 * max(abs(data.scale.low), abs(data.scale.high))
    assert (
        ratings["rating"].between(data.scale.low - slack, data.scale.high + slack).all()
    )
    assert ratings["timestamp"].dtype == "int64" and len(data.content_hash()) == 64


@given(
    tables(),
    scales,
    st.sampled_from(["error", "first", "last", "mean", "newest"]),
    st.sampled_from([(), 0, [0, -1], np.nan]),
    st.sampled_from([None, None, "s", "ms", "ns", "%Y-%m-%d", "%"]),
    st.sampled_from([None, None, {"rating": None}, {"timestamp": None}, {"user": 1}]),
)
@examples(800)
def test_a_table_is_read_or_refused(
    frame: pd.DataFrame,
    scale: Any,
    duplicates: Any,
    not_rated: Any,
    time_format: str | None,
    columns: Any,
) -> None:
    before = contents(frame)
    data = answer(
        lambda: rating_data(
            frame,
            columns,
            scale,
            duplicates=duplicates,
            not_rated=not_rated,
            time_format=time_format,
        )
    )
    assert contents(frame) == before  # what a person has stays theirs
    if data is not None:
        check_sound(data)


# Files --------------------------------------------------------------------------------

cells = words | st.sampled_from(
    ["1", "5", "3.5", "007", "NaN", "", "2020-01-01", "1e400", '"', '"a', "a,b", "-1"]
)
lines = st.lists(st.lists(cells, min_size=1, max_size=5), max_size=6)
heads = st.sampled_from(
    [
        ["user", "item", "rating"],
        ["item", "user", "rating", "timestamp"],
        ["user", "item"],
        ["user", "user", "rating"],
        ["User", "Item", "Rating"],
        ["1", "5", "3"],
        [],
    ]
)


@given(
    lines.map(lambda rows: [row[:4] for row in rows]),
    heads,
    st.sampled_from([",", ";", "\t", "::", "|", "", " "]),
    st.sampled_from([",", ",", ";", "\t", "::", "|", ""]),
    st.sampled_from(["utf-8", "latin-1", "utf-16", "utf-8-sig"]),
    st.sampled_from(["utf-8", "utf-8", "latin-1", "utf-16", "klingon"]),
    st.booleans(),
    st.sampled_from([".csv", ".tsv", ".jsonl", ".csv.gz", ".parquet", ""]),
)
@examples(400)
def test_a_file_of_text_is_read_or_refused(
    rows: list[list[str]],
    head: list[str],
    sep: str,
    said_sep: str,
    encoding: str,
    said: str,
    header: bool,
    suffix: str,
) -> None:
    path = Path(mkdtemp()) / f"x{suffix}"
    text = "\n".join(sep.join(row) for row in [head, *rows])
    path.write_bytes(text.encode(encoding, errors="replace"))
    how = {"sep": said_sep, "encoding": said, "header": header, "duplicates": "last"}
    data = answer(lambda: read_csv(path, scale=(-1e9, 1e9), **how))
    if data is not None:
        check_sound(data)


@given(st.binary(max_size=200), st.sampled_from([".csv", ".parquet", ".jsonl", ".zip"]))
@examples(100)
def test_any_bytes_are_read_or_refused(content: bytes, suffix: str) -> None:
    path = Path(mkdtemp()) / f"x{suffix}"
    path.write_bytes(content)
    data = answer(lambda: read_csv(path))
    if data is not None:
        check_sound(data)


# Recommenders -------------------------------------------------------------------------

N_USERS, N_ITEMS = 30, 14
SHORT = TrainingConfig(epochs=1)
FIXTURES = Path(__file__).parent / "fixtures" / "version-0.1"


def population() -> RatingData:
    """A few users of whom something is known, and items named by text and numbers."""
    rng = np.random.default_rng(0)
    rows = [
        (user, item if item % 2 else f"i{item}", int(rng.integers(1, 6)))
        for user in range(N_USERS)
        for item in rng.permutation(N_ITEMS)[: 8 + user % 3].tolist()
    ]
    users = pd.DataFrame({"user_id": range(N_USERS)})
    users = users.assign(age=20 + users["user_id"], gender=["F", "M"] * (N_USERS // 2))
    frame = pd.DataFrame(rows, columns=["user", "item", "rating"])
    return rating_data(frame, users=users)


@pytest.fixture(scope="module")
def recommenders() -> list[MetaRecommender]:
    """A few of the systems, one of each part at least."""
    cells = [
        ("mf", "maml", "gradient"),
        ("mlp", "meta-sgd", "bayesian"),
        ("mf", "metamind", "attention"),
    ]
    fitted = []
    for cell in cells:
        one = MetaRecommender(*cell, dim=2, reserved=5, config=SHORT)
        fitted.append(one.fit(population(), progress=False))
    return fitted


known = st.integers(0, N_ITEMS - 1).map(lambda n: n if n % 2 else f"i{n}")
some_stars = st.floats(1, 5) | st.integers(1, 5) | st.sampled_from(["4", True])
any_stars = some_stars | st.floats() | anything | st.integers()
sane = st.dictionaries(known, some_stars)


@st.composite
def histories(draw: Any) -> Any:
    """One user's ratings in any form, most of them such that they can be read."""
    if draw(st.booleans()):
        pairs = list(draw(sane).items())
    else:
        pair = st.tuples(known | anything, any_stars)
        pairs = draw(st.lists(pair, max_size=4))
    kind = draw(st.sampled_from(["dict", "pairs", "table", "series", "other"]))
    if kind == "other":
        return draw(anything)
    items, rated = (pd.Series([p[n] for p in pairs], dtype=object) for n in (0, 1))
    if kind == "table":
        return pd.DataFrame({"item_id": items, "rating": rated.infer_objects()})
    try:
        if kind == "series":
            return pd.Series(rated.tolist(), index=items.tolist(), dtype=object)
        return dict(pairs) if kind == "dict" else pairs
    except (TypeError, ValueError):
        return pairs  # what cannot be looked up is in no dictionary


persons = (
    st.none()
    | anything
    | st.fixed_dictionaries(
        {},
        optional={"age": anything | st.floats(), "gender": anything, "shoe": anything},
    )
)
counts = st.integers(-1, 20) | st.sampled_from([None, 2.5, "3", True, np.int64(4)])
policies = st.sampled_from(["error", "ignore", "ignore", "drop", None])


@given(
    st.integers(0, 2), histories(), persons, policies, counts, st.integers(0, 30), known
)
@examples(600)
def test_a_user_gets_a_list_or_a_sentence(
    recommenders: list[MetaRecommender],
    which: int,
    ratings: Any,
    user: Any,
    unknown: Any,
    n: Any,
    least: int,
    item: Any,
) -> None:
    recommender = recommenders[which]
    person = answer(lambda: recommender.adapt(ratings, user, unknown))
    if person is None:
        return
    rows = person.support.x[person.support.mask].tolist()
    rated = set(recommender.items["item_id"].iloc[rows])
    stars = person.predict()
    assert np.isfinite(stars).all() and (stars >= 1).all() and (stars <= 5).all()
    listed = answer(lambda: person.recommend(n, least))
    if listed is not None:
        allowed = set(recommender.items.query("ratings >= @least")["item_id"]) - rated
        assert len(listed) == min(n, len(allowed))
        assert set(listed["item_id"]) <= allowed
        assert np.isfinite(listed["score"]).all()
        assert listed["score"].is_monotonic_decreasing
    effects = person.explain(item)
    assert set(effects["item_id"]) == rated and np.isfinite(effects["effect"]).all()
    one = answer(lambda: person.predict([item]))
    assert one is not None and one.shape == (1,) and np.isfinite(one).all()


@given(st.integers(0, 2), anything | st.lists(known | anything, max_size=3))
@examples(100)
def test_asking_for_anything_gives_stars_or_a_sentence(
    recommenders: list[MetaRecommender], which: int, asked: Any
) -> None:
    person = recommenders[which].adapt({1: 4.0})
    for call in (person.predict, person.explain):
        found = answer(lambda call=call: call(asked))
        if isinstance(found, np.ndarray):
            assert np.isfinite(found).all()


many_users = st.dictionaries(labels, histories(), max_size=3) | anything


@st.composite
def tables_of_users(draw: Any) -> pd.DataFrame:
    row = st.tuples(labels | nothing, known | anything, some_stars | any_stars)
    rows = draw(st.lists(row, max_size=6))
    names = ["user_id", "item_id", "rating"]
    columns = {
        name: pd.Series([r[at] for r in rows], dtype=object).infer_objects()
        for at, name in enumerate(names)
    }
    return pd.DataFrame(columns)[draw(st.sampled_from([names, names[::-1], names[:2]]))]


@given(
    st.integers(0, 2),
    many_users | tables_of_users(),
    counts,
    persons | st.dictionaries(labels, persons, max_size=2),
    policies,
)
@examples(300)
def test_many_users_get_lists_or_a_sentence(
    recommenders: list[MetaRecommender],
    which: int,
    ratings: Any,
    n: Any,
    users: Any,
    unknown: Any,
) -> None:
    recommender = recommenders[which]
    found = answer(
        lambda: recommender.recommend_all(
            ratings, n, users=users, progress=False, unknown=unknown
        )
    )
    if found is None:
        return
    assert np.isfinite(found["score"]).all()
    of_user = found.groupby("user_id", sort=False)["rank"]
    if len(found):
        assert (of_user.max() == of_user.size()).all() and found["rank"].max() <= n


# Fits ---------------------------------------------------------------------------------


@st.composite
def populations(draw: Any) -> pd.DataFrame:
    """Twenty users or a few more, whose ratings are drawn as one may think of them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_users, n_items = draw(st.integers(18, 30)), draw(st.integers(2, 12))
    rows = [
        (user, item)
        for user in range(n_users)
        for item in rng.permutation(n_items)[: rng.integers(1, n_items + 1)]
    ]
    frame = pd.DataFrame(rows, columns=["user", "item"])
    kind = draw(st.sampled_from(["noise", "alike", "users", "items", "two", "one off"]))
    user, item = frame["user"], frame["item"]
    frame["rating"] = {
        "noise": rng.integers(1, 6, len(frame)),
        "alike": np.full(len(frame), draw(st.integers(1, 5))),
        "users": 1 + user % 5,
        "items": 1 + item % 5,
        "two": 1 + 4 * ((user + item) % 2),
        "one off": np.where(frame.index == 1, 1.0, 4.0),
    }[kind]
    label = draw(st.sampled_from([int, str, "{:03d}".format, lambda n: (n, "x")]))
    frame["item"] = pd.Series([label(int(n)) for n in item], dtype=object)
    return frame


@given(
    populations(),
    st.sampled_from(["gradient", "bayesian", "attention"]),
    st.sampled_from(["maml", "meta-sgd", "metamind"]),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 3),
)
@examples(120)
def test_a_fit_serves_or_says_why_not(
    frame: pd.DataFrame, learner: str, meta: str, dim: int, reserved: int, steps: int
) -> None:
    def fit() -> MetaRecommender:
        one = MetaRecommender("mf", meta, learner, dim, SHORT, reserved, steps=steps)
        return one.fit(frame, progress=False)

    recommender = answer(fit)
    if recommender is None:
        return
    for _, own in list(frame.groupby("user"))[:3]:
        person = recommender.adapt(list(zip(own["item"], own["rating"], strict=True)))
        assert np.isfinite(person.score()).all()
        left = len(recommender.items) - len(own)
        assert len(person.recommend(50)) == left


settings_of = {
    "model": st.sampled_from(["mf", "mlp", "attention", "svd", None, 3, ["mf"]]),
    "meta": st.sampled_from(["maml", "meta-sgd", "metamind", "reptile", b"maml"]),
    "learner": st.sampled_from(["gradient", "bayesian", "attention", ""]),
}
settings_of |= dict.fromkeys(
    ["dim", "config", "reserved", "seed", "device", "implicit", "full", "steps"],
    anything | st.integers(-2, 5) | st.floats() | st.just(SHORT),
)
of_config = dict.fromkeys(
    ["epochs", "learning_rate", "patience", "clip", "penalty", "seed"],
    anything | st.integers(-2, 5) | st.floats(),
)


@given(
    st.fixed_dictionaries({}, optional=settings_of),
    st.fixed_dictionaries({}, optional=of_config),
)
@examples(400)
def test_settings_are_taken_or_refused(
    given_settings: dict[str, Any], config: dict[str, Any]
) -> None:
    one = answer(lambda: MetaRecommender(**given_settings))
    if one is not None:
        assert one.dim > 0 and one.reserved > 0 and one.system.steps >= 0
    found = answer(lambda: TrainingConfig(**config))
    if found is not None:
        assert found.epochs >= 0 and found.learning_rate >= 0 and found.clip >= 0


@given(st.integers(0, 1500), st.sampled_from(['"', "x", "9", "0", "", "[", "99"]))
@examples(250)
def test_a_damaged_model_is_loaded_or_refused(at: int, damage: str) -> None:
    sound = (FIXTURES / "mf-maml-gradient.safetensors").read_bytes()
    path = Path(mkdtemp()) / "model"
    rest = sound[at + len(damage) :] if damage else b""
    path.write_bytes(sound[:at] + damage.encode() + rest)
    answer(lambda: MetaRecommender.load(path))
