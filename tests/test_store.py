"""Ratings on disk: the same answers as in memory, bounded memory, errors, a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from metarec import tasks
from metarec.data import RatingData, RatingScale, rating_data
from metarec.evaluation import cold_start
from metarec.factors import GaussianFactorModel, ItemMean, UserItemBias, cross_fit
from metarec.factors.gaussian import rating_sums
from metarec.recommender import MetaRecommender
from metarec.scale import RatingChunk, RatingStore, synthetic_store
from metarec.tasks import LeakageError, UserHistories, one_thread
from metarec.training import TrainingConfig

USERS = torch.arange(150)
ITEMS = pd.DataFrame({"item_id": list("abcd")})


def chunk(*users: list[tuple[int, float]]) -> RatingChunk:
    counts = np.array([len(user) for user in users])
    item = np.array([item for user in users for item, _ in user], dtype=np.int64)
    return RatingChunk(counts, item, np.array([r for user in users for _, r in user]))


@pytest.fixture(scope="module")
def shuffled(data: RatingData) -> RatingData:
    """Rows in no order, so that the store has something to sort."""
    rows = np.random.default_rng(0).permutation(len(data.ratings))
    table = data.ratings.iloc[rows].reset_index(drop=True)
    return RatingData("s", data.users, data.items, data.scale, "cite", table)


@pytest.fixture(scope="module")
def store(
    shuffled: RatingData, tmp_path_factory: pytest.TempPathFactory
) -> RatingStore:
    path = tmp_path_factory.mktemp("store") / "ratings"
    return RatingStore.write_data(path, shuffled, chunk=37)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    parts = [chunk([(3, 2.5), (0, 1)], []), chunk([(1, 5)])]
    described = ITEMS.assign(year=[1999, None, 2001, 2002], genres=[("a", "b")] * 4)
    path = tmp_path / "deep" / "store"
    store = RatingStore.write(path, iter(parts), described, name="n", citation="c")
    assert store.start.tolist() == [0, 2, 2, 3] and store.n_users == 3
    assert store.item.tolist() == [3, 0, 1] and store.rating.tolist() == [2.5, 1, 5]
    assert (store.name, store.citation, store.scale) == ("n", "c", RatingScale(1, 5))
    frame = pd.DataFrame({"user": [0], "item": ["a"], "rating": [3.0]})
    same = rating_data(frame, items=described).items
    pd.testing.assert_frame_equal(store.items, same)
    assert store.users["user_id"].tolist() == [0, 1, 2]
    assert sorted(p.name for p in path.parent.iterdir()) == ["store"]


def test_the_columns_are_maps_of_plain_numpy_files(store: RatingStore) -> None:
    for column, dtype in ((store.item, "<i4"), (store.rating, "<f4")):
        assert isinstance(column, np.memmap) and column.dtype == dtype
        assert np.array_equal(np.load(column.filename), column)
    store.item[0] += 1  # a copy of the page, not the file
    assert np.load(store.item.filename)[0] == store.item[0] - 1
    store.item[0] -= 1


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (chunk([(0, 3)], [(0, float("nan"))]), "user 2 has a rating that is NaN"),
        (chunk([(0, 6)]), r"user 1 has a rating off the scale 1 to 5 \(item 0"),
        (chunk([(0, 3), (4, 3)]), r"user 1 has an item that is not in 0..3"),
        (chunk([(-1, 3)]), "user 1 has an item that is not in"),
        (chunk([(2, 3)], [(0, 3), (2, 1), (0, 4)]), "user 2 has rated an item twice"),
        (
            RatingChunk(np.array([2]), np.array([0]), np.array([3.0])),
            "user 1 counts 2 ratings and holds 1",
        ),
    ],
)
def test_a_wrong_rating_is_refused_and_nothing_is_left(
    bad: RatingChunk, match: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=match):
        RatingStore.write(tmp_path / "s", [chunk([(0, 3)]), bad], ITEMS)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_not_overwritten_and_needs_ratings(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(ValueError, match="no rating"):
        RatingStore.write(path, [], ITEMS)
    with pytest.raises(ValueError, match="table of users has 2 rows"):
        RatingStore.write(path, [chunk([(0, 3)])], ITEMS, pd.DataFrame({"x": [1, 2]}))
    with pytest.raises(FileNotFoundError, match="holds no ratings"):
        RatingStore.open(path)
    RatingStore.write(path, [chunk([(0, 3)])], ITEMS)
    with pytest.raises(FileExistsError, match="delete it"):
        RatingStore.write(path, [chunk([(0, 3)])], ITEMS)


@pytest.mark.parametrize("name", ["start", "item", "rating"])
def test_a_file_that_is_cut_off_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    RatingStore.write(path, [chunk([(0, 3), (1, 4)])], ITEMS)
    file = path / f"{name}.npy"
    whole = file.read_bytes()
    for size in (len(whole) - 3, 5, 0):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"{name}.npy is missing, cut off"):
            RatingStore.open(path)
    np.save(file, np.zeros(7, np.float32))
    with pytest.raises(ValueError, match=rf"{name}.npy holds \(7,\) of float32"):
        RatingStore.open(path)
    file.write_bytes(whole)
    about = path / "about.json"
    about.write_text(about.read_text().replace("ratings 1", "ratings 0"))
    with pytest.raises(ValueError, match="'metarec ratings 0'"):
        RatingStore.open(path)
    about.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        RatingStore.open(path)


def test_tasks_from_disk_are_those_from_memory(
    store: RatingStore, shuffled: RatingData
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
    store: RatingStore, shuffled: RatingData
) -> None:
    one, two = (
        MetaRecommender(dim=2, config=TrainingConfig(epochs=3))
        .fit(data, USERS, progress=False)
        .meta.state_dict()
        for data in (store, shuffled)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_chunks_hold_every_user_once_and_at_most_so_many_ratings(
    store: RatingStore,
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
    store: RatingStore, monkeypatch: pytest.MonkeyPatch
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
    store: RatingStore, monkeypatch: pytest.MonkeyPatch
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
    store: RatingStore, monkeypatch: pytest.MonkeyPatch
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
    store, _ = synthetic_store(tmp_path / "s", 60, 401, progress=False)
    histories, users = UserHistories(store), torch.tensor([19, 3, 50, 7, 31])
    assert len(histories.count(users).unique()) == 5
    bias = UserItemBias.fit(histories, torch.arange(60))
    whole = cold_start(bias, histories, users, (1, 5))
    monkeypatch.setattr("metarec.validation.USERS_AT_ONCE", 2)
    found = cold_start(bias, histories, users, (1, 5))
    pd.testing.assert_frame_equal(found, whole, rtol=1e-6)
    assert whole["user"].tolist() == [19, 3, 50, 7, 31] * 2


# A population of any size.


def test_the_streamed_population_is_what_it_says(tmp_path: Path) -> None:
    store, truth = synthetic_store(tmp_path / "s", 6000, 1000, progress=False)
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
    few, some = synthetic_store(tmp_path / "a", 50, 1000, progress=False)
    many, all_ = synthetic_store(tmp_path / "b", 5100, 1000, progress=False)
    n = len(few.item)
    assert np.array_equal(few.item, many.item[:n])
    assert np.array_equal(few.rating, many.rating[:n])
    assert np.array_equal(some.p_u, all_.p_u[:50])
    with pytest.raises(ValueError, match="100 items are too few"):
        synthetic_store(tmp_path / "c", 5, 100)


# A kill in the middle of a fit.

HANGS = 600  # seconds after which a process is ended

FIT = """
import os, signal, sys, torch
from pathlib import Path
from metarec.scale import RatingStore
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
store = RatingStore.open(folder / "store")
model = MetaRecommender(dim=2, config=config)
model.fit(store, checkpoint=checkpoint, progress=False)
torch.save(model.meta.state_dict(), folder / f"{sys.argv[2]}.end")
"""


@pytest.mark.slow
def test_a_fit_that_is_killed_goes_on_to_the_same_parameters(
    data: RatingData, tmp_path: Path
) -> None:
    RatingStore.write_data(tmp_path / "store", data)

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
    store: RatingStore, tmp_path: Path
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
