"""Hidden checks of the assignment on data and tasks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import checks
import torch
from classroom import Student, Wrong, same
from torch import Tensor

Batch = tuple[Tensor, Tensor, Tensor]


def shuffled(student: Student, n: int) -> list[int]:
    """0 to n - 1 in a random order."""
    return torch.randperm(n, generator=student.random).tolist()


# ---------------------------------------------------------------- part 1: vocabulary


def words_of_others(student: Student) -> None:
    """Training users and test users have words of their own, and some in common."""
    for _ in range(3):
        every = [f"w{n:02d}" for n in shuffled(student, 12)]
        common, ours, theirs = every[:4], sorted(every[4:9], reverse=True), every[9:]
        mine = [*ours[:2], *common, *ours[2:], *common[:2]]
        others = [*theirs, *common[1:], theirs[0]]
        place = shuffled(student, len(mine) + len(others))
        labels = [""] * len(place)
        for at, word in zip(place, mine + others, strict=True):
            labels[at] = word
        train = place[: len(mine)]
        found = student.vocabulary(list(labels), torch.tensor(train))
        checks.the_vocabulary(found, labels, train)


def rows_of_many(student: Student) -> None:
    words = [f"w{n}" for n in shuffled(student, 6)]
    index = {word: number for number, word in enumerate(words)}
    labels = ["x", *words[::-1], "y", words[student.integer(1, 4)], "x"]
    checks.the_rows(student.one_hot(list(labels), dict(index)), labels, index)
    checks.the_rows(student.one_hot(["x"], {"a": 0, "b": 1}), ["x"], {"a": 0, "b": 1})


# ------------------------------------------------------------- part 2: users as tasks


def folds_of_many_users(student: Student) -> None:
    for n_folds in (3, 4, 5):
        n = n_folds * student.integer(4, 6) + student.integer(1, n_folds - 1)
        order = shuffled(student, n)
        for fold in range(n_folds):
            checks.the_split(student, order, fold, n_folds, student.integer(1, 4))


def many_ties(student: Student) -> None:
    """Eighty ratings in nine seconds: a sort that is not stable moves some of them."""
    times = torch.randint(0, 9, (80,), generator=student.random).tolist()
    for k in (student.integer(2, 5), 0, 15):
        found = student.support_and_query(torch.tensor(times), k, 15)
        checks.the_cut(found, times, k, 15)


def short_histories_and_bad_sizes(student: Student) -> None:
    """No query, no support, and K that the reserved ratings cannot serve."""
    for n, k in ((5, 0), (4, 2), (5, 5), (3, 4), (6, 5)):
        times = [10 * t for t in shuffled(student, n)]
        found = student.support_and_query(torch.tensor(times), k, 5)
        checks.the_cut(found, times, k, 5)
    time = torch.tensor(shuffled(student, 20))
    for k, why in ((7, "it would reach into the query"), (-1, "there is no such size")):
        checks.refuses(
            partial(student.support_and_query, time, k, 5),
            f"K = {k} with 5 reserved ratings should raise a ValueError: {why}",
        )


def support_and_query(time: Tensor, k: int, reserved: int) -> tuple[Tensor, Tensor]:
    """The right answer to the second half of part 2."""
    order = sorted(range(len(time)), key=lambda p: (float(time[p]), p))
    if not 0 <= k <= reserved:
        raise ValueError(f"k must lie in 0..{reserved}, got {k}")
    return (
        torch.tensor(order[:k], dtype=torch.long),
        torch.tensor(order[reserved:], dtype=torch.long),
    )


# --------------------------------------------------------------------- part 3: errors


def rmse(prediction: Tensor, rating: Tensor) -> Tensor:
    """The right answer to the first third of part 3."""
    if prediction.shape != rating.shape:
        raise ValueError("the shapes differ")
    return ((prediction - rating) ** 2).mean() ** 0.5


def user_rmse(prediction: Tensor, rating: Tensor, mask: Tensor) -> Tensor:
    """The right answer to the second third of part 3: a loop over users."""
    rows = zip(prediction, rating, mask, strict=True)
    return torch.stack([((p[m] - r[m]) ** 2).mean() ** 0.5 for p, r, m in rows])


def mean_user_rmse(batches: list[Batch]) -> Tensor:
    """The right answer to the last third of part 3."""
    each = torch.cat([user_rmse(*batch) for batch in batches])
    return each[~each.isnan()].mean()


def padded(student: Student, counts: list[int], width: int) -> Batch:
    """Users with so many ratings each; the padding looks like ratings, too."""
    prediction = 3 + student.normal(len(counts), width)
    drawn = torch.rand(len(counts), width, generator=student.random).double()
    mask = torch.arange(width) < torch.tensor(counts)[:, None]
    return prediction, 1 + 4 * drawn, mask


def pooled_and_refused(student: Student) -> None:
    shape = student.integer(2, 4), student.integer(5, 7)
    for size in (shape, (shape[1],)):
        prediction, rating = student.normal(*size), student.normal(*size)
        square = (prediction - rating).square()
        mistakes = {
            checks.MEAN_SQUARE: square.mean(),
            "this is the mean absolute error": square.sqrt().mean(),
            "this is the sum in place of the mean": square.sum().sqrt(),
        }
        if len(size) == 2:
            mistakes[
                "this is a mean over rows of each row's RMSE: pooled means one root of "
                "one mean over all ratings"
            ] = square.mean(-1).sqrt().mean()
        same(
            student.rmse(prediction, rating),
            rmse(prediction, rating),
            "the pooled RMSE",
            mistakes,
        )
    n = shape[1]
    for one, other in (((n, 1), (n,)), ((n,), (n, 1)), ((1, n), (n,))):
        checks.refuses_shapes(student, one, other)


def users_of_a_padded_batch(student: Student) -> None:
    counts = [student.integer(3, 5), 0, 7, student.integer(1, 2)]
    prediction, rating, mask = padded(student, counts, 7)
    right = user_rmse(prediction, rating, mask)
    known = torch.tensor(counts) > 0
    square = (prediction - rating).square()
    inside = torch.where(mask, square, 0.0)
    number = mask.sum(-1)
    checks.the_user_errors(
        student.user_rmse(prediction, rating, mask),
        right,
        {
            checks.PADDING: square.mean(-1).sqrt()[known],
            checks.PADDING_NUMBER: inside.mean(-1).sqrt()[known],
            checks.PADDING + ".": (square.sum(-1) / number).sqrt()[known],
            checks.MEAN_SQUARE: (inside.sum(-1) / number)[known],
            "this is the mean absolute error of each user": (
                inside.sqrt().sum(-1) / number
            )[known],
        },
    )
    nothing = (torch.where(mask, part, torch.nan) for part in (prediction, rating))
    checks.the_user_errors(student.user_rmse(*nothing, mask), right, {})


def over_users_of_batches(student: Student) -> None:
    batches = [
        padded(student, [student.integer(1, 4), 6, 0, student.integer(2, 5), 3], 6),
        padded(student, [9, student.integer(1, 2)], 9),
        padded(student, [2], 2),
    ]
    each = torch.cat([user_rmse(*batch) for batch in batches])
    each = each[~each.isnan()]
    pooled = [rmse(p[m], r[m]) for p, r, m in batches]
    square = torch.cat([((p - r) ** 2)[m] for p, r, m in batches])
    of_batch = [user_rmse(*batch) for batch in batches]
    roots = [own[~own.isnan()].square().mean().sqrt() for own in of_batch]
    checks.the_mean(
        student,
        batches,
        mean_user_rmse(batches),
        "the mean over the users of three batches",
        {
            checks.OVER_BATCHES: torch.stack([e.nanmean() for e in of_batch]).mean(),
            checks.OVER_BATCHES + ".": torch.stack(pooled).mean(),
            checks.OVER_BATCHES + "..": torch.stack(roots).mean(),
            checks.OVER_BATCHES + "...": torch.stack(
                [own.nansum() / len(own) for own in of_batch]
            ).mean(),
            checks.ROOT_LAST: each.square().mean().sqrt(),
            checks.POOLED: square.mean().sqrt(),
            checks.EMPTY_COUNTS: each.sum() / (len(each) + 1),
            "this is the sum over users: divide by their number": each.sum(),
        },
    )


# ----------------------------------------------------------------------- part 4: nDCG

Order = Callable[[list[float]], list[int]]


def stable(score: list[float]) -> list[int]:
    """Items, highest score first, the earlier of equals first."""
    return sorted(range(len(score)), key=lambda i: (-score[i], i))


def ndcg(
    score: Tensor,
    relevance: Tensor,
    k: int,
    order: Order = stable,
    ideal: str = "catalogue",
    gain: Callable[[float], float] = float,
    discount: Callable[[int], float] = lambda j: math.log2(j + 1),
) -> Tensor:
    """The right answer to part 4, by its sums; the options are people's mistakes."""
    values = []
    for scores, grades in zip(score.tolist(), relevance.tolist(), strict=True):
        ranked = [gain(grades[i]) for i in order(scores)]
        best = sorted(ranked, reverse=True)
        if ideal == "retrieved":
            best = sorted(ranked[:k], reverse=True)
        if ideal != "uncut":
            best = best[:k]
        found, most = (
            sum(g / discount(j) for j, g in enumerate(part, 1))
            for part in (ranked[:k], best)
        )
        values.append(found / most if ideal != "none" and most > 0 else 0.0)
        if ideal == "none":
            values[-1] = found
    return torch.tensor(values, dtype=torch.float64)


