"""Draw a population with long tails, of any size, into a CSV or Parquet file.

    python benchmarks/crowd.py 1000 ratings.csv

Chunks of users are drawn, written and forgotten: memory is bounded by the chunk, what
the ratings were made from (72 bytes a user) apart.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow.csv import CSVWriter
from pyarrow.parquet import ParquetWriter
from tqdm import tqdm

from metarec.data import SyntheticTruth

ITEMS = 20_000
DIM, NOISE = 8, 0.8
FEWEST, MEAN = 20, 100  # ratings of a user, as in MovieLens
CELLS = 5_000_000  # random numbers drawn at once: the bound on memory
WRITERS = {".csv": CSVWriter, ".parquet": ParquetWriter}
TYPES = {
    "user": pa.int32(),
    "item": pa.int32(),
    "rating": pa.float32(),
    "timestamp": pa.int32(),
}


def draw(
    path: Path,
    n_users: int,
    n_items: int = ITEMS,
    progress: bool = True,
    seed: int = 0,
) -> SyntheticTruth:
    """Draw users as `synthetic_population` does, with long tails; return the truth.

    ``r_ui = mu + b_i + b_u + p_u . q_i + e``, clipped to [1, 5], with
    ``(p_u, b_u) ~ N(0, Sigma)``, ``p_u`` of 8 numbers, and ``e ~ N(0, 0.8^2)``. Item
    number k by popularity is chosen in proportion to ``(k + 10)^-0.8``, each item once.
    A user has 20 ratings and a lognormal number of further ones, 100 in all on average,
    at most half the items; they stand in the order of time, a minute apart. A
    population's first users are those of a larger one.
    """
    if n_items <= 4 * MEAN:
        raise ValueError(f"{n_items} items are too few for long tails: {4 * MEAN + 1}")
    rng = np.random.default_rng(seed)
    mu = 3.5
    b_i = rng.normal(0, 0.4, n_items)
    q_i = rng.normal(0, 1, (n_items, DIM)) / np.sqrt(DIM)
    scale = rng.uniform(0.15, 0.8, DIM + 1)
    popularity = rng.permutation((np.arange(n_items) + 10.0) ** -0.8)
    heads = []
    schema = pa.schema(TYPES)
    size = max(1, CELLS // n_items)
    with WRITERS[path.suffix](path, schema) as file:
        for first in tqdm(range(0, n_users, size), "drawing", disable=not progress):
            # A generator for each chunk: who comes later changes nobody before.
            draws = np.random.default_rng((seed, first // size))
            w = draws.normal(size=(size, DIM + 1)) * scale
            tail = draws.lognormal(np.log(MEAN - FEWEST) - 0.5, 1.0, size)
            count = np.minimum(FEWEST + np.rint(tail), n_items // 2).astype(np.int64)
            chosen = _choose(draws, popularity, count)
            error = draws.normal(0, NOISE, int(count.sum()))
            kept = min(size, n_users - first)
            w, count, chosen = w[:kept], count[:kept], chosen[:kept]
            heads.append(w)
            place = np.arange(chosen.shape[1])
            mask = place < count[:, None]
            item, own = chosen[mask], np.repeat(w, count, axis=0)
            taste = (own[:, :DIM] * q_i[item]).sum(1)
            score = mu + b_i[item] + own[:, DIM] + taste
            rating = np.clip(score + error[: len(item)], 1, 5)
            user = np.repeat(np.arange(first, first + kept), count)
            time = 60 * np.broadcast_to(place, mask.shape)[mask]
            file.write_table(pa.table([user, item, rating, time], schema=schema))
    w = np.concatenate(heads)
    own = w[:, DIM], w[:, :DIM]
    return SyntheticTruth(mu, NOISE, b_i, q_i, *own, np.diag(scale**2))


def _choose(
    draws: np.random.Generator, popularity: np.ndarray, count: np.ndarray
) -> np.ndarray:
    """Distinct items for each user, in the order of choice: (users, most).

    Item i arrives after an exponential time of rate ``popularity_i``, and the first to
    arrive are chosen: one draw after the other in proportion to what is left.
    """
    most = int(count.max())
    arrival = draws.standard_exponential((len(count), len(popularity))) / popularity
    # The first to arrive, found without sorting the whole catalogue for each user.
    first = np.argpartition(arrival, most, axis=1)[:, :most]
    order = np.take_along_axis(arrival, first, 1).argsort(axis=1)
    return np.take_along_axis(first, order, 1)


def main() -> None:
    """Draw as many users as the command asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("users", type=int)
    parser.add_argument("path", type=Path, help="ends in .csv or .parquet")
    given = parser.parse_args()
    draw(given.path, given.users)


if __name__ == "__main__":
    main()
