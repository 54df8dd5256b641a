"""A model under each task's own weights, without touching the model."""

from typing import TypeVar

from torch import Tensor, nn
from torch.func import functional_call, vmap

from metarec.learners.heads import dot, is_head
from metarec.learners.prior import Parameters

M = TypeVar("M", bound=nn.Module)


def predict(
    model: nn.Module, weights: Parameters, x: Tensor, profile: Tensor | None = None
) -> Tensor:
    """Scores (B, N) of each task's own weights for its own inputs ``x``.

    ``x`` may also be (N,), the same for all tasks: for a head, features that no task
    changes are then computed once.

    Parameters
    ----------
    model
        The model whose parameters are adapted.
    weights
        Each task's own weights, by name, with a leading task axis.
    x
        Items to score, shape (B, N), or (N,) for the same items in all tasks.
    profile
        What is known of each user beside the ratings, shape (B, F).

    Returns
    -------
    Tensor
        Scores, shape (B, N).

    Built in
    --------
    inner-loop
    """
    if is_head(model, weights):
        # One row that stands for all tasks, as ``expand`` makes it, is read once.
        x = x[0] if x.dim() == 2 and len(x) > 1 and x.stride(0) == 0 else x
        phi = model.features(x, profile)
        return model.offset(x) + dot(phi, weights["head"])

    if x.dim() == 1:
        x = x.expand(len(next(iter(weights.values()))), -1)
    apart = twin(model)

    def one_task(own: Parameters, *inputs: Tensor) -> Tensor:
        score: Tensor = functional_call(apart, own, inputs)
        return score

    inputs = (x,) if profile is None else (x, profile)
    if len(x) != 1:
        return vmap(one_task)(weights, *inputs)
    # One task alone needs no vmap, which would take most of its time.
    own = {name: w[0] for name, w in weights.items()}
    return one_task(own, *(each[0] for each in inputs))[None]


def twin(module: M) -> M:
    """The same module with the same tensors, to be called with others in their place.

    ``functional_call`` swaps a module's parameters while it runs. In the module itself
    another thread, which adapts another user, would see them.
    """
    # Past ``__setattr__``, which looks at each value: this runs in every step.
    apart = module.__new__(type(module))
    vars(apart).update(vars(module))
    for name in ("_parameters", "_buffers"):
        vars(apart)[name] = dict(vars(module)[name])
    children = module._modules.items()
    vars(apart)["_modules"] = {name: child and twin(child) for name, child in children}
    return apart
