"""Hidden checks of the assignment on MAML and Meta-SGD."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import checks
import torch
from classroom import Student, Wrong, same, tensor_of_shape, the_same_mapping
from torch import Tensor, nn
from torch.func import functional_call, grad

Weights = dict[str, Tensor]
Data = tuple[Tensor, Tensor]
Task = tuple[Data, Data]
Loss = Callable[[Weights, Tensor, Tensor], Tensor]


def adapted(
    loss: Loss,
    theta_0: Weights,
    support: Data,
    alpha: Any,
    steps: int,
    slope: Callable[[Weights, Weights], Weights] | None = None,
) -> Weights:
    """A task's own weights; ``slope(now, start)`` replaces the inner gradient."""
    now = dict(theta_0)
    for _ in range(steps):
        step = grad(loss)(now, *support) if slope is None else slope(now, dict(theta_0))
        rate = alpha if isinstance(alpha, dict) else dict.fromkeys(now, alpha)
        now = {n: now[n] - rate[n] * step[n] for n in now}
    return now


def maml_loss(
    loss: Loss, theta_0: Weights, tasks: Sequence[Task], alpha: Any, steps: int
) -> Tensor:
    """The right answer to part 1; ``alpha`` may also be a dictionary of rates."""
    return torch.stack(
        [loss(adapted(loss, theta_0, s, alpha, steps), *q) for s, q in tasks]
    ).mean()


def mistakes(
    loss: Loss, theta_0: Weights, tasks: Sequence[Task], alpha: Any, steps: int
) -> dict[str, Tensor]:
    """What to tell the student, and the meta-loss that this mistake gives instead."""

    def meta(
        support: Callable[[Data, Data], Data] = lambda s, q: s,
        query: Callable[[Data, Data], Data] = lambda s, q: q,
        rate: Any = alpha,
        steps: int = steps,
        slope: Callable[[Data], Callable[[Weights, Weights], Weights]] | None = None,
    ) -> Tensor:
        """The right answer with something exchanged."""
        every = []
        for s, q in tasks:
            data = support(s, q)
            own = adapted(
                loss, theta_0, data, rate, steps, slope(data) if slope else None
            )
            every.append(loss(own, *query(s, q)))
        return torch.stack(every).mean()

    def together(s: Data, q: Data) -> Data:
        return torch.cat([s[0], q[0]]), torch.cat([s[1], q[1]])

    def without_bias(data: Data) -> Callable[[Weights, Weights], Weights]:
        return lambda now, start: {
            n: torch.zeros_like(g) if "bias" in n else g
            for n, g in grad(loss)(now, *data).items()
        }

    def constant(data: Data) -> Callable[[Weights, Weights], Weights]:
        def slope(now: Weights, start: Weights) -> Weights:
            fixed = {n: w.detach() for n, w in now.items()}
            return {n: g.detach() for n, g in grad(loss)(fixed, *data).items()}

        return slope

    def mean_inside(data: Data) -> Callable[[Weights, Weights], Weights]:
        return lambda now, start: {
            n: g / max(1, len(data[1])) for n, g in grad(loss)(now, *data).items()
        }

    every, now, carried = [], dict(theta_0), []
    for s, q in tasks:
        every.append(loss(adapted(loss, theta_0, s, alpha, steps), *q))
        now = adapted(loss, now, s, alpha, steps)
        carried.append(loss(now, *q))
    number = [len(q[1]) for _, q in tasks]
    uphill = {n: -a for n, a in alpha.items()} if isinstance(alpha, dict) else -alpha
    row_mean = torch.stack([v / n for v, n in zip(every, number, strict=True)]).mean()
    mean_both = torch.stack(
        [
            loss(adapted(loss, theta_0, s, alpha, steps, mean_inside(s)), *q) / n
            for (s, q), n in zip(tasks, number, strict=True)
        ]
    ).mean()
    found = {
        checks.FIRST_ORDER: meta(slope=constant),
        checks.SUM: torch.stack(every).sum(),
        checks.LAST_TASK: every[-1],
        checks.LAST_TASK + ".": every[-1] / len(tasks),
        checks.QUERY_AT_START: meta(steps=0),
        checks.SUPPORT_AS_QUERY: meta(query=lambda s, q: s),
        checks.LEAKED: meta(support=together),
        checks.LEAKED + ".": meta(support=lambda s, q: q),
        checks.ALL_AT_START: meta(
            slope=lambda data: lambda now, start: grad(loss)(start, *data)
        ),
        checks.CARRIED: torch.stack(carried).mean(),
        checks.ONE_STEP_ONLY: meta(steps=min(steps, 1)),
        checks.WRONG_NUMBER.format("few"): meta(steps=steps - 1),
        checks.WRONG_NUMBER.format("many"): meta(steps=steps + 1),
        checks.UPHILL: meta(rate=uphill),
        checks.NO_BIAS: meta(slope=without_bias),
        checks.MEAN: row_mean,
        checks.MEAN + ".": meta(slope=mean_inside),
        checks.MEAN + "..": mean_both,
    }
    return found


