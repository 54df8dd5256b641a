"""The page "Teach it your taste": its numbers are metarec's, and its controls work."""

from __future__ import annotations

import importlib
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect
from test_site import SITE, browser, unavailable  # noqa: F401 (a fixture)

from metarec.data import load_movielens_100k
from metarec.data.synthetic import synthetic_population
from metarec.learners import (
    Bayesian,
    GradientDescent,
    InContext,
    Posterior,
    Prior,
    mean_squared_error,
)
from metarec.meta import MAML
from metarec.models import MatrixFactorization, Softmax
from metarec.tasks import Examples

ROOT = Path(__file__).resolve().parents[1]
Rating = tuple[int, float]
NOBODY: list[Rating] = []


sys.path += [str(ROOT / "book" / folder) for folder in ("_ext", "_tools")]
demo = importlib.import_module("demo")
demo_model = importlib.import_module("demo_model")


def read_script(path: Path) -> dict[str, Any]:
    """The model in a script that the build wrote."""
    text = path.read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text.partition("=")[2].rstrip().rstrip(";"))
    return found


@cache
def model() -> dict[str, Any]:
    """The numbers of the built page."""
    path = SITE / "_static" / demo.SCRIPT
    if not path.exists():
        unavailable("the site is not built: make book")
    return read_script(path)


def opened(browser: Browser) -> Iterator[Page]:  # noqa: F811
    """The page from the disk; at the end it must not have complained."""
    model()
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()

    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            wrong.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith(("file:", "data:")):
            wrong.append(request.url)

    page.on("console", heard)
    page.on("request", asked)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((SITE / f"{demo.PAGE}.html").as_uri())
    page.locator("#demo.is-ready").wait_for()
    yield page
    context.close()
    assert wrong == []


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:  # noqa: F811
    """A page of one's own, to click on."""
    yield from opened(browser)


@pytest.fixture(scope="module")
def sheet(browser: Browser) -> Iterator[Page]:  # noqa: F811
    """A page that several tests share: they call its pure functions alone."""
    yield from opened(browser)


# The JavaScript against the package, on the exported numbers, in float64.


def double(value: Any) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def network() -> MatrixFactorization:
    """The exported films as a recommender of the package."""
    return MatrixFactorization.from_items(
        double(model()["factors"]), double(model()["offset"])
    )


def support(ratings: list[Rating]) -> Examples:
    stars = double([[stars for _, stars in ratings] or [0]])
    return Examples(
        torch.tensor([[film for film, _ in ratings] or [0]]),
        stars,
        torch.full(stars.shape, bool(ratings)),
    )


def bayesian_prior() -> Prior:
    prior = model()["prior"]
    return Prior(
        {"head": double(prior["mean"])},
        {"head": double(prior["covariance"])},
        double(prior["noise"]),
    )


def list_maker() -> MAML:
    """The exported system for lists, as one of the package."""
    lists, ends = model()["lists"], (model()["low"], model()["high"])
    phi, offset = double(lists["factors"]) / 100, double(lists["offset"])
    films = MatrixFactorization.from_items(phi[:, :-1], offset)
    films.likelihood = Softmax(model()["like"])
    films.head = torch.nn.Parameter(double(lists["start"]))
    learner = InContext(*phi.shape, *ends).double()
    last = double(lists["last"]).T / 1000
    with torch.no_grad():
        learner.items.copy_(double(lists["inputs"]) / 100 - phi)
        learner.first.copy_(double(lists["first"]).T / 1000)
        learner.first_bias.copy_(double(lists["bias"]))
        learner.third[:, : last.shape[1]] = last
    return MAML(films, learner, ["head"], scale=lists["scale"])


def list_scores(ratings: list[Rating], surprise: float) -> torch.Tensor:
    """log p(i | user) - surprise x log p(i) of all films."""
    maker, films = list_maker(), torch.arange(len(model()["films"]))[None]
    with torch.no_grad():
        user, all_of_us = (
            maker.predict(support(given), films)[0].log_softmax(0)
            for given in (ratings, NOBODY)
        )
    return user - surprise * all_of_us


