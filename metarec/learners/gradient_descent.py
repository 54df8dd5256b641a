"""The first task-learner: a few steps of gradient descent from the prior's mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, grad

from metarec.learners.functional import over_tasks, twin
from metarec.learners.heads import dot, expand_mean, is_head, masked_rows, scaled
from metarec.learners.losses import (
    Loss,
    likelihood_of,
    mean_squared_error,
    squared_error,
)
from metarec.learners.prior import Parameters, Prior
from metarec.learners.task_learner import TaskLearner
from metarec.models import Gaussian, RatingModel
from metarec.tasks import Examples, Tasks

_SQUARED = (squared_error, mean_squared_error)


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
class GradientDescent(TaskLearner):
    """T steps of gradient descent from theta_0, for all tasks of a batch at once.

    w <- w - alpha o grad L(w), with alpha the prior's scale; sigma^2 is a part of
    alpha here. ``steps`` is T, ``loss`` the inner loss (by default that of the model's
    likelihood, a sum over ratings), ``first_order`` drops the Hessian from the
    meta-gradient.

    Built in: inner-loop
    """

    steps: int = 5
    loss: Loss | None = None
    first_order: bool = False

    initial_scale = 0.01
    noisy = False

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
        if is_head(model, prior.mean) and self._is_squared(model):
            return {"head": self._adapt_head(model, prior, support)}
        loss = likelihood_of(model).loss if self.loss is None else self.loss
        score, inputs = _score_of(model, prior, support)

        def task_loss(
            weights: Parameters, y: Tensor, mask: Tensor, *inputs: Tensor
        ) -> Tensor:
            return loss(score(weights, *inputs), y, mask)

        losses = over_tasks(task_loss, len(support))
        weights = {n: _own(model, n, m, support) for n, m in prior.mean.items()}
        for _ in range(self.steps):
            gradient = self._gradients(losses, weights, support, inputs)
            weights = {n: w - prior.scale[n] * gradient[n] for n, w in weights.items()}
        return weights

    def meta_loss(self, model: nn.Module, prior: Prior, tasks: Tasks) -> Tensor:
        """Mean loss of a query rating under each task's own weights, shape (B,).

        That of a head under a squared error knows its own gradient.
        """
        gaussian = isinstance(likelihood_of(model), Gaussian)
        if not (gaussian and is_head(model, prior.mean)):
            return super().meta_loss(model, prior, tasks)
        query, profile = tasks.query, tasks.support.profile
        phi, offset = model.features(query.x, profile), model.offset(query.x)
        if self._is_squared(model) and not self.first_order:
            p, c, w = self._affine(model, prior, tasks.support)
            return _loss_after_steps(phi, offset, query, w, p, c, self.steps)
        w = self.adapt(model, prior, tasks.support)["head"]
        return _loss_after_steps(phi, offset, query, w)

    def _is_squared(self, model: nn.Module) -> bool:
        """Tell whether the inner loss is a squared error, its gradient affine in w."""
        gaussian = isinstance(likelihood_of(model), Gaussian)
        return self.loss in _SQUARED or (self.loss is None and gaussian)

    def _gradients(
        self,
        losses: Callable[..., Tensor],
        weights: Parameters,
        support: Examples,
        inputs: tuple[Tensor, ...],
    ) -> Parameters:
        """Each task's gradient, with a task axis, by one pass backward for all tasks.

        No task's loss depends on another's weights, so the gradient of the sum holds
        the gradient of each: the numbers of `inner_loop` under ``vmap``, in fewer
        layers.
        """
        second = torch.is_grad_enabled() and not self.first_order
        with torch.enable_grad():
            at = {
                n: w if second and w.requires_grad else w.detach().requires_grad_()
                for n, w in weights.items()
            }
            total = losses(at, support.y, support.mask, *inputs).sum()
            found = torch.autograd.grad(
                total, list(at.values()), create_graph=second, materialize_grads=True
            )
        return dict(zip(at, found, strict=True))

    def _adapt_head(
        self, model: RatingModel, prior: Prior, support: Examples
    ) -> Tensor:
        """w_T of w <- w + A (target - Gram w) for all tasks: (B, D)."""
        if self.first_order:
            return self._first_order_head(model, prior, support)
        p, c, w = self._affine(model, prior, support)
        result: Tensor = _AffineSteps.apply(w, p, c, self.steps)
        return result

    def _affine(
        self, model: RatingModel, prior: Prior, support: Examples
    ) -> tuple[Tensor, Tensor, Tensor]:
        """P (B, D, D), c and w_0 (B, D): a step of a linear head is w <- P w + c.

        P = I - A Gram and c = A target: the same in all steps, w moves alone. Gram and
        A are symmetric, so A Gram is the transpose of Gram A.
        """
        gram, target = self._normal_equations(model, support)
        rate, w = prior.scale["head"], expand_mean(prior, support)
        shrink = torch.eye(w.shape[-1], dtype=w.dtype) - scaled(rate, gram).mT
        return shrink, scaled(rate, target), w

    def _first_order_head(
        self, model: RatingModel, prior: Prior, support: Examples
    ) -> Tensor:
        """w_T = w_0 + A times the sum of the descents, which count as constants."""
        rate, w = prior.scale["head"], expand_mean(prior, support)
        with torch.no_grad():
            gram, target = self._normal_equations(model, support)
            descent, now = torch.zeros_like(w), w
            for _ in range(self.steps):
                step = target - dot(gram, now)
                descent, now = descent + step, now + scaled(rate, step)
        return w + scaled(rate, descent)

    def _normal_equations(
        self, model: RatingModel, support: Examples
    ) -> tuple[Tensor, Tensor]:
        """Gram = Phi' Phi and target = Phi' (y - offset), for the mean over the count.

        The gradient of the inner loss is Gram w - target.
        """
        phi, rest = masked_rows(model, support)
        gram, target = torch.bmm(phi.mT, phi), dot(phi.mT, rest)
        if self.loss is mean_squared_error:
            count = support.mask.sum(-1, keepdim=True).clamp(min=1)
            gram, target = gram / count[..., None], target / count
        return gram, target


def _own(model: nn.Module, name: str, mean: Tensor, support: Examples) -> Tensor:
    """A mean with a row for each task, which it may have already."""
    if mean.dim() > model.get_parameter(name).dim():
        return mean
    return mean.expand(len(support), *mean.shape)


def _score_of(
    model: nn.Module, prior: Prior, support: Examples
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """A task's score as a function of its weights, and its inputs for each task.

    Features that no weight of a task changes are looked up once, for all tasks.
    """
    if is_head(model, prior.mean):
        phi = model.features(support.x, support.profile)
        return _linear, (phi, model.offset(support.x))
    model, own = twin(model), set(prior.mean)
    shared = {n: p for n, p in model.named_parameters() if n not in own}

    def score(weights: Parameters, *inputs: Tensor) -> Tensor:
        return functional_call(model, {**shared, **weights}, inputs)

    x, profile = support.x, support.profile
    return score, (x,) if profile is None else (x, profile)


def _linear(weights: Parameters, phi: Tensor, offset: Tensor) -> Tensor:
    return offset + phi @ weights["head"]


class _AffineSteps(torch.autograd.Function):
    """w_T of w <- P w + c, and its gradient by the adjoint recursion (see `_adjoint`).

    Shapes: P (B, D, D), c and w (B, D).
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, p: Tensor, c: Tensor, steps: int) -> Tensor:
        """Run the steps."""
        *path, last = _affine_path(w, p, c, steps)
        ctx.save_for_backward(p, *(path if any(ctx.needs_input_grad[1:3]) else []))
        ctx.steps = steps
        return last[..., 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Run the adjoint recursion."""
        p, *path = ctx.saved_tensors
        return *_adjoint(gradient[..., None], p, path, ctx.steps), None


class _LossAfterSteps(torch.autograd.Function):
    """L = 1/2 mean_n (offset_n + phi_n . w_T - y_n)^2 of each task, and its gradient.

    w_T is that of `_AffineSteps`. With s = (score - y) / count: the gradient of w_T is
    Phi' s, that of Phi is s w_T', that of the offset is s. One function for both, since
    each costs a call back into Python, and that costs more than its algebra.
    """

    @staticmethod
    def forward(
        ctx: Any,
        w: Tensor,
        p: Tensor | None,
        c: Tensor | None,
        phi: Tensor,
        offset: Tensor,
        y: Tensor,
        mask: Tensor,
        steps: int,
    ) -> Tensor:
        """Run the steps; keep what the gradient needs."""
        *path, last = _affine_path(w, p, c, steps)
        error = torch.baddbmm((offset - y)[..., None], phi, last)[..., 0]
        error = torch.where(mask, error, 0.0)
        share = error / mask.sum(-1, keepdim=True).clamp(min=1)
        path = path if any(ctx.needs_input_grad[1:3]) else []
        ctx.save_for_backward(phi, last, share, p, *path)
        ctx.steps = steps
        return 0.5 * (error * share).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Back through the loss, then through the steps."""
        phi, last, share, p, *path = ctx.saved_tensors
        share = gradient[:, None] * share
        column = share[..., None]
        of_phi = column * last.mT if ctx.needs_input_grad[3] else None
        of_steps = _adjoint(torch.bmm(phi.mT, column), p, path, ctx.steps)
        return *of_steps, of_phi, share, None, None, None


def _affine_path(
    w: Tensor, p: Tensor | None, c: Tensor | None, steps: int
) -> list[Tensor]:
    """w_0 to w_T as columns, (B, D, 1)."""
    path = [w[..., None]]
    if p is None or c is None:
        return path
    c = c[..., None]
    for _ in range(steps):
        path.append(torch.baddbmm(c, p, path[-1]))
    return path


def _adjoint(
    gradient: Tensor, p: Tensor | None, path: list[Tensor], steps: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """From the gradient at w_T, a column, to those of w_0, P and c.

    With lambda_T the gradient at w_T: lambda_t = P' lambda_{t+1}; the gradient of c is
    the sum of lambda_{t+1} over t, that of P the sum of lambda_{t+1} w_t'. The ``path``
    w_0 to w_{T-1} is empty where nobody asks for those two.
    """
    adjoint = [gradient]
    if p is not None:
        back = p.mT
        for _ in range(steps):
            adjoint.append(torch.bmm(back, adjoint[-1]))
    of_w = adjoint.pop()[..., 0]
    if not path:
        return of_w, None, None
    # adjoint[j] belongs to step T - j, whose input is path[T - 1 - j].
    later = torch.cat(adjoint, -1)
    return of_w, later @ torch.cat(path[::-1], -1).mT, later.sum(-1)


def _loss_after_steps(
    phi: Tensor,
    offset: Tensor,
    query: Examples,
    w: Tensor,
    p: Tensor | None = None,
    c: Tensor | None = None,
    steps: int = 0,
) -> Tensor:
    result: Tensor = _LossAfterSteps.apply(
        w, p, c, phi, offset, query.y, query.mask, steps
    )
    return result
