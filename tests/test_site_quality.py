"""The built site is light, quick, and usable without a mouse or without sight."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import matplotlib.pyplot as plt
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page
from test_book import load
from test_site import PAGES, SITE, browser, server  # noqa: F401 (fixtures)

# Bytes of a page and all that it loads, but for the mathematics, as a server sends
# them: a second of a line of 10 megabits. A second page has most of them already.
LARGEST = 1_250_000
# The theme draws its icons with a font of its own.
ICONS = "/vendor/fontawesome/webfonts/fa-solid-900.woff2"
# What a page asks for, and what it gives the browser's main thread to do: scripts to
# run, nodes to style and to lay out. Seconds would say how busy the machine is, and so
# would the number of layouts, since a slow machine does more of them.
MOST = {"requests": 60, "bytes of scripts": 1_000_000, "nodes": 50_000}


# What the theme, or an extension, does, and we cannot change from here.
OF_THE_THEME = {
    "label-content-name-mismatch",
    "region",
    "aria-required-children",
    "aria-allowed-role",
}


# Formulas are drawings with a text of their own, and code has the same colours on every
# page: axe measures the contrast of each of their thousands of parts.
FORMULAS, CODE = ["mjx-container"], ["div.highlight"]
WITH_CODE = "book/learning-to-learn/inner-loop.html"


@pytest.fixture
def desktop(browser: Browser) -> Page:  # noqa: F811
    context = browser.new_context(viewport={"width": 1280, "height": 844})
    yield context.new_page()
    context.close()


def opened(page: Page, address: str) -> tuple[set[str], int]:
    """Open an address in a page of its own: the paths asked for, and its nodes."""
    asked = set[str]()
    page.on("request", lambda request: asked.add(urlsplit(request.url).path))
    page.goto(address, wait_until="networkidle")
    page.locator("h1:visible").first.wait_for()  # another is for print
    counters = page.context.new_cdp_session(page).send("Memory.getDOMCounters")
    return asked, counters["nodes"]


@cache
def sent(file: Path) -> int:
    """Bytes of a file as a server sends it: what is text goes compressed."""
    data = file.read_bytes()
    return min(len(gzip.compress(data)), len(data))


def size(paths: Iterable[str]) -> int:
    """Bytes of a page's files, as a server sends them."""
    files = [SITE / path.lstrip("/") for path in paths]
    return sum(sent(file) for file in files if file.is_file())


def has_han(name: str) -> bool:
    """Tell whether a page has a Chinese character."""
    text = (SITE / name).read_text(encoding="utf-8")
    return any("\u4e00" <= one <= "\u9fff" for one in text)


def test_every_page_is_light_and_quick(server: str, desktop: Page) -> None:  # noqa: F811
    """Bytes, requests and work, each page by itself, and none of it in seconds."""
    complaints = []
    for name in PAGES:
        if name == "index.html":
            continue
        page = desktop.context.new_page()  # the page before asks for nothing here
        asked, nodes = opened(page, server + name)
        page.close()
        weight = size(path for path in asked if "mathjax" not in path)
        scripts = size(path for path in asked if path.endswith(".js"))
        work = zip(MOST, (len(asked), scripts, nodes), strict=True)
        fonts = {p for p in asked if p.endswith((".woff", ".woff2", ".ttf"))}
        spare = [
            *(
                p
                for p in fonts
                if "/_static/fonts/" not in p and "/han." not in p and ICONS not in p
            ),
            *(p for p in fonts if "/han." in p and not has_han(name)),
            *(p for p in asked if "searchindex" in p and name != "search.html"),
        ]
        if spare:
            complaints.append(f"{name}: needs no {spare}")
        if weight > LARGEST:
            complaints.append(f"{name}: {weight / 1e6:.2f} MB")
        complaints += [
            f"{name}: {count:,} {what}, at most {MOST[what]:,}"
            for what, count in work
            if count > MOST[what]
        ]
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    server: str,  # noqa: F811
    browser: Browser,  # noqa: F811
    scheme: str,
) -> None:
    context = browser.new_context(
        viewport={"width": 1280, "height": 844}, color_scheme=scheme
    )
    page, axe, found = context.new_page(), Axe(), []
    for name in PAGES:
        if name == "index.html":
            continue
        page.goto(server + name, wait_until="networkidle")
        left_out = [FORMULAS] if name == WITH_CODE else [FORMULAS, CODE]
        result = axe.run(
            page, context={"exclude": left_out}, options={"resultTypes": ["violations"]}
        )
        found += [
            f"{name}: {one['id']} ({one['impact']}): {one['nodes'][0]['html'][:160]}"
            for one in result.response["violations"]
            if one["impact"] in {"serious", "critical"}
            and one["id"] not in OF_THE_THEME
        ]
    context.close()
    assert found == []


