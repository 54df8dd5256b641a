"""The full system: fit on many users, meet a new one, adapt, recommend, explain."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metarec.baselines import GaussianFactorModel, cross_fit
from metarec.data import RatingData, RatingScale
from metarec.evaluation import validation_score
from metarec.features import item_features
from metarec.learners import GradientDescent
from metarec.meta import MAML
from metarec.models import MatrixFactorization
from metarec.tasks import SUPPORT_SIZES, Examples, TaskSampler, UserHistories
from metarec.training import TrainingConfig, meta_train, save_aside

__all__ = ["MetaRecommender", "PersonalModel", "UnknownItemError"]

_FORMAT = "metarec recommender 1"

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

    ``fit`` meta-learns theta_0 and alpha by `MAML` on item vectors of the
    `GaussianFactorModel`; ``adapt`` takes T inner steps on a user's ratings and returns
    that user's own `PersonalModel`. The recommender does not change when it adapts, so
    any number of users (and threads) may share one.

    ``dim`` is the length of the item vectors, ``steps`` is T, ``config`` the outer
    loop's, ``reserved`` the ratings of each user from which supports are drawn in
    training (K is at most that) and ``seed`` fixes everything that is drawn.

    Built in: full-system
    """

    def __init__(
        self,
        dim: int = 8,
        steps: int = 5,
        config: TrainingConfig | None = None,
        reserved: int = 15,
        seed: int = 0,
    ) -> None:
        self.dim = dim
        self.steps = steps
        self.config = TrainingConfig(seed=seed) if config is None else config
        self.reserved = reserved
        self.seed = seed

    def fit(
        self,
        data: RatingData,
        users: Tensor | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = True,
    ) -> Self:
        """Learn from ``users`` of ``data`` (all by default), a tenth for validation.

        With ``checkpoint`` an interrupted run goes on where it stopped. Raises
        ``ValueError`` if fewer than 20 users have more than ``reserved`` ratings.
        """
        histories = UserHistories(data, reserved=self.reserved)
        users = torch.arange(data.n_users) if users is None else users
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
        factor_model = GaussianFactorModel.fit(
            histories, others, self.dim, item_features(data), seed=self.seed
        )
        warm = cross_fit(factor_model, histories, others, seed=self.seed)
        model = MatrixFactorization.from_items(warm.factors, warm.offset)
        with torch.no_grad():
            model.head[-1] = warm.mean_bias
        meta = self._maml(model)
        sizes = [k for k in SUPPORT_SIZES if 0 < k <= self.reserved]
        meta_train(
            meta,
            TaskSampler(histories, train, sizes, item_rows=warm.item_rows),
            lambda: validation_score(meta, histories, validation, sizes),
            self.config,
            checkpoint,
            progress,
        )
        # New users need the first copy of the item table alone.
        n = data.n_items
        self._learned = MatrixFactorization.from_items(
            model.item_factors[:n], model.item_offset[:n]
        )
        self._learned.head.data.copy_(model.head.data)
        self._meta = self._maml(self._learned)
        self._meta.log_scale.data.copy_(meta.log_scale.data)
        _, item, _ = histories.ratings_of(others)
        count = torch.bincount(item, minlength=data.n_items)
        self._set_items(data.items[["item_id", "title"]], count, data.scale)
        return self

    def _maml(self, model: MatrixFactorization) -> MAML:
        return MAML(model, GradientDescent(self.steps), adapt=["head"])

    def _set_items(
        self, items: pd.DataFrame, count: Tensor, scale: RatingScale
    ) -> None:
        self.items = items.assign(ratings=count.numpy()).reset_index(drop=True)
        self.scale = scale
        self._index = {label: i for i, label in enumerate(items["item_id"].tolist())}

    @property
    def meta(self) -> MAML:
        """The meta-learner, trained; raises ``RuntimeError`` before ``fit``."""
        if not hasattr(self, "_meta"):
            raise RuntimeError("nothing is learned yet: call fit(data) or load(path)")
        return self._meta

    def score_all(self, head: Tensor) -> Tensor:
        """Unclipped scores (n_items,) of every item for one user's head (dim + 1,)."""
        model = self._learned
        with torch.no_grad():
            return torch.addmv(
                model.item_offset + head[-1], model.item_factors, head[:-1]
            )

    def adapt(self, ratings: Ratings = ()) -> PersonalModel:
        """Give the user of these ratings their own weights.

        ``ratings`` maps item_id to stars, or is a list of (item_id, stars), or a table
        with columns item_id and rating. No ratings give the prior: what is expected of
        somebody unknown. Raises `UnknownItemError` for an item that was not trained on
        and ``ValueError`` for a rating off the scale, NaN, or an item given twice.
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
        support = _one_task(items, [stars for _, stars in pairs])
        with torch.no_grad():
            head = meta.adapt(support)["head"][0]
        return PersonalModel(self, support, head)

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
            "settings": {"dim": self.dim, "steps": self.steps, "seed": self.seed}
            | {"reserved": self.reserved, "config": asdict(self.config)},
            "scale": asdict(self.scale),
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
        settings = about["settings"]
        config = TrainingConfig(**settings.pop("config"))
        self = cls(config=config, **settings)
        items = pd.DataFrame(about["items"])
        count = tensors.pop("count")
        self._learned = MatrixFactorization.from_items(
            tensors["model.item_factors"], tensors["model.item_offset"]
        )
        self._meta = self._maml(self._learned)
        self._meta.load_state_dict(tensors)
        self._set_items(items, count, RatingScale(**about["scale"]))
        return self


@dataclass(frozen=True)
class PersonalModel:
    """One user's own model: the shared item side and the weights learned for them.

    Built in: full-system
    """

    recommender: MetaRecommender
    support: Examples
    head: Tensor

    def predict(self, item_ids: Sequence[Any] | None = None) -> np.ndarray:
        """Predicted stars, clipped to the scale, of the given items or of all."""
        scale = self.recommender.scale
        scores = (
            self.recommender.score_all(self.head).clamp(scale.low, scale.high).numpy()
        )
        if item_ids is None:
            return scores
        return scores[self.recommender.indices(item_ids)]

    def recommend(self, n: int = 10, min_ratings: int = 0) -> pd.DataFrame:
        """The ``n`` items with the highest score that the user has not rated.

        ``min_ratings`` leaves out items that fewer training users rated: their means
        are the least certain. Columns: item_id, title, score (unclipped, so that order
        survives at the end of the scale), best first.
        """
        items = self.recommender.items
        scores = self.recommender.score_all(self.head).numpy()
        allowed = items["ratings"].to_numpy() >= min_ratings
        allowed[self.support.x[self.support.mask].numpy()] = False
        order = np.argsort(-np.where(allowed, scores, -np.inf), kind="stable")
        top = order[: min(n, int(allowed.sum()))]
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
        without = Examples(
            rated.expand(n, n), stars.expand(n, n), ~torch.eye(n, dtype=torch.bool)
        )
        effect = np.zeros(0)
        if n:
            query = torch.full((n, 1), index)
            with torch.no_grad():
                left = self.recommender.meta.predict(without, query)[:, 0]
            effect = (self.recommender.score_all(self.head)[index] - left).numpy()
        table = items.loc[rated.numpy(), ["item_id", "title"]].reset_index(drop=True)
        table = table.assign(rating=stars.numpy(), effect=effect)
        order = np.argsort(-np.abs(effect), kind="stable")
        return table.loc[order].reset_index(drop=True)


def _one_task(items: list[int], stars: list[float]) -> Examples:
    """A batch of one support set; an empty one is a single masked place."""
    n = len(items)
    return Examples(
        x=torch.tensor([items or [0]]),
        y=torch.tensor([stars or [0.0]]),
        mask=torch.full((1, max(n, 1)), n > 0),
    )


def _as_pairs(ratings: Ratings) -> list[tuple[Any, float]]:
    if isinstance(ratings, pd.DataFrame):
        missing = {"item_id", "rating"} - set(ratings.columns)
        if missing:
            raise ValueError(
                f"the table of ratings has no column {sorted(missing)}; it has "
                f"{list(ratings.columns)}: rename its columns to item_id and rating"
            )
        return list(
            zip(ratings["item_id"].tolist(), map(float, ratings["rating"]), strict=True)
        )
    pairs = ratings.items() if isinstance(ratings, Mapping) else ratings
    return [(label, float(stars)) for label, stars in pairs]


def _plain(value: Any) -> Any:
    """Turn numpy's numbers into Python's, for JSON."""
    return value.item()
