"""What `test_parallel` runs under torchrun, and alone: python tests/processes.py."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarec.data import synthetic_population
from metarec.factors import WarmStart
from metarec.meta import MAML
from metarec.recommender import MetaRecommender
from metarec.scale import process_group
from metarec.systems import Parts, System, build_system
from metarec.tasks import Tasks, TaskSampler, UserHistories
from metarec.training import TrainingConfig, TrainingLog, Workers, meta_train
from metarec.validation import validation_score

SYSTEMS = {
    "MF, MAML": System("mf"),
    "MF, Meta-SGD": System("mf", "meta-sgd"),
    "MF, MetaMind": System("mf", "metamind"),
    "MF, Bayesian": System("mf", learner="bayesian"),
    "MLP, task attention": System("mlp", learner="attention"),
    "MF, lists": System("mf", learner="bayesian", goal="lists"),
    "MF, in-context": System("mf", learner="in-context"),
    "MF, in-context lists": System("mf", learner="in-context", goal="lists"),
}
# Those of which a whole training is compared.
TRAINED = ("MLP, task attention", "MF, MetaMind", "MF, in-context")
# Uneven parts, equal ones, and one process without a task.
BATCHES = (7, 4, 1)
CONFIG = TrainingConfig(epochs=6, patience=3, penalty=0.1)


def histories() -> UserHistories:
    """Sixty users in double precision."""
    data, _ = synthetic_population(n_users=60, n_items=50, ratings_per_user=24, seed=1)
    found = UserHistories(data)
    found.rating, found.profile = found.rating.double(), found.profile.double()
    return found


def system(name: str, known: UserHistories, seed: int = 0) -> MAML:
    """A system of 50 items whose prior and features are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    parts = Parts(
        WarmStart(
            0.5 * torch.randn(50, 3, generator=generator).double(),
            3 + torch.rand(50, generator=generator).double(),
            torch.zeros(60),
            0.1,
        ),
        torch.randn(50, 2, generator=generator).double(),
        known.profile.shape[1],
        60,
        lambda: known.everything(torch.arange(60), 64),
    )
    meta = build_system(SYSTEMS[name], parts, seed).double()
    for parameter in meta.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator).double()
            parameter.data += 0.1 * noise
    return meta


def gradients(workers: Workers) -> dict[str, list[Tensor]]:
    """The meta-gradient of each system on batches of several sizes."""
    known, found = histories(), {}
    for name in SYSTEMS:
        for size in BATCHES:
            meta = system(name, known)
            users = torch.arange(1, 1 + size)  # user 0 likes nothing late
            lists = SYSTEMS[name].goal == "lists"
            settings: dict[str, Any] = {"part": workers.part, "to_the_end": lists}
            sampler = TaskSampler(known, users, meta_batch=size, **settings)
            (tasks,) = sampler(torch.Generator().manual_seed(5))
            loss = 0.0
            if len(tasks):
                value = meta.loss(tasks)
                value.backward()
                loss = value.item()
            trained = [p for p in meta.parameters() if p.requires_grad]
            mean, n = workers.all_reduce(trained, loss, len(tasks))
            assert n == size
            gradient = [p.grad for p in trained if p.grad is not None]
            found[f"{name}, {size} tasks"] = [torch.tensor(mean).double(), *gradient]
    return found


def training(
    workers: Workers,
    name: str,
    checkpoint: Path | None = None,
    pause: float = 0.0,
    dies: bool = False,
    broken: int | None = None,
) -> tuple[MAML, TrainingLog]:
    """A whole training; each process starts from parameters of its own.

    One that ``dies`` is killed in the epoch after the first that was saved.
    """
    known = histories()
    meta = system(name, known, seed=workers.part[0])
    # The last meta-batch is a single task, so the second process has none.
    sampler = TaskSampler(known, torch.arange(47), meta_batch=23, part=workers.part)

    def batches(generator: torch.Generator) -> Iterator[Tasks]:
        for tasks in sampler(generator):
            time.sleep(pause)
            if dies and checkpoint and checkpoint.exists():
                os.kill(os.getpid(), signal.SIGKILL)
            if broken == workers.part[0] and len(tasks):
                nan = torch.full_like(tasks.query.y, torch.nan)
                tasks = replace(tasks, query=replace(tasks.query, y=nan))
            yield tasks

    def validate() -> float:
        assert workers.first, "only the first process validates"
        return validation_score(meta, known, torch.arange(47, 60), (3, 10))

    log = meta_train(meta, batches, validate, CONFIG, checkpoint, workers=workers)
    return meta, log


def recommendations(workers: Workers) -> dict[Any, float]:
    """What the full system says to a new user, fitted in single precision."""
    data, _ = synthetic_population(n_users=60, n_items=50, ratings_per_user=24, seed=1)
    config = TrainingConfig(epochs=3)
    recommender = MetaRecommender("mlp", learner="bayesian", dim=3, config=config)
    recommender.fit(data, progress=False, workers=workers)
    labels = recommender.items["item_id"].tolist()
    stars = recommender.adapt({labels[0]: 5, labels[1]: 1}).predict()
    return dict(zip(labels, stars.tolist(), strict=True))


def outcome(meta: MAML, log: TrainingLog) -> dict[str, Any]:
    """What a training leaves behind."""
    return {"state": meta.state_dict(), "loss": log.loss, "validation": log.validation}


def main(what: str, folder: Path) -> None:
    """Run one of the jobs; process r leaves what it found in r.pt."""
    torch.set_num_threads(1)
    with process_group() as workers:
        rank = workers.part[0]
        found: dict[str, Any] = {}
        if what == "everything":
            found["gradients"] = gradients(workers)
            found["stars"] = recommendations(workers)
            for name in TRAINED:
                found[name] = outcome(*training(workers, name))
        elif what in {"whole", "dies"}:
            path, dies = folder / "run.pt", what == "dies"
            name = "MLP, task attention"
            found = outcome(*training(workers, name, path, dies=dies))
        elif what == "diverge":
            training(workers, "MF, MAML", broken=1)
        elif what == "fail" and rank == 1:
            raise ValueError("the disk of this process is gone")
        elif what == "fail":
            training(workers, "MF, MAML", pause=0.1)
        elif what == "first fails":
            workers.once(lambda: 1 / 0)
        torch.save(found, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
