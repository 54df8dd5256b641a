"""Meta-learners: from many users' histories to the prior of a new user."""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from math import log
from typing import Any, Self

import torch
from torch import Tensor, nn

from metarec.learners import GradientDescent, Parameters, Prior, TaskBank, TaskLearner
from metarec.learners.functional import predict
from metarec.learners.heads import Rows
from metarec.models import Gaussian, RatingModel, Softmax, answer, likelihood_of
from metarec.tasks import Examples, Tasks

__all__ = ["MAML", "MetaLearner", "MetaMind", "MetaSGD"]


class MetaLearner(nn.Module):
    """Learn a prior from many users' histories; the parent of all meta-learners.

    Its parameters minimise the meta-loss::

        sum_u L_query(A(prior, S_u); Q_u)

    with A the task-learner, ``S_u`` the support and ``Q_u`` the query of user u. The
    gradient runs through the inner steps (second order) unless the learner is
    ``first_order``.

    A child says what the prior's ``scale`` is, and may let its ``mean`` depend on the
    task. ``adapt`` names the parameters that are a user's own (all by default;
    ``["head"]`` alone is ANIL); the model's others are shared, and learned too where
    they require a gradient. ``scale`` is where the prior's scale starts, the learner's
    own default if it is not given; it is learned as its logarithm, or fixed if
    ``learn_scale`` is false. The noise ``sigma^2`` starts at 1 and is learned where the
    learner reads it.

    Parameters
    ----------
    model
        The model whose parameters are adapted; it holds ``theta_0``.
    learner
        The task-learner.
    adapt
        Names of the parameters that are a user's own; all of the model's if not given.
    scale
        Where the prior's scale starts; the learner's default if not given.
    learn_scale
        Whether the scale is learned, as its logarithm, or fixed.

    Raises
    ------
    ValueError
        For a name in ``adapt`` that the model does not have.

    Source
    ------
    Finn, Abbeel & Levine (2017); Raghu et al. (2020) for ANIL.

    Plumbing
    --------
    What the three meta-learners share.
    """

    log_scale: Any  # one parameter, or one for each adapted name

    def __init__(
        self,
        model: nn.Module,
        learner: TaskLearner | None = None,
        adapt: Sequence[str] | None = None,
        scale: float | None = None,
        learn_scale: bool = True,
    ) -> None:
        super().__init__()
        names = [name for name, _ in model.named_parameters()]
        self.model = model
        self.learner = GradientDescent() if learner is None else learner
        self.adapted = tuple(names if adapt is None else adapt)
        if unknown := set(self.adapted) - set(names):
            raise ValueError(f"the model has no parameter {unknown}; it has {names}")
        start = self.learner.initial_scale if scale is None else scale
        # A logarithm keeps the scale positive: a step never goes uphill, and a
        # variance stays one.
        self.start_scale(log(start), learn_scale)
        # Clicks and likes bring the noise of their own likelihood.
        if self.learner.noisy and isinstance(likelihood_of(model), Gaussian):
            self.log_noise = nn.Parameter(torch.tensor(0.0))

    def start_scale(self, log_start: float, learn: bool) -> None:
        """Make the parameter behind `scale`: a logarithm, one for all weights.

        Parameters
        ----------
        log_start
            Logarithm of where the scale starts.
        learn
            Whether it is learned or stays.
        """
        self.log_scale = nn.Parameter(torch.tensor(log_start), learn)

    def _theta_0(self) -> Parameters:
        return {name: self.model.get_parameter(name) for name in self.adapted}

    def scale(self) -> Parameters:
        """The prior's scale for each adapted parameter.

        Returns
        -------
        dict[str, Tensor]
            The scale by name.
        """
        return dict.fromkeys(self.adapted, self.log_scale.exp())

    def mean(self, support: Examples | None = None) -> Parameters:
        """The prior's mean ``theta_0``, shifted by what was rated if the model does so.

        Parameters
        ----------
        support
            The support sets, for a mean that depends on them.

        Returns
        -------
        dict[str, Tensor]
            The mean by name; with a leading task axis where it depends on the task.
        """
        theta = self._theta_0()
        if support is not None and isinstance(self.model, RatingModel):
            shift = self.model.shift(support.x, support.mask)
            if shift is not None:
                theta["head"] = theta["head"] + shift
        return theta

    def prior(self, support: Examples | None = None) -> Prior:
        """Mean, scale and noise, as the task-learner takes them.

        The mean may depend on the task: it is that of the tasks of ``support``, or of
        a task without ratings if there is none.

        Parameters
        ----------
        support
            The support sets; a task without ratings if not given.

        Returns
        -------
        Prior
            The prior.
        """
        noise = self.log_noise.exp() if hasattr(self, "log_noise") else 1.0
        return Prior(self.mean(support), self.scale(), noise)

    def adapt(self, support: Examples) -> Parameters:
        """Each task's own weights, learned from its support.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        dict[str, Tensor]
            Weights of each task by name, each with a leading task axis.
        """
        support = support.like(next(self.model.parameters()))
        meta = self.once(support)
        return meta.learner.adapt(meta.model, meta.prior(support), support)

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Adapt to ``support``, then predict ``x``: shape (B, N).

        Stars under a Gaussian likelihood, probabilities under a Bernoulli, scores under
        a softmax: their differences count, and over the whole catalogue their
        ``log_softmax`` is ``log p``.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.
        x
            Items to score, shape (B, N).

        Returns
        -------
        Tensor
            Predictions, shape (B, N).
        """
        support = support.like(next(self.model.parameters()))
        meta = self.once(support)
        own, here = meta.adapt(support), x.to(support.x.device)
        score = predict(meta.model, own, here, support.profile)
        return answer(self.model, score).to(x.device)

    def once(self, support: Examples) -> Self:
        """The same for one batch of lists: features of all items once computed.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        MetaLearner
            A shallow copy, whose parameters are this one's own, to be let go before
            one of them changes; for other goals this one itself.
        """
        model, apart = copy(self.model), copy(self)
        lists = isinstance(likelihood_of(model), Softmax) and self.adapted == ("head",)
        if not (lists and isinstance(model, RatingModel)):
            return self
        every, of = torch.arange(model.n_items).to(support.x), model.features
        phi = of(every, support.profile)

        # Support, query and what a prior says of a task read them alike.
        def once(x: Tensor, who: Tensor | None = None) -> Tensor:
            return phi if torch.equal(x, every) else of(x, who)

        vars(model)["features"] = once
        apart._modules = self._modules | {"model": model}
        return apart

    def refresh(self) -> None:
        """Compute the banks of tasks, if there are any, with the model as it stands."""
        for part in self.modules():
            if isinstance(part, TaskBank) and isinstance(self.model, RatingModel):
                part.refresh(self.model)

    def loss(self, tasks: Tasks) -> Tensor:
        """The meta-loss: that of the learner on the query, averaged over tasks.

        Each task counts once, since the metric averages over users. Banks of tasks are
        computed anew with the model as it stands; for lists, whose modes take longer
        than all else, once an epoch.

        Parameters
        ----------
        tasks
            Tasks, each with a support and a query.

        Returns
        -------
        Tensor
            A number.
        """
        tasks = tasks.like(next(self.model.parameters()))
        banks = [part for part in self.modules() if isinstance(part, TaskBank)]
        lists = isinstance(likelihood_of(self.model), Softmax)
        if not (lists and all(bank.deltas.any() for bank in banks)):
            self.refresh()
        # Attention between tasks must know who a task is, to leave it out.
        tasks = replace(tasks, support=replace(tasks.support, user=tasks.user))
        meta = self.once(tasks.support)
        prior = meta.prior(tasks.support)
        return meta.learner.meta_loss(meta.model, prior, tasks).mean()


class MAML(MetaLearner):
    """Learn the initialisation from which a few inner steps serve a new user best.

    min over ``theta_0`` and ``alpha`` of
    ``sum_u L_query(A(theta_0, alpha, S_u); Q_u)``: one initialisation and one scale,
    which is the inner rate ``alpha`` of gradient descent. The arguments are those of
    `MetaLearner`.

    Parameters
    ----------
    model
        The model whose parameters are adapted; it holds ``theta_0``.
    learner
        The task-learner.
    adapt
        Names of the parameters that are a user's own; all of the model's if not given.
    scale
        Where the prior's scale starts; the learner's default if not given.
    learn_scale
        Whether the scale is learned, as its logarithm, or fixed.

    Source
    ------
    Finn, Abbeel & Levine (2017).

    Built in
    --------
    maml

    Examples
    --------
    >>> import torch
    >>> from metarec.learners import GradientDescent
    >>> from metarec.meta import MAML
    >>> from metarec.models import MatrixFactorization
    >>> model = MatrixFactorization.from_items(torch.eye(2), torch.full((2,), 3.0))
    >>> meta = MAML(model, GradientDescent(steps=2), adapt=["head"], scale=0.1)
    >>> meta.scale()["head"].detach()
    tensor(0.1000)
    """


class MetaSGD(MetaLearner):
    """Learn a scale for every weight along with the initialisation.

    ``w <- w - alpha o grad L(w)``, ``alpha`` with one entry for each weight; the other
    learners read the same numbers as prior variances, or as a metric in their keys.
    ``alpha`` is learned as its logarithm, so it stays positive: a step never goes
    uphill, and ``alpha`` remains a variance. ``full`` learns a matrix ``A = C C'`` for
    the head instead, by its factor C.

    Parameters
    ----------
    model
        The model whose parameters are adapted; it holds ``theta_0``.
    learner
        The task-learner.
    adapt
        Names of the parameters that are a user's own; all of the model's if not given.
    scale
        Where the prior's scale starts; the learner's default if not given.
    learn_scale
        Whether the scale is learned, as its logarithm, or fixed.
    full
        Whether to learn a matrix for the head in place of one number for each weight.

    Raises
    ------
    ValueError
        If ``full`` is asked for and more than a head is adapted.

    Source
    ------
    Li et al. (2017), who let alpha change sign.

    Built in
    --------
    meta-sgd

    Examples
    --------
    >>> import torch
    >>> from metarec.learners import GradientDescent
    >>> from metarec.meta import MetaSGD
    >>> from metarec.models import MatrixFactorization
    >>> model = MatrixFactorization.from_items(torch.eye(2), torch.full((2,), 3.0))
    >>> meta = MetaSGD(model, GradientDescent(steps=2), adapt=["head"], scale=0.1)
    >>> meta.scale()["head"].detach()
    tensor([0.1000, 0.1000, 0.1000])
    """

    def __init__(
        self,
        model: nn.Module,
        learner: TaskLearner | None = None,
        adapt: Sequence[str] | None = None,
        scale: float | None = None,
        learn_scale: bool = True,
        full: bool = False,
    ) -> None:
        self.full = full
        super().__init__(model, learner, adapt, scale, learn_scale)
        if full and self.adapted != ("head",):
            raise ValueError('a full scale is for a linear head: pass adapt=["head"]')

    def start_scale(self, log_start: float, learn: bool) -> None:
        """Make a logarithm for every weight, and the rest of the factor C if asked.

        Parameters
        ----------
        log_start
            Logarithm of where each scale starts.
        learn
            Whether they are learned or stay.
        """
        start = self._theta_0()
        logs = {_key(n): torch.full_like(start[n], log_start) for n in start}
        self.log_scale = nn.ParameterDict(logs).requires_grad_(learn)
        if self.full:
            (theta,) = start.values()
            self.lower = nn.Parameter(theta.new_zeros(len(theta), len(theta)), learn)

    def scale(self) -> Parameters:
        """One number for each weight, or a full matrix.

        The matrix is ``C C'`` with ``C = (I + L) diag(sqrt alpha)``.

        Returns
        -------
        dict[str, Tensor]
            The scale by name.
        """
        scales = {name: self.log_scale[_key(name)].exp() for name in self.adapted}
        if self.full:
            # Unit lower triangle times a positive diagonal: C C' stays definite.
            root = self.lower.tril(-1).fill_diagonal_(1) * scales["head"].sqrt()
            scales["head"] = root @ root.T
        return scales


def _key(name: str) -> str:
    """A parameter's name without the dots that ``ParameterDict`` refuses."""
    return name.replace(".", "/")


