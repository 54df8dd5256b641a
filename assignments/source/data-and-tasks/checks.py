"""The checks that a student sees: small numbers that can be followed by hand."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from classroom import Part, Student, Wrong, same
from torch import Tensor

# ---------------------------------------------------------------- part 1: vocabulary

OCCUPATIONS = ["writer", "artist", "writer", "pilot", "artist", "doctor"]


def the_vocabulary(found: Any, labels: list[str], train: list[int]) -> None:
    """Fail unless ``found`` numbers the words of the training users, and say why."""
    if not isinstance(found, dict):
        raise Wrong(f"the vocabulary should be a dict and is a {type(found).__name__}")
    others = [label for user, label in enumerate(labels) if user not in train]
    right = sorted({labels[user] for user in train})
    strange = sorted(set(map(str, found)) - set(right))
    missing = [word for word in right if word not in found]
    if strange and set(strange) <= set(others):
        if missing:
            raise Wrong(
                f"it holds {strange[0]!r}, which no training user has, and lacks "
                f"{missing[0]!r}: the map was built from the test users"
            )
        raise Wrong(
            f"it holds {strange[0]!r}, a word of test users alone: the map was built "
            "from all users, and must be learned from the training users"
        )
    if strange or missing:
        raise Wrong(f"it should hold the words {right} and holds {list(found)}")
    try:
        numbers = [int(found[word]) for word in right]
    except (TypeError, ValueError):
        raise Wrong("each word should have a whole number") from None
    wanted = list(range(len(right)))
    if sorted(numbers) == [n + 1 for n in wanted]:
        raise Wrong("the numbers begin at 1: they are columns, so they begin at 0")
    if sorted(numbers) != wanted:
        raise Wrong(
            f"the {len(right)} words should have the numbers 0 to {len(right) - 1}, "
            f"each once, and have {sorted(numbers)}: number what is left, after the "
            "words of test users are gone"
        )
    if numbers != wanted:
        raise Wrong(
            f"the numbers do not follow the sorted words: {dict(found)}. In any other "
            "order the columns depend on which user comes first"
        )


def words_of_training_users(student: Student) -> None:
    train = [0, 1, 2, 4]
    found = student.vocabulary(list(OCCUPATIONS), torch.tensor(train))
    the_vocabulary(found, OCCUPATIONS, train)


def the_rows(found: Any, labels: list[str], index: dict[str, int]) -> None:
    """Fail unless ``found`` holds the rows of ``labels``, and say why."""
    known, width = [label for label in labels if label in index], len(index)
    if isinstance(found, Tensor) and found.dim() == 2:
        if found.shape == (len(known), width) and len(known) < len(labels):
            raise Wrong(
                "unknown words were left out: each label has its row, in its place, "
                "and the row of an unknown word is zero"
            )
        if found.shape == (len(labels), width + 1):
            raise Wrong(
                "there is one column too many: an unknown word has no column of its "
                "own, its row is zero"
            )
    rows = torch.zeros(len(labels), width)
    for place, label in enumerate(labels):
        if label in index:
            rows[place, index[label]] = 1

    def unknown_as(column: int) -> Tensor:
        wrong = rows.clone()
        wrong[rows.sum(1) == 0, column] = 1
        return wrong

    said = "an unknown word was given the {} column, which means another word{}"
    same(
        found,
        rows,
        "the rows",
        {
            said.format("last", " (does -1 stand for unknown?)"): unknown_as(-1),
            said.format("first", " (does 0 stand for unknown?)"): unknown_as(0),
        },
    )


def rows_with_an_unknown_word(student: Student) -> None:
    index = {"artist": 0, "doctor": 1, "writer": 2}
    labels = ["writer", "pilot", "artist", "doctor"]
    the_rows(student.one_hot(list(labels), dict(index)), labels, index)


# ------------------------------------------------------------- part 2: users as tasks


def whole_numbers(value: Any, what: str) -> list[int]:
    """``value`` as a list of integers; ``Wrong`` says what it is instead."""
    if value is None:
        raise Wrong(f"{what} is None: is there a `return`?")
    try:
        numbers = torch.as_tensor(value if hasattr(value, "shape") else list(value))
    except Exception:
        raise Wrong(
            f"{what} should be a 1-D tensor of integers and is a {type(value).__name__}"
        ) from None
    if numbers.dim() != 1:
        raise Wrong(f"{what} should have one axis and has {numbers.dim()}")
    if numbers.dtype == torch.bool:
        raise Wrong(f"{what} is a mask: asked are the positions, in order")
    if not torch.equal(numbers.double(), numbers.double().round()):
        raise Wrong(f"{what} should hold whole numbers")
    return [int(n) for n in numbers]


def the_parts(value: Any, names: Sequence[str], what: str) -> list[list[int]]:
    """The parts of a tuple, each as a list of integers."""
    if not isinstance(value, tuple | list) or len(value) != len(names):
        raise Wrong(f"{what} should be a tuple of {len(names)}: ({', '.join(names)})")
    return [
        whole_numbers(part, f"the {name} part")
        for part, name in zip(value, names, strict=True)
    ]


SPLIT = ("train", "validation", "test")


def the_split(
    student: Student, order: list[int], fold: int, n_folds: int, n_validation: int
) -> list[int]:
    """Fail unless the users are split as the page says; return the test users."""
    found = the_parts(
        student.split_users(torch.tensor(order), fold, n_folds, n_validation),
        SPLIT,
        "the split",
    )
    in_part: dict[int, str] = {}
    for name, users in zip(SPLIT, found, strict=True):
        for user in users:
            if user in in_part and in_part[user] != name:
                raise Wrong(
                    f"user {user} is in two parts, {in_part[user]} and {name}: whoever "
                    "is judged must not teach or choose"
                )
            in_part[user] = name
    if strangers := sorted(set(in_part) - set(order)):
        raise Wrong(f"there is no user {strangers[0]}")
    if left := sorted(set(order) - set(in_part)):
        raise Wrong(
            f"user {left[0]} is in no part: {len(order)} users in {n_folds} folds may "
            "leave a remainder, and runs may differ in length by one"
        )
    lengths = [
        len(order) // n_folds + (f < len(order) % n_folds) for f in range(n_folds)
    ]
    first = sum(lengths[:fold])
    test = order[first : first + lengths[fold]]
    rest = order[:first] + order[first + lengths[fold] :]
    right = [rest[n_validation:], rest[:n_validation], test]
    if [sorted(part) for part in found] == [sorted(part) for part in right]:
        return test
    if [len(part) for part in found] != [len(part) for part in right]:
        sizes = dict(zip(SPLIT, map(len, right), strict=True))
        raise Wrong(
            f"for {len(order)} users, fold {fold} of {n_folds} and {n_validation} "
            f"validation users the parts should have the sizes {sizes} and have "
            f"{[len(part) for part in found]}"
        )
    if sorted(found[2]) == sorted(sorted(order)[first : first + lengths[fold]]):
        raise Wrong(
            "the users were cut by their number and not in the random order: who "
            "signed up early would all be in one fold"
        )
    if sorted(found[2]) == sorted(test):
        raise Wrong(
            f"the validation users should be {sorted(right[1])}, the first of what the "
            f"test run leaves, and are {sorted(found[1])}"
        )
    if sorted(found[2]) == sorted(order[fold::n_folds]):
        raise Wrong(
            f"the test users stand {n_folds} places apart in the order: cut the order "
            "into runs, one after another"
        )
    raise Wrong(
        f"the test users of fold {fold} should be {sorted(test)} and are "
        f"{sorted(found[2])}: is it run number `fold`, counted from 0?"
    )


def nine_users(student: Student) -> None:
    order = [4, 0, 7, 2, 8, 1, 6, 3, 5]
    the_split(student, order, 0, 4, 2)
    the_split(student, order, 2, 4, 2)


def the_cut(found: Any, times: list[int], k: int, reserved: int) -> None:
    """Fail unless ``found`` is the support and the query of ``times``, and say why."""
    support, query = the_parts(found, ("support", "query"), "the cut")
    n = len(times)
    order = sorted(range(n), key=lambda position: times[position])
    right, rest = order[:k], order[reserved:]
    if bad := [p for p in support + query if not 0 <= p < n]:
        raise Wrong(
            f"{bad[0]} is no position: positions go from 0 to {n - 1}, in file order"
        )

    def when(positions: list[int]) -> list[int]:
        return [times[p] for p in positions]

    what = f"with {n} ratings, K = {k} and {reserved} reserved,"
    if support != right and when(support) != when(right):
        if support == list(range(n))[:k]:
            raise Wrong(
                "the support is what stands first in the file and not the earliest "
                "ratings: files are not sorted by time"
            )
        if when(support) == sorted(times, reverse=True)[:k]:
            raise Wrong("the support has the latest ratings: it has the earliest K")
    for name, mine, wanted in (("support", support, right), ("query", query, rest)):
        if mine != wanted and when(mine) == when(wanted):
            raise Wrong(
                f"ratings of the same second (ties) do not stand in file order in the "
                f"{name}: {mine[:6]} in place of {wanted[:6]}. Use a stable sort"
            )
    if len(query) == max(n - k, 0) != len(rest) and k > 0:
        raise Wrong(
            f"{what} the query begins after the first {k}, so it changes with K: it is "
            f"what comes after the first {reserved}, for every K"
        )
    if query and not rest:
        raise Wrong(
            f"{what} no rating is left for the query: it is empty (does a slice with "
            "-0 take everything, or a short history count from its end?)"
        )
    if both := sorted(set(support) & set(query)):
        raise Wrong(
            f"{what} the query holds the support's rating at position {both[0]}: the "
            "answer is given away, keep query and support apart"
        )
    if kept := sorted(set(query) & set(order[:reserved])):
        raise Wrong(
            f"{what} the query holds the reserved rating at position {kept[0]}, which "
            "is in the support at a larger K: begin after the reserved ones"
        )
    for name, mine, wanted in (("support", support, right), ("query", query, rest)):
        if len(mine) != len(wanted):
            raise Wrong(
                f"{what} the {name} should have {len(wanted)} ratings and has "
                f"{len(mine)}"
            )
        if mine != wanted and set(mine) == set(wanted):
            raise Wrong(f"{what} the {name} does not stand in order of time")
        if mine != wanted:
            raise Wrong(f"{what} the {name} should be {wanted} and is {mine}")


TIMES = [30, 10, 20, 10, 20, 10, 40]


def seven_ratings(student: Student) -> None:
    for k in (2, 0, 1, 3):
        the_cut(student.support_and_query(torch.tensor(TIMES), k, 3), TIMES, k, 3)
    # Longer, since a sort that keeps no ties often keeps them on a short list.
    many = [7 * place % 5 for place in range(40)]
    the_cut(student.support_and_query(torch.tensor(many), 10, 15), many, 10, 15)


def refuses(call: Callable[[], object], why: str) -> None:
    """Fail, saying ``why``, unless ``call`` raises ``ValueError``."""
    try:
        call()
    except ValueError:
        return
    raise Wrong(why)


# --------------------------------------------------------------------- part 3: errors


def pooled_by_hand(student: Student) -> None:
    same(
        student.rmse(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 4.0, 4.0])),
        (5 / 3) ** 0.5,
        "the pooled RMSE for the errors 0, -2 and 1",
        {
            MEAN_SQUARE: 5 / 3,
            "this is the mean absolute error": 1.0,
            "this is the sum in place of the mean": 5**0.5,
        },
    )
    refuses_shapes(student, (3, 1), (3,))


def refuses_shapes(
    student: Student, one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    """Fail unless a prediction and ratings of these shapes are refused."""
    prediction, rating = torch.rand(one).double(), torch.rand(other).double()
    refuses(
        lambda: student.rmse(prediction, rating),
        f"a prediction of shape {one} against ratings of shape {other} should raise a "
        "ValueError: the two broadcast to a table of every prediction against every "
        "rating, whose mean means nothing",
    )


def the_user_errors(found: Any, right: Tensor, mistakes: dict[str, Tensor]) -> None:
    """`same` for errors of users, some of which are NaN."""
    if found is None:
        raise Wrong("the users' RMSE is None: is there a `return`?")
    try:
        found = torch.as_tensor(found).detach().double()
    except Exception:
        raise Wrong(
            f"the users' RMSE should be a tensor and is a {type(found).__name__}"
        ) from None
    if found.shape != right.shape:
        raise Wrong(
            f"the users' RMSE should have the shape {tuple(right.shape)}, a number for "
            f"each user, and has {tuple(found.shape)}"
        )
    empty = right.isnan()
    if found[~empty].isnan().any():
        raise Wrong(
            "a user with ratings has a NaN: what stands under a false mask got in. "
            "0 * nan is nan, so select with torch.where or mask before the sum"
        )
    same(found[~empty], right[~empty], "the users' RMSE", mistakes)
    if not found[empty].isnan().all():
        raise Wrong(
            f"a user without ratings has the error {float(found[empty][0]):g}: there "
            "is none, and NaN says so. A 0 would be the best user of all"
        )


def two_users_and_an_empty_one(student: Student) -> None:
    prediction = torch.tensor([[4.0, 2.0, 3.0], [4.0, 4.0, 4.0], [3.0, 3.0, 3.0]])
    rating = torch.tensor([[3.0, 3.0, 5.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, False, False], [False] * 3])
    prediction, rating = prediction.double(), rating.double()
    the_user_errors(
        student.user_rmse(prediction, rating, mask),
        torch.tensor([2**0.5, 3.0, torch.nan]).double(),
        {
            PADDING: torch.tensor([2.0, 41 / 3]).double().sqrt(),
            PADDING_NUMBER: torch.tensor([2.0, 3.0]).double().sqrt(),
            MEAN_SQUARE: torch.tensor([2.0, 9.0]).double(),
        },
    )


def two_batches(student: Student) -> None:
    """Errors of users: 1, then 3, then none; in the second batch a half."""
    first = (
        torch.tensor([[4.0, 2.0], [4.0, 3.0], [3.0, 3.0]]).double(),
        torch.tensor([[3.0, 3.0], [1.0, 0.0], [0.0, 0.0]]).double(),
        torch.tensor([[True, True], [True, False], [False, False]]),
    )
    second = (
        torch.tensor([[3.5, 3.5, 3.5]]).double(),
        torch.tensor([[3.0, 4.0, 3.0]]).double(),
        torch.ones(1, 3, dtype=torch.bool),
    )
    the_mean(
        student,
        [first, second],
        1.5,
        "the mean of the errors 1, 3 and 0.5 of three users (a fourth has no rating)",
        {
            OVER_BATCHES: (2 + 0.5) / 2,
            OVER_BATCHES + ".": ((11 / 3) ** 0.5 + 0.5) / 2,
            ROOT_LAST: ((1 + 9 + 0.25) / 3) ** 0.5,
            POOLED: ((1 + 1 + 9 + 0.75) / 6) ** 0.5,
            EMPTY_COUNTS: 4.5 / 4,
        },
    )


def the_mean(
    student: Student,
    batches: list[tuple[Tensor, Tensor, Tensor]],
    right: Tensor | float,
    what: str,
    mistakes: dict[str, Tensor | float],
) -> None:
    """`same` for the mean over users, with a word on where a mistake comes from."""
    found = student.mean_user_rmse(list(batches))
    if (
        isinstance(found, Tensor | float)
        and not torch.as_tensor(found).isfinite().all()
    ):
        raise Wrong(
            "the mean over users is NaN: a user without ratings was counted, and has "
            "no error. Leave such users out"
        )
    with suppress(Exception):
        each = torch.cat([torch.as_tensor(student.user_rmse(*b)) for b in batches])
        mistakes = mistakes | {FOLLOWS: each.nanmean()}
    same(found, right, what, mistakes)


MEAN_SQUARE = "the root is missing: this is the mean squared error"
PADDING = (
    "padding was counted: the mask says which entries are ratings, and only these count"
)
PADDING_NUMBER = (
    "padding was counted in the number of ratings: divide by how many entries the mask "
    "has, and not by the width of the batch"
)
OVER_BATCHES = (
    "this is an RMSE for each batch, averaged over batches: a user in a small batch "
    "counts more. Average over users, whatever batch they stand in"
)
ROOT_LAST = (
    "this is the root of the mean of the users' squared errors: take the root for each "
    "user, then the mean over users"
)
POOLED = (
    "this is the pooled RMSE, in which users with many ratings count more: take the "
    "RMSE of each user, then the mean over users"
)
FOLLOWS = (
    "the mean over users follows from what `user_rmse` gives, and that is wrong: put "
    "it right first"
)
NOT_IN_TIME = (
    "the ratings were taken in the order of the file: sort each history by time first"
)
EMPTY_COUNTS = "a user without ratings was counted, with the error 0"
# ----------------------------------------------------------------------- part 4: nDCG


def discounted(relevance: Sequence[float]) -> float:
    """DCG of a list in rank order, by the sum that defines it."""
    places = torch.arange(2, len(relevance) + 2).double()
    return float((torch.tensor(list(relevance)).double() / places.log2()).sum())


def lists_by_hand(student: Student) -> None:
    score = torch.tensor([[0.1, 0.2, 0.3, 4, 70], [9, 7, 5, 3, 1]]).double()
    relevance = torch.tensor([[10.0, 0, 0, 1, 5], [0, 0, 1, 0, 0]]).double()
    found = student.ndcg(score, relevance, 5)
    if isinstance(found, torch.Tensor) and not found.isfinite().all():
        raise Wrong(
            "nDCG is not finite: the first place is divided by log2(2) = 1, so count "
            "places from 1 and add 1"
        )
    same(
        found,
        torch.tensor([0.69569, 0.5]),
        "nDCG@5 of two users, the second of whom has one relevant item, in place 3,",
        {
            NOT_NORMALISED: torch.tensor([9.49946, 0.5]),
            EXPONENTIAL: torch.tensor([0.40974, 0.5]),
            "the discount is one place too far: divide the first place by log2(2)": (
                torch.tensor([0.78103, 0.68261])
            ),
            "the list is sorted lowest first": torch.tensor([0.90555, 0.5]),
        },
        tolerance=2e-5,
    )


def relevant_but_not_retrieved(student: Student) -> None:
    """The case of the encyclopedia: two relevant items stand below the list of six."""
    relevance = torch.tensor([[3.0, 2, 3, 0, 1, 2, 3, 2]]).double()
    score = torch.arange(8, 0, -1).double()[None]
    found = discounted([3, 2, 3, 0, 1, 2])
    same(
        student.ndcg(score, relevance, 6),
        torch.tensor([found / discounted([3, 3, 3, 2, 2, 2])]),  # .785
        "nDCG@6, with two relevant items that are not among the first six,",
        {
            FROM_THE_LIST: torch.tensor([found / discounted([3, 3, 2, 2, 1, 0])]),
            IDEAL_UNCUT: torch.tensor([found / discounted([3, 3, 3, 2, 2, 2, 1, 0])]),
            NOT_NORMALISED: torch.tensor([found]),
            EXPONENTIAL: torch.tensor(
                [discounted([7, 3, 7, 0, 1, 3]) / discounted([7, 7, 7, 3, 3, 3])]
            ),
            YES_OR_NO: torch.tensor(
                [discounted([1, 1, 1, 0, 1, 1]) / discounted([1, 1, 1, 1, 1, 1])]
            ),
        },
    )


FROM_THE_LIST = (
    "the ideal was taken from the retrieved list: the best list is made of all "
    "relevant items of the catalogue, retrieved or not"
)
IDEAL_UNCUT = (
    "the ideal was summed over the whole catalogue: the best list has k places as well"
)
NOT_NORMALISED = "this is the DCG: divide by the DCG of the best list"
EXPONENTIAL = "the gain is 2^rel - 1 here: asked is the relevance itself"
YES_OR_NO = "relevance was taken as yes or no: the gain is the relevance itself"
TIES_TURNED = (
    "items of equal score do not keep their order: the earlier item stands first. Use "
    "a stable sort, highest first, and do not flip a list sorted lowest first"
)

# ------------------------------------------------------- part 5: item mean, cold start


def three_films(student: Student) -> None:
    """Three training users; user 3 is a test user, and film 2 is rated by nobody else.

    mu = 3; film 0 has the ratings 5 and 4, film 1 has 1 and 2.
    """
    user = torch.tensor([0, 0, 1, 2, 3, 3, 3])
    item = torch.tensor([0, 1, 0, 1, 0, 1, 2])
    rating = torch.tensor([5.0, 1, 4, 2, 1, 5, 5]).double()
    the_item_means(
        student,
        (user, item, rating, torch.tensor([0, 1, 2]), 3, 4.0),
        torch.tensor([3.5, 2.5, 3.0]),
        "the shrunk item means with mu = 3 and lambda = 4",
    )


def the_item_means(student: Student, asked: Any, right: Tensor, what: str) -> None:
    """Fail unless the student's item means are ``right``, and say why."""
    user, item, rating, train, n_items, shrinkage = asked
    own = (user.clone(), item.clone(), rating.clone(), train.clone())
    found = student.item_mean(*own, n_items, shrinkage)
    if isinstance(found, Tensor) and found.shape == right.shape:
        rated = set(item[torch.isin(user, train)].tolist())
        for i in range(n_items):
            if i not in rated and not torch.isfinite(found[i]):
                raise Wrong(
                    f"item {i}, which no training user rated, has {float(found[i])}: "
                    "with lambda ratings at mu and no other, its mean is mu"
                )
    same(found, right, what, item_mean_mistakes(*asked))


