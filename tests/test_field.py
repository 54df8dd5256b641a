"""The map of the field and the page on the source agree with what they speak of."""

from __future__ import annotations

import re

from test_book import ROOT, load

field_map = load("book/_tools/field_map.py")
REFERENCE = ROOT / "book" / "reference"
FIELD = (REFERENCE / "map-of-the-field.md").read_text(encoding="utf-8")
SOURCE = (REFERENCE / "the-source.md").read_text(encoding="utf-8")
# A method, and its line: a term and what belongs to it, as far as the next.
LINE = re.compile(r"^(\w[\w -]*?)((?: \{cite\}`\w+`)+)\n: (.*?)\n\n", re.M | re.S)


def test_the_pictures_are_drawn_by_the_tool() -> None:
    for name, draw in [("map", field_map.wide), ("map-tall", field_map.tall)]:
        file = ROOT / "book" / "_static" / f"field-{name}.svg"
        assert file.read_text(encoding="utf-8") == draw(), (
            "run book/_tools/field_map.py"
        )


def test_every_method_in_the_picture_has_its_line_and_no_other_has_one() -> None:
    names = [name.lower() for name, _, _ in LINE.findall(FIELD)]
    ours = {"metamind"}  # it has a chapter and no paper
    assert sorted(names) == sorted({n.lower() for n in field_map.NAMES} - ours)


def test_a_line_names_the_prior_how_it_adapts_and_with_what_it_was_compared() -> None:
    for name, _, line in LINE.findall(FIELD):
        said = re.findall(r"\*\*(Prior|Adapts|Compared|compared)\b", line)
        assert [word.lower() for word in said] == ["prior", "adapts", "compared"], name


def test_the_rows_of_the_picture_are_the_sections_of_the_page() -> None:
    sections = re.split(r"^## ", FIELD, flags=re.MULTILINE)[1:]
    for row, section in zip(field_map.ROWS, sections, strict=False):
        names = {n.lower() for some in row.methods.values() for n in some}
        lines = {name.lower() for name, _, _ in LINE.findall(section + "\n")}
        assert lines == names - {"metamind"}, row.prior


def test_the_page_on_the_source_has_the_glossarys_terms_and_no_others() -> None:
    glossary = (REFERENCE / "glossary.md").read_text(encoding="utf-8")
    terms = set(re.findall(r"^[\u4e00-\u9fff-]+$", glossary, re.MULTILINE))
    used = set(
        re.findall(r"[\u4e00-\u9fff](?:[\u4e00-\u9fff-]*[\u4e00-\u9fff])?", SOURCE)
    )
    assert len(used) > 15
    assert used <= terms
