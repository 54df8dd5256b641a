"""The rivals for lists are those of libraries: the committed table says how near."""

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest

from metarec.evaluation import read_table

pytestmark = pytest.mark.benchmark

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_rivals_rank_as_the_libraries_do() -> None:
    table = read_table(FOLDER / "results" / "list_libraries.csv")
    for (method, k), rows in table.groupby(["method", "k"]):
        own, library = rows["ndcg"]
        assert abs(own - library) < 0.003, (method, k)
        # Factors start at random: what they settle in is alike, not the same.
        assert rows["alike"].min() > (0.9 if method == "iALS" else 0.999), (method, k)
    assert set(table["method"]) == {"popularity", "item-kNN", "EASE", "iALS"}
    assert set(table["k"]) == {1, 5, 10}
    assert (table.groupby(["method", "k"])["by"].nunique() == 2).all()


def test_popularity_alone_is_hard_to_beat() -> None:
    table = read_table(FOLDER / "results" / "list_libraries.csv")
    wide = table[table["by"] == "metarec"].pivot_table("ndcg", "k", "method")
    assert (wide.loc[[1, 5], "popularity"] - wide.loc[[1, 5], "EASE"] > 0.05).all()


def test_the_command_runs_without_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    path = FOLDER / "list_libraries.py"
    spec = importlib.util.spec_from_file_location("list_libraries", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "list_libraries", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    module.main(["--quick", "--out", str(tmp_path / "table.csv")])
    table: pd.DataFrame = read_table(tmp_path / "table.csv")
    assert len(table) == 12 and (table["by"] == "metarec").all()
    text = (tmp_path / "table.csv").read_text(encoding="utf-8")
    assert "implicit is not installed" in text
