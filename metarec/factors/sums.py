"""Sums over ratings and their moments: what each half-step of EM reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from metarec.tasks import CHUNK, UserHistories


class RatingSums:
    """Sums over a user's or an item's ratings, as products with sparse matrices."""

    def __init__(
        self, user: Tensor, item: Tensor, rating: Tensor, n_users: int, n_items: int
    ) -> None:
        self.user, self.item, self.rating = user, item, rating
        self.item_count = torch.bincount(item, minlength=n_items)
        # Sorted both ways once, since every sweep sums over users and over items.
        self._of_user = _seen_and_rated(user, item, rating, (n_users, n_items))
        self._of_item = _seen_and_rated(item, user, rating, (n_items, n_users))

    def by_user(self, value: Tensor, rated: bool = False) -> Tensor:
        """sum over the items of each user of value[item], times the rating if asked."""
        return _times(self._of_user[rated], value)

    def by_item(self, value: Tensor, rated: bool = False) -> Tensor:
        """sum over the users of each item of value[user], times the rating if asked."""
        return _times(self._of_item[rated], value)


def rating_sums(
    histories: UserHistories, users: Tensor, offset: Tensor
) -> Iterable[RatingSums]:
    """The ratings of ``users`` less the items' ``offset``, users chunk by chunk.

    What fits into one chunk is sorted once; more is sorted anew each time it is read.

    Parameters
    ----------
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).
    offset
        Part of the score that no user changes, shape (I,).
    """
    tables = _Chunks(histories, users, offset)
    # What fits is kept sorted, which halves a sweep; what does not is read again.
    small = int(histories.count(users).sum()) <= CHUNK
    return list(tables) if small else tables


@dataclass(frozen=True)
class _Chunks:
    histories: UserHistories
    users: Tensor
    offset: Tensor

    def __iter__(self) -> Iterator[RatingSums]:
        n_items = self.histories.n_items
        for some, user, item, rating in self.histories.in_chunks(self.users):
            rest = rating.double() - self.offset[item]
            yield RatingSums(user, item, rest, len(some), n_items)


@dataclass(frozen=True)
class SufficientStatistics:
    """Sufficient statistics of some users' posteriors: sums, which add up over users.

    For the users' prior ``n_users``, the ``mean`` (D,) of ``E[w_u]`` and ``spread`` (D,
    D), the sum of ``cov[w_u]`` and of squares around the mean; for the items
    ``item_count`` (I,) and the ``evidence`` ``gram`` (I, D, D) and ``target`` (I, D);
    for the noise ``rest``, the sum of ``E[(r - b_u)^2]``.
    """

    n_users: int
    mean: Tensor
    spread: Tensor
    item_count: Tensor
    gram: Tensor
    target: Tensor
    rest: Tensor

    @classmethod
    def of(cls, table: RatingSums, w: Tensor, cov: Tensor) -> Self:
        """Sums over the users of one table, with ``w_u ~ N(w, cov)``."""
        mean = w.mean(0)
        spread = (cov + outer_products(w - mean)).sum(0)
        gram, target = evidence(table.by_item, w, cov)
        rest = (table.rating - w[table.user, -1]).square() + cov[table.user, -1, -1]
        return cls(len(w), mean, spread, table.item_count, gram, target, rest.sum())

    def __add__(self, other: SufficientStatistics) -> SufficientStatistics:
        """Sums over the users of both; squares are moved to the common mean."""
        n = self.n_users + other.n_users
        # As in Chan, Golub & LeVeque: sums around two means, put around the common one.
        gap = other.mean - self.mean
        between = self.n_users * other.n_users / n * torch.outer(gap, gap)
        return SufficientStatistics(
            n,
            self.mean + other.n_users / n * gap,
            self.spread + other.spread + between,
            self.item_count + other.item_count,
            self.gram + other.gram,
            self.target + other.target,
            self.rest + other.rest,
        )


def _seen_and_rated(
    row: Tensor, column: Tensor, rating: Tensor, shape: tuple[int, int]
) -> list[Tensor]:
    """Two sparse matrices stored row by row: 1 where there is a rating, the rating."""
    order = row.argsort(stable=True)
    start = torch.bincount(row, minlength=shape[0]).cumsum(0)
    start = torch.cat([start.new_zeros(1), start])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the layout beta
        return [
            torch.sparse_csr_tensor(
                start, column[order], value[order], shape, check_invariants=False
            )
            for value in (torch.ones_like(rating), rating)
        ]


def _times(matrix: Tensor, value: Tensor) -> Tensor:
    """Sparse (A, B) times a table (B, ...) of any further shape."""
    total = matrix @ value.reshape(len(value), -1)
    return total.reshape(matrix.shape[0], *value.shape[1:])


def outer_products(a: Tensor) -> Tensor:
    """a ``a'`` for each row of a (N, D): (N, D, D)."""
    return a[:, :, None] * a[:, None, :]


def apply_each(matrix: Tensor, vector: Tensor) -> Tensor:
    """One matrix (B, D, D) times one vector (B, D) for each task: (B, D)."""
    return torch.einsum("bij,bj->bi", matrix, vector)


def evidence(
    total: Callable[..., Tensor], mean: Tensor, cov: Tensor
) -> tuple[Tensor, Tensor]:
    """What its ratings say of a user (or item): sum E[z z'] and sum E[z (r - b)].

    ``total`` is ``RatingSums.by_user`` (or ``by_item``), ``mean`` and ``cov`` describe
    the other side's (q, b), and ``z = (q, 1)``.
    """
    z, zz, zb = moments(mean, cov)
    return total(zz), total(z, rated=True) - total(zb)


def moments(mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E[z], E[z z'] and E[z b] for z = (q, 1) where (q, b) has this mean and cov."""
    z = torch.cat([mean[:, :-1], torch.ones_like(mean[:, -1:])], 1)
    inner = cov.clone()
    cross = torch.cat([cov[:, :-1, -1], torch.zeros_like(mean[:, -1:])], 1)
    # The constant 1 of z has no variance; b's covariance with q goes into E[z b].
    inner[:, -1], inner[:, :, -1] = 0, 0
    return z, outer_products(z) + inner, z * mean[:, -1:] + cross
