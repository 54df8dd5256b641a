"""Hidden checks of the assignment on Bayesian personalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import checks
import torch
from checks import Pair
from classroom import Student, Wrong, tensor_of_shape, the_same_mapping
from torch import Tensor


def posterior(
    phi: Tensor, rest: Tensor, mean: Tensor, covariance: Tensor, noise: Tensor | float
) -> Pair:
    """The right answer to part 1, in the space of the ratings: no prior precision.

    Rating and weights are jointly Gaussian, and G = S Phi' (Phi S Phi' + sigma^2 I)^-1
    regresses one on the other.
    """
    one = torch.eye(len(rest), dtype=phi.dtype)
    cross = covariance @ phi.mT
    gain = torch.linalg.solve(phi @ cross + noise * one, cross.mT).mT
    return mean + gain @ (rest - phi @ mean), covariance - gain @ cross.mT


def posterior_all(
    phi: Tensor,
    rest: Tensor,
    mask: Tensor,
    mean: Tensor,
    covariance: Tensor,
    noise: Tensor | float,
) -> Pair:
    """A loop over the users: the right answer to part 2."""
    return stack(
        posterior(x[own], y[own], mean, covariance, noise)
        for x, y, own in zip(phi, rest, mask, strict=True)
    )


def predictive(
    phi: Tensor,
    offset: Tensor,
    mean: Tensor,
    covariance: Tensor,
    noise: Tensor | float,
) -> Pair:
    """The right answer to part 3: the diagonal of the films' covariance."""
    score = (phi @ mean[..., None])[..., 0] + offset
    spread = phi @ covariance @ phi.mT
    return score, spread.diagonal(dim1=-2, dim2=-1) + noise


def interval(mean: Tensor, variance: Tensor, level: float) -> Pair:
    """The right answer to the second question of part 3."""
    half = quantile((1 + level) / 2) * variance.sqrt()
    return mean - half, mean + half


def coverage(mean: Tensor, variance: Tensor, rating: Tensor, level: float) -> float:
    """The right answer to the third question of part 3."""
    return share((rating - mean).abs() <= quantile((1 + level) / 2) * variance.sqrt())


def update(
    phi: Tensor, rest: Tensor, mean: Tensor, covariance: Tensor, noise: Tensor | float
) -> Pair:
    """The right answer to part 4: the posterior after one rating, from the prior."""
    return posterior(phi[None], rest[None], mean, covariance, noise)


def worth(
    phi: Tensor, target: Tensor, covariance: Tensor, noise: Tensor | float
) -> Tensor:
    """The right answer to part 5: learn from each film, and look at the targets."""
    nothing = torch.zeros(phi.shape[1], dtype=phi.dtype)
    falls = []
    for film in phi:
        after = update(film, nothing[0], nothing, covariance, noise)[1]
        falls.append(((target @ (covariance - after)) * target).sum(-1).mean())
    return torch.stack(falls)


def ask_next(
    phi: Tensor,
    target: Tensor,
    covariance: Tensor,
    noise: Tensor | float,
    asked: list[int],
) -> int:
    """The right answer to the second question of part 5."""
    value = worth(phi, target, covariance, noise).tolist()
    return max((n for n in range(len(value)) if n not in asked), key=value.__getitem__)


def quantile(probability: float) -> float:
    """The quantile of the standard normal distribution."""
    where = torch.tensor(probability, dtype=torch.float64)
    return float(torch.special.ndtri(where))


def share(inside: Tensor) -> float:
    return float(inside.double().mean())


def stack(pairs: Iterable[Pair]) -> Pair:
    """Means and covariances of several users, one below the other."""
    means, covariances = zip(*pairs, strict=True)
    return torch.stack(means), torch.stack(covariances)


def prior(student: Student, dim: int) -> tuple[Tensor, Tensor, float]:
    """A mean off zero, a covariance off the diagonal, and a variance off one."""
    factor = student.normal(dim, dim)
    covariance = 0.5 * factor @ factor.T + 0.3 * torch.eye(dim, dtype=torch.float64)
    noise = (0.35, 0.5, 1.8, 2.5)[student.integer(0, 3)]
    return 1.0 + student.normal(dim), covariance, noise


