"""The outer loop: Adam on meta-batches, early stopping on users kept aside."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from math import inf, isfinite, nextafter
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from metarec.meta import MetaLearner
from metarec.models import RatingModel, likelihood_of
from metarec.tasks import Tasks, one_thread

__all__ = ["TrainingConfig", "TrainingLog", "Workers", "meta_train", "save_aside"]

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingConfig:
    """How the outer loop runs: at most ``epochs``, fewer when validation says so.

    Training stops after ``patience`` epochs without a better validation score and goes
    back to the best one. What a model shrinks is said by `RatingModel.shrunk`.

    Parameters
    ----------
    epochs
        Most epochs to train for.
    learning_rate
        Step size of Adam.
    patience
        Epochs without a better validation score before training stops.
    clip
        Bound of the norm of the meta-gradient.
    penalty
        Weight of half the sum of squares of what the model shrinks.
    seed
        Seed of the order of users and the drawn K.
    average
        How much of the average of the weights, over the steps so far, a step leaves:
        what is validated and kept is that average, ``a <- average a + (1 - average)
        theta``. At 0 it is the weights themselves.

    Raises
    ------
    ValueError
        For a setting of the wrong kind or below its least value, and for an average
        that would never move.

    Source
    ------
    Polyak & Juditsky (1992) for the average.

    Built in
    --------
    maml
    """

    epochs: int = 100
    learning_rate: float = 0.01
    patience: int = 10
    clip: float = 10.0
    penalty: float = 0.005
    seed: int = 0
    average: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no run could have meant."""
        check(**vars(self))


_WHOLE, _NUMBER = int | np.integer, int | float | np.integer | np.floating
# Names of arguments, what to pass for them, its kind, and the ends of a number.
_RULES: list[tuple[Any, ...]] = [
    ("dim reserved n", "a whole number from 1 up", _WHOLE, 1, 2**63 - 1),
    ("seed steps epochs patience", "a whole number from 0 up", _WHOLE, 0, 2**63 - 1),
    ("min_ratings", "a whole number from 0 up", _WHOLE, 0, 2**63 - 1),
    ("learning_rate clip penalty", "a number from 0 up", _NUMBER, 0, inf),
    ("average", "a number under 1: 1 never moves", _NUMBER, 0, nextafter(1, 0)),
    ("surprise", "a number from 0 to 1", _NUMBER, 0, 1),
    ("progress implicit full return_std", "True or False", bool | np.bool_),
    ("path", "the name of a file", str | PathLike),
    ("checkpoint", "the name of a file, or None", str | PathLike | None),
    ("config", "a TrainingConfig", TrainingConfig),
    ("ratings", "a mapping from user to ratings, or a table", Mapping),
    ("user users", "a mapping of what is known, or None", Mapping | None),
]


def check(**given: Any) -> None:
    """Refuse an argument that cannot be meant, and say what to pass in its place.

    Plumbing
    --------
    What the doors of the recommender call on whatever a person hands in.
    """
    for names, what, kind, *ends in _RULES:
        for name in given.keys() & names.split():
            value, right = given[name], isinstance(given[name], kind)
            if not right or (ends and not ends[0] <= value <= ends[1]):
                raise ValueError(f"{name}={value!r:.60} will not do: pass {what}")


@dataclass
class TrainingLog:
    """What happened, epoch by epoch: meta-loss and validation score, and the best.

    Parameters
    ----------
    loss
        Meta-loss of each epoch.
    validation
        Validation score of each epoch.
    best_epoch
        The epoch of the best score.

    Built in
    --------
    maml
    """

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = -1


