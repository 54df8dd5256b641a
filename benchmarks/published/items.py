"""Meta-Embedding: a new item's vector is made from its content, then adapted.

Pan et al., Warm Up Cold-start Advertisements: Improving CTR Predictions via Learning to
Learn ID Embeddings, SIGIR 2019. Written from the paper, for stars in place of clicks.
Here items are tasks and their raters what users' items were (see `item_fold.py`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from draws import learn
from torch import Tensor, nn

from metarec.evaluation import Fold
from metarec.factors import GlobalMean
from metarec.learners.losses import mean_squared_error, squared_error
from metarec.tasks import Examples, Tasks
from metarec.validation import Predictor

sys.path.insert(0, str(Path(__file__).parents[1]))
from item_fold import ItemFold as make  # noqa: F401

RIVAL = "gaussian + features"


@dataclass(frozen=True)
class Settings:
    """How Meta-Embedding is trained; as they stand, those of the paper."""

    deep: bool = True  # a deep network below, or the factor model's vectors of raters
    dim: int = 128
    inner_rate: float = 1e-4
    outer_rate: float = 1e-3
    inner_mean: bool = True
    learn_rate: bool = False
    cold: float = 0.1  # weight of the loss before the step
    epochs: int = 30
    patience: int = 5
    random: bool = True  # 20 ratings to adapt on and 20 to judge by, as in the paper

    def __str__(self) -> str:
        below = f"deep, {self.dim} numbers" if self.deep else "factor model"
        kind = "mean" if self.inner_mean else "sum"
        learned = ", learned" if self.learn_rate else ""
        return f"{below}, {kind}, rate {self.inner_rate:g}{learned}"


PAPER = Settings()
SUM = {"inner_mean": False, "learn_rate": True, "random": False}
MEAN = replace(PAPER, deep=False, inner_rate=0.3, outer_rate=5e-3, patience=5)
CANDIDATES = (MEAN, replace(MEAN, inner_rate=0.03, **SUM))


class Deep(nn.Module):
    """The network below: vectors of item, content, rater and what is known of them.

    Products of each with the sum of the others, and two layers, lead to a score.
    """

    def __init__(self, fold: Fold, dim: int) -> None:
        super().__init__()
        n_raters, n_known = fold.features.shape
        n_content, n_items = fold.sealed.profile.shape[1], len(fold.sealed.profile)
        self.dim, self.width = dim, dim
        self.register_buffer("known", fold.features.float())
        mean = float(GlobalMean.fit(fold.sealed, fold.split.train).mean)
        self.register_buffer("mean", torch.tensor(mean))
        sizes = {"item": n_items, "rater": n_raters, "words": n_content}
        for name, n in (sizes | {"about": n_known}).items():
            setattr(self, name, nn.Parameter(0.01 * torch.randn(n, dim)))
        self.first = nn.Parameter((4 * dim) ** -0.5 * torch.randn(4, dim, dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.second, self.last = nn.Linear(dim, dim), nn.Linear(dim + 4, 1)

    def content(self, profile: Tensor) -> Tensor:
        """What an item is, as one vector."""
        return profile @ self.words

    def score(self, phi: Tensor, x: Tensor, profile: Tensor) -> Tensor:
        """Scores (B, N) of items with vectors (B, D) by their raters (B, N)."""
        about = self.known @ self.about
        task = torch.stack([phi, self.content(profile)], 1)
        rater = torch.stack([self.rater[x], about[x]], 2)
        parts = [task[:, None].expand(*x.shape, -1, -1), rater]
        each = torch.cat(parts, 2)
        products = (each * (each.sum(2, keepdim=True) - each)).sum(-1)
        # The first layer part by part: what is the same for many is computed once.
        hidden = (task[:, 0] @ self.first[0] + task[:, 1] @ self.first[1])[:, None]
        hidden = hidden + (self.rater @ self.first[2] + about @ self.first[3])[x]
        hidden = self.second((hidden + self.bias).relu()).relu()
        return self.mean + self.last(torch.cat([products, hidden], -1)).squeeze(-1)

    def pretrain(self, fold: Fold, epochs: int = 3) -> None:
        """Fit all vectors and layers on the ratings of the training items."""
        task, x, y = fold.sealed.ratings_of(fold.split.train)
        own, profile = fold.split.train[task], fold.sealed.profile
        adam = torch.optim.Adam(self.parameters(), lr=1e-3)
        for _ in range(epochs):
            for some in torch.randperm(len(y)).split(200):
                adam.zero_grad()
                item = own[some]
                score = self.score(self.item[item], x[some, None], profile[item])
                (score[:, 0] - y[some]).square().mean().backward()
                adam.step()


class Factors(nn.Module):
    """The network below is the factor model: an item's vector times a rater's."""

    def __init__(self, fold: Fold) -> None:
        super().__init__()
        self.register_buffer("factors", fold.warm.factors)
        self.register_buffer("offset", fold.warm.offset)
        self.dim = self.factors.shape[1] + 1
        self.width = fold.sealed.profile.shape[1] + 1

    def content(self, profile: Tensor) -> Tensor:
        """What an item is, and a 1."""
        return nn.functional.pad(profile, (0, 1), value=1.0)

    def score(self, phi: Tensor, x: Tensor, profile: Tensor) -> Tensor:
        """Scores (B, N) of items with vectors (B, D) by their raters (B, N)."""
        taste = (self.factors[x] @ phi[:, :-1, None])[..., 0]
        return self.offset[x] + taste + phi[:, -1:]


class MetaEmbedding(nn.Module):
    """A generator makes an item's vector from its content; one step adapts it.

    min over the generator of ``a L(phi; S) + (1 - a) L(phi - r grad L(phi; S); Q)``,
    ``phi = tanh(G content) / 5`` as in the paper, ``G content`` over the factor model.
    With ``constant`` all items begin at one vector: the rest is what content adds.
    """

    def __init__(self, below: nn.Module, settings: Settings, constant: bool) -> None:
        super().__init__()
        self.settings, self.constant, self.below = settings, constant, below
        self.below.requires_grad_(False)
        scale = 0.0 if not settings.deep else below.width**-0.5
        self.generator = nn.Parameter(scale * torch.randn(below.width, below.dim))
        self.common = nn.Parameter(torch.zeros(below.dim))
        rate = torch.tensor(settings.inner_rate).log()
        self.log_rate = nn.Parameter(rate, settings.learn_rate)
        # As the outer loop calls them: what is learned of tasks, and what adapts.
        self.model = self.learner = nn.Module()

    def refresh(self) -> None:
        """Nothing is kept between epochs."""

    def start(self, profile: Tensor) -> Tensor:
        """The vector (B, D) of items of which nothing but content is known."""
        if self.constant:
            return self.common.repeat(len(profile), 1)
        made = self.below.content(profile) @ self.generator
        return made.tanh() / 5 if self.settings.deep else made

    def error(self, phi: Tensor, ratings: Examples, profile: Tensor) -> Tensor:
        """Half the mean squared error of each task."""
        score = self.below.score(phi, ratings.x, profile)
        return mean_squared_error(score, ratings.y, ratings.mask)

    def adapt(self, phi: Tensor, support: Examples) -> Tensor:
        """One step on the support."""
        profile, learning = support.profile, torch.is_grad_enabled()
        with torch.enable_grad():
            phi = phi if phi.requires_grad else phi.detach().requires_grad_()
            score = self.below.score(phi, support.x, profile)
            kind = mean_squared_error if self.settings.inner_mean else squared_error
            loss = kind(score, support.y, support.mask).sum()
            (slope,) = torch.autograd.grad(loss, phi, create_graph=learning)
        return phi - self.log_rate.exp() * slope

    def loss(self, tasks: Tasks) -> Tensor:
        """The meta-loss, averaged over tasks."""
        support, profile = tasks.support, tasks.support.profile
        phi = self.start(profile)
        before = self.error(phi, support, profile)
        after = self.error(self.adapt(phi, support), tasks.query, profile)
        return (self.settings.cold * before + (1 - self.settings.cold) * after).mean()

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N) after one step on the support."""
        phi = self.adapt(self.start(support.profile), support)
        return self.below.score(phi, x, support.profile)


def fit(
    fold: Fold, settings: Settings = PAPER, constant: bool = False, seed: int = 0
) -> MetaEmbedding:
    """Train the network below, then the generator, on a fold of the items."""
    torch.manual_seed(seed)
    if settings.deep:
        below = Deep(fold, settings.dim)
        below.pretrain(fold)
        rows = None
    else:
        below, rows = Factors(fold), fold.warm.item_rows
    meta = MetaEmbedding(below, settings, constant)
    how = {"random": True, "n_query": 20, "most": 20} if settings.random else {}
    return learn(meta, fold, settings, seed, item_rows=rows, **how)


def gaussian(fold: Fold, settings: str, seed: int = 0) -> Predictor:
    """The rival: the Gaussian model with what is known of new items."""
    return fold.with_users
