"""What ratings say under each likelihood, and what every task-learner makes of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from metarec.learners import (
    Bayesian,
    GradientDescent,
    Prior,
    Rows,
    TaskAttention,
    TaskBank,
    TaskLearner,
    predict,
)
from metarec.meta import MAML, MetaLearner, MetaMind, MetaSGD
from metarec.models import (
    MLP,
    Bernoulli,
    FeatureAttention,
    Gaussian,
    Likelihood,
    MatrixFactorization,
    RatingModel,
    Softmax,
)
from metarec.tasks import Examples, Tasks
from metarec.training import TrainingConfig, meta_train

B, ITEMS, DIM = 6, 40, 3
LIKELIHOODS: dict[str, Likelihood] = {
    "stars": Gaussian(),
    "clicks": Bernoulli(like=4),
    "lists": Softmax(like=4),
}
MODELS = ("mf", "mlp", "attention")
SCALES = {
    "number": torch.tensor(0.7).double(),
    "diagonal": torch.tensor([0.2, 1.0, 3.0, 0.5]).double(),
    "full": torch.tensor(
        [[2.0, 0.3, 0, 0], [0.3, 1, 0.2, 0], [0, 0.2, 0.5, 0.1], [0, 0, 0.1, 1]]
    ).double(),
}
goals = pytest.mark.parametrize("goal", LIKELIHOODS)


def made(name: str, goal: str, seed: int = 0, spread: float = 1.0) -> RatingModel:
    generator = torch.Generator().manual_seed(seed)
    q = spread * torch.randn(ITEMS, DIM, generator=generator).double()
    offset = torch.randn(ITEMS, generator=generator).double()
    offset = offset + (3.0 if goal == "stars" else 0.0)
    model: RatingModel = MatrixFactorization.from_items(q, offset)
    if name != "mf":
        features = (torch.rand(ITEMS, 4, generator=generator) < 0.4).double()
        kind = MLP if name == "mlp" else FeatureAttention
        model = kind(q, offset, features, 2, generator).double()
    for value in model.parameters():
        value.data += 0.2 * torch.randn(value.shape, generator=generator).double()
    model.likelihood = LIKELIHOODS[goal]
    return model.double()


def rated(counts: list[int], seed: int = 1, items: int = ITEMS) -> Examples:
    """Different items, with stars, of a user for each count, and their profiles."""
    generator = torch.Generator().manual_seed(seed)
    width = max(*counts, 1)
    x = torch.stack(
        [torch.randperm(items, generator=generator)[:width] for _ in counts]
    )
    y = torch.randint(1, 6, x.shape, generator=generator).double()
    mask = torch.arange(width) < torch.tensor(counts)[:, None]
    # What stands under a false mask must not matter.
    y = torch.where(mask, y, torch.nan)
    profile = torch.randn(len(counts), 2, generator=generator).double()
    return Examples(x, y, mask, profile)


def alone(support: Examples, task: int) -> Examples:
    n = max(1, int(support.mask[task].sum()))
    parts = (p[task : task + 1, :n] for p in (support.x, support.y, support.mask))
    assert support.profile is not None
    return replace(Examples(*parts), profile=support.profile[task : task + 1])


def by_hand(model: RatingModel, goal: str, one: Examples, w: Tensor) -> Tensor:
    """The loss of one user's ratings at a head, from the formulas alone."""
    x, y = one.x[0][one.mask[0]], one.y[0][one.mask[0]]
    every = torch.arange(ITEMS)[None]
    score = model.offset(every)[0] + model.features(every, one.profile)[0] @ w
    liked = y >= 4
    if goal == "stars":
        return 0.5 * (score[x] - y).square().sum()
    if goal == "clicks":
        p = score[x].sigmoid()
        return -(p[liked].log().sum() + (1 - p[~liked]).log().sum())
    return -score.log_softmax(0)[x[liked]].sum()


