"""Hidden checks of the project, your own recommender."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import checks
import numpy as np
import pandas as pd
import torch
from classroom import Student, Wrong, same
from torch import Tensor

from metarec.data import rating_data
from metarec.tasks import Examples, LeakageError, UserHistories, UserSplit

# Part 1 ---------------------------------------------------------------------------

TEA = {"user": "guest", "item": "tea", "rating": "cups"}


def some_ratings(student: Student) -> pd.DataFrame:
    """A good table, in which no pair stands twice."""
    guests, teas = student.integer(6, 9), student.integer(4, 6)
    pairs = [(100 + g, f"tea {t}") for g in range(guests) for t in range(teas)]
    kept = torch.randperm(len(pairs), generator=student.random)[:15].tolist()
    rows = [(*pairs[i], float(student.integer(1, 5))) for i in kept]
    return pd.DataFrame(rows, columns=["guest", "tea", "cups"])


def values_at_fault(student: Student) -> None:
    table = some_ratings(student)
    checks.reads(student, table, TEA)
    at = student.integer(1, 13)
    for column in ("guest", "tea", "cups"):
        bad = table.astype({"guest": object})
        bad.loc[at, column] = None
        what = f"a missing value (NaN) in the column {column!r}"
        checks.refuses(student, bad, what, [column], TEA)
    for value in (6.0, 0.0, -1.0):
        bad = table.copy()
        bad.loc[at, "cups"] = value
        what = f"a rating of {value:g} on a scale from 1 to 5"
        checks.refuses(student, bad, what, ["cups"], TEA)
    bad = table.astype({"cups": object})
    bad.loc[at, "cups"] = "good"
    checks.refuses(student, bad, "the rating 'good'", ["cups"], TEA)


def pairs_at_fault(student: Student) -> None:
    table = some_ratings(student)
    again = table.loc[[student.integer(0, 12)]]
    other = again.assign(cups=again["cups"] % 5 + 1)
    for more, what in (
        (other, "a pair that is rated twice, with two ratings"),
        (again, "a pair that stands there twice, with the same rating"),
    ):
        bad = pd.concat([table, more], ignore_index=True)
        checks.refuses(student, bad, what, ["guest", "tea"], TEA)


# Part 2 ---------------------------------------------------------------------------

KINDS = {"training": (0.0, 14), "validation": (0.7, 6), "test": (-0.7, 9)}
"""How far the users of each kind rate from the mean, and how many they are."""

FIRST_TEST_ITEM = 40  # test users rate items of their own, so they can be told apart


def three_kinds(student: Student) -> tuple[UserHistories, UserSplit]:
    """Users with histories of many lengths; each kind prefers another setting."""
    rng = np.random.default_rng(student.integer(0, 10**6))
    total = sum(n for _, n in KINDS.values())
    label = rng.permutation(total)
    rows: list[tuple[Any, ...]] = []
    parts: list[Tensor] = []
    begin = 0
    for kind, (shift, n) in KINDS.items():
        own = label[begin : begin + n]
        parts.append(torch.from_numpy(np.sort(own)))
        begin += n
        first = FIRST_TEST_ITEM if kind == "test" else 0
        for place, user in enumerate(own):
            # The last of each kind is too short to have a query.
            length = 8 if place == n - 1 else 14 + 2 * place
            items = first + rng.permutation(40)[:length]
            noise = rng.normal(0, 0.4 + 0.1 * place, length)
            ratings = np.clip(3 + shift + noise, 1, 5)
            times = rng.permutation(length)
            rows += zip([user] * length, items, ratings, times, strict=True)
    table = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    table = table.sample(frac=1, random_state=1, ignore_index=True)
    return UserHistories(rating_data(table), reserved=10), UserSplit(*parts)


class Shifted:
    """The mean rating plus a user's deviation, which ``setting`` is a guess at."""

    def __init__(self, mean: float, setting: float, watch: list[Any]) -> None:
        self.mean, self.setting, self.watch = mean, setting, watch

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        self.watch.append((self.setting, bool((x >= FIRST_TEST_ITEM).any())))
        rest = torch.where(support.mask, support.y - self.mean, 0.0).sum(-1)
        own = (40 * self.setting + rest) / (40 + support.mask.sum(-1))
        return self.mean + own[:, None].expand(x.shape)


