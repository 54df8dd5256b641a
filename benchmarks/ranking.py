"""Rank the catalogue for new users and predict their clicks: two tables of results.

    python benchmarks/ranking.py            (lists: results/ranking.csv)
    python benchmarks/ranking.py --clicks   (clicks: results/clicks.csv)

Five folds by user, support = the earliest K ratings. What is done is kept beside the
table, so a run that was interrupted goes on; --fresh begins anew.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from common import FOLDS
from torch import Tensor
from tqdm import tqdm

from metarec.data import clicks, load_movielens_100k
from metarec.evaluation import Fold, rank_catalogue, write_table
from metarec.factors import ItemMean, cross_fit, lift_vectors
from metarec.learners import Bayesian, GradientDescent, TaskLearner
from metarec.meta import MAML, MetaLearner
from metarec.metrics import (
    auc,
    expected_calibration_error,
    log_loss,
    paired_bootstrap,
)
from metarec.models import Bernoulli, MatrixFactorization
from metarec.systems import Parts, System, default_config, fit_system
from metarec.tasks import Examples, TaskSampler
from metarec.training import TrainingConfig, meta_train
from metarec.validation import Predictor

HERE = Path(__file__).parent
CHOOSING = (1, 5, 10)
CLICK_SIZES = (0, 1, 3, 5, 10, 15)
SEEDS = 5
KNN = "item-kNN + popularity"
DIFFERENCE = ("difference", "low", "high")
OVER_KNN = ("over_knn", "over_knn_low", "over_knn_high")


@dataclass
class ItemToItem:
    """log popularity + c n^-power sum_j W_j, over the n items j rated or liked."""

    popularity: Tensor
    table: Tensor
    c: float = 0.0
    power: float = 0.0
    like: float = 0.0
    settings: str = ""

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N)."""
        rated = chosen(support, len(self.popularity), self.like)
        size = rated.sum(-1, keepdim=True).clamp(min=1) ** -self.power
        score = self.popularity + self.c * size * (rated @ self.table)
        return score.gather(1, x)


@dataclass
class FoldIn:
    """log popularity + c q . p with p from implicit ALS's half-step for the user."""

    popularity: Tensor
    items: Tensor
    weight: float
    penalty: float
    c: float = 0.0
    like: float = 0.0
    settings: str = ""

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N)."""
        rated = chosen(support, len(self.popularity), self.like)
        user = half_step(rated, self.items, self.weight, self.penalty)
        return (self.popularity + self.c * user @ self.items.T).gather(1, x)


@dataclass
class Mean:
    """The mean score of several learners, trained in different orders."""

    learners: list[Predictor]

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N)."""
        scores = [learner.predict(support, x) for learner in self.learners]
        return torch.stack(scores).mean(0)


