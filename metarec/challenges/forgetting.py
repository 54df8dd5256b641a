"""Interests that drift: ways to forget, from a window to a prior that moves."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarec.factors import GaussianFactorModel
from metarec.factors.sums import moments
from metarec.learners import Posterior, dot
from metarec.tasks import Examples


@dataclass(frozen=True)
class Windowed:
    """Believe the ``last`` ratings, and forget all others.

    The posterior of the model given the newest ratings of the support, which stands in
    order of time.

    Parameters
    ----------
    model
        The fitted model.
    last
        Number of ratings that are believed.

    Raises
    ------
    ValueError
        If ``last`` is below 1.

    Built in
    --------
    sparsity-and-drift
    """

    model: GaussianFactorModel
    last: int

    def __post_init__(self) -> None:
        """Refuse a window without ratings."""
        if self.last < 1:
            raise ValueError(f"a window needs last >= 1 ratings, got {self.last}")

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N), in stars.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.
        x
            Items to score, shape (B, N).

        Returns
        -------
        Tensor
            Scores, in stars, shape (B, N).
        """
        recent = support.mask & (_age(support.mask) < self.last)
        return self.model.predict(replace(support, mask=recent), x)


@dataclass(frozen=True)
class Decayed:
    """Let a rating count ``2^(-age / h)``: half for each ``half_life`` ratings since.

    ``Precision = Sigma^-1 + sum_S w z z' / s`` and
    ``evidence = sum_S w z (r - offset_i) / s``, ``w = 2^(-age / h)``, the newest rating
    of age 0: each rating's noise variance grows as ``s / w``. An infinite half-life
    gives the posterior of ``model``.

    Parameters
    ----------
    model
        The fitted model.
    half_life
        Ratings after which a rating counts half.

    Raises
    ------
    ValueError
        If the half-life is not above 0.

    Built in
    --------
    sparsity-and-drift
    """

    model: GaussianFactorModel
    half_life: float

    def __post_init__(self) -> None:
        """Refuse a half-life that is none."""
        _retention(self.half_life)

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N), in stars.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.
        x
            Items to score, shape (B, N).

        Returns
        -------
        Tensor
            Scores, in stars, shape (B, N).
        """
        weight = torch.exp2(-_age(support.mask).double() / self.half_life)
        return self.model.predict(support, x, weight)


@dataclass(frozen=True)
class KalmanFilter:
    """A prior that moves: the posterior of a ``w_t`` that drifts between ratings.

    ``w_{t+1} = m + A (w_t - m) + e``, ``e ~ N(0, Sigma - A Sigma A')``, so that every
    ``w_t`` has the prior ``N(m, Sigma)`` of ``model``. ``A = L diag(a) L^-1`` with
    ``Sigma = L L'`` (Cholesky) and ``a = 2^(-1 / half-life)``: the half-life ``taste``,
    in ratings, for ``p_u`` and the part of the bias that ``p_u`` explains, ``bias`` for
    the rest of ``b_u``. (Two half-lives on ``p_u`` and ``b_u`` themselves would not
    leave a correlated Sigma in place.) Equal half-lives give ``A = a I``, infinite ones
    the posterior of ``model``.

    Before each rating the belief ``N(mean, C)`` moves: ``mean <- m + A (mean - m)`` and
    ``C <- A C A' + Sigma - A Sigma A'``. The rating then adds ``E[z z'] / s`` to the
    precision, the item vectors' own uncertainty counted as in ``model``.

    Parameters
    ----------
    model
        The fitted model.
    taste
        Half-life of ``p_u``, and of the part of the bias that it explains, in ratings.
    bias
        Half-life of the rest of ``b_u``, in ratings.

    Raises
    ------
    ValueError
        If a half-life is not above 0, or the model shifts its prior by a profile or by
        the choice of items, which need the whole support.

    Source
    ------
    Kalman (1960).

    Built in
    --------
    sparsity-and-drift
    """

    model: GaussianFactorModel
    taste: float
    bias: float

    def __post_init__(self) -> None:
        """Refuse what the recursion does not cover."""
        _retention(self.taste), _retention(self.bias)
        if self.model.implicit is not None or self.model.profile is not None:
            raise ValueError(
                "KalmanFilter needs a model without learn_profile and learn_implicit"
            )

    def start(self, n: int) -> Posterior:
        """The prior, once for each of ``n`` users.

        Parameters
        ----------
        n
            Number of users B.

        Returns
        -------
        Posterior
            The belief, a posterior of n heads.
        """
        mean, covariance = self.model.user_mean, self.model.user_covariance
        noise = self.model.temper * self.model.noise
        return Posterior(mean.expand(n, -1), covariance.expand(n, -1, -1), noise)

    def observe(self, belief: Posterior, ratings: Examples) -> Posterior:
        """Move and learn, rating by rating; a masked one leaves the belief as it is.

        Parameters
        ----------
        belief
            What is believed of each user, a posterior of B heads.
        ratings
            Further ratings, in order of time.

        Returns
        -------
        Posterior
            The belief after them.
        """
        z, zz, _ = moments(self.model.v, self.model.v_cov)
        rest = ratings.y.double() - self.model.offset[ratings.x]
        keep, fresh = self._dynamics()
        one, noise = torch.eye(len(keep)).to(keep), belief.noise
        for n in range(ratings.x.shape[1]):
            item, here = ratings.x[:, n], ratings.mask[:, n]
            # The head moves.
            mean = self._moved(belief.mean, keep)
            covariance = keep @ belief.covariance @ keep.T + fresh
            # The rating is learned: (C^-1 + zz / s)^-1, without inverting C.
            total = one + covariance @ zz[item] / noise
            covariance = torch.linalg.solve(total, covariance)
            # Rounding makes it lopsided, and over hundreds of ratings indefinite.
            covariance = 0.5 * (covariance + covariance.mT)
            pull = z[item] * rest[:, n, None] - dot(zz[item], mean)
            mean = mean + dot(covariance, pull / noise)
            # Where there is no rating, nothing has happened.
            mean = torch.where(here[:, None], mean, belief.mean)
            here = here[:, None, None]
            covariance = torch.where(here, covariance, belief.covariance)
            belief = Posterior(mean, covariance, noise)
        return belief

    def _dynamics(self) -> tuple[Tensor, Tensor]:
        """A and the covariance of e, (D, D) each."""
        covariance = self.model.user_covariance
        root = torch.linalg.cholesky(covariance)
        a = torch.full_like(self.model.user_mean, _retention(self.taste))
        a[-1] = _retention(self.bias)
        # In the units of Sigma's root the two half-lives act on independent parts.
        keep = (root * a) @ root.inverse()
        return keep, covariance - keep @ covariance @ keep.T

    def _moved(self, mean: Tensor, keep: Tensor) -> Tensor:
        """``m + A (mean - m)``, for each row."""
        return self.model.user_mean + (mean - self.model.user_mean) @ keep.T

    def posterior(self, support: Examples) -> Posterior:
        """The belief about w at the last rating of the support; K = 0 the prior.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Posterior
            The posterior of B heads.
        """
        return self.observe(self.start(len(support)), support)

    def score(self, belief: Posterior, x: Tensor) -> Tensor:
        """Scores (B, N) of the next rating: ``offset_i + z_i . (m + A (mean - m))``.

        Parameters
        ----------
        belief
            What is believed of each user, a posterior of B heads.
        x
            Items to score, shape (B, N).

        Returns
        -------
        Tensor
            Scores, shape (B, N).
        """
        mean = self._moved(belief.mean, self._dynamics()[0])
        taste = torch.einsum("bnd,bd->bn", self.model.q[x], mean[:, :-1])
        return (self.model.offset[x] + mean[:, -1:] + taste).float()

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N) of the next rating given the support, in order of time.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.
        x
            Items to score, shape (B, N).

        Returns
        -------
        Tensor
            Scores, in stars, shape (B, N).
        """
        return self.score(self.posterior(support), x)


def _age(mask: Tensor) -> Tensor:
    """How many ratings of the same user are newer, (B, N)."""
    return mask.sum(-1, keepdim=True) - mask.cumsum(-1)


def _retention(half_life: float) -> float:
    """What is left of a deviation after one rating: ``2^(-1 / half-life)``."""
    if not half_life > 0:
        raise ValueError(f"a half-life must be above 0 (or infinite), got {half_life}")
    return 2 ** (-1 / half_life)
