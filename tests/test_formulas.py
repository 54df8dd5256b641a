"""Formulas in docstrings: found where they stand, and nowhere else."""

from __future__ import annotations

import re
import sys

import pytest
from test_book import ROOT, docstrings
from test_site import PAGES, SITE, Browser, browser, unavailable  # noqa: F401

sys.path.insert(0, str(ROOT / "book" / "_ext"))

from api import MODULES
from formulas import pieces


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("theta_0", r"\theta_{0}"),
        ("sigma^2", r"\sigma^{2}"),
        ("S^-1", "S^{-1}"),
        ("(Z'Z + R)^-1 Z'e", r"(Z^\top Z + R)^{-1} Z^\top e"),
        ("Phi' Phi", r"\Phi^\top \Phi"),
        ("w <- w - alpha o grad L(w)", r"w \leftarrow w - \alpha \circ \nabla L (w)"),
        ("r_hat_ui = mu + b_i", r"\hat{r}_{ui} = \mu + b_{i}"),
        ("p_u . q_i", r"p_{u} \cdot q_{i}"),
        ("e ~ N(0, sigma^2)", r"e \sim N (0,\, \sigma^{2})"),
        ("sum_{j in S} y_j", r"\sum_{j \in  S} y_{j}"),
        ("n_ij / (n_ij + 5)", r"\frac{n_{ij}}{n_{ij} + 5}"),
        ("Delta_m", r"\Delta_{m}"),
    ],
)
def test_a_formula_becomes_tex(text: str, tex: str) -> None:
    found = list(pieces(text))
    assert [piece.kind for piece in found] == ["math"]
    assert found[0].text == tex


@pytest.mark.parametrize(
    "text",
    [
        "A recommender that meets a new user with a prior and a few of their ratings.",
        "I rate a film, or an item; in 1997-98 there were 1,682 of them (see below).",
        "The mean and the variance, and the score of a user - at most 10 of them.",
        "Source: Hastie et al. (2009), sections 3.3, 4.5.",
    ],
)
def test_prose_stays_prose(text: str) -> None:
    assert [piece.kind for piece in pieces(text)] == ["text"]


def test_a_shape_is_code() -> None:
    kinds = [piece.kind for piece in pieces("of shape (B, dim + 1) each")]
    assert kinds == ["text", "code", "text"]


# Words or code stand on one side of the sign there: a sentence, not a formula.
SENTENCES = {
    "BothCold",
    "MetaMind",
    "Popularity",
    "Posterior",
    "TaskAttention",
    "list_tasks",
    "rank_catalogue",
    "tie_ceiling",
}


@pytest.mark.parametrize("module", MODULES)
def test_no_formula_stays_ascii(module: str) -> None:
    ascii_signs = re.compile(r" (=|<-|~|<=|>=) |\w\^[\w(-]|sum_|theta_")
    left = []
    for name, text in docstrings(module).items():
        # An indented paragraph with a statement in it is code.
        text = re.sub(r"^    with .*:\n(    .*\n)+", "", text, flags=re.M)
        text = re.sub(r"``[^`]+``|`[^`]+`|Source:[^\n]*", "", text)
        for piece in pieces(" ".join(text.split())):
            found = piece.kind == "text" and ascii_signs.search(piece.text)
            if found and name not in SENTENCES:
                left.append((name, piece.text))
    assert left == []


def test_mathjax_renders_every_formula(
    browser: Browser,  # noqa: F811
) -> None:
    pages = [page for page in PAGES if page.startswith("book/reference/api")]
    if not pages:
        unavailable("the site is not built: make book")
    for name in pages:
        page = browser.new_page()
        page.goto((SITE / name).as_uri(), wait_until="load")
        page.evaluate("window.MathJax?.startup?.promise")
        errors = page.locator("mjx-merror, [data-mml-node=merror]")
        assert errors.count() == 0, f"{name}: {errors.first.inner_text()}"
        page.close()