def drawn(seed: int) -> list[Rating]:
    """Up to 20 ratings of films drawn at random."""
    chance = random.Random(seed)
    films = chance.sample(range(len(model()["films"])), chance.randint(1, 20))
    return [(film, chance.randint(1, 5)) for film in films]


def cases() -> list[list[Rating]]:
    return [NOBODY, [(0, 3)], [(100, 1)], *(drawn(seed) for seed in range(12))]


def close(ours: Any, theirs: torch.Tensor) -> bool:
    return torch.allclose(double(ours), theirs, rtol=0, atol=1e-5)


RUN = "([name, args]) => window.metarecDemo[name](window.METAREC_DEMO, ...args)"


@pytest.mark.parametrize("start", ["descent", "plain"])
@pytest.mark.parametrize("steps", [0, 1, 5, 10])
def test_gradient_steps_are_those_of_the_package(
    sheet: Page, steps: int, start: str
) -> None:
    average = start == "plain"
    options = {**model()[start], "steps": steps, "average": average}
    learner = GradientDescent(steps, mean_squared_error if average else None)
    prior = Prior({"head": double(options["start"])}, {"head": double(options["rate"])})
    for ratings in cases():
        path = sheet.evaluate(RUN, ["descend", [ratings, options]])
        theirs = learner.adapt(network(), prior, support(ratings))["head"][0]
        assert len(path) == steps + 1 and path[0] == options["start"]
        assert close(path[-1], theirs)


def test_scores_and_error_bars_are_those_of_the_package(sheet: Page) -> None:
    films = torch.arange(len(model()["films"]))[None]
    noise = model()["prior"]["noise"]
    for ratings in cases():
        ours = sheet.evaluate(
            """(ratings) => {
                const d = window.metarecDemo, m = window.METAREC_DEMO;
                const belief = d.posterior(m, ratings);
                return {
                    ...belief,
                    score: m.offset.map((_, i) => d.score(m, i, belief.mean)),
                    sd: m.offset.map((_, i) => d.deviation(m, belief, i)),
                };
            }""",
            ratings,
        )
        args = network(), bayesian_prior(), support(ratings)
        theirs = Bayesian().posterior(*args)
        score, variance = Bayesian().predictive(*args, films)
        assert close(ours["mean"], theirs.mean[0])
        assert close(ours["covariance"], theirs.covariance[0])
        assert close(ours["score"], score[0])
        assert close(ours["sd"], (variance[0] - noise).sqrt())


def variance_after(belief: Posterior, film: int | None) -> float:
    """Variance of a score, averaged over films, when one more film was rated."""
    phi = network().features(torch.arange(len(model()["films"])))
    if film is not None:
        belief = belief.update(phi[film][None], torch.zeros(1, dtype=phi.dtype))
    return float(belief.variance(phi[None]).mean())


def test_the_next_question_is_the_one_that_takes_most_variance(sheet: Page) -> None:
    for ratings in cases():
        rated = {film for film, _ in ratings}
        candidates = [film for film in range(80) if film not in rated]
        belief = Bayesian().posterior(network(), bayesian_prior(), support(ratings))
        now = variance_after(belief, None)
        fall = {film: now - variance_after(belief, film) for film in candidates}
        best = max(candidates, key=lambda film: fall[film])
        ours = sheet.evaluate(
            """([ratings, candidates]) => {
                const d = window.metarecDemo, m = window.METAREC_DEMO;
                const belief = d.posterior(m, ratings);
                const best = d.nextQuestion(m, belief, candidates);
                return [best, d.averageVariance(m, belief)];
            }""",
            [ratings, candidates],
        )
        assert ours[0]["film"] == best
        assert ours[0]["fall"] == pytest.approx(fall[best], abs=1e-5)
        assert ours[1] == pytest.approx(now, abs=1e-5)


@pytest.mark.parametrize("surprise", [0, 0.5, 1])
def test_scores_of_lists_are_those_of_the_package(sheet: Page, surprise: float) -> None:
    fan = [(film, 5.0) for film in range(0, 90, 3)]
    for ratings in [*cases(), fan]:
        ours = sheet.evaluate(RUN, ["listScores", [ratings, surprise]])
        assert close(ours, list_scores(ratings, surprise))


