"""Gradient descent that cannot diverge, however long a history and large a rate."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from metarec.data import RatingData, SyntheticTruth
from metarec.learners import (
    GradientDescent,
    Loss,
    Prior,
    masked_rows,
    mean_squared_error,
    predict,
    squared_error,
    stable_share,
)
from metarec.meta import MAML, MetaLearner, MetaMind, MetaSGD
from metarec.models import (
    MLP,
    Bernoulli,
    FeatureAttention,
    Gaussian,
    MatrixFactorization,
    RatingModel,
)
from metarec.recommender import MetaRecommender
from metarec.tasks import Examples, Tasks
from metarec.training import TrainingConfig

ITEMS, DIM = 30, 3
RATES = ("number", "diagonal", "full")


def random_model(seed: int, clicks: bool = False) -> MatrixFactorization:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(ITEMS, DIM, generator=generator).double()
    model = MatrixFactorization.from_items(q, 3 + q[:, 0]).double()
    model.head.data.normal_(generator=generator)
    model.likelihood = Bernoulli() if clicks else Gaussian()
    return model


def random_support(seed: int, counts: list[int], kinds: int, clicks: bool) -> Examples:
    """A task for each count; items repeat, and only ``kinds`` of them are rated."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(counts), max(counts)
    x = torch.randint(kinds, shape, generator=generator)
    y = torch.randint(2 if clicks else 5, shape, generator=generator).double()
    return Examples(x, y, torch.arange(shape[1]) < torch.tensor(counts)[:, None])


def random_rate(seed: int, kind: str, size: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind == "number":
        return torch.tensor(size).double()
    spread = torch.randn(DIM + 1, generator=generator).double().exp()
    if kind == "diagonal":
        return size * spread
    root = torch.randn(DIM + 1, DIM + 1, generator=generator).double().tril(-1)
    root = (root + torch.eye(DIM + 1)) * spread.sqrt()
    return size * root @ root.T


def losses_along(
    model: RatingModel, rate: Tensor, support: Examples, learner: GradientDescent
) -> Tensor:
    """The support's loss of each task after 0, 1, ... steps."""
    prior = Prior({"head": model.head}, {"head": rate})
    loss = learner.loss or model.likelihood.loss
    path = []
    for steps in range(learner.steps + 1):
        own = replace(learner, steps=steps).adapt(model, prior, support)
        score = predict(model, own, support.x, support.profile)
        path.append(loss(score, support.y, support.mask).detach())
    return torch.stack(path)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=some.integers(0, 2**31),
    counts=some.lists(some.integers(0, 400), min_size=1, max_size=5),
    kinds=some.integers(1, ITEMS),
    kind=some.sampled_from(RATES),
    size=some.floats(-6, 9).map(lambda power: 10**power),
    clicks=some.booleans(),
    first_order=some.booleans(),
    mean=some.booleans(),
)
def test_no_step_raises_the_loss(
    seed: int,
    counts: list[int],
    kinds: int,
    kind: str,
    size: float,
    clicks: bool,
    first_order: bool,
    mean: bool,
) -> None:
    if not any(counts):
        counts = [*counts, 1]
    loss = mean_squared_error if mean and not clicks else None
    learner = GradientDescent(7, loss, first_order)
    path = losses_along(
        random_model(seed, clicks),
        random_rate(seed, kind, size),
        random_support(seed, counts, kinds, clicks),
        learner,
    )
    assert torch.isfinite(path).all()
    assert (path.diff(dim=0) <= 1e-9 * path[:-1] + 1e-9).all()


@pytest.mark.parametrize("clicks", [False, True])
@pytest.mark.parametrize("kind", RATES)
def test_ten_thousand_ratings_in_single_precision(kind: str, clicks: bool) -> None:
    model = random_model(0, clicks).float()
    support = random_support(1, [10_000, 3], ITEMS, clicks)
    support = replace(support, y=support.y.float())
    for size in (1e-3, 1.0, 1e6):
        rate = random_rate(2, kind, size).float()
        path = losses_along(model, rate, support, GradientDescent(10))
        assert (path.diff(dim=0) <= 1e-4 * path[:-1]).all()
        assert (path[-1] < path[0]).all()


