"""Lists and clicks: the metrics against scikit-learn, the protocol against a loop."""

from dataclasses import replace
from itertools import combinations, permutations
from math import comb
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve
from torch import Tensor

from metarec.data import RatingData, RatingScale
from metarec.evaluation import rank_catalogue
from metarec.factors import ItemMean, UserItemBias
from metarec.meta import MetaLearner
from metarec.metrics import (
    auc,
    expected_calibration_error,
    listed,
    log_loss,
    overlap,
    rank_candidates,
    share_shown,
)
from metarec.models import Softmax
from metarec.systems import Parts, System, build_system, item_vectors
from metarec.tasks import Examples, Tasks, TaskSampler, UserHistories
from metarec.training import TrainingConfig, meta_train
from metarec.validation import Predictor, validation_score


@pytest.fixture(scope="module")
def histories(data: RatingData) -> UserHistories:
    return UserHistories(data)


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_ranking_equals_scikit_learn_with_ties() -> None:
    score = some(20, 30).mul(2).round()  # many ties
    relevant = some(20, 30, seed=1) > 0.3
    everything = torch.ones_like(relevant)
    mine = rank_candidates(score, relevant, everything, at=10).ndcg
    theirs = [
        oracle.ndcg_score([r], [s], k=10)
        for r, s in zip(relevant.numpy(), score.numpy(), strict=True)
    ]
    assert np.allclose(mine, theirs, atol=1e-9)


def test_ties_are_averaged_over_all_orders() -> None:
    score = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    relevant = torch.tensor([[True, False, False, True]])
    got = rank_candidates(score, relevant, torch.ones_like(relevant), at=2)
    recalls = [(order.index(0) < 2) / 2 for order in map(list, permutations(range(3)))]
    assert got.recall.item() == pytest.approx(np.mean(recalls))


def all_lists(score: Tensor, candidates: Tensor, at: int) -> list[tuple[int, ...]]:
    """Every list of the best candidates: one for each order of the ties."""
    place = candidates.nonzero()[:, 0].tolist()
    orders = {
        tuple(sorted(shuffled, key=lambda i: -score[i].item())[:at])
        for shuffled in permutations(place)
    }
    # Each order of all candidates sorts into one list, and each list has as many.
    return sorted(orders)


def test_a_hit_and_who_is_listed_are_averaged_over_all_orders_of_ties() -> None:
    score = torch.tensor([3.0, 1, 1, 1, 2, 1, 9, 0])
    candidates = torch.tensor([True] * 6 + [False, True])
    for at in (1, 2, 4, 7, 9):
        lists = all_lists(score, candidates, at)
        shown = [[i in one for i in range(8)] for one in lists]
        found = listed(score[None], candidates[None], at)[0]
        assert np.allclose(found, np.mean(shown, 0), atol=1e-12), at
        for liked in ({0}, {1}, {1, 3}, {1, 2, 3, 5}, {7}, {3, 6}):
            relevant = torch.tensor([[i in liked for i in range(8)]])
            got = rank_candidates(score[None], relevant, candidates[None], at)
            wanted = liked - {6}
            hits = [bool(wanted & {*one}) for one in lists]
            assert got.hit.item() == pytest.approx(np.mean(hits)), (at, liked)
            shares = [len(wanted & {*one}) / len(wanted) for one in lists]
            assert got.recall.item() == pytest.approx(np.mean(shares))


def test_overlap_and_coverage_are_those_of_a_loop_over_pairs() -> None:
    score, candidates = some(7, 20), some(7, 20, seed=1) > -0.8
    shown = listed(score, candidates, 5)
    lists = [{*row.nonzero()[:, 0].tolist()} for row in shown]
    assert all(len(one) == 5 for one in lists)
    shared = [
        np.mean([len(a & b) for j, b in enumerate(lists) if j != i])
        for i, a in enumerate(lists)
    ]
    assert np.allclose(overlap(shown), shared)
    assert share_shown(shown) == pytest.approx(len(set().union(*lists)) / 20)
    assert overlap(shown[:1]).isnan().all()


