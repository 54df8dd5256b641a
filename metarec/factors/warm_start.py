"""The item vectors that meta-learners start from, cross-fitted."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from metarec.factors.gaussian import GaussianFactorModel
from metarec.tasks import UserHistories, one_thread

PAIRED = 2**12  # items, the most rated, whose pairs with all items are counted


@dataclass(frozen=True)
class WarmStart:
    """Item vectors to meta-train on, and where the rest starts.

    Those of `cross_fit` have not seen the user that they serve. The item table stands
    there several times: rows 0..I-1, from all training users, are for new users; each
    further copy leaves out one part of the training users. What is added to a training
    user's item indices reaches the copy without them; it is 0 for all others.

    Parameters
    ----------
    factors
        Item vectors, row i + c I that of item i in copy c, shape (rows, dim).
    offset
        Offsets of the items, shape (rows,).
    item_rows
        What to add to a training user's item indices, shape (n_users,).
    mean_bias
        Where the head's constant starts.
    implicit
        What a choice of items says, shape (I, dim); None if nothing.

    Built in
    --------
    maml
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

    Parameters
    ----------
    model
        The fitted model, whose item table is copied.
    histories
        Ratings of all users, each user's in one order.
    users
        Indices of users, shape (U,).
    parts
        Number of parts of the users.
    seed
        Seed of everything that is drawn.
    progress
        Whether to show a progress bar on a terminal.

    Returns
    -------
    WarmStart
        The item table and its copies.

    Built in
    --------
    maml
    """
    # The bias has this variance and p_u has 1: scaled, all coordinates have one.
    scale = model.user_covariance[-1, -1].rsqrt()
    part = torch.randperm(len(users), generator=torch.Generator().manual_seed(seed))
    part = part % parts
    tables = [(model.q, model.offset)]
    others = [users[part != j] for j in range(parts)]
    with one_thread() as threads, ThreadPoolExecutor(threads) as pool:
        copies = pool.map(partial(model.item_vectors_without, histories), others)
        tables += tqdm(copies, "cross-fitting", parts, disable=not progress)
    item_rows = torch.zeros(len(histories.start) - 1, dtype=torch.long)
    # Row 0 is for users who were not trained on: their ratings are in no copy.
    item_rows[users] = (part + 1) * histories.n_items
    kind = torch.get_default_dtype()
    factors = torch.cat([scale * q for q, _ in tables]).to(kind)
    offset = torch.cat([offset.to(kind) for _, offset in tables])
    shift = None if model.implicit is None else (model.implicit / scale).to(kind)
    return WarmStart(factors, offset, item_rows, float(model.user_mean[-1]), shift)


def choices(histories: UserHistories, users: Tensor) -> tuple[Tensor, Tensor]:
    """Where ``users`` rated an item, and where they liked it: 1 or 0, (U, I) each."""
    given = histories.everything(users, histories.n_items)
    both = torch.ones_like(given.y), (given.y >= histories.scale.like).float()
    rated, liked = (given.table(each, histories.n_items) for each in both)
    return rated, liked


def lift_vectors(histories: UserHistories, users: Tensor, dim: int = 16) -> WarmStart:
    """Item vectors whose products say how much oftener than by chance two items meet.

    ``q_i . q_j ~ log (n_ij + a) / (n_i n_j / n + a)``, with ``n_ij`` those of the n
    ``users`` who rated i and like j, and ``a = 20`` users. Offsets are the logarithm of
    an item's likes, and the vectors ``y_j`` of what having rated it says are 0. All
    users have the one table: whoever makes lists trains it.

    The vectors are the leading eigenvectors of the table for the 4,096 most rated
    items. Another item has the vector whose products with theirs are nearest to its
    row: memory grows as items x 4,096, and not as their square.

    Parameters
    ----------
    histories
        Ratings of all users, each user's in one order.
    users
        Training users, shape (U,).
    dim
        Length of an item vector.

    Returns
    -------
    WarmStart
        The item table, one copy.

    Source
    ------
    Levy & Goldberg (2014).

    Built in
    --------
    lists
    """
    n_items = histories.n_items
    count = histories.item_counts(users)
    most = count.topk(min(PAIRED, n_items)).indices.sort().values
    lift, n_rated, n_liked = torch.zeros(n_items, len(most)), *torch.zeros(2, n_items)
    for some in users.split(2**24 // n_items + 1):
        rated, liked = choices(histories, some)
        lift.addmm_(rated.T, liked[:, most])
        n_rated, n_liked = n_rated + rated.sum(0), n_liked + liked.sum(0)
    by_chance = n_rated[:, None] * n_liked[most] / len(users)
    # Twenty users more on both sides: a pair that met once or twice is no evidence.
    lift = lift.add_(20).div_(by_chance.add_(20)).log_()
    table = lift[most].double()
    value, vector = torch.linalg.eigh((table + table.T) / 2)
    known = vector[:, -dim:] * value[-dim:].clamp(min=0).sqrt()
    # Other items, if any, come as near to their row as products with these can.
    factors = lift @ torch.linalg.pinv(known).T.to(lift)
    factors[most] = known.to(lift)
    # Item after item, as they are looked up: eigenvectors come column by column.
    factors, offset = factors.contiguous(), (n_liked + 0.5).log()
    one_table = torch.zeros(len(histories.start) - 1, dtype=torch.long)
    return WarmStart(factors, offset, one_table, 0.0, torch.zeros_like(factors))
