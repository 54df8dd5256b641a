"""What a meta-learner must beat, and the item vectors that it starts from.

Every baseline learns from training users in ``fit`` and answers for new ones in
``predict(support, x)``, as the meta-learners do.
"""

from metarec.baselines.gaussian import GaussianFactorModel
from metarec.baselines.simple import ItemMean, UserItemBias
from metarec.baselines.warm_start import WarmStart, cross_fit

__all__ = [
    "GaussianFactorModel",
    "ItemMean",
    "UserItemBias",
    "WarmStart",
    "cross_fit",
]
