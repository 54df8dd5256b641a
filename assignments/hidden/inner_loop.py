"""Hidden checks of the inner-loop assignment."""

from __future__ import annotations

from collections.abc import Callable

import checks
import torch
from classroom import Student, Wrong, same, the_same_mapping
from torch import Tensor
from torch.func import functional_call

Weights = dict[str, Tensor]
Loss = Callable[[Weights], Tensor]


def inner_update(loss: Loss, weights: Weights, alpha: float) -> Weights:
    """The right answer to part 1."""
    gradient = torch.autograd.grad(
        loss(weights), list(weights.values()), create_graph=True
    )
    return {
        n: w - alpha * g for (n, w), g in zip(weights.items(), gradient, strict=True)
    }


def inner_loop(loss: Loss, weights: Weights, alpha: float, steps: int) -> Weights:
    """The right answer to part 2."""
    for _ in range(steps):
        weights = inner_update(loss, weights, alpha)
    return weights


def network_task(student: Student) -> tuple[Weights, Loss, Loss]:
    """A small network with biases, a loss on five points and one on three others."""
    hidden = student.integer(3, 6)
    net = torch.nn.Sequential(
        torch.nn.Linear(2, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1)
    ).double()
    start = {n: 0.5 * student.normal(*p.shape) for n, p in net.named_parameters()}

    def loss_on(n: int) -> Loss:
        x, y = student.normal(n, 2), student.normal(n, 1)

        def loss(weights: Weights) -> Tensor:
            return 0.5 * (functional_call(net, weights, x) - y).square().sum()

        return loss

    return start, loss_on(5), loss_on(3)


def step_of_a_network(student: Student) -> None:
    start, loss, _ = network_task(student)
    new = checks.untouched(
        lambda f, w: student.inner_update(f, w, 0.03), checks.fresh(start), loss
    )
    right = inner_update(loss, checks.fresh(start), 0.03)
    no_bias = {n: start[n] if "bias" in n else w for n, w in right.items()}
    uphill = {n: 2 * start[n] - w for n, w in right.items()}
    the_same_mapping(
        new,
        right,
        "the weights of a network after one step",
        {
            "the biases stayed where they were: every entry of the dictionary takes "
            "the step": no_bias,
            checks.UPHILL: uphill,
        },
    )


def path_of_a_network(student: Student) -> None:
    start, loss, query = network_task(student)
    meta_gradient_agrees(
        lambda w: student.inner_update(loss, w, 0.1), start, loss, query, 1, 0.1
    )


def meta_gradient_agrees(
    adapt: Callable[[Weights], Weights],
    start: Weights,
    loss: Loss,
    query: Loss,
    steps: int,
    alpha: float,
) -> None:
    """Compare the gradient of the query loss at theta_0, through the inner steps."""
    theta = checks.fresh(start)
    new = adapt(theta)
    for value in theta.values():
        if value.grad is not None:
            raise Wrong(checks.BACKWARD)
    if not any(getattr(w, "requires_grad", False) for w in new.values()):
        raise Wrong(checks.DETACHED)
    found = gradient_of(query(new), theta)

    def reference(first_order: bool) -> Weights:
        own = checks.fresh(start)
        now = own
        for _ in range(steps):
            step = torch.autograd.grad(
                loss(now), list(now.values()), create_graph=not first_order
            )
            if first_order:
                step = tuple(g.detach() for g in step)
            now = {
                n: w - alpha * g for (n, w), g in zip(now.items(), step, strict=True)
            }
        return gradient_of(query(now), own)

    the_same_mapping(
        found,
        reference(False),
        "the meta-gradient",
        {checks.FIRST_ORDER: reference(True)},
    )


def gradient_of(value: Tensor, weights: Weights) -> Weights:
    """Gradients by name, zero where there is no path."""
    found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    return {
        n: torch.zeros_like(w) if g is None else g
        for (n, w), g in zip(weights.items(), found, strict=True)
    }


def loop_of_a_network(student: Student) -> None:
    start, loss, _ = network_task(student)
    steps = student.integer(3, 5)
    right = inner_loop(loss, checks.fresh(start), 0.05, steps)
    theta = checks.fresh(start)
    frozen = inner_update(loss, theta, 0.05 * steps)
    new = checks.untouched(
        lambda f, w: student.inner_loop(f, w, 0.05, steps), theta, loss
    )
    the_same_mapping(
        new,
        right,
        f"the weights after {steps} steps",
        {
            checks.ALL_AT_START: frozen,
            checks.ONE_STEP_ONLY: inner_update(loss, checks.fresh(start), 0.05),
        },
    )


def loop_keeps_the_path(student: Student) -> None:
    start, loss, query = network_task(student)
    meta_gradient_agrees(
        lambda w: student.inner_loop(loss, w, 0.1, 3), start, loss, query, 3, 0.1
    )


def adapt_by_hand(
    phi: Tensor, rest: Tensor, theta_0: Tensor, alpha: float, steps: int
) -> Tensor:
    """A plain loop over users and steps: the right answer to part 3."""
    own = []
    for x, y in zip(phi, rest, strict=True):
        w = theta_0
        for _ in range(steps):
            w = w + alpha * x.T @ (y - x @ w)
        own.append(w)
    return torch.stack(own)


