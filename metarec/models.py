"""Recommenders: a feature map with a linear head, and the head is what a user owns."""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, embedding, pad

__all__ = ["Bernoulli", "Gaussian", "Likelihood", "Softmax"]
__all__ += ["FeatureAttention", "MLP", "MatrixFactorization", "RatingModel"]
__all__ += ["UserTable", "checked_profile", "implicit_shift", "with_one"]


HIDDEN = 32  # units of the MLP
WIDTH = 8  # of a key in the attention over features


class Likelihood(Protocol):
    """What a score means: how to get a loss and a prediction from it.

    Plumbing
    --------
    A type.
    """

    def loss(self, score: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Sum of ``-log p(target | score)`` over the last axis, up to a constant.

        Parameters
        ----------
        score
            Scores, shape (..., N).
        target
            Ratings or clicks, shape (..., N).
        mask
            True where there is a target, shape (..., N).

        Returns
        -------
        Tensor
            The loss of each task, shape (...,).
        """

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
        """

    def curvature(self, score: Tensor) -> Tensor:
        """Second derivative of ``-log p(target | score)`` with respect to the score.

        Parameters
        ----------
        score
            Scores, shape (..., N).

        Returns
        -------
        Tensor
            The second derivative, of the shape of the scores.
        """


class Gaussian:
    """Ratings: half the sum of squared errors, in units of the noise's variance.

    ``r ~ N(score, sigma^2)``, so ``L = 1/2 sum (r - score)^2 / sigma^2``, up to a
    constant.

    Built in
    --------
    rating-models
    """

    def loss(self, score: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Half the sum of squared errors, shape (...,) from (..., N).

        Parameters
        ----------
        score
            Scores, shape (..., N).
        target
            Ratings or clicks, shape (..., N).
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


class Bernoulli:
    """Clicks: ``y ~ Bernoulli(sigmoid(score))``, and L is the cross-entropy, summed.

    Built in
    --------
    rating-models
    """

    def loss(self, score: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Sum of ``log(1 + e^score) - y * score``, shape (...,) from (..., N).

        Parameters
        ----------
        score
            Scores, shape (..., N).
        target
            Ratings or clicks, shape (..., N).
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


class Softmax:
    """Lists: each like is a draw from the candidates, by a softmax of the scores.

    ``p_i = e^(s_i) / sum_j e^(s_j)``.

    ``L = sum_i y_i (log sum_j e^(s_j) - s_i)``, ``y_i = 1`` for a like (or what it
    counts) and the sum over j over the candidates, which are what the mask leaves.

    Built in
    --------
    leaderboard
    """

    def loss(self, score: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of the likes, summed: shape (...,) from (..., N).

        0 for a task without likes or without candidates.

        Parameters
        ----------
        score
            Scores, shape (..., N).
        target
            Ratings or clicks, shape (..., N).
        mask
            True where there is a target, shape (..., N).

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

    def curvature(self, score: Tensor) -> Tensor:
        """Raise ``ValueError``: items share one sum, so none has its own curvature.

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
        ValueError
            Always: items share one sum, so none has its own curvature.
        """
        raise ValueError(
            "a softmax ties all items together, and has no curvature for each alone: "
            "adapt by GradientDescent, or take a Bernoulli for the Bayesian"
        )


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

    head: nn.Parameter

    def __init__(
        self, factors: Tensor, offset: Tensor, n_items: int | None = None
    ) -> None:
        super().__init__()
        self.item_factors = nn.Parameter(factors.clone())
        self.item_offset = nn.Parameter(offset.clone())
        self.n_items = len(factors) if n_items is None else n_items
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
            table = getattr(self, name)
            # The first copy has seen all training users: new users are served by it.
            kept = nn.Parameter(table[: self.n_items].detach(), table.requires_grad)
            setattr(self, name, kept)

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
        self.implicit = nn.Parameter(y.to(self.item_factors), requires_grad=False)

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

    ``r_hat_i = mu + b_i + b_u + p_u . q_i``. `UserTable` gives each known user a head.

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
        self.head = nn.Parameter(torch.zeros(dim + 1))

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
        model = cls(*factors.shape)
        model.item_factors = nn.Parameter(factors.clone())
        model.item_offset = nn.Parameter(offset.clone())
        model.n_items = len(factors) if n_items is None else n_items
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
        self.head = nn.Parameter(factors.new_zeros(self.dim + 1))
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
        hidden = inputs @ self.first[:split] + self.first_bias
        if self.n_profile:
            profile = checked_profile(profile, self.n_profile)
            hidden = hidden + (profile @ self.first[split:])[..., None, :]
        return with_one(q + hidden.relu() @ self.second)


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
            warnings.warn(
                "no item features: attention has only the item itself to attend to, "
                "and the model equals matrix factorisation",
                stacklevel=3,
            )
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
        query: Tensor = self.query
        if self.n_profile:
            profile = checked_profile(profile, self.n_profile)
            query = query + profile @ self.profile_query
        logits = query @ self.keys.T
        has = self.features_of(items) != 0
        has = torch.cat([has.new_ones(*has.shape[:-1], 1), has], -1)
        # The item itself is always there, so no softmax is over nothing.
        logits = torch.where(has, logits[..., None, :], -torch.inf)
        return logits.softmax(-1)

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
        weight = self.attention(items, profile)
        known = weight[..., 1:] * self.features_of(items)
        own = weight[..., :1] * embedding(items, self.item_factors)
        return with_one(own + known @ self.values)


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
        raise ValueError(
            f"the model was built for {length} user features and got {have}: pass the "
            "profile, zeros for a user of whom nothing is known"
        )
    return profile


class UserTable(nn.Module):
    """A model whose every known user owns a head: the ordinary, warm recommender.

    ``r_hat_ui = offset_i + phi_i . w_u`` with ``w_u`` row u of a table (n_users, dim +
    1). A user who is not in the table has no row, hence no prediction: asking for one
    raises ``IndexError``.

    Parameters
    ----------
    model
        The model that all users share.
    n_users
        Number of users.
    generator
        Source of the random numbers.

    Raises
    ------
    IndexError
        For a user who is not in the table.

    Built in
    --------
    matrix-factorization
    """

    def __init__(
        self,
        model: MatrixFactorization,
        n_users: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        heads = torch.randn(n_users, len(model.head), generator=generator)
        # A bias starts at the mean user; only the vectors must break their symmetry.
        heads[:, -1] = 0
        self.heads = nn.Parameter(0.1 * heads)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Score each pair ``(users[n], items[n])``, shape (N,).

        Parameters
        ----------
        users
            Indices of users, shape (N,).
        items
            Rows of the item table, shape (N,).

        Returns
        -------
        Tensor
            Scores, shape (N,).

        Raises
        ------
        IndexError
            For a user who is not in the table.
        """
        if len(users) and int(users.max()) >= len(self.heads):
            raise IndexError(
                f"user {int(users.max())} has no row among the {len(self.heads)} that "
                "were trained: a new user needs a task-learner, not a table"
            )
        phi = self.model.features(items)
        return self.model.offset(items) + (phi * self.heads[users]).sum(-1)
