"""Style sheets without the rules that no page of the site can use.

The theme brings the whole of Bootstrap: 320 kB on each page, most of it for things that
are not here. After the build a rule stays if every class that it asks for is named in a
page or in a script; the others go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tinycss2
from sphinx.application import Sphinx

SHEETS = ("pydata-sphinx-theme.css", "sphinx-design.min.css", "mystnb.*.css")
NAME = re.compile(r"[A-Za-z_][\w-]*")
CLASS = re.compile(r"\.([A-Za-z_][\w-]*)")
INSIDE = re.compile(r"\([^()]*\)")
GROUPS = {"media", "supports"}


def names(site: Path) -> set[str]:
    """Every word of a page's markup, or of a script, that could be a class."""
    found: set[str] = set()
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<[^>]+>", page.read_text(encoding="utf-8")):
            found |= set(NAME.findall(tag))
    for script in (site / "_static").rglob("*.js"):
        if "mathjax" not in script.parts:
            found |= set(NAME.findall(script.read_text(encoding="utf-8")))
    return found


def asked(selector: str) -> set[str]:
    """The classes without which a selector finds nothing, those of ``:not`` apart."""
    while INSIDE.search(selector):
        selector = INSIDE.sub("", selector)
    return set() if "\\" in selector else set(CLASS.findall(selector))


def needed(rules: Iterable[Any], known: set[str]) -> list[Any]:
    """The rules that a page can use, in their order, groups without rules left out."""
    kept = []
    for rule in rules:
        if rule.type == "comment" and not rule.value.startswith("!"):  # a licence
            continue
        if rule.type == "qualified-rule":
            text = tinycss2.serialize(rule.prelude)
            # A comma inside brackets divides no selectors: such a rule stays whole.
            some = [text] if "(" in text else text.split(",")
            some = [one for one in some if asked(one) <= known]
            if not some:
                continue
            rule.prelude = tinycss2.parse_component_value_list(",".join(some))
        elif rule.type == "at-rule" and rule.lower_at_keyword in GROUPS:
            inner = tinycss2.parse_rule_list(rule.content, skip_whitespace=True)
            rule.content = needed(inner, known)
            if not rule.content:
                continue
        kept.append(rule)
    return kept


def spare(sheet: str, known: set[str]) -> str:
    """The style sheet with what is needed."""
    rules = tinycss2.parse_stylesheet(sheet, skip_whitespace=True)
    return "\n".join(rule.serialize() for rule in needed(rules, known))


def spare_all(app: Sphinx, error: Exception | None) -> None:
    """Treat the style sheets that come with the theme and the extensions."""
    if error is None and app.builder.name == "html":
        static = Path(app.outdir) / "_static"
        known = names(Path(app.outdir))
        for pattern in SHEETS:
            for path in static.rglob(pattern):
                text = path.read_text(encoding="utf-8")
                path.write_text(spare(text, known), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Once pages, scripts and icons are there."""
    app.connect("build-finished", spare_all, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
