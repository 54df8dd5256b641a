"""What a system is put together from, how it starts and what it is trained on."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from metarec import systems
from metarec.data import RatingData, synthetic_population
from metarec.factors import WarmStart
from metarec.learners import (
    Bayesian,
    GradientDescent,
    InContext,
    TaskAttention,
    TaskBank,
)
from metarec.meta import MAML, MetaMind, MetaSGD
from metarec.models import (
    MLP,
    Bernoulli,
    FeatureAttention,
    Gaussian,
    MatrixFactorization,
    Softmax,
)
from metarec.systems import (
    GOALS,
    LEARNERS,
    METAS,
    MODELS,
    Parts,
    System,
    build_system,
    default_config,
    fit_system,
    hold_out,
    item_vectors,
)
from metarec.tasks import Examples, TaskSampler, UserHistories
from metarec.training import TrainingConfig

N_ITEMS, DIM = 80, 3


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def histories(data: RatingData) -> UserHistories:
    return UserHistories(data)


@pytest.fixture(scope="module")
def parts(histories: UserHistories) -> Parts:
    """Two copies of the item table; the even users are served by the second."""
    rows = N_ITEMS * (torch.arange(200) % 2)
    table = drawn(2 * N_ITEMS, DIM), 3 + drawn(2 * N_ITEMS, seed=1) / 10
    warm = WarmStart(*table, rows, 0.25, drawn(N_ITEMS, DIM, seed=2))
    return Parts.of(histories, torch.arange(20), warm, drawn(N_ITEMS, 2, seed=3))


GRID = list(product(MODELS, METAS, LEARNERS))
KINDS = {"mf": MatrixFactorization, "mlp": MLP, "attention": FeatureAttention}
MAPS = {"maml": MAML, "meta-sgd": MetaSGD, "metamind": MetaMind}
TASK_LEARNERS = dict(
    zip(LEARNERS, (GradientDescent, Bayesian, TaskAttention, InContext), strict=True)
)


@pytest.mark.parametrize(("model", "meta", "learner"), GRID)
def test_a_system_is_what_its_names_say(
    model: str, meta: str, learner: str, parts: Parts
) -> None:
    system = System(model, meta, learner, steps=3)
    assert str(system) == f"{model} + {meta} + {learner}"
    made = build_system(system, parts)
    assert type(made.model) is KINDS[model] and type(made) is MAPS[meta]
    assert type(made.learner) is TASK_LEARNERS[learner]
    assert made.model.head.tolist() == [0, 0, 0, 0.25]
    assert made.model.n_items == N_ITEMS
    assert torch.equal(made.model.item_factors, parts.warm.factors)
    assert torch.equal(made.model.item_offset, parts.warm.offset)
    own = learner == "gradient" and model == "attention"
    assert made.adapted == (("head", "query") if own else ("head",))
    assert made.model.implicit is None
    if learner == "gradient":
        assert made.learner == GradientDescent(3)
    scale = made.scale()["head"].detach()
    start = {"gradient": 0.01, "attention": 1.0}.get(learner, 0.15)
    torch.testing.assert_close(scale, torch.full_like(scale, start))
    assert hasattr(made, "log_noise") == (learner != "gradient")
    again = build_system(system, parts).state_dict()
    assert all(torch.equal(value, again[n]) for n, value in made.state_dict().items())


STARTS = {
    "stars": {"gradient": 0.01, "bayesian": 0.15, "attention": 1, "in-context": 0.15},
    "clicks": {"gradient": 0.25, "bayesian": 2.4, "attention": 1, "in-context": 2.4},
    "lists": {"gradient": 0.2, "bayesian": 0.5, "attention": 1, "in-context": 0.4},
}


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize(("model", "learner"), [*product(MODELS, LEARNERS)])
def test_a_goal_says_what_scores_mean_and_what_is_learned(
    goal: str, model: str, learner: str, parts: Parts
) -> None:
    parts = replace(parts, like=3.5, ends=(0.0, 10.0))
    made = build_system(System(model, learner=learner, steps=4, goal=goal), parts)
    likelihood, lists = made.model.likelihood, goal == "lists"
    if lists:
        assert isinstance(likelihood, Softmax) and likelihood.like == 3.5
        # Offsets are logarithms of likes: the most liked counts 1, others the root.
        share = parts.warm.offset.exp() / parts.warm.offset.exp().max()
        torch.testing.assert_close(likelihood.weight, share.sqrt())
    else:
        expected = Gaussian() if goal == "stars" else Bernoulli(3.5)
        assert vars(likelihood) == vars(expected) and type(likelihood) is type(expected)
    gradient, context = learner == "gradient", learner == "in-context"
    own = gradient and model == "attention" and not lists
    assert made.adapted == (("head", "query") if own else ("head",))
    # What all steps together may move; the scale of stars is that of one step.
    start = STARTS[goal][learner] / (4 if gradient and goal != "stars" else 1)
    assert made.scale()["head"].item() == pytest.approx(start)
    frozen = {n for n, p in made.model.named_parameters() if not p.requires_grad}
    of_lists = {"item_offset", "head"} if context else set()
    assert frozen == (of_lists if lists else {"item_factors", "item_offset"})
    assert made.model.head.tolist() == [0, 0, 0, 0.25]
    if context:
        assert made.learner.items.requires_grad == lists
        assert made.learner.levels.tolist() == [0, 2.5, 5, 7.5, 10]
    still = System(model, learner=learner, steps=0, goal=goal)
    scale = build_system(still, parts).scale()["head"].item()
    assert scale == pytest.approx(STARTS[goal][learner])


def test_vectors_for_clicks_are_those_of_likes_in_log_odds(
    histories: UserHistories, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, features = torch.arange(60), torch.zeros(N_ITEMS, 0)
    for implicit in (False, True):
        likes = item_vectors(histories.likes(), users, features, 2, implicit)
        found = item_vectors(histories, users, features, 2, implicit, goal="clicks")
        assert torch.equal(found.factors, likes.factors)
        assert torch.equal(found.item_rows, likes.item_rows)
        # By a probability of 1/2 the slope of the logit is 4.
        assert found.mean_bias == pytest.approx(4 * likes.mean_bias)
        assert (found.implicit is None) == (not implicit)
        if implicit:
            torch.testing.assert_close(found.implicit, 4 * likes.implicit)
        odds = (likes.offset / (1 - likes.offset)).log()
        inside = (likes.offset > 0.02) & (likes.offset < 0.98)
        torch.testing.assert_close(found.offset[inside], odds[inside])
    ends = replace(likes, offset=torch.tensor([-0.3, 0.01, 0.5, 0.99, 1.4]))
    monkeypatch.setattr(systems, "cross_fit", lambda *_, **__: ends)
    found = item_vectors(histories, users, features, 2, goal="clicks").offset
    odds = np.log(0.98 / 0.02)
    np.testing.assert_allclose(found, [-odds, -odds, 0, odds, odds], atol=1e-5)


def test_options_of_a_system(parts: Parts) -> None:
    system = System("mf", "meta-sgd", "bayesian", implicit=True, full=True)
    assert str(system) == "mf + meta-sgd + bayesian + implicit + full"
    made = build_system(system, parts)
    assert torch.equal(made.model.implicit, parts.warm.implicit)
    assert not made.model.implicit.requires_grad
    assert made.scale()["head"].shape == (DIM + 1, DIM + 1)
    assert System("mlp").steps == 5 and build_system(System(), parts).learner.steps == 5


def test_the_seed_of_a_build_is_its_own(parts: Parts) -> None:
    mind = System("mf", "metamind", "bayesian")
    one, two = (build_system(mind, parts, seed).keys for seed in (0, 1))
    assert not torch.equal(one, two)
    assert torch.equal(one, drawn(4, DIM + 1))


def test_settings_of_the_outer_loop() -> None:
    for model in MODELS:
        rate = 0.01 if model == "mf" else 0.003
        expected = TrainingConfig(learning_rate=rate, seed=7)
        assert default_config(System(model), 7) == expected
    assert default_config(System()).seed == 0
    # For lists whatever the model, and with an average of weights for a network.
    lists = TrainingConfig(80, learning_rate=0.003, patience=12, seed=7)
    network = TrainingConfig(25, 0.003, 25, clip=1.0, seed=7, average=0.98)
    for model, learner in product(MODELS, LEARNERS):
        system = System(model, learner=learner, goal="lists")
        expected = network if learner == "in-context" else lists
        assert default_config(system, 7) == expected
    clicks = System(learner="in-context", goal="clicks")
    assert default_config(clicks) == TrainingConfig(learning_rate=0.01)


def test_parts_hold_the_earliest_ratings_and_say_their_sizes(
    parts: Parts, histories: UserHistories
) -> None:
    history = parts.history()
    assert history.user.tolist() == list(range(20))
    assert torch.equal(history.x, histories.everything(torch.arange(20), 64).x)
    # Of a long history the first 64: a few dozen ratings tell a taste.
    long = UserHistories(synthetic_population(3, 90, ratings_per_user=80)[0])
    bank = Parts.of(long, torch.arange(3), parts.warm, parts.item_features).history()
    assert bank.mask.sum(1).tolist() == [64] * 3
    for user in range(3):
        _, item, rating = long.ratings_of(torch.tensor([user]))
        assert torch.equal(bank.x[user], item[:64])
        assert torch.equal(bank.y[user], rating[:64])
    sizes = {"n_items": N_ITEMS, "n_rows": 2 * N_ITEMS, "dim": DIM, "n_features": 2}
    sizes |= {"n_profile": 0, "n_tasks": 20}
    assert parts.sizes == sizes == Parts.blank(sizes).sizes
    blank = Parts.blank(sizes)
    assert blank.history is None and not blank.warm.factors.any()
    built = build_system(System(learner="attention"), blank)
    assert built.learner.bank.deltas.shape == (20, DIM + 1)


def test_a_system_is_trained_on_every_size_but_0_from_its_own_copy(
    parts: Parts, data: RatingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def watch(meta: MAML, tasks: TaskSampler, score: object, *rest: object) -> None:
        seen.update(
            tasks=tasks, score=score, rest=rest, rows=len(meta.model.item_offset)
        )

    monkeypatch.setattr(systems, "meta_train", watch)
    few, users = UserHistories(data, reserved=5), torch.arange(30)
    config = TrainingConfig(epochs=3)
    made = fit_system(
        System(), parts, few, users, lambda meta: 1.5, config, 4, "here", True
    )
    sampler = seen["tasks"]
    assert list(sampler.sizes) == [1, 2, 3, 5] and sampler.part == (0, 1)
    assert torch.equal(sampler.users, users)
    assert torch.equal(sampler.item_rows, parts.warm.item_rows)
    assert sampler.meta_batch == 32
    assert seen["score"]() == 1.5
    assert seen["rest"][:3] == (config, "here", True)
    # While it trains it has all copies; what serves new users is the first alone.
    assert seen["rows"] == 2 * N_ITEMS
    assert torch.equal(made.model.item_factors, parts.warm.factors[:N_ITEMS])
    assert torch.equal(made.model.item_offset, parts.warm.offset[:N_ITEMS])
    fit_system(System("mlp"), parts, few, users, lambda meta: 1.5, seed=4)
    assert seen["rest"][0] == default_config(System("mlp"), 4)
    assert seen["rest"][1:3] == (None, False)
    # A list is asked for all that is liked after the support.
    assert not sampler.to_the_end
    fit_system(System(goal="lists"), parts, few, users, lambda meta: 1.5)
    assert seen["tasks"].meta_batch == 64 and seen["tasks"].to_the_end
    nobody = UserHistories(data, reserved=0)
    fit_system(System(), parts, nobody, users, lambda meta: 1.5)
    assert list(seen["tasks"].sizes) == [0]


def test_a_tenth_of_the_usable_users_validates(data: RatingData) -> None:
    place = data.ratings.groupby("user").cumcount()
    short = data.ratings["user"] % 4 == 0
    kept = data.ratings[~short | (place < 15)].index
    uneven = UserHistories(
        RatingData(**{**vars(data), "ratings": data.ratings.loc[kept]})
    )
    users = torch.arange(100)
    train, validation = hold_out(uneven, users, seed=3)
    usable = [user for user in range(100) if user % 4]
    assert sorted([*train.tolist(), *validation.tolist()]) == usable
    assert len(validation) == 7
    again, other = hold_out(uneven, users, 3), hold_out(uneven, users, 4)
    assert torch.equal(train, again[0]) and torch.equal(validation, again[1])
    assert not torch.equal(validation, other[1])


def test_metamind_starts_near_maml(parts: Parts) -> None:
    model = build_system(System(), parts).model
    g = torch.Generator().manual_seed(5)
    mind = MetaMind(model, adapt=["head"], prototypes=6, generator=g)
    g = torch.Generator().manual_seed(5)
    assert torch.equal(mind.keys, torch.randn(6, DIM + 1, generator=g))
    assert torch.equal(mind.deltas["head"], 0.05 * torch.randn(6, DIM + 1, generator=g))
    assert mind.bias.tolist() == [0] * 6


def test_a_bank_holds_ridge_estimates_around_their_mean(
    parts: Parts, histories: UserHistories
) -> None:
    model = build_system(System(), parts).model
    model.head.data = drawn(DIM + 1, seed=8) / 4
    users = torch.arange(12)
    bank = TaskBank(histories.everything(users, 64), 12, DIM + 1)
    assert not bank.deltas.any()
    bank.refresh(model)
    heads = []
    for user in range(12):
        _, item, rating = histories.ratings_of(torch.tensor([user]))
        phi = np.c_[model.item_factors[item].detach(), np.ones(len(item))].astype(float)
        head = model.head.detach().double().numpy()
        rest = (rating - model.item_offset[item].detach()).numpy() - phi @ head
        heads.append(
            head + np.linalg.solve(phi.T @ phi + np.eye(DIM + 1) / 0.2, phi.T @ rest)
        )
    expected = np.array(heads) - np.mean(heads, 0)
    np.testing.assert_allclose(bank.deltas, expected, atol=1e-4)
    known = histories.everything(torch.tensor([3, 50]), 5)
    assert bank.own(known).nonzero().tolist() == [[0, 3]]
    stranger = Examples(known.x, known.y, known.mask)
    assert not bank.own(stranger).any() and bank.own(stranger).shape == (2, 12)
