"""The full system: fit on many users, meet a new one, adapt, recommend, explain."""

from metarec.recommender.meta_recommender import MetaRecommender, UnknownItemError
from metarec.recommender.personal import PersonalModel

__all__ = ["MetaRecommender", "PersonalModel", "UnknownItemError"]
