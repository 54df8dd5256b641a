"""New items: items as tasks."""

from torch import Tensor

from metarec.challenges.transpose import transposed
from metarec.data import RatingData
from metarec.features import UserFeatures, known_of_items
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
    known = known_of_items(data)
    # Zeros must say "not known", so what is known is centred on the training items.
    features = UserFeatures.fit(known.iloc[vocabulary.numpy()])
    histories.profile = features.encode(known)
    return histories
