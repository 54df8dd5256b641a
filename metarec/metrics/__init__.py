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
    Ceiling,
    chance_ndcg,
    chance_precision,
    dcg,
    ndcg,
    precision,
    recall,
    tie_ceiling,
    tied_relevance,
)
from metarec.metrics.ratings import (
    coverage,
    gaussian_nll,
    mae,
    rmse,
    user_mae,
    user_rmse,
)

__all__ = [
    "Ceiling", "Interval", "Reliability", "auc", "bootstrap_means", "chance_ndcg",
    "chance_precision", "coverage", "dcg", "expected_calibration_error", "gaussian_nll",
    "log_loss", "mae", "ndcg", "paired_bootstrap", "precision", "recall", "reliability",
    "rmse", "tie_ceiling", "tied_relevance", "user_mae", "user_rmse",
]  # fmt: skip