def unbounded(
    model: RatingModel, rate: Tensor, support: Examples, learner: GradientDescent
) -> Tensor:
    """What T steps of this very rate give, by autograd and one task after the other."""
    heads = []
    loss = learner.loss or model.likelihood.loss
    for x, y, mask in zip(support.x, support.y, support.mask, strict=True):
        w = model.head.detach()
        for _ in range(learner.steps):
            w = w.detach().requires_grad_()
            score = model.offset(x) + model.features(x) @ w
            (slope,) = torch.autograd.grad(loss(score, y, mask), w)
            w = w - (rate @ slope if rate.dim() == 2 else rate * slope)
        heads.append(w.detach())
    return torch.stack(heads)


def largest(model: RatingModel, rate: Tensor, support: Examples) -> Tensor:
    """The largest eigenvalue of rate times curvature, by the general solver."""
    phi, _ = masked_rows(model, support)
    full = rate if rate.dim() == 2 else rate * torch.eye(DIM + 1).double()
    most = 0.25 if isinstance(model.likelihood, Bernoulli) else 1.0
    found: Tensor = torch.linalg.eigvals(most * full @ phi.mT @ phi)
    return found.real.amax(-1).detach()


@pytest.mark.parametrize("clicks", [False, True])
@pytest.mark.parametrize("kind", RATES)
@pytest.mark.parametrize("loss", [None, squared_error])
def test_a_rate_that_overshoots_by_less_than_half_stays(
    kind: str, clicks: bool, loss: Loss | None
) -> None:
    if clicks and loss:
        return
    model = random_model(3, clicks)
    support = random_support(4, [5, 0, 12, 60], ITEMS, clicks)
    rate = random_rate(5, kind, 1.0)
    # Just below 1.5 for the third task: the fourth is beyond it, the rest are not.
    rate = 1.499 * rate / largest(model, rate, support)[2]
    reach = largest(model, rate, support)
    assert reach[3] > 1.5 > reach[:3].max() > 1.49
    learner = GradientDescent(4, loss)
    prior = Prior({"head": model.head}, {"head": rate})
    found = learner.adapt(model, prior, support)["head"]
    plain = unbounded(model, rate, support, learner)
    torch.testing.assert_close(found[:3], plain[:3], atol=1e-12, rtol=0)
    assert (found[3] - plain[3]).abs().max() > 1e-3
    # And the fourth is what the rate times its share gives.
    share = 1.5 / reach[3]
    cut = unbounded(model, share * rate, support, learner)
    torch.testing.assert_close(found[3], cut[3], atol=1e-10, rtol=0)