class MetaMind(MetaLearner):
    """Attention between tasks gives each task an initialisation of its own.

    ``theta_0(task) = theta_0 + sum_m a_m Delta_m``, with
    ``a = softmax_m(k_m . c + b_m)`` and the task's code ``c = Phi' e / (K + 5)``, what
    its support says about the head.

    The M slots are ``prototypes``, with ``k_m``, ``Delta_m`` and ``b_m`` all learned;
    the chapter takes the training tasks themselves as well. The scale is one number, as
    for `MAML`.

    "MetaMind" is the course's name; see the chapter for what else is meant by it.

    Parameters
    ----------
    model
        The model whose parameters are adapted; it holds ``theta_0``.
    learner
        The task-learner.
    adapt
        Names of the parameters that are a user's own; all of the model's if not given.
    scale
        Where the prior's scale starts; the learner's default if not given.
    prototypes
        Number M of slots.
    generator
        Source of the random numbers.

    Source
    ------
    Yao et al. (2019), HSML, and Dong et al. (2020), MAMO, are relatives.

    Built in
    --------
    metamind

    Examples
    --------
    >>> import torch
    >>> from metarec.meta import MetaMind
    >>> from metarec.models import MatrixFactorization
    >>> from metarec.tasks import Examples
    >>> model = MatrixFactorization.from_items(torch.eye(2), torch.full((2,), 3.0))
    >>> meta = MetaMind(model, adapt=["head"], prototypes=4)
    >>> rated = torch.tensor([[0]])
    >>> meta.attention(Examples(rated, torch.tensor([[5.0]]), rated == 0)).shape
    torch.Size([1, 4])
    """

    model: RatingModel

    def __init__(
        self,
        model: RatingModel,
        learner: TaskLearner | None = None,
        adapt: Sequence[str] | None = None,
        scale: float | None = None,
        prototypes: int = 4,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, learner, adapt, scale)
        dim = len(model.head)
        self.keys = nn.Parameter(torch.randn(prototypes, dim, generator=generator))
        self.bias = nn.Parameter(torch.zeros(prototypes))
        self.deltas = nn.ParameterDict()
        for name, theta in self._theta_0().items():
            drawn = torch.randn(prototypes, *theta.shape, generator=generator)
            self.deltas[_key(name)] = nn.Parameter(0.05 * drawn)

    def code(self, support: Examples) -> Tensor:
        """``c = Phi' (y - offset - Phi theta_0) / (K + 5)``, shape (B, D); 0 at K = 0.

        Under another likelihood, what was observed less what ``theta_0`` expects.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Tensor
            Codes, shape (B, D).
        """
        head = self.model.head.expand(len(support), -1)
        count = support.mask.sum(-1, keepdim=True)
        return Rows.of(self.model, support).slope(head) / (count + 5)

    def attention(self, support: Examples) -> Tensor:
        """The weights ``a_m`` of each task, (B, M).

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Tensor
            Weights, shape (B, M).
        """
        return (self.code(support) @ self.keys.T + self.bias).softmax(-1)

    def mean(self, support: Examples | None = None) -> Parameters:
        """``theta_0 + sum_m a_m Delta_m`` for each task, with a leading task axis.

        Parameters
        ----------
        support
            The support sets; a task without ratings if not given.

        Returns
        -------
        dict[str, Tensor]
            The mean by name, with a leading task axis.
        """
        theta = super().mean(support)
        if support is None:
            empty = self.model.head.new_zeros(1, 1)
            nobody = empty.new_zeros(1, getattr(self.model, "n_profile", 0))
            # A task without ratings still attends: the prior of somebody unknown.
            support = Examples(empty.long(), empty, empty > 0, nobody)
        weight = self.attention(support)
        for name, start in theta.items():
            theta[name] = start + torch.tensordot(weight, self.deltas[_key(name)], 1)
        return theta
