"""What the system starts from: biases, and the item vectors of a Gaussian model.

Each learns from training users in ``fit`` and answers for new ones in
``predict(support, x)``, as the meta-learners do.
"""

from metarec.factors.biases import GlobalMean, ItemMean, UserItemBias, shrunk_mean
from metarec.factors.gaussian import GaussianFactorModel
from metarec.factors.warm_start import WarmStart, cross_fit, lift_vectors

__all__ = ["GaussianFactorModel", "GlobalMean", "ItemMean", "UserItemBias", "WarmStart"]
__all__ += ["cross_fit", "lift_vectors", "shrunk_mean"]
