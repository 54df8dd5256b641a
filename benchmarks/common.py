"""What the benchmarks share: the folds of MovieLens-100K, fitted once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from metarec.baselines import GaussianFactorModel, UserItemBias, cross_fit
from metarec.data import RatingData
from metarec.evaluation import Predictor, cold_start, validation_score
from metarec.features import item_features
from metarec.systems import Parts, System, build_system, default_config
from metarec.tasks import TaskSampler, UserHistories, split_users
from metarec.training import meta_train, save_aside

FOLDS = range(5)
SIZES = (0, 1, 3, 5, 10, 15)


class Fold:
    """One split of the users, with the item vectors that all systems start from.

    ``gaussian`` is the baseline to beat, ``chooser`` the same with what the choice of
    items says.
    """

    def __init__(
        self, data: RatingData, number: int, seed: int = 0, order: str = "time"
    ) -> None:
        self.number, self.seed = number, seed
        self.histories = UserHistories(data, order, seed=seed)
        self.split = split_users(data.n_users, number, seed=seed)
        self.features = item_features(data)
        self.gaussian = GaussianFactorModel.fit(
            self.histories, self.split.train, features=self.features
        )
        self.gaussian.choose_temper(self.histories, self.split.validation)
        self.chooser = copy.copy(self.gaussian)
        self.chooser.learn_implicit(self.histories, self.split.train)
        self.chooser.choose_temper(self.histories, self.split.validation)
        self.warm = cross_fit(self.chooser, self.histories, self.split.train)

    def bias(self) -> UserItemBias:
        """The shrunk biases, fitted on the training users."""
        return UserItemBias.fit(self.histories, self.split.train)

    def judge(self, predictor: Predictor) -> pd.DataFrame:
        """Errors on test users, one row for each user and K."""
        table = cold_start(predictor, self.histories, self.split.test, SIZES)
        return table.assign(fold=self.number)

    def validate(self, predictor: Predictor) -> float:
        """Mean RMSE of the validation users."""
        return validation_score(predictor, self.histories, self.split.validation)

    def train(self, system: System) -> Predictor:
        """Build and meta-train a system with the settings that the package gives it."""
        users = self.histories.usable(self.split.train)
        parts = Parts.of(self.histories, users, self.warm, self.features)
        meta = build_system(system, parts)
        sampler = TaskSampler(self.histories, users, item_rows=self.warm.item_rows)
        meta_train(
            meta,
            sampler,
            lambda: self.validate(meta),
            default_config(system),
            progress=False,
        )
        return meta


def evaluate(fold: Fold, system: System) -> pd.DataFrame:
    """Train a system on one fold and judge it."""
    return fold.judge(fold.train(system))


def write_table(
    path: Path, table: pd.DataFrame, command: str, notes: Sequence[str]
) -> None:
    """Write a CSV with its provenance in comment lines, aside and renamed."""
    head = "".join(f"# {line}\n" for line in [f"made by: {command}", *notes])
    text = head + table.to_csv(index=False, float_format="%.5f")
    save_aside(path, partial(Path.write_text, data=text))
    print(f"wrote {path.name}: {len(table)} rows")
