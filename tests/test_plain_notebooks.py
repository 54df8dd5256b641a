"""The notebooks that the site offers: no directive, and they run without the book."""

from __future__ import annotations

import copy
import re
import sys
import tomllib
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pybtex.database import BibliographyData, parse_file
from test_site import SITE, unavailable

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "book" / "_ext"))

import plain_cells  # noqa: E402
import plain_notebooks  # noqa: E402
import remote  # noqa: E402
from plain_cells import Chapter, plain  # noqa: E402

PAGES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix()
    for path in (ROOT / "book").rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
REPOSITORY = "https://github.com/someone/metarec"
# Whatever only MyST understands: fences with braces, options, roles, labels, targets.
MYST = re.compile(
    r"^ *>? *(?:`{3,}|:{3,})\{.*|^:{3,}.*|^ *>? *:[a-z-]+:.*|\{[a-z:]+\}`.*"
    r"|^\$\$ *\(.*|^\([\w:-]+\)=.*|\0.*",
    re.MULTILINE,
)


@cache
def references() -> BibliographyData:
    return parse_file(str(ROOT / "book" / "references.bib"))


def source(page: str) -> NotebookNode:
    return nbformat.read(ROOT / f"{page}.ipynb", as_version=4)


def converted(page: str, repository: str = "") -> NotebookNode:
    return plain(source(page), Chapter(page, references(), repository=repository))


def prose(notebook: NotebookNode) -> str:
    cells = notebook.cells
    return "\n\n".join(c.source for c in cells if c.cell_type == "markdown")


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def small(*texts: str, **options: Any) -> str:
    """The prose of a notebook of the given texts, converted; its opening left out."""
    cells = [new_markdown_cell(text) for text in texts]
    chapter = Chapter("book/part/page", references(), **options)
    fresh = plain(new_notebook(cells=cells), chapter)
    return "\n\n".join(c.source for c in fresh.cells if not c.id.startswith("plain-"))


@pytest.mark.parametrize("page", PAGES)
def test_no_directive_is_left_in_a_chapter(page: str) -> None:
    assert MYST.search(prose(source(page)))
    fresh = converted(page, REPOSITORY)
    assert MYST.findall(prose(fresh)) == []
    nbformat.validate(fresh)
    assert len({cell.id for cell in fresh.cells}) == len(fresh.cells)


@pytest.mark.parametrize("page", PAGES)
def test_code_and_outputs_are_the_chapters(page: str) -> None:
    before = source(page)
    untouched = copy.deepcopy(before)
    fresh = plain(before, Chapter(page, references()))
    assert before == untouched
    own = [cell for cell in code(fresh) if not cell.id.startswith("plain-")]
    assert [cell.id for cell in own] == [cell.id for cell in code(before)]
    for old, new in zip(code(before), own, strict=True):
        lines = old.source.split("\n")
        kept = [line for line in lines if line != "from myst_nb import glue"]
        assert kept == new.source.split("\n")
        assert old.execution_count == new.execution_count
        shown = [o for o in old.outputs if not o.get("metadata", {}).get("scrapbook")]
        assert [o.get("data", o.get("text")) for o in shown] == [
            o.get("data", o.get("text")) for o in new.outputs
        ]
    assert "myst_nb" not in "".join(cell.source for cell in code(fresh))


def test_an_admonition_becomes_a_quote() -> None:
    text = ":::{admonition} In *this*\n:class: tip\n**Now**\n\n- one\n:::\nAfter."
    assert small(text) == "> **In *this***\n>\n> **Now**\n>\n> - one\n\nAfter."
    assert small("```{note}\nLook.\n```") == "> **Note**\n>\n> Look."


def test_code_fences_stay() -> None:
    text = "Before\n\n```python\nx = {term}\n```\n\nafter."
    assert small(text) == text
    nested = "````{admonition} A\n```python\nx\n```\n````"
    assert small(nested) == "> **A**\n>\n> ```python\n> x\n> ```"


def test_an_option_of_a_quiz_is_folded() -> None:
    text = "**1. Why?**\n\n```{dropdown} a. `x` < *y*\nNo.\n```"
    assert small(text) == (
        "**1. Why?**\n\n<details>\n<summary>a. <code>x</code> &lt; <em>y</em>"
        "</summary>\n\nNo.\n\n</details>"
    )