def mistaken(
    phi: Tensor, rest: Tensor, mean: Tensor, covariance: Tensor, noise: float
) -> dict[str, list[Pair]]:
    """What known mistakes make of one user's posterior, by what to say of them."""
    right = posterior(phi, rest, mean, covariance, noise)
    one, nothing = torch.eye(len(mean), dtype=phi.dtype), torch.zeros_like(mean)
    step = right[0] - mean
    gram = torch.linalg.pinv(phi)
    plain = gram @ rest, noise * torch.linalg.pinv(phi.T @ phi)

    def changed(
        m: Tensor = mean, s: Tensor = covariance, n: float = noise
    ) -> tuple[Tensor, Tensor]:
        return posterior(phi, rest, m, s, n)

    return {
        checks.NO_PRIOR_MEAN: [changed(m=nothing)],
        checks.MEAN_COUNTED_TWICE: [(mean + changed(m=nothing)[0], right[1])],
        checks.MEAN_NOT_ADDED: [(step, right[1])],
        checks.SIGN: [(mean - step, right[1])],
        checks.PRECISION: [(right[0], torch.linalg.inv(right[1]))],
        checks.LEAST_SQUARES: [plain],
        checks.IDENTITY: [
            changed(s=one),
            changed(m=nothing, s=one),
            # With lambda = 1 in place of sigma^2 S^-1.
            changed(s=noise * one),
            changed(m=nothing, s=noise * one),
            (changed(s=noise * one)[0], changed(s=one, n=1.0)[1]),
        ],
        checks.S_AS_PRECISION: [changed(s=torch.linalg.inv(covariance))],
        checks.SIGMA: [changed(n=noise**2), changed(n=noise**0.5)],
        checks.NO_NOISE: [changed(n=1.0)],
        checks.NO_NOISE_IN_STEP: [(mean + noise * step, right[1])],
    }


def one_user(student: Student) -> None:
    for ratings in (student.integer(1, 2), student.integer(6, 8)):
        dim = student.integer(3, 5)
        phi, rest = student.normal(ratings, dim), 2 * student.normal(ratings)
        m, s, noise = prior(student, dim)
        given = {"mean": m.clone(), "covariance": s.clone()}
        found = student.posterior(phi, rest, *given.values(), noise)
        checks.is_belief(
            found,
            posterior(phi, rest, m, s, noise),
            f"the posterior (K = {ratings})",
            mistaken(phi, rest, m, s, noise),
        )
        checks.unchanged({"mean": m, "covariance": s}, given)


def limits(student: Student) -> None:
    """No doubt in the ratings, no trust in them, and no prior to speak of."""
    dim = student.integer(2, 4)
    phi, rest = student.normal(dim + 3, dim), student.normal(dim + 3)
    m, s, noise = prior(student, dim)
    squares = torch.linalg.lstsq(phi, rest[:, None]).solution[:, 0]
    spread = torch.linalg.inv(phi.T @ phi)
    cases = {
        "the posterior with hardly any noise, which is least squares,": (
            (m, s, 1e-6),
            (squares, 1e-6 * spread),
        ),
        "the posterior under a very wide prior, which is least squares,": (
            (m, 1e5 * s, noise),
            (squares, noise * spread),
        ),
        "the posterior with nothing but noise, which is the prior,": (
            (m, s, 1e9),
            (m, s),
        ),
    }
    for what, (arguments, right) in cases.items():
        found = student.posterior(phi, rest, *arguments)
        known = mistaken(phi, rest, *arguments)
        checks.is_belief(found, right, what, known, tolerance=1e-3)


def padded(student: Student) -> tuple[Tensor, Tensor, Tensor]:
    """Users with different numbers of ratings, anything beyond; one has none."""
    dim = student.integer(2, 4)
    phi, rest = student.normal(4, 6, dim), 2 * student.normal(4, 6)
    counts = torch.tensor([student.integer(2, 5), 6, 0, student.integer(1, 4)])
    # A rating may stand anywhere in a row, not only at its beginning.
    order = torch.rand(4, 6, generator=student.random).argsort(-1)
    return phi, rest, order < counts[:, None]


