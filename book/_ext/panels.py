"""The boxes of a chapter: its opening panel and the options of its quiz.

A chapter writes both in plain Markdown, so that they read well in a notebook too. Here
they get the structure and the classes that the style sheet draws them by.

1. "In this chapter": what the reader will be able to do, then a list of facts (what is
   needed, how long it takes, which pieces are built).
2. The drop-downs of the section "Quiz": each is an option, right or wrong by the first
   word of its answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

LABELS = {"before": "You need", "time": "Reading time"}


def facts(
    paragraph: nodes.paragraph,
) -> Iterator[tuple[nodes.strong, list[nodes.Node]]]:
    """Cut a paragraph at its bold labels: each label, and what follows it."""
    label, rest = None, []
    for child in paragraph.children:
        if isinstance(child, nodes.strong):
            if label is not None:
                yield label, rest
            label, rest = child, []
        else:
            rest.append(child)
    if label is not None:
        yield label, rest


def trimmed(content: list[nodes.Node]) -> list[nodes.Node]:
    """What follows a label, without the colon before it and the stop at its end."""
    kept = list(content)
    while kept and isinstance(kept[0], nodes.Text):
        text = kept.pop(0).astext().lstrip(": \n")
        if text:
            kept.insert(0, nodes.Text(text))
            break
    while kept and isinstance(kept[-1], nodes.Text):
        text = kept.pop().astext().rstrip(". \n")
        if text:
            kept.append(nodes.Text(text))
            break
    return kept


def fact(label: nodes.strong, rest: list[nodes.Node]) -> nodes.definition_list_item:
    """One label and its text as an entry of a definition list."""
    word = label.astext().rstrip(":")
    name = LABELS.get(word.lower(), word)
    parts = label.children if name == word else [nodes.Text(name)]
    if isinstance(parts[-1], nodes.Text):
        parts = [*parts[:-1], nodes.Text(parts[-1].astext().rstrip(":"))]
    wide = [] if name in LABELS.values() else ["opening-wide"]
    term = nodes.term("", "", *parts, classes=wide)
    text = nodes.paragraph("", "", *trimmed(rest))
    return nodes.definition_list_item(
        "", term, nodes.definition("", text, classes=wide)
    )


def open_chapter(box: nodes.Element) -> None:
    """Give the opening box its parts; a box of another form stays as it is."""
    goals = next(iter(box.findall(nodes.bullet_list)), None)
    if goals is None or goals.parent is not box:
        return
    at = box.index(goals)
    paragraphs = [p for p in box[at + 1 :] if isinstance(p, nodes.paragraph)]
    found = [pair for paragraph in paragraphs for pair in facts(paragraph)]
    if not found or len(paragraphs) != len(box) - at - 1:
        return
    goals["classes"].append("opening-goals")
    if isinstance(box[at - 1], nodes.paragraph):
        box[at - 1]["classes"].append("opening-label")
    for paragraph in paragraphs:
        box.remove(paragraph)
    entries = [fact(*pair) for pair in found]
    box += nodes.definition_list("", *entries, classes=["opening-facts"])


def mark_option(option: nodes.Element) -> None:
    """Say of one drop-down that it is an option, and whether it is right."""
    answer = " ".join(child.astext() for child in option[1:]).lstrip()
    right = answer.lower().startswith(("yes", "right"))
    option["container_classes"] = [
        *option.get("container_classes", []),
        "quiz-option",
        "quiz-right" if right else "quiz-wrong",
    ]


def shape(app: Sphinx, doctree: nodes.document) -> None:
    """Find the boxes of a page."""
    for box in doctree.findall(nodes.admonition):
        if "admonition-in-this-chapter" in box["classes"]:
            open_chapter(box)
    for section in doctree.findall(nodes.section):
        if isinstance(section[0], nodes.title) and section[0].astext() == "Quiz":
            for box in section.findall(nodes.container):
                if box.get("design_component") == "dropdown":
                    mark_option(box)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to every page that has been read."""
    app.connect("doctree-read", shape)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
