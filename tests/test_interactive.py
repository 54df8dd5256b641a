"""The small figures with sliders: right numbers, and usable without a mouse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page
from test_site import SITE, browser, overflow, unavailable  # noqa: F401 (a fixture)

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "inner-rate": "book/learning-to-learn/inner-loop",
    "prior-variance": "book/three-maps/bayesian",
    "task-attention": "book/three-maps/metamind",
}


class Figure:
    """A figure in an open page."""

    def __init__(self, page: Page, name: str) -> None:
        self.page, self.name = page, name
        self.box = page.locator(f".live-{name}")
        self.sliders = self.box.locator("input[type=range]").all()

    def data(self, name: str) -> dict[str, Any]:
        """The numbers that the script holds."""
        found = self.page.evaluate(f"window.METAREC_FIGURES.data.{name}")
        return {key: np.array(value) for key, value in found.items()}

    def move(self, *values: float) -> dict[str, Any]:
        """Set the sliders; return what the figure says of it, with all digits."""
        for slider, value in zip(self.sliders, values, strict=True):
            slider.fill(str(value))
        return self.result()

    def result(self) -> dict[str, Any]:
        return json.loads(self.box.get_attribute("data-result") or "")


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def opened(
    browser: Browser,  # noqa: F811
    name: str,
    **options: Any,
) -> Iterator[Figure]:
    """A figure on its page, from the disk; at the end it must not have complained."""
    path = SITE / f"{PAGES[name]}.html"
    if not path.exists():
        unavailable("the site is not built: make book")
    wrong: list[str] = []
    settings = {"viewport": {"width": 1280, "height": 900}} | options
    context = browser.new_context(**settings)
    page = context.new_page()

    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            wrong.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(path.as_uri())
    page.locator(f".live-{name}.is-live").wait_for()
    yield Figure(page, name)
    context.close()
    assert wrong == []


@pytest.fixture
def inner(browser: Browser) -> Iterator[Figure]:  # noqa: F811
    yield from opened(browser, "inner-rate")


@pytest.fixture
def prior(browser: Browser) -> Iterator[Figure]:  # noqa: F811
    yield from opened(browser, "prior-variance")


@pytest.fixture
def attention(browser: Browser) -> Iterator[Figure]:  # noqa: F811
    yield from opened(browser, "task-attention")


def test_the_path_is_gradient_descent(inner: Figure) -> None:
    data = inner.data("inner")
    phi = np.stack([np.ones(len(data["trait"])), data["trait"]], 1)
    limit = 2 / np.linalg.eigvalsh(phi.T @ phi)[-1]
    for rate, steps in [(0, 9), (0.06, 0), (0.06, 5), (0.2, 12), (0.3, 20), (0.36, 30)]:
        w = np.zeros(2)
        for _ in range(steps):
            w -= rate * phi.T @ (phi @ w - data["surprise"])
        loss = 0.5 * np.square(phi @ w - data["surprise"]).sum()
        found = inner.move(rate, steps)
        np.testing.assert_allclose(found["path"], w, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found["loss"], loss, rtol=1e-6)
        np.testing.assert_allclose(found["limit"], limit, rtol=1e-9)


def test_beyond_the_limit_the_steps_leave(inner: Figure) -> None:
    limit = inner.result()["limit"]
    rates = [0.005 * round(share * limit / 0.005) for share in (0.95, 1.05)]
    assert rates[0] < limit < rates[1]
    below, above = (
        [inner.move(rate, steps)["loss"] for steps in (0, 30)] for rate in rates
    )
    assert below[1] < 0.5 * below[0] and above[1] > 2 * above[0]
    assert "overshoots further" in inner.box.locator(".live-result").inner_text()


def test_what_diverges_is_called_so_and_leaves_the_axes_alone(inner: Figure) -> None:
    data = inner.data("inner")
    phi = np.stack([np.ones(len(data["trait"])), data["trait"]], 1)
    said, flag = (inner.box.locator(name) for name in (".live-result", ".live-flag"))
    ticks = inner.box.locator("svg.live-wide .live-tick")
    before = ticks.all_inner_texts()
    inner.move(0.2, 30)
    assert "diverges" not in said.inner_text() and "outside" not in said.inner_text()
    assert flag.count() == 0
    inner.move(0.36, 30)
    w, step = np.zeros(2), 0
    while abs(w[0]) <= 2 and -0.8 <= w[1] <= 3.2:
        w -= 0.36 * phi.T @ (phi @ w - data["surprise"])
        step += 1
    assert "it diverges" in said.inner_text() and "over 100 after" in said.inner_text()
    assert f"Step {step} is the first outside" in said.inner_text()
    assert flag.text_content() == "diverges"
    assert ticks.all_inner_texts() == before


def test_a_drawn_contour_is_a_line_of_equal_loss(inner: Figure) -> None:
    data = inner.data("inner")
    phi = np.stack([np.ones(len(data["trait"])), data["trait"]], 1)
    best = np.linalg.lstsq(phi, data["surprise"], rcond=None)[0]
    least = 0.5 * np.square(phi @ best - data["surprise"]).sum()
    # Where the lines of the grid say that -2 and 2, 0 and 3 are.
    lines = inner.box.locator("svg.live-wide .live-grid").evaluate_all(
        "all => all.map(e => ['x1', 'x2', 'y1', 'y2'].map(k => e[k].baseVal.value))"
    )
    across = [x1 for x1, x2, _, _ in lines if x1 == x2]
    down = [y1 for _, _, y1, y2 in lines if y1 == y2]
    drawn = inner.box.locator(".live-contour").evaluate_all(
        """all => all.filter(e => e.tagName === "ellipse").map(
            e => [0.1, 0.35, 0.7, 0.9].map(share => {
                const point = e.getPointAtLength(share * e.getTotalLength());
                const turn = e.transform.baseVal.consolidate().matrix;
                const moved = point.matrixTransform(turn);
                return [moved.x, moved.y];
            })
        )"""
    )
    assert len(drawn) == 10
    for curve in drawn:
        w = np.array(curve)
        w = np.stack(
            [
                -2 + 4 * (w[:, 0] - across[0]) / (across[-1] - across[0]),
                3 * (w[:, 1] - down[0]) / (down[-1] - down[0]),
            ],
            1,
        )
        excess = 0.5 * np.square(w @ phi.T - data["surprise"]).sum(1) - least
        np.testing.assert_allclose(excess, excess.mean(), rtol=2e-3)


def test_the_posterior_is_the_closed_form(prior: Figure) -> None:
    data = prior.data("prior")
    for logarithm, k in [(-2, 1), (-0.5, 0), (-0.5, 5), (0.3, 15), (1, 1)]:
        phi, error = data["trait"][:k], data["surprise"][:k]
        variance = 1 / (10.0**-logarithm + phi @ phi / data["noise"] ** 2)
        mean = variance * phi @ error / data["noise"] ** 2
        found = prior.move(logarithm, k)
        assert abs(found["mean"] - mean) < 1e-6
        assert abs(found["sd"] - np.sqrt(variance)) < 1e-6
        if k:
            assert abs(found["alone"] - phi @ error / (phi @ phi)) < 1e-6
        else:
            assert found["alone"] is None


def test_what_the_prior_decides(prior: Figure) -> None:
    taste = prior.data("prior")["taste"]
    narrow, wide = (prior.move(logarithm, 1)["mean"] for logarithm in (-2, 1))
    assert narrow < 0.1 and wide > taste + 0.8
    found = [prior.move(logarithm, 15)["mean"] for logarithm in (-0.5, 1)]
    assert max(abs(one - taste) for one in found) < 0.25


def test_attention_is_a_softmax(attention: Figure) -> None:
    data = attention.data("slots")
    for code in [(0, 0), (0, 1), (-0.5, 0.3), (1, -1), (0.02, 0)]:
        raw = np.exp(data["keys"] @ np.array(code) + data["bias"])
        weights = raw / raw.sum()
        found = attention.move(*code)
        np.testing.assert_allclose(found["weights"], weights, atol=1e-6)
        start = data["start"] + weights @ data["deltas"]
        np.testing.assert_allclose(found["start"], start, atol=1e-6)


def test_the_code_can_be_dragged(attention: Figure) -> None:
    handle = attention.box.locator(".live-handle")
    handle.scroll_into_view_if_needed()
    before = handle.bounding_box()
    assert before is not None
    mouse = attention.page.mouse
    x, y = before["x"] + before["width"] / 2, before["y"] + before["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 30, y - 60, steps=4)
    mouse.up()
    mouse.move(x, y)
    after = handle.bounding_box()
    assert after is not None
    assert abs(after["x"] - before["x"] - 30) < 3
    assert abs(after["y"] - before["y"] + 60) < 3
    code = [float(slider.input_value()) for slider in attention.sliders]
    assert code[0] > 0.1 and code[1] > 0.3
    assert attention.result()["weights"][0] > 0.5


@pytest.mark.parametrize("name", PAGES)
def test_the_keyboard_moves_it_and_the_result_is_read_out(
    browser: Browser,  # noqa: F811
    name: str,
) -> None:
    for figure in opened(browser, name, reduced_motion="reduce"):
        heard = figure.box.locator("[aria-live=polite]")
        for slider in figure.sliders:
            label = figure.box.locator(f"label[for={slider.get_attribute('id')}]")
            assert label.inner_text().strip()
            slider.focus()
            before, said = figure.result(), heard.text_content()
            shown = slider.get_attribute("aria-valuetext")
            figure.page.keyboard.press("ArrowRight")
            assert figure.result() != before
            assert slider.get_attribute("aria-valuetext") != shown
            figure.page.wait_for_timeout(700)
            assert heard.text_content() != said
            assert heard.text_content() == (
                figure.box.locator(".live-result").text_content()
            )
            ring = slider.evaluate("e => getComputedStyle(e).outlineStyle")
            assert ring == "solid"


@pytest.mark.parametrize("name", PAGES)
def test_it_fits_a_phone(
    browser: Browser,  # noqa: F811
    name: str,
    scheme: str,
) -> None:
    size = {"width": 390, "height": 844}
    for figure in opened(browser, name, viewport=size, color_scheme=scheme):
        assert overflow(figure.page) == []
        box = figure.box.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390
        small = figure.box.locator("svg text").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect().height)"
        )
        assert min(small) >= 8


@pytest.mark.site
def test_only_pages_with_a_figure_load_the_script() -> None:
    pages = list((SITE / "book").rglob("*.html"))
    if not pages:
        unavailable("the site is not built: make book")
    loading = {
        path.relative_to(SITE).with_suffix("").as_posix()
        for path in pages
        if "figures.js" in path.read_text(encoding="utf-8")
    }
    assert loading == set(PAGES.values())


@pytest.mark.parametrize(("name", "page"), PAGES.items())
def test_a_prediction_is_asked_for_before_the_figure(name: str, page: str) -> None:
    cells = nbformat.read(ROOT / f"{page}.ipynb", as_version=4).cells
    (text,) = [c.source for c in cells if f"{{interactive}} {name}" in c.source]
    before = text.partition("```{interactive}")[0]
    assert "Before you" in before and "?" in before
