"""More than one process, and more ratings than fit into memory."""

from metarec.scale.parallel import Processes, together
from metarec.scale.store import RatingChunk, RatingStore
from metarec.scale.synthetic import synthetic_store

__all__ = [
    "Processes", "RatingChunk", "RatingStore", "synthetic_store", "together",
]  # fmt: skip
