"""A ridge regression for each user: on item vectors that are learned, or on genres."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from metarec.factors.biases import ItemMean, UserItemBias
from metarec.models import with_one
from metarec.tasks import Examples, UserHistories, one_thread


def ridge_rows(weight: Tensor, target: Tensor, z: Tensor, penalty: Tensor) -> Tensor:
    """A ridge regression for each row of a table: ``w_u``, shape (U, D).

    ``(sum_i weight_ui z_i z_i' + penalty) w_u = sum_i target_ui z_i``, with ``weight``
    and ``target`` (U, I), ``z`` (I, D) and ``penalty`` (D, D).
    """
    outer = (z[:, :, None] * z[:, None, :]).flatten(1)
    gram = (weight @ outer).view(-1, *penalty.shape) + penalty
    w: Tensor = torch.linalg.solve(gram, target @ z)
    return w


@dataclass(frozen=True)
class RidgeFoldIn:
    """A head for each user by ridge regression, on features that are held fixed.

    ``score = offset_i + z_i . w`` with
    ``w = argmin_w sum_S (r - offset_i - z_i . w)^2 + w' R w``; K = 0 gives the offset.

    Parameters
    ----------
    offset
        What is expected of each item before any rating, in stars, shape (I,).
    z
        Features of the items, the last one a constant 1, float64, shape (I, D).
    penalty
        ``R``, shape (D, D).

    Plumbing
    --------
    What `ALS` and `GenreRidge` share.
    """

    offset: Tensor
    z: Tensor
    penalty: Tensor

    def fold_in(self, support: Examples) -> Tensor:
        """The weights ``w`` of each user, shape (B, D); zeros at K = 0.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Tensor
            The weights, shape (B, D).
        """
        z = self.z[support.x] * support.mask[..., None]
        rest = torch.where(support.mask, support.y - self.offset[support.x], 0.0)
        target = z.mT @ rest[..., None].double()
        w: Tensor = torch.linalg.solve(z.mT @ z + self.penalty, target)
        return w[..., 0]

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N): ``offset_i + z_i . w``.

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
        taste = self.z[x] @ self.fold_in(support)[..., None]
        return self.offset[x] + taste[..., 0].float()


class ALS(RidgeFoldIn):
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
    offset
        ``b_i + b_0``: the biases that the method corrects, shape (I,).
    z
        The item vectors ``q_i`` and a constant 1, shape (I, dim + 1).
    penalty
        ``R``, the penalty of (p_u, b_u), shape (dim + 1, dim + 1).

    Source
    ------
    Salakhutdinov & Mnih (2008) for the model; Zhou et al. (2008) for the turns.

    Built in
    --------
    leaderboard
    """

    @classmethod
    @one_thread()
    def fit(
        cls,
        histories: UserHistories,
        users: Tensor,
        dim: int = 8,
        penalty: float = 10.0,
        sweeps: int = 20,
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

        Returns
        -------
        ALS
            The fitted object.
        """
        bias = UserItemBias.fit(histories, users)
        user, item, rating = histories.ratings_of(users)
        rated, rest = torch.zeros(2, len(users), histories.n_items).double()
        rated[user, item] = 1.0
        rest[user, item] = (rating - bias.offset[item] - bias.mean_bias).double()
        ridge = torch.tensor([penalty] * dim + [bias.user_shrinkage]).double().diag()
        generator = torch.Generator().manual_seed(0)
        q = 0.3 * torch.randn(histories.n_items, dim, generator=generator).double()
        for _ in range(sweeps):
            # With one side held fixed the other is a ridge regression for each row.
            w = ridge_rows(rated, rest, with_one(q), ridge)
            taste = (rest - rated * w[:, -1:]).T
            q = ridge_rows(rated.T, taste, w[:, :-1], ridge[:-1, :-1])
        return cls(bias.offset + bias.mean_bias, with_one(q), ridge)


class GenreRidge(RidgeFoldIn):
    """A ridge regression for each user, on item features, around the item's mean.

    ``r_hat_ui = mu_i + (f_i, 1) . w_u`` with ``mu_i`` the shrunk item mean and
    ``w_u = argmin_w sum_S (r - mu_i - (f_i, 1) . w)^2 + w' R w``, R diagonal:
    30 for each of the features ``f_i`` (I, F), 15 for the constant. K = 0 gives the
    item mean. Both have the values that suit validation users of MovieLens-100K.
    Nothing is learned from other users but the means.

    Parameters
    ----------
    offset
        The shrunk means of the items, shape (I,).
    z
        Features of the items and a constant 1, shape (I, F + 1).
    penalty
        ``R``, the penalty of features and constant, shape (F + 1, F + 1).

    Built in
    --------
    leaderboard
    """

    @classmethod
    def fit(cls, histories: UserHistories, users: Tensor, features: Tensor) -> Self:
        """Learn the item means from ``users`` alone; keep the ``features`` (I, F).

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        features
            Features of the items, shape (I, F).

        Returns
        -------
        GenreRidge
            The fitted object.
        """
        ridge = torch.tensor([30.0] * features.shape[1] + [15.0]).double()
        mean = ItemMean.fit(histories, users).offset
        return cls(mean, with_one(features.double()), ridge.diag())
