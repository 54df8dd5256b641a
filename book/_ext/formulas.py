"""Formulas in the plain text of docstrings, found and turned into TeX.

A docstring is read in an editor, so its mathematics is ASCII: ``r_hat_ui = mu + b_i +
p_u . q_i``. What counts as a formula is a closed convention, and everything else is
prose:

- *symbols*: one letter, a Greek name, a name of `WORDS` or a function of `FUNCTIONS`,
  with an index (``q_i``, ``theta_0``, ``w_{t+1}``), a hat (``r_hat``), a prime (a
  transpose, but for ``K'`` and ``r'``) or a power (``S^-1``, ``2^(-1 / h)``);
- *operators* stand between blanks: ``=``, ``<-``, ``~``, ``<=``, ``+``, ``-``, ``*``,
  ``/``, ``.`` (the dot product) and ``o`` (entry by entry); in an index none is needed;
- a *formula* is the longest run of these that is well formed: brackets close, no
  operator is left over, and a name of `WORDS` has an operator beside it or stands in
  brackets; and it must hold more than words and numbers;
- a *quotient* becomes a fraction if what is divided is one thing: a symbol, a bracket,
  a run of words (``mean gain``) or a function with its bracket right behind it
  (``min(n, C) / C``); behind ``sum`` the fraction is what is summed, but a sum over a
  sum is one fraction. What is divided twice keeps its second stroke;
- ``a``, ``A`` and ``I`` are words of English as well. Alone they are symbols before
  "the" (``with A the task-learner``) and, ``I``, behind another symbol (``tau^2 I``);
- a *shape*, ``(B, N, D)``, is code; so is a name with an underscore that is no symbol.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

GREEK = (
    "alpha beta gamma delta epsilon theta lambda mu pi sigma tau phi kappa "
    "Delta Theta Lambda Sigma Phi"
).split()
FUNCTIONS = {
    "log": r"\log",
    "log2": r"\log_2",
    "exp": r"\exp",
    "min": r"\min",
    "max": r"\max",
    "argmin": r"\operatorname*{arg\,min}",
    "sum": r"\sum",
    "grad": r"\nabla",
    "sin": r"\sin",
    "sqrt": r"\sqrt",
    **{
        name: rf"\operatorname{{{name}}}"
        for name in ("softmax", "relu", "diag", "cov", "sigmoid", "Bernoulli")
    },
}
WORDS = (
    "mean variance covariance score offset noise precision Precision evidence "
    "error scale shrinkage doubt penalty ridge temper target relevance gain ideal "
    "phase DCG@k DCG@n nDCG@k nDCG@n precision@k Recall@n recall@k RMSE mask age "
    "half_life half-life user weight item support query task click rating"
).split()
RELATIONS = {
    "=": "=",
    "<-": r"\leftarrow",
    "~": r"\sim",
    "<=": r"\le",
    ">=": r"\ge",
    "<": "<",
    ">": ">",
}
OPERATORS = {
    "+": "+",
    "-": "-",
    "+-": r"\pm",
    "*": r"\,",
    ".": r"\cdot",
    "o": r"\circ",
    "/": "/",
}
DIMENSIONS = (
    r"(?:\.\.\.|\d+|[A-Z]|n|n_\w+|dim|users|rows|draws|ratings_per_user|w{0})"
    r"(?: \+ \d+)?"
)
SHAPE = re.compile(rf"\((?:{DIMENSIONS},|{DIMENSIONS}(?:, {DIMENSIONS})+)\)")
NAME = re.compile(
    r"(?:(?P<word>half_life|half-life|[A-Za-z]+@[a-z])|(?P<base>log2|[A-Za-z]+?)"
    r"(?P<hat>_hat)?(?P<prime>'?)"
    r"(?:_(?P<index>\{[^}]*\}|\([^()]*\)|[A-Za-z0-9]+))?)(?P<late>'?)"
    r"(?:(?<=[A-Z]')(?=[A-Ze])(?!s\b)|(?='s\b)|(?![\w'@]))"
)
POWER = re.compile(
    r"\^(?P<power>-?\d+/\d+|-?\d*\.?\d+|[A-Za-z]+|\((?:[^()]|\([^()]*\))*\))"
)
NUMBER = re.compile(r"(?:\d+(?:\.\d+)?|\.\d+)(?![\w,]\d|\w|%)(?!-\d)")
CODE = re.compile(r"[A-Za-z]\w*_\w+(?:\(\))?")
BLANK = re.compile(r"\s*")
WORDLIKE = ("function", "word", "named")
OPEN = ("operator", "relation", "sign", "stroke", "function")
CLOSING = {"(": ")", "[": "]", "|": "|", "{": "}"}
SHOWN = 34  # A relation longer than this, in ASCII, gets a line of its own.


class Piece(NamedTuple):
    """A stretch of text: ``kind`` is text, math, display or code."""

    kind: str
    text: str


class Item(NamedTuple):
    """Part of a formula: its TeX, what it is and where it ends."""

    tex: str
    kind: str  # symbol, word, number, function, operator, relation, group
    start: int
    end: int
    strong: bool = False


def index(text: str) -> str:
    """The TeX of an index: letters stand as they are, words upright."""
    inner = text[1:-1] if text[0] in "{(" else text
    if text[0] == "(":
        return rf"({index(inner)})" if "," not in inner else index("{" + inner + "}")
    if text[0] != "{" and re.fullmatch(r"\w+", inner):
        name = symbol_name(inner)
        if name:
            return name
        long = len(inner) > 2 and inner.isalpha()
        return rf"\text{{{inner}}}" if long else inner
    inner = re.sub(r"\b([a-z]{3,})\b", word_of_index, inner)
    for sign, tex in ((r"\.\.", r"\,..\,"), ("<=", r"\\le "), (r"\bin\b", r"\\in ")):
        inner = re.sub(sign, tex, inner)
    return inner.strip()


def word_of_index(found: re.Match[str]) -> str:
    """A word within an index: a function, or upright text with its blank."""
    word = found.group()
    return FUNCTIONS.get(word, rf"\text{{{word} }}")


def symbol_name(base: str) -> str | None:
    """The TeX of a letter or of a Greek name."""
    if base in GREEK:
        return "\\" + base
    return base if len(base) == 1 else None


def scripts(text: str, at: int) -> tuple[str, int]:
    """A power at this place, as TeX, and where it ends."""
    found = POWER.match(text, at)
    if not found:
        return "", at
    power = found.group("power")
    if power[0] == "(":
        inner = formula(power[1:-1])
        if inner is None:
            return "", at
        return f"^{{{inner}}}", found.end()
    if power.isalpha():
        power = symbol_name(power) or rf"\text{{{power}}}"
    return f"^{{{power}}}", found.end()


def name_at(text: str, at: int) -> Item | None:
    """A symbol, a word or a function that starts here."""
    found = NAME.match(text, at)
    if not found:
        return None
    word, end = found.group("word"), found.end()
    if word:
        tex = word.replace("_", "-")
        named = re.match(r"(\w+@)(\w)", tex)
        tex = rf"\text{{{named[1]}}}{named[2]}" if named else rf"\text{{{tex}}}"
        return Item(tex, "word", at, end)
    base, place = found.group("base"), found.group("index")
    under = f"_{{{index(place)}}}" if place else ""
    symbol = symbol_name(base)
    if symbol:
        if found.group("hat"):
            symbol = rf"\hat{{{symbol}}}"
        if place and base == "n" and len(place) > 2 and place.isalpha():
            return Item(f"n{under}", "word", at, end)
        prime = found.group("prime") or found.group("late")
        over = prime if base in "Kr" else (r"^\top" if prime else "")
        power, end = scripts(text, end)
        strong = bool(under or power or prime or len(base) > 1 or found.group("hat"))
        kind = "letter" if not strong and base in "aAI" else "symbol"
        return Item(symbol + under + over + power, kind, at, end, strong)
    if base in FUNCTIONS and not found.group("prime"):
        return Item(FUNCTIONS[base] + under, "function", at, end, base != "mean")
    if base in WORDS and not found.group("prime"):
        power, end = scripts(text, end)
        tex = rf"\text{{{base}}}{under}{power}"
        if place and len(place) == 1:
            return Item(tex, "named", at, end, True)
        return Item(tex, "word", at, end, bool(under or power))
    return None


def group_at(text: str, at: int, call: bool) -> Item | None:
    """A bracket with formulas in it, and its transpose or power."""
    opened = text[at]
    close, depth, end = CLOSING.get(opened), 0, at
    if close is None:
        return None
    for end in range(at, len(text)):
        if opened != "|":
            depth += (text[end] == opened) - (text[end] == close)
        elif end > at and text[end] == "|" and text[end - 1] != " ":
            break
        if depth == 0 and opened != "|":
            break
    else:
        return None
    parts = split_top(text[at + 1 : end])
    inner = [part if part == "..." else within(part) for part in parts]
    if not parts or any(part is None for part in inner):
        return None
    body = ""
    for part, mark in zip(inner, [*separators(text[at + 1 : end]), ""], strict=True):
        body += str(part).replace("...", r"\ldots ") + {",": ",\\, ", ";": ";\\, "}.get(
            mark, ""
        )
    strong = call or "\\" in body.replace("\\, ", "") or bool(re.search("[_^]", body))
    left, right = (r"\lvert ", r"\rvert ") if opened == "|" else (opened, close)
    if r"\frac" in body or r"\sum" in body:
        left, right = r"\left" + left, r"\right" + right
    tex, end = f"{left}{body}{right}", end + 1
    if end < len(text) and text[end] == "'" and not text[end + 1 : end + 2].isalpha():
        tex, end = tex + r"^\top", end + 1
    power, end = scripts(text, end)
    strong = strong or opened == "|" or bool(power)
    return Item(tex + power, "group", at, end, strong)


def within(part: str) -> str | None:
    """What stands between brackets: a formula, or one given another."""
    first, given, condition = part.partition(" | ")
    if not given or "|" in condition:
        return formula(part, inside=True)
    left, right = formula(first, inside=True), formula(condition, inside=True)
    return rf"{left} \mid {right}" if left and right else formula(part, inside=True)


def separators(text: str) -> list[str]:
    """The commas and semicolons of a bracket that stand in no inner bracket."""
    found, depth = [], 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if sign in ",;" and depth == 0:
            found.append(sign)
    return found


def split_top(text: str) -> list[str]:
    """The parts between those commas and semicolons."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if sign in ",;" and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def item_at(text: str, at: int, before: Item | None) -> Item | None:
    """The part of a formula that starts here, blanks skipped."""
    place = BLANK.match(text, at).end()  # type: ignore[union-attr]
    blank = place > at or at == 0 or text[at - 1].isspace()
    rest = text[place:]
    for sign in sorted({**RELATIONS, **OPERATORS}, key=len, reverse=True):
        if rest.startswith(sign):
            end = place + len(sign)
            spaced = blank and text[end : end + 1] in (" ", "\n")
            if spaced and before and before.kind not in ("operator", "relation"):
                tex = {**RELATIONS, **OPERATORS}[sign]
                return Item(
                    tex, "relation" if sign in RELATIONS else "operator", place, end
                )
            if sign == "-" and text[end : end + 1].strip() and blank:
                return Item("-", "sign", place, end)
            if sign == "/" and not blank and text[place - 1].isdigit():
                return Item("/", "stroke", place, end)
    called = place == at and before and before.kind in ("symbol", "function")
    if SHAPE.match(text, place) and not called:
        return None
    if rest[:3] == "...":
        goes_on = blank and before and before.kind == "relation"
        return Item(r"\ldots", "group", place, place + 3) if goes_on else None
    if rest[:1] in CLOSING and rest[:1] != "{":
        return group_at(text, place, bool(called))
    if number := NUMBER.match(text, place):
        power, end = scripts(text, number.end())
        return Item(number.group() + power, "number", place, end, bool(power))
    return name_at(text, place)


