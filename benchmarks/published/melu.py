"""MeLU: MAML on the decision layers of a network that reads content.

Lee et al., MeLU: Meta-Learned User Preference Estimator for Cold-Start Recommendation,
KDD 2019. Written from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from content import Content, levels
from draws import learn
from torch import Tensor, nn

from metarec.evaluation import Fold
from metarec.learners import GradientDescent
from metarec.learners.losses import mean_squared_error
from metarec.meta import MAML
from metarec.tasks import Examples, Tasks


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


class MeLU(MAML):
    """MAML on the decision layers, with the backward pass of three layers by hand.

    The same numbers as by `GradientDescent` (a test holds it), a task axis in place of
    a copy of the first layer for each user: what T steps add to it is
    ``- rate Z' D``, with Z what the layer reads of the support and D the slopes of what
    it answers, so that it changes an answer to z by ``- rate (z Z') D``.
    """

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N) after the steps on the support."""
        net, first = self.model, self.learner.first_order
        one, two, last = net.decide
        z, asked = (net.pair(each, support.profile) for each in (support.x, x))
        known = z.detach() if first else z
        among = z @ known.mT + 1  # and 1 for what is added to every answer
        rate, weight = self.log_scale.exp(), support.mask.to(z)
        if self.learner.loss is mean_squared_error:
            weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
        start = one(z)
        moved = torch.zeros_like(start)
        w2, b2 = two.weight.T.expand(len(z), -1, -1), two.bias.expand(len(z), 1, -1)
        w3, b3 = last.weight.T.expand(len(z), -1, -1), last.bias.expand(len(z), 1, -1)
        rest = net.offset[support.x] - support.y
        for _ in range(self.learner.steps):
            h1 = (start + among @ moved).relu()
            h2 = (h1 @ w2 + b2).relu()
            d3 = weight[..., None] * (rest[..., None] + h2 @ w3 + b3)
            d2 = (d3 @ w3.mT) * (h2 > 0)
            d1 = (d2 @ w2.mT) * (h1 > 0)
            steps = [d1, h1.mT @ d2, d2.sum(1, True), h2.mT @ d3, d3.sum(1, True)]
            if first:
                steps = [step.detach() for step in steps]
            old = moved, w2, b2, w3, b3
            moved, w2, b2, w3, b3 = (
                w - rate * step for w, step in zip(old, steps, strict=True)
            )
        h1 = (one(asked) + (asked @ known.mT + 1) @ moved).relu()
        return net.offset[x] + ((h1 @ w2 + b2).relu() @ w3 + b3).squeeze(-1)

    def loss(self, tasks: Tasks) -> Tensor:
        """The meta-loss: half the mean squared error of the query."""
        score = self.predict(tasks.support, tasks.query.x)
        return mean_squared_error(score, tasks.query.y, tasks.query.mask).mean()


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
# inner loss a mean, as in the paper, or three steps on a sum at a learned rate.
MEAN = Settings(0.05, 3e-3, epochs=30, patience=6, random=False)
SUM = replace(MEAN, inner_mean=False, inner_rate=0.004, learn_rate=True, steps=3)
CANDIDATES = (MEAN, SUM)


def fit(
    fold: Fold,
    settings: Settings = PAPER,
    first_order: bool = False,
    items: bool = False,
    seed: int = 0,
) -> MeLU:
    """Meta-train MeLU on a fold; ``items`` adds what is known of each item's level."""
    torch.manual_seed(seed)
    offset = levels(fold, settings.centred, items)
    model = Network(fold, offset)
    loss = mean_squared_error if settings.inner_mean else None
    learner = GradientDescent(settings.steps, loss, first_order)
    local = [n for n, _ in model.named_parameters() if n.startswith("decide")]
    meta = MeLU(model, learner, local, settings.inner_rate, settings.learn_rate)
    rows = fold.warm.item_rows if items else None
    how = {"random": True, "n_query": 10, "most": 20} if settings.random else {}
    return learn(meta, fold, settings, seed, item_rows=rows, **how)
