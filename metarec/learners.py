"""Task-learners: from a prior and a few ratings to one user's own weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from metarec.models import MatrixFactorization
from metarec.tasks import Examples

__all__ = [
    "GradientDescent",
    "Loss",
    "Parameters",
    "Prior",
    "inner_loop",
    "mean_squared_error",
    "predict",
    "squared_error",
]

Parameters = dict[str, Tensor]
"""Weights by name, as ``named_parameters`` gives them.

Plumbing: a type.
"""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(prediction, target, mask) of one task, each (N,), to a number.

Plumbing: a type.
"""


def squared_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Half the *sum* of squared errors: L = 1/2 sum_n mask_n (r_hat_n - r_n)^2.

    The sum counts the evidence: its gradient grows with the number of ratings, as the
    likelihood of a Gaussian with unit noise does.

    Built in: inner-loop
    """
    return 0.5 * torch.where(mask, prediction - target, 0.0).square().sum(-1)


def mean_squared_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Half the *mean* of squared errors, 0 for an empty task.

    As an inner loss it forgets how many ratings there are; as a meta-loss it lets each
    user count once.

    Built in: inner-loop
    """
    return squared_error(prediction, target, mask) / mask.sum(-1).clamp(min=1)


class Prior(NamedTuple):
    """Where adaptation starts and how far it trusts a step.

    ``mean``: the initialisation theta_0 of every adapted parameter, by name.
    ``scale``: by the same names, a number or a tensor that broadcasts against it; the
    gradient learner reads it as the inner rate alpha.

    Built in: maml
    """

    mean: Parameters
    scale: Parameters


def inner_loop(
    loss: Callable[[Parameters], Tensor],
    start: Parameters,
    rate: Parameters,
    steps: int,
    first_order: bool = False,
) -> Parameters:
    """Take T steps of gradient descent as a function, leaving ``start`` untouched.

    theta <- theta - alpha * grad L(theta), ``steps`` times. The result depends on
    ``start`` and ``rate`` differentiably, through the gradients as well; with
    ``first_order`` the gradients are taken as constants and the Hessian drops out.

    Source: Finn, Abbeel & Levine (2017), equation 1.
    Built in: inner-loop
    """
    weights = start
    for _ in range(steps):
        gradient = grad(loss)(weights)
        if first_order:
            gradient = {name: g.detach() for name, g in gradient.items()}
        weights = {name: w - rate[name] * gradient[name] for name, w in weights.items()}
    return weights


@dataclass(frozen=True)
class GradientDescent:
    """T steps of gradient descent from theta_0, for all tasks of a batch at once.

    ``steps`` is T, ``loss`` the inner loss (the sum, by default), ``first_order`` drops
    the Hessian from the meta-gradient.

    Built in: inner-loop
    """

    steps: int = 5
    loss: Loss = squared_error
    first_order: bool = False

    def __post_init__(self) -> None:
        """Refuse a negative number of steps."""
        if self.steps < 0:
            raise ValueError(f"steps must be 0 or more, got {self.steps}")

    def adapt(self, model: nn.Module, prior: Prior, support: Examples) -> Parameters:
        """Weights of each task: every parameter of the prior with a leading task axis.

        Parameters of ``model`` that the prior does not name are shared and stay fixed.
        A linear head under a squared error has its gradient in closed form, which gives
        the same numbers several times faster.
        """
        if _is_head(model, prior.mean) and self.loss in _SQUARED:
            return {"head": self._adapt_head(model, prior, support)}
        shared = {
            name: value
            for name, value in model.named_parameters()
            if name not in prior.mean
        }

        def one_task(x: Tensor, y: Tensor, mask: Tensor) -> Parameters:
            def loss(weights: Parameters) -> Tensor:
                prediction = functional_call(model, {**shared, **weights}, (x,))
                return self.loss(prediction, y, mask)

            return inner_loop(
                loss, prior.mean, prior.scale, self.steps, self.first_order
            )

        return vmap(one_task)(support.x, support.y, support.mask)

    def _adapt_head(
        self, model: MatrixFactorization, prior: Prior, support: Examples
    ) -> Tensor:
        """w <- w + alpha Phi' (r - offset - Phi w) for all tasks: (B, dim + 1)."""
        mask, phi = support.mask, model.features(support.x)
        rest = support.y - model.offset(support.x)
        rate = prior.scale["head"]
        if self.loss is mean_squared_error:
            rate = rate / mask.sum(-1, keepdim=True).clamp(min=1)
        w = prior.mean["head"].expand(len(support), -1)
        for _ in range(self.steps):
            error = torch.where(mask, rest - torch.einsum("bnd,bd->bn", phi, w), 0.0)
            descent = torch.einsum("bnd,bn->bd", phi, error)
            w = w + rate * (descent.detach() if self.first_order else descent)
        return w


_SQUARED = (squared_error, mean_squared_error)


def _is_head(model: nn.Module, weights: Parameters) -> TypeGuard[MatrixFactorization]:
    """Tell whether the weights are the linear head of a model, and nothing else."""
    return isinstance(model, MatrixFactorization) and list(weights) == ["head"]


def predict(model: nn.Module, weights: Parameters, x: Tensor) -> Tensor:
    """Predictions (B, N) of each task's own weights for its own inputs ``x``.

    Built in: inner-loop
    """

    if _is_head(model, weights):
        phi = model.features(x)
        return model.offset(x) + torch.einsum("bnd,bd->bn", phi, weights["head"])

    def one_task(own: Parameters, inputs: Tensor) -> Tensor:
        return functional_call(model, own, (inputs,))

    return vmap(one_task)(weights, x)
