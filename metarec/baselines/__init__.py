"""What a meta-learner must beat, beside the `metarec.factors` that it starts from.

Every baseline learns from training users in ``fit`` and answers for new ones in
``predict(support, x)``, as the meta-learners do.
"""

from metarec.baselines.lists import BesidePopularity, Popularity
from metarec.baselines.neighbours import ItemKNN, UserKNN
from metarec.baselines.pooled import PooledMLP
from metarec.baselines.ridge import ALS, GenreRidge, RidgeFoldIn

__all__ = ["ALS", "BesidePopularity", "GenreRidge", "ItemKNN", "PooledMLP"]
__all__ += ["Popularity", "RidgeFoldIn", "UserKNN"]
