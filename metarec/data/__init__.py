"""Ratings in: MovieLens, any DataFrame or CSV, and a synthetic population.

Everything ends in one canonical, checked table: see `RatingData`.
"""

from metarec.data.custom import clicks, rating_data, read_csv
from metarec.data.movielens import (
    load_movielens_1m,
    load_movielens_100k,
    load_movielens_small,
)
from metarec.data.synthetic import SyntheticTruth, synthetic_population
from metarec.data.table import Catalogue, RatingColumns, RatingData, RatingScale

__all__ = ["Catalogue", "RatingColumns", "RatingData", "RatingScale", "SyntheticTruth"]
__all__ += ["clicks", "load_movielens_1m", "load_movielens_100k"]
__all__ += ["load_movielens_small", "rating_data", "read_csv", "synthetic_population"]
