"""The API reference: what `__all__` of each module names, from the docstrings.

``{api} metarec.tasks`` documents one module, ``{api-names} metarec.tasks`` lists what
it has. The docstrings are plain text with a house
style, which is turned into what Sphinx reads:

- a name in single backticks becomes a link, if it is a public name of the package;
- ``Built in: <stem>`` becomes a link to that chapter; ``Plumbing: ...`` and
  ``Source: ...`` stay sentences, each a paragraph of its own;
- formulas, in ASCII, become mathematics: `formulas` says what counts as one;
- everything else is taken as it stands: its signs would otherwise be read as markup.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from formulas import pieces
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

PACKAGE = "metarec"
# One file for each example, a session of Python that a test runs.
EXAMPLES = "book/reference/api/examples"
# Arrows between modules run downward in this list: one imports only from above itself.
MODULES = (
    "data features tasks metrics validation plots models learners "
    "factors meta lists training baselines systems recommender evaluation challenges "
    "scale"
).split()
# Types that appear in signatures and are documented elsewhere: their pages are on other
# hosts, and the site links to none that a build would have to ask.
ELSEWHERE = (
    r"(torch|numpy|np|pandas|pd|matplotlib|nn|pathlib|collections|typing|Tensor|Path|"
    r"Callable|Iterable|Iterator|Mapping|Sequence|Any|Self|Literal|NamedTuple|Protocol|"
    r"int|float|str|bool|tuple|list|dict|None|type|set|object|[A-Z]\w*Error)\b.*"
)
SIGNATURE = re.compile(r'<dt class="sig\b.*?</dt>', re.DOTALL)
TAIL = re.compile(r"(Built in|Plumbing|Source): *(.*)")


@cache
def public() -> dict[str, str]:
    """Every spelling of a public name, and the full name: ``module.name`` of it.

    Spellings are the full one, those without the package and without the module, the
    place where a name is defined, and each of these with a method or field after it.
    """
    found: dict[str, str] = {}
    for name in MODULES:
        module = import_module(f"{PACKAGE}.{name}")
        found[module.__name__] = module.__name__
        for short in module.__all__:
            full, thing = f"{PACKAGE}.{name}.{short}", getattr(module, short)
            home = f"{getattr(thing, '__module__', '')}.{short}"
            inside = vars(thing) if _is_class(thing) else ()
            for end in ["", *(f".{member}" for member in inside if member[0] != "_")]:
                for spelling in (full, f"{name}.{short}", short, home):
                    found[spelling + end] = full + end
    return found


def _is_class(thing: Any) -> bool:
    return inspect.isclass(thing) and not hasattr(thing, "__origin__")


@cache
def chapters(root: Path) -> dict[str, str]:
    """The page of each chapter by its stem."""
    return {
        path.stem: path.relative_to(root).with_suffix("").as_posix()
        for path in (root / "book").glob("*/*.ipynb")
    }


def markup(text: str, inline: bool = True) -> str:
    """One paragraph of a docstring as reStructuredText.

    Unless it must stay ``inline``, a long formula gets a line of its own.
    """
    parts = re.split(r"(``[^`]+``|`[^`]+`|(?<![\w*])\*\w[^*\n]*\w\*(?![\w*]))", text)
    for at, part in enumerate(parts):
        if at % 2 == 0:
            parts[at] = mathematics(part, inline)
        elif not part.startswith("*"):
            parts[at] = span(part)
    # A mark after a formula on its own line belongs to that line.
    text = re.sub(r"\n\n\x00([,;.:]?)[ \n]*", r"\1\n\n", "".join(parts))
    return re.sub(r"(?<!\S)\\ |\\ (?=\s|$)", "", text).strip()


def mathematics(text: str, inline: bool) -> str:
    """Prose with its formulas as mathematics and its shapes as code."""
    result = ""
    for kind, part in pieces(text):
        if kind == "text":
            result += plain(part)
        elif kind == "display" and not inline:
            result = f"{result.rstrip()}\n\n.. math::\n\n   {part}\n\n\x00"
        else:
            result += rf"\ ``{part}``\ " if kind == "code" else rf"\ :math:`{part}`\ "
    return result


def span(quoted: str) -> str:
    """A link to a public name in single backticks, or code."""
    name = quoted.strip("`")
    if not quoted.startswith("``") and name in public():
        return f":py:obj:`{name} <{public()[name]}>`"
    return f"``{name}``"


def plain(text: str) -> str:
    """Text whose signs mean nothing; the transpose of a matrix gets its prime."""
    text = re.sub(r"(?<=[A-RT-Za-rt-z)\]])'(?!\w)", "\N{PRIME}", text)
    return re.sub(r"([\\*|]|(?<=\w)_(?!\w))", r"\\\1", text)


def tail(kind: str, text: str, root: Path) -> list[str]:
    """One of the closing lines of a docstring, as a paragraph with its own class."""
    words = f"{kind}: " + (plain(text) if kind == "Source" else markup(text))
    if kind == "Built in":
        page = chapters(root).get(text.rstrip("."))
        if page is None:
            raise ExtensionError(f"api: there is no chapter {text!r}")
        words = f"Built in: :doc:`/{page}`"
    return [f".. container:: api-{kind.lower().replace(' ', '-')}", "", f"   {words}"]


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """Cut a docstring into paragraphs; each closing line is one."""
    block: list[str] = []
    for line in lines:
        if block and (not line.strip() or TAIL.match(line)):
            yield block
            block = []
        if line.strip():
            block.append(line)
    if block:
        yield block


def converted(lines: list[str], root: Path) -> list[str]:
    """A docstring as reStructuredText.

    Lines of a paragraph that each start with a name in double backticks and a colon
    become a list; an indented paragraph is code.
    """
    result: list[str] = []
    for block in blocks(lines):
        text, found = "\n".join(block), TAIL.match(block[0])
        if found:
            words = " ".join(line.strip() for line in block)
            result += tail(found.group(1), words.partition(":")[2].strip(), root)
        elif all(line.startswith("    ") for line in block):
            result += ["::", "", *block] if is_code(block) else displayed(block)
        elif block[0].startswith("|"):
            result += table(block)
        elif len(items := re.split(r"^(?=``\w+``:|- )", text, flags=re.M)[1:]) > 1:
            for item in [text.partition(items[0])[0], *items]:
                words = markup(" ".join(item.removeprefix("- ").split()))
                if words:
                    result += ["- " + words if item in items else words, ""]
        else:
            result += markup(" ".join(text.split()), inline=False).split("\n")
        result.append("")
    return result


def is_code(block: list[str]) -> bool:
    """Tell statements of Python, which keep their lines, from formulas."""
    try:
        body = ast.parse(textwrap.dedent("\n".join(block))).body
    except SyntaxError:
        return False
    return any(isinstance(part, ast.With | ast.For | ast.FunctionDef) for part in body)


def displayed(block: list[str]) -> list[str]:
    """An indented paragraph: one formula after another, or code if it is none.

    A line that begins with an operator, or is indented further, goes on with the one
    before it. Words that link two formulas stand between them.
    """
    rows: list[str] = []
    for line in block:
        text = line.strip()
        if rows and (line.startswith("     ") or not re.search(r" = |^min", text)):
            rows[-1] += " " + text
        else:
            rows.append(text)
    return [line for row in rows for line in ["", *displayed_row(row)]]


def displayed_row(row: str) -> list[str]:
    """One formula on its own line, with what is said after it."""
    first, *others = pieces(row)
    if first.kind not in ("math", "display"):
        return ["::", "", f"    {row}"]
    rest = "".join(
        plain(text) if kind == "text" else rf"\ :math:`{text}`\ "
        for kind, text in others
    ).strip()
    mark = rest[:1] if rest[:1] in tuple(",.;") else ""
    rest = rest.removeprefix(mark).strip()
    return [".. math::", "", f"   {first.text}{mark}", "", rest]


def table(block: list[str]) -> list[str]:
    """A table, its cells between upright strokes and its first row the header."""
    result = [".. list-table::", "   :header-rows: 1", ""]
    for line in [block[0], *block[2:]]:
        for at, cell in enumerate(line.strip("|").split("|")):
            result.append(f"   {'-' if at else '* -'} {markup(cell.strip())}")
            if at:
                result[-1] = f"     - {markup(cell.strip())}"
    return result


def process_docstring(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Replace a docstring's lines, and add the example of the name if it has one."""
    root = Path(app.srcdir)
    lines[:] = converted(lines, root)
    example = root / EXAMPLES / f"{name}.txt"
    if example.exists():
        app.env.note_dependency(str(example))
        code = example.read_text(encoding="utf-8").splitlines()
        lines += ["", ".. code-block:: pycon", "   :class: api-example", ""]
        lines += [f"   {line}" for line in code] + [""]


