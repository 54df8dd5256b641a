"""How good a predicted probability of a click is."""

from typing import NamedTuple

import torch
from torch import Tensor

from metarec.metrics.ratings import same_shape


def log_loss(probability: Tensor, click: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``-log p(click)`` over each user's query, shape (B,), in nats.

    ``-[y log p + (1 - y) log(1 - p)]``, with p kept within [eps, 1 - eps] (eps of its
    type), as scikit-learn does; ``log 2`` for one who always says 1/2. Arguments have
    shape (B, N).

    Parameters
    ----------
    probability
        Predicted probabilities of a click, shape (B, N).
    click
        1 for a click, 0 for none, shape (B, N).
    mask
        True where there is an example, shape (B, N).

    Returns
    -------
    Tensor
        The loss of each user, in nats, shape (B,).

    Raises
    ------
    ValueError
        For a probability outside [0, 1].

    Built in
    --------
    leaderboard
    """
    same_shape(probability, click, mask)
    p = _probability(torch.where(mask, probability, 0.5))
    eps = torch.finfo(p.dtype).eps
    # One sure and wrong prediction must not make the mean infinite.
    p = p.clamp(eps, 1 - eps)
    each = -torch.where(click > 0, p.log(), (1 - p).log())
    return torch.where(mask, each, 0.0).sum(-1) / mask.sum(-1).clamp(min=1)


def auc(score: Tensor, click: Tensor, mask: Tensor) -> Tensor:
    """Probability that a click scores above a non-click, ties counted half: (B,).

    The area under the ROC curve of each user; .5 is chance, nan where all are clicks
    or none is. Arguments have shape (B, N). One row with everybody's is the pooled AUC,
    which also asks whether scores of different users compare.

    Parameters
    ----------
    score
        Scores, shape (B, N).
    click
        1 for a click, 0 for none, shape (B, N).
    mask
        True where there is an example, shape (B, N).

    Returns
    -------
    Tensor
        The area of each user, shape (B,).

    Source
    ------
    Hanley & McNeil (1982).

    Built in
    --------
    leaderboard
    """
    same_shape(score, click, mask)
    clicked, not_clicked = mask & (click > 0), mask & (click <= 0)
    rest = torch.where(not_clicked, score, torch.inf).sort(-1).values
    # What is not asked about stands at an end of the scale, and counts nothing.
    asked = torch.where(clicked, score, -torch.inf)
    below = torch.searchsorted(rest, asked)
    below = below + torch.searchsorted(rest, asked, right=True)
    won = torch.where(clicked, below, 0).sum(-1).double() / 2
    return won / (clicked.sum(-1) * not_clicked.sum(-1))


class Reliability(NamedTuple):
    """Mean prediction, share of clicks and number of cases in each bin that has any.

    Parameters
    ----------
    predicted
        Mean prediction in each bin, shape (bins,).
    observed
        Share of clicks in each bin, shape (bins,).
    cases
        Number of cases in each bin, shape (bins,).

    Plumbing
    --------
    What `reliability` returns.
    """

    predicted: Tensor
    observed: Tensor
    cases: Tensor


def reliability(probability: Tensor, click: Tensor, bins: int = 10) -> Reliability:
    """Put predictions into ``bins`` of equal width and compare with what happened.

    Arguments have shape (N,).

    Parameters
    ----------
    probability
        Predicted probabilities, shape (N,).
    click
        1 for a click, 0 for none, shape (N,).
    bins
        Number of bins of equal width.

    Returns
    -------
    Reliability
        One row for each bin that has any case.

    Raises
    ------
    ValueError
        For a probability outside [0, 1].

    Source
    ------
    Niculescu-Mizil & Caruana (2005).

    Built in
    --------
    leaderboard
    """
    same_shape(probability, click)
    p = _probability(probability).double()
    place = (p * bins).long().clamp(max=bins - 1)
    count = torch.bincount(place, minlength=bins)
    some = count > 0
    predicted = (torch.bincount(place, p, bins) / count)[some]
    observed = (torch.bincount(place, click.double(), bins) / count)[some]
    return Reliability(predicted, observed, count[some])


def expected_calibration_error(
    probability: Tensor, click: Tensor, bins: int = 10
) -> float:
    """Mean distance between prediction and share of clicks, over the bins of all cases.

    A case counts the distance between the mean prediction and the share of clicks in
    its bin. 0 for calibrated predictions and infinite data; few data have some by
    chance.

    Parameters
    ----------
    probability
        Predicted probabilities, shape (N,).
    click
        1 for a click, 0 for none, shape (N,).
    bins
        Number of bins of equal width.

    Returns
    -------
    float
        The error, between 0 and 1.

    Source
    ------
    Guo et al. (2017).

    Built in
    --------
    leaderboard
    """
    table = reliability(probability, click, bins)
    gap = (table.predicted - table.observed).abs()
    return float((gap * table.cases).sum() / table.cases.sum())


def _probability(p: Tensor) -> Tensor:
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            "a probability lies outside [0, 1]: pass probabilities, not scores"
        )
    return p