def test_ties_make_overlap_and_coverage_expectations() -> None:
    # Two users who take 1 of 2 items by lot, and one who takes the first.
    shown = listed(torch.tensor([[0.0, 0], [0, 0], [1, 0]]), torch.ones(3, 2) > 0, 1)
    assert overlap(shown).tolist() == [0.5, 0.5, 0.5]
    assert share_shown(shown) == pytest.approx((1 + 3 / 4) / 2)
    # A list that is longer than the catalogue holds all of it once.
    assert (listed(torch.zeros(1, 3), torch.ones(1, 3) > 0, 5) == 1).all()


def test_only_candidates_are_ranked_also_at_minus_infinity() -> None:
    score = torch.tensor([[9.0, -torch.inf, 5.0, -torch.inf]])
    relevant = torch.tensor([[True, True, False, False]])
    candidates = torch.tensor([[False, True, True, True]])
    got = rank_candidates(score, relevant, candidates, at=3)
    # Item 0 is seen; items 1 and 3 share the second and third place.
    expected = (1 / np.log2(3) + 1 / np.log2(4)) / 2
    assert got.ndcg.item() == pytest.approx(expected)
    assert got.recall.item() == pytest.approx(1)
    with pytest.raises(ValueError, match="nan"):
        rank_candidates(score * torch.nan, relevant, candidates)


def test_scores_that_are_alike_give_the_mean_over_all_orders() -> None:
    relevant = torch.tensor([True, False, True, False, False])
    orders = torch.tensor(list(permutations(range(5)))).float()
    for at in (3, 7):
        rows = relevant.expand(len(orders), -1)
        every = rank_candidates(orders, rows, torch.ones_like(rows), at)
        chance = rank_candidates(torch.zeros(1, 5), rows[:1], rows[:1] < 2, at)
        for one, other in zip(chance, every, strict=True):
            assert one.item() == pytest.approx(float(other.mean()))
    # In closed form, of C candidates and R relevant ones.
    relevant, candidates = some(40, 12) > 0.7, some(40, 12, seed=1) > 0.3
    relevant[:, 0] = candidates[:, 0] = True
    chance = rank_candidates(torch.zeros(40, 12), relevant, candidates, at=6)
    assert candidates.sum(-1).min() < 6 < candidates.sum(-1).max()
    for row in range(40):
        c, r = int(candidates[row].sum()), int((relevant & candidates)[row].sum())
        places = [1 / np.log2(j + 2) for j in range(6)]
        gain = r / c * sum(places[:c]) / sum(places[:r])
        assert chance.ndcg[row].item() == pytest.approx(gain)
        assert chance.recall[row].item() == pytest.approx(min(6, c) / c)
        miss = comb(c - r, min(6, c)) / comb(c, min(6, c))
        assert chance.hit[row].item() == pytest.approx(1 - miss)


@pytest.mark.parametrize(("high", "like"), [(5, 4), (10, 7.75)])
def test_the_protocol_equals_a_slow_loop(
    data: RatingData, high: int, like: float
) -> None:
    if high == 10:
        table = data.ratings.assign(rating=2 * data.ratings["rating"])
        data = replace(data, ratings=table, scale=RatingScale(1, 10))
    histories, users = UserHistories(data), torch.arange(40, 80)
    model = ItemMean.fit(histories, torch.arange(40))
    table = rank_catalogue(model, histories, users, sizes=(0, 5), at=10)
    rows, best_of = {}, {0: {}, 5: {}}
    for user in users.tolist():
        _, item, rating = histories.ratings_of(torch.tensor([user]))
        for k in (0, 5):
            seen = set(item[:k].tolist())
            likes = set(item[k:][rating[k:] >= like].tolist())
            if not likes:
                continue
            left = [i for i in range(histories.n_items) if i not in seen]
            best = sorted(left, key=lambda i: -model.offset[i].item())[:10]
            best_of[k][user] = {*best}
            gain = sum(1 / np.log2(j + 2) for j, i in enumerate(best) if i in likes)
            ideal = sum(1 / np.log2(j + 2) for j in range(min(10, len(likes))))
            found = len(likes & set(best))
            rows[user, k] = gain / ideal, found / len(likes), found > 0, len(likes)
    columns = ["ndcg", "recall", "hit", "n_relevant"]
    mine = table.set_index(["user", "k"])
    assert set(mine.index) == set(rows)
    assert sum(table.attrs["left_out"].values()) == 2 * len(users) - len(rows)
    for key, expected in rows.items():
        assert np.allclose(mine.loc[key, columns].to_numpy(float), expected)
    for k, lists in best_of.items():
        shared = [len(a & b) for a, b in combinations(lists.values(), 2)]
        at_k = table[table["k"] == k]
        assert at_k["overlap"].mean() == pytest.approx(np.mean(shared))
        shown = len(set().union(*lists.values())) / histories.n_items
        assert np.allclose(at_k["coverage"], shown)
    assert (table["recall"] <= table["ceiling_recall"] + 1e-9).all()