def users_of_many_lengths(student: Student) -> None:
    phi, rest, mask = padded(student)
    m, s, noise = prior(student, phi.shape[2])
    right = posterior_all(phi, rest, mask, m, s, noise)
    of_each = [
        mistaken(x[own], y[own], m, s, noise)
        for x, y, own in zip(phi, rest, mask, strict=True)
    ]
    known = {
        text: [stack(ways) for ways in zip(*(of[text] for of in of_each), strict=True)]
        for text in of_each[0]
    }
    everything = torch.ones_like(mask)
    surer = posterior_all(phi, rest, everything, m, s, noise)[1]
    error = torch.where(mask, rest - phi @ m, 0.0)
    carried, belief = [], (m, s)
    for x, y, own in zip(phi, rest, mask, strict=True):
        belief = posterior(x[own], y[own], *belief, noise)
        carried.append(belief)
    together = posterior(phi[mask], rest[mask], m, s, noise)
    mistakes: dict[str, Pair | list[Pair]] = {
        checks.PADDING: [
            posterior_all(phi, rest, everything, m, s, noise),
            # The ratings were masked, but not what the prior mean expects of them.
            posterior_all(phi, torch.where(mask, rest, 0.0), everything, m, s, noise),
            posterior_all(
                torch.where(mask[..., None], phi, 0.0), rest, everything, m, s, noise
            ),
        ],
        checks.PADDING_IN_COVARIANCE: [
            (m + torch.einsum("bde,bne,bn->bd", surer, phi, error) / noise, surer),
            (right[0], surer),
        ],
        checks.CARRIED: stack(carried),
        checks.POOLED: stack([together] * 4),
        **known,
    }
    given = {"mean": m.clone(), "covariance": s.clone(), "phi": phi.clone()}
    found = student.posterior_all(
        given["phi"], rest, mask, given["mean"], given["covariance"], noise
    )
    checks.is_belief(found, right, "each of four users", mistakes)
    checks.unchanged({"mean": m, "covariance": s, "phi": phi}, given)


def gradient_agrees(
    student: Student,
    answer: Callable[..., Pair],
    reference: Callable[..., Pair],
    dim: int,
    what: str,
) -> None:
    """Compare how results move with the prior's mean and covariance and the noise."""
    m, s, noise = prior(student, dim)
    # A covariance moves symmetrically, as S = L L' does when L moves.
    factor = torch.linalg.cholesky(s)
    right = reference(m, s, noise)
    weight = [student.normal(*part.shape) for part in right]
    names = f"{what}'s first result", f"{what}'s second result"

    def gradient(function: Callable[..., Pair]) -> dict[str, Tensor]:
        own = {
            "mean": m.clone().requires_grad_(),
            "covariance": factor.clone().requires_grad_(),
            "noise": torch.tensor(noise, dtype=torch.float64, requires_grad=True),
        }
        s = own["covariance"] @ own["covariance"].T
        found = checks.two(function(own["mean"], s, own["noise"]), names)
        for part, expected, name in zip(found, right, names, strict=True):
            number = tensor_of_shape(part, tuple(expected.shape), name)
            if not checks.agree(number, expected, 1e-5):
                raise Wrong(
                    f"{name} is wrong as a number, so its gradient cannot be right: "
                    "the checks above say more"
                )
        parts = [part for part in found if isinstance(part, Tensor)]
        if len(parts) < 2 or not all(part.requires_grad for part in parts):
            raise Wrong(f"{what} {checks.DETACHED}")
        sums = [(part * by).sum() for part, by in zip(parts, weight, strict=True)]
        slopes = torch.autograd.grad(sums, list(own.values()), allow_unused=True)
        for name, slope in zip(own, slopes, strict=True):
            if slope is None:
                raise Wrong(
                    f"no gradient flows from {what} to `{name}`, which is meta-learned "
                    "through it: was it detached, or made a float or an array?"
                )
        return dict(zip(own, slopes, strict=True))

    the_same_mapping(
        gradient(answer),
        gradient(reference),
        f"the gradient of a function of {what}",
        tolerance=1e-4,
    )


