"""The network that MeLU and TaNP share: embedded fields of item and user."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metarec.evaluation import Fold
from metarec.factors import GlobalMean

WIDTH = 32


def fields(names: Sequence[str]) -> list[slice]:
    """Columns of one field each: those whose names agree before the ``=``."""
    starts = [name.partition("=")[0] for name in names]
    found = []
    for start in dict.fromkeys(starts):
        at = [n for n, name in enumerate(starts) if name == start]
        found.append(slice(at[0], at[-1] + 1))
    return found


def levels(fold: Fold, centred: bool, items: bool) -> Tensor | None:
    """What is added to scores: what is known of each item's level, the mean, or 0."""
    if items:
        return fold.warm.offset
    if not centred:
        return None
    mean = float(GlobalMean.fit(fold.sealed, fold.split.train).mean)
    return torch.full((len(fold.features),), mean)


class Content(nn.Module):
    """Fields of an item and of its user, each as 32 numbers, side by side.

    A word has a vector of its own, a number (an age, a year) multiplies one; a field of
    several words, such as genres, is the sum of theirs. What identifies an item is not
    among them. ``offset`` is added to every score: 0 in the papers.
    """

    def __init__(self, fold: Fold, offset: Tensor | None = None) -> None:
        super().__init__()
        known = fold.features.float()
        # The year is the last column, the genres stand before it.
        self.item_fields = [slice(-1), slice(-1, None)]
        self.user_fields = fields(fold.sealed.user_features.names)
        self.register_buffer("known", known)
        self.n_items = len(known)
        offset = torch.zeros(self.n_items) if offset is None else offset
        self.register_buffer("offset", offset)
        n_words = known.shape[1], fold.sealed.profile.shape[1]
        self.item_words, self.user_words = (
            nn.Parameter(0.1 * torch.randn(n, WIDTH)) for n in n_words
        )

    @property
    def width(self) -> int:
        """Numbers of a pair of item and user."""
        return WIDTH * (len(self.item_fields) + len(self.user_fields))

    def pair(self, x: Tensor, profile: Tensor) -> Tensor:
        """Items (..., N) and their users (..., P) as numbers (..., N, width)."""
        item = [self.known[:, s] @ self.item_words[s] for s in self.item_fields]
        user = [profile[..., s] @ self.user_words[s] for s in self.user_fields]
        user_side = torch.cat(user, -1)[..., None, :]
        item_side = torch.cat(item, -1)[x % self.n_items]
        user_side = user_side.expand(*x.shape, user_side.shape[-1])
        return torch.cat([item_side, user_side], -1)
