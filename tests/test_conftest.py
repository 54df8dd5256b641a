"""The guard of the tests themselves: none may write outside its own folder."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "path", [HERE / "left.txt", Path("left.txt"), Path.home() / "x"]
)
def test_a_test_that_writes_elsewhere_is_stopped(path: Path) -> None:
    with pytest.raises(PermissionError, match="outside its own folder"):
        path.write_text("a trace")
    with pytest.raises(PermissionError, match="outside its own folder"):
        path.with_suffix("").mkdir()
    assert not path.exists()


def test_a_file_that_is_moved_elsewhere_is_stopped(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("here it may be")
    with pytest.raises(PermissionError, match="outside its own folder"):
        os.replace(mine, HERE / "mine")
    os.replace(mine, tmp_path / "yours")
    assert (tmp_path / "yours").read_text() == "here it may be"
    assert Path(__file__).read_text(encoding="utf-8")  # reading is free
