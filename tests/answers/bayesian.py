"""Answers to the assignment on Bayesian personalisation."""

from answers import Answer

POSTERIOR = "def posterior(phi, rest, mean, covariance, noise):\n"
ALL = "def posterior_all(phi, rest, mask, mean, covariance, noise):\n"
PREDICTIVE = "def predictive(phi, offset, mean, covariance, noise):\n"
UPDATE = "def update(phi, rest, mean, covariance, noise):\n"
WORTH = "def worth(phi, target, covariance, noise):\n"
ASK = "def ask_next(phi, target, covariance, noise, asked):\n"

WRONG = {
    "least squares": Answer(
        cells={
            "posterior": POSTERIOR
            + """\
    after = noise * torch.linalg.pinv(phi.T @ phi)
    return torch.linalg.pinv(phi) @ rest, after
"""
        },
        loses=("part-1",),
        says="prior precision was forgotten: this is least squares",
    ),
    "ridge with an identity matrix": Answer(
        edits={
            "posterior": ("torch.linalg.inv(covariance)", "torch.eye(len(mean))"),
        },
        loses=("part-1",),
        says="prior precision was forgotten: this is ridge.*identity",
    ),
    "ridge as in a textbook": Answer(
        cells={
            "posterior": POSTERIOR
            + """\
    after = torch.linalg.inv(phi.T @ phi + torch.eye(len(mean)))
    return mean + after @ phi.T @ (rest - phi @ mean), after
"""
        },
        loses=("part-1",),
        says="prior precision was forgotten: this is ridge.*identity",
    ),
    "prior covariance added as if a precision": Answer(
        edits={"posterior": ("torch.linalg.inv(covariance)", "covariance")},
        loses=("part-1",),
        says="taken for a precision",
    ),
    "precision in place of covariance": Answer(
        edits={"posterior": ("/ noise, after", "/ noise, precision")},
        loses=("part-1",),
        says="this is the posterior precision",
    ),
    "sigma for sigma squared": Answer(
        edits={
            "posterior": (
                "    precision",
                "    noise = noise**2\n    precision",
            )
        },
        loses=("part-1",),
        says="variance sigma\\^2 already",
    ),
    "noise forgotten": Answer(
        cells={
            "posterior": POSTERIOR
            + """\
    after = torch.linalg.inv(torch.linalg.inv(covariance) + phi.T @ phi)
    return mean + after @ phi.T @ (rest - phi @ mean), after
"""
        },
        loses=("part-1",),
        says="noise was left out",
    ),
    "step not divided by the noise": Answer(
        edits={"posterior": ("(rest - phi @ mean) / noise", "(rest - phi @ mean)")},
        loses=("part-1",),
        says="noise is missing in it",
    ),
    "prior mean forgotten": Answer(
        cells={
            "posterior": POSTERIOR
            + """\
    after = torch.linalg.inv(torch.linalg.inv(covariance) + phi.T @ phi / noise)
    return after @ phi.T @ rest / noise, after
"""
        },
        loses=("part-1",),
        says="prior mean was forgotten",
    ),
    "prior mean not subtracted": Answer(
        edits={"posterior": ("(rest - phi @ mean)", "rest")},
        loses=("part-1",),
        says="counts\\s+twice",
    ),
    "sign of the step": Answer(
        edits={"posterior": ("return mean +", "return mean -")},
        loses=("part-1",),
        says="the sign",
    ),
    "covariance first": Answer(
        cells={
            "posterior": POSTERIOR
            + """\
    after = torch.linalg.inv(torch.linalg.inv(covariance) + phi.T @ phi / noise)
    return after, mean + after @ phi.T @ (rest - phi @ mean) / noise
"""
        },
        loses=("part-1",),
        says="the mean of the posterior should have the shape",
    ),
    "padding counted": Answer(
        cells={
            "posterior-all": ALL
            + """\
    after = torch.linalg.inv(torch.linalg.inv(covariance) + phi.mT @ phi / noise)
    step = torch.einsum("bde,bne,bn->bd", after, phi, rest - phi @ mean) / noise
    return mean + step, after
"""
        },
        loses=("part-2",),
        says="padding was counted",
    ),
    "padding counted in the covariance": Answer(
        edits={
            "posterior-all": (
                "    phi = torch.where(mask[..., None], phi, 0.0)\n",
                "",
            )
        },
        loses=("part-2",),
        says="padding was counted in the covariance",
    ),
    "all ratings in one posterior": Answer(
        cells={
            "posterior-all": ALL
            + """\
    w, after = posterior(phi[mask], rest[mask], mean, covariance, noise)
    return w.expand(len(phi), -1), after.expand(len(phi), -1, -1)
"""
        },
        loses=("part-2",),
        says="all users were put together",
    ),
    "posterior carried to the next user": Answer(
        cells={
            "posterior-all": ALL
            + """\
    means, covariances = [], []
    for x, y, own in zip(phi, rest, mask):
        mean, covariance = posterior(x[own], y[own], mean, covariance, noise)
        means.append(mean)
        covariances.append(covariance)
    return torch.stack(means), torch.stack(covariances)
"""
        },
        loses=("part-2",),
        says="same\\s+prior",
    ),
    "prior mean forgotten for all": Answer(
        edits={"posterior-all": ("return mean + step", "return step")},
        loses=("part-2",),
        says="add m to it",
    ),
    "noise made a float": Answer(
        edits={
            "posterior-all": (
                "    phi = torch.where",
                "    noise = float(noise)\n    phi = torch.where",
            )
        },
        loses=("part-2",),
        says="no gradient flows from the posterior to `noise`",
    ),
    "batch detached": Answer(
        edits={
            "posterior-all": (
                "return mean + step, after",
                "return (mean + step).detach(), after.detach()",
            )
        },
        loses=("part-2",),
        says="detached",
    ),
    "predictive without the noise": Answer(
        edits={"predictive": (" + noise", "")},
        loses=("part-3",),
        says="without\\s+the noise",
    ),
    "sigma added": Answer(
        edits={"predictive": ("+ noise", "+ noise**0.5")},
        loses=("part-3",),
        says="neither squared nor its\\s+root",
    ),
    "predictive standard deviation": Answer(
        cells={
            "predictive": PREDICTIVE
            + """\
    score = offset + torch.einsum("bnd,bd->bn", phi, mean)
    variance = torch.einsum("bnd,bde,bne->bn", phi, covariance, phi) + noise
    return score, variance.sqrt()
"""
        },
        loses=("part-3",),
        says="this is the standard deviation",
    ),
    "diagonal of the covariance": Answer(
        cells={
            "predictive": PREDICTIVE
            + """\
    score = offset + torch.einsum("bnd,bd->bn", phi, mean)
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    return score, torch.einsum("bnd,bd->bn", phi**2, diagonal) + noise
"""
        },
        loses=("part-3",),
        says="only the diagonal",
    ),
    "covariances between films": Answer(
        edits={
            "predictive": (
                'torch.einsum("bnd,bde,bne->bn", phi, covariance, phi)',
                "phi @ covariance @ phi.mT",
            )
        },
        loses=("part-3",),
        says="one for each film and user",
    ),
    "variance as the width": Answer(
        edits={"interval": ("variance.sqrt()", "variance")},
        loses=("part-3",),
        says="variance was taken for the standard deviation",
    ),
    "one-sided quantile": Answer(
        edits={"interval": ("(1 + level) / 2", "level")},
        loses=("part-3",),
        says="on each side",
    ),
    "coverage counts": Answer(
        edits={"interval": (".double().mean()", ".double().sum()")},
        loses=("part-3",),
        says="number of ratings inside",
    ),
    "coverage of one side": Answer(
        edits={"interval": ("(low <= rating) & (rating <= high)", "rating <= high")},
        loses=("part-3",),
        says="one end of the interval",
    ),
    "covariance not updated": Answer(
        edits={"update": ("covariance - torch.outer(gain, c_phi)", "covariance")},
        loses=("part-4",),
        says="covariance was not updated",
    ),
    "sign of the update": Answer(
        edits={"update": ("covariance - torch", "covariance + torch")},
        loses=("part-4",),
        says="the sign",
    ),
    "rating in place of surprise": Answer(
        edits={"update": ("(rest - phi @ mean)", "rest")},
        loses=("part-4",),
        says="surprise",
    ),
    "gain without noise": Answer(
        edits={"update": ("(noise + phi @ c_phi)", "(phi @ c_phi)")},
        loses=("part-4",),
        says="noise is missing in the gain",
    ),
    "gain of the new covariance": Answer(
        cells={
            "update": UPDATE
            + """\
    c_phi = covariance @ phi
    covariance = covariance - torch.outer(c_phi, c_phi) / (noise + phi @ c_phi)
    gain = covariance @ phi / (noise + phi @ covariance @ phi)
    return mean + gain * (rest - phi @ mean), covariance
"""
        },
        loses=("part-4",),
        says="new covariance",
    ),
    "update in place": Answer(
        cells={
            "update": UPDATE
            + """\
    c_phi = covariance @ phi
    gain = c_phi / (noise + phi @ c_phi)
    mean += gain * (rest - phi @ mean)
    covariance -= torch.outer(gain, c_phi)
    return mean, covariance
"""
        },
        loses=("part-4",),
        says="in place",
    ),
    "worth is the variance": Answer(
        cells={
            "worth": WORTH
            + """\
    return ((phi @ covariance) * phi).sum(-1) + noise


"""
            + ASK
            + """\
    value = worth(phi, target, covariance, noise).clone()
    value[asked] = -torch.inf
    return int(value.argmax())
"""
        },
        loses=("part-5",),
        says="largest variance",
    ),
    "asks for the largest variance": Answer(
        edits={
            "worth": (
                "value = worth(phi, target, covariance, noise).clone()",
                "value = ((phi @ covariance) * phi).sum(-1)",
            )
        },
        loses=("part-5",),
        says="largest variance",
    ),
    "sum over the targets": Answer(
        edits={"worth": (".mean(0)", ".sum(0)")},
        loses=("part-5",),
        says="sum over the targets",
    ),
    "mean over the questions": Answer(
        edits={"worth": ("(target @ c_phi.T)", "(phi @ c_phi.T)")},
        loses=("part-5",),
        says="should run over the\\s+targets",
    ),
    "worth without the square": Answer(
        edits={"worth": (".square()", "")},
        loses=("part-5",),
        says="squared",
    ),
    "worth without noise": Answer(
        edits={"worth": ("(noise + own)", "own")},
        loses=("part-5",),
        says="noise is missing in the denominator",
    ),
    "asks again": Answer(
        edits={"worth": ("    value[asked] = -torch.inf\n", "")},
        loses=("part-5",),
        says="asked about already",
    ),
    "asks for the least": Answer(
        edits={
            "worth": (
                "    value[asked] = -torch.inf\n    return int(value.argmax())",
                "    value[asked] = torch.inf\n    return int(value.argmin())",
            )
        },
        loses=("part-5",),
        says="worth least",
    ),
}

