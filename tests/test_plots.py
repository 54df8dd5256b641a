"""The figures that the book draws more than once."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from metarec.plots import plot_curves, use_style


def test_each_method_has_a_curve_over_even_places() -> None:
    mpl.use("agg")
    use_style()
    sizes = [0, 1, 5, 15]
    table = pd.DataFrame({f"m{i}": [i, i + 1, i + 2, i + 3] for i in range(6)}, sizes)
    own = plt.subplots()[1]
    ax = plot_curves(table, own)
    assert ax is own
    assert [
        line.get_ydata().tolist() for line in ax.lines
    ] == table.T.to_numpy().tolist()
    assert {tuple(line.get_xdata()) for line in ax.lines} == {(0, 1, 2, 3)}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "5", "15"]
    assert [line.get_linestyle() for line in ax.lines] == ["-"] * 4 + ["--"] * 2
    assert len({line.get_marker() for line in ax.lines}) == 6
    assert "K" in ax.get_xlabel() and ax.get_ylabel() == "RMSE per user (stars)"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == list(table)
    plt.close("all")


def test_a_figure_of_its_own_and_names_that_are_given() -> None:
    mpl.use("agg")
    before = plt.get_fignums()
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 1.0]}, [0, 3])
    ax = plot_curves(table, ylabel="nDCG", labels=["one", "two"])
    assert len(plt.get_fignums()) == len(before) + 1
    assert ax.get_ylabel() == "nDCG"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["one", "two"]
    many = pd.DataFrame([[1.0] * 9, [2.0] * 9], columns=list("abcdefghi"))
    assert len(plot_curves(many).lines) == pytest.approx(9)
    plt.close("all")