def test_the_share_of_a_rate_by_hand() -> None:
    curvature = torch.diag_embed(torch.tensor([[2.0, 12.0], [2.9, 0.0], [0.0, 0.0]]))
    for rate, expected in (
        (0.5, [0.25, 1.0, 1.0]),
        (torch.tensor([0.5, 0.25]), [0.5, 1.0, 1.0]),
        (torch.tensor([0.5, 0.25]).diag(), [0.5, 1.0, 1.0]),
    ):
        share = stable_share(rate, curvature)
        assert share is not None and share.tolist() == pytest.approx(expected)
    assert stable_share(0.5, curvature[1:]) is None
    # A trace beyond 1.5 alone cuts nothing: the largest eigenvalue is what counts.
    share = stable_share(1.25, torch.eye(2)[None])
    assert share is not None and share.tolist() == [1.0]
    # At 2 a deviation would keep its size and change its sign; at 1.6 it nearly would.
    share = stable_share(1.0, torch.tensor([[2.0, 1.0], [1.6, 0.0]]).diag_embed())
    assert share is not None and share.tolist() == pytest.approx([0.75, 0.9375])
    # A task whose features have run away does not stop the others.
    curvature[1:] = torch.tensor([torch.inf, torch.nan])[:, None, None]
    share = stable_share(0.5, curvature)
    assert share is not None and share.tolist() == pytest.approx([0.25, 1.0, 1.0])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=some.integers(0, 2**31),
    count=some.integers(1, 400),
    kind=some.sampled_from(RATES),
    reach=some.floats(0.01, 1e4),
    steps=some.integers(1, 9),
)
def test_what_is_left_along_the_steepest_direction_halves(
    seed: int, count: int, kind: str, reach: float, steps: int
) -> None:
    """Whatever the rate: by ``1 - lambda`` up to 1.5, and by -1/2 beyond."""
    model = random_model(seed)
    support = random_support(seed + 1, [count], ITEMS, False)
    rate = random_rate(seed + 2, kind, 1.0)
    rate = reach * rate / largest(model, rate, support)[0]
    prior = Prior({"head": model.head}, {"head": rate})
    found = GradientDescent(steps).adapt(model, prior, support)["head"][0]
    phi, rest = masked_rows(model, support)
    a = rate if kind == "full" else rate * torch.eye(DIM + 1).double()
    value, vector = torch.linalg.eig(phi[0].mT @ phi[0] @ a)
    steepest = vector[:, value.real.argmax()].real
    # The gradient along it, at the start and after the steps.
    slope = [phi[0].mT @ (phi[0] @ w - rest[0]) for w in (model.head, found)]
    left = [float((a @ steepest @ g).detach()) for g in slope]
    factor = 1 - min(reach, 1.5)
    assert left[1] == pytest.approx(left[0] * factor**steps, rel=1e-6, abs=1e-9)


def metas(model: MatrixFactorization, learner: GradientDescent) -> list[MetaLearner]:
    """Every meta-learner, with numbers that are not those of its start."""
    generator = torch.Generator().manual_seed(8)
    made = [
        MAML(model, learner, ["head"], 0.3),
        MetaSGD(model, learner, ["head"], 0.3),
        MetaSGD(model, learner, ["head"], 0.3, full=True),
        MetaMind(model, learner, ["head"], 0.3, prototypes=3, generator=generator),
    ]
    for meta in made:
        meta.double()
        for name, value in meta.named_parameters():
            if name.startswith(("log_scale", "lower")):
                move = torch.randn(value.shape, generator=generator).double()
                value.data += 0.3 * move
    return made