def test_nothing_to_find_is_an_error(histories: UserHistories) -> None:
    model = ItemMean.fit(histories, torch.arange(40))
    with pytest.raises(ValueError, match="nothing to find"):
        rank_catalogue(model, histories, torch.arange(5), sizes=(999,))


def test_softmax_is_torch_cross_entropy_over_the_candidates() -> None:
    score, mask = some(4, 7), some(4, 7, seed=1) > -0.5
    mask[:, 0] = True
    like = torch.zeros(4, dtype=torch.long)
    target = torch.nn.functional.one_hot(like, 7).float()
    masked = score.masked_fill(~mask, -torch.inf)
    theirs = torch.nn.functional.cross_entropy(masked, like, reduction="none")
    assert torch.allclose(Softmax().loss(score, target, mask), theirs)
    both = target.clone()
    both[:, 1] = 0.5 * mask[:, 1]
    log_p = masked.log_softmax(-1)
    second = torch.where(mask[:, 1], -0.5 * log_p[:, 1], 0.0)
    assert torch.allclose(Softmax().loss(score, both, mask), theirs + second)
    assert torch.allclose(Softmax().mean(score).sum(-1), torch.ones(4))


def test_softmax_gradient_by_differences_and_without_candidates() -> None:
    score = some(2, 5).double().requires_grad_()
    mask = torch.tensor([[True, True, True, False, True], [False] * 5])
    target = torch.tensor([[1.0, 0, 0, 0, 1], [0.0] * 5]).double()

    def loss(s: Tensor) -> Tensor:
        return Softmax().loss(s, target, mask)

    assert torch.autograd.gradcheck(loss, (score,))
    assert loss(score)[1] == 0


def list_tasks(histories: UserHistories, users: Tensor, k: Tensor | int) -> Tasks:
    """The first k ratings, and all after them."""
    return histories.tasks(users, k, k)


def test_a_support_and_a_query_are_read_as_a_slow_loop_reads_them(
    histories: UserHistories,
) -> None:
    users, k = torch.tensor([3, 8]), torch.tensor([2, 6])
    tasks, softmax = list_tasks(histories, users, k), Softmax()
    support = softmax.read(tasks.support, histories.n_items)
    query = softmax.read(tasks.query, histories.n_items, tasks.support)
    for row, (user, size) in enumerate(zip([3, 8], [2, 6], strict=True)):
        _, item, rating = histories.ratings_of(torch.tensor([user]))
        liked = rating >= 4
        early = set(item[:size][liked[:size]].tolist())
        later = set(item[size:][liked[size:]].tolist())
        assert set(support.y[row].nonzero()[:, 0].tolist()) == early
        assert set(query.y[row].nonzero()[:, 0].tolist()) == later
        assert query.y[row].max() == 1 and query.total[row] == len(later)
        assert not query.mask[row, item[:size]].any()
        assert query.mask[row].sum() == histories.n_items - size
    assert support.mask.all() and support.y.max() == 1
    assert torch.equal(support.x, torch.arange(histories.n_items))
    weight = some(histories.n_items).exp()
    weighed = Softmax(weight=weight).read(tasks.query, len(weight), tasks.support)
    torch.testing.assert_close(weighed.y, query.y * weight)
    torch.testing.assert_close(weighed.total, (query.y * weight).sum(-1))
    again = Softmax(weight=weight).read(tasks.support, len(weight))
    assert torch.equal(again.y, support.y)  # what a support says is not weighed


