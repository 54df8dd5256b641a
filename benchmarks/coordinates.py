"""What an inner rate has to do with the coordinates that it works in.

    python benchmarks/coordinates.py

One model in four coordinates: the item vectors of the Gaussian model as they are,
turned by a random rotation, stretched by factors from 1/3 to 3, and stretched then
turned. In each, a start and an inner rate of three kinds are learned: one number
(MAML), one for each weight (Meta-SGD), a full matrix; on the vectors as they are also
one number times the correlations of the users' weights. All rows of a fold and a seed
see the same batches and are trained side by side, with the arithmetic of the package; a
test compares the two. What is validated and kept is an average over steps. Training
runs for all its epochs and goes back to the best on validation users; "short" is the
same run, stopped after 3 epochs without a better one, 12 at most. A seed is that of the
batches and of the rotation. Last, the rates where the outer loop draws one support size
only, and for users drawn from the Gaussian model. Writes
benchmarks/results/coordinates.csv and coordinates_rates.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metarec.data import RatingData, load_movielens_100k, synthetic_population
from metarec.evaluation import write_table
from metarec.factors import GaussianFactorModel, cross_fit
from metarec.features import item_features
from metarec.metrics import paired_bootstrap, user_rmse
from metarec.tasks import Examples, Tasks, TaskSampler, UserHistories, split_users

SIZES = (0, 1, 3, 5, 10, 15)
TRAINED_ON = (1, 2, 3, 5, 10, 15)
START, STEPS, LEARNING_RATE = 0.005, 5, 0.02
AVERAGE = 0.98  # of the weights over steps: what is validated and kept
LONG, SHORT = 40, (12, 3)  # epochs; epochs and patience
ONE, EACH, FULL, SHAPED = SCALES = (
    "one number",
    "one for each weight",
    "full matrix",
    "one number x correlations",
)
AS_ARE = "as they are"


def coordinates(seed: int) -> dict[str, Tensor]:
    """What the item vectors are multiplied by, by name."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))
    stretch = np.diag(np.geomspace(1 / 3, 3, 8))
    every = {AS_ARE: np.eye(8), "turned": turn, "stretched": stretch}
    every["stretched, then turned"] = stretch @ turn.T
    return {name: torch.from_numpy(matrix).float() for name, matrix in every.items()}


class Fold:
    """A fold of the users, and the item vectors that its training users give."""

    def __init__(self, data: RatingData, number: int) -> None:
        self.histories = UserHistories(data)
        self.split = split_users(data.n_users, number)
        known = self.histories, self.split.train
        self.gauss = GaussianFactorModel.fit(*known, features=item_features(data))
        self.gauss.choose_temper(self.histories, self.split.validation)
        self.warm = cross_fit(self.gauss, *known)
        covariance = self.gauss.user_covariance
        self.tau2, self.sigma2 = covariance[-1, -1].float(), self.gauss.noise.float()
        spread = covariance.diag().rsqrt()
        self.correlations = (covariance * spread[:, None] * spread).float()

    def features(self, x: Tensor) -> Tensor:
        """``[q_i, 1]`` of the vectors as they are."""
        q = self.warm.factors[x]
        return torch.cat([q, torch.ones_like(q[..., :1])], -1)

    def batches(self, sizes: Iterable[int], kind: str) -> TaskSampler:
        """Meta-batches of the training users; a drawn one is new to the table."""
        users = self.histories.usable(self.split.train)
        rows = self.warm.item_rows if kind == "real" else None
        return TaskSampler(self.histories, users, tuple(sizes), 64, rows)

    def drawn(self, tasks: Tasks, generator: torch.Generator, kind: str) -> Tasks:
        """The same films, rated by users from a Gaussian, with noise sigma^2."""
        w = torch.randn(len(tasks.user), 9, generator=generator) * self.tau2.sqrt()
        if kind == "drawn, correlated":
            w = w @ torch.linalg.cholesky(self.correlations).T
        w[:, -1] += self.warm.mean_bias

        def rated(part: Examples) -> Examples:
            noise = torch.randn(part.x.shape, generator=generator) * self.sigma2.sqrt()
            score = torch.einsum("bnd,bd->bn", self.features(part.x), w)
            return replace(part, y=self.warm.offset[part.x] + score + noise)

        return replace(tasks, support=rated(tasks.support), query=rated(tasks.query))


