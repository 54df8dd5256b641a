"""Answers to the assignment on the inner loop."""

from answers import Answer

HEAD = "def inner_update(loss, weights, alpha):\n"
LOOP = "def inner_loop(loss, weights, alpha, steps):\n"
ALL = "def adapt_all(phi, rest, theta_0, alpha, steps):\n"
QUERY = "def query_loss(theta_0, support, query, alpha, steps):\n"

WRONG = {
    "no create_graph": Answer(
        edits={"inner-update": (", create_graph=True", "")},
        loses=("part-1",),
        says="first-order",
    ),
    "update in place": Answer(
        cells={
            "inner-update": HEAD
            + """\
    gradient = torch.autograd.grad(loss(weights), list(weights.values()))
    with torch.no_grad():
        for w, g in zip(weights.values(), gradient):
            w -= alpha * g
    return weights
"""
        },
        loses=("part-1",),
        says="in place",
    ),
    "detached copy": Answer(
        cells={
            "inner-update": HEAD
            + """\
    own = {n: w.detach().clone().requires_grad_() for n, w in weights.items()}
    gradient = torch.autograd.grad(loss(own), list(own.values()), create_graph=True)
    return {n: (w - alpha * g).detach() for (n, w), g in zip(own.items(), gradient)}
"""
        },
        loses=("part-1",),
        says="detached",
    ),
    "backward in the inner loop": Answer(
        cells={
            "inner-update": HEAD
            + """\
    loss(weights).backward(create_graph=True)
    return {n: w - alpha * w.grad for n, w in weights.items()}
"""
        },
        loses=("part-1",),
        says="backward",
    ),
    "bias left out": Answer(
        edits={
            "inner-update": (
                "name: w - alpha * g",
                'name: w if "bias" in name else w - alpha * g',
            )
        },
        loses=("part-1",),
        says="bias",
    ),
    "sign error": Answer(
        edits={"inner-update": ("w - alpha * g", "w + alpha * g")},
        loses=("part-1",),
        says="uphill",
    ),
    "every gradient at theta_0": Answer(
        cells={
            "inner-loop": LOOP
            + """\
    start, now = weights, weights
    for _ in range(steps):
        moved = inner_update(loss, start, alpha)
        now = {n: now[n] + moved[n] - start[n] for n in now}
    return now
"""
        },
        loses=("part-2",),
        says="taken at the start",
    ),
    "one step only": Answer(
        cells={
            "inner-loop": LOOP
            + """\
    new = weights
    for _ in range(steps):
        new = inner_update(loss, weights, alpha)
    return new
"""
        },
        loses=("part-2",),
        says="one step only",
    ),
    "state carried to the next user": Answer(
        cells={
            "adapt-all": ALL
            + """\
    own, w = [], theta_0
    for x, y in zip(phi, rest):
        for _ in range(steps):
            w = w - alpha * x.T @ (x @ w - y)
        own.append(w)
    return torch.stack(own)
"""
        },
        loses=("part-3",),
        says="every user starts\\s+from theta_0",
    ),
    "mean in place of sum": Answer(
        edits={
            "adapt-all": (
                "alpha * torch.einsum",
                "alpha / phi.shape[1] * torch.einsum",
            )
        },
        loses=("part-3",),
        says="mean of the squared errors",
    ),
    "users' weights detached": Answer(
        edits={"adapt-all": ("return w", "return w.detach()")},
        loses=("part-3",),
        says="detached",
    ),
    "query loss at theta_0": Answer(
        edits={"query-loss": ("loss(own, *query)", "loss(theta_0, *query)")},
        loses=("part-4",),
        says="unadapted",
    ),
    "support loss as meta-loss": Answer(
        edits={"query-loss": ("loss(own, *query)", "loss(own, *support)")},
        loses=("part-4",),
        says="loss on the support",
    ),
    "query leaked into adaptation": Answer(
        cells={
            "query-loss": QUERY
            + """\
    x, y = (torch.cat(pair) for pair in zip(support, query))

    def loss(weights, x, y):
        return 0.5 * (x @ weights["w"] - y).square().sum()

    own = inner_loop(lambda weights: loss(weights, x, y), theta_0, alpha, steps)
    return loss(own, *query)
"""
        },
        loses=("part-4",),
        says="leaked",
    ),
}

UNUSUAL = {
    "torch.func.grad and functional code": Answer(
        cells={
            "inner-update": """\
def inner_update(loss, weights, alpha):
    slope = torch.func.grad(loss)(weights)
    return {name: weights[name] - alpha * slope[name] for name in weights}
""",
            "adapt-all": """\
def adapt_all(phi, rest, theta_0, alpha, steps):
    def one(x, y):
        f = lambda w: 0.5 * (x @ w - y).square().sum()
        w = theta_0
        for _ in range(steps):
            w = w - alpha * torch.func.grad(f)(w)
        return w
    return torch.func.vmap(one)(phi, rest)
""",
        }
    ),
    "a class, and a recursion": Answer(
        cells={
            "inner-update": """\
class Step:
    def __call__(self, loss, weights, alpha):
        names, values = zip(*weights.items())
        slopes = torch.autograd.grad(loss(weights), values, create_graph=True)
        return dict(zip(names, (v - alpha * s for v, s in zip(values, slopes))))


inner_update = Step()
""",
            "inner-loop": """\
def inner_loop(loss, weights, alpha, steps):
    if steps == 0:
        return weights
    return inner_loop(loss, inner_update(loss, weights, alpha), alpha, steps - 1)
""",
        }
    ),
    "closed form of the steps": Answer(
        cells={
            "adapt-all": """\
def adapt_all(phi, rest, theta_0, alpha, steps):
    gram, target = phi.mT @ phi, phi.mT @ rest[..., None]
    shrink = torch.eye(len(theta_0)) - alpha * gram
    w = theta_0[:, None].expand(len(phi), -1, 1)
    for _ in range(steps):
        w = shrink @ w + alpha * target
    return w.squeeze(-1)
""",
            "query-loss": """\
def query_loss(theta_0, support, query, alpha, steps):
    (x, y), (xq, yq) = support, query
    w = theta_0["w"]
    for _ in range(steps):
        w = w - alpha * (x.T @ (x @ w) - x.T @ y)
    return torch.nn.functional.mse_loss(xq @ w, yq, reduction="sum") / 2
""",
        }
    ),
    "a loop over users": Answer(
        cells={
            "adapt-all": """\
def adapt_all(phi, rest, theta_0, alpha, steps):
    rows = []
    for user in range(phi.shape[0]):
        f = lambda weights: 0.5 * ((phi[user] @ weights["w"] - rest[user]) ** 2).sum()
        start = {"w": theta_0 if theta_0.requires_grad else theta_0.requires_grad_()}
        rows.append(inner_loop(f, start, alpha, steps)["w"])
    return torch.stack(rows)
""",
        }
    ),
}