def path_to_the_prior(student: Student) -> None:
    phi, rest, mask = padded(student)

    def of(answer: Callable[..., Pair]) -> Callable[..., Pair]:
        return lambda *belief: answer(phi, rest, mask, *belief)

    student_answer = of(student.posterior_all)
    dim = phi.shape[2]
    gradient_agrees(student, student_answer, of(posterior_all), dim, "the posterior")


def many_films(student: Student) -> None:
    users, films, dim = student.integer(2, 4), student.integer(4, 6), 3
    phi, offset = student.normal(users, films, dim), 3 + student.normal(users, films)
    beliefs = [prior(student, dim) for _ in range(users)]
    means = torch.stack([m for m, _, _ in beliefs])
    covariances = torch.stack([s for _, s, _ in beliefs])
    noise = beliefs[0][2]
    right = predictive(phi, offset, means, covariances, noise)
    own = right[1] - noise
    first = predictive(phi, offset, means[:1], covariances[:1], noise)
    diagonal = covariances.diagonal(dim1=-2, dim2=-1)
    names = "the predicted ratings", "their variances"
    found = checks.two(
        student.predictive(phi, offset, means, covariances, noise), names
    )
    checks.equals(
        found[0],
        right[0],
        names[0],
        {
            checks.NO_OFFSET: right[0] - offset,
            "all users got the first one's weights": first[0],
        },
    )
    checks.equals(
        tensor_of_shape(found[1], (users, films), checks.ONE_EACH),
        right[1],
        "the predictive variances",
        {
            checks.WITHOUT_NOISE: own,
            checks.ROOT: [right[1].sqrt(), own.sqrt(), own.sqrt() + noise**0.5],
            checks.SIGMA_ADDED: [own + noise**0.5, own + noise**2],
            checks.PER_WEIGHT: (phi.square() * diagonal[:, None]).sum(-1) + noise,
            "all users got the first one's covariance": first[1],
        },
    )


def path_to_the_posterior(student: Student) -> None:
    phi, offset = student.normal(1, 4, 3), student.normal(1, 4)

    def of(answer: Callable[..., Pair]) -> Callable[..., Pair]:
        return lambda m, s, n: answer(phi, offset, m[None], s[None], n)

    student_answer = of(student.predictive)
    gradient_agrees(student, student_answer, of(predictive), 3, "the predictive")


def intervals_and_their_coverage(student: Student) -> None:
    level = (0.5, 0.8, 0.95)[student.integer(0, 2)]
    mean, variance = 3 + student.normal(3, 4), 0.1 + student.normal(3, 4).square()
    sides = {
        checks.VARIANCE_AS_WIDTH: variance * quantile((1 + level) / 2),
        checks.ONE_SIDED: variance.sqrt() * quantile(level),
        checks.NO_QUANTILE: variance.sqrt(),
    }
    names = "the low ends", "the high ends"
    found = checks.two(student.interval(mean, variance, level), names)
    right = interval(mean, variance, level)
    for n, sign in enumerate((-1, 1)):
        known = {text: mean + sign * half for text, half in sides.items()}
        checks.equals(found[n], right[n], names[n], known)

    # Ratings that a Gaussian with these variances did not make: wider tails.
    mean, variance = student.normal(400), 0.1 + student.normal(400).square()
    rating = mean + 1.5 * variance.sqrt() * student.normal(400)
    z = quantile((1 + level) / 2)
    away = (rating - mean).abs()
    inside = share(away <= z * variance.sqrt())
    found = student.coverage(mean, variance, rating, level)
    checks.equals(
        found,
        inside,
        "the coverage",
        {
            "this is the number of ratings inside: the share is asked": 400 * inside,
            "this is a percentage: the share is a number from 0 to 1": 100 * inside,
            "this is the share of ratings outside": 1 - inside,
            checks.VARIANCE_AS_WIDTH: share(away <= z * variance),
            checks.ONE_SIDED: share(away <= quantile(level) * variance.sqrt()),
            "only one end of the interval was looked at": [
                share(rating - mean <= z * variance.sqrt()),
                share(mean - rating <= z * variance.sqrt()),
            ],
            "this is the level that was promised: count the ratings inside": level,
        },
        tolerance=1e-6,
    )


