"""Time one meta-training epoch over 943 users against other ways to write it.

    python benchmarks/speed.py

Second-order MAML, meta-batch 32, K = 10, 20 query ratings, Adam, one thread. Every way
has the same tasks and parameters; their meta-gradients are checked equal before
anything is timed. All ways run in turn, round after round, and a ratio is the median of
the ratios within rounds. learn2learn and higher are timed where they can be imported.
Writes benchmarks/results/speed.csv.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from metarec.evaluation import write_table
from metarec.learners import GradientDescent, squared_error
from metarec.meta import MAML
from metarec.models import MLP, MatrixFactorization
from metarec.tasks import Examples, Tasks

USERS, ITEMS, DIM, K, QUERY, BATCH = 943, 1682, 8, 10, 20, 32
Epoch = Callable[[], None]


class Network(nn.Module):
    """All of an MLP's weights are a user's own: the general case, no linear head."""

    def __init__(self, table: Tensor, hidden: int = 32) -> None:
        super().__init__()
        self.register_buffer("table", table)
        self.layers = nn.Sequential(
            nn.Linear(table.shape[1], hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, items: Tensor) -> Tensor:
        """Scores of shape (N,)."""
        return 3.5 + self.layers(self.table[items])[..., 0]


def make_tasks(generator: torch.Generator) -> list[Tasks]:
    """Draw users with distinct items and integer ratings, in meta-batches."""
    items = torch.stack(
        [torch.randperm(ITEMS, generator=generator)[: K + QUERY] for _ in range(USERS)]
    )
    stars = torch.randint(1, 6, items.shape, generator=generator).float()
    mask = torch.ones_like(items, dtype=torch.bool)
    batches = []
    for rows in torch.arange(USERS).split(BATCH):
        support, query = (
            Examples(items[rows, part], stars[rows, part], mask[rows, part])
            for part in (slice(K), slice(K, None))
        )
        batches.append(Tasks(support, query, rows))
    return batches


def make_models(generator: torch.Generator) -> dict[str, tuple[nn.Module, list[str]]]:
    """Build the models by name, each with the names of what a user owns."""
    q = 0.3 * torch.randn(ITEMS, DIM, generator=generator)
    offset = 3 + torch.rand(ITEMS, generator=generator)
    genres = (torch.rand(ITEMS, 19, generator=generator) < 0.1).float()
    mlp = MLP(q, offset, genres, generator=generator)
    mlp.second.data.normal_(0, 0.1, generator=generator)
    torch.manual_seed(0)
    network = Network(torch.cat([q, genres], 1))
    return {
        "MF": (MatrixFactorization.from_items(q, offset), ["head"]),
        "MLP, head": (mlp, ["head"]),
        "MLP, all weights": (network, [name for name, _ in network.named_parameters()]),
    }


def any_loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """The same loss under another name, so that no closed form is used."""
    return squared_error(prediction, target, mask)


def package(model: nn.Module, names: list[str], steps: int, rate: float) -> MAML:
    """metarec as its users call it."""
    return MAML(model, GradientDescent(steps), names, rate, learn_rate=False)


def teachable(model: nn.Module, names: list[str], steps: int, rate: float) -> MAML:
    """vmap(grad), as the chapters write it."""
    learner = GradientDescent(steps, any_loss)
    return MAML(model, learner, names, rate, learn_rate=False)


def rows_of(tasks: Tasks) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Each task alone."""
    s, q = tasks.support, tasks.query
    yield from zip(s.x, s.y, q.x, q.y, strict=True)


def loop_loss(
    model: nn.Module, names: list[str], steps: int, rate: float, tasks: Tasks
) -> Tensor:
    """One task after the other, by autograd."""
    total = torch.tensor(0.0)
    parameters = dict(model.named_parameters())
    for xs, ys, xq, yq in rows_of(tasks):
        own = {name: parameters[name] for name in names}
        for _ in range(steps):
            loss = 0.5 * (functional_call(model, own, (xs,)) - ys).square().sum()
            found = torch.autograd.grad(loss, list(own.values()), create_graph=True)
            pairs = zip(own.items(), found, strict=True)
            own = {name: w - rate * g for (name, w), g in pairs}
        error = functional_call(model, own, (xq,)) - yq
        total = total + 0.5 * error.square().mean()
    return total / len(tasks)


def learn2learn_loss(
    model: nn.Module, names: list[str], steps: int, rate: float, tasks: Tasks
) -> Tensor:
    """learn2learn's MAML wrapper, cloned and adapted for each task."""
    from learn2learn.algorithms.maml import MAML as Wrapper

    wrapped = Wrapper(model, lr=rate, first_order=False, allow_nograd=True)
    total = torch.tensor(0.0)
    for xs, ys, xq, yq in rows_of(tasks):
        clone = wrapped.clone()
        for _ in range(steps):
            clone.adapt(0.5 * (clone(xs) - ys).square().sum())
        total = total + 0.5 * (clone(xq) - yq).square().mean()
    return total / len(tasks)


