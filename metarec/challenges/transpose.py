"""Turn a data set around: items in the place of users, users in the place of items."""

from dataclasses import replace
from typing import Any

import pandas as pd

from metarec.data.table import RatingData


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
    items = data.users.rename(columns={"user_id": "item_id"})
    for name, nothing in blank.items():
        if name not in items:
            items[name] = [nothing] * len(items)
    ratings = data.ratings.rename(columns={"user": "item", "item": "user"})
    return replace(
        data,
        ratings=ratings[data.ratings.columns],
        users=data.items.drop(columns=filled).rename(columns={"item_id": "user_id"}),
        items=items.astype({"year": "Int64"}),
    )
