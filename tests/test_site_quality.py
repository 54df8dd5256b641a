"""The built site is light, quick, and usable without a mouse or without sight."""

from __future__ import annotations

import io
import time
from urllib.parse import urlsplit

import matplotlib.pyplot as plt
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page
from test_book import load
from test_site import PAGES, SITE, browser, server  # noqa: F401 (fixtures)

# Bytes of a page and all that it loads, but for the mathematics. The aim is 1.5
# million; what stands between is the theme's icon font and the search index.
LARGEST = 1_800_000
SLOWEST = 2.0  # seconds until a page can be read

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


def until_readable(page: Page, address: str, asked: set[str]) -> float:
    """Open a page; the seconds until its text is there. It fills ``asked``."""
    asked.clear()
    start = time.perf_counter()
    page.goto(address, wait_until="domcontentloaded")
    page.locator("h1:visible").first.wait_for()  # another is for print
    seconds = time.perf_counter() - start
    page.wait_for_load_state("networkidle")
    return seconds


def test_every_page_is_light_and_quick(server: str, desktop: Page) -> None:  # noqa: F811
    """Bytes as they lie on the disk, and the time until the text is there."""
    complaints, asked = [], set[str]()
    desktop.on("request", lambda request: asked.add(urlsplit(request.url).path))
    for name in PAGES:
        if name == "index.html":
            continue
        seconds = until_readable(desktop, server + name, asked)
        if seconds > SLOWEST:  # the first page starts the browser: once more
            seconds = until_readable(desktop, server + name, asked)
        files = [SITE / path.lstrip("/") for path in asked if "mathjax" not in path]
        weight = sum(file.stat().st_size for file in files if file.is_file())
        if weight > LARGEST:
            complaints.append(f"{name}: {weight / 1e6:.2f} MB")
        if seconds > SLOWEST:
            complaints.append(f"{name}: {seconds:.1f} s until it can be read")
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


def test_a_packed_figure_is_the_same_picture_in_fewer_bytes() -> None:
    smaller = load("book/_ext/small_figures.py").smaller
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
