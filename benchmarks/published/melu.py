"""MeLU: MAML on the decision layers of a network that reads content.

Lee et al., MeLU: Meta-Learned User Preference Estimator for Cold-Start Recommendation,
KDD 2019. Written from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from content import Content
from draws import Draws, Stopping
from torch import Tensor, nn

from metarec.evaluation import Fold
from metarec.factors import GlobalMean
from metarec.learners import GradientDescent
from metarec.learners.losses import mean_squared_error
from metarec.meta import MAML
from metarec.training import TrainingConfig, meta_train


class Network(Content):
    """Two layers of 64 units decide on an item and a user; one number comes out."""

    def __init__(self, fold: Fold, offset: Tensor | None = None) -> None:
        super().__init__(fold, offset)
        sizes = (self.width, 64, 64, 1)
        self.decide = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))

    def forward(self, x: Tensor, profile: Tensor) -> Tensor:
        """Scores (..., N) of items (..., N)."""
        z = self.pair(x, profile)
        for layer in self.decide[:-1]:
            z = layer(z).relu()
        return self.offset[x] + self.decide[-1](z).squeeze(-1)


@dataclass(frozen=True)
class Settings:
    """How MeLU is trained; as they stand, those of the paper."""

    inner_rate: float = 5e-6
    outer_rate: float = 5e-5
    inner_mean: bool = True  # the inner loss is a mean over the ratings, or their sum
    learn_rate: bool = False
    steps: int = 1
    epochs: int = 30
    patience: int = 30
    random: bool = True  # support and query as in the paper, or the course's
    # Begins at the mean rating, in place of 0: with the paper's outer rate, a tenth of
    # its users and as many epochs the level itself would not be learned.
    centred: bool = True

    def __str__(self) -> str:
        kind = "mean" if self.inner_mean else "sum"
        learned = ", learned" if self.learn_rate else ""
        return f"{kind}, rate {self.inner_rate:g}{learned}, {self.steps} step(s)"


PAPER = Settings()
# A rate that moves something, the course's tasks, a start at the mean rating; and the
# inner loss a mean, as in the paper, or a sum with a rate that is learned.
MEAN = Settings(0.05, 3e-3, epochs=30, patience=6, random=False)
SUM = replace(MEAN, inner_mean=False, inner_rate=0.005, learn_rate=True)
CANDIDATES = (MEAN, SUM)


def fit(
    fold: Fold,
    settings: Settings = PAPER,
    first_order: bool = False,
    items: bool = False,
    seed: int = 0,
) -> MAML:
    """Meta-train MeLU on a fold; ``items`` adds what is known of each item's level."""
    torch.manual_seed(seed)
    offset = None
    if settings.centred:
        mean = GlobalMean.fit(fold.sealed, fold.split.train).mean
        offset = torch.full((len(fold.features),), float(mean))
    if items:
        offset = fold.warm.offset
    model = Network(fold, offset)
    loss = mean_squared_error if settings.inner_mean else None
    learner = GradientDescent(settings.steps, loss, first_order)
    local = [n for n, _ in model.named_parameters() if n.startswith("decide")]
    meta = MAML(model, learner, local, settings.inner_rate, settings.learn_rate)
    rows = fold.warm.item_rows if items else None
    how = {"n_query": 10, "most": 40} if settings.random else {}
    draws = Draws(fold.sealed, fold.train_users, settings.random, item_rows=rows, **how)
    config = TrainingConfig(
        settings.epochs, settings.outer_rate, settings.patience, seed=seed
    )
    stop = Stopping(fold.sealed, fold.split.validation)
    meta_train(meta, draws, lambda: stop(meta), config, progress=False)
    return meta
