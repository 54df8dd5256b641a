"""What is computed once for a batch of lists is what would be computed anew."""

from itertools import product

import pandas as pd
import pytest
import torch

from metarec.data import RatingScale
from metarec.factors import WarmStart
from metarec.recommender import many
from metarec.systems import LEARNERS, METAS, MODELS, Parts, System, build_system
from metarec.tasks import Examples

SCALE = RatingScale(1, 5, 1)


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def support(n: int, items: int = 30) -> Examples:
    x = torch.stack([torch.randperm(items)[:6] for _ in range(n)])
    y = torch.randint(1, 6, x.shape).float()
    return Examples(x, y, torch.ones_like(y) > 0, drawn((n, 3), 5), torch.arange(n))


def system(names: tuple[str, ...]) -> torch.nn.Module:
    torch.manual_seed(0)
    factors = drawn((30, 4), 1)
    warm = WarmStart(factors, drawn((30,), 2), torch.zeros(0), 0.1, factors)
    parts = Parts(warm, (drawn((30, 5), 3) > 0).float(), 3, 9, lambda: support(9))
    meta = build_system(System(*names, goal="lists"), parts)
    with torch.no_grad():
        for parameter in meta.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    meta.refresh()
    return meta


@pytest.mark.parametrize("names", list(product(MODELS, METAS, LEARNERS)))
def test_once_changes_no_answer_and_is_never_old(names: tuple[str, ...]) -> None:
    meta, given = system(names), support(4)
    for change in (0.0, 0.3):  # as another fit, or another state, would
        with torch.no_grad():
            for parameter in meta.model.parameters():
                parameter.add_(change)
            found = meta.adapt(given)["head"]
            expected = meta.learner.adapt(meta.model, meta.prior(given), given)["head"]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_once_answers_for_some_items_as_for_all() -> None:
    meta, given = system(("mlp", "maml", "gradient")), support(3)
    once, some = meta.once(given).model, torch.tensor([4, 2, 9])
    every = once.features(torch.arange(30), given.profile)
    torch.testing.assert_close(once.features(some, given.profile), every[:, some])
    turned = torch.arange(30).flip(0)
    torch.testing.assert_close(once.features(turned, given.profile), every[:, turned])


def test_an_unknown_item_is_not_taken_for_the_last_of_another_user() -> None:
    known = {"a": 0, "b": 1}
    rows = pd.DataFrame(
        {
            "user_id": ["u", "v", "u"],
            "item_id": ["a", "nowhere", "b"],
            "rating": [5, 4, 3],
        }
    )
    with pytest.warns(UserWarning, match="1 ratings"):
        found = many.user_ratings(rows, known, SCALE, "ignore")
    assert found.item.tolist() == [0, 1]