def skip_member(
    app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the fields of a named tuple: Python documents them by number."""
    text = getattr(thing, "__doc__", None) or ""
    return True if text.startswith("Alias for field number") else None


def process_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, given: Any, result: Any
) -> tuple[str, Any] | None:
    """Show no arguments of an interface, nobody makes one, and a factory's product."""
    if getattr(thing, "_is_protocol", False):
        return "", None
    if not (given and is_dataclass(thing)):
        return None
    made = [f.default_factory for f in fields(thing)]
    for factory in made:
        if factory is not MISSING:
            given = given.replace("<factory>", repr(factory()), 1)
    return given, result


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element
) -> nodes.Element | None:
    """Resolve a type to the public name it has, whatever module defines it.

    A type of the package that is not public stays without a link.
    """
    target = node.get("reftarget", "")
    full = public().get(target)
    if node.get("refdomain") != "py" or full is None:
        return text if target.startswith(f"{PACKAGE}.") else None
    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", full, node, text
    )


class Api(SphinxDirective):
    """``{api} metarec.tasks``: everything public of one module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the directives of autodoc, one for each name."""
        name = self.arguments[0]
        module = import_module(name)
        self.env.note_dependency(str(module.__file__))
        texts = {short: description(name, short) for short in module.__all__}
        for short in module.__all__:
            forget_overloads(getattr(module, short))
        inner = {short for short, text in texts.items() if "\nPlumbing:" in text}
        main = [short for short in texts if short not in inner]
        lines = [f".. automodule:: {name}", ""]
        lines += [where_built(texts, Path(self.env.srcdir)), ""]
        lines += overview(name, main, texts)
        for short in sorted(main, key=str.lower):
            lines += [*entry(f"{name}.{short}", getattr(module, short)), ""]
        if main and inner:
            lines += [".. dropdown:: What the course uses and does not teach", ""]
        indent = "   " if main and inner else ""
        for short in sorted(inner, key=str.lower):
            within = [*entry(f"{name}.{short}", getattr(module, short)), ""]
            lines += [indent + line for line in within]
        source = StringList(["```{eval-rst}", *lines, "```"], str(module.__file__))
        box = nodes.container(classes=["api"])
        self.state.nested_parse(source, 0, box)
        return [box]


