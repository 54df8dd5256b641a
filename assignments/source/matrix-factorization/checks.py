"""The checks that a student sees: small numbers that can be followed by hand."""

import torch
from classroom import Part, Student, Wrong, same, tensor_of_shape, the_same_mapping


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


# Three users, four films, vectors of length 2.
MODEL = {
    "mean": torch.tensor(3.5, dtype=torch.float64),
    "user_bias": numbers(0.5, -0.5, 0.0),
    "item_bias": numbers(0.25, 0.0, -0.25, 1.0),
    "user_factors": numbers([1.0, 0.5], [0.0, 1.0], [1.0, 1.0]),
    "item_factors": numbers([1.0, 0.0], [0.0, 2.0], [0.5, -0.5], [1.0, 1.0]),
}
USERS, ITEMS = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
RATINGS = numbers(4.0, 3.0, 5.0)


def copy(model):
    """The same numbers in new tensors: what a student does to them stays there."""
    return {name: value.clone() for name, value in model.items()}


def unchanged(model, before):
    """Fail if the model that was handed over is not what it was."""
    for name, old in before.items():
        if not torch.equal(model[name], old):
            raise Wrong(f"{IN_PLACE} (here {name!r})")


def not_crossed(value, n, what):
    """Fail with the reason if a table of all pairs came out in place of N numbers."""
    shape = tuple(getattr(value, "shape", (n,)))
    if shape in ((n, n), (n, n, n)):
        raise Wrong(f"{what}: the shape is {shape}. {CROSSED}")
    if shape == (n, 1):
        raise Wrong(f"{what}: the shape is {shape} and should be ({n},). {COLUMN}")


def three_scores(student: Student) -> None:
    found = student.predict(copy(MODEL), USERS, ITEMS)
    not_crossed(found, 3, "the scores of three pairs")
    # 3.5 + .5 + 0 + [1, .5] . [0, 2] = 5, and so on.
    same(
        found,
        numbers(5.0, 2.25, 4.75),
        "the scores of three pairs",
        {
            SWAPPED: numbers(3.25, 5.5, 4.0),
            NO_MEAN: numbers(1.5, -1.25, 1.25),
            NO_USER_BIAS: numbers(4.5, 2.75, 4.75),
            NO_ITEM_BIAS: numbers(5.0, 2.5, 4.5),
            NO_BIASES: numbers(4.5, 3.0, 4.5),
            SUMMED: numbers(5.5, 4.25, 5.25),
        },
    )


def two_batches(student: Student) -> None:
    # Errors 1, 1, 1 and then 3: sqrt((1 + 1 + 1 + 9) / 4) = sqrt(3).
    found = student.rmse(
        [
            (numbers(4.0, 2.0, 3.0), numbers(3.0, 3.0, 4.0)),
            (numbers(1.0), numbers(4.0)),
        ]
    )
    same(
        found,
        3**0.5,
        "the RMSE of four ratings in two batches",
        {
            MEAN_OF_ROOTS: 2.0,
            MEAN_OF_MEANS: 5**0.5,
            NO_ROOT: 3.0,
            ABSOLUTE: 1.5,
            SUM_ROOT: 12**0.5,
        },
    )


def three_ratings(student: Student) -> None:
    found = student.objective(copy(MODEL), USERS, ITEMS, RATINGS, 0.2)
    # Errors -1, .75, .25 and squares 1.625; |p|^2 and |q|^2 sum to 9.75, the squares
    # of the biases to .625: 1.625 + .2 (9.75 + .625) = 3.7.
    same(
        found,
        3.7,
        "J of three ratings with lambda = .2",
        {
            BIASES_FREE: 3.575,
            MEAN: 3.7 / 3,
            NO_PENALTY: 1.625,
            HALF: 1.85,
            # Nine squares, and the penalty once or broadcast along with them.
            CROSSED_LOSS: 19.875 + 2.075,
            CROSSED_LOSS + ".": 19.875 + 3 * 2.075,
            PENALTY_NEGATIVE: 1.625 - 2.075,
            PENALTY_ALL: 4.3,
        },
    )


# User 0 rates films 1 and 2, user 1 rates film 2 as well: errors -1, -1, -1.25.
BATCH = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]), numbers(4.0, 3.0, 1.0)


