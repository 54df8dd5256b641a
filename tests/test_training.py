"""The outer loop: what it learns, that it stops, resumes and saves aside."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from benchmarks.warm_table import UserTable, train_table
from metarec.learners import GradientDescent, mean_squared_error
from metarec.meta import MAML, MetaSGD
from metarec.models import MLP, MatrixFactorization
from metarec.tasks import Examples, Tasks
from metarec.training import (
    TrainingConfig,
    TrainingLog,
    Workers,
    meta_train,
    save_aside,
)


def sinusoid_tasks(
    n: int, shots: int, generator: torch.Generator, query: int = 10
) -> Tasks:
    """The regression tasks of the MAML paper, as its chapter draws them."""
    amplitude = 0.1 + 4.9 * torch.rand(n, 1, generator=generator)
    phase = torch.pi * torch.rand(n, 1, generator=generator)
    x = 10 * torch.rand(n, shots + query, generator=generator) - 5
    y = amplitude * torch.sin(x - phase)
    mask = torch.ones_like(x, dtype=torch.bool)
    parts = (slice(shots), slice(shots, None))
    both = (Examples(x[:, p, None], y[:, p], mask[:, p]) for p in parts)
    return Tasks(*both, torch.full((n,), -1))


def sinusoids(generator: torch.Generator) -> Iterator[Tasks]:
    for _ in range(20):
        yield sinusoid_tasks(25, 10, generator)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(40, 1), nn.Flatten(-2))


def learner(rate: float = 0.01, seed: int = 0) -> MAML:
    inner = GradientDescent(1, mean_squared_error)
    return MAML(network(seed), inner, scale=rate, learn_scale=False)


def error(meta: MAML, n: int = 600) -> float:
    """Mean squared error of test tasks after one step on ten points."""
    tasks = sinusoid_tasks(n, 10, torch.Generator().manual_seed(99), query=100)
    with torch.no_grad():
        return 2 * meta.loss(tasks).item()


def validation(meta: MAML) -> float:
    return error(meta, 100)


@pytest.mark.slow
def test_maml_learns_to_fit_a_sinusoid_in_one_step() -> None:
    meta = learner(rate=0.02)
    pretrained = MAML(network(), GradientDescent(0), learn_scale=False)
    config = TrainingConfig(epochs=40, learning_rate=3e-3, patience=40)
    for one in (meta, pretrained):
        meta_train(one, sinusoids, lambda: 0.0, config, progress=False)
    pretrained.learner = GradientDescent(1, mean_squared_error)
    pretrained.log_scale.data = meta.log_scale.data
    assert error(meta) < 1.6 < 2.2 < error(pretrained)


def test_validation_stops_the_loop_and_keeps_the_best() -> None:
    meta = learner()
    scores = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.5])
    states = []

    def validate() -> float:
        states.append({k: v.clone() for k, v in meta.state_dict().items()})
        return next(scores)

    log = meta_train(
        meta, sinusoids, validate, TrainingConfig(patience=2), progress=False
    )
    assert log.validation == [3.0, 1.0, 2.0, 2.0] and log.best_epoch == 1
    assert all(torch.equal(v, states[1][k]) for k, v in meta.state_dict().items())


def test_training_has_one_thread_and_gives_back_those_that_were_set() -> None:
    before, seen = torch.get_num_threads(), []

    def validate() -> float:
        seen.append(torch.get_num_threads())
        raise RuntimeError("the lights went out")

    try:
        torch.set_num_threads(3)
        with pytest.raises(RuntimeError, match="lights"):
            meta_train(learner(), sinusoids, validate, progress=False)
        assert seen == [1] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_what_is_judged_and_kept_is_the_average_of_the_weights() -> None:
    meta, validated = learner(), []
    expected = [value.detach().clone() for value in meta.parameters()]

    def after_a_step(*_: object) -> None:
        for value, now in zip(expected, meta.parameters(), strict=True):
            value.copy_(0.9 * value + 0.1 * now.detach())

    def validate() -> float:
        validated.append([value.detach().clone() for value in meta.parameters()])
        return 0.0

    hook = register_optimizer_step_post_hook(after_a_step)
    try:
        config = TrainingConfig(epochs=2, average=0.9)
        meta_train(meta, sinusoids, validate, config, progress=False)
    finally:
        hook.remove()
    for shown in (validated[-1], list(meta.parameters())):
        torch.testing.assert_close(shown, expected)
    with pytest.raises(ValueError, match="never moves"):
        TrainingConfig(average=1.0)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_an_interrupted_run_goes_on_to_the_same_parameters(
    tmp_path: Path, average: float
) -> None:
    config = TrainingConfig(epochs=5, average=average)
    straight = learner()
    whole = meta_train(
        straight, sinusoids, lambda: validation(straight), config, progress=False
    )
    path = tmp_path / "run.pt"
    epochs = 0

    def until_the_lights_go_out(generator: torch.Generator) -> Iterator[Tasks]:
        nonlocal epochs
        epochs += 1
        if epochs == 3:
            raise KeyboardInterrupt
        return sinusoids(generator)

    first = learner()
    with pytest.raises(KeyboardInterrupt):
        meta_train(
            first,
            until_the_lights_go_out,
            lambda: validation(first),
            config,
            path,
            progress=False,
        )
    second = learner(seed=1)
    log = meta_train(
        second, sinusoids, lambda: validation(second), config, path, progress=False
    )
    assert log == whole
    for name, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_a_finished_run_that_is_asked_again_gives_its_best(tmp_path: Path) -> None:
    path, config = tmp_path / "run.pt", TrainingConfig(epochs=3)
    scores = iter([1.0, 2.0, 3.0])
    first, second = learner(), learner(seed=1)
    meta_train(first, sinusoids, lambda: next(scores), config, path, progress=False)
    meta_train(second, sinusoids, lambda: 0.0, config, path, progress=False)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_a_checkpoint_of_another_run_or_of_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    meta, config = learner(), TrainingConfig(epochs=1)
    train = partial(meta_train, meta, sinusoids, lambda: 0.0, progress=False)
    train(config, path, run={"steps": 5})
    for other, run, differs in (
        (replace(config, clip=1.0), {"steps": 5}, "clip is 1.0 and was 10.0; delete"),
        (config, {"steps": 1}, "steps is 1 and was 5; delete it to start afresh"),
        (config, {}, "steps is None and was 5"),
    ):
        with pytest.raises(ValueError, match=differs):
            train(other, path, run=run)
    rest = partial(meta_train, batches=sinusoids, validate=lambda: 0.0, config=config)
    sgd = MetaSGD(network(), meta.learner, learn_scale=False)
    with pytest.raises(ValueError, match=r"parts is .'MetaSGD'.* was .'MAML'"):
        rest(sgd, checkpoint=path, run={"steps": 5})
    small = MAML(nn.Sequential(nn.Linear(1, 1)), meta.learner, learn_scale=False)
    with pytest.raises(ValueError, match="numbers is 2 and was 1761"):
        rest(small, checkpoint=path, run={"steps": 5})
    for damage in (b"not a checkpoint", None):
        path.write_bytes(damage) if damage else torch.save(torch.ones(2), path)
        with pytest.raises(ValueError, match="no checkpoint that can be read"):
            train(config, path)


def test_the_same_run_goes_on_for_more_epochs_and_not_for_fewer(tmp_path: Path) -> None:
    path, straight = tmp_path / "run.pt", learner()
    whole = meta_train(
        straight, sinusoids, lambda: validation(straight), TrainingConfig(epochs=4)
    )
    for epochs in (2, 4):
        meta = learner()
        config = TrainingConfig(epochs=epochs)
        log = meta_train(meta, sinusoids, partial(validation, meta), config, path)
    assert log == whole
    for name, value in straight.state_dict().items():
        assert torch.equal(value, meta.state_dict()[name])
    with pytest.raises(ValueError, match="has 4 epochs, more than epochs=3"):
        meta_train(meta, sinusoids, lambda: 0.0, TrainingConfig(epochs=3), path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": -1}, "epochs=-1 will not do: pass a whole number from 0 up"),
        ({"epochs": 2.5}, "epochs=2.5"),
        ({"learning_rate": "fast"}, "learning_rate='fast' .*a number from 0 up"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"clip": None}, "clip=None"),
        ({"penalty": -0.1}, "penalty=-0.1"),
        ({"patience": "ten"}, "patience='ten'"),
        ({"seed": None}, "seed=None will not do: pass a whole number from 0 up"),
        ({"seed": 2**63}, "seed=9223372036854775808"),
    ],
    ids=str,
)
def test_a_setting_that_no_run_could_mean_is_refused(
    setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**setting)
    whole = {"epochs": np.int64(3), "seed": np.int32(0), "clip": float("inf")}
    assert TrainingConfig(**whole).epochs == 3  # type: ignore[arg-type]


def test_a_diverging_inner_loop_says_so() -> None:
    meta = MAML(network(), GradientDescent(10, mean_squared_error), scale=1e8)
    with pytest.raises(FloatingPointError, match="smaller inner rate"):
        meta_train(meta, sinusoids, lambda: 0.0, progress=False)


class Recorder(Workers):
    """One process that keeps each batch's gradient, as it is before it is clipped."""

    def __init__(self) -> None:
        self.gradients: list[list[Tensor]] = []
        self.losses: list[float] = []

    def all_reduce(
        self, parameters: Sequence[nn.Parameter], loss: float, n_tasks: int
    ) -> tuple[float, int]:
        self.gradients.append([p.grad.clone() for p in parameters])
        self.losses.append(loss)
        return super().all_reduce(parameters, loss, n_tasks)


