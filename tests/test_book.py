"""The book keeps its promises: run in order, imports only what was built, and so on."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import statistics
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
import yaml
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
CHAPTERS = [page for page in PAGES if not (ROOT / f"{page}.md").exists()]

# Each public name of these modules is either built in a chapter or says it is plumbing.
TAUGHT = (
    "features tasks metrics validation models learners factors "
    "meta training baselines systems recommender evaluation challenges scale "
    "serve"
).split()
# What every chapter may import without having built it.
PLUMBING = ("metarec.data", "metarec.plots")


def load(path: str) -> ModuleType:
    """Import a script of the book by its path."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


notebooks = load("book/_tools/notebooks.py")


@cache
def chapter(page: str) -> NotebookNode:
    return nbformat.read(ROOT / f"{page}.ipynb", as_version=4)


def builds(page: str) -> list[str]:
    return list(chapter(page).metadata.get("metarec", {}).get("builds", []))


def source_of(cell: NotebookNode) -> str:
    """A cell's Python, without the lines that only IPython understands."""
    lines = cell.source.split("\n")
    return "\n".join("" if re.match(r"\s*[%!?]", x) else x for x in lines)


@cache
def docstrings(module: str) -> dict[str, str]:
    """Public names of ``metarec.<module>`` and their docstrings, read from the source.

    A constant is documented by the string below its assignment, which only the source
    still knows.
    """
    place = ROOT / "metarec" / module
    # The last file of a package is the one that says what is public.
    files = [*sorted(place.glob("[!_]*.py")), place / "__init__.py"]
    if not place.is_dir():
        files = [place.with_suffix(".py")]
    body = [n for f in files for n in ast.parse(f.read_text(encoding="utf-8")).body]
    found: dict[str, str] = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            text = ""
            if isinstance(following, ast.Expr) and isinstance(
                following.value, ast.Constant
            ):
                text = str(following.value.value)
            for target in targets:
                if isinstance(target, ast.Name):
                    found[target.id] = text
    public = import_module(f"metarec.{module}").__all__
    missing = set(public) - set(found)
    assert not missing, f"metarec.{module}.__all__ names what it does not define"
    return {name: found[name] for name in public}


def built_in(text: str) -> str | None:
    """The chapter that a docstring names in its section "Built in"."""
    match = re.search(r"^Built in\n-+\n([\w-]+)$", text, re.MULTILINE)
    return match.group(1) if match else None


def taught_modules() -> list[str]:
    return [name for name in TAUGHT if find_spec(f"metarec.{name}")]


def imported(cell: NotebookNode) -> list[str]:
    """What a cell imports from metarec, as dotted names."""
    names = []
    for node in ast.walk(ast.parse(source_of(cell))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] == "metarec":
                names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [
                alias.name
                for alias in node.names
                if alias.name.split(".")[0] == "metarec"
            ]
    return names


def test_every_notebook_is_in_the_table_of_contents() -> None:
    found = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for path in notebooks.chapters()
    }
    assert found == set(CHAPTERS)


@pytest.mark.parametrize("page", CHAPTERS)
def test_every_cell_was_run_in_order_and_is_in_normal_form(page: str) -> None:
    assert notebooks.problems(chapter(page)) == []


def misplaced_imports(page: str, earlier: set[str], plain: set[str]) -> list[str]:
    """Imports of a chapter that reach for what no chapter has built by then.

    ``earlier`` are the names built before this chapter, ``plain`` those that need no
    chapter. A name that this chapter builds may be imported in a cell below the one
    tagged ``build-<name>``.
    """
    own = set(builds(page))
    built: set[str] = set()
    wrong = []
    for cell in notebooks.code_cells(chapter(page)):
        for name in imported(cell):
            free = any(name == p or name.startswith(f"{p}.") for p in PLUMBING)
            if free or name in earlier | plain | built:
                continue
            why = "is built here, but not above this cell" if name in own else "is new"
            wrong.append(f"cell {cell.execution_count} imports {name}, which {why}")
        tags = cell.metadata.get("tags", [])
        built |= {name for name in own if f"build-{name.split('.')[-1]}" in tags}
    return wrong


def plain_names() -> set[str]:
    return {
        f"metarec.{module}.{name}"
        for module in taught_modules()
        for name, text in docstrings(module).items()
        if built_in(text) is None
    }


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_imports_only_what_was_built(page: str) -> None:
    earlier = {
        name for before in CHAPTERS[: CHAPTERS.index(page)] for name in builds(before)
    }
    assert misplaced_imports(page, earlier, plain_names()) == []


