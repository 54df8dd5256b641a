"""Every method of the leaderboard by name: what fits it on one fold."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from metarec.baselines import ALS, BesidePopularity, GenreRidge, ItemKNN, UserKNN
from metarec.baselines.lists import Make, cosine, ease, implicit_als, lift
from metarec.evaluation.fold import Fold
from metarec.factors import GlobalMean, ItemMean, UserItemBias
from metarec.systems import GOALS, GRID, System
from metarec.tasks import Examples
from metarec.validation import Predictor

RIVAL = "gaussian"
"""The method that all others are compared with, the strongest without meta-learning
that looks at ratings and item features alone.

Plumbing
--------
A constant.
"""

BASELINES: dict[str, Callable[[Fold], Predictor]] = {
    "global mean": lambda f: GlobalMean.fit(f.sealed, f.split.train),
    # Items shrunk to nothing and users not at all: the mean of a user's own ratings.
    "user mean": lambda f: UserItemBias.fit(f.sealed, f.split.train, 1e-6, 1e12),
    "item mean": lambda f: ItemMean.fit(f.sealed, f.split.train),
    "biases": lambda f: UserItemBias.fit(f.sealed, f.split.train),
    "genre ridge": lambda f: GenreRidge.fit(f.sealed, f.split.train, f.features),
    "item-kNN": lambda f: ItemKNN.fit(f.sealed, f.split.train),
    "user-kNN": lambda f: UserKNN.fit(f.sealed, f.split.train),
    "ALS": lambda f: ALS.fit(f.sealed, f.split.train),
    "pooled MLP": lambda f: f.pooled,
    "pooled MLP, fine-tuned": lambda f: f.pooled.fine_tuned(f.validate),
    "gaussian": lambda f: f.gaussian,
    "gaussian + users": lambda f: f.with_users,
    "gaussian + implicit": lambda f: f.with_implicit,
    "gaussian + users + implicit": lambda f: f.shifted(f.with_users),
}
"""The baselines by name, each a function that fits it on a fold.

Plumbing
--------
A constant.
"""


def list_rival(
    make: Make, amounts: Sequence[Any], weights: Sequence[float], fold: Fold
) -> BesidePopularity:
    """Popularity and what ``make`` makes, with settings that validation users choose.

    These are whether all ratings or likes alone are choices, the amount, the weight,
    and how much less each of many counts.

    Parameters
    ----------
    make
        Makes a move from who chose what, who liked what, and an amount.
    amounts
        Amounts to choose from.
    weights
        Weights to choose from.
    fold
        What to fit on.

    Returns
    -------
    BesidePopularity
        The best of them.

    Plumbing
    --------
    The rivals in `LISTS`.
    """
    popularity, rated, liked = fold.choices
    scale, candidates = fold.sealed.scale, []
    for like, seen in ((scale.low, rated), (scale.like, liked)):
        for move in [make(seen, liked, amount) for amount in amounts]:
            for settings in product(weights, (0, 0.25, 0.5, 1)):
                candidates.append(BesidePopularity(popularity, move, like, *settings))
    return min(candidates, key=partial(fold.validate, goal="lists"))


_IALS = tuple(product((0.5, 2, 8), (3, 10, 30, 100), (16,)))
_GRIDS: dict[str, tuple[Any, Sequence[Any], Sequence[float]]] = {
    "EASE + popularity": (ease, (300, 1e3, 3e3, 1e4, 3e4), (3, 10, 30, 100, 300, 1e3)),
    "item-kNN + popularity": (cosine, (0, 10, 30, 100), (1, 2, 4, 8)),
    "naive-Bayes lift": (lift, (5, 10, 20, 50, 100), (0.1, 0.2, 0.4, 0.8, 1.6)),
    "iALS fold-in + popularity": (implicit_als, _IALS, (3, 10, 30)),
}
LISTS: dict[str, Callable[[Fold], Predictor]] = {
    # All alike, so in every order alike.
    "chance": lambda f: GlobalMean.fit(f.sealed, f.split.train),
    "popularity": lambda f: BesidePopularity(f.choices[0], torch.zeros_like, 0, 0, 0),
    **{name: partial(list_rival, *grid) for name, grid in _GRIDS.items()},
}
"""The rivals for lists by name, each with settings that validation users choose.

