"""The readers' aids: API reference, pieces, hover notes, links to the repository."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import pytest
import yaml
from bs4 import Tag
from playwright.sync_api import Browser, Page
from test_book import CHAPTERS, ROOT, builds, built_in, docstrings, load
from test_site import PAGES, SITE, browser, soup, unavailable  # noqa: F401 (fixture)

sys.path.insert(0, str(ROOT / "book" / "_ext"))
reference = load("book/_ext/reference.py")
pieces = load("book/_ext/learning_path.py")
remote = load("book/_ext/remote.py")

REFERENCE = ROOT / "book" / "reference"
MODULES = [name.removeprefix("metarec.") for name in reference.modules()]


@pytest.fixture(scope="module")
def site() -> Path:
    if "book/reference/api.html" not in PAGES:
        unavailable("the site is not built: make book")
    return SITE


# The API reference.


def documented(directive: str) -> list[str]:
    """The modules that a directive names, in the order of the table of contents."""
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    pages = re.findall(r"file: (book/reference/api[\w/-]*)", toc)
    text = "\n".join((ROOT / f"{page}.md").read_text("utf-8") for page in pages)
    return re.findall(rf"^```\{{{directive}\}} metarec\.(\w+)$", text, re.MULTILINE)


def test_every_module_with_public_names_is_documented_once_and_in_order() -> None:
    places = [*(ROOT / "metarec").glob("[!_]*.py"), *(ROOT / "metarec").glob("[!_]*/")]
    names = {place.stem for place in places}
    public = {n for n in names if hasattr(import_module(f"metarec.{n}"), "__all__")}
    assert set(MODULES) == public and len(MODULES) == len(public)
    assert documented("api") == documented("api-names")
    assert sorted(documented("api")) == sorted(MODULES)


def imports(module: str) -> set[str]:
    """The modules that one of them needs to be imported, types apart."""
    place = ROOT / "metarec" / module
    files = [*place.glob("*.py")] if place.is_dir() else [place.with_suffix(".py")]
    found = set()
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= set(re.findall(r"^metarec\.(\w+)", node.module))
    return found - {module}


def test_a_module_imports_from_those_above_it() -> None:
    order = documented("api")
    late = [
        f"{module} imports {other}"
        for at, module in enumerate(order)
        for other in imports(module)
        if other in order[at:]
    ]
    assert late == []


@cache
def entries() -> dict[str, tuple[str, Tag]]:
    """Full name to page and entry, for each entry of the built reference."""
    found: dict[str, tuple[str, Tag]] = {}
    for page in PAGES:
        if page.startswith("book/reference/api/"):
            for term in soup(page).select("dt.sig[id]"):
                assert term["id"] not in found, f"{term['id']} is documented twice"
                found[str(term["id"])] = (page, term)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_entry_that_links_to_its_chapter(
    site: Path, module: str
) -> None:
    for name, text in docstrings(module).items():
        page, term = entries()[f"metarec.{module}.{name}"]
        body = term.find_next_sibling("dd")
        assert isinstance(body, Tag) and body.find("p"), f"{name} says nothing"
        titles = [p for p in body.select(":scope > p.rubric") if p.text == "Built in"]
        link = titles[0].find_next("a") if titles else None
        if (stem := built_in(text)) is None:
            assert link is None
        else:
            assert link is not None, f"{name} does not say where it is built"
            target = urljoin(f"/{page}", str(link["href"]))
            assert target.lstrip("/").removesuffix(".html") in CHAPTERS
            assert target.endswith(f"/{stem}.html")


def test_an_entry_shows_one_signature(site: Path) -> None:
    """Not the declarations of an overloaded name, one below the other."""
    several = [
        name
        for name, (_, term) in entries().items()
        if term.find_next_sibling("dt") is not None
    ]
    assert several == []


def test_the_index_links_each_name_once(site: Path) -> None:
    index = soup("genindex.html")
    lines = index.select(".genindextable li")
    first = [line.get_text(" ", strip=True).split(" ")[0] for line in lines]
    assert all(line.find("a") for line in lines)
    assert [name for name in MODULES if first.count(f"metarec.{name}") != 1] == []
    about = index.select_one("h1 + p")
    assert about is not None and "glossary in bold" in about.get_text()


def test_no_entry_shows_raw_markup(site: Path) -> None:
    raw = re.compile(r"`|:py:|:doc:|\*\*\w+\*\*|Alias for field number|object at 0x")
    shown = [
        f"{name}: {found.group()}"
        for name, (_, term) in entries().items()
        if (found := raw.search(term.parent.get_text(" ") if term.parent else ""))
    ]
    assert shown == []


def test_the_pages_of_the_reference_are_small(site: Path) -> None:
    large = [
        f"{page.name}: {page.stat().st_size}"
        for page in (site / "book" / "reference").rglob("*.html")
        if page.stat().st_size > 400_000
    ]
    assert large == []


def test_what_is_not_documented_here_belongs_to_other_libraries() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    [[_, elsewhere]] = config["sphinx"]["config"]["nitpick_ignore_regex"]
    public = reference.public()
    ours = {full for name, full in public.items() if re.match(elsewhere, name)}
    # A name of ours that another library has as well is resolved before it is left out.
    assert all(public[name] == name for name in ours)
    assert not any(re.match(elsewhere, name) for name in ours)


# The pieces.


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_ends_with_the_pieces_built_so_far(site: Path, page: str) -> None:
    expected = list(builds(page))
    for before in CHAPTERS[: CHAPTERS.index(page)]:
        expected += builds(before)
    box = soup(f"{page}.html").select_one("details.pieces")
    if not expected:
        assert box is None
        return
    assert box is not None and not box.has_attr("open")
    links = [urljoin(f"/{page}.html", str(a["href"])) for a in box.select("dd a")]
    assert [urldefrag(link).fragment for link in links] == expected
    for name, link in zip(expected, links, strict=True):
        assert urldefrag(link).url == f"/{entries()[name][0]}"
    heading = box.find_next("h2")
    assert heading is None or heading.get_text().startswith("Further reading")


def test_the_pieces_of_this_chapter_come_first() -> None:
    building = [page for page in CHAPTERS if builds(page)]
    late = building[-1]
    order = [page for page, _ in pieces.built_so_far(ROOT, late)]
    assert order == [late, *building[:-1]] and len(order) > 10
    assert pieces.built_so_far(ROOT, "book/index") == []


# The execution times.


def test_every_chapter_has_its_time(site: Path) -> None:
    rows = soup("book/reference/execution-times.html").select("article tbody tr")
    if not rows:
        unavailable("the site was built without running the chapters")
    links = [str(a["href"]) for row in rows if (a := row.find("a"))]
    assert sorted(link.split("/")[-1] for link in links) == sorted(
        f"{page.split('/')[-1]}.html" for page in CHAPTERS
    )
    heads = soup("book/reference/execution-times.html").select("article thead th")
    column = [head.get_text() for head in heads].index("Run Time (s)")
    for row in rows:
        assert float(row.find_all("td")[column].get_text()) > 0


# The bibliography.


def test_the_bibliography_treats_every_preprint_alike() -> None:
    """As an eprint, whose number is a link; a DOI is one as well."""
    text = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@\w+\{(\w+),(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    assert len(entries) > 50
    for name, entry in entries:
        fields = dict(re.findall(r"^\s*(\w+)\s*= \{(.*)\},?$", entry, re.MULTILINE))
        others = [value for key, value in fields.items() if key != "archiveprefix"]
        assert not any(re.search("arxiv", value, re.IGNORECASE) for value in others), (
            name
        )
        assert len({"doi", "eprint", "url"} & set(fields)) <= 1, name


# Links to the repository.


@pytest.mark.parametrize(
    ("address", "web"),
    [
        ("git@github.com:o/n.git", "https://github.com/o/n"),
        ("https://github.com/o/n", "https://github.com/o/n"),
        ("https://me:token@github.com/o/n.git/", "https://github.com/o/n"),
        ("ssh://git@gitlab.uni.edu:2222/g/sub/n.git", "https://gitlab.uni.edu/g/sub/n"),
        ("/srv/course/n.git", ""),
        ("../n", ""),
        ("file:///srv/n.git", ""),
        ("C:/course/n", ""),
        ("", ""),
    ],
)
def test_the_address_on_the_web_of_a_remote(address: str, web: str) -> None:
    assert remote.web_address(address) == web


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


def test_links_to_the_repository_follow_the_remote(tmp_path: Path) -> None:
    assert remote.options(tmp_path) == {}  # a tarball
    git(tmp_path, "init", "--quiet")
    assert remote.options(tmp_path) == {}  # no remote
    git(tmp_path, "remote", "add", "origin", "git@github.com:owner/course.git")
    options = remote.options(tmp_path)
    assert options["repository_url"] == "https://github.com/owner/course"
    assert options["repository_provider"] == "github"
    assert options["repository_branch"] == "main"
    assert options["use_issues_button"] and options["use_edit_page_button"]
    inside = tmp_path / "unpacked"
    inside.mkdir()
    assert remote.options(inside) == {}  # another's repository around it
    git(tmp_path, "remote", "set-url", "origin", "https://code.example.org/o/n")
    assert remote.options(tmp_path) == {}  # whose pages the theme does not know


def test_without_git_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert remote.options(tmp_path) == {}


def test_the_site_links_to_the_repository_if_it_has_one(site: Path) -> None:
    address = remote.options(ROOT).get("repository_url")
    buttons = ("repository", "edit", "issues")
    select = ", ".join(f"a.btn-source-{name}-button" for name in buttons)
    links = soup(f"{CHAPTERS[0]}.html").select(select)
    if address is None:
        assert links == []
        return
    targets = {str(link["href"]) for link in links}
    assert address in targets
    assert f"{address}/edit/{remote.branch(ROOT)}/{CHAPTERS[0]}.ipynb" in targets
    assert any(f"{address}/issues/new" in target for target in targets)


# Hover notes.


@cache
def notes() -> dict[str, list[str]]:
    text = (SITE / "_static" / "notes.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("window.METAREC_NOTES = ").rstrip(";\n"))


@pytest.mark.parametrize("page", PAGES)
def test_every_term_citation_and_equation_has_a_note(site: Path, page: str) -> None:
    silent = []
    for link in soup(page).select("article a.reference.internal[href*='#']"):
        target = urljoin(f"/{page}", str(link["href"])).lstrip("/")
        if re.search(r"glossary\.html#term-|bibliography\.html#id|#equation-", target):
            note = notes().get(target)
            if note is None or not note[1].strip():
                silent.append(target)
    assert silent == []


def test_notes_are_plain_text(site: Path) -> None:
    for name, (title, text) in notes().items():
        if "#equation-" not in name:
            assert not re.search(r"[\\$`<>{}]|\*\*", title + text), f"{name}: {text}"


WITH_NOTES = "book/learning-to-learn/meta-sgd.html"
TERM = "article a[href*='glossary.html#term-']"
CITATION = "article a[href*='bibliography.html#id']"
EQUATION = "article a:not(.headerlink)[href^='#equation-']"


def opened(browser: Browser, site: Path, **options: object) -> Page:  # noqa: F811
    """A chapter, opened from the disk."""
    page = browser.new_context(**options).new_page()
    page.goto((site / WITH_NOTES).as_uri(), wait_until="load")
    page.evaluate("window.MathJax?.startup?.promise")
    return page


@pytest.mark.parametrize("selector", [TERM, CITATION, EQUATION])
def test_a_note_opens_for_mouse_and_keyboard(
    site: Path,
    browser: Browser,  # noqa: F811
    selector: str,
) -> None:
    page = opened(browser, site, viewport={"width": 1280, "height": 800})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    link, box = page.locator(selector).first, page.locator("#hover-note")
    target = str(link.evaluate("a => a.href")).split("/html/")[-1]
    link.hover()
    box.wait_for(state="visible")
    assert link.get_attribute("aria-describedby") == "hover-note"
    assert box.get_attribute("role") == "tooltip"
    if selector == EQUATION:
        assert box.locator("mjx-container svg").count() == 1
    else:
        assert notes()[target][1] in box.inner_text()
    box.hover()  # the pointer may move into the box
    page.wait_for_timeout(400)
    assert box.is_visible()
    page.keyboard.press("Escape")
    assert box.is_hidden() and link.get_attribute("aria-describedby") is None
    link.focus()
    assert box.is_visible()
    link.blur()
    assert box.is_hidden()
    assert errors == []
    page.context.close()


def test_no_note_opens_for_touch_and_none_leaves_a_narrow_window(
    site: Path,
    browser: Browser,  # noqa: F811
) -> None:
    narrow = {"width": 390, "height": 844}
    page = opened(browser, site, viewport=narrow, has_touch=True, is_mobile=True)
    page.evaluate("addEventListener('click', event => event.preventDefault(), true)")
    page.locator(TERM).first.tap()
    page.wait_for_timeout(400)
    assert page.locator("#hover-note").count() == 0
    page.context.close()
    page = opened(browser, site, viewport=narrow)
    for selector in (TERM, CITATION, EQUATION):
        page.locator(selector).first.focus()
        box = page.locator("#hover-note").bounding_box()
        assert box is not None
        assert box["x"] >= 0 and box["x"] + box["width"] <= narrow["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= narrow["width"]
    page.context.close()
