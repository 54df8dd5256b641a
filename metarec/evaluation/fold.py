"""One split of the users, with what all methods on it share, fitted once."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import pandas as pd
from torch import Tensor

from metarec.baselines import PooledMLP
from metarec.data import RatingData
from metarec.factors import GaussianFactorModel, WarmStart, cross_fit
from metarec.factors.warm_start import choices
from metarec.features import item_features
from metarec.meta import MetaLearner
from metarec.systems import Parts, System, fit_system, item_vectors
from metarec.tasks import UserHistories, split_users
from metarec.validation import Predictor, judge, validation_score

Sizes = Sequence[int] | None


@dataclass(frozen=True)
class Protocol:
    """Settings of one evaluation: what a result depends on beside data and method.

    Parameters
    ----------
    folds
        Number of folds of the users; 5 if not given.
    order
        Order of a user's ratings, one of `ORDERS`.
    reserved
        First ratings of a user, 15 if not given, which supports are cut from and no
        query holds; users with no more than that are not judged.
    seed
        Seed of everything that is drawn.
    split
        What cuts the users into folds: "users", a draw of them; "time", the day that
        they signed up. Then the last are the test, and nothing that happened after the
        first of them came is trained on; there is one such fold, the 0th.
    sizes
        Support sizes K to judge at; those of the kind of protocol if not given.

    Plumbing
    --------
    The command ``python -m metarec.evaluation``.
    """

    folds: int = 5
    order: str = "time"
    reserved: int = 15
    seed: int = 0
    split: str = "users"
    sizes: Sizes = None


class Fold:
    """One fold of the protocol: who is trained on, who chooses, who is judged.

    ``histories`` holds all users; ``sealed`` is the same without the ratings of the
    test users, and the only thing that a method is fitted on. The strongest baselines
    and the item vectors that all systems start from are fitted at first use and kept.

    Parameters
    ----------
    data
        The ratings.
    number
        Which fold is the test, from 0.
    protocol
        How users are cut into folds, and their ratings into support and query.

    Raises
    ------
    ValueError
        If the users are too few for the folds, or none signed up before the others.

    Plumbing
    --------
    The command ``python -m metarec.evaluation`` and the benchmarks.
    """

    def __init__(
        self, data: RatingData, number: int = 0, protocol: Protocol | None = None
    ) -> None:
        how = protocol or Protocol()
        self.number, self.asked, came, part = number, how.sizes, None, number
        self._starts: dict[str, WarmStart] = {}
        if how.split == "time":
            days = data.ratings.groupby("user")["timestamp"].min()
            came = days.reindex(range(data.n_users), fill_value=0).to_numpy()
            part = how.folds - 1
        self.split = split_users(data.n_users, part, how.folds, None, how.seed, came)
        if came is not None:
            table, test = data.ratings, self.split.test.numpy()
            early = table["timestamp"] < came[test].min()
            if not early.any():
                raise ValueError("no user signed up before the others: no dates?")
            data = replace(data, ratings=table[early | table["user"].isin(test)])
        settings = how.order, how.reserved, how.seed, self.split.train
        self.histories = UserHistories(data, *settings)
        # Whatever is fitted or chosen goes through this door: it cannot see test users.
        self.sealed = self.histories.seal(self.split.test)
        self.features = item_features(data)

    @property
    def train_users(self) -> Tensor:
        """Training users long enough to be a task."""
        return self.sealed.usable(self.split.train)

    @cached_property
    def gaussian(self) -> GaussianFactorModel:
        """The baseline to beat, Gaussian factor model with the items' features."""
        train = self.split.train
        model = GaussianFactorModel.fit(self.sealed, train, features=self.features)
        model.choose_temper(self.sealed, self.split.validation)
        return model

    @cached_property
    def with_users(self) -> GaussianFactorModel:
        """The baseline to beat with what is known of users beside their ratings."""
        model, validation = copy.copy(self.gaussian), self.split.validation
        model.choose_profile(self.sealed, self.split.train, validation)
        model.choose_temper(self.sealed, validation)
        return model

    @cached_property
    def with_implicit(self) -> GaussianFactorModel:
        """The same, shifted by which items a user rated."""
        return self.shifted(self.gaussian)

    def shifted(self, model: GaussianFactorModel) -> GaussianFactorModel:
        """A copy of ``model``, shifted by which items a user rated.

        Parameters
        ----------
        model
            One of this fold.

        Returns
        -------
        GaussianFactorModel
            The copy.
        """
        model = copy.copy(model)
        model.learn_implicit(self.sealed, self.split.train)
        model.choose_temper(self.sealed, self.split.validation)
        return model

    @cached_property
    def warm(self) -> WarmStart:
        """The item vectors that the meta-learners start from, cross-fitted."""
        return cross_fit(self.with_implicit, self.sealed, self.split.train)

    @cached_property
    def pooled(self) -> PooledMLP:
        """One network for all users, no inner loop."""
        parts = self.split.train, self.warm, self.features
        return PooledMLP.fit(self.sealed, *parts, self.validate)

    @cached_property
    def choices(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log-popularity (I,), and what training users rated and liked, (U, I) each."""
        rated, liked = choices(self.sealed, self.split.train)
        return (liked.sum(0) + 0.5).log(), rated, liked

    def start(self, goal: str) -> WarmStart:
        """What systems of a goal start from; made once for each goal.

        Parameters
        ----------
        goal
            What they are trained for, one of `GOALS`.

        Returns
        -------
        WarmStart
            Item vectors, and where the rest starts.
        """
        if goal == "stars":
            return self.warm
        if goal not in self._starts:
            dim = 16 if goal == "lists" else 8
            known = self.sealed, self.split.train, self.features
            self._starts[goal] = item_vectors(*known, dim, implicit=True, goal=goal)
        return self._starts[goal]

    def train(
        self, system: System, seed: int = 0, start: WarmStart | None = None
    ) -> MetaLearner:
        """Build and meta-train a system with the settings that the package gives it.

        Parameters
        ----------
        system
            The names of the parts.
        seed
            Seed of the build and of the epochs.
        start
            What the system starts from; that of its goal if not given.

        Returns
        -------
        MetaLearner
            The trained meta-learner.
        """
        users = self.train_users
        start = start or self.start(system.goal)
        parts = Parts.of(self.sealed, users, start, self.features)
        validate = partial(self.validate, goal=system.goal)
        return fit_system(system, parts, self.sealed, users, validate, seed=seed)

    def validate(self, predictor: Predictor, goal: str = "stars") -> float:
        """Mean error of the validation users: what chooses hyper-parameters.

        Parameters
        ----------
        predictor
            What is judged.
        goal
            "stars" for RMSE, "clicks" for log-loss, or "lists" for nDCG@10, negative.

        Returns
        -------
        float
            The error, lower is better.
        """
        users = self.split.validation
        return validation_score(predictor, self.sealed, users, goal=goal)

    def judge(
        self, predictor: Predictor, sizes: Sizes = None, protocol: str = "cold-start"
    ) -> pd.DataFrame:
        """Errors on test users, one row for each user and K.

        Parameters
        ----------
        predictor
            What is judged.
        sizes
            Support sizes K; those of the protocol if not given.
        protocol
            Name of the protocol, such as "whole-life".

        Returns
        -------
        pd.DataFrame
            One row for each user and K (see `cold_start`, `rank_catalogue`).
        """
        sizes = self.asked if sizes is None else sizes
        table = judge(predictor, self.histories, self.split.test, protocol, sizes)
        return table.assign(fold=self.number)
