"""The published learners of `benchmarks/published` are what their papers say."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
import torch

from metarec.data import synthetic_population
from metarec.learners import GradientDescent
from metarec.learners.losses import mean_squared_error
from metarec.meta import MAML
from metarec.tasks import Examples, Tasks, UserHistories

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = ("draws", "content", "melu", "tanp", "end_to_end", "items", "rows")


@pytest.fixture(scope="module")
def published() -> Iterator[SimpleNamespace]:
    """The modules of the folder, which import each other by name."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER / "published"))
    try:
        modules: dict[str, ModuleType] = {n: importlib.import_module(n) for n in NAMES}
        yield SimpleNamespace(**modules)
    finally:
        sys.path.remove(str(FOLDER / "published"))
        for name in set(sys.modules) - before:
            if name in (*NAMES, "item_fold"):
                del sys.modules[name]
        sys.path[:] = [each for each in sys.path if each != str(FOLDER)]


@pytest.fixture
def fold() -> SimpleNamespace:
    """What the networks ask of a fold: 12 items of 3 genres and a year, 5 users."""
    generator = torch.Generator().manual_seed(0)
    names = "age", "gender=F", "gender=M"
    sealed = SimpleNamespace(
        user_features=SimpleNamespace(names=names),
        profile=torch.randn(5, 3, generator=generator),
    )
    features = torch.randn(12, 4, generator=generator)
    return SimpleNamespace(features=features, sealed=sealed)


def some(fold: SimpleNamespace, counts: tuple[int, ...] = (0, 2, 4)) -> Examples:
    """Ratings of three users; what stands beyond their counts is no rating."""
    generator = torch.Generator().manual_seed(1)
    x = torch.stack([torch.randperm(12, generator=generator)[:4] for _ in counts])
    y = torch.randint(1, 6, x.shape, generator=generator).float()
    mask = torch.arange(4) < torch.tensor(counts)[:, None]
    return Examples(x, y, mask, fold.sealed.profile[: len(counts)])


@pytest.mark.parametrize("random", [False, True])
def test_support_and_query_share_nothing(
    published: SimpleNamespace, random: bool
) -> None:
    data, _ = synthetic_population(n_users=40, n_items=60, seed=0)
    histories = UserHistories(data)
    draws = published.draws.Draws(histories, torch.arange(40), random, 5)
    first = histories.everything(torch.arange(40), 15)
    for tasks in draws(torch.Generator().manual_seed(0)):
        tasks.check_disjoint()
        assert (tasks.query.mask.sum(1) > 0).all()
        for user, x, mask in zip(
            tasks.user, tasks.support.x, tasks.support.mask, strict=True
        ):
            early = {*first.x[user].tolist()}
            assert ({*x[mask].tolist()} <= early) or random
            if random:
                n = int(histories.count(user[None]))
                assert int(mask.sum()) == min(n - 5, draws.most)


def test_melu_adapts_its_decision_layers_and_no_embedding(
    published: SimpleNamespace, fold: SimpleNamespace
) -> None:
    torch.manual_seed(0)
    model = published.melu.Network(fold)
    local = [n for n, _ in model.named_parameters() if n.startswith("decide")]
    assert {n for n, _ in model.named_parameters()} - {*local} == {
        "item_words",
        "user_words",
    }
    support = some(fold)
    meta = MAML(model, GradientDescent(1), local, 0.01, False)
    own = meta.adapt(support)
    for name in local:
        start = model.get_parameter(name)
        moved = (own[name] - start).flatten(1).abs().sum(1)
        assert moved[0] == 0 and (moved[1:] > 0).all(), name
    # One task by hand, by autograd through the module itself.
    x, y, mask = support.x[1], support.y[1], support.mask[1]
    score = model(x[mask], support.profile[1])
    loss = 0.5 * (score - y[mask]).square().sum()
    named = [model.get_parameter(name) for name in local]
    for name, slope in zip(local, torch.autograd.grad(loss, named), strict=True):
        expected = model.get_parameter(name) - 0.01 * slope
        assert torch.allclose(own[name][1], expected, atol=1e-6)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("loss", [None, mean_squared_error])
def test_melu_by_hand_is_maml_on_its_layers(
    published: SimpleNamespace, fold: SimpleNamespace, first_order: bool, loss: object
) -> None:
    torch.manual_seed(0)
    model = published.melu.Network(fold, torch.linspace(2, 4, 12)).double()
    local = [n for n, _ in model.named_parameters() if n.startswith("decide")]
    learner = GradientDescent(3, loss, first_order)
    support = some(fold).each(lambda t: t.double() if t.is_floating_point() else t)
    query = some(fold, (4, 3, 2)).each(lambda t: t.flip(0))
    query = query.each(lambda t: t.double() if t.is_floating_point() else t)
    tasks, found = Tasks(support, query, torch.arange(3)), []
    for kind in (MAML, published.melu.MeLU):
        meta = kind(model, learner, local, 0.02)
        meta.log_scale.data = meta.log_scale.data.double()
        value = meta.loss(tasks)
        found.append([value, *torch.autograd.grad(value, [*meta.parameters()])])
    for plain, fast in zip(*found, strict=True):
        assert torch.allclose(plain, fast, atol=1e-9) and plain.abs().max() > 1e-4


