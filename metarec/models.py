"""Recommenders: a feature map with a linear head, and the head is what a user owns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, embedding, pad

from metarec.tasks import Examples

__all__ = ["Bernoulli", "Gaussian", "Likelihood", "Reading", "Softmax"]
__all__ += ["FeatureAttention", "MLP", "MatrixFactorization", "RatingModel"]
__all__ += ["checked_profile", "implicit_shift", "with_one"]


HIDDEN = 32  # units of the MLP
WIDTH = 8  # of a key in the attention over features


class Reading(NamedTuple):
    """What ratings say under a likelihood: targets, and what stands beside them.

    Parameters
    ----------
    x
        Items, shape (B, N), or (N,) where they are the same for all tasks.
    y
        Targets, shape (B, N).
    mask
        True where there is a target, or a candidate, shape (B, N).
    total
        What the loss of each task is divided by to be a mean, shape (B,).

    Plumbing
    --------
    What a `Likelihood` makes of ratings.
    """

    x: Tensor
    y: Tensor
    mask: Tensor
    total: Tensor


class Likelihood:
    """What a score means: what ratings say of it, its loss and its prediction.

    What is not said here for all holds where every rating has a target of its own.

    Plumbing
    --------
    The base of the three likelihoods.
    """

    steepest: float | None = None  # the most that the loss bends with a score, if known

    def loss(self, score: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Sum of ``-log p(target | score)`` over the last axis, up to a constant.

        Parameters
        ----------
        score
            Scores, shape (..., N).
        target
            What `read` makes of the ratings, shape (..., N).
        mask
            True where there is a target, shape (..., N).

        Returns
        -------
        Tensor
            The loss of each task, shape (...,).

        Raises
        ------
        NotImplementedError
            Always: each likelihood has its own.
        """
        raise NotImplementedError

    def mean(self, score: Tensor) -> Tensor:
        """The expected target at a score.

        Parameters
        ----------
        score
            Scores, shape (..., N).

        Returns
        -------
        Tensor
            The expected target, of the shape of the scores.

        Raises
        ------
        NotImplementedError
            Always: each likelihood has its own.
        """
        raise NotImplementedError

    def curvature(self, score: Tensor) -> Tensor:
        """Second derivative of the loss with respect to each score.

        Parameters
        ----------
        score
            Scores, shape (..., N).

        Returns
        -------
        Tensor
            The second derivative, of the shape of the scores.

        Raises
        ------
        NotImplementedError
            Where the scores share one sum, or the likelihood has not said.
        """
        raise NotImplementedError

    def target(self, y: Tensor) -> Tensor:
        """What a rating says: itself, if nothing else is said.

        Parameters
        ----------
        y
            Ratings, shape (..., N).

        Returns
        -------
        Tensor
            Targets, of the shape of the ratings.
        """
        return y

    def read(
        self, ratings: Examples, n_items: int, seen: Examples | None = None
    ) -> Reading:
        """What ratings, as they were given, say about the scores.

        Parameters
        ----------
        ratings
            Ratings, in stars, of B users or tasks.
        n_items
            Number of items.
        seen
            Where the ratings are a query, the support before it.

        Returns
        -------
        Reading
            Items, targets, mask and total.
        """
        total = ratings.mask.sum(-1).clamp(min=1)
        return Reading(ratings.x, self.target(ratings.y), ratings.mask, total)

    def slope(self, score: Tensor, target: Tensor) -> Tensor:
        """First derivative of ``log p(target | score)``: observed less expected.

        Parameters
        ----------
        score
            Scores, shape (B, N).
        target
            Targets, shape (B, N).

        Returns
        -------
        Tensor
            The derivative, shape (B, N).
        """
        return target - self.mean(score)

    def hessian(self, phi: Tensor, score: Tensor, target: Tensor) -> Tensor:
        """``Phi' diag(curvature) Phi``: how the loss bends with a head.

        Parameters
        ----------
        phi
            Features, shape (B, N, D) or (N, D), zero where there is no target.
        score
            Scores, shape (B, N).
        target
            Targets, shape (B, N).

        Returns
        -------
        Tensor
            The second derivative, shape (B, D, D).
        """
        return weighted_gram(phi, self.curvature(score))


