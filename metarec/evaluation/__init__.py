"""How the course judges: protocols, guards against leaks, the leaderboard."""

from metarec.evaluation.cold_start import cold_start, rank_catalogue
from metarec.evaluation.fold import Fold, Protocol
from metarec.evaluation.leaderboard import Leaderboard
from metarec.evaluation.leaks import check_no_leak
from metarec.evaluation.methods import fitted, known_methods
from metarec.evaluation.run import run_methods
from metarec.evaluation.tables import read_table, write_table

__all__ = ["Fold", "Leaderboard", "Protocol", "fitted", "rank_catalogue", "run_methods"]
__all__ += ["check_no_leak", "cold_start", "known_methods", "read_table", "write_table"]