def stepped(user_bias, item_bias, user_factors, item_factors):
    """What only the rows of users 0 and 1 and of films 1 and 2 make of the model."""
    new = copy(MODEL)
    new["user_bias"][:2] = numbers(*user_bias)
    new["item_bias"][1:3] = numbers(*item_bias)
    new["user_factors"][:2] = numbers(*user_factors)
    new["item_factors"][1:3] = numbers(*item_factors)
    return new


def one_step(student: Student) -> None:
    model = copy(MODEL)
    found = student.sgd_step(model, *BATCH, 0.2, 0.1)
    unchanged(model, MODEL)
    # b_0 <- .5 - .1 (2 + .2 + 2 + .2) = .06: both ratings of user 0 count.
    p, q = ([0.82, 0.16], [-0.125, 1.085]), ([-0.2, 1.82], [0.26, -0.81])
    right = stepped((0.06, -0.73), (-0.2, -0.68), p, q)
    lost = stepped(
        (0.28, -0.73),
        (-0.2, -0.49),
        ([0.86, 0.58], [-0.125, 1.085]),
        ([-0.2, 1.82], [0.48, -0.73]),
    )
    no_penalty = stepped(
        (0.1, -0.75),
        (-0.2, -0.7),
        ([0.9, 0.2], [-0.125, 1.125]),
        ([-0.2, 1.9], [0.3, -0.85]),
    )
    users_first = stepped(
        (0.06, -0.73), (-0.2, -0.68), p, ([-0.164, 1.888], [0.32725, -0.76325])
    )
    the_same_mapping(
        found,
        right,
        "the model after one step",
        {
            UPHILL: scaled_step(right, -1.0),
            LOST: lost,
            STEP_BIASES_FREE: stepped((0.1, -0.75), (-0.2, -0.7), p, q),
            STEP_NO_PENALTY: no_penalty,
            ONE_FIRST: users_first,
            STEP_MEAN: scaled_step(right, 1 / 3),
            STEP_HALF: scaled_step(right, 0.5),
            STEP_PENALTY_SIGN: combined((2.0, no_penalty), (-1.0, right)),
            STEP_ERROR_SIGN: combined((2.0, MODEL), (-2.0, no_penalty), (1.0, right)),
            MEAN_MOVED: {**right, "mean": torch.tensor(2.85)},
        },
    )


def scaled_step(right, factor, start=MODEL):
    """The model if the step had been ``factor`` times as long."""
    return {name: old + factor * (right[name] - old) for name, old in start.items()}


def combined(*parts):
    """Sums of multiples of models, table by table."""
    return {name: sum(c * model[name] for c, model in parts) for name in MODEL}


# One user with two ratings: phi = [q_i, 1] with a single factor.
PHI = numbers([1.0, 1.0], [2.0, 1.0])
REST, PENALTY, PRIOR = numbers(1.0, 3.0), numbers(1.0, 2.0), numbers(1.0, -1.0)


def two_ratings(student: Student) -> None:
    # Phi'Phi + Lambda = [[6, 3], [3, 4]], e - Phi m = [1, 2], Phi'(..) = [5, 3].
    found = student.fold_in(PHI.clone(), REST.clone(), PENALTY.clone(), PRIOR.clone())
    same(
        found,
        numbers(26 / 15, -0.8),
        "the head of a user with two ratings",
        {
            NO_LAMBDA: numbers(2.0, -1.0),
            LAMBDA_K_TIMES: numbers(1 + 7 / 11, -1 + 2 / 11),
            NO_PRIOR: numbers(16 / 15, 0.2),
            PRIOR_NOT_ADDED: numbers(11 / 15, 0.2),
            PRIOR_ON_TOP: numbers(1 + 16 / 15, -0.8),
            LAMBDA_EVERYWHERE: numbers(2.25, -1.5),
            LAMBDA_EVERYWHERE + ".": numbers(3.0, -2.75),
        },
    )


def without_ratings(student: Student) -> None:
    try:
        found = student.fold_in(PHI[:0], REST[:0], PENALTY.clone(), PRIOR.clone())
    except Exception as error:
        if "LinAlgError" in type(error).__name__:
            raise Wrong(SINGULAR) from None
        raise
    same(
        found,
        PRIOR,
        "the head of a user without ratings",
        {NO_PRIOR: numbers(0.0, 0.0)},
    )


