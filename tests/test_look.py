"""The look: contrast, tables, panels, the learning path, what a shared link shows."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from bs4 import BeautifulSoup, Tag
from fontTools.ttLib import TTFont
from playwright.sync_api import Browser
from test_site import PAGES, SITE, browser, server, soup, unavailable

ROOT = Path(__file__).resolve().parents[1]
STYLE = (ROOT / "book/_static/metarec.css").read_text(encoding="utf-8")
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
# Parts that are worked through: all of their pages are notebooks.
PARTS = [
    [chapter["file"] for chapter in part["chapters"]]
    for part in TOC["parts"]
    if all((ROOT / f"{c['file']}.ipynb").exists() for c in part["chapters"])
]
CHAPTERS = [f"{page}.html" for part in PARTS for page in part]
START = "book/index.html"
__all__ = ["browser", "server"]


def extension(name: str) -> ModuleType:
    """Import an extension of the book."""
    sys.path.insert(0, str(ROOT / "book/_ext"))
    try:
        return __import__(name)
    finally:
        sys.path.pop(0)


def treated(markup: str, *steps: Callable[[Any], None]) -> str:
    """The text of a page after some of the steps of `metarec_book`."""
    article = BeautifulSoup(f"<article>{markup}</article>", "html.parser").article
    assert article is not None
    for step in steps:
        step(SimpleNamespace(article=article))
    return article.decode_contents()


def built(page: str) -> None:
    if page not in PAGES:
        unavailable(f"{page} is not built: make book")


def colours(theme: str) -> dict[str, str]:
    """The variables of one theme that are plain colours."""
    block = re.search(rf'html\[data-theme="{theme}"\] \{{(.*?)\n\}}', STYLE, re.DOTALL)
    assert block
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block.group(1)))


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of the luminances of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
        ]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_of_black_and_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_every_ground(theme: str) -> None:
    colour = colours(theme)
    hues = ["violet", "blue", "amber", "green"]
    grounds = ["paper", "panel"]
    pairs = [(text, ground) for text in ["ink", "soft", *hues] for ground in grounds]
    pairs += [("ink", f"{hue}-soft") for hue in hues]
    pairs += [(hue, f"{hue}-soft") for hue in hues]
    code = [name for name in colour if name.startswith("code-")]
    pairs += [(name, "code-ground") for name in ["ink", *code] if name != "code-ground"]
    pairs += [("pst-color-text-muted", ground) for ground in grounds]
    pale = {
        f"{text} on {ground}": ratio
        for text, ground in pairs
        if (ratio := round(contrast(colour[text], colour[ground]), 2)) < 4.5
    }
    assert pale == {}


def test_no_style_asks_another_host() -> None:
    asked = re.findall(r"""url\(["']?([^"')]+)""", STYLE)
    assert "@import" not in STYLE and len(asked) > 3
    assert [one for one in asked if not re.match(r"fonts/|han\.woff|data:", one)] == []


def test_a_table_gets_its_corner_and_its_numbers() -> None:
    plain = (
        '<table border="1" class="dataframe"><thead>'
        "<tr><th></th><th>rmse</th><th>note</th></tr>"
        "<tr><th>k</th><th></th><th></th></tr></thead><tbody>"
        "<tr><th>0</th><td>-1.01</td><td>a</td></tr>"
        "<tr><th>10</th><td>+.99</td><td>3</td></tr></tbody></table>"
    )
    better = treated(plain, extension("house_style").tables)
    head = better.split("</thead>")[0]
    assert head.count("<tr>") == 1 and '<th class="num" scope="col">k</th>' in head
    assert '<th class="num" scope="col">rmse</th>' in head
    assert '<th scope="col">note</th>' in head
    assert '<td class="num">+.99</td><td>3</td>' in better and "border" not in better


def test_a_corner_without_a_name_is_no_header() -> None:
    plain = "<table><thead><tr><th></th><th>a</th></tr></thead><tbody></tbody></table>"
    assert "<td></td>" in treated(plain, extension("house_style").tables)


@pytest.mark.site
@pytest.mark.parametrize("page", PAGES)
def test_no_header_cell_is_empty(page: str) -> None:
    empty = [
        str(cell.parent)[:200]
        for cell in soup(page).find_all("th")
        if not cell.get_text(strip=True) and not cell.find("img")
    ]
    assert empty == []


@pytest.mark.site
@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_opens_with_its_place_and_its_panel(page: str) -> None:
    built(page)
    number = CHAPTERS.index(page) + 1
    place = soup(page).select_one(".eyebrow")
    assert place and f"Chapter {number} of {len(CHAPTERS)}" in place.get_text(" ")
    panel = soup(page).select_one(".admonition-in-this-chapter")
    assert panel and panel.select(".opening-goals > li")
    labels = [term.get_text() for term in panel.select(".opening-facts > dt")]
    assert labels == ["You need", "Reading time", "Pieces of metarec built here"]
    for text in panel.select(".opening-facts > dd"):
        assert text.get_text(strip=True)[0] not in ":." and len(text.get_text()) > 2


@pytest.mark.site
@pytest.mark.parametrize("page", CHAPTERS)
def test_the_options_of_a_quiz_are_marked(page: str) -> None:
    built(page)
    options = soup(page).select("details.quiz-option")
    right = [option for option in options if "quiz-right" in option["class"]]
    assert 2 <= len(right) < len(options)
    for option in right:
        answer = option.select_one(".sd-summary-content")
        assert answer and answer.get_text(strip=True).startswith(("Yes", "Right"))


@pytest.mark.site
@pytest.mark.parametrize("page", [*CHAPTERS, START])
def test_the_sidebar_has_the_colours_of_the_parts(page: str) -> None:
    built(page)
    found = [
        at
        for at in range(1, len(PARTS) + 1)
        for caption in soup(page).select(f"nav.bd-links p.caption.part-{at}")
        if (chapters := caption.find_next_sibling("ul"))
        and len(chapters.select("li.toctree-l1")) == len(PARTS[at - 1])
    ]
    assert found == list(range(1, len(PARTS) + 1))
    for arrow in soup(page).select("nav.bd-links summary"):
        assert arrow.get("aria-label")


@pytest.mark.site
def test_the_map_leads_to_every_chapter_in_order() -> None:
    built(START)
    links = soup(START).select("nav.path a")
    assert [f"book/{link['href']}" for link in links] == CHAPTERS
    for link, page in zip(links, CHAPTERS, strict=True):
        title = soup(page).find("h1")
        name = link.select_one(".path-title")
        assert isinstance(title, Tag) and name
        assert title.get_text().rstrip("#") == name.get_text()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_map_is_readable_and_every_station_can_be_reached(
    server: str, browser: Browser, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto(server + START)
    found = page.evaluate(
        """() => [...document.querySelectorAll("nav.path a")].map(a => {
            a.focus();
            const box = a.getBoundingClientRect(), style = getComputedStyle(a);
            return {left: box.left, right: box.right, height: box.height,
                    size: parseFloat(style.fontSize), ring: style.outlineStyle,
                    focused: document.activeElement === a};
        })"""
    )
    page.close()
    assert len(found) == len(CHAPTERS)
    for station in found:
        assert station["focused"] and station["ring"] != "none"
        assert station["left"] >= 0 and station["right"] <= width
        assert station["size"] >= 15 and station["height"] >= 40


@pytest.mark.parametrize(("width", "shown"), [(1280, "wide"), (390, "tall")])
def test_one_picture_is_shown(
    server: str, browser: Browser, width: int, shown: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto(server + START)
    for kind in ("wide", "tall"):
        visible = page.locator(f"svg.three-maps--{kind}").is_visible()
        assert visible == (kind == shown)
    page.close()


@pytest.mark.site
@pytest.mark.parametrize("page", [*CHAPTERS, START])
def test_a_shared_link_shows_title_text_and_picture(page: str) -> None:
    built(page)
    found = {
        str(tag.get("property") or tag.get("name")): str(tag["content"])
        for tag in soup(page).find_all("meta", content=True)
    }
    title = soup(page).find("h1")
    assert isinstance(title, Tag)
    assert found["og:title"] == title.get_text().rstrip("#")
    assert 40 <= len(found["og:description"]) <= 200
    assert found["description"] == found["og:description"]
    assert found["twitter:card"] == "summary_large_image"
    card = (SITE / "_static/social-card.png").read_bytes()
    assert card[:4] == b"\x89PNG" and struct.unpack(">II", card[16:24]) == (1200, 630)
    assert found["og:image"].endswith("_static/social-card.png")
    # Nothing is claimed about an address that is not known.
    address = found["og:image"].removesuffix("_static/social-card.png")
    assert found.get("og:url") == (f"{address}{page}" if "://" in address else None)


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@github.com:Someone/course.git", "https://someone.github.io/course/"),
        ("https://github.com/a-b/c.d", "https://a-b.github.io/c.d/"),
        ("https://example.org/a/b.git", ""),
        (None, ""),
    ],
)
def test_the_address_comes_from_the_remote(
    tmp_path: Path, remote: str | None, address: str
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    if remote:
        command = ["git", "-C", str(tmp_path), "remote", "add", "origin", remote]
        subprocess.run(command, check=True)
    assert extension("remote").site_address(tmp_path) == address


@pytest.mark.site
def test_terms_in_another_script_share_one_section_of_the_index() -> None:
    headings = [heading.get_text() for heading in soup("genindex.html").select("h2")]
    assert len(headings) > 15
    assert [heading for heading in headings if not heading.isascii()] == headings[-1:]


def test_a_formula_keeps_its_comma() -> None:
    def keep(markup: str) -> str:
        return treated(markup, extension("house_style").punctuation)

    formula = r'<span class="math notranslate nohighlight">\(w\)</span>'
    assert keep(f"{formula}, then") == f'<span class="unbroken">{formula},</span> then'
    assert (
        keep(f"so ({formula} = 1)")
        == f'so <span class="unbroken">({formula}</span> = 1)'
    )
    for left in (f"{formula} and", "<span>x</span>,"):
        assert keep(left) == left


def test_every_chinese_term_can_be_drawn() -> None:
    """On any system: the subset in the site has each character of every page."""
    drawn = set(TTFont(ROOT / "book/_static/han.woff").getBestCmap())
    pages = [*(ROOT / "book").rglob("*.md"), *(ROOT / "book").rglob("*.ipynb")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    used = {one for one in text if "\u4e00" <= one <= "\u9fff"}
    assert len(used) > 50
    assert {one for one in used if ord(one) not in drawn} == set()


def test_the_panel_and_the_quiz_get_their_parts() -> None:
    panels = extension("panels")
    plain = (
        '<div class="admonition-in-this-chapter"><p class="admonition-title">In</p>'
        "<p><strong>You will</strong></p><ul><li>see</li></ul>"
        "<p><strong>Before:</strong> <a>it</a>. <strong>Time:</strong> 5 minutes.</p>"
        "<p><strong>Built <code>x</code> here:</strong> y.</p></div>"
    )
    shown = treated(plain, panels.opening)
    assert '<p class="opening-label"><strong>You will' in shown
    assert '<ul class="opening-goals"><li>' in shown
    assert "<dt>You need</dt><dd><p><a>it</a></p></dd>" in shown
    assert "<dt>Reading time</dt><dd><p>5 minutes</p></dd>" in shown
    assert '<dt class="opening-wide">Built <code>x</code> here</dt>' in shown
    other = '<div class="admonition-in-this-chapter"><ul><li>see</li></ul></div>'
    assert treated(other, panels.opening) == other
    option = '<details class="sd-dropdown"><div class="sd-summary-content">{}</div>'
    for answer, kind in (("Yes. So it is.", "right"), ("No, not so.", "wrong")):
        text = f'<section id="quiz">{option.format(answer)}</details></section>'
        assert f"sd-dropdown quiz-option quiz-{kind}" in treated(text, panels.quiz)


def test_the_glossary_gets_its_letters() -> None:
    terms = "".join(
        f'<dt id="term-{at}">{term}</dt>'
        for at, term in enumerate(
            ["lift", "\N{CJK UNIFIED IDEOGRAPH-63D0}", "Loss", "a"]
        )
    )
    shown = treated(f'<dl class="glossary">{terms}</dl>', extension("a_to_z").letters)
    links = '<a href="#term-3">A</a><a href="#term-0">L</a>'
    assert shown.startswith(
        f'<nav aria-label="Terms by letter" class="letters">{links}<'
    )
    other = "<dl><dt>a</dt></dl>"
    assert treated(other, extension("a_to_z").letters) == other


@pytest.mark.site
@pytest.mark.parametrize("page", [START, "genindex.html"])
def test_the_menu_has_the_index(page: str) -> None:
    built(page)
    entries = soup(page).select("nav.bd-links li.toctree-l1 > a")
    found = {one.get_text(strip=True): str(one["href"]) for one in entries}
    place = "#" if page == "genindex.html" else "../genindex.html"
    assert found["Index"] == place


def test_every_step_is_in_the_one_pass_and_no_other_handler_touches_a_page() -> None:
    """The order of what changes a page is in one list, not among priorities."""
    files = set((ROOT / "book/_ext").glob("*.py"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(files))
    assert text.count('connect("build-finished"') == 1
    assert 'connect("html-page-context"' not in text
    steps = extension("metarec_book").STEPS
    assert len(steps) == len(set(steps)) > 10
    taking_a_page = re.findall(r"^def (\w+)\(page: Page\) -> None", text, re.M)
    assert sorted(taking_a_page) == sorted(step.__name__ for step in steps)


@pytest.mark.site
def test_the_site_has_its_fonts() -> None:
    built(START)
    for file in re.findall(r'url\("(fonts/[^"]+)"\)', STYLE):
        font = TTFont(SITE / "_static" / file)
        assert {ord(one) for one in "aZ0\u00e9\u2212\u201c"} <= set(font.getBestCmap())
        assert [axis.axisTag for axis in font["fvar"].axes] == ["wght"]
        assert (SITE / "_static" / file).stat().st_size < 60_000
