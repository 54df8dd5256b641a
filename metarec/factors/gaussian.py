"""The Gaussian factor model: closed form, no meta-training, the strongest rival."""

import copy
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add
from typing import Any, Self

import torch
from torch import Tensor
from tqdm import tqdm

from metarec.factors import sums
from metarec.factors.biases import UserItemBias, mean_rating
from metarec.factors.sums import RatingSums, SufficientStatistics
from metarec.learners import Posterior, dot
from metarec.models import checked_profile, implicit_shift
from metarec.tasks import SUPPORT_SIZES, Examples, UserHistories, one_thread
from metarec.validation import validation_score

Map = Callable[..., Iterable[SufficientStatistics]]
FLOOR = 1e-11  # of a variance, where ratings leave none and rounding might turn it


class GaussianFactorModel:
    """Matrix factorisation with Gaussian users and items, fitted by variational EM.

    ``r_ui = mu + b_i + b_u + p_u . q_i + e``, ``e ~ N(0, sigma^2)``;
    ``w_u = (p_u, b_u) ~ N(m, Sigma)`` and ``v_i = (q_i, b_i) ~ N(B f_i, Lambda)``,
    ``f_i`` the item's features. Each half-step is a Bayesian linear regression that
    counts the other side's uncertainty:
    ``precision = Sigma^-1 + E[sum z z'] / sigma^2`` for a user, ``z = (q_i, 1)``. All
    of m, Sigma, B, ``Lambda`` and ``sigma`` are learned. A sweep reads the users chunk
    by chunk: all that it keeps of them are sums. Up to some 16 million ratings stay in
    memory, sorted; of more, no chunk does.

    Two departures make it the baseline to beat for new users. The offset of the
    prediction is that of `UserItemBias`: in EM ``b_i`` is the intercept for a user
    whose ``p_u`` is known, while at K = 0 it must be the mean over users. And
    ``temper`` multiplies ``sigma^2`` when a new user is folded in; `choose_temper` sets
    it. `learn_profile` lets what is known of a user beside the ratings say where their
    vector lies, `learn_implicit` adds what *which* items they rated says.

    Parameters
    ----------
    dim
        Length of an item vector.

    Attributes
    ----------
    q
        Item vectors, shape (I, dim).
    offset
        Offsets of the items, shape (I,).
    user_mean
        ``m``, shape (dim + 1,); ``p_u`` is in units in which its covariance is 1.
    user_covariance
        ``Sigma``, shape (dim + 1, dim + 1).
    noise
        ``sigma^2``, a number.

    Source
    ------
    Lim & Teh (2007): mean-field variational EM. The model is that of Salakhutdinov &
    Mnih (2008), who sample; a model with features of items: Stern et al. (2009).

    Built in
    --------
    matrix-factorization

    Examples
    --------
    >>> import torch
    >>> from metarec.data import synthetic_population
    >>> from metarec.factors import GaussianFactorModel
    >>> from metarec.tasks import UserHistories
    >>> data, truth = synthetic_population(n_users=40, n_items=60, seed=0)
    >>> histories = UserHistories(data)
    >>> model = GaussianFactorModel.fit(histories, torch.arange(30), dim=2, sweeps=5)
    >>> tasks = histories.tasks(torch.arange(30, 40), k=5)
    >>> model.predict(tasks.support, tasks.query.x).shape == tasks.query.x.shape
    True
    """

    implicit: Tensor | None = None
    profile: Tensor | None = None

    def __init__(self, dim: int = 8) -> None:
        self.dim = dim
        self.temper = 1.0

    @classmethod
    @one_thread()
    def fit(
        cls,
        histories: UserHistories,
        users: Tensor,
        dim: int = 8,
        features: Tensor | None = None,
        sweeps: int = 30,
        seed: int = 0,
        progress: bool = False,
    ) -> Self:
        """Run ``sweeps`` of EM on the ratings of ``users`` alone.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        dim
            Length of an item vector.
        features
            What is known of each item, shape (I, F); nothing if not given.
        sweeps
            Number of sweeps of EM.
        seed
            Seed of everything that is drawn.
        progress
            Whether to show a progress bar on a terminal.

        Returns
        -------
        GaussianFactorModel
            The fitted object.
        """
        model, bias = cls(dim), UserItemBias.fit(histories, users)
        model._start(bias, mean_rating(histories, users), features, seed)
        tables = sums.rating_sums(histories, users, model.mu.expand(histories.n_items))
        with one_thread() as threads, ThreadPoolExecutor(threads) as pool:
            for _ in tqdm(range(sweeps), "item vectors", disable=not progress):
                # Single precision halves the time, and moves no vector by 1e-5.
                statistics = model._e_step(tables, pool.map, torch.float32)
                model._m_step_users(statistics)
                model._m_step_items(statistics)
                model._m_step_noise(statistics)
        model._whiten()
        # EM's own mean belongs to its b_i; the offset for new users has this one.
        model.user_mean = torch.zeros(dim + 1, dtype=torch.float64)
        model.user_mean[-1] = bias.mean_bias
        return model

    def _start(
        self, bias: UserItemBias, mu: Tensor, features: Tensor | None, seed: int
    ) -> None:
        dim, kind, n_items = self.dim, torch.float64, len(bias.offset)
        self.offset, self.mu = bias.offset.double(), mu
        ones = torch.ones(n_items, 1, dtype=kind)
        self.features = ones if features is None else torch.cat([ones, features], 1)
        generator = torch.Generator().manual_seed(seed)
        q = torch.randn(n_items, dim, generator=generator, dtype=kind)
        # Random vectors break the symmetry, and the biases are known well already.
        self.v = torch.cat([0.3 * q, (self.offset - self.mu)[:, None]], 1)
        self.v_cov = torch.zeros(n_items, dim + 1, dim + 1, dtype=kind)
        self.item_mean = torch.zeros_like(self.v)
        self.user_covariance = torch.tensor([1.0] * dim + [0.2], dtype=kind).diag()
        self.item_covariance = torch.tensor([0.1] * dim + [0.3], dtype=kind).diag()
        self.user_mean = torch.zeros(dim + 1, dtype=kind)
        self.noise = torch.tensor(0.9, dtype=kind)

    @property
    def q(self) -> Tensor:
        """Item vectors (I, dim), posterior means."""
        return self.v[:, :-1]

    def _e_step(
        self, tables: list[Any], each: Map = map, dtype: torch.dtype = torch.float64
    ) -> SufficientStatistics:
        """E-step: the posterior of every w_u, summed up as sufficient statistics.

        ``each`` is ``map``, or that of a pool of threads; moments are summed in
        ``dtype``.
        """
        if not tables:
            raise ValueError("there are no users to learn from: pass some in `users`")
        items = sums.packed_moments(self.v, self.v_cov)
        precision = self.user_covariance.inverse()
        half, pull = sums.packed(precision[None]), precision @ self.user_mean

        def part(read: Callable[[], RatingSums]) -> SufficientStatistics:
            table = read()
            gram, target = sums.evidence(table.of_user, *items, dtype)
            cov = sums.unpacked(half + gram / self.noise).inverse()
            w = dot(cov, target / self.noise + pull)
            return SufficientStatistics.of(table, w, cov, dtype)

        return reduce(add, each(part, tables))

    def _m_step_users(self, statistics: SufficientStatistics) -> None:
        """M-step: the prior that explains the users best."""
        self.user_mean = statistics.mean
        self.user_covariance = _positive(statistics.spread / statistics.n_users)

    def _m_step_items(self, statistics: SufficientStatistics) -> None:
        """Posterior of every v_i, then its prior: ridge regression on the features."""
        precision = self.item_covariance.inverse()
        gram = sums.packed(precision[None]) + statistics.gram / self.noise
        self.v_cov = sums.unpacked(gram).inverse()
        pull = statistics.target / self.noise + self.item_mean @ precision
        self.v = dot(self.v_cov, pull)
        # Items without a rating say nothing about what features mean.
        seen = (statistics.item_count > 0).double()[:, None]
        f = self.features
        # The constant is all but free of the penalty: it is the mean of the items.
        ridge = 10 * torch.eye(f.shape[1], dtype=f.dtype)
        ridge[0, 0] = 1e-5
        effect = torch.linalg.solve((f * seen).T @ f + ridge, (f * seen).T @ self.v)
        self.item_mean = f @ effect
        spread = torch.einsum("in,ide->de", seen, self.v_cov)
        step = seen * (self.v - self.item_mean)
        self.item_covariance = _positive((spread + step.T @ step) / seen.sum())

    def _m_step_noise(self, statistics: SufficientStatistics) -> None:
        """``sigma^2 = E[(r - r_hat)^2]`` over ratings, both sides' uncertainty counted.

        With ``r - r_hat = (r - b_u) - v_i . x`` and ``x = (p_u, 1)``, the square's
        three terms are sums over ratings that are there already.
        """
        gram = sums.unpacked(statistics.gram)
        cross = dot(gram, self.v) - 2 * statistics.target
        error = statistics.rest + (self.v_cov * gram).sum() + (self.v * cross).sum()
        self.noise = (error / statistics.item_count.sum()).clamp(min=FLOOR)

    def _whiten(self) -> None:
        """Change units so that p_u ~ N(0, I); the mean of p_u moves into b_i."""
        dim = self.dim
        change = torch.eye(dim + 1, dtype=torch.float64)
        # p . q is the same in any units of p: these make one prior variance fit all.
        change[:dim, :dim] = torch.linalg.cholesky(self.user_covariance[:dim, :dim])
        back = change.inverse()
        self.user_covariance = back @ self.user_covariance @ back.T
        change[:dim, dim] = self.user_mean[:dim]
        self.v = self.v @ change
        self.item_mean = self.item_mean @ change
        self.v_cov = change.T @ self.v_cov @ change
        self.item_covariance = change.T @ self.item_covariance @ change

    def posterior(self, support: Examples, weight: Tensor | None = None) -> Posterior:
        """Posterior of ``w_u = (p_u, b_u)``, of length dim + 1, given the support.

        ``covariance = (Sigma^-1 + sum_S E[z z'] / s)^-1``, noise
        ``s = temper * sigma^2``, and
        ``mean = covariance (Sigma^-1 m + sum_S z (r - offset_i) / s)``, where the
        shifts of `learn_profile` and `learn_implicit` are added to m. K = 0 gives the
        prior. A ``weight`` (B, N) says how much each rating counts: its noise is
        ``s / weight``.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.
        weight
            How much each rating counts, shape (B, N); its noise is ``s / weight``.

        Returns
        -------
        Posterior
            Mean (B, dim + 1) and covariance (B, dim + 1, dim + 1).

        Raises
        ------
        ValueError
            If a profile was learned and the support has none.
        """
        z, zz, _ = sums.moments(self.v, self.v_cov)
        counts = support.mask.double() if weight is None else support.mask * weight
        noise = self.temper * self.noise
        gram = torch.einsum("bn,bnij->bij", counts, zz[support.x])
        mean, precision = self._prior(support)
        cov = (precision + gram / noise).inverse()
        rest = counts * (support.y.double() - self.offset[support.x])
        target = torch.einsum("bn,bni->bi", rest, z[support.x])
        return Posterior(dot(cov, target / noise + dot(precision, mean)), cov, noise)

    def _prior(self, support: Examples) -> tuple[Tensor, Tensor]:
        """Before any rating: mean of ``w_u`` (B, dim + 1), and its precision.

        The precision is one matrix, or one for each user where a profile narrows it.
        """
        mean = self.user_mean.expand(len(support.mask), -1)
        precision = self.user_covariance.inverse()
        if self.implicit is not None:
            mean = mean + implicit_shift(self.implicit, support.x, support.mask)
        if self.profile is not None:
            x = checked_profile(support.profile, len(self.profile)).double()
            # Who is described has the narrower prior around what the profile predicts.
            narrow, known = self.profile_covariance.inverse(), x.any(-1)[:, None, None]
            mean = mean + x @ self.profile
            precision = torch.where(known, narrow, precision)
        return mean, precision

    def predict(
        self, support: Examples, x: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """Scores (B, N): ``offset_i + z_i . E[w_u | support]``, as `posterior` weighs.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.
        x
            Items to score, shape (B, N).
        weight
            How much each rating of the support counts, shape (B, K).

        Returns
        -------
        Tensor
            Scores, in stars, shape (B, N).
        """
        mean = self.posterior(support, weight).mean
        taste = torch.einsum("bnd,bd->bn", self.q[x], mean[:, :-1])
        return (self.offset[x] + mean[:, -1:] + taste).float()

    @one_thread()
    def learn_profile(
        self, histories: UserHistories, users: Tensor, ridge: float, sweeps: int = 20
    ) -> None:
        """Let the profile say where a user lies: ``w_u ~ N(m + B' x_u, Sigma_x)``.

        ``sweeps`` of EM on all ratings of the training ``users``, item vectors held as
        they are: the posterior of every ``w_u``, then the ridge regression
        ``min_B sum_u |E[w_u] - m - B' x_u|^2 + ridge |B|^2``, and ``Sigma_x`` as the
        mean of ``cov[w_u] + (E[w_u] - m - B' x_u)(...)'``. A profile of zeros stands
        for a user of whom nothing is known, who keeps the prior ``(m, Sigma)``.

        ``profile`` holds B (F, dim + 1), ``profile_covariance`` ``Sigma_x``.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        ridge
            Weight of the squares in the ridge regression.
        sweeps
            Number of sweeps of EM.

        Raises
        ------
        ValueError
            If `learn_implicit` came first: its vectors would count twice what the
            profile explains.

        Source
        ------
        Agarwal & Chen (2009).

        Built in
        --------
        new-items
        """
        if self.implicit is not None:
            raise ValueError("call learn_profile before learn_implicit, not after it")
        own_gram, own_target = self._normal_equations(histories, users)
        x = histories.profile[users].double()
        gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype)
        effect = torch.zeros(x.shape[1], self.dim + 1, dtype=x.dtype)
        spread = self.user_covariance
        for _ in range(sweeps):
            precision = spread.inverse()
            cov = (precision + own_gram / self.noise).inverse()
            mean = self.user_mean + x @ effect
            w = dot(cov, own_target / self.noise + mean @ precision)
            effect = torch.linalg.solve(gram, x.T @ (w - self.user_mean))
            rest = w - self.user_mean - x @ effect
            spread = cov.mean(0) + rest.T @ rest / len(rest)
        self.profile, self.profile_covariance = effect, spread

    def _normal_equations(
        self, histories: UserHistories, users: Tensor
    ) -> tuple[Tensor, Tensor]:
        """sum E[z z'] (U, D, D) and sum z (r - b) (U, D) over each user's ratings."""
        # The offset of the tables has an item's bias in it already.
        q, known = self.v.clone(), self.v_cov.clone()
        q[:, -1], known[:, -1], known[:, :, -1] = 0, 0, 0
        items = sums.packed_moments(q, known)
        tables = sums.rating_sums(histories, users, self.offset)
        each = [sums.evidence(read().of_user, *items) for read in tables]
        gram, target = zip(*each, strict=True)
        return sums.unpacked(torch.cat(gram)), torch.cat(target)

    def choose_profile(
        self, histories: UserHistories, users: Tensor, validation: Tensor
    ) -> None:
        """`learn_profile` with the ridge, of a few, that predicts ``validation`` best.

        The error at K = 0 counts as well: there the profile is all that is known.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        validation
            Indices of the validation users, shape (V,).
        """
        sizes = [k for k in (0, 1, 3, 5, 10) if k <= histories.reserved]

        def error(ridge: float) -> float:
            self.learn_profile(histories, users, ridge)
            return validation_score(self, histories, validation, sizes)

        best = min((3.0, 10.0, 30.0, 100.0, 300.0), key=error)
        self.learn_profile(histories, users, best)

    @one_thread()
    def learn_implicit(
        self, histories: UserHistories, users: Tensor, draws: int = 30, seed: int = 0
    ) -> None:
        """Let the choice of items shift the prior.

        ``m_u = m + K^-1/2 sum_{j in S} y_j``.

        The ``y_j`` (I, dim) are the ridge regression of the training ``users``'
        posterior vectors, from all their ratings, on sets of K of their items: ``min_y
        sum |E[p_u] - K^-1/2 sum_{j in S} y_j|^2 + |y|^2``, the sum averaged over
        ``draws`` of the sets. Half of them are a user's earliest items, half begin
        anywhere in the history.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        draws
            Number of sets of items drawn from each user.
        seed
            Seed of everything that is drawn.

        Source
        ------
        Koren (2008), SVD++.
        """
        # The target must not hold a shift that an earlier call has learned.
        self.implicit = None
        users = histories.usable(users)
        prior, precision = self._prior(histories.everything(users, 1))
        own_gram, own_target = self._normal_equations(histories, users)
        cov = (precision + own_gram / self.noise).inverse()
        w = dot(cov, own_target / self.noise + dot(precision, prior))
        taste = (w - prior)[:, :-1]
        generator = torch.Generator().manual_seed(seed)
        n = histories.n_items
        # Positive definite by the ridge: a system of as many equations as items.
        gram = draws * torch.eye(n, dtype=taste.dtype)
        target = torch.zeros(n, self.dim, dtype=taste.dtype)
        for _ in range(draws):
            chosen = histories.draw_windows(users, SUPPORT_SIZES[1:], generator)
            weight = chosen.mask / chosen.mask.sum(-1, keepdim=True).double().sqrt()
            pairs = chosen.x[:, :, None], chosen.x[:, None, :]
            both = weight[:, :, None] * weight[:, None, :]
            gram.index_put_(pairs, both, accumulate=True)
            each = weight[..., None] * taste[:, None, :]
            target.index_put_((chosen.x,), each, accumulate=True)
        self.implicit = torch.cholesky_solve(target, torch.linalg.cholesky(gram))

    @one_thread()
    def choose_temper(self, histories: UserHistories, users: Tensor) -> None:
        """Set ``temper`` to what predicts best for validation ``users``, of a few.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).
        """

        def error(temper: float) -> float:
            self.temper = temper
            return validation_score(self, histories, users)

        self.temper = min((1.0, 1.5, 2.0, 2.5, 3.0), key=error)

    def item_vectors_without(
        self, histories: UserHistories, users: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Item vectors (I, dim) and offsets (I,) from ``users`` alone, in these units.

        One half-step of EM with the prior as it stands: the users' posteriors, then
        the items'. The other users' ratings stay out.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Indices of users, shape (U,).

        Returns
        -------
        tuple[Tensor, Tensor]
            Item vectors (I, dim) and offsets (I,).
        """
        tables = sums.rating_sums(histories, users, self.mu.expand(histories.n_items))
        # The prior is shared; only the posteriors of this part are made anew.
        part = copy.copy(self)
        part._m_step_items(part._e_step(tables))
        return part.q, UserItemBias.fit(histories, users).offset


def _positive(covariance: Tensor) -> Tensor:
    """A covariance without a variance below ``FLOOR``, where rounding left one."""
    covariance.diagonal().add_(FLOOR)
    value, vector = torch.linalg.eigh(covariance)
    if value.min() >= FLOOR:
        return covariance
    mended: Tensor = vector * value.clamp(min=FLOOR) @ vector.T
    return mended
