"""Docstrings of public names, in numpydoc's sections, say all that a user needs."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from typing import Any

import pytest
from test_book import CHAPTERS, ROOT, load

sys.path.insert(0, str(ROOT / "book" / "_ext"))
reference = load("book/_ext/reference.py")

STEMS = {page.split("/")[-1] for page in CHAPTERS}
# In this order; the last four beside Examples are the course's own.
SECTIONS = (
    "Parameters Attributes Returns Yields Raises Shapes Source Built_in Plumbing "
    "Examples"
).split()
HEADING = re.compile(r"^(\S.*)\n-{3,}$", re.MULTILINE)
SHAPE = re.compile(r"\([^()]*\)|\bshape\b|\bnumber\b")


def sections(text: str) -> dict[str, str]:
    """Heading to text; what stands above the first heading is under ""."""
    parts = HEADING.split(text)
    names = ["", *(name.replace(" ", "_") for name in parts[1::2])]
    assert len(names) == len(set(names)), "a section stands twice"
    bodies = [part.strip("\n") for part in parts[::2]]
    return dict(zip(names, bodies, strict=True))


def fields(text: str) -> dict[str, str]:
    """Entry to what is said of it, in a section of entries."""
    found = re.findall(r"^(\S.*)\n((?:[ ]+.*\n?|\n)*)", text, re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in found}


def public() -> Iterator[tuple[str, Any]]:
    """Full name and thing: classes, functions, methods and properties, no constants."""
    for name in reference.modules():
        module = import_module(name)
        for short in module.__all__:
            thing = getattr(module, short)
            if inspect.isclass(thing) and not hasattr(thing, "__origin__"):
                yield f"{name}.{short}", thing
                for key, member in vars(thing).items():
                    plain = getattr(member, "__func__", member)
                    known = inspect.isroutine(plain) and plain.__doc__
                    aside = isinstance(plain, property | cached_property)
                    if key[0] != "_" and (known or aside):
                        yield f"{name}.{short}.{key}", plain
            elif inspect.isroutine(thing):
                yield f"{name}.{short}", thing


NAMES = dict(public())
CALLABLE = [
    name
    for name, thing in NAMES.items()
    if inspect.isfunction(thing)
    or (
        inspect.isclass(thing)
        and not issubclass(thing, BaseException)
        and not getattr(thing, "_is_protocol", False)
    )
]


def docstring(name: str) -> str:
    return inspect.getdoc(NAMES[name]) or ""


def parameters(name: str) -> dict[str, str]:
    """What a call takes, and its annotation in words."""
    thing = NAMES[name]
    found = {}
    for key, parameter in inspect.signature(thing).parameters.items():
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        kind = parameter.annotation
        if kind is parameter.empty:
            kind = getattr(thing, "__annotations__", {}).get(key, "")
        if key not in ("self", "cls"):
            found[stars.get(parameter.kind, "") + key] = str(kind)
    return found


def code(name: str) -> ast.AST:
    """The syntax tree of a function, or of what makes an instance of a class."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(NAMES[name]))).body[0]
    if isinstance(tree, ast.ClassDef):
        making = ("__init__", "__post_init__")
        body = [part for part in tree.body if getattr(part, "name", "") in making]
        return ast.Module(body, [])
    return tree


def raised(tree: ast.AST) -> set[str]:
    """The exceptions that code raises itself."""
    names = [
        ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc is not None
    ]
    return {name for name in names if re.fullmatch(r"[A-Z]\w*Error", name)}


def prose(text: str) -> str:
    """A docstring without code: literals, indented blocks, examples and headings."""
    parts = sections(text)
    plain = "\n\n".join(parts[name] for name in parts if name not in ("Examples",))
    plain = re.sub(r"::\n(\n(?:[ ]{4,}.*\n?)+)+", "\n", f"{plain}\n")
    return re.sub(r"``[^`]+``", "x", plain)


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_begins_with_a_sentence_in_one_line(name: str) -> None:
    first, _, rest = docstring(name).partition("\n")
    assert first.endswith((".", ":")) and len(first) > 5
    assert not rest or rest.startswith("\n")