def test_a_list_holds_the_best_unseen_films(sheet: Page) -> None:
    for ratings in cases():
        score = list_scores(ratings, 1)
        rated = [film for film, _ in ratings]
        order = score.argsort(descending=True, stable=True).tolist()
        best = [film for film in order if film not in rated][:10]
        assert listed(sheet, ratings, 1) == best or not ratings


def listed(sheet: Page, ratings: list[Rating], surprise: float) -> list[int]:
    """The ten films that the page lists after these ratings."""
    found: list[int] = sheet.evaluate(
        """([ratings, surprise]) => {
            const d = window.metarecDemo, m = window.METAREC_DEMO;
            const seen = new Set(ratings.map(([film]) => film));
            return d.rank(d.listScores(m, ratings, surprise), seen, 10);
        }""",
        [ratings, surprise],
    )
    return found


# What is exported.


@pytest.mark.site
def test_the_page_knows_the_films_it_names() -> None:
    films = model()["films"]
    counts = [film["count"] for film in films]
    assert 400 <= len(films) <= 700 and min(counts) >= demo_model.MIN_RATINGS
    assert counts == sorted(counts, reverse=True)
    assert len(model()["starters"]) == 12 and len(set(model()["starters"])) == 12
    assert not set(model()["starters"]) & set(model()["shown"])
    assert [stars for _, stars in model()["mira"]] == list(demo_model.MIRA.values())
    assert not [film["title"] for film in films if film["title"].endswith(", The")]
    assert "Harper" in model()["citation"]
    assert (SITE / "_static" / demo.SCRIPT).stat().st_size < 250_000


@pytest.mark.site
def test_no_rating_of_a_person_is_exported() -> None:
    names = {"films", "factors", "offset", "descent", "plain", "prior", "low", "high"}
    names |= {"citation", "starters", "shown", "mira", "lists", "like"}
    assert set(model()) == names
    network = {"factors", "inputs", "offset", "start", "scale", "first", "bias", "last"}
    network |= {"most"}
    assert set(model()["lists"]) == network
    about = {"id", "title", "year", "genres", "count"}
    assert all(set(film) == about for film in model()["films"])


@pytest.mark.site
def test_what_the_page_says_of_the_zero_start_is_so() -> None:
    """One rating of one star moves the zero start most, the learned start least."""
    phi = network().features(torch.arange(len(model()["films"])))
    learner = GradientDescent(model()["descent"]["steps"])
    textbook = GradientDescent(learner.steps, mean_squared_error)
    for film in model()["starters"]:
        one = support([(film, 1.0)])
        moved = {}
        for name, way in (("descent", learner), ("plain", textbook)):
            start, rate = (double(model()[name][part]) for part in ("start", "rate"))
            prior = Prior({"head": start}, {"head": rate})
            moved[name] = way.adapt(network(), prior, one)["head"][0] - start
        belief = Bayesian().posterior(network(), bayesian_prior(), one)
        moved["bayes"] = belief.mean[0] - bayesian_prior().mean["head"]
        size = {name: float((phi @ w).abs().mean()) for name, w in moved.items()}
        assert size["plain"] > 1.3 * size["bayes"] > 1.3 * size["descent"]


GENRES = ("Horror", "Sci-Fi", "Musical", "Romance", "Action")


def of_genre(genre: str) -> list[int]:
    """Films of a genre, the most rated first."""
    films = enumerate(model()["films"])
    return [i for i, film in films if genre in film["genres"].split(", ")]


@pytest.mark.site
@pytest.mark.parametrize("genre", GENRES)
def test_three_films_of_one_genre_bring_more_of_it(sheet: Page, genre: str) -> None:
    """Three that a visitor knows, the most rated; Star Wars is more than a romance."""
    films = of_genre(genre)
    others = {film for other in GENRES if other != genre for film in of_genre(other)}
    three = [film for film in films if film not in others][:3]
    yours = listed(sheet, [(film, 5) for film in three], 1)
    assert len(set(yours) & set(films)) >= 6