def three_users(student: Student) -> None:
    # The user of part 5, one without ratings, and one with a single rating of 2 stars
    # above the film's offset. The nines and sevens are padding.
    phi = torch.stack([PHI, numbers([9.0, 9.0], [9.0, 9.0]), PHI])
    rest = numbers([1.0, 3.0], [7.0, 7.0], [2.0, 7.0])
    mask = torch.tensor([[True, True], [False, False], [True, False]])
    phi[2, 1] = 9.0
    found = student.fold_in_all(phi, rest, mask, PENALTY.clone(), PRIOR.clone())
    found = tensor_of_shape(found, (3, 2), "the heads of three users")
    right = numbers([26 / 15, -0.8], [1.0, -1.0], [1.8, -0.6])
    same(
        found[1],
        right[1],
        "the head of the user without ratings, whose places are all padding,",
        {NO_PRIOR: numbers(0.0, 0.0), CARRIED: right[0]},
    )
    same(
        found,
        right,
        "the heads of three users",
        {
            LAMBDA_K_TIMES: numbers([18 / 11, -9 / 11], [1.0, -1.0], [1.8, -0.6]),
            MASK_HALF: numbers(
                [26 / 15, -0.8], [1.0, -1.0], [1 + 4 / 248, -1 + 2 / 248]
            ),
        },
    )


def short_list(student: Student) -> None:
    scores = numbers(3.0, 5.0, 4.0, 5.0, -1.0, 4.0)
    check_list(
        student.top_n(scores.clone(), torch.tensor([1]), 3),
        [3, 2, 5],
        scores,
        [1],
        {WORST_FIRST: [4, 0, 2], POSITIONS: [2, 1, 4]},
    )


def fewer_than_n(student: Student) -> None:
    scores = numbers(-3.0, -1.0, -2.0, -1.0)
    found = student.top_n(scores.clone(), torch.tensor([1, 2]), 10)
    check_list(found, [3, 0], scores, [1, 2], {POSITIONS: [1, 0], WORST_FIRST: [0, 3]})
    nobody = torch.zeros(0, dtype=torch.long)
    found = student.top_n(scores.clone(), nobody, 2)
    check_list(found, [1, 3], scores, [], {WORST_FIRST: [0, 2]})


def check_list(found, right, scores, seen, mistakes):
    """Compare a list of films with the right one, and say what is wrong with it."""
    if found is None:
        raise Wrong("the list is None: is there a `return`?")
    try:
        found = torch.as_tensor(found).double()
    except Exception:
        raise Wrong(
            "the list should be a tensor or a list of film indices and is a "
            f"{type(found).__name__}"
        ) from None
    if found.dim() != 1:
        raise Wrong(
            f"the list should have one axis and has the shape {tuple(found.shape)}"
        )
    listed = found.tolist()
    if any(x != int(x) or not 0 <= x < len(scores) for x in listed):
        raise Wrong(
            "the list should hold indices of films, 0 or more and less than "
            f"{len(scores)}, and is {show(listed)}. {NOT_INDICES}"
        )
    films = [int(x) for x in listed]
    if films == right:
        return
    for mistake, wrong in mistakes.items():
        if films == wrong and wrong != right:
            raise Wrong(mistake)
    if had := [film for film in films if film in seen]:
        raise Wrong(f"film {had[0]} is in the list. {SEEN}")
    if len(films) != len(right):
        raise Wrong(
            f"the list should have {len(right)} films and has {len(films)}: "
            "min(n, number of unseen films)"
        )
    values = scores[torch.tensor(films, dtype=torch.long)].tolist()
    if values == scores[torch.tensor(right, dtype=torch.long)].tolist():
        raise Wrong(f"the list should be {right} and is {films}. {TIES}")
    raise Wrong(f"the list should be {right} and is {films}")


def show(values):
    return "[" + ", ".join(f"{x:g}" for x in values[:8]) + "]"


