"""What the network that learns in context is worth, and what it needs.

    python benchmarks/in_context.py

Lists and stars of MovieLens-100K on five folds, and users drawn from the Gaussian
model, for whom the right answer is known. What is done is kept, so that a run that was
interrupted goes on; --fresh begins anew. Writes results/in_context.csv.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from time import process_time

import pandas as pd
import torch
from common import FOLDS, already, options
from torch import Tensor
from tqdm import tqdm

from metarec.data import load_movielens_100k, synthetic_population
from metarec.evaluation import Fold, Leaderboard, fitted, write_table
from metarec.evaluation.methods import MeanScore
from metarec.learners import Bayesian, InContext, Prior
from metarec.meta import MAML, MetaLearner
from metarec.models import MatrixFactorization
from metarec.systems import Parts, System, build_system, default_config, item_vectors
from metarec.tasks import Examples, Tasks, TaskSampler, UserHistories
from metarec.training import TrainingConfig, meta_train
from metarec.validation import Predictor

READER = System(learner="in-context", goal="lists")
MANY, ONE = f"{READER}, 5 seeds", "one seed"
PLAIN = "without the profile, 5 seeds"  # what the rivals know, and no more
RIVALS = ["item-kNN + popularity", "popularity"]  # results/lists has the others
STARS = ("mf + maml + bayesian", "gaussian")
SIZES, STAR_SIZES = (0, 1, 5, 10, 20, 30, 50), (0, 1, 3, 5, 10, 15)
KNOWN_SIZES = (1, 2, 3, 5, 10, 15)
Change = Callable[[MetaLearner], object]


@dataclass(frozen=True)
class HalfRandom(TaskSampler):
    """Every other meta-batch has supports in an order that is drawn."""

    shuffled: UserHistories | None = None

    def __call__(self, generator: torch.Generator) -> Iterator[Tasks]:
        """Yield the meta-batches of one epoch."""
        assert self.shuffled is not None
        for n, tasks in enumerate(super().__call__(generator)):
            k = tasks.support.mask.sum(-1)
            yield self.shuffled.tasks(tasks.user, k, k) if n % 2 else tasks


def train(
    fold: Fold,
    system: System = READER,
    users: Tensor | None = None,
    change: Change = id,
    shuffled: UserHistories | None = None,
    first: Callable[[torch.Generator], Iterator[Tasks]] | None = None,
    profile: bool = True,
    seed: int = 0,
) -> MetaLearner:
    """The package's recipe with one thing changed."""
    histories, lists = fold.sealed, system.goal == "lists"
    users = fold.train_users if users is None else users
    known = histories, users, fold.features
    start = item_vectors(*known, 16, goal="lists") if lists else fold.warm
    parts = Parts.of(histories, users, start, fold.features)
    parts = parts if profile else replace(parts, n_profile=0)
    meta = build_system(system, parts, seed)
    change(meta)
    sizes = (1, 2, 3, 5, 10, 15)
    given = (
        histories,
        users,
        sizes,
        64 if lists else 32,
        start.item_rows,
        (0, 1),
        lists,
    )
    tasks = HalfRandom(*given, shuffled) if shuffled else TaskSampler(*given)
    config = default_config(system, seed)
    if first is not None:
        meta_train(meta, first, lambda: 0.0, config, progress=False)
    validate = partial(fold.validate, meta, goal=system.goal)
    meta_train(meta, tasks, validate, config, progress=False)
    meta.model.keep_first_copy()
    return meta


def hold_items(meta: MetaLearner) -> None:
    """Item vectors stay where they start, as inputs and as outputs."""
    meta.model.freeze_items()
    meta.learner.items.requires_grad_(False)


def train_items(meta: MetaLearner) -> None:
    """Item vectors train along, as inputs and as outputs."""
    meta.model.item_factors.requires_grad_()
    meta.learner.items.requires_grad_()


def some_users(fold: Fold, n: int) -> Tensor:
    """The first ``n`` training users of an order that is drawn once for each fold."""
    order = torch.Generator().manual_seed(fold.number)
    users = fold.train_users
    return users[torch.randperm(len(users), generator=order)[:n]].msort()


