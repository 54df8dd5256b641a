"""Any recommender with any meta-learner and any task-learner: the grid of systems."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from metarec import learners, models
from metarec.factors import GaussianFactorModel, WarmStart, cross_fit, lift_vectors
from metarec.meta import MAML, MetaLearner, MetaMind, MetaSGD
from metarec.tasks import SUPPORT_SIZES, Examples, TaskSampler, UserHistories
from metarec.training import TrainingConfig, Workers, check, meta_train

__all__ = ["GOALS", "GRID", "LEARNERS", "METAS", "MODELS", "Parts", "System"]
__all__ += ["build_system", "default_config", "fit_system", "hold_out", "item_vectors"]

MODELS = {
    "mf": "matrix factorisation",
    "mlp": "MLP on features",
    "attention": "attention over features",
}
"""The recommenders by name.

Plumbing
--------
A constant.
"""

METAS = {"maml": MAML, "meta-sgd": MetaSGD, "metamind": MetaMind}
"""The meta-learners by name.

Plumbing
--------
A constant.
"""

LEARNERS = ("gradient", "bayesian", "attention", "in-context")
"""The task-learners by name.

Plumbing
--------
A constant.
"""

GRID = tuple(product(MODELS, METAS, LEARNERS[:3]))
"""The 27 systems that the course sets out from, by the names of their parts.

Plumbing
--------
A constant.
"""

GOALS = ("stars", "clicks", "lists")
"""What a system is trained for. How many stars a user would give, whether they would
like it, or what they will choose and like out of all.

