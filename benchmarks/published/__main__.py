"""Published learners and end-to-end rows, run by the protocol of the leaderboard.

    python benchmarks/published

Five folds by user, the earliest K ratings, the query after the 15th, RMSE per user; and
for new items the folds of `new_items.py`. Each learner with its paper's settings and
with settings chosen on the fold's own validation users. What is done is kept beside
--out, so that a run that was interrupted goes on. Writes results/published.csv, what
was chosen (published_settings.csv), and the error of each user, averaged over seeds,
that joins those of the leaderboard (published_errors.csv.xz).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from items import RIVAL, make
from rows import ROWS, Row
from tqdm import tqdm

from metarec.data import RatingData, load_movielens_100k
from metarec.evaluation import Fold, Leaderboard, write_table
from metarec.training import save_aside
from metarec.validation import Predictor

RESULTS = Path(__file__).parents[1] / "results"
BOARD = RESULTS / "leaderboard" / "errors.csv.xz"
RIVALS = ("gaussian", "biases", "mf + maml + gradient", "global mean")
KEYS = ["method", "fold", "user", "k"]
SIZES = (0, 1, 5, 10, 15)
FEW = 6  # epochs after which settings are compared
Key = tuple[str, int, int]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--folds", type=int, default=5, help="how many of five")
    add("--seeds", type=int, default=3, help="most seeds of a row")
    add("--only", nargs="+", default=[*ROWS], metavar="ROW", choices=[*ROWS])
    add("--quick", action="store_true", help="one fold, one seed, one epoch")
    add("--fresh", action="store_true", help="forget what was done")
    add("--out", type=Path, default=RESULTS / "published.csv")
    return parser.parse_args(arguments)


def jobs(names: Sequence[str], n_folds: int, n_seeds: int) -> Iterator[Key]:
    """Every row on every fold first, by turns, then further seeds."""
    turns = sorted({ROWS[name].turn for name in names})
    for seed, turn, fold in product(range(n_seeds), turns, range(n_folds)):
        for name in names:
            if ROWS[name].turn == turn and seed < ROWS[name].n_seeds:
                yield name, fold, seed


def trained(
    row: Row, fold: Fold, wanted: str | None, seed: int, quick: bool
) -> tuple[Predictor, str]:
    """Train a row: with the settings that are wanted, or else choose.

    Of several settings the one that is best on the validation users after a few epochs
    (of a ``whole`` row: after all) is trained to the end.
    """
    pool = row.settings or ROWS[row.like].settings
    tried = [s for s in pool if wanted is None or str(s) == wanted]
    if quick and hasattr(tried[0], "epochs"):
        tried = [replace(s, epochs=1) for s in tried]
    if len(tried) > 1:
        few = [s if row.whole else replace(s, epochs=FEW) for s in tried]
        first = [row.train(fold, s, seed) for s in few]
        score = [fold.validate(each) for each in first]
        best = score.index(min(score))
        if row.whole:
            return first[best], str(tried[best])
        tried = [tried[best]]
    return row.train(fold, tried[0], seed), str(tried[0])


def run(data: RatingData, options: argparse.Namespace, store: Path) -> dict:
    """Do what is not in the store yet; errors and settings by row, fold and seed."""
    done = pd.read_pickle(store) if store.exists() else {}
    todo = jobs(options.only, options.folds, options.seeds)
    todo = [key for key in todo if key not in done]
    folds: dict[tuple[str, int], Fold] = {}
    for name, number, seed in tqdm(todo, desc="published", unit="fit"):
        row = ROWS[name]
        if (row.part, number) not in folds:
            kind = make if row.part == "items" else Fold
            folds[row.part, number] = kind(data, number)
        fold = folds[row.part, number]
        first = done.get((name, number, 0), {}).get("chosen")
        like = done.get((row.like, number, 0), {}).get("chosen")
        start = time.process_time()
        wanted = first or like
        predictor, chosen = trained(row, fold, wanted, seed, options.quick)
        seconds = time.process_time() - start
        with torch.no_grad():
            table = fold.judge(predictor, SIZES)
        result = {"errors": table, "chosen": chosen, "seconds": seconds}
        done[name, number, seed] = result
        save_aside(store, partial(pd.to_pickle, done))
        at = table[table["k"].isin((0, 5, 10))].groupby("k")["rmse"].mean()
        tqdm.write(f"{number} {seed} {name} [{chosen}] {seconds:.0f}s {at.tolist()}")
    return done


def errors_of(done: dict, part: str) -> pd.DataFrame:
    """Errors of each method, seed, user and K, for the seeds that all folds have."""
    tables = []
    for name, row in ROWS.items():
        folds = {n for m, n, _ in done if m == name}
        if row.part != part or not folds:
            continue
        for seed in range(row.n_seeds):
            if all((name, n, seed) in done for n in folds):
                parts = [done[name, n, seed]["errors"] for n in sorted(folds)]
                tables.append(pd.concat(parts).assign(method=name, seed=seed))
    return pd.concat(tables, ignore_index=True)


def summary(errors: pd.DataFrame, others: pd.DataFrame, rival: str) -> pd.DataFrame:
    """RMSE and paired differences over K, with the spread over folds and over seeds."""
    own = errors.groupby(KEYS, sort=False).mean().reset_index().drop(columns="seed")
    keep = own.columns.intersection(others.columns) if len(others) else own.columns
    both = pd.concat([others[keep], own[keep]])
    tables = []
    # A row that was not run on all folds is compared on those that it has.
    folds = both.groupby("method", sort=False)["fold"].agg(lambda f: (*sorted({*f}),))
    for some in folds.unique():
        names = [*folds.index[folds == some], rival]
        here = both[both["method"].isin(names) & both["fold"].isin(some)]
        part = Leaderboard(here, rival).summary.assign(folds=len(some))
        tables.append(part[(part["method"] != rival) | (folds[rival] == some)])
    table = pd.concat(tables, ignore_index=True)
    of_seed = errors.groupby(["method", "k", "seed", "fold"])["rmse"].mean()
    of_seed = of_seed.groupby(["method", "k", "seed"]).mean()
    spread = of_seed.groupby(["method", "k"]).agg(sd_seeds="std", seeds="size")
    return table.join(spread, on=["method", "k"]).assign(rival=rival)


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge what is not done yet, and write the tables."""
    options = parse(arguments)
    torch.set_num_threads(1)
    store = options.out.with_suffix(".partial.pkl")
    if options.fresh:
        store.unlink(missing_ok=True)
    if options.quick:
        options.folds = options.seeds = 1
    done = run(load_movielens_100k(), options, store)
    write(options, done)


