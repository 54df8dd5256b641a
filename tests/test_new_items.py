"""New items as tasks, and a profile that says where a prior mean lies."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge

from benchmarks.both_cold import BothCold, learn_offset
from benchmarks.item_fold import ItemFold, newest_items
from metarec.challenges import item_histories, transposed
from metarec.data import RatingData, load_movielens_100k, rating_data
from metarec.evaluation import check_no_leak, cold_start
from metarec.factors import GaussianFactorModel, ItemMean, UserItemBias
from metarec.features import item_features
from metarec.tasks import Examples, LeakageError, UserHistories, split_users
from metarec.validation import validation_score

TRAIN, TEST = torch.arange(150), torch.arange(150, 200)


@pytest.fixture(scope="module")
def plain(data: RatingData) -> GaussianFactorModel:
    return GaussianFactorModel.fit(UserHistories(data), TRAIN, dim=2, sweeps=10)


@pytest.fixture(scope="module")
def described(data: RatingData, plain: GaussianFactorModel) -> UserHistories:
    """Histories whose profile is a noisy, rotated view of what each user rated."""
    histories = UserHistories(data)
    everyone = histories.everything(torch.arange(200), 30)
    w = plain.posterior(everyone)[0]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 4, generator=generator)
    mixing = torch.randn(3, 4, generator=generator)
    profile = w.float() @ mixing + 0.3 * noise
    histories.profile = profile - profile[TRAIN].mean(0)
    return histories


def test_the_profile_is_the_ridge_regression_of_the_posteriors_that_it_leads_to(
    described: UserHistories, plain: GaussianFactorModel
) -> None:
    model = copy.copy(plain)
    model.learn_profile(described, TRAIN, ridge=3.0, sweeps=1500)
    w, cov, _ = model.posterior(described.everything(TRAIN, 30))
    x = described.profile[TRAIN].double().numpy()
    target = (w - model.user_mean).numpy()
    oracle = Ridge(alpha=3.0, fit_intercept=False).fit(x, target)
    np.testing.assert_allclose(model.profile.numpy(), oracle.coef_.T, atol=1e-7)
    rest = target - oracle.predict(x)
    spread = cov.mean(0).numpy() + rest.T @ rest / len(x)
    np.testing.assert_allclose(model.profile_covariance.numpy(), spread, atol=1e-7)


def nothing(profile: torch.Tensor) -> Examples:
    zero = torch.zeros(len(profile), 1)
    return Examples(zero.long(), zero, zero.bool(), profile)


def test_nobody_known_has_the_prior_as_it_was(
    described: UserHistories, plain: GaussianFactorModel
) -> None:
    model = copy.copy(plain)
    model.learn_profile(described, TRAIN, 30.0)
    empty = nothing(torch.zeros(2, 4))
    for before, after in zip(
        plain.posterior(empty), model.posterior(empty), strict=True
    ):
        assert torch.equal(before.expand_as(after), after)
    known = nothing(described.profile[TEST])
    mean, cov, _ = model.posterior(known)
    expected = model.user_mean + known.profile.double() @ model.profile
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(cov[0], model.profile_covariance)


def test_a_profile_that_tells_helps_most_where_ratings_are_few(
    described: UserHistories, plain: GaussianFactorModel
) -> None:
    model = copy.copy(plain)
    model.learn_profile(described, TRAIN, 30.0)
    without, with_it = (
        cold_start(m, described, TEST).groupby("k")["rmse"].mean()
        for m in (plain, model)
    )
    gain = without - with_it
    assert gain[0] > 0.05 and gain[0] > gain[5] > gain[15] > -0.005


def test_a_model_with_a_profile_asks_for_it(
    described: UserHistories, plain: GaussianFactorModel
) -> None:
    model = copy.copy(plain)
    model.learn_profile(described, TRAIN, 30.0)
    support = described.tasks(TEST, 3).support
    with pytest.raises(ValueError, match="4 user features and got none"):
        model.predict(replace(support, profile=None), support.x)
    with pytest.raises(ValueError, match="got 3"):
        model.predict(replace(support, profile=support.profile[:, :3]), support.x)


def test_the_order_of_profile_and_choice_is_fixed(
    described: UserHistories, plain: GaussianFactorModel
) -> None:
    model = copy.copy(plain)
    model.learn_implicit(described, TRAIN)
    with pytest.raises(ValueError, match="before learn_implicit"):
        model.learn_profile(described, TRAIN, 30.0)


def test_the_choice_of_items_explains_what_the_profile_leaves(
    described: UserHistories, plain: GaussianFactorModel
) -> None:
    model = copy.copy(plain)
    model.learn_profile(described, TRAIN, 30.0)
    model.profile_covariance = 1e-12 * torch.eye(3).double()  # the profile says all
    model.learn_implicit(described, TRAIN)
    assert model.implicit.abs().max() < 1e-6


def test_without_user_features_a_profile_changes_nothing(data: RatingData) -> None:
    histories = UserHistories(data)
    model = GaussianFactorModel.fit(histories, TRAIN, dim=2, sweeps=5)
    tasks = histories.tasks(TEST, 5)
    before = model.predict(tasks.support, tasks.query.x)
    model.learn_profile(histories, TRAIN, 30.0)
    assert torch.equal(model.predict(tasks.support, tasks.query.x), before)


def test_the_ridge_is_the_best_of_its_grid(
    described: UserHistories,
    plain: GaussianFactorModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, scores = copy.copy(plain), {}
    validation, compared = TEST[:25], []

    def watched(*arguments: Any) -> float:
        compared.append(validation_score(*arguments))
        return compared[-1]

    monkeypatch.setattr("metarec.factors.gaussian.validation_score", watched)
    model.choose_profile(described, TRAIN, validation)
    for ridge in (3.0, 10.0, 30.0, 100.0, 300.0):
        other = copy.copy(plain)
        other.learn_profile(described, TRAIN, ridge)
        table = cold_start(other, described, validation, (0, 1, 3, 5, 10))
        scores[ridge] = table["rmse"].mean(), other.profile
    best = min(scores.values(), key=lambda pair: pair[0])
    assert torch.equal(model.profile, best[1])
    assert compared == pytest.approx([error for error, _ in scores.values()])


# The data turned around.


@pytest.fixture(scope="module")
def labelled(data: RatingData) -> RatingData:
    """The population with genres, years and ages, some of them unknown."""
    genres = [("Drama",), ("Comedy", "War"), ("Drama", "War"), ("Comedy",)] * 20
    years = pd.array([1900 + i for i in range(80)], dtype="Int64")
    years[3] = pd.NA
    genres[5] = ()
    items = data.items.assign(genres=pd.Series(genres), year=years)
    return replace(data, items=items, users=data.users.assign(age=range(200)))


def test_transposing_twice_gives_the_data_back(labelled: RatingData) -> None:
    turned = transposed(labelled)
    assert (turned.n_users, turned.n_items) == (labelled.n_items, labelled.n_users)
    pd.testing.assert_series_equal(
        turned.ratings["item"], labelled.ratings["user"], check_names=False
    )
    assert transposed(turned).content_hash() == labelled.content_hash()
    assert turned.content_hash() != labelled.content_hash()


def test_the_biases_of_items_as_tasks_are_ridge_regressions_too(
    data: RatingData,
) -> None:
    histories = UserHistories(transposed(data), "time", reserved=5)
    items = torch.arange(80)
    model = UserItemBias.fit(histories, items[:60])
    tasks = histories.tasks(histories.usable(items[60:]), 5)
    item = int(tasks.user[0])
    own = data.ratings[data.ratings["item"] == item].sort_values("timestamp")[:5]
    b_u = model.offset[torch.tensor(own["user"].to_numpy())].numpy()
    rest = own["rating"].to_numpy() - b_u - float(model.mean_bias)
    expected = float(model.mean_bias) + rest.sum() / (5 + model.user_shrinkage)
    found = model.predict(tasks.support, tasks.query.x) - model.offset[tasks.query.x]
    assert found[0, 0].item() == pytest.approx(expected, abs=1e-4)


def test_the_profile_of_items_is_centred_on_training_items_and_0_where_unknown(
    labelled: RatingData,
) -> None:
    train = torch.arange(1, 61)
    histories = item_histories(labelled, train)
    profile = histories.profile
    assert profile.shape == (80, 4)  # Comedy, Drama, War, year
    known = torch.ones(80, dtype=torch.bool)
    known[[3, 5]] = False
    x = item_features(labelled)
    mean = torch.zeros(4).double()
    mean[:3] = x[train[train != 5], :3].mean(0)
    mean[3] = x[train[train != 3], 3].mean()
    torch.testing.assert_close(
        profile[known], (x - mean)[known].float(), atol=1e-6, rtol=0
    )
    assert profile[3, 3] == 0 and profile[3, :3].any()
    assert not profile[5, :3].any() and profile[5, 3] != 0


def test_what_test_items_are_does_not_move_the_profile_of_the_others(
    labelled: RatingData,
) -> None:
    train = torch.arange(60)
    items = labelled.items.copy()
    items.loc[60:, "genres"] = pd.Series([("Western",)] * 20, range(60, 80))
    items.loc[60:, "year"] = 2050
    changed = item_histories(replace(labelled, items=items), train).profile
    before = item_histories(labelled, train).profile
    torch.testing.assert_close(changed[:60], before[:60], atol=1e-6, rtol=0)
    assert not changed[60:, :3].any()  # a genre that no training item has


def test_fits_on_items_see_no_rating_of_a_test_item(data: RatingData) -> None:
    turned = transposed(data)
    split = split_users(data.n_items)

    def gaussian(d: RatingData) -> GaussianFactorModel:
        return GaussianFactorModel.fit(UserHistories(d), split.train, 2, sweeps=2)

    check_no_leak(lambda d: ItemMean.fit(UserHistories(d), split.train), turned, split)
    check_no_leak(gaussian, turned, split)
    everyone = torch.arange(data.n_items)
    with pytest.raises(LeakageError, match="test user"):
        check_no_leak(lambda d: ItemMean.fit(UserHistories(d), everyone), turned, split)


def test_a_fold_of_items_is_sealed_and_fits_what_a_fold_of_users_fits(
    labelled: RatingData,
) -> None:
    fold = ItemFold(labelled)
    with pytest.raises(LeakageError):
        fold.sealed.ratings_of(fold.split.test)
    assert fold.histories.n_items == 200 and fold.features.shape == (200, 1)
    errors = fold.judge(UserItemBias.fit(fold.sealed, fold.split.train))
    assert set(errors["user"]) <= set(fold.split.test.tolist())
    assert fold.histories.profile.shape == (80, 4)


def test_the_newest_are_newest_by_year_and_then_by_their_first_rating() -> None:
    frame = pd.DataFrame(
        {
            "user": [0, 1, 0, 1, 0, 1, 0, 1, 0, 1],
            "item": list(range(10)),
            "rating": 3,
            "timestamp": [50, 9, 8, 7, 6, 5, 4, 3, 2, 1],
        }
    )
    years = [1990, 2000, 2000, 1980, None, 1985, 1970, 1971, 1972, 1973]
    items = pd.DataFrame({"item_id": range(10), "year": years})
    data = rating_data(frame, items=items)
    split = newest_items(data, share=0.1)
    assert split.test.tolist() == [1] and split.validation.tolist() == [2]
    assert len(split.train) == 8
    with pytest.raises(ValueError, match="leaves a part empty"):
        newest_items(data, share=0.95)


# Both sides new.


@pytest.mark.parametrize("shown", [0, 3])
def test_what_is_asked_was_not_seen(data: RatingData, shown: int) -> None:
    users, items = split_users(data.n_users), split_users(data.n_items)
    cold = BothCold.of(data, users, items.test, shown)
    table = data.ratings
    new = table["item"].isin(items.test.numpy())
    of_train = table["user"].isin(users.train.numpy())
    user, item, _ = cold.seen.ratings_of(torch.arange(data.n_users))
    count = torch.bincount(item, minlength=data.n_items)
    on_offer = table[new & of_train].groupby("item").size()
    for number in items.test.tolist():
        assert int(count[number]) == min(shown, on_offer.get(number, 0))
    held = users.test.tolist() + users.validation.tolist()
    others = np.isin(user.numpy(), held)
    assert not np.isin(item.numpy()[others], items.test.numpy()).any()
    assert (~new).sum() == (~torch.isin(item, items.test)).sum()
    tasks = cold.tasks(5)
    truth = table.set_index(["user", "item"])["rating"]
    for t, number in enumerate(tasks.user.tolist()):
        query = tasks.query.x[t][tasks.query.mask[t]].tolist()
        own = table[(table["user"] == number) & new]
        assert sorted(query) == sorted(own["item"])
        stars = tasks.query.y[t][tasks.query.mask[t]].numpy()
        assert np.allclose(stars, truth.loc[[(number, i) for i in query]])
        support = table[(table["user"] == number) & ~new].sort_values("timestamp")
        assert tasks.support.x[t].tolist() == support["item"][:5].tolist()


def test_more_shown_is_nested_and_the_query_stays(data: RatingData) -> None:
    users, items = split_users(data.n_users), split_users(data.n_items)
    few, many = (BothCold.of(data, users, items.test, k) for k in (2, 5))
    assert torch.equal(few.users, many.users)
    assert torch.equal(few.tasks(0).query.y, many.tasks(0).query.y)
    pairs = []
    for cold in (few, many):
        user, item, _ = cold.seen.ratings_of(torch.arange(data.n_users))
        pairs.append(set(zip(user.tolist(), item.tolist(), strict=True)))
    assert pairs[0] < pairs[1]


def test_the_support_can_be_drawn_in_place_of_the_earliest(data: RatingData) -> None:
    users, items = split_users(data.n_users), split_users(data.n_items)
    first, drawn = (
        BothCold.of(data, users, items.test, 2, order=o) for o in ("time", "random")
    )
    assert torch.equal(first.users, drawn.users)
    assert torch.equal(first.tasks(3).query.y, drawn.tasks(3).query.y)
    assert not torch.equal(first.tasks(3).support.x, drawn.tasks(3).support.x)
    drawn.tasks(3).check_disjoint()


def test_both_cold_needs_users_who_rated_both_kinds(data: RatingData) -> None:
    users, items = split_users(data.n_users), split_users(data.n_items)
    with pytest.raises(ValueError, match="more than 30 ratings of old items"):
        BothCold.of(data, users, items.test, 3, reserved=30)


@pytest.mark.slow
def test_an_offset_that_reads_features_is_a_weighted_ridge_regression() -> None:
    data = load_movielens_100k(progress=False)
    histories, users = UserHistories(data), torch.arange(300)
    features = item_features(data)
    model = GaussianFactorModel.fit(histories, users, 2, features, sweeps=1)
    shrunk = (model.offset - model.mu).numpy()
    learn_offset(model, histories, users, ridge=100.0)
    n = np.bincount(histories.ratings_of(users)[1], minlength=data.n_items)
    rated = n > 0
    raw = shrunk[rated] * (n[rated] + 5) / n[rated]
    weight = n[rated] ** 2 / (n[rated] + 5)
    oracle = Ridge(alpha=100.0).fit(features[rated], raw, sample_weight=weight)
    said = oracle.predict(features)
    expected = shrunk + 5 / (n + 5) * said
    found = (model.offset - model.mu).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert said[~rated].std() > 0.1  # items without ratings differ now
