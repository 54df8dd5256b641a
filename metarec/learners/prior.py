"""The prior: what a meta-learner hands to a task-learner."""

from typing import NamedTuple

from torch import Tensor

Parameters = dict[str, Tensor]
"""Weights by name, as ``named_parameters`` gives them.

Plumbing
--------
A type.
"""


class Prior(NamedTuple):
    """Where adaptation starts and how far it trusts the ratings.

    Each task-learner reads the scale in its way: gradient descent as the inner rate
    ``alpha``, the Bayesian as the prior's variance, task attention as what multiplies
    the keys.

    Parameters
    ----------
    mean
        Initialisation ``theta_0`` of every adapted parameter, by name; with a leading
        task axis where each task has its own.
    scale
        By the same names, a number, a tensor with one entry for each weight, or (for a
        head of D weights) a matrix (D, D).
    noise
        ``sigma^2``, the variance of a rating around its score, a number.

    Built in
    --------
    maml
    """

    mean: Parameters
    scale: Parameters
    noise: Tensor | float = 1.0
