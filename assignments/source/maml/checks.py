"""The checks that a student sees: small numbers that can be followed by hand."""

from collections.abc import Callable
from typing import Any

import torch
from classroom import Part, Student, Wrong, same, tensor_of_shape, the_same_mapping

# torch.func loads a great deal at its first use: here, once, and not in each check.
torch.func.grad(torch.square)(torch.ones(()))


def numbers(*values):
    """Numbers as float64, whatever the notebook's default is."""
    return torch.tensor(values, dtype=torch.float64)


def half_square(weights, x, y):
    """L(w) = 1/2 sum (x w - y)^2, the loss of the worked examples."""
    return 0.5 * (x @ weights["w"] - y).square().sum()


# The three weights of the chapter: one user, one row of support and one of query.
HAND = {"w": numbers(2, 3, 5)}
HAND_TASK = (
    (numbers([1, 2, 3]), numbers(0)),
    (numbers([4, 5, 6]), numbers(0)),
)

# Two users with supports of three and of two rows: half the sum of squared errors,
# two inner steps at rate 0.05.
START = {"w": numbers(1, -1, 0.5)}
TWO_USERS = [
    (
        (numbers([1, 0, 2], [0, 1, 1], [2, 1, 0]), numbers(1, 2, 3)),
        (numbers([1, 1, 1], [2, 0, 1]), numbers(2, 0)),
    ),
    (
        (numbers([0, 1, 1], [1, 1, 0]), numbers(-1, 2)),
        (numbers([1, 2, 0], [0, 0, 1], [1, 0, 1]), numbers(1, 1, -2)),
    ),
]

UPHILL = "the inner step goes uphill: w - alpha * gradient, with a minus"
SUM = (
    "the sum over the tasks in place of their mean: it would grow with the size of the "
    "meta-batch"
)
MEAN = (
    "a mean where `loss` has a sum (did you divide by the number of rows?): use the "
    "number that `loss` returns as it stands, and take the mean over tasks alone"
)
QUERY_AT_START = (
    "the query was judged at the unadapted weights theta_0: adapt on the support "
    "first, then take the query loss at the adapted weights"
)
SUPPORT_AS_QUERY = (
    "the support loss was taken as the meta-loss: adapt on the support, but judge on "
    "the query"
)
LEAKED = (
    "the query leaked into the adaptation: its ratings are what the user has not given "
    "yet. Adapt on the support alone"
)
ALL_AT_START = (
    "every inner gradient was taken at theta_0: take the next one at the weights that "
    "the last step gave"
)
CARRIED = (
    "a task started from the adapted weights of the task before it: every task starts "
    "from theta_0"
)
ONE_STEP_ONLY = "one inner step only: does the loop go on from the new weights?"
WRONG_NUMBER = "one inner step too {}: `steps` is the number of steps"
NO_BIAS = (
    "the biases were left out of the fast weights: every entry of theta_0 takes the "
    "inner step"
)
LAST_TASK = "only the last task counts: add the tasks up inside the loop"
FIRST_ORDER = (
    "this is the first-order meta-gradient: the inner gradients were taken as "
    "constants. Ask for them with create_graph=True, or with torch.func.grad, and "
    "do not detach them"
)
DETACHED = (
    "the meta-loss does not depend on theta_0, so theta_0 gets no gradient: is there a "
    "detached copy (.detach(), .data, .item(), torch.no_grad())?"
)
BACKWARD = (
    "`.backward()` wrote into the `.grad` of theta_0, where the meta-gradient will be "
    "added to it: in the inner loop use torch.autograd.grad or torch.func.grad"
)
IN_PLACE = (
    "theta_0 was changed in place (entry {!r}): the next task would start from this "
    "one's weights. Make new tensors: w - alpha * g"
)
IN_PLACE_ERROR = (
    "weights were updated in place, and autograd refuses it: make new tensors, "
    "w - alpha * g\n({})"
)
DICTIONARY = (
    "the dictionary theta_0 itself was changed (entry {!r}): the next task would start "
    "from this one's adapted weights. Put the new weights into a new dictionary"
)


def fresh(start):
    """Weights that require a gradient, as theta_0 does in meta-training."""
    return {n: w.detach().clone().requires_grad_() for n, w in start.items()}


