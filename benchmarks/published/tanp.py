"""TaNP: a neural process answers for a user in one pass, without gradient steps.

Lin et al., Task-adaptive Neural Process for User Cold-Start Recommendation, WWW 2021.
Written from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from content import Content, levels
from draws import learn
from torch import Tensor, nn

from metarec.evaluation import Fold
from metarec.learners.losses import mean_squared_error
from metarec.tasks import Examples, Tasks

LATENT = 32  # numbers of z, a user's code
TASK = 64  # numbers that say which kind of user it is
CLUSTERS = 7  # kinds of users in the pool
DECODER = (128, 128, 128)


@dataclass(frozen=True)
class Settings:
    """How TaNP is trained; as they stand, those of the authors' code."""

    outer_rate: float = 1e-4
    latent: bool = True  # z is drawn in training, and its KL weighs 1; else its mean
    clustering: float = 0.1
    epochs: int = 150
    patience: int = 150
    random: bool = True  # support and query as in the paper, or the course's
    centred: bool = True  # begins at the mean rating, not at 0

    def __str__(self) -> str:
        kind = "latent" if self.latent else "deterministic"
        return f"{kind}, outer rate {self.outer_rate:g}"


PAPER = Settings()
LATENTLY = Settings(2e-3, epochs=40, patience=6, random=False)
CANDIDATES = (LATENTLY, replace(LATENTLY, latent=False, clustering=0.0))


class Mean(nn.Module):
    """Each rating through two layers, then the mean over them; 0 without any."""

    def __init__(self, n_inputs: int, hidden: int, n_outputs: int) -> None:
        super().__init__()
        layers = nn.Linear(n_inputs, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs)
        self.each = nn.Sequential(*layers)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """From tokens (B, N, D) to one row for each task."""
        read = torch.where(mask[..., None], self.each(tokens), 0.0).sum(1)
        return read / mask.sum(1, keepdim=True).clamp(min=1)


class Decoder(Content):
    """The recommender: three layers, each scaled and shifted by the kind of user."""

    def __init__(self, fold: Fold, offset: Tensor | None) -> None:
        super().__init__(fold, offset)
        sizes = (self.width + LATENT, *DECODER)
        self.layers = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
        self.film = nn.ModuleList(nn.Linear(TASK, 2 * n) for n in DECODER)
        self.last = nn.Linear(DECODER[-1], 1)

    def decode(self, x: Tensor, pair: Tensor, z: Tensor, kind: Tensor) -> Tensor:
        """Scores (B, N) under each task's code z (B, 32) and its kind (B, 64)."""
        h = torch.cat([pair, z[:, None].expand(*x.shape, -1)], -1)
        for layer, film in zip(self.layers, self.film, strict=True):
            gamma, beta = film(kind).tanh()[:, None].chunk(2, -1)
            h = (gamma * layer(h) + beta).relu()
        return self.offset[x] + self.last(h).squeeze(-1)


class Encoder(nn.Module):
    """The task-learner: from a support to the belief in z, and to the kind of user."""

    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        self.read = Mean(n_inputs, 64, 64)
        self.belief = nn.Linear(64, 2 * LATENT)
        self.identity = Mean(n_inputs, 128, TASK)
        self.pool = nn.Parameter(TASK**-0.5 * torch.randn(CLUSTERS, TASK))

    def z(self, tokens: Tensor, mask: Tensor) -> torch.distributions.Normal:
        """The belief in z."""
        mean, spread = self.belief(self.read(tokens, mask).relu()).chunk(2, -1)
        return torch.distributions.Normal(mean, 0.1 + 0.9 * spread.sigmoid())

    def kind(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The kind (B, 64), and how much of each cluster is in it (B, 7)."""
        own = self.identity(tokens, mask)
        closeness = 1 / (1 + (own[:, None] - self.pool).square().sum(-1))
        share = closeness / closeness.sum(-1, keepdim=True)
        return own + share @ self.pool, share


def sharpened(share: Tensor) -> Tensor:
    """Shares (B, 7) drawn to their largest, the target of the clustering loss."""
    square = share.square() / share.sum(0)
    return (square / square.sum(-1, keepdim=True)).detach()


class TaNP(nn.Module):
    """min of E_q(z|S,Q) [squared error of Q] + KL(q(z|S,Q) | q(z|S)) + clustering."""

    def __init__(self, fold: Fold, settings: Settings, offset: Tensor | None) -> None:
        super().__init__()
        self.settings = settings
        self.model = Decoder(fold, offset)
        self.learner = Encoder(self.model.width + 1)

    def refresh(self) -> None:
        """Nothing is kept between epochs."""

    def tokens(self, x: Tensor, y: Tensor, pair: Tensor) -> Tensor:
        """What the encoder reads of a rating: the pair, and the rating beside it."""
        return torch.cat([pair, (y - self.model.offset[x])[..., None]], -1)

    def loss(self, tasks: Tasks) -> Tensor:
        """The meta-loss, averaged over tasks."""
        support, query = tasks.support, tasks.query
        pairs = [self.model.pair(e.x, support.profile) for e in (support, query)]
        seen = self.tokens(support.x, support.y, pairs[0])
        asked = self.tokens(query.x, query.y, pairs[1])
        prior = self.learner.z(seen, support.mask)
        kind, share = self.learner.kind(seen, support.mask)
        z, more = prior.mean, torch.tensor(0.0)
        if self.settings.latent:
            both = torch.cat([seen, asked], 1), torch.cat([support.mask, query.mask], 1)
            belief = self.learner.z(*both)
            z = belief.rsample()
            divergence = torch.distributions.kl_divergence(belief, prior)
            more = divergence.sum(-1).mean()
        if self.settings.clustering:
            target = sharpened(share)
            gap = (target * (target / share).log()).sum(-1).mean()
            more = more + self.settings.clustering * gap
        score = self.model.decode(query.x, pairs[1], z, kind)
        return mean_squared_error(score, query.y, query.mask).mean() + more

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N) from one pass over the support."""
        seen = self.model.pair(support.x, support.profile)
        seen = self.tokens(support.x, support.y, seen)
        z = self.learner.z(seen, support.mask).mean
        kind, _ = self.learner.kind(seen, support.mask)
        return self.model.decode(x, self.model.pair(x, support.profile), z, kind)


def fit(
    fold: Fold, settings: Settings = PAPER, items: bool = False, seed: int = 0
) -> TaNP:
    """Train TaNP on a fold; ``items`` adds what is known of each item's level."""
    torch.manual_seed(seed)
    offset = levels(fold, settings.centred, items)
    meta = TaNP(fold, settings, offset)
    rows = fold.warm.item_rows if items else None
    how = {"random": True, "n_query": 10, "most": 20} if settings.random else {}
    return learn(meta, fold, settings, seed, item_rows=rows, **how)