class Wild:
    """Leaves the scale, and depends on the item and on the support."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def predict(self, support: Examples, x: Tensor) -> Tensor:
        rest = torch.where(support.mask, support.y - self.table[support.x], 0.0)
        own = rest.sum(-1) / (support.mask.sum(-1) + 2)
        return self.table[x] + own[:, None]


def errors_by_hand(
    predictor: Any,
    histories: UserHistories,
    users: Tensor,
    sizes: Sequence[int],
    mistake: str = "",
) -> pd.DataFrame:
    """One user and one k at a time: the right answer, or what a mistake gives."""
    rows = []
    for user in users.tolist():
        _, item, rating = histories.ratings_of(torch.tensor([user]))
        if len(item) <= histories.reserved:
            continue
        for k in sizes:
            first = k if mistake == "moving query" else histories.reserved
            asked = slice(first, None)
            told = {
                "query as support": asked,
                "all as support": slice(None),
            }.get(mistake, slice(0, k))
            support = Examples(
                item[None, told],
                rating[None, told],
                torch.ones_like(rating[None, told], dtype=torch.bool),
            )
            score = predictor.predict(support, item[None, asked])[0]
            if mistake != "unclipped":
                score = score.clamp(1, 5)
            square = (score - rating[asked]).square().mean()
            rows.append((user, k, float(square.sqrt()), len(rating[asked])))
    return pd.DataFrame(rows, columns=["user", "k", "rmse", "n"])


def key(k: Any) -> int:
    """K as pandas has it in an index, where anything may stand."""
    return int(k)


def pooled(errors: pd.DataFrame, batch: int) -> dict[int, float]:
    """The mean over batches of the pooled RMSE, users in their order, for each k."""
    curve = {}
    for k, rows in errors.groupby("k"):
        square, n = (rows["rmse"] ** 2 * rows["n"]).to_numpy(), rows["n"].to_numpy()
        starts = range(0, len(rows), batch)
        curve[key(k)] = float(
            np.mean(
                [
                    (square[s : s + batch].sum() / n[s : s + batch].sum()) ** 0.5
                    for s in starts
                ]
            )
        )
    return curve


def errors_of_each_user(student: Student) -> None:
    histories, split = three_kinds(student)
    users = torch.cat([split.test, split.validation])
    wild = Wild(3 + 1.5 * student.normal(histories.n_items).float())
    sizes = (0, 3, 10)
    right = errors_by_hand(wild, histories, users, sizes)
    wrong = {
        text: errors_by_hand(wild, histories, users, sizes, mistake)
        for text, mistake in (
            (checks.LEAK, "query as support"),
            (checks.LEAK + ".", "all as support"),
            (UNCLIPPED, "unclipped"),
        )
    }
    whole = pooled(right, len(users))
    wrong[checks.POOLED] = right.assign(rmse=right["k"].map(whole))
    found = student.user_errors(wild, histories, users, sizes)
    moving = errors_by_hand(wild, histories, users, sizes, "moving query")
    table = checks.table_of_errors(found, "the errors")
    if len(table) == len(moving):
        n, moved = table["n"].to_numpy(), checks.table_of_errors(moving, "")["n"]
        if np.array_equal(n, moved.to_numpy()):
            raise Wrong(checks.MOVING)
    checks.the_same_errors(found, right, "the errors", wrong)


class Trial:
    """One run of the student's `evaluate`, with a record of what it did."""

    def __init__(self, student: Student) -> None:
        self.histories, self.split = three_kinds(student)
        self.settings = [
            [-0.7, 0.0, 0.7][i]
            for i in torch.randperm(3, generator=student.random).tolist()
        ]
        self.watch: list[Any] = []
        self.fits: list[tuple[set[int], bool, float]] = []
        self.sizes = (0, 5, 10)
        self.answer = student.evaluate(
            self.fit, list(self.settings), self.histories, self.split, self.sizes
        )

    def fit(self, histories: UserHistories, users: Tensor, setting: float) -> Shifted:
        try:
            histories.ratings_of(self.split.test)
            sealed = False
        except LeakageError:
            sealed = True
        own = torch.as_tensor(users)
        self.fits.append((set(own.tolist()), sealed, setting))
        own = own[~torch.isin(own, self.split.test)] if sealed else own
        mean = float(histories.ratings_of(own)[2].mean())
        return Shifted(mean, setting, self.watch)


