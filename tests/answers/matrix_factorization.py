"""Answers to the assignment on matrix factorisation."""

from answers import Answer

SCORE = "def predict(model, users, items):\n"
RMSE = "def rmse(batches):\n"
LOSS = "def objective(model, users, items, ratings, penalty):\n"
STEP = "def sgd_step(model, users, items, ratings, penalty, rate):\n"
FOLD = "def fold_in(phi, rest, penalty, prior):\n"
ALL = "def fold_in_all(phi, rest, mask, penalty, prior):\n"
TOP = "def top_n(scores, seen, n):\n"

WRONG = {
    "a table of all pairs": Answer(
        edits={"predict": ("(p * q).sum(-1)", "(p * q).sum(-1, keepdim=True)")},
        loses=("part-1",),
        says=r"\(N,\) met \(N, 1\)",
    ),
    "a matrix product of all users and films": Answer(
        edits={"predict": ("(p * q).sum(-1)", "p @ q.T")},
        loses=("part-1",),
        says="table of every pair",
    ),
    "user and film swapped": Answer(
        cells={
            "predict": SCORE
            + """\
    p, q = model["user_factors"][items], model["item_factors"][users]
    bias = model["user_bias"][items] + model["item_bias"][users]
    return model["mean"] + bias + (p * q).sum(-1)
"""
        },
        loses=("part-1",),
        says="swapped",
    ),
    "mean left out": Answer(
        edits={"predict": ('model["mean"] + bias', "bias")},
        loses=("part-1",),
        says="mean is missing",
    ),
    "film's bias left out": Answer(
        edits={"predict": (' + model["item_bias"][items]', "")},
        loses=("part-1",),
        says="film's bias is missing",
    ),
    "products summed over the batch": Answer(
        edits={"predict": ("(p * q).sum(-1)", "(p * q).sum()")},
        loses=("part-1",),
        says="summed over all pairs",
    ),
    "RMSE averaged over batches": Answer(
        cells={
            "rmse": RMSE
            + """\
    roots = [((p - r) ** 2).mean().sqrt() for p, r in batches]
    return sum(roots) / len(roots)
"""
        },
        loses=("part-2",),
        says="averaged over batches",
    ),
    "MSE averaged over batches": Answer(
        cells={
            "rmse": RMSE
            + """\
    return torch.stack([((p - r) ** 2).mean() for p, r in batches]).mean().sqrt()
"""
        },
        loses=("part-2",),
        says="short batch counts more",
    ),
    "no root": Answer(
        edits={"rmse": (" ** 0.5", "")},
        loses=("part-2",),
        says="take its root",
    ),
    "biases not regularised": Answer(
        cells={
            "objective": LOSS
            + """\
    error = ratings - predict(model, users, items)
    p, q = model["user_factors"][users], model["item_factors"][items]
    return (error**2).sum() + penalty * ((p**2).sum() + (q**2).sum())
"""
        },
        loses=("part-3",),
        says="biases are not regularised",
    ),
    "mean in place of sum": Answer(
        edits={"objective": ("size).sum()", "size).mean()")},
        loses=("part-3",),
        says="mean over the ratings",
    ),
    "a column of scores against a row of ratings": Answer(
        edits={
            "objective": (
                "error = ratings - predict(model, users, items)",
                "error = ratings - predict(model, users, items)[:, None]",
            )
        },
        loses=("part-3",),
        says="each of the N scores was compared with each",
    ),
    "whole tables penalised": Answer(
        cells={
            "objective": LOSS
            + """\
    error = ratings - predict(model, users, items)
    tables = [value for name, value in model.items() if name != "mean"]
    return (error**2).sum() + penalty * sum((table**2).sum() for table in tables)
"""
        },
        loses=("part-3",),
        says="whole tables",
    ),
    "step uphill": Answer(
        edits={"sgd-step": ("alpha=-rate", "alpha=rate")},
        loses=("part-4",),
        says="uphill",
    ),
    "sign of the error": Answer(
        edits={"sgd-step": ("-2 * e", "2 * e")},
        loses=("part-4",),
        says="error's part of the gradient has the wrong sign",
    ),
    "mean trained along": Answer(
        cells={
            "sgd-step": STEP
            + """\
    own = {name: value.clone().requires_grad_() for name, value in model.items()}
    j = objective(own, users, items, ratings, penalty)
    slopes = torch.autograd.grad(j, list(own.values()))
    return {name: own[name] - rate * g for name, g in zip(own, slopes)}
"""
        },
        loses=("part-4",),
        says="mean moved",
    ),
    "biases not regularised in the step": Answer(
        edits={"sgd-step": (" + 2 * penalty * b_", " + 0 * b_")},
        loses=("part-4",),
        says="biases are not regularised",
    ),
    "one side in place before the other": Answer(
        cells={
            "sgd-step": STEP
            + """\
    new = {name: value.clone() for name, value in model.items()}
    e = ratings - predict(new, users, items)
    for name, rows, other, others in (
        ("user_factors", users, "item_factors", items),
        ("item_factors", items, "user_factors", users),
    ):
        each = -2 * e[:, None] * new[other][others] + 2 * penalty * new[name][rows]
        new[name].index_add_(0, rows, each, alpha=-rate)
    for name, rows in (("user_bias", users), ("item_bias", items)):
        each = -2 * e + 2 * penalty * new[name][rows]
        new[name].index_add_(0, rows, each, alpha=-rate)
    return new
"""
        },
        loses=("part-4",),
        says="one side was updated before",
    ),
    "the given model changed": Answer(
        edits={"sgd-step": (".index_add(0", ".index_add_(0")},
        loses=("part-4",),
        says="changed in place",
    ),
    "several ratings of a user, one of them counted": Answer(
        edits={
            "sgd-step": (
                "new[name] = model[name].index_add(0, rows, each, alpha=-rate)",
                "new[name] = model[name].clone(); new[name][rows] -= rate * each",
            )
        },
        loses=("part-4",),
        says="index_add",
    ),
    "step on the mean of the batch": Answer(
        edits={"sgd-step": ("alpha=-rate", "alpha=-rate / len(users)")},
        loses=("part-4",),
        says="mean over the batch",
    ),
    "rating after rating": Answer(
        cells={
            "sgd-step": STEP
            + """\
    new = {name: value.clone() for name, value in model.items()}
    for u, i, r in zip(users.tolist(), items.tolist(), ratings.tolist()):
        p, q = new["user_factors"][u].clone(), new["item_factors"][i].clone()
        b_u, b_i = new["user_bias"][u].clone(), new["item_bias"][i].clone()
        e = r - (new["mean"] + b_u + b_i + p @ q)
        new["user_bias"][u] += 2 * rate * (e - penalty * b_u)
        new["item_bias"][i] += 2 * rate * (e - penalty * b_i)
        new["user_factors"][u] += 2 * rate * (e * q - penalty * p)
        new["item_factors"][i] += 2 * rate * (e * p - penalty * q)
    return new
"""
        },
        loses=("part-4",),
        says="one after the other",
    ),
    "factor 2 left out": Answer(
        edits={"sgd-step": ("alpha=-rate", "alpha=-rate / 2")},
        loses=("part-4",),
        says="factor 2",
    ),
    "lambda forgotten": Answer(
        edits={"fold-in": (" + torch.diag(penalty)", "")},
        loses=("part-5",),
        says="lambda is missing",
    ),
    "lambda for each rating": Answer(
        edits={"fold-in": ("torch.diag(penalty)", "len(phi) * torch.diag(penalty)")},
        loses=("part-5",),
        says="once for each rating|singular",
    ),
    "lambda everywhere by broadcasting": Answer(
        edits={"fold-in": ("torch.diag(penalty)", "penalty")},
        loses=("part-5",),
        says="diagonal alone",
    ),
    "prior forgotten": Answer(
        cells={
            "fold-in": FOLD
            + """\
    return torch.linalg.solve(phi.T @ phi + torch.diag(penalty), phi.T @ rest)
"""
        },
        loses=("part-5",),
        says="prior mean was forgotten",
    ),
    "prior added on top": Answer(
        edits={"fold-in": ("phi.T @ (rest - phi @ prior)", "phi.T @ rest")},
        loses=("part-5",),
        says="had not been measured from it",
    ),
    "mask forgotten": Answer(
        edits={"fold-in-all": ("phi * mask[..., None]", "phi")},
        loses=("part-6",),
        says="padding counts",
    ),
    "only the residuals masked": Answer(
        cells={
            "fold-in-all": ALL
            + """\
    e = (rest - phi @ prior) * mask
    precision = phi.mT @ phi + torch.diag(penalty)
    return prior + torch.linalg.solve(precision, (phi.mT @ e[..., None])[..., 0])
"""
        },
        loses=("part-6",),
        says="masking the residuals alone",
    ),
    "lambda for each rating, all users": Answer(
        edits={
            "fold-in-all": (
                "torch.diag(penalty)",
                "mask.sum(1)[:, None, None].clamp(min=1) * torch.diag(penalty)",
            )
        },
        loses=("part-6",),
        says="once for each rating",
    ),
    "one regression for all users": Answer(
        cells={
            "fold-in-all": ALL
            + """\
    return fold_in(phi[mask], rest[mask], penalty, prior).expand(len(phi), -1)
"""
        },
        loses=("part-6",),
        says="of\\s+their own|without ratings",
    ),
    "the head of the user before as prior": Answer(
        cells={
            "fold-in-all": ALL
            + """\
    heads = []
    for x, y, own in zip(phi, rest, mask):
        prior = fold_in(x[own], y[own], penalty, prior)
        heads.append(prior)
    return torch.stack(heads)
"""
        },
        loses=("part-6",),
        says="head of the user before",
    ),
    "seen films recommended": Answer(
        cells={
            "top-n": TOP
            + """\
    return torch.sort(scores, descending=True, stable=True).indices[:n]
"""
        },
        loses=("part-7",),
        says="never recommended",
    ),
    "seen films at the end": Answer(
        cells={
            "top-n": TOP
            + """\
    own = scores.clone()
    own[seen] = -torch.inf
    return torch.sort(own, descending=True, stable=True).indices[:n]
"""
        },
        loses=("part-7",),
        says="never recommended",
    ),
    "positions among the unseen": Answer(
        edits={"top-n": ("films[order[:n]]", "order[:n]")},
        loses=("part-7",),
        says="positions among the unseen",
    ),
    "lowest first": Answer(
        edits={"top-n": ("descending=True", "descending=False")},
        loses=("part-7",),
        says="best first",
    ),
    "ties by the higher index": Answer(
        cells={
            "top-n": TOP
            + """\
    seen = set(seen.tolist())
    films = [i for i in range(len(scores)) if i not in seen]
    return sorted(films, key=lambda i: (scores[i].item(), i), reverse=True)[:n]
"""
        },
        loses=("part-7",),
        says="lower index",
    ),
    "scores overwritten": Answer(
        cells={
            "top-n": TOP
            + """\
    left = min(n, len(scores) - len(seen))
    scores[seen] = -torch.inf
    return torch.sort(scores, descending=True, stable=True).indices[:left]
"""
        },
        loses=("part-7",),
        says="`scores` was changed",
    ),
}