class Gaussian(Likelihood):
    """Stars: half the sum of squared errors, in units of the noise's variance.

    ``r ~ N(score, sigma^2)``, so ``L = 1/2 sum (r - score)^2 / sigma^2``, up to a
    constant.

    Built in
    --------
    rating-models
    """

    steepest = 1.0

    def loss(self, score: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Half the sum of squared errors, shape (...,) from (..., N).

        Parameters
        ----------
        score
            Scores, shape (..., N).
        target
            Ratings, shape (..., N).
        mask
            True where there is a target, shape (..., N).

        Returns
        -------
        Tensor
            The loss of each task, shape (...,).
        """
        error = torch.where(mask, score - target, 0.0)
        return 0.5 * (error * error).sum(-1)

    def mean(self, score: Tensor) -> Tensor:
        """The score itself, in stars.

        Parameters
        ----------
        score
            Scores, shape (..., N).

        Returns
        -------
        Tensor
            The expected target, of the shape of the scores.
        """
        return score

    def curvature(self, score: Tensor) -> Tensor:
        """The same everywhere: 1, since the loss is a parabola.

        Parameters
        ----------
        score
            Scores, shape (..., N).

        Returns
        -------
        Tensor
            The second derivative, of the shape of the scores.
        """
        return torch.ones_like(score)


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Clicks: ``y ~ Bernoulli(sigmoid(score))``, and L is the cross-entropy, summed.

    ``y = 1`` for a rating of ``like`` or more, else 0.

    Parameters
    ----------
    like
        The rating from which on an item is liked.

    Built in
    --------
    rating-models
    """

    like: float = 0.5
    steepest = 0.25

    def target(self, y: Tensor) -> Tensor:
        """1 for a like, 0 for none.

        Parameters
        ----------
        y
            Ratings, shape (..., N).

        Returns
        -------
        Tensor
            Zeros and ones, of the shape of the ratings.
        """
        return (y >= self.like).to(y)

    def loss(self, score: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Sum of ``log(1 + e^score) - y * score``, shape (...,) from (..., N).

        Parameters
        ----------
        score
            Scores, shape (..., N).
        target
            Clicks, 0 or 1, shape (..., N).
        mask
            True where there is a target, shape (..., N).

        Returns
        -------
        Tensor
            The loss of each task, shape (...,).
        """
        target = torch.where(mask, target, 0.0)
        each = binary_cross_entropy_with_logits(score, target, reduction="none")
        return torch.where(mask, each, 0.0).sum(-1)

    def mean(self, score: Tensor) -> Tensor:
        """The probability of a click.

        Parameters
        ----------
        score
            Scores, shape (..., N).

        Returns
        -------
        Tensor
            The expected target, of the shape of the scores.
        """
        return score.sigmoid()

    def curvature(self, score: Tensor) -> Tensor:
        """The variance of a click, ``p (1 - p)``, with p its probability.

        Parameters
        ----------
        score
            Scores, shape (..., N).

        Returns
        -------
        Tensor
            The second derivative, of the shape of the scores.
        """
        p = score.sigmoid()
        return p * (1 - p)


@dataclass(frozen=True)
class Softmax(Likelihood):
    """Lists: each like is a draw from the candidates, by a softmax of the scores.

    ``p_i = e^(s_i) / sum_j e^(s_j)``.

    ``L = sum_i y_i (log sum_j e^(s_j) - s_i)``, ``y_i = 1`` for a like (or what it
    counts) and the sum over j over the candidates, which are what the mask leaves.

    Parameters
    ----------
    like
        The rating from which on an item is liked.
    weight
        What a like of each item counts in a query, shape (n_items,); all alike if not
        given.

    Built in
    --------
    lists
    """

    like: float = 4.0
    weight: Tensor | None = None

    def read(
        self, ratings: Examples, n_items: int, seen: Examples | None = None
    ) -> Reading:
        """The whole catalogue: ``y_i = 1`` for a like, and what else was a candidate.

        Of a support all items are candidates. Of a query, which has ``seen`` before
        it, all but those are, and a like counts its ``weight``.

        Parameters
        ----------
        ratings
            Ratings, in stars, of B users or tasks.
        n_items
            Number of items.
        seen
            Where the ratings are a query, the support before it.

        Returns
        -------
        Reading
            All items (n_items,), likes and candidates (B, n_items), sums of likes (B,).
        """
        liked = (ratings.y >= self.like).to(ratings.y)
        if seen is not None and self.weight is not None:
            liked = liked * self.weight.to(liked)[ratings.x % n_items]
        y = ratings.table(liked, n_items)
        mask = torch.ones_like(y, dtype=torch.bool)
        if seen is not None:
            mask = seen.table(torch.ones_like(seen.y), n_items) == 0
        x = torch.arange(n_items, device=y.device)
        return Reading(x, y, mask, y.sum(-1).clamp(min=torch.finfo(y.dtype).tiny))

    def loss(self, score: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of the likes, summed: shape (...,) from (..., N).

        0 for a task without likes or without candidates.

        Parameters
        ----------
        score
            Scores, shape (..., N).
        target
            Likes, or what they count, shape (..., N).
        mask
            True where there is a candidate, shape (..., N).

        Returns
        -------
        Tensor
            The loss of each task, shape (...,).
        """
        # A finite floor: an empty task at -inf would have a gradient of nan.
        score = torch.where(mask, score, torch.finfo(score.dtype).min)
        each = target * score.log_softmax(-1)
        return -torch.where(mask, each, 0.0).sum(-1)

    def mean(self, score: Tensor) -> Tensor:
        """The probability of each item among those scored: they sum to 1.

        Parameters
        ----------
        score
            Scores, shape (..., N).

        Returns
        -------
        Tensor
            The expected target, of the shape of the scores.
        """
        return score.softmax(-1)

    def slope(self, score: Tensor, target: Tensor) -> Tensor:
        """``y - n p``: likes less the likes that were expected, of n in all.

        Parameters
        ----------
        score
            Scores of all items, shape (B, N).
        target
            Likes, shape (B, N).

        Returns
        -------
        Tensor
            The derivative, shape (B, N).
        """
        return target - target.sum(-1, keepdim=True) * self.mean(score)

    def hessian(self, phi: Tensor, score: Tensor, target: Tensor) -> Tensor:
        """``Phi' (n diag(p) - n p p') Phi``: all items share one sum.

        Parameters
        ----------
        phi
            Features of all items, shape (B, N, D) or (N, D).
        score
            Scores of all items, shape (B, N).
        target
            Likes, shape (B, N).

        Returns
        -------
        Tensor
            The second derivative, shape (B, D, D).
        """
        p = self.mean(score)
        mean = weighted_sum(phi, p)
        spread = weighted_gram(phi, p) - mean[:, :, None] * mean[:, None]
        return target.sum(-1)[:, None, None] * spread


def weighted_sum(phi: Tensor, weight: Tensor) -> Tensor:
    """``Phi' weight`` of each task, shape (B, D).

    Parameters
    ----------
    phi
        Features, shape (B, N, D), or (N, D) where all tasks share them.
    weight
        Weights of the rows, shape (B, N).

    Returns
    -------
    Tensor
        The sums, shape (B, D).

    Plumbing
    --------
    Shared by the likelihoods and the task-learners.
    """
    if phi.dim() == 2:
        return weight @ phi
    return torch.bmm(weight[:, None], phi)[:, 0]


def weighted_gram(phi: Tensor, weight: Tensor) -> Tensor:
    """``Phi' diag(weight) Phi`` of each task, shape (B, D, D).

    Parameters
    ----------
    phi
        Features, shape (B, N, D), or (N, D) where all tasks share them.
    weight
        Weights of the rows, shape (B, N).

    Returns
    -------
    Tensor
        The products, shape (B, D, D).

    Plumbing
    --------
    Shared by the likelihoods and the task-learners.
    """
    if phi.dim() == 3 or len(weight) == 1:
        return (weight[..., None] * phi).mT @ phi
    # One product for all tasks: no task needs a copy of the table.
    outer = phi[:, :, None] * phi[:, None]
    return weight.matmul(outer.flatten(1)).view(-1, *outer.shape[1:])


class RatingModel(nn.Module):
    """What all recommenders of the course share: a feature map with a linear head.

    ``score = offset_i + phi(i, user) . w``.

    The item side (vectors ``q_i``, offsets ``mu + b_i``) and whatever makes ``phi`` are
    shared by all users; the head w is a user's own. As a module a model holds the head
    of *one* user, which meta-learners read as ``theta_0``.

    The item table may hold several copies of its ``n_items`` rows (see `WarmStart`);
    item i of copy c is row ``i + c * n_items``.

    Parameters
    ----------
    factors
        Item vectors, shape (rows, dim).
    offset
        Offsets of the items, shape (rows,).
    n_items
        Number of items, if the table holds several copies of them.

    Shapes
    ------
    items (..., N), profile (..., F) of the user (what is known beside the ratings),
    features (..., N, D), head (D,), scores (..., N).

    Built in
    --------
    rating-models
    """

    def __init__(
        self, factors: Tensor, offset: Tensor, n_items: int | None = None
    ) -> None:
        super().__init__()
        self.item_factors = nn.Parameter(factors.clone())
        self.item_offset = nn.Parameter(offset.clone())
        self.n_items = len(factors) if n_items is None else n_items
        self.head = nn.Parameter(factors.new_zeros(self.dim + 1))
        self.likelihood: Likelihood = Gaussian()
        self.implicit: nn.Parameter | None = None

    @property
    def dim(self) -> int:
        """Length of an item vector."""
        return self.item_factors.shape[1]

    def freeze_items(self) -> None:
        """Keep item vectors and offsets as they are in whatever training follows."""
        self.item_factors.requires_grad_(False)
        self.item_offset.requires_grad_(False)

    def keep_first_copy(self) -> None:
        """Drop all copies of the item table but the first, the one for new users."""
        for name in ("item_factors", "item_offset"):
            table = self.get_parameter(name)
            # The first copy has seen all training users: new users are served by it.
            first = table.detach()[: self.n_items].clone()
            setattr(self, name, nn.Parameter(first, table.requires_grad))

    def offset(self, items: Tensor) -> Tensor:
        """``mu + b_i``: the part of the score that no user changes.

        Parameters
        ----------
        items
            Rows of the item table, shape (..., N).

        Returns
        -------
        Tensor
            Offsets, of the shape of the items.
        """
        return self.item_offset[items]

    def features(self, items: Tensor, profile: Tensor | None = None) -> Tensor:
        """``phi(i, user)``, the last one of it a constant 1 for the user's bias.

        Parameters
        ----------
        items
            Rows of the item table, shape (..., N).
        profile
            What is known of each user beside the ratings, shape (B, F).

        Returns
        -------
        Tensor
            Features, shape (..., N, D).

        Raises
        ------
        NotImplementedError
            Always: each model has its own.
        """
        raise NotImplementedError

    def use_implicit(self, y: Tensor) -> None:
        """Let the choice of items shift the head, by vectors that are held fixed.

        *Which* K items a user rated then counts beside how they rated them:
        ``p_u + K^-1/2 sum_{j in S} y_j``, nothing at K = 0. The vectors come from
        `GaussianFactorModel.learn_implicit`; trained along, they overfit.

        Parameters
        ----------
        y
            What having rated an item says of the rest, shape (I, dim).

        Source
        ------
        Koren (2008), SVD++.
        """
        # A copy: lists train them in place.
        self.implicit = nn.Parameter(y.to(self.item_factors, copy=True), False)

    def shift(self, items: Tensor, mask: Tensor) -> Tensor | None:
        """``[K^-1/2 sum_{j in S} y_j, 0]``, shape (B, dim + 1), if the model has y.

        Parameters
        ----------
        items
            Rated items, shape (B, N).
        mask
            True where there is an example, shape (B, N).

        Returns
        -------
        Tensor | None
            The shift, shape (B, dim + 1), or None.
        """
        if self.implicit is None:
            return None
        return implicit_shift(self.implicit, items % self.n_items, mask)

    def shrunk(self) -> list[Tensor]:
        """The shared parameters that training draws to 0: few tasks overfit them.

        Returns
        -------
        list[Tensor]
            The parameters.
        """
        return []

    def forward(self, items: Tensor, profile: Tensor | None = None) -> Tensor:
        """Score ``items`` with this module's own head.

        Parameters
        ----------
        items
            Rows of the item table, shape (..., N).
        profile
            What is known of each user beside the ratings, shape (B, F).

        Returns
        -------
        Tensor
            Scores, shape (..., N).
        """
        return self.offset(items) + self.features(items, profile) @ self.head


class MatrixFactorization(RatingModel):
    """One user's matrix factorisation: ``phi_i = [q_i, 1]`` and ``w = [p_u, b_u]``.

    ``r_hat_i = mu + b_i + b_u + p_u . q_i``.

    Parameters
    ----------
    n_items
        Number of items, if the table holds several copies of them.
    dim
        Length of an item vector.
    generator
        Source of the random numbers.

    Source
    ------
    Koren, Bell & Volinsky (2009).

    Built in
    --------
    matrix-factorization
    """

    def __init__(
        self, n_items: int, dim: int, generator: torch.Generator | None = None
    ) -> None:
        noise = torch.randn(n_items, dim, generator=generator)
        super().__init__(0.1 * noise, torch.zeros(n_items))

    @classmethod
    def from_items(
        cls, factors: Tensor, offset: Tensor, n_items: int | None = None
    ) -> MatrixFactorization:
        """Start from item vectors (I, dim) and offsets (I,) that stay as they are.

        Parameters
        ----------
        factors
            Item vectors, shape (rows, dim).
        offset
            Offsets of the items, shape (rows,).
        n_items
            Number of items, if the table holds several copies of them.

        Returns
        -------
        MatrixFactorization
            The model.
        """
        model = cls.__new__(cls)
        RatingModel.__init__(model, factors, offset, n_items)
        model.freeze_items()
        return model

    def features(self, items: Tensor, profile: Tensor | None = None) -> Tensor:
        """The item vector and a constant: ``phi_i = [q_i, 1]``, for every user.

        Parameters
        ----------
        items
            Rows of the item table, shape (..., N).
        profile
            What is known of each user beside the ratings, shape (B, F).

        Returns
        -------
        Tensor
            Features, shape (..., N, D).
        """
        return with_one(embedding(items, self.item_factors))


class FeatureModel(RatingModel):
    """A model that looks at features of items and users, on item vectors held fixed.

    ``f_i`` (n_items, F) are the item's features, ``x_u`` (n_profile,) the user's; the
    head starts at 0.

    Parameters
    ----------
    factors
        Item vectors, shape (rows, dim).
    offset
        Offsets of the items, shape (rows,).
    item_features
        What is known of each item, shape (n_items, F).
    n_profile
        Number of user features.
    generator
        Source of the random numbers.

    Plumbing
    --------
    What `MLP` and `FeatureAttention` share.
    """

    item_features: Tensor

    def __init__(
        self,
        factors: Tensor,
        offset: Tensor,
        item_features: Tensor,
        n_profile: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(factors, offset, len(item_features))
        self.freeze_items()
        self.register_buffer("item_features", item_features.to(factors))
        self.n_profile = n_profile
        self.start(generator)

    def start(self, generator: torch.Generator | None) -> None:
        """Make what maps the features, where training starts.

        Parameters
        ----------
        generator
            Source of the random numbers.
        """
        raise NotImplementedError

    def features_of(self, items: Tensor) -> Tensor:
        """``f_i``, also of an item's further copies: (..., N, F).

        Parameters
        ----------
        items
            Rows of the item table, shape (..., N).
        """
        return embedding(items % self.n_items, self.item_features)


class MLP(FeatureModel):
    """A network on what is known of item and user.

    ``phi = [q_i + g(q_i, f_i, x_u), 1]``.

    g has one hidden layer of 32 ReLU units and starts at 0, so that the model starts as
    matrix factorisation and learns what that leaves. ``f_i`` (n_items, F) are the
    item's features, ``x_u`` (n_profile,) the user's. Without either the network still
    bends the item vector; without ``x_u`` it gives everybody the same features.

    Parameters
    ----------
    factors
        Item vectors, shape (rows, dim).
    offset
        Offsets of the items, shape (rows,).
    item_features
        What is known of each item, shape (n_items, F).
    n_profile
        Number of user features.
    generator
        Source of the random numbers.

    Raises
    ------
    ValueError
        If ``x_u`` is missing or has another length.

    Source
    ------
    Covington, Adams & Sargin (2016) for the features; He et al. (2016), skip.

    Built in
    --------
    rating-models
    """

    def start(self, generator: torch.Generator | None) -> None:
        """Draw the first layer; the second starts at 0.

        Parameters
        ----------
        generator
            Source of the random numbers.
        """
        n_inputs = self.dim + self.item_features.shape[1] + self.n_profile
        first = n_inputs**-0.5 * torch.randn(n_inputs, HIDDEN, generator=generator)
        self.first = nn.Parameter(first.to(self.head))
        self.first_bias = nn.Parameter(self.head.new_zeros(HIDDEN))
        # At 0, so that training starts where matrix factorisation stands.
        self.second = nn.Parameter(self.head.new_zeros(HIDDEN, self.dim))

    def shrunk(self) -> list[Tensor]:
        """The two layers ``W_1`` and ``W_2``, which training draws to 0.

        Returns
        -------
        list[Tensor]
            The parameters.
        """
        return [self.first, self.second]

    def features(self, items: Tensor, profile: Tensor | None = None) -> Tensor:
        """``phi = [q_i + relu([q_i, f_i, x_u] W_1 + b_1) W_2, 1]``.

        Parameters
        ----------
        items
            Rows of the item table, shape (..., N).
        profile
            What is known of each user beside the ratings, shape (B, F).

        Returns
        -------
        Tensor
            Features, shape (..., N, D).
        """
        q = embedding(items, self.item_factors)
        split = self.dim + self.item_features.shape[1]
        inputs = torch.cat([q, self.features_of(items)], -1)
        # The user's part is the same for all items: added once, not copied to each.
        shift: Tensor = self.first_bias
        if self.n_profile:
            profile = checked_profile(profile, self.n_profile)
            shift = (shift + profile @ self.first[split:])[..., None, :]
        # In place: what takes time is memory, of each user's features of all items.
        hidden = (inputs @ self.first[:split] + shift).relu_()
        return (hidden @ pad(self.second, (0, 1))).add_(with_one(q))


class FeatureAttention(FeatureModel):
    """A user attends over what an item is: its own vector, its genres, its year.

    ``a_if = softmax_f(k_f . (Q x_u + v))`` over the features that item i has, and
    ``phi = [sum_f a_if z_if, 1]``: ``z_if`` is ``q_i`` for the item itself and
    ``f_i E_f`` for feature f. Keys k, values E, Q and v (``query``, a second fast
    weight under gradient descent) are learned. E starts at the ridge regression of q on
    the features, v where the item itself gets most of the attention.

    Without item features there is nothing to attend to but the item: a warning says so,
    and the model is matrix factorisation.

    Parameters
    ----------
    factors
        Item vectors, shape (rows, dim).
    offset
        Offsets of the items, shape (rows,).
    item_features
        What is known of each item, shape (n_items, F).
    n_profile
        Number of user features.
    generator
        Source of the random numbers.

    Raises
    ------
    ValueError
        If ``x_u`` is missing or has another length.

    Source
    ------
    Bahdanau, Cho & Bengio (2015); Chen et al. (2017), item-level attention.

    Built in
    --------
    rating-models
    """

    def start(self, generator: torch.Generator | None) -> None:
        """Draw the keys; values start where features explain the item vectors best.

        Parameters
        ----------
        generator
            Source of the random numbers.
        """
        f, n_features = self.item_features, self.item_features.shape[1]
        if not n_features:
            text = "no item features: all attention goes to the item itself, and the "
            warnings.warn(f"{text}model equals matrix factorisation", stacklevel=3)
        ridge = f.T @ f + 10 * torch.eye(n_features).to(f)
        q = self.item_factors[: self.n_items].detach()
        self.values = nn.Parameter(torch.linalg.solve(ridge, f.T @ q))
        keys = 0.3 * torch.randn(n_features + 1, WIDTH, generator=generator)
        keys[0, 0] = 3.0  # with the query below, most attention goes to the item
        self.keys = nn.Parameter(keys.to(f))
        self.query = nn.Parameter(torch.eye(WIDTH)[0].to(f))
        self.profile_query = nn.Parameter(f.new_zeros(self.n_profile, WIDTH))

    def shrunk(self) -> list[Tensor]:
        """The map Q from user features to a query, which training draws to 0.

        Returns
        -------
        list[Tensor]
            The parameters.
        """
        return [self.profile_query]

    def attention(self, items: Tensor, profile: Tensor | None = None) -> Tensor:
        """The weights, shape (..., N, F + 1): the item itself first, then its features.

        They sum to 1, and are 0 for a feature that the item does not have.

        Parameters
        ----------
        items
            Rows of the item table, shape (..., N).
        profile
            What is known of each user beside the ratings, shape (B, F).

        Returns
        -------
        Tensor
            Weights, shape (..., N, F + 1).
        """
        has = pad((self.features_of(items) != 0).to(self.query), (1, 0), value=1.0)
        part = has * self.weights(profile)[..., None, :]
        return part / part.sum(-1, keepdim=True)

    def weights(self, profile: Tensor | None) -> Tensor:
        """The softmax's numerators, which are the same for all items, (..., F + 1).

        Parameters
        ----------
        profile
            What is known of each user beside the ratings, shape (B, F).

        Returns
        -------
        Tensor
            ``exp(k_f . (Q x_u + v))`` but for a factor, the item itself first.
        """
        query: Tensor = self.query
        if self.n_profile:
            profile = checked_profile(profile, self.n_profile)
            query = query + profile @ self.profile_query
        logits = query @ self.keys.T
        # The largest is 1, and none so small that an item's sum might be 0.
        return (logits - logits.amax(-1, keepdim=True)).clamp(min=-80).exp()

    def features(self, items: Tensor, profile: Tensor | None = None) -> Tensor:
        """``phi = [a_i0 q_i + sum_f a_if f_i E_f, 1]``.

        Parameters
        ----------
        items
            Rows of the item table, shape (..., N).
        profile
            What is known of each user beside the ratings, shape (B, F).

        Returns
        -------
        Tensor
            Features, shape (..., N, D).
        """
        weight, known = self.weights(profile), self.features_of(items)
        # Sums over features are products, without a table of weights for each user.
        own, rest = weight[..., None, :1], weight[..., 1:, None]
        total = own + known.sign().abs_() @ rest
        q = embedding(items, self.item_factors)
        both = torch.addcmul(known @ (rest * self.values), own, q)
        return with_one(both * total.reciprocal())


def with_one(features: Tensor) -> Tensor:
    """Append the constant 1 that carries the user's bias.

    Parameters
    ----------
    features
        Features, shape (..., D).

    Returns
    -------
    Tensor
        Features with a last column of ones, shape (..., D + 1).

    Plumbing
    --------
    Shared by the feature maps.
    """
    return pad(features, (0, 1), value=1.0)


def implicit_shift(y: Tensor, items: Tensor, mask: Tensor) -> Tensor:
    """What a choice of items says, shape (B, dim + 1).

    ``[K^-1/2 sum_{j in S} y_j, 0]``.

    Parameters
    ----------
    y
        What having rated an item says of the rest, shape (I, dim).
    items
        Rated items, shape (B, N).
    mask
        True where there is an example, shape (B, N).

    Returns
    -------
    Tensor
        The shift, shape (B, dim + 1).

    Plumbing
    --------
    Shared by the recommenders and the Gaussian factor model.
    """
    total = torch.where(mask[..., None], y[items], 0.0).sum(-2)
    # K^-1/2, not 1 / K: more ratings say more, though each says less.
    total = total * mask.sum(-1, keepdim=True).clamp(min=1).to(total).rsqrt()
    return torch.cat([total, torch.zeros_like(total[..., :1])], -1)


def checked_profile(profile: Tensor | None, length: int) -> Tensor:
    """Return the profile, refusing one that is missing or of another length.

    Parameters
    ----------
    profile
        User features, shape (..., F), or None.
    length
        The number F of features that the model takes.

    Returns
    -------
    Tensor
        The profile, shape (..., F).

    Raises
    ------
    ValueError
        If the profile is missing or has another length.

    Plumbing
    --------
    Shared by the feature maps.
    """
    if profile is None or profile.shape[-1] != length:
        have = "none" if profile is None else f"{profile.shape[-1]}"
        text = f"the model was built for {length} user features and got {have}: "
        raise ValueError(f"{text}pass zeros for a user of whom nothing is known")
    return profile


def likelihood_of(model: nn.Module) -> Likelihood:
    """The model's likelihood, Gaussian for a module that names none.

    Parameters
    ----------
    model
        The model whose parameters are adapted.

    Returns
    -------
    Likelihood
        The likelihood.

    Plumbing
    --------
    Shared by the task-learners.
    """
    return getattr(model, "likelihood", Gaussian())


def answer(model: nn.Module, score: Tensor) -> Tensor:
    """What a score predicts: stars, the probability of a click, or the score of a list.

    Parameters
    ----------
    model
        The model that made the score.
    score
        Scores, shape (B, N).

    Returns
    -------
    Tensor
        Predictions, of the shape of the scores.

    Plumbing
    --------
    Shared by whoever serves predictions.
    """
    likelihood = likelihood_of(model)
    # A probability among the items that happen to be scored would compare with nothing.
    return score if isinstance(likelihood, Softmax) else likelihood.mean(score)