UNUSUAL = {
    "the space of the ratings, and vmap": Answer(
        cells={
            "posterior": POSTERIOR
            + """\
    K = phi @ covariance @ phi.T + noise * torch.eye(len(phi))
    G = covariance @ phi.T @ torch.linalg.inv(K)
    return [mean + G @ (rest - phi @ mean), covariance - G @ phi @ covariance]
""",
            "posterior-all": ALL
            + """\
    def one(x, y, own):
        x, y = x * own[:, None], y * own
        K = x @ covariance @ x.T + noise * torch.eye(len(y))
        G = torch.linalg.solve(K, x @ covariance).T
        return mean + G @ (y - x @ mean), covariance - G @ x @ covariance

    return torch.func.vmap(one)(phi, rest, mask)
""",
            "predictive": PREDICTIVE
            + """\
    def film(x, b, w, C):
        return b + x @ w, x @ C @ x + noise

    of_user = torch.func.vmap(film, in_dims=(0, 0, None, None))
    return torch.func.vmap(of_user)(phi, offset, mean, covariance)
""",
        }
    ),
    "rating by rating, in a class": Answer(
        cells={
            "posterior": """\
class Belief:
    def __init__(self, mean, covariance, noise):
        self.mean, self.covariance, self.noise = mean, covariance, noise

    def hear(self, phi, rest):
        gain = self.covariance @ phi / (phi @ self.covariance @ phi + self.noise)
        keep = torch.eye(len(phi)) - torch.outer(gain, phi)
        self.mean = keep @ self.mean + gain * rest
        # Joseph's form: symmetric and positive whatever the rounding.
        self.covariance = keep @ self.covariance @ keep.T
        self.covariance = self.covariance + self.noise * torch.outer(gain, gain)
        return self


def posterior(phi, rest, mean, covariance, noise):
    belief = Belief(mean, covariance, noise)
    for row, value in zip(phi, rest):
        belief.hear(row, value)
    return belief.mean, belief.covariance
""",
            "posterior-all": ALL
            + """\
    pairs = [
        posterior(x[own], y[own], mean, covariance, noise)
        for x, y, own in zip(phi, rest, mask)
    ]
    return tuple(torch.stack(part) for part in zip(*pairs))
""",
            "update": """\
update = lambda phi, rest, mean, covariance, noise: posterior(
    phi[None], rest[None], mean, covariance, noise
)
""",
        }
    ),
    "numpy where no gradient is asked": Answer(
        cells={
            "posterior": """\
import numpy as np


def posterior(phi, rest, mean, covariance, noise):
    phi, rest, m, S = (t.numpy() for t in (phi, rest, mean, covariance))
    L = np.linalg.cholesky(S)
    rows = np.concatenate([phi / noise**0.5, np.linalg.inv(L)])
    aims = np.concatenate([rest / noise**0.5, np.linalg.inv(L) @ m])
    Q, R = np.linalg.qr(rows)
    inverse = np.linalg.inv(R)
    return inverse @ (Q.T @ aims), inverse @ inverse.T
""",
            "interval": """\
def interval(mean, variance, level):
    normal = torch.distributions.Normal(mean, variance**0.5)
    return [normal.icdf(torch.tensor(p)) for p in ((1 - level) / 2, (1 + level) / 2)]


def coverage(mean, variance, rating, level):
    low, high = interval(mean, variance, level)
    low, high, rating = (t.numpy() for t in (low, high, rating))
    return np.mean(np.logical_and(rating >= low, rating <= high))
""",
            "worth": """\
def worth(phi, target, covariance, noise):
    phi, target, C = phi.numpy(), target.numpy(), covariance.numpy()
    fall = [np.mean((target @ C @ x) ** 2) / (noise + x @ C @ x) for x in phi]
    return fall


def ask_next(phi, target, covariance, noise, asked):
    value = worth(phi, target, covariance, noise)
    return max(set(range(len(value))) - set(asked), key=lambda n: value[n])
""",
        }
    ),
    "Cholesky, masks as weights, questions tried out": Answer(
        cells={
            "posterior-all": ALL
            + """\
    weight = mask.double() / noise
    one = torch.eye(phi.shape[-1]).expand(len(phi), -1, -1)
    gram = torch.einsum("bn,bnd,bne->bde", weight, phi, phi)
    prior = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    root = torch.linalg.cholesky(prior + gram)
    pull = prior @ mean + torch.einsum("bn,bnd,bn->bd", weight, phi, rest)
    found = torch.cholesky_solve(pull[..., None], root)[..., 0]
    return found, torch.cholesky_solve(one, root)
""",
            "predictive": PREDICTIVE
            + """\
    root = phi @ torch.linalg.cholesky(covariance)
    return (phi * mean[:, None]).sum(-1) + offset, noise + (root**2).sum(-1)
""",
            "worth": WORTH
            + """\
    def spread(C):
        return (target @ C * target).sum(1).mean()

    fall = torch.zeros(len(phi))
    for i, film in enumerate(phi):
        _, after = update(film, torch.tensor(0.0), 0 * film, covariance, noise)
        fall[i] = spread(covariance) - spread(after)
    return fall


"""
            + ASK
            + """\
    value = worth(phi, target, covariance, noise)
    order = value.argsort(descending=True, stable=True)
    return next(row for row in order if row.item() not in asked)
""",
        }
    ),
}
