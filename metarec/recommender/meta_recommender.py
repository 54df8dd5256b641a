"""The full system: fit on many users, meet a new one or many, save and load."""

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from metarec import systems
from metarec.data import RatingScale
from metarec.data.custom import as_ratings, for_goal
from metarec.factors import ItemMean, UserItemBias, WarmStart
from metarec.features import UserFeatures, item_features
from metarec.learners.functional import twin
from metarec.meta import MetaLearner
from metarec.models import MatrixFactorization, RatingModel
from metarec.recommender import files, many
from metarec.recommender.personal import PersonalModel
from metarec.tasks import SUPPORT_SIZES, Examples, UserHistories, one_thread
from metarec.training import TrainingConfig, Workers, check
from metarec.validation import Predictor, validation_score

Known = Mapping[str, Any] | None
Ratings = Mapping[Any, float] | Iterable[tuple[Any, float]] | pd.DataFrame | None


class MetaRecommender:
    """A recommender that meets a new user with a prior and a few of their ratings.

    The names of the three maps are those of `System`. ``fit`` meta-learns the prior on
    item vectors (see `item_vectors`); ``adapt`` turns a user's ratings into their own
    `PersonalModel`. The ``goal`` says what is learned: how many stars a user would
    give, whether they would like it (a click), or what they will choose and like next
    (a list). Whatever it is, users are adapted to ratings in stars. The recommender
    does not change when it adapts, so any number of users (and threads) may share one.

    Parameters
    ----------
    model
        Name of the recommender, one of `MODELS`.
    meta
        Name of the meta-learner, one of `METAS`.
    learner
        Name of the task-learner, one of `LEARNERS`.
    dim
        Length of an item vector; 16 for lists and 8 else, if not given.
    config
        Settings of the outer loop; those of `default_config` if not given.
    reserved
        Ratings of a user from which the support is cut: K is at most that.
    seed
        Seed of everything that is drawn.
    device
        Where it meta-learns and adapts, such as "cuda". Item vectors are fitted, and
        random numbers drawn, on the processor, whatever the device.
    goal
        What it is trained for, one of `GOALS`: "stars", "clicks" or "lists".
    **options
        Further settings of `System`: implicit, full, steps.

    Raises
    ------
    ValueError
        For parts that do not exist or do not fit together, a setting of the wrong kind,
        or a device that is not there.

    Built in
    --------
    full-system

    Examples
    --------
    >>> from metarec.data import synthetic_population
    >>> from metarec.recommender import MetaRecommender
    >>> from metarec.training import TrainingConfig
    >>> data, truth = synthetic_population(n_users=60, n_items=60, seed=0)
    >>> recommender = MetaRecommender(dim=2, config=TrainingConfig(epochs=2))
    >>> _ = recommender.fit(data, progress=False)
    >>> me = recommender.adapt({3: 5.0, 10: 1.0})
    >>> list(me.recommend(n=3).columns)
    ['item_id', 'title', 'score']
    """

    # Of a training user the row where the copy of the item table without them begins.
    _own: Mapping[Any, int] = {}

    def __init__(
        self,
        model: str = "mf",
        meta: str = "maml",
        learner: str = "gradient",
        dim: int | None = None,
        config: TrainingConfig | None = None,
        reserved: int = 15,
        seed: int = 0,
        device: str | torch.device = "cpu",
        goal: str = "stars",
        **options: Any,
    ) -> None:
        self.system = systems.System(model, meta, learner, goal=goal, **options)
        dim = (16 if goal == "lists" else 8) if dim is None else dim
        self.config = config or systems.default_config(self.system, seed)
        check(dim=dim, reserved=reserved, seed=seed, config=self.config)
        try:
            self.device = torch.zeros(1, device=device).device
        except (AssertionError, RuntimeError, TypeError) as error:
            raise ValueError(f'device={device!r}: {error}; pass "cpu"') from error
        self.dim, self.reserved, self.seed = int(dim), int(reserved), int(seed)

    @one_thread()
    def fit(
        self,
        data: Any,
        users: Tensor | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = True,
        workers: Workers | None = None,
    ) -> Self:
        """Learn from ``users`` of ``data`` (all by default), a tenth for validation.

        Of a store no more than a chunk of users is in memory at once. With
        ``checkpoint`` an interrupted run goes on where it stopped; the item vectors are
        kept beside it, in a file of that name and ``.items``. ``workers`` share the
        meta-training (see ``scale.together``); each fits the item vectors.

        A warning says so if nothing can be learned, since all ratings are alike, or if
        nothing was: the validation users are predicted no better than by the biases
        (stars), by each item's share of likes (clicks) or by counting likes (lists).

        Parameters
        ----------
        data
            The ratings: what `rating_data` or `read_csv` made, a store, or a table (of
            pandas, polars or Arrow) or the name of a file that these take as it is.
        users
            Rows of ``data.users`` to learn from, shape (U,); all if not given. A tenth
            is for validation.
        checkpoint
            File in which an interrupted run goes on; none is written if not given.
        progress
            Whether to show a progress bar on a terminal.
        workers
            The processes that share the work; this one alone if not given.

        Returns
        -------
        MetaRecommender
            The fitted object.

        Raises
        ------
        ValueError
            If fewer than 20 users have more than ``reserved`` ratings, if the ratings
            cannot teach the goal (nobody likes anything, or there are no stars), or if
            what is kept belongs to another run.
        """
        goal = self.system.goal
        data = for_goal(as_ratings(data), goal)
        check(progress=progress, checkpoint=checkpoint)
        users = _as_users(users, data.n_users)
        names = data.users["user_id"].iloc[users.numpy()].tolist()
        # What cannot be saved is refused now, not when the work is done.
        files.as_json([data.items["item_id"].tolist(), names])
        histories = UserHistories(data, reserved=self.reserved, vocabulary=users)
        if (usable := len(histories.usable(users))) < 20:
            text = f"{usable} users have more than {self.reserved} ratings, it takes "
            raise ValueError(f"{text}at least 20: lower `reserved` or bring more users")
        train, validation = systems.hold_out(histories, users, self.seed)
        # Item vectors that know the validation users would flatter every epoch.
        others = users[~torch.isin(users, validation)]
        ends = [r.aminmax() for *_, r in histories.in_chunks(others) if len(r)]
        low, high = min(e.min for e in ends), max(e.max for e in ends)
        if low == high and goal != "lists":  # choices teach as well
            warnings.warn(f"all ratings are {low:g}: nothing to learn", stacklevel=3)
        if goal != "stars" and high < (like := data.scale.like):
            text = f"nothing is liked: no rating is {like:g} or more, on the scale "
            raise ValueError(f'{text}{data.scale}; say another, or goal="stars"')
        features = item_features(data)
        run = {} if checkpoint is None else self._run(histories, users, features)
        settings = self.dim, self.system.implicit, self.seed, progress
        start = partial(systems.item_vectors, histories, others, features, *settings)
        warm = files.kept_vectors(checkpoint, run, partial(start, goal=goal))
        parts = systems.Parts.of(histories, train, warm, features)
        sizes = [k for k in SUPPORT_SIZES if 0 < k <= self.reserved]

        def score(predictor: Predictor) -> float:
            return validation_score(predictor, histories, validation, sizes, goal)

        recipe = self.system, parts, histories, train, score, self.config, self.seed
        how = checkpoint, progress, workers, run, self.device
        meta = systems.fit_system(*recipe, *how, copies=True)
        self.scale, self.user_features = data.scale, histories.user_features
        count = histories.item_counts(others)
        items = data.items[["item_id", "title"]].assign(ratings=count.numpy())
        row = zip(names, warm.item_rows[users].tolist(), strict=True)
        self.serve(meta, items, parts.sizes)
        self._own = {name: at for name, at in row if at}
        if workers is None or workers.first:
            rival, named = _simplest(goal, histories, others, warm)
            if (own := score(self.meta)) >= (least := score(rival)):
                no_better = f"{own:.3f} is no better than {named}"
                warnings.warn(f"validation: {no_better}, {least:.3f}", stacklevel=3)
        return self

    def _run(
        self, histories: UserHistories, users: Tensor, features: Tensor
    ) -> dict[str, Any]:
        """All that a run rests on beside its config: another must not go on with it."""
        digest = hashlib.sha256(str(histories.scale).encode())
        known = [(users, histories.count(users), features, histories.profile)]
        for parts in chain(known, histories.in_chunks(users)):
            digest.update(b"".join(part.numpy().tobytes() for part in parts))
        run = self._settings() | {"ratings": digest.hexdigest()[:16]}
        return dict(files.of_json(files.as_json(run)))

    def _settings(self) -> dict[str, Any]:
        own = {"dim": self.dim, "seed": self.seed, "reserved": self.reserved}
        return asdict(self.system) | own

    def serve(
        self, meta: MetaLearner, items: pd.DataFrame, sizes: dict[str, int]
    ) -> None:
        """Take what was learned, here or by another process, as what adapts users.

        Parameters
        ----------
        meta
            The meta-learner, trained; its parameters are fixed from here on.
        items
            One row for each item: item_id, title and ratings, how many it has.
        sizes
            What a file must say beside the numbers, see `Parts.sizes`.
        """
        self._whole, self._sizes = meta.requires_grad_(False), sizes
        self._own, self._meta = {}, twin(meta)
        self.model.keep_first_copy()
        self.items = items.reset_index(drop=True)
        self._rows = {n: row for row, n in enumerate(self.items["item_id"].tolist())}

    @property
    def meta(self) -> MetaLearner:
        """The meta-learner, trained; raises ``RuntimeError`` before ``fit``.

        Raises
        ------
        RuntimeError
            Before ``fit``.
        """
        if not hasattr(self, "_meta"):
            raise RuntimeError("nothing is learned yet: call fit(data) or load(path)")
        return self._meta

    @property
    def model(self) -> RatingModel:
        """The map f that was meta-learned, with the item side that all users share."""
        model = self.meta.model
        assert isinstance(model, RatingModel)  # the build puts in nothing else
        return model

    def _serving(self, known: bool) -> Self:
        """The recommender as it is now, for new users or for those it was fitted on."""
        served = copy(self)  # another fit does not change who was adapted
        served._meta = self._whole if known else self.meta
        return served

    def adapt(
        self,
        ratings: Ratings = (),
        user: Known = None,
        unknown: str = "error",
        user_id: Any = None,
    ) -> PersonalModel:
        """Give the user of these ratings their own weights.

        No ratings give the prior: what is expected of somebody unknown. What is known
        of the user beside them is for models that look at it.

        The ratings of a training user have pulled the vectors of the very items that
        they rated, and say too much on them. Named by ``user_id``, they are adapted on
        the vectors that `cross_fit` made without them, as in meta-training; what they
        have not rated is scored on the vectors of all, as for anybody.

        Parameters
        ----------
        ratings
            Item_id to stars, a list of (item_id, stars), or a table with columns
            item_id and rating.
        user
            What is known of the user beside them, such as ``{"age": 24}``.
        unknown
            What becomes of an item that was not trained on: "error", or "ignore", which
            leaves its rating out with a warning.
        user_id
            The user's label in the training data; any other is somebody new.

        Returns
        -------
        PersonalModel
            The user's own model.

        Raises
        ------
        UnknownItemError
            For an item that was not trained on.
        ValueError
            For a rating off the scale, NaN, an item given twice, or a user column that
            was not in the training data.
        FloatingPointError
            In place of weights that are no numbers.
        """
        row = many.rows_of(self._own, [user_id]).clip(0)
        served = self._serving(bool(row.any()))
        given = many.user_ratings({None: ratings}, self._rows, self.scale, unknown)
        support = self._support(given.batch(np.arange(1), row), [user])
        weights = served.meta.adapt(support)
        many.finite(*weights.values())
        return PersonalModel(served, support, weights)

    @one_thread()
    def recommend_all(
        self,
        ratings: Mapping[Any, Ratings] | pd.DataFrame,
        n: int = 10,
        min_ratings: int = 0,
        users: Mapping[Any, Known] | None = None,
        progress: bool = True,
        unknown: str = "error",
        surprise: float = 0.0,
    ) -> pd.DataFrame:
        """Give each of many users their list: adapt and recommend, in batches.

        The lists are those of ``adapt(...).recommend(n, min_ratings, surprise)``, which
        says what kind of list each goal makes; `adapt` says what a user's label does.
        Columns:
        ``user_id``, rank (from 1), ``item_id``, title, score; users in the order in
        which they came. Memory does not grow with the users, the result apart.

        Parameters
        ----------
        ratings
            User to ratings as `adapt` takes them, or a table with columns user_id,
            item_id and rating.
        n
            Length of each list.
        min_ratings
            Least number of training ratings of an item on the list.
        users
            User to what is known of them beside the ratings.
        progress
            Whether to show a progress bar on a terminal.
        unknown
            As in `adapt`.
        surprise
            As in `PersonalModel.recommend`.

        Returns
        -------
        pd.DataFrame
            Columns user_id, rank, item_id, title and score.

        Raises
        ------
        UnknownItemError
            As in `adapt`; the message names the user.
        ValueError
            As in `adapt`; the message names the user.

        Built in
        --------
        many-users
        """
        model, items = self.model, self.items
        check(n=n, min_ratings=min_ratings, progress=progress, users=users)
        check(surprise=surprise)
        expected = self.expected(surprise)
        given = many.user_ratings(ratings, self._rows, self.scale, unknown)
        best = partial(many.best_unseen, items=items, n=n, min_ratings=min_ratings)
        row = many.rows_of(self._own, given.user).clip(0)
        nobody = best(torch.zeros(0, len(items)), given.batch(np.arange(0), row))
        lists = [pd.DataFrame(nobody)]
        wide = not isinstance(model, MatrixFactorization)
        bar = tqdm(total=len(given.user), unit="user", disable=not progress)
        for known in np.unique(row > 0):
            served, mine = self._serving(known), ((row > 0) == known).nonzero()[0]
            # Scores of a batch are forgotten once its lists are made.
            for first, last in many.user_batches(len(mine), len(items), wide):
                at = mine[first:last]
                described = [(users or {}).get(given.user[place]) for place in at]
                support = self._support(given.batch(at, row), described)
                weights = served.meta.adapt(support)
                scores = many.score_items(model, weights, support, None)
                own = best(scores.cpu() - expected, support)
                lists.append(pd.DataFrame(own | {"row": at[own["row"]]}))
                bar.update(last - first)
        bar.close()
        table = pd.concat(lists).sort_values("row", kind="stable", ignore_index=True)
        table["user_id"] = pd.Series(given.user).to_numpy()[table["row"]]
        return table[["user_id", "rank", "item_id", "title", "score"]]

    def expected(self, surprise: float = 1.0) -> Tensor:
        """What a list with this much surprise takes off each score, shape (I,).

        ``surprise`` times the score of an item for somebody of whom nothing is known.

        Parameters
        ----------
        surprise
            From 0 to 1.

        Returns
        -------
        Tensor
            What is taken off, shape (I,).
        """
        if not surprise:
            return torch.zeros(len(self.items))
        return surprise * self.adapt().score()

    def _support(self, ratings: Examples, known: list[Known]) -> Examples:
        """What the users in these places rated, with what is known of them."""
        for user in known:
            check(user=user)
        profile = torch.cat(list(map(self.user_features.encode_one, known)))
        return replace(ratings, profile=profile).like(self.model.head)

    def indices(self, labels: Sequence[Any]) -> list[int]:
        """Rows of the given item labels; raises `UnknownItemError` for others.

        Parameters
        ----------
        labels
            Labels of items (item_id).

        Returns
        -------
        list[int]
            The rows.

        Raises
        ------
        UnknownItemError
            For a label that was not trained on.
        """
        rows = many.rows_of(self._rows, labels)
        if (bad := rows < 0).any():
            raise many.unknown_item(self._rows, labels, bad)
        return list(map(int, rows))

    def save(self, path: str | Path) -> None:
        """Write everything that ``adapt`` needs into one file, aside, then renamed.

        That is no rating, but the labels of the training users: see `adapt`.

        Parameters
        ----------
        path
            The file to write.

        Raises
        ------
        IsADirectoryError
            For a folder.
        """
        check(path=path)
        # The copies of the item table for training users as well.
        state = self.meta.state_dict() | self._whole.state_dict()
        known = "config", "scale", "user_features"
        about: dict[str, Any] = {name: asdict(getattr(self, name)) for name in known}
        about |= {"settings": self._settings(), "sizes": self._sizes}
        about["items"] = self.items[["item_id", "title"]].to_dict(orient="list")
        about["own"] = list(self._own.items())
        state["count"] = torch.tensor(self.items["ratings"].to_numpy())
        files.write_file(path, about, state)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Read what ``save`` wrote, also by version 0.1.

        Parameters
        ----------
        path
            The file.
        device
            Where it adapts, such as "cuda", wherever it was fitted.

        Returns
        -------
        MetaRecommender
            The recommender.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no recommender of this version.
        """
        check(path=path)
        try:
            about, tensors = files.read_file(path)
            config = TrainingConfig(**about["config"])
            self = cls(config=config, device=device, **about["settings"])
            known = about["user_features"].items()
            self.user_features = UserFeatures(**{n: tuple(v) for n, v in known})
            self.scale = RatingScale(**about["scale"])
            items = about["items"]
            items["item_id"] = list(map(files.label_of, items["item_id"]))
            items = pd.DataFrame(items).assign(ratings=tensors.pop("count").numpy())
            own = {files.label_of(name): at for name, at in about.get("own", ())}
            parts = systems.Parts.blank(about["sizes"], self.scale.like)
            meta = systems.build_system(self.system, parts, self.seed)
            meta.load_state_dict(tensors)
        except (LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{path} is damaged: {error!r}") from error
        self.serve(meta.to(self.device), items, about["sizes"])
        self._own = own
        return self


def _simplest(
    goal: str, histories: UserHistories, users: Tensor, warm: WarmStart
) -> tuple[Predictor, str]:
    """What a system has to beat to have learned anything, and its name."""
    if goal == "lists":
        return ItemMean(warm.offset), "counting likes"
    if goal == "clicks":
        return ItemMean.fit(histories.likes(), users), "an item's share of likes"
    return UserItemBias.fit(histories, users), "item and user biases"


def _as_users(users: Any, n_users: int) -> Tensor:
    """Rows of users, checked; all of them for None."""
    rows = np.arange(n_users) if users is None else np.asarray(users)
    right = rows.ndim == 1 and rows.dtype.kind in "iu"
    if not right or len(np.intersect1d(rows, np.arange(n_users))) < len(rows):
        text = f"users={users!r:.60} is no choice: pass rows of data.users, 0 to "
        raise ValueError(f"{text}{n_users - 1}, each once, as torch.arange({n_users})")
    return torch.from_numpy(rows.astype(np.int64))