@pytest.mark.site
def test_two_visitors_share_few_films_that_are_most_theirs(sheet: Page) -> None:
    chance = random.Random(0)
    lists = []
    for _ in range(40):
        three = chance.sample(range(100), 3)
        ratings = [(film, chance.randint(1, 5)) for film in three]
        lists.append(set(listed(sheet, ratings, 1)))
    shared = [len(one & other) for one, other in itertools.combinations(lists, 2)]
    assert sum(shared) / len(shared) <= 3


@pytest.mark.site
def test_to_somebody_unknown_it_shows_what_most_like(sheet: Page) -> None:
    """No film is more theirs than everybody's, and the best bets are popular."""
    assert list_scores(NOBODY, 1).abs().max() < 1e-9
    data = load_movielens_100k(progress=False)
    liked = data.ratings.query("rating >= 4")["item"].value_counts()
    names = data.items["item_id"].to_numpy()
    most_liked = {int(names[item]) for item in liked.index[:20]}
    bets = {model()["films"][film]["id"] for film in listed(sheet, NOBODY, 0)}
    assert len(bets & most_liked) >= 8


def test_the_same_seed_gives_the_same_numbers() -> None:
    data = synthetic_population(n_users=40, n_items=40, seed=1)[0]
    first, second = (small(data) for _ in range(2))
    assert first == second
    assert len(first["factors"][0]) == 8 and first["prior"]["noise"] > 0
    assert len(first["lists"]["factors"][0]) == len(first["lists"]["start"])


def small(data: Any) -> dict[str, Any]:
    """One epoch on an invented population, whose films have no title and no year."""
    items = data.items.assign(title="Film", year=2000, genres=[()] * data.n_items)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_model, "MIN_RATINGS", 1)
        return demo_model.learn(
            replace(data, items=items), epochs={"stars": 1, "lists": 1}
        )


def test_an_unchanged_package_trains_nothing(tmp_path: Path) -> None:
    (tmp_path / "metarec").mkdir()
    module = tmp_path / "metarec" / "maml.py"
    module.write_text("ONE = 1\n")
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    trained = []

    def make() -> dict[str, Any]:
        trained.append(1)
        return {"title": "a </script> of its own", "n": len(trained)}

    first = demo.kept(tmp_path, make)
    assert demo.kept(tmp_path, make) == first and len(trained) == 1
    assert "</" not in first.read_text() and read_script(first)["n"] == 1
    module.write_text("ONE = 2\n")
    assert read_script(demo.kept(tmp_path, make))["n"] == 2


# Clicked through.


def titles(page: Page, way: str) -> list[str]:
    return page.locator(f"#demo-list-{way} .demo-name").all_text_contents()


def lists(page: Page) -> dict[str, list[str]]:
    return {way: titles(page, way) for way in ("bets", "yours")}


def row(page: Page, place: int) -> Any:
    return page.locator("#demo-starters .demo-film").nth(place)


def by_mouse(page: Page, place: int, stars: int) -> None:
    row(page, place).locator("label").nth(stars - 1).click()


def by_keyboard(page: Page, place: int, stars: int) -> None:
    row(page, place).locator("input").first.focus()
    page.keyboard.press("Space")
    for _ in range(stars - 1):
        page.keyboard.press("ArrowRight")


@pytest.mark.parametrize("rate", [by_mouse, by_keyboard])
def test_three_ratings_change_every_list(
    page: Page, rate: Callable[[Page, int, int], None]
) -> None:
    before, table = lists(page), page.locator("#demo-table").text_content()
    assert [len(films) for films in before.values()] == [10, 0]
    assert page.get_by_text("Rate a film first").is_visible()
    for place, stars in ((0, 5), (3, 2), (9, 1)):
        rate(page, place, stars)
    assert [row(page, n).get_attribute("data-stars") for n in (0, 3, 9)] == list("521")
    assert page.locator("#demo-count").inner_text() == "3 ratings"
    after = lists(page)
    assert [len(films) for films in after.values()] == [10, 10]
    assert page.get_by_text("Rate a film first").is_hidden()
    assert after["bets"] != before["bets"] and after["bets"] != after["yours"]
    assert "Star Wars" not in after["bets"] + after["yours"]
    expected = page.locator("#demo-list-yours .demo-stars-said").first.inner_text()
    assert 1 <= float(expected.split()[0].removesuffix("stars expected")) <= 5
    assert page.locator("#demo-table").text_content() != table
    assert "Pulp Fiction: 1 star" in page.locator("#demo-says").inner_text()
    assert page.locator(".demo-move:not(:empty)").count() > 0