@dataclass
class Rows:
    """Meta-learners for a linear head, one for each row; axis 0 is theirs."""

    scales: list[str]
    mix: Tensor  # (R, 9, 9)
    start: Tensor  # (R, 9)
    logs: Tensor  # (R, 9)
    lower: Tensor  # (R, 9, 9)
    shape: Tensor  # (9, 9), a factor of the correlations

    @classmethod
    def of(cls, fold: Fold, rows: list[tuple[Tensor, str]]) -> Rows:
        """All at the same start: the mean of the users, one small rate."""
        one = torch.ones(1, 1)
        back = torch.stack([torch.block_diag(matrix, one) for matrix, _ in rows])
        start = torch.zeros(len(rows), 9)
        start[:, -1] = fold.warm.mean_bias
        logs = torch.full((len(rows), 9), START).log()
        root = torch.linalg.cholesky(fold.correlations)
        names = [name for _, name in rows]
        return cls(names, back, start, logs, torch.zeros_like(back), root)

    def is_of(self, *scales: str) -> Tensor:
        """Which rows are of these kinds, (R, 1)."""
        return torch.tensor([[name in scales] for name in self.scales])

    def root(self) -> Tensor:
        """C of each rate matrix ``A = C C'``, (R, 9, 9)."""
        logs = torch.where(self.is_of(EACH, FULL), self.logs, self.logs[:, :1])
        one = torch.eye(9) + self.lower.tril(-1) * self.is_of(FULL)[..., None]
        root = one * (0.5 * logs).exp()[:, None, :]
        return torch.where(self.is_of(SHAPED)[..., None], self.shape @ root, root)

    def adapt(self, fold: Fold, support: Examples) -> Tensor:
        """Weights of each row's copy of each task, (R, B, 9)."""
        phi = fold.features(support.x) * support.mask[..., None]  # (B, K, 9)
        left = torch.where(support.mask, support.y - fold.warm.offset[support.x], 0.0)
        mix, root = self.mix, self.root()
        hessian = torch.einsum(
            "rdi,bde,rej->rbij", mix, phi.mT @ phi, mix
        )  # (R, B, 9, 9)
        pull = torch.einsum("bnd,bn,rdi->rbi", phi, left, mix)
        rate = root @ root.mT
        trace = torch.einsum("rij,rbji->rb", rate.detach(), hessian)
        share = torch.ones_like(trace)
        if (over := trace > 1.5).any():
            r = over.nonzero()[:, 0]
            spread = root[r].mT @ hessian[over] @ root[r]
            largest = torch.linalg.eigvalsh(spread)[:, -1]
            share = share.masked_scatter(
                over, (largest / 1.5).clamp(min=1).reciprocal()
            )
        w = self.start[:, None].expand_as(pull)
        for _ in range(STEPS):
            slope = (hessian @ w[..., None])[..., 0] - pull
            w = w - share[..., None] * (slope @ rate.mT)
        return w

    def predict(self, fold: Fold, tasks: Tasks) -> Tensor:
        """Scores of the query, (R, B, N)."""
        w = self.adapt(fold, tasks.support) @ self.mix.mT
        return fold.warm.offset[tasks.query.x] + torch.einsum(
            "bnd,rbd->rbn", fold.features(tasks.query.x), w
        )

    @torch.no_grad()
    def errors(self, fold: Fold, users: Tensor, k: int) -> Tensor:
        """RMSE of each user, (R, U), as the protocol for new users has it."""
        tasks = fold.histories.tasks(fold.histories.usable(users), k)
        stars = self.predict(fold, tasks).clamp(1, 5)
        query = tasks.query
        return torch.stack([user_rmse(row, query.y, query.mask) for row in stars])

    def train(
        self,
        fold: Fold,
        seed: int,
        epochs: int,
        sizes: Iterable[int] = TRAINED_ON,
        kind: str = "real",
    ) -> None:
        """Adam on the meta-loss; every epoch is kept, with its validation score."""
        learned = [self.start, self.logs, self.lower]
        optimizer = torch.optim.Adam(learned, lr=LEARNING_RATE)
        generator = torch.Generator().manual_seed(seed)
        self.epochs: list[list[Tensor]] = []
        scores = []
        average = [part.clone() for part in learned]
        for part in learned:
            part.requires_grad_()
        for _ in range(epochs):
            for tasks in fold.batches(sizes, kind)(generator):
                if kind != "real":
                    tasks = fold.drawn(tasks, generator, kind)
                query = tasks.query
                error = (self.predict(fold, tasks) - query.y) * query.mask
                loss = 0.5 * error.square().sum(-1) / query.mask.sum(-1)
                optimizer.zero_grad()
                loss.mean(-1).sum().backward()
                norm = sum(part.grad.flatten(1).square().sum(1) for part in learned)
                clip = (10 / norm.sqrt()).clamp(max=1)
                for part in learned:
                    part.grad.mul_(clip.view(-1, *[1] * (part.dim() - 1)))
                optimizer.step()
                for mean, part in zip(average, learned, strict=True):
                    mean.lerp_(part.detach(), 1 - AVERAGE)
            self.epochs.append([mean.clone() for mean in average])
            self.start, self.logs, self.lower = average
            found = [self.errors(fold, fold.split.validation, k) for k in SIZES[1:]]
            scores.append(torch.cat(found, 1).mean(1))
            self.start, self.logs, self.lower = learned
        self.scores = torch.stack(scores)  # (epochs, R)

    def back_to(self, epochs: Tensor) -> None:
        """Every row as it was after an epoch of its own."""
        rows = range(len(self.scales))
        for n, name in enumerate(("start", "logs", "lower")):
            kept = [
                self.epochs[at][n][row] for row, at in zip(rows, epochs, strict=True)
            ]
            setattr(self, name, torch.stack(kept))

    def best(self, short: bool) -> Tensor:
        """The epoch that each row goes back to, (R,)."""
        found = []
        for score in self.scores.T:
            best = 0
            for epoch, value in enumerate(score[: SHORT[0]] if short else score):
                if short and epoch - best > SHORT[1]:
                    break
                best = epoch if value <= score[best] else best
            found.append(best)
        return torch.tensor(found)


