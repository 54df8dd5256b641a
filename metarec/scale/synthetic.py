"""A synthetic population of any size, made chunk by chunk and written to a store."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from metarec.data.synthetic import TERMS, SyntheticTruth
from metarec.scale.store import RatingChunk, RatingStore

_DIM, _NOISE = 8, 0.8
_FEWEST, _MEAN = 20, 100  # ratings of a user, as in MovieLens
_CELLS = 5_000_000  # random numbers drawn at once: the bound on memory


def synthetic_store(
    path: str | Path, n_users: int, n_items: int, progress: bool = True
) -> tuple[RatingStore, SyntheticTruth]:
    """Draw users as `synthetic_population` does, with long tails, into a store.

    ``r_ui = mu + b_i + b_u + p_u . q_i + e``, clipped to [1, 5], with
    ``(p_u, b_u) ~ N(0, Sigma)``, ``p_u`` of 8 numbers, and ``e ~ N(0, 0.8^2)``. Item
    number k by popularity is chosen in proportion to ``(k + 10)^-0.8``, each item once.
    A user has 20 ratings and a lognormal number of further ones, 100 in all on average,
    at most half the items.

    Chunks of users are drawn, written and forgotten: memory is bounded by the chunk,
    the truth (72 bytes a user) apart. A population's first users are those of
    a larger one.

    Parameters
    ----------
    path
        The folder to make.
    n_users
        Number of users.
    n_items
        Number of items.
    progress
        Whether to show a progress bar on a terminal.

    Returns
    -------
    tuple[RatingStore, SyntheticTruth]
        The store, and what its ratings were made from.

    Raises
    ------
    ValueError
        For 400 items or fewer.

    Plumbing
    --------
    Populations for the chapter on scaling and the benchmarks.
    """
    if n_items <= 4 * _MEAN:
        raise ValueError(f"{n_items} items are too few for long tails: {4 * _MEAN + 1}")
    rng = np.random.default_rng(0)
    mu = 3.5
    b_i = rng.normal(0, 0.4, n_items)
    q_i = rng.normal(0, 1, (n_items, _DIM)) / np.sqrt(_DIM)
    scale = rng.uniform(0.15, 0.8, _DIM + 1)
    covariance = np.diag(scale**2)
    popularity = rng.permutation((np.arange(n_items) + 10.0) ** -0.8)
    heads: list[np.ndarray] = []

    def chunks() -> Iterator[RatingChunk]:
        size = max(1, _CELLS // n_items)
        bar = tqdm(range(0, n_users, size), "drawing users", disable=not progress)
        for first in bar:
            # A generator for each chunk: who comes later changes nobody before.
            draw = np.random.default_rng((0, first // size))
            w = draw.normal(size=(size, _DIM + 1)) * scale
            tail = draw.lognormal(np.log(_MEAN - _FEWEST) - 0.5, 1.0, size)
            count = np.minimum(_FEWEST + np.rint(tail), n_items // 2).astype(np.int64)
            chosen = _choose(draw, popularity, count)
            error = draw.normal(0, _NOISE, int(count.sum()))
            kept = min(size, n_users - first)
            count = count[:kept]
            heads.append(w[:kept])
            item = chosen[:kept][np.arange(chosen.shape[1]) < count[:, None]]
            own = np.repeat(w[:kept], count, axis=0)
            taste = (own[:, :_DIM] * q_i[item]).sum(1)
            score = mu + b_i[item] + own[:, _DIM] + taste
            rating = np.clip(score + error[: len(item)], 1, 5)
            yield RatingChunk(count, item, rating)

    items = pd.DataFrame({"item_id": np.arange(n_items)})
    store = RatingStore.write(path, chunks(), items, name="synthetic", citation=TERMS)
    w = np.concatenate(heads)
    own = w[:, _DIM], w[:, :_DIM]
    return store, SyntheticTruth(mu, _NOISE, b_i, q_i, *own, covariance)


def _choose(
    draw: np.random.Generator, popularity: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """Distinct items for each user, in the order of choice: (users, most).

    Item i arrives after an exponential time of rate ``popularity_i``, and the first to
    arrive are chosen: one draw after the other in proportion to what is left.
    """
    most = int(count.max())
    arrival = draw.standard_exponential((len(count), len(popularity))) / popularity
    # The first to arrive, found without sorting the whole catalogue for each user.
    first = np.argpartition(arrival, most, axis=1)[:, :most]
    order = np.take_along_axis(arrival, first, 1).argsort(axis=1)
    return np.take_along_axis(first, order, 1)
