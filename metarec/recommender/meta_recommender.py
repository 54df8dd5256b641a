"""The full system: fit on many users, meet a new one, adapt, recommend, explain."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from metarec.data import RatingColumns, RatingData, RatingScale
from metarec.evaluation import validation_score
from metarec.factors import GaussianFactorModel, WarmStart, cross_fit
from metarec.features import UserFeatures, item_features
from metarec.learners import Bayesian, Parameters, likelihood_of, predict
from metarec.meta import MAML
from metarec.models import MatrixFactorization, RatingModel
from metarec.recommender.many import best_items, blocks, score_all, user_ratings
from metarec.systems import Parts, System, build_system, default_config
from metarec.tasks import SUPPORT_SIZES, Examples, TaskSampler, UserHistories
from metarec.training import TrainingConfig, Workers, meta_train, save_aside

__all__ = ["MetaRecommender", "PersonalModel", "UnknownItemError"]

_FORMAT = "metarec recommender 2"

Ratings = Mapping[Any, float] | Iterable[tuple[Any, float]] | pd.DataFrame


class UnknownItemError(KeyError):
    """An item that the recommender was not trained on.

    Plumbing: raised by `MetaRecommender.adapt` and `PersonalModel.predict`.
    """

    def __str__(self) -> str:
        """Give the message without the quotes that ``KeyError`` puts around it."""
        return str(self.args[0])


class MetaRecommender:
    """A recommender that meets a new user with a prior and a few of their ratings.

    ``model``, ``meta`` and ``learner`` name the three maps (see `systems.System`, which
    any of the further ``options`` go to: implicit, full, steps). ``fit`` meta-learns
    the prior on item vectors of the `GaussianFactorModel`; ``adapt`` turns a user's
    ratings into their own `PersonalModel`. The recommender does not change when it
    adapts, so any number of users (and threads) may share one.

    ``dim`` is the length of the item vectors, ``config`` the outer loop's settings
    (those of `systems.default_config` if not given), ``reserved`` the ratings of each
    user from which supports are drawn in training (K is at most that) and ``seed``
    fixes everything that is drawn.

    Raises ``ValueError`` for parts that do not exist or do not fit together.
    Built in: full-system
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

    def fit(
        self,
        data: RatingData | RatingColumns,
        users: Tensor | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = True,
        workers: Workers | None = None,
    ) -> Self:
        """Learn from ``users`` of ``data`` (all by default), a tenth for validation.

        Of a `scale.RatingStore` no more than a chunk of users is in memory at once.
        With ``checkpoint`` an interrupted run goes on where it stopped; the item
        vectors are kept beside it, in a file of that name and ``.items``. ``workers``
        share the meta-training (see `scale.together`); each fits the item vectors.
        Raises ``ValueError`` if fewer than 20 users have more than ``reserved``
        ratings, or what is kept belongs to another run.
        """
        workers = Workers() if workers is None else workers
        users = torch.arange(data.n_users) if users is None else users
        histories = UserHistories(data, reserved=self.reserved, vocabulary=users)
        usable = histories.usable(users)
        if len(usable) < 20:
            raise ValueError(
                f"{len(usable)} users have more than {self.reserved} ratings, and "
                "meta-learning needs at least 20: lower `reserved` or bring more users"
            )
        generator = torch.Generator().manual_seed(self.seed)
        order = usable[torch.randperm(len(usable), generator=generator)]
        validation, train = order.split(
            [len(order) // 10, len(order) - len(order) // 10]
        )
        others = users[~torch.isin(users, validation)]
        features = item_features(data)
        warm = self._item_vectors(histories, others, features, checkpoint, progress)
        parts = Parts.of(histories, train, warm, features)
        meta = build_system(self.system, parts, self.seed)
        sizes = [k for k in SUPPORT_SIZES if 0 < k <= self.reserved]
        meta_train(
            meta,
            TaskSampler(
                histories, train, sizes, item_rows=warm.item_rows, part=workers.part
            ),
            lambda: validation_score(meta, histories, validation, sizes),
            self.config,
            checkpoint,
            progress,
            workers,
        )
        self._model(meta).keep_first_copy()
        count = histories.item_counts(others)
        self._set(meta, data.items[["item_id", "title"]], count)
        self.scale, self.user_features = data.scale, histories.user_features
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
        path = None if checkpoint is None else Path(f"{checkpoint}.items")
        run = self._run_of(histories, users)
        if path is not None and path.exists():
            return _read_items(path, run)
        model = GaussianFactorModel.fit(
            histories, users, self.dim, features, seed=self.seed, progress=progress
        )
        if self.system.implicit:
            model.learn_implicit(histories, users, seed=self.seed)
        warm = cross_fit(model, histories, users, seed=self.seed, progress=progress)
        if path is not None:
            save_aside(path, partial(torch.save, {"run": run} | vars(warm)))
        return warm

    def _run_of(self, histories: UserHistories, users: Tensor) -> str:
        """What the item vectors depend on, as one line."""
        digest = hashlib.sha256(users.numpy().tobytes())
        for _, _, item, rating in histories.in_chunks(users):
            digest.update(item.numpy().tobytes() + rating.numpy().tobytes())
        settings = f"dim={self.dim}, seed={self.seed}, implicit={self.system.implicit}"
        return f"{settings}, ratings {digest.hexdigest()[:16]}"

    @staticmethod
    def _model(meta: MAML) -> RatingModel:
        """Narrow the type: `build_system` puts in nothing else."""
        assert isinstance(meta.model, RatingModel)
        return meta.model

    def _set(self, meta: MAML, items: pd.DataFrame, count: Tensor) -> None:
        self._meta = meta.requires_grad_(False)
        self.items = items.assign(ratings=count.numpy()).reset_index(drop=True)
        self._index = {label: i for i, label in enumerate(items["item_id"].tolist())}

    @property
    def meta(self) -> MAML:
        """The meta-learner, trained; raises ``RuntimeError`` before ``fit``."""
        if not hasattr(self, "_meta"):
            raise RuntimeError("nothing is learned yet: call fit(data) or load(path)")
        return self._meta

    def adapt(
        self, ratings: Ratings = (), user: Mapping[str, Any] | None = None
    ) -> PersonalModel:
        """Give the user of these ratings their own weights.

        ``ratings`` maps item_id to stars, or is a list of (item_id, stars), or a table
        with columns item_id and rating. No ratings give the prior: what is expected of
        somebody unknown. ``user`` says what is known beside them, such as
        ``{"age": 24}``, for models that look at it. Raises `UnknownItemError` for an
        item that was not trained on and ``ValueError`` for a rating off the scale, NaN,
        an item given twice, or a ``user`` column that was not in the training data.
        """
        meta = self.meta
        pairs = _as_pairs(ratings)
        items = self.indices([label for label, _ in pairs])
        if len(set(items)) < len(items):
            twice = next(
                label for label, _ in pairs if items.count(self._index[label]) > 1
            )
            raise ValueError(f"item {twice!r} is rated twice: keep one of the ratings")
        for label, stars in pairs:
            if math.isnan(stars) or not self.scale.low <= stars <= self.scale.high:
                raise ValueError(
                    f"the rating {stars} of item {label!r} is not on the scale "
                    f"{self.scale.low:g} to {self.scale.high:g}"
                )
        profile = self.user_features.encode_one(user)
        support = _one_task(items, [stars for _, stars in pairs], profile)
        return PersonalModel(self, support, meta.adapt(support))

    def recommend_all(
        self,
        ratings: Mapping[Any, Ratings] | pd.DataFrame,
        n: int = 10,
        min_ratings: int = 0,
        users: Mapping[Any, Mapping[str, Any]] | None = None,
        progress: bool = True,
    ) -> pd.DataFrame:
        """Give each of many users their list: adapt and recommend, in batches.

        ``ratings`` maps each user to ratings as `adapt` takes them, or is a table with
        columns user_id, item_id and rating; ``users`` maps a user to what is known
        beside them. The lists are those of ``adapt(...).recommend(n, min_ratings)``.
        Columns: user_id, rank (from 1), item_id, title, score; users in the order in
        which they came. Memory does not grow with the users, the result apart.

        Raises as `adapt` does, and names the user of a rating that is wrong.
        Built in: many-users
        """
        meta, users = self.meta, users or {}
        if isinstance(ratings, pd.DataFrame):
            _check_columns(ratings, {"user_id", "item_id", "rating"})
            table: pd.DataFrame | dict[Any, Any] = ratings
        else:
            table = {user: _as_pairs(own) for user, own in ratings.items()}
        labels = pd.Index(self.items["item_id"])
        try:
            given = user_ratings(table, labels, self.scale)
        except KeyError as error:
            self.indices(error.args)
            raise
        rare = self.items["ratings"].to_numpy() < min_ratings
        model, none = self._model(meta), np.zeros(0, np.int64)
        found = [(none, none, none, none.astype(np.float32))]
        wide = not isinstance(model, MatrixFactorization)
        bar = tqdm(total=len(given.user), unit="user", disable=not progress)
        for first, last in blocks(len(given.user), len(labels), wide):
            profile = torch.zeros(last - first, len(self.user_features.names))
            for at, label in enumerate(given.user[first:last]):
                if label in users:
                    profile[at] = self.user_features.encode_one(users[label])
            support = given.batch(first, last, profile)
            with torch.no_grad():
                weights = meta.adapt(support)
                score = score_all(model, weights, support, len(labels)).numpy()
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

    def indices(self, labels: Sequence[Any]) -> list[int]:
        """Rows of the given item labels; raises `UnknownItemError` for others."""
        unknown = [label for label in labels if label not in self._index]
        if unknown:
            example = next(iter(self._index))
            raise UnknownItemError(
                f"unknown item {unknown[0]!r} ({len(unknown)} in all): items are named "
                f"by the item_id of the training data, such as {example!r}; leave "
                "unknown ones out or fit again with data that hold them"
            )
        return [self._index[label] for label in labels]

    def save(self, path: str | Path) -> None:
        """Write everything that ``adapt`` needs into one file, aside, then renamed."""
        meta = self.meta
        about = {
            "format": _FORMAT,
            "settings": asdict(self.system)
            | {"dim": self.dim, "seed": self.seed, "reserved": self.reserved},
            "config": asdict(self.config),
            "scale": asdict(self.scale),
            "user_features": asdict(self.user_features),
            "items": self.items[["item_id", "title"]].to_dict(orient="list"),
        }
        tensors = {
            name: value.contiguous() for name, value in meta.state_dict().items()
        }
        tensors["count"] = torch.tensor(self.items["ratings"].to_numpy())
        text = {"metarec": json.dumps(about, default=_plain)}
        save_aside(Path(path), partial(save_file, tensors, metadata=text))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote.

        Raises ``FileNotFoundError`` if there is no such file and ``ValueError`` if it
        is no recommender of this version.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}: save(path) writes one")
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {}).get("metarec", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path} is no saved recommender: {error}") from error
        if about.get("format") != _FORMAT:
            raise ValueError(
                f"{path} is no saved recommender of this version: it calls itself "
                f"{about.get('format')!r}, not {_FORMAT!r}"
            )
        self = cls(config=TrainingConfig(**about["config"]), **about["settings"])
        count = tensors.pop("count")
        known = about["user_features"]
        self.user_features = UserFeatures(tuple(known["names"]), tuple(known["mean"]))
        self.scale = RatingScale(**about["scale"])
        meta = build_system(self.system, Parts.from_state(tensors), self.seed)
        meta.load_state_dict(tensors)
        self._set(meta, pd.DataFrame(about["items"]), count)
        return self


