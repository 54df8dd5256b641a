"""Answers to the assignment on data and tasks."""

from answers import Answer

VOCABULARY = "def vocabulary(labels, train):\n"
ONE_HOT = "def one_hot(labels, index):\n"
SPLIT = "def split_users(order, fold, n_folds, n_validation):\n"
CUT = "def support_and_query(time, k, reserved):\n"
RMSE = "def rmse(prediction, rating):\n"
USER = "def user_rmse(prediction, rating, mask):\n"
MEAN = "def mean_user_rmse(batches):\n"
NDCG = "def ndcg(score, relevance, k):\n"
ITEM = "def item_mean(user, item, rating, train, n_items, shrinkage):\n"
COLD = "def cold_start_error(predict, histories, k, reserved=15):\n"

WRONG = {
    "map built from the test set": Answer(
        cells={
            "vocabulary": VOCABULARY
            + """\
    test = set(range(len(labels))) - set(train.tolist())
    return {word: n for n, word in enumerate(sorted({labels[u] for u in test}))}
"""
        },
        loses=("part-1",),
        says="built from the test\\s+users",
    ),
    "map built from all users": Answer(
        cells={
            "vocabulary": VOCABULARY
            + """\
    return {word: n for n, word in enumerate(sorted(set(labels)))}
"""
        },
        loses=("part-1",),
        says="a word of test users alone",
    ),
    "numbers of all users' words kept": Answer(
        cells={
            "vocabulary": VOCABULARY
            + """\
    every = {word: n for n, word in enumerate(sorted(set(labels)))}
    return {labels[u]: every[labels[u]] for u in train}
"""
        },
        loses=("part-1",),
        says="number what is left",
    ),
    "numbered as they come": Answer(
        cells={
            "vocabulary": VOCABULARY
            + """\
    words = dict.fromkeys(labels[u] for u in train)
    return {word: n for n, word in enumerate(words)}
"""
        },
        loses=("part-1",),
        says="do not follow the sorted words",
    ),
    "minus one for unknown": Answer(
        cells={
            "one-hot": ONE_HOT
            + """\
    rows = torch.zeros(len(labels), len(index))
    rows[torch.arange(len(labels)), [index.get(word, -1) for word in labels]] = 1
    return rows
"""
        },
        loses=("part-1",),
        says="given the last column",
    ),
    "validation users from the test run": Answer(
        edits={"split-users": ("rest[:n_validation]", "runs[fold][:n_validation]")},
        loses=("part-2",),
        says="in two parts, validation and test",
    ),
    "training users that choose": Answer(
        edits={"split-users": ("return rest[n_validation:]", "return rest")},
        loses=("part-2",),
        says="in two parts, train and validation",
    ),
    "a remainder in no fold": Answer(
        cells={
            "split-users": SPLIT
            + """\
    n = len(order) // n_folds
    test = order[fold * n : (fold + 1) * n]
    rest = torch.cat([order[: fold * n], order[(fold + 1) * n : n_folds * n]])
    return rest[n_validation:], rest[:n_validation], test
"""
        },
        loses=("part-2",),
        says="leave a\\s+remainder",
    ),
    "cut by number": Answer(
        edits={"split-users": ("tensor_split(order,", "tensor_split(order.sort()[0],")},
        loses=("part-2",),
        says="not in the random order",
    ),
    "query in support": Answer(
        edits={"support-and-query": ("order[reserved:]", "order")},
        loses=("part-2",),
        says="the\\s+answer is given away",
    ),
    "query that changes with K": Answer(
        edits={"support-and-query": ("order[reserved:]", "order[k:]")},
        loses=("part-2",),
        says="changes with K",
    ),
    "ties not in file order": Answer(
        edits={
            "support-and-query": (
                "torch.argsort(time, stable=True)",
                "torch.tensor(sorted(range(len(time)), key=lambda p: (time[p], -p)))",
            )
        },
        loses=("part-2",),
        says="do not stand in file order",
    ),
    "ties in numpy's order": Answer(
        edits={
            "support-and-query": (
                "torch.argsort(time, stable=True)",
                "torch.from_numpy(time.numpy().argsort(kind='heapsort'))",
            )
        },
        loses=("part-2",),
        says="do not stand in file order",
    ),
    "the latest ratings": Answer(
        edits={
            "support-and-query": ("stable=True", "stable=True, descending=True"),
        },
        loses=("part-2",),
        says="the support has the latest",
    ),
    "the file taken for sorted": Answer(
        edits={
            "support-and-query": (
                "torch.argsort(time, stable=True)",
                "torch.arange(len(time))",
            )
        },
        loses=("part-2",),
        says="stands first in the file",
    ),
    "a slice from the end": Answer(
        edits={
            "support-and-query": (
                "order[reserved:]",
                "order[-(len(time) - reserved) :]",
            )
        },
        loses=("part-2",),
        says="-0 take everything|answer is given away",
    ),
    "no error for a large K": Answer(
        edits={"support-and-query": ("not 0 <= k <= reserved", "k < 0")},
        loses=("part-2",),
        says="reach into the query",
    ),
    "(N, 1) against (N,)": Answer(
        cells={
            "rmse": RMSE
            + """\
    return (prediction - rating).square().mean().sqrt()
"""
        },
        loses=("part-3",),
        says="broadcast",
    ),
    "root forgotten": Answer(
        edits={"user-rmse": (".sqrt()", "")},
        loses=("part-3",),
        says="root is missing",
    ),
    "padding counted": Answer(
        cells={
            "user-rmse": USER
            + """\
    empty = ~mask.any(-1)
    return (prediction - rating).square().mean(-1).sqrt().masked_fill(empty, torch.nan)
"""
        },
        loses=("part-3",),
        says="padding was counted",
    ),
    "padding counted in the number": Answer(
        cells={
            "user-rmse": USER
            + """\
    error = torch.where(mask, prediction - rating, 0.0).square().mean(-1).sqrt()
    return error.masked_fill(~mask.any(-1), torch.nan)
"""
        },
        loses=("part-3",),
        says="number of ratings",
    ),
    "product with the mask": Answer(
        edits={
            "user-rmse": (
                "torch.where(mask, prediction - rating, 0.0)",
                "(prediction - rating) * mask",
            )
        },
        loses=("part-3",),
        says="0 \\* nan is nan",
    ),
    "an empty user has no error": Answer(
        edits={"user-rmse": ("mask.sum(-1))", "mask.sum(-1).clamp(min=1))")},
        loses=("part-3",),
        says="without ratings has the error 0",
    ),
    "RMSE averaged over batches": Answer(
        cells={
            "mean-user-rmse": MEAN
            + """\
    return torch.stack([user_rmse(*batch).nanmean() for batch in batches]).mean()
"""
        },
        loses=("part-3",),
        says="averaged over batches",
    ),
    "root of each batch's mean": Answer(
        cells={
            "mean-user-rmse": MEAN
            + """\
    return torch.stack([rmse(p[m], r[m]) for p, r, m in batches]).mean()
"""
        },
        loses=("part-3",),
        says="averaged over batches",
    ),
    "root after the mean": Answer(
        edits={"mean-user-rmse": ("each.nanmean()", "each.square().nanmean().sqrt()")},
        loses=("part-3",),
        says="take the root for each\\s+user",
    ),
    "pooled in place of over users": Answer(
        cells={
            "mean-user-rmse": MEAN
            + """\
    error = torch.cat([(p - r)[m] for p, r, m in batches])
    return error.square().mean().sqrt()
"""
        },
        loses=("part-3",),
        says="this is the pooled RMSE",
    ),
    "the empty user counts": Answer(
        edits={"mean-user-rmse": ("each.nanmean()", "each.nan_to_num().mean()")},
        loses=("part-3",),
        says="user without ratings was counted",
    ),
    "ideal from the retrieved list": Answer(
        edits={
            "ndcg": (
                "relevance.sort(-1, descending=True)",
                "relevance.gather(-1, order).sort(-1, descending=True)",
            )
        },
        loses=("part-4",),
        says="ideal was taken from the retrieved list",
    ),
    "ideal without k": Answer(
        cells={
            "ndcg": NDCG
            + """\
    discount = 1 / torch.log2(torch.arange(score.shape[-1]) + 2.0)
    order = score.argsort(dim=-1, descending=True, stable=True)
    found = (relevance.gather(-1, order) * discount)[:, :k].sum(-1)
    best = (relevance.sort(-1, descending=True).values * discount).sum(-1)
    return torch.where(best > 0, found / best, 0.0)
"""
        },
        loses=("part-4",),
        says="best list has k places",
    ),
    "exponential gain": Answer(
        edits={"ndcg": ("k = min(", "relevance, k = 2**relevance - 1, min(")},
        loses=("part-4",),
        says="asked is the relevance itself",
    ),
    "ties flipped": Answer(
        edits={
            "ndcg": (
                "score.argsort(dim=-1, descending=True, stable=True)",
                "score.argsort(dim=-1, stable=True).flip(-1)",
            )
        },
        loses=("part-4",),
        says="do not flip",
    ),
    "nan where nothing is relevant": Answer(
        edits={"ndcg": ("torch.where(best > 0, found / best, 0.0)", "found / best")},
        loses=("part-4",),
        says="0 / 0",
    ),
    "test ratings in the item mean": Answer(
        edits={"item-mean": ("torch.isin(user, train)", "torch.ones_like(user) > 0")},
        loses=("part-5",),
        says="test users' ratings are in the item mean",
    ),
    "mean of all ratings as mu": Answer(
        cells={
            "item-mean": ITEM
            + """\
    mu, known = rating.mean(), torch.isin(user, train)
    item, rating = item[known], rating[known]
    total = torch.zeros(n_items).index_add_(0, item, rating - mu)
    return mu + total / (torch.bincount(item, minlength=n_items) + shrinkage)
"""
        },
        loses=("part-5",),
        says="mu is the mean over all users",
    ),
    "items not shrunk": Answer(
        cells={
            "item-mean": ITEM
            + """\
    known = torch.isin(user, train)
    item, rating = item[known], rating[known]
    total = torch.zeros(n_items).index_add_(0, item, rating)
    count = torch.bincount(item, minlength=n_items)
    return torch.where(count > 0, total / count, rating.mean())
"""
        },
        loses=("part-5",),
        says="not shrunk",
    ),
    "a group-by that loses items": Answer(
        cells={
            "item-mean": ITEM
            + """\
    known = torch.isin(user, train)
    return torch.stack([rating[known & (item == i)].mean() for i in range(n_items)])
"""
        },
        loses=("part-5",),
        says="its mean is mu",
    ),
    "shrunk to zero stars": Answer(
        cells={
            "item-mean": ITEM
            + """\
    known = torch.isin(user, train)
    item, rating = item[known], rating[known]
    total = torch.zeros(n_items).index_add_(0, item, rating)
    return total / (torch.bincount(item, minlength=n_items) + shrinkage)
"""
        },
        loses=("part-5",),
        says="drawn to 0 stars",
    ),
    "the predictor sees the query": Answer(
        edits={
            "cold-start-error": (
                "predict(item[support], rating[support],",
                "predict(item, rating,",
            )
        },
        loses=("part-5",),
        says="the query stands in the support",
    ),
    "not clipped": Answer(
        edits={"cold-start-error": (".clamp(1, 5)", "")},
        loses=("part-5",),
        says="not clipped",
    ),
    "pooled at the end": Answer(
        cells={
            "cold-start-error": COLD
            + """\
    errors = []
    for time, item, rating in histories:
        support, query = support_and_query(time, k, reserved)
        found = predict(item[support], rating[support], item[query]).clamp(1, 5)
        errors.append(found - rating[query])
    return torch.cat(errors).square().mean().sqrt()
"""
        },
        loses=("part-5",),
        says="this is the pooled RMSE",
    ),
}

