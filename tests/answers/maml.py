"""Answers to the assignment on MAML and Meta-SGD."""

from answers import Answer

LOSS = "def maml_loss(loss, theta_0, tasks, alpha, steps):\n"
FIRST = "def first_order_gradient(loss, theta_0, tasks, alpha, steps):\n"
STEP = "def meta_step(model, optimizer, loss, tasks, alpha, steps):\n"
TRAIN = "def meta_train(model, loss, batches, alpha, steps, learning_rate):\n"
EVALUATE = "def evaluate(model, loss, tasks, alpha, steps):\n"

TRAIN_RIGHT = (
    TRAIN
    + """\
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    return [meta_step(model, optimizer, loss, b, alpha, steps) for b in batches]
"""
)
EVALUATE_RIGHT = (
    EVALUATE
    + """\
    return float(maml_loss(loss, dict(model.named_parameters()), tasks, alpha, steps))
"""
)

WRONG = {
    # Part 1.
    "no create_graph": Answer(
        edits={"maml-loss": (", create_graph=True", "")},
        loses=("part-1",),
        says="first-order",
    ),
    "update in place": Answer(
        cells={
            "maml-loss": LOSS
            + """\
    total = 0.0
    for support, query in tasks:
        weights = theta_0
        for _ in range(steps):
            gradient = torch.autograd.grad(
                loss(weights, *support), list(weights.values())
            )
            with torch.no_grad():
                for w, g in zip(weights.values(), gradient):
                    w -= alpha * g
        total = total + loss(weights, *query)
    return total / len(tasks)
"""
        },
        loses=("part-1",),
        says="changed in place",
    ),
    "update in place of a copy": Answer(
        cells={
            "maml-loss": LOSS
            + """\
    total = 0.0
    for support, query in tasks:
        weights = {name: w.clone() for name, w in theta_0.items()}
        for _ in range(steps):
            gradient = torch.autograd.grad(
                loss(weights, *support), list(weights.values()), create_graph=True
            )
            for w, g in zip(weights.values(), gradient):
                w -= alpha * g
        total = total + loss(weights, *query)
    return total / len(tasks)
"""
        },
        loses=("part-1",),
        says="in place, and autograd refuses",
    ),
    "the dictionary itself": Answer(
        cells={
            "maml-loss": LOSS
            + """\
    total = 0.0
    for support, query in tasks:
        weights = theta_0
        for _ in range(steps):
            gradient = torch.autograd.grad(
                loss(weights, *support), list(weights.values()), create_graph=True
            )
            for name, g in zip(list(weights), gradient):
                weights[name] = weights[name] - alpha * g
        total = total + loss(weights, *query)
    return total / len(tasks)
"""
        },
        loses=("part-1",),
        says="dictionary theta_0 itself",
    ),
    "detached copy": Answer(
        edits={
            "maml-loss": (
                "weights = dict(theta_0)",
                "weights = {n: w.detach().clone().requires_grad_() "
                "for n, w in theta_0.items()}",
            )
        },
        loses=("part-1",),
        says="detached copy",
    ),
    "support loss as meta-loss": Answer(
        edits={"maml-loss": ("loss(weights, *query)", "loss(weights, *support)")},
        loses=("part-1",),
        says="support loss was taken as the meta-loss",
    ),
    "query at the unadapted weights": Answer(
        edits={"maml-loss": ("loss(weights, *query)", "loss(theta_0, *query)")},
        loses=("part-1",),
        says="unadapted weights",
    ),
    "query leaked into adaptation": Answer(
        edits={
            "maml-loss": (
                "        weights = dict(theta_0)",
                "        support = [torch.cat(pair) for pair in zip(support, query)]\n"
                "        weights = dict(theta_0)",
            )
        },
        loses=("part-1",),
        says="leaked into the adaptation",
    ),
    "adapted on the query": Answer(
        edits={"maml-loss": ("loss(weights, *support)", "loss(weights, *query)")},
        loses=("part-1",),
        says="leaked into the adaptation",
    ),
    "backward in the inner loop": Answer(
        cells={
            "maml-loss": LOSS
            + """\
    total = 0.0
    for support, query in tasks:
        weights = dict(theta_0)
        for _ in range(steps):
            loss(weights, *support).backward(create_graph=True)
            weights = {name: w - alpha * w.grad for name, w in weights.items()}
        total = total + loss(weights, *query)
    return total / len(tasks)
"""
        },
        loses=("part-1",),
        says="`.backward\\(\\)` wrote into",
    ),
    "backward in the inner loop, with retain_grad": Answer(
        cells={
            "maml-loss": LOSS
            + """\
    total = 0.0
    for support, query in tasks:
        weights = dict(theta_0)
        for _ in range(steps):
            for w in weights.values():
                w.retain_grad()
                w.grad = None
            loss(weights, *support).backward(create_graph=True)
            weights = {name: w - alpha * w.grad for name, w in weights.items()}
        total = total + loss(weights, *query)
    return total / len(tasks)
"""
        },
        loses=("part-1",),
        says="`.backward\\(\\)` wrote into",
    ),
    "bias left out of the fast weights": Answer(
        edits={
            "maml-loss": (
                "name: w - alpha * g",
                'name: w if "bias" in name else w - alpha * g',
            )
        },
        loses=("part-1",),
        says="biases were left out",
    ),
    "adapted state carried to the next task": Answer(
        edits={
            "maml-loss": (
                "    for support, query in tasks:\n        weights = dict(theta_0)\n",
                "    weights = dict(theta_0)\n    for support, query in tasks:\n",
            )
        },
        loses=("part-1",),
        says="every task starts\\s+from theta_0",
    ),
    "every inner gradient at theta_0": Answer(
        edits={
            "maml-loss": (
                "loss(weights, *support), list(weights.values())",
                "loss(theta_0, *support), list(theta_0.values())",
            )
        },
        loses=("part-1",),
        says="every inner gradient was taken at theta_0",
    ),
    "sum over tasks": Answer(
        edits={"maml-loss": ("return total / len(tasks)", "return total")},
        loses=("part-1",),
        says="sum over the tasks in place of their mean",
    ),
    "mean over the support": Answer(
        edits={
            "maml-loss": (
                "loss(weights, *support), ",
                "loss(weights, *support) / max(1, len(support[1])), ",
            )
        },
        loses=("part-1",),
        says="a mean where `loss` has a sum",
    ),
    "mean over the query": Answer(
        edits={
            "maml-loss": (
                "loss(weights, *query)",
                "loss(weights, *query) / len(query[1])",
            )
        },
        loses=("part-1",),
        says="a mean where `loss` has a sum",
    ),
    "sign error": Answer(
        edits={"maml-loss": ("w - alpha * g", "w + alpha * g")},
        loses=("part-1",),
        says="uphill",
    ),
    "only the last task": Answer(
        edits={
            "maml-loss": (
                "total = total + loss(weights, *query)",
                "total = loss(weights, *query)",
            )
        },
        loses=("part-1",),
        says="only the last task",
    ),
    "a number without a path": Answer(
        edits={
            "maml-loss": (
                "return total / len(tasks)",
                "return total.item() / len(tasks)",
            )
        },
        loses=("part-1",),
        says="has no gradient",
    ),
    # Part 2.
    "first order: the second-order gradient": Answer(
        cells={
            "first-order": FIRST
            + """\
    value = maml_loss(loss, theta_0, tasks, alpha, steps)
    return dict(zip(theta_0, torch.autograd.grad(value, list(theta_0.values()))))
"""
        },
        loses=("part-2",),
        says="this is the second-order",
    ),
    "first order: sum over tasks": Answer(
        edits={"first-order": ("g / len(tasks)", "g")},
        loses=("part-2",),
        says="sum over the tasks",
    ),
    "first order: support gradient": Answer(
        edits={"first-order": ("loss(weights, *query)", "loss(weights, *support)")},
        loses=("part-2",),
        says="gradient of the support loss",
    ),
    "first order: query gradient at theta_0": Answer(
        edits={
            "first-order": (
                "gradient = torch.autograd.grad(loss(weights, *query), "
                "list(weights.values()))",
                "gradient = torch.autograd.grad(loss(theta_0, *query), "
                "list(theta_0.values()))",
            )
        },
        loses=("part-2",),
        says="query gradient was taken at theta_0",
    ),
    "first order: the step in place of the gradient": Answer(
        edits={"first-order": ("+= g /", "-= g /")},
        loses=("part-2",),
        says="sign is turned",
    ),
    "first order: Reptile": Answer(
        edits={
            "first-order": (
                "for name, g in zip(theta_0, gradient, strict=True):\n"
                "            total[name] += g / len(tasks)",
                "for name in theta_0:\n"
                "            total[name] += "
                "(theta_0[name] - weights[name]).detach() / len(tasks)",
            )
        },
        loses=("part-2",),
        says="Reptile",
    ),
    "first order: backward into theta_0": Answer(
        cells={
            "first-order": FIRST
            + """\
    for support, query in tasks:
        weights = dict(theta_0)
        for _ in range(steps):
            gradient = torch.autograd.grad(
                loss(weights, *support), list(weights.values())
            )
            weights = {n: w - alpha * g for (n, w), g in zip(weights.items(), gradient)}
        (loss(weights, *query) / len(tasks)).backward()
    return {n: w.grad for n, w in theta_0.items()}
"""
        },
        loses=("part-2",),
        says="`.grad` of theta_0",
    ),
    "first order: adapted state carried": Answer(
        edits={
            "first-order": (
                "    for support, query in tasks:\n"
                "        weights = {n: w.detach().clone().requires_grad_() "
                "for n, w in theta_0.items()}\n",
                "    weights = {n: w.detach().clone().requires_grad_() "
                "for n, w in theta_0.items()}\n"
                "    for support, query in tasks:\n",
            )
        },
        loses=("part-2",),
        says="every task starts\\s+from theta_0",
    ),
    # Part 3.
    "stale gradients": Answer(
        edits={"meta-step": ("    optimizer.zero_grad()\n", "")},
        loses=("part-3",),
        says="earlier step were still in `.grad`",
    ),
    "zero_grad after backward": Answer(
        cells={
            "meta-step": STEP
            + """\
    value = maml_loss(loss, dict(model.named_parameters()), tasks, alpha, steps)
    value.backward()
    optimizer.zero_grad()
    optimizer.step()
    return value.item()
"""
        },
        loses=("part-3",),
        says="did not move",
    ),
    "no step": Answer(
        edits={"meta-step": ("    optimizer.step()\n", "")},
        loses=("part-3",),
        says="did not move",
    ),
    "copies of the parameters": Answer(
        edits={
            "meta-step": (
                "dict(model.named_parameters())",
                "{n: p.detach().clone().requires_grad_() "
                "for n, p in model.named_parameters()}",
            )
        },
        loses=("part-3",),
        says="did not move",
    ),
    "the meta-loss is maximised": Answer(
        edits={"meta-step": ("value.backward()", "(-value).backward()")},
        loses=("part-3",),
        says="moved uphill",
    ),
    "adapted state leaks into the model": Answer(
        cells={
            "meta-step": STEP
            + """\
    optimizer.zero_grad()
    value = maml_loss(loss, dict(model.named_parameters()), tasks, alpha, steps)
    value.backward()
    weights = dict(model.named_parameters())
    for _ in range(steps):
        gradient = torch.autograd.grad(
            loss(weights, *tasks[-1][0]), list(weights.values())
        )
        weights = {n: w - alpha * g for (n, w), g in zip(weights.items(), gradient)}
    optimizer.step()
    model.load_state_dict(weights)
    return value.item()
"""
        },
        loses=("part-3",),
        says="leaked into the model",
    ),
    "the meta-loss after the step": Answer(
        edits={
            "meta-step": (
                "return value.item()",
                "return evaluate(model, loss, tasks, alpha, steps)",
            )
        },
        loses=("part-3",),
        says="meta-loss after the step",
    ),
    "an Adam for each meta-batch": Answer(
        cells={
            "meta-train": TRAIN
            + """\
    values = []
    for b in batches:
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
        values.append(meta_step(model, optimizer, loss, b, alpha, steps))
    return values


"""
            + EVALUATE_RIGHT
        },
        loses=("part-3",),
        says="an Adam of its own",
    ),
    "evaluation that adapts the model": Answer(
        cells={
            "meta-train": TRAIN_RIGHT
            + "\n\n"
            + EVALUATE
            + """\
    total = 0.0
    inner = torch.optim.SGD(model.parameters(), lr=alpha)
    for support, query in tasks:
        for _ in range(steps):
            inner.zero_grad()
            loss(dict(model.named_parameters()), *support).backward()
            inner.step()
        total += loss(dict(model.named_parameters()), *query).item()
    return total / len(tasks)
"""
        },
        loses=("part-3",),
        says="evaluation changed the model's\\s+parameter",
    ),
    "evaluation that pollutes the gradients": Answer(
        edits={
            "meta-train": (
                "return maml_loss(loss, theta_0, tasks, alpha, steps).item()",
                "value = maml_loss(loss, theta_0, tasks, alpha, steps)\n"
                "    value.backward()\n"
                "    return value.item()",
            )
        },
        loses=("part-3",),
        says="evaluation changed the model's\\s+`.grad`",
    ),
    # Part 4.
    "rates not learned": Answer(
        edits={"meta-sgd": ("log_rates[name].exp()", "log_rates[name].detach().exp()")},
        loses=("part-4",),
        says="the rates get no gradient",
    ),
    "rates that no optimiser can learn": Answer(
        edits={"meta-sgd": (".log().requires_grad_()", ".log().detach()")},
        loses=("part-4",),
        says="do not require a gradient",
    ),
    "logarithms as rates": Answer(
        edits={"meta-sgd": ("log_rates[name].exp()", "log_rates[name]")},
        loses=("part-4",),
        says="logarithms of the rates were used as rates",
    ),
    "rates in place of their logarithms": Answer(
        edits={"meta-sgd": (".log().requires_grad_()", ".detach().requires_grad_()")},
        loses=("part-4",),
        says="these are the rates themselves",
    ),
    "one rate for a tensor, at the start": Answer(
        edits={"meta-sgd": ("torch.full_like(w, alpha)", "torch.tensor(float(alpha))")},
        loses=("part-4",),
        says="shape of the\\s+weights",
    ),
    "one rate for a tensor, in the step": Answer(
        edits={
            "meta-sgd": (
                "log_rates[name].exp() * g",
                "log_rates[name].exp().mean() * g",
            )
        },
        loses=("part-4",),
        says="one rate was used for a whole tensor",
    ),
    "Meta-SGD of first order": Answer(
        edits={"meta-sgd": (", create_graph=True", "")},
        loses=("part-4",),
        says="first-order",
    ),
    "Meta-SGD that goes uphill": Answer(
        edits={"meta-sgd": ("w - log_rates", "w + log_rates")},
        loses=("part-4",),
        says="uphill",
    ),
    "Meta-SGD with a sum over tasks": Answer(
        edits={"meta-sgd": ("return total / len(tasks)", "return total")},
        loses=("part-4",),
        says="sum over the tasks",
    ),
}

