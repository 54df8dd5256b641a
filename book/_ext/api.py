"""The API reference: what `__all__` of each module names, from the docstrings.

``{api} metarec.tasks`` documents one module, ``{api-names} metarec.tasks`` lists what
it has. The docstrings are plain text with a house
style, which is turned into what Sphinx reads:

- a name in single backticks becomes a link, if it is a public name of the package;
- ``Built in: <stem>`` becomes a link to that chapter; ``Plumbing: ...`` and
  ``Source: ...`` stay sentences, each a paragraph of its own;
- everything else is taken as it stands: formulas are full of signs that would otherwise
  be read as markup.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

PACKAGE = "metarec"
# Arrows between modules run downward in this list: one imports only from above itself.
MODULES = (
    "data tasks features metrics plots models learners bayes task_attention baselines "
    "meta training systems evaluation recommender drift lists"
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


def markup(text: str) -> str:
    """One paragraph of a docstring as reStructuredText."""
    parts = re.split(r"(``[^`]+``|`[^`]+`|(?<![\w*])\*\w[^*\n]*\w\*(?![\w*]))", text)
    for at, part in enumerate(parts):
        if at % 2 == 0:
            parts[at] = plain(part)
        elif not part.startswith("*"):
            parts[at] = span(part)
    return "".join(parts)


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
    words = markup(f"{kind}: {text}")
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
            result += ["::", "", *block]
        elif len(items := re.split(r"^(?=``\w+``:|- )", text, flags=re.M)[1:]) > 1:
            for item in [text.partition(items[0])[0], *items]:
                words = markup(" ".join(item.removeprefix("- ").split()))
                if words:
                    result += ["- " + words if item in items else words, ""]
        else:
            result += markup(text).split("\n")
        result.append("")
    return result


def process_docstring(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Replace a docstring's lines."""
    lines[:] = converted(lines, Path(app.srcdir))


def skip_member(
    app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the fields of a named tuple: Python documents them by number."""
    text = getattr(thing, "__doc__", None) or ""
    return True if text.startswith("Alias for field number") else None


def process_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, given: Any, result: Any
) -> tuple[str, None] | None:
    """Show no arguments of an interface: nobody makes one."""
    return ("", None) if getattr(thing, "_is_protocol", False) else None


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
        lines = [f".. automodule:: {name}", ""]
        for short in sorted(module.__all__, key=str.lower):
            lines += [*entry(f"{name}.{short}", getattr(module, short)), ""]
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
        names = sorted(module.__all__, key=str.lower)
        links = ", ".join(f":py:obj:`~{name}.{short}`" for short in names)
        lines = [f":py:mod:`{name}`", f"   {about}", "", f"   {links}"]
        box = nodes.container(classes=["api-names"])
        source = StringList(["```{eval-rst}", *lines, "```"], str(module.__file__))
        self.state.nested_parse(source, 0, box)
        return [box]


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
    config.python_maximum_signature_line_length = 110
    config.add_module_names = False
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