@pytest.mark.parametrize("name", NAMES)
def test_the_sections_are_known_and_in_order(name: str) -> None:
    found = [key for key in sections(docstring(name)) if key]
    assert found == [key for key in SECTIONS if key in found]


@pytest.mark.parametrize("name", CALLABLE)
def test_the_parameters_are_those_of_the_signature(name: str) -> None:
    said = fields(sections(docstring(name)).get("Parameters", ""))
    assert list(said) == list(parameters(name))
    assert all(text.endswith((".", ":")) for text in said.values())


@pytest.mark.parametrize("name", CALLABLE)
def test_a_function_says_what_it_returns(name: str) -> None:
    thing, parts = NAMES[name], sections(docstring(name))
    if inspect.isclass(thing):
        assert not {"Returns", "Yields"} & set(parts)
        return
    annotation = str(inspect.signature(thing).return_annotation)
    said = fields(parts.get("Returns", parts.get("Yields", "")))
    assert len(said) == (annotation not in ("None", "<class 'NoneType'>"))
    if annotation == "Tensor":
        assert SHAPE.search(" ".join([docstring(name).split("\n")[0], *said.values()]))


@pytest.mark.parametrize("name", CALLABLE)
def test_what_is_raised_is_named(name: str) -> None:
    said = fields(sections(docstring(name)).get("Raises", ""))
    assert raised(code(name)) <= set(said)
    assert all(said.values())


@pytest.mark.parametrize("name", CALLABLE)
def test_a_tensor_has_its_shape(name: str) -> None:
    parts = sections(docstring(name))
    said = fields(parts.get("Parameters", ""))
    for key, kind in parameters(name).items():
        if re.fullmatch(r"(torch\.)?Tensor( \| (None|int|float))*|np\.ndarray", kind):
            listed = f"``{key}``" in parts.get("Shapes", "")
            assert listed or SHAPE.search(said[key]), f"{key}: {kind} has no shape"


@pytest.mark.parametrize("name", NAMES)
def test_the_chapter_of_a_name_exists(name: str) -> None:
    parts = sections(docstring(name))
    assert parts.get("Built_in", "maml") in STEMS
    assert not {"Built_in", "Plumbing"} <= set(parts)
    assert all(parts.values()), "a section is empty"


@pytest.mark.parametrize("name", NAMES)
def test_a_formula_is_a_literal(name: str) -> None:
    """rST would read its signs as markup, and typography curls its primes."""
    signs = r" (<-|~|<=|>=) |\w\^[\w(-]|\)\^|\bsum_|\btheta_|-log|\w_\{"
    quoted = r'[\[{(=]"|"[\]}:]|[a-zA-Z)]\'[ ,.;)](?=[A-Z]\b)'
    equals = r"(?<!\bK) = (?!0\b)"
    assert re.findall(f"{signs}|{quoted}|{equals}", prose(docstring(name))) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_single_backticks_is_public(name: str) -> None:
    """So that it becomes a link; code has double backticks."""
    own = name.split(".")[2]
    for quoted in re.findall(r"`([^`]+)`", prose(docstring(name))):
        spellings = (quoted, f"{own}.{quoted}")
        known = {*reference.public(), *reference.modules(), "metarec"}
        assert known & set(spellings), f"{quoted} is no public name"


EXAMPLES = [name for name in NAMES if "Examples" in sections(docstring(name))]


def test_the_main_classes_have_an_example() -> None:
    assert len(EXAMPLES) >= 13


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str) -> None:
    example = doctest.DocTestParser().get_doctest(docstring(name), {}, name, None, None)
    result = doctest.DocTestRunner().run(example)
    assert result.attempted > 3 and result.failed == 0


def test_a_chapter_becomes_a_link() -> None:
    app: Any = type("App", (), {"srcdir": str(ROOT)})()
    lines = ["Sum.", "", "Built in", "--------", "maml", ""]
    reference.link_chapter(app, "function", "f", len, None, lines)
    assert lines[4] == ":doc:`/book/learning-to-learn/maml`"
    with pytest.raises(Exception, match="no chapter 'nowhere'"):
        wrong = ["Built in", "--------", "nowhere"]
        reference.link_chapter(app, "function", "f", len, None, wrong)
