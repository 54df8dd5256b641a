"""Users as tasks: who is trained on, what is support, what is query.

The module turns a table of ratings into padded, masked batches with a leading task
axis. It is the only door by which ratings reach a model: whoever trains on ``train``
users asks for those users by name, and nothing of the others comes along.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Self

import numpy as np
import torch
from torch import Tensor

from metarec.data import RatingColumns, RatingData, RatingScale
from metarec.features import UserFeatures

__all__ = ["ORDERS", "SUPPORT_SIZES", "Examples", "LeakageError", "Tasks"]
__all__ += ["TaskSampler", "UserHistories", "UserSplit", "split_users"]

SUPPORT_SIZES = (0, 1, 2, 3, 5, 10, 15)
"""The sizes K of the support set at which the course judges a recommender.

Plumbing
--------
A constant.
"""

ORDERS = ("time", "time, ties shuffled", "random")
"""The orders in which a user's ratings can stand.

Plumbing
--------
A constant.
"""


CHUNK = 2**20  # ratings in memory at once where all are read
_THREADS = ContextVar("_THREADS", default=0)  # those of whoever called `one_thread`


@contextmanager
def one_thread() -> Iterator[int]:
    """Let operations of PyTorch have one thread; what was set before comes back.

    Tasks are small. Threads that share one small operation wait for each other longer
    than they work, and for milliseconds where the machine has other things to do.

    Yields
    ------
    int
        The number of threads that was set outside, for work that is cut into larger
        parts.

    Plumbing
    --------
    Around whatever is fitted.
    """
    before = torch.get_num_threads()
    token = _THREADS.set(_THREADS.get() or before)
    torch.set_num_threads(1)
    try:
        yield _THREADS.get()
    finally:
        torch.set_num_threads(before)
        _THREADS.reset(token)


class LeakageError(AssertionError):
    """Something of the test users got into what was learned or decided.

    Plumbing
    --------
    Raised by the guards of `metarec.evaluation`.
    """


@dataclass(frozen=True)
class Examples:
    """Inputs and targets of ``B`` tasks, padded to ``N`` examples each.

    Parameters
    ----------
    x
        Item indices, shape (B, N), or features, shape (B, N, F).
    y
        Targets, shape (B, N).
    mask
        True where there is an example, shape (B, N).
    profile
        What is known of each task's user beside the ratings, shape (B, F).
    user
        Who each task is, shape (B,); set in meta-training alone, so that attention
        between tasks can leave the task itself out.

    Raises
    ------
    ValueError
        If shapes would broadcast into a wrong answer.

    Shapes
    ------
    ``x`` (B, N) item indices or (B, N, F) features, ``y`` (B, N) targets, ``mask`` (B,
    N), true where an example exists. What stands under a false mask must not matter,
    NaN included: losses select by the mask.

    Built in
    --------
    tasks
    """

    x: Tensor
    y: Tensor
    mask: Tensor
    profile: Tensor | None = None
    user: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse shapes that would broadcast into a wrong answer."""
        if self.y.shape != self.mask.shape or self.x.shape[:2] != self.y.shape:
            shapes = [tuple(each.shape) for each in (self.x, self.y, self.mask)]
            raise ValueError(f"x, y and mask must agree, but have shapes {shapes}")

    def __len__(self) -> int:
        """Count the tasks."""
        return len(self.y)

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same change to all that is known of the tasks.

        Parameters
        ----------
        change
            What becomes of a tensor whose first axis is the tasks.

        Returns
        -------
        tasks.Examples
            The examples after it.
        """
        known = {name: x for name, x in vars(self).items() if x is not None}
        return replace(self, **{name: change(x) for name, x in known.items()})

    def split(self, n: int) -> list[Self]:
        """The tasks in order, ``n`` at a time.

        Parameters
        ----------
        n
            Most tasks of a part.

        Returns
        -------
        list[tasks.Examples]
            The parts.
        """
        starts = range(0, len(self), n)
        return [self.each(itemgetter(slice(i, i + n))) for i in starts]

    def like(self, weight: Tensor) -> Self:
        """The same examples on the device and in the floating type of ``weight``.

        Parameters
        ----------
        weight
            A parameter of the model that is to read them, of any shape.

        Returns
        -------
        tasks.Examples
            The examples.
        """

        def moved(x: Tensor) -> Tensor:
            return x.to(weight if x.is_floating_point() else weight.device)

        return self.each(moved)

    def table(self, value: Tensor, n_items: int) -> Tensor:
        """A row for each task and a column for each item: ``value`` where it was rated.

        Parameters
        ----------
        value
            What stands in the table, shape (B, N).
        n_items
            Number of items.

        Returns
        -------
        Tensor
            The table, 0 where nothing was rated, shape (B, n_items).
        """
        known = torch.where(self.mask, value, 0.0)
        nothing = known.new_zeros(len(self), n_items)
        # Added, not set: what stands under a false mask may name any item.
        return nothing.scatter_add(1, self.x % n_items, known)


@dataclass(frozen=True)
class Tasks:
    """A meta-batch: for each task a support set to adapt on, a query to judge by.

    Parameters
    ----------
    support
        What to adapt on.
    query
        What to be judged by.
    user
        Index of each task's user, shape (B,), or -1 where a task is no user.

    Built in
    --------
    tasks
    """

    support: Examples
    query: Examples
    user: Tensor

    def __len__(self) -> int:
        """Count the tasks."""
        return len(self.support)

    def like(self, weight: Tensor) -> Self:
        """The same tasks on the device and in the floating type of ``weight``.

        Parameters
        ----------
        weight
            A parameter of the model that is to read them, of any shape.

        Returns
        -------
        Tasks
            The tasks.
        """
        support, query = self.support.like(weight), self.query.like(weight)
        return type(self)(support, query, self.user.to(weight.device))

    def check_disjoint(self) -> None:
        """Refuse tasks whose query holds an item of the support; inputs are items.

        Raises
        ------
        LeakageError
            If a query holds an item of its support.
        """
        support, query = self.support, self.query
        # Padding names an item too, so only places under both masks count.
        same = support.x[:, :, None] == query.x[:, None, :]
        same = same & support.mask[:, :, None] & query.mask[:, None, :]
        if same.any():
            user, n = int(self.user[same.flatten(1).any(1)][0]), int(same.any(1).sum())
            text = f"user {user} has an item of the support in the query ({n} such "
            raise LeakageError(f"{text}ratings in all): the answer was given away")


@dataclass(frozen=True)
class UserSplit:
    """Three disjoint sets of users: meta-train, validation and test.

    Each is a 1-D tensor of user indices.

    Parameters
    ----------
    train
        Users to learn from, shape (n_train,).
    validation
        Users who choose hyper-parameters, shape (n_validation,).
    test
        Users who judge, shape (n_test,).

    Raises
    ------
    ValueError
        If a user is in two.

    Built in
    --------
    tasks
    """

    train: Tensor
    validation: Tensor
    test: Tensor

    def __post_init__(self) -> None:
        """Refuse a user who is trained on and judged."""
        everyone = torch.cat([self.train, self.validation, self.test])
        if len(everyone.unique()) != len(everyone):
            raise ValueError("a user stands in two parts of the split")


def split_users(
    n_users: int,
    fold: int = 0,
    n_folds: int = 5,
    n_validation: int | None = None,
    seed: int = 0,
    came: np.ndarray | None = None,
) -> UserSplit:
    """Split users, not ratings: one fold is test, some of the rest validation.

    The folds of one seed partition the users, so every user is a test user once.
    ``n_validation`` users (a tenth of all by default) choose hyper-parameters. With
    ``came`` the folds are those who came first to those who came last.

    Parameters
    ----------
    n_users
        Number of users.
    fold
        Which fold is the test, from 0.
    n_folds
        Number of folds.
    n_validation
        Number of validation users; a tenth of all if not given.
    seed
        Seed of everything that is drawn.
    came
        When each user came, shape (n_users,); the folds are drawn if not given.

    Returns
    -------
    UserSplit
        The three sets of users.

    Raises
    ------
    ValueError
        For a fold that does not exist or a part that is empty.

    Built in
    --------
    tasks
    """
    if not 0 <= fold < n_folds:
        raise ValueError(f"fold must be in 0..{n_folds - 1}, got {fold}")
    n_validation = n_users // 10 if n_validation is None else n_validation
    order = np.random.default_rng(seed).permutation(n_users)
    order = order if came is None else came.argsort(kind="stable")
    parts = np.array_split(order, n_folds)
    rest = np.concatenate([part for i, part in enumerate(parts) if i != fold])
    # Drawn anew for each fold: else the same users would always validate.
    rest = np.random.default_rng((seed, fold)).permutation(rest)
    train, validation = rest[n_validation:], rest[:n_validation]
    if min(len(train), len(validation), len(parts[fold])) == 0:
        text = f"{n_folds} folds and {n_validation} validation users: ask for fewer"
        raise ValueError(f"{n_users} users are too few for {text}")
    as_users = [torch.from_numpy(np.sort(p)) for p in (train, validation, parts[fold])]
    return UserSplit(*as_users)


class UserHistories:
    """Each user's ratings in one order, ready to be cut into support and query.

    Ratings are stored flat, user after user: user ``u`` owns the rows ``start[u]`` to
    ``start[u + 1]`` of ``item`` and ``rating``. ``order="time"`` sorts by timestamp
    (ties stay in file order, or are shuffled by ``seed`` under ``"time, ties
    shuffled"``), ``order="random"`` shuffles each user once by ``seed``.

    The support of size K is the first K of that order and the query is everything
    after the first ``reserved``: supports are nested over K and the query is the same
    for every K, so a curve over K is a curve over information.

    ``vocabulary`` are the users whose age, gender and occupation say which user
    features there are and what their means are: the training users (all by default).

    Parameters
    ----------
    data
        The ratings.
    order
        Order of a user's ratings, one of `ORDERS`.
    reserved
        Ratings of a user from which the support is cut: K is at most that.
    seed
        Seed of everything that is drawn.
    vocabulary
        The users, shape (V,), who say which features there are and what their means
        are.

    Raises
    ------
    ValueError
        For an order that does not exist, or that a store is not in.

    Built in
    --------
    tasks

    Examples
    --------
    >>> import torch
    >>> from metarec.data import synthetic_population
    >>> from metarec.tasks import UserHistories
    >>> data, truth = synthetic_population(n_users=40, n_items=60, seed=0)
    >>> tasks = UserHistories(data).tasks(torch.arange(4), k=5)
    >>> tasks.support.x.shape, tasks.query.mask.sum(1).min() > 0
    (torch.Size([4, 5]), tensor(True))
    """

    def __init__(
        self,
        data: RatingData | RatingColumns,
        order: str = "time",
        reserved: int = 15,
        seed: int = 0,
        vocabulary: Tensor | None = None,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
        if isinstance(data, RatingData):
            columns = _sorted(data, order, seed)
        elif order == "time":
            columns = data.item, data.rating, data.start
        else:
            raise ValueError(f'stored in order of time, not in {order!r}: pass "time"')
        self.item, self.rating, self.start = map(torch.from_numpy, columns)
        self.reserved = reserved
        self.n_items, self.scale = data.n_items, data.scale
        some = slice(None) if vocabulary is None else vocabulary.numpy()
        self.user_features = UserFeatures.fit(data.users.iloc[some])
        self.profile = self.user_features.encode(data.users)
        self._sealed = torch.zeros(data.n_users, dtype=torch.bool)
        self._like: float | None = None

    def seal(self, users: Tensor) -> Self:
        """Return the same histories, which give out no rating of ``users``.

        Whoever fits on the sealed copy cannot look at test users, be it for a mean or
        for the choice of a hyper-parameter: asking raises `LeakageError`.

        Parameters
        ----------
        users
            Whose ratings are given out no more, shape (U,).

        Returns
        -------
        UserHistories
            The sealed copy.
        """
        # The ratings are shared with the original; who is sealed is the copy's own.
        sealed = copy(self)
        sealed._sealed = self._sealed.index_fill(0, users, True)
        return sealed

    def likes(self) -> Self:
        """The same histories of zeros and ones: 1 where an item was liked.

        Returns
        -------
        UserHistories
            The copy, which turns ratings into likes as they are read.
        """
        liked = copy(self)
        liked._like, liked.scale = self.scale.like, RatingScale(0, 1, 1)
        return liked

    def _said(self, rating: Tensor) -> Tensor:
        """Ratings as they are given out: as they are, or as likes."""
        return rating if self._like is None else (rating >= self._like).to(rating)

    def _first(self, users: Tensor) -> Tensor:
        """Where the ratings of ``users`` begin: everything is read through here."""
        if self._sealed[users].any():
            user = int(users[self._sealed[users]][0])
            text = f"ratings of user {user} were asked for, who is sealed (a test user)"
            raise LeakageError(f"{text} here: choose on validation users")
        return self.start[users]

    def count(self, users: Tensor) -> Tensor:
        """Number of ratings of each of ``users``, shape (B,).

        Parameters
        ----------
        users
            Indices of users, shape (U,).

        Returns
        -------
        Tensor
            Numbers of ratings, shape (U,).
        """
        return self.start[users + 1] - self.start[users]

    def usable(self, users: Tensor) -> Tensor:
        """Those of ``users`` who have a query: more than ``reserved`` ratings.

        Parameters
        ----------
        users
            Indices of users, shape (U,).

        Returns
        -------
        Tensor
            Indices of users, shape (n,).
        """
        return users[self.count(users) > self.reserved]

    def ratings_of(self, users: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All ratings of ``users``, flat: (position in ``users``, item, rating).

        Parameters
        ----------
        users
            Indices of users, shape (U,).

        Returns
        -------
        tuple[Tensor, Tensor, Tensor]
            Position in the given users, item and rating, each of shape (n,).
        """
        counts = self.count(users)
        position = torch.repeat_interleave(torch.arange(len(users)), counts)
        before = counts.cumsum(0) - counts
        # Row n of the result lies as far from its user's start as from the first.
        rows = torch.arange(len(position)) + (self._first(users) - before)[position]
        return position, self.item[rows].long(), self._said(self.rating[rows])

    def in_chunks(
        self, users: Tensor, most: int = CHUNK
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """`ratings_of` some users after others: (those users, position, item, rating).

        A chunk has at most ``most`` ratings, or one user. Sums over chunks are sums
        over ``users``, and no more than a chunk is in memory.

        Parameters
        ----------
        users
            Indices of users, shape (U,).
        most
            Most ratings of a chunk.

        Yields
        ------
        tuple[Tensor, Tensor, Tensor, Tensor]
            The users of a chunk, then position, item and rating as `ratings_of` has
            them.
        """
        total = self.count(users).cumsum(0)
        first = 0
        while first < len(users):
            before = int(total[first - 1]) if first else 0
            # A user with more ratings than a chunk holds is a chunk of their own.
            last = int(torch.searchsorted(total, before + most, right=True))
            last = max(last, first + 1)
            yield (users[first:last], *self.ratings_of(users[first:last]))
            first = last

    def item_counts(self, users: Tensor) -> Tensor:
        """How many ratings of each item ``users`` gave: (n_items,).

        Parameters
        ----------
        users
            Indices of users, shape (U,).

        Returns
        -------
        Tensor
            Numbers of ratings, shape (n_items,).
        """
        total = torch.zeros(self.n_items, dtype=torch.long)
        for _, _, item, _ in self.in_chunks(users):
            total += torch.bincount(item, minlength=self.n_items)
        return total

    def _window(self, users: Tensor, skipped: Tensor | int, n: Tensor) -> Examples:
        """The next ``n`` ratings of each user after the first ``skipped``."""
        first = self._first(users) + skipped
        window = padded(self.item, self.rating, first, n)
        return replace(window, y=self._said(window.y))

    def everything(self, users: Tensor, most: int) -> Examples:
        """The earliest ``most`` ratings of each user, or all where there are fewer.

        Parameters
        ----------
        users
            Indices of users, shape (U,).
        most
            Most ratings of a user.

        Returns
        -------
        tasks.Examples
            The ratings, padded, shape (U, N).
        """
        window = self._window(users, 0, self.count(users).clamp(max=most))
        return replace(window, profile=self.profile[users], user=users)

    def draw_windows(
        self, users: Tensor, sizes: Sequence[int], generator: torch.Generator
    ) -> Examples:
        """K successive ratings of each user, K from ``sizes``: half from the start.

        The other half begin anywhere in the history.

        Parameters
        ----------
        users
            Indices of users, shape (U,).
        sizes
            Support sizes K.
        generator
            Source of the random numbers.

        Returns
        -------
        tasks.Examples
            The ratings, padded, shape (U, N).
        """
        drawn = torch.randint(len(sizes), (len(users),), generator=generator)
        k = torch.minimum(torch.as_tensor(sizes)[drawn], self.count(users))
        # All is drawn for everybody: one user's draw does not move the next one's.
        place = torch.rand(len(users), generator=generator)
        anywhere = torch.rand(len(users), generator=generator) < 0.5
        skipped = (place * anywhere * (self.count(users) - k + 1)).long()
        return self._window(users, skipped, k)

    def tasks(
        self, users: Tensor, k: int | Tensor, after: int | Tensor | None = None
    ) -> Tasks:
        """Cut ``users`` into tasks whose support has ``k`` ratings, one K or each its.

        Parameters
        ----------
        users
            Indices of users, shape (U,).
        k
            Support size K, one number or one for each user, shape (U,).
        after
            How many ratings stand before the query, one number or one for each user;
            ``reserved`` if not given.

        Returns
        -------
        Tasks
            The tasks, in the order of the users.

        Raises
        ------
        ValueError
            If K exceeds ``after`` (support and query would overlap) or a user has no
            rating left for the query.
        """
        after = torch.as_tensor(self.reserved if after is None else after)
        k, after = (n.expand(len(users)) for n in (torch.as_tensor(k), after))
        if (k < 0).any() or (k > after).any():
            raise ValueError(f"K must lie in 0..{after.min()}, the reserved ratings")
        rest = self.count(users) - after
        if len(short := (rest <= 0).nonzero()):
            user, most = int(users[short[0]]), int(after[short[0]])
            text = f"user {user} has no more than {most} ratings, so no query: "
            raise ValueError(f"{text}ask `usable(users)`, or lower `reserved`")
        support = replace(self._window(users, 0, k), profile=self.profile[users])
        return Tasks(support, self._window(users, after, rest), users)


def _sorted(data: RatingData, order: str, seed: int) -> tuple[np.ndarray, ...]:
    """Items and ratings, user after user, and where each user begins."""
    table = data.ratings
    keys = [table["timestamp"].to_numpy(), table["user"].to_numpy()]
    if order != "time":
        shuffled = np.random.default_rng(seed).permutation(len(table))
        keys = [shuffled, *(keys[1:] if order == "random" else keys)]
    # The last key sorts first: user after user, each in the order asked for.
    rows = np.lexsort(keys)
    item, rating = table["item"].to_numpy(np.int64), table["rating"].to_numpy("f4")
    counts = np.bincount(table["user"], minlength=data.n_users)
    return item[rows], rating[rows], np.concatenate([[0], counts.cumsum()])


def padded(item: Tensor, rating: Tensor, first: Tensor, length: Tensor) -> Examples:
    """Pad the runs of ``length`` rows that begin at ``first`` into a batch.

    Parameters
    ----------
    item
        Rows of the item table, shape (n,).
    rating
        Ratings, shape (n,).
    first
        Where the runs begin, shape (B,).
    length
        Their lengths, shape (B,).

    Returns
    -------
    tasks.Examples
        The ratings, shape (B, N).

    Plumbing
    --------
    Shared by histories and what the recommender is given.
    """
    # One column at least, of padding where nobody has a rating.
    column = torch.arange(int(length.numpy().max(initial=1)))
    mask = column < length[:, None]
    rows = (first[:, None] + column)[mask]
    x, y = item.new_zeros(mask.shape).long(), rating.new_zeros(mask.shape)
    x[mask], y[mask] = item[rows].long(), rating[rows]
    return Examples(x, y, mask)


@dataclass(frozen=True)
class TaskSampler:
    """One epoch of meta-batches: every user once, in random order, with a random K.

    A part is cut from every meta-batch, and no more: the draw is that of the whole, so
    P processes share out the tasks of one. A part may be empty where the meta-batch is
    smaller than P.

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
    to_the_end
        Whether the query is all after the support, in place of all after the reserved
        ratings: what lists are asked for.

    Raises
    ------
    ValueError
        If there are no users.

    Built in
    --------
    maml

    Examples
    --------
    >>> import torch
    >>> from metarec.data import synthetic_population
    >>> from metarec.tasks import TaskSampler, UserHistories
    >>> data, truth = synthetic_population(n_users=40, n_items=60, seed=0)
    >>> sampler = TaskSampler(UserHistories(data), torch.arange(40), meta_batch=16)
    >>> [len(tasks.user) for tasks in sampler(torch.Generator().manual_seed(0))]
    [16, 16, 8]
    """

    histories: UserHistories
    users: Tensor
    sizes: Sequence[int] = SUPPORT_SIZES[1:]
    meta_batch: int = 32
    item_rows: Tensor | None = None
    part: tuple[int, int] = (0, 1)
    to_the_end: bool = False

    def __post_init__(self) -> None:
        """Refuse to train on nobody."""
        if not len(self.users):
            raise ValueError("there are no users to train on: pass some in `users`")

    def __call__(self, generator: torch.Generator) -> Iterator[Tasks]:
        """Yield the meta-batches of one epoch."""
        sizes = torch.as_tensor(self.sizes)
        # Every process draws the whole epoch and cuts its part: no talk is needed.
        order = torch.randperm(len(self.users), generator=generator)
        rank, parts = self.part
        for batch in order.split(self.meta_batch):
            drawn = torch.randint(len(sizes), (len(batch),), generator=generator)
            mine, k = (x.tensor_split(parts)[rank] for x in (batch, sizes[drawn]))
            yield self.cut(self.users[mine], k)

    def cut(self, users: Tensor, k: Tensor) -> Tasks:
        """Support and query of ``users``, each with its own copy of the item table.

        Parameters
        ----------
        users
            Indices of users, shape (U,).
        k
            Support size K.

        Returns
        -------
        Tasks
            The tasks.
        """
        tasks = self.histories.tasks(users, k, k if self.to_the_end else None)
        if self.item_rows is None:
            return tasks
        # Items of copy c stand c tables further down.
        shift = self.item_rows[tasks.user][:, None]
        support = replace(tasks.support, x=tasks.support.x + shift)
        query = replace(tasks.query, x=tasks.query.x + shift)
        return Tasks(support, query, tasks.user)