@pytest.mark.parametrize("page", CHAPTERS)
def test_what_a_chapter_builds_has_a_cell_that_builds_it(page: str) -> None:
    tags = {
        tag
        for cell in notebooks.code_cells(chapter(page))
        for tag in cell.metadata.get("tags", [])
        if tag.startswith("build-")
    }
    assert tags == {f"build-{name.split('.')[-1]}" for name in builds(page)}


@pytest.mark.parametrize("module", taught_modules())
def test_every_public_name_says_where_it_is_built_or_that_it_is_plumbing(
    module: str,
) -> None:
    silent = [
        name
        for name, text in docstrings(module).items()
        if built_in(text) is None and not re.search(r"^Plumbing\n-+\n\S", text, re.M)
    ]
    assert not silent, (
        f"metarec.{module}: {silent} need a section 'Built in' with a chapter, or "
        "'Plumbing' with what for"
    )


def test_chapters_and_docstrings_agree_on_what_is_built_where() -> None:
    says = {
        f"metarec.{module}.{name}": stem
        for module in taught_modules()
        for name, text in docstrings(module).items()
        if (stem := built_in(text))
    }
    does: dict[str, str] = {}
    for page in CHAPTERS:
        for name in builds(page):
            assert name not in does, f"{name} is built twice: {does[name]} and {page}"
            does[name] = page.split("/")[-1]
    assert does == says


def test_code_cells_are_short() -> None:
    lengths = [
        len([line for line in cell.source.split("\n") if line.strip()])
        for page in CHAPTERS
        for cell in notebooks.code_cells(chapter(page))
    ]
    assert max(lengths) <= 40
    assert statistics.median(lengths) <= 6
    assert sum(n <= 20 for n in lengths) / len(lengths) >= 0.9


def prose(page: str) -> str:
    """The text of a page, without code and formulas."""
    path = ROOT / f"{page}.ipynb"
    if path.exists():
        cells = [c.source for c in chapter(page).cells if c.cell_type == "markdown"]
        text = "\n\n".join(cells)
    else:
        text = (ROOT / f"{page}.md").read_text(encoding="utf-8")
    text = re.sub(r"^(`{3,}|~{3,})\{?code.*?^\1", "", text, flags=re.M | re.S)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", text, flags=re.S)
    return re.sub(r"`[^`\n]*`", "", text)


@pytest.mark.parametrize("page", [TOC["root"], *PAGES])
def test_prose_is_plain(page: str) -> None:
    text = prose(page)
    words = ["sim" + "ply", "TO" + "DO", "FIX" + "ME", "—"]
    assert [word for word in words if re.search(word, text, re.I)] == []
    assert re.findall(r".*\w!(?:\s|$).*", text) == []


# The build itself, on a book of one page with the settings of ours.