def test_lists_are_asked_for_all_that_comes_after(histories: UserHistories) -> None:
    users = torch.arange(20)
    sampler = TaskSampler(histories, users, (2, 5), 8, to_the_end=True)
    seen = 0
    for tasks in sampler(torch.Generator().manual_seed(0)):
        k = tasks.support.mask.sum(-1)
        assert set(k.tolist()) <= {2, 5}
        same = list_tasks(histories, tasks.user, k)
        for name in ("x", "y", "mask"):
            assert torch.equal(getattr(tasks.query, name), getattr(same.query, name))
        after = tasks.query.mask.sum(-1)
        assert torch.equal(k + after, histories.count(tasks.user))
        seen += len(tasks)
    assert seen == 20


def lister(
    histories: UserHistories, users: Tensor, dim: int = 4, **options: Any
) -> MetaLearner:
    """Softmax MAML: one step, and what a choice of items says."""
    system = System("mf", "maml", "gradient", True, steps=1, goal="lists", **options)
    features = torch.zeros(histories.n_items, 0)
    warm = item_vectors(histories, users, features, dim, True, goal="lists")
    return build_system(system, Parts.of(histories, users, warm, features))


def test_one_step_is_observed_minus_expected(histories: UserHistories) -> None:
    meta = lister(histories, torch.arange(100))
    model = meta.model
    with torch.no_grad():
        model.implicit.copy_(some(histories.n_items, 4))
        model.head.copy_(some(5, seed=2))
    users = torch.arange(100, 110)
    tasks = list_tasks(histories, users, 5)
    q, b = model.item_factors, model.item_offset
    liked, rated = torch.zeros(2, 10, histories.n_items)
    for row, user in enumerate(users.tolist()):
        _, item, rating = histories.ratings_of(torch.tensor([user]))
        rated[row, item[:5]] = 1.0
        liked[row, item[:5]] = (rating[:5] >= 4).float()
    w = model.head[:4] + 5**-0.5 * rated @ model.implicit
    p = (b + w @ q.T).softmax(-1)
    w = w + meta.log_scale.exp() * (liked - liked.sum(-1, keepdim=True) * p) @ q
    expected = b + w @ q.T + model.head[4]
    everything = torch.arange(histories.n_items).expand(10, -1)
    assert torch.allclose(meta.predict(tasks.support, everything), expected, atol=1e-4)
    alike = meta.predict(tasks.support, torch.zeros(10, 3, dtype=torch.long))
    assert torch.allclose(alike, expected[:, :1].expand(-1, 3), atol=1e-4)


def test_without_ratings_a_list_begins_at_the_prior(histories: UserHistories) -> None:
    meta = lister(histories, torch.arange(100))
    meta.model.implicit.data.normal_(generator=torch.Generator().manual_seed(0))
    nobody = histories.everything(torch.arange(3), 0)
    for support in (None, nobody):
        head = meta.prior(support).mean["head"]
        assert torch.equal(head, meta.model.head.expand_as(head))
    shifted = meta.prior(histories.everything(torch.arange(3), 5)).mean["head"]
    assert (shifted != meta.model.head).any()


def test_a_model_trains_its_own_copy_of_what_it_starts_from(
    histories: UserHistories,
) -> None:
    features = torch.zeros(histories.n_items, 0)
    warm = item_vectors(histories, torch.arange(100), features, 4, True, goal="lists")
    given = {
        name: value.clone() for name, value in vars(warm).items() if name != "mean_bias"
    }
    system = System(implicit=True, goal="lists")
    parts = Parts.of(histories, torch.arange(100), warm, features)
    model = build_system(system, parts).model
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert all(torch.equal(value, getattr(warm, name)) for name, value in given.items())