Plumbing
--------
A constant.
"""


def user_item_logit(fold: Fold) -> Predictor:
    """Log-odds ``b_i + b_u``: a system for clicks whose items have no vectors.

    Parameters
    ----------
    fold
        What to fit on.

    Returns
    -------
    Predictor
        The system, trained.

    Plumbing
    --------
    A rival in `CLICKS`.
    """
    start = fold.start("clicks")
    start = replace(start, factors=start.factors[:, :0], implicit=None)
    return fold.train(System(learner="bayesian", goal="clicks"), start=start)


CLICKS: dict[str, Callable[[Fold], Predictor]] = {
    "item's like-rate": lambda f: ItemMean.fit(f.sealed.likes(), f.split.train),
    "user + item logit": user_item_logit,
}
"""The rivals for clicks by name.

Plumbing
--------
A constant.
"""

_RIVALS = BASELINES | LISTS | CLICKS
_EXTRA = (
    System("mf", "meta-sgd", "bayesian", full=True),
    System("mf", "maml", "bayesian", implicit=True),
    System("mlp", "maml", "bayesian", implicit=True),
    System("mf", "maml", "in-context"),
)
_ALL = product(GOALS, [*(System(*parts) for parts in GRID), *_EXTRA])
SYSTEMS = {str(s): s for s in (replace(one, goal=goal) for goal, one in _ALL)}
SYSTEMS["softmax MAML"] = System(implicit=True, steps=1, goal="lists")
"""For each goal the 27 systems, the full scale, the implicit shift on two of them and
the in-context learner; one step of MAML on lists; by name.

Plumbing
--------
A constant.
"""


@dataclass(frozen=True)
class MeanScore:
    """The mean score of several predictors, such as those of several seeds.

    Parameters
    ----------
    predictors
        Whose scores are averaged.

    Plumbing
    --------
    What `fitted` makes of "..., 5 seeds".
    """

    predictors: Sequence[Predictor]

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """The mean of the scores, (B, N).

        Parameters
        ----------
        support
            Ratings to adapt on, of B users or tasks.
        x
            Items to score, shape (B, N).

        Returns
        -------
        Tensor
            Scores, shape (B, N).
        """
        return torch.stack([p.predict(support, x) for p in self.predictors]).mean(0)


JUDGED = {
    "stars": ("cold-start", BASELINES, RIVAL, "rmse"),
    "lists": ("lists", LISTS, "item-kNN + popularity", "ndcg"),
    "clicks": ("clicks", CLICKS, "item's like-rate", "log_loss"),
}
"""For each goal the kind of protocol, the baselines, the rival and what compares.

Plumbing
--------
A constant.
"""


def known_methods() -> list[str]:
    """Names of all methods, the weakest baselines first.

    Returns
    -------
    list[str]
        The names.

    Plumbing
    --------
    For the command's help and for its errors.
    """
    return [*_RIVALS, *SYSTEMS]


def fitted(name: str, fold: Fold) -> Predictor:
    """The method of this name, fitted on the training users of the fold.

    "mf + maml + gradient, 5 seeds" is the mean of five that begin with other numbers.

    Parameters
    ----------
    name
        One of `known_methods`; of a system, with how many seeds.
    fold
        What to fit on.

    Returns
    -------
    Predictor
        The fitted method.

    Raises
    ------
    ValueError
        For a name that is none.

    Plumbing
    --------
    The leaderboard and its chapter.
    """
    several = re.fullmatch(r"(.+), (\d+) seeds", name)
    if several and (system := SYSTEMS.get(several[1])):
        seeds = range(int(several[2]))
        return MeanScore([fold.train(system, seed) for seed in seeds])
    if name not in (known := known_methods()):
        raise ValueError(f"no method is called {name!r}: choose {', '.join(known)}")
    return _RIVALS[name](fold) if name in _RIVALS else fold.train(SYSTEMS[name])
