"""The first task-learner: a few steps of gradient descent from the prior's mean."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from metarec.learners.functional import predict
from metarec.learners.heads import Rows, expand_mean, is_head, masked_rows
from metarec.learners.loop import MatrixRate, Objective, inner_loop, stable_share
from metarec.learners.losses import Loss, mean_squared_error, squared_error
from metarec.learners.prior import Parameters, Prior
from metarec.learners.task_learner import TaskLearner
from metarec.models import Gaussian, RatingModel, likelihood_of
from metarec.tasks import Examples


@dataclass(frozen=True)
class GradientDescent(TaskLearner):
    """T steps of gradient descent from ``theta_0``, for all tasks of a batch at once.

    ``w <- w - alpha o grad L(w)``, with ``alpha`` the prior's scale; ``sigma^2`` is a
    part of ``alpha`` here.

    The loss is a sum, so its curvature grows with the number of ratings. Where a model
    has a linear head, the rate of a task is cut to what its ratings allow (see
    `stable_share`), so that long histories do not diverge: exactly so for a head alone,
    under squared errors or a Bernoulli; by the curvature of its head at ``theta_0``
    where other weights are adapted along. Under a softmax a step that would raise a
    task's loss is halved until it does not. For a loss or a module without a known
    curvature the rate is taken as it is, and steps that run away are refused where
    weights are served (without a gradient); in training `meta_train` refuses them.

    Parameters
    ----------
    steps
        T, the number of steps.
    loss
        Inner loss; by default that of the model's likelihood, a sum over ratings.
    first_order
        Whether the Hessian is dropped from the meta-gradient.

    Raises
    ------
    ValueError
        If the number of steps is negative.

    Built in
    --------
    inner-loop

    Examples
    --------
    >>> import torch
    >>> from metarec.learners import GradientDescent, Prior
    >>> from metarec.models import MatrixFactorization
    >>> from metarec.tasks import Examples
    >>> model = MatrixFactorization.from_items(torch.eye(2), torch.full((2,), 3.0))
    >>> rated = torch.tensor([[0]])
    >>> support = Examples(rated, torch.tensor([[5.0]]), rated == 0)
    >>> prior = Prior({"head": torch.zeros(3)}, {"head": 0.1})
    >>> GradientDescent(steps=1).adapt(model, prior, support)["head"]
    tensor([[0.2000, 0.0000, 0.2000]])
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

        The loss of a batch is the sum over its tasks. No task's loss depends on
        another's weights, so its gradient holds the gradient of each task, and one
        `inner_loop` adapts them all.

        Parameters
        ----------
        model
            The model whose parameters are adapted.
        prior
            Where adaptation starts, and how far it trusts the ratings.
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        dict[str, Tensor]
            Weights of each task by name, each with a leading task axis.

        Raises
        ------
        FloatingPointError
            If steps without a known bound doubled the loss, where nothing is trained.
        """
        loss = self._objective(model, prior, support)
        rate: dict[str, Any] = dict(prior.scale)
        if head := is_head(model, prior.mean):
            # Heads are columns (B, D, 1) in the loop: what a batch of products takes.
            start = {"head": expand_mean(prior, support)[..., None]}
            rate = {"head": _rate_of_column(prior.scale["head"])}
        else:
            start = {n: _own(model, n, m, support) for n, m in prior.mean.items()}
        if (curvature := loss.curvature) is not None:
            bound = curvature.detach() if self.first_order else curvature
            share = stable_share(prior.scale["head"], bound)
            if share is not None:
                for name, w in start.items():
                    rate[name] = share.reshape(-1, *[1] * (w.dim() - 1)) * rate[name]
        if self.loss is None and likelihood_of(model).steepest is None:
            # Nothing bounds a step beforehand, so each is looked at.
            own = _downhill(loss, start, rate, self.steps, self.first_order)
        else:
            own = inner_loop(loss, start, rate, self.steps, self.first_order)
            if not torch.is_grad_enabled() and (curvature is None or not head):
                _refuse_divergence(loss, start, own)
        return {"head": own["head"].squeeze(-1)} if head else own

    def _objective(
        self, model: nn.Module, prior: Prior, support: Examples
    ) -> Objective:
        """The inner loss of all tasks, by the cheapest way to its gradient."""
        likelihood, mine = likelihood_of(model), self.loss is None
        gaussian = mine and isinstance(likelihood, Gaussian)
        squared = gaussian or self.loss in (squared_error, mean_squared_error)
        if head := is_head(model, prior.mean):
            if squared:
                return _quadratic(model, support, self.loss is mean_squared_error)
            if mine:
                return _of_rows(Rows.of(model, support))
        loss = self.loss or likelihood.loss
        # This package's losses take all tasks at once; a stranger's may take one.
        loss = loss if mine or squared else vmap(loss)
        x, y, mask, _ = likelihood.read(support, getattr(model, "n_items", 0))

        def by_task(weights: Parameters) -> Tensor:
            own = {"head": weights["head"].squeeze(-1)} if head else weights
            return loss(predict(model, own, x, support.profile), y, mask)

        curvature = None
        most = 1.0 if squared else likelihood.steepest if mine else None
        if isinstance(model, RatingModel) and "head" in prior.mean and most:
            gram, _ = _gram(model, support, self.loss is mean_squared_error)
            curvature = most * gram
        second_order = torch.is_grad_enabled() and not self.first_order
        return Objective(by_task, _by_autograd(by_task, second_order), curvature)


def _downhill(
    loss: Objective, start: Parameters, rate: dict[str, Any], steps: int, first: bool
) -> Parameters:
    """The inner loop; a step that raises a task's loss is halved until it does not.

    A softmax bends by as much as any two items differ, which few users come near: a
    rate that is safe everywhere would be ten times too small.
    """
    weights = start
    with torch.no_grad():
        before = loss.by_task(weights)
    slack = 1e-6 if before.dtype == torch.float32 else 1e-12
    for _ in range(steps):
        moved = inner_loop(loss, weights, rate, 1, first)
        with torch.no_grad():
            share, after = torch.ones_like(before), loss.by_task(moved)
            for _ in range(60):
                uphill = ~(after <= before + slack * (1 + before))
                if not uphill.any():
                    break
                share = torch.where(uphill, share / 2, share)
                after = loss.by_task(_between(weights, moved, share))
        weights = moved if (share == 1).all() else _between(weights, moved, share)
        before = after
    return weights


def _between(start: Parameters, end: Parameters, share: Tensor) -> Parameters:
    """A share (B,) of the way from a task's weights to others."""
    found = {}
    for name, w in start.items():
        found[name] = w + share.reshape(-1, *[1] * (w.dim() - 1)) * (end[name] - w)
    return found


