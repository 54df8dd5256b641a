"""One fold of the items: what `Fold` is for users."""

from __future__ import annotations

from metarec.challenges import item_histories, newest_items, transposed
from metarec.data import RatingData
from metarec.evaluation import Fold
from metarec.features import UserFeatures


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
        super().__init__(transposed(data), number, order=order)
        if newest:
            self.split = newest_items(data)
        self.histories = item_histories(data, self.split.train, order)
        self.sealed = self.histories.seal(self.split.test)
        self.features = UserFeatures.fit(data.users).encode(data.users).double()
