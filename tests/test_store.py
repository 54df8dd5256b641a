"""Ratings on disk: the same answers as in memory, bounded memory, errors, a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from benchmarks import crowd
from metarec import tasks
from metarec.data import (
    RatingColumns,
    RatingData,
    RatingScale,
    SyntheticTruth,
    load_movielens_100k,
    rating_data,
)
from metarec.evaluation import cold_start
from metarec.factors import GaussianFactorModel, ItemMean, UserItemBias, cross_fit
from metarec.factors.sums import rating_sums
from metarec.recommender import MetaRecommender
from metarec.scale import open_store, write_store
from metarec.tasks import LeakageError, UserHistories, one_thread
from metarec.training import TrainingConfig

USERS = torch.arange(150)
FILES = ("ratings.arrow", "users.parquet", "items.parquet")


@pytest.fixture(scope="module")
def shuffled(data: RatingData) -> RatingData:
    """Rows in no order, so that the store has something to sort."""
    rows = np.random.default_rng(0).permutation(len(data.ratings))
    table = data.ratings.iloc[rows].reset_index(drop=True)
    return RatingData("s", data.users, data.items, data.scale, "cite", table)


def saved(table: pd.DataFrame, path: Path) -> Path:
    """The table as a file, of the kind that the name says."""
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(
        path, index=False
    )
    return path


@pytest.fixture(scope="module", params=["s.csv", "s.parquet"])
def store(
    request: pytest.FixtureRequest,
    shuffled: RatingData,
    tmp_path_factory: pytest.TempPathFactory,
) -> RatingColumns:
    folder = tmp_path_factory.mktemp("store")
    source = saved(shuffled.ratings, folder / request.param)
    return write_store(folder / "store", source, scale=shuffled.scale)


def written(tmp_path: Path, rows: str, **more: Any) -> RatingColumns:
    (tmp_path / "given").write_text(rows)
    return write_store(tmp_path / "store", tmp_path / "given", **more)


def held(ratings: RatingColumns | RatingData) -> list[tuple[Any, Any, float]]:
    """User, item and rating by label, as histories have them."""
    histories = UserHistories(ratings)
    user, item, rating = histories.ratings_of(torch.arange(ratings.n_users))
    users = ratings.users["user_id"].iloc[user.numpy()]
    labels = ratings.items["item_id"].iloc[item.numpy()]
    return list(zip(users, labels, rating.tolist(), strict=True))


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    users = pd.DataFrame({"user_id": [0, 1, 2], "age": [20, 30, 40]})
    items = pd.DataFrame({"item_id": list("abcd"), "year": [1999, None, 2001, 2002]})
    items["genres"], items["price"] = [("a", "b")] * 4, [1.5, 2, 2.5, 3]
    rows = "user,item,rating,timestamp\n0,d,2.5,1\n2,b,5,1\n0,a,1,2\n"
    more = {"users": users, "items": items, "citation": "c"}
    store = written(tmp_path, rows, **more)
    assert store.start.tolist() == [0, 2, 2, 3] and store.n_users == 3
    assert store.item.tolist() == [3, 0, 1] and store.rating.tolist() == [2.5, 1, 5]
    assert (store.name, store.citation) == ("given", "c")
    assert store.scale == RatingScale(1, 5)
    frame = pd.read_csv(tmp_path / "given")
    same = rating_data(frame, users=users, items=items)
    pd.testing.assert_frame_equal(store.items, same.items)
    pd.testing.assert_frame_equal(store.users, same.users)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["given", "store"]
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == sorted(FILES)


def test_the_columns_are_maps_of_one_arrow_file(store: RatingColumns) -> None:
    for column, dtype in ((store.item, "<i4"), (store.rating, "<f4")):
        assert isinstance(column, np.memmap) and column.dtype == dtype
    with pa.memory_map(str(store.item.filename)) as file:
        (batch,) = pa.ipc.open_file(file).read_all().to_batches()
        assert np.array_equal(batch["item"], store.item)
        assert np.array_equal(batch["rating"], store.rating)
        before = store.item[0]
        store.item[0] += 1  # a copy of the page, not the file
        assert batch["item"][0].as_py() == before
    store.item[0] -= 1


LABELS = {
    "as text": ["007", "7", "10", "b"],
    "numbers": ["9", "10", "-3", "0"],
    "too long": ["1", "12345678901234567890", "3", "4"],
    "no ascii": ["b", "\u00e9", "Z", "a b"],
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_labels_and_their_order_are_those_in_memory(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    label = LABELS[kind]
    rows = [(u, i, 1 + n % 5, n % 3) for n, (u, i) in enumerate(np.ndindex(4, 4))]
    table = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    table["user"] = [label[u] for u in table["user"]]
    table["item"] = [label[i] for i in table["item"]]
    source = saved(table, tmp_path / f"given.{suffix}")
    if suffix == "csv" and kind == "numbers":
        table = table.astype({"user": int, "item": int})
    assert held(write_store(tmp_path / "store", source)) == held(rating_data(table))


def test_time_is_seconds_or_a_date_and_ties_keep_the_order_of_the_file(
    tmp_path: Path,
) -> None:
    first = "user,item,rating,timestamp\na,x,1,{}\na,y,2,{}\na,z,3,{}\n"
    for n, (times, order) in enumerate(
        {
            ("1000.5", "-5", "1e3"): "yxz",  # of one second: a tie
            ("2020-02-01", "2020-01-31T23:59:59Z", "2020-02-01 00:00:00"): "yxz",
            ("3", "2", "1"): "zyx",
        }.items()
    ):
        (tmp_path / str(n)).mkdir()
        found = written(tmp_path / str(n), first.format(*times))
        assert "".join(label for _, label, _ in held(found)) == order
    with pytest.raises(ValueError, match=r"row 1: 'timestamp' is empty or no timest"):
        written(tmp_path, first.format("1", "soon", "3"))
    found = written(
        tmp_path,
        "u;film;stars\na;x;1\na;b;2\n",
        columns={"user": "u", "item": "film", "rating": "stars"},
    )
    assert held(found) == [("a", "x", 1), ("a", "b", 2)]


@pytest.mark.parametrize("keep", ["first", "last"])
def test_of_a_pair_rated_again_one_is_kept(keep: str, tmp_path: Path) -> None:
    rows = ["a,x,1,5", "a,y,2,6", "a,x,3,4", "b,x,1,1", "a,x,4,5", "a,y,5,6"]
    text = "user,item,rating,timestamp\n" + "\n".join(rows)
    kept = {
        "first": [("a", "x", 3), ("a", "y", 2)],
        "last": [("a", "x", 4), ("a", "y", 5)],
    }
    store = written(tmp_path, text, duplicates=keep)
    assert held(store) == [*kept[keep], ("b", "x", 1)]
    assert store.start.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ("a,x,3\nb,x,nan", "row 1: nan is not on 1 to 5"),
        ("a,x,3\nb,x,6", "row 1: 6 is not on 1 to 5"),
        ("a,x,3\na,y,", "row 1: 'rating' is empty or no rating"),
        ("a,x,good", "row 0: 'rating' is empty or no rating"),
        ("a,x,3\n,y,2", "row 1: 'user' is empty"),
        ("a,,3\nb,y,2", "row 0: 'item' is empty"),
        ("a,x,3\nb,y,2\na,x,4", r'row 2: .* was rated before; keep the "first"'),
        ("", "no rating"),
    ],
)
def test_a_wrong_rating_is_refused_and_nothing_is_left(
    rows: str, match: str, tmp_path: Path
) -> None:
    for duplicates in ("error", "frist"):  # which is no word for keeping any
        with pytest.raises(ValueError, match=rf"given: .*{match}"):
            written(tmp_path, f"user,item,rating\n{rows}", duplicates=duplicates)
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.csv: .*No files found"):
        write_store(tmp_path / "store", tmp_path / "none.csv")
    with pytest.raises(ValueError, match="no column 'rating' for the rating"):
        written(tmp_path, "user,item,stars\na,x,3\n")
    with pytest.raises(ValueError, match=r"row 0: None is empty or no rating"):
        written(tmp_path, "user,item\na,x\n", columns={"rating": None})
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"bad.parquet: "):
        write_store(tmp_path / "store", bad)
    unknown = pd.DataFrame({"item_id": ["y"]})
    with pytest.raises(ValueError, match="item 'x' is not in the table of items"):
        written(tmp_path, "user,item,rating\na,x,3\n", items=unknown)
    written(tmp_path, "user,item,rating\na,x,3\n")
    with pytest.raises(FileExistsError, match="delete it"):
        written(tmp_path, "user,item,rating\na,x,3\n")
    with pytest.raises(FileNotFoundError, match="holds no ratings"):
        open_store(tmp_path / "nowhere")


@pytest.mark.parametrize("library", ["duckdb", "pyarrow"])
def test_a_missing_library_is_named(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        ImportError, match=rf"{library} is missing: pip install .*large"
    ):
        written(tmp_path, "user,item,rating\na,x,3\n")
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_is_refused(name: str, tmp_path: Path) -> None:
    written(tmp_path, "user,item,rating\na,x,3\na,y,4\nb,x,5\n")
    file = tmp_path / "store" / name
    whole = file.read_bytes()
    for size in (len(whole) - 3, len(whole) // 2, 5, 0):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"store is damaged .*: write it again"):
            open_store(tmp_path / "store")
    file.unlink()
    with pytest.raises(ValueError, match=r"store is damaged .*: write it again"):
        open_store(tmp_path / "store")


def test_files_of_two_stores_do_not_pass_for_one(tmp_path: Path) -> None:
    store = written(tmp_path, "user,item,rating\na,x,3\na,y,4\nb,x,5\n")
    assert store.start.tolist() == [0, 2, 3]
    path = tmp_path / "store" / "users.parquet"
    for counts in ([2, 2], [4, -1], [2, 0]):
        users = pd.DataFrame({"user_id": ["a", "b"], "n_ratings": counts})
        users.to_parquet(path)
        with pytest.raises(ValueError, match=f"of {sum(counts)} ratings, not of 3"):
            open_store(tmp_path / "store")
    table = pa.table({"item": [1], "rating": [1.0]})
    with pa.ipc.new_file(path.with_name("ratings.arrow"), table.schema) as file:
        file.write(table)
    with pytest.raises(ValueError, match="damaged"):
        open_store(tmp_path / "store")


def test_the_engine_is_held_to_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, seen = duckdb.connect, {}

    def watched(*where: str, config: dict[str, Any]) -> Any:
        engine = connect(*where, config=config)
        for name in ("memory_limit", "threads", "temp_directory"):
            query = f"SELECT current_setting('{name}')"
            ((seen[name],),) = engine.sql(query).fetchall()
        return engine

    monkeypatch.setattr(duckdb, "connect", watched)
    written(tmp_path, "user,item,rating\na,x,3\n")
    amount, unit = seen["memory_limit"].split()
    assert unit == "MiB" and float(amount) < 500 and seen["threads"] == 2
    assert Path(seen["temp_directory"]).parents[1] == tmp_path  # and gone by now


WRITE = """
import os, signal, sys
from metarec.data import RatingScale
from metarec.scale import write_store
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "half": RatingScale.contains = die  # the first batch is sorted
if sys.argv[1] == "end": os.rename = die  # all is written
write_store("store", "given")
"""


@pytest.mark.parametrize("when", ["half", "end"])
def test_a_kill_leaves_no_half_of_a_store(when: str, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("user,item,rating\na,x,3\n")
    for stage, code in ((when, -signal.SIGKILL), ("never", 0)):
        command = [sys.executable, "-c", WRITE, stage]
        path = os.pathsep.join(sys.path)
        run = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}
        )
        assert run.returncode == code
        assert (tmp_path / "store").exists() == (stage == "never")
    assert held(open_store(tmp_path / "store")) == [("a", "x", 3)]


def test_tasks_from_disk_are_those_from_memory(
    store: RatingColumns, shuffled: RatingData
) -> None:
    disk, memory = UserHistories(store), UserHistories(shuffled)
    users = torch.tensor([7, 3, 190])
    for one, two in zip(disk.ratings_of(users), memory.ratings_of(users), strict=True):
        assert torch.equal(one, two) and one.dtype == two.dtype
    for one, two in zip(
        vars(disk.tasks(users, 5)).values(),
        vars(memory.tasks(users, 5)).values(),
        strict=True,
    ):
        parts = [(one, two)] if isinstance(one, torch.Tensor) else []
        parts = parts or [
            (getattr(one, f), getattr(two, f)) for f in ("x", "y", "mask")
        ]
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in parts)
    with pytest.raises(LeakageError):
        disk.seal(users).ratings_of(users)
    with pytest.raises(ValueError, match="in order of time, not in 'random'"):
        UserHistories(store, order="random")


def test_a_recommender_fitted_from_disk_is_that_from_memory(
    store: RatingColumns, shuffled: RatingData
) -> None:
    one, two = (
        MetaRecommender(dim=2, config=TrainingConfig(epochs=3))
        .fit(data, USERS, progress=False)
        .meta.state_dict()
        for data in (store, shuffled)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_movielens_from_disk_is_that_from_memory(suffix: str, tmp_path: Path) -> None:
    data, fits = load_movielens_100k(progress=False), []
    table = data.ratings.assign(
        user=data.users["user_id"].to_numpy()[data.ratings["user"]],
        item=data.items["item_id"].to_numpy()[data.ratings["item"]],
    )
    about = {"scale": data.scale, "users": data.users, "items": data.items}
    source = saved(table, tmp_path / f"ratings.{suffix}")
    store = write_store(tmp_path / "store", source, **about)
    config = TrainingConfig(epochs=1)
    for ratings in (data, store):
        one = MetaRecommender("attention", dim=4, config=config)
        fits.append(one.fit(ratings, torch.arange(300), progress=False).meta)
    memory, disk = (meta.state_dict() for meta in fits)
    assert all(torch.equal(memory[name], disk[name]) for name in memory)


def test_chunks_hold_every_user_once_and_at_most_so_many_ratings(
    store: RatingColumns,
) -> None:
    histories, users = UserHistories(store), torch.randperm(200)[:90]
    parts = list(histories.in_chunks(users, most=100))
    assert torch.equal(torch.cat([some for some, *_ in parts]), users)
    assert len(parts) == 30 and all(len(item) == 90 for *_, item, _ in parts)
    assert len(list(histories.in_chunks(users, most=1))) == 90
    assert torch.equal(
        torch.cat([item for *_, item, _ in parts]), histories.ratings_of(users)[1]
    )


def in_chunks_of(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    for name in ("CHUNK", "KEPT"):
        monkeypatch.setattr(f"metarec.factors.sums.{name}", most)
    monkeypatch.setattr(UserHistories.in_chunks, "__defaults__", (most,))


def test_sums_over_chunks_are_those_of_the_whole(
    store: RatingColumns, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = UserHistories(store)
    model = GaussianFactorModel.fit(histories, USERS, 2, sweeps=5)
    tables = rating_sums(histories, USERS, model.offset)
    whole = model._e_step(tables)
    assert len(tables) == 1 and tables[0]() is tables[0]()  # kept
    for most in (2000, 500, 1):
        in_chunks_of(monkeypatch, most)
        tables = rating_sums(histories, USERS, model.offset)
        assert len(tables) > 1 and tables[0]() is not tables[0]()  # read anew
        for name, value in vars(model._e_step(tables)).items():
            expected = torch.as_tensor(vars(whole)[name])
            torch.testing.assert_close(
                torch.as_tensor(value), expected, rtol=1e-11, atol=1e-11
            )


def test_threads_that_share_the_chunks_change_nothing(
    store: RatingColumns, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories, before = UserHistories(store), torch.get_num_threads()
    monkeypatch.setattr("metarec.factors.sums.CHUNK", 500)
    fits = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            fits.append(vars(GaussianFactorModel.fit(histories, USERS, 2, sweeps=5)))
            assert torch.get_num_threads() == threads
            with one_thread(), one_thread() as outside:
                assert torch.get_num_threads() == 1 and outside == threads
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(torch.as_tensor(one), torch.as_tensor(two))
        for one, two in zip(fits[0].values(), fits[1].values(), strict=True)
    )


def test_a_fit_in_chunks_is_that_of_the_whole(
    store: RatingColumns, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories, fits = UserHistories(store), []
    for most in (2**20, 500):
        in_chunks_of(monkeypatch, most)
        model = GaussianFactorModel.fit(histories, USERS, 2)
        model.learn_implicit(histories, USERS, draws=2)
        warm = cross_fit(model, histories, USERS)
        bias = UserItemBias.fit(histories, USERS)
        found = {name: value for name, value in vars(model).items() if name != "dim"}
        found |= {
            "mean": ItemMean.fit(histories, USERS).offset,
            "factors": warm.factors,
        }
        fits.append(found | {"bias": bias.offset, "of users": bias.mean_bias})
    for name, value in fits[0].items():  # the start is in single precision
        torch.testing.assert_close(
            torch.as_tensor(value), torch.as_tensor(fits[1][name]), rtol=0, atol=2e-6
        )


def test_many_users_are_judged_as_few_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = drawn(tmp_path, 60, 401)
    histories, users = UserHistories(store), torch.tensor([19, 3, 50, 7, 31])
    assert len(histories.count(users).unique()) == 5
    bias = UserItemBias.fit(histories, torch.arange(60))
    whole = cold_start(bias, histories, users, (1, 5))
    monkeypatch.setattr("metarec.validation.USERS_AT_ONCE", 2)
    found = cold_start(bias, histories, users, (1, 5))
    pd.testing.assert_frame_equal(found, whole, rtol=1e-6)
    assert whole["user"].tolist() == [3, 7, 19, 31, 50] * 2


# A population of any size.


def drawn(
    folder: Path, n_users: int, n_items: int, suffix: str = "csv"
) -> tuple[RatingColumns, SyntheticTruth]:
    folder.mkdir(exist_ok=True)
    truth = crowd.draw(folder / f"r.{suffix}", n_users, n_items, progress=False)
    items = pd.DataFrame({"item_id": range(n_items)})
    return write_store(folder / "s", folder / f"r.{suffix}", items=items), truth


def test_the_streamed_population_is_what_it_says(tmp_path: Path) -> None:
    store, truth = drawn(tmp_path, 6000, 1000)
    counts = np.diff(store.start)
    assert counts.mean() == pytest.approx(100, rel=0.05)
    assert counts.min() >= 20 and counts.max() <= 500
    user = np.repeat(np.arange(6000), counts)
    taste = (truth.p_u[user] * truth.q_i[store.item]).sum(1)
    score = truth.mu + truth.b_i[store.item] + truth.b_u[user] + taste
    inside = (score > 2.5) & (score < 3.5)  # where clipping changes little
    error = (store.rating - score)[inside]
    assert error.std() == pytest.approx(truth.sigma, rel=0.03)
    assert abs(error.mean()) < 0.02
    weights = np.column_stack([truth.p_u, truth.b_u])
    spread = np.sqrt(np.diag(truth.covariance))
    assert np.allclose(weights.std(0), spread, rtol=0.05)
    often = np.sort(np.bincount(store.item, minlength=1000))[::-1]
    assert often[:100].sum() > 0.3 * often.sum() and often[-100:].sum() > 0


def test_the_first_users_are_those_of_a_larger_population(tmp_path: Path) -> None:
    few, some = drawn(tmp_path / "a", 50, 1000)
    many, all_ = drawn(tmp_path / "b", 5100, 1000, "parquet")
    n = len(few.item)
    assert np.array_equal(few.item, many.item[:n])
    assert np.array_equal(few.rating, many.rating[:n])
    assert np.array_equal(some.p_u, all_.p_u[:50])
    with pytest.raises(ValueError, match="100 items are too few"):
        crowd.draw(tmp_path / "c.csv", 5, 100)


# A kill in the middle of a fit.

HANGS = 600  # seconds after which a process is ended

FIT = """
import os, signal, sys, torch
from pathlib import Path
from metarec.scale import open_store
from torch.optim.optimizer import register_optimizer_step_post_hook
from metarec.recommender import MetaRecommender
from metarec.training import TrainingConfig
torch.set_num_threads(1)
folder = Path(sys.argv[1])
checkpoint = folder / sys.argv[2]
if sys.argv[3:] == ["dies"]:
    # Killed by its own hand in the epoch after the first that was saved.
    def die(*_): checkpoint.exists() and os.kill(os.getpid(), signal.SIGKILL)
    register_optimizer_step_post_hook(die)