class Workers:
    """Who trains: one process, which does everything itself.

    `Processes` answers the same calls for many. ``part`` (r, P) says which part of a
    meta-batch is this process's own (see `TaskSampler`).

    Plumbing
    --------
    What `meta_train` asks of the processes it runs on.
    """

    part: tuple[int, int] = (0, 1)

    @property
    def first(self) -> bool:
        """True on the one process that validates, saves and shows progress."""
        return self.part[0] == 0

    def once(self, make: Callable[[], T]) -> T:
        """Call ``make`` on the first process; its result goes to all.

        Parameters
        ----------
        make
            What is to be called.

        Returns
        -------
        object
            What it returned.
        """
        return make()

    def all_reduce(
        self, parameters: Sequence[nn.Parameter], loss: float, n_tasks: int
    ) -> tuple[float, int]:
        """Turn the gradient of this part's mean loss into that of the whole batch.

        Returns the mean loss and the number of tasks of the whole.

        Parameters
        ----------
        parameters
            Parameters whose gradients are replaced.
        loss
            Mean loss of this part's tasks.
        n_tasks
            Number of this part's tasks.

        Returns
        -------
        tuple[float, int]
            Mean loss and number of tasks of the whole batch.
        """
        return loss, n_tasks


@one_thread()
def meta_train(
    meta: MetaLearner,
    batches: Callable[[torch.Generator], Iterator[Tasks]],
    validate: Callable[[], float],
    config: TrainingConfig | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    workers: Workers | None = None,
    run: Mapping[str, Any] | None = None,
) -> TrainingLog:
    """Train ``meta`` in place and leave it at its best epoch.

    With ``checkpoint`` every epoch is saved there (aside, then renamed), and a run that
    was interrupted goes on from it to the same parameters as one that was not, also for
    more epochs than were asked for at first.

    Parameters
    ----------
    meta
        The meta-learner, trained in place.
    batches
        One epoch of meta-batches for a generator of random numbers, as `TaskSampler`
        makes them.
    validate
        Score of the learner as it stands, lower is better.
    config
        Settings of the outer loop; those that suit it, if not given.
    checkpoint
        File in which an interrupted run goes on; none is written if not given.
    progress
        Whether to show a progress bar on a terminal.
    workers
        The processes that share the work; this one alone if not given.
    run
        What else a checkpoint must agree in, by name: the system and the data.

    Returns
    -------
    TrainingLog
        Loss and validation score of each epoch.

    Raises
    ------
    ValueError
        If the checkpoint belongs to another run; the message says what differs.
    FloatingPointError
        If the meta-loss is not finite.

    Built in
    --------
    maml

    Examples
    --------
    >>> import torch
    >>> from metarec.data import synthetic_population
    >>> from metarec.meta import MAML
    >>> from metarec.models import MatrixFactorization
    >>> from metarec.tasks import TaskSampler, UserHistories
    >>> from metarec.training import TrainingConfig, meta_train
    >>> data, truth = synthetic_population(n_users=40, n_items=60, seed=0)
    >>> model = MatrixFactorization(data.n_items, dim=2)
    >>> meta = MAML(model, adapt=["head"])
    >>> batches = TaskSampler(UserHistories(data), torch.arange(40))
    >>> config = TrainingConfig(epochs=3)
    >>> log = meta_train(meta, batches, lambda: 0.0, config, progress=False)
    >>> len(log.loss)
    3
    """
    config, workers = config or TrainingConfig(), workers or Workers()
    trained = [p for p in meta.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.learning_rate)
    generator = torch.Generator().manual_seed(int(config.seed))
    log = TrainingLog()
    path = None if checkpoint is None else Path(checkpoint)
    parts = meta, meta.model, meta.learner, likelihood_of(meta.model)
    settings = asdict(config) | {"parts": [type(part).__name__ for part in parts]}
    settings |= {"numbers": sum(p.numel() for p in trained)} | dict(run or {})
    del settings["epochs"]  # how long is no part of what is run
    settings = json.loads(json.dumps(settings, default=np.generic.item))
    state = workers.once(partial(read_run, path, "checkpoint", settings))
    # All begin at the first process's parameters, whatever their own seeds made.
    meta.load_state_dict(workers.once(meta.state_dict))
    best, average = deepcopy(meta.state_dict()), deepcopy(meta.state_dict())
    if state is not None:
        meta.load_state_dict(state["meta"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        log = TrainingLog(**state["log"])
        best, average = state["best"], state["average"]
        if len(log.loss) > config.epochs:
            more = f"{len(log.loss)} epochs, more than epochs={config.epochs}"
            raise ValueError(f"{path} has {more}: ask for as many, or {_WAY_OUT}")

    epochs = range(len(log.loss), config.epochs)
    quiet = not (progress and workers.first)
    bar = tqdm(epochs, desc="meta-training", unit="epoch", disable=quiet)
    for epoch in bar:
        if log.best_epoch >= 0 and epoch - log.best_epoch > config.patience:
            break
        total, n_tasks = 0.0, 0
        meta.refresh()
        for tasks in batches(generator):
            optimizer.zero_grad()
            own = _own_gradient(meta, tasks, config) if len(tasks) else 0.0
            # The penalty is a part of each process's mean, so the mean counts it once.
            loss, n = workers.all_reduce(trained, own, len(tasks))
            if not isfinite(loss):
                raise FloatingPointError("no finite loss: take a smaller inner rate")
            # Second-order gradients have long tails: one batch must not undo an epoch.
            nn.utils.clip_grad_norm_(meta.parameters(), config.clip)
            optimizer.step()
            for name, value in meta.state_dict().items() if config.average else ():
                average[name].lerp_(value, 1 - config.average)
            total, n_tasks = total + loss * n, n_tasks + n
        log.loss.append(total / max(n_tasks, 1))
        now = deepcopy(meta.state_dict())
        average = average if config.average else now
        meta.load_state_dict(average)
        log.validation.append(workers.once(validate))
        bar.set_postfix(validation=f"{log.validation[-1]:.4f}")
        # A tie goes to the later epoch: it has seen more.
        if log.validation[-1] <= min(log.validation):
            log.best_epoch = epoch
            best = deepcopy(meta.state_dict())
        meta.load_state_dict(now)
        if path is not None:
            state = {"meta": now, "optimizer": optimizer.state_dict()}
            state |= {"generator": generator.get_state(), "log": asdict(log)}
            state |= {"run": settings, "best": best, "average": average}
            workers.once(partial(save_aside, path, partial(torch.save, state)))
    # The first process may know more than parameters: a bank of tasks, computed anew.
    meta.load_state_dict(workers.once(lambda: best))
    return log


def _own_gradient(meta: MetaLearner, tasks: Tasks, config: TrainingConfig) -> float:
    """Leave the gradient of the mean loss and the penalty; return the loss alone."""
    loss = meta.loss(tasks)
    shrunk = meta.model.shrunk() if isinstance(meta.model, RatingModel) else []
    size = sum((value.square().sum() for value in shrunk), torch.tensor(0.0))
    (loss + 0.5 * config.penalty * size).backward()
    return loss.item()


# With one of its two files left, a recommender's run would be refused again.
_WAY_OUT = "delete it to start afresh (and FILE.items beside it), or name another file"


def read_run(
    path: Path | None, what: str, run: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Load ``what`` an interrupted run left, if it did; refuse what another run left.

    The file says under "run" whose it is.

    Plumbing
    --------
    Checkpoints, and the item vectors beside them.
    """
    if path is None or not path.exists():
        return None
    try:
        kept = dict(torch.load(path, map_location="cpu", weights_only=True))
        there = dict(kept["run"])
    except Exception as error:
        text = f"{path} holds no {what} that can be read ({error}); {_WAY_OUT}"
        raise ValueError(text) from error
    if other := [n for n in {**run, **there} if there.get(n) != run.get(n)]:
        differs = [f"{n} is {run.get(n)!r} and was {there.get(n)!r}" for n in other]
        text = f"another run or for other ratings: {', '.join(differs)}; {_WAY_OUT}"
        raise ValueError(f"{path} was written by {text}")
    return kept


def save_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside ``path`` and rename: the old file stays whole if writing fails.

    Parameters
    ----------
    path
        The file.
    write
        Writes to the path that it is given.

    Raises
    ------
    IsADirectoryError
        For a folder.

    Plumbing
    --------
    Whatever is saved goes through it.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: pass the name of a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the file, since a rename is one step only within one file system.
    with TemporaryDirectory(".part", path.name, path.parent) as aside:
        write(Path(aside, path.name))
        Path(aside, path.name).replace(path)
