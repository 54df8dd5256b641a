"""Alternating least squares: item vectors for all, a closed form for a new user."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from metarec.factors.biases import UserItemBias
from metarec.factors.sums import RatingSums, evidence, packed_moments, unpacked
from metarec.models import with_one
from metarec.tasks import Examples, UserHistories, one_thread


@dataclass(frozen=True)
class ALS:
    """Probabilistic matrix factorisation by alternating ridge regressions.

    With ``e = r - b_i - b_0`` what the offset and the mean bias of `UserItemBias`
    leave, ::

        min sum_(u,i) (e_ui - p_u . q_i - b_u)^2
            + penalty (sum_u |p_u|^2 + sum_i |q_i|^2) + shrinkage sum_u b_u^2,

    in turns over all ``(p_u, b_u)`` and over all ``q_i``. A new user's ``(p_u, b_u)``
    is the same ridge regression on the support, the ``q_i`` (I, dim) held fixed. K = 0
    gives the biases. ``dim`` and ``penalty`` have the values that suit validation users
    of MovieLens-100K; ``shrinkage`` is that of the biases.

    Parameters
    ----------
    bias
        The biases that the method corrects.
    q
        Item vectors, shape (I, dim).
    penalty
        ``R``, the penalty of (p_u, b_u), shape (dim + 1, dim + 1).

    Source
    ------
    Salakhutdinov & Mnih (2008) for the model; Zhou et al. (2008) for the turns.

    Built in
    --------
    leaderboard
    """

    bias: UserItemBias
    q: Tensor
    penalty: Tensor

    @classmethod
    @one_thread()
    def fit(
        cls,
        histories: UserHistories,
        users: Tensor,
        dim: int = 8,
        penalty: float = 10.0,
        sweeps: int = 20,
        seed: int = 0,
    ) -> Self:
        """Take ``sweeps`` turns on the ratings of ``users`` alone.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        dim
            Length of an item vector.
        penalty
            Weight of the squares of vectors.
        sweeps
            Number of turns.
        seed
            Seed of everything that is drawn.

        Returns
        -------
        ALS
            The fitted object.
        """
        bias = UserItemBias.fit(histories, users)
        user, item, rating = histories.ratings_of(users)
        rest = (rating - bias.offset[item] - bias.mean_bias).double()
        table = RatingSums(user, item, rest, len(users), histories.n_items)
        ridge = torch.tensor([penalty] * dim + [bias.user_shrinkage]).double().diag()
        generator = torch.Generator().manual_seed(seed)
        q = 0.3 * torch.randn(histories.n_items, dim, generator=generator).double()
        no_doubt = torch.zeros(1, dim + 1, dim + 1).double()
        for _ in range(sweeps):
            items = packed_moments(F.pad(q, (0, 1)), no_doubt.expand(len(q), -1, -1))
            gram, target = evidence(table.of_user, *items)
            # With one side held fixed the other is a ridge regression for each row.
            w = torch.linalg.solve(unpacked(gram) + ridge, target)
            people = packed_moments(w, no_doubt.expand(len(w), -1, -1))
            gram, target = evidence(table.of_item, *people)
            both = (unpacked(gram) + ridge)[:, :-1, :-1]
            q = torch.linalg.solve(both, target[:, :-1])
        return cls(bias, q, ridge)

    def fold_in(self, support: Examples) -> Tensor:
        """The ridge regression of the support's residuals, shape (B, dim + 1).

        ``w_u = (p_u, b_u - b_0) = (Z'Z + R)^-1 Z'e``, where Z has the rows
        ``(q_i, 1)``.

        R is diagonal: ``penalty`` for ``p_u``, the biases' shrinkage for ``b_u``.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Tensor
            The weights ``w_u``, shape (B, D).
        """
        rest = support.y - self.bias.offset[support.x] - self.bias.mean_bias
        z = with_one(self.q)[support.x]
        return ridge_regression(z, rest, support.mask, self.penalty)

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N): ``offset_i + b_0 + (q_i, 1) . w_u``.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.
        x
            Items to score, shape (B, N).

        Returns
        -------
        Tensor
            Scores, in stars, shape (B, N).
        """
        taste = with_one(self.q)[x] @ self.fold_in(support)[..., None]
        return self.bias.offset[x] + self.bias.mean_bias + taste[..., 0].float()


def ridge_regression(z: Tensor, rest: Tensor, mask: Tensor, penalty: Tensor) -> Tensor:
    """``min_w sum_n mask_n (e_n - z_n' w)^2 + w' R w`` for each task, (B, D).

    Parameters
    ----------
    z
        Features, float64, shape (B, N, D).
    rest
        ``e``, shape (B, N).
    mask
        True where there is an example, shape (B, N).
    penalty
        ``R``, shape (D, D).

    Returns
    -------
    Tensor
        Weights, shape (B, D).

    Shapes
    ------
    ``z`` (B, N, D) in float64, ``rest`` e and ``mask`` (B, N), ``penalty`` R (D, D).

    Plumbing
    --------
    The fold-in of `ALS` and of `GenreRidge`.
    """
    z = z * mask[..., None]
    rest = torch.where(mask, rest, 0.0).double()
    target = (z.mT @ rest[..., None])[..., 0]
    w: Tensor = torch.linalg.solve(z.mT @ z + penalty, target)
    return w
