"""The full system: fit on many users, meet a new one, adapt, recommend, explain."""

from metarec.recommender.many import UnknownItemError
from metarec.recommender.meta_recommender import MetaRecommender
from metarec.recommender.personal import PersonalModel

__all__ = ["MetaRecommender", "PersonalModel", "UnknownItemError"]