def higher_loss(
    model: nn.Module, names: list[str], steps: int, rate: float, tasks: Tasks
) -> Tensor:
    """higher's functional copy with a differentiable SGD."""
    import higher

    own = [p for name, p in model.named_parameters() if name in names]
    optimizer = torch.optim.SGD(own, lr=rate)
    total = torch.tensor(0.0)
    for xs, ys, xq, yq in rows_of(tasks):
        with higher.innerloop_ctx(model, optimizer, copy_initial_weights=False) as (
            fast,
            inner,
        ):
            for _ in range(steps):
                inner.step(0.5 * (fast(xs) - ys).square().sum())
            total = total + 0.5 * (fast(xq) - yq).square().mean()
    return total / len(tasks)


def ways(
    model: nn.Module, names: list[str], steps: int, rate: float
) -> dict[str, Callable[[Tasks], Tensor]]:
    """The meta-loss by every way that this machine has."""
    found: dict[str, Callable[[Tasks], Tensor]] = {
        "loop": lambda t: loop_loss(model, names, steps, rate, t),
        "vmap(grad)": teachable(model, names, steps, rate).loss,
    }
    if names == ["head"]:
        found["closed form + adjoint"] = package(model, names, steps, rate).loss
    for library, loss in (("learn2learn", learn2learn_loss), ("higher", higher_loss)):
        try:
            importlib.import_module(library)
        except ImportError:
            continue

        def of_library(
            t: Tasks, loss: Callable[..., Tensor] = loss
        ) -> Tensor:  # bound now, called later
            return loss(model, names, steps, rate, t)

        found[library] = of_library
    return found


def epoch_of(
    loss: Callable[[Tasks], Tensor], trained: list[nn.Parameter], tasks: list[Tasks]
) -> Epoch:
    """One epoch of the outer loop with Adam."""
    optimizer = torch.optim.Adam(trained, lr=0.0)

    def epoch() -> None:
        for batch in tasks:
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()

    return epoch


def check(
    found: dict[str, Callable[[Tasks], Tensor]], trained: list[nn.Parameter], t: Tasks
) -> None:
    """All ways give the same meta-gradient, or nothing is timed."""
    reference = torch.autograd.grad(found["loop"](t), trained)
    for name, loss in found.items():
        for mine, theirs in zip(
            torch.autograd.grad(loss(t), trained), reference, strict=True
        ):
            gap = (mine - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12)
            if gap > 1e-3:
                raise AssertionError(f"{name}: meta-gradient off by {gap:.1e}")


def main() -> None:
    """Time everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="times all ways run")
    out = Path(__file__).parent / "results" / "speed.csv"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    tasks, rows = make_tasks(generator), []
    cases = [(n, *m, t) for n, m in make_models(generator).items() for t in (1, 5)]
    for name, model, names, steps in tqdm(cases, desc="cases"):
        model = copy.deepcopy(model)
        for key, value in model.named_parameters():
            value.requires_grad_(key in names)
        trained = [p for p in model.parameters() if p.requires_grad]
        found = ways(model, names, steps, 0.01)
        check(found, trained, tasks[0])
        epochs = {way: epoch_of(loss, trained, tasks) for way, loss in found.items()}
        times: dict[str, list[float]] = {way: [] for way in epochs}
        for turn in range(arguments.rounds + 1):
            for way, epoch in epochs.items():
                start = time.perf_counter()
                epoch()
                if turn:  # the first round warms up
                    times[way].append(time.perf_counter() - start)
        for way, seconds in times.items():
            row = {"model": name, "steps": steps, "way": way}
            row |= {"ms_per_epoch": 1000 * statistics.median(seconds)}
            for other in ("loop", "learn2learn"):
                row[f"times_{other}"] = (
                    statistics.median(
                        b / a for a, b in zip(seconds, times[other], strict=True)
                    )
                    if other in times
                    else float("nan")
                )
            rows.append(row)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.1f"))
    missing = [n for n in ("learn2learn", "higher") if n not in set(table["way"])]
    notes = [
        f"one epoch over {USERS} users, meta-batch {BATCH}, K = {K}, {QUERY} query "
        "ratings, second order, one thread; medians over rounds",
        "times_x: how many times faster than x, median of the ratios within rounds",
        f"{platform.machine()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
    ]
    if missing:
        notes.append(f"not importable here: {', '.join(missing)}")
    write_table(arguments.out, table, "python benchmarks/speed.py", notes)


if __name__ == "__main__":
    main()