def test_all_of_it_is_reached_by_the_tab_key(page: Page) -> None:
    page.locator("#demo-mira").focus()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || 'some'"))
    assert {"demo-reset", "demo-search", "demo-steps", "demo-skip"} <= reached
    by_keyboard(page, 0, 4)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert row(page, 0).get_attribute("data-stars") == "0"
    assert page.locator("#demo-count").inner_text() == "0 ratings"


def test_the_slider_moves_the_gradient_steps_and_not_the_posterior(page: Page) -> None:
    by_mouse(page, 9, 1)

    def column(n: int) -> list[str]:
        return page.locator(f"#demo-table td:nth-of-type({n})").all_text_contents()

    before = [column(n) for n in (1, 2, 3)]
    page.locator("#demo-steps").focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert page.locator("#demo-steps-said").inner_text() == "T = 0"
    assert page.locator("#demo-chart .step.is-descent").count() == 0
    assert column(1) != before[0] and [column(2), column(3)] == before[1:]
    page.keyboard.press("End")
    assert page.locator("#demo-steps-said").inner_text() == "T = 10"
    assert page.locator("#demo-chart .step.is-descent").count() == 60


def test_mira_search_question_and_reset(page: Page) -> None:
    start = lists(page)
    page.get_by_role("button", name="Fill in Mira's stars").click()
    assert page.locator("#demo-count").inner_text() == "10 ratings"
    assert page.locator("#demo-added .demo-film").count() == 2

    page.get_by_label("Add another film").fill("toy story")
    page.keyboard.press("Enter")
    assert "Toy Story" in page.locator("#demo-added").inner_text()
    page.keyboard.press("Space")
    assert page.locator("#demo-count").inner_text() == "11 ratings"

    asked = page.locator("#demo-question").inner_text()
    page.get_by_role("button", name=f"4 stars for {asked}").click()
    assert page.locator("#demo-count").inner_text() == "12 ratings"
    again = page.locator("#demo-question").inner_text()
    assert again != asked
    page.get_by_role("button", name="I have not seen it").click()
    assert page.locator("#demo-question").inner_text() not in {asked, again}

    page.get_by_role("button", name="Start again").click()
    assert page.locator("#demo-count").inner_text() == "0 ratings"
    assert page.locator("#demo-added .demo-film").count() == 0
    assert page.locator("input:checked:not([name=demo-list])").count() == 0
    assert lists(page) == start


def test_nothing_jumps_and_a_phone_shows_one_list(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    page.evaluate(
        """() => {
            window.jumped = 0;
            new PerformanceObserver((list) => list.getEntries().forEach((e) => {
                window.jumped += e.value;
            })).observe({ type: "layout-shift", buffered: true });
        }"""
    )
    by_mouse(page, 0, 5)
    by_mouse(page, 2, 1)
    assert page.locator(".demo-list:visible").count() == 1
    peek = page.locator(".demo-peek")
    assert "2 ratings" in peek.inner_text()
    page.locator("label", has_text="Most yours").click()
    assert page.locator("#demo-list-yours").is_visible()
    expect(peek).to_be_hidden()  # the lists are in view
    page.wait_for_timeout(200)
    assert page.evaluate("window.jumped") < 0.05


def test_the_page_names_the_source_of_its_data(page: Page) -> None:
    said = page.locator("main").inner_text()
    assert "GroupLens" in said and load_movielens_100k(progress=False).citation in said
