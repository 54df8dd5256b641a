"""Matrix factorisation and the table of known users."""

import pytest
import torch

from metarec.data import RatingData, SyntheticTruth
from metarec.metrics import rmse
from metarec.models import MatrixFactorization, UserTable
from metarec.training import train_table


def test_the_score_is_offset_plus_features_times_head() -> None:
    model = MatrixFactorization(10, 3, torch.Generator().manual_seed(0))
    model.head.data = torch.tensor([1.0, -2.0, 0.5, 0.25])
    model.item_offset.data = torch.linspace(3, 4, 10)
    items = torch.tensor([[4, 2], [9, 9]])
    q = model.item_factors[items]
    by_hand = model.item_offset[items] + (q * model.head[:3]).sum(-1) + 0.25
    torch.testing.assert_close(model(items), by_hand)
    assert model.features(items).shape == (2, 2, 4)


def test_a_table_row_is_that_users_own_model() -> None:
    model = MatrixFactorization(10, 3, torch.Generator().manual_seed(0))
    table = UserTable(model, 4, torch.Generator().manual_seed(1))
    items = torch.arange(10)
    scores = table(torch.full((10,), 2), items)
    model.head.data = table.heads[2].detach()
    torch.testing.assert_close(scores, model(items))


def test_a_user_without_a_row_has_no_prediction() -> None:
    table = UserTable(MatrixFactorization(10, 3), 4)
    with pytest.raises(IndexError, match="a new user needs a task-learner"):
        table(torch.tensor([4]), torch.tensor([0]))


def test_item_vectors_that_are_given_stay_as_they_are() -> None:
    factors, offset = torch.randn(5, 2), torch.randn(5)
    model = MatrixFactorization.from_items(factors, offset)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == ["head"]
    factors += 1
    assert not torch.equal(model.item_factors, factors)


def test_training_recovers_what_made_the_ratings(
    population: tuple[RatingData, SyntheticTruth],
) -> None:
    data, truth = population
    columns = (data.ratings[name].to_numpy() for name in ("user", "item", "rating"))
    user, item, rating = (torch.tensor(column) for column in columns)
    test = torch.arange(len(user)) % 5 == 0
    generator = torch.Generator().manual_seed(0)
    table = UserTable(MatrixFactorization(80, 2, generator), 200, generator)
    parts = [column[~test] for column in (user, item, rating)]
    history = train_table(
        table, *parts, epochs=60, batch=512, penalty=0.05, progress=False
    )
    assert history[-1] < 0.4 * history[0]
    with torch.no_grad():
        found = rmse(table(user[test], item[test]), rating[test])
    constant = rmse(rating[~test].mean().expand(int(test.sum())), rating[test])
    assert truth.sigma * 0.9 < found < 0.8 * constant


def test_training_depends_on_its_seed_alone(data: RatingData) -> None:
    columns = (data.ratings[name].to_numpy() for name in ("user", "item", "rating"))
    ratings = [torch.tensor(column) for column in columns]

    def heads(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        table = UserTable(MatrixFactorization(80, 2, generator), 200, generator)
        train_table(table, *ratings, epochs=1, seed=seed, progress=False)
        return table.heads.detach()

    assert torch.equal(heads(1), heads(1)) and not torch.equal(heads(1), heads(2))


def test_a_heavy_penalty_leaves_the_mean(data: RatingData) -> None:
    columns = (data.ratings[name].to_numpy() for name in ("user", "item", "rating"))
    user, item, rating = (torch.tensor(column) for column in columns)
    generator = torch.Generator().manual_seed(0)
    table = UserTable(MatrixFactorization(80, 2, generator), 200, generator)
    train_table(table, user, item, rating, epochs=60, penalty=1e3, progress=False)
    with torch.no_grad():
        scores = table(user, item)
    torch.testing.assert_close(
        scores, rating.mean().expand_as(scores), atol=0.02, rtol=0
    )
