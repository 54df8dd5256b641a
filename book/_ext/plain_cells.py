"""A chapter without the book's directives: notebook in, plain notebook out.

The chapters are written in MyST, which Jupyter shows as it stands: fences with braces,
roles, labels. Here they become what every notebook editor understands. Pure functions,
nothing of Sphinx:

* an admonition becomes a block quote with a bold title;
* an exercise gets a bold title, a quiz's option or a solution becomes ``<details>``;
* a glued number becomes the number, a citation becomes author and year;
* an equation keeps its number, as a tag in place of a label;
* ``glue`` itself becomes two lines that do nothing.

A directive or a role that is not known here is an error and not left as it is.
"""

from __future__ import annotations

import ast
import html
import posixpath
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from textwrap import indent

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pybtex.backends.markdown import Backend
from pybtex.database import BibliographyData, Entry
from pybtex.richtext import Text
from pybtex.style.formatting.plain import Style

# What `pip install metarec` brings, and what every notebook has.
PROVIDED = {
    *("IPython", "metarec", "matplotlib", "numpy", "pandas", "platformdirs", "pooch"),
    *("safetensors", "torch", "tqdm"),
}
# Where the name of an import is not that of the package.
PACKAGE = {"sklearn": "scikit-learn"}

GLUE_IMPORT = re.compile(r"^from myst_nb import glue\n?", re.MULTILINE)
GLUE = '''\
def glue(name, value, display=False):
    """The book shows these values in its text; here nothing needs to be done."""'''

FENCED = re.compile(
    r"^(?P<indent> *)(?P<fence>(?P<sign>[`:])(?P=sign){2,})(?!(?P=sign))"
    r"(?:\{(?P<name>[^}]+)\})? *(?P<title>.*)\n"
    r"(?P<inside>(?:.*\n)*?) *(?P=fence)(?P=sign)* *$",
    re.MULTILINE,
)
OPEN = re.compile(r"^ *(?:`{3,}|:{3,}\{).*", re.MULTILINE)
OPTION = re.compile(r" *:[\w-]+:(?: |$)")
ROLE = re.compile(r"\{(?P<name>[a-z]+(?::[a-z]+)?)\}`(?P<text>[^`]+)`")
EQUATION = re.compile(r"^\$\$ *\((?P<label>[\w:-]+)\) *$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")
EXERCISE = re.compile(
    r"^[`:]{3,}\{exercise\} *(?P<title>.*)\n(?::(?!label).*\n)*:label: *(?P<label>\S+)",
    re.MULTILINE,
)
TARGET = re.compile(r"^\([\w:-]+\)=\n", re.MULTILINE)
TITLE = re.compile(r"^# (?P<title>.+)$", re.MULTILINE)
# Lines that stand for a solution's two ends until the cells are put together.
START, END = "\0start ", "\0end"
ENDS = re.compile(rf"^({START}.*|{END})$", re.MULTILINE)


@dataclass
class Chapter:
    """What the conversion knows beside the cells."""

    page: str  # as the book names it: book/foundations/data
    references: BibliographyData = field(default_factory=BibliographyData)
    equations: Mapping[str, str] = field(default_factory=dict)  # or counted here
    repository: str = ""  # https address; empty if there is none
    branch: str = "main"
    glued: dict[str, str] = field(default_factory=dict)
    exercises: dict[str, str] = field(default_factory=dict)
    cited: set[str] = field(default_factory=set)


def plain(notebook: NotebookNode, chapter: Chapter) -> NotebookNode:
    """The chapter as a plain notebook; the one that is given stays as it is."""
    chapter.glued = glued(notebook)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    chapter.exercises = {
        m["label"]: m["title"] for text in texts for m in EXERCISE.finditer(text)
    }
    if not chapter.equations:
        labels = [m["label"] for text in texts for m in EQUATION.finditer(text)]
        chapter.equations = {label: str(n) for n, label in enumerate(labels, 1)}
    fresh = new_notebook(metadata=notebook.metadata)
    fresh.cells = opening(notebook, chapter) + body(notebook, chapter)
    if chapter.cited:
        text = bibliography(chapter)
        fresh.cells.append(new_markdown_cell(text, id="plain-references"))
    return fresh


def glued(notebook: NotebookNode) -> dict[str, str]:
    """The values that `glue` left in the outputs, as plain text."""
    found = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            record = output.get("metadata", {}).get("scrapbook")
            if record:
                kind = record.get("mime_prefix", "") + "text/plain"
                found[record["name"]] = output["data"].get(kind, "")
    return found


