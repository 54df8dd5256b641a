"""The checks that a student sees: small tables that can be followed by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from classroom import Part, Student, Wrong, same, tensor_of_shape
from torch import Tensor

from metarec.data import RatingData, RatingScale, rating_data
from metarec.data.synthetic import synthetic_population
from metarec.evaluation import rank_catalogue
from metarec.factors import ItemMean
from metarec.tasks import Examples, UserHistories, UserSplit

FIVE = RatingScale(1, 5)

# Part 1 ---------------------------------------------------------------------------

BOOKS = {"user": "reader", "item": "book", "rating": "stars"}
TABLE = pd.DataFrame(
    {
        "reader": ["ann", "ann", "bob", "bob", "cy"],
        "book": ["Emma", "Ulysses", "Emma", "Middlemarch", "Ulysses"],
        "stars": [5, 2, 4, 4, 1],
    }
)


def read(student: Student, table: pd.DataFrame, columns: Mapping[str, str]) -> Any:
    """What the student's reader makes of a table, written to a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.csv"
        table.to_csv(path, index=False)
        return student.read_ratings(path, dict(columns), FIVE)


def reads(
    student: Student, table: pd.DataFrame, columns: Mapping[str, str] = BOOKS
) -> None:
    """Every row must come back, under the labels of the file."""
    data = read(student, table, columns)
    if not isinstance(data, RatingData):
        raise Wrong(
            f"the result should be a RatingData and is a {type(data).__name__}: return "
            "rating_data(table, columns, scale)"
        )
    if len(data.ratings) != len(table):
        raise Wrong(
            f"a good table of {len(table)} rows came back with {len(data.ratings)}"
        )
    found = {
        (str(data.users["user_id"][u]), str(data.items["item_id"][i]), round(float(r)))
        for u, i, r in data.ratings[["user", "item", "rating"]].itertuples(index=False)
    }
    names = [columns[role] for role in ("user", "item", "rating")]
    right = {
        (str(u), str(i), round(r)) for u, i, r in table[names].itertuples(index=False)
    }
    if found != right:
        lost = sorted(right - found)[0]
        raise Wrong(f"the rating {lost} of the file is not in the result")


def refuses(
    student: Student,
    table: pd.DataFrame,
    what: str,
    names: Sequence[str],
    columns: Mapping[str, str] = BOOKS,
) -> None:
    """A faulty table must raise a ValueError that names the columns."""
    try:
        data = read(student, table, columns)
    except ValueError as error:
        for name in names:
            if name not in str(error):
                raise Wrong(
                    f"{what}: the ValueError does not name the column {name!r}. It "
                    f"says: {str(error)[:200]}"
                ) from None
        return
    except NotImplementedError:
        raise
    except Exception as error:
        raise Wrong(
            f"{what}: a {type(error).__name__} ({str(error)[:80]}) is raised and not a "
            f"ValueError that names the column {names[0]!r}"
        ) from None
    rows = len(data.ratings) if isinstance(data, RatingData) else len(table)
    raise Wrong(
        f"{what}: the rows were dropped or merged silently ({len(table)} rows in the "
        f"file, {rows} in the result). Raise a ValueError"
        if rows < len(table)
        else f"{what}: it was not noticed. Raise a ValueError"
    )


def reads_books(student: Student) -> None:
    reads(student, TABLE)


def refuses_a_missing_column(student: Student) -> None:
    refuses(
        student,
        TABLE.rename(columns={"stars": "mark"}),
        "a file without the column of the ratings",
        ["stars"],
    )


# Part 2 ---------------------------------------------------------------------------


class MeanOfSupport:
    """The mean of the user's own ratings, 3 where there is none."""

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        y = torch.where(support.mask, support.y, 0.0)
        n = support.mask.sum(-1)
        mean = torch.where(n > 0, y.sum(-1) / n.clamp(min=1), 3.0)
        return mean[:, None].expand(x.shape)


def small_histories() -> UserHistories:
    """Three users; two ratings are reserved, so the third has no query."""
    rows = {0: [5, 3, 4, 2], 1: [5, 5, 5, 5, 5], 2: [1, 1]}
    table = pd.DataFrame(
        [(u, i, r, i) for u, given in rows.items() for i, r in enumerate(given)],
        columns=["user", "item", "rating", "timestamp"],
    )
    return UserHistories(rating_data(table), reserved=2)


def table_of_errors(value: Any, what: str) -> pd.DataFrame:
    """``value`` sorted by user and k, if it has the form of `user_errors`."""
    if not isinstance(value, pd.DataFrame):
        raise Wrong(f"{what} should be a DataFrame and is a {type(value).__name__}")
    if missing := {"user", "k", "rmse", "n"} - set(value.columns):
        raise Wrong(f"{what} has no column {', '.join(sorted(missing))}")
    value = value[["user", "k", "rmse", "n"]].astype(float)
    return value.sort_values(["user", "k"], ignore_index=True)


