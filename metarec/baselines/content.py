"""Content alone: what a user's ratings say about genres and years."""

from typing import Self

import torch
from torch import Tensor

from metarec.baselines.als import RidgeFoldIn
from metarec.factors.biases import ItemMean
from metarec.models import with_one
from metarec.tasks import UserHistories


class GenreRidge(RidgeFoldIn):
    """A ridge regression for each user, on item features, around the item's mean.

    ``r_hat_ui = mu_i + (f_i, 1) . w_u`` with ``mu_i`` the shrunk item mean and
    ``w_u = argmin_w sum_S (r - mu_i - (f_i, 1) . w)^2 + w' R w``, R diagonal:
    ``penalty`` for the features ``f_i`` (I, F), ``shrinkage`` for the constant. K = 0
    gives the item mean. Both have the values that suit validation users of
    MovieLens-100K. Nothing is learned from other users but the means.

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
    def fit(
        cls,
        histories: UserHistories,
        users: Tensor,
        features: Tensor,
        penalty: float = 30.0,
        shrinkage: float = 15.0,
    ) -> Self:
        """Learn the item means from ``users`` alone; keep the ``features`` (I, F).

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        features
            Features of the items, shape (I, F).
        penalty
            Weight of the squares of the features' weights.
        shrinkage
            Weight of the square of the constant.

        Returns
        -------
        GenreRidge
            The fitted object.
        """
        ridge = torch.tensor([penalty] * features.shape[1] + [shrinkage]).double()
        mean = ItemMean.fit(histories, users)
        return cls(mean.offset, with_one(features.double()), ridge.diag())