def fitted_on_training_users(student: Student) -> None:
    trial = Trial(student)
    if not trial.fits:
        raise Wrong("`fit` was never called")
    train = set(trial.split.train.tolist())
    usable = set(trial.histories.usable(trial.split.train).tolist())
    for users, sealed, _ in trial.fits:
        if users & set(trial.split.test.tolist()):
            raise Wrong(
                "the fit is given test users: a mean or a map that is built from them "
                "knows the answers. Fit on split.train alone"
            )
        if users & set(trial.split.validation.tolist()):
            raise Wrong(
                "the fit is given validation users: they can no longer choose. Fit on "
                "split.train alone, also after the choice"
            )
        if users not in (train, usable):
            raise Wrong(
                f"the fit is given {len(users)} users and there are {len(train)} "
                "training users"
            )
        if not sealed:
            raise Wrong(
                "the histories that `fit` is given hand out ratings of test users: "
                "give it histories.seal(split.test)"
            )
    if {setting for *_, setting in trial.fits} != set(trial.settings):
        raise Wrong("`fit` was not called with each of the settings")


def chosen_on_validation_users(student: Student) -> None:
    trial = Trial(student)
    chosen, _, _ = checks.parts_of(trial.answer)
    checks.chosen_is(chosen, 0.7, -0.7, 0.0)
    looked = {setting for setting, at_test in trial.watch if at_test}
    if looked - {0.7}:
        raise Wrong(
            "the test users were looked at with other settings than the chosen one, "
            f"{sorted(looked - {0.7})}: they are for one look, at the end"
        )


def errors_and_curve(student: Student) -> None:
    trial = Trial(student)
    setting, errors, curve = checks.parts_of(trial.answer)
    mean = float(trial.histories.ratings_of(trial.split.train)[2].mean())

    def judged(users: Tensor, setting: float) -> pd.DataFrame:
        predictor = Shifted(mean, setting, [])
        return errors_by_hand(predictor, trial.histories, users, trial.sizes)

    known = setting if setting in trial.settings else 0.7
    # What the chosen setting is was asked before: here its errors are compared.
    right = judged(trial.split.test, known)
    checks.the_same_errors(errors, right, "the errors of the test users")
    wrong = {checks.POOLED: pooled(right, len(right))}
    for batch in (2, 3, 4, 5):
        wrong[checks.BATCHES + "." * batch] = pooled(right, batch)
    weighted = {
        key(k): float(np.average(rows["rmse"], weights=rows["n"]))
        for k, rows in right.groupby("k")
    }
    wrong[checks.POOLED + "."] = weighted
    wrong[
        "this is the curve of the validation users: it is asked of the test users"
    ] = {
        key(k): v
        for k, v in judged(trial.split.validation, known)
        .groupby("k")["rmse"]
        .mean()
        .items()
    }
    means = {key(k): v for k, v in right.groupby("k")["rmse"].mean().items()}
    checks.the_same_curve(curve, means, wrong)


UNCLIPPED = (
    "the predictions are not clipped to the scale: nobody gives six stars, so nobody "
    "is predicted to"
)

