"""More than one process, and more ratings than fit into memory."""

from metarec.scale.parallel import Processes, process_group
from metarec.scale.store import open_store, write_store

__all__ = ["Processes", "open_store", "process_group", "write_store"]
