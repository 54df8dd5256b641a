"""How good a list is, and what chance scores."""

import torch
from torch import Tensor

from metarec.metrics.ratings import same_shape


def dcg(relevance: Tensor, k: int | None = None, exponential: bool = False) -> Tensor:
    """Discounted cumulative gain of items listed in rank order, shape (...,).

    ``DCG@k = sum_{j=1..k} gain_j / log2(j + 1)``, gain the relevance itself, or
    ``2^relevance - 1`` if ``exponential``.

    Parameters
    ----------
    relevance
        Relevance in rank order, best rank first, shape (..., N).
    k
        Number of places that count; all N if not given.
    exponential
        Whether the gain is ``2^relevance - 1`` in place of the relevance.

    Returns
    -------
    Tensor
        The gain of each list, shape (...,).

    Source
    ------
    Järvelin & Kekäläinen (2002).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    top = relevance[..., :k].double()
    gain = torch.exp2(top) - 1 if exponential else top
    rank = torch.arange(1, top.shape[-1] + 1, dtype=torch.float64)
    return (gain / torch.log2(rank + 1)).sum(-1)


def ndcg(
    score: Tensor, relevance: Tensor, k: int | None = None, exponential: bool = False
) -> Tensor:
    """DCG of the ranking by ``score`` over the DCG of the best possible ranking.

    Both arguments have shape (..., N) and cover *all* candidates: the ideal is taken
    over every relevant item, retrieved or not. Equal scores keep their given order;
    where nothing is relevant the result is 0.

    Parameters
    ----------
    score
        Scores, shape (..., N).
    relevance
        Relevance of all candidates, shape (..., N).
    k
        Number of places that count; all N if not given.
    exponential
        Whether the gain is ``2^relevance - 1`` in place of the relevance.

    Returns
    -------
    Tensor
        One number for each list, shape (...,).

    Source
    ------
    Järvelin & Kekäläinen (2002).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    same_shape(score, relevance)
    order = score.argsort(dim=-1, descending=True, stable=True)
    found = dcg(relevance.gather(-1, order), k, exponential)
    ideal = dcg(relevance.sort(-1, descending=True).values, k, exponential)
    return torch.where(ideal > 0, found / ideal.clamp(min=1e-300), 0.0)


def recall(score: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Share of the relevant items that stand among the first ``k`` by ``score``.

    ``relevant`` is boolean, shape (..., N); where nothing is relevant the result is 0.

    Parameters
    ----------
    score
        Scores, shape (..., N).
    relevant
        Whether an item is relevant, shape (..., N).
    k
        Number of places that count.

    Returns
    -------
    Tensor
        One number for each list, shape (...,).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    same_shape(score, relevant)
    top = score.argsort(dim=-1, descending=True, stable=True)[..., :k]
    hits = relevant.gather(-1, top).sum(-1).double()
    return hits / relevant.sum(-1).clamp(min=1)


def precision(score: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Share of the first ``k`` places by ``score`` that hold a relevant item.

    ``relevant`` (..., N) is boolean, or holds the probability that an item is relevant:
    then the result is the expected share. Equal scores keep their given order; places
    beyond the N-th count as misses.

    Parameters
    ----------
    score
        Scores, shape (..., N).
    relevant
        Whether an item is relevant, or the probability of it, shape (..., N).
    k
        Number of places that count.

    Returns
    -------
    Tensor
        One number for each list, shape (...,).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    same_shape(score, relevant)
    top = score.argsort(dim=-1, descending=True, stable=True)[..., :k]
    return relevant.gather(-1, top).double().sum(-1) / k


def chance_precision(relevant: Tensor, k: int) -> Tensor:
    """Expected `precision` of a random order of the N items.

    It is ``R / N`` while ``k <= N``.

    ``relevant`` (..., N) is boolean, or a probability; R is its sum.

    Parameters
    ----------
    relevant
        Whether an item is relevant, or the probability of it, shape (..., N).
    k
        Length of the list.

    Returns
    -------
    Tensor
        The expectation, shape (...,).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    n = relevant.shape[-1]
    return relevant.double().mean(-1) * min(k, n) / k


def chance_ndcg(relevance: Tensor, k: int | None = None) -> Tensor:
    """Expected `ndcg` of a random order of the N items, exactly.

    Each place expects the mean gain, so ``E[nDCG@k] = mean gain / ideal DCG@k *
    sum_{j=1..k} 1 / log2(j + 1)``; 0 where nothing is relevant. With ``R >= k``
    relevant items of one grade it is ``R / N``, the chance of precision.

    Parameters
    ----------
    relevance
        Relevance, binary or graded, shape (..., N).
    k
        Length of the list; all N places if not given.

    Returns
    -------
    Tensor
        The expectation, shape (...,).

    Built in
    --------
    how-a-benchmark-fools-you
    """
    gain = relevance.double()
    # In a random order every place expects the mean gain.
    found = dcg(gain.mean(-1, keepdim=True).expand(gain.shape), k)
    ideal = dcg(gain.sort(-1, descending=True).values, k)
    return torch.where(ideal > 0, found / ideal.clamp(min=1e-300), 0.0)
