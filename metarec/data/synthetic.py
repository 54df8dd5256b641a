"""A population of users whose tastes are known, to test what claims to learn them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from metarec.data.custom import rating_data
from metarec.data.table import RatingData, RatingScale

TERMS = "Synthetic ratings, made by metarec; free to use."


@dataclass(frozen=True, eq=False)
class SyntheticTruth:
    """What the ratings were made from: biases, factors and noise.

    Parameters
    ----------
    mu
        Mean of all ratings, in stars.
    sigma
        Standard deviation of the noise, in stars.
    b_i
        Biases of the items, shape (n_items,).
    q_i
        Vectors of the items, shape (n_items, dim).
    b_u
        Biases of the users, shape (n_users,).
    p_u
        Vectors of the users, shape (n_users, dim).
    covariance
        ``Sigma``, that of the vectors (p_u, b_u), shape (dim + 1, dim + 1).
    """

    mu: float
    sigma: float
    b_i: np.ndarray
    q_i: np.ndarray
    b_u: np.ndarray
    p_u: np.ndarray
    covariance: np.ndarray


def synthetic_population(
    n_users: int = 200,
    n_items: int = 100,
    dim: int = 2,
    ratings_per_user: int = 30,
    noise: float = 0.5,
    seed: int = 0,
    clip: bool = True,
) -> tuple[RatingData, SyntheticTruth]:
    """Draw users from a Gaussian prior and let each rate distinct random items.

    ``r_ui = mu + b_i + b_u + p_u . q_i + e``, with ``(p_u, b_u) ~ N(0, Sigma)`` and
    ``e ~ N(0, noise^2)``; clipped to [1, 5] if ``clip``, unbounded otherwise. Sigma is
    correlated, so a prior of independent weights is not the right one. A user's ratings
    stand in order of time, a minute apart.

    Parameters
    ----------
    n_users
        Number of users.
    n_items
        Number of items.
    dim
        Length of the vectors.
    ratings_per_user
        Number of ratings of each user.
    noise
        Standard deviation of a rating around its expectation.
    seed
        Seed of everything that is drawn.
    clip
        Whether ratings are clipped to [1, 5].

    Returns
    -------
    tuple[RatingData, SyntheticTruth]
        The ratings, and what they were made from.

    Raises
    ------
    ValueError
        If a user is to rate more items than there are.
    """
    if not 1 <= ratings_per_user <= n_items:
        raise ValueError(f"ratings_per_user must lie in 1 .. {n_items}, the items")
    rng = np.random.default_rng(seed)
    mu = 3.5
    b_i = rng.normal(0, 0.4, n_items)
    q_i = rng.normal(0, 1, (n_items, dim)) / np.sqrt(dim)
    # A product with its own transpose is a covariance; the 0.1 keeps it from the edge.
    mixing = rng.normal(0, 0.3, (dim + 1, dim + 1))
    covariance = mixing @ mixing.T + 0.1 * np.eye(dim + 1)
    root = np.linalg.cholesky(covariance).T
    weights = rng.normal(size=(n_users, dim + 1)) @ root

    user = np.repeat(np.arange(n_users), ratings_per_user)
    # The head of a shuffled catalogue: distinct items, all equally likely.
    shuffled = rng.permuted(np.tile(np.arange(n_items), (n_users, 1)), axis=1)
    item = shuffled[:, :ratings_per_user].reshape(-1)
    p_u, b_u = weights[:, :dim], weights[:, dim]
    score = mu + b_i[item] + b_u[user] + (p_u[user] * q_i[item]).sum(axis=1)
    rating = score + rng.normal(0, noise, len(score))
    scale = RatingScale(1, 5) if clip else RatingScale(-np.inf, np.inf)
    rating = np.clip(rating, scale.low, scale.high)
    frame = pd.DataFrame({"user": user, "item": item, "rating": rating})
    frame["timestamp"] = 60 * np.arange(len(user))
    users = pd.DataFrame({"user_id": np.arange(n_users)})
    items = pd.DataFrame({"item_id": np.arange(n_items)})
    data = rating_data(frame, None, scale, "synthetic", users, items, citation=TERMS)
    return data, SyntheticTruth(mu, noise, b_i, q_i, b_u, p_u, covariance)