def the_same_errors(
    value: Any,
    right: pd.DataFrame,
    what: str,
    mistakes: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Compare tables of errors, whatever the order of their rows."""
    found = table_of_errors(value, what)
    right = table_of_errors(right, what)
    keys = found[["user", "k"]].apply(tuple, axis=1).tolist()
    expected = right[["user", "k"]].apply(tuple, axis=1).tolist()
    if keys != expected:
        extra = sorted({u for u, _ in keys} - {u for u, _ in expected})
        raise Wrong(
            f"{what} has rows of users who are not to be judged here, the first is "
            f"user {extra[0]:.0f}: only those of histories.usable(users) are"
            if extra
            else f"{what} should have {len(expected)} rows, one for each usable user "
            f"and each k, and has {len(keys)}"
        )
    wrong = {
        text: torch.tensor(table_of_errors(t, what)["rmse"].to_numpy())
        for text, t in (mistakes or {}).items()
    }
    rmse = torch.tensor(right["rmse"].to_numpy())
    same(torch.tensor(found["rmse"].to_numpy()), rmse, f"{what}, rmse,", wrong, 1e-4)
    n = torch.tensor(right["n"].to_numpy())
    same(torch.tensor(found["n"].to_numpy()), n, f"{what}, n (ratings in the query),")


def two_users(student: Student) -> None:
    found = student.user_errors(
        MeanOfSupport(), small_histories(), torch.arange(3), (0, 2)
    )
    right = pd.DataFrame(
        {
            "user": [0, 0, 1, 1],
            "k": [0, 2, 0, 2],
            "rmse": [1.0, 2**0.5, 2.0, 0.0],
            "n": [2, 2, 3, 3],
        }
    )
    the_same_errors(
        found,
        right,
        "the errors of two users",
        {
            POOLED: right.assign(rmse=[2.8**0.5, 0.8**0.5, 2.8**0.5, 0.8**0.5]),
            LEAK: right.assign(rmse=[1.0, 1.0, 0.0, 0.0]),
            MOVING: right.assign(rmse=[1.5**0.5, 2**0.5, 2.0, 0.0]),
        },
    )


class Constant:
    """Everybody gives ``setting`` stars."""

    def __init__(self, setting: float) -> None:
        self.setting = setting

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        return torch.full(x.shape, float(self.setting))


def parts_of(value: Any) -> tuple[Any, Any, Any]:
    """The three things that `evaluate` returns."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise Wrong(
            "evaluate should return three things: setting, errors, curve; it returns "
            f"a {type(value).__name__}"
        )
    return value[0], value[1], value[2]


def the_same_curve(
    value: Any,
    right: Mapping[int, float],
    mistakes: Mapping[str, Mapping[int, float]] | None = None,
) -> None:
    """Compare the mean RMSE for each k."""
    if isinstance(value, pd.Series):
        value = value.to_dict()
    if not isinstance(value, Mapping) or {int(k) for k in value} != set(right):
        raise Wrong(f"the curve should be a dictionary with the keys {sorted(right)}")
    found = torch.tensor([float(value[k]) for k in sorted(value)])
    wrong = {
        text: torch.tensor([table[k] for k in sorted(table)])
        for text, table in (mistakes or {}).items()
    }
    numbers = torch.tensor([right[k] for k in sorted(right)])
    same(found, numbers, "the mean RMSE for each k", wrong, 1e-4)


def three_constants(student: Student) -> None:
    rows = [(0, 3), (1, 4), (2, 2)]  # training, validation, test
    table = pd.DataFrame(
        [(u, i, r, i) for u, r in rows for i in range(3)],
        columns=["user", "item", "rating", "timestamp"],
    )
    histories = UserHistories(rating_data(table), reserved=1)
    split = UserSplit(*(torch.tensor([u]) for u in range(3)))
    setting, errors, curve = parts_of(
        student.evaluate(
            lambda histories, users, setting: Constant(setting),
            [2.0, 3.0, 4.0],
            histories,
            split,
            (0, 1),
        )
    )
    chosen_is(setting, 4.0, 2.0, 3.0)
    right = pd.DataFrame({"user": [2, 2], "k": [0, 1], "rmse": 2.0, "n": 2})
    the_same_errors(errors, right, "the errors of the test users")
    the_same_curve(curve, {0: 2.0, 1: 2.0})


def chosen_is(
    setting: Any, validation: float, test: float, train: float | None
) -> None:
    """Compare the chosen setting with what other users would have chosen."""
    if setting == validation:
        return
    if setting == test:
        raise Wrong(CHOSEN_ON_TEST)
    if train is not None and setting == train:
        raise Wrong(
            "the setting was chosen on the training users, who were fitted: choose on "
            "the validation users"
        )
    raise Wrong(
        f"the setting that is best for the validation users is {validation} and the "
        f"chosen one is {setting!r}"
    )


