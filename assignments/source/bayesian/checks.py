"""The checks that a student sees: small numbers that can be followed by hand."""

from collections.abc import Mapping
from typing import Any

import torch
from classroom import Part, Student, Wrong, same, tensor_of_shape
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def numbers(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# One rating of a film with phi = [1, 0], 3 stars above its offset. With the prior
# mean [1, 0] it is 2 above what was expected. The prior's precision is
# [[1, -1], [-1, 2]], and the rating adds 1 / 2 to its first entry.
PHI = numbers([1, 0])
REST = numbers(3)
MEAN = numbers(1, 0)
COVARIANCE = numbers([2, 1], [1, 1])
NOISE = 2.0
AFTER = numbers(2, 0.5), numbers([1, 0.5], [0.5, 0.75])


def equals(
    value: Any,
    right: Tensor | float,
    what: str,
    mistakes: Mapping[str, Any] | None = None,
    tolerance: float = 1e-5,
) -> None:
    """`same`, where a mistake may stand with a list of what it can give instead."""
    right = torch.as_tensor(right)
    found = tensor_of_shape(value, tuple(right.shape), what)
    if agree(found, right, tolerance):
        return
    for text, wrong in (mistakes or {}).items():
        for one in wrong if isinstance(wrong, list) else [wrong]:
            if agree(found, one, tolerance) and not agree(one, right, tolerance):
                raise Wrong(text)
    same(found, right, what, tolerance=tolerance)


def is_belief(
    value: Any,
    right: Pair,
    what: str,
    mistakes: Mapping[str, Pair | list[Pair]] | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Check a mean and a covariance: a mistake may show in one of them or in both."""
    names = f"the mean of {what}", f"the covariance of {what}"
    found = [
        tensor_of_shape(part, tuple(expected.shape), name)
        for part, expected, name in zip(two(value, names), right, names, strict=True)
    ]

    def is_pair(pair: Pair) -> bool:
        return all(agree(a, b, tolerance) for a, b in zip(found, pair, strict=True))

    if is_pair(right):
        return
    known = {
        text: pairs if isinstance(pairs, list) else [pairs]
        for text, pairs in (mistakes or {}).items()
    }
    for text, pairs in known.items():
        if any(is_pair(pair) for pair in pairs):
            raise Wrong(text)
    for n, name in enumerate(names):
        parts = {text: [pair[n] for pair in pairs] for text, pairs in known.items()}
        equals(found[n], right[n], name, parts, tolerance)


def agree(a: Any, b: Any, tolerance: float) -> bool:
    a, b = (torch.as_tensor(x).detach().double() for x in (a, b))
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def two(value: Any, names: tuple[str, str]) -> tuple[Any, Any]:
    """The two results of a function; ``Wrong`` says what it returned instead."""
    if value is None:
        raise Wrong(f"{names[0]} is None: is there a `return`?")
    if not isinstance(value, tuple | list):
        raise Wrong(
            f"return two results, {names[0]} and {names[1]}, in this order: this is "
            f"one {type(value).__name__}"
        )
    if len(value) != 2:
        raise Wrong(
            f"return two results, {names[0]} and {names[1]}, in this order: there are "
            f"{len(value)}"
        )
    return value[0], value[1]


def unchanged(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> None:
    """Fail if a function wrote into what it was given."""
    for name, old in before.items():
        if not torch.equal(old, now[name]):
            raise Wrong(
                f"`{name}` was changed in place: whoever shares it, another user or "
                "the prior, now has other numbers. Make new tensors"
            )


def copies(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own for a student's function, which may write into them."""
    return {name: value.clone() for name, value in given.items()}


def one_rating(student: Student) -> None:
    before = {"phi": PHI, "rest": REST, "mean": MEAN, "covariance": COVARIANCE}
    given = copies(before)
    found = student.posterior(*given.values(), NOISE)
    unchanged(before, given)
    is_belief(found, AFTER, "the posterior", mistakes_after_one_rating())


def mistakes_after_one_rating() -> dict[str, Pair | list[Pair]]:
    return {
        NO_PRIOR_MEAN: (numbers(1.5, 0.75), AFTER[1]),
        MEAN_COUNTED_TWICE: (numbers(2.5, 0.75), AFTER[1]),
        MEAN_NOT_ADDED: (numbers(1, 0.5), AFTER[1]),
        SIGN: (numbers(0, -0.5), AFTER[1]),
        PRECISION: (AFTER[0], numbers([1.5, -1], [-1, 2])),
        IDENTITY: [
            (numbers(5 / 3, 0), numbers([2 / 3, 0], [0, 1])),
            (numbers(2, 0), numbers([0.5, 0], [0, 1])),
        ],
        LEAST_SQUARES: (numbers(3, 0), numbers([2, 0], [0, 0])),
        S_AS_PRECISION: (numbers(5 / 3, -2 / 3), numbers([2, -2], [-2, 5]) / 3),
        SIGMA: (numbers(5 / 3, 1 / 3), numbers([4, 2], [2, 2.5]) / 3),
        NO_NOISE: (numbers(7 / 3, 2 / 3), numbers([2, 1], [1, 2]) / 3),
        NO_NOISE_IN_STEP: (numbers(3, 1), AFTER[1]),
    }


def no_rating(student: Student) -> None:
    nothing = torch.zeros(0, 2).double(), torch.zeros(0).double()
    is_belief(
        student.posterior(*nothing, MEAN.clone(), COVARIANCE.clone(), NOISE),
        (MEAN, COVARIANCE),
        "the posterior without ratings, which is the prior,",
        {
            LEAST_SQUARES: (0 * MEAN, 0 * COVARIANCE),
            NO_PRIOR_MEAN: (0 * MEAN, COVARIANCE),
            INVERTED: (MEAN, numbers([1, -1], [-1, 2])),
            IDENTITY: [
                (MEAN, numbers([1, 0], [0, 1])),
                (MEAN, numbers([2, 0], [0, 2])),
            ],
        },
    )


def two_users(student: Student) -> None:
    """The user of part 1 with a row of padding, and one who rated nothing."""
    own = numbers([1, 0], [4, 4], [0, 0])
    phi, rest = torch.stack([own, own]), numbers([3, 9, 0], [3, 9, 0])
    mask = torch.tensor([[True, False, False], [False, False, False]])
    before = {"phi": phi, "rest": rest, "mean": MEAN, "covariance": COVARIANCE}
    given = copies(before)
    found = student.posterior_all(
        given["phi"], given["rest"], mask, given["mean"], given["covariance"], NOISE
    )
    unchanged(before, given)
    means, covariances = two(found, ("the users' means", "the users' covariances"))
    means = tensor_of_shape(means, (2, 2), "the users' means")
    covariances = tensor_of_shape(covariances, (2, 2, 2), "the users' covariances")
    surer = numbers([10, -7], [-7, 9.5]) / 46
    is_belief(
        (means[0], covariances[0]),
        AFTER,
        "user 1's posterior",
        {
            PADDING: (numbers(86, 18) / 46, surer),
            PADDING_IN_COVARIANCE: (numbers(56, -7) / 46, surer),
            **mistakes_after_one_rating(),
        },
    )
    is_belief(
        (means[1], covariances[1]),
        (MEAN, COVARIANCE),
        "the posterior of user 2, who rated nothing,",
        {
            PADDING: (numbers(86, 18) / 46, surer),
            PADDING_IN_COVARIANCE: (MEAN, surer),
            OF_ANOTHER: AFTER,
            NO_PRIOR_MEAN: (0 * MEAN, COVARIANCE),
            INVERTED: (MEAN, numbers([1, -1], [-1, 2])),
        },
    )


def three_films(student: Student) -> None:
    films = numbers([1, 0], [0, 1], [2, 2])
    phi, offset = torch.stack([films, films]), numbers([3, 3, 2], [3, 3, 2])
    # User 1 after one rating, and user 2 who rated nothing.
    mean = torch.stack([AFTER[0], MEAN])
    covariance = torch.stack([AFTER[1], COVARIANCE])
    found = student.predictive(phi, offset, mean, covariance, NOISE)
    score, variance = two(found, ("the predicted ratings", "their variances"))
    score = tensor_of_shape(score, (2, 3), "the predicted ratings")
    variance = tensor_of_shape(variance, (2, 3), ONE_EACH)
    equals(
        score[0],
        numbers(5, 3.5, 7),
        "the predicted ratings",
        {NO_OFFSET: numbers(2, 0.5, 5)},
    )
    equals(
        score[1],
        numbers(4, 3, 4),
        "the predicted ratings of user 2",
        {OTHER_USER: numbers(5, 3.5, 7)},
    )
    equals(
        variance[0],
        numbers(3, 2.75, 13),
        "the predictive variances",
        {
            WITHOUT_NOISE: numbers(1, 0.75, 11),
            ROOT: numbers(3, 2.75, 13).sqrt(),
            SIGMA_ADDED: [numbers(1, 0.75, 11) + 2**0.5, numbers(5, 4.75, 15)],
            PER_WEIGHT: numbers(3, 2.75, 9),
        },
    )
    equals(
        variance[1],
        numbers(4, 3, 22),
        "the predictive variances of user 2",
        {OTHER_USER: numbers(3, 2.75, 13)},
    )


def two_intervals(student: Student) -> None:
    mean, variance = numbers(3, 4), numbers(0.25, 4)
    found = student.interval(mean, variance, 0.9)
    names = "the low ends", "the high ends"
    half = numbers(0.5, 2)
    for end, sign, name in zip(two(found, names), (-1, 1), names, strict=True):
        equals(
            end,
            mean + sign * 1.6448536 * half,
            name,
            {
                VARIANCE_AS_WIDTH: mean + sign * 1.6448536 * half**2,
                ONE_SIDED: mean + sign * 1.2815516 * half,
                NO_QUANTILE: mean + sign * half,
                "low and high are swapped": mean - sign * 1.6448536 * half,
            },
        )
    # Four ratings of the same film, with the half-width .82 around 3.
    rating = numbers(2.5, 3, 3.5, 5)
    equals(
        student.coverage(numbers(3, 3, 3, 3), numbers(1, 1, 1, 1) / 4, rating, 0.9),
        0.75,
        "the coverage of four ratings",
        {
            "this is the number of ratings inside: the share is asked": 3.0,
            "this is a percentage: a number from 0 to 1 is asked": 75.0,
            "these are the ratings outside": 0.25,
        },
    )


def an_update(student: Student) -> None:
    before = {"mean": MEAN.clone(), "covariance": COVARIANCE.clone()}
    found = student.update(PHI[0].clone(), REST[0].clone(), *before.values(), NOISE)
    is_belief(
        found,
        AFTER,
        "the belief after one rating",
        {
            FROZEN: (AFTER[0], COVARIANCE),
            STILL: (MEAN, COVARIANCE),
            SIGN: (numbers(0, -0.5), numbers([3, 1.5], [1.5, 1.25])),
            NO_SURPRISE: (numbers(2.5, 0.75), AFTER[1]),
            NO_NOISE_IN_GAIN: (numbers(3, 1), numbers([0, 0], [0, 0.5])),
            SIGMA: (numbers(5 / 3, 1 / 3), numbers([4, 2], [2, 2.5]) / 3),
            NEW_IN_GAIN: (numbers(5 / 3, 1 / 3), AFTER[1]),
            OUTER: (AFTER[0], numbers([1, 0.75], [0, 0.75])),
        },
    )
    unchanged({"mean": MEAN, "covariance": COVARIANCE}, before)


# Film 0 is the most uncertain, with a variance of 4, but only the third target is like
# it; film 1 tells of two targets. Film 2 tells of them too, but hardly anything.
FILMS = numbers([0, 4], [1, 0], [0.2, 0])
TARGET = numbers([1, 0], [1, 0], [0, 1])
BELIEF = numbers([1, 0], [0, 0.25])


def three_questions(student: Student) -> None:
    equals(
        student.worth(FILMS.clone(), TARGET.clone(), BELIEF.clone(), 1.0),
        numbers(1 / 15, 1 / 3, 1 / 39),
        "the worth of each question",
        {
            SUM: numbers(1 / 5, 1, 1 / 13),
            LARGEST_VARIANCE: [numbers(4, 1, 0.04), numbers(5, 2, 1.04)],
            OWN_FALL: numbers(16 / 5, 1 / 2, 1 / 650),
            NOT_SQUARED: numbers(1 / 15, 1 / 3, 5 / 39),
            NO_NOISE_IN_WORTH: numbers(1 / 12, 2 / 3, 2 / 3),
            MEAN_FIRST: numbers(1 / 45, 2 / 9, 2 / 117),
        },
    )


def the_next_question(student: Student) -> None:
    for asked, right in (([], 1), ([1], 0), ([0, 1], 2)):
        equals(
            student.ask_next(
                FILMS.clone(), TARGET.clone(), BELIEF.clone(), 1.0, list(asked)
            ),
            right,
            f"the next question, when {asked or 'nothing'} was asked,",
            {ASKED_AGAIN: asked, LARGEST_VARIANCE: 0, SMALLEST: 2},
        )


NO_PRIOR_MEAN = (
    "the prior mean was forgotten, as if m = 0: the ratings move the belief away from "
    "m, by C Phi' e / sigma^2 with e = rest - Phi m"
)
MEAN_COUNTED_TWICE = (
    "the prior mean is added, but e is not what it leaves: e = rest - Phi m, else "
    "what m explains already counts twice"
)
MEAN_NOT_ADDED = "this is the step away from the prior mean: add m to it"
SIGN = (
    "the sign: a rating above what was expected raises the score of its film, and "
    "every rating makes the covariance smaller"
)
PRECISION = (
    "this is the posterior precision, S^-1 + Phi' Phi / sigma^2: the covariance is "
    "its inverse"
)
INVERTED = (
    "without ratings the covariance is the prior's own, and this is its inverse: is a "
    "precision returned, or was `covariance` taken for one?"
)
IDENTITY = (
    "the prior precision was forgotten: this is ridge regression with an identity "
    "matrix. What is added to Phi' Phi / sigma^2 is the inverse of the prior "
    "covariance"
)
LEAST_SQUARES = (
    "the prior precision was forgotten: this is least squares, which believes the "
    "ratings alone. Add the inverse of the prior covariance to Phi' Phi / sigma^2"
)
S_AS_PRECISION = (
    "the prior covariance was taken for a precision: precisions add, and the prior's "
    "is the inverse of `covariance`"
)
SIGMA = (
    "`noise` is the variance sigma^2 already, and not the standard deviation sigma: "
    "neither square it nor take its root"
)
NO_NOISE = (
    "the noise was left out: a rating tells phi phi' / sigma^2, the less the noisier "
    "it is"
)
NO_NOISE_IN_STEP = (
    "the step of the mean is C Phi' e / sigma^2: the noise is missing in it"
)
PADDING = (
    "the padding was counted: where the mask is false there is no rating, so neither "
    "`phi` nor `rest` may count there"
)
PADDING_IN_COVARIANCE = (
    "the padding was counted in the covariance: rows of `phi` where the mask is false "
    "must not make the user surer"
)
OF_ANOTHER = (
    "user 2 rated nothing and has user 1's posterior: every user starts from the same "
    "prior, and learns from their own ratings alone"
)
CARRIED = (
    "a user starts from the posterior of another one: every user starts from the same "
    "prior"
)
POOLED = (
    "the ratings of all users were put together: each user has a posterior of their own"
)
DETACHED = (
    "does not depend differentiably on the prior and the noise: something was "
    "detached, made a float or an array, or computed under torch.no_grad()"
)
NO_OFFSET = "the offset is missing: a predicted rating is offset + phi . w"
ONE_EACH = "the table of variances, one for each film and user,"
WITHOUT_NOISE = (
    "this is the variance of the score, without the noise: a rating scatters around "
    "its score, so add sigma^2"
)
ROOT = "this is the standard deviation: the variance is asked, without a root"
SIGMA_ADDED = (
    "`noise` is the variance sigma^2 already: add it as it is, neither squared nor "
    "its root"
)
PER_WEIGHT = (
    "only the diagonal of the covariance was used: phi' C phi counts how the weights "
    "vary together as well"
)
VARIANCE_AS_WIDTH = (
    "the variance was taken for the standard deviation: the half-width is z times the "
    "root of the variance"
)
ONE_SIDED = (
    "this interval leaves 1 - level on each side: a central one leaves (1 - level) / "
    "2, so z is the quantile at (1 + level) / 2"
)
NO_QUANTILE = "this is one standard deviation each way, whatever the level: where is z?"
STILL = (
    "the belief did not change: return the new mean and the new covariance, both made "
    "from the ones before"
)
FROZEN = (
    "the covariance was not updated: the user seems as uncertain as before the "
    "rating, so the next ratings count too much"
)
NO_SURPRISE = (
    "the mean moves by the rating itself: it moves by the surprise, rest - phi . "
    "mean, what the belief did not expect"
)
NO_NOISE_IN_GAIN = (
    "the noise is missing in the gain: one noisy rating would be believed without doubt"
)
NEW_IN_GAIN = (
    "the gain was made from the new covariance: the formula wants the one before the "
    "rating"
)
OUTER = (
    "g phi' C is a matrix, the outer product of g and C phi: g * (phi @ C) multiplies "
    "entry by entry"
)
OTHER_USER = "user 2's prediction is made from user 1's posterior"
SUM = "this is the sum over the targets: the fall on average is asked, so divide by J"
LARGEST_VARIANCE = (
    "this is the film with the largest variance: uncertain, but does it tell of the "
    "targets? What counts is how much *their* variance falls on average"
)
OWN_FALL = (
    "this is how much the variance of the film itself falls: what counts is the fall "
    "of the targets' variance, on average"
)
NOT_SQUARED = "phi_j' C phi_i is to be squared, before the mean over the targets"
NO_NOISE_IN_WORTH = "the noise is missing in the denominator: sigma^2 + phi_i' C phi_i"
OVER_THE_QUESTIONS = (
    "the mean runs over the films that one may ask about: it should run over the "
    "targets, those on which you want to predict well"
)
MEAN_FIRST = (
    "the mean over the targets comes before the square: square each phi_j' C phi_i, "
    "then take the mean"
)
SMALLEST = "this is the question that is worth least: take the largest worth"
ASKED_AGAIN = (
    "this film was asked about already: leave out the rows in `asked`, and return a "
    "row of `phi`, not the place among those that are left"
)

GAUSSIAN = "Chapter The Gaussian model: "
BAYESIAN = "Chapter Bayesian personalisation: "
PART_1 = (
    Part("Part 1", "The posterior of one user", GAUSSIAN + "'Complete the square'")
    .with_check("one rating, by hand", 1, one_rating)
    .with_check("without ratings it is the prior", 1, no_rating)
)
PART_2 = Part(
    "Part 2",
    "Every user at once",
    BAYESIAN + "'A task-learner that returns a distribution'",
).with_check("two users, one of them without ratings", 2, two_users)
PART_3 = (
    Part(
        "Part 3",
        "Predictions with error bars",
        BAYESIAN + "'A task-learner that returns a distribution' and 'Is a 90% "
        "interval right 90% of the time?'",
    )
    .with_check("three films, by hand", 1, three_films)
    .with_check("two intervals, and a coverage, by hand", 1, two_intervals)
)
PART_4 = Part(
    "Part 4", "One more rating", GAUSSIAN + "'One rating at a time'"
).with_check("one rating, by hand", 2, an_update)
PART_5 = (
    Part("Part 5", "What to ask next", BAYESIAN + "'What should we ask her next?'")
    .with_check("what three questions are worth", 1, three_questions)
    .with_check("the next of three questions", 1, the_next_question)
)