def stepped(train: Callable[[], object]) -> list[list[Tensor]]:
    """The gradients that an optimizer reads at each of its steps."""
    seen: list[list[Tensor]] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        (group,) = optimizer.param_groups
        seen.append([p.grad.clone() for p in group["params"]])

    handle = register_optimizer_step_pre_hook(look)
    try:
        train()
    finally:
        handle.remove()
    return seen


def shrinking() -> tuple[MAML, Tasks]:
    """A model with parameters that training shrinks, and six tasks for it."""
    generator = torch.Generator().manual_seed(0)
    q, features = torch.randn(2, 9, 3, generator=generator)
    model = MLP(q, torch.full((9,), 3.0), features, generator=generator)
    model.second.data.normal_(generator=generator)
    x = torch.randint(9, (2, 6, 4), generator=generator)
    y = torch.randint(1, 6, x.shape, generator=generator).float()
    support, query = (Examples(a, b, b > 0) for a, b in zip(x, y, strict=True))
    return MAML(model, adapt=["head"]), Tasks(support, query, torch.arange(6))


def part(tasks: Tasks, rows: slice) -> Tasks:
    support, query = (
        Examples(e.x[rows], e.y[rows], e.mask[rows])
        for e in (tasks.support, tasks.query)
    )
    return Tasks(support, query, tasks.user[rows])


