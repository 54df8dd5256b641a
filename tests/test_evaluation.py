"""The protocol against a slow version, and leaks that must be found."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metarec.data import RatingData, rating_data
from metarec.evaluation import check_no_leak, cold_start
from metarec.factors import GaussianFactorModel, ItemMean, UserItemBias
from metarec.features import UserFeatures
from metarec.tasks import LeakageError, Tasks, UserHistories, split_users
from metarec.validation import PROTOCOLS, judge, validation_score


def test_the_protocol_is_its_slow_version(data: RatingData) -> None:
    histories = UserHistories(data)
    split = split_users(data.n_users)
    model = UserItemBias.fit(histories, split.train)
    table = cold_start(model, histories, split.test, (0, 3)).set_index(["user", "k"])
    assert len(table) == 2 * len(split.test)
    for user in split.test.tolist():
        own = data.ratings[data.ratings["user"] == user].sort_values("timestamp")
        items, stars = own["item"].to_numpy(), own["rating"].to_numpy()
        offset, start = model.offset.numpy(), float(model.mean_bias)
        for k in (0, 3):
            rest = stars[:k] - offset[items[:k]] - start
            b_u = start + rest.sum() / (k + model.user_shrinkage)
            error = np.clip(offset[items[15:]] + b_u, 1, 5) - stars[15:]
            row = table.loc[user, k]
            assert row["rmse"] == pytest.approx(np.sqrt((error**2).mean()), abs=1e-5)
            assert row["mae"] == pytest.approx(np.abs(error).mean(), abs=1e-5)
            assert row["n"] == len(error)


def test_the_validation_score_is_the_mean_of_its_table(data: RatingData) -> None:
    histories = UserHistories(data)
    users = torch.arange(20)
    model = ItemMean.fit(histories, torch.arange(20, 200))
    table = cold_start(model, histories, users, (1, 3, 5, 10, 15))
    assert validation_score(model, histories, users) == table["rmse"].mean()


def of_lengths(data: RatingData) -> RatingData:
    """The same users, the n-th of whom has n % 30 + 1 ratings."""
    place = data.ratings.groupby("user").cumcount()
    kept = data.ratings[place <= data.ratings["user"] % 30]
    return rating_data(kept, scale=data.scale, name="of all lengths")


def cut_by_hand(protocol: str, n: int, k: int) -> tuple[int, int]:
    """How many of n ratings are support, and how many stand before the query."""
    if protocol == "whole-life":
        return int(n * k / 100), int(n * k / 100)
    return (k, n - 20) if n >= k + 20 else (0, n)


@pytest.mark.parametrize("protocol", ["whole-life", "last-20"])
def test_a_whole_life_is_cut_where_its_slow_version_cuts_it(
    data: RatingData, protocol: str
) -> None:
    data = of_lengths(data)
    histories, users = UserHistories(data), torch.arange(100, 200)
    model = UserItemBias.fit(histories, torch.arange(100))
    table = judge(model, histories, users, protocol)
    offset, start = model.offset.numpy(), float(model.mean_bias)
    expected = {}
    for k in PROTOCOLS[protocol][1]:
        for user in users.tolist():
            own = data.ratings[data.ratings["user"] == user].sort_values("timestamp")
            items, stars = own["item"].to_numpy(), own["rating"].to_numpy()
            first, after = cut_by_hand(protocol, len(own), k)
            if after == len(own):
                continue
            rest = stars[:first] - offset[items[:first]] - start
            b_u = start + rest.sum() / (first + model.user_shrinkage)
            raw = offset[items[after:]] + b_u
            error, wild = np.clip(raw, 1, 5) - stars[after:], raw - stars[after:]
            expected[k, user] = [
                np.sqrt((error**2).mean()),
                np.abs(error).mean(),
                np.sqrt((wild**2).mean()),
                len(error),
            ]
    # Everybody has a share of a life, the shortest as well.
    assert len(expected) == (400 if protocol == "whole-life" else 55)
    columns = ["rmse", "mae", "unclipped", "n"]
    found = table.set_index(["k", "user"])[columns]
    assert list(found.index) == list(expected)
    assert np.allclose(found.to_numpy(), list(expected.values()), atol=1e-5)


def test_long_histories_are_judged_in_small_batches_to_the_same_end(
    data: RatingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories, users = UserHistories(of_lengths(data)), torch.arange(200)
    model = UserItemBias.fit(histories, torch.arange(100))
    whole = judge(model, histories, users, "whole-life")
    sizes, honest = [], histories.tasks

    def seen(*parts: torch.Tensor) -> Tasks:
        sizes.append(len(parts[0]) * max(16, int(parts[1].max())))
        return honest(*parts)

    monkeypatch.setattr(histories, "tasks", seen)
    monkeypatch.setattr("metarec.validation.USERS_AT_ONCE", 20)
    parts = judge(model, histories, users, "whole-life")
    # Padded supports of 20 users at 16 ratings each, or of fewer at more.
    assert max(sizes) <= 20 * 16 and len(sizes) >= 4 * 10
    assert np.allclose(parts.to_numpy(float), whole.to_numpy(float), atol=1e-5)


def test_errors_stand_unclipped_beside_clipped(data: RatingData) -> None:
    histories, users = UserHistories(data), torch.arange(10)
    near, far = (
        cold_start(ItemMean(torch.full((80,), stars)), histories, users, (0,))
        for stars in (5.0, 50.0)
    )
    assert near["unclipped"].equals(near["rmse"])
    assert (far["unclipped"] > 44).all() and far["rmse"].equals(near["rmse"])


def test_no_user_with_a_query_is_an_error(data: RatingData) -> None:
    histories = UserHistories(data, reserved=30)
    with pytest.raises(ValueError, match="none has a query"):
        cold_start(ItemMean(torch.zeros(80)), histories, torch.arange(5))
    short = UserHistories(of_lengths(data))
    with pytest.raises(ValueError, match="before the query of last-20"):
        judge(ItemMean(torch.zeros(80)), short, torch.arange(5), "last-20")


@pytest.mark.parametrize("model", [ItemMean, UserItemBias, GaussianFactorModel])
def test_a_fit_on_training_users_does_not_leak(data: RatingData, model: type) -> None:
    split = split_users(data.n_users)
    check_no_leak(lambda d: model.fit(UserHistories(d), split.train), data, split)


def test_an_item_mean_over_test_users_is_found(data: RatingData) -> None:
    split = split_users(data.n_users)
    everyone = torch.arange(data.n_users)
    with pytest.raises(LeakageError, match="test user enters"):
        check_no_leak(lambda d: ItemMean.fit(UserHistories(d), everyone), data, split)


def test_a_leak_of_one_statistic_is_found(data: RatingData) -> None:
    split = split_users(data.n_users)

    def fit(d: RatingData) -> ItemMean:
        honest = ItemMean.fit(UserHistories(d), split.train)
        own = d.ratings[d.ratings["user"] == int(split.test[0])]
        return ItemMean(honest.offset + float(own["rating"].mean()) / 1000)

    with pytest.raises(LeakageError):
        check_no_leak(fit, data, split)


def test_a_count_of_what_test_users_rated_is_found(data: RatingData) -> None:
    split = split_users(data.n_users)

    def fit(d: RatingData) -> ItemMean:
        honest = ItemMean.fit(UserHistories(d), split.train)
        count = np.bincount(d.ratings["item"], minlength=d.n_items)
        return ItemMean(honest.offset + torch.from_numpy(count).float() / 1000)

    with pytest.raises(LeakageError):
        check_no_leak(fit, data, split)


def test_any_number_that_is_known_of_a_user_is_turned_round(data: RatingData) -> None:
    """A column of numbers stays one, and a mean over test users is found in it."""
    split = split_users(data.n_users)
    income = np.random.default_rng(0).normal(30, 5, data.n_users)
    described = replace(data, users=data.users.assign(income=income))

    def fit(d: RatingData, users: torch.Tensor) -> ItemMean:
        honest = ItemMean.fit(UserHistories(d), split.train)
        known = UserFeatures.fit(d.users.iloc[users.numpy()])
        return ItemMean(honest.offset + known.mean[-1] / 1000)

    check_no_leak(lambda d: fit(d, split.train), described, split)
    with pytest.raises(LeakageError, match="test user enters"):
        check_no_leak(lambda d: fit(d, split.test), described, split)


def test_predictions_are_clipped_to_the_scale(data: RatingData) -> None:
    histories = UserHistories(data)
    users = torch.arange(10)
    rmse = [
        cold_start(ItemMean(torch.full((80,), stars)), histories, users, (0,))["rmse"]
        for stars in (5.0, 50.0)
    ]
    assert rmse[0].equals(rmse[1])


def test_a_prediction_that_is_no_number_is_refused(data: RatingData) -> None:
    offset = torch.zeros(80)
    offset[3] = torch.nan
    with pytest.raises(ValueError, match="predictions are nan"):
        cold_start(ItemMean(offset), UserHistories(data), torch.arange(20), (0,))
