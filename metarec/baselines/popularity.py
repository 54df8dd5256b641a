"""What everybody has heard of, for everybody."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from metarec.tasks import Examples, UserHistories


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