# Part 3 ---------------------------------------------------------------------------


# Seeds of populations whose tastes matter more than how generous a user is: against the
# shrunk item mean at K = 10 a user's bias gains 4 to 11 percent in them, and the
# Gaussian factor model at least 26.
POPULATIONS = tuple(
    int(seed)
    for seed in """
118 121 123 125 126 129 133 134 135 139 140 141 144 146 147 148 150 160
164 165 166 168 172 177 179 183 187 188 193 196 199 201 203 204 207 210 211 212 217 219
""".split()
)


# For lists: popularity is ahead of the Gaussian factor model, which sorts by stars, and
# counts of who chose what together gain 25 percent and more over popularity.
CHOOSERS = tuple(
    int(seed)
    for seed in """
101 104 105 109 114 125 141 153 195 199 200 214 219 237 242
""".split()
)


def populations(
    student: Student, goal: str
) -> list[tuple[UserHistories, Tensor, Tensor]]:
    """Two of the populations, drawn from the instructor's seed."""
    seeds = {"stars": POPULATIONS, "lists": CHOOSERS}[goal]
    drawn = [seeds[student.integer(0, len(seeds) - 1)] for _ in range(2)]
    return [checks.population(seed, goal) for seed in drawn]


PRIOR = {
    "stars": "the item's offset must be a mean over users",
    "lists": "a list for nobody in particular is what many chose and liked",
}


def no_worse_without_ratings(student: Student) -> None:
    goal = checks.goal_of(student)
    name, of_rival, fit_rival, measure = checks.MEASURES[goal]
    for histories, train, test in populations(student, goal):
        predictor = checks.fit(student, histories, train, test)
        mine, _, _ = measure(predictor, histories, test, 0)
        rival, _, _ = measure(fit_rival(histories, train), histories, test, 0)
        if (mine - rival if goal == "stars" else rival - mine) > 0.02:
            raise Wrong(
                f"at K = 0 the {name} is {mine:.3f} and that of {of_rival} "
                f"{rival:.3f}: without a rating the prior has to speak, and "
                f"{PRIOR[goal]}"
            )


def better_by(percent: int) -> Callable[[Student], None]:
    """A check that at K = 10 the measure is so much better than the rival's."""

    def check(student: Student) -> None:
        goal = checks.goal_of(student)
        name, of_rival, fit_rival, measure = checks.MEASURES[goal]
        mine, rival, ignored = 0.0, 0.0, []
        for histories, train, test in populations(student, goal):
            predictor = checks.fit(student, histories, train, test)
            value, scores, none = measure(predictor, histories, test, 10)
            ignored.append(torch.allclose(scores, none, atol=1e-6))
            mine += value / 2
            rival += measure(fit_rival(histories, train), histories, test, 10)[0] / 2
        if all(ignored):
            raise Wrong(checks.IGNORES)
        gain = 100 * (1 - mine / rival) if goal == "stars" else 100 * (mine / rival - 1)
        if gain < percent:
            side = "below" if goal == "stars" else "above"
            raise Wrong(
                f"at K = 10 the {name} is {mine:.3f} and that of {of_rival} "
                f"{rival:.3f}: {gain:.1f}% {side} it, and {percent}% are asked for"
            )

    return check