def item_mean_mistakes(
    user: Tensor, item: Tensor, rating: Tensor, train: Tensor, n: int, shrinkage: float
) -> dict[str, Tensor]:
    """What known mistakes give in place of the shrunk item mean."""
    known = (user[:, None] == train).any(1)
    mu_train, mu_all = rating[known].mean(), rating.mean()

    def mean(
        mu: Tensor, to: Tensor, strength: float, rows: Tensor, mine: Tensor = known
    ) -> Tensor:
        values = []
        for i in range(n):
            count = int((rows & (item == i)).sum())
            total = (rating - mu)[mine & (item == i)].sum()
            values.append(to + total / (count + strength) if count + strength else to)
        return torch.stack(values)

    zero, every = torch.zeros(()).double(), torch.ones_like(known)
    return {
        LEAKED: mean(mu_all, mu_all, shrinkage, every, every),
        LEAKED + ".": mean(mu_train, mu_train, shrinkage, every, every),
        "mu is the mean over all users, test users among them: take it from the "
        "training users alone": mean(mu_all, mu_all, shrinkage, known),
        "the number of an item's ratings counts those of test users": mean(
            mu_train, mu_train, shrinkage, every
        ),
        "the item means are not shrunk: one rating is believed like a hundred": mean(
            mu_train, mu_train, 0.0, known
        ),
        "the sums are drawn to 0 stars and not to mu": mean(
            zero, zero, shrinkage, known
        ),
        "mu was not added again: these are differences to mu": mean(
            mu_train, zero, shrinkage, known
        ),
    }


