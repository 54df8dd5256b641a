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

    r_hat_ui = mu_i + (f_i, 1) . w_u with mu_i the shrunk item mean and
    w_u = argmin_w sum_S (r - mu_i - (f_i, 1) . w)^2 + w' R w, R diagonal: ``penalty``
    for the features f_i (I, F), ``shrinkage`` for the constant. K = 0 gives the item
    mean. Both have the values that suit validation users of MovieLens-100K. Nothing is
    learned from other users but the means.

    Built in: leaderboard
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
        """Learn the item means from ``users`` alone; keep the ``features`` (I, F)."""
        ridge = torch.tensor([penalty] * features.shape[1] + [shrinkage]).double()
        mean = ItemMean.fit(histories, users)
        return cls(mean, with_one(features.double()), ridge.diag())

    def fold_in(self, support: Examples) -> Tensor:
        """w_u, shape (B, F + 1), the constant last; zeros at K = 0."""
        rest = support.y - self.mean.offset[support.x]
        return ridge_regression(
            self.features[support.x], rest, support.mask, self.penalty
        )

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N): mu_i + (f_i, 1) . w_u."""
        taste = self.features[x] @ self.fold_in(support)[..., None]
        return self.mean.offset[x] + taste[..., 0].float()