@goals
@pytest.mark.parametrize("name", MODELS)
def test_slope_and_curvature_are_those_of_the_loss(name: str, goal: str) -> None:
    model, support = made(name, goal), rated([4, 0, 9, 1, 2, 15])
    w = torch.randn(B, DIM + 1, generator=torch.Generator().manual_seed(2)).double()
    rows = Rows.of(model, support)
    for task in range(B):
        one = alone(support, task)

        def loss(head: Tensor, one: Examples = one) -> Tensor:
            return by_hand(model, goal, one, head)

        torch.testing.assert_close(rows.loss(w)[task], loss(w[task]))
        torch.testing.assert_close(-rows.slope(w)[task], jacobian(loss, w[task]))
        torch.testing.assert_close(rows.hessian(w)[task], hessian(loss, w[task]))


@goals
def test_a_query_is_read_in_the_light_of_the_support(goal: str) -> None:
    """One vote a rating or a like; what was seen is no candidate of a list."""
    model, learner = made("mf", goal), GradientDescent(0)
    weight = torch.rand(ITEMS, generator=torch.Generator().manual_seed(3)).double()
    if goal == "lists":
        model.likelihood = Softmax(like=4, weight=weight)
    every = rated([12] * B)
    support = Examples(every.x[:, :5], every.y[:, :5], every.mask[:, :5])
    query = Examples(every.x[:, 5:], every.y[:, 5:], every.mask[:, 5:])
    query.mask[2], query.y[3] = False, 1.0  # nothing asked, and nothing liked
    prior = Prior({"head": model.head}, {"head": torch.tensor(1.0)})
    found = learner.meta_loss(model, prior, Tasks(support, query, torch.arange(B)))
    for task in range(B):
        x, y = query.x[task][query.mask[task]], query.y[task][query.mask[task]]
        score = model(torch.arange(ITEMS))
        if goal == "stars":
            expected = 0.5 * (score[x] - y).square()
        elif goal == "clicks":
            p = score[x].sigmoid()
            expected = -torch.where(y >= 4, p, 1 - p).log()
        else:
            score[support.x[task]] = -torch.inf
            likes = x[y >= 4]
            expected = (
                -score.log_softmax(0)[likes] * weight[likes] / weight[likes].sum()
            )
            expected = expected * len(expected)
        value = expected.mean() if len(expected) else torch.tensor(0.0).double()
        torch.testing.assert_close(found[task], value)


def learners(dim: int = DIM + 1, goal: str = "stars") -> dict[str, TaskLearner]:
    bank = TaskBank(rated([20] * 30, seed=5), 30, dim).double()
    return {
        "gradient": GradientDescent(3),
        "bayesian": Bayesian(),
        "attention": TaskAttention(bank).double(),
    }


@pytest.mark.parametrize("spread", [1.0, 6.0])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("goal", ["clicks", "lists"])
def test_laplace_is_scipys_mode_and_its_curvature(
    goal: str, scale: str, spread: float
) -> None:
    model, support = made("mf", goal, spread=spread), rated([4, 0, 9, 1, 2, 30])
    s = SCALES[scale] if scale == "full" else SCALES[scale] * torch.eye(DIM + 1)
    s = s.double()
    prior = Prior({"head": model.head}, {"head": SCALES[scale]})
    found = Bayesian().posterior(model, prior, support)
    m = model.head.detach()
    for task in range(B):
        one = alone(support, task)

        def objective(w: Tensor, one: Examples = one) -> Tensor:
            pull = 0.5 * (w - m) @ torch.linalg.solve(s, w - m)
            return by_hand(model, goal, one, w) + pull

        def value(w: np.ndarray, at: Any = objective) -> tuple[float, np.ndarray]:
            head = torch.tensor(w, requires_grad=True)
            (slope,) = torch.autograd.grad(at(head), head)
            return float(at(head.detach()).detach()), slope.numpy()

        options = {"gtol": 1e-10, "maxiter": 10_000}
        oracle = minimize(value, m.numpy(), jac=True, method="BFGS", options=options)
        mode = torch.tensor(oracle.x)
        torch.testing.assert_close(found.mean[task], mode, atol=1e-6, rtol=0)
        curvature = hessian(objective, mode).inverse()
        torch.testing.assert_close(
            found.covariance[task], curvature, atol=1e-6, rtol=1e-6
        )


