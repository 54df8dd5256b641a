"""The rivals for lists beside the same methods of libraries, under the same settings.

    python benchmarks/list_libraries.py

MovieLens-100K, five folds by user, support = the earliest K ratings, lists of what is
liked afterwards. A method is bare here: nothing is mixed with popularity, and every
rating counts as a choice. Settings are chosen on the validation users of fold 0 with
the package's own method; the library gets the same ones. A library that is not
installed (see benchmarks/requirements.txt) is left out, and the table says so.
Writes results/list_libraries.csv; --quick is a small draw.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from metarec.baselines.lists import Make, Move, cosine, ease, implicit_als
from metarec.data import load_movielens_100k, synthetic_population
from metarec.evaluation import Fold, write_table
from metarec.tasks import Examples, one_thread

SIZES = (1, 5, 10)
SWEEPS = 30  # until both have settled, from different random starts


@dataclass(frozen=True)
class Bare:
    """Scores of the items from the choices alone, shape (B, I) from (B, I)."""

    move: Move
    n_items: int

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N), to rank by."""
        chosen = support.table(torch.ones_like(support.y), self.n_items)
        return self.move(chosen).gather(1, x)


def popularity(seen: Tensor, liked: Tensor, amount: None) -> Move:
    """How often each item was chosen, for everybody."""
    return lambda chosen: seen.sum(0).expand(len(chosen), -1)


def sparse(chosen: Tensor) -> Any:
    """Choices as a table of SciPy."""
    return import_module("scipy.sparse").csr_matrix(chosen.numpy())


def by_implicit(model: Any) -> Move:
    """What `implicit` recommends to users that it was not trained on, all items."""

    def move(chosen: Tensor) -> Tensor:
        users = np.arange(len(chosen))
        more = {"recalculate_user": True, "filter_already_liked_items": True}
        ids, given = model.recommend(users, sparse(chosen), chosen.shape[1], **more)
        scores = torch.zeros_like(chosen)
        for row, item, score in zip(scores, ids, given, strict=True):
            # What it has no score for comes at the end, by -1 or by a huge negative.
            known = (item >= 0) & (score > -1e30)
            row[torch.from_numpy(item[known]).long()] = torch.from_numpy(
                score[known]
            ).float()
        return scores

    return move


def implicit_cosine(seen: Tensor, liked: Tensor, amount: float) -> Move:
    """Item neighbours of implicit: all of them, by the cosine."""
    module = import_module("implicit.nearest_neighbours")
    model = module.CosineRecommender(K=seen.shape[1], num_threads=1)
    model.fit(sparse(seen), show_progress=False)
    return by_implicit(model)


def implicit_library_als(
    seen: Tensor, liked: Tensor, amount: tuple[float, float, int]
) -> Move:
    """The factors of implicit, solved exactly; its weight is that of a choice."""
    weight, penalty, dim = amount
    model = import_module("implicit.cpu.als").AlternatingLeastSquares(
        factors=dim,
        regularization=penalty,
        alpha=1 + weight,
        use_cg=False,
        iterations=SWEEPS,
        num_threads=1,
        random_state=0,
    )
    model.fit(sparse(seen), show_progress=False)
    return by_implicit(model)


def lenskit(module: str, name: str, setting: str, value: Any, seen: Tensor) -> Move:
    """A scorer of LensKit, asked about one user after the other."""
    data = import_module("lenskit.data")
    user, item = (each.numpy() for each in seen.nonzero(as_tuple=True))
    table = pd.DataFrame({"user_id": user, "item_id": item})
    scorer = getattr(import_module(module), name)(**{setting: value})
    options = import_module("lenskit.training").TrainingOptions(rng=0)
    scorer.train(data.from_interactions_df(table), options)

    def move(chosen: Tensor) -> Tensor:
        every, found = np.arange(chosen.shape[1]), []
        for row in chosen:
            history = data.ItemList(item_ids=row.nonzero()[:, 0].numpy())
            wanted, query = data.ItemList(item_ids=every), {}
            if name != "PopScorer":
                query = {"query": data.RecQuery(history_items=history)}
            found.append(scorer(items=wanted, **query).scores())
        return torch.tensor(np.array(found)).float().nan_to_num()

    return move


def lenskit_popularity(seen: Tensor, liked: Tensor, amount: None) -> Move:
    """How often each item was chosen, as LensKit counts."""
    return lenskit("lenskit.basic", "PopScorer", "score", "count", seen)


