"""Put a student's piece where the package lacks its own."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def plug(name: str, piece: Any) -> None:
    """Let metarec use ``piece`` for what it calls ``name``, wherever it uses it.

    ``plug("learners.inner_loop", mine)`` replaces a function, and
    ``plug("meta.MetaLearner.loss", mine)`` a method. Raises ``ValueError`` for a name
    that metarec does not have.
    """
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = import_module(".".join(["metarec", *parts[:split]]))
        except ModuleNotFoundError:
            continue
        *inside, last = parts[split:]
        for part in inside:
            owner = getattr(owner, part, None)
        if not hasattr(owner, last):
            break
        old = getattr(owner, last)
        setattr(owner, last, piece)
        if not inside:
            _replace_everywhere(old, piece)
        return
    raise ValueError(f"metarec has no {name} to replace")


def _replace_everywhere(old: Any, piece: Any) -> None:
    """Modules that imported the old piece by name hold it too."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] != "metarec":
            continue
        for key, value in list(vars(module).items()):
            if value is old:
                setattr(module, key, piece)
