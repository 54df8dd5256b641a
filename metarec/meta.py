"""Meta-learners: from many users' histories to the prior of a new user."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metarec.learners import (
    GradientDescent,
    Parameters,
    Prior,
    mean_squared_error,
    predict,
)
from metarec.tasks import Examples, Tasks

__all__ = ["MAML"]


class MAML(nn.Module):
    """Learn the initialisation from which a few inner steps serve a new user best.

    min over theta_0 and alpha of sum_u L_query(A(theta_0, alpha, S_u); Q_u), with A the
    task-learner, S_u the support and Q_u the query of user u. The gradient runs through
    the inner steps (second order) unless the learner is ``first_order``.

    ``adapt`` names the parameters that are a user's own (all by default); the model's
    others are shared, and learned too where they require a gradient. ``rate`` is where
    alpha starts; it is one number, learned as its logarithm, or fixed if
    ``learn_rate`` is false.

    Raises ``ValueError`` for a name in ``adapt`` that the model does not have.
    Source: Finn, Abbeel & Levine (2017).
    Built in: maml
    """

    def __init__(
        self,
        model: nn.Module,
        learner: GradientDescent | None = None,
        adapt: Sequence[str] | None = None,
        rate: float = 0.01,
        learn_rate: bool = True,
    ) -> None:
        super().__init__()
        names = [name for name, _ in model.named_parameters()]
        self.model = model
        self.learner = GradientDescent() if learner is None else learner
        self.adapted = tuple(names if adapt is None else adapt)
        if unknown := set(self.adapted) - set(names):
            raise ValueError(f"the model has no parameter {unknown}; it has {names}")
        self.log_rate = nn.Parameter(torch.tensor(rate).log(), learn_rate)

    def prior(self) -> Prior:
        """theta_0 and alpha, as the task-learner takes them."""
        parameters = dict(self.model.named_parameters())
        return Prior(
            mean={name: parameters[name] for name in self.adapted},
            scale=dict.fromkeys(self.adapted, self.log_rate.exp()),
        )

    def adapt(self, support: Examples) -> Parameters:
        """Each task's own weights, learned from its support."""
        return self.learner.adapt(self.model, self.prior(), support)

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Adapt to ``support``, then predict ``x``: shape (B, N)."""
        return predict(self.model, self.adapt(support), x)

    def loss(self, tasks: Tasks) -> Tensor:
        """The meta-loss: half the mean squared error of the query, averaged over tasks.

        Each task counts once, since the metric averages over users.
        """
        query = tasks.query
        prediction = self.predict(tasks.support, query.x)
        return mean_squared_error(prediction, query.y, query.mask).mean()
