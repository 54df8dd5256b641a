"""The rows of the table: what is trained, with which settings to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import end_to_end
import items
import melu
import tanp

from metarec.evaluation import Fold
from metarec.validation import Predictor


@dataclass(frozen=True)
class Row:
    """A method of the table, with the settings that validation users choose from.

    ``fit`` takes a fold, settings and a seed. One setting is no choice. ``like`` names
    another row whose choice this one takes over, so that one thing alone differs.
    """

    fit: Callable[..., Predictor]
    settings: Sequence[Any] = ()
    like: str = ""
    part: str = "users"
    n_seeds: int = 3
    turn: int = 0  # when it is run: what takes least first
    whole: bool = False  # settings are compared after all of training, not some of it
    more: dict[str, Any] = field(default_factory=dict)

    def train(self, fold: Fold, settings: Any, seed: int) -> Predictor:
        """Train it on a fold."""
        return partial(self.fit, **self.more)(fold, settings, seed=seed)


MELU = "MeLU, chosen"
WITH_ITEMS = "MeLU + item offsets, chosen"
ROWS: dict[str, Row] = {
    "MeLU, paper": Row(melu.fit, [melu.PAPER], n_seeds=1, turn=3),
    MELU: Row(melu.fit, melu.CANDIDATES, turn=1),
    WITH_ITEMS: Row(melu.fit, melu.CANDIDATES, turn=1, more={"items": True}),
    "MeLU, first order": Row(melu.fit, like=MELU, turn=2, more={"first_order": True}),
    "TaNP, paper": Row(tanp.fit, [tanp.PAPER], n_seeds=1, turn=4),
    "TaNP, chosen": Row(tanp.fit, tanp.CANDIDATES, turn=4),
    "TaNP + item offsets, chosen": Row(
        tanp.fit, tanp.CANDIDATES, turn=2, more={"items": True}
    ),
}


def own(settings: end_to_end.Settings, **more: Any) -> Row:
    """A row of the end-to-end part: nothing to choose."""
    turn = {"FOMAML": 2, "BOIL": 2, "MAML": 4}.get(more.get("kind", ""), 0)
    return Row(end_to_end.fit, [settings], turn=turn, more=more)


FAST, SLOW = end_to_end.FAST, end_to_end.SLOW
ROWS |= {f"factors, items {kind}": own(FAST, items=kind) for kind in end_to_end.ITEMS}
ROWS["ANIL, items frozen"] = own(SLOW, network=True)
ROWS |= {
    kind: own(SLOW, network=True, kind=kind, items="trained")
    for kind in end_to_end.ADAPTED
}
MADE = "Meta-Embedding, chosen"
ROWS |= {
    items.RIVAL: Row(items.gaussian, ["closed form"], part="items", n_seeds=1),
    "Meta-Embedding, paper": Row(
        items.fit, [items.PAPER], part="items", n_seeds=1, turn=4
    ),
    MADE: Row(items.fit, items.CANDIDATES, part="items", whole=True),
    "the same without content": Row(
        items.fit, like=MADE, part="items", more={"constant": True}
    ),
}
