"""What a meta-learner must beat, beside the `metarec.factors` that it starts from.

Every baseline learns from training users in ``fit`` and answers for new ones in
``predict(support, x)``, as the meta-learners do.
"""

from metarec.baselines.als import ALS, RidgeFoldIn
from metarec.baselines.content import GenreRidge
from metarec.baselines.neighbours import ItemKNN, UserKNN
from metarec.baselines.pooled import PooledMLP
from metarec.baselines.popularity import Popularity

__all__ = ["ALS", "GenreRidge", "ItemKNN", "PooledMLP", "Popularity", "UserKNN"]
__all__ += ["RidgeFoldIn"]
