"""How long a user waits, and how long an epoch takes, for every system and goal.

    python benchmarks/speed_systems.py

MovieLens-100K, all users, one thread, seconds of the processor. A user is adapted to
ten ratings, and the ten best of 1,682 films are put on a list; an epoch is one of
meta-training over 943 users, and validation is what follows each: the lists of a tenth
of the users. The last column is all that five seeds of the network that learns in
context take on the first of five folds. Writes results/speed_systems.csv; --quick is a
small draw.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from time import process_time

import pandas as pd
import torch
from tqdm import tqdm

from metarec.data import RatingData, load_movielens_100k, synthetic_population
from metarec.evaluation import Fold, write_table
from metarec.features import item_features
from metarec.recommender import MetaRecommender
from metarec.systems import (
    GOALS,
    LEARNERS,
    METAS,
    MODELS,
    Parts,
    System,
    build_system,
    default_config,
    hold_out,
    item_vectors,
)
from metarec.tasks import SUPPORT_SIZES, TaskSampler, UserHistories, one_thread
from metarec.training import meta_train
from metarec.validation import validation_score

EVERY = tuple(product(MODELS, METAS, LEARNERS))
SOME = (("mf", "maml", "gradient"), ("mlp", "metamind", "attention"))
EPOCHS, SEEDS = 2, 5


def seconds(call: Callable[[], object]) -> float:
    """What one call takes of the processor, however busy the machine is."""
    start = process_time()
    call()
    return process_time() - start


def waits(recommender: MetaRecommender, histories: UserHistories) -> tuple[float, ...]:
    """Median milliseconds to adapt a user, and to adapt one and make their list."""
    names, found = recommender.items["item_id"].tolist(), []
    for user in torch.arange(min(len(histories.profile), 160)).split(1):
        _, item, stars = (part[:10] for part in histories.ratings_of(user))
        rated = [names[i] for i in item.tolist()]
        ratings = dict(zip(rated, stars.tolist(), strict=True))
        start = process_time()
        own = recommender.adapt(ratings)
        adapted = process_time()
        own.recommend(10)
        found.append((adapted - start, process_time() - start))
    # What the first calls load is not counted.
    both = zip(*found[len(found) // 10 :], strict=True)
    return tuple(1000 * statistics.median(each) for each in both)


def measured(
    data: RatingData, goal: str, systems: Sequence[tuple[str, ...]]
) -> Iterator[dict[str, object]]:
    """One row for each system of a goal; all start from the same item vectors."""
    histories, lists = UserHistories(data), goal == "lists"
    users, features = histories.usable(torch.arange(data.n_users)), item_features(data)
    _, validation = hold_out(histories, users)
    warm = item_vectors(histories, users, features, 16 if lists else 8, goal=goal)
    parts = Parts.of(histories, users, warm, features)
    sizes = [k for k in SUPPORT_SIZES if 0 < k <= histories.reserved]
    given = sizes, 64 if lists else 32, warm.item_rows, (0, 1), lists
    items = data.items[["item_id", "title"]].assign(ratings=0)
    for names in tqdm(systems, desc=goal):
        system = System(*names, goal=goal)
        meta, config = build_system(system, parts), default_config(system)
        config = replace(config, epochs=EPOCHS)
        tasks = TaskSampler(histories, users, *given)
        train = partial(meta_train, meta, tasks, lambda: 0.0, config, progress=False)
        epoch = seconds(train) / EPOCHS
        score = partial(validation_score, meta, histories, validation, sizes, goal)
        row = {"epoch_s": epoch, "validation_s": seconds(score)}
        meta.model.keep_first_copy()
        recommender = MetaRecommender(*names, goal=goal)
        recommender.scale = histories.scale
        recommender.user_features = histories.user_features
        recommender.serve(meta, items, parts.sizes)
        adapt, user = waits(recommender, histories)
        row = {"adapt_ms": adapt, "user_ms": user} | row
        yield {"system": " + ".join(names), "goal": goal} | row


def five_seeds(data: RatingData) -> float:
    """All that a fold takes, item vectors included."""
    fold, system = Fold(data), System(learner="in-context", goal="lists")

    def train() -> None:
        for seed in range(SEEDS):
            fold.train(system, seed)

    return seconds(train)


@one_thread()
def main(argv: list[str] | None = None) -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small draw")
    out = Path(__file__).parent / "results" / "speed_systems.csv"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args(argv)
    data, systems = load_movielens_100k(), EVERY
    if arguments.quick:
        data, systems = synthetic_population(n_users=60, n_items=80)[0], SOME
    rows = [row for goal in GOALS for row in measured(data, goal, systems)]
    table = pd.DataFrame(rows)
    reader = (table["system"] == "mf + maml + in-context") & (table["goal"] == "lists")
    if reader.any():
        table.loc[reader, "five_seeds_s"] = five_seeds(data)
    write_table(
        arguments.out,
        table,
        "python benchmarks/speed_systems.py",
        [
            "MovieLens-100K, one thread, time of the processor",
            "adapt_ms, user_ms: medians; a user with ten ratings is adapted, and the"
            " ten best of all items are listed",
            "epoch_s: meta-training over all users; validation_s: a tenth of them",
            "five_seeds_s: item vectors and five trainings, fold 0",
            f"{platform.machine()}",
        ],
    )


if __name__ == "__main__":
    main()