LEAK = (
    "the query is in the support: the predictor sees the ratings that it is asked for. "
    "Give predict(support, x) tasks.support and the items of the query alone"
)
MOVING = (
    "the query changes with k: it is everything after the k first ratings, so the "
    "errors at two k are errors on different ratings. Take "
    "histories.tasks(users, k).query"
)
POOLED = (
    "this RMSE is pooled over the ratings of several users: it counts those with many "
    "ratings more. Take the root for each user over their own query, and the mean over "
    "users only at the end"
)
BATCHES = (
    "this is a mean of the RMSE over batches of users: it changes with the batch size. "
    "Take the root for each user, then the mean over users"
)
CHOSEN_ON_TEST = (
    "the setting was chosen on the test users: the error that it has there is no "
    "longer an honest one. Choose on the validation users"
)

# Part 3 ---------------------------------------------------------------------------


def goal_of(student: Student) -> str:
    """What the student's recommender is for."""
    goal = student.names.get("GOAL", "stars")
    if goal not in ("stars", "lists"):
        raise Wrong(f'GOAL should be "stars" or "lists" and is {goal!r}')
    return str(goal)


def population(seed: int, goal: str = "stars") -> tuple[UserHistories, Tensor, Tensor]:
    """Histories with known tastes, 140 training users and 60 others."""
    if goal == "lists":
        return choosers(seed)
    data, _ = synthetic_population(200, 60, 2, 30, 0.5, seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(200))
    histories = UserHistories(data, reserved=10)
    return histories, order[:140], order[140:]


def choosers(seed: int) -> tuple[UserHistories, Tensor, Tensor]:
    """The same for lists: each user rates 25 of 120 items, chosen one after another.

    What draws a user to an item is the item's appeal to all, their own taste for it,
    and chance.
    """
    data, truth = synthetic_population(200, 120, 2, 120, 0.5, seed)
    rng = np.random.default_rng(seed)
    appeal, taste = rng.normal(size=120), truth.p_u @ truth.q_i.T
    pull = appeal + 1.5 * taste + rng.gumbel(size=taste.shape)
    place = (-pull).argsort(1).argsort(1)  # 0 for what a user chooses first
    table = data.ratings
    table = table.assign(timestamp=place[table["user"], table["item"]])
    chosen = table[table["timestamp"] < 25]
    data = rating_data(chosen, None, data.scale, "", data.users, data.items)
    order = torch.from_numpy(rng.permutation(200))
    return UserHistories(data, reserved=10), order[:140], order[140:]


def fit(student: Student, histories: UserHistories, train: Tensor, test: Tensor) -> Any:
    """The student's predictor, fitted where no test user can be read."""
    predictor = student.my_recommender(histories.seal(test), train)
    if predictor is None:
        raise Wrong("my_recommender returns None: is there a `return`?")
    if type(predictor).__module__.split(".")[0] == "metarec":
        raise Wrong(
            f"this is the package's own {type(predictor).__name__}: its pieces are "
            "allowed, but the predictor must be yours"
        )
    if not callable(getattr(predictor, "predict", None)):
        raise Wrong(
            f"my_recommender should return an object with a method predict(support, x) "
            f"and returns a {type(predictor).__name__}"
        )
    return predictor


def scores_of(predictor: Any, support: Examples, x: Tensor) -> Tensor:
    with torch.no_grad():
        value = predictor.predict(support, x)
    return tensor_of_shape(value, tuple(x.shape), "what predict returns")


def error_at(
    predictor: Any, histories: UserHistories, users: Tensor, k: int
) -> tuple[float, Tensor, Tensor]:
    """Mean RMSE of a user, and what was predicted with and without the ratings."""
    tasks = histories.tasks(users, k)
    query = tasks.query
    scores = scores_of(predictor, tasks.support, query.x)
    none = scores_of(predictor, histories.tasks(users, 0).support, query.x)
    square = (scores.clamp(1, 5) - query.y).square() * query.mask
    return float((square.sum(-1) / query.mask.sum(-1)).sqrt().mean()), scores, none


class Popularity:
    """Every user's list by the likes of the training users."""

    def __init__(self, histories: UserHistories, users: Tensor) -> None:
        _, item, rating = histories.ratings_of(users)
        liked = item[rating >= histories.scale.like]
        self.likes = torch.bincount(liked, minlength=histories.n_items).float()

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        return self.likes[x]


class Whole:
    """A student's predictor whose answers are looked at before they are ranked."""

    def __init__(self, predictor: Any) -> None:
        self.predictor = predictor

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        scores = scores_of(self.predictor, support, x)
        if not torch.isfinite(scores).all():
            raise Wrong("a score is not a finite number, so items cannot be ranked")
        return scores


