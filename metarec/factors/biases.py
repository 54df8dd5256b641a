"""Means and biases: what every other method must beat before it is worth its cost."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from metarec.tasks import Examples, UserHistories, one_thread


@dataclass(frozen=True)
class GlobalMean:
    """Every user gives every item the mean of all training ratings: ``r_hat = mu``.

    Parameters
    ----------
    mean
        Mean of all training ratings, a number.

    Built in
    --------
    how-a-benchmark-fools-you
    """

    mean: Tensor

    @classmethod
    def fit(cls, histories: UserHistories, users: Tensor) -> Self:
        """Learn from the ratings of ``users`` alone.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).

        Returns
        -------
        GlobalMean
            The fitted object.
        """
        return cls(mean_rating(histories, users).float())

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """The mean, whatever is asked; shape (B, N).

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
        return self.mean.expand(x.shape)


@dataclass(frozen=True)
class ItemMean:
    """Every user gets the item's shrunk mean.

    ``r_hat_ui = mu + sum (r - mu) / (n_i + shrinkage)``, the sum over the item's
    ratings.

    Parameters
    ----------
    offset
        Shrunk mean of each item, shape (I,).

    Built in
    --------
    tasks
    """

    offset: Tensor

    @classmethod
    def fit(
        cls, histories: UserHistories, users: Tensor, shrinkage: float = 5.0
    ) -> Self:
        """Learn from the ratings of ``users`` alone.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        shrinkage
            Number of ratings without effect that are added to each mean.

        Returns
        -------
        ItemMean
            The fitted object.
        """
        mu, total = mean_rating(histories, users), torch.zeros(histories.n_items)
        for _, _, item, rating in histories.in_chunks(users):
            total.index_add_(0, item, rating - mu)
        return cls(mu + total / (histories.item_counts(users) + shrinkage))

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """The item's mean, whatever the support says; shape (B, N).

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
        return self.offset[x]


@dataclass(frozen=True)
class UserItemBias:
    """``r_hat = mu + b_i + b_u``, each bias a shrunk mean of what the other leaves.

    ``b_u = b_0 + sum_S (r - mu - b_i - b_0) / (K + lambda_u)``: ridge regression on a
    constant, with ``b_0`` the mean of the training users' biases.

    Parameters
    ----------
    offset
        ``mu + b_i``, shape (I,).
    mean_bias
        ``b_0``, the mean of the training users' biases, a number.
    user_shrinkage
        ``lambda_u``, in ratings.

    Source
    ------
    Koren, Bell & Volinsky (2009).

    Built in
    --------
    tasks
    """

    offset: Tensor
    mean_bias: Tensor
    user_shrinkage: float

    @classmethod
    @one_thread()
    def fit(
        cls,
        histories: UserHistories,
        users: Tensor,
        user_shrinkage: float = 15.0,
        item_shrinkage: float = 5.0,
    ) -> Self:
        """Alternate between the two kinds of bias ten times.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        user_shrinkage
            ``lambda_u``, in ratings.
        item_shrinkage
            The same for items, in ratings.

        Returns
        -------
        UserItemBias
            The fitted object.
        """
        mu, n_rated = mean_rating(histories, users), histories.item_counts(users)
        b_i = torch.zeros(histories.n_items)
        # Each side is a shrunk mean of what the other leaves; ten turns settle.
        for _ in range(10):
            of_users, of_items = torch.tensor(0.0), torch.zeros(histories.n_items)
            for _, user, item, rating in histories.in_chunks(users):
                rest = rating - mu - b_i[item]
                # Users need not be kept: a chunk's biases are read and forgotten.
                b_u = shrunk_mean(rest, user, int(user[-1]) + 1, user_shrinkage)
                of_items.index_add_(0, item, rating - mu - b_u[user])
                of_users += b_u.sum()
            b_i = of_items / (n_rated + item_shrinkage)
        return cls(mu + b_i, of_users / len(users), user_shrinkage)

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N): the item's offset and the user's shrunk bias.

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
        # Drawn to the mean bias, not to 0: users rate above the mean of all ratings.
        rest = support.y - self.offset[support.x] - self.mean_bias
        total = torch.where(support.mask, rest, 0.0).sum(-1)
        b_u = self.mean_bias + total / (support.mask.sum(-1) + self.user_shrinkage)
        return self.offset[x] + b_u[:, None]


def mean_rating(histories: UserHistories, users: Tensor) -> Tensor:
    """Mean of all ratings of ``users``, a number.

    Parameters
    ----------
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).

    Returns
    -------
    Tensor
        A number, in double precision.

    Plumbing
    --------
    Shared by the baselines.
    """
    total, n = torch.tensor(0.0, dtype=torch.float64), 0
    for _, _, _, rating in histories.in_chunks(users):
        total, n = total + rating.double().sum(), n + len(rating)
    return total / n


def shrunk_mean(value: Tensor, group: Tensor, n: int, shrinkage: float) -> Tensor:
    """Mean of ``value`` in each of ``n`` groups, drawn to 0 as if by extra zeros.

    ``value`` (R,) and its ``group`` (R,); returns (n,).

    Parameters
    ----------
    value
        What is averaged, shape (R,).
    group
        The group of each value, shape (R,).
    n
        Number of groups.
    shrinkage
        Number of ratings without effect that are added to each mean.

    Returns
    -------
    Tensor
        The mean of each group, shape (n,).

    Plumbing
    --------
    One step of `UserItemBias`.
    """
    total = torch.zeros(n).index_add_(0, group, value)
    return total / (torch.bincount(group, minlength=n) + shrinkage)
