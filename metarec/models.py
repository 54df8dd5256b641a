"""Recommenders: a feature map with a linear head, and the head is what a user owns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MatrixFactorization", "UserTable"]


class MatrixFactorization(nn.Module):
    """One user's matrix factorisation: the item side is shared, the head is theirs.

    r_hat_i = offset_i + phi_i . w with phi_i = [q_i, 1] and w = [p_u, b_u]; the offset
    is mu + b_i. As a module it holds the head of *one* user. Meta-learners read that
    head as theta_0, where every new user starts; `UserTable` gives each known user one.

    Shapes: items (...,) of any shape, features (..., dim + 1), scores (...,) in stars.

    Source: Koren, Bell & Volinsky (2009).
    Built in: matrix-factorization
    """

    def __init__(
        self, n_items: int, dim: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        noise = torch.randn(n_items, dim, generator=generator)
        self.item_factors = nn.Parameter(0.1 * noise)
        self.item_offset = nn.Parameter(torch.zeros(n_items))
        self.head = nn.Parameter(torch.zeros(dim + 1))

    @classmethod
    def from_items(cls, factors: Tensor, offset: Tensor) -> MatrixFactorization:
        """Start from item vectors (I, dim) and offsets (I,) that stay as they are."""
        model = cls(*factors.shape)
        model.item_factors = nn.Parameter(factors.clone(), requires_grad=False)
        model.item_offset = nn.Parameter(offset.clone(), requires_grad=False)
        return model

    def offset(self, items: Tensor) -> Tensor:
        """mu + b_i: the part of the score that no user changes."""
        return self.item_offset[items]

    def features(self, items: Tensor) -> Tensor:
        """phi_i = [q_i, 1]."""
        q = self.item_factors[items]
        return torch.cat([q, torch.ones_like(q[..., :1])], dim=-1)

    def forward(self, items: Tensor) -> Tensor:
        """Score ``items`` with this module's own head."""
        return self.offset(items) + self.features(items) @ self.head


class UserTable(nn.Module):
    """A model whose every known user owns a head: the ordinary, warm recommender.

    r_hat_ui = offset_i + phi_i . w_u with w_u row u of a table (n_users, dim + 1).
    A user who is not in the table has no row, hence no prediction: asking for one
    raises ``IndexError``.

    Built in: matrix-factorization
    """

    def __init__(
        self,
        model: MatrixFactorization,
        n_users: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        heads = torch.randn(n_users, len(model.head), generator=generator)
        heads[:, -1] = 0
        self.heads = nn.Parameter(0.1 * heads)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Score each pair (users[n], items[n]), shape (N,)."""
        if len(users) and int(users.max()) >= len(self.heads):
            raise IndexError(
                f"user {int(users.max())} has no row among the {len(self.heads)} that "
                "were trained: a new user needs a task-learner, not a table"
            )
        phi = self.model.features(items)
        return self.model.offset(items) + (phi * self.heads[users]).sum(-1)
