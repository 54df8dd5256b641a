"""New items: items as tasks, and which of them are the newest."""

import numpy as np
import torch
from torch import Tensor

from metarec.challenges.transpose import transposed
from metarec.data import RatingData
from metarec.features import UserFeatures, known_of_items
from metarec.tasks import UserHistories, UserSplit


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
