"""The outer loop: what it learns, that it stops, resumes and saves aside."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from metarec.learners import GradientDescent, mean_squared_error
from metarec.meta import MAML
from metarec.tasks import Tasks, sinusoid_tasks
from metarec.training import TrainingConfig, meta_train, save_aside


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


def test_an_interrupted_run_goes_on_to_the_same_parameters(tmp_path: Path) -> None:
    config = TrainingConfig(epochs=5)
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
    meta = learner()
    meta_train(
        meta, sinusoids, lambda: 0.0, TrainingConfig(epochs=1), path, progress=False
    )
    with pytest.raises(ValueError, match="delete it to start afresh"):
        meta_train(meta, sinusoids, lambda: 0.0, TrainingConfig(epochs=2), path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="no checkpoint that can be read"):
        meta_train(meta, sinusoids, lambda: 0.0, TrainingConfig(epochs=1), path)


def test_a_diverging_inner_loop_says_so() -> None:
    meta = MAML(network(), GradientDescent(10, mean_squared_error), scale=1e8)
    with pytest.raises(FloatingPointError, match="smaller inner rate"):
        meta_train(meta, sinusoids, lambda: 0.0, progress=False)


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
