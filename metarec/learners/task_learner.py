"""The interface: from a prior and a few ratings to one user's own weights."""

from typing import ClassVar

from torch import Tensor, nn

from metarec.learners.functional import predict
from metarec.learners.prior import Parameters, Prior
from metarec.models import likelihood_of
from metarec.tasks import Examples, Tasks


class TaskLearner:
    """From a prior and a support set to each task's own weights.

    ``initial_scale`` is where a meta-learner starts the prior's scale, and ``noisy``
    says whether the answer depends on ``sigma^2`` in any other way than through the
    scale.

    Plumbing
    --------
    The interface of all task-learners.
    """

    initial_scale: ClassVar[float]
    noisy: ClassVar[bool]

    def adapt(self, model: nn.Module, prior: Prior, support: Examples) -> Parameters:
        """Weights of each task: every parameter of the prior with a task axis.

        Parameters
        ----------
        model
            The model whose parameters are adapted.
        prior
            Where adaptation starts, and how far it trusts the ratings.
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        dict[str, Tensor]
            Weights of each task by name, each with a leading task axis.

        Raises
        ------
        NotImplementedError
            Always: each task-learner has its own.
        """
        raise NotImplementedError

    def meta_loss(self, model: nn.Module, prior: Prior, tasks: Tasks) -> Tensor:
        """Mean loss of the query under each task's own weights, shape (B,).

        Parameters
        ----------
        model
            The model whose parameters are adapted.
        prior
            Where adaptation starts, and how far it trusts the ratings.
        tasks
            Tasks, each with a support and a query.

        Returns
        -------
        Tensor
            The loss of each task, shape (B,).
        """
        weights = self.adapt(model, prior, tasks.support)
        likelihood, n_items = likelihood_of(model), getattr(model, "n_items", 0)
        query = likelihood.read(tasks.query, n_items, tasks.support)
        score = predict(model, weights, query.x, tasks.support.profile)
        return likelihood.loss(score, query.y, query.mask) / query.total