UNUSUAL = {
    "torch.func.grad, and vmap over tasks of one size": Answer(
        cells={
            "maml-loss": """\
def maml_loss(loss, theta_0, tasks, alpha, steps):
    def one_task(x, y, x_query, y_query):
        own = theta_0
        for _ in range(steps):
            slope = torch.func.grad(loss)(own, x, y)
            own = {n: own[n] - alpha * slope[n] for n in own}
        return loss(own, x_query, y_query)

    groups = {}
    for (x, y), (x_query, y_query) in tasks:
        group = groups.setdefault((len(y), len(y_query)), [])
        group.append((x, y, x_query, y_query))
    losses = [
        torch.func.vmap(one_task)(*map(torch.stack, zip(*group)))
        for group in groups.values()
    ]
    return torch.cat(losses).mean()
""",
            "meta-sgd": """\
def log_rates_like(theta_0, alpha):
    with torch.no_grad():
        rates = {n: 0 * w + torch.tensor(alpha).log() for n, w in theta_0.items()}
    return {n: torch.nn.Parameter(a) for n, a in rates.items()}


def meta_sgd_loss(loss, theta_0, log_rates, tasks, steps):
    def step(own, task):
        slope = torch.func.grad(loss)(own, *task[0])
        return {n: torch.addcmul(own[n], -log_rates[n].exp(), slope[n]) for n in own}

    losses = []
    for task in tasks:
        own = theta_0
        for _ in range(steps):
            own = step(own, task)
        losses.append(loss(own, *task[1]))
    return sum(losses) / len(losses)
""",
        }
    ),
    "a class, and a recursion": Answer(
        cells={
            "maml-loss": """\
class MetaLoss:
    def adapt(self, loss, weights, support, alpha, steps):
        if steps == 0:
            return weights
        values = tuple(weights.values())
        slopes = torch.autograd.grad(loss(weights, *support), values, create_graph=True)
        moved = (v - alpha * s for v, s in zip(values, slopes))
        return self.adapt(loss, dict(zip(weights, moved)), support, alpha, steps - 1)

    def __call__(self, loss, theta_0, tasks, alpha, steps):
        return torch.stack(
            [loss(self.adapt(loss, theta_0, s, alpha, steps), *q) for s, q in tasks]
        ).mean()


maml_loss = MetaLoss()
""",
            "meta-step": STEP
            + """\
    def closure():
        model.zero_grad(set_to_none=False)
        value = maml_loss(loss, dict(model.named_parameters()), tasks, alpha, steps)
        value.backward()
        return value
    return optimizer.step(closure)
""",
        }
    ),
    "first order by backward on copies": Answer(
        cells={
            "first-order": FIRST
            + """\
    names, total = list(theta_0), None
    for support, query in tasks:
        copy = {n: torch.nn.Parameter(theta_0[n].detach().clone()) for n in names}
        inner = torch.optim.SGD(copy.values(), lr=alpha)
        for _ in range(steps):
            inner.zero_grad()
            loss(copy, *support).backward()
            inner.step()
        inner.zero_grad()
        loss(copy, *query).backward()
        found = [copy[n].grad for n in names]
        total = found if total is None else [a + b for a, b in zip(total, found)]
    return {n: g / len(tasks) for n, g in zip(names, total)}
""",
        }
    ),
    "first order as MAML with constants": Answer(
        cells={
            "first-order": FIRST
            + """\
    def meta(theta):
        losses = []
        for support, query in tasks:
            own = theta
            for _ in range(steps):
                slope = torch.func.grad(loss)(own, *support)
                own = {n: own[n] - alpha * slope[n].detach() for n in own}
            losses.append(loss(own, *query))
        return torch.stack(losses).mean()
    value = meta(theta_0)
    return dict(zip(theta_0, torch.autograd.grad(value, theta_0.values())))
""",
            "meta-train": """\
def meta_train(model, loss, batches, alpha, steps, learning_rate):
    adam = torch.optim.Adam(model.parameters(), learning_rate)
    history = []
    for batch in batches:
        value = maml_loss(loss, dict(model.named_parameters()), batch, alpha, steps)
        slopes = torch.autograd.grad(value, list(model.parameters()))
        for p, g in zip(model.parameters(), slopes):
            p.grad = g
        adam.step()
        history.append(value.detach())
    return torch.stack(history)


def evaluate(model, loss, tasks, alpha, steps):
    import copy
    twin = copy.deepcopy(model)
    theta_0 = {n: p.requires_grad_() for n, p in twin.named_parameters()}
    return maml_loss(loss, theta_0, tasks, alpha, steps).detach().numpy()
""",
        }
    ),
    "one vector of weights": Answer(
        cells={
            "maml-loss": """\
def maml_loss(loss, theta_0, tasks, alpha, steps):
    shapes = {n: w.shape for n, w in theta_0.items()}
    start = torch.cat([w.reshape(-1) for w in theta_0.values()])

    def named(vector):
        parts = vector.split([s.numel() for s in shapes.values()])
        return {n: p.view(s) for (n, s), p in zip(shapes.items(), parts)}

    def one(support, query):
        vector = start
        for _ in range(steps):
            value = loss(named(vector), *support)
            vector = vector - alpha * torch.autograd.grad(
                value, vector, create_graph=True
            )[0]
        return loss(named(vector), *query)

    weight = torch.full((len(tasks),), 1 / len(tasks))
    return torch.einsum("t,t->", weight, torch.stack([one(*t) for t in tasks]))
""",
            "meta-sgd": """\
def log_rates_like(theta_0, alpha):
    import math
    return {
        n: torch.full(w.shape, math.log(alpha), dtype=w.dtype, requires_grad=True)
        for n, w in theta_0.items()
    }


def meta_sgd_loss(loss, theta_0, log_rates, tasks, steps):
    rates = {n: torch.exp(a) for n, a in log_rates.items()}
    return maml_loss_with(loss, theta_0, tasks, rates, steps)


def maml_loss_with(loss, theta_0, tasks, rates, steps):
    def adapt(own, support, left):
        if not left:
            return own
        slope = torch.func.grad(loss)(own, *support)
        own = {n: own[n] - torch.mul(rates[n], slope[n]) for n in own}
        return adapt(own, support, left - 1)

    return sum(loss(adapt(theta_0, s, steps), *q) / len(tasks) for s, q in tasks)
""",
        }
    ),
}