def ndcg_at(
    predictor: Any, histories: UserHistories, users: Tensor, k: int
) -> tuple[float, Tensor, Tensor]:
    """Mean nDCG@10 of a user, and the scores with and without the ratings."""
    table = rank_catalogue(Whole(predictor), histories, users, (k,))
    everything = torch.arange(histories.n_items).expand(len(users), -1)
    scores, none = (
        scores_of(predictor, histories.tasks(users, n).support, everything)
        for n in (k, 0)
    )
    return float(table["ndcg"].mean()), scores, none


MEASURES: dict[str, tuple[str, str, Any, Any]] = {
    "stars": ("RMSE", "the shrunk item mean", ItemMean.fit, error_at),
    "lists": ("nDCG@10", "popularity", Popularity, ndcg_at),
}
"""For each goal what is measured, the rival's name, what fits it and what measures."""


def has_the_form(student: Student) -> None:
    goal = goal_of(student)
    name, of_rival, fit_rival, measure = MEASURES[goal]
    histories, train, test = population(3, goal)
    predictor = fit(student, histories, train, test)
    mine, scores, none = measure(predictor, histories, test, 10)
    if torch.allclose(scores, none, atol=1e-6):
        raise Wrong(IGNORES)
    rival, _, _ = measure(fit_rival(histories, train), histories, test, 10)
    print(f"{name} at K = 10: yours {mine:.3f}, {of_rival} {rival:.3f}")


IGNORES = (
    "the support is ignored: the predictions after ten ratings are those without any. "
    "Use support.x, support.y and support.mask"
)

# Part 4 ---------------------------------------------------------------------------


def row_of(value: Any) -> dict[str, Any]:
    """A row of the leaderboard, if it has all entries."""
    if not isinstance(value, Mapping):
        raise Wrong(f"the row should be a dictionary and is a {type(value).__name__}")
    wanted = ["name", "k", "rmse", "difference", "low", "high", "verdict"]
    if missing := [name for name in wanted if name not in value]:
        raise Wrong(f"the row lacks {', '.join(missing)}")
    return dict(value)


def always_a_quarter_less(student: Student) -> None:
    users = np.arange(40)
    rival = pd.DataFrame({"user": users, "k": 5, "rmse": 1 + users / 40, "n": 9})
    mine = rival.assign(rmse=rival["rmse"] - 0.25)[::-1]
    row = row_of(student.leaderboard_row("mine", mine, rival, 5))
    same(row["rmse"], 1.2375, "the mean RMSE")
    same(row["difference"], -0.25, "the difference", {SIGN: 0.25})
    for end in ("low", "high"):
        if abs(float(row[end]) + 0.25) > 1e-6:
            raise Wrong(
                f"every user has a difference of -0.25, so {end} is -0.25, and yours "
                f"is {float(row[end]):.3f}. {UNPAIRED}"
            )
    verdict_is(row["verdict"], "better", -0.25, -0.25)


def verdict_is(value: Any, right: str, low: float, high: float) -> None:
    if value != right:
        raise Wrong(
            f"with the interval from {low:.4f} to {high:.4f} the verdict is {right!r} "
            f"and not {value!r}: it follows from the whole interval, not from the "
            "point estimate"
        )


SIGN = (
    "the sign is turned round: the difference is the recommender's RMSE less the "
    "rival's, negative where the recommender is better"
)
UNPAIRED = (
    "Users are paired by their number, not by their row, and both tables see the same "
    "resample: with one resample for each table the interval is unpaired and too wide"
)

# ----------------------------------------------------------------------------------

PART_1 = (
    Part(
        "Part 1",
        "A reader that refuses bad tables",
        "Chapter The data: 'Ratings of your own'",
    )
    .with_check("a good table is read, row for row", 1, reads_books)
    .with_check("a missing column", 1, refuses_a_missing_column)
)
PART_2 = (
    Part(
        "Part 2",
        "An honest evaluation on new users",
        "Chapter Users as tasks: 'The protocol, in one call' and 'The guard'",
    )
    .with_check("two users, by hand", 1, two_users)
    .with_check("three constants, by hand", 1, three_constants)
)
PART_3 = Part(
    "Part 3",
    "Your recommender",
    "Chapters Matrix factorisation: 'And Mira?', The full system: 'Adapt, by hand', "
    "Lists: 'Which question does the model answer?'",
).with_check("the right form, and it looks at the support", 1, has_the_form)
PART_4 = Part(
    "Part 4",
    "A row of the leaderboard",
    "Chapter The leaderboard: 'How to read a leaderboard'",
).with_check("a quarter of a star less for everybody", 1, always_a_quarter_less)
