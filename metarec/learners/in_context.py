"""In-context learning: a network reads a user's ratings and answers with a head."""

import torch
from torch import Tensor, nn

from metarec.learners.bayesian import Posterior, PosteriorLearner
from metarec.learners.heads import Rows, expand_mean, scaled
from metarec.learners.prior import Prior
from metarec.models import RatingModel, checked_profile
from metarec.tasks import SUPPORT_SIZES, Examples

HIDDEN = 64  # units of both layers
LEVELS = 5  # points of the scale between which the network interpolates
MOST = max(SUPPORT_SIZES)  # ratings of a support in training


class InContext(PosteriorLearner, nn.Module):
    """Read the support as a set, in one pass, with a network that many users trained.

    ``w = m + s o (K^-1/4 e^a o g + u)``.

    g is the slope of the support's log-likelihood at the prior mean m, s the prior's
    scale, and the network answers with ``a`` and ``u``, how far to go along g and what
    to add to it, and with the answer's variance, ``s e^v``. It starts at ``a = u = v =
    0``: at a step of gradient descent, and the prior's variance. ::

        h_j       = relu(W_1 [phi_j + d_j, offset_j, y_j] + b_1)
        h         = [K^-1/4 sum_j h_j, K^-1/4 s o g, x_u]
        [a, u, v] = W_3 h,  or  W_3 relu(W_2 h + b_2)  if deep

    ``y_j`` are the stars, as weights of the five levels of the scale that they lie
    between; ``d_j``, from 0, is what an item says as an input beyond what it is as an
    output; ``x_u`` is the user's profile. The sum knows no order. ``K^-1/4`` lies
    between a mean, which forgets how many ratings there are, and a sum, which grows
    too fast with them; beyond the K of training it falls as ``1 / K``, so that no
    length is out of reach. Without ratings the answer is the prior.

    Parameters
    ----------
    n_items
        Number of items.
    dim
        Number of weights D of a head.
    low
        Lowest level of the scale.
    high
        Highest level of the scale.
    n_profile
        Number of user features.
    deep
        Whether there is a second layer: for many more users than MovieLens-100K has.
    generator
        Source of the random numbers.

    Source
    ------
    Zaheer et al. (2017) for the sum; Garnelo et al. (2018), neural processes.

    Built in
    --------
    in-context
    """

    levels: Tensor
    initial_scale = 0.15
    noisy = True

    def __init__(
        self,
        n_items: int,
        dim: int,
        low: float = 1.0,
        high: float = 5.0,
        n_profile: int = 0,
        deep: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_profile = n_profile
        self.register_buffer("levels", torch.linspace(low, high, LEVELS))
        n_token, n_known = dim + 1 + LEVELS, HIDDEN + dim + n_profile

        def layer(n: int) -> tuple[nn.Parameter, nn.Parameter]:
            weight = n**-0.5 * torch.randn(n, HIDDEN, generator=generator)
            return nn.Parameter(weight), nn.Parameter(torch.zeros(HIDDEN))

        self.first, self.first_bias = layer(n_token)
        self.deep = deep
        if deep:
            self.second, self.second_bias = layer(n_known)
        # At 0, so that training starts at one step of gradient descent.
        self.third = nn.Parameter(torch.zeros(HIDDEN if deep else n_known, 3 * dim))
        self.items = nn.Parameter(torch.zeros(n_items, dim))

    def stars(self, y: Tensor) -> Tensor:
        """Each rating as weights of the levels, (..., 5): one-hot at a level itself.

        Between two levels, and beyond the ends, ratings are on the line through both.

        Parameters
        ----------
        y
            Ratings, shape (..., N).

        Returns
        -------
        Tensor
            Weights, shape (..., N, 5); each rating's sum to 1.
        """
        step = self.levels[1] - self.levels[0]
        place = (y - self.levels[0]) / step
        below = place.floor().clamp(0, LEVELS - 2)
        part = (place - below)[..., None]
        one_hot = nn.functional.one_hot(below.long(), LEVELS).to(part)
        return (1 - part) * one_hot + part * one_hot.roll(1, -1)

    def read(self, model: RatingModel, support: Examples) -> Tensor:
        """``sum_j h_j``: what the network makes of each rating, summed, (B, 64).

        Parameters
        ----------
        model
            The model, with a linear head.
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Tensor
            Sums over the ratings, shape (B, 64).
        """
        x, mask = support.x, support.mask
        item = model.features(x, support.profile) + self.items[x % model.n_items]
        offset = (model.offset(x) - model.item_offset.mean())[..., None]
        y = torch.where(mask, support.y, self.levels[0])  # no NaN in a product with 0
        tokens = torch.cat([item, offset, self.stars(y)], -1)
        each = (tokens @ self.first + self.first_bias).relu()
        return torch.where(mask[..., None], each, 0.0).sum(-2)

    def posterior(
        self, model: RatingModel, prior: Prior, support: Examples
    ) -> Posterior:
        """The network's answer for each task: a mean, and a variance for each weight.

        Parameters
        ----------
        model
            The model, with a linear head.
        prior
            Where adaptation starts, and how far it trusts the ratings.
        support
            Ratings to adapt on, of B users or tasks.

        Returns
        -------
        Posterior
            The belief about B heads.
        """
        mean, scale = expand_mean(prior, support), prior.scale["head"]
        count = support.mask.sum(-1, keepdim=True).to(mean)
        # More ratings than in training count as that many that say the same on average.
        share = count.clamp(max=MOST) ** 0.75 / count.clamp(min=1)
        slope = share * Rows.of(model, support).slope(mean) / prior.noise
        known = [share * self.read(model, support), scaled(scale, slope)]
        if self.n_profile:
            known.append(checked_profile(support.profile, self.n_profile))
        hidden = torch.cat(known, -1)
        if self.deep:
            hidden = (hidden @ self.second + self.second_bias).relu()
        # Nothing was read where there are no ratings: the prior, whoever it is.
        further, added, wider = (hidden @ self.third * (count > 0)).chunk(3, -1)

        w = mean + scaled(scale, further.exp() * slope + added)
        spread = (0.5 * wider).exp().diag_embed()
        one = torch.eye(w.shape[-1]).to(w)
        return Posterior(w, spread @ scaled(scale, one) @ spread, prior.noise)