@dataclass
class Sum:
    """The scores of a list learner plus those of a table of items."""

    learner: Predictor
    items: Predictor
    settings: str = ""

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N)."""
        return self.learner.predict(support, x) + self.items.predict(support, x)


def chosen(support: Examples, n_items: int, like: float) -> Tensor:
    """1 where an item of the support has ``like`` stars or more, (B, n_items)."""
    counts = (support.mask & (support.y >= like)).float()
    return torch.zeros(len(support), n_items).scatter_add(1, support.x, counts)


def describe(like: float, a: float, c: float, power: float | None = None) -> str:
    """Name the settings that validation users chose."""
    softened = "" if power is None else f" n^-{power:g}"
    return f"{'likes' if like else 'ratings'} a={a:g} c={c:g}{softened}"


def half_step(seen: Tensor, other: Tensor, weight: float, penalty: float) -> Tensor:
    """argmin sum_i (1 + weight seen_i) (seen_i - q_i . p)^2 + penalty |p|^2."""
    dim = other.shape[1]
    outer = (other[:, :, None] * other[:, None, :]).flatten(1)
    gram = other.T @ other + penalty * torch.eye(dim)
    gram = gram + weight * (seen @ outer).view(-1, dim, dim)
    return torch.linalg.solve(gram, (1 + weight) * seen @ other)


def implicit_als(seen: Tensor, weight: float, penalty: float, dim: int) -> Tensor:
    """Item vectors of implicit ALS (Hu, Koren & Volinsky 2008), eight sweeps."""
    generator = torch.Generator().manual_seed(0)
    items = 0.1 * torch.randn(seen.shape[1], dim, generator=generator)
    for _ in range(8):
        users = half_step(seen, items, weight, penalty)
        items = half_step(seen.T, users, weight, penalty)
    return items


class Lists:
    """The methods for lists on one fold, and who chooses among their settings."""

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        position, item, rating = fold.sealed.ratings_of(fold.split.train)
        rated, liked = torch.zeros(2, len(fold.split.train), fold.sealed.n_items)
        rated[position, item] = 1.0
        liked[position, item] = (rating >= 4).float()
        self.seen = {0: rated, 4: liked}
        self.popularity = (liked.sum(0) + 0.5).log()

    def validate(self, predictor: Predictor) -> float:
        """Mean nDCG@10 of the validation users."""
        users = self.fold.split.validation
        table = rank_catalogue(predictor, self.fold.sealed, users, CHOOSING)
        return float(table["ndcg"].mean())

    def best(self, candidates: list[Predictor]) -> Predictor:
        """The one that validation users like most."""
        return max(candidates, key=self.validate)

    def item_to_item(
        self,
        table: Callable[[Tensor, float], Tensor],
        amounts: list[float],
        cs: list[float],
    ) -> Predictor:
        """Choose: likes or all ratings, the table's amount of shrinkage, c, power."""
        return self.best(
            [
                ItemToItem(
                    self.popularity, made, c, power, like, describe(like, a, c, power)
                )
                for like, seen in self.seen.items()
                for a in amounts
                for made in [table(seen, a)]
                for c in cs
                for power in (0.0, 0.25, 0.5, 1.0)
            ]
        )

    def lift(self, seen: Tensor, a: float) -> Tensor:
        """log (n_ji + a) / (n_j n_i / n + a): j seen and i liked, against chance."""
        liked = self.seen[4]
        chance = seen.sum(0)[:, None] * liked.sum(0) / len(liked)
        return ((seen.T @ liked + a) / (chance + a)).log()

    def ease(self, seen: Tensor, penalty: float) -> Tensor:
        """EASE (Steck 2019): B_ij = -P_ij / P_jj, no diagonal, P = (X'X + a)^-1."""
        gram = (seen.T @ seen).double()
        inverse = torch.linalg.inv(gram + penalty * torch.eye(len(gram)))
        return (-inverse / inverse.diagonal()).fill_diagonal_(0).float()

    def cosine(self, seen: Tensor, a: float) -> Tensor:
        """Cosines between items, n_ij / (sqrt(n_i n_j) + a)."""
        gram = seen.T @ seen
        size = gram.diagonal().clamp(min=1).sqrt()
        return (gram / (size[:, None] * size + a)).fill_diagonal_(0)

    def fold_in(self) -> Predictor:
        """Choose: likes or all ratings, the factor model's settings, and c."""
        grid = itertools.product(
            self.seen.items(), (16, 32), (0.5, 2.0, 8.0), (3.0, 10.0, 30.0, 100.0)
        )
        return self.best(
            [
                FoldIn(
                    self.popularity,
                    items,
                    weight,
                    penalty,
                    c,
                    like,
                    describe(like, penalty, c) + f" weight={weight:g} dim={dim}",
                )
                for (like, seen), dim, weight, penalty in grid
                for items in [implicit_als(seen, weight, penalty, dim)]
                for c in (3, 10, 30)
            ]
        )

    def maml(self, seed: int = 0) -> MetaLearner:
        """MAML with a softmax loss, one step, and what a choice of items says."""
        fold = self.fold
        system = System(implicit=True, steps=1, goal="lists")
        start = lift_vectors(fold.sealed, fold.split.train)
        parts = Parts.of(fold.sealed, fold.train_users, start, fold.features)
        data = fold.sealed, fold.train_users, lambda meta: -self.validate(meta)
        return fit_system(system, parts, *data, default_config(system, seed))

    def with_items(self, learner: Predictor) -> Predictor:
        """Choose what to add for the likes: lifts or cosines, their weight, power."""
        nothing = torch.zeros_like(self.popularity)
        tables = {
            "cosine": (self.cosine(self.seen[4], 10), (0.5, 1.0, 2.0, 4.0, 8.0)),
            "lift": (self.lift(self.seen[4], 20), (0.1, 0.2, 0.4, 0.8, 1.6)),
        }
        candidates: list[Predictor] = [
            Sum(learner, ItemToItem(nothing, tables["lift"][0]), "nothing")
        ]
        for name, (table, cs) in tables.items():
            for c, power in itertools.product(cs, (0.0, 0.25, 0.5)):
                items = ItemToItem(nothing, table, c, power, 4)
                settings = f"{name} c={c:g} n^-{power:g}"
                candidates.append(Sum(learner, items, settings))
        return self.best(candidates)

    def methods(self) -> dict[str, Callable[[dict[str, Predictor]], Predictor]]:
        """What fits each method, given those that are fitted already."""
        nothing = torch.zeros(len(self.popularity), len(self.popularity))
        many = f"softmax MAML, {SEEDS} seeds"
        return {
            "popularity": lambda _: ItemToItem(self.popularity, nothing),
            "EASE + popularity": lambda _: self.item_to_item(
                self.ease,
                [300, 1000, 3000, 10000, 30000],
                [3, 10, 30, 100, 300, 1000],
            ),
            KNN: lambda _: self.item_to_item(
                self.cosine, [0, 10, 30, 100], [1, 2, 4, 8]
            ),
            "naive-Bayes lift": lambda _: self.item_to_item(
                self.lift, [5, 10, 20, 50, 100], [0.1, 0.2, 0.4, 0.8, 1.6]
            ),
            "iALS fold-in + popularity": lambda _: self.fold_in(),
            "Gaussian factor model (stars)": lambda _: self.fold.gaussian,
            "softmax MAML": lambda _: self.maml(),
            many: lambda done: Mean(
                [done["softmax MAML"], *map(self.maml, range(1, SEEDS))]
            ),
            f"{many} + items": lambda done: self.with_items(done[many]),
        }