@dataclass(frozen=True)
class PersonalModel:
    """One user's own model: the shared item side and the weights learned for them.

    Built in: full-system
    """

    recommender: MetaRecommender
    support: Examples
    weights: Parameters

    @property
    def head(self) -> Tensor:
        """The user's own w, shape (D,)."""
        return self.weights["head"][0]

    def score(self, items: Tensor | None = None) -> Tensor:
        """Unclipped scores of the given rows of the item table, or of all: (N,)."""
        meta = self.recommender.meta
        if items is None:
            items = torch.arange(len(self.recommender.items))
        with torch.no_grad():
            score = predict(meta.model, self.weights, items[None], self.support.profile)
        return likelihood_of(meta.model).mean(score)[0]

    @overload
    def predict(
        self, item_ids: Sequence[Any] | None = None, return_std: Literal[False] = False
    ) -> np.ndarray: ...

    @overload
    def predict(
        self, item_ids: Sequence[Any] | None = None, *, return_std: Literal[True]
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def predict(
        self, item_ids: Sequence[Any] | None = None, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Predicted stars, clipped to the scale, of the given items or of all.

        ``return_std`` adds the standard deviation of a rating around its unclipped
        prediction, what is not known of the user and the noise together. Raises
        ``ValueError`` if the task-learner has no posterior.
        """
        known, scale = self.recommender, self.recommender.scale
        labels = known.items["item_id"].tolist() if item_ids is None else item_ids
        items = torch.tensor(known.indices(labels), dtype=torch.long)
        stars = self.score(items).clamp(scale.low, scale.high).numpy()
        if not return_std:
            return stars
        learner, model = known.meta.learner, known._model(known.meta)
        if not isinstance(learner, Bayesian):
            raise ValueError(
                f"{known.system} has no posterior, hence no standard deviation: fit "
                'a MetaRecommender(learner="bayesian") for one'
            )
        prior = known.meta.prior(self.support)
        with torch.no_grad():
            _, variance = learner.predictive(model, prior, self.support, items[None])
        return stars, variance[0].sqrt().numpy()

    def recommend(self, n: int = 10, min_ratings: int = 0) -> pd.DataFrame:
        """The ``n`` items with the highest score that the user has not rated.

        ``min_ratings`` leaves out items that fewer training users rated: their means
        are the least certain. Columns: item_id, title, score (unclipped, so that order
        survives at the end of the scale), best first.
        """
        items = self.recommender.items
        scores = self.score().numpy()
        allowed = items["ratings"].to_numpy() >= min_ratings
        allowed[self.support.x[self.support.mask].numpy()] = False
        *_, top = best_items(np.where(allowed, scores, -np.inf)[None], n)
        columns = {name: items[name].to_numpy()[top] for name in ("item_id", "title")}
        return pd.DataFrame(columns | {"score": scores[top]})

    def explain(self, item_id: Any) -> pd.DataFrame:
        """What each rating did to the score of one item, by leaving it out.

        The user is adapted again with each rating left out, all at once. ``effect`` is
        the score with all ratings less the score without this one, in stars; the
        strongest comes first. Effects need not add up: ratings share what they tell.
        """
        (index,) = self.recommender.indices([item_id])
        items, n = self.recommender.items, int(self.support.mask.sum())
        rated, stars = self.support.x[0, :n], self.support.y[0, :n]
        profile = self.support.profile
        without = Examples(
            x=rated.expand(n, n),
            y=stars.expand(n, n),
            mask=~torch.eye(n, dtype=torch.bool),
            profile=None if profile is None else profile.expand(n, -1),
        )
        effect = np.zeros(0)
        if n:
            query = torch.full((n, 1), index)
            with torch.no_grad():
                left = self.recommender.meta.predict(without, query)[:, 0]
            effect = (self.score(torch.tensor([index])) - left).numpy()
        table = items.loc[rated.numpy(), ["item_id", "title"]].reset_index(drop=True)
        table = table.assign(rating=stars.numpy(), effect=effect)
        order = np.argsort(-np.abs(effect), kind="stable")
        return table.loc[order].reset_index(drop=True)


def _one_task(items: list[int], stars: list[float], profile: Tensor) -> Examples:
    """A batch of one support set; an empty one is a single masked place."""
    n = len(items)
    return Examples(
        profile=profile,
        x=torch.tensor([items or [0]]),
        y=torch.tensor([stars or [0.0]]),
        mask=torch.full((1, max(n, 1)), n > 0),
    )


def _as_pairs(ratings: Ratings) -> list[tuple[Any, float]]:
    if isinstance(ratings, pd.DataFrame):
        _check_columns(ratings, {"item_id", "rating"})
        return list(
            zip(ratings["item_id"].tolist(), map(float, ratings["rating"]), strict=True)
        )
    pairs = ratings.items() if isinstance(ratings, Mapping) else ratings
    return [(label, float(stars)) for label, stars in pairs]


def _check_columns(table: pd.DataFrame, needed: set[str]) -> None:
    if missing := needed - set(table.columns):
        raise ValueError(
            f"the table of ratings has no column {sorted(missing)}; it has "
            f"{list(table.columns)}: rename its columns to "
            f"{' and '.join(sorted(needed))}"
        )


def _read_items(path: Path, run: str) -> WarmStart:
    """Load item vectors, refusing those of another run."""
    try:
        kept = torch.load(path, weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} holds no item vectors that can be read ({error}); delete it and "
            "its checkpoint to start afresh"
        ) from error
    if kept.pop("run", None) != run:
        raise ValueError(
            f"{path} was written by another run or for other ratings; delete it and "
            "its checkpoint to start afresh, or name another checkpoint"
        )
    return WarmStart(**kept)


def _plain(value: Any) -> Any:
    """Turn numpy's numbers into Python's, for JSON."""
    return value.item()
