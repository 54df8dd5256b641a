"""Users to tasks: splits, nesting, the fixed query, padding."""

import pandas as pd
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


def test_one_rating_is_enough_for_a_task_without_support() -> None:
    only = pd.DataFrame({"user": ["al"], "item": ["x"], "rating": [4.0]})
    tasks = UserHistories(rating_data(only), reserved=0).tasks(torch.tensor([0]), 0)
    assert not tasks.support.mask.any()
    assert tasks.query.y.tolist() == [[4.0]] and tasks.query.mask.all()


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


def test_chunks_hold_so_many_ratings_or_one_user(data: RatingData) -> None:
    histories, users = UserHistories(uneven(data)), torch.tensor([25, 3, 77, 0, 51, 8])
    whole = histories.ratings_of(users)
    for most in (1, 5, 29, 40, 1000):
        seen, before = [], 0
        for some, position, item, rating in histories.in_chunks(users, most):
            assert len(item) <= most or len(some) == 1
            assert torch.equal(some, users[before : before + len(some)])
            seen.append((position + before, item, rating))
            before += len(some)
        assert before == len(users)
        for have, want in zip(
            map(torch.cat, zip(*seen, strict=True)), whole, strict=True
        ):
            assert torch.equal(have, want)
    # As many as fit, and no fewer: 29 ratings, then 7.
    (first, second) = histories.in_chunks(users[:2], 35)
    assert (len(first[0]), len(second[0])) == (1, 1)
    assert len(list(histories.in_chunks(users[:2], 36))) == 1
    assert int(histories.item_counts(users).sum()) == len(whole[0])


def test_windows_begin_at_every_place_that_leaves_room(data: RatingData) -> None:
    histories, users = UserHistories(data), torch.arange(200)
    generator, starts, lengths = torch.Generator().manual_seed(0), set(), set()
    for _ in range(20):
        drawn = histories.draw_windows(users, (3, 40), generator)
        count = drawn.mask.sum(1)
        lengths |= set(count.tolist())
        for user in torch.nonzero(count == 3)[:, 0].tolist():
            own = histories.item[histories.start[user] : histories.start[user + 1]]
            (at,) = torch.nonzero(own == drawn.x[user, 0])[0].tolist()
            starts.add(at)
    assert lengths == {3, 30} and starts == set(range(28))


def test_each_fold_draws_its_own_validation_users() -> None:
    one, two = (split_users(100, fold, 4, 20, seed=1) for fold in (0, 1))
    assert len(one.test) == 25 and len(one.validation) == 20 and len(one.train) == 55
    assert not torch.equal(one.validation, two.validation)
    for part in (one.train, one.validation, one.test):
        assert torch.equal(part, part.sort().values)
    with pytest.raises(ValueError, match=r"fold must be in 0\.\.3, got -1"):
        split_users(100, -1, 4)


def test_a_k_that_is_negative_or_too_large_is_refused(data: RatingData) -> None:
    histories = UserHistories(data, reserved=5)
    for k in (-1, 6, torch.tensor([0, 6])):
        with pytest.raises(ValueError, match=r"K must lie in 0\.\.5"):
            histories.tasks(torch.tensor([1, 2]), k)
    assert histories.tasks(torch.tensor([1]), 5).query.mask.sum() == 25


def test_a_sampler_draws_all_its_sizes_and_shares_them_out(data: RatingData) -> None:
    histories, users = UserHistories(data), torch.arange(90)
    whole = list(TaskSampler(histories, users, (1, 4))(torch.Generator()))
    assert [len(tasks) for tasks in whole] == [32, 32, 26]
    drawn = torch.cat([tasks.support.mask.sum(1) for tasks in whole])
    assert set(drawn.tolist()) == {1, 4} and 30 < int((drawn == 1).sum()) < 60
    parts = [
        list(TaskSampler(histories, users, (1, 4), part=(r, 3))(torch.Generator()))
        for r in range(3)
    ]
    for batch, tasks in enumerate(whole):
        shared = [part[batch].user for part in parts]
        assert torch.equal(torch.cat(shared), tasks.user)
    with pytest.raises(ValueError, match="no users to train on"):
        TaskSampler(histories, users[:0])