def test_a_solution_over_several_cells_is_folded() -> None:
    texts = (
        "```{exercise} Say it\n:label: ex-a\n\nWhat?\n```\n\n"
        "```{solution-start} ex-a\n:class: dropdown\n```\n\nThis.",
        "```{solution-end}\n```\n\n## Next",
    )
    cells = [new_markdown_cell(texts[0]), new_code_cell("1"), new_code_cell("2")]
    cells += [new_markdown_cell("More."), new_markdown_cell(texts[1])]
    cells += [new_code_cell("3")]
    fresh = plain(new_notebook(cells=cells), Chapter("book/part/page"))
    first, one, two, more, end, three = fresh.cells[1:]
    assert first.source == (
        "**Exercise: Say it**\n\nWhat?\n\n<details>\n<summary>Solution: Say it"
        "</summary>\n\nThis.\n\n</details>"
    )
    assert one.metadata.jupyter == two.metadata.jupyter
    assert one.metadata.jupyter["source_hidden"] and "jupyter" not in three.metadata
    assert more.source.endswith("More.\n\n</details>")
    assert end.source == "## Next"


def test_what_answers_a_guess_is_folded() -> None:
    shown = [new_output("stream", text="4")]
    cells = [
        new_code_cell("print(4)", outputs=shown, metadata={"tags": tags})
        for tags in (["hide-output"], ["hide-input"])
    ]
    fresh = plain(new_notebook(cells=cells), Chapter("book/part/page", references()))
    answer, drawing = code(fresh)
    assert answer.metadata == {"jupyter": {"outputs_hidden": True}}
    assert drawing.metadata == {} and answer.outputs == drawing.outputs


def test_a_solution_that_opens_with_code_has_its_title() -> None:
    text = (
        "```{exercise} Say it\n:label: ex-a\n\nWhat?\n```\n\n"
        "```{solution-start} ex-a\n:class: dropdown\n```"
    )
    end = "```{solution-end}\n```"
    assert small(text, end).endswith("What?\n\n**Solution: Say it**")
    with pytest.raises(ValueError, match="without an end"):
        small(text)


def test_roles_become_words() -> None:
    text = "A {term}`task` and {term}`tasks <task>`, {abbr}`AUC (area)`."
    assert small(text) == "A task and tasks, AUC (area)."
    assert small("{cite:t}`finn2017maml` says.") == "Finn et al. (2017) says."
    both = small("Said {cite}`finn2017maml,kalman1960`.")
    assert both == "Said (Finn et al., 2017; Kalman, 1960)."


def test_works_cited_are_listed() -> None:
    cells = [new_markdown_cell("See {cite}`finn2017maml`.")]
    fresh = plain(new_notebook(cells=cells), Chapter("book/part/page", references()))
    last = fresh.cells[-1].source
    assert last.startswith("## Works cited\n\n- Chelsea Finn") and "2017." in last
    assert fresh.cells[0].id == "plain-origin" and len(fresh.cells) == 3


def test_equations_keep_their_numbers() -> None:
    text = "$$\na\n$$ (first)\n\nthen\n\n$$\nb\n$$ (second)\n\nBy {eq}`second`."
    assert small(text) == ("$$\na\n\\tag{1}$$\n\nthen\n\n$$\nb\n\\tag{2}$$\n\nBy (2).")
    assert small(text, equations={"first": "8", "second": "9"}).endswith("By (9).")


def test_links_lead_to_notebooks_or_to_the_repository() -> None:
    text = "[a](../x/y.ipynb), [b](../../data/t.csv), [c](https://e.org/p), [d](#x)"
    assert small(text) == "[a](../x/y.ipynb), b, [c](https://e.org/p), d"
    away = small(text, repository=REPOSITORY)
    assert f"[b]({REPOSITORY}/blob/main/data/t.csv)" in away


def test_glued_values_are_shown() -> None:
    def glued(name: str, value: str) -> NotebookNode:
        prefix = "application/papermill.record/"
        meta = {"scrapbook": {"name": name, "mime_prefix": prefix}}
        return new_output("display_data", {prefix + "text/plain": value}, metadata=meta)

    cell = new_code_cell("from myst_nb import glue\n1", execution_count=1)
    cell.outputs = [glued("a", "'4 * 5'"), glued("b", "3.14159")]
    text = new_markdown_cell("{glue:text}`a` and {glue:text}`b:.2f`")
    fresh = plain(new_notebook(cells=[cell, text]), Chapter("book/part/page"))
    assert [one.id for one in fresh.cells[:2]] == ["plain-origin", "plain-glue"]
    assert (fresh.cells[2].source, fresh.cells[2].outputs) == ("1", [])
    assert fresh.cells[3].source == r"4 \* 5 and 3.14"
    with pytest.raises(ValueError, match="nothing was glued"):
        small("{glue:text}`a`")


