"""The results on the start page: from the tables, and no more than the tables say."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from test_look import extension
from test_site import PAGES, SITE, soup, unavailable

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
findings = extension("findings")
START = "book/index.html"
LISTS = "mf + maml + in-context + lists, 5 seeds"


@pytest.mark.parametrize(
    ("numbers", "lower", "verdict"),
    [
        (("-0.2", "-0.3", "-0.1"), True, "gains"),
        (("-0.2", "-0.3", "-0.1"), False, "loses"),
        (("0.2", "-0.1", "0.5"), True, "undecided"),
        (("0.2", "0.0", "0.5"), False, "undecided"),
    ],
)
def test_a_gain_is_above_zero_and_the_interval_decides(
    numbers: tuple[str, ...], lower: bool, verdict: str
) -> None:
    row = dict(zip("dlh", numbers, strict=True))
    found = findings.gain(row, "d, l, h", lower)
    assert found.low < found.value < found.high
    assert found.value == (-1 if lower else 1) * float(numbers[0])
    assert found.verdict == verdict


def test_one_row_is_picked_or_none(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('# a, b\nname,k,x\n"a, b",1,2\n"a, b",10,3\nc,10,4\n')
    assert findings.pick(path, "name=a, b; k=10")["x"] == "3"
    for row in ("k=10", "name=d; k=10", "colour=red"):
        with pytest.raises(ValueError, match="rows"):
            findings.pick(path, row)


@pytest.mark.site
def test_the_start_page_shows_what_the_tables_hold_and_one_loss() -> None:
    if START not in PAGES:
        unavailable(f"{START} is not built: make book")
    names = ("grid", "leaderboard/summary", "equal_information", "lists/summary")
    grid, board, equal, lists = (
        pd.read_csv(RESULTS / f"{name}.csv", comment="#").query("k == 10")
        for name in names
    )
    same = "metric == 'rmse' and split == 'users' and rival == 'gaussian + implicit'"
    one = "model == 'mf' and meta == 'maml' and learner == 'gradient'"
    expected = [
        -grid.query(one)[["over_bias", "high", "low"]],
        -board[board["method"] == "mf + maml + gradient"][
            ["difference", "high", "low"]
        ],
        -equal.query(same)[["difference", "high", "low"]],
        lists[lists["method"] == LISTS][["difference", "low", "high"]],
    ]
    cards = soup(START).select(".finding")
    assert len(cards) == len(expected)
    for card, row in zip(cards, expected, strict=True):
        text = card.get_text(" ").replace("\N{MINUS SIGN}", "-")
        found = [float(x) for x in re.findall(r"[+-]\d\.\d+", text)]
        assert found == pytest.approx(row.to_numpy()[0], abs=5.1e-5)
        link = card.select_one("a.reference.internal")
        assert link and (SITE / "book" / str(link["href"])).exists()
    classes = [" ".join(card["class"]) for card in cards]
    assert sum("finding-loses" in name for name in classes) == 1


def test_the_words_beside_the_numbers_hold() -> None:
    board = pd.read_csv(RESULTS / "leaderboard/summary.csv", comment="#")
    at_ten = board[board["k"] == 10].set_index("method")["difference"]
    named = "mlp + maml + bayesian + implicit"
    # "Against the closed form that does not, the system gains .005. ...": the rival on
    # the card reads what the system reads, and so does the one that knows the user.
    start = " ".join((ROOT / "book/index.md").read_text(encoding="utf-8").split())
    assert f"the system gains {-at_ten[named]:.3f}".replace(" 0.", " .") in start
    equal = pd.read_csv(RESULTS / "equal_information.csv", comment="#")
    equal = equal.query("metric == 'rmse' and split == 'users'")
    rivals = dict(tuple(equal.set_index("k").groupby("rival")))
    assert rivals["gaussian"].loc[10, "high"] < 0
    assert (rivals["gaussian + implicit"]["high"] > 0).all()
    told = rivals["gaussian + users + implicit"].loc[0]
    assert told["low"] > 0
    ahead = f"the closed form is ahead by {told['difference']:.3f}".replace(" 0.", " .")
    assert f"{ahead} before anything is rated" in start
    # "Validation users chose it among 78 recipes, 42 here and 36 of a prototype."
    start = (ROOT / "book/index.md").read_text(encoding="utf-8")
    notes = " ".join((RESULTS / "in_context.csv").read_text().replace("#", "").split())
    words = re.compile(r"(\d+) here and (\d+) of a prototype")
    counts = [[*map(int, words.findall(text)[0])] for text in (start, notes)]
    assert counts[0] == counts[1] and f"among {sum(counts[0])} recipes" in start
    # "Without the profile it gains .001, .015 and .024 ...", against the same rival.
    rows = pd.read_csv(RESULTS / "in_context.csv", comment="#")
    rows = rows.query("rival == 'item-kNN + popularity' and k in (1, 5, 10)")
    without = rows[rows["method"] == "without the profile, 5 seeds"].set_index("k")
    gains = [f"{x:.3f}".lstrip("0") for x in without["difference"]]
    assert "{}, {} and {}".format(*gains) in start
    assert without["low"][1] < 0 < without["high"][1]
    assert (without["low"][[5, 10]] > 0).all()
    # Both tables judge the same system.
    lists = pd.read_csv(RESULTS / "lists/summary.csv", comment="#")
    board = lists[lists["method"] == LISTS].set_index("k")["difference"]
    with_it = rows[rows["method"] == LISTS].set_index("k")["difference"]
    assert board[[1, 5, 10]].tolist() == with_it.tolist()
