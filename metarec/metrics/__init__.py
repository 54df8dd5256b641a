"""How a recommender is judged: rating errors, quality of lists, and their spread."""

from metarec.metrics.clicks import (
    Reliability,
    auc,
    expected_calibration_error,
    log_loss,
    reliability,
)
from metarec.metrics.intervals import Interval, bootstrap_means, paired_bootstrap
from metarec.metrics.lists import (
    Ranking,
    chance_ndcg,
    chance_precision,
    chance_ranking,
    dcg,
    listed,
    ndcg,
    overlap,
    precision,
    rank_candidates,
    recall,
    share_shown,
)
from metarec.metrics.ratings import (
    coverage,
    gaussian_nll,
    mae,
    rmse,
    user_mae,
    user_rmse,
)

__all__ = ["coverage", "gaussian_nll", "mae", "rmse", "user_mae", "user_rmse"]
__all__ += ["Reliability", "auc", "expected_calibration_error", "log_loss"]
__all__ += ["reliability", "chance_ndcg", "chance_precision", "dcg", "ndcg"]
__all__ += ["precision", "recall", "Interval", "bootstrap_means", "paired_bootstrap"]
__all__ += ["Ranking", "chance_ranking", "listed", "overlap", "rank_candidates"]
__all__ += ["share_shown"]
