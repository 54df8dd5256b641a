"""The item vectors that meta-learners start from, cross-fitted."""

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from metarec.factors.gaussian import GaussianFactorModel
from metarec.tasks import UserHistories


@dataclass(frozen=True)
class WarmStart:
    """Item vectors to meta-train on that have not seen the user they serve.

    ``factors`` (rows, dim) and ``offset`` (rows,) hold the item table several times:
    rows 0..I-1, from all training users, are for new users; each further copy leaves
    out one part of the training users. ``item_rows`` (n_users,) is what to add to a
    training user's item indices to reach the copy without them, 0 for all others.
    ``implicit`` (I, dim), where the model has it, is what a choice of items says.

    Built in: maml
    """

    factors: Tensor
    offset: Tensor
    item_rows: Tensor
    mean_bias: float
    implicit: Tensor | None = None


def cross_fit(
    model: GaussianFactorModel,
    histories: UserHistories,
    users: Tensor,
    parts: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> WarmStart:
    """Copy the item table of ``model`` once for each part of its training ``users``.

    A user's own ratings pull the vectors of the items that they rated. Whoever learns
    an inner rate on such vectors learns that few ratings say much, and is wrong for new
    users. Factors are scaled so that the users' prior has one variance in every
    coordinate: one scalar rate then suits them all.

    Built in: maml
    """
    # The bias has this variance and p_u has 1: scaled, all coordinates have one.
    scale = model.user_covariance[-1, -1].rsqrt()
    part = torch.randperm(len(users), generator=torch.Generator().manual_seed(seed))
    part = part % parts
    tables = [(model.q, model.offset)]
    tables += [
        model.item_vectors_without(histories, users[part != j])
        for j in tqdm(range(parts), "cross-fitting", disable=not progress)
    ]
    item_rows = torch.zeros(len(histories.start) - 1, dtype=torch.long)
    # Row 0 is for users who were not trained on: their ratings are in no copy.
    item_rows[users] = (part + 1) * histories.n_items
    return WarmStart(
        factors=torch.cat([scale * q for q, _ in tables]).float(),
        offset=torch.cat([offset.float() for _, offset in tables]),
        item_rows=item_rows,
        mean_bias=float(model.user_mean[-1]),
        implicit=None if model.implicit is None else (model.implicit / scale).float(),
    )
