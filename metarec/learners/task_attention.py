"""Attention between a user at hand and the tasks of the past."""

import torch
from torch import Tensor, nn

from metarec.learners.bayesian import Bayesian
from metarec.learners.heads import Rows, expand_mean, needs_head, scaled
from metarec.learners.prior import Parameters, Prior
from metarec.learners.task_learner import TaskLearner
from metarec.models import RatingModel
from metarec.tasks import Examples

# The prior variance of a head's weights, relative to the noise, in the units of
# `factors.cross_fit`: the ridge estimates of the bank shrink as users are spread.
_RIDGE = torch.tensor(0.2)


class TaskBank(nn.Module):
    """Historical tasks and what each of them learned: ``Delta_t = w_t - mean`` over t.

    ``w_t`` is the ridge estimate of task t's head from its ratings, around the model's
    head (under another likelihood than a Gaussian, the maximum of the posterior). The
    features that it is made of change in training, so `refresh` computes it anew; what
    is saved are the ``Delta_t`` and no rating.

    ``history`` holds the tasks (see `UserHistories.everything`) with their ``user``.

    Parameters
    ----------
    history
        The historical tasks with their user; None where a saved bank is to be loaded.
    n_tasks
        Number of tasks.
    dim
        Number of weights D of a head.

    Built in
    --------
    metamind
    """

    deltas: Tensor

    def __init__(self, history: Examples | None, n_tasks: int, dim: int) -> None:
        super().__init__()
        self.history = history
        self.register_buffer("deltas", torch.zeros(n_tasks, dim))

    @torch.no_grad()
    def refresh(self, model: RatingModel) -> None:
        """Compute ``Delta_t`` with the model as it stands.

        Parameters
        ----------
        model
            The model, with a linear head.
        """
        if self.history is None:
            return
        self.history = self.history.like(model.head)
        prior = Prior({"head": model.head}, {"head": _RIDGE})
        some = self.history.split(64)  # each may need features of all items
        weights = torch.cat([Bayesian().adapt(model, prior, x)["head"] for x in some])
        # In one piece, as it is read again: another layout would round differently.
        self.deltas = (weights - weights.mean(0)).contiguous()

    def own(self, support: Examples) -> Tensor:
        """True where a task of the bank is the task of the support, shape (B, T).

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Tensor
            Booleans, shape (B, T).
        """
        if support.user is None or self.history is None or self.history.user is None:
            return support.mask.new_zeros(len(support), len(self.deltas))
        return support.user[:, None] == self.history.user


class TaskAttention(TaskLearner, nn.Module):
    """Learn from a user's neighbours among historical tasks.

    ``w = m + sum_t a_t Delta_t``.

    ``a_t = softmax_t(l_t)``, over the historical tasks t and a null slot. The logit
    ``l_t`` is how much better their taste explains the support than the prior mean
    does, ::

        l_t = (e . Phi k_t - 1/2 |Phi k_t|^2) / sigma^2, with keys k_t = s o Delta_t,

    ``e = y - offset - Phi m``, ``Delta_t = w_t - mean`` of the bank, and s the prior's
    scale (a number or one for each weight). With ``s = 1`` it is Bayes' rule for a
    prior that puts equal mass on every historical user. The null slot has key and value
    0 and a learned logit. A task never attends to itself; without ratings all attention
    is on the null slot, so K = 0 is the prior.

    Under another likelihood than a Gaussian ``l_t = g . k_t - 1/2 k_t' H k_t``, with g
    and H the slope and the curvature of the log-likelihood at m: its change to second
    order.

    Parameters
    ----------
    bank
        The historical tasks.

    Source
    ------
    Vinyals et al. (2016), matching networks, for the idea.

    Built in
    --------
    task-attention

    Examples
    --------
    >>> import torch
    >>> from metarec.learners import Prior, TaskAttention, TaskBank
    >>> from metarec.models import MatrixFactorization
    >>> from metarec.tasks import Examples
    >>> model = MatrixFactorization.from_items(torch.eye(2), torch.full((2,), 3.0))
    >>> rated = torch.tensor([[0]])
    >>> prior = Prior({"head": torch.zeros(3)}, {"head": 1.0})
    >>> support = Examples(rated, torch.tensor([[5.0]]), rated == 0)
    >>> learner = TaskAttention(TaskBank(None, n_tasks=7, dim=3))
    >>> learner.attention(model, prior, support).shape  # seven tasks and the null slot
    torch.Size([1, 8])
    """

    initial_scale = 1.0
    noisy = True

    def __init__(self, bank: TaskBank) -> None:
        super().__init__()
        self.bank = bank
        self.null = nn.Parameter(torch.tensor(0.0))

    def attention(self, model: RatingModel, prior: Prior, support: Examples) -> Tensor:
        """The weights ``a_t``, shape (B, T + 1), the null slot last; they sum to 1.

        Parameters
        ----------
        model
            The model, with a linear head.
        prior
            Where adaptation starts, and how far it trusts the ratings.
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Tensor
            Weights, shape (B, T + 1).
        """
        rows, mean = Rows.of(model, support), expand_mean(prior, support)
        keys = scaled(prior.scale["head"], self.bank.deltas)
        size = torch.einsum("ti,bij,tj->bt", keys, rows.hessian(mean), keys)
        logits = (rows.slope(mean) @ keys.T - 0.5 * size) / prior.noise
        empty = ~support.mask.any(-1, keepdim=True)
        logits = logits.masked_fill(empty | self.bank.own(support), -torch.inf)
        return torch.cat([logits, self.null.expand(len(support), 1)], -1).softmax(-1)

    def adapt(self, model: nn.Module, prior: Prior, support: Examples) -> Parameters:
        """Each task's head: the prior mean and what the attended tasks add to it.

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
        """
        weight = self.attention(needs_head(model, prior), prior, support)
        return {"head": expand_mean(prior, support) + weight[:, :-1] @ self.bank.deltas}
