"""Hidden checks of the assignment on matrix factorisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import checks
import torch
from classroom import Student, Wrong, same, tensor_of_shape, the_same_mapping
from torch import Tensor

Model = dict[str, Tensor]
Batch = tuple[Tensor, Tensor, Tensor]
TABLES = ("user_bias", "item_bias", "user_factors", "item_factors")


def predict(model: Model, users: Tensor, items: Tensor) -> Tensor:
    """The right answer to part 1: pairs picked from the table of all scores."""
    bias = model["user_bias"][:, None] + model["item_bias"]
    every = model["mean"] + bias + model["user_factors"] @ model["item_factors"].T
    return every[users, items]


def sizes(
    model: Model,
    users: Tensor,
    items: Tensor,
    biases: bool = True,
    vectors: bool = True,
) -> Tensor:
    """What lambda multiplies, for each rating."""
    total = torch.zeros(len(users), dtype=torch.float64)
    if vectors:
        total = total + model["user_factors"][users].square().sum(1)
        total = total + model["item_factors"][items].square().sum(1)
    if biases:
        total = total + model["user_bias"][users] ** 2 + model["item_bias"][items] ** 2
    return total


def size_of_rows(model: Model, users: Tensor, items: Tensor) -> Tensor:
    """The squares of these users' and these films' rows."""
    rows = {"user": users, "item": items}
    sizes = [model[name][rows[name[:4]]].square().sum() for name in TABLES]
    return torch.stack(sizes).sum()


def objective(
    model: Model, users: Tensor, items: Tensor, ratings: Tensor, penalty: float
) -> Tensor:
    """The right answer to part 3."""
    error = ratings - predict(model, users, items)
    return error @ error + penalty * sizes(model, users, items).sum()


def fold_in(phi: Tensor, rest: Tensor, penalty: Tensor, prior: Tensor) -> Tensor:
    """The right answer to part 5: the prior as D further rows of a least squares."""
    weight = penalty.double().sqrt()
    rows = torch.cat([phi.double(), weight.diag()])
    target = torch.cat([rest.double(), weight * prior.double()])
    return torch.linalg.lstsq(rows, target[:, None]).solution[:, 0]


def random_model(student: Student) -> Model:
    """Five to seven users, as many films and more, vectors of length 3 or 4."""
    n_users, dim = student.integer(5, 7), student.integer(3, 4)
    n_items = n_users + student.integer(1, 3)
    return {
        "mean": 3 + 0.3 * student.normal(1)[0].abs(),
        "user_bias": 0.5 * student.normal(n_users),
        "item_bias": 0.5 * student.normal(n_items),
        "user_factors": 0.7 * student.normal(n_users, dim),
        "item_factors": 0.7 * student.normal(n_items, dim),
    }


def random_batch(student: Student, model: Model, n: int) -> Batch:
    """Ratings of users 1 to 4 on films 0 to 4: the first two of each come twice."""
    users = torch.tensor([1, 2, 1, 2, 3] + [student.integer(1, 4) for _ in range(n)])
    items = torch.tensor([0, 3, 4, 0, 3] + [student.integer(0, 4) for _ in range(n)])
    ratings = predict(model, users, items).round() + torch.tensor(
        [student.integer(1, 2) * (-1.0) ** k for k in range(n + 5)]
    )
    return users, items, ratings.double()


def scores_of_many_pairs(student: Student) -> None:
    model = random_model(student)
    users, items, _ = random_batch(student, model, student.integer(3, 6))
    compare_scores(student, model, users, items, f"the scores of {len(users)} pairs")


def one_pair(student: Student) -> None:
    model = random_model(student)
    users, items = torch.tensor([3]), torch.tensor([student.integer(0, 2)])
    compare_scores(student, model, users, items, "the score of a batch of one pair")


def compare_scores(
    student: Student, model: Model, users: Tensor, items: Tensor, what: str
) -> None:
    given = checks.copy(model)
    found = student.predict(given, users, items)
    checks.not_crossed(found, len(users), what)
    checks.unchanged(given, model)
    right = predict(model, users, items)
    b_u, b_i = model["user_bias"][users], model["item_bias"][items]
    dots = right - model["mean"] - b_u - b_i
    same(
        found,
        right,
        what,
        {
            checks.SWAPPED: predict(model, items, users),
            checks.NO_MEAN: right - model["mean"],
            checks.NO_USER_BIAS: right - b_u,
            checks.NO_ITEM_BIAS: right - b_i,
            checks.NO_BIASES: right - b_u - b_i,
            checks.SUMMED: right - dots + dots.sum(),
        },
    )


def batches_of_many_lengths(student: Student) -> None:
    lengths = [student.integer(5, 9), student.integer(5, 9), student.integer(1, 3), 1]
    batches: list[tuple[Tensor, Tensor]] = []
    squares: list[Tensor] = []
    errors: list[Tensor] = []
    for n in lengths:
        rating = torch.tensor([float(student.integer(1, 5)) for _ in range(n)]).double()
        error = (0.5 + len(squares)) * (1 + student.normal(n).abs())
        batches.append((rating + error, rating))
        squares.append(error.square())
        errors.append(error.abs())
    every = torch.cat(squares)
    means = torch.stack([s.mean() for s in squares])
    same(
        student.rmse(batches),
        every.mean().sqrt(),
        "the RMSE over batches of different lengths",
        {
            checks.MEAN_OF_ROOTS: means.sqrt().mean(),
            checks.MEAN_OF_MEANS: means.mean().sqrt(),
            checks.NO_ROOT: every.mean(),
            checks.ABSOLUTE: torch.cat(errors).mean(),
            checks.SUM_ROOT: every.sum().sqrt(),
            checks.WEIGHTED_ROOTS: sum(s.mean().sqrt() * len(s) for s in squares)
            / len(every),
            "only the last batch counts": squares[-1].mean().sqrt(),
        },
    )


def j_of_a_batch(student: Student) -> None:
    model, penalty = random_model(student), 0.3
    users, items, ratings = random_batch(student, model, student.integer(3, 6))
    given = checks.copy(model)
    found = student.objective(given, users, items, ratings, penalty)
    checks.unchanged(given, model)
    right = objective(model, users, items, ratings, penalty)
    score = predict(model, users, items)
    squares = (ratings - score).square().sum()
    full = sizes(model, users, items).sum()
    free = sizes(model, users, items, biases=False).sum()
    n, b_u = len(users), model["user_bias"][users]
    b_i, mu = model["item_bias"][items], model["mean"]
    table = (score[:, None] - ratings).square().sum()
    # The products alone as a column: everything else is a row.
    dots = score - mu - b_u - b_i
    column = (dots[:, None] + mu + b_u + b_i - ratings).square().sum()
    once = size_of_rows(model, users.unique(), items.unique())
    whole = sum(model[name].square().sum() for name in TABLES)
    lengths = model["user_factors"][users].norm(dim=1).sum()
    lengths = lengths + model["item_factors"][items].norm(dim=1).sum()
    mistakes = [
        (checks.BIASES_FREE, squares + penalty * free),
        (checks.FACTORS_FREE, squares + penalty * (full - free)),
        (checks.MEAN, right / n),
        (checks.MEAN, squares / n + penalty * full),
        (checks.NO_PENALTY, squares),
        (checks.HALF, right / 2),
        (checks.HALF, squares / 2 + penalty * full),
        (checks.HALF, squares + penalty * full / 2),
        (checks.PENALTY_NEGATIVE, squares - penalty * full),
        (checks.PENALTY_ONCE, squares + penalty * once),
        (checks.PENALTY_ALL, squares + penalty * whole),
        (checks.PENALTY_ALL, squares + n * penalty * whole),
        (checks.NORM, squares + penalty * lengths),
        (checks.NORM, squares + penalty * (lengths + full - free)),
        (checks.MEAN_PENALISED, right + penalty * mu**2),
        (checks.MEAN_PENALISED, right + n * penalty * mu**2),
    ]
    for crossed in (table, column):
        mistakes.append((checks.CROSSED_LOSS, crossed + penalty * full))
        mistakes.append((checks.CROSSED_LOSS, crossed + n * penalty * full))
        mistakes.append((checks.CROSSED_LOSS, crossed / n + penalty * full))
    same(found, right, f"J of {n} ratings", by_message(mistakes))


def by_message(mistakes: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping in which one message may stand for several values."""
    # Spaces at its end make a message another key and look the same.
    return {message + " " * k: value for k, (message, value) in enumerate(mistakes)}