def keeps_the_rules(student: Student) -> None:
    histories, train, test = populations(student, checks.goal_of(student))[0]
    predictor = checks.fit(student, histories, train, test)
    tasks = histories.tasks(test, torch.arange(len(test)) % 11)
    support, x = tasks.support, tasks.query.x
    scores = checks.scores_of(predictor, support, x)
    if torch.allclose(
        scores, checks.scores_of(predictor, histories.tasks(test, 0).support, x)
    ):
        raise Wrong(checks.IGNORES)

    # The same, fitted where the test users' ratings say something else, of other items.
    other = histories.seal(test)
    other.rating, other.item = histories.rating.clone(), histories.item.clone()
    for user in test.tolist():
        rows = slice(int(histories.start[user]), int(histories.start[user + 1]))
        other.rating[rows] = 6 - histories.rating[rows].flip(0)
        other.item[rows] = histories.n_items - 1 - histories.item[rows]
    again = checks.fit(student, histories, train, test)
    if torch.allclose(scores, checks.scores_of(again, support, x), atol=1e-4):
        elsewhere = student.my_recommender(other, train)
        if not torch.allclose(
            scores, checks.scores_of(elsewhere, support, x), atol=1e-3
        ):
            raise Wrong(
                "the fit depends on ratings of test users: build means and maps with "
                "histories.ratings_of(users), of the users that you are given"
            )
    noise = torch.where(support.mask, support.y, 17.0)
    items = torch.where(support.mask, support.x, 5)
    padded = checks.scores_of(predictor, replace(support, x=items, y=noise), x)
    if not torch.allclose(scores, padded, atol=1e-3):
        raise Wrong(
            "what stands under a false mask changes the predictions: leave it out of "
            "every sum and every count"
        )
    for user in (3, 10, 21):
        one = Examples(*(t[user, None] for t in (support.x, support.y, support.mask)))
        alone = checks.scores_of(predictor, one, x[user, None])
        if not torch.allclose(scores[user], alone[0], atol=1e-3):
            raise Wrong(
                "a user's predictions depend on who else is in the batch: something is "
                "averaged or carried over users"
            )


# Part 4 ---------------------------------------------------------------------------


