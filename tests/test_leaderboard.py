"""The leaderboard against slow versions, the command, and leaks that must be found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import metarec
from metarec.data import RatingData, rating_data, synthetic_population
from metarec.evaluation import (
    Fold,
    Leaderboard,
    Protocol,
    check_no_leak,
    cold_start,
    fitted,
    read_table,
    run_methods,
)
from metarec.evaluation.__main__ import main
from metarec.evaluation.methods import BASELINES
from metarec.evaluation.tables import write_table
from metarec.factors import GaussianFactorModel, ItemMean, UserItemBias
from metarec.features import UserFeatures
from metarec.metrics import paired_bootstrap
from metarec.systems import System
from metarec.tasks import Examples, LeakageError, Tasks, UserHistories, split_users
from metarec.training import TrainingConfig

QUICK = Protocol(folds=3)


@pytest.fixture(scope="module")
def errors(data: RatingData, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    store = tmp_path_factory.mktemp("parts")
    return run_methods(data, ["item mean", "biases", "gaussian"], QUICK, store, False)


@pytest.fixture(scope="module")
def board(errors: pd.DataFrame) -> Leaderboard:
    return Leaderboard(errors)


# --- the guards -----------------------------------------------------------------------


def described(data: RatingData) -> RatingData:
    """The same ratings by users of whom an occupation and an age are known."""
    rng = np.random.default_rng(0)
    users = data.users.assign(
        age=rng.integers(18, 70, data.n_users),
        occupation=rng.choice(["baker", "clerk", "judge"], data.n_users),
    )
    return replace(data, users=users)


class ByProfile:
    """A predictor that adds a number for each user feature."""

    def __init__(self, features: UserFeatures) -> None:
        self.weight = torch.arange(1.0, len(features.names) + 1) / 10

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        if support.profile.shape[1] != len(self.weight):
            raise ValueError(f"{support.profile.shape[1]} features, {len(self.weight)}")
        return 3 + (support.profile @ self.weight)[:, None].expand(x.shape)


def test_an_item_mean_with_test_users_in_it_is_refused_and_found(
    data: RatingData,
) -> None:
    fold, everyone = Fold(data), torch.arange(data.n_users)
    with pytest.raises(LeakageError, match="is sealed"):
        ItemMean.fit(fold.sealed, everyone)
    with pytest.raises(LeakageError, match="training statistic"):
        check_no_leak(
            lambda d: ItemMean.fit(UserHistories(d), everyone), data, fold.split
        )
    ItemMean.fit(fold.sealed, fold.split.train)


def test_a_query_in_the_support_is_found(data: RatingData) -> None:
    histories, users = UserHistories(data), torch.arange(4)
    honest = histories.tasks(users, 3)
    honest.check_disjoint()
    twice = honest.support.x.clone()
    twice[2, 1] = honest.query.x[2, 0]
    leaky = Tasks(replace(honest.support, x=twice), honest.query, users)
    with pytest.raises(
        LeakageError, match=r"user 2 has an item of the support in the query \(1 such"
    ):
        leaky.check_disjoint()
    # Under a false mask there is no rating, so nothing is given away.
    nothing = replace(leaky.support, mask=torch.zeros(4, 3, dtype=torch.bool))
    Tasks(nothing, leaky.query, users).check_disjoint()


def test_the_protocol_itself_refuses_a_query_in_the_support(
    data: RatingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = UserHistories(data)
    honest = histories.tasks

    def leaky(*cut: Tensor) -> Tasks:
        tasks = honest(*cut)
        return replace(tasks, support=tasks.query)

    monkeypatch.setattr(histories, "tasks", leaky)
    with pytest.raises(LeakageError):
        cold_start(ItemMean(torch.zeros(80)), histories, torch.arange(5), (3,))


def test_a_vocabulary_from_test_users_is_found(data: RatingData) -> None:
    data = described(data)
    split = split_users(data.n_users)

    def honest(d: RatingData) -> ByProfile:
        return ByProfile(UserHistories(d, vocabulary=split.train).user_features)

    def leaky(d: RatingData) -> ByProfile:
        return ByProfile(UserHistories(d).user_features)

    check_no_leak(honest, data, split)
    with pytest.raises(LeakageError, match="vocabulary came from others"):
        check_no_leak(leaky, data, split)


def test_a_fold_takes_its_vocabulary_from_training_users(data: RatingData) -> None:
    data = described(data)
    fold = Fold(data)
    strange = data.users.copy()
    strange.loc[fold.split.test.numpy(), "occupation"] = "astronaut"
    other = Fold(replace(data, users=strange))
    assert fold.histories.user_features == other.histories.user_features
    assert "occupation=astronaut" not in fold.histories.user_features.names
    # A word that no training user has says nothing of its user.
    names = np.array(fold.histories.user_features.names)
    at = np.flatnonzero([n.startswith("occupation") for n in names])
    assert (other.histories.profile[fold.split.test][:, at] == 0).all()
    assert (fold.histories.profile[fold.split.test][:, at] != 0).any()


def test_hyper_parameters_chosen_on_test_users_are_refused(data: RatingData) -> None:
    fold = Fold(data)
    model = GaussianFactorModel.fit(fold.sealed, fold.split.train, dim=2, sweeps=3)
    with pytest.raises(LeakageError, match="choose on validation users"):
        model.choose_temper(fold.sealed, fold.split.test)
    model.choose_temper(fold.sealed, fold.split.validation)


@pytest.mark.parametrize("read", ["ratings_of", "tasks", "everything", "draw_windows"])
def test_no_door_of_sealed_histories_is_open(data: RatingData, read: str) -> None:
    histories, generator = UserHistories(data), torch.Generator()
    arguments = {
        "ratings_of": (),
        "tasks": (3,),
        "everything": (5,),
        "draw_windows": ((1, 3), generator),
    }
    sealed = histories.seal(torch.tensor([7, 9]))
    getattr(sealed, read)(torch.tensor([6, 8]), *arguments[read])
    with pytest.raises(LeakageError, match="ratings of user 9"):
        getattr(sealed, read)(torch.tensor([8, 9]), *arguments[read])
    getattr(histories, read)(torch.tensor([8, 9]), *arguments[read])


# --- orders ---------------------------------------------------------------------------


def test_shuffled_ties_keep_time_and_change_ties() -> None:
    frame = pd.DataFrame(
        {
            "user": np.repeat([0, 1], 30),
            "item": np.tile(np.arange(30), 2),
            "rating": np.tile(np.arange(30) % 5 + 1.0, 2),
            "timestamp": np.tile(np.arange(30) // 10, 2),
        }
    )
    data = rating_data(frame)
    plain = UserHistories(data)
    mixed = UserHistories(data, "time, ties shuffled", seed=1)
    again = UserHistories(data, "time, ties shuffled", seed=1)
    assert torch.equal(mixed.item, again.item)
    assert not torch.equal(plain.item, mixed.item)
    for block in range(6):
        rows = slice(10 * block, 10 * block + 10)
        assert plain.item[rows].tolist() == sorted(mixed.item[rows].tolist())


# --- the table ------------------------------------------------------------------------


def test_the_summary_is_its_slow_version(
    board: Leaderboard, errors: pd.DataFrame
) -> None:
    row = board.summary.query("method == 'biases' and k == 5").iloc[0]
    mine = errors.query("method == 'biases' and k == 5").sort_values(["fold", "user"])
    rival = errors.query("method == 'gaussian' and k == 5").sort_values(
        ["fold", "user"]
    )
    assert row["rmse"] == pytest.approx(mine.groupby("fold")["rmse"].mean().mean())
    assert row["mae"] == pytest.approx(mine.groupby("fold")["mae"].mean().mean())
    square = (mine["rmse"] ** 2 * mine["n"]).sum() / mine["n"].sum()
    assert row["pooled_rmse"] == pytest.approx(np.sqrt(square))
    gap = paired_bootstrap(mine["rmse"], rival["rmse"], mine["fold"])
    assert row["difference"] == pytest.approx(gap.mean)
    assert (row["low"], row["high"]) == pytest.approx((gap.low, gap.high))


def test_a_user_too_short_for_some_k_has_no_part_there(board: Leaderboard) -> None:
    errors = board.errors
    short = (errors["k"] == 15) & (errors["user"] % 3 > 0)
    one = Leaderboard(errors[~short]).summary.set_index(["method", "k"])
    whole = board.summary.set_index(["method", "k"])
    few = ("biases", 15)
    # What holds for everybody is what it was.
    assert one.drop(15, level="k").equals(whole.drop(15, level="k"))
    gaps = board.per_user(15)
    gaps = (gaps["biases"] - gaps["gaussian"]).reset_index()
    gaps = gaps[gaps["user"] % 3 == 0]
    assert one.loc[few, "difference"] == pytest.approx(gaps[0].mean())
    own = paired_bootstrap(gaps[0], 0 * gaps[0], gaps["fold"])
    width = own.high - own.low
    found = one.loc[few, ["low", "high"]].to_numpy(float)
    assert found == pytest.approx([own.low, own.high], abs=width / 10)
    assert width > 1.2 * (whole.loc[few, "high"] - whole.loc[few, "low"])


def test_every_user_is_a_test_user_once(errors: pd.DataFrame, data: RatingData) -> None:
    one = errors.query("method == 'biases' and k == 0")
    assert sorted(one["user"]) == list(range(data.n_users))


def test_a_table_that_cannot_be_paired_is_refused(errors: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="rival 'nobody' was not run"):
        Leaderboard(errors, "nobody")
    short = errors.drop(errors.query("method == 'biases' and fold == 1").index)
    with pytest.raises(ValueError, match="biases: not judged on the same"):
        Leaderboard(short)
    with pytest.raises(ValueError, match="no column"):
        Leaderboard(errors.drop(columns="mae"))


def test_bold_in_markdown_means_better_than_the_rival(board: Leaderboard) -> None:
    text = Leaderboard(board.errors, "item mean").to_markdown()
    assert str(Leaderboard(board.errors, "item mean")) == text
    lines = {
        line.split("|")[1].strip(): line for line in text.split("\n") if "|" in line
    }
    assert "**" in lines["gaussian"]
    assert "**" not in lines["item mean"]


def test_the_plot_shows_each_method_at_its_difference(board: Leaderboard) -> None:
    ax = board.plot(5)
    rows = board.summary[board.summary["k"] == 5].set_index("method")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    drawn = dict(zip(labels, ax.lines[0].get_xdata(), strict=True))
    assert drawn == pytest.approx(rows["difference"].to_dict())
    # The smallest error on top, each within its interval, and a line at the rival.
    assert labels == rows["difference"].sort_values(ascending=False).index.tolist()
    (bars,) = ax.collections
    for method, at, bar in zip(
        labels, range(len(labels)), bars.get_segments(), strict=True
    ):
        low, high = rows.loc[method, ["low", "high"]]
        np.testing.assert_allclose(bar, [[low, at], [high, at]], atol=1e-12)
    assert ax.lines[0].get_linestyle() == "None"  # no curve: methods have no order
    assert list(ax.lines[1].get_xdata()) == [0, 0]
    assert ax.get_xlabel() == "RMSE (stars) less that of gaussian at K = 5"
    (one,) = board.plot(5, [labels[0]]).get_yticklabels()
    assert one.get_text() == labels[0]


# --- the run --------------------------------------------------------------------------


def test_an_interrupted_run_goes_on(
    data: RatingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def once(name: str, fold: Fold) -> UserItemBias:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(name)
        return fitted(name, fold)

    monkeypatch.setattr("metarec.evaluation.run.fitted", once)
    methods = ["item mean", "biases"]
    with pytest.raises(KeyboardInterrupt):
        run_methods(data, methods, QUICK, tmp_path, False)
    asked.clear()
    asked.append("one less to come")
    monkeypatch.setattr("metarec.evaluation.run.fitted", fitted)
    resumed = run_methods(data, methods, QUICK, tmp_path, False)
    whole = run_methods(data, methods, QUICK, tmp_path / "other", False)
    judged = ["method", "fold", "user", "k", "rmse", "mae", "unclipped", "n"]
    assert resumed[judged].equals(whole[judged])


def test_a_run_is_its_folds_each_judged(data: RatingData, tmp_path: Path) -> None:
    protocol = Protocol(folds=3, order="random", reserved=5, seed=4)
    methods = ["biases", "item mean"]
    errors = run_methods(data, methods, protocol, tmp_path, False)
    assert errors.index.tolist() == list(range(len(errors)))
    expected = []
    for method in methods:
        for number in range(3):
            fold = Fold(data, number, Protocol(3, "random", 5, 4))
            table = fold.judge(fitted(method, fold))
            expected.append(table.assign(method=method))
    judged = ["method", "fold", "user", "k", "rmse", "mae", "unclipped", "n"]
    pd.testing.assert_frame_equal(
        errors[judged], pd.concat(expected, ignore_index=True)[judged]
    )
    assert (errors[["fit_seconds", "ms_per_user"]] >= 0).all(axis=None)


@pytest.mark.parametrize("changes", ["", " M metarec/meta.py"])
def test_a_table_names_the_commit_and_whether_the_package_differs(
    changes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def git(words: list[str], **options: object) -> str:
        asked[words[1]] = options["cwd"]
        return changes if words[1] == "status" else "0123456789ab\n"

    monkeypatch.setattr("subprocess.check_output", git)
    write_table(tmp_path / "t.csv", pd.DataFrame({"a": [1]}), "this")
    said = (tmp_path / "t.csv").read_text().splitlines()[1]
    assert f"commit 0123456789ab{' with changes' if changes else ''};" in said
    assert set(map(str, asked.values())) == {str(Path(metarec.__file__).parent)}


def test_a_store_of_another_protocol_is_refused(
    data: RatingData, tmp_path: Path
) -> None:
    run_methods(data, ["item mean"], QUICK, tmp_path, False)
    with pytest.raises(ValueError, match="under another seed"):
        run_methods(data, ["item mean"], replace(QUICK, seed=1), tmp_path, False)


def test_one_fit_serves_all_protocols_and_more_can_be_added(
    data: RatingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(name: str, fold: Fold) -> UserItemBias:
        asked.append(name)
        return fitted(name, fold)

    monkeypatch.setattr("metarec.evaluation.run.fitted", counted)
    methods, kinds = ["user mean", "biases"], ["cold-start", "whole-life"]
    both = run_methods(data, methods, QUICK, tmp_path, False, kinds)
    assert asked == methods * 3
    assert both.groupby("protocol")["k"].nunique().to_dict() == {
        "cold-start": 7,
        "whole-life": 4,
    }
    run_methods(data, methods, QUICK, tmp_path, False, kinds)
    assert asked == methods * 3
    more = run_methods(data, methods, QUICK, tmp_path, False, ["last-20", *kinds])
    assert asked == methods * 6
    assert more[more["protocol"] != "last-20"].reset_index(drop=True).equals(both)


def test_the_user_mean_is_the_mean_of_what_was_given(data: RatingData) -> None:
    fold = Fold(data)
    method = fitted("user mean", fold)
    support = fold.histories.tasks(fold.split.test, 4).support
    found = method.predict(support, support.x)
    assert torch.allclose(found, support.y.mean(1, keepdim=True), atol=1e-4)
    nobody = fold.histories.tasks(fold.split.test, 0).support
    means = [fold.sealed.ratings_of(user[None])[2].mean() for user in fold.split.train]
    mean = method.predict(nobody, support.x)
    assert torch.allclose(mean, torch.stack(means).mean(), atol=1e-4)


def test_an_unknown_method_is_refused(data: RatingData) -> None:
    with pytest.raises(ValueError, match="no method is called 'magic'"):
        fitted("magic", Fold(data))


def test_a_table_says_where_it_comes_from(tmp_path: Path) -> None:
    path, table = tmp_path / "t.csv", pd.DataFrame({"a": [1, 2]})
    write_table(path, table, "the command", ["a note"])
    first, second, third, *_ = path.read_text().split("\n")
    assert first == "# made by: the command"
    assert "torch" in second and "Python" in second
    assert third == "# a note"
    assert read_table(path).equals(table)


# --- the command ----------------------------------------------------------------------


def as_csv(data: RatingData, path: Path) -> Path:
    table = data.ratings.rename(columns={"user": "who", "item": "what"})
    table.drop(columns="timestamp").to_csv(path, index=False)
    return path


def as_movielens_small(data: RatingData, folder: Path) -> Path:
    """Files in the layout of MovieLens-latest-small, ratings in half stars."""
    folder = folder / "ml-latest-small"
    folder.mkdir()
    ratings = pd.DataFrame(
        {
            "userId": data.ratings["user"] + 1,
            "movieId": data.ratings["item"] + 1,
            "rating": (data.ratings["rating"] * 2).round() / 2,
            "timestamp": data.ratings["timestamp"],
        }
    )
    ratings.to_csv(folder / "ratings.csv", index=False)
    movies = pd.DataFrame({"movieId": np.arange(1, data.n_items + 1)})
    movies["title"] = [f"Film {i} ({1950 + i % 50})" for i in movies["movieId"]]
    movies["genres"] = ["Drama|War" if i % 2 else "Comedy" for i in movies["movieId"]]
    movies.to_csv(folder / "movies.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def small() -> RatingData:
    return synthetic_population(60, 40, ratings_per_user=12, seed=5)[0]


def test_the_command_runs_on_a_csv_with_user_item_and_rating(
    small: RatingData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = as_csv(small, tmp_path / "mine.csv"), tmp_path / "out"
    words = ["--data", str(source), "--columns", "user=who", "item=what"]
    words += ["--methods", "baselines", "--folds", "2", "--reserved", "5"]
    assert main([*words, "--out", str(out)]) == 0
    assert "biases" in capsys.readouterr().out
    names = {"costs.csv", "errors.csv.xz", "parts", "plot.png", "summary.csv"}
    assert {path.name for path in out.iterdir()} == names | {"summary.md"}
    assert set(read_table(out / "summary.csv")["method"]) == set(BASELINES)
    before = (out / "errors.csv.xz").read_bytes()
    assert main([*words, "--out", str(out), "--fresh", "--quiet"]) == 0
    assert (out / "errors.csv.xz").read_bytes() == before


def test_the_command_runs_a_system_on_movielens_latest_small(
    small: RatingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "metarec.systems.default_config", lambda *_: TrainingConfig(epochs=2)
    )
    folder, out = as_movielens_small(small, tmp_path), tmp_path / "out"
    words = ["--data", f"ml-latest-small={folder}", "--folds", "2", "--reserved", "5"]
    words += ["--methods", str(System("mlp", "maml", "bayesian"))]
    assert main([*words, "--out", str(out), "--quiet"]) == 0
    assert len(read_table(out / "summary.csv")) == 2 * 5


def test_another_protocol_has_a_folder_of_its_own(
    small: RatingData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = as_csv(small, tmp_path / "mine.csv"), tmp_path / "out"
    words = ["--data", str(source), "--columns", "user=who", "item=what"]
    words += ["--methods", "biases", "--folds", "2", "--reserved", "5"]
    words += ["--protocol", "whole-life", "cold-start", "--out", str(out)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "| 25% given |" in shown and "| K = 5 |" in shown
    for folder, sizes in (
        (out, [0, 1, 2, 3, 5]),
        (out / "whole-life", [10, 25, 50, 80]),
    ):
        table = read_table(folder / "summary.csv")
        assert sorted(table["k"].unique()) == sizes
        assert (table["unclipped"] >= table["rmse"]).all()
        errors = pd.read_csv(folder / "errors.csv.xz")
        assert len(errors) == 2 * len(small.users) * len(sizes)
    command = (out / "summary.csv").read_text().split("\n")[0]
    assert command.endswith("--protocol whole-life cold-start --folds 2 --reserved 5")


def test_a_run_that_fails_claims_no_folder(
    small: RatingData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = as_csv(small, tmp_path / "mine.csv"), tmp_path / "out"
    words = ["--data", str(source), "--columns", "user=who", "item=what", "--quiet"]
    words += ["--methods", "biases", "--folds", "2", "--out", str(out), "--reserved"]
    assert main([*words, "25"]) == 1
    assert "none has a query" in capsys.readouterr().err and not out.exists()
    assert main([*words, "5"]) == 0
    capsys.readouterr()
    # What has results is claimed.
    assert main([*words, "4"]) == 1
    assert "under another reserved" in capsys.readouterr().err


def test_a_table_of_the_command_says_what_was_asked_for(
    small: RatingData, tmp_path: Path
) -> None:
    source, out = as_csv(small, tmp_path / "mine.csv"), tmp_path / "out"
    words = ["--data", str(source), "--columns", "user=who", "item=what", "--quiet"]
    words += ["--methods", "item mean", "--rival", "biases", "--order", "random"]
    words += ["--folds", "2", "--reserved", "5", "--seed", "3", "--out", str(out)]
    assert main(words) == 0
    first, _, third, *_ = (out / "summary.csv").read_text().splitlines()
    assert first.endswith(
        "--data mine.csv --methods 'item mean' --protocol cold-start --rival biases "
        "--order random --folds 2 --reserved 5 --seed 3"
    )
    assert "reserved=5" in third and "seed=3" in third
    summary = read_table(out / "summary.csv")
    assert summary["method"].unique().tolist() == ["item mean", "biases"]
    errors = read_table(out / "errors.csv.xz")
    assert list(errors) == [
        "method",
        "fold",
        "user",
        "k",
        "rmse",
        "mae",
        "unclipped",
        "n",
    ]
    assert list(read_table(out / "costs.csv")["method"]) == ["item mean", "biases"]


def test_errors_of_the_command_say_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (["--goal", "list"], ["--protocol", "warm"], ["--order", "none"]):
        with pytest.raises(SystemExit):
            main(wrong)
        assert "invalid choice" in capsys.readouterr().err
    assert main(["--methods", "magic"]) == 1
    assert "--list names them all" in capsys.readouterr().err
    assert main(["--data", str(tmp_path / "none.csv"), "--quiet"]) == 1
    assert "none.csv" in capsys.readouterr().err
    assert main(["--list"]) == 0
    assert "mf + maml + gradient" in capsys.readouterr().out