def two_new_users(student: Student) -> None:
    """Two reserved ratings; the third user has no query. Errors by hand: 2 and 3."""
    histories = [
        (
            torch.tensor([20, 10, 40, 30]),
            torch.tensor([1, 0, 3, 2]),
            torch.tensor([2.0, 4, 4, 4]).double(),
        ),
        (
            torch.tensor([1, 2, 3]),
            torch.tensor([3, 2, 0]),
            torch.tensor([5.0, 5, 2]).double(),
        ),
        (
            torch.tensor([5, 6]),
            torch.tensor([0, 1]),
            torch.tensor([1.0, 1]).double(),
        ),
    ]

    def last_rating_and_two_more(items: Tensor, ratings: Tensor, asked: Tensor) -> Any:
        level = ratings[-1] + 2 if len(ratings) else torch.tensor(2.0).double()
        return level.expand(len(asked))

    # Predictions: 2 and 2; then 6 and 7, clipped to 5; then 4 and 7, clipped to 5.
    for k, errors, unclipped in ((0, (2, 0), 1), (1, (1, 3), 3.5), (2, (0, 3), 2.5)):
        found = watched(student, last_rating_and_two_more, histories, k, 2)
        same(
            found,
            sum(errors) / 2,
            f"the error at K = {k} (the users' errors are {errors[0]} and {errors[1]})",
            {
                NOT_CLIPPED: unclipped,
                ROOT_LAST: ((errors[0] ** 2 + errors[1] ** 2) / 2) ** 0.5,
                NOT_IN_TIME: 1.5 if k == 1 else unclipped,
                POOLED: ((2 * errors[0] ** 2 + errors[1] ** 2) / 3) ** 0.5,
                EMPTY_USER: sum(errors) / 3,
            },
        )