@pytest.mark.parametrize("text", ["```{tabs} x\n```", "{nothing}`x`"])
def test_what_is_not_known_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="no plain form"):
        small(text)


def test_a_fence_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="without an end"):
        small("```{note}\nx")


def test_the_first_cell_says_where_it_comes_from() -> None:
    page = "book/foundations/data"
    alone, known = (converted(page, address) for address in ("", REPOSITORY))
    assert "The data: every user a task" in alone.cells[0].source
    assert "pip install ." in alone.cells[0].source
    assert f"<{REPOSITORY}>" in known.cells[0].source
    assert "colab" not in "".join(cell.source for cell in code(alone))
    assert f"%pip install -q git+{REPOSITORY}" in known.cells[1].source


def test_what_a_chapter_needs_besides_is_named() -> None:
    fresh = converted("book/three-maps/metamind", REPOSITORY)
    assert "`scikit-learn`" in fresh.cells[0].source
    assert fresh.cells[1].source.endswith(" scikit-learn")
    fresh = converted("book/the-system/leaderboard", REPOSITORY)
    assert f"clone -q --depth 1 {REPOSITORY}" in fresh.cells[1].source
    assert "book/the-system" in fresh.cells[0].source


def test_what_metarec_brings_is_what_it_depends_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = {re.split(r"[<>=]", one)[0] for one in project["project"]["dependencies"]}
    assert named | {"metarec", "IPython"} == plain_cells.PROVIDED


@pytest.mark.slow
def test_a_chapter_runs_from_top_to_bottom_without_the_book(tmp_path: Path) -> None:
    fresh = converted("book/foundations/tasks")
    # What a reader who installed the package alone does not have.
    lacking = ("myst_nb", "sphinx", "scipy", "sklearn")
    block = f"import sys; sys.modules.update(dict.fromkeys({lacking}))"
    fresh.cells.insert(0, new_code_cell(block))
    done = copy.deepcopy(fresh)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(done, timeout=120, kernel_name="python3", resources=place).execute()
    for old, new in zip(code(fresh), code(done), strict=True):
        if old.outputs:
            printed = [[o.get("text") for o in cell.outputs] for cell in (old, new)]
            assert printed[0] == printed[1]


@pytest.mark.parametrize(
    ("address", "offered"),
    [
        ("https://github.com/someone/metarec", True),
        ("https://gitlab.com/someone/metarec", False),
        ("", False),
    ],
)
def test_colab_is_offered_where_it_can_read(
    monkeypatch: pytest.MonkeyPatch, address: str, offered: bool
) -> None:
    monkeypatch.setattr(remote, "repository", lambda root: address)
    launch = remote.options(ROOT).get("launch_buttons", {})
    assert bool(launch.get("colab_url")) == offered


def test_the_buttons_lead_to_the_plain_notebook() -> None:
    markup = f"""
    <a class="btn-download-source-button" href="../_sources/book/a/b.ipynb" title="S">
      <span class="btn__text-container">.ipynb</span></a>
    <a class="btn-download-source-button" href="../_sources/book/a.md" title="S"></a>
    <a href="{remote.COLAB}/github/o/n/blob/{remote.branch(ROOT)}/book/a/b.ipynb"></a>
    """
    page: Any = SimpleNamespace(soup=BeautifulSoup(markup, "html.parser"), root=ROOT)
    plain_notebooks.buttons(page)
    notebook, text, colab = page.soup.find_all("a")
    assert notebook["title"] == "Download as a plain notebook" and text["title"] == "S"
    assert notebook.get_text(strip=True) == "Notebook"
    assert colab["href"].endswith("/github/o/n/blob/notebooks/book/a/b.ipynb")


@pytest.mark.site
@pytest.mark.parametrize("page", PAGES)
def test_the_button_of_a_built_page_gives_the_plain_notebook(page: str) -> None:
    path = SITE / f"{page}.html"
    if not path.exists():
        unavailable("the site is not built: make book")
    soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    (button,) = soup.select("a.btn-download-source-button")
    target = (path.parent / str(button["href"])).resolve()
    offered = nbformat.read(target, as_version=4)
    assert offered.cells[0].id == "plain-origin"
    assert MYST.findall(prose(offered)) == []
    numbers = [tag.get_text().strip("()#¶ \n") for tag in soup.select(".eqno")]
    assert re.findall(r"\\tag\{([\d.]+)\}\$\$", prose(offered)) == numbers