def drawn_from(meta: MetaLearner, fold: Fold) -> Callable[..., Iterator[Tasks]]:
    """Users drawn from a fitted list model: heads from a Gaussian, choices one by one.

    Heads have mean and covariance of the training users' under ``meta``; a user
    chooses without replacement by the softmax, and rates as others rated the item.
    """
    histories, users = fold.sealed, fold.train_users
    everybody = histories.everything(users, 100)
    with torch.no_grad():
        heads = meta.adapt(everybody)["head"]
        root = torch.linalg.cholesky(heads.T.cov() + 1e-4 * torch.eye(heads.shape[1]))
        x = torch.arange(histories.n_items)
        phi, offset = meta.model.features(x), meta.model.offset(x)
    _, item, rating = histories.ratings_of(users)
    stars = torch.zeros(histories.n_items, 5).index_put(
        (item, rating.long() - 1), torch.tensor(1.0), accumulate=True
    )
    length = histories.count(users)

    def epoch(generator: torch.Generator) -> Iterator[Tasks]:
        for batch in torch.randperm(len(users), generator=generator).split(64):
            draw = partial(torch.rand, generator=generator)
            normal = torch.randn(len(batch), len(root), generator=generator)
            score = offset + (heads.mean(0) + normal @ root.T) @ phi.T
            # The largest of score + Gumbel noise are draws without replacement.
            chosen = (score - (-draw(score.shape).log()).log()).argsort(-1, True)
            n = length[batch].clamp(max=300)
            x = chosen[:, : int(n.max())]
            weight = (stars + 0.1)[x]
            level = weight.cumsum(-1) < weight.sum(-1, True) * draw(*x.shape, 1)
            y, mask = 1.0 + level.sum(-1), torch.arange(x.shape[1]) < n[:, None]
            k = torch.tensor([1, 2, 3, 5, 10, 15])
            k = k[torch.randint(6, (len(batch),), generator=generator)][:, None]
            place = torch.arange(x.shape[1])
            nobody = torch.zeros(len(batch), histories.profile.shape[1])
            support = Examples(x[:, :15], y[:, :15], (place < k)[:, :15], nobody)
            yield Tasks(support, Examples(x, y, mask & (place >= k)), users[batch])

    return epoch


def pretrained(fold: Fold) -> MetaLearner:
    """Trained on drawn users first, then on those of the fold."""
    maker = fitted("softmax MAML", fold)
    assert isinstance(maker, MetaLearner)
    return train(fold, first=drawn_from(maker, fold))


def without_profile(fold: Fold) -> Predictor:
    """Five seeds that read ratings and nothing else of a user."""
    return MeanScore([train(fold, profile=False, seed=seed) for seed in range(5)])


Job = tuple[str, str, Callable[[], Predictor]]


def lists_of(fold: Fold) -> Iterator[Job]:
    """What is judged on lists of a fold: the system, its variants, and the rivals."""
    data, train_users = load_movielens_100k(), fold.split.train
    shuffled = UserHistories(data, "random", vocabulary=train_users)
    shuffled = shuffled.seal(fold.split.test)
    yield "lists", MANY, partial(fitted, MANY, fold)
    yield "lists", ONE, partial(train, fold)
    for n in (80, 165, 330):
        fit = partial(train, fold, users=some_users(fold, n))
        yield "lists", f"{n} training users", fit
    yield "lists", "item vectors held", partial(train, fold, change=hold_items)
    yield "lists", "without the profile", partial(train, fold, profile=False)
    yield "lists", PLAIN, partial(without_profile, fold)
    yield "lists", "half the supports random", partial(train, fold, shuffled=shuffled)
    yield "lists", "pretrained on drawn users", partial(pretrained, fold)
    for name in RIVALS:
        yield "lists", name, partial(fitted, name, fold)


def stars_of(fold: Fold) -> Iterator[Job]:
    """What is judged on stars of a fold."""
    system = System(learner="in-context")
    for name in STARS:
        yield "stars", name, partial(fitted, name, fold)
    yield "stars", str(system), partial(train, fold, system)
    fit = partial(train, fold, system, change=train_items)
    yield "stars", "item vectors trained", fit


class DrawnUsers:
    """Users drawn from the Gaussian model, and all that generated them."""

    def __init__(self) -> None:
        _, truth = synthetic_population(2, 100, 2, clip=False)
        as_tensor = partial(torch.as_tensor, dtype=torch.float32)
        table = as_tensor(truth.q_i), truth.mu + as_tensor(truth.b_i)
        self.model = MatrixFactorization.from_items(*table)
        self.covariance, self.sigma = as_tensor(truth.covariance), truth.sigma
        scale = {"head": self.covariance}
        self.prior = Prior({"head": torch.zeros(3)}, scale, self.sigma**2)

    def draw(self, n: int, k: int, generator: torch.Generator) -> Tasks:
        """``n`` users with K ratings in the support and 25 in the query."""
        root = torch.linalg.cholesky(self.covariance)
        w = torch.randn(n, 3, generator=generator) @ root.T
        x = torch.rand(n, 100, generator=generator).argsort(1)[:, : k + 25]
        y = self.model.offset(x) + (self.model.features(x) * w[:, None]).sum(-1)
        y = y + self.sigma * torch.randn(x.shape, generator=generator)
        mask = torch.ones_like(y, dtype=torch.bool)
        cuts = slice(k), slice(k, None)
        support, query = (Examples(x[:, c], y[:, c], mask[:, c]) for c in cuts)
        return Tasks(support, query, torch.full((n,), -1))

    def epoch(self, generator: torch.Generator) -> Iterator[Tasks]:
        """Two hundred meta-batches of users that nobody has seen."""
        for _ in range(200):
            k = KNOWN_SIZES[int(torch.randint(6, (1,), generator=generator))]
            yield self.draw(256, k, generator)


