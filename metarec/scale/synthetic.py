"""A synthetic population of any size, made chunk by chunk and written to a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from metarec.data.synthetic import SyntheticTruth
from metarec.scale.store import RatingChunk, RatingStore

_FEWEST = 20  # ratings of a user, as in MovieLens
_CELLS = 5_000_000  # random numbers drawn at once: the bound on memory


def synthetic_store(
    path: str | Path,
    n_users: int,
    n_items: int,
    dim: int = 8,
    mean_ratings: int = 100,
    noise: float = 0.8,
    seed: int = 0,
    progress: bool = True,
) -> tuple[RatingStore, SyntheticTruth]:
    """Draw users as `synthetic_population` does, with long tails, into a store.

    r_ui = mu + b_i + b_u + p_u . q_i + e, clipped to [1, 5], with (p_u, b_u) ~
    N(0, Sigma) and e ~ N(0, noise^2). Item number k by popularity is chosen in
    proportion to (k + 10)^-0.8, each item once. A user has 20 ratings and a lognormal
    number of further ones, ``mean_ratings`` in all on average, at most half the items.

    Chunks of users are drawn, written and forgotten: memory is bounded by the chunk,
    the truth (8 (dim + 1) bytes a user) apart. A population's first users are those of
    a larger one.

    Raises ``ValueError`` if ``mean_ratings`` does not lie above 20 and below a quarter
    of the items.

    Plumbing: populations for the chapter on scaling and the benchmarks.
    """
    if not _FEWEST < mean_ratings < n_items / 4:
        raise ValueError(
            f"mean_ratings must lie above {_FEWEST} and below a quarter of the "
            f"{n_items} items, not {mean_ratings}"
        )
    rng = np.random.default_rng(seed)
    mu = 3.5
    b_i = rng.normal(0, 0.4, n_items)
    q_i = rng.normal(0, 1, (n_items, dim)) / np.sqrt(dim)
    scale = rng.uniform(0.15, 0.8, dim + 1)
    covariance = np.diag(scale**2)
    popularity = rng.permutation((np.arange(n_items) + 10.0) ** -0.8)
    heads: list[np.ndarray] = []

    def chunks() -> Iterator[RatingChunk]:
        size = max(1, _CELLS // n_items)
        bar = tqdm(range(0, n_users, size), "drawing users", disable=not progress)
        for first in bar:
            draw = np.random.default_rng((seed, first // size))
            w = draw.normal(size=(size, dim + 1)) * scale
            tail = draw.lognormal(np.log(mean_ratings - _FEWEST) - 0.5, 1.0, size)
            count = np.minimum(_FEWEST + np.rint(tail), n_items // 2).astype(np.int64)
            chosen = _choose(draw, popularity, count)
            error = draw.normal(0, noise, int(count.sum()))
            kept = min(size, n_users - first)
            count = count[:kept]
            heads.append(w[:kept])
            item = chosen[:kept][np.arange(chosen.shape[1]) < count[:, None]]
            own = np.repeat(w[:kept], count, axis=0)
            score = mu + b_i[item] + own[:, dim] + (own[:, :dim] * q_i[item]).sum(1)
            rating = np.clip(score + error[: len(item)], 1, 5)
            yield RatingChunk(count, item, rating)

    store = RatingStore.write(
        path,
        chunks(),
        pd.DataFrame({"item_id": np.arange(n_items)}),
        name="synthetic",
        citation="Synthetic ratings, made by metarec; free to use.",
    )
    w = np.concatenate(heads)
    truth = SyntheticTruth(mu, noise, b_i, q_i, w[:, dim], w[:, :dim], covariance)
    return store, truth


def _choose(
    draw: np.random.Generator, popularity: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """Distinct items for each user, in the order of choice: (users, most).

    Item i arrives after an exponential time of rate popularity_i, and the first to
    arrive are chosen: one draw after the other in proportion to what is left.
    """
    most = int(count.max())
    arrival = draw.standard_exponential((len(count), len(popularity))) / popularity
    first = np.argpartition(arrival, most, axis=1)[:, :most]
    order = np.take_along_axis(arrival, first, 1).argsort(axis=1)
    return np.take_along_axis(first, order, 1)
