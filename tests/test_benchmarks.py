"""The committed tables say what the text says of them, and where they come from."""

import hashlib
import importlib.util
import json
import lzma
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from metarec.data import load_movielens_100k, read_csv
from metarec.evaluation import Fold, Protocol
from metarec.systems import GRID
from metarec.tasks import Examples

pytestmark = pytest.mark.benchmark

FOLDER = Path(__file__).parents[1] / "benchmarks"


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / "results" / f"{name}.csv", comment="#")


def load(name: str) -> ModuleType:
    """Import a script of the folder, which imports its neighbours by name."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location(f"_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for their module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    return load("accuracy")


@pytest.fixture(scope="module")
def parts() -> ModuleType:
    return load("speed_parts")


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
        if name.startswith(("leaderboard", "lists", "clicks/")):
            assert command.startswith("python -m metarec.evaluation --data ml-100k")
            continue
        if name.startswith("second-set"):
            assert command.startswith("python -m metarec.evaluation --data ml-small")
            continue
        script = command.removeprefix("python ").split()[0]
        assert (FOLDER.parent / script).exists(), name
        assert any("torch" in line for line in notes), name


def test_no_system_of_the_grid_is_worse_than_the_biases() -> None:
    grid = table("grid")
    cells = grid.groupby(["model", "meta", "learner"])["k"].count()
    assert len(cells) == len(GRID)
    assert (cells == grid["k"].nunique()).all()
    at_ten = grid[grid["k"] == 10]
    assert (at_ten["over_bias"] < 0.005).all()


def test_the_named_system_beats_the_baseline_after_holm() -> None:
    tested = table("accuracy").query("k in (3, 5, 10)")
    course = tested[tested["partition"] == 0]
    assert len(course) == 6
    assert (course["high"] < 0).all() and (course["p_holm"] < 0.05).all()


def test_rivals_of_equal_information_leave_nothing_of_the_lead() -> None:
    found = table("equal_information").set_index(["metric", "split", "rival", "k"])
    found = found.sort_index()
    keys = ["rmse", "users"]
    assert (found.loc[(*keys, "gaussian")].loc[2:, "high"] < 0).all()
    for rival in ("gaussian + implicit", "gaussian + users + implicit"):
        assert (found.loc[(*keys, rival), "high"] >= 0).all()
    # And the table is what its script says.
    rows = load("equal_information").compare("leaderboard-by-date", "mae")
    again = rows.set_index(["rival", "k"]).sort_index()
    np.testing.assert_allclose(again, found.loc["mae", "time"], atol=1e-5)


def test_the_leaderboard_by_date_is_that_of_its_errors() -> None:
    name = "leaderboard-by-date"
    assert "--split time" in heads()[f"{name}/summary"][0]
    found = table(f"{name}/summary").set_index(["method", "k"])
    errors = pd.read_csv(FOLDER / "results" / name / "errors.csv.xz")
    # One fold, its users are the same under every method, and they signed up last.
    users = errors.groupby(["method", "k"])["user"].agg(["nunique", "count"])
    assert set(errors["fold"]) == {0} and (users == users.iloc[0, 0]).all(axis=None)
    fold = Fold(load_movielens_100k(progress=False), 0, Protocol(split="time"))
    assert {*errors["user"]} <= {*fold.split.test.tolist()}
    means = errors.groupby(["method", "k"])[["rmse", "mae"]].mean().loc[found.index]
    np.testing.assert_allclose(found[["rmse", "mae"]], means, atol=1e-4)
    gap = means["rmse"] - means["rmse"].xs("gaussian").reindex(means.index, level="k")
    np.testing.assert_allclose(found["difference"], gap, atol=2e-4)
    biases, gaussian = found.loc[("biases", 0)], found.loc[("gaussian", 0)]
    assert biases["rmse"] == pytest.approx(gaussian["rmse"], abs=1e-4)


@pytest.mark.parametrize("name", ["lists", "lists-by-date"])
def test_a_committed_table_of_lists_knows_its_bounds(name: str) -> None:
    found = table(f"{name}/summary").set_index(["method", "k"])
    chance = found.loc["chance"]
    for measure in ("ndcg", "recall", "hit"):
        assert np.allclose(chance[measure], chance[f"chance_{measure}"])
    assert (found["recall"] <= found["ceiling_recall"]).all()
    # Without ratings nobody beside popularity has anything to say.
    popularity = found.loc[("popularity", 0)]
    for method in ("EASE + popularity", "item-kNN + popularity", "naive-Bayes lift"):
        assert found.loc[(method, 0), "ndcg"] == popularity["ndcg"]
    assert popularity["overlap"] == pytest.approx(10)
    # A table of its errors has the same means.
    errors = pd.read_csv(FOLDER / "results" / name / "errors.csv.xz")
    of_fold = errors.groupby(["method", "k", "fold"])["ndcg"].mean()
    means = of_fold.groupby(["method", "k"]).mean()
    assert np.allclose(means.loc[found.index], found["ndcg"], atol=1e-4)


def test_surprise_costs_quality_and_shows_more() -> None:
    found = table("surprise").set_index(["method", "k", "surprise"])
    for method in ("softmax MAML", "mf + maml + in-context + lists"):
        rows = found.loc[(method, 10)]
        assert rows["ndcg"].is_monotonic_decreasing or rows["ndcg"].idxmax() < 0.4
        assert rows.loc[1.0, "overlap"] < rows.loc[0.0, "overlap"] / 2
        assert rows.loc[1.0, "coverage"] > 1.5 * rows.loc[0.0, "coverage"]


def test_surprise_takes_off_what_is_said_of_somebody_unknown() -> None:
    module, support = load("surprise"), Examples(*torch.zeros(3, 2, 4))
    support = replace(
        support, mask=torch.tensor([[True] * 4, [True] * 2 + [False] * 2])
    )

    class Counts:
        def predict(self, support: Examples, x: torch.Tensor) -> torch.Tensor:
            return 10 * x + support.mask.sum(-1, keepdim=True) * (x == 3)

    x = torch.arange(5).expand(2, -1)
    for surprise in (0.0, 0.25, 1.0):
        found = module.Surprising(Counts(), surprise).predict(support, x)
        expected = 10 * (1 - surprise) * x + torch.tensor([[4], [2]]) * (x == 3)
        assert torch.equal(found, expected)


def test_the_demo_says_of_its_lists_what_their_table_says() -> None:
    found = table("demo_lists").set_index(["method", "k"])
    best, yours = found.loc["best bets"], found.loc["most yours"]
    stars, popular = found.loc["by expected stars"], found.loc["popularity"]
    assert (best["low"] > 0).all() and best["over_popularity"][3] < 0.03
    for measure in ("ndcg", "recall"):
        assert (yours[measure] < best[measure]).all()
        assert (yours[measure] > stars[measure]).all()
    assert (yours["overlap"] < 3).all() and (yours["overlap"] < best["overlap"]).all()
    assert (yours["coverage"] > best["coverage"]).all()
    assert (best["coverage"] > popular["coverage"]).all()


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


def test_speed_measures_every_way_in_every_case(parts: ModuleType) -> None:
    small = replace(parts.QUICK, compile_too=False)
    training = parts.training(small)
    cases = training.groupby(["model", "steps", "order"])["way"].agg(set)
    assert len(cases) == len(parts.MODELS) * len(small.steps) * 2
    assert all({"loop", "vmap(grad)", "metarec"} <= found for found in cases)
    assert (training["ms_per_epoch"] > 0).all()
    served = parts.users(small)
    assert set(served["model"]) == set(parts.MODELS)
    grown = parts.growth(small)
    assert set(grown["way"]) == {"loop", "vmap(grad)", "metarec"}


def test_speed_refuses_to_time_a_wrong_gradient(parts: ModuleType) -> None:
    case = parts.make_case("MF", steps=2, items=90)
    other = parts.make_case("MF", steps=2, first_order=True, items=90)
    (tasks,) = parts.make_tasks(5, 90, 5)
    right, wrong = (parts.ways(c, 5, compile_too=False) for c in (case, other))
    parts.check(right, tasks)
    with pytest.raises(AssertionError, match="metarec: meta-gradient off by"):
        parts.check(right | {"metarec": wrong["metarec"]}, tasks)


def test_items_of_a_task_are_distinct(parts: ModuleType) -> None:
    (tasks,) = parts.make_tasks(50, 90, 50)
    both = torch.cat([tasks.support.x, tasks.query.x], 1)
    assert all(len(row.unique()) == len(row) for row in both)


def test_memory_is_that_of_the_deeper_graph() -> None:
    def peak(steps: int) -> float:
        asked = json.dumps(["MLP, all weights", steps, "metarec", 1500, 90])
        command = [sys.executable, str(FOLDER / "speed.py"), "--peak", asked]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(run.stdout)

    assert peak(8) > 1.5 * peak(1) > 0


def test_speed_writes_a_table_that_names_the_machine(tmp_path: Path) -> None:
    load("speed").main(
        ["--quick", "--no-compile", "--only", "users", "--out", str(tmp_path)]
    )
    text = (tmp_path / "speed_users.csv").read_text()
    assert text.startswith("# made by: python benchmarks/speed.py\n")
    assert "cores" in text and "one thread" in text


def test_what_every_system_takes_is_one_table(tmp_path: Path) -> None:
    module, out = load("speed_systems"), tmp_path / "speed_systems.csv"
    assert len(module.EVERY) == len(GRID) + 9 and set(module.SOME) < set(module.EVERY)
    module.main(["--quick", "--out", str(out)])
    assert out.read_text().startswith("# made by: python benchmarks/speed_systems.py\n")
    found = pd.read_csv(out, comment="#")
    assert len(found) == 3 * len(module.SOME)
    assert (found.filter(regex="_(ms|s)$") > 0).all(axis=None)
    assert (found["user_ms"] > found["adapt_ms"]).all()


def test_the_fit_of_item_vectors_is_measured_in_a_process_for_each_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load("factor_fit")
    monkeypatch.setattr(module, "WAYS", {"metarec": module.metarec, "absent": None})
    out = tmp_path / "factor_fit.csv"
    module.main(["--quick", "--rounds", "1", "--out", str(out)])
    found = pd.read_csv(out, comment="#")
    assert found["threads"].tolist() == [1, 2] and (found["seconds"] > 0).all()
    assert found["rmse"][0] == found["rmse"][1] and 0.1 < found["rmse"][0] < 1.5
    assert "# not timed: absent, not installed" in out.read_text()


def test_item_vectors_are_fitted_in_three_times_the_time_of_lenskit() -> None:
    found = table("factor_fit").set_index(["data", "way", "threads"]).sort_index()
    assert len(found) == 2 * 2 * 3
    for data in ("2.0M synthetic", "MovieLens-100K"):
        own, rival = (found.loc[data, way] for way in ("metarec", "lenskit"))
        assert (own["times_lenskit"] <= 3).all()
        assert (own["rmse"] < rival["rmse"]).all()
        assert own["seconds"][2] < 1.1 * own["seconds"][1]  # threads are no burden


def test_a_ratio_of_fits_is_the_median_within_rounds() -> None:
    rows = [
        {"data": "d", "ratings": 9, "threads": 1, "round": turn, "way": way}
        | {"seconds": seconds, "rmse": 0.5}
        for turn, pair in enumerate(((1, 3), (2, 4), (8, 16)))
        for way, seconds in zip(("lenskit", "metarec"), pair, strict=True)
    ]
    found = load("factor_fit").summary(pd.DataFrame(rows)).set_index("way")
    assert found["times_lenskit"].to_dict() == {"lenskit": 1, "metarec": 2}
    assert found["seconds"].to_dict() == {"lenskit": 2, "metarec": 4}


def test_the_ratios_that_the_committed_table_must_show() -> None:
    speed, keys = table("speed"), (["model", "way"], ["order", "steps"])
    against = {
        other: speed.pivot_table(f"times_{other}", *keys)[2]
        for other in ("loop", "learn2learn")
    }
    every_weight = "MLP, all weights"
    assert (against["learn2learn"].loc[(every_weight, "vmap(grad)")] >= 5).all()
    assert (against["learn2learn"].loc[("MF", "vmap(grad)")] >= 10).all()
    # The way back by hand is how far one can go; the package runs the loop it teaches.
    assert against["learn2learn"].loc[("MF", "adjoint"), 5] >= 60
    assert against["loop"].loc[("MF", "adjoint"), 5] >= 45
    # A tenth of its time goes to the question whether the steps would diverge.
    assert against["learn2learn"].loc[("MF", "metarec"), 5] >= 43
    slower = speed.pivot_table("ms_per_epoch", *keys)
    ratio = slower.xs("metarec", level="way") / slower.xs("vmap(grad)", level="way")
    assert (ratio < 1.1).all(axis=None)
    assert against["loop"].loc[(every_weight, "metarec"), 5] >= 7
    assert against["learn2learn"].loc[(every_weight, "metarec"), 5] >= 9


class Ran:
    """What asks an unpickler to call something that is no table."""

    def __reduce__(self) -> tuple[object, ...]:
        return subprocess.check_call, (["false"],)


def packed(thing: object) -> tuple[bytes, str]:
    content = lzma.compress(pickle.dumps(thing))
    return content, hashlib.sha256(content).hexdigest()


def test_the_second_set_calls_nothing_that_is_no_table() -> None:
    second = load("second_set")
    content, sha = packed(Ran())
    with pytest.raises(
        pickle.UnpicklingError, match=r"subprocess\.check_call, which no"
    ):
        second.read_table(content, sha)
    with pytest.raises(ValueError, match="in place of"):
        second.read_table(content)


def test_the_second_set_is_read_as_a_shop_would_have_it(tmp_path: Path) -> None:
    rows = [
        (7, "Dumbo", 1941.0, "Animation|Musical", 2, 3.5, 10),
        (9, None, math.nan, "(no genres listed)", 2, 5.0, 11),
        (7, "Dumbo", 1941.0, "Animation|Musical", 4, 0.5, 12),
    ]
    names = ["movieId", "title", "year", "genres", "userId", "rating", "timestamp"]
    second = load("second_set")
    words = second.write_files(pd.DataFrame(rows, columns=names), tmp_path)
    data = read_csv(words[1], scale=(0.5, 5, 0.5), items=words[3])
    assert data.ratings["rating"].tolist() == [3.5, 5.0, 0.5]
    assert data.items["title"].tolist() == ["Dumbo", "9"]
    assert data.items["genres"].tolist() == [("Animation", "Musical"), ()]
    assert data.items["year"].tolist() == [1941, pd.NA]


def test_what_the_second_set_says_of_stars() -> None:
    rivals = table("second-set/rivals")
    assert table("second-set/summary").groupby("method")["k"].count().eq(7).all()
    gaussian = rivals[rivals["rival"] == "gaussian"].set_index(["method", "k"])
    # Unlike on MovieLens-100K, what was learned from tasks is ahead of the closed form.
    for k in (1, 2, 3, 5, 10):
        assert gaussian.loc[("mf + maml + bayesian", k), "high"] < -0.001
    # Which films were rated adds nothing before the tenth rating.
    for k in (1, 2, 3, 5):
        assert gaussian.loc[("gaussian + implicit", k), "high"] > 0.001
    assert gaussian.loc[("gaussian + implicit", 10), "high"] < 0
    # Over ratings in place of users the order at K = 0 is the other one.
    start = table("second-set/summary").query("k == 0").set_index("method")
    ahead = start.loc["mf + maml + gradient"] - start.loc["gaussian"]
    assert ahead["rmse"] < -0.002
    assert ahead["pooled_rmse"] > 0.005


def test_what_new_items_owe_to_each_cause_is_one_table(tmp_path: Path) -> None:
    module, out = load("new_item_causes"), tmp_path / "causes.csv"
    module.main(["--quick", "--out", str(out)])
    found = pd.read_csv(out, comment="#")
    committed = table("new_item_causes")
    assert set(found["question"]) < set(committed["question"])
    first = found.groupby(["question", "k"]).head(1)
    assert (first[["over", "low", "high"]] == 0).all(axis=None)
    rest = found[found["over"] != 0]
    assert (rest["low"] <= rest["over"]).all() and (rest["over"] <= rest["high"]).all()
    assert committed["rmse"].between(0.8, 1.3).all()


def test_one_change_at_a_time_on_the_prior() -> None:
    module = load("new_item_causes")
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 4, generator=generator).double()
    full = root @ root.T
    assert torch.equal(module.uncorrelated(full).diag(), full.diag())
    assert module.uncorrelated(full).count_nonzero() == 4
    same = module.correlations(full)
    assert torch.allclose(same.diag(), torch.ones(4).double())
    scale = full.diag().sqrt()
    assert torch.allclose(same * scale * scale[:, None], full)


def test_raters_are_thinned_on_training_films_alone() -> None:
    module = load("new_item_causes")
    data, few = module.small(), torch.arange(120) % 7
    thin, train = module.thinned(data, 0, few), module.ItemFold(data).split.train
    counts = {}
    for name, kept in (("whole", data), ("thin", thin)):
        inside = kept.ratings["item"].isin(train.numpy())
        rows = kept.ratings[inside].groupby("user").size()
        counts[name] = rows.reindex(range(120), fill_value=0).to_numpy()
        counts[name + " rest"] = int((~inside).sum())
    assert (counts["thin"] == np.minimum(counts["whole"], few.numpy())).all()
    assert counts["thin rest"] == counts["whole rest"] > 0
