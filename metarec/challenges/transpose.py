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
    ratings = data.ratings.rename(columns={"user": "item", "item": "user"})
    items = data.users.rename(columns={"user_id": "item_id"})
    n = len(items)
    year = pd.array([pd.NA] * n, dtype="Int64")
    blank: dict[str, Any] = {"title": [""] * n, "year": year, "genres": [()] * n}
    for column, nothing in blank.items():
        if column not in items:
            items[column] = nothing
    # Columns that were blank for all were filled in by an earlier turn: turned back.
    users = data.items.rename(columns={"item_id": "user_id"})
    empty = {
        "title": not users["title"].astype(bool).any(),
        "year": not users["year"].notna().any(),
        "genres": not users["genres"].astype(bool).any(),
    }
    return replace(
        data,
        ratings=ratings[data.ratings.columns],
        users=users.drop(columns=[column for column in empty if empty[column]]),
        items=items,
    )
