"""Lists and clicks judged as stars are: the run, the table, the rivals, the command."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as oracle
from test_leaderboard import as_csv

from metarec.data import RatingData, rating_data, synthetic_population
from metarec.evaluation import (
    Fold,
    Leaderboard,
    Protocol,
    fitted,
    rank_catalogue,
    read_table,
    run_methods,
)
from metarec.evaluation.__main__ import main
from metarec.evaluation.methods import CLICKS, JUDGED, LISTS
from metarec.metrics import bootstrap_means, holm, paired_bootstrap
from metarec.systems import GRID, System
from metarec.tasks import split_users
from metarec.training import TrainingConfig

QUICK = Protocol(folds=3, sizes=(0, 5))
METHODS = ["chance", "popularity", "item mean"]


@pytest.fixture(scope="module")
def errors(data: RatingData, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    store = tmp_path_factory.mktemp("parts")
    return run_methods(data, METHODS, QUICK, store, False, ["lists"])


@pytest.fixture(scope="module")
def board(errors: pd.DataFrame) -> Leaderboard:
    return Leaderboard(errors, "chance", metric="ndcg")


def test_a_run_of_lists_is_its_folds_each_judged(
    data: RatingData, errors: pd.DataFrame
) -> None:
    parts = []
    for method in METHODS:
        for number in range(3):
            fold = Fold(data, number, Protocol(folds=3))
            given = fitted(method, fold), fold.histories, fold.split.test
            table = rank_catalogue(*given, (0, 5))
            parts.append(table.assign(method=method, fold=number))
    expected = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(errors[list(expected)], expected)
    assert errors["protocol"].unique().tolist() == ["lists"]


def test_stars_lists_and_clicks_come_from_one_fit_and_go_on(
    data: RatingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(name: str, fold: Fold) -> object:
        asked.append(name)
        return fitted(name, fold)

    monkeypatch.setattr("metarec.evaluation.run.fitted", counted)
    kinds = ["cold-start", "lists"]
    both = run_methods(data, ["biases"], QUICK, tmp_path, False, kinds)
    assert asked == ["biases"] * 3
    again = run_methods(data, ["biases"], QUICK, tmp_path, False, kinds)
    assert asked == ["biases"] * 3 and again.equals(both)
    # Each kind keeps its own measures.
    for kind, some in both.groupby("protocol"):
        own = some.dropna(axis=1, how="all")
        assert ("ndcg" in own) == (kind == "lists") != ("rmse" in own)
        assert sorted(own["k"].unique()) == [0, 5]


def test_the_summary_of_lists_is_its_slow_version(
    board: Leaderboard, errors: pd.DataFrame
) -> None:
    columns = ["ndcg", "sd_folds", "recall", "hit", "overlap", "chance_ndcg"]
    columns += ["chance_recall", "chance_hit", "ceiling_recall", "coverage"]
    assert list(board.summary) == ["method", "k", *columns, "difference", "low", "high"]
    row = board.summary.query("method == 'popularity' and k == 0").iloc[0]
    own = errors.query("method == 'popularity' and k == 0")
    for name in ("ndcg", "recall", "hit", "overlap", "coverage"):
        assert row[name] == pytest.approx(own.groupby("fold")[name].mean().mean())
    rival = errors.query("method == 'chance' and k == 0")
    gap = paired_bootstrap(own["ndcg"], rival["ndcg"], own["fold"])
    assert row["difference"] == pytest.approx(gap.mean)
    assert (row["low"], row["high"]) == pytest.approx((gap.low, gap.high))
    alike = board.summary.query("method == 'chance'")
    for name in ("ndcg", "recall", "hit"):
        assert np.allclose(alike[name], alike[f"chance_{name}"])


def test_bold_in_a_table_of_lists_is_above_the_rival(board: Leaderboard) -> None:
    lines = {line.split("|")[1].strip(): line for line in str(board).split("\n")[:5]}
    assert "nDCG@10" in lines and "interval above 0" in str(board)
    assert "**" in lines["popularity"] and "**" not in lines["chance"]
    # Bold is what the whole interval says, not a part of it.
    for rival in METHODS:
        other = Leaderboard(board.errors, rival, metric="ndcg")
        low, high = other.wide("low"), other.wide("high")
        for line in str(other).split("\n")[2:5]:
            name, *cells = (cell.strip() for cell in line.strip("| ").split("|"))
            bold = [cell.startswith("**") for cell in cells]
            assert bold == (low.loc[name] > 0).tolist()
        assert rival == "chance" or ((low < 0) & (high > 0)).any(axis=None)
    label = board.plot(5).get_xlabel()
    assert label == "nDCG@10 less that of chance at K = 5"
    assert list(board.per_user(5)) == METHODS == list(board.wide().index)


def test_several_rivals_are_corrected_for(
    board: Leaderboard, errors: pd.DataFrame
) -> None:
    table = board.against(["chance", "item mean"])
    assert set(table["method"]) == {"popularity"}
    assert len(table) == 2 * 2
    for (k, rival), rows in table.groupby(["k", "rival"]):
        row = rows.iloc[0]
        own, other = (
            errors.query(f"method == '{name}' and k == {k}")
            for name in ("popularity", rival)
        )
        gap = (own["ndcg"].to_numpy() - other["ndcg"].to_numpy())[:, None]
        means = bootstrap_means(gap, own["fold"].to_numpy())
        tail = min((means <= 0).mean(), (means >= 0).mean())
        expected = min(max(2 * tail, 1e-4), 1)
        assert row["p"] == pytest.approx(expected, abs=0.02 if k else 1e-9)
        low, high = np.quantile(means, [0.025, 0.975])
        found = (row["difference"], row["low"], row["high"])
        # Who likes nothing after the 5th has no part there, and moves the draws.
        close = {"abs": (high - low) / 20} if k else {}
        assert found == pytest.approx((gap.mean(), low, high), **close)
        # An interval that excludes 0 is a p below .05.
        assert (low > 0 or high < 0) == (row["p"] < 0.05)
    for _, rows in table.groupby("k"):
        assert np.allclose(rows["p_holm"], holm(rows["p"]))


def test_clicks_are_judged_by_their_slow_version(
    data: RatingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whole stars: 4 is a like.
    data = replace(data, ratings=data.ratings.round({"rating": 0}))
    fold = Fold(data, 0, Protocol(folds=3, reserved=5))
    model = fitted("item's like-rate", fold)
    table = fold.judge(model, protocol="clicks")
    assert sorted(table["k"].unique()) == [0, 1, 3, 5]
    rows = table[table["k"] == 3].set_index("user")
    every = []
    for user in fold.split.test.tolist():
        own = data.ratings[data.ratings["user"] == user].sort_values("timestamp")
        own = own.iloc[5:]
        y = (own["rating"] >= 4).to_numpy()
        p = model.offset.numpy()[own["item"].to_numpy()].astype(float)
        every.append((y, p))
        expected = oracle.log_loss(y, p, labels=[False, True])
        assert rows.loc[user, "log_loss"] == pytest.approx(expected, abs=1e-5)
        if 0 < y.sum() < len(y):
            area = oracle.roc_auc_score(y, p)
            assert rows.loc[user, "auc"] == pytest.approx(area)
    y, p = map(np.concatenate, zip(*every, strict=True))
    assert np.allclose(rows["pooled_auc"], oracle.roc_auc_score(y, p))
    bins = np.minimum((p * 10).astype(int), 9)
    gap = [(bins == b).mean() * abs((y - p)[bins == b].mean()) for b in set(bins)]
    assert np.allclose(rows["calibration_error"], sum(gap), atol=1e-6)
    # All users are pooled, however few are in memory at once.
    with monkeypatch.context() as patch:
        patch.setattr("metarec.validation.USERS_AT_ONCE", 7)
        parts = fold.judge(model, protocol="clicks")
    pd.testing.assert_frame_equal(parts, table, rtol=1e-6)
    loss = fold.validate(model, "clicks")
    tasks = fold.sealed.tasks(fold.split.validation, 1)
    p = model.predict(tasks.support, tasks.query.x)
    losses = [
        oracle.log_loss(y[m] >= 4, q[m], labels=[False, True])
        for y, q, m in zip(tasks.query.y, p, tasks.query.mask, strict=True)
    ]
    assert loss == pytest.approx(np.mean(losses), abs=1e-5)  # alike at every K
    with pytest.raises(ValueError, match="probabilities, not scores"):
        fold.judge(fitted("item mean", fold), protocol="clicks")


def test_who_signed_up_last_is_tested_on_what_was_known_before(
    data: RatingData,
) -> None:
    # Users come one after another, and each stays for a while.
    rng = np.random.default_rng(0)
    lives = 10 * data.ratings["user"] + rng.integers(0, 300, len(data.ratings))
    data = replace(data, ratings=data.ratings.assign(timestamp=lives))
    table = data.ratings
    came = table.groupby("user")["timestamp"].min()
    fold = Fold(data, 0, Protocol(split="time", folds=4))
    test = fold.split.test.numpy()
    first = came[test].min()
    assert len(test) == data.n_users // 4
    rest = np.setdiff1d(came.index, test)
    assert came[rest].max() <= first
    assert len(fold.split.validation) == data.n_users // 10
    whole = Fold(data, 0, Protocol(folds=4)).histories
    assert torch.equal(
        fold.histories.count(fold.split.test), whole.count(fold.split.test)
    )
    kept = table[table["timestamp"] < first].groupby("user").size()
    kept = kept.reindex(rest, fill_value=0)
    assert fold.histories.count(torch.from_numpy(rest)).tolist() == kept.tolist()
    assert 0 < kept.sum() < whole.count(torch.from_numpy(rest)).sum()
    # Who validates is drawn.
    other = Fold(data, 0, Protocol(split="time", folds=4, seed=1))
    assert torch.equal(other.split.test, fold.split.test)
    assert not torch.equal(other.split.validation, fold.split.validation)
    undated = replace(data, ratings=table.assign(timestamp=0))
    with pytest.raises(ValueError, match="no dates"):
        Fold(undated, 0, Protocol(split="time"))


def test_a_split_by_date_is_one_fold(data: RatingData, tmp_path: Path) -> None:
    protocol = replace(QUICK, split="time")
    table = run_methods(data, ["popularity"], protocol, tmp_path, False, ["lists"])
    assert table["fold"].unique().tolist() == [0]
    fold = Fold(data, 0, Protocol(folds=3, split="time"))
    assert {*table["user"]} <= {*fold.split.test.tolist()}
    with pytest.raises(ValueError, match="another split"):
        run_methods(data, ["popularity"], QUICK, tmp_path, False, ["lists"])


def test_users_come_in_the_order_that_is_given() -> None:
    came = np.array([5, 1, 4, 0, 9, 7, 3, 8, 2, 6])
    parts = [split_users(10, n, 5, 1, came=came).test.tolist() for n in range(5)]
    assert parts == [[1, 3], [6, 8], [0, 2], [5, 9], [4, 7]]


@pytest.fixture(scope="module")
def small() -> RatingData:
    return synthetic_population(60, 40, ratings_per_user=12, seed=5)[0]


def test_the_command_judges_lists_of_any_table(
    small: RatingData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = as_csv(small, tmp_path / "mine.csv"), tmp_path / "out"
    words = ["--data", str(source), "--columns", "user=who", "item=what"]
    words += ["--goal", "lists", "--folds", "2", "--reserved", "5", "--sizes", "0", "3"]
    words += ["--methods", "popularity", "biases", "--rival", "chance", "popularity"]
    assert main([*words, "--out", str(out)]) == 0
    assert "| nDCG@10 | K = 0 | K = 3 |" in capsys.readouterr().out
    names = {"costs.csv", "errors.csv.xz", "parts", "plot.png", "summary.csv"}
    assert {path.name for path in out.iterdir()} == names | {"summary.md", "rivals.csv"}
    summary = read_table(out / "summary.csv")
    assert summary["method"].unique().tolist() == ["popularity", "biases", "chance"]
    assert sorted(summary["k"].unique()) == [0, 3]
    rivals = read_table(out / "rivals.csv")
    assert set(rivals["rival"]) == {"chance", "popularity"}
    assert set(rivals["method"]) == {"biases"}
    each = read_table(out / "errors.csv.xz")
    assert list(each)[:7] == ["method", "fold", "user", "k", "ndcg", "recall", "hit"]
    command = (out / "summary.csv").read_text().split("\n")[0]
    assert command.endswith(
        "--methods popularity biases --goal lists --rival chance popularity --folds 2 "
        "--reserved 5 --sizes 0 3"
    )


def test_the_command_judges_clicks_with_the_rivals_of_clicks(
    small: RatingData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = as_csv(small, tmp_path / "mine.csv"), tmp_path / "out"
    words = ["--data", str(source), "--columns", "user=who", "item=what"]
    words += ["--goal", "clicks", "--folds", "2", "--reserved", "5", "--out", str(out)]
    assert main(words) == 0
    assert "| log-loss (nats) | K = 0 |" in capsys.readouterr().out
    table = read_table(out / "summary.csv")
    assert table["method"].unique().tolist() == list(CLICKS)
    measures = {"log_loss", "auc", "pooled_auc", "calibration_error"}
    assert measures < set(table)


def test_the_command_takes_a_mean_of_seeds_by_name(
    small: RatingData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = TrainingConfig(epochs=1)
    monkeypatch.setattr("metarec.systems.default_config", lambda *_: few)
    source, out = as_csv(small, tmp_path / "mine.csv"), tmp_path / "out"
    words = ["--data", str(source), "--columns", "user=who", "item=what", "--quiet"]
    words += ["--folds", "2", "--reserved", "5", "--out", str(out), "--rival", "biases"]
    many = "mf + maml + gradient, 2 seeds"
    assert main([*words, "--methods", many]) == 0
    assert read_table(out / "summary.csv")["method"].unique().tolist() == [
        many,
        "biases",
    ]
    assert main([*words, "--methods", "biases, 2 seeds"]) == 1
    assert "no method is called 'biases, 2 seeds'" in capsys.readouterr().err
    assert main([*words, "--methods", "magic, 2 seeds"]) == 1
    assert "no method is called 'magic, 2 seeds'" in capsys.readouterr().err


@pytest.mark.parametrize("goal", JUDGED)
def test_a_group_stands_for_the_methods_of_its_goal(
    goal: str, small: RatingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def stop(data: RatingData, methods: list[str], *_: object) -> None:
        asked.append(methods)
        raise KeyboardInterrupt

    monkeypatch.setattr("metarec.evaluation.__main__.run_methods", stop)
    source = as_csv(small, tmp_path / "mine.csv")
    words = ["--data", str(source), "--columns", "user=who", "item=what"]
    words += ["--goal", goal, "--out", str(tmp_path / "out"), "--methods"]
    for group in (["baselines"], ["systems"], ["all", "baselines"]):
        assert main([*words, *group]) == 130
    baselines, systems, both = asked
    _, own, rival, _ = JUDGED[goal]
    assert baselines == list(own)
    assert [name for name in systems if name != rival][:27] == [
        str(System(*parts, goal=goal)) for parts in GRID
    ]
    # With four extensions of stars, and softmax MAML for lists; the rival comes last.
    assert len(systems) == 27 + 4 + (goal == "lists") + 1 and systems[-1] == rival
    assert both == [*own, *systems[:-1]]


def test_rivals_for_lists_work_on_any_table(small: RatingData, tmp_path: Path) -> None:
    no_stars = rating_data(
        small.ratings[["user", "item", "timestamp"]].assign(rating=1.0),
        scale=replace(small.scale, low=0, high=1),
        name="taken",
    )
    for data in (small, no_stars):
        protocol = Protocol(folds=2, reserved=5, sizes=(0, 3))
        table = run_methods(
            data, [*LISTS], protocol, tmp_path / data.name, False, ["lists"]
        )
        means = table.groupby(["method", "k"])["ndcg"].mean()
        alike = means.xs(0, level="k").drop("chance")
        assert np.allclose(alike, alike["popularity"]) and (means > 0.1).all()