def known_truth() -> pd.DataFrame:
    """RMSE over that of the exact posterior mean, and coverage of 90% intervals."""
    users = DrawnUsers()
    generator = torch.Generator().manual_seed(0)
    learner = InContext(100, 3, 1.0, 6.0, deep=True, generator=generator)
    learner.items.requires_grad_(False)
    meta = MAML(users.model, learner, ["head"], scale=0.5)
    config = TrainingConfig(30, 0.003, 30, average=0.99)
    meta_train(meta, users.epoch, lambda: 0.0, config, progress=False)
    rows, generator = [], torch.Generator().manual_seed(1)
    for k in KNOWN_SIZES:
        tasks = users.draw(4000, k, generator)
        args = tasks.support, tasks.query.x
        with torch.no_grad():
            own = meta.prior(tasks.support)
            mean, variance = learner.predictive(users.model, own, *args)
            exact, _ = Bayesian().predictive(users.model, users.prior, *args)
        error = tasks.query.y - mean
        ratio = error.square().mean().sqrt()
        ratio = ratio / (tasks.query.y - exact).square().mean().sqrt()
        inside = (error.abs() < 1.6449 * variance.sqrt()).float().mean()
        for metric, value in (("rmse ratio", ratio), ("coverage of 90%", inside)):
            row = {"part": "known", "method": "in-context", "k": k}
            rows.append(row | {"metric": metric, "value": float(value)})
    return pd.DataFrame(rows)


def compared(errors: pd.DataFrame, part: str, metric: str) -> pd.DataFrame:
    """Means, and differences with intervals: to the rivals, and what a change makes."""
    lists = part == "lists"
    rivals = RIVALS if lists else [*STARS]
    board = Leaderboard(errors, rivals[0], metric=metric)
    means = board.summary[["method", "k", metric]].rename(columns={metric: "value"})
    gaps = board.against(rivals)
    if lists:
        # A variant has one seed, and is compared with the system of one seed.
        gaps = gaps[gaps["method"].isin((MANY, PLAIN, ONE))]
        changed = board.against([ONE])
        gaps = pd.concat(
            [gaps, changed[~changed["method"].isin((MANY, PLAIN, *RIVALS))]]
        )
    columns = ["method", "k", "rival", "difference", "low", "high", "p_holm"]
    table = means.merge(gaps[columns], "left", ["method", "k"])
    return table.assign(part=part, metric=metric)


def main() -> None:
    """Judge what is not done yet, and write the table."""
    arguments = options(__doc__ or "", "in_context")
    data, done = load_movielens_100k(), already(arguments.store)
    folds = [Fold(data, number) for number in FOLDS]
    jobs = [
        (fold, *job) for fold in folds for job in (*lists_of(fold), *stars_of(fold))
    ]
    jobs.sort(key=lambda job: job[2] not in (MANY, *RIVALS))  # the question first
    for fold, part, name, fit in tqdm(jobs, desc="in context"):
        here = {"part": part, "method": name, "fold": fold.number}
        if len(done) and (done[list(here)] == pd.Series(here)).all(axis=1).any():
            continue
        lists = part == "lists"
        sizes, protocol = (SIZES, "lists") if lists else (STAR_SIZES, "cold-start")
        start = process_time()
        predictor = fit()
        seconds = process_time() - start
        table = fold.judge(predictor, sizes, protocol)
        table = table.assign(part=part, method=name, fit_seconds=seconds)
        done = pd.concat([done, table], ignore_index=True)
        done.to_pickle(arguments.store)
    parts = [
        compared(done[done["part"] == part].dropna(axis=1, how="all"), part, metric)
        for part, metric in (("lists", "ndcg"), ("stars", "rmse"))
    ]
    write_table(
        arguments.out,
        pd.concat([*parts, known_truth()], ignore_index=True),
        "python benchmarks/in_context.py",
        [
            "MovieLens-100K, five folds by user (seed 0), test users, K = earliest K",
            "lists: nDCG@10 of what is liked after the K, of all items but those",
            "stars: RMSE after the 15th rating; all are means over users and folds",
            "difference, low, high, p_holm: to the rival, paired over users, 95% by"
            " bootstrap; p adjusted by Holm for the two rivals of a row",
            "lists: the system is compared with counts (results/lists has all rivals),"
            " and each variant, one seed, with the system of one seed",
            "recipes tried for lists before test users were read: 42 here and 36 of a"
            " prototype, judged by the validation users of each fold",
            "more ratings than 15 count as 15: a rule made after the lists of fold 0 at"
            " K = 20 to 50 had been read without it; it changes nothing up to 15",
            "known: users drawn from the Gaussian model; RMSE of ratings over that of"
            " the exact posterior mean, and share inside the 90% intervals",
        ],
    )


if __name__ == "__main__":
    main()
