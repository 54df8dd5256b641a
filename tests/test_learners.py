"""The inner loop and the meta-gradient against numbers from outside."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from assignments.course import assignments
from assignments.withhold import withhold
from metarec.learners import (
    GradientDescent,
    Loss,
    Objective,
    Prior,
    TaskLearner,
    dot,
    gradient_descent,
    inner_loop,
    mean_squared_error,
    predict,
    squared_error,
)
from metarec.meta import MAML
from metarec.models import MLP, Bernoulli, MatrixFactorization
from metarec.tasks import Examples, Tasks


class Linear(nn.Module):
    """w . x for one task: x (N, 3) to (N,)."""

    def __init__(self, w: list[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def examples(*sets: tuple[list[list[float]], list[float]]) -> Examples:
    """Pad one (X, y) a task."""
    width = max(len(y) for _, y in sets)
    x = torch.zeros(len(sets), width, 3, dtype=torch.float64)
    y = torch.zeros(len(sets), width, dtype=torch.float64)
    mask = torch.zeros(len(sets), width, dtype=torch.bool)
    for task, (inputs, targets) in enumerate(sets):
        n = len(targets)
        x[task, :n] = torch.tensor(inputs, dtype=torch.float64)
        y[task, :n] = torch.tensor(targets, dtype=torch.float64)
        mask[task, :n] = True
    return Examples(x, y, mask)


ONE = (
    examples(([[1, 2, 3]], [0])),
    examples(([[4, 5, 6]], [0])),
)
TWO = (
    examples(
        ([[1, 0, 2], [0, 1, 1], [2, 1, 0]], [1, 2, 3]),
        ([[0, 1, 1], [1, 1, 0]], [-1, 2]),
    ),
    examples(
        ([[1, 1, 1], [2, 0, 1]], [2, 0]),
        ([[1, 2, 0], [0, 0, 1], [1, 0, 1]], [1, 1, -2]),
    ),
)


def close(found: Tensor, expected: object, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


def meta_gradient(
    start: list[float],
    tasks: tuple[Examples, Examples],
    learner: GradientDescent,
    rate: float,
    loss: Callable[..., Tensor] = squared_error,
) -> tuple[Tensor, Tensor, Tensor]:
    """Adapted weights, query losses and the gradient of their sum."""
    model = Linear(start)
    alpha = torch.tensor(rate, dtype=torch.float64)
    support, query = tasks
    prior = Prior({"w": model.w}, {"w": alpha})
    weights = learner.adapt(model, prior, support)
    losses = loss(predict(model, weights, query.x), query.y, query.mask)
    (gradient,) = torch.autograd.grad(losses.sum(), model.w)
    return weights["w"].detach(), losses.detach(), gradient


def test_torchmetas_three_weights() -> None:
    model = Linear([2, 3, 5])
    support = ONE[0]
    loss = squared_error(model(support.x[0]), support.y[0], support.mask[0])
    close(loss, 264.5)
    weights, losses, gradient = meta_gradient([2, 3, 5], ONE, GradientDescent(1), 0.5)
    close(weights[0], [-9.5, -20, -29.5])
    close(losses[0], 49612.5)
    close(gradient, [3780, 8505, 13230])
    first = GradientDescent(1, first_order=True)
    close(meta_gradient([2, 3, 5], ONE, first, 0.5)[2], [-1260, -1575, -1890])


def test_the_gradient_of_a_rate_for_each_weight() -> None:
    model = Linear([2, 3, 5])
    alpha = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
    weights = GradientDescent(1).adapt(
        model, Prior({"w": model.w}, {"w": alpha}), ONE[0]
    )
    query = ONE[1]
    loss = squared_error(predict(model, weights, query.x), query.y, query.mask)
    close(torch.autograd.grad(loss.sum(), alpha)[0], [28980, 72450, 130410])


def test_three_steps_of_a_linear_query() -> None:
    model = Linear([2, 3, 5])
    one = torch.tensor(1.0, dtype=torch.float64)
    weights = GradientDescent(3).adapt(
        model, Prior({"w": model.w}, {"w": one}), ONE[0]
    )["w"]
    close(weights[0], [-3609, -7219, -10828])
    (gradient,) = torch.autograd.grad(weights @ ONE[1].x[0, 0], model.w)
    close(gradient, [-5020, -10043, -15066])


@pytest.mark.parametrize(
    ("learner", "loss", "adapted", "losses", "gradient"),
    [
        (
            GradientDescent(2),
            squared_error,
            [[1.2375, -0.58875, 0.5175], [1.19125, -0.86125, 0.4475]],
            [4.825098, 7.945242],
            [5.019269, -4.642828, 3.636403],
        ),
        (
            GradientDescent(2, first_order=True),
            squared_error,
            [[1.2375, -0.58875, 0.5175], [1.19125, -0.86125, 0.4475]],
            [4.825098, 7.945242],
            [7.25875, -3.89625, 5.245],
        ),
        (
            GradientDescent(1),
            squared_error,
            [[1.15, -0.775, 0.525], [1.1, -0.925, 0.475]],
            [4.595312, 8.059375],
            [5.25875, -4.925, 3.96625],
        ),
        (
            GradientDescent(0),
            squared_error,
            [[1, -1, 0.5], [1, -1, 0.5]],
            [4.25, 8.25],
            [5, -5.5, 4],
        ),
        (
            GradientDescent(2, mean_squared_error),
            mean_squared_error,
            [[1.093056, -0.854306, 0.513056], [1.097813, -0.927813, 0.474375]],
            [2.210873, 2.687785],
            [2.375486, -1.872192, 1.526645],
        ),
    ],
)
def test_two_tasks_of_several_rows(
    learner: GradientDescent,
    loss: Callable[..., Tensor],
    adapted: list[list[float]],
    losses: list[float],
    gradient: list[float],
) -> None:
    found = meta_gradient([1, -1, 0.5], TWO, learner, 0.05, loss)
    for have, want in zip(found, (adapted, losses, gradient), strict=True):
        close(have, want, 1e-6)


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(-2))
    return net.double()


def random_tasks(n: int = 4) -> Tasks:
    generator = torch.Generator().manual_seed(1)

    def part(width: int) -> Examples:
        x = torch.randn(n, width, 3, generator=generator, dtype=torch.float64)
        y = torch.randn(n, width, generator=generator, dtype=torch.float64)
        mask = torch.arange(width) < torch.tensor([[width], [1], [2], [width - 1]])
        return Examples(x, y, mask)

    return Tasks(part(4), part(5), torch.arange(n))


def test_the_meta_gradient_is_that_of_finite_differences() -> None:
    meta = MAML(network(), GradientDescent(3), scale=0.1).double()
    tasks = random_tasks()
    parameters = list(meta.parameters())
    gradients = torch.autograd.grad(meta.loss(tasks), parameters)
    step = 1e-5
    for parameter, gradient in zip(parameters, gradients, strict=True):
        flat, at = parameter.data.view(-1), parameter.numel() // 2
        values = []
        for sign in (1, -1):
            flat[at] += sign * step
            values.append(meta.loss(tasks).item())
            flat[at] -= sign * step
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(gradient.reshape(-1)[at].item(), rel=1e-6)


def slow_adapt(
    model: nn.Module,
    start: dict[str, Tensor],
    rate: float,
    steps: int,
    x: Tensor,
    y: Tensor,
) -> dict[str, Tensor]:
    """One task, one step after the other, with autograd alone."""
    weights = start
    for _ in range(steps):
        loss = 0.5 * (functional_call(model, weights, (x,)) - y).square().sum()
        names = list(weights)
        found = torch.autograd.grad(
            loss, [weights[name] for name in names], create_graph=True
        )
        weights = {
            name: weights[name] - rate * g for name, g in zip(names, found, strict=True)
        }
    return weights


@pytest.mark.parametrize("steps", [1, 10])
def test_all_tasks_at_once_are_a_loop_over_tasks(steps: int) -> None:
    model, tasks = network(), random_tasks()
    start = dict(model.named_parameters())
    rate = torch.tensor(0.05, dtype=torch.float64)
    prior = Prior(start, dict.fromkeys(start, rate))
    fast = GradientDescent(steps).adapt(model, prior, tasks.support)
    support, query = tasks.support, tasks.query
    losses, slow_losses = [], []
    for t in range(len(tasks)):
        one = (part[t][support.mask[t]] for part in (support.x, support.y))
        slow = slow_adapt(model, start, 0.05, steps, *one)
        for name in start:
            torch.testing.assert_close(fast[name][t], slow[name], atol=1e-10, rtol=0)
        for weights, into in (
            ({name: w[t] for name, w in fast.items()}, losses),
            (slow, slow_losses),
        ):
            guess = functional_call(model, weights, (query.x[t],))
            into.append(squared_error(guess, query.y[t], query.mask[t]))
    parameters = list(start.values())
    gradients = torch.autograd.grad(sum(losses), parameters, retain_graph=True)
    slow_gradients = torch.autograd.grad(sum(slow_losses), parameters)
    for have, want in zip(gradients, slow_gradients, strict=True):
        torch.testing.assert_close(have, want, atol=1e-10, rtol=0)


class Unrecognised(nn.Module):
    """The same scores as a MatrixFactorization, by a class without the fast path."""

    def __init__(self, model: MatrixFactorization) -> None:
        super().__init__()
        self.head = model.head
        self.item_factors = model.item_factors
        self.item_offset = model.item_offset

    def forward(self, items: Tensor) -> Tensor:
        q = self.item_factors[items]
        return self.item_offset[items] + q @ self.head[:-1] + self.head[-1]


@pytest.mark.parametrize("loss", [squared_error, mean_squared_error])
@pytest.mark.parametrize("first_order", [False, True])
def test_the_closed_form_of_a_head_is_the_general_inner_loop(
    loss: Callable[..., Tensor], first_order: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    model = MatrixFactorization(30, 4, generator).double()
    model.head.data.normal_(generator=generator)
    learner = GradientDescent(5, loss, first_order)
    shape = (6, 7)
    items = torch.stack([torch.randperm(30, generator=generator)[:7] for _ in range(6)])
    rated = torch.randint(1, 6, shape, generator=generator).double()
    mask = torch.arange(7) < torch.arange(6)[:, None]  # the first task is empty
    tasks = Tasks(
        Examples(items, rated, mask), Examples(items, rated, ~mask), torch.arange(6)
    )
    results = []
    for one in (model, Unrecognised(model)):
        meta = MAML(one, learner, adapt=["head"], scale=0.05).double()
        value = meta.loss(tasks)
        parameters = [model.head, model.item_factors, model.item_offset, meta.log_scale]
        gradients = torch.autograd.grad(value, parameters)
        results.append([value, meta.adapt(tasks.support)["head"], *gradients])
    for have, want in zip(*results, strict=True):
        torch.testing.assert_close(have, want, atol=1e-10, rtol=0)


def test_k_0_returns_the_prior_and_t_0_does_too() -> None:
    model = network()
    tasks = random_tasks()
    nobody = Examples(tasks.support.x, tasks.support.y, tasks.support.mask & False)
    for learner, support in (
        (GradientDescent(5), nobody),
        (GradientDescent(0), tasks.support),
    ):
        weights = MAML(model, learner, scale=0.1).adapt(support)
        for name, value in model.named_parameters():
            assert torch.equal(weights[name], value.expand_as(weights[name]))


def test_order_and_padding_of_the_support_do_not_matter() -> None:
    model, tasks = network(), random_tasks()
    support = tasks.support
    order = torch.tensor([2, 0, 3, 1])
    shuffled = Examples(
        support.x[:, order], support.y[:, order], support.mask[:, order]
    )
    padded = Examples(
        torch.cat([support.x, torch.full((4, 3, 3), 9.0)], 1).double(),
        torch.cat([support.y, torch.full((4, 3), -9.0)], 1).double(),
        torch.cat([support.mask, torch.zeros(4, 3).bool()], 1),
    )
    meta = MAML(model, scale=0.1)
    expected = meta.predict(support, tasks.query.x)
    for other in (shuffled, padded):
        torch.testing.assert_close(
            meta.predict(other, tasks.query.x), expected, atol=1e-12, rtol=0
        )


def test_an_empty_task_gives_no_nan_gradient() -> None:
    tasks = random_tasks()
    empty = Tasks(
        Examples(tasks.support.x, tasks.support.y, tasks.support.mask & False),
        Examples(tasks.query.x, tasks.query.y, tasks.query.mask & False),
        tasks.user,
    )
    meta = MAML(network(), GradientDescent(2, mean_squared_error), scale=0.1)
    meta.loss(empty).backward()
    assert all(torch.isfinite(p.grad).all() for p in meta.parameters())


def test_first_order_is_the_query_gradient_at_the_adapted_copy() -> None:
    model, tasks = network(), random_tasks(4)
    meta = MAML(model, GradientDescent(3, first_order=True), scale=0.1)
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(meta.loss(tasks), list(parameters.values()))
    expected = [torch.zeros_like(p) for p in parameters.values()]
    weights = meta.adapt(tasks.support)
    for t in range(4):
        own = {name: w[t].detach().requires_grad_() for name, w in weights.items()}
        query = tasks.query
        guess = functional_call(model, own, (query.x[t],))
        loss = mean_squared_error(guess, query.y[t], query.mask[t]) / 4
        for total, g in zip(
            expected, torch.autograd.grad(loss, list(own.values())), strict=True
        ):
            total += g
    for have, want in zip(found, expected, strict=True):
        torch.testing.assert_close(have, want, atol=1e-8, rtol=0)


def test_a_subset_of_parameters_adapts_and_the_rest_is_shared() -> None:
    model = network()
    meta = MAML(model, adapt=["2.weight", "2.bias"], scale=0.1)
    assert set(meta.adapt(random_tasks().support)) == {"2.weight", "2.bias"}
    meta.loss(random_tasks()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in meta.parameters())
    with pytest.raises(ValueError, match="no parameter"):
        MAML(model, adapt=["body"])


def test_the_inner_loop_leaves_its_start_alone() -> None:
    start = {"w": torch.tensor([1.0, 2.0])}
    kept = start["w"].clone()
    end = inner_loop(
        lambda p: p["w"].square().sum(), start, {"w": torch.tensor(0.1)}, 3
    )
    assert torch.equal(start["w"], kept)
    torch.testing.assert_close(end["w"], kept * 0.8**3)
    with pytest.raises(ValueError, match="steps must be"):
        GradientDescent(-1)


class Bent(nn.Module):
    """w . tanh(v x): w is a user's own, v is shared; ``idle`` is not read at all."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(2, generator=generator).double())
        self.v = nn.Parameter(torch.randn(3, 2, generator=generator).double())
        self.idle = nn.Parameter(torch.ones(1).double())

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.v).tanh() @ self.w