UNUSUAL = {
    "numpy and pandas": Answer(
        cells={
            "vocabulary": """\
import numpy as np
import pandas as pd


def vocabulary(labels, train):
    words = np.unique(np.array(labels)[train.numpy()])
    return {word: number for number, word in enumerate(words)}
""",
            "one-hot": ONE_HOT
            + """\
    words = sorted(index, key=index.get)
    return (np.array(labels)[:, None] == np.array(words)[None]).astype(float)
""",
            "split-users": SPLIT
            + """\
    runs = np.array_split(order.numpy(), n_folds)
    test = runs.pop(fold)
    validation, train = np.split(np.concatenate(runs), [n_validation])
    return train, validation, test
""",
            "support-and-query": CUT
            + """\
    if k < 0 or k > reserved:
        raise ValueError("K")
    order = pd.Series(time.numpy()).sort_values(kind="mergesort").index.to_numpy()
    return order[:k], order[reserved:]
""",
            "rmse": RMSE
            + """\
    if prediction.shape != rating.shape:
        raise ValueError("shapes")
    return float(np.sqrt(np.mean((prediction.numpy() - rating.numpy()) ** 2)))
""",
            "item-mean": ITEM
            + """\
    table = pd.DataFrame({"u": user, "i": item, "r": rating})
    table = table[table["u"].isin(train.numpy())]
    mu = table["r"].mean()
    rest = (table["r"] - mu).groupby(table["i"]).agg(["sum", "size"])
    b = (rest["sum"] / (rest["size"] + shrinkage)).reindex(range(n_items)).fillna(0)
    return torch.tensor((mu + b).to_numpy())
""",
        }
    ),
    "loops over users and lists": Answer(
        cells={
            "one-hot": ONE_HOT
            + """\
    return [[int(index.get(word) == c) for c in range(len(index))] for word in labels]
""",
            "split-users": SPLIT
            + """\
    users, parts, start = order.tolist(), [], 0
    for f in range(n_folds):
        stop = start + len(users) // n_folds + (f < len(users) % n_folds)
        parts.append(users[start:stop])
        start = stop
    rest = [u for f in range(n_folds) if f != fold for u in parts[f]]
    return [set(rest[n_validation:]), sorted(rest[:n_validation]), parts[fold]]
""",
            "support-and-query": CUT
            + """\
    if k not in range(reserved + 1):
        raise ValueError(f"no support of size {k}")
    order = sorted(range(len(time)), key=time.tolist().__getitem__)
    return order[:k], order[reserved:]
""",
            "user-rmse": USER
            + """\
    errors = []
    for p, r, m in zip(prediction, rating, mask):
        some = [(a - b) ** 2 for a, b, c in zip(p, r, m) if c]
        errors.append((sum(some) / len(some)) ** 0.5 if some else torch.nan)
    return torch.tensor(errors)
""",
            "mean-user-rmse": MEAN
            + """\
    total, count = 0.0, 0
    for batch in batches:
        for error in user_rmse(*batch).tolist():
            if error == error:
                total, count = total + error, count + 1
    return total / count
""",
            "ndcg": """\
from math import log2


def ndcg(score, relevance, k):
    def dcg(grades):
        return sum(g / log2(j + 2) for j, g in enumerate(grades[:k]))

    values = []
    for s, r in zip(score.tolist(), relevance.tolist()):
        listed = [r[i] for i in sorted(range(len(s)), key=lambda i: -s[i])]
        best = dcg(sorted(r, reverse=True))
        values.append(dcg(listed) / best if best else 0)
    return values
""",
            "item-mean": ITEM
            + """\
    rows = [n for n, u in enumerate(user) if u in train]
    mu = sum(rating[n] for n in rows) / len(rows)
    total, count = [shrinkage * mu] * n_items, [shrinkage] * n_items
    for n in rows:
        total[item[n]] = total[item[n]] + rating[n]
        count[item[n]] += 1
    return torch.stack([t / c for t, c in zip(total, count)])
""",
        }
    ),
    "einsum, vmap and one-hot products": Answer(
        cells={
            "one-hot": ONE_HOT
            + """\
    known = torch.tensor([index.get(word, len(index)) for word in labels])
    return torch.eye(len(index) + 1)[known, :-1]
""",
            "user-rmse": USER
            + """\
    square = (prediction - rating).square().masked_fill(~mask, 0)
    total = torch.einsum("bn,bn->b", square, mask.to(square))
    return (total / torch.einsum("bn->b", mask.long())) ** 0.5
""",
            "ndcg": NDCG
            + """\
    weight = 1 / (torch.arange(score.shape[-1]) + 2).log2()
    weight = weight * (torch.arange(len(weight)) < k)

    def one(s, r):
        higher = (s[None] > s[:, None]).sum(-1)
        earlier = ((s[None] == s[:, None]).long().tril(-1)).sum(-1)
        best = weight @ r.sort(descending=True).values
        return weight[higher + earlier] @ r / torch.where(best > 0, best, 1.0)

    return torch.func.vmap(one)(score, relevance)
""",
            "item-mean": ITEM
            + """\
    known = (user[:, None] == train).any(1).double()
    mu = known @ rating / known.sum()
    at = torch.nn.functional.one_hot(item, n_items).double()
    total = torch.einsum("r,ri,r->i", known, at, rating - mu)
    return mu + total / (torch.einsum("r,ri->i", known, at) + shrinkage)
""",
        }
    ),
    "classes, generators, and padding of one's own": Answer(
        cells={
            "support-and-query": """\
class Cut:
    def __call__(self, time, k, reserved):
        if not 0 <= k <= reserved:
            raise ValueError("K")
        n = len(time)
        before = time[None] < time[:, None]
        tied = (time[None] == time[:, None]) & torch.ones(n, n).tril(-1).bool()
        rank = (before | tied).sum(1)
        places = [(rank == r).nonzero()[0, 0] for r in range(n)]
        return places[:k], places[reserved:]


support_and_query = Cut()
""",
            "mean-user-rmse": MEAN
            + """\
    width = max(mask.shape[1] for _, _, mask in batches)
    pad = lambda t: torch.nn.functional.pad(t, (0, width - t.shape[1]))
    one = user_rmse(*(torch.cat([pad(t) for t in column]) for column in zip(*batches)))
    return one[~one.isnan()].mean()
""",
            "cold-start-error": COLD
            + """\
    def errors():
        for time, item, rating in histories:
            rank = time.argsort(stable=True)
            support, query = rank[:k], rank[reserved:]
            found = predict(item[support], rating[support], item[query])
            if query.numel():
                yield float((found.clip(1, 5) - rating[query]).square().mean()) ** 0.5

    every = list(errors())
    return sum(every) / len(every)
""",
        }
    ),
}