def well_formed(items: list[Item], inside: bool) -> bool:
    """Whether a run is a formula: no operator open, no word left alone."""
    if not items or items[-1].kind in ("operator", "relation", "sign", "stroke"):
        return False
    if items[0].kind in ("operator", "relation"):
        return False
    joined = ("operator", "relation", "sign", "stroke")
    for at, item in enumerate(items):
        near = [*items[max(at - 1, 0) : at], *items[at + 1 : at + 2]]
        beside = any(other.kind in joined for other in near)
        last = at == len(items) - 1
        if item.kind == "function" and last:
            return False
        alone = item.kind == "word" and not (beside or inside or item.strong)
        after = at and items[at - 1].kind in ("function", "number", "word")
        if alone and not after:
            return False
        article = item.kind == "letter" and not (inside or beside)
        identity = at and item.tex == "I" and items[at - 1].kind not in WORDLIKE
        if article and not identity and len(items) > 1 and (at == 0 or last):
            return False
    return True


def strong(items: list[Item]) -> bool:
    """Whether a run holds more than words, numbers and articles."""
    if any(item.kind == "number" and item.strong for item in items):
        return True
    if any(item.strong or item.kind in ("symbol", "relation") for item in items):
        return any(
            item.kind not in ("word", "number", "relation") for item in items
        ) or (any(item.kind == "relation" for item in items))
    letters = sum(item.kind == "letter" for item in items)
    return bool(letters) and any(item.kind == "operator" for item in items)