CROSSED = (
    "(N,) met (N, 1) and broadcast to a table of every pair. Keep one axis: sum the "
    "products over the last axis without keepdim, and pick rows by the pair"
)
COLUMN = "A column (N, 1) broadcasts with (N,) to a table (N, N) one line later"
SWAPPED = (
    "user and film indices are swapped: `users` picks rows of the user tables, `items` "
    "rows of the item tables"
)
NO_MEAN = "the mean is missing from the score: mean + b_u + b_i + p_u . q_i"
NO_USER_BIAS = "the user's bias is missing from the score"
NO_ITEM_BIAS = "the film's bias is missing from the score"
NO_BIASES = "both biases are missing from the score"
SUMMED = (
    "the products were summed over all pairs: sum over the coordinates of each pair "
    "alone, the last axis"
)
MEAN_OF_ROOTS = (
    "the RMSE was averaged over batches. A mean of roots is not the root of a mean: "
    "add up the squared errors of all batches, then divide and take the root once"
)
MEAN_OF_MEANS = (
    "the mean squared error was averaged over batches, so a rating in a short batch "
    "counts more: divide the sum of all squared errors by the number of all ratings"
)
WEIGHTED_ROOTS = (
    "the batches' roots were weighted by their numbers of ratings, which does not mend "
    "them: average the squares of all ratings, then take the root once"
)
NO_ROOT = "this is the mean squared error: take its root"
ABSOLUTE = "this is the mean absolute error, and not the root of the mean square"
SUM_ROOT = "the sum of the squared errors was not divided by the number of ratings"
BIASES_FREE = (
    "the biases are not regularised: b_u^2 and b_i^2 stand in the penalty as |p_u|^2 "
    "and |q_i|^2 do"
)
FACTORS_FREE = "the vectors are not regularised: |p_u|^2 and |q_i|^2 are missing"
MEAN = "the mean over the ratings in place of their sum"
NO_PENALTY = "the penalty is missing: these are the squared errors alone"
HALF = "there is a factor 1/2 that J does not have"
CROSSED_LOSS = (
    "each of the N scores was compared with each of the N ratings: (N, 1) met (N,) and "
    "broadcast to (N, N). Score and rating must have the same shape (N,)"
)
PENALTY_NEGATIVE = "the penalty has the wrong sign: it is added to the squared errors"
PENALTY_ONCE = (
    "the penalty counts each user and film of the batch once: it counts once for each "
    "rating, so index the tables by `users` and `items` before you square"
)
PENALTY_ALL = (
    "the penalty counts whole tables, rows included that the batch does not touch: it "
    "counts once for each rating of the batch"
)
NORM = "the penalty takes the length |p| in place of its square |p|^2"
MEAN_PENALISED = "the mean is penalised: mu is a constant here"
IN_PLACE = (
    "the model that was given was changed in place: whoever holds it finds other "
    "numbers there. Make new tensors"
)
UPHILL = "the step goes uphill: theta - rate * gradient, with a minus"
LOST = (
    "a user or film that appears several times in the batch moved by one of its "
    "ratings only: `table[rows] += x` keeps one of several writes to a row. Add with "
    "index_add"
)
STEP_BIASES_FREE = (
    "the biases are not regularised: their gradients have + 2 lambda b as those of the "
    "vectors have + 2 lambda p"
)
STEP_FACTORS_FREE = "the vectors are not regularised: + 2 lambda p_u and + 2 lambda q_i"
STEP_NO_PENALTY = "the penalty is missing from the gradients"
ONE_FIRST = (
    "one side was updated before the gradient of the other was taken: p_u and q_i need "
    "each other's old values. Compute all four gradients first, then step"
)
STEP_MEAN = "the gradient of the mean over the batch in place of that of the sum"
STEP_HALF = "the factor 2 of the derivative of a square is missing"
STEP_PENALTY_SIGN = (
    "the penalty has the wrong sign in the gradients: the tables would grow"
)
STEP_ERROR_SIGN = (
    "the error's part of the gradient has the wrong sign: with e = r - r_hat it has "
    "the factor - 2 e"
)
ONE_BY_ONE = (
    "the ratings were taken one after the other, each at the weights that the last one "
    "left: all gradients are taken before the step"
)
MEAN_MOVED = "the mean moved: it is a constant, and not trained"
NO_LAMBDA = (
    "lambda is missing: this is least squares, which believes a few ratings as if they "
    "had no noise"
)
SINGULAR = (
    "without ratings the matrix cannot be inverted: Phi'Phi is all zeros then, and "
    "Lambda, lambda on the diagonal and counted once, is what remains. Is it there?"
)
LAMBDA_K_TIMES = (
    "lambda was counted once for each rating: in the fold-in it stands there once, and "
    "so the ratings win over the prior in the end"
)
NO_PRIOR = (
    "the prior mean was forgotten: the head is drawn to zero, and should be drawn to m"
)
PRIOR_NOT_ADDED = "the head is measured from the prior mean: add m at the end"
PRIOR_ON_TOP = (
    "m was added to a head that had not been measured from it: the residuals are "
    "rest - phi m"
)
LAMBDA_EVERYWHERE = (
    "lambda was added to every entry of Phi'Phi, by broadcasting: it belongs on the "
    "diagonal alone, torch.diag(penalty)"
)
PRIOR_UNWEIGHTED = "m entered without its weight: Lambda m stands beside Phi'e"
LAMBDA_ONE = (
    "one lambda was taken for all coordinates: each has its own, and they stand on the "
    "diagonal"
)
LAMBDA_SUM = (
    "the sum of the lambdas was taken for each coordinate: each has its own, and they "
    "stand on the diagonal"
)
LAMBDA_VARIANCE = (
    "1 / lambda was added: lambda is a precision already, and goes to Phi'Phi as it is"
)
MEAN_GRAM = (
    "the mean over the ratings in place of the sum: it forgets how many ratings there "
    "are"
)
MASK_FORGOTTEN = (
    "the padding counts: what stands where `mask` is false must not enter the sums"
)
MASK_HALF = (
    "the padding counts in Phi'Phi: masking the residuals alone is not enough, since "
    "the rows of phi are in there too"
)
MASK_TARGET = (
    "the padding counts in Phi'e: masking Phi'Phi alone is not enough, since the "
    "residuals of padding are in there too"
)
POOLED = (
    "all users got one regression on everybody's ratings: each user is a system of "
    "their own"
)
CARRIED = "a user starts from the head of the user before: m is the prior mean of all"
SEEN = "A film that the user has rated is never recommended"
TIES = "Of two films with the same score the one with the lower index comes first"
NOT_INDICES = "Were the scores returned in place of the films?"
WORST_FIRST = "the list begins with the lowest score: best first"
POSITIONS = (
    "these are positions among the unseen films, and not indices of films: once the "
    "seen ones are cut out, the rest have moved up"
)
SCORES_CHANGED = (
    "`scores` was changed in place: whoever uses them next finds other numbers there. "
    "Work on a copy"
)