@pytest.mark.parametrize("liked", [True, False])
def test_laplace_reaches_one_click_that_nobody_expected(liked: bool) -> None:
    """Whole steps of Newton's would jump to and fro, from one flat end to the other."""
    far = -10.0 if liked else 10.0
    one = torch.ones(1, 1).double()
    model = MatrixFactorization.from_items(one, far * one[0])
    model.likelihood = Bernoulli(like=4)
    support = Examples(one.long() * 0, one * (5 if liked else 1), one > 0)
    prior = Prior({"head": model.head}, {"head": torch.tensor(50.0).double()})
    found = Bayesian().posterior(model, prior, support).mean[0]
    # Both weights are 50 times v, v = y - p, and phi has two ones.
    odd = brentq(lambda v: v - (liked - 1 / (1 + np.exp(-far - 100 * v))), -1, 1)
    torch.testing.assert_close(found, torch.full((2,), 50 * odd).double())


@pytest.mark.parametrize("goal", ["clicks", "lists"])
def test_laplace_settles_in_single_precision_too(goal: str) -> None:
    model, support = made("mf", goal, spread=3.0), rated([30] * B)
    for size in (1e-4, 1.0, 1e3):
        prior = Prior({"head": model.head}, {"head": torch.tensor(size).double()})
        exact = Bayesian(200).posterior(model, prior, support)
        single = model.float()
        prior = Prior({"head": single.head}, {"head": torch.tensor(size)})
        found = Bayesian().posterior(single, prior, support.like(single.head))
        # The constant is free under a softmax: what counts is what tells items apart.
        n = DIM if goal == "lists" else DIM + 1
        gap = (found.mean - exact.mean)[:, :n].norm(dim=-1)
        assert (gap < 1e-3 * exact.mean[:, :n].norm(dim=-1)).all()
        model.double()


