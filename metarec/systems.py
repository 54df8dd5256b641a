"""Any recommender with any meta-learner and any task-learner: the grid of systems."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from metarec.baselines import WarmStart
from metarec.bayes import Bayesian
from metarec.learners import GradientDescent, TaskLearner
from metarec.meta import MAML, MetaMind, MetaSGD
from metarec.models import MLP, FeatureAttention, MatrixFactorization, RatingModel
from metarec.task_attention import TaskAttention, TaskBank
from metarec.tasks import UserHistories

__all__ = ["LEARNERS", "METAS", "MODELS", "System", "build_system"]

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

    ``implicit`` adds the shift by which items were rated (matrix factorisation only),
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


def build_system(
    system: System,
    histories: UserHistories,
    users: Tensor,
    warm: WarmStart,
    item_features: Tensor,
    seed: int = 0,
) -> MAML:
    """Put the parts together, ready for `training.meta_train` on ``users``.

    ``warm`` brings the item vectors, ``item_features`` (n_items, F) what is known of
    the items; the tasks of ``users`` are the bank of task attention.

    Built in: full-system
    """
    generator = torch.Generator().manual_seed(seed)
    n_profile = histories.profile.shape[1]
    model: RatingModel
    if system.model == "mf":
        model = MatrixFactorization.from_items(
            warm.factors, warm.offset, histories.n_items
        )
    else:
        kind = MLP if system.model == "mlp" else FeatureAttention
        model = kind(
            warm.factors, warm.offset, item_features, n_profile, generator=generator
        )
    if system.implicit:
        model.learn_implicit()
    with torch.no_grad():
        model.head[-1] = warm.mean_bias
    learner: TaskLearner
    adapt = ["head"]
    if system.learner == "gradient":
        learner = GradientDescent(system.steps)
        adapt += ["query"] * (system.model == "attention")
    elif system.learner == "bayesian":
        learner = Bayesian()
    else:
        history = histories.everything(users, 64)
        learner = TaskAttention(TaskBank(history, len(users), len(model.head)))
    if system.meta == "metamind":
        return MetaMind(model, learner, adapt, generator=generator)
    if system.meta == "meta-sgd":
        return MetaSGD(model, learner, adapt, full=system.full)
    return MAML(model, learner, adapt)
