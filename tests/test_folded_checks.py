"""Cells that only check and publish numbers are folded, and no others."""

from __future__ import annotations

import pytest
import yaml
from test_book import CHAPTERS, ROOT, chapter, notebooks
from test_look import built
from test_site import soup

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
TITLE = CONFIG["sphinx"]["config"]["nb_code_prompt_show"]
SHOWN, SILENT = True, False


def test_what_a_cell_sets_and_what_it_takes() -> None:
    source = "y = x + 1\nfor i in range(y):\n    z = [k * i for k in w]\n"
    made, taken = notebooks.names(source)
    assert {"y", "z"} <= made
    assert taken == {"x", "range", "w"}
    assert notebooks.names("def f(a):\n    return a + b\n") == ({"f"}, {"b"})
    assert notebooks.names("a = f(a)") == ({"a"}, {"f", "a"})


@pytest.mark.parametrize(
    ("cells", "fold"),
    [
        ([("a = 1\nglue('a', a)", SILENT)], [True]),
        ([("a = 1\nglue('a', a)", SHOWN)], [False]),  # a figure stays in view
        ([("a = 1\nassert a", SILENT)], [False]),  # a check that teaches
        ([("a = 1\nglue('a', a)", SILENT), ("print(a)", SHOWN)], [False, False]),
        ([("a = 1\nglue('a', a)", SILENT), ("a = 2\nprint(a)", SHOWN)], [True, False]),
        # Both fold, though the second takes what the first sets.
        ([("a = 1\nglue('a', a)", SILENT), ("glue('b', a)", SILENT)], [True, True]),
    ],
)
def test_a_cell_folds_if_nothing_in_view_needs_it(
    cells: list[tuple[str, bool]], fold: list[bool]
) -> None:
    assert notebooks.foldable(cells) == fold


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_tags_of_a_chapter_are_those_of_the_rule(page: str) -> None:
    cells = notebooks.code_cells(chapter(page))
    fold = notebooks.foldable([(c.source, notebooks.shows(c)) for c in cells])
    tagged = [notebooks.FOLDED in c.metadata.get("tags", []) for c in cells]
    # Of a cell that shows something, its author decides.
    shown = [notebooks.shows(c) for c in cells]
    assert [t for t, s in zip(tagged, shown, strict=True) if not s] == [
        f for f, s in zip(fold, shown, strict=True) if not s
    ]
    assert any(fold)


def test_a_drawing_that_its_author_folded_has_another_title() -> None:
    for page in CHAPTERS:
        for cell in notebooks.code_cells(chapter(page)):
            if notebooks.FOLDED in cell.metadata.get("tags", []):
                own = cell.metadata.get("mystnb", {}).get("code_prompt_show", TITLE)
                assert (own == TITLE) != notebooks.shows(cell)


@pytest.mark.site
def test_a_chapter_folds_its_checks_and_shows_its_figures() -> None:
    built("book/at-scale/speed.html")
    page = soup("book/at-scale/speed.html")
    folded = page.select("details.hide")
    assert folded and all(TITLE in one.get_text() for one in folded)
    assert all("glue(" in one.get_text() for one in folded)
    assert not [one for one in folded if one.select("img")]
