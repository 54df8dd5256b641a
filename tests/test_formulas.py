"""Formulas in docstrings: found where they stand, and nowhere else."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

import pytest
from test_book import ROOT, docstrings
from test_site import PAGES, SITE, Browser, browser, unavailable  # noqa: F401

sys.path.insert(0, str(ROOT / "book" / "_ext"))

from api import MODULES
from formulas import FUNCTIONS, GREEK, pieces


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
        # A fraction keeps all that it is made of.
        (
            "(sum_{j<=n} 1 / log2(j + 1)) / ideal",
            r"\frac{\sum_{j\le n} \frac{1}{\log_2 (j + 1)}}{\text{ideal}}",
        ),
        ("1 / log2(j) / ideal", r"\frac{1}{\log_2 (j)} / \text{ideal}"),
        ("R / C * (n + 1) / g", r"\frac{R}{C} \, \frac{n + 1}{g}"),
        ("min(n, C) / C", r"\frac{\min (n,\, C)}{C}"),
        ("log (n + a) / (n_i + a)", r"\log \frac{n + a}{n_{i} + a}"),
        ("sum_i (r - mu) / (n + 5)", r"\sum_{i} \frac{r - \mu}{n + 5}"),
        ("sum_r n_r g_r / sum_r n_r", r"\frac{\sum_{r} n_{r} g_{r}}{\sum_{r} n_{r}}"),
        ("1/2 |w|^2", r"\frac{1}{2} \lvert w\rvert ^{2}"),
        # Words stand apart.
        (
            "c = mean gain / ideal DCG@k",
            r"c = \frac{\text{mean}\ \text{gain}}{\text{ideal}\ \text{DCG@}k}",
        ),
        ("log(2 pi variance)", r"\log (2 \pi \, \text{variance})"),
        ("1/2 mean_i r_i", r"\frac{1}{2} \, \text{mean}_{i} \, r_{i}"),
        ("i + c * n_items", r"i + c \, n_{\text{items}}"),
        # What goes on, or is given, belongs to the formula.
        ("p_(1) >= p_(2) >= ...", r"p_{(1)} \ge p_{(2)} \ge \ldots"),
        (
            "offset_i + z_i . E[w_u | support]",
            r"\text{offset}_{i} + z_{i} \cdot E [w_{u} \mid \text{support}]",
        ),
        ("-log p(click)", r"- \log p (\text{click})"),
        ("theta_0(task)", r"\theta_{0} (\text{task})"),
        ("(k + 10)^-0.8", "(k + 10)^{-0.8}"),
        ("2^(-age / h)", r"2^{- \text{age} / h}"),
        ("tau^2 I", r"\tau^{2} I"),
        ("A = a I", "A = a I"),
        ("C <- A C A'", r"C \leftarrow A C A^\top"),
    ],
)
def test_a_formula_becomes_tex(text: str, tex: str) -> None:
    found = list(pieces(text))
    assert [piece.kind in ("math", "display") for piece in found] == [True]
    assert found[0].text == tex


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("(n - a) / g, a the number of items above", [r"\frac{n - a}{g}", "a"]),
        ("with A the task-learner, S_u the support", ["A", "S_{u}"]),
        ("fitted without u's ratings", ["u"]),
        ("a user meets a w_t that drifts", ["w_{t}"]),
    ],
)
def test_a_letter_is_a_symbol_where_it_is_no_article(
    text: str, symbols: list[str]
) -> None:
    assert [piece.text for piece in pieces(text) if piece.kind != "text"] == symbols


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


# All docstrings of the package, those of methods included.


def documented(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Public names in some statements, and their docstrings."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
            yield prefix + node.name, ast.get_docstring(node) or ""
            if isinstance(node, ast.ClassDef):
                yield from documented(node.body, f"{prefix}{node.name}.")


def paragraphs(module: str) -> list[tuple[str, str]]:
    """What the grammar is given of a module: no code, no sources, name by name."""
    place = ROOT / "metarec" / module
    files = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
    texts = [pair for f in files for pair in documented(ast.parse(f.read_text()).body)]
    found = []
    for name, text in [*texts, *docstrings(module).items()]:
        # An indented paragraph with a statement in it is code.
        text = re.sub(r"^    with .*:\n(    .*\n)+", "", text, flags=re.M)
        text = re.sub(r"``[^`]+``|`[^`]+`", "CODE", text)
        text = re.sub(r"^(Source|Built in|Plumbing):[^\n]*", "\n\n", text, flags=re.M)
        found += [(name, " ".join(p.split())) for p in re.split(r"\n\s*\n", text)]
    return found


def formulas(module: str) -> Iterator[tuple[str, str]]:
    for name, text in paragraphs(module):
        for piece in pieces(text):
            if piece.kind in ("math", "display"):
                yield name, piece.text


# A count of words on one side of the sign, or a name in code: no formula.
SENTENCES = {
    "BothCold",
    "rank_catalogue",
    "list_tasks",
    "Posterior",
    "Posterior.update",
}


@pytest.mark.parametrize("module", MODULES)
def test_no_formula_stays_ascii(module: str) -> None:
    signs = re.compile(r" (=|<-|~|<=|>=) |\w\^[\w(-]|\)\^|sum_|theta_|-log")
    left = []
    for name, text in paragraphs(module):
        for piece in pieces(text):
            found = piece.kind == "text" and signs.search(piece.text)
            if found and name not in SENTENCES:
                left.append((name, piece.text))
    assert left == []


@pytest.mark.parametrize("module", MODULES)
def test_no_symbol_stands_in_prose(module: str) -> None:
    """A single letter is a symbol, but for the article, and a capital A begins."""
    letter = (
        r"(?<![\w'.@\N{EN DASH}-])([B-HJ-Zb-z]|(?<=[a-z,] )[AI]|a(?= the| and | =|,))"
    )
    lone = re.compile(letter + r"(?![\w'.-])")
    left = []
    for name, text in paragraphs(module):
        for piece in pieces(text):
            if piece.kind == "text" and lone.search(piece.text):
                left.append((name, piece.text))
    assert left == []


@pytest.mark.parametrize("module", MODULES)
def test_code_with_quotation_marks_is_marked_as_code(module: str) -> None:
    """Typography curls the marks of prose."""
    quoted = re.compile(r'[\[{(=]"|"[\]}:]')
    assert [pair for pair in paragraphs(module) if quoted.search(pair[1])] == []


OPERATORS = "leftarrow|sim|le|ge|pm|cdot|circ|mid|ldots|left|right|lvert|rvert|,| "
SIGNS = re.compile(
    rf"\\(?:(?:{OPERATORS})(?![a-z])|(?:sum|log_2|log|exp|min|max|nabla|sin)"
    r"(?![a-z])(?:_\{[^{}]*\})?|operatorname\*?\{[^{}]*\}(?:_\{[^{}]*\})?)"
)
SCRIPTED = r"\\text\{[^}]*\}(?:[_^](?:\{[^{}]*\}|\\top))*"
RUN_IN = re.compile(
    rf"[A-Za-z0-9}}] *\\text|{SCRIPTED} *(?:[A-Za-z0-9]|\\(?!frac\b)[a-z])", re.I
)


def run_together(tex: str) -> bool:
    """Whether a word touches another word, a symbol or a number.

    TeX drops blanks, so words need a space that it keeps, or a sign between them.
    Indices may be words with blanks of their own.
    """
    tex = re.sub(r"_\{[^{}]*\\text\{[^}]*\}[^{}]*\}", "_{i}", tex)
    tex = re.sub(r"(\\text\{\w+)@\}[a-z]", r"\1}", tex)  # one name: nDCG@k
    return bool(RUN_IN.search(SIGNS.sub("+", tex)))


@pytest.mark.parametrize("module", MODULES)
def test_no_words_of_a_formula_run_together(module: str) -> None:
    assert [pair for pair in formulas(module) if run_together(pair[1])] == []


@pytest.mark.parametrize(
    "tex",
    [
        r"\text{mean} \text{gain}",
        r"2 \pi \text{variance}",
        r"\frac{1}{2} \text{mean}_{i} (r)",
        r"\text{ideal} \text{DCG@}k",
        r"\text{offset}_{i} z",
    ],
)
def test_what_runs_together_is_seen(tex: str) -> None:
    assert run_together(tex)


def letters(tex: str) -> list[str]:
    """The names and numbers of a formula, in order, as its ASCII has them."""
    for sign, source in {
        r"\\hat\{(\\?\w+)\}": r" \1_hat",
        r"\\text\{([^}]*)\}": r" \1 ",
        r"\\log_2": " log2 ",
        r"\\operatorname\*\{arg\\,min\}": " argmin ",
        r"\\operatorname\{(\w+)\}": r" \1 ",
        r"\\nabla": " grad ",
        r"\\circ": " o ",
    }.items():
        tex = re.sub(sign, source, tex)
    kept = "|".join([*GREEK, *(name for name in FUNCTIONS if name.isalpha()), "in"])
    tex = re.sub(rf"\\({kept})(?![a-zA-Z])", r" \1 ", tex)
    tex = re.sub(r"\\[a-zA-Z]+", " ", tex)
    return re.findall(r"[A-Za-z]+|\d+", tex)


@pytest.mark.parametrize("module", MODULES)
def test_no_part_of_a_formula_is_lost(module: str) -> None:
    """What is set holds the names and numbers of the docstring, in its order."""
    for name, text in paragraphs(module):
        shown = [p.text if p.kind == "text" else f" {p.text} " for p in pieces(text)]
        assert letters(" ".join(shown)) == re.findall(r"[A-Za-z]+|\d+", text), name


@pytest.mark.parametrize("module", MODULES)
def test_a_function_keeps_its_argument(module: str) -> None:
    """No function that has a bracket loses it to the numerator of a fraction."""
    for name, tex in formulas(module):
        assert not re.search(
            r"\\(min|max|log_2|exp)(_\{\w+\})? *\\frac\{[^(]*,", tex
        ), name
        assert not re.search(r"\\frac\{[^(){}]*[^\\],", tex), name


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