@pytest.mark.parametrize("clicks", [False, True])
@pytest.mark.parametrize("which", range(4))
def test_the_meta_gradient_runs_through_the_share(which: int, clicks: bool) -> None:
    model = random_model(6, clicks)
    model.item_factors.requires_grad_()
    support = random_support(7, [40, 3, 25], ITEMS, clicks)
    tasks = Tasks(support, random_support(9, [6, 6, 6], ITEMS, clicks), torch.arange(3))
    meta = metas(model, GradientDescent(3))[which]
    reach = largest(model, meta.scale()["head"].detach(), support)
    assert reach[0] > 2 and reach[2] > 2  # without a share the steps would diverge
    parameters = [p for p in meta.parameters() if p.requires_grad]
    found = torch.autograd.grad(
        meta.loss(tasks), parameters, allow_unused=True, materialize_grads=True
    )
    step, seen = 1e-6, 0
    for parameter, gradient in zip(parameters, found, strict=True):
        flat = parameter.data.view(-1)
        for at in range(0, len(flat), max(1, len(flat) // 5)):
            values = []
            for sign in (1, -1):
                flat[at] += sign * step
                values.append(meta.loss(tasks).item())
                flat[at] -= sign * step
            slope = (values[0] - values[1]) / (2 * step)
            expected = pytest.approx(slope, rel=1e-5, abs=1e-8)
            assert gradient.reshape(-1)[at].item() == expected
            seen += abs(slope) > 1e-4
    assert seen > 5


def test_first_order_takes_the_share_as_it_is() -> None:
    model = random_model(6)
    model.item_factors.requires_grad_()
    support = random_support(7, [40, 25], ITEMS, False)
    query = random_support(9, [6, 6], ITEMS, False)
    tasks = Tasks(support, query, torch.arange(2))
    meta = MAML(model, GradientDescent(3, first_order=True), ["head"], 0.3).double()
    parameters = [model.head, model.item_factors]
    found = torch.autograd.grad(meta.loss(tasks), parameters)
    own = meta.adapt(support)["head"].detach().requires_grad_()
    score = predict(model, {"head": own}, query.x)
    loss = squared_error(score, query.y, query.mask).sum() / 12
    at_copy, of_items = torch.autograd.grad(loss, [own, model.item_factors])
    torch.testing.assert_close(found[0], at_copy.sum(0))
    torch.testing.assert_close(found[1], of_items)


@pytest.mark.parametrize("kind", [FeatureAttention, MLP])
@pytest.mark.parametrize("loss", [None, mean_squared_error])
def test_weights_beside_the_head_are_cut_along(
    kind: type[FeatureAttention | MLP], loss: Loss | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    q, features = torch.randn(2, ITEMS, DIM, generator=generator)
    model = kind(q, 3 + q[:, 0], features, generator=generator)
    beside = "query" if kind is FeatureAttention else "first_bias"
    support = random_support(1, [400, 4], ITEMS, False)
    support = replace(support, y=support.y.float())
    scale = 0.02 if loss is None else 9.0  # both far beyond what the head allows
    meta = MAML(model, GradientDescent(5, loss), ["head", beside], scale)
    with torch.no_grad():
        score = meta.predict(support, support.x)
    before = squared_error(model(support.x), support.y, support.mask)
    after = squared_error(score, support.y, support.mask)
    assert (after < before).all() and after[0] < 0.6 * before[0]


def test_what_has_no_known_curvature_is_refused_when_it_runs_away() -> None:
    support = random_support(1, [300], ITEMS, False)
    network = torch.nn.Linear(2, 1).double()

    class Other(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = network

        def forward(self, items: Tensor) -> Tensor:
            both = torch.stack([items.sin(), items.cos()], -1).double()
            score: Tensor = self.inside(both)[..., 0]
            return score

    steady = MAML(Other(), GradientDescent(3), scale=1e-3).double()
    wild = MAML(Other(), GradientDescent(3), scale=1.0).double()
    with torch.no_grad():
        steady.adapt(support)
        with pytest.raises(FloatingPointError, match="smaller inner rate"):
            wild.adapt(support)

    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor(0.0))

        def forward(self, items: Tensor) -> Tensor:
            return self.w.expand(items.shape)

    # One rating of 1: the loss becomes (rate - 1)^2 of itself, and may double.
    one = Examples(torch.zeros(1, 1).long(), torch.ones(1, 1), torch.ones(1, 1) > 0)
    with torch.no_grad():
        MAML(Constant(), GradientDescent(1), scale=1 + 1.95**0.5).adapt(one)
        with pytest.raises(FloatingPointError, match=r"from 0\.5 to 1\.02"):
            MAML(Constant(), GradientDescent(1), scale=1 + 2.05**0.5).adapt(one)
    # A loss of one's own has no known curvature either, not even on a head.
    own_loss = GradientDescent(3, lambda score, y, mask: (score - y).pow(4).sum(-1))
    with (
        torch.no_grad(),
        pytest.raises(FloatingPointError, match="inner loop diverged"),
    ):
        MAML(random_model(0), own_loss, ["head"], 1.0).adapt(support)
    # The mathematics of the loop stay what they are where somebody trains.
    assert wild.adapt(support)["inside.weight"].abs().max() > 100


def test_more_ratings_than_training_saw_leave_no_score_off_the_scale(
    population: tuple[RatingData, SyntheticTruth],
) -> None:
    data, _ = population
    config = TrainingConfig(epochs=3)
    recommender = MetaRecommender(dim=2, reserved=5, config=config)
    recommender.fit(data, progress=False)
    # A rate that training might have found on its five ratings.
    recommender.meta.log_scale.data.fill_(-1.5)
    mine = data.ratings[data.ratings["user"] == 0]
    names = data.items["item_id"].to_numpy()[mine["item"]]
    rated = list(zip(names, mine["rating"], strict=True))
    for k in (1, 5, 10, 20, 29):
        score = recommender.adapt(rated[:k]).score()
        assert score.min() > 0 and score.max() < 6
