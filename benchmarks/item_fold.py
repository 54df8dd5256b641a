"""One fold of the items: what `Fold` is for users."""

from __future__ import annotations

import numpy as np
import torch

from metarec.challenges import item_histories, transposed
from metarec.data import RatingData
from metarec.evaluation import Fold, Protocol
from metarec.features import UserFeatures
from metarec.tasks import UserSplit


def newest_items(data: RatingData, share: float = 0.2) -> UserSplit:
    """Hold out the newest ``share`` of the items; the next newest tenth validates.

    Newest by year, then by the time of the first rating; an item of unknown year counts
    as old. Unlike a random split it asks about items that resemble no training item of
    their own age. Raises ``ValueError`` if a part would be empty.
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


class ItemFold(Fold):
    """One fold of the items, with everything that `Fold` has for users.

    ``order`` is that of an item's ratings: ``"random"``, or ``"time"`` for its earliest
    K. ``newest`` holds out the newest items in place of those of fold ``number``. The
    Gaussian model and the rating models know age, gender and occupation of the raters.

    Raises ``ValueError`` if the items are too few.
    """

    def __init__(
        self,
        data: RatingData,
        number: int = 0,
        order: str = "random",
        newest: bool = False,
    ) -> None:
        super().__init__(transposed(data), number, Protocol(order=order))
        if newest:
            self.split = newest_items(data)
        self.histories = item_histories(data, self.split.train, order)
        self.sealed = self.histories.seal(self.split.test)
        self.features = UserFeatures.fit(data.users).encode(data.users).double()
