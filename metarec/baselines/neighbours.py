"""Neighbours: what similar items, or similar users, leave above the biases."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from metarec.factors.biases import UserItemBias
from metarec.tasks import Examples, UserHistories


@dataclass(frozen=True)
class ItemKNN:
    """Move a prediction by how the user rated similar items.

    With ``e = r - b`` the residuals of `UserItemBias`, of ``similarity`` (I, I) over
    the ``n_ij`` training users who rated both items, ::

        s_ij = n_ij / (n_ij + shrinkage)
               sum_u e_ui e_uj / sqrt(sum_u e_ui^2 sum_u e_uj^2)
        r_hat_ui = b_ui + sum_S s_ij e_uj / (doubt + sum_S |s_ij|).

    The neighbours of an item are all items of the support: K is small, so none is cut
    off. K = 0 gives the biases. ``shrinkage`` and ``doubt`` have the values that suit
    validation users of MovieLens-100K.

    Parameters
    ----------
    bias
        The biases that the method corrects.
    similarity
        Similarity of all pairs of items, shape (I, I).
    doubt
        What is added to the sum of similarities.

    Source
    ------
    Koren (2008), section 2.2.

    Built in
    --------
    leaderboard
    """

    bias: UserItemBias
    similarity: Tensor
    doubt: float = 1.0

    @classmethod
    def fit(
        cls, histories: UserHistories, users: Tensor, shrinkage: float = 100.0
    ) -> Self:
        """Compare all pairs of items by the ratings of ``users`` alone.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        shrinkage
            Number of common users at which a similarity is halved.

        Returns
        -------
        ItemKNN
            The fitted object.
        """
        bias = UserItemBias.fit(histories, users)
        rest, rated = _table(histories.everything(users, histories.n_items), bias)
        return cls(bias, _similarity(rest.T, rated.T, rest.T, rated.T, shrinkage))

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N): the biases and a weighted mean of the support's residuals.

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
        weight = self.similarity[x[:, :, None], support.x[:, None, :]]
        weight = weight * support.mask[:, None, :]
        total = (weight @ _rest(support, self.bias)[..., None])[..., 0]
        move = total / (self.doubt + weight.abs().sum(-1))
        return self.bias.predict(support, x) + move


@dataclass(frozen=True)
class UserKNN:
    """Move a prediction by how similar training users rated the item.

    With ``e = r - b`` the residuals of `UserItemBias`, and ``n_uv`` the number of items
    that new user u and training user v both rated, ::

        s_uv = n_uv / (n_uv + shrinkage)
               sum_i e_ui e_vi / sqrt(sum_i e_ui^2 sum_i e_vi^2)
        r_hat_ui = b_ui + sum_v s_uv e_vi / (doubt + sum_v |s_uv|),

    the sums over the items in common, then over the training users who rated item i.
    All of them are neighbours: keeping the most similar alone did not help validation
    users of MovieLens-100K, whom ``shrinkage`` and ``doubt`` suit. K = 0 gives the
    biases.

    Parameters
    ----------
    bias
        The biases that the method corrects.
    rest
        Residuals of the training users, shape (U, I).
    rated
        1 where there is a residual, shape (U, I).
    shrinkage
        Number of common items at which a similarity is halved.
    doubt
        What is added to the sum of similarities.

    Source
    ------
    Herlocker et al. (1999).

    Built in
    --------
    leaderboard
    """

    bias: UserItemBias
    rest: Tensor
    rated: Tensor
    shrinkage: float = 20.0
    doubt: float = 3.0

    @classmethod
    def fit(cls, histories: UserHistories, users: Tensor) -> Self:
        """Keep the residuals of ``users``: there is nothing else to learn.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).

        Returns
        -------
        UserKNN
            The fitted object.
        """
        bias = UserItemBias.fit(histories, users)
        return cls(bias, *_table(histories.everything(users, histories.n_items), bias))

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N): the biases and a weighted mean of other users' residuals.

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
        own = _table(support, self.bias)
        weight = _similarity(*own, self.rest, self.rated, self.shrinkage)
        move = weight @ self.rest / (self.doubt + weight.abs() @ self.rated)
        return self.bias.predict(support, x) + move.gather(1, x)


def _rest(ratings: Examples, bias: UserItemBias) -> Tensor:
    """``e = r - b``, shape (B, N), 0 where there is no rating."""
    score = bias.predict(ratings, ratings.x)
    return torch.where(ratings.mask, ratings.y - score, 0.0)


def _table(ratings: Examples, bias: UserItemBias) -> tuple[Tensor, Tensor]:
    """Residuals and where there is one, both (B, I) with a column for each item."""
    n_items, rest = len(bias.offset), _rest(ratings, bias)
    return ratings.table(rest, n_items), ratings.table(torch.ones_like(rest), n_items)


def _similarity(
    a: Tensor, in_a: Tensor, b: Tensor, in_b: Tensor, shrinkage: float
) -> Tensor:
    """Cosines of the rows of a and b over what they have in common, shrunk by it."""
    common = in_a @ in_b.T
    norm = (a.square() @ in_b.T) * (in_a @ b.square().T)
    # Nothing in common leaves 0 / 0, and no residual either: the answer is 0.
    cosine = a @ b.T / norm.sqrt().clamp(min=1e-6)
    # Two who share nothing have a cosine of 0, whatever the shrinkage.
    return common / (common + shrinkage).clamp(min=1) * cosine
