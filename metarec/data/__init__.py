"""Ratings in: MovieLens, any DataFrame or CSV, and a synthetic population.

Everything ends in one canonical, checked table: see `RatingData`.
"""

from metarec.data.custom import clicks, rating_data, read_csv
from metarec.data.movielens import (
    load_movielens_1m,
    load_movielens_100k,
    load_movielens_small,
)
from metarec.data.store import RatingChunk, RatingStore
from metarec.data.stream import synthetic_store
from metarec.data.synthetic import (
    DriftingTruth,
    SyntheticTruth,
    drifting_population,
    synthetic_population,
)
from metarec.data.table import RatingData, RatingScale
from metarec.data.transpose import transposed

__all__ = [
    "DriftingTruth",
    "RatingChunk",
    "RatingData",
    "RatingScale",
    "RatingStore",
    "SyntheticTruth",
    "clicks",
    "drifting_population",
    "load_movielens_1m",
    "load_movielens_100k",
    "load_movielens_small",
    "rating_data",
    "read_csv",
    "synthetic_population",
    "synthetic_store",
    "transposed",
]