def two_tables(
    student: Student, gap: float, users: int = 60
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Errors that share what makes a user hard and differ by ``gap`` on average.

    Where the query is long the difference is another one. Rows are shuffled, each
    table by itself, and a second k has other errors.
    """
    hard = 1 + 0.4 * student.normal(users).abs().numpy()
    n = np.array([student.integer(5, 100) for _ in range(users)])
    d = 0.1 * student.normal(users).numpy()
    d += 0.15 * (n - n.mean()) / n.std()
    d += gap - d.mean()
    name = 7 * np.arange(users) + 3
    tables = []
    for rmse in (hard + d, hard):
        at_10 = pd.DataFrame({"user": name, "k": 10, "rmse": rmse, "n": n})
        at_0 = at_10.assign(k=0, rmse=rmse[::-1] + 0.5 * student.integer(1, 3))
        order = torch.randperm(2 * users, generator=student.random).numpy()
        both = pd.concat([at_10, at_0], ignore_index=True)
        tables.append(both.iloc[order].reset_index(drop=True))
    return tables[0], tables[1]


def at(table: pd.DataFrame, k: int, column: str = "rmse") -> np.ndarray:
    """A column at k, in the order of the users."""
    return table[table["k"] == k].sort_values("user")[column].to_numpy()


def interval(draws: np.ndarray) -> np.ndarray:
    return np.quantile(draws, [0.025, 0.975])


def the_interval(student: Student) -> None:
    mine, rival = two_tables(student, -0.03)
    row = checks.row_of(student.leaderboard_row("mine", mine, rival, 10))
    a, b, n = at(mine, 10), at(rival, 10), at(mine, 10, "n")
    d, rng = a - b, np.random.default_rng(student.integer(0, 10**6))
    everything = mine["rmse"].mean() - rival["rmse"].mean()
    same(row["rmse"], a.mean(), "the mean RMSE of a user")
    same(
        row["difference"],
        d.mean(),
        "the difference",
        {
            checks.SIGN: -d.mean(),
            RATINGS: np.average(d, weights=n),
            "the rows of other k are in it: take those of this k alone": everything,
        },
        1e-4,
    )

    def means(values: np.ndarray, size: int | None = None) -> np.ndarray:
        size = len(values) if size is None else size
        return values[rng.integers(len(values), size=(4000, size))].mean(1)

    right = interval(means(d))
    found = np.array([float(row["low"]), float(row["high"])])
    width = right[1] - right[0]
    if np.abs(found - right).max() <= 0.12 * width:
        return
    by_rating = np.repeat(d, n)
    mistakes = {
        "the interval is unpaired: the two tables were resampled apart, so what makes "
        "a user hard for both no longer cancels. Resample the users, and take the "
        "differences of the same users": interval(means(a) - means(b)),
        RATINGS: interval(means(by_rating)),
        RATINGS + ".": interval(means(by_rating)) - by_rating.mean() + d.mean(),
        "this is where 95% of the users lie, and not the interval of their mean": (
            interval(d)
        ),
        "this is an interval of 90%: the quantiles are 0.025 and 0.975": np.quantile(
            means(d), [0.05, 0.95]
        ),
        "low and high are exchanged": right[::-1],
        "the tables are paired by their rows and not by their users": interval(
            means(
                mine.loc[mine["k"] == 10, "rmse"].to_numpy()
                - rival.loc[rival["k"] == 10, "rmse"].to_numpy()
            )
        ),
        "the sign is turned round: low and high are those of the rival's RMSE less "
        "the recommender's": -right[::-1],
    }
    for text, wrong in mistakes.items():
        if np.abs(found - wrong).max() <= 0.12 * abs(wrong[1] - wrong[0]):
            raise Wrong(text)
    raise Wrong(
        f"the interval should be about {right[0]:.4f} to {right[1]:.4f} and is "
        f"{found[0]:.4f} to {found[1]:.4f}"
    )


def the_verdict(student: Student) -> None:
    for gap, right in (
        (-0.15, "better"),
        (0.15, "worse"),
        (-0.012, "tie"),
        (0.012, "tie"),
    ):
        mine, rival = two_tables(student, gap)
        row = checks.row_of(student.leaderboard_row("x", mine, rival, 10))
        d = at(mine, 10) - at(rival, 10)
        spread = 1.96 * d.std() / len(d) ** 0.5
        checks.verdict_is(row["verdict"], right, d.mean() - spread, d.mean() + spread)
        if row["name"] != "x" or row["k"] != 10:
            raise Wrong("the row should repeat the name and k that it was given")


def other_users(student: Student) -> None:
    mine, rival = two_tables(student, 0.0, 20)
    gone = rival[rival["user"] != 3 + 7 * student.integer(0, 19)]
    renamed = rival.assign(user=rival["user"].replace(3, 4))
    for table, what in ((gone, "lacks a user"), (renamed, "holds another user")):
        try:
            student.leaderboard_row("mine", mine, table, 10)
        except ValueError:
            continue
        raise Wrong(
            f"the rival's table {what} and nothing was said: users without a partner "
            "were dropped or paired with others. Raise a ValueError"
        )


RATINGS = (
    "this weights users by their ratings, or resamples ratings in place of users: "
    "every user counts once, and users are what is drawn again"
)

# ----------------------------------------------------------------------------------

PART_1 = checks.PART_1.with_check(
    "missing values and ratings off the scale", 1, values_at_fault
).with_check("pairs that stand there twice", 1, pairs_at_fault)
PART_2 = (
    checks.PART_2.with_check("the errors of each user", 1, errors_of_each_user)
    .with_check("fitted on training users alone", 1, fitted_on_training_users)
    .with_check("the choice, and one look", 1, chosen_on_validation_users)
    .with_check("errors and curve of the test users", 1, errors_and_curve)
)
PART_3 = (
    checks.PART_3.with_check("no worse at K = 0", 1, no_worse_without_ratings)
    .with_check("2% better at K = 10", 1, better_by(2))
    .with_check("12% better at K = 10", 1, better_by(12))
    .with_check("18% better at K = 10", 1, better_by(18))
    .with_check("keeps the rules", 1, keeps_the_rules)
)
PART_4 = (
    checks.PART_4.with_check("the difference and its interval", 1, the_interval)
    .with_check("the verdict", 1, the_verdict)
    .with_check("tables of different users", 1, other_users)
)