def test_tanp_knows_no_order_and_reads_no_padding(
    published: SimpleNamespace, fold: SimpleNamespace
) -> None:
    torch.manual_seed(0)
    meta = published.tanp.TaNP(fold, published.tanp.PAPER, None)
    support, x = some(fold), torch.arange(12).expand(3, -1)
    score = meta.predict(support, x)
    turned = support.each(lambda t: t.flip(1) if t.shape[1] == 4 else t)
    assert torch.allclose(meta.predict(turned, x), score, atol=1e-5)
    other = torch.where(support.mask, support.y, 99.0)
    padded = Examples(support.x, other, support.mask, support.profile)
    assert torch.allclose(meta.predict(padded, x), score, atol=1e-6)
    assert score.isfinite().all()
    changed = Examples(support.x, 6 - support.y, support.mask, support.profile)
    moved = (meta.predict(changed, x) - score).abs().sum(1)
    assert moved[0] == 0 and (moved[1:] > 0).all()


def test_shares_are_drawn_to_the_largest(published: SimpleNamespace) -> None:
    share = torch.tensor([[0.6, 0.4], [0.4, 0.6]])
    target = published.tanp.sharpened(share)
    assert torch.allclose(target.sum(-1), torch.ones(2))
    assert (target.diagonal() > 0.6).all()


def test_a_meta_embedding_takes_one_step_on_the_items_vector(
    published: SimpleNamespace, fold: SimpleNamespace
) -> None:
    generator = torch.Generator().manual_seed(2)
    fold.warm = SimpleNamespace(
        factors=torch.randn(12, 2, generator=generator),
        offset=torch.randn(12, generator=generator),
    )
    settings = published.items.CANDIDATES[1]
    below = published.items.Factors(fold)
    meta = published.items.MetaEmbedding(below, settings, False)
    with torch.no_grad():
        meta.generator.copy_(torch.randn(4, 3, generator=generator))
        support = some(fold)
        start = meta.start(support.profile)
        own = meta.adapt(start, support)
    rows = torch.cat([below.factors, torch.ones(12, 1)], 1)[support.x]
    rest = (rows * start[:, None]).sum(-1) + below.offset[support.x] - support.y
    slope = (rows * (rest * support.mask)[..., None]).sum(1)
    rate = settings.inner_rate
    assert torch.allclose(own, start - rate * slope, atol=1e-5)
    assert torch.equal(own[0], start[0])
    constant = published.items.MetaEmbedding(below, settings, True)
    assert torch.equal(*constant.start(support.profile)[:2])


def test_copies_of_the_item_table_move_together(published: SimpleNamespace) -> None:
    gradient = torch.arange(12.0).reshape(6, 2)
    found = published.end_to_end.together(gradient, 2)
    assert torch.equal(found[:2], gradient[:2] + gradient[2:4] + gradient[4:])
    assert torch.equal(found[:2], found[2:4]) and torch.equal(found[:2], found[4:])


def test_the_first_order_leaves_out_what_the_second_has(
    published: SimpleNamespace, fold: SimpleNamespace
) -> None:
    torch.manual_seed(0)
    model = published.melu.Network(fold)
    local = [n for n, _ in model.named_parameters() if n.startswith("decide")]
    x = torch.arange(4).expand(3, -1) + 4
    slopes = []
    for rate, first in ((0.05, True), (0.05, False), (0.0001, True), (0.0001, False)):
        learner = GradientDescent(1, None, first)
        meta = MAML(model, learner, local, rate, False)
        score = meta.predict(some(fold), x)
        (slope,) = torch.autograd.grad(score.sum(), model.decide[0].weight)
        slopes.append(slope)
    assert (slopes[0] - slopes[1]).abs().max() > 0.01
    assert (slopes[2] - slopes[3]).abs().max() < 0.001


@pytest.mark.benchmark
def test_a_row_runs_from_the_command(tmp_path: Path) -> None:
    import subprocess

    out = tmp_path / "published.csv"
    rows = ["factors, items scratch", "MeLU, chosen"]
    command = [sys.executable, str(FOLDER / "published"), "--quick", "--only", *rows]
    for _ in range(2):  # the second finds all done
        subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
    found = pd.read_csv(out, comment="#").set_index(["method", "k"])
    assert {"gaussian", "biases", *rows} <= {*found.index.get_level_values(0)}
    own = found.loc[rows]
    assert own["rmse"].between(0.8, 1.3).all() and (own["low"] < own["high"]).all()
    assert (tmp_path / "published_errors.csv.xz").exists()


@pytest.mark.benchmark
def test_the_committed_table_has_the_rows_that_the_chapter_rests_on() -> None:
    found = pd.read_csv(FOLDER / "results" / "published.csv", comment="#")
    at = found.set_index(["method", "k"])
    for name in (
        "MeLU, chosen",
        "MeLU + item offsets, chosen",
        "factors, items trained",
    ):
        assert (at.loc[name, "folds"] == 5).all()
    flat = at.loc["MeLU, paper", "rmse"]
    assert flat.max() - flat.min() < 0.0005
    # Nobody passes the closed form with the same support.
    ours = found[(found["part"] == "users") & found["seeds"].notna()]
    assert (ours.loc[ours["k"] == 10, "high"] > 0).all()
    # What joins the leaderboard's errors has its users, once for each method and K.
    errors = pd.read_csv(FOLDER / "results" / "published_errors.csv.xz")
    assert not errors.duplicated(["method", "fold", "user", "k"]).any()
    board = pd.read_csv(FOLDER / "results/leaderboard/errors.csv.xz")
    board = board[board["method"] == "gaussian"].set_index(["fold", "user", "k"])
    own = errors[errors["method"] == "MeLU, chosen"].set_index(["fold", "user", "k"])
    assert len(own) == 943 * 5
    assert (board.loc[own.index, "n"] == own["n"]).all()
    settings = pd.read_csv(FOLDER / "results/published_settings.csv", comment="#")
    assert {*settings["method"]} == {*errors["method"]}