def changed_updates(
    phi: Tensor, rest: Tensor, m: Tensor, s: Tensor, noise: float
) -> dict[str, Pair | list[Pair]]:
    """What known mistakes make of one update."""
    right = update(phi, rest, m, s, noise)
    step, fall = right[0] - m, s - right[1]
    nothing = torch.zeros_like(m)
    surprise = rest - phi @ m
    c_phi = s @ phi
    bold = c_phi / (phi @ c_phi)
    late = right[1] @ phi / (noise + phi @ right[1] @ phi)
    return {
        checks.FROZEN: (right[0], s),
        checks.STILL: (m, s),
        checks.SIGN: (m - step, s + fall),
        checks.NO_SURPRISE: (
            m + update(phi, rest, nothing, s, noise)[0],
            right[1],
        ),
        checks.NO_NOISE_IN_GAIN: (m + bold * surprise, s - torch.outer(bold, c_phi)),
        checks.NEW_IN_GAIN: [
            (m + late * surprise, right[1]),
            (m + late * surprise, s - torch.outer(late, c_phi)),
        ],
        checks.SIGMA: [
            update(phi, rest, m, s, noise**2),
            update(phi, rest, m, s, noise**0.5),
        ],
        checks.PRECISION: (right[0], torch.linalg.inv(right[1])),
    }


def one_update(student: Student) -> None:
    for dim in (1, student.integer(3, 5)):
        m, s, noise = prior(student, dim)
        phi, rest = student.normal(dim), 2 * student.normal(1)[0]
        given = {"mean": m.clone(), "covariance": s.clone()}
        found = student.update(phi, rest, *given.values(), noise)
        checks.is_belief(
            found,
            update(phi, rest, m, s, noise),
            "the belief after one rating",
            changed_updates(phi, rest, m, s, noise),
        )
        checks.unchanged({"mean": m, "covariance": s}, given)


def one_by_one(student: Student) -> None:
    """Many updates, in two orders, against the posterior from all ratings."""
    n, dim = student.integer(5, 8), student.integer(3, 4)
    m, s, noise = prior(student, dim)
    phi, rest = student.normal(n, dim), 2 * student.normal(n)
    right = posterior(phi, rest, m, s, noise)
    found = student.update(phi[0], rest[0], m.clone(), s.clone(), noise)
    first = update(phi[0], rest[0], m, s, noise)
    found = checks.two(found, ("the new mean", "the new covariance"))
    known = changed_updates(phi[0], rest[0], m, s, noise)
    what = "the belief after the first of many ratings"
    checks.is_belief(found, first, what, known)
    for order, name in ((range(n), "in order"), (reversed(range(n)), "in reverse")):
        belief, frozen = (m.clone(), s.clone()), m
        for k in order:
            found = student.update(phi[k], rest[k], *belief, noise)
            parts = checks.two(found, ("the new mean", "the new covariance"))
            belief = (
                tensor_of_shape(parts[0], (dim,), "the new mean"),
                tensor_of_shape(parts[1], (dim, dim), "the new covariance"),
            )
            frozen = update(phi[k], rest[k], frozen, s, noise)[0]
        checks.is_belief(
            belief,
            right,
            f"the belief after {n} ratings one by one, {name}, which must be the "
            "posterior from all at once,",
            {checks.FROZEN: (frozen, s)},
        )


def questions(student: Student) -> tuple[Tensor, Tensor, Tensor, float]:
    """Films, targets, a belief and a noise with which the mistakes choose otherwise."""
    while True:
        dim = student.integer(3, 4)
        phi, target = student.normal(7, dim), student.normal(9, dim)
        _, s, noise = prior(student, dim)
        value = worth(phi, target, s, noise)
        most, second = value.topk(2)[0]
        variance = ((phi @ s) * phi).sum(-1)
        if most > 1.02 * second and variance.argmax() != value.argmax():
            return phi, target, s, noise


