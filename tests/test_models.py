"""Matrix factorisation and the table of known users."""

import pytest
import torch

from benchmarks.warm_table import UserTable, train_table
from metarec.data import RatingData, SyntheticTruth
from metarec.meta import MetaMind
from metarec.metrics import rmse
from metarec.models import MLP, FeatureAttention, MatrixFactorization


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


def test_attention_starts_where_features_explain_the_item_vectors() -> None:
    g = torch.Generator().manual_seed(0)
    q, f = torch.randn(20, 3, generator=g), torch.randn(20, 4, generator=g)
    twice = torch.cat([q, q + 1])
    model = FeatureAttention(
        twice, torch.zeros(40), f, 2, torch.Generator().manual_seed(1)
    )
    expected = torch.linalg.inv(f.T @ f + 10 * torch.eye(4)) @ f.T @ q
    torch.testing.assert_close(model.values.detach(), expected)
    drawn = 0.3 * torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    drawn[0, 0] = 3.0
    torch.testing.assert_close(model.keys.detach(), drawn)
    assert model.query.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert model.profile_query.shape == (2, 8) and not model.profile_query.any()
    weight = model.attention(torch.arange(20)[None], torch.zeros(1, 2))
    assert weight[..., 0].mean() > 0.5  # most attention goes to the item itself


def test_a_network_starts_small_and_by_its_generator() -> None:
    q, f = torch.zeros(6, 3), torch.zeros(6, 4)
    model = MLP(q, torch.zeros(6), f, 2, torch.Generator().manual_seed(1))
    drawn = torch.randn(9, 32, generator=torch.Generator().manual_seed(1)) / 3
    torch.testing.assert_close(model.first.detach(), drawn)
    assert not model.first_bias.any() and not model.second.any()
    assert model.second.shape == (32, 3)


def test_a_table_starts_small_and_at_the_mean_user() -> None:
    model = MatrixFactorization(10, 3, torch.Generator().manual_seed(0))
    drawn = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.item_factors.detach(), 0.1 * drawn)
    table = UserTable(model, 4, torch.Generator().manual_seed(1))
    drawn = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(table.heads.detach()[:, :3], 0.1 * drawn[:, :3])
    assert not table.heads[:, 3].any()
    with pytest.raises(IndexError, match="user 4 has no row among the 4"):
        table(torch.tensor([0, 4, 1]), torch.tensor([0, 0, 0]))


def test_metamind_of_nobody_is_one_task_with_an_empty_profile() -> None:
    q, f = torch.randn(6, 3), torch.zeros(6, 4)
    mind = MetaMind(MLP(q, torch.zeros(6), f, 2), adapt=["head"])
    assert mind.prior().mean["head"].shape == (1, 4)
