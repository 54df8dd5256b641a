"""The stand-in for other processors does what it says, in a kernel of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

DISTURBED = Path(__file__).with_name("disturbed.py")
# Products, what autograd and vmap make of them, and torch's own generator.
PROBE = """
import json, torch
from torch.func import grad, vmap

def numbers(kind):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 6, 3, generator=generator, dtype=kind)
    w = torch.randn(3, generator=generator, dtype=kind).requires_grad_()
    gram = a.mT @ a + torch.eye(3, dtype=kind)
    slope = torch.autograd.grad((a @ w).square().sum(), w, create_graph=True)[0]
    return {
        "product": gram, "vector": a[0] @ w,
        "dots": torch.stack([row @ w for row in a[0]]),
        "einsum": torch.einsum("bnd,bne->bde", a, a),
        "layer": torch.nn.functional.linear(a, a[0], torch.ones(6, dtype=kind)),
        "factor": torch.linalg.cholesky(gram), "inverse": torch.linalg.inv(gram),
        "solution": torch.linalg.solve(gram, a[:, :3]),
        "second order": torch.autograd.grad(slope.square().sum(), w)[0],
        "vmap": vmap(grad(lambda v, x: (x @ v).square().sum()), (None, 0))(w, a),
    }

def read(kind):
    return {k: v.detach().double().flatten().tolist() for k, v in numbers(kind).items()}

before = torch.random.get_rng_state()
once, again = read(torch.float32), read(torch.float32)
whole = torch.arange(12.0).view(3, 4)
print(json.dumps({
    "float": once, "double": read(torch.float64), "again": once == again,
    "whole": (whole @ whole.T).tolist(),
    "generator": torch.equal(before, torch.random.get_rng_state()),
}))
"""


def probe(draw: int | None) -> dict:
    """Run the probe in a kernel, as nbval does, on a draw or on none."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONSTARTUP"}
    if draw is not None:
        env |= {"METAREC_DISTURB": str(draw), "PYTHONSTARTUP": str(DISTURBED)}
    manager, client = start_new_kernel(kernel_name="python3", env=env)
    said: list[dict] = []
    try:
        client.execute_interactive(PROBE, output_hook=said.append, timeout=60)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    streams = [one["content"] for one in said if one["msg_type"] == "stream"]
    assert [stream["name"] for stream in streams] == ["stdout"], said
    return json.loads(streams[0]["text"])


@pytest.fixture(scope="module")
def plain() -> dict:
    return probe(None)


@pytest.fixture(scope="module")
def drawn() -> list[dict]:
    return [probe(draw) for draw in (1, 2)]


def gap(one: list[float], other: list[float]) -> float:
    """The largest difference, as a share of the largest entry."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) / max(
        map(abs, other)
    )


@pytest.mark.parametrize(("kind", "units"), [("float", 2.0**-23), ("double", 2.0**-52)])
def test_every_product_is_off_by_some_units_in_the_last_place(
    plain: dict, drawn: list[dict], kind: str, units: float
) -> None:
    for other in (plain, drawn[1]):
        for name, found in drawn[0][kind].items():
            assert 0.5 * units < gap(found, other[kind][name]) < 1000 * units, name


def test_a_draw_is_a_processor(plain: dict, drawn: list[dict]) -> None:
    """The same again, exact where the others are, and nothing drawn from torch."""
    for one in drawn:
        assert one["again"] and one["generator"] and one["whole"] == plain["whole"]
    assert drawn[0] == probe(1)


def test_nbval_disturbs_its_kernels(tmp_path: Path) -> None:
    """The conftest of the book hands the variable on: a cell shows it."""
    book = Path(__file__).parents[1] / "book"
    source = f"import runpy, os; runpy.run_path({str(book / 'conftest.py')!r});"
    source += "print(os.environ.get('PYTHONSTARTUP'))"
    for draw, expected in (("1", str(DISTURBED)), ("", "None")):
        env = {k: v for k, v in os.environ.items() if k != "PYTHONSTARTUP"}
        run = subprocess.run(
            [sys.executable, "-c", source],
            env=env | {"METAREC_DISTURB": draw},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == expected