def padded_users(student: Student) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Users with different numbers of ratings, padded with zeros; one has none."""
    counts = [student.integer(2, 6), 0, 6, student.integer(1, 5)]
    dim = student.integer(3, 5)
    phi, rest = student.normal(4, 6, dim), student.normal(4, 6)
    for user, count in enumerate(counts):
        phi[user, count:], rest[user, count:] = 0.0, 0.0
    return phi, rest, student.normal(dim), counts


def users_of_many_lengths(student: Student) -> None:
    phi, rest, theta_0, counts = padded_users(student)
    right = adapt_by_hand(phi, rest, theta_0, 0.04, 3)
    number = torch.tensor(counts).clamp(min=1)
    mean = torch.stack(
        [
            adapt_by_hand(phi[u : u + 1], rest[u : u + 1], theta_0, 0.04 / c, 3)[0]
            for u, c in enumerate(number.tolist())
        ]
    )
    row_mean = adapt_by_hand(phi, rest, theta_0, 0.04 / phi.shape[1], 3)
    carried, w = [], theta_0
    for u in range(4):
        w = adapt_by_hand(phi[u : u + 1], rest[u : u + 1], w, 0.04, 3)[0]
        carried.append(w)
    before = theta_0.clone()
    found = student.adapt_all(phi, rest, theta_0, 0.04, 3)
    if not torch.equal(before, theta_0):
        raise Wrong("theta_0 was changed in place: a later batch starts elsewhere")
    same(
        found,
        right,
        "the weights of four users",
        {
            checks.MEAN: mean,
            checks.MEAN + ".": row_mean,
            checks.CARRIED: torch.stack(carried),
            checks.ALL_AT_START: adapt_by_hand(phi, rest, theta_0, 0.12, 1),
            checks.ONE_STEP_ONLY: adapt_by_hand(phi, rest, theta_0, 0.04, 1),
            checks.UPHILL: adapt_by_hand(phi, rest, theta_0, -0.04, 3),
        },
    )


def path_of_many_users(student: Student) -> None:
    phi, rest, start, _ = padded_users(student)
    target = student.normal(4, phi.shape[2])

    def meta_gradient(adapt: Callable[..., Tensor]) -> Tensor:
        theta = start.clone().requires_grad_()
        own = adapt(phi, rest, theta, 0.04, 3)
        if not getattr(own, "requires_grad", False):
            raise Wrong(
                "the users' weights do not depend on theta_0: something was detached, "
                "or computed under torch.no_grad()"
            )
        (found,) = torch.autograd.grad(((own - target) ** 2).sum(), theta)
        return found

    def first_order(*args: object) -> Tensor:
        own = adapt_by_hand(*args).detach()  # type: ignore[arg-type]
        return args[2] + (own - args[2]).detach()  # type: ignore[operator,union-attr]

    same(
        meta_gradient(student.adapt_all),
        meta_gradient(adapt_by_hand),
        "the gradient with respect to theta_0",
        {
            "this is the first-order gradient: the steps were taken as constants. Do "
            "not detach them": meta_gradient(first_order)
        },
    )


def right_query_loss(
    weights: Weights,
    support: tuple[Tensor, Tensor],
    query: tuple[Tensor, Tensor],
    alpha: float,
    steps: int,
) -> Tensor:
    """The right answer to part 4."""
    own = adapt_by_hand(support[0][None], support[1][None], weights["w"], alpha, steps)
    return 0.5 * (query[0] @ own[0] - query[1]).square().sum()


def judged_on_the_query(student: Student) -> None:
    dim, n, m = student.integer(3, 5), student.integer(3, 6), student.integer(2, 5)
    support = student.normal(n, dim), student.normal(n)
    query = student.normal(m, dim), student.normal(m)
    both = torch.cat([support[0], query[0]]), torch.cat([support[1], query[1]])
    theta = student.normal(dim)

    def gradient(function: Callable[..., Tensor], *parts: object) -> list[Tensor]:
        weights = {"w": theta.clone().requires_grad_()}
        value = function(weights, *parts, 0.04, 3)
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise Wrong(
                "the query loss does not depend on theta_0: nothing to learn from"
            )
        return [value, torch.autograd.grad(value, weights["w"])[0]]

    value, slope = gradient(student.query_loss, support, query)
    right, right_slope = gradient(right_query_loss, support, query)
    start = {"w": theta}
    leak = (
        "the query leaked into the adaptation: its ratings are what the user has not "
        "given yet"
    )
    mistakes = {
        checks.QUERY_AT_START: right_query_loss(start, support, query, 0.04, 0),
        checks.SUPPORT_AS_QUERY: right_query_loss(start, support, support, 0.04, 3),
        leak: right_query_loss(start, both, query, 0.04, 3),
        leak + ".": right_query_loss(start, query, query, 0.04, 3),
        "the mean over the query in place of the sum": right / m,
    }
    same(value, right, "the query loss", mistakes)
    same(slope, right_slope, "the gradient of the query loss at theta_0")


PART_1 = checks.PART_1.with_check(
    "one step of a network with biases", 2, step_of_a_network
).with_check("the meta-gradient through one step of a network", 2, path_of_a_network)
PART_2 = (
    checks.PART_2.with_given(inner_update=inner_update)
    .with_check("several steps of a network", 2, loop_of_a_network)
    .with_check("the meta-gradient through three steps", 2, loop_keeps_the_path)
)
PART_3 = checks.PART_3.with_check(
    "users with different numbers of ratings", 2, users_of_many_lengths
).with_check("the gradient with respect to theta_0", 2, path_of_many_users)
PART_4 = checks.PART_4.with_given(
    inner_update=inner_update, inner_loop=inner_loop
).with_check(
    "judged on the query, after adapting on the support", 2, judged_on_the_query
)
