"""The boxes of a chapter: its opening panel and the options of its quiz.

A chapter writes both in plain Markdown, so that they read well in a notebook too. Here
they get the structure and the classes that the style sheet draws them by.

1. "In this chapter": what the reader will be able to do, then a list of facts (what is
   needed, how long it takes, which pieces are built).
2. The drop-downs of the section "Quiz": each is an option, right or wrong by the first
   word of its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bs4 import BeautifulSoup, NavigableString, PageElement, Tag

if TYPE_CHECKING:
    from metarec_book import Page

LABELS = {"before": "You need", "time": "Reading time"}
FACTORY = BeautifulSoup("", "html.parser")


def opening(page: Page) -> None:
    """Give the opening panel its parts; a box of another form stays as it is."""
    for box in page.article.select(".admonition-in-this-chapter"):
        goals = box.find("ul", recursive=False)
        paragraphs = goals.find_next_siblings("p") if goals else []
        found = [fact for paragraph in paragraphs for fact in facts(paragraph)]
        if not found:
            continue
        goals["class"] = ["opening-goals", *goals.get_attribute_list("class")]
        if label := goals.find_previous_sibling("p", class_=False):
            label["class"] = "opening-label"
        entries = FACTORY.new_tag("dl", attrs={"class": "simple opening-facts"})
        entries.extend(part for fact in found for part in fact)
        goals.insert_after("\n", entries)
        for paragraph in paragraphs:
            paragraph.decompose()


def facts(paragraph: Tag) -> list[tuple[Tag, Tag]]:
    """Cut a paragraph at its bold labels: each label, and what follows it."""
    found: list[tuple[Tag, list[PageElement]]] = []
    for child in list(paragraph.children):
        if isinstance(child, Tag) and child.name == "strong":
            found.append((child, []))
        elif found:
            found[-1][1].append(child)
    return [fact(*pair) for pair in found]


def fact(label: Tag, rest: list[PageElement]) -> tuple[Tag, Tag]:
    """One label and its text as an entry of a definition list."""
    word = label.get_text().rstrip(":")
    known = LABELS.get(word.lower())
    attributes = {} if known else {"class": "opening-wide"}
    term = FACTORY.new_tag("dt", attrs=attributes)
    term.extend([known] if known else list(label.children))
    trim(term, -1, lambda text: text.rstrip(":"))
    text = FACTORY.new_tag("p")
    text.extend(rest)
    trim(text, 0, lambda text: text.lstrip(": \n"))
    trim(text, -1, lambda text: text.rstrip(". \n"))
    definition = FACTORY.new_tag("dd", attrs=attributes)
    definition.append(text)
    return term, definition


def trim(tag: Tag, at: int, cut: Callable[[str], str]) -> None:
    """Cut the text that a tag begins or ends with."""
    if tag.contents and isinstance(part := tag.contents[at], NavigableString):
        part.replace_with(cut(part))


def quiz(page: Page) -> None:
    """Say of each drop-down of a quiz that it is an option, and whether it is right."""
    for option in page.article.select("section#quiz details.sd-dropdown"):
        if answer := option.select_one(".sd-summary-content"):
            right = answer.get_text().lstrip().lower().startswith(("yes", "right"))
            kind = "quiz-right" if right else "quiz-wrong"
            option["class"] = [*option["class"], "quiz-option", kind]
