"""The same meta-gradient, written in every way that `speed` times.

A case is a model, what a user owns of it, the number of steps and the order. Each way
maps a meta-batch to the gradient of the same meta-loss: half the mean squared error on
the query after the inner steps, averaged over tasks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, grad, vmap

from metarec.learners import GradientDescent, dot, inner_loop, squared_error
from metarec.meta import MAML
from metarec.models import MLP, FeatureAttention, MatrixFactorization, RatingModel
from metarec.tasks import Examples, Tasks

DIM, GENRES, K, QUERY, RATE = 8, 19, 10, 20, 0.01
LIBRARIES = {"learn2learn": "learn2learn.algorithms.maml", "higher": "higher"}
Gradient = Callable[[Tasks], list[Tensor]]
Loss = Callable[[Tasks], Tensor]


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


@dataclass(frozen=True)
class Case:
    """What is meta-trained: ``own`` are the names of the weights that a user has."""

    model: nn.Module
    own: tuple[str, ...]
    steps: int = 5
    first_order: bool = False

    @cached_property
    def start(self) -> dict[str, nn.Parameter]:
        """Where every user starts: what is trained."""
        return {n: p for n, p in self.model.named_parameters() if n in self.own}


def make_tasks(users: int, items: int, batch: int, profile: int = 0) -> list[Tasks]:
    """Draw users with distinct items and integer ratings, in meta-batches."""
    generator = torch.Generator().manual_seed(0)
    shape = (users, K + QUERY)
    # Distinct within a user, whatever the size of the catalogue: a random start, and
    # steps of at least 1 that stay within one round.
    steps = torch.randint(1, items // (K + QUERY), shape, generator=generator)
    start = torch.randint(items, (users, 1), generator=generator)
    x = (start + steps.cumsum(1)) % items
    stars = torch.randint(1, 6, shape, generator=generator).float()
    mask = torch.ones(shape, dtype=torch.bool)
    known = torch.randn(users, profile, generator=generator) if profile else None
    batches = []
    for rows in torch.arange(users).split(batch):
        about = None if known is None else known[rows]
        support, query = (
            Examples(x[rows, part], stars[rows, part], mask[rows, part], about)
            for part in (slice(K), slice(K, None))
        )
        batches.append(Tasks(support, query, rows))
    return batches


def make_model(name: str, items: int, profile: int = 0) -> tuple[nn.Module, list[str]]:
    """Build a model by its name, with the names of what a user owns."""
    generator = torch.Generator().manual_seed(0)
    q = 0.3 * torch.randn(items, DIM, generator=generator)
    offset = 3 + torch.rand(items, generator=generator)
    genres = (torch.rand(items, GENRES, generator=generator) < 0.1).float()
    if name == "MF":
        return MatrixFactorization.from_items(q, offset), ["head"]
    if name == "MLP, head":
        mlp = MLP(q, offset, genres, profile, generator=generator)
        mlp.second.data.normal_(0, 0.1, generator=generator)
        return mlp, ["head"]
    if name == "attention":
        attention = FeatureAttention(q, offset, genres, profile, generator=generator)
        attention.head.data.normal_(0, 0.1, generator=generator)
        return attention, ["head", "query"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(torch.cat([q, genres], 1))
    return network, [own for own, _ in network.named_parameters()]


MODELS = ("MF", "MLP, head", "MLP, all weights", "attention")


def make_case(
    name: str,
    steps: int = 5,
    first_order: bool = False,
    items: int = 1682,
    profile: int = 0,
) -> Case:
    """Build a case in which nothing but a user's start is trained."""
    model, own = make_model(name, items, profile)
    for key, value in model.named_parameters():
        value.requires_grad_(key in own)
    return Case(model, tuple(own), steps, first_order)


def rows_of(tasks: Tasks) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Each task alone."""
    s, q = tasks.support, tasks.query
    yield from zip(s.x, s.y, q.x, q.y, strict=True)


def loop(case: Case, tasks: Tasks) -> Tensor:
    """One task after the other, by autograd."""
    total = torch.tensor(0.0)
    for xs, ys, xq, yq in rows_of(tasks):
        own: dict[str, Tensor] = dict(case.start)
        for _ in range(case.steps):
            loss = 0.5 * (functional_call(case.model, own, (xs,)) - ys).square().sum()
            found = torch.autograd.grad(
                loss, list(own.values()), create_graph=not case.first_order
            )
            pairs = zip(own.items(), found, strict=True)
            own = {name: w - RATE * g for (name, w), g in pairs}
        error = functional_call(case.model, own, (xq,)) - yq
        total = total + 0.5 * error.square().mean()
    return total / len(tasks)


def learn2learn(case: Case, tasks: Tasks) -> Tensor:
    """learn2learn's MAML wrapper, cloned and adapted for each task."""
    from learn2learn.algorithms.maml import MAML as Wrapper

    wrapped = Wrapper(case.model, RATE, case.first_order, allow_nograd=True)
    total = torch.tensor(0.0)
    for xs, ys, xq, yq in rows_of(tasks):
        clone = wrapped.clone()
        for _ in range(case.steps):
            clone.adapt(0.5 * (clone(xs) - ys).square().sum())
        total = total + 0.5 * (clone(xq) - yq).square().mean()
    return total / len(tasks)


