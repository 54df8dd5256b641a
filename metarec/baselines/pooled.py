"""One network for everybody: what meta-training must beat to be worth its trouble."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from metarec.factors.warm_start import WarmStart
from metarec.learners import GradientDescent
from metarec.meta import MAML, MetaLearner
from metarec.systems import Parts, System, fit_system
from metarec.tasks import Examples, UserHistories
from metarec.training import TrainingConfig

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""The rates of fine-tuning to choose from.

Plumbing
--------
A constant.
"""


@dataclass(frozen=True)
class PooledMLP:
    """An `MLP` with one head for all users, trained on their pooled ratings.

    min over all weights of the mean over users of ``1/2 mean_i (r_ui - r_hat_ui)^2``:
    no support, no inner loop, ``T = 0``. It starts from the same item vectors as the
    meta-learners and sees the same user features, so that what is left between them is
    the inner loop. `fit` ignores a support; `fine_tuned` takes T steps of gradient
    descent on the head, which nothing in the training prepared for.

    Parameters
    ----------
    meta
        The network with its one head.

    Source
    ------
    Raghu et al. (2020) compare the two kinds of training.

    Built in
    --------
    leaderboard
    """

    meta: MetaLearner

    @classmethod
    def fit(
        cls,
        histories: UserHistories,
        users: Tensor,
        warm: WarmStart,
        features: Tensor,
        validate: Callable[[MetaLearner], float],
        config: TrainingConfig | None = None,
    ) -> Self:
        """Train on all ratings of ``users``; ``validate`` scores validation users.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        warm
            Item vectors to start from, cross-fitted.
        features
            What is known of each item, shape (I, F).
        validate
            Score on validation users, lower is better.
        config
            Settings of the outer loop; those that suit it, if not given.

        Returns
        -------
        PooledMLP
            The fitted object.
        """
        config = TrainingConfig(learning_rate=0.003) if config is None else config
        # With nothing reserved and K = 0 every rating of a user is in the query.
        # A copy, since the caller's histories go on reserving ratings.
        whole = copy(histories)
        whole.reserved = 0
        users = whole.usable(users)
        parts = Parts.of(whole, users, warm, features)
        system, seed = System("mlp", steps=0), config.seed
        return cls(fit_system(system, parts, whole, users, validate, config, seed))

    def fine_tuned(self, validate: Callable[[Self], float], steps: int = 5) -> Self:
        """Take ``steps`` on the head for each new user, at the rate that suits best.

        One rate of ``RATES``, by ``validate`` on validation users. The network is
        shared.

        Parameters
        ----------
        validate
            Score on validation users, lower is better.
        steps
            Steps on the head for each new user.

        Returns
        -------
        PooledMLP
            The same network with steps on the head.
        """
        model, learner = self.meta.model, GradientDescent(steps)
        tuned = (MAML(model, learner, ["head"], rate, False) for rate in RATES)
        return min(map(type(self), tuned), key=validate)

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N), after the steps of fine-tuning on the support if any.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.
        x
            Items to score, shape (B, N).

        Returns
        -------
        Tensor
            Scores, in stars, shape (B, N).
        """
        with torch.no_grad():
            return self.meta.predict(support, x)