def ndcg_mistakes(score: Tensor, relevance: Tensor, k: int) -> dict[str, Tensor]:
    """What known mistakes give on these lists."""

    def turned(scores: list[float]) -> list[int]:
        return sorted(range(len(scores)), key=lambda i: (-scores[i], -i))

    def lowest(scores: list[float]) -> list[int]:
        return sorted(range(len(scores)), key=lambda i: (scores[i], i))

    asked = score, relevance, k
    return {
        checks.FROM_THE_LIST: ndcg(*asked, ideal="retrieved"),
        checks.IDEAL_UNCUT: ndcg(*asked, ideal="uncut"),
        checks.NOT_NORMALISED: ndcg(*asked, ideal="none"),
        checks.EXPONENTIAL: ndcg(*asked, gain=lambda g: 2**g - 1),
        checks.YES_OR_NO: ndcg(*asked, gain=lambda g: float(g > 0)),
        checks.TIES_TURNED: ndcg(*asked, order=turned),
        "the list begins with the lowest score": ndcg(*asked, order=lowest),
        "the place j is discounted by log2(j + 2), one too far": ndcg(
            *asked, discount=lambda j: math.log2(j + 2)
        ),
        "the discount is j, and not log2(j + 1)": ndcg(*asked, discount=float),
    }