def test_training_minimises_the_loss_and_half_the_penalty() -> None:
    meta, tasks = shrinking()
    trained = [p for p in meta.parameters() if p.requires_grad]
    size = sum(p.square().sum() for p in (meta.model.first, meta.model.second))
    loss = meta.loss(tasks)
    expected = torch.autograd.grad(loss + 0.5 * 0.3 * size, trained)
    workers = Recorder()
    config = TrainingConfig(epochs=1, penalty=0.3, clip=1.0)

    def train() -> TrainingLog:
        batches = partial(iter, [tasks])
        return meta_train(
            meta, lambda _: batches(), lambda: 0.0, config, None, False, workers
        )

    (read,) = stepped(train)
    for have, want in zip(workers.gradients[0], expected, strict=True):
        torch.testing.assert_close(have, want)
    # What is logged is the loss of the tasks alone.
    assert workers.losses == [pytest.approx(loss.item())]
    norm = torch.stack([g.norm() for g in expected]).norm()
    assert norm > config.clip
    for have, want in zip(read, expected, strict=True):
        torch.testing.assert_close(have, config.clip * want / norm)


def test_the_logged_loss_is_that_of_a_task() -> None:
    meta, tasks = shrinking()
    one, two = part(tasks, slice(5)), part(tasks, slice(5, None))
    config = TrainingConfig(epochs=2, learning_rate=0.0, penalty=7.0)
    log = meta_train(
        meta, lambda _: iter([one, two]), lambda: 0.0, config, progress=False
    )
    expected = (5 * meta.loss(one) + meta.loss(two)).item() / 6
    assert log.loss == pytest.approx([expected] * 2)
    assert log.loss == pytest.approx([meta.loss(tasks).item()] * 2)


def test_a_table_minimises_what_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    table = UserTable(MatrixFactorization(5, 2, generator), 4, generator)
    user = torch.tensor([0, 0, 1, 2, 3, 3, 3])
    item = torch.tensor([0, 1, 1, 4, 2, 0, 3])
    rating = torch.tensor([5.0, 3, 4, 1, 2, 5, 4])
    mu = rating.mean()
    q, offset, heads = table.model.item_factors, table.model.item_offset, table.heads
    offset.data.fill_(mu)
    total = torch.tensor(0.0)
    errors = torch.tensor(0.0)
    for u, i, r in zip(user, item, rating, strict=True):
        square = (r - offset[i] - q[i] @ heads[u, :2] - heads[u, 2]) ** 2
        size = (heads[u] ** 2).sum() + (q[i] ** 2).sum() + (offset[i] - mu) ** 2
        total = total + (square + 0.3 * size) / len(rating)
        errors = errors + square / len(rating)
    expected = torch.autograd.grad(total, [heads, q, offset])
    offset.data.fill_(-1.0)  # training itself begins at the mean
    history: list[float] = []

    def train() -> None:
        history.extend(
            train_table(table, user, item, rating, 1, penalty=0.3, progress=False)
        )

    (found,) = stepped(train)
    for have, want in zip(found, expected, strict=True):
        torch.testing.assert_close(have, want)
    assert history == [pytest.approx(errors.item())]


def test_a_table_reads_every_rating_once_an_epoch() -> None:
    table = UserTable(MatrixFactorization(7, 2), 7)
    every = torch.arange(7)
    rating = torch.linspace(1, 5, 7)
    seen = stepped(
        lambda: train_table(table, every, every, rating, 3, 2, progress=False)
    )
    assert len(seen) == 3 * 4
    for epoch in range(3):
        rows = [g[0].abs().sum(1) > 0 for g in seen[4 * epoch : 4 * epoch + 4]]
        assert torch.stack(rows).sum(0).tolist() == [1] * 7


def test_a_failed_save_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_text("old")

    def full_disk(target: Path) -> None:
        target.write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        save_aside(path, full_disk)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    save_aside(path, lambda target: target.write_text("new"))
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
