"""The network that reads a support as a set, against a loop and against Bayes' rule."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from metarec.data import synthetic_population
from metarec.learners import Bayesian, InContext, Prior
from metarec.meta import MAML
from metarec.models import (
    Bernoulli,
    Gaussian,
    MatrixFactorization,
    RatingModel,
    Softmax,
)
from metarec.tasks import Examples, Tasks
from metarec.training import TrainingConfig, meta_train

N_ITEMS, DIM, N_PROFILE = 12, 3, 2
LIKELIHOODS = (Gaussian(), Bernoulli(4), Softmax(4))
NAMES = [type(each).__name__ for each in LIKELIHOODS]
likelihoods = pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=NAMES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(likelihood: object) -> MatrixFactorization:
    """Two copies of a table of items."""
    table = torch.randn(2 * N_ITEMS, DIM, generator=seeded())
    offset = 3 + torch.randn(2 * N_ITEMS, generator=seeded(1))
    model = MatrixFactorization.from_items(table, offset, N_ITEMS)
    model.likelihood = likelihood
    return model


def drawn_learner(deep: bool = False) -> InContext:
    """Everything that starts at 0 is somewhere else."""
    learner = InContext(N_ITEMS, DIM + 1, 1, 5, N_PROFILE, deep, seeded(2))
    with torch.no_grad():
        for n, value in enumerate(learner.parameters()):
            value.copy_(0.2 * torch.randn(value.shape, generator=seeded(n)))
    return learner


def supports() -> Examples:
    """Four tasks with 0, 1, 3 and 5 ratings; what is padded is no number."""
    x = torch.randint(2 * N_ITEMS, (4, 5), generator=seeded(3))
    y = torch.randint(1, 6, (4, 5), generator=seeded(4)).float()
    mask = torch.arange(5) < torch.tensor([0, 1, 3, 5])[:, None]
    profile = torch.randn(4, N_PROFILE, generator=seeded(5))
    return Examples(x, y.masked_fill(~mask, torch.nan), mask, profile)


PRIOR = Prior(
    {"head": torch.tensor([0.1, -0.2, 0.3, 0.4])},
    {"head": torch.tensor([0.5, 1.0, 1.5, 0.2])},
    torch.tensor(0.7),
)


def by_hand(learner: InContext, model: RatingModel, support: Examples, task: int):
    """One task, one rating after another, as the docstring has it."""
    m, s = PRIOR.mean["head"], PRIOR.scale["head"]
    ratings = [
        (int(x), float(y))
        for x, y, there in zip(
            support.x[task], support.y[task], support.mask[task], strict=True
        )
        if there
    ]
    if not ratings:
        return m, s.diag()
    share = len(ratings) ** -0.25
    phi = torch.cat([model.item_factors, torch.ones(2 * N_ITEMS, 1)], 1)
    score = model.item_offset + phi @ m
    slope, read = torch.zeros(DIM + 1), torch.zeros(64)
    chance = score[:N_ITEMS].softmax(0) @ phi[:N_ITEMS]
    for x, y in ratings:
        if isinstance(model.likelihood, Gaussian):
            slope = slope + (y - score[x]) * phi[x]
        elif isinstance(model.likelihood, Bernoulli):
            slope = slope + (float(y >= 4) - score[x].sigmoid()) * phi[x]
        elif y >= 4:
            slope = slope + phi[x % N_ITEMS] - chance
        one_hot = torch.tensor([float(y == level) for level in range(1, 6)])
        offset = model.item_offset[x : x + 1] - model.item_offset.mean()
        token = torch.cat([phi[x] + learner.items[x % N_ITEMS], offset, one_hot])
        read = read + (token @ learner.first + learner.first_bias).clamp(min=0)
    slope = share * slope / 0.7
    known = torch.cat([share * read, s * slope, support.profile[task]])
    if learner.deep:
        known = (known @ learner.second + learner.second_bias).clamp(min=0)
    out = known @ learner.third
    a, u, v = out[: DIM + 1], out[DIM + 1 : 2 * DIM + 2], out[2 * DIM + 2 :]
    return m + s * (a.exp() * slope + u), (s * v.exp()).diag()


@pytest.mark.parametrize("deep", [False, True])
@likelihoods
def test_a_batch_is_a_loop_over_tasks_and_ratings(
    likelihood: object, deep: bool
) -> None:
    learner, model, support = drawn_learner(deep), model_of(likelihood), supports()
    got = learner.posterior(model, PRIOR, support)
    for task in range(4):
        mean, covariance = by_hand(learner, model, support, task)
        torch.testing.assert_close(got.mean[task], mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            got.covariance[task], covariance, atol=1e-5, rtol=1e-4
        )
    assert torch.equal(learner.adapt(model, PRIOR, support)["head"], got.mean)


@likelihoods
def test_ratings_have_no_order(likelihood: object) -> None:
    learner, model, support = drawn_learner(), model_of(likelihood), supports()
    turned = [part.flip(1) for part in (support.x, support.y, support.mask)]
    other = Examples(*turned, support.profile)
    one, two = (learner.posterior(model, PRIOR, each) for each in (support, other))
    torch.testing.assert_close(one.mean, two.mean)
    torch.testing.assert_close(one.covariance, two.covariance)


@likelihoods
def test_without_ratings_the_answer_is_the_prior(likelihood: object) -> None:
    model, nobody = model_of(likelihood), torch.zeros(2, 1)
    nothing = Examples(nobody.long(), nobody, nobody > 0, torch.randn(2, N_PROFILE))
    got = drawn_learner().posterior(model, PRIOR, nothing)
    torch.testing.assert_close(got.mean, PRIOR.mean["head"].expand(2, -1))
    expected = PRIOR.scale["head"].diag().expand(2, -1, -1)
    torch.testing.assert_close(got.covariance, expected)


@likelihoods
def test_beyond_training_many_ratings_count_as_fifteen(likelihood: object) -> None:
    learner, model = drawn_learner(), model_of(likelihood)
    x = torch.randint(N_ITEMS, (2, 15), generator=seeded(7))
    y = torch.randint(1, 6, (2, 15), generator=seeded(8)).float()
    profile = torch.randn(2, N_PROFILE, generator=seeded(9))
    short, long = (
        Examples(x.repeat(1, n), y.repeat(1, n), x.repeat(1, n) >= 0, profile)
        for n in (1, 8)
    )
    one, two = (learner.posterior(model, PRIOR, each) for each in (short, long))
    torch.testing.assert_close(one.mean, two.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.covariance, two.covariance, atol=1e-4, rtol=1e-4)


@likelihoods
def test_untrained_it_takes_one_step_of_gradient_descent(likelihood: object) -> None:
    model, support = model_of(likelihood), supports()
    learner = InContext(N_ITEMS, DIM + 1, n_profile=N_PROFILE, generator=seeded())
    head = learner.adapt(model, PRIOR, support)["head"]
    for task in range(4):
        expected, _ = by_hand(learner, model, support, task)
        torch.testing.assert_close(head[task], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("deep", [False, True])
def test_it_starts_by_its_generator_and_knows_no_item(deep: bool) -> None:
    learner = InContext(7, 4, n_profile=2, deep=deep, generator=seeded(3))
    drawn = seeded(3)
    n_token, n_known = 4 + 1 + 5, 64 + 4 + 2
    first = torch.randn(n_token, 64, generator=drawn) / n_token**0.5
    torch.testing.assert_close(learner.first.detach(), first)
    assert learner.first_bias.shape == (64,) and not learner.first_bias.any()
    assert not learner.items.any() and learner.items.shape == (7, 4)
    assert not learner.third.any()
    assert learner.third.shape == (64 if deep else n_known, 12)
    assert hasattr(learner, "second") == deep
    if deep:
        second = torch.randn(n_known, 64, generator=drawn) / n_known**0.5
        torch.testing.assert_close(learner.second.detach(), second)
        assert not learner.second_bias.any()


def test_a_full_scale_is_a_covariance() -> None:
    root = torch.randn(DIM + 1, DIM + 1, generator=seeded(6))
    prior = PRIOR._replace(scale={"head": root @ root.T})
    got = drawn_learner().posterior(model_of(Gaussian()), prior, supports())
    torch.testing.assert_close(got.covariance[0], root @ root.T)
    torch.testing.assert_close(got.covariance, got.covariance.mT)
    assert (torch.linalg.eigvalsh(got.covariance) > 0).all()


@pytest.mark.parametrize("ends", [(1, 5), (0, 1), (0.5, 5), (-2, 9)])
def test_stars_are_weights_of_levels(ends: tuple[float, float]) -> None:
    learner = InContext(N_ITEMS, DIM, *ends)
    assert torch.equal(learner.stars(learner.levels), torch.eye(5))
    # A number between levels, and beyond the ends, is where the levels' line has it.
    y = torch.linspace(ends[0] - 1, ends[1] + 1, 23)
    weight = learner.stars(y)
    torch.testing.assert_close(weight.sum(-1), torch.ones(23))
    torch.testing.assert_close(weight @ learner.levels, y)
    assert ((weight != 0).sum(-1) <= 2).all()


@likelihoods
def test_every_weight_of_the_network_is_learned(likelihood: object) -> None:
    model, support = model_of(likelihood), supports()
    meta = MAML(model, drawn_learner(deep=True), ["head"])
    x = torch.arange(N_ITEMS).expand(4, -1)
    query = Examples(x, 5.0 - x % 3, x >= 0)
    meta.loss(Tasks(support, query, torch.arange(4))).backward()
    for name, value in meta.learner.named_parameters():
        assert value.grad is not None and value.grad.abs().max() > 0, name
        assert value.grad.isfinite().all(), name


def test_a_profile_of_another_length_is_refused() -> None:
    support = replace(supports(), profile=torch.zeros(4, 1))
    with pytest.raises(ValueError, match="built for 2 user features and got 1"):
        drawn_learner().adapt(model_of(Gaussian()), PRIOR, support)


def gaussian_users(n: int, k: int, seed: int) -> tuple[Tasks, RatingModel, Prior]:
    """Users drawn from a Gaussian prior that is known, and who rate 60 items."""
    _, truth = synthetic_population(2, 60, 1, 30, clip=False)
    factors = torch.as_tensor(truth.q_i).float()
    offset = torch.as_tensor(truth.mu + truth.b_i).float()
    model = MatrixFactorization.from_items(factors, offset)
    covariance = torch.as_tensor(truth.covariance).float()
    draw = seeded(seed)
    w = torch.randn(n, 2, generator=draw) @ torch.linalg.cholesky(covariance).T
    x = torch.rand(n, 60, generator=draw).argsort(1)[:, : k + 20]
    noise = truth.sigma * torch.randn(x.shape, generator=draw)
    y = model.offset(x) + (model.features(x) * w[:, None]).sum(-1) + noise
    parts = [
        Examples(x[:, at], y[:, at], torch.ones_like(x[:, at], dtype=torch.bool))
        for at in (slice(k), slice(k, None))
    ]
    prior = Prior({"head": torch.zeros(2)}, {"head": covariance}, truth.sigma**2)
    return Tasks(*parts, torch.arange(n)), model, prior


@pytest.mark.slow
def test_it_does_what_bayes_rule_does_where_that_is_right() -> None:
    _, model, prior = gaussian_users(2, 1, 0)
    learner = InContext(60, 2, 1, 6, deep=True, generator=seeded())
    learner.items.requires_grad_(False)
    meta = MAML(model, learner, ["head"], scale=0.5)

    def epoch(generator: torch.Generator) -> Iterator[Tasks]:
        for seed in range(600):
            k = int(torch.randint(3, (1,), generator=generator))
            yield gaussian_users(128, (1, 2, 5)[k], 100 + seed)[0]

    config = TrainingConfig(1, 0.01, average=0.98)
    meta_train(meta, epoch, lambda: 0.0, config, progress=False)
    for k in (1, 2, 5):
        tasks, _, _ = gaussian_users(3000, k, 7)
        support, query = tasks.support, tasks.query
        with torch.no_grad():
            own = meta.prior(support)
            mean, variance = learner.predictive(model, own, support, query.x)
            best, _ = Bayesian().predictive(model, prior, support, query.x)
        rmse, exact = ((query.y - m).square().mean().sqrt() for m in (mean, best))
        assert exact * 0.999 < rmse < 1.02 * exact
        inside = ((query.y - mean).abs() < 1.6449 * variance.sqrt()).float().mean()
        assert inside.item() == pytest.approx(0.9, abs=0.02)