def opening(notebook: NotebookNode, chapter: Chapter) -> list[NotebookNode]:
    """The first cells: where the notebook comes from and what it needs."""
    sources = [cell.source for cell in notebook.cells]
    title = TITLE.search("\n\n".join(sources))
    name = title["title"] if title else chapter.page
    extra = other_packages(notebook)
    files = any("../../benchmarks/" in text for text in sources)
    where = f", <{chapter.repository}>" if chapter.repository else ""
    source = f"git+{chapter.repository}" if chapter.repository else "."
    copy = "" if chapter.repository else " in a copy of the book's repository"
    lines = [
        f'This is the chapter "{name}" of the book *metarec: everything is a map*'
        f"{where}, as a plain notebook. The numbers in the text are those of the "
        "book's own run. Text and figures CC BY 4.0, code MIT; the MovieLens data "
        "belong to GroupLens and come under their own terms.",
        "It needs the package `metarec`"
        + "".join(f" and `{one}`" for one in extra)
        + f": `pip install {' '.join([source, *extra])}`{copy}.",
    ]
    if files:
        lines.append(
            "It also reads tables that the book's repository holds: run it in the "
            f"folder `{posixpath.dirname(chapter.page)}` of a copy."
        )
    cells = [new_markdown_cell(quote("", "\n\n".join(lines)), id="plain-origin")]
    if chapter.repository:
        cells.append(new_code_cell(colab(chapter, extra, files), id="plain-colab"))
    if any(GLUE_IMPORT.search(text) for text in sources):
        cells.append(new_code_cell(GLUE, id="plain-glue"))
    return cells


def colab(chapter: Chapter, extra: list[str], files: bool) -> str:
    """Code that installs the package on Colab, and does nothing elsewhere."""
    lines = ["import sys", "", 'if "google.colab" in sys.modules:']
    more = "".join(f" {one}" for one in extra)
    if files:
        folder = posixpath.dirname(chapter.page)
        lines += [
            f"    !git clone -q --depth 1 {chapter.repository} /content/metarec-book",
            f"    %pip install -q /content/metarec-book{more}",
            f"    %cd /content/metarec-book/{folder}",
        ]
    else:
        lines.append(f"    %pip install -q git+{chapter.repository}{more}")
    return "\n".join(lines)


def other_packages(notebook: NotebookNode) -> list[str]:
    """Packages that the chapter imports and `metarec` does not bring."""
    found = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(GLUE_IMPORT.sub("", cell.source))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.partition(".")[0])
    return sorted(
        PACKAGE.get(name, name) for name in found - PROVIDED - sys.stdlib_module_names
    )


def body(notebook: NotebookNode, chapter: Chapter) -> list[NotebookNode]:
    """The chapter's own cells."""
    cells: list[NotebookNode] = []
    solution = ""  # the title of the one that is open
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text, solution = folded(converted(cell.source, chapter), solution)
            if text:
                cells.append(new_markdown_cell(text, id=cell.id))
        elif source := GLUE_IMPORT.sub("", cell.source).strip("\n"):
            cells.append(code_of(cell, source, hidden=bool(solution)))
    if solution:
        raise ValueError(f"{chapter.page}: a solution without an end: {solution}")
    return cells


def code_of(cell: NotebookNode, source: str, hidden: bool) -> NotebookNode:
    """A code cell with its outputs, but for the values that were only glued."""
    outputs = [
        NotebookNode(output | {"metadata": {}}) if "metadata" in output else output
        for output in cell.outputs
        if not output.get("metadata", {}).get("scrapbook", {}).get("mime_prefix")
    ]
    # What answers a guess is out of sight as well, until the cell is run or clicked.
    answer = "hide-output" in cell.metadata.get("tags", [])
    folds = {"source_hidden": hidden, "outputs_hidden": hidden or answer}
    return new_code_cell(
        source,
        id=cell.id,
        execution_count=cell.execution_count,
        outputs=outputs,
        metadata={"jupyter": {k: v for k, v in folds.items() if v}}
        if any(folds.values())
        else {},
    )


def folded(text: str, solution: str) -> tuple[str, str]:
    """Put what belongs to a solution into ``<details>``; say which is open at the end.

    A solution may run over several cells, with code between; every piece of its text is
    folded by itself. One that has only code keeps its title.
    """
    done: list[str] = []
    titled = True
    for piece in ENDS.split(text):
        if not titled and (piece == END or piece.strip("\n") == ""):
            done.append(f"**Solution: {solution}**")
            titled = True
        if piece.startswith(START):
            solution, titled = piece.removeprefix(START), False
        elif piece == END:
            solution = ""
        elif inner := piece.strip("\n"):
            done.append(details(f"Solution: {solution}", inner) if solution else inner)
            titled = True
    return "\n\n".join(done), solution


def converted(text: str, chapter: Chapter) -> str:
    """The text of a cell, or the inside of a directive, without MyST."""
    out, at = "", 0
    for found in FENCED.finditer(text):
        out += inline(text[at : found.start()], chapter)
        at = found.end()
        if found["name"]:
            lines = found["inside"].split("\n")[:-1]
            new = directive(found["name"], found["title"].strip(), lines, chapter)
            before = "" if found["indent"] else "\n\n"
            out += before + indent(new, found["indent"], bool) + "\n\n"
        else:
            out += found[0]
    out += inline(text[at:], chapter)
    return re.sub(r"\n{3,}", "\n\n", out).strip("\n")