def seconds_per_user(predictor: Predictor, fold: Fold) -> float:
    """Processor time to adapt one user to 10 ratings and score all items."""
    users = fold.split.test[:100]
    support = fold.histories.everything(users, 10)
    x = torch.arange(fold.histories.n_items).expand(len(users), -1)
    start = time.process_time()
    with torch.no_grad():
        predictor.predict(support, x)
    return (time.process_time() - start) / len(users)


def judge_lists(fold: Fold) -> pd.DataFrame:
    """Quality of each test user's lists, for each method and K."""
    lists, done, tables = Lists(fold), {}, []
    bar = tqdm(lists.methods().items(), desc=f"fold {fold.number}", leave=False)
    for name, fit in bar:
        start = time.process_time()
        done[name] = fit(done)
        seconds = time.process_time() - start
        table = rank_catalogue(done[name], fold.histories, fold.split.test)
        cost = {"fit_seconds": seconds}
        cost |= {"seconds_per_user": seconds_per_user(done[name], fold)}
        cost |= {"settings": getattr(done[name], "settings", "")}
        table = table.assign(method=name, fold=fold.number, **cost)
        tables.append(table.assign(validation=lists.validate(done[name])))
    return pd.concat(tables, ignore_index=True)


def summarise(
    table: pd.DataFrame,
    rivals: dict[str, tuple[str, str, str]],
    metric: str,
    others: list[str],
) -> pd.DataFrame:
    """Means over users, then folds, and paired differences to the rivals.

    ``rivals`` names the columns of each: the difference, its low and its high.
    """
    rows = []
    keys = ["fold", "user"]
    for (method, k), group in table.groupby(["method", "k"], sort=False):
        mine = group.set_index(keys)[metric]
        fold = mine.index.get_level_values("fold").to_numpy()
        means = group.groupby("fold")[[metric, *others]].mean().mean()
        row = {"method": method, "k": int(k), metric: means[metric]}
        for rival, names in rivals.items():
            same = (table["method"] == rival) & (table["k"] == k)
            theirs = table[same].set_index(keys)[metric].loc[mine.index]
            gap = paired_bootstrap(mine.to_numpy(), theirs.to_numpy(), strata=fold)
            row |= dict(zip(names, (gap.mean, gap.low, gap.high), strict=True))
        rows.append(row | {name: means[name] for name in others})
    return pd.DataFrame(rows)


