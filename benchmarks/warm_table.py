"""The ordinary, warm recommender: a head for each known user, trained by minibatches.

The chapter on matrix factorisation builds it; here it stands beside Surprise's SVD.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

from metarec.models import MatrixFactorization
from metarec.tasks import one_thread


class UserTable(nn.Module):
    """A model whose every known user owns a head: the ordinary, warm recommender.

    ``r_hat_ui = offset_i + phi_i . w_u`` with ``w_u`` row u of a table (n_users, dim +
    1). A user who is not in the table has no row, hence no prediction: asking for one
    raises ``IndexError``.
    """

    def __init__(
        self,
        model: MatrixFactorization,
        n_users: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        heads = torch.randn(n_users, len(model.head), generator=generator)
        # A bias starts at the mean user; only the vectors must break their symmetry.
        heads[:, -1] = 0
        self.heads = nn.Parameter(0.1 * heads)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Score each pair ``(users[n], items[n])``, shape (N,)."""
        if len(users) and int(users.max()) >= len(self.heads):
            raise IndexError(
                f"user {int(users.max())} has no row among the {len(self.heads)} that "
                "were trained: a new user needs a task-learner, not a table"
            )
        phi = self.model.features(items)
        return self.model.offset(items) + (phi * self.heads[users]).sum(-1)


@one_thread()
def train_table(
    table: UserTable,
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    epochs: int = 30,
    batch: int = 2048,
    learning_rate: float = 0.01,
    penalty: float = 0.02,
    seed: int = 0,
    progress: bool = True,
) -> list[float]:
    """Fit a warm recommender by minibatches: the mean squared error of each epoch.

    ``min sum_(u,i) (r_ui - r_hat_ui)^2 + penalty (|p_u|^2 + b_u^2 + |q_i|^2 + b_i^2)``,
    the penalty once for each rating. Offsets start at the mean rating ``mu``, and
    ``b_i`` is penalised as its distance from ``mu``.
    """
    model, mu = table.model, rating.mean()
    with torch.no_grad():
        model.item_offset.fill_(mu)
    parameters = [table.heads, model.item_factors, model.item_offset]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    history = []
    for _ in tqdm(range(epochs), desc="training", unit="epoch", disable=not progress):
        total = 0.0
        for rows in torch.randperm(len(user), generator=generator).split(batch):
            u, i = user[rows], item[rows]
            error = (table(u, i) - rating[rows]).square()
            # Counted at each rating, so that whoever is met often is shrunk as often.
            size = table.heads[u].square().sum(-1)
            size = size + model.item_factors[i].square().sum(-1)
            size = size + (model.item_offset[i] - mu).square()
            optimizer.zero_grad()
            (error + penalty * size).mean().backward()
            optimizer.step()
            total += float(error.detach().sum())
        history.append(total / len(user))
    return history
