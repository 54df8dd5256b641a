"""A linear head is all that a task owns: its features, residuals and scores."""

from typing import NamedTuple, Self, TypeGuard

import torch
from torch import Tensor, nn

from metarec.learners.prior import Parameters, Prior
from metarec.models import Likelihood, RatingModel, likelihood_of, weighted_sum
from metarec.tasks import Examples


def is_head(model: nn.Module, weights: Parameters) -> TypeGuard[RatingModel]:
    """Tell whether the weights are the linear head of a model, and nothing else.

    Parameters
    ----------
    model
        The model whose parameters are adapted.
    weights
        Parameters by name.

    Returns
    -------
    bool
        Whether they are.

    Plumbing
    --------
    Shared by the task-learners.
    """
    return isinstance(model, RatingModel) and list(weights) == ["head"]


def needs_head(model: nn.Module, prior: Prior) -> RatingModel:
    """The model, if its linear head is all that a task owns; ``ValueError`` if not.

    Parameters
    ----------
    model
        The model whose parameters are adapted.
    prior
        Where adaptation starts, and how far it trusts the ratings.

    Returns
    -------
    RatingModel
        The model.

    Raises
    ------
    ValueError
        If more than a linear head is adapted.

    Plumbing
    --------
    Shared by the task-learners in closed form.
    """
    if not is_head(model, prior.mean):
        raise ValueError(f'{[*prior.mean]} is more than a head: pass adapt=["head"]')
    return model


def expand_mean(prior: Prior, support: Examples) -> Tensor:
    """The prior mean of the head for each task, shape (B, D).

    Parameters
    ----------
    prior
        Where adaptation starts, and how far it trusts the ratings.
    support
        Ratings to adapt on, of B users or tasks.

    Returns
    -------
    Tensor
        Means, shape (B, D).

    Plumbing
    --------
    Shared by the task-learners.
    """
    return prior.mean["head"].expand(len(support), -1)


def scaled(scale: Tensor | float, vector: Tensor) -> Tensor:
    """Product of a scale and a vector, ``S v`` for each task.

    Parameters
    ----------
    scale
        A number, a diagonal (D,) or a matrix (D, D).
    vector
        Vectors, shape (B, D).

    Returns
    -------
    Tensor
        Vectors, shape (B, D).

    Plumbing
    --------
    Shared by the task-learners.
    """
    if isinstance(scale, Tensor) and scale.dim() == 2:
        return vector @ scale
    return scale * vector


class Rows(NamedTuple):
    """A support as a likelihood reads it, as a function of the heads w (B, D).

    The one place where a task-learner asks what ratings say of a head, whatever they
    are: stars, clicks or draws from a list.

    Parameters
    ----------
    likelihood
        The likelihood.
    phi
        Features, shape (B, N, D), zero where there is no target, or (N, D) where all
        tasks have the same items.
    offset
        Offsets, shape (B, N) or (N,).
    y
        Targets, shape (B, N).
    mask
        True where there is a target, shape (B, N).

    Plumbing
    --------
    Shared by the task-learners and MetaMind.
    """

    likelihood: Likelihood
    phi: Tensor
    offset: Tensor
    y: Tensor
    mask: Tensor

    @classmethod
    def of(cls, model: RatingModel, support: Examples) -> Self:
        """Read a support with the likelihood and the features of a model.

        Parameters
        ----------
        model
            The model, with a linear head.
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Rows
            The rows.
        """
        likelihood = likelihood_of(model)
        x, y, mask, _ = likelihood.read(support, model.n_items)
        phi = model.features(x, support.profile)
        if x.dim() == 2:
            phi = torch.where(mask[..., None], phi, 0.0)
        return cls(likelihood, phi, model.offset(x), torch.where(mask, y, 0.0), mask)

    def score(self, w: Tensor) -> Tensor:
        """``offset + Phi w``, shape (B, N).

        Parameters
        ----------
        w
            Heads, shape (B, D).

        Returns
        -------
        Tensor
            Scores, shape (B, N).
        """
        return self.offset + dot(self.phi, w)

    def loss(self, w: Tensor) -> Tensor:
        """``L(w)``, what is not likely about the targets, shape (B,).

        Parameters
        ----------
        w
            Heads, shape (B, D).

        Returns
        -------
        Tensor
            The loss of each task, shape (B,).
        """
        return self.likelihood.loss(self.score(w), self.y, self.mask)

    def slope(self, w: Tensor) -> Tensor:
        """``g = Phi' (observed - expected)``, the slope of ``-L``, shape (B, D).

        Parameters
        ----------
        w
            Heads, shape (B, D).

        Returns
        -------
        Tensor
            The slopes, shape (B, D).
        """
        return weighted_sum(self.phi, self.likelihood.slope(self.score(w), self.y))

    def hessian(self, w: Tensor) -> Tensor:
        """H, the curvature of L, shape (B, D, D).

        Parameters
        ----------
        w
            Heads, shape (B, D).

        Returns
        -------
        Tensor
            The second derivatives, shape (B, D, D).
        """
        return self.likelihood.hessian(self.phi, self.score(w), self.y)


def masked_rows(model: RatingModel, support: Examples) -> tuple[Tensor, Tensor]:
    """``Phi`` (B, N, D) and ``y - offset`` (B, N), 0 where there is no rating.

    Parameters
    ----------
    model
        The model, with a linear head.
    support
        Ratings to adapt on, of B users or tasks.

    Returns
    -------
    tuple[Tensor, Tensor]
        Features (B, N, D), and targets less offset (B, N).

    Plumbing
    --------
    Shared by the task-learners that need a linear head.
    """
    phi = model.features(support.x, support.profile)
    rest = torch.where(support.mask, support.y - model.offset(support.x), 0.0)
    return torch.where(support.mask[..., None], phi, 0.0), rest


def dot(phi: Tensor, w: Tensor) -> Tensor:
    """Product of each row with its task's weights: (B, N, D) and (B, D) to (B, N).

    Parameters
    ----------
    phi
        Features, shape (B, N, D).
    w
        Heads, shape (B, D).

    Returns
    -------
    Tensor
        Products, shape (B, N).

    Plumbing
    --------
    ``bmm`` costs less to call than ``matmul``, and that than ``einsum``.
    """
    if phi.dim() == 2:
        return w @ phi.T
    if len(phi) == len(w):
        return torch.bmm(phi, w[..., None]).squeeze(-1)
    return (w[..., None, :] @ phi.mT)[..., 0, :]