def run(text: str, at: int, inside: bool = False) -> list[Item]:
    """The longest well-formed run of items from this place."""
    items: list[Item] = []
    best = 0
    place = at
    while place < len(text):
        item = item_at(text, place, items[-1] if items else None)
        if item is None:
            break
        items.append(item)
        place = item.end
        if well_formed(items, inside):
            best = len(items)
    return items[:best]


def tex_of(items: list[Item]) -> str:
    """The TeX of a run; a quotient of two single things becomes a fraction."""
    out: list[Item] = []
    at = 0
    while at < len(items):
        item = items[at]
        rest = phrase(items, at)
        if item.tex == "/" and at + 1 < len(items) and out:
            if total := sums(out, items, at + 1):
                start, end = total
                over, under = spaced(out[start:]), tex_of(items[at + 1 : end])
                out[start:] = [Item(rf"\frac{{{over}}}{{{under}}}", "fraction", 0, 0)]
                at = end
                continue
            below, end = dividend(items, at + 1)
            follows = items[end].kind if end < len(items) else "operator"
            divided = numerator(out)
            half = item.kind == "stroke" and out[-1].kind == "number"
            whole = follows in ("operator", "relation") or half
            if divided and whole and out[-1].kind != "fraction":
                over = " ".join(part.tex for part in divided)
                if len(divided) == 1:
                    over = bare(divided[0])
                tex = rf"\frac{{{over}}}{{{root(below)}}}"
                out[-len(divided) :] = [
                    Item(tex, "fraction", divided[0].start, below[-1].end)
                ]
                at = end
                continue
        if item.tex == r"\sqrt" and at + 1 < len(items):
            tex = root(items[at : at + 2])
            out.append(Item(tex, "symbol", item.start, items[at + 1].end))
            at += 2
            continue
        out.append(joined_words(items[at : at + rest]))
        at += rest
    return spaced(out)


