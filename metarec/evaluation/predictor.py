"""What all protocols judge: anything that turns support sets into predictions."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from metarec.tasks import Examples, Tasks, UserHistories


class Predictor(Protocol):
    """Whatever turns a support set into predictions, baselines and learners alike.

    Plumbing: a type.
    """

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        """Scores (B, N) of the items ``x`` (B, N) for the users of ``support``."""


def clipped(predictor: Predictor, tasks: Tasks, histories: UserHistories) -> Tensor:
    """Predict the query of each task, clipped to the scale: (B, N).

    Raises ``ValueError`` for a prediction that is not a number: a mean over users would
    leave its user out, and the rest might look good.
    Plumbing: shared by the protocols.
    """
    with torch.no_grad():
        scores = predictor.predict(tasks.support, tasks.query.x)
    if bad := int((scores.isnan() & tasks.query.mask).sum()):
        raise ValueError(
            f"{bad} of {int(tasks.query.mask.sum())} predictions are nan: a method "
            "must answer for every user and item, with a mean if it knows nothing"
        )
    return scores.clamp(histories.scale.low, histories.scale.high)
