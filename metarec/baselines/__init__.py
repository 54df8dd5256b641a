"""What a meta-learner must beat, and the item vectors that it starts from.

Every baseline learns from training users in ``fit`` and answers for new ones in
``predict(support, x)``, as the meta-learners do.
"""

from metarec.baselines.als import ALS
from metarec.baselines.content import GenreRidge
from metarec.baselines.gaussian import GaussianFactorModel
from metarec.baselines.neighbours import ItemKNN, UserKNN
from metarec.baselines.pooled import PooledMLP
from metarec.baselines.simple import GlobalMean, ItemMean, Popularity, UserItemBias
from metarec.baselines.warm_start import WarmStart, cross_fit

__all__ = [
    "ALS",
    "GaussianFactorModel",
    "GenreRidge",
    "GlobalMean",
    "ItemKNN",
    "ItemMean",
    "PooledMLP",
    "Popularity",
    "UserItemBias",
    "UserKNN",
    "WarmStart",
    "cross_fit",
]
