"""Content alone: what a user's ratings say about genres and years."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from metarec.baselines.als import ridge_regression
from metarec.factors.biases import ItemMean
from metarec.models import with_one
from metarec.tasks import Examples, UserHistories


@dataclass(frozen=True)
class GenreRidge:
    """A ridge regression for each user, on item features, around the item's mean.

    ``r_hat_ui = mu_i + (f_i, 1) . w_u`` with ``mu_i`` the shrunk item mean and
    ``w_u = argmin_w sum_S (r - mu_i - (f_i, 1) . w)^2 + w' R w``, R diagonal:
    ``penalty`` for the features ``f_i`` (I, F), ``shrinkage`` for the constant. K = 0
    gives the item mean. Both have the values that suit validation users of
    MovieLens-100K. Nothing is learned from other users but the means.

    Parameters
    ----------
    mean
        The shrunk means of the items.
    features
        Features of the items, shape (I, F).
    penalty
        ``R``, the penalty of features and constant, shape (F + 1, F + 1).

    Built in
    --------
    leaderboard
    """

    mean: ItemMean
    features: Tensor
    penalty: Tensor

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
        return cls(mean, with_one(features.double()), ridge.diag())

    def fold_in(self, support: Examples) -> Tensor:
        """``w_u``, shape (B, F + 1), the constant last; zeros at K = 0.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Tensor
            The weights ``w_u``, shape (B, D).
        """
        rest = support.y - self.mean.offset[support.x]
        z = self.features[support.x]
        return ridge_regression(z, rest, support.mask, self.penalty)

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N): ``mu_i + (f_i, 1) . w_u``.

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
        taste = self.features[x] @ self.fold_in(support)[..., None]
        return self.mean.offset[x] + taste[..., 0].float()