def phrase(items: list[Item], at: int) -> int:
    """How many items make one thing with this one: words that follow each other do."""
    end = at
    while end < len(items) and items[end].kind == "word":
        end += 1
    return max(end - at, 1)


def joined_words(items: list[Item]) -> Item:
    """Several words as one item, with blanks between them."""
    if len(items) == 1:
        return items[0]
    tex = r"\ ".join(item.tex for item in items)
    return Item(tex, "word", items[0].start, items[-1].end)


def dividend(items: list[Item], at: int) -> tuple[list[Item], int]:
    """What stands below a stroke, and its end: one thing, or a call of a function."""
    if items[at].kind == "function" and at + 1 < len(items):
        return items[at : at + 2], at + 2
    end = at + phrase(items, at)
    return [joined_words(items[at:end])], end


def sums(out: list[Item], items: list[Item], at: int) -> tuple[int, int] | None:
    """Where one sum begins that is divided by another, and where that one ends."""
    start = max((n + 1 for n, i in enumerate(out) if i.kind == "relation"), default=0)
    both = [*out[start : start + 1], items[at]]
    if not all(item.tex.startswith(r"\sum") for item in both) or len(both) < 2:
        return None
    end = at
    while end < len(items) and items[end].kind != "relation":
        if items[end].kind == "operator" and items[end].tex != "/":
            break
        end += 1
    terms = {item.tex for item in out[start:] if item.kind == "operator"}
    return (start, end) if not terms else None