@pytest.mark.parametrize("first_order", [False, True])
def test_one_pass_for_all_tasks_is_the_inner_loop_of_each(first_order: bool) -> None:
    model, (support, query) = Bent(), TWO
    alpha = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    start = {"w": model.w, "idle": model.idle}
    learner = GradientDescent(3, squared_error, first_order)
    found = learner.adapt(model, Prior(start, dict.fromkeys(start, alpha)), support)
    rows = []
    for x, y, mask in zip(support.x, support.y, support.mask, strict=True):

        def loss(own: dict[str, Tensor]) -> Tensor:
            return squared_error(functional_call(model, own, (x,)), y, mask)  # noqa: B023

        rows.append(
            inner_loop(loss, start, dict.fromkeys(start, alpha), 3, first_order)["w"]
        )
    expected = torch.stack(rows)
    close(found["w"], expected, 1e-12)
    close(found["idle"], torch.ones(2, 1))
    learned = [model.w, alpha] if first_order else [model.w, model.v, alpha]
    gradients = [
        torch.autograd.grad(
            (query.x @ torch.cat([w, w[:, :1]], 1)[..., None]).sum(), learned
        )
        for w in (found["w"], expected)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        close(mine, theirs, 1e-12)
    with torch.no_grad():
        alone = learner.adapt(model, Prior(start, dict.fromkeys(start, alpha)), support)
    assert not alone["w"].requires_grad
    close(alone["w"], expected.detach(), 1e-12)


def test_a_task_alone_is_a_row_of_the_batch() -> None:
    model, (support, query) = Bent(), TWO
    meta = MAML(model, GradientDescent(3, squared_error), ["w"], 0.1)
    together = meta.predict(support, query.x)
    for row in range(2):
        part = slice(row, row + 1)
        mine = Examples(support.x[part], support.y[part], support.mask[part])
        close(meta.predict(mine, query.x[part]), together[part], 1e-12)


def test_a_head_scores_one_list_of_items_for_all_tasks() -> None:
    generator = torch.Generator().manual_seed(0)
    profile = torch.randn(3, 4, generator=generator)
    factors, features = torch.randn(2, 6, 5, generator=generator)
    model = MLP(factors, torch.zeros(6), features, 4, generator=generator)
    model.second.data.normal_(generator=generator)
    heads = {"head": torch.randn(3, 6, generator=generator)}
    items = torch.tensor([4, 0, 5])
    each = predict(model, heads, items.expand(3, -1), profile)
    close(predict(model, heads, items, profile), each.double())


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5), (3, 5), (4, 5)])
def test_rows_meet_heads_of_as_many_tasks_or_of_all(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    phi, w = (torch.randn(*s, generator=generator) for s in (shape, (3, 5)))
    rows = phi.expand(3, *phi.shape[-2:])
    expected = torch.stack([own @ head for own, head in zip(rows, w, strict=True)])
    close(dot(phi, w), expected.double())


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("loss", [squared_error, mean_squared_error])
def test_the_meta_loss_of_a_head_has_the_gradient_of_autograd(
    loss: Loss, first_order: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(12, 3, generator=generator)
    features = torch.randn(12, 2, generator=generator)
    model = MLP(q, 3 + torch.rand(12, generator=generator), features).double()
    model.second.data.normal_(0, 0.3, generator=generator)
    model.requires_grad_()
    x = torch.randint(12, (2, 4, 6), generator=generator)
    y = torch.randint(1, 6, x.shape, generator=generator).double()
    mask = torch.rand(x.shape, generator=generator) < 0.7
    mask[1, 0] = False  # a task without a query
    y[~mask] = torch.nan
    support, query = (Examples(*each) for each in zip(x, y, mask, strict=True))
    tasks = Tasks(support, query, torch.arange(4))
    rate = torch.tensor(0.02, dtype=torch.float64).requires_grad_()

    def gradients(meta_loss: Callable[..., Tensor]) -> list[Tensor]:
        prior = Prior({"head": model.head}, {"head": rate})
        loss = meta_loss(model, prior, tasks)
        found = torch.autograd.grad(loss.sum(), [*model.parameters(), rate])
        return [loss.detach(), *found]

    # A loss that it does not know is descended by autograd, step by step.
    general = GradientDescent(3, lambda *each: loss(*each), first_order)
    plain = gradients(partial(TaskLearner.meta_loss, general))
    fast = gradients(GradientDescent(3, loss, first_order).meta_loss)
    for mine, theirs in zip(fast, plain, strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-10)
    assert all(part.abs().max() > 1e-3 for part in plain)


def every_path() -> dict[str, tuple[nn.Module, Prior, Examples]]:
    """A head under each kind of loss, and a module with other weights."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(6, 3, generator=generator).double()
    items = torch.randint(6, (4, 5), generator=generator)
    mask = torch.arange(5) < torch.tensor([[5], [0], [2], [4]])
    liked = (torch.rand(4, 5, generator=generator) < 0.5).double()
    stars, clicks = (MatrixFactorization.from_items(q, q[:, 0]) for _ in range(2))
    clicks.likelihood = Bernoulli()
    rate = torch.tensor(0.1, dtype=torch.float64)
    rated = Examples(items, liked, mask)
    paths: dict[str, tuple[nn.Module, Prior, Examples]] = {}
    for name, model in (("stars", stars), ("clicks", clicks)):
        model = model.double()
        paths[name] = model, Prior({"head": model.head}, {"head": rate}), rated
    bent = Bent()
    start = {"w": bent.w, "v": bent.v}
    paths["module"] = bent, Prior(start, dict.fromkeys(start, rate)), TWO[0]
    return paths


@pytest.mark.parametrize("name", ["stars", "clicks", "module"])
@pytest.mark.parametrize("first_order", [False, True])
def test_adapt_runs_the_public_inner_loop(
    name: str, first_order: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prior, support = every_path()[name]
    learner = GradientDescent(2, first_order=first_order)
    expected = learner.adapt(model, prior, support)
    seen: list[Objective] = []

    def plain(
        loss: Objective, *arguments: object, **named: object
    ) -> dict[str, Tensor]:
        seen.append(loss)
        # Without the gradient that it brings: that of torch.func.grad.
        return inner_loop(loss.__call__, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(gradient_descent, "inner_loop", plain)
    found = learner.adapt(model, prior, support)
    assert len(seen) == 1
    for key, value in expected.items():
        close(found[key], value, 1e-12)
        slopes = [
            torch.autograd.grad(w.square().sum(), prior.mean[key], retain_graph=True)
            for w in (found[key], value)
        ]
        close(slopes[0][0], slopes[1][0], 1e-10)


RAISING = """
import sys
sys.path[:0] = {paths!r}
import torch
from classroom import plug
from metarec.learners import GradientDescent, Prior
from metarec.models import MatrixFactorization
from metarec.tasks import Examples

def mine(*arguments, **named):
    raise ZeroDivisionError("mine")

model = MatrixFactorization(6, 2)
prior = Prior({{"head": model.head}}, {{"head": torch.tensor(0.1)}})
support = Examples(torch.tensor([[1]]), torch.tensor([[5.0]]), torch.tensor([[True]]))
for wrong in (NotImplementedError, ZeroDivisionError):
    try:
        GradientDescent().adapt(model, prior, support)
    except wrong:
        plug("learners.inner_loop", mine)
    else:
        raise SystemExit("adapted without an inner loop")
"""


def test_a_hand_out_adapts_by_the_inner_loop_that_is_plugged(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    task = assignments()["inner-loop"]
    withhold(root / "metarec", tmp_path / "metarec", task.withheld, "yours")
    code = RAISING.format(paths=[str(tmp_path), str(root / "assignments")])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["stars", "clicks"])
def test_a_full_rate_multiplies_each_step(name: str) -> None:
    model, prior, support = every_path()[name]
    assert isinstance(model, MatrixFactorization)
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(3)).double()
    rate = 0.02 * root @ root.T  # nothing is cut
    learner = GradientDescent(3)
    found = learner.adapt(model, Prior(prior.mean, {"head": rate}), support)["head"]
    for task in range(len(support)):
        mask = support.mask[task]
        x, y, w = support.x[task][mask], support.y[task][mask], model.head
        for _ in range(3):
            score = model.offset(x) + model.features(x) @ w
            error = model.likelihood.mean(score) - y
            w = w - rate @ (model.features(x).T @ error)
        close(found[task], w, 1e-12)
