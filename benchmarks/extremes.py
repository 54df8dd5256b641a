"""The farthest scores of lists from whole histories: benchmarks/results/extremes.csv.

    python benchmarks/extremes.py

Each of the 27 systems with its default settings is fitted on all of MovieLens-100K.
Everybody then gives all their ratings, and every item that they have not rated gets a
score. What is done is kept beside the table, so a run that was interrupted goes on;
--fresh begins anew.
"""

from __future__ import annotations

from itertools import product

import pandas as pd
from common import already, options
from tqdm import tqdm

from metarec import MetaRecommender
from metarec.data import RatingData, load_movielens_100k
from metarec.evaluation import write_table
from metarec.systems import LEARNERS, METAS, MODELS


def extremes(data: RatingData, model: str, meta: str, learner: str) -> dict[str, float]:
    """The lowest and the highest score, and how far they are off the scale."""
    fitted = MetaRecommender(model, meta, learner).fit(data, progress=False)
    given = data.ratings.assign(
        user_id=data.users["user_id"].to_numpy()[data.ratings["user"]],
        item_id=data.items["item_id"].to_numpy()[data.ratings["item"]],
    )
    score = fitted.recommend_all(given, n=data.n_items, progress=False)["score"]
    low, high = score.min(), score.max()
    beyond = max(data.scale.low - low, high - data.scale.high, 0)
    return {"lowest": low, "highest": high, "beyond": beyond}


def main() -> None:
    """Read the arguments, run what is not done yet, write the table."""
    arguments = options(__doc__, "extremes")
    done = already(arguments.store)
    data = load_movielens_100k()
    parts = ["model", "meta", "learner"]
    for names in tqdm(list(product(MODELS, METAS, LEARNERS)), desc="extremes"):
        if not len(done) or not (done[parts] == names).all(axis=1).any():
            row = dict(zip(parts, names, strict=True)) | extremes(data, *names)
            done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
            done.to_pickle(arguments.store)
    write_table(
        arguments.out,
        done,
        "python benchmarks/extremes.py",
        [
            "MovieLens-100K, all users, default settings; each user's whole history "
            "given, every unrated item scored by recommend_all",
            "beyond: distance of the farthest score from the scale, in stars",
        ],
    )
    arguments.store.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
