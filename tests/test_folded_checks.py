"""Cells that only check and publish numbers are folded, and no others."""

from __future__ import annotations

import pytest
from test_look import built, extension
from test_site import soup

folded_checks = extension("folded_checks")
SHOWN, SILENT = True, False


def test_what_a_cell_sets_and_what_it_takes() -> None:
    source = "y = x + 1\nfor i in range(y):\n    z = [k * i for k in w]\n"
    made, taken = folded_checks.names(source)
    assert {"y", "z"} <= made
    assert taken == {"x", "range", "w"}
    assert folded_checks.names("def f(a):\n    return a + b\n") == ({"f"}, {"b"})
    assert folded_checks.names("a = f(a)") == ({"a"}, {"f", "a"})


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
    assert folded_checks.foldable(cells) == fold


@pytest.mark.site
def test_a_chapter_folds_its_checks_and_shows_its_figures() -> None:
    built("book/at-scale/speed.html")
    page = soup("book/at-scale/speed.html")
    folded = page.select("details.hide")
    assert folded and all(folded_checks.SHOW in one.get_text() for one in folded)
    assert all("glue(" in one.get_text() for one in folded)
    assert not [one for one in folded if one.select("img")]
