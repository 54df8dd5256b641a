"""New items: items as tasks."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from metarec.challenges.transpose import transposed
from metarec.data import RatingData
from metarec.features import item_feature_names, item_features
from metarec.tasks import UserHistories


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
    names = item_feature_names(replace(data, items=data.items.iloc[vocabulary.numpy()]))
    every = item_feature_names(data)
    x = item_features(data)[:, [every.index(name) for name in names]]
    dated = data.items["year"].notna().to_numpy()
    with_genre = data.items["genres"].map(lambda own: bool(set(own) & set(names)))
    columns = [dated if name == "year" else with_genre.to_numpy() for name in names]
    # Zeros must say "not known", so what is known is centred on the training items.
    known = torch.from_numpy(np.stack(columns, 1)) if names else x.bool()
    mean = (x * known)[vocabulary].sum(0) / known[vocabulary].sum(0).clamp(min=1)
    histories.profile = torch.where(known, x - mean, 0.0).float()
    return histories