def untouched(call: Callable[..., Any], *starts: dict) -> Any:
    """``call(*starts)``; fail if it changes a dictionary, its tensors or a ``grad``."""
    before = [
        (start, name, w, w.detach().clone())
        for start in starts
        for name, w in start.items()
    ]
    try:
        result = call(*starts)
    except RuntimeError as error:
        if "in-place" in str(error) or "inplace" in str(error):
            raise Wrong(IN_PLACE_ERROR.format(str(error)[:150])) from None
        if any(w.grad is not None for _, _, w, _ in before):
            raise Wrong(BACKWARD) from None
        raise
    except TypeError:
        # After .backward() an adapted weight has no .grad, and None is no gradient.
        if any(w.grad is not None for _, _, w, _ in before):
            raise Wrong(BACKWARD) from None
        raise
    for start, name, w, old in before:
        if not torch.equal(w.detach(), old):
            raise Wrong(IN_PLACE.format(name))
        if name not in start or start[name] is not w:
            raise Wrong(DICTIONARY.format(name))
        if w.grad is not None:
            raise Wrong(BACKWARD)
    return result


def gradients(value: Any, *starts: dict, no_path: str = DETACHED) -> list[dict]:
    """Gradients of a meta-loss, by name, for each dictionary of weights."""
    tensor_of_shape(value, (), "the meta-loss")
    if not isinstance(value, torch.Tensor):
        raise Wrong(
            f"the meta-loss is a {type(value).__name__}, which has no gradient: return "
            "the tensor itself"
        )
    if not value.requires_grad:
        raise Wrong(no_path)
    found = []
    for start in starts:
        try:
            every = torch.autograd.grad(
                value, list(start.values()), retain_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            if "inplace" in str(error):
                raise Wrong(IN_PLACE_ERROR.format(str(error)[:150])) from None
            raise
        if all(g is None for g in every):
            raise Wrong(no_path)
        found.append(
            {
                name: torch.zeros_like(w) if g is None else g
                for (name, w), g in zip(start.items(), every, strict=True)
            }
        )
    return found


def loss_of_two_users(student: Student) -> None:
    found = untouched(
        lambda theta: student.maml_loss(half_square, theta, TWO_USERS, 0.05, 2),
        fresh(START),
    )
    same(
        found,
        (4.825098 + 7.945242) / 2,
        "the meta-loss of the two users",
        {
            SUM: 4.825098 + 7.945242,
            QUERY_AT_START: 6.25,
            SUPPORT_AS_QUERY: (3.574886 + 1.566295) / 2,
            ALL_AT_START: (5.20625 + 7.9375) / 2,
            CARRIED: (4.825098 + 7.629615) / 2,
            ONE_STEP_ONLY: (4.595312 + 8.059375) / 2,
            MEAN: (2.210873 + 2.687785) / 2,
            MEAN + ".": (4.825098 / 2 + 7.945242 / 3) / 2,
            MEAN + "..": 6.24255,
            LAST_TASK: 7.945242,
            LAST_TASK + ".": 7.945242 / 2,
            LEAKED: 4.561134,
            LEAKED + ".": 4.571157,
            UPHILL: 6.636732,
        },
        tolerance=2e-6,
    )


def gradient_by_hand(student: Student) -> None:
    theta = fresh(HAND)
    loss = untouched(
        lambda theta: student.maml_loss(half_square, theta, [HAND_TASK], 0.5, 1), theta
    )
    (found,) = gradients(loss, theta)
    the_same_mapping(
        found,
        {"w": numbers(3780, 8505, 13230)},
        "the meta-gradient of the three weights",
        {
            FIRST_ORDER: {"w": numbers(-1260, -1575, -1890)},
            SUPPORT_AS_QUERY: {"w": numbers(828, 1656, 2484)},
            QUERY_AT_START: {"w": numbers(212, 265, 318)},
            BACKWARD: {"w": numbers(3803, 8551, 13299)},
            LEAKED: {"w": numbers(391013, 517032.25, 643051.5)},
            LEAKED + ".": {"w": numbers(298125, 372656.25, 447187.5)},
            UPHILL: {"w": numbers(8420, 15577, 22734)},
        },
    )


SECOND_ORDER = (
    "this is the second-order meta-gradient: the first-order one takes the inner "
    "gradients as constants, so its path stops at the adapted copy"
)
GRADIENT_AT_START = (
    "the query gradient was taken at theta_0: take it at the adapted copy"
)
SUPPORT_GRADIENT = (
    "this is the gradient of the support loss at the adapted copy: take that of the "
    "query loss"
)
REPTILE = (
    "this is theta_0 minus the adapted weights, which is what Reptile follows: "
    "first-order MAML follows the query gradient at the adapted copy"
)
NEGATIVE = (
    "the sign is turned: return the gradient itself; the optimiser puts in the minus"
)


def first_order_by_hand(student: Student) -> None:
    found = untouched(
        lambda theta: student.first_order_gradient(
            half_square, theta, [HAND_TASK], 0.5, 1
        ),
        fresh(HAND),
    )
    the_same_mapping(
        found,
        {"w": numbers(-1260, -1575, -1890)},
        "the first-order meta-gradient of the three weights",
        {
            SECOND_ORDER: {"w": numbers(3780, 8505, 13230)},
            GRADIENT_AT_START: {"w": numbers(212, 265, 318)},
            SUPPORT_GRADIENT: {"w": numbers(-138, -276, -414)},
            REPTILE: {"w": numbers(11.5, 23, 34.5)},
            NEGATIVE: {"w": numbers(1260, 1575, 1890)},
        },
    )


def first_order_of_two_users(student: Student) -> None:
    found = untouched(
        lambda theta: student.first_order_gradient(
            half_square, theta, TWO_USERS, 0.05, 2
        ),
        fresh(START),
    )
    right = numbers(7.25875, -3.89625, 5.245)
    the_same_mapping(
        found,
        {"w": right / 2},
        "the first-order meta-gradient of the two users",
        {
            SUM: {"w": right},
            SECOND_ORDER: {"w": numbers(5.019269, -4.642828, 3.636403) / 2},
            GRADIENT_AT_START: {"w": numbers(5, -5.5, 4) / 2},
            SUPPORT_GRADIENT: {"w": numbers(-1.3125, -2.134375, 0.53)},
            CARRIED: {"w": numbers(4.107092, -1.148022, 2.689361)},
            NEGATIVE: {"w": -right / 2},
        },
        tolerance=2e-6,
    )


class Line(torch.nn.Module):
    """A linear model with three weights and no bias."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(START["w"].clone())

    def forward(self, x):
        return x @ self.w


NOT_MOVED = (
    "the model did not move: does the meta-loss start from the model's own parameters "
    "(dict(model.named_parameters()), not copies), and is the order zero_grad, "
    "backward, step?"
)
STALE = (
    "gradients of an earlier step were still in `.grad` and were added to this one: "
    "call optimizer.zero_grad() before backward"
)
META_UPHILL = (
    "the model moved uphill: minimise the meta-loss, and let the optimiser put in the "
    "minus"
)
LEAKED_STATE = (
    "a task's adapted weights leaked into the model: they are that task's own. Only "
    "the optimiser moves theta_0"
)
LOSS_AFTER = "this is the meta-loss after the step: return the one before it"
META_FIRST_ORDER = (
    "the step followed the first-order meta-gradient: call `maml_loss` and its backward"
)
EVALUATION = (
    "evaluation changed the model's {}: adapt copies, and let nothing but "
    "`meta_step` train"
)


def one_sgd_step(student: Student) -> None:
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # What an earlier step has left behind.
    model.w.grad = torch.ones(3, dtype=torch.float64)
    value = student.meta_step(model, optimizer, half_square, TWO_USERS, 0.05, 2)
    start = START["w"]
    slope = numbers(5.019269, -4.642828, 3.636403) / 2
    same(
        model.w,
        start - 0.1 * slope,
        "theta_0 after one step of SGD at rate 0.1",
        {
            NOT_MOVED: start,
            STALE: start - 0.1 * (slope + 1),
            NOT_MOVED + ".": start - 0.1,
            META_UPHILL: start + 0.1 * slope,
            META_FIRST_ORDER: start - 0.05 * numbers(7.25875, -3.89625, 5.245),
            LEAKED_STATE: numbers(1.2375, -0.58875, 0.5175),
            LEAKED_STATE + ".": numbers(1.19125, -0.86125, 0.4475),
        },
        tolerance=2e-6,
    )
    same(value, 6.38517, "what meta_step returns", tolerance=2e-6)


def evaluation_of_two_users(student: Student) -> None:
    evaluation_leaves_alone(
        student, Line(), half_square, TWO_USERS, (0.05, 2), (4.825098 + 7.945242) / 2
    )


def evaluation_leaves_alone(student, model, loss, tasks, inner, expected):
    """Check the number, and that parameters and ``.grad`` are as they were."""
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    value = student.evaluate(model, loss, tasks, *inner)
    for name, p in model.named_parameters():
        if not torch.equal(p.detach(), before[name]):
            raise Wrong(EVALUATION.format(f"parameter {name!r}"))
        if p.grad is None or not torch.equal(p.grad, torch.full_like(p, 7.0)):
            raise Wrong(EVALUATION.format(f"`.grad` (of {name!r})"))
    same(value, expected, "what evaluate returns", tolerance=2e-6)


RATES_NOT_LEARNED = (
    "the rates get no gradient, so they are not learned: take them into the inner step "
    "as exp(log_rates[name]), without .detach(), .item() or torch.no_grad()"
)
NO_EXP = (
    "the logarithms of the rates were used as rates: alpha = exp(log_rates), which is "
    "positive"
)
ONE_RATE = (
    "one rate was used for a whole tensor: every weight takes its own, with * entry by "
    "entry"
)
NO_LOG = "these are the rates themselves: start from their logarithms"
SHARED_RATE = (
    "one rate for the whole entry {!r}: a rate for each weight has the shape of the "
    "weights, {}"
)


def rates_are_right(found: Any, theta, alpha: float) -> None:
    """Names, shapes and numbers of the starting log rates; all can be learned."""
    if isinstance(found, dict):
        for name, w in theta.items():
            value = found.get(name)
            if isinstance(value, (int, float)) or (
                isinstance(value, torch.Tensor) and value.numel() == 1 < w.numel()
            ):
                raise Wrong(SHARED_RATE.format(name, tuple(w.shape)))
    expected = {n: torch.full_like(w, alpha).log() for n, w in theta.items()}
    the_same_mapping(
        found,
        expected,
        "the starting log rates",
        {NO_LOG: {n: torch.full_like(w, alpha) for n, w in theta.items()}},
    )
    for name, value in found.items():
        if not isinstance(value, torch.Tensor) or not value.requires_grad:
            raise Wrong(
                f"the log rates {name!r} do not require a gradient, so no optimiser "
                "can learn them"
            )
        if not value.is_leaf:
            raise Wrong(
                f"the log rates {name!r} are computed from something that requires a "
                "gradient: an optimiser takes leaves alone. Make them new tensors"
            )


def rates_of_three_weights(student: Student) -> None:
    theta = fresh(HAND)
    found = untouched(lambda theta: student.log_rates_like(theta, 0.5), theta)
    rates_are_right(found, HAND, 0.5)


def meta_sgd_by_hand(student: Student) -> None:
    theta = fresh(HAND)
    log_rates = fresh({"w": numbers(0.5, 0.5, 0.5).log()})
    loss = untouched(
        lambda theta, log_rates: student.meta_sgd_loss(
            half_square, theta, log_rates, [HAND_TASK], 1
        ),
        theta,
        log_rates,
    )
    same(loss, 49612.5, "the meta-loss", {NO_EXP: 158572.5231})
    (of_theta,) = gradients(loss, theta)
    the_same_mapping(
        of_theta,
        {"w": numbers(3780, 8505, 13230)},
        "the gradient at theta_0",
        {FIRST_ORDER: {"w": numbers(-1260, -1575, -1890)}},
    )
    (of_rates,) = gradients(loss, log_rates, no_path=RATES_NOT_LEARNED)
    # dL/d(log alpha) = alpha dL/dalpha, with alpha = 1/2.
    the_same_mapping(
        of_rates,
        {"w": 0.5 * numbers(28980, 72450, 130410)},
        "the gradient at the log rates",
    )


PART_1 = (
    Part(
        "Part 1",
        "The meta-loss",
        "Chapter MAML: 'The objective' and 'Three weights by hand'",
    )
    .with_check("the meta-loss of two users, two steps", 1, loss_of_two_users)
    .with_check("the meta-gradient of three weights, by hand", 1, gradient_by_hand)
)
PART_2 = (
    Part(
        "Part 2",
        "The first-order meta-gradient",
        "Chapter MAML: 'Three weights by hand', from 'first order' on",
    )
    .with_check("three weights, by hand", 1, first_order_by_hand)
    .with_check("two users, two steps", 1, first_order_of_two_users)
)
PART_3 = (
    Part(
        "Part 3",
        "Meta-training",
        "Chapter MAML: 'A network: sine curves from ten points', the outer loop",
    )
    .with_check("one step of SGD", 1, one_sgd_step)
    .with_check("evaluation leaves the model alone", 1, evaluation_of_two_users)
)
PART_4 = (
    Part("Part 4", "Meta-SGD", "Chapter Meta-SGD: 'Meta-SGD'")
    .with_check("a rate for every weight", 1, rates_of_three_weights)
    .with_check("three weights and three rates, by hand", 1, meta_sgd_by_hand)
)
