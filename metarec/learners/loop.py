"""The inner loop: gradient descent as a function of its start and its rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

from metarec.learners.prior import Parameters


@dataclass(frozen=True)
class Objective:
    """A loss that brings its own gradient, where that costs less than to derive it.

    Parameters
    ----------
    by_task
        The loss of each task, shape (B,), as a function of the parameters.
    gradient
        Its gradient, as a function of the parameters.
    curvature
        No less than the Hessian of each task's head, shape (B, D, D); None where no
        such bound is known.

    Plumbing
    --------
    What `GradientDescent` gives to `inner_loop`.
    """

    by_task: Callable[[Parameters], Tensor]
    gradient: Callable[[Parameters], Parameters]
    curvature: Tensor | None = None

    def __call__(self, weights: Parameters) -> Tensor:
        """The loss of all tasks, as any other loss."""
        return self.by_task(weights).sum()


@dataclass(frozen=True)
class MatrixRate:
    """An inner rate with an entry for each pair of weights: it mixes their steps.

    Parameters
    ----------
    matrix
        ``A``, shape (D, D), or one for each task.

    Shapes
    ------
    ``matrix`` (D, D) or (B, D, D), a gradient (..., D, 1).

    Plumbing
    --------
    What `GradientDescent` gives to `inner_loop` for a full scale.
    """

    matrix: Tensor

    def __mul__(self, gradient: Tensor) -> Tensor:
        """The matrix times the gradient, a column."""
        return self.matrix @ gradient

    def __rmul__(self, share: Tensor) -> "MatrixRate":
        """The same matrix but for a number for each task, shape (B, 1, 1)."""
        return MatrixRate(share * self.matrix)


def inner_loop(
    loss: Callable[[Parameters], Tensor],
    start: Parameters,
    rate: Mapping[str, Tensor | float | MatrixRate],
    steps: int,
    first_order: bool = False,
) -> Parameters:
    """Take T steps of gradient descent as a function, leaving ``start`` untouched.

    ``theta <- theta - alpha * grad L(theta)``, ``steps`` times. The result depends on
    ``start`` and ``rate`` differentiably, through the gradients as well; with
    ``first_order`` the gradients are taken as constants and the Hessian drops out.

    Parameters
    ----------
    loss
        Loss of a task as a function of its parameters.
    start
        Parameters to start from, by name; they stay as they are.
    rate
        Learning rate ``alpha`` by the same names, each a number or of the parameter's
        shape.
    steps
        T, the number of steps.
    first_order
        Whether gradients count as constants, so that the Hessian drops out.

    Returns
    -------
    dict[str, Tensor]
        The parameters after T steps, by name.

    Source
    ------
    Finn, Abbeel & Levine (2017), equation 1.

    Built in
    --------
    inner-loop
    """
    gradient_at = loss.gradient if isinstance(loss, Objective) else grad(loss)
    weights = start
    for _ in range(steps):
        gradient = gradient_at(weights)
        if first_order:
            gradient = {name: g.detach() for name, g in gradient.items()}
        weights = {name: w - rate[name] * gradient[name] for name, w in weights.items()}
    return weights


def stable_share(rate: Tensor | float, curvature: Tensor) -> Tensor | None:
    """The share of a rate at which no step overshoots by more than half the way.

    ``share = 1.5 / max(1.5, lambda)``, with ``lambda`` the largest eigenvalue of
    ``A^1/2 H A^1/2``, A the rate and H the curvature of a task. A step of rate A
    multiplies what is left along an eigenvector by ``1 - lambda``: beyond 1 it
    overshoots, near 2 the next one brings it back to where it was, and beyond 2 steps
    diverge. Up to 1.5 nothing changes; beyond, ``lambda`` becomes 1.5, and what is left
    halves with every step, however many ratings there are. The meta-gradient runs
    through the share as through the rest.

    Parameters
    ----------
    rate
        ``A``: a number, a diagonal (D,) or a positive definite matrix (D, D).
    curvature
        No less than the Hessian of each task, shape (B, D, D).

    Returns
    -------
    Tensor | None
        The share of each task, shape (B,); None if it is 1 for all of them.

    Source
    ------
    Nesterov (2004), section 1.2.3: descent with a step below two over the curvature.

    Built in
    --------
    inner-loop
    """
    rate = torch.as_tensor(rate)
    full = rate.dim() == 2
    part = curvature if full else curvature.diagonal(dim1=-2, dim2=-1)
    # The trace of A H is no less than lambda, and costs next to nothing: numbers alone,
    # as no gradient runs through a test.
    trace = (rate.detach() * part.detach()).flatten(1).sum(-1)
    if (trace <= 1.5).all():
        return None
    each = rate.to(curvature).expand_as(curvature[0] if full else curvature[0, 0])
    root = torch.linalg.cholesky(each) if full else each.sqrt().diag()
    # What is not finite is for others to report: a solver would only stumble over it.
    spread = (root.mT @ curvature @ root).nan_to_num(0.0, 0.0, 0.0)
    largest: Tensor = torch.linalg.eigvalsh(spread)[:, -1]
    return (largest / 1.5).clamp(min=1).reciprocal()
