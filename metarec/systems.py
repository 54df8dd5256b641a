"""Any recommender with any meta-learner and any task-learner: the grid of systems."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Self

import torch
from torch import Tensor

from metarec.factors import WarmStart
from metarec.learners import (
    Bayesian,
    GradientDescent,
    TaskAttention,
    TaskBank,
    TaskLearner,
)
from metarec.meta import MAML, MetaMind, MetaSGD
from metarec.models import MLP, FeatureAttention, MatrixFactorization, RatingModel
from metarec.tasks import Examples, UserHistories
from metarec.training import TrainingConfig

__all__ = [
    "LEARNERS",
    "METAS",
    "MODELS",
    "Parts",
    "System",
    "build_system",
    "default_config",
]

MODELS = {
    "mf": "matrix factorisation",
    "mlp": "MLP on features",
    "attention": "attention over features",
}
"""The recommenders by name.

Plumbing: a constant.
"""

METAS = {"maml": MAML, "meta-sgd": MetaSGD, "metamind": MetaMind}
"""The meta-learners by name.

Plumbing: a constant.
"""

LEARNERS = {
    "gradient": "gradient descent",
    "bayesian": "Bayesian",
    "attention": "task attention",
}
"""The task-learners by name.

Plumbing: a constant.
"""


@dataclass(frozen=True)
class System:
    """The names of a recommender, a meta-learner and a task-learner.

    ``implicit`` adds the shift by which items were rated,
    ``full`` gives Meta-SGD a full matrix for its scale, ``steps`` is T of gradient
    descent.

    Raises ``ValueError`` for a name that does not exist or parts that do not fit.
    Built in: full-system
    """

    model: str = "mf"
    meta: str = "maml"
    learner: str = "gradient"
    implicit: bool = False
    full: bool = False
    steps: int = 5

    def __post_init__(self) -> None:
        """Refuse what cannot be built, and say what can."""
        for part, known in (("model", MODELS), ("meta", METAS), ("learner", LEARNERS)):
            name = getattr(self, part)
            if name not in known:
                raise ValueError(
                    f"{part}={name!r} does not exist: choose one of {', '.join(known)}"
                )
        if self.full and self.meta != "meta-sgd":
            raise ValueError('full=True is an option of meta="meta-sgd" alone')

    def __str__(self) -> str:
        """Write the parts in one line."""
        extra = [f.name for f in fields(self) if getattr(self, f.name) is True]
        return " + ".join([self.model, self.meta, self.learner, *extra])


def default_config(system: System, seed: int = 0) -> TrainingConfig:
    """Settings of the outer loop that suit the system; slower where features train.

    Chosen on validation users.

    Built in: full-system
    """
    rate = 0.01 if system.model == "mf" else 0.003
    return TrainingConfig(learning_rate=rate, seed=seed)


@dataclass(frozen=True)
class Parts:
    """What a system is put together from.

    ``factors`` and ``offset`` are the item table and its copies (see
    `factors.WarmStart`), ``mean_bias`` where the head's constant starts,
    ``item_features`` (n_items, F), ``n_profile`` the number of user features and
    ``history`` makes the tasks that task attention looks at, where it is built.

    Plumbing: handed to `build_system`.
    """

    factors: Tensor
    offset: Tensor
    mean_bias: float
    item_features: Tensor
    n_profile: int
    history: Callable[[], Examples] | None
    n_tasks: int
    implicit: Tensor | None = None

    @classmethod
    def of(
        cls,
        histories: UserHistories,
        users: Tensor,
        warm: WarmStart,
        item_features: Tensor,
    ) -> Self:
        """Parts to train on ``users``, who are also the bank."""
        return cls(
            warm.factors,
            warm.offset,
            warm.mean_bias,
            item_features,
            histories.profile.shape[1],
            partial(histories.everything, users, 64),
            len(users),
            warm.implicit,
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Parts with the shapes of a saved ``state_dict``, which is to be loaded."""
        factors, offset = state["model.item_factors"], state["model.item_offset"]
        nothing = torch.zeros(len(factors), 0)
        features = state.get("model.item_features", nothing)
        query = state.get("model.profile_query", torch.zeros(0, 0))
        inputs = len(state.get("model.first", torch.zeros(0, 0)))
        of_mlp = max(0, inputs - factors.shape[1] - features.shape[1])
        deltas = state.get("learner.bank.deltas", torch.zeros(0, 0))
        n_profile = max(len(query), of_mlp)
        implicit = state.get("model.implicit")
        return cls(
            factors, offset, 0.0, features, n_profile, None, len(deltas), implicit
        )


def build_system(system: System, parts: Parts, seed: int = 0) -> MAML:
    """Put the parts together, ready for `training.meta_train`.

    Raises ``ValueError`` if the system needs a part that is not there.
    Built in: full-system
    """
    generator = torch.Generator().manual_seed(seed)
    model: RatingModel
    table = parts.factors, parts.offset
    if system.model == "mf":
        model = MatrixFactorization.from_items(*table, len(parts.item_features))
    else:
        kind = MLP if system.model == "mlp" else FeatureAttention
        model = kind(*table, parts.item_features, parts.n_profile, generator=generator)
    if system.implicit:
        if parts.implicit is None:
            raise ValueError(
                "implicit=True needs vectors of the items' choice: call "
                "learn_implicit on the Gaussian factor model before cross_fit"
            )
        model.use_implicit(parts.implicit)
    with torch.no_grad():
        model.head[-1] = parts.mean_bias
    learner: TaskLearner
    adapt = ["head"]
    if system.learner == "gradient":
        learner = GradientDescent(system.steps)
        adapt += ["query"] * (system.model == "attention")
    elif system.learner == "bayesian":
        learner = Bayesian()
    else:
        history = None if parts.history is None else parts.history()
        bank = TaskBank(history, parts.n_tasks, len(model.head))
        learner = TaskAttention(bank)
    if system.meta == "metamind":
        return MetaMind(model, learner, adapt, generator=generator)
    if system.meta == "meta-sgd":
        return MetaSGD(model, learner, adapt, full=system.full)
    return MAML(model, learner, adapt)