def higher(case: Case, tasks: Tasks) -> Tensor:
    """higher's functional copy with a differentiable SGD."""
    from higher import innerloop_ctx

    def constant(gradients: list[Tensor | None]) -> list[Tensor | None]:
        return [None if g is None else g.detach() for g in gradients]

    optimizer = torch.optim.SGD(list(case.start.values()), lr=RATE)
    total = torch.tensor(0.0)
    for xs, ys, xq, yq in rows_of(tasks):
        context = innerloop_ctx(case.model, optimizer, copy_initial_weights=False)
        with context as (fast, inner):
            for _ in range(case.steps):
                loss = 0.5 * (fast(xs) - ys).square().sum()
                inner.step(loss, grad_callback=constant if case.first_order else None)
            total = total + 0.5 * (fast(xq) - yq).square().mean()
    return total / len(tasks)


Errors = Callable[[dict[str, Tensor], Tasks], Tensor]


def by_vmap(case: Case) -> Loss:
    """vmap(grad), as the chapters write it."""
    errors, start = errors_by_vmap(case), dict(case.start)
    return lambda tasks: 0.5 * errors(start, tasks).square().mean()


def errors_by_vmap(case: Case) -> Errors:
    """What the weights, adapted from a start, leave of the query's ratings, (B, N)."""
    if case.own == ("head",):
        return head_errors_by_vmap(case)

    def score(own: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(case.model, own, (x,))

    def adapt(start: dict[str, Tensor], xs: Tensor, ys: Tensor) -> dict[str, Tensor]:
        return inner_loop(
            lambda w: 0.5 * (score(w, xs) - ys).square().sum(),
            start,
            dict.fromkeys(start, RATE),
            case.steps,
            case.first_order,
        )

    adapt_all, score_all = vmap(adapt, in_dims=(None, 0, 0)), vmap(score)

    def errors(start: dict[str, Tensor], tasks: Tasks) -> Tensor:
        own = adapt_all(start, tasks.support.x, tasks.support.y)
        return score_all(own, tasks.query.x) - tasks.query.y

    return errors


def head_errors_by_vmap(case: Case) -> Errors:
    """The same where a user owns one vector, the head.

    What no user changes is done once for all tasks, outside ``vmap``: the features, and
    the offset, which is taken from the ratings.
    """
    model = case.model
    assert isinstance(model, RatingModel)

    def loss(w: Tensor, phi: Tensor, rest: Tensor) -> Tensor:
        return 0.5 * (phi @ w - rest).square().sum()

    gradient = grad(loss)

    def adapt(w: Tensor, phi: Tensor, rest: Tensor) -> Tensor:
        for _ in range(case.steps):
            step = gradient(w, phi, rest)
            w = w - RATE * (step.detach() if case.first_order else step)
        return w

    adapt_all = vmap(adapt, in_dims=(None, 0, 0))

    def errors(start: dict[str, Tensor], tasks: Tasks) -> Tensor:
        (phi_s, rest_s), (phi_q, rest_q) = (
            (model.features(part.x), part.y - model.offset(part.x))
            for part in (tasks.support, tasks.query)
        )
        return dot(phi_q, adapt_all(start["head"], phi_s, rest_s)) - rest_q

    return errors


class AffineSteps(torch.autograd.Function):
    """w_T of w <- P w + c, and its way back by hand, as the chapter on speed builds it.

    With lambda_T the gradient at w_T: lambda_t = P' lambda_{t+1}; the gradient of c is
    the sum of lambda_{t+1} over t, that of P the sum of lambda_{t+1} w_t'.

    Shapes: P (B, D, D), c and w (B, D, 1).
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, c: Tensor, w: Tensor, steps: int) -> Tensor:
        """Run the steps and keep their path, where somebody will ask for it."""
        path = [w]
        for _ in range(steps):
            path.append(torch.baddbmm(c, p, path[-1]))
        asked = any(ctx.needs_input_grad[:2])
        ctx.save_for_backward(p, *(path[:-1] if asked else []))
        ctx.steps = steps
        return path[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor | None, ...]:
        """Run the adjoint recursion, from the last step to the first."""
        p, *path = ctx.saved_tensors
        later, back = [], p.mT
        for _ in range(ctx.steps):
            later.append(adjoint)
            adjoint = torch.bmm(back, adjoint)
        if not path:
            return None, None, adjoint, None
        # later[j] belongs to step T - j, whose input is path[T - 1 - j].
        sums = torch.cat(later, -1)
        of_p = sums @ torch.cat(path[::-1], -1).mT
        return of_p, sums.sum(-1, keepdim=True), adjoint, None


def by_adjoint(case: Case) -> Loss:
    """How far one can go for a head: the closed form, and no graph of the steps."""
    model = case.model
    assert isinstance(model, RatingModel)

    def loss(tasks: Tasks) -> Tensor:
        (phi_s, rest_s), (phi_q, rest_q) = (
            (model.features(part.x), (part.y - model.offset(part.x))[..., None])
            for part in (tasks.support, tasks.query)
        )
        p = torch.eye(phi_s.shape[-1]) - RATE * torch.bmm(phi_s.mT, phi_s)
        c = RATE * torch.bmm(phi_s.mT, rest_s)
        w = case.start["head"][:, None].expand(len(tasks), -1, 1)
        w = AffineSteps.apply(p, c, w, case.steps)
        return 0.5 * (torch.bmm(phi_q, w) - rest_q).square().mean()

    return loss


def package(case: Case) -> MAML:
    """metarec as its users call it."""
    learner = GradientDescent(case.steps, squared_error, case.first_order)
    return MAML(case.model, learner, case.own, RATE, learn_scale=False)


def compiled(case: Case, batch: int) -> Gradient:
    """vmap(grad), its meta-gradient compiled as one program for ``batch`` tasks.

    A shorter batch is filled up with tasks of weight 0, or it would be compiled anew.
    """

    def meta_loss(start: dict[str, Tensor], weight: Tensor, *parts: Tensor) -> Tensor:
        xs, ys, xq, yq = parts
        ones = (
            torch.ones_like(ys, dtype=torch.bool),
            torch.ones_like(yq, dtype=torch.bool),
        )
        tasks = Tasks(Examples(xs, ys, ones[0]), Examples(xq, yq, ones[1]), weight)
        return weight @ (0.5 * errors(start, tasks).square().mean(-1))

    errors = errors_by_vmap(case)
    torch.compiler.reset()  # after some programs of one function it compiles no more
    step = torch.compile(grad(meta_loss), dynamic=False)

    def gradient(tasks: Tasks) -> list[Tensor]:
        rows = torch.arange(batch) % len(tasks)
        weight = (torch.arange(batch) < len(tasks)) / len(tasks)
        s, q = tasks.support, tasks.query
        parts = [
            part if len(tasks) == batch else part[rows] for part in (s.x, s.y, q.x, q.y)
        ]
        start = {name: p.detach() for name, p in case.start.items()}
        return list(step(start, weight, *parts).values())

    return gradient


def missing() -> dict[str, str]:
    """The ways that this machine does not have, and why."""
    why = {}
    for name, module in LIBRARIES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            why[name] = f"not importable ({error})"
    return why


def gradient_of(loss: Loss, start: list[nn.Parameter]) -> Gradient:
    """From a meta-loss to its gradient by autograd."""
    return lambda tasks: list(torch.autograd.grad(loss(tasks), start))


def ways(case: Case, batch: int, compile_too: bool) -> dict[str, Gradient]:
    """The meta-gradient by every way that this machine has."""
    losses: dict[str, Loss] = {
        "loop": partial(loop, case),
        "learn2learn": partial(learn2learn, case),
        "higher": partial(higher, case),
        "vmap(grad)": by_vmap(case),
        "metarec": package(case).loss,
    }
    if case.own == ("head",) and not case.first_order:
        losses["adjoint"] = by_adjoint(case)
    start, absent = list(case.start.values()), missing()
    found = {
        name: gradient_of(loss, start)
        for name, loss in losses.items()
        if name not in absent
    }
    if compile_too:
        found["torch.compile"] = compiled(case, batch)
    return found


def check(found: dict[str, Gradient], tasks: Tasks, tolerance: float = 1e-3) -> None:
    """All ways give the same meta-gradient, or ``AssertionError`` says which not."""
    reference = found["loop"](tasks)
    for name, gradient in found.items():
        for mine, theirs in zip(gradient(tasks), reference, strict=True):
            gap = (mine - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12)
            if not gap <= tolerance:
                raise AssertionError(f"{name}: meta-gradient off by {gap:.1e}")
