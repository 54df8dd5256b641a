"""Lists: a user's likes as draws from the catalogue, and what is meta-learned from."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from metarec.learners import GradientDescent, Parameters, likelihood_of
from metarec.meta import MAML
from metarec.models import MatrixFactorization, Softmax, with_one
from metarec.tasks import Examples, Tasks, TaskSampler, UserHistories

__all__ = ["LIKE", "ListMAML", "ListModel", "ListSampler", "list_tasks"]


LIKE = 4
"""The rating from which on an item counts as liked.

Plumbing
--------
A constant.
"""


def list_tasks(
    histories: UserHistories,
    users: Tensor,
    k: int | Tensor,
    weight: Tensor | None = None,
) -> Tasks:
    """Turn ``users`` into tasks over the whole catalogue, one K or each its own.

    Inputs are all items, (B, I). Support: ``y_i = 1`` for a like (a rating of `LIKE` or
    more) among the earliest K ratings, and every item is a candidate. Query: the likes
    after those K share one vote, ``y_i = weight_i / (sum_j weight_j)`` with j over the
    likes (all equal if ``weight`` (I,) is not given); candidates are all items but the
    K. The support's ``rated`` (B, I) is 1 where an item was rated, liked or not.

    Parameters
    ----------
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).
    k
        Support size K, one number or one for each user, shape (U,).
    weight
        What a like of each item counts, shape (I,); all alike if not given.

    Returns
    -------
    Tasks
        The tasks, each over all I items.

    Raises
    ------
    ValueError
        If K is negative.

    Built in
    --------
    leaderboard
    """
    k = torch.as_tensor(k).expand(len(users))
    if len(k) and int(k.min()) < 0:
        raise ValueError(f"K must be 0 or more, got {int(k.min())}")
    position, item, rating = histories.ratings_of(users)
    counts = histories.count(users)
    place = torch.arange(len(item)) - (counts.cumsum(0) - counts)[position]
    seen = place < k[position]
    support, query, rated = torch.zeros(3, len(users), histories.n_items)
    liked = (rating >= LIKE).float()
    support[position[seen], item[seen]] = liked[seen]
    rated[position[seen], item[seen]] = 1.0
    later = liked if weight is None else liked * weight[item]
    query[position[~seen], item[~seen]] = later[~seen]
    # One vote a user, however many likes; none stays none.
    query = query / query.sum(-1, keepdim=True).clamp(min=torch.finfo().tiny)
    x = torch.arange(histories.n_items).expand(len(users), -1)
    everything = torch.ones_like(rated, dtype=torch.bool)
    known = Examples(x, support, everything, rated=rated)
    return Tasks(known, Examples(x, query, rated == 0), users)


@dataclass(frozen=True)
class ListSampler(TaskSampler):
    """One epoch of lists: every user once, in random order, with a random K.

    Parameters
    ----------
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).
    sizes
        Support sizes K to draw from.
    meta_batch
        Number of tasks in a meta-batch.
    item_rows
        Added to a task's item indices, shape (n_users,): a copy of the item table that
        was fitted without the user (see `WarmStart`).
    part
        ``(r, P)``, the r-th of P parts, from 0.
    meta_batch
        Number of tasks in a meta-batch.
    weight
        What a like of each item counts, shape (I,); all alike if not given.

    Plumbing
    --------
    `TaskSampler` for `list_tasks` with their ``weight``.
    """

    meta_batch: int = 64
    weight: Tensor | None = None

    def cut(self, users: Tensor, k: Tensor) -> Tasks:
        """Tasks over the whole catalogue.

        Parameters
        ----------
        users
            Indices of users, shape (U,).
        k
            Support size K.

        Returns
        -------
        Tasks
            The tasks, over all items.
        """
        return list_tasks(self.histories, users, k, self.weight)


class ListModel(MatrixFactorization):
    """Matrix factorisation whose scores make a list: ``p_i = softmax_i(b_i + q_i' w)``.

    Everything is trained, also the vectors ``y_j`` (``implicit``) that say what having
    rated item j, liked or not, tells of the rest. They start at 0, offsets at the
    logarithm of the training users' likes, and item vectors where a dot product is
    about how much oftener than by chance two items meet,
    ``q_i . q_j ~ log (n_ij + a) / (n_i n_j / n + a)``, ``a = 20`` users.

    Parameters
    ----------
    n_items
        Number of items, if the table holds several copies of them.
    dim
        Length of an item vector.

    Source
    ------
    Levy & Goldberg (2014) for the start; Koren (2008) for the shift.

    Built in
    --------
    leaderboard
    """

    implicit: nn.Parameter

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__(n_items, dim)
        self.likelihood = Softmax(like=0.5)  # a list holds zeros and ones
        self.implicit = nn.Parameter(torch.zeros(n_items, dim))

    @classmethod
    def start(cls, histories: UserHistories, users: Tensor, dim: int = 16) -> Self:
        """Set offsets and item vectors from the ratings of ``users`` alone.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Training users, shape (U,).
        dim
            Length of an item vector.

        Returns
        -------
        ListModel
            The belief, a posterior of n heads.
        """
        position, item, rating = histories.ratings_of(users)
        rated, liked = torch.zeros(2, len(users), histories.n_items)
        rated[position, item] = 1.0
        liked[position, item] = (rating >= LIKE).float()
        # How often i was rated by those who like j, against what chance would give.
        both = rated.T @ liked
        by_chance = rated.sum(0)[:, None] * liked.sum(0) / len(users)
        # Twenty users more on both sides: a pair that met once or twice is no evidence.
        lift = ((both + 20) / (by_chance + 20)).log().double()
        value, vector = torch.linalg.eigh((lift + lift.T) / 2)
        root = value[-dim:].clamp(min=0).sqrt()
        model = cls(histories.n_items, dim)
        with torch.no_grad():
            model.item_factors.copy_(vector[:, -dim:] * root)
            model.item_offset.copy_((liked.sum(0) + 0.5).log())
        return model


class ListMAML(MAML):
    """MAML on lists: one step on a user's likes, from a head that their choice shifts.

    ``w = theta_0 + K^-1/2 sum_{rated j} y_j + alpha sum_{liked j} (q_j - sum_i p_i
    q_i)``, p the softmax at the head before the step. The loss of a task is that of its
    query under the softmax over the candidates.

    Parameters
    ----------
    model
        The model.

    Plumbing
    --------
    `MAML` on `list_tasks`, and a `Predictor` on stars.
    """

    model: ListModel

    def __init__(self, model: ListModel) -> None:
        super().__init__(model, GradientDescent(steps=1), ["head"], scale=0.2)

    def mean(self, support: Examples | None = None) -> Parameters:
        """``theta_0`` of each task, shifted by which items were rated.

        Parameters
        ----------
        support
            The support sets, for a mean that depends on them.

        Returns
        -------
        dict[str, Tensor]
            The mean by name, with a leading task axis.
        """
        theta = self._theta_0()
        if support is None or support.rated is None:
            return theta
        rated = support.rated
        shift = rated @ self.model.implicit
        shift = shift * rated.sum(-1, keepdim=True).clamp(min=1).rsqrt()
        return {"head": theta["head"] + nn.functional.pad(shift, (0, 1))}

    def adapt(self, support: Examples) -> Parameters:
        """Each task's own head: the learner's one step, in products with one table.

        All tasks share the items, so no task needs a copy of their features.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        dict[str, Tensor]
            Weights of each task by name, each with a leading task axis.
        """
        model, prior = self.model, self.prior(support)
        phi = with_one(model.item_factors)
        start = prior.mean["head"].expand(len(support), -1)
        # The gradient of the softmax: likes less the likes that were expected.
        p = likelihood_of(model).mean(model.item_offset + start @ phi.T)
        unexpected = support.y - support.y.sum(-1, keepdim=True) * p
        return {"head": start + prior.scale["head"] * unexpected @ phi}

    def scores(self, support: Examples) -> Tensor:
        """Score of every item, (B, I), from lists as in `list_tasks`.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Tensor
            Scores, shape (B, I).
        """
        phi = with_one(self.model.item_factors)
        return self.model.item_offset + self.adapt(support)["head"] @ phi.T

    def loss(self, tasks: Tasks) -> Tensor:
        """The query's loss, averaged over tasks: a list is one observation.

        Parameters
        ----------
        tasks
            Tasks, each with a support and a query.

        Returns
        -------
        Tensor
            A number.
        """
        score, query = self.scores(tasks.support), tasks.query
        return likelihood_of(self.model).loss(score, query.y, query.mask).mean()

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N), from a support of rated items with their stars.

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
        return self.scores(self.as_list(support)).gather(1, x)

    def as_list(self, support: Examples) -> Examples:
        """The same support over the whole catalogue, as in `list_tasks`.

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        tasks.Examples
            The list, shape (B, I).
        """
        n_items = self.model.n_items
        likes = support.mask & (support.y >= LIKE)
        empty = torch.zeros(len(support), n_items)
        # Added, not set: what stands under a false mask may name any item.
        liked = empty.scatter_add(1, support.x, likes.float())
        rated = empty.scatter_add(1, support.x, support.mask.float())
        x = torch.arange(n_items).expand(len(support), -1)
        everything = torch.ones_like(rated, dtype=torch.bool)
        return Examples(x, liked, everything, rated=rated)