def lenskit_ease(seen: Tensor, liked: Tensor, amount: float) -> Move:
    """EASE of LensKit."""
    return lenskit("lenskit.knn", "EASEScorer", "regularization", amount, seen)


@dataclass(frozen=True)
class Pair:
    """A method of the package, the same of a library, and settings to choose from."""

    library: str
    ours: Make
    theirs: Make
    amounts: tuple[Any, ...]


IALS = tuple(product((0.5, 2, 8), (3, 10, 30), (16,)))
PAIRS = {
    "popularity": Pair("lenskit", popularity, lenskit_popularity, (None,)),
    "item-kNN": Pair("implicit", cosine, implicit_cosine, (0,)),
    "EASE": Pair("lenskit", ease, lenskit_ease, (300, 1000, 3000)),
    "iALS": Pair(
        "implicit", partial(implicit_als, sweeps=SWEEPS), implicit_library_als, IALS
    ),
}


def bare(fold: Fold, make: Make, amount: Any) -> Bare:
    """Fit a method on the training users of a fold."""
    _, seen, liked = fold.choices
    return Bare(make(seen, liked, amount), fold.histories.n_items)


def chosen(fold: Fold, pair: Pair) -> Any:
    """The amount that suits the validation users of a fold."""
    if len(pair.amounts) == 1:
        return pair.amounts[0]
    judged: Callable[[Any], float] = lambda amount: fold.validate(  # noqa: E731
        bare(fold, pair.ours, amount), goal="lists"
    )
    return min(pair.amounts, key=judged)


def top_alike(a: Bare, b: Bare, fold: Fold, k: int) -> float:
    """The share of ten unseen films that both list for a test user, on average."""
    users = fold.histories.usable(fold.split.test)
    support = fold.histories.tasks(users, k, k).support
    every = torch.arange(fold.histories.n_items).expand(len(support), -1)
    seen = support.table(torch.ones_like(support.y), every.shape[1]) > 0
    best = []
    for predictor in (a, b):
        score = predictor.predict(support, every).masked_fill(seen, -torch.inf)
        at = score.topk(10).indices
        best.append(torch.zeros_like(score).scatter(1, at, 1.0))
    return float((best[0] * best[1]).sum(1).mean() / 10)


@one_thread()
def main(argv: list[str] | None = None) -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small draw")
    out = Path(__file__).parent / "results" / "list_libraries.csv"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args(argv)
    data, numbers = load_movielens_100k(), range(5)
    if arguments.quick:
        data, numbers = synthetic_population(n_users=80, n_items=60)[0], range(1)
    folds, rows, notes = [Fold(data, number) for number in numbers], [], []
    bar = tqdm(total=len(PAIRS) * len(folds), desc="libraries", unit="fit")
    for method, pair in PAIRS.items():
        here, amount = find_spec(pair.library) is not None, chosen(folds[0], pair)
        what = "is not installed"
        if here:
            what = f"{version(pair.library)}, amount {amount}"
        notes.append(f"{method}: {pair.library} {what}")
        for fold in folds:
            bar.set_postfix_str(f"{method}, fold {fold.number}")
            makers = {"metarec": pair.ours}
            makers |= {pair.library: pair.theirs} if here else {}
            fitted = {name: bare(fold, make, amount) for name, make in makers.items()}
            for name, predictor in fitted.items():
                table = fold.judge(predictor, SIZES, "lists")
                table = table.assign(method=method, by=name)
                for k, own in table.groupby("k"):
                    alike = 1.0
                    if name != "metarec":
                        alike = top_alike(fitted["metarec"], predictor, fold, int(k))
                    part = {"method": method, "by": name, "k": k, "fold": fold.number}
                    rows.append(part | {"ndcg": own["ndcg"].mean(), "alike": alike})
            bar.update()
    bar.close()
    table = pd.DataFrame(rows).groupby(["method", "by", "k"], sort=False)
    summary = table.agg(
        ndcg=("ndcg", "mean"), sd_folds=("ndcg", "std"), alike=("alike", "mean")
    )
    write_table(
        arguments.out,
        summary.reset_index(),
        "python benchmarks/list_libraries.py",
        [
            *notes,
            "MovieLens-100K, five folds by user (seed 0), test users; K = earliest "
            "ratings, each a choice, without popularity beside it",
            "ndcg: nDCG@10 of likes after the support, mean of folds; sd_folds: of it",
            "alike: share of the ten films of metarec's list that the library lists",
        ],
    )


if __name__ == "__main__":
    main()
