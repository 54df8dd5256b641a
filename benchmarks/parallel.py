"""Time the outer loop on one and two processes, and work out what 64 would take.

    python benchmarks/parallel.py

Three things are measured: an epoch on 1 and 2 processes, split into what each process
does on its part of the tasks (compute), what all of them repeat (replicated: clipping,
Adam) and the all-reduce with all around it (communication: packing, the wait for the
slower one); an epoch on a part of 1/P for P up to 64, by one process that cuts no more
than that and packs its gradients for nobody; and an all-reduce of 2 processes by the
number of bytes. The rows "model" put the last two together. Writes
benchmarks/results/parallel.csv.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import log2
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from metarec.data import synthetic_population
from metarec.evaluation import write_table
from metarec.learners import GradientDescent
from metarec.meta import MAML
from metarec.models import MLP, MatrixFactorization, RatingModel
from metarec.scale import process_group
from metarec.tasks import Tasks, TaskSampler, UserHistories
from metarec.training import TrainingConfig, Workers, meta_train

USERS, RATINGS, K = 2048, 30, 10
PARTS = (1, 2, 4, 8, 16, 32, 64)
FLOATS = (2, 1024, 16_384, 262_144, 1_048_576, 4_194_304)
MLP_WEIGHTS = ("first", "first_bias", "second", "head")

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """What is trained, and on how many tasks at a time."""

    name: str
    meta_batch: int
    n_items: int = 1682
    dim: int = 8

    def build(self) -> MAML:
        """The meta-learner: five inner steps, second order."""
        generator = torch.Generator().manual_seed(0)
        q = 0.3 * torch.randn(self.n_items, self.dim, generator=generator)
        offset = 3 + torch.rand(self.n_items, generator=generator)
        genres = (torch.rand(self.n_items, 19, generator=generator) < 0.1).float()
        if self.name.startswith("MLP"):
            model: RatingModel = MLP(q, offset, genres, generator=generator)
            return MAML(model, GradientDescent(5), MLP_WEIGHTS)
        model = MatrixFactorization.from_items(q, offset)
        if self.name == "MF, items too":
            model.item_factors.requires_grad_(True)
            model.item_offset.requires_grad_(True)
        return MAML(model, GradientDescent(5), ["head"])


CASES = (
    Case("MF, head", 32),
    Case("MF, head", 1024),
    Case("MF, items too", 32, 20_000, 32),
    Case("MLP, all weights", 32),
    Case("MLP, all weights", 1024),
)


@dataclass
class Timed(Workers):
    """Workers with a clock: seconds of each epoch by kind."""

    inner: Workers
    part: tuple[int, int]
    epochs: list[dict[str, float]] = field(default_factory=list)
    last: float = 0.0

    def lap(self, kind: str) -> None:
        """Book the time since the last lap."""
        now = time.perf_counter()
        self.epochs[-1][kind] += now - self.last
        self.last = now

    def batches(self, sampler: TaskSampler) -> Callable[..., Iterator[Tasks]]:
        """The sampler's epochs; between two meta-batches all do the same."""

        def epoch(generator: torch.Generator) -> Iterator[Tasks]:
            self.epochs.append(defaultdict(float))
            self.last = time.perf_counter()
            for tasks in sampler(generator):
                yield tasks
                self.lap("replicated")

        return epoch

    def once(self, make: Callable[[], T]) -> T:
        """As the workers do."""
        return self.inner.once(make)

    def all_reduce(
        self, parameters: Sequence[nn.Parameter], loss: float, n_tasks: int
    ) -> tuple[float, int]:
        """Everything since the last meta-batch was the work on this part."""
        self.lap("compute")
        result = self.inner.all_reduce(parameters, loss, n_tasks)
        self.lap("communication")
        return result


def histories(n_items: int) -> UserHistories:
    """Users with 30 ratings: ten to adapt on, twenty to be judged by."""
    data, _ = synthetic_population(USERS, n_items, 2, RATINGS)
    return UserHistories(data, reserved=K)


