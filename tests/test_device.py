"""All 27 systems where they may run: on a GPU, in double precision, on no mixture.

What needs a GPU is skipped where there is none; alone it takes a few minutes:
``pytest tests/test_device.py -k gpu``.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from metarec.data import RatingData, rating_data, synthetic_population
from metarec.meta import MetaLearner
from metarec.recommender import MetaRecommender
from metarec.systems import LEARNERS, METAS, MODELS, Parts, System, build_system
from metarec.tasks import TaskSampler, UserHistories
from metarec.training import TrainingConfig

GRID = list(product(MODELS, METAS, LEARNERS))
RATINGS = {3: 5, 17: 1, 29: 4, 8: 3}
USERS = {"a": {"age": 30}, "b": {"gender": "F"}}
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@cache
def population() -> RatingData:
    """60 users, 40 items; genres and user columns that say nothing."""
    plain, _ = synthetic_population(n_users=60, n_items=40, dim=2, seed=3)
    rng = np.random.default_rng(0)
    genres = [tuple(g for g in ("a", "b") if rng.random() < 0.5) for _ in range(40)]
    users = plain.users.assign(
        age=rng.integers(18, 70, 60), gender=rng.choice(["F", "M"], 60)
    )
    items = plain.items.assign(genres=genres)
    return rating_data(plain.ratings, scale=plain.scale, users=users, items=items)


def fitted(cell: tuple[str, str, str], device: str = "cpu") -> MetaRecommender:
    config = TrainingConfig(epochs=2, learning_rate=0.01)
    one = MetaRecommender(*cell, dim=2, config=config, device=device)
    return one.fit(population(), progress=False)


def answers(recommender: MetaRecommender) -> tuple[np.ndarray, pd.DataFrame]:
    """The scores of one user, and the lists of three."""
    person = recommender.adapt(RATINGS, user={"age": 30})
    assert len(person.explain(5)) == 4 and len(person.recommend(40)) == 36
    if recommender.system.learner == "bayesian":
        assert (person.predict(return_std=True)[1] > 0).all()
    users = {"a": RATINGS, "b": {3: 1}, "c": {}}
    lists = recommender.recommend_all(users, n=5, users=USERS, progress=False)
    return person.score().numpy(), lists


def agree(one: MetaRecommender, other: MetaRecommender, least: float) -> None:
    (score, lists), (other_score, other_lists) = answers(one), answers(other)
    np.testing.assert_allclose(score, other_score, atol=least)
    np.testing.assert_allclose(lists["score"], other_lists["score"], atol=least)


@pytest.fixture
def in_double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@gpu
@pytest.mark.parametrize("cell", GRID, ids="-".join)
def test_on_a_gpu_every_system_answers_as_on_the_processor(
    cell: tuple[str, str, str], tmp_path: Path
) -> None:
    here, there = fitted(cell), fitted(cell, "cuda")
    assert {p.device.type for p in there.meta.parameters()} == {"cuda"}
    agree(here, there, 1e-4)
    there.save(tmp_path / "one")
    agree(there, MetaRecommender.load(tmp_path / "one"), 1e-4)
    agree(there, MetaRecommender.load(tmp_path / "one", device="cuda"), 1e-6)


@gpu
def test_a_run_on_a_gpu_goes_on_on_the_processor(tmp_path: Path) -> None:
    for epochs, device in ((1, "cuda"), (2, "cpu"), (3, "cuda")):
        config = TrainingConfig(epochs=epochs)
        one = MetaRecommender(dim=2, config=config, device=device)
        one.fit(population(), checkpoint=tmp_path / "run", progress=False)
    straight = MetaRecommender(dim=2, config=config).fit(population(), progress=False)
    agree(one, straight, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("cell", GRID, ids="-".join)
def test_in_double_precision_every_system_answers_as_in_single(
    cell: tuple[str, str, str], tmp_path: Path, in_double_precision: None
) -> None:
    double = fitted(cell)
    assert {p.dtype for p in double.meta.parameters()} == {torch.float64}
    double.save(tmp_path / "one")
    agree(double, MetaRecommender.load(tmp_path / "one"), 0)
    torch.set_default_dtype(torch.float32)
    single = MetaRecommender.load(tmp_path / "one")
    assert {p.dtype for p in single.meta.parameters()} == {torch.float32}
    agree(double, single, 1e-4)
    # What is drawn at random differs; matrix factorisation itself draws nothing.
    if cell[0] == "mf" and cell[1] != "metamind" and cell[2] != "in-context":
        agree(double, fitted(cell), 1e-3)


def elsewhere(meta: MetaLearner) -> MetaLearner:
    """Move to a device that no machine has, as ``to`` cannot with pretended tensors."""
    for module in meta.modules():
        for name, own in module._parameters.items():
            if own is not None:
                moved = nn.Parameter(own.detach().to("lazy"), own.requires_grad)
                module._parameters[name] = moved
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer.to("lazy")
    return meta


@pytest.mark.parametrize("cell", GRID, ids="-".join)
def test_no_system_mixes_the_devices_of_its_tensors(
    cell: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a pretended device: tensors without numbers, which refuse to meet others."""
    # Whether steps must be cut depends on numbers: here they always must.
    monkeypatch.setattr(FakeTensor, "__bool__", lambda tensor: True, raising=False)
    histories, users = UserHistories(population()), torch.arange(20)
    (tasks,) = TaskSampler(histories, users, (5,))(torch.Generator().manual_seed(0))
    sizes = {"n_items": 40, "dim": 2, "n_features": 2, "n_profile": 3, "n_tasks": 20}
    past = histories.everything(users, 64)
    parts = replace(Parts.blank(sizes), history=lambda: past)
    full = cell[1] == "meta-sgd" and cell[::2] != ("attention", "gradient")
    with FakeTensorMode(allow_non_fake_inputs=True):
        meta = elsewhere(build_system(System(*cell, full=full), parts))
        loss, score = meta.loss(tasks), meta.predict(tasks.support, tasks.query.x)
        loss.backward()
        own = meta.adapt(tasks.support)["head"], meta.prior().mean["head"], loss
        assert {value.device.type for value in own} == {"lazy"}
        assert score.device.type == "cpu"
