"""Every chapter has practice: exercises, solutions that run, and a quiz."""

from __future__ import annotations

import re

import pytest
from test_book import CHAPTERS, chapter

OPTION = re.compile(
    r"^(:::+|```+) ?\{dropdown\} (?P<option>.+)\n(?P<feedback>[\s\S]*?)^\1$",
    re.MULTILINE,
)
QUESTION = re.compile(r"^\*\*(?=\S)", re.MULTILINE)
LETTERED = re.compile(r"([a-z])\. \S")
START = re.compile(r"\{solution-start\} ([\w-]+)")


def exercises(page: str) -> dict[str, int]:
    """The exercises of a chapter by label, with the code cells of their solutions."""
    found: dict[str, int] = {}
    inside = None
    for cell in chapter(page).cells:
        if cell.cell_type == "code":
            if inside and cell.execution_count:
                found[inside] += 1
            continue
        for label in re.findall(r"^:label: ([\w-]+)", cell.source, re.MULTILINE):
            found.setdefault(label, 0)
        if "{solution-end}" in cell.source:
            inside = None
        if start := START.search(cell.source):
            inside = start.group(1)
            assert "{exercise}" in "".join(c.source for c in chapter(page).cells)
            assert ":class: dropdown" in cell.source, f"{inside} is not folded"
    return found


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_has_three_to_five_exercises_with_executed_solutions(
    page: str,
) -> None:
    found = exercises(page)
    assert 3 <= len(found) <= 5
    assert all(found.values()), f"not every solution runs: {found}"


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_ends_with_a_quiz_that_answers_every_option(page: str) -> None:
    text = "\n".join(c.source for c in chapter(page).cells if c.cell_type == "markdown")
    quiz = re.split(r"^## ", text.split("\n## Quiz\n")[1], flags=re.MULTILINE)[0]
    questions = QUESTION.split(quiz)[1:]
    assert len(questions) >= 2
    for number, question in enumerate(questions, start=1):
        assert question.startswith(f"{number}. "), question[:80]
        letters = [LETTERED.match(m["option"]) for m in OPTION.finditer(question)]
        assert [m and m[1] for m in letters] == list("abcdef"[: len(letters)])
        said = [match["feedback"].split() for match in OPTION.finditer(question)]
        assert len(said) >= 2, question[:80]
        assert all(len(words) >= 4 for words in said), question[:80]
        first = [words[0].rstrip(".,:;") for words in said]
        assert "Yes" in first or "Right" in first, f"{question[:80]}: {first}"
        assert set(first) <= {"Yes", "Right", "No"}, f"{question[:80]}: {first}"


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_asks_a_question_before_its_first_code(page: str) -> None:
    cells = chapter(page).cells
    first = next(at for at, cell in enumerate(cells) if cell.cell_type == "code")
    opening = "\n".join(cell.source for cell in cells[:first])
    text = opening.partition("\n## ")[2].partition("\n\n")[2]
    assert "?" in opening.partition("\n## ")[2]
    assert len(re.findall(r"[.?](?=\s|$)", text)) >= 2
