"""The built site, opened in a browser: quiet, self-contained, and fit for a phone."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

pytestmark = pytest.mark.site

SITE = Path(__file__).resolve().parents[1] / "_build" / "html"
PAGES = sorted(
    name
    for path in SITE.rglob("*.html")
    # The theme leaves two templates among its static files.
    if not (name := path.relative_to(SITE).as_posix()).startswith("_static/")
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
ON_CI = os.environ.get("CI", "").lower() == "true"


def unavailable(reason: str) -> None:
    """Skip, but not in continuous integration: there a check that cannot run fails."""
    if ON_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def soup(page: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if not PAGES:
        unavailable("the site is not built: make book")
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        unavailable("no chromium here: the built pages are not opened")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


def test_the_site_is_built() -> None:
    if not PAGES:
        unavailable("the site is not built: make book")
    assert "index.html" in PAGES and "book/index.html" in PAGES


def overflow(page: Page) -> list[str]:
    """Elements that stick out of the page to the right; empty if it does not scroll."""
    return page.evaluate(
        """() => {
            const root = document.documentElement;
            if (root.scrollWidth <= root.clientWidth) return [];
            return [...document.querySelectorAll("main *")]
                .filter(e => e.getBoundingClientRect().right > root.clientWidth + 1)
                .slice(0, 5).map(e => e.outerHTML.slice(0, 120))
                .concat([`${root.scrollWidth} > ${root.clientWidth}`]);
        }"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_quiet_self_contained_and_fits(
    server: str, browser: Browser, width: int, scheme: str
) -> None:
    wrong: list[str] = []
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme
    )
    page = context.new_page()

    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            wrong.append(f"{page.url}: console {message.type}: {message.text}")

    def asked(request: Request) -> None:
        if not request.url.startswith((server, "data:", "blob:")):
            wrong.append(f"{page.url}: asks for {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on("request", asked)
    page.on("requestfailed", lambda r: wrong.append(f"{page.url}: no {r.url}"))
    for name in PAGES:
        page.goto(server + name, wait_until="networkidle")
        if name == "index.html":
            page.wait_for_url(server + "book/index.html")
        page.evaluate("window.MathJax?.startup?.promise")
        theme = page.evaluate("document.documentElement.dataset.theme")
        if theme != scheme:
            wrong.append(f"{name}: the theme is {theme} where {scheme} is preferred")
        wrong += [f"{name} at {width} px: {what}" for what in overflow(page)]
        wrong += [
            f"{name}: a formula does not parse: {text}"
            for text in page.locator("mjx-merror").all_text_contents()
        ]
    context.close()
    assert wrong == []


def anchors(page: str) -> set[str]:
    return {str(tag["id"]) for tag in soup(page).find_all(id=True)}


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_site_resolve(page: str) -> None:
    base = "http://site.invalid/"
    broken = []
    for tag in soup(page).find_all(["a", "link", "script", "img"]):
        target = tag.get("href") or tag.get("src")
        if not target or target == "#" or target.startswith(("data:", "mailto:")):
            continue
        address, anchor = urldefrag(urljoin(f"{base}{page}", str(target)))
        if not address.startswith(base):
            continue
        name = unquote(urlsplit(address).path).lstrip("/")
        if not (SITE / name).is_file() or (
            anchor and name.endswith(".html") and unquote(anchor) not in anchors(name)
        ):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_images_have_alternative_text(page: str) -> None:
    silent = [
        str(image)[:150]
        for image in soup(page).find_all("img")
        if not str(image.get("alt", "")).strip()
        # myst-nb names an image after its file where a cell says nothing.
        or str(image.get("alt")).endswith((".png", ".svg"))
    ]
    assert silent == []
    for drawing in soup(page).find_all("svg", role="img"):
        assert drawing.find("title") or drawing.get("aria-label")