History = tuple[Tensor, Tensor, Tensor]


def watched(
    student: Student,
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    histories: list[History],
    k: int,
    reserved: int,
) -> Any:
    """The student's error, after a look at what the predictor was told."""
    told: list[tuple[Tensor, Tensor, Tensor]] = []

    def predict_and_note(items: Any, ratings: Any, asked: Any) -> Tensor:
        told.append((items, ratings, asked))
        return predict(items, ratings, asked)

    found = student.cold_start_error(
        predict_and_note,
        [tuple(part.clone() for part in one) for one in histories],
        k,
        reserved,
    )
    if isinstance(found, Tensor | float) and torch.as_tensor(found).isnan().any():
        raise Wrong(
            "the error is NaN: a user with an empty query has no error, leave such "
            "users out"
        )
    for items, ratings, asked in told:
        if len(items) != len(ratings):
            raise Wrong("predict was given items and ratings of different numbers")
        if shared := set(map(int, items)) & set(map(int, asked)):
            raise Wrong(
                f"predict was told the rating of item {min(shared)}, and asked for it: "
                "the query stands in the support"
            )
        if len(items) > k:
            raise Wrong(
                f"at K = {k} predict was told {len(items)} ratings: the support has "
                "the first K, and the other reserved ratings are not used"
            )
    return found


