"""Task-learners: from a prior and a few ratings to one user's own weights.

The interface, and those who keep it: gradient descent, the Bayesian, task attention and
a network that learns in context.
"""

from metarec.learners.bayesian import Bayesian, Posterior, PosteriorLearner
from metarec.learners.functional import predict
from metarec.learners.gradient_descent import GradientDescent
from metarec.learners.heads import Rows, dot, expand_mean, masked_rows, scaled
from metarec.learners.in_context import InContext
from metarec.learners.loop import MatrixRate, Objective, inner_loop, stable_share
from metarec.learners.losses import Loss, mean_squared_error, squared_error
from metarec.learners.prior import Parameters, Prior
from metarec.learners.task_attention import TaskAttention, TaskBank
from metarec.learners.task_learner import TaskLearner

__all__ = ["Bayesian", "GradientDescent", "InContext", "TaskAttention", "TaskLearner"]
__all__ += ["Posterior", "PosteriorLearner", "TaskBank", "Parameters", "Prior"]
__all__ += ["MatrixRate", "Objective", "inner_loop", "stable_share", "predict"]
__all__ += ["Loss", "mean_squared_error", "squared_error"]
__all__ += ["Rows", "dot", "expand_mean", "masked_rows", "scaled"]