def named(
    compare: Callable[..., None],
    found: Any,
    right: Any,
    what: str,
    wrong: Callable[[], dict[str, Any]],
) -> None:
    """Compare, and work out what the known mistakes give only for a wrong answer."""
    try:
        compare(found, right, what)
    except Wrong:
        compare(found, right, what, wrong())
        raise


def gradients_of(values: dict[str, Tensor], weights: Weights) -> dict[str, Weights]:
    """The gradient of each mistake's meta-loss."""
    return {text: gradient_of(value, weights) for text, value in values.items()}


def gradient_of(value: Tensor, weights: Weights) -> Weights:
    """Gradients by name, zero where there is no path."""
    found = torch.autograd.grad(
        value, list(weights.values()), retain_graph=True, allow_unused=True
    )
    return {
        n: torch.zeros_like(w) if g is None else g
        for (n, w), g in zip(weights.items(), found, strict=True)
    }


def small_network(student: Student) -> tuple[nn.Module, Loss]:
    """A small network with biases, and half the sum of its squared errors."""
    first = nn.Linear(2, student.integer(3, 6))
    net = nn.Sequential(first, nn.Tanh(), nn.Linear(1, 1), nn.Flatten(0))
    net[2] = nn.Linear(first.out_features, 1)
    net = net.double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.5 * student.normal(*p.shape))

    def loss(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
        return 0.5 * (functional_call(net, weights, (x,)) - y).square().sum()

    return net, loss


def draw_tasks(student: Student, sizes: Sequence[tuple[int, int]]) -> list[Task]:
    """Tasks with the given numbers of support and query rows, two inputs a row."""
    return [
        tuple((student.normal(n, 2), student.normal(n)) for n in pair)  # type: ignore[misc]
        for pair in sizes
    ]


def network_tasks(student: Student) -> tuple[Weights, Loss, list[Task], int]:
    """Weights, loss, three tasks of different sizes and T of a small network."""
    net, loss = small_network(student)
    sizes = [
        (3, 4),
        (student.integer(4, 6), 2),
        (2, student.integer(3, 5)),
    ]
    start = {n: p.detach().clone() for n, p in net.named_parameters()}
    return start, loss, draw_tasks(student, sizes), student.integer(2, 3)


RATE = 0.06


def loss_of_a_network(student: Student) -> None:
    start, loss, tasks, steps = network_tasks(student)
    found = checks.untouched(
        lambda theta: student.maml_loss(loss, theta, tasks, RATE, steps),
        checks.fresh(start),
    )
    named(
        same,
        found,
        maml_loss(loss, start, tasks, RATE, steps),
        "the meta-loss of three tasks",
        lambda: mistakes(loss, start, tasks, RATE, steps),
    )


def gradient_of_a_network(student: Student) -> None:
    start, loss, tasks, steps = network_tasks(student)
    theta = checks.fresh(start)
    value = checks.untouched(
        lambda theta: student.maml_loss(loss, theta, tasks, RATE, steps), theta
    )
    (found,) = checks.gradients(value, theta)
    own = checks.fresh(start)
    named(
        the_same_mapping,
        found,
        gradient_of(maml_loss(loss, own, tasks, RATE, steps), own),
        "the meta-gradient of three tasks",
        lambda: gradients_of(mistakes(loss, own, tasks, RATE, steps), own),
    )


def affine(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    """A linear model with a bias."""
    return 0.5 * (x @ weights["w"] + weights["bias"] - y).square().sum()


def users_of_many_lengths(student: Student) -> None:
    """Linear users, one without ratings: an inner loop is a power of a matrix."""
    sizes = [(student.integer(3, 5), 3), (0, 2), (1, student.integer(3, 5)), (6, 1)]
    tasks = draw_tasks(student, sizes)
    start = {"w": student.normal(2), "bias": student.normal(1)[0]}
    steps = student.integer(3, 4)
    theta = checks.fresh(start)
    value = checks.untouched(
        lambda theta: student.maml_loss(affine, theta, tasks, 0.05, steps), theta
    )
    right, slope = in_closed_form(tasks, start, 0.05, steps)
    own = checks.fresh(start)

    def wrong() -> dict[str, Tensor]:
        return mistakes(affine, own, tasks, 0.05, steps)

    named(same, value, right, "the meta-loss of four users", wrong)
    (found,) = checks.gradients(value, theta)
    named(
        the_same_mapping,
        found,
        {"w": slope[:2], "bias": slope[2]},
        "the meta-gradient of four users",
        lambda: gradients_of(wrong(), own),
    )
    plain = student.maml_loss(affine, checks.fresh(start), tasks, 0.05, 0)
    none, _ = in_closed_form(tasks, start, 0.05, 0)
    same(plain, none, "the meta-loss without inner steps (T = 0)")


def in_closed_form(
    tasks: Sequence[Task], start: Weights, alpha: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Meta-loss and meta-gradient of a linear model, without autograd."""
    w_0 = torch.cat([start["w"], start["bias"].reshape(1)])

    def with_one(x: Tensor) -> Tensor:
        return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)

    total, slope = torch.zeros((), dtype=w_0.dtype), torch.zeros_like(w_0)
    for (x_s, y_s), (x_q, y_q) in tasks:
        x_s, x_q = with_one(x_s), with_one(x_q)
        shrink = torch.eye(3, dtype=w_0.dtype) - alpha * x_s.T @ x_s
        w = w_0
        for _ in range(steps):
            w = shrink @ w + alpha * x_s.T @ y_s
        error = x_q @ w - y_q
        total = total + 0.5 * error @ error / len(tasks)
        power = torch.linalg.matrix_power(shrink, steps)
        slope = slope + power.T @ x_q.T @ error / len(tasks)
    return total, slope


def first_order_of_a_network(student: Student) -> None:
    start, loss, tasks, steps = network_tasks(student)
    found = checks.untouched(
        lambda theta: student.first_order_gradient(loss, theta, tasks, RATE, steps),
        checks.fresh(start),
    )

    def mean(at: Callable[[Data], Weights], of_support: bool = False) -> Weights:
        """Mean gradient of the query loss (or the support's) at a task's weights."""
        every = [grad(loss)(at(s), *(s if of_support else q)) for s, q in tasks]
        return {n: torch.stack([g[n] for g in every]).mean(0) for n in start}

    def at_adapted(support: Data, **changes: Any) -> Weights:
        options = {"alpha": RATE, "steps": steps} | changes
        return adapted(loss, start, support, **options)

    def at_carried() -> Weights:
        now, every = start, []
        for s, q in tasks:
            now = adapted(loss, now, s, RATE, steps)
            every.append(grad(loss)(now, *q))
        return {n: torch.stack([g[n] for g in every]).mean(0) for n in start}

    def frozen(support: Data) -> Weights:
        return at_adapted(support, slope=lambda now, first: grad(loss)(first, *support))

    def no_bias(support: Data) -> Weights:
        def slope(now: Weights, first: Weights) -> Weights:
            step = grad(loss)(now, *support)
            return {n: g * ("bias" not in n) for n, g in step.items()}

        return at_adapted(support, slope=slope)

    right = mean(at_adapted)

    def wrong() -> dict[str, Weights]:
        last = grad(loss)(at_adapted(tasks[-1][0]), *tasks[-1][1])
        own = checks.fresh(start)
        second = gradient_of(maml_loss(loss, own, tasks, RATE, steps), own)
        moved = [at_adapted(s) for s, _ in tasks]
        reptile = {
            n: w - torch.stack([m[n] for m in moved]).mean(0) for n, w in start.items()
        }
        return {
            checks.SECOND_ORDER: second,
            checks.SUM: {n: len(tasks) * g for n, g in right.items()},
            checks.LAST_TASK: last,
            checks.LAST_TASK + ".": {n: g / len(tasks) for n, g in last.items()},
            checks.GRADIENT_AT_START: mean(lambda s: start),
            checks.SUPPORT_GRADIENT: mean(at_adapted, of_support=True),
            checks.REPTILE: reptile,
            checks.NEGATIVE: {n: -g for n, g in right.items()},
            checks.UPHILL: mean(lambda s: at_adapted(s, alpha=-RATE)),
            checks.ALL_AT_START: mean(frozen),
            checks.CARRIED: at_carried(),
            checks.ONE_STEP_ONLY: mean(lambda s: at_adapted(s, steps=1)),
            checks.NO_BIAS: mean(no_bias),
        }

    named(
        the_same_mapping,
        found,
        right,
        "the first-order meta-gradient of three tasks",
        wrong,
    )


def state_of(model: nn.Module) -> Weights:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def population(student: Student, n: int) -> list[list[Task]]:
    """Meta-batches of linear users around a common place, so that training pays."""
    batches = []
    for _ in range(n):
        batch = []
        for _ in range(2):
            w = torch.tensor([2.0, -1.0]).double() + 0.3 * student.normal(2)
            pair = []
            for rows in (2, 4):
                x = student.normal(rows, 2)
                pair.append((x, x @ w + 0.5))
            batch.append(tuple(pair))
        batches.append(batch)
    return batches  # type: ignore[return-value]


def line_with_bias(student: Student) -> tuple[nn.Module, Loss]:
    model = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.1 * student.normal(*p.shape))

    def loss(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
        return 0.5 * (functional_call(model, weights, (x,)) - y).square().sum()

    return model, loss


def several_steps_of_adam(student: Student) -> None:
    model, loss = small_network(student)
    start = state_of(model)
    batches = [draw_tasks(student, [(3, 2), (2, 3)]) for _ in range(3)]

    def train(
        one: Callable[[nn.Module, Any, Sequence[Task]], Any],
    ) -> tuple[Weights, list[Any]]:
        model.load_state_dict(start)
        model.zero_grad()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        values = [one(model, optimizer, batch) for batch in batches]
        return state_of(model), values

    def step(
        zero: bool = True, sign: float = 1.0, leak: bool = False
    ) -> Callable[..., float]:
        def one(model: nn.Module, optimizer: Any, tasks: Sequence[Task]) -> float:
            if zero:
                optimizer.zero_grad()
            theta: Weights = dict(model.named_parameters())
            value = maml_loss(loss, theta, tasks, RATE, 2)
            (sign * value).backward()
            last = adapted(loss, theta, tasks[-1][0], RATE, 2)
            optimizer.step()
            if leak:
                model.load_state_dict(last)
            return value.item()

        return one

    right, values = train(step())
    found, said = train(
        lambda model, optimizer, tasks: student.meta_step(
            model, optimizer, loss, tasks, RATE, 2
        )
    )
    named(
        the_same_mapping,
        found,
        right,
        "theta_0 after three steps of Adam",
        lambda: {
            checks.NOT_MOVED: start,
            checks.STALE: train(step(zero=False))[0],
            checks.META_UPHILL: train(step(sign=-1.0))[0],
            checks.LEAKED_STATE: train(step(leak=True))[0],
        },
    )
    if any(value is None for value in said):
        raise Wrong("meta_step returns None: return the meta-loss before the step")

    def after() -> list[float]:
        found = []

        def one(model: nn.Module, optimizer: Any, tasks: Sequence[Task]) -> None:
            step()(model, optimizer, tasks)
            theta: Weights = dict(model.named_parameters())
            found.append(maml_loss(loss, theta, tasks, RATE, 2).item())

        train(one)
        return found

    def mistake(number: int) -> dict[str, float]:
        return {checks.LOSS_AFTER: after()[number]}

    for number, (value, expected) in enumerate(zip(said, values, strict=True)):
        what = f"the meta-loss that step {number + 1} returns"
        named(same, value, expected, what, partial(mistake, number))


NEW_ADAM = (
    "each meta-batch got an Adam of its own, which knows nothing of the steps before: "
    "make one optimiser before the loop"
)
NO_ADAM = "the steps are those of SGD: the optimiser should be Adam"


def a_training_run(student: Student) -> None:
    model, loss = line_with_bias(student)
    start, batches = state_of(model), population(student, 16)

    def train(
        optimizer: Callable[..., Any], every_batch: bool = False, zero: bool = True
    ) -> tuple[list[float], Weights]:
        model.load_state_dict(start)
        model.zero_grad()
        values, own = [], optimizer(model.parameters(), lr=0.15)
        for batch in batches:
            if every_batch:
                own = optimizer(model.parameters(), lr=0.15)
            if zero:
                own.zero_grad()
            theta: Weights = dict(model.named_parameters())
            value = maml_loss(loss, theta, batch, 0.05, 2)
            value.backward()
            own.step()
            values.append(value.item())
        return values, state_of(model)

    right, trained = train(torch.optim.Adam)
    assert sum(right[-4:]) < 0.5 * sum(right[:4]), "the population teaches nothing"
    model.load_state_dict(start)
    model.zero_grad()

    def once() -> Iterable[list[Task]]:
        yield from batches

    said = student.meta_train(model, loss, once(), 0.05, 2, 0.15)
    named(
        the_same_mapping,
        state_of(model),
        trained,
        "theta_0 after 16 meta-batches",
        lambda: {
            checks.NOT_MOVED: start,
            checks.STALE: train(torch.optim.Adam, zero=False)[1],
            NEW_ADAM: train(torch.optim.Adam, every_batch=True)[1],
            NO_ADAM: train(torch.optim.SGD)[1],
        },
    )
    if said is None:
        raise Wrong("meta_train returns None: return the list of the meta-losses")
    if isinstance(said, (list, tuple)):
        said = [float(v) for v in said]
    same(said, torch.tensor(right), "the meta-losses of the training run")


def evaluation_of_a_network(student: Student) -> None:
    model, loss = small_network(student)
    tasks = draw_tasks(student, [(3, 2), (2, 3), (4, 4)])
    theta = {n: p.detach() for n, p in model.named_parameters()}
    right = maml_loss(loss, theta, tasks, RATE, 3)
    checks.evaluation_leaves_alone(student, model, loss, tasks, (RATE, 3), right.item())


def rates_of_a_network(student: Student) -> None:
    net, _ = small_network(student)
    start = state_of(net)
    theta = checks.fresh(start)
    alpha = 0.01 * student.integer(2, 9)
    found = checks.untouched(lambda theta: student.log_rates_like(theta, alpha), theta)
    checks.rates_are_right(found, start, alpha)
    for name, value in found.items():
        if value.data_ptr() == theta[name].data_ptr():
            raise Wrong(f"the log rates {name!r} share their memory with theta_0")


def meta_sgd_of_a_network(student: Student) -> None:
    start, loss, tasks, steps = network_tasks(student)
    rates = {
        n: (torch.tensor(RATE).log() + 0.4 * student.normal(*w.shape)).double()
        for n, w in start.items()
    }
    theta, log_rates = checks.fresh(start), checks.fresh(rates)
    value = checks.untouched(
        lambda theta, log_rates: student.meta_sgd_loss(
            loss, theta, log_rates, tasks, steps
        ),
        theta,
        log_rates,
    )
    own, own_rates = checks.fresh(start), checks.fresh(rates)
    alpha = {n: a.exp() for n, a in own_rates.items()}
    right = maml_loss(loss, own, tasks, alpha, steps)

    def wrong() -> dict[str, Tensor]:
        flat = torch.cat([a.flatten() for a in alpha.values()])
        rates = {
            checks.NO_EXP: own_rates,
            checks.ONE_RATE: {n: a.mean() for n, a in alpha.items()},
            checks.ONE_RATE + ".": {n: a.mean().exp() for n, a in own_rates.items()},
            checks.ONE_RATE + "..": {n: a.flatten()[0] for n, a in alpha.items()},
            checks.ONE_RATE + "...": flat.mean(),
        }
        found = {
            text: maml_loss(loss, own, tasks, rate, steps)
            for text, rate in rates.items()
        }
        return {**found, **mistakes(loss, own, tasks, alpha, steps)}

    named(same, value, right, "the meta-loss", wrong)
    (of_theta,) = checks.gradients(value, theta)
    named(
        the_same_mapping,
        of_theta,
        gradient_of(right, own),
        "the gradient at theta_0",
        lambda: gradients_of(wrong(), own),
    )
    (of_rates,) = checks.gradients(value, log_rates, no_path=checks.RATES_NOT_LEARNED)
    named(
        the_same_mapping,
        of_rates,
        gradient_of(right, own_rates),
        "the gradient at the log rates",
        lambda: gradients_of(wrong(), own_rates),
    )


def equal_rates_are_maml(student: Student) -> None:
    start, loss, tasks, steps = network_tasks(student)
    log_rates = {
        n: torch.full_like(w, RATE, dtype=torch.float64).log() for n, w in start.items()
    }
    theta, own = checks.fresh(start), checks.fresh(start)
    value = checks.untouched(
        lambda theta: student.meta_sgd_loss(loss, theta, log_rates, tasks, steps),
        theta,
    )
    tensor_of_shape(value, (), "the meta-loss")
    right = maml_loss(loss, own, tasks, RATE, steps)

    def wrong() -> dict[str, Tensor]:
        plain = maml_loss(loss, own, tasks, log_rates, steps)
        return {checks.NO_EXP: plain, **mistakes(loss, own, tasks, RATE, steps)}

    named(same, value, right, "the meta-loss with equal rates (that of MAML)", wrong)
    (found,) = checks.gradients(value, theta)
    named(
        the_same_mapping,
        found,
        gradient_of(right, own),
        "the gradient at theta_0 with equal rates (that of MAML)",
        lambda: gradients_of(wrong(), own),
    )


PART_1 = (
    checks.PART_1.with_check("the meta-loss of a network", 2, loss_of_a_network)
    .with_check("the meta-gradient of a network", 2, gradient_of_a_network)
    .with_check(
        "users with different numbers of ratings, one without", 2, users_of_many_lengths
    )
)
PART_2 = checks.PART_2.with_given(maml_loss=maml_loss).with_check(
    "three tasks of a network", 3, first_order_of_a_network
)
PART_3 = (
    checks.PART_3.with_given(maml_loss=maml_loss)
    .with_check("three steps of Adam on a network", 2, several_steps_of_adam)
    .with_check("a training run whose meta-loss falls", 2, a_training_run)
    .with_check("evaluation of a network", 1, evaluation_of_a_network)
)
PART_4 = (
    checks.PART_4.with_given(maml_loss=maml_loss)
    .with_check("log rates of a network", 1, rates_of_a_network)
    .with_check(
        "the meta-loss of a network, and both gradients", 2, meta_sgd_of_a_network
    )
    .with_check("equal rates that do not learn give MAML", 1, equal_rates_are_maml)
)