def known_lists(student: Student) -> None:
    """Two published cases, with ten items and with five."""
    relevance, first, second = torch.zeros(3, 10).double()
    relevance[[1, 3, 4, 9]] = torch.tensor([5.0, 4.0, 3.0, 2.0]).double()
    first[[0, 1, 2, 3, 4]] = torch.arange(5, 0, -1).double()
    second[[9, 4, 1, 3, 2]] = torch.arange(5, 0, -1).double()
    score, grades = torch.stack([first, second]), relevance.expand(2, -1).clone()
    same(
        student.ndcg(score, grades, 5),
        torch.tensor([0.61081, 0.82098]),
        "nDCG@5 of two lists over ten items",
        ndcg_mistakes(score, grades, 5),
        tolerance=1e-5,
    )
    score = torch.tensor([[0.05, 1.1, 1.0, 0.5, 0.0]]).double()
    grades = torch.tensor([[10.0, 0, 0, 1, 5]]).double()
    mistakes = ndcg_mistakes(score, grades, 4)
    right = torch.tensor([0.35202])
    same(student.ndcg(score, grades, 4), right, "nDCG@4", mistakes, tolerance=1e-5)


def a_random_catalogue(student: Student) -> None:
    users, items = student.integer(3, 5), student.integer(20, 30)
    score = student.normal(users, items)
    grades = torch.randint(0, 6, (users, items), generator=student.random).double()
    for k in (student.integer(3, 6), items):
        same(
            student.ndcg(score.clone(), grades.clone(), k),
            ndcg(score, grades, k),
            f"nDCG@{k} of {users} users over {items} items",
            ndcg_mistakes(score, grades, k),
        )


def ties_and_edges(student: Student) -> None:
    """Equal scores, a list longer than the catalogue, and nothing relevant."""
    score = torch.tensor([[1.0, 0, 0, 0, 1], [2, 3, 2, 3, 2]]).double()
    grades = torch.tensor([[10.0, 0, 0, 1, 5], [4, 1, 3, 2, 0]]).double()
    for k in (1, 3):
        same(
            student.ndcg(score.clone(), grades.clone(), k),
            ndcg(score, grades, k),
            f"nDCG@{k} with equal scores (the earlier item stands first: a stable "
            "sort, not topk)",
            ndcg_mistakes(score, grades, k),
        )
    width = student.integer(40, 60)
    score = torch.randint(0, 3, (2, width), generator=student.random).double()
    grades = torch.randint(0, 4, (2, width), generator=student.random).double()
    same(
        student.ndcg(score.clone(), grades.clone(), 10),
        ndcg(score, grades, 10),
        f"nDCG@10 over {width} items of which many have equal scores",
        ndcg_mistakes(score, grades, 10),
    )
    score, grades = student.normal(2, 4), torch.zeros(2, 4).double()
    grades[0, 2] = 3.0
    found = student.ndcg(score.clone(), grades.clone(), 3)
    if isinstance(found, Tensor) and found.shape == (2,) and not found[1].isfinite():
        raise Wrong(
            "where nothing is relevant the answer is 0, and it is 0 / 0 = nan here"
        )
    what = "nDCG@3 of a user with one relevant item and of one with none"
    same(found, ndcg(score, grades, 3), what, ndcg_mistakes(score, grades, 3))
    score, grades = student.normal(1, 4), student.normal(1, 4).abs()
    found, what = student.ndcg(score.clone(), grades.clone(), 7), "nDCG@7 of four items"
    same(found, ndcg(score, grades, 7), what, ndcg_mistakes(score, grades, 7))


