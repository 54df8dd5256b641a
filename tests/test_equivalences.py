"""What the theory says must be equal, in float64, and what it says must differ."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from metarec.learners import (
    Bayesian,
    GradientDescent,
    Posterior,
    Prior,
    TaskAttention,
    TaskBank,
    predict,
    squared_error,
)
from metarec.meta import MAML, MetaMind, MetaSGD
from metarec.models import (
    MLP,
    Bernoulli,
    FeatureAttention,
    MatrixFactorization,
    RatingModel,
)
from metarec.tasks import Examples, Tasks

N_ITEMS, DIM, B, K = 30, 3, 6, 7


@pytest.fixture(autouse=True)
def in_double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def model(seed: int = 0) -> MatrixFactorization:
    g = torch.Generator().manual_seed(seed)
    made = MatrixFactorization.from_items(
        torch.randn(N_ITEMS, DIM, generator=g), torch.rand(N_ITEMS, generator=g) + 3
    )
    made.head.data = 0.3 * torch.randn(DIM + 1, generator=g)
    return made


def support(seed: int = 1, n: int = B, k: int = K) -> Examples:
    """Tasks with k, k - 1, ... ratings; the last may have none."""
    g = torch.Generator().manual_seed(seed)
    x = torch.stack([torch.randperm(N_ITEMS, generator=g)[:k] for _ in range(n)])
    y = 1 + 4 * torch.rand(n, k, generator=g)
    mask = torch.arange(k) < (k - torch.arange(n) % k)[:, None]
    return Examples(x, y, mask)


def alone(examples: Examples, t: int) -> Examples:
    n = int(examples.mask[t].sum())
    return Examples(
        *(part[t : t + 1, :n] for part in (examples.x, examples.y, examples.mask))
    )


SCALES = {
    "scalar": torch.tensor(0.4, dtype=torch.float64),
    "diagonal": torch.tensor([0.2, 0.5, 1.0, 0.3], dtype=torch.float64),
    "full": torch.tensor(
        [[0.5, 0.1, 0, 0.2], [0.1, 0.4, 0, 0], [0, 0, 0.9, -0.1], [0.2, 0, -0.1, 0.6]],
        dtype=torch.float64,
    ),
}


def as_matrix(scale: Tensor) -> Tensor:
    return scale if scale.dim() == 2 else scale * torch.eye(DIM + 1)


def prior_of(made: RatingModel, scale: Tensor, noise: float = 0.7) -> Prior:
    return Prior({"head": made.head.detach()}, {"head": scale}, torch.tensor(noise))


def system(made: RatingModel) -> dict[str, object]:
    """Phi, e and the ratings of the first task."""
    task = alone(support(), 0)
    phi = made.features(task.x)[0].detach()
    rest = (task.y - made.offset(task.x))[0].detach()
    return {"task": task, "phi": phi, "rest": rest}


@pytest.mark.parametrize("kind", SCALES)
def test_the_posterior_mean_is_ridge_in_the_norm_of_the_prior(kind: str) -> None:
    made = model()
    prior = prior_of(made, SCALES[kind])
    parts = system(made)
    # Ridge as least squares with extra rows, solved by another routine.
    root = torch.linalg.cholesky(as_matrix(SCALES[kind]).inverse()).T
    rows = torch.cat([parts["phi"] / prior.noise.sqrt(), root])
    right = torch.cat([parts["rest"] / prior.noise.sqrt(), root @ made.head.detach()])
    expected = torch.linalg.lstsq(rows, right[:, None]).solution[:, 0]
    found = Bayesian().posterior(made, prior, parts["task"])
    torch.testing.assert_close(found.mean[0], expected, rtol=0, atol=1e-10)
    precision = rows.T @ rows
    torch.testing.assert_close(
        found.covariance[0] @ precision, torch.eye(DIM + 1), rtol=0, atol=1e-9
    )


def test_one_step_approaches_the_posterior_mean_as_the_prior_shrinks() -> None:
    made, parts = model(), system(model())
    gaps = []
    for size in (1e-1, 1e-2, 1e-3):
        prior = prior_of(made, size * SCALES["full"])
        bayes = Bayesian().adapt(made, prior, parts["task"])["head"]
        # sigma^2 is a part of the rate under gradient descent.
        rate = prior._replace(scale={"head": size * SCALES["full"] / prior.noise})
        step = GradientDescent(1).adapt(made, rate, parts["task"])["head"]
        gaps.append((step - bayes).norm() / (bayes - made.head).norm())
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]
    assert gaps[2] < 0.05


def test_the_online_update_equals_the_batch_posterior() -> None:
    made, parts = model(), system(model())
    prior = prior_of(made, SCALES["full"])
    batch = Bayesian().posterior(made, prior, parts["task"])
    online = Posterior(
        prior.mean["head"][None], as_matrix(SCALES["full"])[None], prior.noise
    )
    for phi, rest in zip(parts["phi"], parts["rest"], strict=True):
        online = online.update(phi[None], rest[None] - online.mean @ phi)
    torch.testing.assert_close(online.mean, batch.mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(online.covariance, batch.covariance, rtol=0, atol=1e-10)


def learners(made: RatingModel) -> dict[str, object]:
    bank = TaskBank(support(9, 40), 40, DIM + 1)
    bank.refresh(made)
    return {
        "gradient": GradientDescent(3),
        "bayesian": Bayesian(),
        "attention": TaskAttention(bank),
    }


@pytest.mark.parametrize("name", ["gradient", "bayesian", "attention"])
def test_a_batch_equals_a_loop_over_its_tasks(name: str) -> None:
    made = model()
    learner = learners(made)[name]
    prior = prior_of(made, torch.tensor(0.05))
    tasks = support()
    batch = learner.adapt(made, prior, tasks)["head"]
    for t in range(B):
        one = learner.adapt(made, prior, alone(tasks, t))["head"][0]
        torch.testing.assert_close(batch[t], one, rtol=0, atol=1e-10)
    # What stands under the mask must not matter, NaN included.
    dirty = Examples(
        torch.where(tasks.mask, tasks.x, 0),
        torch.where(tasks.mask, tasks.y, torch.nan),
        tasks.mask,
    )
    torch.testing.assert_close(learner.adapt(made, prior, dirty)["head"], batch)


@pytest.mark.parametrize("name", ["gradient", "bayesian", "attention"])
@pytest.mark.parametrize("meta_of", [MAML, MetaSGD])
def test_without_ratings_the_answer_is_the_prior_exactly(
    name: str, meta_of: type[MAML]
) -> None:
    made = model()
    meta = meta_of(made, learners(made)[name], adapt=["head"])
    nothing = Examples(
        torch.zeros(2, 1, dtype=torch.long),
        torch.zeros(2, 1),
        torch.zeros(2, 1, dtype=torch.bool),
    )
    assert torch.equal(meta.adapt(nothing)["head"], made.head.expand(2, -1))


def test_metamind_without_ratings_has_the_prior_of_the_empty_code() -> None:
    made = model()
    mind = MetaMind(made, Bayesian(), ["head"])
    nothing = Examples(
        torch.zeros(2, 1, dtype=torch.long),
        torch.zeros(2, 1),
        torch.zeros(2, 1, dtype=torch.bool),
    )
    expected = made.head + mind.bias.softmax(-1) @ mind.deltas["head"]
    found = mind.adapt(nothing)["head"]
    torch.testing.assert_close(found, expected.expand(2, -1), rtol=0, atol=1e-12)
    assert torch.equal(mind.prior().mean["head"][0], found[0])


@pytest.mark.parametrize("name", ["gradient", "bayesian", "attention"])
def test_metamind_with_one_prototype_is_maml_from_its_start(name: str) -> None:
    made = model()
    mind = MetaMind(made, learners(made)[name], ["head"], prototypes=1)
    moved = model()
    moved.head.data = made.head.data + mind.deltas["head"].data[0]
    maml = MAML(moved, mind.learner, ["head"])
    x = torch.arange(N_ITEMS).expand(B, -1)
    torch.testing.assert_close(
        mind.predict(support(), x), maml.predict(support(), x), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", ["gradient", "bayesian", "attention"])
def test_meta_sgd_with_equal_rates_is_maml(name: str) -> None:
    made = model()
    learner = learners(made)[name]
    tasks = Tasks(support(), support(3), torch.arange(B))
    maml = MAML(made, learner, ["head"], scale=0.03, learn_scale=False)
    sgd = MetaSGD(made, learner, ["head"], scale=0.03, learn_scale=False)
    full = MetaSGD(made, learner, ["head"], scale=0.03, learn_scale=False, full=True)
    for other in (sgd, full):
        torch.testing.assert_close(maml.loss(tasks), other.loss(tasks))
    (a,) = torch.autograd.grad(maml.loss(tasks), made.head)
    (b,) = torch.autograd.grad(sgd.loss(tasks), made.head)
    torch.testing.assert_close(a, b)


def test_meta_sgd_has_twice_the_parameters_and_the_outside_gradient() -> None:
    made = torch.nn.Sequential(torch.nn.Linear(3, 1, bias=False), torch.nn.Flatten(0))
    made[0].weight.data = torch.tensor([[2.0, 3.0, 5.0]])
    meta = MetaSGD(made, GradientDescent(1, squared_error), scale=0.5)
    assert sum(p.numel() for p in meta.parameters()) == 6
    one = torch.ones(1, 1, dtype=torch.bool)
    tasks = Tasks(
        Examples(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.zeros(1, 1), one),
        Examples(torch.tensor([[[4.0, 5.0, 6.0]]]), torch.zeros(1, 1), one),
        torch.tensor([-1]),
    )
    meta.loss(tasks).backward()
    torch.testing.assert_close(
        made[0].weight.grad, torch.tensor([[3780.0, 8505, 13230]])
    )
    # d/d log alpha = alpha d/d alpha, and alpha is 1/2.
    (log_rates,) = meta.log_scale.values()
    expected = 0.5 * torch.tensor([[28980.0, 72450, 130410]])
    torch.testing.assert_close(log_rates.grad, expected)


def test_task_attention_is_bayes_rule_over_the_historical_users() -> None:
    made = model()
    learner = learners(made)["attention"]
    prior = prior_of(made, torch.tensor(1.0))
    tasks, noise = support(), 0.7
    weight = learner.attention(made, prior, tasks)
    atoms = torch.cat([learner.bank.deltas, torch.zeros(1, DIM + 1)]) + made.head
    for t in range(B):
        task = alone(tasks, t)
        scores = made.offset(task.x) + atoms @ made.features(task.x)[0].T
        density = torch.distributions.Normal(scores, noise**0.5)
        likelihood = density.log_prob(task.y[0]).sum(-1)
        torch.testing.assert_close(weight[t], likelihood.softmax(-1), rtol=0, atol=1e-9)


def test_a_task_never_attends_to_itself() -> None:
    made = model()
    history = support(9, 40)
    history = Examples(history.x, history.y, history.mask, user=torch.arange(40))
    bank = TaskBank(history, 40, DIM + 1)
    bank.refresh(made)
    own = Examples(
        *(p[:5] for p in (history.x, history.y, history.mask)), user=torch.arange(5)
    )
    learner = TaskAttention(bank)
    prior = prior_of(made, torch.tensor(1.0))
    weight = learner.attention(made, prior, own)
    assert (weight[torch.arange(5), torch.arange(5)] == 0).all()
    stranger = learner.attention(made, prior, Examples(own.x, own.y, own.mask))
    assert (stranger[torch.arange(5), torch.arange(5)] > 0).all()


def test_a_full_scale_is_its_root_times_the_roots_transpose() -> None:
    meta = MetaSGD(model(), Bayesian(), ["head"], scale=0.2, full=True)
    d = DIM + 1
    start = meta.scale()["head"]
    torch.testing.assert_close(start, 0.2 * torch.eye(d))
    g = torch.Generator().manual_seed(0)
    meta.lower.data = torch.randn(d, d, generator=g)
    meta.log_scale["head"].data = torch.randn(d, generator=g)
    alpha, lower = meta.log_scale["head"].exp(), meta.lower
    root = torch.zeros(d, d)
    for i in range(d):
        for j in range(i + 1):
            root[i, j] = (1.0 if i == j else lower[i, j]) * alpha[j].sqrt()
    expected = torch.zeros(d, d)
    for i in range(d):
        for j in range(d):
            expected[i, j] = sum(root[i, k] * root[j, k] for k in range(d))
    torch.testing.assert_close(meta.scale()["head"], expected)
    # Bounded away from 0 in every direction: a step never goes uphill.
    assert torch.linalg.eigvalsh(expected).min() > 0


def test_laplace_stands_at_the_maximum_of_the_posterior() -> None:
    made = model()
    made.item_offset.data -= 3.5
    made.likelihood = Bernoulli()
    scale = SCALES["full"]
    prior = prior_of(made, scale, 1.0)
    task = alone(support(), 0)
    task = Examples(task.x, (task.y > 3).double(), task.mask)
    found = Bayesian().posterior(made, prior, task)
    w = found.mean[0].detach().requires_grad_()

    def objective(head: Tensor) -> Tensor:
        score = functional_call(made, {"head": head}, (task.x[0],))
        distance = head - prior.mean["head"]
        pull = 0.5 * distance @ torch.linalg.solve(scale, distance)
        return Bernoulli().loss(score, task.y[0], task.mask[0]) + pull

    (gradient,) = torch.autograd.grad(objective(w), w)
    assert gradient.norm() < 1e-8
    hessian = torch.autograd.functional.hessian(objective, w.detach())
    torch.testing.assert_close(
        found.covariance[0].inverse(), hessian, atol=1e-6, rtol=0
    )
    # A click that is not there must not matter, NaN included.
    k = task.x.shape[1]
    x, y, mask = (torch.cat([part, part], 1) for part in (task.x, task.y, task.mask))
    y[:, k:], mask[:, k:] = torch.nan, False
    padded = Bayesian().posterior(made, prior, Examples(x, y, mask))
    torch.testing.assert_close(padded.mean, found.mean)


@pytest.mark.parametrize("kind", [MLP, FeatureAttention])
def test_adapting_more_than_a_head_equals_the_loop(kind: type[RatingModel]) -> None:
    g = torch.Generator().manual_seed(0)
    features = (torch.rand(N_ITEMS, 4, generator=g) < 0.5).double()
    made = kind(model().item_factors.data, model().item_offset.data, features, 2)
    made.head.data.normal_(generator=g)
    names = ["head", "query"] if kind is FeatureAttention else ["head", "second"]
    meta = MAML(made, GradientDescent(2), names, scale=0.01)
    tasks = support()
    profile = torch.randn(B, 2, generator=g)
    tasks = Examples(tasks.x, tasks.y, tasks.mask, profile)
    batch = meta.adapt(tasks)
    x = torch.arange(N_ITEMS).expand(B, -1)
    scores = predict(made, batch, x, profile)
    for t in range(B):
        one = alone(tasks, t)
        own = {
            n: p.detach().clone().requires_grad_()
            for n, p in made.named_parameters()
            if n in names
        }
        for _ in range(2):
            score = functional_call(made, own, (one.x[0], profile[t]))
            loss = 0.5 * (score - one.y[0]).square().sum()
            grads = torch.autograd.grad(loss, list(own.values()))
            own = {
                n: w - 0.01 * d for (n, w), d in zip(own.items(), grads, strict=True)
            }
        expected = functional_call(made, own, (x[t], profile[t]))
        torch.testing.assert_close(scores[t], expected, rtol=0, atol=1e-10)


def test_the_predictive_variance_is_that_of_draws_from_the_posterior() -> None:
    made, prior = model(), prior_of(model(), SCALES["full"])
    tasks = support()
    x = torch.arange(N_ITEMS).expand(B, -1)
    score, variance = Bayesian().predictive(made, prior, tasks, x)
    posterior = Bayesian().posterior(made, prior, tasks)
    torch.manual_seed(0)
    drawn = torch.distributions.MultivariateNormal(
        posterior.mean, posterior.covariance
    ).sample((20_000,))
    phi = made.features(torch.arange(N_ITEMS))
    scores = drawn @ phi.T + made.item_offset
    torch.testing.assert_close(scores.mean(0), score, rtol=0, atol=0.05)
    expected = scores.var(0) + prior.noise
    torch.testing.assert_close(variance, expected, rtol=0.05, atol=0)


def test_the_bayesian_learns_from_the_density_of_the_query() -> None:
    made, prior = model(), prior_of(model(), SCALES["full"])
    tasks = Tasks(support(), support(3), torch.arange(B))
    tasks.query.mask[2] = False  # a task that is asked nothing
    found = Bayesian().meta_loss(made, prior, tasks)
    score, variance = Bayesian().predictive(made, prior, tasks.support, tasks.query.x)
    for t in range(B):
        asked = tasks.query.mask[t]
        density = torch.distributions.Normal(score[t, asked], variance[t, asked].sqrt())
        expected = -density.log_prob(tasks.query.y[t, asked]).sum()
        expected = expected / max(int(asked.sum()), 1)
        if asked.any():  # up to the constant of a Gaussian
            expected = expected - 0.5 * torch.tensor(2 * torch.pi).log()
        torch.testing.assert_close(found[t], expected)


def test_a_click_brings_no_noise_of_its_own() -> None:
    made = model()
    made.item_offset.data -= 3.5
    made.likelihood = Bernoulli()
    prior, tasks = prior_of(made, SCALES["full"], 1.0), support()
    tasks = Examples(tasks.x, (tasks.y > 3).double(), tasks.mask)
    x = torch.arange(N_ITEMS).expand(B, -1)
    posterior = Bayesian().posterior(made, prior, tasks)
    score, variance = Bayesian().predictive(made, prior, tasks, x)
    phi = made.features(x)
    for t in range(B):
        expected = (phi[t] @ posterior.covariance[t] * phi[t]).sum(-1)
        torch.testing.assert_close(variance[t], expected)
        expected = made.item_offset + phi[t] @ posterior.mean[t]
        torch.testing.assert_close(score[t], expected)
    # The meta-loss is that of all learners: cross-entropy under the posterior mean.
    both = Tasks(tasks, tasks, torch.arange(B))
    losses = Bayesian().meta_loss(made, prior, both)
    for t in range(B):
        task = alone(tasks, t)
        own = made.item_offset[task.x] + made.features(task.x) @ posterior.mean[t]
        expected = torch.nn.functional.binary_cross_entropy_with_logits(own, task.y)
        torch.testing.assert_close(losses[t], expected)


def test_the_meta_loss_reads_a_bank_of_now_without_the_task_itself() -> None:
    made = model()
    history = support(9, 40)
    history = Examples(history.x, history.y, history.mask, user=torch.arange(40))
    bank = TaskBank(history, 40, DIM + 1)  # as it was made: of zeros
    meta = MAML(made, TaskAttention(bank), ["head"])
    own = Examples(*(p[:5] for p in (history.x, history.y, history.mask)))
    tasks = Tasks(own, support(3, 5), torch.arange(5))
    found = meta.loss(tasks)
    assert bank.deltas.any()
    known = Examples(own.x, own.y, own.mask, user=tasks.user)
    losses = meta.learner.meta_loss(
        made, meta.prior(known), Tasks(known, *[tasks.query, tasks.user])
    )
    torch.testing.assert_close(found, losses.mean())
    strangers = Tasks(own, tasks.query, torch.arange(50, 55))
    assert (meta.loss(strangers) - found).abs() > 1e-6


def test_the_mlp_is_what_torch_makes_of_its_layers() -> None:
    g = torch.Generator().manual_seed(0)
    features = (torch.rand(N_ITEMS, 4, generator=g) < 0.5).double()
    made = MLP(model().item_factors.data, model().item_offset.data, features, 2)
    profile = torch.randn(B, 2, generator=g)
    items = torch.randint(N_ITEMS, (B, 5), generator=g)
    q = made.item_factors[items]
    # It starts as matrix factorisation.
    assert torch.equal(made.features(items, profile)[..., :-1], q)
    made.second.data.normal_(generator=g)
    made.first_bias.data.normal_(generator=g)
    hidden, out = torch.nn.Linear(DIM + 6, 32), torch.nn.Linear(32, DIM, bias=False)
    hidden.weight.data, hidden.bias.data = made.first.data.T, made.first_bias.data
    out.weight.data = made.second.data.T
    inputs = [q, features[items], profile[:, None].expand(-1, 5, -1)]
    expected = q + out(torch.relu(hidden(torch.cat(inputs, -1))))
    found = made.features(items, profile)
    torch.testing.assert_close(found[..., :-1], expected, rtol=0, atol=1e-12)
    assert (found[..., -1] == 1).all()
    with pytest.raises(ValueError, match="2 user features and got none"):
        made.features(items)


def test_feature_attention_is_softmax_over_what_an_item_has() -> None:
    g = torch.Generator().manual_seed(0)
    features = (torch.rand(N_ITEMS, 4, generator=g) < 0.5).double()
    made = FeatureAttention(
        model().item_factors.data, model().item_offset.data, features, 2
    )
    made.profile_query.data.normal_(generator=g)
    profile = torch.randn(1, 2, generator=g)
    weight = made.attention(torch.arange(N_ITEMS)[None], profile)[0]
    phi = made.features(torch.arange(N_ITEMS)[None], profile)[0]
    query = made.query + profile[0] @ made.profile_query
    for item in range(N_ITEMS):
        has = [f for f in range(4) if features[item, f]]
        logits = torch.stack(
            [query @ made.keys[0], *(query @ made.keys[f + 1] for f in has)]
        )
        a = logits.exp() / logits.exp().sum()
        values = torch.stack([made.item_factors[item], *made.values[has]])
        torch.testing.assert_close(phi[item, :-1], a @ values, rtol=0, atol=1e-12)
        assert (weight[item, 1:][features[item] == 0] == 0).all()