CHAPTER = "Chapter Matrix factorisation: "
PART_1 = Part("Part 1", "The score", f"{CHAPTER}'Two changes'").with_check(
    "three pairs, by hand", 1, three_scores
)
PART_2 = Part(
    "Part 2",
    "The error, batch by batch",
    f"{CHAPTER}'Fill in the matrix'",
).with_check("four ratings in two batches", 1, two_batches)
PART_3 = Part(
    "Part 3", "The objective", f"{CHAPTER}'Two changes', the paragraph on the penalty"
).with_check("three ratings, by hand", 2, three_ratings)
PART_4 = Part(
    "Part 4",
    "One step of gradient descent",
    f"{CHAPTER}'Two changes'; the formulas above the cell",
).with_check("three ratings, by hand", 2, one_step)
PART_5 = (
    Part(
        "Part 5",
        "A new user by ridge regression",
        f"{CHAPTER}'Fold-in: a row is a regression'",
    )
    .with_check("no ratings: the prior mean", 1, without_ratings)
    .with_check("two ratings, by hand", 1, two_ratings)
)
PART_6 = Part(
    "Part 6", "All users at once", f"{CHAPTER}'Fold-in: a row is a regression'"
).with_check("three users, one without ratings", 1, three_users)
PART_7 = (
    Part("Part 7", "The list", "the four rules above the cell")
    .with_check("three films, a tie and a seen one", 1, short_list)
    .with_check("fewer films than n, and a user who has seen none", 1, fewer_than_n)
)
