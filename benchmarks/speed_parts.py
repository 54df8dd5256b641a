"""What `speed` measures: training, one user and all users, memory, growth."""

from __future__ import annotations

import copy
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from speed_ways import (
    MODELS,
    RATE,
    Case,
    Gradient,
    by_vmap,
    check,
    gradient_of,
    loop,
    make_case,
    make_tasks,
    package,
    ways,
)
from torch import Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from metarec.learners import predict
from metarec.tasks import Examples, Tasks

TOP = 10
PROFILE = 24


@dataclass(frozen=True)
class Size:
    """How much is measured: ``steps`` and the models are those of the training."""

    users: int = 943
    items: int = 1682
    batch: int = 32
    rounds: int = 5
    steps: tuple[int, ...] = (1, 5)
    compile_too: bool = True


QUICK = Size(users=40, items=90, rounds=1, steps=(2,))


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def epoch_of(
    gradient: Gradient, start: list[nn.Parameter], tasks: list[Tasks]
) -> Callable[[], None]:
    """One epoch of the outer loop with Adam; rate 0, so that all rounds are alike."""
    optimizer = torch.optim.Adam(start, lr=0.0, fused=True)

    def epoch() -> None:
        for batch in tasks:
            for parameter, found in zip(start, gradient(batch), strict=True):
                parameter.grad = found
            optimizer.step()

    return epoch


