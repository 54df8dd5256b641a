"""What a recommender leaves on disk: itself, and item vectors of an unfinished run."""

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from metarec.factors import WarmStart
from metarec.training import read_run, save_aside

_FORMAT = "metarec recommender 3"
_WITHOUT_SIZES = "metarec recommender 2"  # of version 0.1

# Labels that JSON does not have: written as {type: text}, and read by these.
_LABELS: dict[str, Callable[[str], Any]] = {"UUID": UUID, "Decimal": Decimal}
_LABELS |= {"date": date.fromisoformat, "datetime": datetime.fromisoformat}
_LABELS["Timestamp"] = pd.Timestamp


def as_json(about: Any) -> str:
    """Write as JSON, with the labels of items that `of_json` can read again.

    Raises
    ------
    ValueError
        For a label of another kind.
    """

    def other(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if (kind := type(value).__name__) in _LABELS:
            return {kind: str(value)}
        text = f"users or items named by a {kind}, {value!r:.60}, cannot be saved: "
        kinds = ", ".join(_LABELS)
        raise ValueError(f"{text}name them by text, numbers or tuples, or as {kinds}")

    return json.dumps(about, default=other)


def of_json(text: str) -> Any:
    """Read what `as_json` wrote; a tuple comes back as a list, see `label_of`."""

    def hook(value: dict[str, Any]) -> Any:
        return next((_LABELS[n](t) for n, t in value.items() if n in _LABELS), value)

    return json.loads(text, object_hook=hook)


def label_of(value: Any) -> Any:
    """A label that can be looked up: a list was a tuple once."""
    return tuple(map(label_of, value)) if isinstance(value, list) else value


def write_file(
    path: str | Path, about: dict[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write tensors in the format of safetensors, and what is no tensor as its JSON."""
    text = as_json({"format": _FORMAT} | about)
    save = partial(save_file, {name: t.contiguous() for name, t in tensors.items()})
    save_aside(Path(path), partial(save, metadata={"metarec": text}))


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what ``write_file`` wrote."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}: save(path) writes one")
    try:
        with safe_open(path, framework="pt") as file:
            about = of_json((file.metadata() or {}).get("metarec", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is no saved recommender: {error}") from error
    if about.get("format") not in (_FORMAT, _WITHOUT_SIZES):
        itself = f"it calls itself {about.get('format')!r}, not {_FORMAT!r}"
        raise ValueError(f"{path} is no saved recommender of this version: {itself}")
    if about["format"] == _WITHOUT_SIZES:
        about["sizes"] = _sizes_of(about, tensors)
        # Meta-SGD's scales had a name of their own.
        tensors = {n.replace("log_scales", "log_scale"): tensors[n] for n in tensors}
    return about, tensors


def _sizes_of(about: dict[str, Any], state: Mapping[str, Tensor]) -> dict[str, int]:
    """Sizes, which version 0.1 did not write, from what it did."""
    features = state.get("model.item_features", torch.zeros(0, 0))
    bank, names = state.get("learner.bank.deltas", ()), about["user_features"]["names"]
    sizes = {"n_items": len(about["items"]["item_id"]), "dim": about["settings"]["dim"]}
    sizes |= {"n_features": features.shape[1], "n_profile": len(names)}
    return sizes | {"n_tasks": len(bank), "n_rows": len(state["model.item_offset"])}


def kept_vectors(
    checkpoint: str | Path | None, run: Mapping[str, Any], fit: Callable[[], WarmStart]
) -> WarmStart:
    """Read the item vectors that ``run`` left by ``checkpoint``, or fit and leave them.

    Raises
    ------
    ValueError
        For a file of another run.
    """
    path = None if checkpoint is None else Path(f"{checkpoint}.items")
    kept = read_run(path, "item vectors", run)
    if kept is None:
        kept = {"run": run} | vars(fit())
        if path is not None:
            save_aside(path, partial(torch.save, kept))
    return WarmStart(**{name: kept[name] for name in kept if name != "run"})