# ------------------------------------------------------- part 5: item mean, cold start


def item_mean(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    train: Tensor,
    n_items: int,
    shrinkage: float,
) -> Tensor:
    """The right answer to the first half of part 5: lambda ratings at mu are added."""
    teach = set(train.tolist())
    rows = [
        (i, r)
        for u, i, r in zip(user.tolist(), item.tolist(), rating.tolist(), strict=True)
        if u in teach
    ]
    mu = sum(r for _, r in rows) / len(rows)
    means = []
    for number in range(n_items):
        own = [r for i, r in rows if i == number]
        means.append((sum(own) + shrinkage * mu) / (len(own) + shrinkage))
    return torch.tensor(means, dtype=torch.float64)


def means_of_many_films(student: Student) -> None:
    """Random ratings; test users rate higher, and the last film is theirs alone."""
    n_users, n_items = student.integer(9, 12), student.integer(5, 7)
    users = torch.tensor(shuffled(student, n_users))
    train, test = users[3:], users[:3]
    seen = torch.rand(n_users, n_items, generator=student.random) < 0.6
    seen[test, -1], seen[train, -1], seen[train, 0] = True, False, True
    user, item = seen.nonzero().T
    place = torch.tensor(shuffled(student, len(user)))
    user, item = user[place], item[place]
    rating = torch.randint(1, 4, (len(user),), generator=student.random).double()
    rating = rating + 2 * torch.isin(user, test)
    shrinkage = 0.5 * student.integer(3, 9)
    asked = user, item, rating, train, n_items, shrinkage
    right = item_mean(*asked)
    what = f"the shrunk means of {n_items} items"
    checks.the_item_means(student, asked, right, what)


def new_users(student: Student) -> list[checks.History]:
    """Histories of different lengths, two of which have no query; many ties."""
    histories = []
    for n in (9, 4, student.integer(6, 8), 2, student.integer(12, 14)):
        time = torch.randint(0, 5, (n,), generator=student.random)
        item = torch.tensor(shuffled(student, 20)[:n])
        rating = torch.randint(1, 6, (n,), generator=student.random).double()
        histories.append((time, item, rating))
    return histories


def judged_on_new_users(student: Student) -> None:
    """A predictor that uses the order, the ratings and the items, and overshoots."""
    histories, offset = new_users(student), 3 + 2 * student.normal(20)

    def predict(items: Tensor, ratings: Tensor, asked: Tensor) -> Tensor:
        weight = torch.arange(1, len(items) + 1).double()
        rest = weight * (ratings - offset[items])
        return offset[asked] + 2 * rest.sum() / (weight.sum() + 2)

    for k in (0, 2, 4):
        errors, raw, reserved = [], [], 4
        for time, item, rating in histories:
            support, query = support_and_query(time, k, reserved)
            if len(query):
                found = predict(item[support], rating[support], item[query])
                errors.append(found.clip(1, 5) - rating[query])
                raw.append(found - rating[query])

        def over_users(parts: list[Tensor]) -> Tensor:
            return torch.stack([part.square().mean().sqrt() for part in parts]).mean()

        right = over_users(errors)
        same(
            checks.watched(student, predict, histories, k, reserved),
            right,
            f"the error at K = {k}",
            {
                checks.NOT_CLIPPED: over_users(raw),
                checks.POOLED: torch.cat(errors).square().mean().sqrt(),
                checks.EMPTY_USER: right * len(errors) / len(histories),
                "this is the mean absolute error": torch.stack(
                    [part.abs().mean() for part in errors]
                ).mean(),
            },
        )


PART_1 = checks.PART_1.with_check(
    "the words of training users, among others", 2, words_of_others
).with_check("rows of many, in any numbering", 1, rows_of_many)
PART_2 = (
    checks.PART_2.with_check("every fold of many users", 2, folds_of_many_users)
    .with_check("eighty ratings with many ties", 2, many_ties)
    .with_check("short histories, and K out of range", 2, short_histories_and_bad_sizes)
)
PART_3 = (
    checks.PART_3.with_check("pooled, and shapes that differ", 1, pooled_and_refused)
    .with_check("padding that must not matter", 1, users_of_a_padded_batch)
    .with_check("over the users of three batches", 1, over_users_of_batches)
)
PART_4 = (
    checks.PART_4.with_check("published cases", 1, known_lists)
    .with_check("a random catalogue", 1, a_random_catalogue)
    .with_check("equal scores, long lists, nothing relevant", 1, ties_and_edges)
)
PART_5 = (
    checks.PART_5.with_given(
        support_and_query=support_and_query,
        rmse=rmse,
        user_rmse=user_rmse,
        mean_user_rmse=mean_user_rmse,
    )
    .with_check("the means of many items", 2, means_of_many_films)
    .with_check("new users of many lengths", 2, judged_on_new_users)
)