def in_turn(
    calls: dict[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each call in each round; all run in turn, so load hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def ratio(slow: list[float] | None, fast: list[float]) -> float:
    """Median of the ratios within rounds, NaN if the slow way was not run."""
    if slow is None:
        return float("nan")
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def training(size: Size) -> pd.DataFrame:
    """Meta-training epochs: every model, number of steps, order and way."""
    tasks = make_tasks(size.users, size.items, size.batch)
    rows = []
    cases = list(product(MODELS, size.steps, (False, True)))
    for name, steps, first_order in tqdm(cases, desc="meta-training"):
        case = make_case(name, steps, first_order, size.items)
        found = ways(case, size.batch, size.compile_too and not first_order)
        start = list(case.start.values())
        # The first call of each way is its warm-up, and the check is the second.
        warm = {way: seconds(partial(g, tasks[0])) for way, g in found.items()}
        check(found, tasks[0])
        check(found, tasks[-1])
        epochs = {way: epoch_of(g, start, tasks) for way, g in found.items()}
        times = in_turn(epochs, size.rounds)
        for way, taken in times.items():
            rows.append(
                {
                    "model": name,
                    "steps": steps,
                    "order": 1 if first_order else 2,
                    "way": way,
                    "ms_per_epoch": 1000 * statistics.median(taken),
                    "times_loop": ratio(times["loop"], taken),
                    "times_learn2learn": ratio(times.get("learn2learn"), taken),
                    "warm_up_s": warm[way],
                }
            )
    return pd.DataFrame(rows)


def one(support: Examples, user: int) -> Examples:
    """The support of one user, as a batch of one."""
    about = None if support.profile is None else support.profile[user : user + 1]
    rows = slice(user, user + 1)
    return Examples(support.x[rows], support.y[rows], support.mask[rows], about)


def inputs(support: Examples, items: Tensor) -> tuple[Tensor, ...]:
    """What a model takes for the one user of ``support``: items, and the profile."""
    return (items,) if support.profile is None else (items, support.profile[0])


def by_autograd(case: Case, support: Examples) -> dict[str, Tensor]:
    """Adapt one user by functional steps of autograd, without a graph of the graph."""
    own: dict[str, Tensor] = dict(case.start)
    given = inputs(support, support.x[0])
    for _ in range(case.steps):
        error = functional_call(case.model, own, given) - support.y[0]
        found = torch.autograd.grad(0.5 * error.square().sum(), list(own.values()))
        own = {
            name: (w - RATE * g).detach().requires_grad_()
            for (name, w), g in zip(own.items(), found, strict=True)
        }
    return own


def by_copy(case: Case, support: Examples) -> dict[str, Tensor]:
    """Adapt one user the naive way: a copy of the model and an optimizer for it."""
    mine = copy.deepcopy(case.model)
    own = {name: p for name, p in mine.named_parameters() if name in case.own}
    optimizer = torch.optim.SGD(list(own.values()), lr=RATE)
    given = inputs(support, support.x[0])
    for _ in range(case.steps):
        optimizer.zero_grad()
        (0.5 * (mine(*given) - support.y[0]).square().sum()).backward()
        optimizer.step()
    return own


def user_ways(
    case: Case, items: Tensor
) -> dict[str, tuple[Callable[[Examples], dict[str, Tensor]], Callable[..., Tensor]]]:
    """How one user is adapted, and then scored, by each way: (I,) scores."""
    meta = package(case)

    def module_score(own: dict[str, Tensor], support: Examples) -> Tensor:
        return functional_call(case.model, own, inputs(support, items))

    def package_score(own: dict[str, Tensor], support: Examples) -> Tensor:
        return predict(case.model, own, items[None], support.profile)[0]

    def adapt(support: Examples) -> dict[str, Tensor]:
        with torch.no_grad():
            return meta.adapt(support)

    return {
        "loop": (lambda s: by_autograd(case, s), module_score),
        "copy and optimizer": (lambda s: by_copy(case, s), module_score),
        "metarec": (adapt, package_score),
    }


def everyone(case: Case, items: Tensor, support: Examples, chunk: int) -> Tensor:
    """Adapt and score all users in chunks: the best items (U, TOP).

    A head's features of the items are the same in every row of a chunk, so items come
    without a task axis, and what does not depend on the user is computed once a chunk.
    """
    meta, best = package(case), []
    shared = case.own == ("head",)
    for rows in torch.arange(len(support)).split(chunk):
        about = None if support.profile is None else support.profile[rows]
        part = Examples(support.x[rows], support.y[rows], support.mask[rows], about)
        x = items if shared else items.expand(len(rows), -1)
        with torch.no_grad():
            score = predict(case.model, meta.adapt(part), x, about)
        best.append(score.topk(TOP).indices)
    return torch.cat(best)


def users(size: Size) -> pd.DataFrame:
    """Adaptation and scoring, for one user after the other and for all at once."""
    items, rows = torch.arange(size.items), []
    for name, profile in tqdm(
        [("MF", 0), ("MLP, head", PROFILE), ("MLP, all weights", 0), ("attention", 0)],
        desc="users",
    ):
        case = make_case(name, items=size.items, profile=profile)
        (tasks,) = make_tasks(size.users, size.items, size.users, profile)
        support, found = tasks.support, user_ways(case, items)
        lists, times = {}, {}
        for way, (adapt, score) in found.items():
            taken, best = [], []
            first = one(support, 0)
            score(adapt(first), first)  # what a first call loads is not counted
            for user in range(size.users):
                mine = one(support, user)
                begin = time.perf_counter()
                own = adapt(mine)
                adapted = time.perf_counter()
                with torch.no_grad():
                    best.append(score(own, mine).topk(TOP).indices)
                taken.append((adapted - begin, time.perf_counter() - adapted))
            lists[way] = torch.stack(best)
            times[way] = pd.DataFrame(taken, columns=["adapt", "score"]) * 1000
        all_at_once = {
            "metarec, one chunk": size.users,
            "metarec, chunks of 32": 32,
        }
        for way, chunk in all_at_once.items():
            lists[way] = everyone(case, items, support, chunk)
            agree = (lists[way] == lists["loop"]).float().mean()
            if agree < 0.99:  # two scores that are equal to rounding may change places
                raise AssertionError(f"{name}, {way}: lists agree at {agree:.1%} only")
        slow = times["loop"].sum(axis=1)
        for way, each in times.items():
            total = each.sum(axis=1)
            rows.append(
                {
                    "model": name,
                    "way": way,
                    "adapt_ms": each["adapt"].median(),
                    "adapt_p95_ms": each["adapt"].quantile(0.95),
                    "score_ms": each["score"].median(),
                    "score_p95_ms": each["score"].quantile(0.95),
                    "all_users_ms": total.sum(),
                    "times_loop": slow.sum() / total.sum(),
                }
            )
        for way, chunk in all_at_once.items():
            taken = [
                1000 * seconds(partial(everyone, case, items, support, chunk))
                for _ in range(size.rounds)
            ]
            total = statistics.median(taken)
            rows.append({"model": name, "way": way, "all_users_ms": total})
            rows[-1]["times_loop"] = slow.sum() / total
    return pd.DataFrame(rows)


MEMORY_WAYS = ("loop", "vmap(grad)", "metarec", "metarec, first order")


def gradient_by(case: Case, way: str) -> Gradient:
    """One of the ways of this machine, without building the others."""
    losses = {
        "loop": lambda t: loop(case, t),
        "vmap(grad)": by_vmap(case),
        "metarec": package(case).loss,
    }
    return gradient_of(losses[way.split(",")[0]], list(case.start.values()))


def peak(name: str, steps: int, way: str, users: int, items: int) -> float:
    """Megabytes that one meta-gradient over one batch adds to this process's peak."""
    torch.set_num_threads(1)
    case = make_case(name, steps, way.endswith("first order"), items)
    gradient = gradient_by(case, way)
    (few,) = make_tasks(2, items, 2)
    (many,) = make_tasks(users, items, users)
    gradient(few)  # what a first call loads is not counted
    before = most_resident()
    gradient(many)
    return most_resident() - before


def most_resident() -> float:
    """The most memory that this process has held, in megabytes.

    Linux lets a child's ``ru_maxrss`` begin at its parent's, so it is not read there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (t for t in status.read_text().split("\n") if t.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1024 / (1024 if sys.platform == "darwin" else 1)


def memory(size: Size) -> pd.DataFrame:
    """Peak memory of one meta-batch of all users, each way in a process of its own."""
    rows = []
    depths = (1, 5, 20) if size.users > QUICK.users else (1,)
    cells = list(product(("MF", "MLP, all weights"), depths, MEMORY_WAYS))
    for name, steps, way in tqdm(cells, desc="memory"):
        asked = json.dumps([name, steps, way, size.users, size.items])
        command = [sys.executable, str(Path(__file__).with_name("speed.py"))]
        done = subprocess.run(
            [*command, "--peak", asked], capture_output=True, text=True, check=True
        )
        megabytes = float(done.stdout)
        rows.append({"model": name, "steps": steps, "way": way, "peak_mb": megabytes})
    return pd.DataFrame(rows)


def growth(size: Size) -> pd.DataFrame:
    """Time of an epoch as one quantity grows and the others stay."""
    base = {"users": size.users, "items": size.items, "steps": 5, "batch": size.batch}
    grid: dict[str, list[int]] = {
        "users": [100, 1000, 10_000],
        "items": [1000, 10_000, 100_000],
        "steps": [1, 2, 5, 10, 20],
        "batch": [1, 8, 32, 128, 512],
    }
    if size.users <= QUICK.users:
        grid = {"users": [20, 40], "steps": [1, 2]}
    rows = []
    cells = [(what, n) for what, values in grid.items() for n in values]
    everything = list(product(cells, ("MF", "MLP, all weights")))
    for (what, n), name in tqdm(everything, desc="growth"):
        at = base | {what: n}
        case = make_case(name, at["steps"], items=at["items"])
        tasks = make_tasks(at["users"], at["items"], at["batch"])
        found = {way: gradient_by(case, way) for way in ("vmap(grad)", "metarec")}
        if at["users"] <= 1000 and what != "items":
            found["loop"] = gradient_by(case, "loop")
        start = list(case.start.values())
        for gradient in found.values():
            gradient(tasks[0])
        calls = {way: epoch_of(g, start, tasks) for way, g in found.items()}
        for way, taken in in_turn(calls, min(size.rounds, 3)).items():
            each = statistics.median(taken)
            row = {"model": name, "vary": what, "value": n, "way": way}
            row |= {
                "ms_per_epoch": 1000 * each,
                "us_per_user": 1e6 * each / at["users"],
            }
            rows.append(row)
    return pd.DataFrame(rows)