def step_by_differences(
    model: Model, batch: Batch, penalty: float, rate: float
) -> Model:
    """The right answer to part 4; J is a parabola in each number, so this is exact."""
    new = checks.copy(model)
    for name in TABLES:
        flat = new[name].view(-1)
        for place in range(len(flat)):
            up, down = checks.copy(model), checks.copy(model)
            up[name].view(-1)[place] += 0.5
            down[name].view(-1)[place] -= 0.5
            slope = objective(up, *batch, penalty) - objective(down, *batch, penalty)
            flat[place] -= rate * slope
    return new


def pieces(
    model: Model, error: Tensor, batch: Batch, penalty: float
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Of each table: the rows, and what error and penalty of each rating add."""
    users, items, _ = batch
    p, q = model["user_factors"][users], model["item_factors"][items]
    b_u, b_i = model["user_bias"][users], model["item_bias"][items]
    e, size = -2 * error, 2 * penalty
    return {
        "user_bias": (users, e, size * b_u),
        "item_bias": (items, e, size * b_i),
        "user_factors": (users, e[:, None] * q, size * p),
        "item_factors": (items, e[:, None] * p, size * q),
    }


def step_in_turns(
    model: Model,
    batch: Batch,
    penalty: float,
    rate: float,
    order: Sequence[Sequence[str]],
    new_error: bool = True,
) -> Model:
    """Some tables step after others, at what those have become."""
    users, items, ratings = batch
    now, error = checks.copy(model), ratings - predict(model, users, items)
    for names in order:
        if new_error:
            error = ratings - predict(now, users, items)
        add = pieces(now, error, batch, penalty)
        for name in names:
            rows, of_error, of_size = add[name]
            now[name] = now[name].index_add(0, rows, -rate * (of_error + of_size))
    return now


def known_wrong_steps(
    model: Model, batch: Batch, penalty: float, rate: float, right: Model
) -> dict[str, Model]:
    """What mistakes make of a step."""
    users, items, ratings = batch
    error = ratings - predict(model, users, items)
    add = pieces(model, error, batch, penalty)

    def built(change: Callable[[str, Tensor, Tensor, Tensor], Tensor]) -> Model:
        tables = {n: model[n] - rate * change(n, *add[n]) for n in TABLES}
        return {"mean": model["mean"], **tables}

    def total(name: str, rows: Tensor, each: Tensor) -> Tensor:
        return torch.zeros_like(model[name]).index_add(0, rows, each)

    def written(reverse: bool) -> Callable[..., Tensor]:
        def change(
            name: str, rows: Tensor, of_error: Tensor, of_size: Tensor
        ) -> Tensor:
            table, each = torch.zeros_like(model[name]), of_error + of_size
            places = range(len(rows))
            for n in reversed(places) if reverse else places:
                table[rows[n]] = each[n]
            return table

        return change

    def without(word: str) -> Model:
        return built(lambda n, r, e, s: total(n, r, e + s * (word not in n)))

    n = len(users)
    touched = {
        name: torch.zeros(len(model[name])).double().index_fill(0, add[name][0], 1.0)
        for name in TABLES
    }

    def sized(weight: dict[str, Tensor]) -> Model:
        def change(name: str, rows: Tensor, of_error: Tensor, _: Tensor) -> Tensor:
            each = weight[name].view(-1, *[1] * (model[name].dim() - 1))
            return total(name, rows, of_error) + 2 * penalty * each * model[name]

        return built(change)

    everywhere = {name: torch.ones(len(model[name])).double() for name in TABLES}
    moved_mean = {**right, "mean": model["mean"] + 2 * rate * error.sum()}
    sides = ("user_factors", "user_bias"), ("item_factors", "item_bias")
    turns = [list(order) for order in permutations([(name,) for name in TABLES])]
    after = [
        step_in_turns(model, batch, penalty, rate, order)
        for order in [*turns, sides, sides[::-1]]
    ] + [
        step_in_turns(model, batch, penalty, rate, order, new_error=False)
        for order in (sides, sides[::-1])
    ]
    one_by_one = [model, model, model]
    for k in range(n):
        one = users[k : k + 1], items[k : k + 1], ratings[k : k + 1]
        for way, (order, new_error) in enumerate(
            [([TABLES], True), (sides, False), (sides[::-1], False)]
        ):
            one_by_one[way] = step_in_turns(
                one_by_one[way], one, penalty, rate, order, new_error
            )
    return by_message(
        [
            (checks.UPHILL, checks.scaled_step(right, -1.0, model)),
            (checks.LOST, built(written(reverse=False))),
            (checks.LOST, built(written(reverse=True))),
            (checks.STEP_BIASES_FREE, without("bias")),
            (checks.STEP_FACTORS_FREE, without("factors")),
            (checks.STEP_NO_PENALTY, without("")),
            (checks.STEP_MEAN, checks.scaled_step(right, 1 / n, model)),
            (checks.STEP_HALF, checks.scaled_step(right, 0.5, model)),
            (checks.STEP_HALF, built(lambda n, r, e, s: total(n, r, e + s / 2))),
            (checks.STEP_HALF, built(lambda n, r, e, s: total(n, r, e / 2 + s))),
            (checks.STEP_PENALTY_SIGN, built(lambda n, r, e, s: total(n, r, e - s))),
            (checks.STEP_ERROR_SIGN, built(lambda n, r, e, s: total(n, r, s - e))),
            (checks.PENALTY_ONCE, sized(touched)),
            (checks.PENALTY_ALL, sized(everywhere)),
            (checks.MEAN_MOVED, moved_mean),
            (
                checks.MEAN_MOVED,
                {
                    **right,
                    "mean": moved_mean["mean"] - 2 * rate * penalty * model["mean"],
                },
            ),
            *((checks.ONE_FIRST, wrong) for wrong in after),
            *((checks.ONE_BY_ONE, wrong) for wrong in one_by_one),
        ]
    )


def step_of_a_batch(student: Student) -> None:
    model, penalty, rate = random_model(student), 0.3, 0.05
    batch = random_batch(student, model, student.integer(3, 6))
    given = checks.copy(model)
    found = student.sgd_step(given, *batch, penalty, rate)
    checks.unchanged(given, model)
    right = step_by_differences(model, batch, penalty, rate)
    mistakes = known_wrong_steps(model, batch, penalty, rate, right)
    the_same_mapping(found, right, "the model after one step", mistakes)


def step_of_one_rating(student: Student) -> None:
    model, penalty, rate = random_model(student), 0.2, 0.1
    users, items, ratings = random_batch(student, model, 4)
    batch = users[-1:], items[-1:], ratings[-1:]
    given = checks.copy(model)
    found = student.sgd_step(given, *batch, penalty, rate)
    checks.unchanged(given, model)
    right = step_by_differences(model, batch, penalty, rate)
    mistakes = known_wrong_steps(model, batch, penalty, rate, right)
    the_same_mapping(found, right, "the model after a step on one rating", mistakes)


def random_user(student: Student, k: int, dim: int) -> tuple[Tensor, Tensor]:
    """Features of ``k`` films, the last of them 1, and what is left of the ratings."""
    phi = student.normal(k, dim)
    phi[:, -1] = 1.0
    return phi, student.normal(k) + 0.5


def random_prior(student: Student, dim: int) -> tuple[Tensor, Tensor]:
    """Weights lambda, all different, and a mean m away from zero."""
    penalty = 0.5 + torch.arange(dim).double() + student.normal(dim).abs()
    prior = 0.6 + 0.3 * student.normal(dim).abs()
    prior[::2] *= -1
    return penalty, prior


def wrong_heads(
    phi: Tensor, rest: Tensor, penalty: Tensor, prior: Tensor
) -> list[tuple[str, Tensor]]:
    """What mistakes make of one user's head."""
    gram, k, ridge = phi.T @ phi, len(phi), penalty.diag()
    if k == 0:
        return [(checks.NO_PRIOR, torch.zeros_like(prior))]

    def head(precision: Tensor, target: Tensor) -> Tensor:
        return torch.linalg.pinv(precision) @ target

    pull, own = phi.T @ rest, phi.T @ (rest - phi @ prior)
    one = torch.eye(len(prior), dtype=torch.float64)
    return [
        (checks.NO_LAMBDA, prior + head(gram, own)),
        (checks.NO_LAMBDA, head(gram, pull)),
        (checks.LAMBDA_K_TIMES, prior + head(gram + k * ridge, own)),
        (checks.NO_PRIOR, head(gram + ridge, pull)),
        (checks.PRIOR_NOT_ADDED, head(gram + ridge, own)),
        (checks.PRIOR_ON_TOP, prior + head(gram + ridge, pull)),
        (checks.PRIOR_UNWEIGHTED, head(gram + ridge, pull + prior)),
        (checks.LAMBDA_EVERYWHERE, prior + head(gram + penalty, own)),
        (checks.LAMBDA_EVERYWHERE, prior + head(gram + penalty[:, None], own)),
        (checks.LAMBDA_ONE, prior + head(gram + penalty.mean() * one, own)),
        (checks.LAMBDA_ONE, prior + head(gram + penalty[0] * one, own)),
        (checks.LAMBDA_SUM, prior + head(gram + penalty.sum() * one, own)),
        (checks.LAMBDA_VARIANCE, prior + head(gram + (1 / penalty).diag(), own)),
        (checks.MEAN_GRAM, prior + head(gram / k + ridge, own / k)),
    ]


def head_of_many_ratings(student: Student) -> None:
    dim = student.integer(3, 5)
    compare_heads(student, dim + student.integer(2, 4), dim)


def head_of_few_ratings(student: Student) -> None:
    dim = student.integer(4, 6)
    compare_heads(student, 2, dim)


def compare_heads(student: Student, k: int, dim: int) -> None:
    phi, rest = random_user(student, k, dim)
    penalty, prior = random_prior(student, dim)
    found = student.fold_in(phi.clone(), rest.clone(), penalty.clone(), prior.clone())
    same(
        found,
        fold_in(phi, rest, penalty, prior),
        f"the head of a user with {k} ratings, D = {dim}",
        by_message(wrong_heads(phi, rest, penalty, prior)),
    )


def random_users(student: Student) -> tuple[Tensor, Tensor, Tensor]:
    """Four or five users, padded: one has no rating, one has all places filled."""
    n, dim = student.integer(6, 8), student.integer(3, 4)
    counts = [student.integer(4, 5), 0, n, 1, student.integer(2, 3)]
    counts = counts[: student.integer(4, 5)]
    mask = torch.arange(n) < torch.tensor(counts)[:, None]
    phi, rest = student.normal(len(counts), n, dim), student.normal(len(counts), n)
    phi[..., -1] = 1.0
    phi[~mask] = 3 + phi[~mask].abs()
    rest[~mask] = -4.0
    return phi, rest, mask


def heads_of_padded_users(student: Student) -> None:
    phi, rest, mask = random_users(student)
    penalty, prior = random_prior(student, phi.shape[2])
    given = phi.clone(), rest.clone(), mask.clone(), penalty.clone(), prior.clone()
    found = student.fold_in_all(*given)
    shape = len(phi), len(prior)
    found = tensor_of_shape(found, shape, "the heads of all users")
    rows = [(p[m], r[m]) for p, r, m in zip(phi, rest, mask, strict=True)]
    right = torch.stack([fold_in(p, r, penalty, prior) for p, r in rows])
    # Where padding enters: the sums of squares, the sums with the residuals, or both.
    kept = phi * mask[..., None]
    e, own = rest - phi @ prior, torch.where(mask, rest, 0.0) - phi @ prior
    masked, ridge = e * mask, penalty.diag()

    def heads(left: Tensor, right: Tensor, e: Tensor) -> Tensor:
        target = torch.einsum("bnd,bn->bd", right, e)
        return prior + torch.linalg.solve(left.mT @ left + ridge, target)

    pooled = fold_in(phi[mask], rest[mask], penalty, prior)
    carried = [prior]
    for p, r in rows:
        carried.append(fold_in(p, r, penalty, carried[-1]))
    mistakes = [
        (checks.MASK_FORGOTTEN, heads(phi, phi, e)),
        (checks.MASK_HALF, heads(phi, phi, masked)),
        (checks.MASK_HALF, heads(phi, phi, own)),
        (checks.MASK_TARGET, heads(kept, phi, e)),
        (checks.MASK_TARGET, heads(kept, phi, own)),
        (checks.POOLED, pooled.expand(*shape)),
        (checks.CARRIED, torch.stack(carried[1:])),
    ]
    each = [dict(by_message(wrong_heads(p, r, penalty, prior))) for p, r in rows]
    for message in each[0]:
        # A user without ratings has the prior mean, or zero where m was forgotten.
        bare = prior
        if message.strip() in (checks.NO_PRIOR, checks.PRIOR_NOT_ADDED):
            bare = torch.zeros_like(prior)
        if message.strip() == checks.PRIOR_UNWEIGHTED:
            bare = prior / penalty
        wrong = torch.stack([user.get(message, bare) for user in each])
        mistakes.append((message.strip(), wrong))
    padded = phi.shape[1] * ridge
    target = torch.einsum("bnd,bn->bd", kept, masked)
    every = prior + torch.linalg.solve(kept.mT @ kept + padded, target)
    mistakes.append((checks.LAMBDA_K_TIMES, every))
    same(found, right, "the heads of all users", by_message(mistakes))


def long_list(student: Student) -> None:
    scores, seen = ranked_films(student)
    n = student.integer(8, 12)
    compare_lists(student, scores, seen, n)


def list_longer_than_the_rest(student: Student) -> None:
    scores, seen = ranked_films(student)
    scores = -1 - scores.abs() - 0.01 * torch.arange(len(scores)).double()
    compare_lists(student, scores, seen, len(scores) + 5)


def list_with_ties(student: Student) -> None:
    scores, seen = ranked_films(student)
    compare_lists(student, scores.round(), seen, 20)


def ranked_films(student: Student) -> tuple[Tensor, Tensor]:
    """Scores of 40 films or so, and the best, the worst and others as the seen."""
    scores = student.normal(student.integer(38, 44))
    others = torch.randperm(len(scores), generator=student.random)[:10]
    seen = torch.cat([others, scores.argmax()[None], scores.argmin()[None]])
    shuffled = seen.unique()
    return scores, shuffled[torch.randperm(len(shuffled), generator=student.random)]


def compare_lists(student: Student, scores: Tensor, seen: Tensor, n: int) -> None:
    values, rated = scores.tolist(), set(seen.tolist())
    unseen = [i for i in range(len(values)) if i not in rated]
    right = sorted(unseen, key=lambda i: (-values[i], i))[:n]
    places = sorted(range(len(unseen)), key=lambda k: (-values[unseen[k]], k))[:n]
    worst = sorted(unseen, key=lambda i: values[i])[:n]
    upward = sorted(right, key=lambda i: (values[i], i))
    given, given_seen = scores.clone(), seen.clone()
    found = student.top_n(given, given_seen, n)
    if not torch.equal(given, scores):
        raise Wrong(checks.SCORES_CHANGED)
    mistakes = {
        checks.WORST_FIRST: worst,
        checks.WORST_FIRST + " ": upward,
        checks.WORST_FIRST + "  ": right[::-1],
        checks.POSITIONS: places,
    }
    checks.check_list(found, right, scores, sorted(rated), mistakes)


PART_1 = checks.PART_1.with_check(
    "many pairs of a larger model", 1, scores_of_many_pairs
).with_check("a batch of one pair", 1, one_pair)
PART_2 = checks.PART_2.with_check(
    "batches of different lengths", 2, batches_of_many_lengths
)
PART_3 = checks.PART_3.with_given(predict=predict).with_check(
    "J of a batch with users and films that come twice", 3, j_of_a_batch
)
PART_4 = (
    checks.PART_4.with_given(predict=predict, objective=objective)
    .with_check("one rating", 1, step_of_one_rating)
    .with_check("a batch with users and films that come twice", 3, step_of_a_batch)
)
PART_5 = checks.PART_5.with_check(
    "more ratings than coordinates", 2, head_of_many_ratings
).with_check("fewer ratings than coordinates", 1, head_of_few_ratings)
PART_6 = checks.PART_6.with_given(fold_in=fold_in).with_check(
    "users with different numbers of ratings", 3, heads_of_padded_users
)
PART_7 = (
    checks.PART_7.with_check("many films", 1, long_list)
    .with_check("ties", 0.5, list_with_ties)
    .with_check("a list longer than what is left", 0.5, list_longer_than_the_rest)
)