def test_padding_does_not_matter(histories: UserHistories) -> None:
    meta = lister(histories, torch.arange(100))
    support = histories.everything(torch.arange(100, 104), 3)
    wider = Examples(
        *(
            torch.cat([part, torch.full_like(part[:, :2], fill)], 1)
            for part, fill in ((support.x, 7), (support.y, 5), (support.mask, 0))
        )
    )
    x = torch.arange(histories.n_items).expand(4, -1)
    with torch.no_grad():
        assert torch.equal(meta.predict(support, x), meta.predict(wider, x))


def test_training_lowers_the_loss_of_new_lists(histories: UserHistories) -> None:
    train, kept = torch.arange(150), torch.arange(150, 200)
    meta = lister(histories, train)
    tasks = list_tasks(histories, kept, 5)

    def validate() -> float:
        with torch.no_grad():
            return float(meta.loss(tasks))

    before = validate()
    before_training = {n: p.clone() for n, p in meta.named_parameters()}
    sampler = TaskSampler(histories, train, meta_batch=64, to_the_end=True)
    meta_train(meta, sampler, validate, TrainingConfig(6, 0.01), progress=False)
    assert validate() < before - 0.005
    moved = [n for n, p in meta.named_parameters() if (p != before_training[n]).any()]
    assert len(moved) == len(before_training)


@pytest.mark.parametrize("goal", ["lists", "clicks", "stars"])
def test_the_validation_score_is_the_metric_of_the_goal(
    histories: UserHistories, goal: str
) -> None:
    users, sizes = torch.arange(150, 200), (1, 5)
    model: Predictor = UserItemBias.fit(histories, users)
    if goal == "clicks":
        model = ItemMean.fit(histories.likes(), users)
    found = validation_score(model, histories, users, sizes, goal)
    if goal == "lists":
        table = rank_catalogue(model, histories, users, sizes)
        assert found == pytest.approx(-table["ndcg"].mean())
        return
    rows = []
    for k in sizes:
        tasks = histories.tasks(users, k)
        score = model.predict(tasks.support, tasks.query.x)
        for row in range(len(users)):
            mask = tasks.query.mask[row]
            y, own = tasks.query.y[row][mask].double(), score[row][mask].double()
            if goal == "stars":
                rows.append((own.clamp(1, 5) - y).square().mean().sqrt())
            else:
                rows.append(-torch.where(y >= 4, own, 1 - own).log().mean())
    assert found == pytest.approx(float(torch.stack(rows).mean()))


def test_click_metrics_equal_scikit_learn() -> None:
    p, y = some(6, 40).mul(2).round(decimals=1).sigmoid(), some(6, 40, seed=1) > 0
    mask = some(6, 40, seed=2) > -0.8
    y[5] = True
    losses, areas = log_loss(p, y.float(), mask), auc(p, y.float(), mask)
    for row in range(6):
        one = y[row][mask[row]].numpy(), p[row][mask[row]].numpy()
        expected = oracle.log_loss(*one, labels=[False, True])
        assert losses[row].item() == pytest.approx(expected, abs=1e-5)
        if row < 5:
            assert areas[row].item() == pytest.approx(oracle.roc_auc_score(*one))
    assert areas[5].isnan()
    with pytest.raises(ValueError, match="scores"):
        log_loss(p + 1, y.float(), mask)


def test_calibration_equals_scikit_learn() -> None:
    p = some(500).sigmoid()
    y = (torch.rand(500, generator=torch.Generator().manual_seed(3)) < p).float()
    observed, predicted = calibration_curve(y.numpy(), p.numpy(), n_bins=10)
    cases = np.bincount((10 * p.numpy()).astype(int), minlength=10)
    expected = np.average(np.abs(observed - predicted), weights=cases)
    assert expected_calibration_error(p, y) == pytest.approx(expected, abs=1e-6)
    assert expected_calibration_error(torch.ones(4), torch.ones(4)) == 0
    few = torch.tensor([0.05, 0.35, 0.95, 1.0]), torch.tensor([0, 1, 0, 1])
    assert expected_calibration_error(*few) == pytest.approx((0.05 + 0.65 + 0.95) / 4)
