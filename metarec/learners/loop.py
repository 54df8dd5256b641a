"""The inner loop: gradient descent as a function of its start and its rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.func import grad

from metarec.learners.prior import Parameters


@dataclass(frozen=True)
class Objective:
    """A loss that brings its own gradient, where that costs less than to derive it.

    Parameters
    ----------
    value
        The loss, as a function of the parameters.
    gradient
        Its gradient, as a function of the parameters.

    Plumbing
    --------
    What `GradientDescent` gives to `inner_loop`.
    """

    value: Callable[[Parameters], Tensor]
    gradient: Callable[[Parameters], Parameters]

    def __call__(self, weights: Parameters) -> Tensor:
        """The loss, as any other loss."""
        return self.value(weights)


@dataclass(frozen=True)
class MatrixRate:
    """An inner rate with an entry for each pair of weights: it mixes their steps.

    Parameters
    ----------
    matrix
        ``A``, shape (D, D).

    Shapes
    ------
    ``matrix`` (D, D), a gradient (..., D, 1).

    Plumbing
    --------
    What `GradientDescent` gives to `inner_loop` for a full scale.
    """

    matrix: Tensor

    def __mul__(self, gradient: Tensor) -> Tensor:
        """The matrix times the gradient, a column."""
        return self.matrix @ gradient


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