def epoch_of(
    case: Case, workers: Workers, part: tuple[int, int], rounds: int
) -> dict[str, Any]:
    """Median milliseconds of an epoch by kind; the first round warms up."""
    meta = case.build()
    sampler = TaskSampler(
        histories(case.n_items), torch.arange(USERS), [K], case.meta_batch, part=part
    )
    timed = Timed(workers, workers.part)
    config = TrainingConfig(epochs=rounds + 1, learning_rate=1e-4)
    batches = timed.batches(sampler)
    meta_train(meta, batches, lambda: 0.0, config, None, False, timed)
    row: dict[str, Any] = {"case": case.name, "meta_batch": case.meta_batch}
    for kind in ("compute", "replicated", "communication"):
        row[f"{kind}_ms"] = 1000 * statistics.median(
            epoch[kind] for epoch in timed.epochs[1:]
        )
    row["ms"] = 1000 * statistics.median(
        sum(epoch.values()) for epoch in timed.epochs[1:]
    )
    trained = sum(p.numel() for p in meta.parameters() if p.requires_grad)
    return row | {"bytes": 4 * (trained + 2), "steps": -(-USERS // case.meta_batch)}


def reductions() -> list[dict[str, Any]]:
    """Median milliseconds of one all-reduce, by size."""
    rows = []
    for n in FLOATS:
        buffer, times = torch.zeros(n), []
        for _ in range(200 if n < 100_000 else 30):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(buffer)
            times.append(1000 * (time.perf_counter() - start))
        rows.append({"what": "all-reduce", "processes": 2, "bytes": 4 * n})
        rows[-1] |= {"ms": statistics.median(times[5:])}
    return rows


def work(job: str, out: Path, rounds: int) -> None:
    """What each process does; the first one writes what it measured."""
    torch.set_num_threads(1)
    with process_group() as workers:
        if job == "part":
            jobs = [((0, n), case) for case in CASES for n in PARTS]
        else:
            jobs = [(workers.part, case) for case in CASES]
        rows = [
            {"what": job, "processes": part[1]} | epoch_of(case, workers, part, rounds)
            for part, case in jobs
        ]
        if workers.part[1] > 1:
            rows += reductions()
        if workers.first:
            pd.DataFrame(rows).to_pickle(out)


def torchrun(processes: int) -> list[str]:
    """How so many processes are started on this machine."""
    launch = "-m torch.distributed.run --standalone --nproc-per-node"
    return [*launch.split(), str(processes)]


def measured(job: str, launch: Sequence[str], rounds: int) -> pd.DataFrame:
    """Start the processes and read what the first one wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.pkl"
        command = [sys.executable, *launch, __file__, "--worker", job, "--out", out]
        command += ["--rounds", str(rounds)]
        subprocess.run([str(word) for word in command], check=True)
        return pd.read_pickle(out)


def constants(table: pd.DataFrame) -> tuple[float, float]:
    """Latency in ms, and bytes per ms, of an all-reduce between two processes."""
    sizes = table[table["what"] == "all-reduce"].set_index("bytes")["ms"]
    latency, largest = sizes.iloc[0], sizes.index[-1]
    return latency, largest / (sizes.iloc[-1] - latency)


def model(table: pd.DataFrame) -> pd.DataFrame:
    """An epoch of P processes: a measured part and a modelled all-reduce."""
    latency, bandwidth = constants(table)
    rows = []
    for row in table[table["what"] == "part"].to_dict("records"):
        p = int(row["processes"])
        travel = 2 * (p - 1) / p * row["bytes"] / bandwidth
        own = row["compute_ms"] + row["replicated_ms"]
        packing = row["communication_ms"] if p > 1 else 0.0
        hops = {"ms": log2(p), "low_ms": min(1, p - 1), "high_ms": 2 * (p - 1)}
        costs = {
            name: packing + row["steps"] * (n * latency + travel)
            for name, n in hops.items()
        }
        row |= {name: own + cost for name, cost in costs.items()}
        rows.append(row | {"what": "model", "communication_ms": costs["ms"]})
    return pd.DataFrame(rows)


def main() -> None:
    """Measure, put the model beside it, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="epochs that are timed")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    out = Path(__file__).parent / "results" / "parallel.csv"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.out, arguments.rounds)
        return
    jobs = (("epoch", []), ("part", torchrun(1)), ("epoch", torchrun(2)))
    launches = tqdm(jobs, desc="launches")
    table = pd.concat([measured(*job, arguments.rounds) for job in launches])
    table = pd.concat([table, model(table)], ignore_index=True)
    columns = ["what", "case", "meta_batch", "processes", "bytes", "steps", "ms"]
    columns += ["compute_ms", "replicated_ms", "communication_ms", "low_ms", "high_ms"]
    table = table[columns]
    print(table.to_string(index=False, float_format="%.2f"))
    latency, bandwidth = constants(table)
    write_table(
        arguments.out,
        table,
        "python benchmarks/parallel.py",
        [
            f"one epoch over {USERS} users, K = {K}, {RATINGS - K} query ratings, five "
            "inner steps, second order; one thread a process, gloo, float32; medians "
            "over epochs, as the first process sees them",
            "part: one process that cuts 1/P of every meta-batch; its communication is "
            "the packing of the gradients alone",
            "model: part + steps x (latency x hops + 2 (P - 1) / P x bytes / bandwidth)"
            f", latency {latency:.3f} ms, bandwidth {bandwidth / 1e3:.0f} MB/s; hops: "
            "log2(P), low 1, high 2 (P - 1)",
            "assumes a core for each process, equal parts, and a network like the "
            "loopback of this machine, whose two processes have a core each",
        ],
    )


if __name__ == "__main__":
    main()