LEAKED = (
    "test users' ratings are in the item mean: it knows the answers it will be asked "
    "for. Take the training users' ratings alone"
)
EMPTY_USER = "a user with an empty query was counted: there is nothing to be judged on"
NOT_CLIPPED = "the predictions were not clipped to the scale from 1 to 5"

PART_1 = (
    Part(
        "Part 1",
        "A vocabulary from training users alone",
        "Chapter The data: 'Ids to indices'; chapter How a benchmark fools you: "
        "section 2, on what is learned before the split",
    )
    .with_check("the words of the training users", 1, words_of_training_users)
    .with_check("rows, one of them of an unknown word", 1, rows_with_an_unknown_word)
)
PART_2 = (
    Part(
        "Part 2",
        "Users as tasks",
        "Chapter Users as tasks: 'How do you judge a recommender for somebody it has "
        "never met?' and 'One user, one task'",
    )
    .with_check("nine users in four folds", 1, nine_users)
    .with_check("seven ratings, three reserved, K from 0 to 3", 1, seven_ratings)
)
PART_3 = (
    Part(
        "Part 3",
        "Errors",
        "Chapter Users as tasks: 'Many users at once' and 'Which mean: over ratings or "
        "over users?'",
    )
    .with_check("pooled, by hand", 1, pooled_by_hand)
    .with_check("each user of a padded batch", 1, two_users_and_an_empty_one)
    .with_check("over the users of two batches", 1, two_batches)
)
PART_4 = (
    Part(
        "Part 4",
        "nDCG over the whole catalogue",
        "Chapter How a benchmark fools you: 'The metrics', 'An nDCG that flatters' and "
        "'Ties again'",
    )
    .with_check("two lists, by hand", 1, lists_by_hand)
    .with_check("relevant, but not retrieved", 1, relevant_but_not_retrieved)
)
PART_5 = (
    Part(
        "Part 5",
        "The first baseline, and its score",
        "Chapter Users as tasks: 'Two baselines that everything must beat' and 'The "
        "protocol, in one call'",
    )
    .with_check("the means of three films", 1, three_films)
    .with_check("two new users and one without a query", 1, two_new_users)
)
