"""Every method of the leaderboard by name: what fits it on one fold."""

from collections.abc import Callable

from metarec.baselines import ALS, GenreRidge, ItemKNN, UserKNN
from metarec.evaluation.fold import Fold
from metarec.factors import GlobalMean, ItemMean, UserItemBias
from metarec.systems import GRID, System
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
    "gaussian + users + implicit": lambda f: f.with_both,
}
"""The baselines by name, each a function that fits it on a fold.

Plumbing
--------
A constant.
"""

SYSTEMS: dict[str, System] = {
    str(system): system
    for system in (
        *(System(*parts) for parts in GRID),
        System("mf", "meta-sgd", "bayesian", full=True),
        System("mf", "maml", "bayesian", implicit=True),
        System("mlp", "maml", "bayesian", implicit=True),
    )
}
"""The 27 systems, the full scale, and the implicit shift on two of them, by name.

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
    return [*BASELINES, *SYSTEMS]


def fitted(name: str, fold: Fold) -> Predictor:
    """The method of this name, fitted on the training users of the fold.

    Parameters
    ----------
    name
        One of `known_methods`.
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
    if name not in (known := known_methods()):
        raise ValueError(f"no method is called {name!r}: choose {', '.join(known)}")
    return BASELINES[name](fold) if name in BASELINES else fold.train(SYSTEMS[name])
