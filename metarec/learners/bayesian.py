"""Bayesian personalisation: a prior, a few ratings, and a posterior as the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarec.learners.heads import Rows, dot, expand_mean, needs_head, scaled
from metarec.learners.prior import Parameters, Prior
from metarec.learners.task_learner import TaskLearner
from metarec.models import Gaussian, RatingModel, likelihood_of, weighted_sum
from metarec.tasks import Examples, Tasks


class Posterior(NamedTuple):
    """What is known of each task's head: ``w ~ N(mean, covariance)``, and the noise.

    Parameters
    ----------
    mean
        Means of the heads, shape (B, D).
    covariance
        Covariances of the heads, shape (B, D, D).
    noise
        ``sigma^2``, a number.

    Shapes
    ------
    ``mean`` (B, D), ``covariance`` (B, D, D), ``noise`` a number, ``sigma^2``.

    Built in
    --------
    the-gaussian-model
    """

    mean: Tensor
    covariance: Tensor
    noise: Tensor | float

    def variance(self, phi: Tensor) -> Tensor:
        """Variance ``phi' C phi`` of the score at features (B, N, D): shape (B, N).

        Parameters
        ----------
        phi
            Features, shape (B, N, D).

        Returns
        -------
        Tensor
            Variances, shape (B, N).
        """
        return (phi @ self.covariance * phi).sum(-1)

    def update(self, phi: Tensor, error: Tensor) -> Posterior:
        """Learn from one more rating a task, without the earlier ones.

        With ``g = C phi / (sigma^2 + phi' C phi)``: ``m + g e`` and ``C - g phi' C``,
        the updated mean and covariance.

        Parameters
        ----------
        phi
            Features of the rating, shape (B, D).
        error
            ``e = r - offset - phi . m``, shape (B,).

        Returns
        -------
        Posterior
            The posterior after the rating.

        Source
        ------
        Kalman (1960).
        """
        c_phi = torch.einsum("bde,be->bd", self.covariance, phi)
        gain = c_phi / (self.noise + (phi * c_phi).sum(-1, keepdim=True))
        covariance = self.covariance - gain[:, :, None] * c_phi[:, None, :]
        return Posterior(self.mean + gain * error[:, None], covariance, self.noise)


class PosteriorLearner(TaskLearner):
    """A task-learner that answers with a belief: a mean of the head, and how sure.

    The meta-loss is ``-log p(query)`` under the predictive
    ``N(score, phi' C phi + sigma^2)`` where the likelihood is a Gaussian; else that of
    the mean.

    Built in
    --------
    in-context
    """

    def posterior(
        self, model: RatingModel, prior: Prior, support: Examples
    ) -> Posterior:
        """The belief about each task's head; K = 0 gives the prior.

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
        Posterior
            The belief about B heads.

        Raises
        ------
        NotImplementedError
            Always: each learner has its own.
        """
        raise NotImplementedError

    def adapt(self, model: nn.Module, prior: Prior, support: Examples) -> Parameters:
        """The posterior mean of each task's head.

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
        return {"head": self.posterior(needs_head(model, prior), prior, support).mean}

    def predictive(
        self, model: RatingModel, prior: Prior, support: Examples, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of the score of a further rating of ``x``, (B, N) each.

        ``score = offset + phi . mean``; ``variance = phi' C phi + sigma^2``, without
        ``sigma^2`` under another likelihood, whose noise is in the click.

        Parameters
        ----------
        model
            The model whose parameters are adapted.
        prior
            Where adaptation starts, and how far it trusts the ratings.
        support
            Ratings to adapt on, of B users or tasks.
        x
            Items to score, shape (B, N).

        Returns
        -------
        tuple[Tensor, Tensor]
            Mean and variance, shape (B, N) each.
        """
        posterior = self.posterior(model, prior, support)
        phi = model.features(x, support.profile)
        score = model.offset(x) + dot(phi, posterior.mean)
        return score, posterior.variance(phi) + posterior.noise

    def meta_loss(self, model: nn.Module, prior: Prior, tasks: Tasks) -> Tensor:
        """Mean of ``-log p(rating)`` of the query under the predictive, shape (B,).

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
        model, query = needs_head(model, prior), tasks.query
        if not isinstance(likelihood_of(model), Gaussian):
            return super().meta_loss(model, prior, tasks)
        score, variance = self.predictive(model, prior, tasks.support, query.x)
        each = (query.y - score).square() / variance + variance.log()
        total = 0.5 * torch.where(query.mask, each, 0.0).sum(-1)
        return total / query.mask.sum(-1).clamp(min=1)


@dataclass(frozen=True)
class Bayesian(PosteriorLearner):
    """The posterior of a user's head under a Gaussian prior, in closed form.

    ``w ~ N(m, S)`` and ``r ~ N(offset + phi . w, sigma^2)``.

    ``C = (S^-1 + Phi' Phi / sigma^2)^-1`` and ``mean = m + C Phi' e / sigma^2``, with
    ``e = y - offset - Phi m``. S is the prior's scale: ``tau^2 I``, ``diag(tau^2)`` or
    full. Under a Bernoulli likelihood or a softmax it is Laplace's approximation: a
    Gaussian at the maximum of the posterior, found by at most ``newton`` steps, with
    the curvature there.
    Parameters other than the head stay at the prior mean.

    The meta-loss is ``-log p(query)`` under the predictive
    ``N(score, phi' C phi + sigma^2)``.

    Parameters
    ----------
    newton
        Most steps of Newton's under another likelihood than a Gaussian.

    Source
    ------
    Harrison, Sharma & Pavone (2018), ALPaCA; Bishop (2006), sections 3.3, 4.5.

    Built in
    --------
    bayesian

    Examples
    --------
    >>> import torch
    >>> from metarec.learners import Bayesian, Prior
    >>> from metarec.models import MatrixFactorization
    >>> from metarec.tasks import Examples
    >>> model = MatrixFactorization.from_items(torch.eye(2), torch.full((2,), 3.0))
    >>> rated = torch.tensor([[0]])
    >>> support = Examples(rated, torch.tensor([[5.0]]), rated == 0)
    >>> prior = Prior({"head": torch.zeros(3)}, {"head": 1.0})
    >>> Bayesian().adapt(model, prior, support)["head"]
    tensor([[0.6667, 0.0000, 0.6667]])
    """

    newton: int = 30

    initial_scale = 0.15
    noisy = True

    def posterior(
        self, model: RatingModel, prior: Prior, support: Examples
    ) -> Posterior:
        """Posterior of each task's head; K = 0 gives the prior.

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
        Posterior
            The posterior of B heads.
        """
        if not isinstance(likelihood_of(model), Gaussian):
            return self.laplace(model, prior, support)
        rows, mean = Rows.of(model, support), expand_mean(prior, support)
        covariance = posterior_covariance(prior, rows.hessian(mean) / prior.noise)
        step = dot(covariance, rows.slope(mean) / prior.noise)
        return Posterior(mean + step, covariance, prior.noise)

    def laplace(self, model: RatingModel, prior: Prior, support: Examples) -> Posterior:
        """Newton's steps on ``L + 1/2 (w - m)' S^-1 (w - m)``, and the curvature there.

        ``w <- w + t (S^-1 + H)^-1 (g - S^-1 (w - m))``. With r the range of what a
        whole step adds to the scores, ``t = log(1 + r) / r`` always goes down under
        these likelihoods, and so does ``t = 1`` while ``e^r < 1 + r + r^2``: up to
        1.79. Gradients run through the last step alone, which makes those of the
        maximum itself; the covariance has none.

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
        Posterior
            The Gaussian at the maximum of the posterior.

        Source
        ------
        Bach (2010) for t: how fast a softmax can bend.
        """
        rows, mean = Rows.of(model, support), expand_mean(prior, support)
        likelihood, phi, y = rows.likelihood, rows.phi, rows.y
        one, least = torch.eye(mean.shape[-1]).to(mean), torch.finfo(mean.dtype)
        scale = scaled(prior.scale["head"], one)
        with torch.no_grad():
            # w = m + S v: a prior need not be inverted.
            v, score = torch.zeros_like(mean), rows.score(mean)
            for _ in range(self.newton):
                uphill = weighted_sum(phi, likelihood.slope(score, y)) - v
                total = one + likelihood.hessian(phi, score, y) @ scale
                move = torch.linalg.solve(total, uphill)
                change = dot(phi, move @ scale)
                bend = change.amax(-1).clamp(min=0) - change.amin(-1).clamp(max=0)
                bend = bend.clamp(min=least.tiny)[:, None]
                share = torch.where(bend > 1.79, bend.log1p() / bend, 1.0)
                v, score = v + share * move, score + share * change
                # What a step leaves is of the order of its square; one more follows.
                if (bend < least.eps**0.25).all():
                    break
            w, hessian = mean + v @ scale, likelihood.hessian(phi, score, y)
            covariance = posterior_covariance(prior, hessian)
            total = one + scale @ hessian
        # The step is 0 at the maximum, and its derivative is that of the maximum.
        uphill = rows.slope(w) @ scale - (w - mean)
        return Posterior(w + torch.linalg.solve(total, uphill), covariance, 0.0)


def posterior_covariance(prior: Prior, information: Tensor) -> Tensor:
    """``(S^-1 + H)^-1 = (I + S H)^-1 S``: a prior need not be inverted.

    Parameters
    ----------
    prior
        Where adaptation starts, and how far it trusts the ratings.
    information
        H, what the ratings say, such as ``Phi' Phi / sigma^2``, shape (B, D, D).

    Returns
    -------
    Tensor
        The covariance of each task, shape (B, D, D).

    Plumbing
    --------
    What the closed form and Laplace's approximation share.
    """
    one = torch.eye(information.shape[-1]).to(information)
    scale = scaled(prior.scale["head"], one)
    total = one + scale @ information
    covariance: Tensor = torch.linalg.solve(total, scale.expand_as(information))
    # Symmetric in exact arithmetic; rounding must not break the online update.
    return 0.5 * (covariance + covariance.mT)
