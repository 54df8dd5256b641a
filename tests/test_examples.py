"""The examples of the API reference print what stands below them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
from test_book import ROOT

PAGES = sorted((ROOT / "book" / "reference" / "api").glob("*.md"))
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_the_examples_of_a_page_print_what_they_say(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert len(blocks) >= 2 and len(blocks) % 2 == 0
    names: dict[str, object] = {}
    for (kind, code), (answer, expected) in zip(blocks[::2], blocks[1::2], strict=True):
        assert (kind, answer) == ("python", "text")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, page.name, "exec"), names)
        assert printed.getvalue() == expected
