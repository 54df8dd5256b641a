"""How the course judges: protocols, guards against leaks, the leaderboard."""

from metarec.evaluation.cold_start import Predictor, cold_start, validation_score
from metarec.evaluation.leaks import LeakageError, check_no_leak

__all__ = [
    "LeakageError",
    "Predictor",
    "check_no_leak",
    "cold_start",
    "validation_score",
]