def worth_of_many(student: Student) -> None:
    phi, target, s, noise = questions(student)
    right = worth(phi, target, s, noise)
    cross, own = target @ s @ phi.T, ((phi @ s) * phi).sum(-1)
    left = ((target @ s) * target).sum(-1).mean() - right
    checks.equals(
        student.worth(phi, target, s, noise),
        right,
        "the worth of each question",
        {
            checks.SUM: len(target) * right,
            checks.LARGEST_VARIANCE: [own, own + noise],
            checks.OWN_FALL: own.square() / (noise + own),
            checks.NOT_SQUARED: cross.mean(0) / (noise + own),
            checks.NO_NOISE_IN_WORTH: cross.square().mean(0) / own,
            checks.OVER_THE_QUESTIONS: worth(phi, phi, s, noise),
            checks.MEAN_FIRST: cross.mean(0).square() / (noise + own),
            checks.SIGMA: [
                worth(phi, target, s, noise**2),
                worth(phi, target, s, noise**0.5),
            ],
            "the variance goes down and a fall is positive: before minus after": -right,
            "this is the variance after the answer: its fall is asked": left,
        },
    )


def follows_from_worth(
    student: Student,
    found: object,
    about: tuple[Tensor, Tensor, Tensor, float],
    asked: list[int],
    right: int,
) -> bool:
    """Whether a wrong question is the best one by the student's own, wrong, worth."""
    own = tensor_of_shape(student.worth(*about), (len(about[0]),), "the worth")
    if checks.agree(own, worth(*about), 1e-5) or checks.agree(found, right, 1e-5):
        return False
    own[asked] = -torch.inf
    return checks.agree(found, float(own.argmax()), 1e-5)


def next_of_many(student: Student) -> None:
    phi, target, s, noise = questions(student)
    value = worth(phi, target, s, noise)
    largest = int(((phi @ s) * phi).sum(-1).argmax())
    best, second = value.topk(2)[1].tolist()
    least = int(value.argmin())
    for asked in ([], [best], [second, best]):
        given = list(asked)
        found = student.ask_next(phi, target, s, noise, given)
        right = ask_next(phi, target, s, noise, asked)
        known = {
            checks.ASKED_AGAIN: [float(row) for row in asked],
            checks.LARGEST_VARIANCE: float(largest),
            checks.SMALLEST: float(least),
        }
        what = f"the next question, when {asked or 'nothing'} was asked,"
        if follows_from_worth(student, found, (phi, target, s, noise), asked, right):
            raise Wrong(
                f"{what} has the largest of your `worth`, but `worth` is wrong: the "
                "checks above say more"
            )
        checks.equals(found, right, what, known)
        if given != asked:
            raise Wrong("the list `asked` was changed: it belongs to who calls")


PART_1 = checks.PART_1.with_check(
    "users with few ratings and with many", 3, one_user
).with_check("hardly any noise, a wide prior, nothing but noise", 1, limits)
PART_2 = (
    checks.PART_2.with_given(posterior=posterior)
    .with_check("users with different numbers of ratings", 2, users_of_many_lengths)
    .with_check("the gradient with respect to the prior", 2, path_to_the_prior)
)
PART_3 = (
    checks.PART_3.with_given(posterior=posterior, posterior_all=posterior_all)
    .with_check("predictions for several users", 1, many_films)
    .with_check("the gradient of a prediction", 1, path_to_the_posterior)
    .with_check("intervals, and their coverage", 2, intervals_and_their_coverage)
)
PART_4 = (
    checks.PART_4.with_given(
        posterior=posterior, posterior_all=posterior_all, predictive=predictive
    )
    .with_check("one rating, on other numbers", 2, one_update)
    .with_check("one by one, in any order, is all at once", 2, one_by_one)
)
PART_5 = (
    checks.PART_5.with_given(
        posterior=posterior,
        posterior_all=posterior_all,
        predictive=predictive,
        update=update,
    )
    .with_check("what many questions are worth", 2, worth_of_many)
    .with_check("the next of many questions", 2, next_of_many)
)