def choices(settings: pd.Series) -> str:
    """The folds' settings and how many folds chose each: "one (3); other (2)"."""
    counted = settings[settings != ""].value_counts()
    return "; ".join(f"{name} ({n})" for name, n in counted.items())


def per_fold(
    judge: Callable[[Fold], pd.DataFrame],
    make: Callable[[int], Fold],
    store: Path,
    fresh: bool,
) -> pd.DataFrame:
    """Run the folds that are not done yet, and keep each as soon as it is."""
    if fresh:
        store.unlink(missing_ok=True)
    done = pd.read_pickle(store) if store.exists() else pd.DataFrame({"fold": []})
    for number in tqdm(FOLDS, desc=store.name.split(".")[0], unit="fold"):
        if number not in set(done["fold"]):
            done = pd.concat([done, judge(make(number))], ignore_index=True)
            done.to_pickle(store)
    return done


class ClickRivals:
    """The methods for clicks on one fold of zeros and ones."""

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        self.item = ItemMean.fit(fold.sealed, fold.split.train)

    def loss(self, predictor: Predictor, users: Tensor, k: int) -> Tensor:
        """Log-loss of each of the users' queries."""
        tasks = self.fold.sealed.tasks(self.fold.sealed.usable(users), k)
        with torch.no_grad():
            p = predictor.predict(tasks.support, tasks.query.x)
        return log_loss(p, tasks.query.y, tasks.query.mask)

    def validate(self, predictor: Predictor) -> float:
        """Mean log-loss of the validation users."""
        users = self.fold.split.validation
        losses = [self.loss(predictor, users, k).mean() for k in (1, 3, 5, 10, 15)]
        return float(torch.stack(losses).mean())

    def trained(
        self,
        model: MatrixFactorization,
        learner: TaskLearner,
        rate: float,
        item_rows: Tensor | None,
    ) -> MAML:
        """Meta-train on clicks: the Bernoulli's log-loss, stopped on validation."""
        model.likelihood = Bernoulli()
        meta = MAML(model, learner, ["head"], scale=rate)
        sampler = TaskSampler(
            self.fold.sealed,
            self.fold.train_users,
            item_rows=item_rows,
        )
        config = TrainingConfig(epochs=30, learning_rate=0.02, patience=4)
        meta_train(meta, sampler, lambda: self.validate(meta), config, progress=False)
        return meta

    def factors(self, learner: TaskLearner, rate: float) -> MAML:
        """Vectors from the factor model of zeros and ones; 4 in the head: its slope."""
        warm = cross_fit(self.fold.gaussian, self.fold.sealed, self.fold.split.train)
        logit = warm.offset.clamp(0.02, 0.98).logit()
        model = MatrixFactorization.from_items(
            warm.factors, logit, self.fold.sealed.n_items
        )
        with torch.no_grad():
            model.head[-1] = 4 * warm.mean_bias
        return self.trained(model, learner, rate, warm.item_rows)

    def biases(self) -> MAML:
        """logit p = logit of the item's like-rate + b_u, b_u by Laplace."""
        logit = self.item.offset.clamp(0.02, 0.98).logit()
        model = MatrixFactorization.from_items(torch.zeros(len(logit), 0), logit)
        return self.trained(model, Bayesian(), 1.0, None)

    def methods(self) -> dict[str, Callable[[], Predictor]]:
        """What fits each method."""
        return {
            "item's shrunk like-rate": lambda: self.item,
            "user + item logit": self.biases,
            "mf + maml + gradient": lambda: self.factors(GradientDescent(5), 0.048),
            "mf + maml + bayesian": lambda: self.factors(Bayesian(), 2.4),
        }


