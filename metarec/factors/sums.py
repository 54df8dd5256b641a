"""Sums over ratings and their moments: what each half-step of EM reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from metarec.tasks import UserHistories

CHUNK = 2**19  # ratings that are summed at once
KEPT = 2**24  # ratings that stay in memory, sorted, in about 24 bytes each

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch says once that the layout is beta
    torch.sparse_csr_tensor([0], [], [], (0, 0))


class RatingSums:
    """Sums over a user's or an item's ratings: sparse matrices, stored row by row."""

    def __init__(
        self, user: Tensor, item: Tensor, rating: Tensor, n_users: int, n_items: int
    ) -> None:
        self.user_count = torch.bincount(user, minlength=n_users).to(rating)
        self.item_count = torch.bincount(item, minlength=n_items)
        self.total = torch.bincount(user, rating, minlength=n_users)
        self.square = rating.square().sum()
        # Sorted both ways once, since every sweep sums over users and over items.
        self.of_user = _by_rows(user, item, rating, (n_users, n_items))
        self.of_item = _by_rows(item, user, rating, (n_items, n_users))


def rating_sums(
    histories: UserHistories, users: Tensor, offset: Tensor
) -> list[Callable[[], RatingSums]]:
    """Functions that read the ratings of ``users`` less the items' ``offset``.

    Each reads some users after others, about ``CHUNK`` ratings. What up to ``KEPT``
    ratings come to is read once and kept; more is read anew by each call, so that
    memory does not grow with the ratings.

    Parameters
    ----------
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).
    offset
        Part of the score that no user changes, shape (I,).
    """

    def read(some: Tensor) -> RatingSums:
        user, item, rating = histories.ratings_of(some)
        rest = rating.double() - offset[item]
        return RatingSums(user, item, rest, len(some), histories.n_items)

    count = histories.count(users)
    keep = cache if int(count.sum()) <= KEPT else partial
    block = (count.cumsum(0) - count) // CHUNK
    parts = users.split(torch.bincount(block).tolist())
    return [keep(partial(read, some)) for some in parts if len(some)]


@dataclass(frozen=True)
class SufficientStatistics:
    """Sufficient statistics of some users' posteriors: sums, which add up over users.

    For the users' prior ``n_users``, the ``mean`` (D,) of ``E[w_u]`` and ``spread`` (D,
    D), the sum of ``cov[w_u]`` and of squares around the mean; for the items
    ``item_count`` (I,) and the ``evidence``, ``gram`` (I, T) packed and ``target`` (I,
    D); for the noise ``rest``, the sum of ``E[(r - b_u)^2]``.
    """

    n_users: int
    mean: Tensor
    spread: Tensor
    item_count: Tensor
    gram: Tensor
    target: Tensor
    rest: Tensor

    @classmethod
    def of(cls, table: RatingSums, w: Tensor, cov: Tensor, dtype: torch.dtype) -> Self:
        """Sums over the users of one table, with ``w_u ~ N(w, cov)``."""
        mean = w.mean(0)
        spread = cov.sum(0) + (w - mean).T @ (w - mean)
        gram, target = evidence(table.of_item, *packed_moments(w, cov), dtype)
        # The square of r - b_u multiplied out: no rating need be looked at again.
        square = table.user_count @ (w[:, -1].square() + cov[:, -1, -1])
        rest = square - 2 * w[:, -1] @ table.total + table.square
        return cls(len(w), mean, spread, table.item_count, gram, target, rest)

    def __add__(self, other: Self) -> Self:
        """Sums over the users of both; squares are moved to the common mean."""
        # As in Chan, Golub & LeVeque: sums around two means, put around the common one.
        share = other.n_users / (self.n_users + other.n_users)
        gap = other.mean - self.mean
        both = {name: value + vars(other)[name] for name, value in vars(self).items()}
        both["mean"] = self.mean + share * gap
        both["spread"] += self.n_users * share * torch.outer(gap, gap)
        return type(self)(**both)


def _by_rows(
    row: Tensor, column: Tensor, rating: Tensor, shape: tuple[int, int]
) -> Tensor:
    order = row.int().argsort(stable=True)
    # Indices of 32 bits: half the memory, and what the library multiplies by.
    start = F.pad(torch.bincount(row, minlength=shape[0]).cumsum(0), (1, 0)).int()
    return torch.sparse_csr_tensor(start, column.int()[order], rating[order], shape)


def packed_moments(mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """E[z] (N, D), and side by side E[z z'], packed, and E[z b]: (N, T + D)."""
    z, zz, zb = moments(mean, cov)
    return z, torch.cat([packed(zz), zb], 1)


def evidence(
    of: Tensor, z: Tensor, both: Tensor, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """What its ratings say of a user (or item): sum E[z z'], packed, sum E[z (r - b)].

    ``of`` is ``RatingSums.of_user`` (or ``of_item``), ``z`` and ``both`` are the
    `packed_moments` of the other side's (q, b), and ``z = (q, 1)``. ``both`` is
    summed in ``dtype``.
    """
    column, start, dim = of.col_indices(), of.crow_indices(), z.shape[1]
    # Where each rating counts once, bags of rows are summed as nothing else is.
    sums = F.embedding_bag(
        column, both.to(dtype), start, mode="sum", include_last_offset=True
    ).to(z)
    return sums[:, :-dim], of @ z - sums[:, -dim:]


def packed(matrix: Tensor) -> Tensor:
    """The T = D (D + 1) / 2 numbers that make symmetric matrices (N, D, D): (N, T)."""
    row, column = torch.triu_indices(*matrix.shape[1:])
    return matrix[:, row, column]


def unpacked(half: Tensor) -> Tensor:
    """The symmetric matrices (N, D, D) that were `packed` into (N, T)."""
    dim = int((2 * half.shape[1]) ** 0.5)
    row, column = torch.triu_indices(dim, dim)
    place = torch.empty(dim, dim, dtype=torch.long)
    place[row, column] = place[column, row] = torch.arange(len(row))
    return half[:, place]


def moments(mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """E[z], E[z z'] and E[z b] for z = (q, 1) where (q, b) has this mean and cov."""
    z = torch.cat([mean[:, :-1], torch.ones_like(mean[:, -1:])], 1)
    inner = cov.clone()
    cross = torch.cat([cov[:, :-1, -1], torch.zeros_like(mean[:, -1:])], 1)
    # The constant 1 of z has no variance; b's covariance with q goes into E[z b].
    inner[:, -1], inner[:, :, -1] = 0, 0
    return z, z[:, :, None] * z[:, None, :] + inner, z * mean[:, -1:] + cross
