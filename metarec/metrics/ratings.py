"""How far predicted stars, and their intervals, lie from the ratings."""

import torch
from torch import Tensor


def rmse(prediction: Tensor, rating: Tensor) -> float:
    """Root of the mean squared error over all ratings, in stars (pooled RMSE).

    ``RMSE = sqrt(mean (r_hat - r)^2)``; both arguments have the same shape.

    Parameters
    ----------
    prediction
        Predicted ratings, in stars, shape (...,).
    rating
        Ratings, in stars, of the same shape (...,).

    Returns
    -------
    float
        The error, in stars.

    Raises
    ------
    ValueError
        If the shapes differ, since broadcasting would hide it.

    Built in
    --------
    matrix-factorization
    """
    same_shape(prediction, rating)
    return float((prediction - rating).square().mean().sqrt())


def mae(prediction: Tensor, rating: Tensor) -> float:
    """Mean absolute error over all ratings, in stars.

    Parameters
    ----------
    prediction
        Predicted ratings, in stars, shape (...,).
    rating
        Ratings, in stars, of the same shape (...,).

    Returns
    -------
    float
        The error, in stars.

    Built in
    --------
    matrix-factorization
    """
    same_shape(prediction, rating)
    return float((prediction - rating).abs().mean())


def user_rmse(prediction: Tensor, rating: Tensor, mask: Tensor) -> Tensor:
    """RMSE of each user over their own query, shape (B,), in stars.

    ``RMSE_u = sqrt(sum_n mask (r_hat - r)^2 / sum_n mask)``; arguments have shape (B,
    N). Every user counts once when these are averaged, however many ratings they gave.

    Parameters
    ----------
    prediction
        Predicted ratings, in stars, shape (B, N).
    rating
        Ratings, in stars, shape (B, N).
    mask
        True where there is an example, shape (B, N).

    Returns
    -------
    Tensor
        The error of each user, in stars, shape (B,).

    Built in
    --------
    tasks
    """
    same_shape(prediction, rating, mask)
    # Selected, not multiplied: what stands under a false mask may be nan.
    error = torch.where(mask, prediction - rating, 0.0)
    return (error.square().sum(-1) / mask.sum(-1).clamp(min=1)).sqrt()


def user_mae(prediction: Tensor, rating: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error of each user over their own query, shape (B,), in stars.

    Parameters
    ----------
    prediction
        Predicted ratings, in stars, shape (B, N).
    rating
        Ratings, in stars, shape (B, N).
    mask
        True where there is an example, shape (B, N).

    Returns
    -------
    Tensor
        The error of each user, in stars, shape (B,).

    Built in
    --------
    tasks
    """
    same_shape(prediction, rating, mask)
    error = torch.where(mask, prediction - rating, 0.0)
    return error.abs().sum(-1) / mask.sum(-1).clamp(min=1)


def gaussian_nll(mean: Tensor, variance: Tensor, rating: Tensor) -> Tensor:
    """``-log N(r; mean, variance)``, in nats, of each rating; arguments have one shape.

    ``1/2 [(r - mean)^2 / variance + log(2 pi variance)]``.

    Parameters
    ----------
    mean
        Predicted means, in stars, shape (...,).
    variance
        Predicted variances, of the shape of the means (...,).
    rating
        Ratings, of the shape of the means (...,).

    Returns
    -------
    Tensor
        In nats, of the shape of the ratings.

    Built in
    --------
    bayesian
    """
    same_shape(mean, variance, rating)
    square = (rating - mean).square() / variance
    return 0.5 * (square + (2 * torch.pi * variance).log())


def coverage(mean: Tensor, variance: Tensor, rating: Tensor, level: float) -> float:
    """Share of the ratings inside the central predictive interval of ``level``.

    The interval is ``mean +- z sqrt(variance)``, closed, z the quantile at (1 + level)
    / 2. Calibrated predictions cover ``level`` of the ratings. Arguments have one
    shape.

    Parameters
    ----------
    mean
        Predicted means, in stars, shape (...,).
    variance
        Predicted variances, of the shape of the means (...,).
    rating
        Ratings, of the shape of the means (...,).
    level
        Probability of the interval, between 0 and 1.

    Returns
    -------
    float
        The share, between 0 and 1.

    Raises
    ------
    ValueError
        If ``level`` is not between 0 and 1.

    Built in
    --------
    bayesian
    """
    same_shape(mean, variance, rating)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    z = torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64))
    inside = (rating - mean).abs() <= z * variance.sqrt()
    return float(inside.double().mean())


def same_shape(*tensors: Tensor) -> None:
    """Refuse shapes that would broadcast.

    Plumbing
    --------
    Shared by the metrics.
    """
    shapes = [str(tuple(each.shape)) for each in tensors]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"shapes differ: {' against '.join(shapes)}; they would broadcast into a "
            "number that means nothing: pass tensors of one shape"
        )
