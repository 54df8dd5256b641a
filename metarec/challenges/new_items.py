"""New items: items as tasks, and new users who meet new items."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from metarec.challenges.transpose import transposed
from metarec.data import RatingData
from metarec.evaluation.cold_start import errors_of
from metarec.features import UserFeatures, known_of_items
from metarec.tasks import SUPPORT_SIZES, Tasks, UserHistories, UserSplit
from metarec.validation import Predictor, check_disjoint


def item_histories(
    data: RatingData, vocabulary: Tensor, order: str = "random"
) -> UserHistories:
    """Take items for tasks: their raters are what users' items were.

    Whatever runs on `UserHistories` runs on items then: ``w_i = (q_i, b_i)`` is the
    head of the task, fitted on K ratings of the item, and ``x_i``, its genres and year,
    the profile, shape (n_items, F). ``vocabulary`` are the items, the training items,
    that say which genres there are and what the means are. The profile is 0 where
    nothing is known: an item without a year, or with genres that none of them has.

    Parameters
    ----------
    data
        The ratings.
    vocabulary
        Training items, shape (V,), who say which genres there are and what the means
        are.
    order
        Order of an item's ratings, one of `ORDERS`.

    Returns
    -------
    UserHistories
        Histories whose users are the items.

    Built in
    --------
    new-items
    """
    histories = UserHistories(transposed(data), order)
    known = known_of_items(data)
    # Zeros must say "not known", so what is known is centred on the training items.
    features = UserFeatures.fit(known.iloc[vocabulary.numpy()])
    histories.profile = features.encode(known)
    return histories


def newest_items(data: RatingData, share: float = 0.2) -> UserSplit:
    """Hold out the newest ``share`` of the items; the next newest tenth validates.

    Newest by year, then by the time of the first rating; an item of unknown year counts
    as old. Unlike a random split it asks about items that resemble no training item of
    their own age.

    Parameters
    ----------
    data
        The ratings.
    share
        Share of the items that is held out.

    Returns
    -------
    UserSplit
        Three sets of items.

    Raises
    ------
    ValueError
        If a part would be empty.

    Built in
    --------
    new-items
    """
    first = data.ratings.groupby("item")["timestamp"].min()
    first = first.reindex(range(data.n_items), fill_value=0)
    year = data.items["year"].astype("float64").fillna(-np.inf)
    order = np.lexsort((first.to_numpy(), year.to_numpy()))
    n_test, n_validation = round(share * data.n_items), data.n_items // 10
    n_train = data.n_items - n_test - n_validation
    if min(n_test, n_validation, n_train) < 1:
        about = f"a share of {share:g} of {data.n_items} items"
        raise ValueError(f"{about} leaves a part empty: choose another share")
    parts = np.split(order, [n_train, n_train + n_validation])
    return UserSplit(*(torch.from_numpy(np.sort(part)) for part in parts))


@dataclass(frozen=True)
class BothCold:
    """New users meet new items: K ratings of the one side, ``K'`` of the other.

    ``seen`` holds what may be learned from: everybody's ratings of old items and, of
    each new item, at most ``K' = shown`` ratings by training users. ``asked`` holds the
    query: what ``users``, the test users, said of the new items. It is the same for
    every K and ``K'``.

    Parameters
    ----------
    seen
        What may be learned from.
    asked
        The test users' ratings of new items: the query.
    users
        The test users, shape (U,).

    Built in
    --------
    new-items
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
    ) -> Self:
        """Cut the ratings; which ``K'`` ratings are shown is drawn, nested over ``K'``.

        Test users have more than ``reserved`` ratings of old items and one of a new
        item.

        Parameters
        ----------
        data
            The ratings.
        users
            Who is trained on, and who is judged.
        new_items
            Rows of the new items, shape (n_new,).
        shown
            K', the ratings of each new item that may be learned from.
        reserved
            Ratings of a user from which the support is cut: K is at most that.

        Returns
        -------
        BothCold
            The cut.

        Raises
        ------
        ValueError
            If there is none.
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
                reserved=most,
                vocabulary=users.train,
            )
            for rows, most in ((kept, reserved), (asked, 0))
        )
        judged = query.usable(seen.usable(users.test))
        if len(judged) == 0:
            raise ValueError(
                f"no test user has more than {reserved} ratings of old items and one "
                "of a new item: lower `reserved`, or hold out more items"
            )
        return cls(seen, query, judged)

    def tasks(self, k: int) -> Tasks:
        """Support: the earliest K ratings of old items; query: all of new items.

        Parameters
        ----------
        k
            Support size K.

        Returns
        -------
        Tasks
            The tasks.
        """
        support = self.seen.tasks(self.users, k).support
        return Tasks(support, self.asked.tasks(self.users, 0).query, self.users)

    def judge(
        self, predictor: Predictor, sizes: Sequence[int] = SUPPORT_SIZES
    ) -> pd.DataFrame:
        """Errors as `cold_start` gives them: one row for each user and K.

        Parameters
        ----------
        predictor
            What is judged.
        sizes
            Support sizes K; those of the protocol if not given.

        Returns
        -------
        pd.DataFrame
            One row for each user and K: user, k, rmse, mae and n.
        """
        tables = []
        for k in sizes:
            tasks = self.tasks(k)
            check_disjoint(tasks)
            tables.append(errors_of(predictor, tasks, self.asked, k))
        return pd.concat(tables, ignore_index=True)
