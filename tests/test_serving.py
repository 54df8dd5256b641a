"""Many users at once, in batches, threads and over HTTP: the answers of one by one."""

import json
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import torch
import uvicorn

from benchmarks import serving
from metarec import serve
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


# Over HTTP.


@pytest.fixture(scope="module", params=["numbers", "text", "other"])
def port(request: pytest.FixtureRequest, data: RatingData) -> Iterator[int]:
    """A service in a thread, and ids of items that are numbers, text, or neither."""
    ids: list[Any] = list(range(80))
    if request.param == "text":
        ids = [f"{n:03}" for n in range(80)]
    if request.param == "other":
        ids = [UUID(int=n) for n in range(80)]
    items = pd.DataFrame({"item_id": ids, "title": [f"film {n}" for n in range(80)]})
    ratings = data.ratings.assign(item=[ids[n] for n in data.ratings["item"]])
    named = rating_data(ratings, items=items)
    config = TrainingConfig(epochs=1)
    recommender = MetaRecommender("mlp", dim=2, config=config)
    recommender.fit(named, progress=False)
    listening = socket.create_server(("127.0.0.1", 0))
    app = serve.service(recommender)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = Thread(target=server.run, args=([listening],))
    thread.start()
    number = int(listening.getsockname()[1])
    served[number] = recommender
    yield number
    server.should_exit = True
    thread.join()


served: dict[int, MetaRecommender] = {}


def post(port: int, path: str, **wanted: Any) -> Any:
    status, found = serving.ask(port, "POST", path, json.dumps(wanted).encode())
    assert status == 200, found
    return found


def test_the_service_answers_as_the_recommender(port: int) -> None:
    recommender = served[port]
    first, second, third = ids = recommender.items["item_id"].tolist()[4:7]
    rated = [{"item": str(first), "rating": 5}, {"item": str(second), "rating": 1.5}]
    alone = recommender.adapt({first: 5, second: 1.5})
    found = post(port, "/recommend", ratings=rated, n=7, min_ratings=75)
    table = alone.recommend(7, 75)
    plain = [x if isinstance(x, int) else str(x) for x in table["item_id"]]
    assert 0 < len(found) < 8 and [row["item"] for row in found] == plain
    assert [row["title"] for row in found] == table["title"].tolist()
    assert [row["score"] for row in found] == table["score"].tolist()
    why = post(port, "/explain", ratings=rated, item=str(third))
    table = alone.explain(third)
    assert [row["item"] for row in why] == [
        plain[0].__class__(ids[0 if label == first else 1])
        for label in table["item_id"]
    ]
    assert [row["effect"] for row in why] == table["effect"].tolist()
    assert [row["rating"] for row in why] == table["rating"].tolist()
    prior = recommender.adapt().recommend()
    assert len(post(port, "/recommend")) == len(prior) == 10
    assert post(port, "/explain", item=str(third)) == []


def test_every_malformed_request_gets_a_sentence(port: int) -> None:
    served_here = served[port]
    label = json.dumps(served_here.items["item_id"].tolist()[3], default=str).encode()
    codes = {}
    for kind, body in serving.MALFORMED.items():
        body = body.replace(b'"item": 3', b'"item": ' + label)
        codes[kind], found = serving.ask(port, "POST", "/recommend", body)
        assert set(found) == {"detail"} and 0 < len(found["detail"]) < 300, kind
    assert set(codes.values()) == {400, 413, 422}
    assert [kind for kind, code in codes.items() if code == 413] == ["a huge body"]
    status, found = serving.ask(port, "POST", "/explain", b'{"item": "nowhere"}')
    assert status == 400 and "unknown item 'nowhere'" in found["detail"]
    # And the connection is still there, and so is the service.
    assert serving.ask(port, "GET", "/health")[1]["items"] == 80


def test_a_body_whose_length_nobody_knows_is_not_kept(port: int) -> None:
    client = serving.HTTPConnection("127.0.0.1", port)
    for size, n in ((1, 3), (2**20, 3), (2**20, 100)):
        client.request(
            "POST", "/recommend", iter([b" " * size] * n), encode_chunked=True
        )
        reply = client.getresponse()
        assert reply.status == 413 and b"1048576 bytes" in reply.read()


def test_the_service_describes_itself(port: int) -> None:
    about = serving.ask(port, "GET", "/openapi.json")[1]
    assert set(about["paths"]) == {"/recommend", "/explain", "/health"}
    answers = about["paths"]["/recommend"]["post"]["responses"]
    refusal = answers["422"]["content"]["application/json"]["schema"]["$ref"]
    assert refusal.endswith("/Refusal") and set(answers) == {"200", "400", "413", "422"}
    client = serving.HTTPConnection("127.0.0.1", port)
    client.request("GET", "/")
    page = client.getresponse().read().decode()
    assert "<title>metarec</title>" in page
    assert "//" not in page.replace("</", ""), "the page loads nothing from elsewhere"


def test_a_model_that_cannot_be_loaded_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serve.main([str(tmp_path / "none")]) == 1
    assert "error: no file" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "metarec.serve")
    with pytest.raises(
        ImportError, match=r"fastapi is missing: pip install metarec\[se"
    ):
        import metarec.serve  # noqa: F401


def test_a_port_that_is_none_is_an_error(
    plain: MetaRecommender, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain.save(tmp_path / "model")
    assert serve.main([str(tmp_path / "model"), "--port", "99999"]) == 1
    assert "port must be 0-65535" in capsys.readouterr().err


@pytest.mark.slow
def test_many_clients_a_kill_and_the_same_lists(
    plain: MetaRecommender, tmp_path: Path
) -> None:
    plain.save(tmp_path / "model")
    port = serving.free_port()
    for _ in range(2):  # killed in between
        with serving.running(tmp_path / "model", port):
            found = serving.load(port, plain, 10 * len(serving.MALFORMED), 8)
        assert found["right"].all() and (found["status"] < 500).all()
        assert set(found["kind"]) == {"good", *serving.MALFORMED}
