"""Rivals for lists: popularity, and what a user's choice of items says beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from metarec.baselines.ridge import ridge_rows
from metarec.tasks import Examples, UserHistories

Move = Callable[[Tensor], Tensor]  # from who chose what, (B, I), to scores, (B, I)
Make = Callable[[Tensor, Tensor, Any], Move]  # from who saw, who liked, and an amount


def cosine(seen: Tensor, liked: Tensor, amount: float) -> Move:
    """Sum over the chosen items j of ``s_ij = n_ij / (sqrt(n_i n_j) + amount)``.

    n_ij counts the training users who chose both: item neighbours.

    Parameters
    ----------
    seen
        1 where a training user chose an item, shape (U, I).
    liked
        1 where a training user liked an item, shape (U, I).
    amount
        How strongly what few users chose is shrunk.

    Returns
    -------
    Move
        From who chose what, shape (B, I), to what it adds to each item's score.

    Source
    ------
    Deshpande & Karypis (2004).

    Plumbing
    --------
    A rival on the leaderboard.
    """
    both = seen.T @ seen
    root = both.diagonal().sqrt()
    alike = (both / (root[:, None] * root + amount).clamp(min=1)).fill_diagonal_(0)
    return lambda chosen: chosen @ alike


def lift(seen: Tensor, liked: Tensor, amount: float) -> Move:
    """Sum over chosen j of ``log (n_ji + amount) / (n_j n_i / n + amount)``.

    n_ji of n training users chose j and liked i, against what chance would give: naive
    Bayes.

    Parameters
    ----------
    seen
        1 where a training user chose an item, shape (U, I).
    liked
        1 where a training user liked an item, shape (U, I).
    amount
        How many users more there are on both sides of the ratio.

    Returns
    -------
    Move
        From who chose what, shape (B, I), to what it adds to each item's score.

    Plumbing
    --------
    A rival on the leaderboard.
    """
    by_chance = seen.sum(0)[:, None] * liked.sum(0) / len(liked)
    table = ((seen.T @ liked + amount) / (by_chance + amount)).log()
    return lambda chosen: chosen @ table


def ease(seen: Tensor, liked: Tensor, amount: float) -> Move:
    """Each item's column by ridge regression on the columns of all others.

    ``B_ij = -P_ij / P_jj`` with ``P = (X'X + amount I)^-1``, X the choices, and no
    diagonal.

    Parameters
    ----------
    seen
        1 where a training user chose an item, shape (U, I).
    liked
        1 where a training user liked an item, shape (U, I).
    amount
        Weight of the squares.

    Returns
    -------
    Move
        From who chose what, shape (B, I), to what it adds to each item's score.

    Source
    ------
    Steck (2019).

    Plumbing
    --------
    A rival on the leaderboard.
    """
    gram = (seen.T @ seen).double()
    inverse = torch.linalg.inv(gram + amount * torch.eye(len(gram)))
    table = (-inverse / inverse.diagonal()).fill_diagonal_(0).float()
    return lambda chosen: chosen @ table


def implicit_als(
    seen: Tensor, liked: Tensor, amount: tuple[float, float, int], sweeps: int = 8
) -> Move:
    """Factors of the choices: ``p . q_i``, with p folded in for a new user.

    ``min sum_ui (1 + weight x_ui) (x_ui - p_u . q_i)^2 + penalty (|p|^2 + |q|^2)``, in
    turns, x the choices.

    Parameters
    ----------
    seen
        1 where a training user chose an item, shape (U, I).
    liked
        1 where a training user liked an item, shape (U, I).
    amount
        What a choice counts beyond no choice, the penalty, and the length of a vector.
    sweeps
        Number of turns.

    Returns
    -------
    Move
        From who chose what, shape (B, I), to what it adds to each item's score.

    Source
    ------
    Hu, Koren & Volinsky (2008).

    Plumbing
    --------
    A rival on the leaderboard.
    """
    weight, penalty, dim = amount

    def half(chosen: Tensor, other: Tensor) -> Tensor:
        """The vectors of the rows, those of the columns held fixed."""
        # What was not chosen counts once, as a 0.
        gram = other.T @ other + penalty * torch.eye(dim)
        return ridge_rows(weight * chosen, (1 + weight) * chosen, other, gram)

    generator = torch.Generator().manual_seed(0)
    items = 0.1 * torch.randn(seen.shape[1], dim, generator=generator)
    for _ in range(sweeps):
        items = half(seen.T, half(seen, items))
    return lambda chosen: half(chosen, items) @ items.T


@dataclass(frozen=True)
class Popularity:
    """The same list for everybody: an item's score is how often it was rated.

    A score to rank by, not a rating in stars.

    Parameters
    ----------
    count
        Number of training ratings of each item, shape (I,).

    Built in
    --------
    how-a-benchmark-fools-you
    """

    count: Tensor

    @classmethod
    def fit(cls, histories: UserHistories, users: Tensor) -> Self:
        """Count the ratings of ``users`` alone.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).

        Returns
        -------
        Popularity
            The fitted object.
        """
        return cls(histories.item_counts(users).float())

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """The item's number of ratings, whatever the support says; shape (B, N).

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
        return self.count[x]


@dataclass(frozen=True)
class BesidePopularity:
    """Rank by popularity and, beside it, by what a user's choice of items says.

    ``score_i = log (n_i + 1/2) + weight n^-power move_i(S)`` for the n_i training users
    who like item i, and the n items S of the support with ``like`` stars or more.

    Parameters
    ----------
    popularity
        Logarithm of the number of likes of each item, shape (I,).
    move
        From who chose what, shape (B, I), to scores, shape (B, I).
    like
        The rating from which on an item of the support counts as chosen.
    weight
        Weight of what the choice says.
    power
        0 for a sum over the items chosen, 1 for their mean.

    Plumbing
    --------
    Rivals on the leaderboard.
    """

    popularity: Tensor
    move: Move
    like: float
    weight: float
    power: float

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N), to rank by.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.
        x
            Items to score, shape (B, N).

        Returns
        -------
        Tensor
            Scores, shape (B, N).
        """
        chosen = support.table((support.y >= self.like).float(), len(self.popularity))
        softened = chosen.sum(-1, keepdim=True).clamp(min=1) ** -self.power
        move = self.weight * softened * self.move(chosen)
        return (self.popularity + move).gather(1, x)
