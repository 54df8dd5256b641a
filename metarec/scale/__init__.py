"""More than one process, and more ratings than fit into memory."""

from metarec.scale.parallel import Processes, process_group
from metarec.scale.store import RatingChunk, RatingStore
from metarec.scale.synthetic import synthetic_store

__all__ = ["Processes", "process_group"]
__all__ += ["RatingChunk", "RatingStore", "synthetic_store"]