def _own(model: nn.Module, name: str, mean: Tensor, support: Examples) -> Tensor:
    """A mean with a row for each task, which it may have already."""
    own = mean.dim() > model.get_parameter(name).dim()
    return mean if own else mean.expand(len(support), *mean.shape)


def _refuse_divergence(loss: Objective, start: Parameters, own: Parameters) -> None:
    """Raise ``FloatingPointError`` where steps without a bound ran away."""
    before, after = float(loss(start)), float(loss(own))
    if not after <= 2 * before + 1e-6:
        text = f"diverged: the loss went from {before:.3g} to {after:.3g}"
        raise FloatingPointError(f"the inner loop {text}; take a smaller inner rate")


def _rate_of_column(scale: Tensor | float) -> Tensor | float | MatrixRate:
    """The scale of a head, by its shape, as what multiplies a column (D, 1)."""
    if not isinstance(scale, Tensor) or scale.dim() == 0:
        return scale
    return scale[:, None] if scale.dim() == 1 else MatrixRate(scale)


def _quadratic(model: RatingModel, support: Examples, mean: bool) -> Objective:
    """The squared error of a linear head: 1/2 w' Gram w - target' w, up to a constant.

    Gram = ``Phi' Phi`` (B, D, D) and ``target = Phi' (y - offset)`` (B, D, 1), over the
    count for the mean; w (B, D, 1). The gradient is Gram ``w - target``, which needs
    neither autograd nor the ratings again.
    """
    gram, target = _gram(model, support, mean)

    def by_task(weights: Parameters) -> Tensor:
        w = weights["head"]
        return (w * (0.5 * torch.bmm(gram, w) - target)).sum((1, 2))

    def gradient(weights: Parameters) -> Parameters:
        return {"head": torch.baddbmm(target, gram, weights["head"], beta=-1)}

    return Objective(by_task, gradient, gram)


def _gram(model: RatingModel, support: Examples, mean: bool) -> tuple[Tensor, Tensor]:
    """``Phi' Phi`` (B, D, D) and ``Phi' (y - offset)`` (B, D, 1), or their means."""
    phi, rest = masked_rows(model, support)
    gram, target = torch.bmm(phi.mT, phi), torch.bmm(phi.mT, rest[..., None])
    if not mean:
        return gram, target
    count = support.mask.sum(-1)[:, None, None].clamp(min=1)
    return gram / count, target / count


def _of_rows(rows: Rows) -> Objective:
    """The loss of a linear head under any likelihood, which brings its own gradient."""

    def by_task(weights: Parameters) -> Tensor:
        return rows.loss(weights["head"].squeeze(-1))

    def gradient(weights: Parameters) -> Parameters:
        return {"head": -rows.slope(weights["head"].squeeze(-1))[..., None]}

    if (most := rows.likelihood.steepest) is None:
        return Objective(by_task, gradient)
    return Objective(by_task, gradient, most * torch.bmm(rows.phi.mT, rows.phi))


def _by_autograd(
    by_task: Callable[[Parameters], Tensor], second_order: bool
) -> Callable[[Parameters], Parameters]:
    """The gradient of any loss, by one pass backward.

    It is recorded if the meta-gradient runs through it. The same numbers as by
    ``torch.func.grad``, in fewer layers.
    """

    def gradient(weights: Parameters) -> Parameters:
        # A leaf of its own, unless the meta-gradient runs back through these weights.
        at = {
            name: w if second_order and w.requires_grad else w.detach().requires_grad_()
            for name, w in weights.items()
        }
        with torch.enable_grad():
            loss = by_task(at).sum()
        found = torch.autograd.grad(
            loss, list(at.values()), create_graph=second_order, materialize_grads=True
        )
        return dict(zip(at, found, strict=True))

    return gradient
