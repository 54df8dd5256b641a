"""The committed tables say what the text says of them, and where they come from."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from metarec.systems import LEARNERS, METAS, MODELS

FOLDER = Path(__file__).parents[1] / "benchmarks"


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / "results" / f"{name}.csv", comment="#")


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("acc", FOLDER / "accuracy.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def heads() -> dict[str, list[str]]:
    """The provenance lines of every committed table."""
    paths = sorted((FOLDER / "results").rglob("*.csv"))
    assert len(paths) >= 10
    return {
        path.relative_to(FOLDER / "results").with_suffix("").as_posix(): [
            line for line in path.read_text().split("\n") if line.startswith("#")
        ]
        for path in paths
    }


def test_every_table_names_its_command_code_and_versions() -> None:
    for name, notes in heads().items():
        command = notes[0].removeprefix("# made by: ")
        if name.startswith("leaderboard"):
            assert command.startswith("python -m metarec.evaluation --data ml-100k")
            continue
        script = command.removeprefix("python ").split()[0]
        assert (FOLDER.parent / script).exists(), name
        assert any("torch" in line for line in notes), name


def test_no_system_of_the_grid_is_worse_than_the_biases() -> None:
    grid = table("grid")
    cells = grid.groupby(["model", "meta", "learner"])["k"].count()
    assert len(cells) == len(MODELS) * len(METAS) * len(LEARNERS)
    assert (cells == grid["k"].nunique()).all()
    at_ten = grid[grid["k"] == 10]
    assert (at_ten["over_bias"] < 0.005).all()


def test_the_named_system_beats_the_baseline_after_holm() -> None:
    tested = table("accuracy").query("k in (3, 5, 10)")
    course = tested[tested["partition"] == 0]
    assert len(course) == 6
    assert (course["high"] < 0).all() and (course["p_holm"] < 0.05).all()


def test_holm_is_the_step_down_of_bonferroni(accuracy: ModuleType) -> None:
    found = accuracy.holm(np.array([0.01, 0.04, 0.03]))
    assert np.allclose(found, [0.03, 0.06, 0.06])


def test_the_sign_flips_agree_with_a_t_test(accuracy: ModuleType) -> None:
    gap = np.random.default_rng(0).normal(0.1, 1, 400)
    found = accuracy.p_value(gap, np.zeros(400))
    assert abs(found - stats.ttest_1samp(gap, 0).pvalue) < 0.01


def test_a_hundred_thousand_users_fit_and_are_learned_from_as_fast_as_a_thousand() -> (
    None
):
    found = table("population").set_index(["stage", "users"])
    assert found["peak_gb"].max() < 4
    assert found.loc[("make", 100_000), "ratings"] > 1e7
    each = found.loc["train", "us_per_user_epoch"]
    assert each[100_000] < 1.3 * each[1000]
    errors = found.loc["judge"]
    assert (errors["rmse_truth"] < errors["rmse"]).all()
    assert (errors["rmse"] < errors["rmse_bias"]).all()
