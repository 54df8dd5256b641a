"""The API reference: autodoc over ``__all__``, docstrings in numpydoc's sections.

``{api} metarec.tasks`` documents what one module makes public, ``{api-names}
metarec.tasks`` is the module's line in a table. Napoleon reads the docstrings. Two
things are added: the section "Built in" becomes a link to the chapter it names, and a
public name in single backticks links to its entry from wherever it is used.
"""

from __future__ import annotations

import inspect
import pkgutil
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from learning_path import chapter
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

PACKAGE = "metarec"


@cache
def modules() -> tuple[str, ...]:
    """The modules and packages right below the package that say what is public."""
    home = import_module(PACKAGE)
    names = [f"{PACKAGE}.{found.name}" for found in pkgutil.iter_modules(home.__path__)]
    return tuple(n for n in names if hasattr(import_module(n), "__all__"))


@cache
def public() -> dict[str, str]:
    """Each spelling of a public name or member: bare, or by where it is defined."""
    found: dict[str, str] = {}
    for module in map(import_module, modules()):
        for short in module.__all__:
            thing = getattr(module, short)
            inside = vars(thing) if inspect.isclass(thing) else ()
            for end in ["", *(f".{member}" for member in inside if member[0] != "_")]:
                for home in (module.__name__, getattr(thing, "__module__", "")):
                    found[f"{home}.{short}{end}"] = f"{module.__name__}.{short}{end}"
                found[short + end] = f"{module.__name__}.{short}{end}"
    return found


def docstring(full: str) -> str:
    """The docstring of a name; a constant's stands below it, maybe in a submodule."""
    name, _, short = full.rpartition(".")
    module = import_module(name)
    thing = getattr(module, short)
    if inspect.isclass(thing) or inspect.isroutine(thing):
        return inspect.getdoc(thing) or ""
    inner = pkgutil.iter_modules(getattr(module, "__path__", ()), f"{name}.")
    for home in [name, *(found.name for found in inner)]:
        if lines := ModuleAnalyzer.for_module(home).find_attr_docs().get(("", short)):
            return "\n".join(lines)
    return ""


def link_chapter(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Turn the stem below "Built in" into a link, before napoleon reads the section."""
    # Of an alias autodoc would show what it stands for: a dict's own text.
    if what == "data" and name in public().values():
        lines[:] = docstring(name).split("\n")
    for at, line in enumerate(lines[:-2]):
        if line == "Built in" and lines[at + 1].startswith("---"):
            page = chapter(Path(app.srcdir), lines[at + 2].strip())
            lines[at + 2] = f":doc:`/{page}`"


def process_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, given: Any, result: Any
) -> tuple[str, Any] | None:
    """Show no arguments of an interface, nobody makes one, and a factory's product."""
    if getattr(thing, "_is_protocol", False):
        return "", None
    if not (given and is_dataclass(thing)):
        return None
    for field in fields(thing):
        if field.default_factory is not MISSING:
            given = given.replace("<factory>", repr(field.default_factory()), 1)
    return given, result


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element
) -> nodes.Element | None:
    """Resolve a name to its entry; a type of ours that is not public gets no link."""
    target = node.get("reftarget", "")
    full = public().get(target)
    if node.get("refdomain") != "py" or full is None:
        return text if target.startswith(f"{PACKAGE}.") else None
    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", full, node, text
    )


class Api(SphinxDirective):
    """``{api} module``: a table of the public names, then their entries."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Parse the directives of autodoc where this one stands."""
        lines = table(self.arguments)
        if self.name == "api":
            lines = self.entries(import_module(self.arguments[0]))
        text = "\n".join(["```{eval-rst}", *lines, "```"])
        return [
            nodes.container("", *self.parse_text_to_nodes(text), classes=[self.name])
        ]

    def entries(self, module: ModuleType) -> list[str]:
        """Table and entries of a module; what no chapter builds is folded."""
        self.env.note_dependency(str(module.__file__))
        names = {n: docstring(f"{module.__name__}.{n}") for n in module.__all__}
        inner = [n for n, text in names.items() if "\nPlumbing\n---" in f"\n{text}"]
        main = [n for n in names if n not in inner]
        if not main:
            main, inner = inner, main
        lines = [f".. automodule:: {module.__name__}", "", *table(main)]
        lines += [line for name in main for line in self.entry(module, name)]
        if inner:
            lines += [".. dropdown:: What the course uses and does not teach", ""]
            rest = [line for name in inner for line in self.entry(module, name)]
            lines += [f"   {line}" for line in [*table(inner), *rest]]
        return lines

    def entry(self, module: ModuleType, short: str) -> list[str]:
        """The directive that documents one name."""
        thing = getattr(module, short)
        kind = "function" if inspect.isroutine(thing) else "data"
        if inspect.isclass(thing):
            kind = "exception" if issubclass(thing, BaseException) else "class"
        lines = [f".. auto{kind}:: {module.__name__}.{short}"]
        if kind == "class":
            # Of a method that is declared several times, show what implements it.
            analyzer = ModuleAnalyzer.for_module(thing.__module__)
            analyzer.analyze()
            analyzer.overloads.clear()
            # Python documents the fields of a named tuple by number.
            numbered = ", ".join(getattr(thing, "_fields", ()))
            lines += ["   :members:", f"   :exclude-members: {numbered}"]
            if any(base.__module__.startswith(PACKAGE) for base in thing.__bases__):
                lines.append("   :show-inheritance:")
        return [*lines, ""]


def table(names: list[str]) -> list[str]:
    """The directive of autosummary for these names."""
    return [
        ".. autosummary::",
        "   :nosignatures:",
        "",
        *(f"   {n}" for n in names),
        "",
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives, and connect to autodoc."""
    for extension in ("autodoc", "autosummary", "napoleon"):
        app.setup_extension(f"sphinx.ext.{extension}")
    app.add_css_file("reference.css")
    app.add_directive("api", Api)
    app.add_directive("api-names", Api)
    app.connect("autodoc-process-docstring", link_chapter, priority=400)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
