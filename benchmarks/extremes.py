"""The farthest scores on lists from whole histories: benchmarks/results/extremes.csv.

    python benchmarks/extremes.py

Each of the 27 systems with its default settings is fitted on the training and
validation users of the first fold. Everybody then gives all their ratings, and gets a
list of ten. What is done is kept beside the table, so a run that was interrupted goes
on; --fresh begins anew.
"""

from __future__ import annotations

import pandas as pd
import torch
from common import already, options
from tqdm import tqdm

from metarec import MetaRecommender
from metarec.data import RatingData, load_movielens_100k
from metarec.evaluation import write_table
from metarec.systems import GRID
from metarec.tasks import split_users


def extremes(data: RatingData, *names: str) -> dict[str, float]:
    """The lowest and highest score on the lists, and how far they are off the scale."""
    split = split_users(data.n_users)
    learned = torch.cat([split.train, split.validation])
    fitted = MetaRecommender(*names).fit(data, users=learned, progress=False)
    items = data.items["item_id"].to_numpy()[data.ratings["item"]]
    labels = data.users["user_id"].to_numpy()[data.ratings["user"]]
    given = data.ratings.assign(user_id=labels, item_id=items)
    new = given.assign(user_id=[f"new {label}" for label in labels])
    found = {}
    for name, ratings in (("beyond_as_new", new), ("beyond", given)):
        score = fitted.recommend_all(ratings, progress=False)["score"]
        low, high = float(score.min()), float(score.max())
        found[name] = max(data.scale.low - low, high - data.scale.high, 0)
    return {"lowest": low, "highest": high} | found


def main() -> None:
    """Read the arguments, run what is not done yet, write the table."""
    arguments = options(__doc__, "extremes")
    done = already(arguments.store)
    data = load_movielens_100k()
    parts = ["model", "meta", "learner"]
    for names in tqdm(GRID, desc="extremes"):
        if not len(done) or not (done[parts] == list(names)).all(axis=1).any():
            row = dict(zip(parts, names, strict=True)) | extremes(data, *names)
            done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
            done.to_pickle(arguments.store)
    write_table(
        arguments.out,
        done,
        "python benchmarks/extremes.py",
        [
            "MovieLens-100K, default settings, fitted on the training and validation "
            "users of fold 0 (seed 0); recommend_all on whole histories of everybody",
            "beyond: distance of the farthest score from the scale, in stars",
            "beyond_as_new: the same without their user_id, as if nobody were known",
        ],
    )
    arguments.store.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