def numerator(out: list[Item]) -> list[Item]:
    """What stands above it: none if it is a product of several things."""
    top = out[-1:]
    call = len(out) > 1 and out[-2].kind == "function" and out[-1].kind == "group"
    if call and out[-2].end == out[-1].start and out[-2].tex != r"\sum":
        top = out[-2:]
    before = out[-len(top) - 1 : -len(top)]
    opened = ("operator", "relation", "function")
    return top if not before or before[0].kind in opened else []


def spaced(items: list[Item]) -> str:
    """The parts one after the other, and a thin space between a word and a thing."""
    tex, before = "", None
    for item in items:
        apart = before and before.kind not in OPEN and item.kind not in OPEN
        worded = before and {before.kind, item.kind} & {"word", "named"}
        tex += r" \, " if apart and worded else " " if tex else ""
        tex, before = tex + item.tex, item
    return tex


def root(items: list[Item]) -> str:
    """A thing without its brackets, or a function of one argument."""
    if len(items) == 1:
        return bare(items[0])
    first, second = items
    if first.tex == r"\sqrt":
        return rf"\sqrt{{{bare(second)}}}"
    return f"{first.tex} {second.tex}"


def bare(item: Item) -> str:
    """A group without its brackets."""
    found = re.fullmatch(r"(?:\\left)?\((.*?)(?:\\right)?\)", item.tex)
    return found[1] if item.kind == "group" and found else item.tex


def formula(text: str, inside: bool = True) -> str | None:
    """The TeX of a text that is a formula from end to end; None if it is not."""
    text = " ".join(text.split())
    items = run(text, 0, inside)
    if not items or text[items[-1].end :].strip():
        return None
    return tex_of(items)


def pieces(text: str) -> Iterator[Piece]:
    """Cut a paragraph into prose, formulas and code."""
    prose, at = "", 0
    while at < len(text):
        starts = at == 0 or not (text[at - 1].isalnum() or text[at - 1] in "_'@.-/*")
        found: Piece | None = None
        end = at
        if starts and not text[at].isspace():
            shape = SHAPE.match(text, at)
            items = [] if shape else run(text, at)
            if shape:
                found, end = Piece("code", shape.group()), shape.end()
            elif items and named(text, items) and not article(text, items):
                end = items[-1].end
                found = Piece(kind_of(text[at:end], items), tex_of(items))
            elif code := CODE.match(text, at):
                found, end = Piece("code", code.group()), code.end()
        if found:
            if prose:
                yield Piece("text", prose)
            yield found
            prose, at = "", end
        else:
            prose, at = prose + text[at], at + 1
    if prose:
        yield Piece("text", prose)


def named(text: str, items: list[Item]) -> bool:
    """Whether a run is a formula, or one letter that is said to be something."""
    said = re.match(r" the\b", text[items[-1].end :])
    return strong(items) or (
        len(items) == 1 and items[0].kind == "letter" and bool(said)
    )


def article(text: str, items: list[Item]) -> bool:
    """Whether a run is no more than a letter that begins a word, as in "K-nearest"."""
    rest = text[items[-1].end :]
    return len(items) == 1 and bool(re.match(r"-[a-z]{3}|\.\w|/\w", rest))


def kind_of(source: str, items: list[Item]) -> str:
    """Long relations are shown on a line of their own."""
    relation = any(item.kind == "relation" for item in items)
    return "display" if relation and len(source) > SHOWN else "math"