@pytest.mark.parametrize("over_http", [True, False])
def test_the_search_of_a_chapter_finds_a_word(
    server: str,  # noqa: F811
    desktop: Page,
    over_http: bool,
) -> None:
    desktop.goto((server if over_http else f"{SITE.as_uri()}/") + WITH_CODE)
    desktop.locator("button.search-button__button:visible").first.click()
    desktop.locator("#pst-search-dialog input[type=search]").fill("whitening")
    desktop.keyboard.press("Enter")
    desktop.wait_for_url("**/search.html?q=whitening*")
    first = desktop.locator("ul.search li a").first
    first.wait_for()
    addresses = [
        link.get_attribute("href") or ""
        for link in desktop.locator("ul.search li > a").all()
    ]
    assert any("meta-sgd.html" in address for address in addresses)


def test_a_phone_shows_figures_whole_and_says_what_scrolls(
    server: str,  # noqa: F811
    browser: Browser,  # noqa: F811
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(server + WITH_CODE, wait_until="networkidle")
    figure = page.locator("div.cell_output a img").first
    assert 300 <= figure.bounding_box()["width"] <= 390
    code = page.locator("pre.overflows:visible").first
    code.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("box => box.scrollLeft > 0", arg=code.element_handle())
    # Whatever scrolls sideways has the shadow, and can be reached with the keyboard.
    hidden = page.evaluate(
        """() => [...document.querySelectorAll(".bd-article *")].filter(one => {
            const style = getComputedStyle(one);
            return /auto|scroll/.test(style.overflowX)
                && one.scrollWidth > one.clientWidth + 1
                && one.checkVisibility()
                && (!style.backgroundAttachment.includes("local") || one.tabIndex < 0);
        }).map(one => one.outerHTML.slice(0, 120))"""
    )
    context.close()
    assert hidden == []


def test_the_dark_keeps_the_hues_of_a_figure(
    server: str,  # noqa: F811
    browser: Browser,  # noqa: F811
) -> None:
    """Dots that are blue on white are blue on the dark, and the paper is the page's."""
    shots = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(
            viewport={"width": 1280, "height": 844}, color_scheme=scheme
        )
        page = context.new_page()
        page.goto(server + WITH_CODE, wait_until="networkidle")
        drawn = page.locator("div.cell_output img").first.screenshot()
        shots[scheme] = np.asarray(Image.open(io.BytesIO(drawn)).convert("HSV"), int)
        context.close()
    light, dark = shots["light"], shots["dark"]
    assert np.median(light[..., 2]) > 250 and np.median(dark[..., 2]) < 40
    vivid = (light[..., 1] > 200) & (light[..., 2] > 100)
    assert vivid.sum() > 500
    turn = np.abs(light[..., 0] - dark[..., 0])[vivid]
    assert np.percentile(np.minimum(turn, 256 - turn), 95) < 20


def test_a_figure_is_sharp_and_opens_large(
    server: str,  # noqa: F811
    desktop: Page,
) -> None:
    desktop.goto(server + WITH_CODE, wait_until="networkidle")
    figures = desktop.locator("div.cell_output img")
    sizes = figures.evaluate_all(
        "all => all.map((one) => [one.naturalWidth, one.style.width, "
        "one.closest('a')?.href === one.src])"
    )
    assert len(sizes) > 5
    for pixels, shown, linked in sizes:
        assert abs(pixels / 2 - float(shown.removesuffix("px"))) <= 1 and linked


def test_a_packed_figure_is_the_same_picture_in_fewer_bytes() -> None:
    smaller = load("book/_ext/figures.py").smaller
    figure, axes = plt.subplots()
    axes.imshow(np.linspace(0, 1, 200).reshape(10, 20), cmap="viridis")
    axes.set_title("a title, and a map of colours")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    packed = smaller(drawn.getvalue())
    before, after = (
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)
        for data in (drawn.getvalue(), packed)
    )
    assert before.shape == after.shape
    assert np.abs(before - after).mean() < 1
    assert len(packed) < 0.7 * len(drawn.getvalue())
    assert smaller(packed) == packed