UNUSUAL = {
    "einsum, autograd and least squares": Answer(
        cells={
            "predict": SCORE
            + """\
    dots = torch.einsum("nd,nd->n", model["user_factors"][users],
                        model["item_factors"][items])
    return dots + model["mean"] + model["user_bias"][users] + model["item_bias"][items]
""",
            "rmse": RMSE
            + """\
    predictions, ratings = map(torch.cat, zip(*batches))
    return torch.nn.functional.mse_loss(predictions, ratings).sqrt()
""",
            "sgd-step": STEP
            + """\
    names = [name for name in model if name != "mean"]
    own = {name: value.detach().clone() for name, value in model.items()}
    for name in names:
        own[name].requires_grad_()
    j = objective(own, users, items, ratings, penalty)
    slopes = torch.autograd.grad(j, [own[name] for name in names])
    new = {name: own[name] - rate * g for name, g in zip(names, slopes)}
    return {"mean": model["mean"]} | new
""",
            "fold-in": FOLD
            + """\
    rows = torch.cat([phi, penalty.sqrt().diag()])
    target = torch.cat([rest, penalty.sqrt() * prior])
    return torch.linalg.lstsq(rows, target).solution
""",
            "top-n": TOP
            + """\
    own = scores.clone()
    own[seen] = -torch.inf
    order = torch.argsort(own, descending=True, stable=True)
    return order[: min(n, len(scores) - len(seen))]
""",
        }
    ),
    "loops and lists": Answer(
        cells={
            "predict": SCORE
            + """\
    score = []
    for u, i in zip(users, items):
        p, q = model["user_factors"][u], model["item_factors"][i]
        total = model["mean"] + model["user_bias"][u] + model["item_bias"][i]
        for a, b in zip(p, q):
            total = total + a * b
        score.append(float(total))
    return score
""",
            "rmse": RMSE
            + """\
    total, number = 0.0, 0
    for prediction, rating in batches:
        for p, r in zip(prediction.tolist(), rating.tolist()):
            total, number = total + (p - r) ** 2, number + 1
    return (total / number) ** 0.5
""",
            "objective": LOSS
            + """\
    j = 0.0
    for u, i, r, s in zip(users, items, ratings, predict(model, users, items)):
        p, q = model["user_factors"][u], model["item_factors"][i]
        b = model["user_bias"][u] ** 2 + model["item_bias"][i] ** 2
        j += (r - s) ** 2 + penalty * (p @ p + q @ q + b)
    return float(j)
""",
            "sgd-step": STEP
            + """\
    new = {name: value.clone() for name, value in model.items()}
    for u, i, r in zip(users, items, ratings):
        p, q = model["user_factors"][u], model["item_factors"][i]
        b_u, b_i = model["user_bias"][u], model["item_bias"][i]
        e = r - (model["mean"] + b_u + b_i + p @ q)
        new["user_bias"][u] += 2 * rate * (e - penalty * b_u)
        new["item_bias"][i] += 2 * rate * (e - penalty * b_i)
        new["user_factors"][u] += 2 * rate * (e * q - penalty * p)
        new["item_factors"][i] += 2 * rate * (e * p - penalty * q)
    return new
""",
            "fold-in-all": ALL
            + """\
    heads = []
    for user in range(len(phi)):
        own = mask[user]
        heads.append(fold_in(phi[user][own], rest[user][own], penalty, prior))
    return torch.stack(heads)
""",
            "top-n": TOP
            + """\
    seen = {int(film) for film in seen}
    films = [film for film in range(len(scores)) if film not in seen]
    return sorted(films, key=lambda film: -float(scores[film]))[:n]
""",
        }
    ),
    "numpy": Answer(
        cells={
            "predict": """\
import numpy as np


def predict(model, users, items):
    m = {name: value.detach().numpy() for name, value in model.items()}
    u, i = users.numpy(), items.numpy()
    dot = np.sum(m["user_factors"][u] * m["item_factors"][i], axis=1)
    return m["mean"] + m["user_bias"][u] + m["item_bias"][i] + dot
""",
            "rmse": RMSE
            + """\
    errors = np.concatenate([(p - r).numpy() for p, r in batches])
    return np.sqrt(np.mean(errors**2))
""",
            "objective": LOSS
            + """\
    m = {name: value.numpy() for name, value in model.items()}
    error = ratings.numpy() - np.asarray(predict(model, users, items))
    size = sum(
        np.square(m[side + kind][rows]).sum()
        for side, rows in (("user", users.numpy()), ("item", items.numpy()))
        for kind in ("_bias", "_factors")
    )
    return np.square(error).sum() + penalty * size
""",
            "sgd-step": STEP
            + """\
    m = {name: np.array(value) for name, value in model.items()}
    u, i = users.numpy(), items.numpy()
    p, q = m["user_factors"], m["item_factors"]
    b_u, b_i = m["user_bias"], m["item_bias"]
    e = ratings.numpy() - np.asarray(predict(model, users, items))
    new = {name: value.copy() for name, value in m.items()}
    np.add.at(new["user_bias"], u, 2 * rate * (e - penalty * b_u[u]))
    np.add.at(new["item_bias"], i, 2 * rate * (e - penalty * b_i[i]))
    np.add.at(new["user_factors"], u, 2 * rate * (e[:, None] * q[i] - penalty * p[u]))
    np.add.at(new["item_factors"], i, 2 * rate * (e[:, None] * p[u] - penalty * q[i]))
    return {name: torch.as_tensor(value) for name, value in new.items()}
""",
            "fold-in": FOLD
            + """\
    phi, rest, penalty, prior = (x.numpy() for x in (phi, rest, penalty, prior))
    inverse = np.linalg.inv(phi.T @ phi + np.diag(penalty))
    return inverse @ (phi.T @ rest + penalty * prior)
""",
            "top-n": TOP
            + """\
    unseen = np.setdiff1d(np.arange(len(scores)), seen.numpy())
    order = np.argsort(-scores.numpy()[unseen], kind="stable")
    return unseen[order][:n]
""",
        }
    ),
    "a class, float32 and vmap": Answer(
        cells={
            "predict": """\
class Score:
    def __call__(self, model, users, items):
        def one(u, i):
            m = model
            dot = m["user_factors"][u] @ m["item_factors"][i]
            return m["mean"] + m["user_bias"][u] + m["item_bias"][i] + dot

        return torch.func.vmap(one)(users, items).float()


predict = Score()
""",
            "sgd-step": STEP
            + """\
    mean = {"mean": model["mean"]}

    def j(tables):
        return objective({**mean, **tables}, users, items, ratings, penalty)

    tables = {name: value for name, value in model.items() if name != "mean"}
    slope = torch.func.grad(j)(tables)
    return mean | {name: t - rate * slope[name] for name, t in tables.items()}
""",
            "fold-in-all": ALL
            + """\
    def one(phi, rest, mask):
        weight = mask.to(phi)
        precision = torch.diag(penalty) + (phi.T * weight) @ phi
        pull = (phi.T * weight) @ rest + penalty * prior
        return torch.linalg.solve(precision, pull)

    return torch.func.vmap(one)(phi, rest, mask)
""",
        }
    ),
    "one-hot matrices and Woodbury": Answer(
        cells={
            "sgd-step": STEP
            + """\
    n_users, n_items = len(model["user_bias"]), len(model["item_bias"])
    of_user = torch.nn.functional.one_hot(users, n_users).double().T
    of_item = torch.nn.functional.one_hot(items, n_items).double().T
    error = (ratings - predict(model, users, items)).double()
    table = of_user @ torch.diag(error) @ of_item.T
    count_u, count_i = of_user.sum(1), of_item.sum(1)
    p, q = model["user_factors"], model["item_factors"]
    shrink_u = 1 - 2 * rate * penalty * count_u
    shrink_i = 1 - 2 * rate * penalty * count_i
    return {
        "mean": model["mean"],
        "user_bias": shrink_u * model["user_bias"] + 2 * rate * table.sum(1),
        "item_bias": shrink_i * model["item_bias"] + 2 * rate * table.sum(0),
        "user_factors": shrink_u[:, None] * p + 2 * rate * table @ q,
        "item_factors": shrink_i[:, None] * q + 2 * rate * table.T @ p,
    }
""",
            "fold-in": FOLD
            + """\
    scaled = phi / penalty
    gain = scaled.T @ torch.linalg.inv(torch.eye(len(phi)) + scaled @ phi.T)
    return prior + gain @ (rest - phi @ prior)
""",
        }
    ),
}