def run(data: RatingData, folds: int, seeds: int, epochs: int):
    """Errors of all users, and the rates by what they were trained on."""
    errors, rates = [], []
    for number in range(folds):
        fold = Fold(data, number)
        users = fold.histories.usable(fold.split.test)
        for seed in range(seeds):
            pairs = [(m, s) for m in coordinates(seed).values() for s in SCALES[:3]]
            names = [(w, s) for w in coordinates(seed) for s in SCALES[:3]]
            pairs, names = [*pairs, (torch.eye(8), SHAPED)], [*names, (AS_ARE, SHAPED)]
            rows = Rows.of(fold, pairs)
            rows.train(fold, seed, epochs)
            for training in ("short", "long"):
                rows.back_to(rows.best(training == "short"))
                about = {"training": training, "fold": number, "seed": seed}
                for k in SIZES:
                    for (where, scale), each in zip(
                        names, rows.errors(fold, users, k), strict=True
                    ):
                        own = {"coordinates": where, "scale": scale, "k": k}
                        own |= {"user": users.numpy(), "rmse": each.numpy()}
                        errors.append(pd.DataFrame(about | own))
            rates += rates_of(
                fold, rows, {"fold": number, "seed": seed, "users": "real"}
            )
            others = [("real", (1,)), ("drawn, correlated", TRAINED_ON)]
            others += [("drawn", sizes) for sizes in (TRAINED_ON, (1,), (15,))]
            for kind, sizes in others if seed == 0 and number < 3 else ():
                two = Rows.of(fold, [(torch.eye(8), ONE), (torch.eye(8), EACH)])
                two.train(fold, seed, epochs, sizes, kind)
                about = {"fold": number, "seed": seed, "users": kind}
                rates += rates_of(fold, two, about, sizes)
            print(f"fold {number}, seed {seed}", flush=True)
    return pd.concat(errors), pd.DataFrame(rates)