def directive(name: str, title: str, lines: list[str], chapter: Chapter) -> str:
    """What stands in place of a directive."""
    while lines and OPTION.match(lines[0]):
        lines = lines[1:]
    if name == "solution-start":
        return START + chapter.exercises[title]
    if name == "solution-end":
        return END
    inside = converted("\n".join(lines).strip("\n"), chapter)
    heading = inline(title, chapter)
    if name == "admonition":
        return quote(heading, inside)
    if name in {"note", "tip", "warning"}:
        return quote(name.capitalize(), inside)
    if name == "dropdown":
        return details(heading, inside)
    if name == "exercise":
        return f"**Exercise: {heading}**\n\n{inside}"
    if name == "interactive":
        return quote("On the site: a figure with sliders", inside)
    raise ValueError(f"{chapter.page}: no plain form of the directive {name}")


def quote(title: str, text: str) -> str:
    """A block quote, with a bold title if there is one."""
    whole = f"**{title}**\n\n{text}" if title else text
    return "\n".join(f"> {line}".rstrip() for line in whole.split("\n"))


def details(title: str, text: str) -> str:
    """A part that is folded until it is clicked."""
    title = html.escape(title, quote=False)
    title = re.sub(r"`([^`]+)`", r"<code>\1</code>", title)
    title = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", title)
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def inline(text: str, chapter: Chapter) -> str:
    """Prose without roles, labels and links that lead out of the notebooks."""
    if found := OPEN.search(text):
        raise ValueError(f"a fence without an end: {found[0]}")

    def role(found: re.Match[str]) -> str:
        make = ROLES.get(found["name"])
        if make is None:
            raise ValueError(f"{chapter.page}: no plain form of {found[0]}")
        return make(" ".join(found["text"].split()), chapter)

    text = EQUATION.sub(
        lambda found: rf"\tag{{{chapter.equations[found['label']]}}}$$", text
    )
    text = LINK.sub(lambda found: link(found["text"], found["target"], chapter), text)
    return ROLE.sub(role, TARGET.sub("", text))


def link(text: str, target: str, chapter: Chapter) -> str:
    """A link to another chapter stays; one to a file leads to the repository."""
    address, _, anchor = target.partition("#")
    if "://" in address:
        return f"[{text}]({target})"
    if address.endswith(".ipynb"):
        return f"[{text}]({address})"
    if not (address and chapter.repository):
        return text
    path = posixpath.normpath(posixpath.join(posixpath.dirname(chapter.page), address))
    after = f"#{anchor}" if anchor else ""
    return f"[{text}]({chapter.repository}/blob/{chapter.branch}/{path}{after})"


def value(text: str, chapter: Chapter) -> str:
    """A glued value, formatted as the book formats it."""
    name, _, form = text.partition(":")
    if name not in chapter.glued:
        raise ValueError(f"{chapter.page}: nothing was glued as {name}")
    shown = chapter.glued[name]
    if form:
        shown = format(ast.literal_eval(shown), form)
    elif shown[:1] in {"'", '"'} and shown[:1] == shown[-1:]:
        shown = str(ast.literal_eval(shown))
    return re.sub(r"([\\`*_<$~])", r"\\\1", shown)


def authors(entry: Entry) -> str:
    """One name, two, or the first of many."""
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [" ".join(one.prelast_names + one.last_names) for one in people]
    names = [str(Text.from_latex(name)) for name in names or [entry.fields["title"]]]
    return " and ".join(names) if len(names) < 3 else f"{names[0]} et al."


def cited(text: str, chapter: Chapter) -> list[tuple[str, str]]:
    """Authors and year of each work that a citation names."""
    keys = [key.strip() for key in text.split(",")]
    chapter.cited.update(keys)
    entries = [chapter.references.entries[key] for key in keys]
    return [(authors(one), one.fields.get("year", "no year")) for one in entries]


def bibliography(chapter: Chapter) -> str:
    """The works that the chapter cites."""
    formatted = Style().format_bibliography(chapter.references, sorted(chapter.cited))
    texts = [" ".join(one.text.render(Backend()).split()) for one in formatted]
    # A full stop or a hyphen within a line needs no backslash.
    entries = ["- " + re.sub(r"\\([.-])", r"\1", text) for text in texts]
    return "\n".join(["## Works cited", "", *entries])


ROLES: dict[str, Callable[[str, Chapter], str]] = {
    "abbr": lambda text, _: text,
    "cite": lambda text, chapter: (
        f"({'; '.join(map(', '.join, cited(text, chapter)))})"
    ),
    "cite:t": lambda text, chapter: ", ".join(
        f"{names} ({year})" for names, year in cited(text, chapter)
    ),
    "eq": lambda text, chapter: f"({chapter.equations[text]})",
    "glue:text": value,
    "term": lambda text, _: text.partition("<")[0].rstrip(),
}