@pytest.mark.parametrize("goal", ["clicks", "lists"])
def test_the_gradient_of_a_mode_is_that_of_the_maximum(goal: str) -> None:
    """By differences, for the prior, the item vectors and the offsets."""
    model, support = made("mf", goal), rated([4, 7, 2])
    model.item_factors.requires_grad_()
    model.item_offset.requires_grad_()
    scale = torch.tensor([0.2, 1.0, 3.0, 0.5]).double().requires_grad_()
    weight = torch.randn(3, DIM + 1, generator=torch.Generator().manual_seed(7))

    def value() -> Tensor:
        prior = Prior({"head": model.head}, {"head": scale})
        return (Bayesian().adapt(model, prior, support)["head"] * weight).sum()

    inputs = [model.head, model.item_factors, model.item_offset, scale]
    slopes = torch.autograd.grad(value(), inputs)
    for parameter, slope in zip(inputs, slopes, strict=True):
        flat = parameter.data.view(-1)
        for at in range(0, len(flat), max(1, len(flat) // 6)):
            ends = []
            for move in (1e-5, -1e-5):
                flat[at] += move
                ends.append(value().item())
                flat[at] -= move
            by_differences = (ends[0] - ends[1]) / 2e-5
            assert slope.view(-1)[at].item() == pytest.approx(by_differences, abs=1e-6)


@pytest.mark.parametrize("name", ["mf", "attention"])
@pytest.mark.parametrize("size", [1e-3, 0.3, 30.0, 1e6])
def test_no_step_of_a_list_raises_its_loss(name: str, size: float) -> None:
    model, support = made(name, "lists", spread=2.0), rated([0, 1, 5, 12, 40])
    names = ["head", "query"] if name == "attention" else ["head"]
    mean = {n: model.get_parameter(n) for n in names}
    prior = Prior(mean, dict.fromkeys(names, torch.tensor(size).double()))
    before = None
    for steps in range(6):
        own = GradientDescent(steps).adapt(model, prior, support)
        x = torch.arange(ITEMS).expand(len(support), -1)
        score = predict(model, own, x, support.profile)
        read = model.likelihood.read(support, ITEMS)
        loss = model.likelihood.loss(score, read.y, read.mask)
        assert loss.isfinite().all()
        if before is not None:
            assert (loss <= before + 1e-9).all() and (loss[1:] < before[1:]).any()
        before = loss
    plain = model.head.detach()
    if name == "mf" and size < 0.01:  # where no step is cut, it is the plain loop
        one = alone(support, 2)
        for _ in range(5):
            plain = plain - size * jacobian(
                lambda w: by_hand(model, "lists", one, w), plain
            )
        torch.testing.assert_close(own["head"][2], plain)


@goals
def test_attention_weighs_tasks_by_what_they_explain(goal: str) -> None:
    """The logit of a task is the change of the log-likelihood to second order."""
    model, support = made("mf", goal), rated([4, 0, 9, 1, 2, 15])
    learner = learners()["attention"]
    assert isinstance(learner, TaskAttention)
    learner.bank.refresh(model)
    prior = Prior({"head": model.head}, {"head": SCALES["diagonal"]}, 1.3)
    found = learner.attention(model, prior, support)
    keys = SCALES["diagonal"] * learner.bank.deltas
    for task in range(B):
        one, m = alone(support, task), model.head.detach()
        if not one.mask.any():
            assert found[task, -1] == 1
            continue

        def loss(w: Tensor, one: Examples = one) -> Tensor:
            return by_hand(model, goal, one, w)

        slope, bend = jacobian(loss, m), hessian(loss, m)
        logits = [-(slope @ k + 0.5 * k @ bend @ k) / 1.3 for k in keys]
        expected = torch.stack([*logits, torch.tensor(0.0).double()]).softmax(0)
        torch.testing.assert_close(found[task], expected)


@goals
def test_a_bank_holds_the_modes_of_its_tasks(goal: str) -> None:
    model = made("mf", goal)
    learner = learners()["attention"]
    assert isinstance(learner, TaskAttention) and learner.bank.history is not None
    learner.bank.refresh(model)
    prior = Prior({"head": model.head}, {"head": torch.tensor(0.2).double()})
    heads = [
        Bayesian().adapt(model, prior, alone(learner.bank.history, t))["head"][0]
        for t in range(30)
    ]
    own = torch.stack(heads).detach()
    torch.testing.assert_close(learner.bank.deltas, own - own.mean(0))


@goals
def test_a_task_code_is_what_was_not_expected(goal: str) -> None:
    model, support = made("mf", goal), rated([4, 0, 9])
    code = MetaMind(model, adapt=["head"]).double().code(support)
    for task, count in enumerate([4, 0, 9]):
        one = alone(support, task)
        w = model.head.detach().requires_grad_()
        (slope,) = torch.autograd.grad(by_hand(model, goal, one, w), w)
        torch.testing.assert_close(code[task], -slope / (count + 5))


def metas(model: RatingModel, learner: TaskLearner) -> dict[str, MetaLearner]:
    names = ["head"]
    if isinstance(model, FeatureAttention) and isinstance(learner, GradientDescent):
        names.append("query")
    generator = torch.Generator().manual_seed(0)
    made: dict[str, MetaLearner] = {
        "maml": MAML(model, learner, names),
        "meta-sgd": MetaSGD(model, learner, names),
        "metamind": MetaMind(model, learner, names, generator=generator),
    }
    if names == ["head"]:
        made["full"] = MetaSGD(model, learner, names, full=True)
    return {name: meta.double() for name, meta in made.items()}


@goals
@pytest.mark.parametrize("learner", ["gradient", "bayesian", "attention"])
@pytest.mark.parametrize("name", MODELS)
def test_every_part_learns_and_a_batch_is_a_loop(
    name: str, learner: str, goal: str
) -> None:
    support = rated([4, 0, 9, 1, 2, 15])
    tasks = Tasks(support, rated([8] * B, seed=9), torch.arange(100, 100 + B))
    items = torch.arange(ITEMS).expand(B, -1)
    for which in metas(made("mf", goal), GradientDescent()) | {"full": None}:
        model = made(name, goal)
        all_metas = metas(model, learners()[learner])
        if which not in all_metas:
            continue
        meta = all_metas[which]
        model.requires_grad_()
        meta.loss(tasks).backward()
        for part, value in meta.named_parameters():
            head = learner != "gradient"
            if (
                name == "attention"
                and goal == "stars"
                and head
                and part == "model.query"
            ):
                continue  # a part of the model still, and it has a gradient too
            assert value.grad is not None and value.grad.isfinite().all(), part
            assert value.grad.abs().sum() > 0, (which, part)
        with torch.no_grad():
            together = meta.predict(support, items)
            for task in range(B):
                one = meta.predict(alone(support, task), items[:1])[0]
                torch.testing.assert_close(together[task], one, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("learner", ["gradient", "bayesian", "attention"])
@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_lists_computes_its_features_once(
    name: str, learner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same loss and gradient as without, also after a parameter has changed."""
    model = made(name, "lists").requires_grad_()
    meta = MAML(model, learners()[learner], ["head"]).double()
    support, query = rated([4, 0, 9, 1, 2, 15]), rated([8] * B, seed=9)
    tasks, asked = Tasks(support, query, torch.arange(100, 100 + B)), []
    meta.loss(tasks)  # a bank is computed first
    features = type(model).features

    def counted(self: RatingModel, items: Tensor, profile: Any = None) -> Tensor:
        asked.append(items.dim())
        return features(self, items, profile)

    monkeypatch.setattr(type(model), "features", counted)

    def slopes() -> list[Tensor]:
        loss = meta.loss(tasks)
        found = torch.autograd.grad(loss, list(meta.parameters()), allow_unused=True)
        return [loss, *(slope for slope in found if slope is not None)]

    for _ in range(2):
        asked.clear()
        once = slopes()
        assert asked.count(1) == 1
        with monkeypatch.context() as patch:
            patch.setattr(MetaLearner, "once", lambda self, support: self)
            torch.testing.assert_close(once, slopes())
        assert "features" not in vars(model)
        with torch.no_grad():
            model.item_factors.mul_(1.5)


@goals
def test_a_bank_is_computed_anew_for_each_batch_and_for_lists_each_epoch(
    goal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, learner, asked = made("mf", goal), learners()["attention"], []
    assert isinstance(learner, TaskAttention)
    meta, refresh = MAML(model, learner, ["head"]).double(), TaskBank.refresh

    def counted(self: TaskBank, model: RatingModel) -> None:
        asked.append(self)
        refresh(self, model)

    monkeypatch.setattr(TaskBank, "refresh", counted)
    tasks = Tasks(rated([4] * B), rated([8] * B, seed=9), torch.arange(100, 100 + B))
    for _ in range(3):
        meta.loss(tasks)
    assert len(asked) == (1 if goal == "lists" else 3)
    model.item_factors.data.mul_(1.5)
    before = learner.bank.deltas.clone()
    config = TrainingConfig(epochs=1, learning_rate=0.0)
    meta_train(meta, lambda _: iter([tasks]), lambda: 0.0, config, progress=False)
    assert not torch.equal(before, learner.bank.deltas)
    found = learner.bank.deltas.clone()
    refresh(learner.bank, model)
    assert torch.equal(found, learner.bank.deltas)


def test_tasks_are_split_in_order_with_all_that_they_have() -> None:
    whole = replace(rated([4, 0, 9, 1, 2]), user=torch.arange(5))
    parts = whole.split(2)
    assert [len(part) for part in parts] == [2, 2, 1]
    for name, value in vars(whole).items():
        joined = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(joined, value, equal_nan=True)
    assert rated([1]).split(2)[0].user is None
