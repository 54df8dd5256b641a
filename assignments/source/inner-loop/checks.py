"""The checks that a student sees: small numbers that can be followed by hand."""

import torch
from classroom import Part, Student, Wrong, same, tensor_of_shape, the_same_mapping

X = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
START = {"w": torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)}


def half_square(weights):
    """L(w) = 1/2 (w . x)^2 with x = [1, 2, 3]: 264.5 at w = [2, 3, 5]."""
    return 0.5 * (X @ weights["w"]).square().sum()


def fresh(start):
    """Weights that require a gradient, as theta_0 does in meta-training."""
    return {n: w.detach().clone().requires_grad_() for n, w in start.items()}


def untouched(step, start, loss):
    """Fail if ``step`` changes the weights that it is given, or their ``grad``."""
    before = {n: w.detach().clone() for n, w in start.items()}
    result = step(loss, start)
    for name, old in before.items():
        if not torch.equal(start[name].detach(), old):
            raise Wrong(
                f"the start was changed in place (entry {name!r}): a second user would "
                "start from the first one's weights. Make new tensors: w - alpha * g"
            )
        if start[name].grad is not None:
            raise Wrong(BACKWARD)
    return result


def one_step(student: Student) -> None:
    new = untouched(
        lambda loss, w: student.inner_update(loss, w, 0.5), fresh(START), half_square
    )
    expected = {"w": torch.tensor([-9.5, -20.0, -29.5])}
    uphill = {"w": torch.tensor([13.5, 26.0, 39.5])}
    the_same_mapping(
        new,
        expected,
        "the weights after one step",
        {UPHILL: uphill},
    )


def keeps_the_path(student: Student) -> None:
    start = fresh(START)
    new = student.inner_update(half_square, start, 0.5)["w"]
    if not getattr(new, "requires_grad", False):
        raise Wrong(DETACHED)
    query = 0.5 * (torch.tensor([4.0, 5.0, 6.0]).double() @ new).square()
    (meta,) = torch.autograd.grad(query, list(start.values()))
    same(
        meta,
        torch.tensor([3780.0, 8505.0, 13230.0]),
        "the meta-gradient through one step",
        {FIRST_ORDER: torch.tensor([-1260.0, -1575.0, -1890.0])},
    )


def three_steps(student: Student) -> None:
    new = student.inner_loop(half_square, fresh(START), 1.0, 3)
    at_start = START["w"] - 3 * 23.0 * X[0]
    the_same_mapping(
        new,
        {"w": torch.tensor([-3609.0, -7219.0, -10828.0])},
        "the weights after three steps at rate 1",
        {
            ALL_AT_START: {"w": at_start},
            ONE_STEP_ONLY: {"w": START["w"] - 23.0 * X[0]},
        },
    )


def no_steps(student: Student) -> None:
    the_same_mapping(
        student.inner_loop(half_square, fresh(START), 0.5, 0),
        START,
        "the weights after no step",
    )


# Two users of the worked example: rows of features, and what is left of their ratings.
# The second has two ratings, so its last row is padding and counts for nothing.
PHI = torch.tensor(
    [
        [[1.0, 0.0, 2.0], [0.0, 1.0, 1.0], [2.0, 1.0, 0.0]],
        [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
    ],
    dtype=torch.float64,
)
REST = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 2.0, 0.0]], dtype=torch.float64)
THETA_0 = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)


def two_users(student: Student) -> None:
    found = student.adapt_all(PHI, REST, THETA_0, 0.05, 2)
    found = tensor_of_shape(found, (2, 3), "the weights of two users")
    first = [1.2375, -0.58875, 0.5175]
    second = [1.19125, -0.86125, 0.4475]
    same(
        found,
        torch.tensor([first, second]),
        "the weights of two users after two steps",
        {
            CARRIED: torch.tensor([first, [1.368191, -0.549669, 0.425891]]),
            MEAN: torch.tensor(
                [[1.093056, -0.854306, 0.513056], [1.097813, -0.927813, 0.474375]]
            ),
            # The mean over the rows of the batch, padding included.
            MEAN + ".": torch.tensor(
                [[1.093056, -0.854306, 0.513056], [1.065694, -0.95125, 0.483056]]
            ),
            ALL_AT_START: torch.tensor([[1.3, -0.55, 0.55], [1.2, -0.85, 0.45]]),
            ONE_STEP_ONLY: torch.tensor([[1.15, -0.775, 0.525], [1.1, -0.925, 0.475]]),
        },
        tolerance=2e-6,
    )


def two_query_losses(student: Student) -> None:
    for user, (x, y, expected, plain, support) in enumerate(
        [
            ([[1, 1, 1], [2, 0, 1]], [2, 0], 4.825098, 4.25, 3.574886),
            ([[1, 2, 0], [0, 0, 1], [1, 0, 1]], [1, 1, -2], 7.945242, 8.25, 1.566295),
        ]
    ):
        n = 3 - user  # the support without its padding
        found = student.query_loss(
            {"w": THETA_0.clone().requires_grad_()},
            (PHI[user, :n], REST[user, :n]),
            (torch.tensor(x).double(), torch.tensor(y).double()),
            0.05,
            2,
        )
        same(
            found,
            expected,
            f"the query loss of user {user + 1}",
            {QUERY_AT_START: plain, SUPPORT_AS_QUERY: support},
            tolerance=2e-6,
        )


UPHILL = "the step goes uphill: theta - alpha * gradient, with a minus"
DETACHED = (
    "the new weights no longer depend on the start: something was detached, or "
    "computed under torch.no_grad(), so no meta-gradient can flow back"
)
FIRST_ORDER = (
    "this is the first-order meta-gradient: the inner gradient is taken as a constant. "
    "Ask for it with create_graph=True, or with torch.func.grad, and do not detach it"
)
BACKWARD = (
    "`.backward()` inside the inner loop wrote into the `.grad` of theta_0, where the "
    "meta-gradient will be added to it. Use torch.autograd.grad or torch.func.grad"
)
MEAN = (
    "the mean of the squared errors in place of their sum: with a fixed rate it "
    "forgets how many ratings there are"
)
ALL_AT_START = (
    "every gradient was taken at the start: take the next one at the weights that the "
    "last step gave"
)
ONE_STEP_ONLY = "one step only: does the loop go on from the new weights, T times?"
CARRIED = (
    "the second user starts from the first one's adapted weights: every user starts "
    "from theta_0"
)
QUERY_AT_START = (
    "the query loss was taken at the unadapted weights theta_0: adapt first, then judge"
)
SUPPORT_AS_QUERY = (
    "this is the loss on the support: adapt on the support, judge on the query"
)

PART_1 = (
    Part(
        "Part 1",
        "One step as a function",
        "Chapter The inner loop: 'One step by hand', 'Why the graph must be kept'",
    )
    .with_check("one step, by hand", 1, one_step)
    .with_check("leaves the start alone and keeps the path", 1, keeps_the_path)
)
PART_2 = (
    Part("Part 2", "T steps", "Chapter The inner loop: 'The same as a function'")
    .with_check("no step changes nothing", 1, no_steps)
    .with_check("three steps, by hand", 1, three_steps)
)
PART_3 = Part(
    "Part 3",
    "Every user at once",
    "Chapter The inner loop: 'All users at once' and 'Sum or mean?'",
).with_check("two users, two steps", 2, two_users)
PART_4 = Part(
    "Part 4", "The query loss", "Chapter Users as tasks: support and query"
).with_check("two users of the worked example", 2, two_query_losses)
