"""Users to tasks: splits, nesting, the fixed query, padding."""

import pytest
import torch

from metarec.data import RatingData, RatingScale, rating_data
from metarec.tasks import (
    SUPPORT_SIZES,
    Examples,
    TaskSampler,
    UserHistories,
    UserSplit,
    split_users,
)


def uneven(data: RatingData) -> RatingData:
    """Users with 4 to 29 ratings, in an order that is not theirs in time."""
    table = data.ratings
    rank = table.groupby("user").cumcount()
    kept = table[rank < 4 + table["user"] % 26]
    frame = kept.sample(frac=1, random_state=0)
    users, items = data.users, data.items
    frame = frame.assign(
        user=users["user_id"].to_numpy()[frame["user"]],
        item=items["item_id"].to_numpy()[frame["item"]],
    )
    return rating_data(
        frame, scale=RatingScale(1, 5), name="uneven", users=users, items=items
    )


def test_the_folds_partition_the_users_and_parts_are_disjoint() -> None:
    splits = [split_users(103, fold, seed=4) for fold in range(5)]
    test = torch.cat([split.test for split in splits])
    assert sorted(test.tolist()) == list(range(103))
    for split in splits:
        parts = torch.cat([split.train, split.validation, split.test])
        assert sorted(parts.tolist()) == list(range(103))
        assert len(split.validation) == 10


def test_a_split_depends_on_its_seed_alone() -> None:
    assert torch.equal(
        split_users(50, 1, seed=7).train, split_users(50, 1, seed=7).train
    )
    assert not torch.equal(split_users(50, 1, seed=7).test, split_users(50, 1).test)


def test_a_user_in_two_parts_is_refused() -> None:
    one, two = torch.tensor([0, 1]), torch.tensor([2])
    with pytest.raises(ValueError, match="two parts"):
        UserSplit(one, two, one)


@pytest.mark.parametrize(("fold", "n", "match"), [(5, 50, "fold must"), (0, 3, "few")])
def test_an_impossible_split_says_why(fold: int, n: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        split_users(n, fold, n_validation=2)


@pytest.mark.parametrize("order", ["time", "random"])
def test_supports_are_nested_and_the_query_is_one_for_all_k(
    data: RatingData, order: str
) -> None:
    histories = UserHistories(data, order=order)
    users = torch.arange(20)
    largest = histories.tasks(users, 15)
    for k in SUPPORT_SIZES:
        tasks = histories.tasks(users, k)
        assert tasks.support.mask.sum(-1).tolist() == [k] * 20
        assert torch.equal(tasks.support.x[:, :k], largest.support.x[:, :k])
        assert torch.equal(tasks.query.x, largest.query.x)
        for inside, query in zip(tasks.support.x[:, :k], tasks.query.x, strict=True):
            assert not set(inside.tolist()) & set(query.tolist())


def test_tasks_are_the_slow_version_with_pandas(data: RatingData) -> None:
    data = uneven(data)
    histories = UserHistories(data, reserved=5)
    users = histories.usable(torch.arange(data.n_users))
    tasks = histories.tasks(users, 3)
    for row, user in enumerate(users.tolist()):
        own = data.ratings[data.ratings["user"] == user]
        own = own.sort_values("timestamp", kind="stable")
        for part, expected in ((tasks.support, own[:3]), (tasks.query, own[5:])):
            found = part.mask[row]
            assert part.x[row][found].tolist() == expected["item"].tolist()
            assert part.y[row][found].tolist() == expected["rating"].tolist()
            assert not part.x[row][~found].any() and not part.y[row][~found].any()


def test_ties_in_time_stay_in_file_order(data: RatingData) -> None:
    frame = data.ratings.assign(timestamp=0)
    still = rating_data(frame, scale=data.scale, name="ties")
    histories = UserHistories(still)
    own = still.ratings[still.ratings["user"] == 7]["item"].tolist()
    assert histories.tasks(torch.tensor([7]), 15).support.x[0].tolist() == own[:15]


def test_ratings_of_users_are_theirs_and_all(data: RatingData) -> None:
    data = uneven(data)
    users = torch.tensor([9, 3, 77])
    position, item, rating = UserHistories(data).ratings_of(users)
    for at, user in enumerate(users.tolist()):
        own = data.ratings[data.ratings["user"] == user]
        own = own.sort_values("timestamp", kind="stable")
        assert item[position == at].tolist() == own["item"].tolist()
        assert rating[position == at].tolist() == own["rating"].tolist()


def test_too_large_a_k_and_too_short_a_history_are_refused(data: RatingData) -> None:
    histories = UserHistories(uneven(data))
    with pytest.raises(ValueError, match="K must lie in 0"):
        histories.tasks(torch.tensor([25]), 16)
    with pytest.raises(ValueError, match="user 0 has no more than 15"):
        histories.tasks(torch.tensor([0]), 3)
    with pytest.raises(ValueError, match=r"K must lie in 0\.\.7, the"):
        histories.tasks(torch.tensor([25]), 8, 7)
    with pytest.raises(ValueError, match="user 0 has no more than 40"):
        histories.tasks(torch.tensor([0]), 3, torch.tensor([40]))
    with pytest.raises(ValueError, match="order must be"):
        UserHistories(data, order="rating")


def test_the_random_order_follows_its_seed(data: RatingData) -> None:
    one, same, other = (UserHistories(data, "random", seed=s).item for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="must agree"):
        Examples(torch.zeros(4, 3), torch.zeros(4, 1), torch.ones(4, 3).bool())


def test_an_epoch_holds_every_user_once_and_shifts_to_their_items(
    data: RatingData,
) -> None:
    histories = UserHistories(data)
    rows = 1000 * torch.arange(data.n_users)
    sampler = TaskSampler(histories, torch.arange(50), meta_batch=16, item_rows=rows)
    seen = []
    for tasks in sampler(torch.Generator().manual_seed(0)):
        seen += tasks.user.tolist()
        plain = histories.tasks(tasks.user, tasks.support.mask.sum(-1))
        shift = rows[tasks.user][:, None]
        assert torch.equal(tasks.query.x, plain.query.x + shift)
        assert torch.equal(tasks.support.x, plain.support.x + shift)
    assert sorted(seen) == list(range(50))