def write(options: argparse.Namespace, done: dict) -> None:
    """Write what there is: summary, settings and errors."""
    errors = errors_of(done, "users")
    board = pd.read_csv(BOARD)
    board = board[board["method"].isin(RIVALS) & board["k"].isin(SIZES)]
    board = board[board["fold"].isin(errors["fold"].unique())]
    tables = [summary(errors, board, RIVALS[0]).assign(part="users")]
    if any(ROWS[name].part == "items" for name, *_ in done):
        of_items = errors_of(done, "items")
        tables.append(summary(of_items, of_items[:0], RIVAL).assign(part="items"))
        errors = pd.concat([errors, of_items])
    command = "python benchmarks/published"
    notes = [
        f"MovieLens-100K{' (quick)' * options.quick}, {options.folds} folds "
        "by user (by item), earliest K (items: random), query after the 15th",
        "rmse, mae: per user (per item), averaged, then over folds; mean over seeds; "
        "sd_folds over folds, sd_seeds over the seeds' own means",
        "difference, low, high: rmse less that of the rival, paired, 95% bootstrap "
        "over users stratified by fold, conditional on the fitted models",
        "rows without seeds are those of results/leaderboard",
    ]
    write_table(options.out, pd.concat(tables), command, notes)
    chosen = [
        {"method": name, "fold": fold, "seed": seed, "settings": each["chosen"]}
        | {"seconds": round(each["seconds"], 1)}
        for (name, fold, seed), each in sorted(done.items())
    ]
    beside = options.out.with_name(f"{options.out.stem}_settings.csv")
    write_table(beside, pd.DataFrame(chosen), command, notes[:1])
    mean = errors.groupby(KEYS, sort=False).mean().drop(columns="seed")
    path = options.out.with_name(f"{options.out.stem}_errors.csv.xz")
    save_aside(path, partial(mean.to_csv, float_format="%.4f"))


if __name__ == "__main__":
    main()
