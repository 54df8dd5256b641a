"""New users meet new items: what may be learned from, and what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import pandas as pd
import torch
from torch import Tensor

from metarec.data import RatingData
from metarec.factors import GaussianFactorModel
from metarec.tasks import SUPPORT_SIZES, Tasks, UserHistories, UserSplit
from metarec.validation import Predictor, errors_of


@dataclass(frozen=True)
class BothCold:
    """New users meet new items: K ratings of the one side, ``K'`` of the other.

    ``seen`` holds what may be learned from: everybody's ratings of old items and, of
    each new item, at most ``K' = shown`` ratings by training users. ``asked`` holds the
    query: what ``users``, the test users, said of the new items. It is the same for
    every K and ``K'``.
    """

    seen: UserHistories
    asked: UserHistories
    users: Tensor

    @classmethod
    def of(
        cls,
        data: RatingData,
        users: UserSplit,
        new_items: Tensor,
        shown: int,
        reserved: int = 15,
        order: str = "time",
    ) -> Self:
        """Cut the ratings; which ``K'`` ratings are shown is drawn, nested over ``K'``.

        Test users have more than ``reserved`` ratings of old items and one of a new
        item. ``order`` says which K of the old ones are the support: the earliest, or
        with ``"random"`` any.
        """
        table = data.ratings.sample(frac=1, random_state=0)
        new = table["item"].isin(new_items.numpy())
        by_training = new & table["user"].isin(users.train.numpy())
        # The table is shuffled once: the first K' of an item are nested over K'.
        rank = table[by_training].groupby("item").cumcount()
        kept = ~new | (rank.reindex(table.index) < shown)
        asked = new & table["user"].isin(users.test.numpy())
        seen, query = (
            UserHistories(
                replace(data, ratings=table[rows].sort_index()),
                how,
                reserved=most,
                vocabulary=users.train,
            )
            for rows, most, how in ((kept, reserved, order), (asked, 0, "time"))
        )
        judged = query.usable(seen.usable(users.test))
        if len(judged) == 0:
            raise ValueError(
                f"no test user has more than {reserved} ratings of old items and one "
                "of a new item: lower `reserved`, or hold out more items"
            )
        return cls(seen, query, judged)

    def tasks(self, k: int) -> Tasks:
        """Support: K ratings of old items; query: all ratings of new items."""
        support = self.seen.tasks(self.users, k).support
        return Tasks(support, self.asked.tasks(self.users, 0).query, self.users)

    def judge(
        self, predictor: Predictor, sizes: Sequence[int] = SUPPORT_SIZES
    ) -> pd.DataFrame:
        """Errors as `cold_start` gives them: one row for each user and K."""
        tables = []
        for k in sizes:
            tasks = self.tasks(k)
            tasks.check_disjoint()
            tables.append(errors_of(predictor, tasks, self.asked).assign(k=k))
        return pd.concat(tables, ignore_index=True)


def learn_offset(
    model: GaussianFactorModel,
    histories: UserHistories,
    users: Tensor,
    ridge: float = 100.0,
) -> None:
    """Let features say what an item's offset is while few have rated it.

    `UserItemBias` draws ``b_i`` to 0 as if ``lambda = 5`` more ratings were there; now
    they stand at ``f_i' beta``:
    ``b_i = (n_i c_i + lambda f_i' beta) / (n_i + lambda)``, with ``c_i`` the mean
    residual of the ``n_i`` ratings. ``beta`` is the ridge regression of ``b_i`` on
    ``f_i`` in which an item counts once a rating, since that is how often it is asked
    about: ``ridge`` is in ratings.
    """
    n = histories.item_counts(users).double()
    drawn = 5 / (n + 5)  # of `UserItemBias`
    f = model.features
    penalty = ridge * torch.eye(f.shape[1], dtype=f.dtype)
    penalty[0, 0] = 1e-5
    # b_i depends on beta itself: the weight n - n drawn takes that out.
    gram = (f * (n - n * drawn)[:, None]).T @ f + penalty
    shrunk = model.offset - model.mu
    beta = torch.linalg.solve(gram, f.T @ (n * shrunk))
    model.offset = model.offset + drawn * (f @ beta)
