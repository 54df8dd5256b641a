"""End to end: item vectors and networks trained in the outer loop, on MovieLens.

Finn et al. (2017), MAML and its first-order form; Raghu et al. (2020), ANIL; Oh et al.
(2021), BOIL. One network, the package's MLP; the rows differ in what the inner loop
adapts, in the order of the gradient, and in whether the outer loop moves item vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from draws import learn
from torch import Tensor

from metarec.evaluation import Fold
from metarec.learners import GradientDescent
from metarec.meta import MAML
from metarec.models import MLP, MatrixFactorization

BODY = ("first", "first_bias", "second")
ADAPTED = {
    "ANIL": ("head",),
    "BOIL": BODY,
    "FOMAML": (*BODY, "head"),
    "MAML": (*BODY, "head"),
}
ITEMS = ("frozen", "trained", "scratch")


def together(gradient: Tensor, n_items: int) -> Tensor:
    """One gradient for all copies of the item table: the sum of theirs, in each.

    The copies leave out different training users, so that nobody meets vectors fitted
    to their own ratings. Moved alike, the copy for new users learns from all.
    """
    copies = gradient.unflatten(0, (-1, n_items))
    return copies.sum(0, keepdim=True).expand_as(copies).flatten(0, 1)


@dataclass(frozen=True)
class Settings:
    """The outer loop; the inner rate is learned."""

    outer_rate: float = 0.003
    steps: int = 5
    epochs: int = 40
    patience: int = 5

    def __str__(self) -> str:
        return f"outer rate {self.outer_rate:g}, {self.steps} steps"


FAST, SLOW = Settings(0.01), Settings(0.003)


def fit(
    fold: Fold,
    settings: Settings = SLOW,
    network: bool = False,
    kind: str = "ANIL",
    items: str = "frozen",
    seed: int = 0,
) -> MAML:
    """Meta-train one row.

    ``kind`` says what the inner loop adapts and in which order, ``items`` whether the
    item vectors stay, move from where the factor model put them, or begin at random.
    """
    torch.manual_seed(seed)
    warm, n_items = fold.warm, len(fold.features)
    table, offset, rows = warm.factors, warm.offset, warm.item_rows
    if items == "scratch":
        table = 0.1 * torch.randn(n_items, table.shape[1])
        offset, rows = offset[:n_items], None
    if network:
        known = fold.features, fold.sealed.profile.shape[1]
        generator = torch.Generator().manual_seed(seed)
        model = MLP(table, offset, *known, generator=generator)
    else:
        model = MatrixFactorization.from_items(table, offset, n_items)
    model.freeze_items()
    if items != "frozen":
        model.item_factors.requires_grad_(True)
        model.item_factors.register_hook(partial(together, n_items=n_items))
    with torch.no_grad():
        model.head[-1] = warm.mean_bias
    learner = GradientDescent(settings.steps, first_order=kind != "MAML")
    if kind == "ANIL":
        learner = GradientDescent(settings.steps)  # its name says what, not which order
    meta = MAML(model, learner, ADAPTED[kind])
    return learn(meta, fold, settings, seed, item_rows=rows)
