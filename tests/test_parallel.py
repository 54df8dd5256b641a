"""Two processes do what one does, and none of them waits for one that is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import torch

from metarec.scale import process_group
from metarec.tasks import TaskSampler
from metarec.training import Workers

pytestmark = pytest.mark.slow

SCRIPT = Path(processes.__file__)
LAUNCH = "-m torch.distributed.run --standalone --nproc-per-node 2".split()
LIMIT = 600  # seconds after which a run that hangs is ended


def start(what: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, *LAUNCH, str(SCRIPT), what, str(folder)]
    home = str(SCRIPT.parents[1])
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": home, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(run: subprocess.Popen[str]) -> str:
    """What a run said; it is ended if it hangs."""
    try:
        return run.communicate(timeout=LIMIT)[0]
    except subprocess.TimeoutExpired:
        run.kill()
        raise


def found(folder: Path, rank: int) -> dict[str, Any]:
    return torch.load(folder / f"{rank}.pt", weights_only=False)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """What each of two processes found, in one launch."""
    folder = tmp_path_factory.mktemp("two")
    run = start("everything", folder)
    said = finish(run)
    assert run.returncode == 0, said
    assert said.count("meta-training") >= 1
    yield [found(folder, rank) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return processes.gradients(Workers())


CASES = [f"{name}, {n} tasks" for name in processes.SYSTEMS for n in processes.BATCHES]


@pytest.mark.parametrize("case", CASES)
def test_the_meta_gradient_is_that_of_one_process(
    two: list[dict[str, Any]], alone: dict[str, Any], case: str
) -> None:
    assert len(alone[case]) > 2
    for mine, theirs in zip(two[0]["gradients"][case], alone[case], strict=True):
        assert mine.dtype == torch.float64
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
    assert any(part.abs().max() > 1e-3 for part in alone[case][1:])


@pytest.mark.parametrize("name", processes.TRAINED)
def test_a_whole_training_is_that_of_one_process(
    two: list[dict[str, Any]], name: str
) -> None:
    one = processes.outcome(*processes.training(Workers(), name))
    start_at = processes.system(name, processes.histories()).state_dict()
    moved = [(v - start_at[k]).abs().max() for k, v in one["state"].items()]
    assert max(moved) > 0.01 and len(one["loss"]) > 2
    torch.testing.assert_close(two[0][name], one, rtol=0, atol=1e-10)


def test_the_full_system_is_fitted_by_two_as_by_one(two: list[dict[str, Any]]) -> None:
    one = processes.recommendations(Workers())
    for rank in (0, 1):
        assert two[rank]["stars"] == pytest.approx(one, abs=1e-4)
    assert max(one.values()) - min(one.values()) > 0.5


def test_all_processes_end_with_the_same(two: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(two[0], two[1], rtol=0, atol=0)


def test_a_killed_run_goes_on_to_exactly_the_same(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    straight = start("whole", whole)
    first = start("dies", cut)
    finish(first)
    assert first.returncode != 0 and not (cut / "0.pt").exists()
    done = torch.load(cut / "run.pt", weights_only=True)["log"]["loss"]
    second = start("whole", cut)
    said = finish(second)
    assert second.returncode == 0, said
    assert finish(straight) and straight.returncode == 0
    for rank in (0, 1):
        resumed, expected = found(cut, rank), found(whole, rank)
        assert 1 <= len(done) < len(expected["loss"])
        torch.testing.assert_close(resumed, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("what", "message", "times"),
    [
        ("diverge", "FloatingPointError: no finite loss", 2),
        ("fail", "ValueError: the disk of this process is gone", 1),
        ("first fails", "the first process failed: ZeroDivisionError", 1),
    ],
)
def test_a_process_that_fails_ends_all_with_its_message(
    tmp_path: Path, what: str, message: str, times: int
) -> None:
    run = start(what, tmp_path)
    said = finish(run)
    assert run.returncode != 0
    assert said.count(message) >= times, said
    assert list(tmp_path.glob("*.pt")) == []


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with process_group() as workers:
        assert type(workers) is Workers and workers.part == (0, 1)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(RuntimeError, match=r"WORLD_SIZE.*torchrun --nproc.*unset RANK"):
        process_group().__enter__()


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_the_parts_of_a_meta_batch_are_the_whole(parts: int) -> None:
    known = processes.histories()
    whole = list(TaskSampler(known, torch.arange(20), meta_batch=7)(seeded()))
    cut = [
        list(
            TaskSampler(known, torch.arange(20), meta_batch=7, part=(r, parts))(
                seeded()
            )
        )
        for r in range(parts)
    ]
    for tasks, *shares in zip(whole, *cut, strict=True):
        assert torch.cat([share.user for share in shares]).equal(tasks.user)
        counts = torch.cat([share.support.mask.sum(-1) for share in shares])
        assert counts.equal(tasks.support.mask.sum(-1))
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def test_nobody_to_train_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no users to train on"):
        TaskSampler(processes.histories(), torch.arange(0))