def judge_clicks(fold: Fold) -> pd.DataFrame:
    """Log-loss and AUC of each test user, and of the fold's pooled predictions."""
    rivals, tables = ClickRivals(fold), []
    users = fold.histories.usable(fold.split.test)
    for name, fit in rivals.methods().items():
        predictor = fit()
        for k in CLICK_SIZES:
            tasks = fold.histories.tasks(users, k)
            query, mask = tasks.query, tasks.query.mask
            with torch.no_grad():
                p = predictor.predict(tasks.support, query.x).clamp(0, 1)
            every = p[mask], query.y[mask]
            columns = {
                "user": users.numpy(),
                "log_loss": log_loss(p, query.y, mask).double().numpy(),
                "auc": auc(p, query.y, mask).numpy(),
                "pooled_auc": float(
                    auc(p[mask][None], every[1][None], mask[mask][None])
                ),
                "calibration_error": expected_calibration_error(*every),
            }
            table = pd.DataFrame(columns)
            tables.append(table.assign(method=name, k=k, fold=fold.number))
    return pd.concat(tables, ignore_index=True)


def main() -> None:
    """Read the arguments, run what is not done yet, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clicks", action="store_true", help="clicks, not lists")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--out", type=Path, help="where the table goes")
    arguments = parser.parse_args()
    name = "clicks" if arguments.clicks else "ranking"
    out = arguments.out or HERE / "results" / f"{name}.csv"
    store = out.with_suffix(".partial.pkl")
    torch.set_num_threads(1)
    data = load_movielens_100k()
    head = "MovieLens-100K, five folds by user (seed 0), test users; K = earliest"
    spread = "low, high: 95% bootstrap over test users, stratified by fold"
    if arguments.clicks:
        liked = clicks(data)
        table = per_fold(judge_clicks, lambda n: Fold(liked, n), store, arguments.fresh)
        others = ["auc", "pooled_auc", "calibration_error"]
        rival = "item's shrunk like-rate"
        table = summarise(table, {rival: DIFFERENCE}, "log_loss", others)
        notes = [
            f"{head} ratings, query = all after the 15th, click = 4 stars or more",
            "log_loss (nats), auc: of each user, averaged over users, then folds; auc "
            "leaves out users who liked all or nothing of the query",
            "pooled_auc, calibration_error (10 bins of equal width): all predictions "
            "of a fold together, averaged over folds",
            f"difference: paired to {rival}, below 0 is better; {spread}",
        ]
        command = "python benchmarks/ranking.py --clicks"
    else:
        runs = per_fold(judge_lists, lambda n: Fold(data, n), store, arguments.fresh)
        bounds = ["chance_ndcg", "chance_recall", "ceiling_recall"]
        others = ["recall", *bounds, "fit_seconds", "seconds_per_user", "validation"]
        rivals = {"popularity": DIFFERENCE, KNN: OVER_KNN}
        table = summarise(runs, rivals, "ndcg", others)
        settings = runs.groupby(["method", "fold"])["settings"].first()
        settings = settings.groupby("method").agg(choices)
        table["settings"] = table["method"].map(settings)
        validation = table.groupby("method")["validation"].first()
        notes = [
            f"{head} K ratings, query = the rest, candidates = all items but the K, "
            "relevant = 4 stars or more, 10 places, ties in expectation",
            "ndcg, recall: of each user, averaged over users, then folds; chance: a "
            "random order, exactly; the ceiling of ndcg is 1",
            f"difference, over_knn: ndcg, paired to popularity and to {KNN}, above 0 "
            f"is better; {spread}",
            f"validation: mean nDCG@10 of validation users at K = {CHOOSING}, which "
            f"chose settings; it names {validation.idxmax()} ({validation.max():.4f})",
            "settings: what the validation users of the folds chose; a: shrinkage or "
            "penalty, c: weight beside log-popularity, n^-power: less weight for each "
            "of n items; a choice at the end of its grid may not be the best there is",
            "EASE, item-kNN, naive Bayes and iALS are a few lines of torch in the "
            "script, not LensKit's, with log-popularity added; validation users chose "
            "likes or all ratings as their input",
            "softmax MAML: 16 dimensions, one step; + items: lifts or cosines "
            "of the likes added, as validation users choose",
            "seen before: the design of softmax MAML was looked at on the test users "
            "of folds 0 and 1 while it was made; a whole table with one setting for "
            "EASE and iALS, and with 3 seeds, was read before the grids were widened "
            "and the seeds made 5, so its rows may be a little kind",
            "seconds: processor time, one thread; fit_seconds holds the whole search "
            "and leaves out what a row shares with one above",
        ]
        command = "python benchmarks/ranking.py"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_table(out, table, command, notes)
    store.unlink()


if __name__ == "__main__":
    main()
