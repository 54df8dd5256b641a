"""Numbers on the site are in one style."""

from __future__ import annotations

import re
from copy import copy

import pytest
from bs4 import BeautifulSoup
from test_look import built, extension, treated
from test_site import PAGES, soup

style = extension("house_style")


def restyle(markup: str) -> str:
    return treated(markup, style.plurals, style.numbers)


def same(markup: str) -> str:
    """Markup as the parser writes it."""
    return str(BeautifulSoup(markup, "html.parser"))


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("<p>-0.003</p>", "<p>\u22120.003</p>"),
        ("<p>from .50 to .9</p>", "<p>from 0.50 to 0.9</p>"),
        ("<td>-.5</td>", "<td>\u22120.5</td>"),
        ("<td>-0.000</td>", "<td>0.000</td>"),
        ("<td>-0.0004</td>", "<td>\u22120.0004</td>"),
        (
            "<p>-0.01 [-0.02, +0.03]</p>",
            '<p>\u22120.01 <span class="unbroken">[\u22120.02, +0.03]</span></p>',
        ),
        (
            "<td>1.27 \u00b1 0.03</td>",
            '<td><span class="unbroken">1.27 \u00b1 0.03</span></td>',
        ),
        ('<p><a href="x">term</a>s</p>', '<p><a href="x">terms</a></p>'),
        # Left as they are: words, dates, ranges, versions, names, code and formulas.
        *(
            (left, left)
            for left in (
                "<p>MovieLens-100K, 2-1, 2015-12-01, 1.0.4, u1.base, a-b</p>",
                "<code>x = -1 + .5</code>",
                "<pre><span>-1</span> .5</pre>",
                '<span class="math notranslate">\\(-1\\)</span>',
                "<svg><text>-1</text><g><path d='M-1 .5'/></g></svg>",
                '<img alt="-1" style="width: .5px">',
                "<p>10.1145/2827872 and (5)-3</p>",
            )
        ),
    ],
)
def test_a_number_in_style(printed: str, shown: str) -> None:
    assert restyle(printed) == same(shown)
    assert restyle(shown) == same(shown) or "unbroken" in shown


def test_what_follows_code_is_treated_again() -> None:
    text = '<pre>-1</pre>-1<span class="math x"><span>-1</span>-1</span>-1'
    minus = "\u22121"
    assert restyle(text) == text.replace("</pre>-1", f"</pre>{minus}").replace(
        "</span>-1</span>-1", f"</span>-1</span>{minus}"
    )


@pytest.mark.site
def test_no_page_shows_a_hyphen_for_a_minus() -> None:
    built("book/index.html")
    found = []
    for name in PAGES:
        page = copy(soup(name))  # other tests read the same one
        for part in page.select("pre, code, script, style, svg, .math, .math-wrapper"):
            part.decompose()
        if article := page.select_one("article.bd-article"):
            text = article.get_text(" ")
            found += [(name, m) for m in re.findall(r"(?<=\s)-\.?\d+\S*", text)]
    assert found == []
