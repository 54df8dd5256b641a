"""Interests that drift: ways to forget, and the protocol that judges them.

The chapter on drift builds the same, without the refusals and for users of one length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from metarec.factors import GaussianFactorModel
from metarec.factors.sums import moments
from metarec.learners import Posterior, dot
from metarec.metrics import user_rmse
from metarec.tasks import Examples, UserHistories
from metarec.validation import Predictor


@dataclass(frozen=True)
class Windowed:
    """Believe the ``last`` ratings, and forget all others.

    The posterior of the model given the newest ratings of the support, which stands in
    order of time.
    """

    model: GaussianFactorModel
    last: int

    def __post_init__(self) -> None:
        """Refuse a window without ratings."""
        if self.last < 1:
            raise ValueError(f"a window needs last >= 1 ratings, got {self.last}")

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N), in stars."""
        recent = support.mask & (_age(support.mask) < self.last)
        return self.model.predict(replace(support, mask=recent), x)


@dataclass(frozen=True)
class Decayed:
    """Let a rating count ``2^(-age / h)``: half for each ``half_life`` ratings since.

    ``Precision = Sigma^-1 + sum_S w z z' / s`` and
    ``evidence = sum_S w z (r - offset_i) / s``, ``w = 2^(-age / h)``, the newest rating
    of age 0: each rating's noise variance grows as ``s / w``. An infinite half-life
    gives the posterior of ``model``.
    """

    model: GaussianFactorModel
    half_life: float

    def __post_init__(self) -> None:
        """Refuse a half-life that is none."""
        _retention(self.half_life)

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N), in stars."""
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

    Source
    ------
    Kalman (1960).
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
        """The prior, once for each of ``n`` users."""
        mean, covariance = self.model.user_mean, self.model.user_covariance
        noise = self.model.temper * self.model.noise
        return Posterior(mean.expand(n, -1), covariance.expand(n, -1, -1), noise)

    def observe(self, belief: Posterior, ratings: Examples) -> Posterior:
        """Move and learn, rating by rating; a masked one leaves the belief as it is."""
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
        """The belief about w at the last rating of the support; K = 0 the prior."""
        return self.observe(self.start(len(support)), support)

    def score(self, belief: Posterior, x: Tensor) -> Tensor:
        """Scores (B, N) of the next rating: ``offset_i + z_i . (m + A (mean - m))``."""
        mean = self._moved(belief.mean, self._dynamics()[0])
        taste = torch.einsum("bnd,bd->bn", self.model.q[x], mean[:, :-1])
        return (self.model.offset[x] + mean[:, -1:] + taste).float()

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N) of the next rating given the support, in order of time."""
        return self.score(self.posterior(support), x)


def prequential(
    predictor: Predictor,
    histories: UserHistories,
    users: Tensor,
    block: int = 10,
    first: int = 50,
) -> pd.DataFrame:
    """Predict each ``block`` of a user's ratings from all the ratings before it.

    The first block follows the ``first`` ratings; the support stands in order of time,
    newest last. One row for each user and block: user, block, seen (ratings in the
    support), n (in the block) and rmse (stars, over the block, predictions clipped to
    the scale). `rmse_of_users` makes one number a user of it. Users with no more than
    ``first`` ratings are left out.

    Source
    ------
    Dawid (1984).
    """
    if block < 1 or first < 0:
        raise ValueError(f"need block >= 1 and first >= 0, got {block} and {first}")
    # Longest first: those who still have ratings are always the first rows.
    users = users[histories.count(users).argsort(descending=True, stable=True)]
    users = users[histories.count(users) > first]
    if len(users) == 0:
        raise ValueError(f"no user has more than first = {first} ratings: lower it")
    count = histories.count(users)
    everything = histories.everything(users, int(count[0]))
    belief = None
    if isinstance(predictor, KalmanFilter):
        belief, told = predictor.start(len(users)), 0
    tables = []
    for seen in range(first, int(count[0]), block):
        here = int((count > seen).sum())
        query = _part(everything, here, seen, seen + block)
        with torch.no_grad():
            if isinstance(predictor, KalmanFilter) and belief:
                mean, covariance, noise = belief
                belief = Posterior(mean[:here], covariance[:here], noise)
                # What came since the last block: a belief holds all before.
                news = _part(everything, here, told, seen)
                belief, told = predictor.observe(belief, news), seen
                scores = predictor.score(belief, query.x)
            else:
                support = _part(everything, here, 0, seen)
                scores = predictor.predict(support, query.x)
        scores = scores.clamp(histories.scale.low, histories.scale.high)
        columns = {
            "user": users[:here].numpy(),
            "block": (seen - first) // block,
            "seen": seen,
            "n": query.mask.sum(-1).numpy(),
            "rmse": user_rmse(scores, query.y, query.mask).double().numpy(),
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def rmse_of_users(table: pd.DataFrame) -> pd.Series:
    """RMSE of each user over all their blocks: ``sqrt(sum n RMSE^2 / sum n)``.

    ``table`` is what `prequential` returns, or some of its rows.
    """
    square = (table["n"] * table["rmse"] ** 2).groupby(table["user"]).sum()
    return (square / table.groupby("user")["n"].sum()) ** 0.5


def _part(history: Examples, users: int, start: int, stop: int) -> Examples:
    """The ratings ``start`` to ``stop`` of the first ``users``."""
    columns = history.x, history.y, history.mask
    x, y, mask = (column[:users, start:stop] for column in columns)
    profile = None if history.profile is None else history.profile[:users]
    return Examples(x, y, mask, profile)


def _age(mask: Tensor) -> Tensor:
    """How many ratings of the same user are newer, (B, N)."""
    return mask.sum(-1, keepdim=True) - mask.cumsum(-1)


def _retention(half_life: float) -> float:
    """What is left of a deviation after one rating: ``2^(-1 / half-life)``."""
    if not half_life > 0:
        raise ValueError(f"a half-life must be above 0 (or infinite), got {half_life}")
    return 2 ** (-1 / half_life)