def tiny_book(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Build a book with our configuration and one notebook of one cell."""
    shutil.copy(ROOT / "_config.yml", folder)
    for part in ("_ext", "_static", "_templates"):
        shutil.copytree(ROOT / "book" / part, folder / "book" / part)
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/page\n")
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# A page"),
            nbformat.v4.new_code_cell(code),
        ]
    )
    nbformat.write(notebook, folder / "book" / "page.ipynb")
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "."]
    return subprocess.run(
        [*command, "--all", "-W", "--keep-going", "-n"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


@pytest.mark.site
@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("print(1 + 1)", None),
        ("raise RuntimeError('broken')", "ExecutionError"),
        ("import warnings\nwarnings.warn('look here')", "stderr was found"),
    ],
)
def test_a_chapter_that_raises_or_warns_fails_the_build(
    tmp_path: Path, code: str, complaint: str | None
) -> None:
    done = tiny_book(tmp_path, code)
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == (complaint is None), said
    assert complaint is None or complaint in said


def test_the_cache_of_outputs_knows_the_package_the_requirements_and_the_tables(
    tmp_path: Path,
) -> None:
    sys.path.append(str(ROOT / "book/_ext"))
    key = load("book/_ext/metarec_book.py").cache_key
    (tmp_path / "metarec" / "data").mkdir(parents=True)
    module = tmp_path / "metarec" / "data" / "table.py"
    module.write_text("ONE = 1\n")
    (tmp_path / "requirements.txt").write_text("numpy==2.4.6\n")
    keys = [key(tmp_path)]
    module.write_text("ONE = 2\n")
    keys.append(key(tmp_path))
    (tmp_path / "requirements.txt").write_text("numpy==2.4.7\n")
    keys.append(key(tmp_path))
    module.rename(module.with_name("tables.py"))
    keys.append(key(tmp_path))
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "speed.csv").write_text("ms\n1\n")
    keys.append(key(tmp_path))
    assert len(set(keys)) == 5


def test_a_chapter_over_a_minute_is_a_line_of_the_summary() -> None:
    summary = load("book/conftest.py").summary
    assert summary({}) == []
    assert summary({"b": 1.0, "a": 59.0}) == ["  59.0  a", "   1.0  b"]
    assert summary({"a": 61.0})[1:] == ["OVER A MINUTE: a took 61 s"]


# The rules themselves, on a notebook made to break them.


def made(*cells: NotebookNode) -> NotebookNode:
    return notebooks.normalise(nbformat.v4.new_notebook(cells=list(cells)))


def ran(code: str, count: int | None = 1, **more: object) -> NotebookNode:
    cell = nbformat.v4.new_code_cell(code, execution_count=count)
    cell.update(more)
    return NotebookNode(cell)


PNG = {"output_type": "display_data", "data": {"image/png": "x"}, "metadata": {}}
ALT = {"mystnb": {"image": {"alt": "A line."}}}


def test_normal_form_is_stable_and_removes_what_varies() -> None:
    messy = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "my-env", "display_name": "Mine"}, "x": 1},
        cells=[
            ran(
                "print(1)  \n",
                7,
                id="same",
                metadata={"ExecuteTime": {"start": 1}, "tags": ["build-x"]},
                outputs=[
                    {"output_type": "stream", "name": "stdout", "text": "1"},
                    {"output_type": "stream", "name": "stderr", "text": "careful"},
                    {"output_type": "stream", "name": "stdout", "text": "\n"},
                ],
            ),
            ran("2", 9, id="other"),
        ],
    )
    messy = nbformat.from_dict(messy)
    messy.cells[1].id = "same"  # as a cell that was copied by hand
    once = notebooks.normalise(messy)
    assert nbformat.writes(notebooks.normalise(once)) == nbformat.writes(once)
    assert [cell.id for cell in once.cells] == ["same", "c001"]
    assert [cell.execution_count for cell in once.cells] == [1, 2]
    assert once.cells[0].metadata == {"tags": ["build-x"]}
    assert [output.text for output in once.cells[0].outputs] == ["1\n"]
    assert once.metadata.kernelspec.name == "python3"
    assert notebooks.problems(once) == []


def printed(text: str) -> NotebookNode:
    return ran("x", outputs=[nbformat.v4.new_output("stream", text=text)])


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        (ran("1", None), "not all run"),
        (ran("plot()", outputs=[PNG]), "without alt text"),
        (printed("/ho" + "me/me/a"), "path of this machine"),
        (printed("<A at 0x7f00ab12>"), "memory address"),
        (printed("50%|##   | 1/2"), "progress bar"),
        (ran("x", outputs=[nbformat.v4.new_output("error", ename="E")]), "raised"),
    ],
)
def test_the_check_finds(cell: NotebookNode, complaint: str) -> None:
    found = notebooks.problems(made(nbformat.from_dict(cell)))
    assert len(found) == 1 and complaint in found[0]


def test_the_check_accepts_a_figure_with_alt_text() -> None:
    cell = nbformat.from_dict(ran("plot()", outputs=[PNG], metadata=ALT))
    assert notebooks.problems(made(cell)) == []


def test_an_import_before_its_chapter_or_its_cell_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = made(
        ran("from metarec.data import load_movielens_100k"),
        ran("from metarec.tasks import Early"),
        ran("class Here: ...", metadata={"tags": ["build-Here"]}),
        ran(
            "from metarec.tasks import Before, Here, Late, Plain\nimport metarec.tasks"
        ),
    )
    page.metadata["metarec"] = {"builds": ["metarec.tasks.Here", "metarec.tasks.Early"]}
    monkeypatch.setattr(sys.modules[__name__], "chapter", lambda _: page)
    names = {name: f"metarec.tasks.{name}" for name in ("Before", "Plain")}
    wrong = misplaced_imports("page", {names["Before"]}, {names["Plain"]})
    assert [line.split("imports ")[1] for line in wrong] == [
        "metarec.tasks.Early, which is built here, but not above this cell",
        "metarec.tasks.Late, which is new",
        "metarec.tasks, which is new",
    ]
