"""The full system: fit on many users, meet a new one or many, save and load."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from metarec.data import RatingColumns, RatingData, RatingScale
from metarec.factors import WarmStart
from metarec.features import UserFeatures, item_features
from metarec.meta import MetaLearner
from metarec.models import MatrixFactorization, RatingModel
from metarec.recommender.files import kept_vectors, read_file, write_file
from metarec.recommender.many import (
    UserRatings,
    best_items,
    score_all,
    user_batches,
    user_ratings,
)
from metarec.recommender.personal import PersonalModel
from metarec.systems import (
    Parts,
    System,
    build_system,
    default_config,
    fit_system,
    hold_out,
    item_vectors,
)
from metarec.tasks import SUPPORT_SIZES, UserHistories, one_thread
from metarec.training import TrainingConfig, Workers
from metarec.validation import validation_score

Ratings = Mapping[Any, float] | Iterable[tuple[Any, float]] | pd.DataFrame


class UnknownItemError(KeyError):
    """An item that the recommender was not trained on.

    Plumbing
    --------
    Raised by `MetaRecommender.adapt` and `PersonalModel.predict`.
    """

    def __str__(self) -> str:
        """Give the message without the quotes that ``KeyError`` puts around it."""
        return str(self.args[0])


class MetaRecommender:
    """A recommender that meets a new user with a prior and a few of their ratings.

    The names of the three maps are those of `System`. ``fit`` meta-learns the prior on
    item vectors of the `GaussianFactorModel`; ``adapt`` turns a user's ratings into
    their own `PersonalModel`. The recommender does not change when it adapts, so any
    number of users (and threads) may share one.

    Parameters
    ----------
    model
        Name of the recommender, one of `MODELS`.
    meta
        Name of the meta-learner, one of `METAS`.
    learner
        Name of the task-learner, one of `LEARNERS`.
    dim
        Length of an item vector.
    config
        Settings of the outer loop; those of `default_config` if not given.
    reserved
        Ratings of a user from which the support is cut: K is at most that.
    seed
        Seed of everything that is drawn.
    **options
        Further settings of `System`: implicit, full, steps.

    Raises
    ------
    ValueError
        For parts that do not exist or do not fit together.

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

    def __init__(
        self,
        model: str = "mf",
        meta: str = "maml",
        learner: str = "gradient",
        dim: int = 8,
        config: TrainingConfig | None = None,
        reserved: int = 15,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.system = System(model, meta, learner, **options)
        self.dim = dim
        self.config = default_config(self.system, seed) if config is None else config
        self.reserved = reserved
        self.seed = seed

    @one_thread()
    def fit(
        self,
        data: RatingData | RatingColumns,
        users: Tensor | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = True,
        workers: Workers | None = None,
    ) -> Self:
        """Learn from ``users`` of ``data`` (all by default), a tenth for validation.

        Of a `RatingStore` no more than a chunk of users is in memory at once. With
        ``checkpoint`` an interrupted run goes on where it stopped; the item vectors are
        kept beside it, in a file of that name and ``.items``. ``workers`` share the
        meta-training (see ``scale.together``); each fits the item vectors.

        Parameters
        ----------
        data
            The ratings.
        users
            Users to learn from, shape (U,); all if not given. A tenth is for
            validation.
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
            If fewer than 20 users have more than ``reserved`` ratings, or what is kept
            belongs to another run.
        """
        users = torch.arange(data.n_users) if users is None else users
        histories = UserHistories(data, reserved=self.reserved, vocabulary=users)
        if (usable := len(histories.usable(users))) < 20:
            raise ValueError(
                f"{usable} users have more than {self.reserved} ratings, and "
                "meta-learning needs at least 20: lower `reserved` or bring more users"
            )
        train, validation = hold_out(histories, users, self.seed)
        # Item vectors that know the validation users would flatter every epoch.
        others = users[~torch.isin(users, validation)]
        features = item_features(data)
        warm = self._item_vectors(histories, others, features, checkpoint, progress)
        parts = Parts.of(histories, train, warm, features)
        sizes = [k for k in SUPPORT_SIZES if 0 < k <= self.reserved]
        judge = partial(validation_score, histories=histories, users=validation)
        score = partial(judge, sizes=sizes)
        fit = partial(fit_system, self.system, parts, histories, train, score)
        meta = fit(self.config, self.seed, checkpoint, progress, workers)
        self.scale, self.user_features = data.scale, histories.user_features
        count = histories.item_counts(others)
        items = data.items[["item_id", "title"]].assign(ratings=count.numpy())
        self.serve(meta, items, parts.sizes)
        return self

    def _item_vectors(
        self,
        histories: UserHistories,
        users: Tensor,
        features: Tensor,
        checkpoint: str | Path | None,
        progress: bool,
    ) -> WarmStart:
        """Fit the item vectors, or read them where an interrupted run left them."""
        implicit = self.system.implicit
        settings = self.dim, implicit, self.seed, progress
        fit = partial(item_vectors, histories, users, features, *settings)
        if checkpoint is None:
            return fit()
        # All that the vectors depend on, in one line: another run must not read them.
        digest = hashlib.sha256(users.numpy().tobytes())
        for _, _, item, rating in histories.in_chunks(users):
            digest.update(item.numpy().tobytes() + rating.numpy().tobytes())
        run = f"dim={self.dim}, seed={self.seed}, implicit={implicit}, "
        run += digest.hexdigest()[:16]
        return kept_vectors(Path(f"{checkpoint}.items"), run, fit)

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
        self._meta, self._sizes = meta.requires_grad_(False), sizes
        self.items = items.reset_index(drop=True)
        self._labels = pd.Index(self.items["item_id"])

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

    def adapt(
        self, ratings: Ratings = (), user: Mapping[str, Any] | None = None
    ) -> PersonalModel:
        """Give the user of these ratings their own weights.

        No ratings give the prior: what is expected of somebody unknown. What is known
        of the user beside them is for models that look at it.

        Parameters
        ----------
        ratings
            Item_id to stars, a list of (item_id, stars), or a table with columns
            item_id and rating.
        user
            What is known of the user beside them, such as ``{"age": 24}``.

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
        """
        meta = self.meta
        given = self._checked({None: _as_pairs(ratings)})
        support = given.batch(0, 1, self.user_features.encode_one(user))
        return PersonalModel(self, support, meta.adapt(support))

    @one_thread()
    def recommend_all(
        self,
        ratings: Mapping[Any, Ratings] | pd.DataFrame,
        n: int = 10,
        min_ratings: int = 0,
        users: Mapping[Any, Mapping[str, Any]] | None = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """Give each of many users their list: adapt and recommend, in batches.

        The lists are those of ``adapt(...).recommend(n, min_ratings)``. Columns:
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
        meta, users = self.meta, users or {}
        if isinstance(ratings, pd.DataFrame):
            _check_columns(ratings, {"user_id", "item_id", "rating"})
            table: pd.DataFrame | dict[Any, Any] = ratings
        else:
            table = {user: _as_pairs(own) for user, own in ratings.items()}
        given = self._checked(table)
        # Few ratings make a mean that is high by chance: -inf keeps it off the list.
        rare = self.items["ratings"].to_numpy() < min_ratings
        model, none = self.model, np.zeros(0, np.int64)
        found = [(none, none, none, none.astype(np.float32))]
        wide = not isinstance(model, MatrixFactorization)
        bar = tqdm(total=len(given.user), unit="user", disable=not progress)
        # Scores of a batch are forgotten once its lists are made.
        for first, last in user_batches(len(given.user), len(self.items), wide):
            profile = torch.zeros(last - first, len(self.user_features.names))
            for at, label in enumerate(given.user[first:last]):
                if label in users:
                    profile[at] = self.user_features.encode_one(users[label])
            support = given.batch(first, last, profile)
            with torch.no_grad():
                weights = meta.adapt(support)
                score = score_all(model, weights, support, len(self.items)).numpy()
            score[:, rare] = -np.inf
            rated = support.mask.numpy()
            score[np.nonzero(rated)[0], support.x.numpy()[rated]] = -np.inf
            row, rank, item = best_items(score, n)
            found.append((row + first, rank + 1, item, score[row, item]))
            bar.update(last - first)
        bar.close()
        user, rank, item, score = map(np.concatenate, zip(*found, strict=True))
        columns = {"user_id": pd.Index(given.user).to_numpy()[user], "rank": rank}
        for name in ("item_id", "title"):
            columns[name] = self.items[name].to_numpy()[item]
        return pd.DataFrame(columns | {"score": score})

    def _checked(
        self, ratings: Mapping[Any, list[tuple[Any, float]]] | pd.DataFrame
    ) -> UserRatings:
        try:
            return user_ratings(ratings, self._labels, self.scale)
        except KeyError as error:
            self.indices(error.args)  # raises, with all that is wrong
            raise

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
        rows = self._labels.get_indexer(pd.Index(labels, dtype=object))
        unknown = [label for label, row in zip(labels, rows, strict=True) if row < 0]
        if unknown:
            example = self.items["item_id"].tolist()[0]
            raise UnknownItemError(
                f"unknown item {unknown[0]!r} ({len(unknown)} in all): items are named "
                f"by the item_id of the training data, such as {example!r}; leave "
                "unknown ones out or fit again with data that hold them"
            )
        return [int(row) for row in rows]

    def save(self, path: str | Path) -> None:
        """Write everything that ``adapt`` needs into one file, aside, then renamed.

        Parameters
        ----------
        path
            The file to write.
        """
        about = {
            "settings": asdict(self.system)
            | {"dim": self.dim, "seed": self.seed, "reserved": self.reserved},
            "config": asdict(self.config),
            "scale": asdict(self.scale),
            "user_features": asdict(self.user_features),
            "items": self.items[["item_id", "title"]].to_dict(orient="list"),
            "sizes": self._sizes,
        }
        count = torch.tensor(self.items["ratings"].to_numpy())
        write_file(path, about, self.meta.state_dict() | {"count": count})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote, also by version 0.1.

        Parameters
        ----------
        path
            The file.

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
        about, tensors = read_file(path)
        self = cls(config=TrainingConfig(**about["config"]), **about["settings"])
        known = about["user_features"]
        self.user_features = UserFeatures(tuple(known["names"]), tuple(known["mean"]))
        self.scale = RatingScale(**about["scale"])
        items = pd.DataFrame(about["items"])
        items["ratings"] = tensors.pop("count").numpy()
        meta = build_system(self.system, Parts.blank(about["sizes"]), self.seed)
        meta.load_state_dict(tensors)
        self.serve(meta, items, about["sizes"])
        return self


def _as_pairs(ratings: Ratings) -> list[tuple[Any, float]]:
    if isinstance(ratings, pd.DataFrame):
        _check_columns(ratings, {"item_id", "rating"})
        ratings = zip(ratings["item_id"].tolist(), ratings["rating"], strict=True)
    pairs = ratings.items() if isinstance(ratings, Mapping) else ratings
    return [(label, float(stars)) for label, stars in pairs]


def _check_columns(table: pd.DataFrame, needed: set[str]) -> None:
    if missing := needed - set(table.columns):
        raise ValueError(
            f"the table of ratings has no column {sorted(missing)}; it has "
            f"{list(table.columns)}: rename its columns to "
            f"{' and '.join(sorted(needed))}"
        )