config = TrainingConfig(epochs=40, patience=40, learning_rate=0.05)
store = open_store(folder / "store")
model = MetaRecommender(dim=2, config=config)
model.fit(store, checkpoint=checkpoint, progress=False)
torch.save(model.meta.state_dict(), folder / f"{sys.argv[2]}.end")
"""


@pytest.mark.slow
def test_a_fit_that_is_killed_goes_on_to_the_same_parameters(
    data: RatingData, tmp_path: Path
) -> None:
    write_store(tmp_path / "store", saved(data.ratings, tmp_path / "r.csv"))

    def start(*names: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", FIT, str(tmp_path), *names]
        return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})

    killed = start("killed", "dies")
    assert killed.wait(HANGS) == -signal.SIGKILL
    done = len(torch.load(tmp_path / "killed", weights_only=True)["log"]["loss"])
    assert 0 < done < 40 and not (tmp_path / "killed.end").exists()
    written = (tmp_path / "killed.items").stat().st_mtime_ns
    runs = start("killed"), start("whole")
    assert [run.wait(HANGS) for run in runs] == [0, 0]
    assert (tmp_path / "killed.items").stat().st_mtime_ns == written
    one, two = (
        torch.load(tmp_path / f"{name}.end", weights_only=True)
        for name in ("killed", "whole")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_item_vectors_of_another_run_are_refused(
    store: RatingColumns, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    config = TrainingConfig(epochs=0)
    MetaRecommender(dim=2, config=config).fit(store, USERS, path, progress=False)
    for dim, users in ((3, USERS), (2, USERS[1:])):
        with pytest.raises(ValueError, match="another run or for other ratings"):
            MetaRecommender(dim=dim, config=config).fit(store, users, path, False)
    (tmp_path / "run.items").write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="holds no item vectors"):
        MetaRecommender(dim=2, config=config).fit(store, USERS, path, False)
    assert tasks.CHUNK >= 2**20  # MovieLens stays in one chunk, and keeps its bits
