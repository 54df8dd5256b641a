"""Comparisons that say which mistake was made, in place of "not equal"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Wrong(AssertionError):
    """A check's verdict on a mistake, shown to the student as it stands."""


def tensor_of_shape(value: Any, shape: tuple[int, ...], what: str) -> Tensor:
    """``value`` as a float64 tensor of ``shape``; ``Wrong`` says what it is instead."""
    if value is None:
        raise Wrong(f"{what} is None: is there a `return`?")
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value)
        except Exception:
            raise Wrong(
                f"{what} should be a tensor of shape {shape} and is a "
                f"{type(value).__name__}"
            ) from None
    if tuple(value.shape) != tuple(shape):
        raise Wrong(
            f"{what} should have the shape {shape} and has {tuple(value.shape)}"
        )
    if not torch.isfinite(value).all():
        raise Wrong(f"{what} has entries that are not finite numbers")
    answer: Tensor = value.detach().double()
    return answer


def same(
    value: Any,
    expected: Tensor | float,
    what: str,
    mistakes: Mapping[str, Tensor | float] | None = None,
    tolerance: float = 1e-5,
) -> None:
    """Compare with the right answer, and with what known mistakes give instead.

    ``mistakes`` maps what to tell the student to the value which that mistake gives; a
    mistake with two values is there twice, once with a full stop behind. Numbers are
    the same if they differ by at most ``tolerance`` times (1 + |expected|).
    """
    right = torch.as_tensor(expected).detach().double()
    answer = tensor_of_shape(value, tuple(right.shape), what)
    if _close(answer, right, tolerance):
        return
    for message, wrong in (mistakes or {}).items():
        wrong = torch.as_tensor(wrong).detach().double()
        # A mistake that happens to give the right answer here tells nothing.
        if _close(answer, wrong, tolerance) and not _close(wrong, right, tolerance):
            raise Wrong(message)
    raise Wrong(f"{what} should be {_show(right)} and is {_show(answer)}")


def the_same_mapping(
    value: Any,
    expected: Mapping[str, Tensor],
    what: str,
    mistakes: Mapping[str, Mapping[str, Tensor]] | None = None,
    tolerance: float = 1e-5,
) -> None:
    """`same` for a dictionary of tensors: equal names, equal shapes, equal numbers."""
    if not isinstance(value, Mapping):
        raise Wrong(f"{what} should be a dictionary and is a {type(value).__name__}")
    if set(value) != set(expected):
        raise Wrong(
            f"{what} should have the names {sorted(expected)} and has {sorted(value)}"
        )
    answer = {
        name: tensor_of_shape(
            value[name], tuple(right.shape), f"{what}, entry {name!r},"
        )
        for name, right in expected.items()
    }
    if _all_close(answer, expected, tolerance):
        return
    for message, wrong in (mistakes or {}).items():
        if _all_close(answer, wrong, tolerance) and not _all_close(
            wrong, expected, tolerance
        ):
            raise Wrong(message)
    for name, right in expected.items():
        same(answer[name], right, f"{what}, entry {name!r},", tolerance=tolerance)


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    b = torch.as_tensor(b).detach().double()
    if a.shape != b.shape:
        return False
    return bool(((a.double() - b).abs() <= tolerance * (1 + b.abs())).all())


def _all_close(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], tolerance: float
) -> bool:
    return all(name in b and _close(a[name], b[name], tolerance) for name in a)


def _show(value: Tensor) -> str:
    numbers = [f"{x:.5g}" for x in value.flatten()[:6].tolist()]
    if value.dim() == 0:
        return numbers[0]
    return "[" + ", ".join(numbers) + (", ..." if value.numel() > 6 else "") + "]"