def rates_of(fold, rows, about, sizes=TRAINED_ON):
    """Five times the learned rates, the mean over the last half of the epochs."""
    half = rows.epochs[len(rows.epochs) // 2 :]
    rate = STEPS * torch.stack([logs.exp() for _, logs, _ in half]).mean(0)
    row = about | {"trained_on": " ".join(map(str, sizes))}
    row |= {"variance": (fold.tau2 / fold.sigma2).item()}
    row |= {"one_rate": rate[0, 0].item()}
    return [row | {f"rate_{j}": r for j, r in enumerate(rate[1].tolist(), 1)}]


def summary(errors: pd.DataFrame) -> pd.DataFrame:
    """Mean error of each row, and its gain on three others."""
    keys = ["coordinates", "scale", "training", "k"]
    own = errors.groupby([*keys, "fold", "user"], sort=False)["rmse"].mean()
    by_seed = errors.groupby([*keys, "seed", "fold"], sort=False)["rmse"].mean()
    by_seed = by_seed.groupby([*keys, "seed"], sort=False).mean()
    first = errors[(errors["fold"] == 0) & (errors["seed"] == 0)]
    first = first.groupby(keys, sort=False)["rmse"].mean()
    rows = []
    for key, each in own.groupby(level=keys, sort=False):
        each = each.droplevel(keys)
        folds = each.index.get_level_values("fold").to_numpy()
        row = [*key, each.groupby("fold").mean().mean()]
        row.append(np.ptp(by_seed.loc[key].to_numpy()))
        row.append(first.loc[key])
        for scale, where in ((ONE, AS_ARE), *((s, key[0]) for s in (ONE, EACH))):
            base = own.loc[(where, scale, key[2], key[3])].loc[each.index]
            row += paired_bootstrap(base.to_numpy(), each.to_numpy(), folds, draws=2000)
        rows.append(row)
    named = [*keys, "rmse", "between_seeds", "first"]
    for over in ("plain", "one", "each"):
        named += [f"over_{over}", f"over_{over}_low", f"over_{over}_high"]
    return pd.DataFrame(rows, columns=named)


def main(words: list[str] | None = None) -> None:
    """Run all rows and write the two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folds", type=int, default=5, help="how many of five")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny, to see it run")
    out = Path(__file__).parent / "results" / "coordinates.csv"
    parser.add_argument("--out", type=Path, default=out)
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    if given.quick:
        data, folds, seeds, epochs = synthetic_population(300, 80, 2, 40)[0], 1, 1, 2
    else:
        data, folds, seeds = (
            load_movielens_100k(progress=False),
            given.folds,
            given.seeds,
        )
        epochs = LONG
    errors, rates = run(data, folds, seeds, epochs)
    command = "python benchmarks/coordinates.py"
    notes = [
        f"{folds} folds, {seeds} seeds; {epochs} epochs, short {SHORT[0]} with "
        f"patience {SHORT[1]}, averages at {AVERAGE}; every inner rate starts at "
        f"{START}; {STEPS} inner steps",
        "rmse: per user, mean over seeds; first: that of fold 0 and seed 0; "
        "over_plain: gain on one number on the vectors as they are, over_one and "
        "over_each: on these scales in the same coordinates; "
        "stars, 95% interval, paired over users, same training",
    ]
    table = summary(errors)
    write_table(given.out, table, command, notes)
    notes = [
        "five times the learned rates, eight tastes and the bias, and MAML's one; "
        "variance: prior over noise; drawn: users from N(m, tau^2 I), real films; "
        "drawn, correlated: with the fitted correlations"
    ]
    path = given.out.with_name(f"{given.out.stem}_rates.csv")
    write_table(path, rates, command, notes)


if __name__ == "__main__":
    main()