class ApiNames(SphinxDirective):
    """``{api-names} metarec.tasks``: the module in a sentence, links to its names."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse a term and its definition."""
        name = self.arguments[0]
        module = import_module(name)
        self.env.note_dependency(str(module.__file__))
        about = markup(
            (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
        )
        lines = [f":py:mod:`{name}`", f"   {about}", ""]
        box = nodes.container(classes=["api-names"])
        source = StringList(["```{eval-rst}", *lines, "```"], str(module.__file__))
        self.state.nested_parse(source, 0, box)
        return [box]


def forget_overloads(thing: Any) -> None:
    """Let a name that is declared several times show what implements it, alone.

    autodoc shows the declarations instead, one below the other under one name.
    """
    home = getattr(thing, "__module__", None) or ""
    if home.startswith(PACKAGE):
        analyzer = ModuleAnalyzer.for_module(home)
        analyzer.analyze()
        analyzer.overloads.clear()


def description(name: str, short: str) -> str:
    """The docstring of a name; for a constant, the string below its assignment."""
    thing = getattr(import_module(name), short)
    if _is_class(thing) or inspect.isroutine(thing):
        return inspect.getdoc(thing) or ""
    found = ModuleAnalyzer.for_module(name).find_attr_docs()
    return "\n".join(found.get(("", short), []))


def where_built(texts: dict[str, str], root: Path) -> str:
    """The sentence that links a module to the chapters that build its names."""
    stems = re.findall(r"^Built in: *([\w-]+)", "\n".join(texts.values()), re.MULTILINE)
    toc = (root / "_toc.yml").read_text(encoding="utf-8")
    pages = [page for stem, page in chapters(root).items() if stem in stems]
    pages.sort(key=toc.index)
    links = [f":doc:`/{page}`" for page in pages]
    if not links:
        return "No chapter builds this module: they use it."
    return "What the course teaches of it is built in: " + "; ".join(links) + "."


def overview(name: str, names: list[str], texts: dict[str, str]) -> list[str]:
    """A table of names by use, each with the first sentence of its description."""
    module = import_module(name)
    groups: dict[str, list[str]] = {"Classes": [], "Functions": []}
    for short in sorted(names, key=str.lower):
        is_class = _is_class(getattr(module, short))
        groups["Classes" if is_class else "Functions"].append(short)
    lines: list[str] = []
    for title, members in groups.items():
        if members:
            lines += [".. list-table::", "   :header-rows: 1", "   :widths: 1 3"]
            lines += ["   :class: api-overview", "", f"   * - {title}"]
            lines += [
                "     - What it is for" if title == "Classes" else "     - What it does"
            ]
        for short in members:
            first = " ".join(texts[short].split("\n\n")[0].split())
            lines += [f"   * - :py:obj:`~{name}.{short}`", f"     - {markup(first)}"]
        lines.append("")
    return lines


def entry(full: str, thing: Any) -> list[str]:
    """The directive that documents one name."""
    if _is_class(thing):
        ours = any(base.__module__.startswith(PACKAGE) for base in thing.__bases__)
        bases = ["   :show-inheritance:"] if ours else []
        return [f".. autoclass:: {full}", "   :members:", *bases]
    kind = "function" if inspect.isroutine(thing) else "data"
    return [f".. auto{kind}:: {full}"]


def lines_of_signatures(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Make the arguments of a signature lines, not a list of definitions without terms.

    That is how Sphinx writes a long signature, and a screen reader cannot read it.
    """
    if doctree is None or not context.get("body"):
        return
    context["body"] = SIGNATURE.sub(
        lambda found: re.sub(
            r"<(/?)d[ld]>",
            lambda tag: "</span>" if tag.group(1) else '<span class="sig-line">',
            found.group(),
        ),
        str(context["body"]),
    )


def configure(app: Sphinx, config: Config) -> None:
    """Set what belongs to the reference and to nothing else."""
    config.autodoc_member_order = "bysource"
    config.autodoc_typehints_format = "short"
    config.autodoc_preserve_defaults = True
    config.autodoc_type_aliases = {
        name: f"{PACKAGE}.learners.{name}" for name in ("Loss", "Parameters")
    }
    config.python_use_unqualified_type_names = True
    config.python_maximum_signature_line_length = 76
    config.add_module_names = False
    config.copybutton_prompt_text = r">>> |\.\.\. "
    config.copybutton_prompt_is_regexp = True
    config.toc_object_entries_show_parents = "hide"
    config.html_domain_indices = False
    config.nitpick_ignore_regex = [*config.nitpick_ignore_regex, (r"py:.*", ELSEWHERE)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive, and connect to autodoc."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_css_file("reference.css")
    app.add_directive("api", Api)
    app.add_directive("api-names", ApiNames)
    app.connect("config-inited", configure)
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", resolve)
    app.connect("html-page-context", lines_of_signatures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
