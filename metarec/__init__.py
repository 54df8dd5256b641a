"""metarec: personalised recommendation by meta-learning.

Three maps, one idea: a recommender turns features into a rating, a task-learner turns
a prior and a few ratings into one user's weights, and a meta-learner turns many users
into that prior. Each module holds one of them; each is built in a chapter of the book.

What most users need is here: ``from metarec import MetaRecommender, read_csv``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metarec.data import RatingData as RatingData
    from metarec.data import RatingScale as RatingScale
    from metarec.data import load_movielens_1m as load_movielens_1m
    from metarec.data import load_movielens_100k as load_movielens_100k
    from metarec.data import load_movielens_small as load_movielens_small
    from metarec.data import rating_data as rating_data
    from metarec.data import read_csv as read_csv
    from metarec.evaluation import Leaderboard as Leaderboard
    from metarec.evaluation import Protocol as Protocol
    from metarec.evaluation import run_methods as run_methods
    from metarec.recommender import MetaRecommender as MetaRecommender
    from metarec.recommender import PersonalModel as PersonalModel

__version__ = "0.2.0"

_ROOMS = {
    "recommender": "MetaRecommender PersonalModel",
    "data": "RatingData RatingScale load_movielens_100k load_movielens_1m "
    "load_movielens_small rating_data read_csv",
    "evaluation": "Leaderboard Protocol run_methods",
}


# A name is fetched when it is asked for: `import metarec` costs nothing, and whoever
# reads a table of ratings does not wait for torch.
def __getattr__(name: str) -> Any:
    for room, names in _ROOMS.items():
        if name in names.split():
            return getattr(import_module(f"metarec.{room}"), name)
    raise AttributeError(f"module 'metarec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *" ".join(_ROOMS.values()).split()]
