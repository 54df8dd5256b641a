"""Meta-batches as the papers draw them or the protocol does, and training on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from metarec.evaluation import Fold
from metarec.metrics import user_rmse
from metarec.tasks import Examples, Tasks, UserHistories
from metarec.training import TrainingConfig, meta_train
from metarec.validation import Predictor

M = TypeVar("M", bound=nn.Module)

SIZES = (1, 2, 3, 5, 10, 15)


def gather(window: Examples, place: Tensor, mask: Tensor) -> Examples:
    """The examples of ``window`` at ``place`` (B, N), those under ``mask``."""
    x, y = (each.gather(1, place) for each in (window.x, window.y))
    return Examples(x, y, mask & window.mask.gather(1, place))


@dataclass(frozen=True)
class Draws:
    """One epoch of meta-batches: every task once, in random order.

    The support is the earliest K ratings, K drawn from ``sizes``, and the query
    ``n_query`` of those after the reserved ones, drawn anew each time. With ``random``
    it is as the papers have it: ``n_query`` random ratings of a user are the query and
    at most ``most`` of the others the support.
    """

    histories: UserHistories
    users: Tensor
    random: bool = False
    n_query: int = 20
    most: int = 80
    meta_batch: int = 32
    item_rows: Tensor | None = None
    sizes: tuple[int, ...] = SIZES

    def __call__(self, generator: torch.Generator) -> Iterator[Tasks]:
        """Yield the meta-batches of one epoch."""
        order = torch.randperm(len(self.users), generator=generator)
        for batch in order.split(self.meta_batch):
            yield self.cut(self.users[batch], generator)

    def cut(self, users: Tensor, generator: torch.Generator) -> Tasks:
        """Support and query of these users."""
        window = self.histories.everything(users, 300)
        if self.item_rows is not None:
            shift = self.item_rows[users][:, None]
            window = replace(window, x=window.x + shift)
        column = torch.arange(window.y.shape[1])
        free = window.mask & (self.random | (column >= self.histories.reserved))
        key = torch.rand(window.y.shape, generator=generator).masked_fill(~free, 2.0)
        order = key.argsort(1)
        query, n = order[:, : self.n_query], free.sum(1, keepdim=True)
        column = column[: query.shape[1]]
        tasks_query = gather(window, query, column < n)
        if self.random:
            rest = order[:, self.n_query : self.n_query + self.most]
            support = gather(window, rest, torch.ones_like(rest, dtype=torch.bool))
        else:
            sizes = torch.tensor(self.sizes)
            drawn = torch.randint(len(sizes), (len(users), 1), generator=generator)
            first = torch.arange(self.histories.reserved).expand(len(users), -1)
            support = gather(window, first, first < sizes[drawn])
        support = replace(support, profile=window.profile)
        return Tasks(support, tasks_query, users)


class Stopping:
    """A quick look at validation users, for early stopping alone.

    RMSE per user over K = 1, 5 and 15 as in the protocol, but at most 40 ratings of
    each query: a sixth of the work. What is chosen is chosen by `Fold.validate`.
    """

    def __init__(self, histories: UserHistories, users: Tensor) -> None:
        users, generator = histories.usable(users), torch.Generator().manual_seed(0)
        self.tasks = [
            Draws(histories, users, n_query=40, sizes=(k,)).cut(users, generator)
            for k in (1, 5, 15)
        ]

    def __call__(self, predictor: Predictor) -> float:
        """The mean error, lower is better."""
        errors = []
        for tasks in self.tasks:
            with torch.no_grad():
                stars = predictor.predict(tasks.support, tasks.query.x).clamp(1, 5)
            errors.append(user_rmse(stars, tasks.query.y, tasks.query.mask).mean())
        return float(torch.stack(errors).mean())


def learn(meta: M, fold: Fold, settings: Any, seed: int, **how: Any) -> M:
    """Meta-train on the fold's training users, stopped by its validation users.

    ``settings`` has epochs, outer_rate and patience; ``how`` is for `Draws`.
    """
    draws = Draws(fold.sealed, fold.train_users, **how)
    stop = Stopping(fold.sealed, fold.split.validation)
    config = TrainingConfig(
        settings.epochs, settings.outer_rate, settings.patience, seed=seed
    )
    meta_train(meta, draws, lambda: stop(meta), config, progress=False)
    return meta