Plumbing
--------
A constant.
"""

# Where the prior's scale starts, in the units of clicks and lists: log-odds.
_SCALES = {
    "clicks": {"gradient": 0.25, "bayesian": 2.4, "in-context": 2.4},
    "lists": {"gradient": 0.2, "bayesian": 0.5, "in-context": 0.4},
}


@dataclass(frozen=True)
class System:
    """The names of a recommender, a meta-learner and a task-learner.

    Parameters
    ----------
    model
        Name of the recommender, one of `MODELS`.
    meta
        Name of the meta-learner, one of `METAS`.
    learner
        Name of the task-learner, one of `LEARNERS`.
    implicit
        Whether which items were rated shifts the prior.
    full
        Whether Meta-SGD learns a full matrix.
    steps
        T of gradient descent.
    goal
        What it is trained for, one of `GOALS`.

    Raises
    ------
    ValueError
        For a name that does not exist or parts that do not fit.

    Built in
    --------
    full-system
    """

    model: str = "mf"
    meta: str = "maml"
    learner: str = "gradient"
    implicit: bool = False
    full: bool = False
    steps: int = 5
    goal: str = "stars"

    def __post_init__(self) -> None:
        """Refuse what cannot be built, and say what can."""
        parts: dict[str, Iterable[str]] = {"model": MODELS, "meta": METAS}
        parts |= {"learner": LEARNERS, "goal": GOALS}
        for part, known in parts.items():
            name = getattr(self, part)
            if name not in list(known):
                some = f"choose one of {', '.join(known)}"
                raise ValueError(f"{part}={name!r} does not exist: {some}")
        check(steps=self.steps, implicit=self.implicit, full=self.full)
        if self.full and self.meta != "meta-sgd":
            raise ValueError('full=True is an option of meta="meta-sgd" alone')

    def __str__(self) -> str:
        """Write the parts in one line."""
        extra = [f.name for f in fields(self) if getattr(self, f.name) is True]
        extra += [self.goal] * (self.goal != "stars")
        return " + ".join([self.model, self.meta, self.learner, *extra])


def default_config(system: System, seed: int = 0) -> TrainingConfig:
    """Settings of the outer loop that suit the system; slower where features train.

    Chosen on validation users.

    Parameters
    ----------
    system
        The names of the parts.
    seed
        Seed of everything that is drawn.

    Returns
    -------
    TrainingConfig
        The settings.

    Built in
    --------
    full-system
    """
    if system.goal == "lists" and system.learner == "in-context":
        return TrainingConfig(25, 0.003, 25, clip=1.0, seed=seed, average=0.98)
    if system.goal == "lists":
        return TrainingConfig(80, learning_rate=0.003, patience=12, seed=seed)
    rate = 0.01 if system.model == "mf" else 0.003
    return TrainingConfig(learning_rate=rate, seed=seed)


@dataclass(frozen=True)
class Parts:
    """What a system is put together from.

    Parameters
    ----------
    warm
        The item table with its copies, and where the head's constant starts.
    item_features
        What is known of each item, shape (n_items, F).
    n_profile
        Number of user features.
    n_tasks
        Number of tasks that task attention looks at.
    history
        Makes those tasks; None where a saved bank is to be loaded.
    like
        The rating from which on an item is liked.
    ends
        Where the levels begin and end between which a network reads ratings.

    Plumbing
    --------
    Handed to `build_system`.
    """

    warm: WarmStart
    item_features: Tensor
    n_profile: int
    n_tasks: int
    history: Callable[[], Examples] | None
    like: float = 4.0
    ends: tuple[float, float] = (1.0, 5.0)

    @classmethod
    def of(
        cls, histories: UserHistories, users: Tensor, warm: WarmStart, features: Tensor
    ) -> Self:
        """Parts to train on ``users``, who are also the bank.

        Parameters
        ----------
        histories
            Ratings of all users, each user's in one order.
        users
            Users to train on, shape (U,), who are also the bank.
        warm
            Item vectors to start from, cross-fitted.
        features
            What is known of each item, shape (n_items, F).

        Returns
        -------
        Parts
            The parts.
        """
        # Made where it is needed: only task attention reads it, and it is large.
        history = partial(histories.everything, users, 64)
        sizes = histories.profile.shape[1], len(users)
        ends = histories.scale.low, histories.scale.high
        if not all(map(isfinite, ends)):
            rating = histories.ratings_of(users)[2]
            ends = float(rating.min()), float(rating.max())
        return cls(warm, features, *sizes, history, histories.scale.like, ends)

    @classmethod
    def blank(cls, sizes: Mapping[str, int], like: float = 4.0) -> Self:
        """Parts of these `sizes` alone, for a system whose numbers are to be loaded.

        Parameters
        ----------
        sizes
            What `sizes` of the saved system said.
        like
            The rating from which on an item is liked.

        Returns
        -------
        Parts
            Parts full of zeros.
        """
        n_items = sizes["n_items"]
        # A file of version 0.2 or 0.1 holds no copies of the item table.
        table = torch.zeros(sizes.get("n_rows", n_items), sizes["dim"])
        warm = WarmStart(table, table.sum(1), torch.zeros(0), 0.0, table[:n_items])
        features = torch.zeros(n_items, sizes["n_features"])
        return cls(warm, features, sizes["n_profile"], sizes["n_tasks"], None, like)

    @property
    def sizes(self) -> dict[str, int]:
        """All that `blank` needs: what a file must say beside the numbers."""
        n_items, n_features = self.item_features.shape
        n_rows, dim = self.warm.factors.shape
        sizes = {"n_items": n_items, "n_rows": n_rows, "n_tasks": self.n_tasks}
        sizes |= {"n_features": n_features, "n_profile": self.n_profile}
        return sizes | {"dim": dim}


def build_system(system: System, parts: Parts, seed: int = 0) -> MetaLearner:
    """Put the parts together, ready for `meta_train`.

    Parameters
    ----------
    system
        The names of the parts.
    parts
        What the system is put together from.
    seed
        Seed of everything that is drawn.

    Returns
    -------
    MetaLearner
        The meta-learner with its model and task-learner.

    Raises
    ------
    ValueError
        If the system needs a part that is not there.

    Built in
    --------
    full-system
    """
    generator = torch.Generator().manual_seed(seed)
    model: models.RatingModel
    warm, features = parts.warm, parts.item_features
    table = warm.factors, warm.offset
    if system.model == "mf":
        model = models.MatrixFactorization.from_items(*table, len(features))
    else:
        kind = models.MLP if system.model == "mlp" else models.FeatureAttention
        model = kind(*table, features, parts.n_profile, generator=generator)
    if system.implicit:
        if warm.implicit is None:
            raise ValueError("implicit=True needs learn_implicit before cross_fit")
        model.use_implicit(warm.implicit)
    lists = system.goal == "lists"
    if system.goal == "clicks":
        model.likelihood = models.Bernoulli(parts.like)
    elif lists:
        # The root of popularity: a list is short, and its head is what counts.
        weight = (0.5 * (warm.offset - warm.offset.max())).exp()
        model.likelihood = models.Softmax(parts.like, weight)
        # A list teaches about every item at once: here item vectors can be trained.
        model.requires_grad_()
    with torch.no_grad():
        # At K = 0 the mean user is the best guess.
        model.head[-1] = warm.mean_bias
    learner: learners.TaskLearner
    adapt = ["head"]
    if system.learner == "gradient":
        learner = learners.GradientDescent(system.steps)
        # What a user attends to is theirs as well, where steps can reach it; for a list
        # each step would attend anew, to every item of the catalogue.
        adapt += ["query"] * (system.model == "attention" and not lists)
    elif system.learner == "bayesian":
        learner = learners.Bayesian()
    elif system.learner == "in-context":
        sizes = model.n_items, len(model.head), *parts.ends, parts.n_profile
        learner = learners.InContext(*sizes, generator=generator)
        # A list teaches about every item at once; a user's stars, about a few.
        learner.items.requires_grad_(lists)
        if lists:
            # At K = 0 the list is popularity itself; what is learned, ratings add.
            model.item_offset.requires_grad_(False)
            model.head.requires_grad_(False)
    else:
        history = None if parts.history is None else parts.history()
        bank = learners.TaskBank(history, parts.n_tasks, len(model.head))
        learner = learners.TaskAttention(bank)
    scale = _SCALES.get(system.goal, {}).get(system.learner)
    if scale is not None and system.learner == "gradient":
        scale /= max(system.steps, 1)  # what all steps together may move
    more: dict[str, dict[str, Any]] = {"metamind": {"generator": generator}}
    more |= {"meta-sgd": {"full": system.full}, "maml": {}}
    kind_of_meta: type[MetaLearner] = METAS[system.meta]
    return kind_of_meta(model, learner, adapt, scale, **more[system.meta])


def item_vectors(
    histories: UserHistories,
    users: Tensor,
    features: Tensor,
    dim: int = 8,
    implicit: bool = False,
    seed: int = 0,
    progress: bool = False,
    goal: str = "stars",
) -> WarmStart:
    """Fit on ``users`` what systems of a goal start from.

    For stars that is the Gaussian model, cross-fitted; for clicks the same of likes
    (0 and 1), in units of log-odds; for lists `lift_vectors`. ``implicit`` adds what a
    choice of items says. Bit for bit the same for one seed.

    Parameters
    ----------
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).
    features
        Features of the items, shape (I, F).
    dim
        Length of an item vector.
    implicit
        Whether to learn what a choice of items says.
    seed
        Seed of everything that is drawn.
    progress
        Whether to show a progress bar on a terminal.
    goal
        What the systems are trained for, one of `GOALS`.

    Returns
    -------
    WarmStart
        The item table, with its copies.

    Plumbing
    --------
    The first half of the recipe.
    """
    if goal == "lists":
        return lift_vectors(histories, users, dim)
    if goal == "clicks":
        histories = histories.likes()
    how: dict[str, Any] = {"seed": seed, "progress": progress}
    model = GaussianFactorModel.fit(histories, users, dim, features, **how)
    if implicit:
        model.learn_implicit(histories, users, seed=seed)
    warm = cross_fit(model, histories, users, **how)
    if goal == "stars":
        return warm
    # A probability of 1/2 moves by a quarter of what the log-odds move by. The 4 is in
    # the head, not in the vectors: one rate has to suit the vector and the constant.
    shift = None if warm.implicit is None else 4 * warm.implicit
    logit = warm.offset.clamp(0.02, 0.98).logit()
    return replace(warm, offset=logit, mean_bias=4 * warm.mean_bias, implicit=shift)


def fit_system(
    system: System,
    parts: Parts,
    histories: UserHistories,
    users: Tensor,
    validate: Callable[[MetaLearner], float],
    config: TrainingConfig | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    workers: Workers | None = None,
    run: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    copies: bool = False,
) -> MetaLearner:
    """Build a system from its parts and meta-train it on ``users``: the recipe.

    `default_config` unless ``config`` is given; ``validate`` scores the system as it
    stands, lower is better; ``seed`` is that of what the build draws. Of the item table
    the copy for new users is left or, with ``copies``, all of them.

    Parameters
    ----------
    system
        The names of the parts.
    parts
        What the system is put together from.
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).
    validate
        Score on validation users, lower is better.
    config
        Settings of the outer loop; those that suit it, if not given.
    seed
        Seed of everything that is drawn.
    checkpoint
        File in which an interrupted run goes on; none is written if not given.
    progress
        Whether to show a progress bar on a terminal.
    workers
        The processes that share the work; this one alone if not given.
    run
        What a checkpoint must agree in, see `meta_train`.
    device
        Where the system is trained, and stays.
    copies
        Whether to keep the copies of the item table that leave out training users.

    Returns
    -------
    MetaLearner
        The system, trained.

    Plumbing
    --------
    `MetaRecommender`, the evaluation and the page in the browser.
    """
    config, workers = config or default_config(system, seed), workers or Workers()
    # The seed of the build is not that of the epochs, which `config` holds.
    meta = build_system(system, parts, seed).to(device)
    # K = 0 has nothing to adapt to: what it needs is learned along with the others.
    sizes = [k for k in SUPPORT_SIZES if 0 < k <= histories.reserved] or [0]
    # A list is asked for all that is liked later, and its tasks are noisier.
    lists = system.goal == "lists"
    rest = 64 if lists else 32, parts.warm.item_rows, workers.part, lists
    tasks = TaskSampler(histories, users, sizes, *rest)
    score = partial(validate, meta)
    meta_train(meta, tasks, score, config, checkpoint, progress, workers, run)
    assert isinstance(meta.model, models.RatingModel)  # what the build puts in
    if not copies:
        meta.model.keep_first_copy()
    return meta


def hold_out(
    histories: UserHistories, users: Tensor, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Cut the usable ``users`` at random: nine tenths train, a tenth validates.

    Parameters
    ----------
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).
    seed
        Seed of everything that is drawn.

    Returns
    -------
    tuple[Tensor, Tensor]
        Users to train on, then users to validate on.

    Plumbing
    --------
    Whoever has no split of their own.
    """
    usable = histories.usable(users)
    generator = torch.Generator().manual_seed(seed)
    order = usable[torch.randperm(len(usable), generator=generator)]
    n = len(order) // 10
    return order[n:], order[:n]
