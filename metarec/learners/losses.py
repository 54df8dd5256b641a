"""Inner losses: what a task-learner makes small on a user's ratings."""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(prediction, target, mask) of one task, each (N,), to a number.

Plumbing
--------
A type.
"""


def squared_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Half the *sum* of squared errors: ``L = 1/2 sum_n mask_n (r_hat_n - r_n)^2``.

    The sum counts the evidence: its gradient grows with the number of ratings, as the
    likelihood of a Gaussian with unit noise does.

    Parameters
    ----------
    prediction
        Predicted ratings, in stars, shape (B, N).
    target
        Ratings, in stars, shape (B, N).
    mask
        True where there is an example, shape (B, N).

    Returns
    -------
    Tensor
        The loss of each task, shape (B,).

    Built in
    --------
    inner-loop
    """
    return 0.5 * torch.where(mask, prediction - target, 0.0).square().sum(-1)


def mean_squared_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Half the *mean* of squared errors, 0 for an empty task.

    As an inner loss it forgets how many ratings there are; as a meta-loss it lets each
    user count once.

    Parameters
    ----------
    prediction
        Predicted ratings, in stars, shape (B, N).
    target
        Ratings, in stars, shape (B, N).
    mask
        True where there is an example, shape (B, N).

    Returns
    -------
    Tensor
        The loss of each task, shape (B,).

    Built in
    --------
    inner-loop
    """
    return squared_error(prediction, target, mask) / mask.sum(-1).clamp(min=1)
