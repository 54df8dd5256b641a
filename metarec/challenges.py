"""What is hard beyond a new user: new items, as tasks of their own."""

from dataclasses import replace
from typing import Any

import pandas as pd
from torch import Tensor

from metarec.data import RatingData
from metarec.features import UserFeatures, known_of_items
from metarec.tasks import UserHistories

__all__ = ["item_histories", "transposed"]


def transposed(data: RatingData) -> RatingData:
    """Return the same ratings with the two sides exchanged, so that items are tasks.

    ``r'_iu = r_ui``: row u of ``ratings`` keeps its stars and its time. What described
    items describes users now and the other way round; title, year and genres, which the
    canonical table of items must have, are empty for what were users. Transposing twice
    gives the data back, to the last byte of the content hash.

    Parameters
    ----------
    data
        Ratings of items by users.

    Returns
    -------
    RatingData
        Ratings of users by items.

    Plumbing
    --------
    `item_histories` and the chapter on new items.
    """
    blank: dict[str, Any] = {"title": "", "year": pd.NA, "genres": ()}
    # Columns that are blank for all were filled in by an earlier turn: turned back.
    filled = [name for name in blank if set(data.items[name]) == {blank[name]}]
    missing = {n: [v] * data.n_users for n, v in blank.items() if n not in data.users}
    items = data.users.rename(columns={"user_id": "item_id"}).assign(**missing)
    items["year"] = items["year"].astype("Int64")
    users = data.items.drop(columns=filled).rename(columns={"item_id": "user_id"})
    ratings = data.ratings.rename(columns={"user": "item", "item": "user"})
    return replace(data, ratings=ratings[[*data.ratings]], users=users, items=items)


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
