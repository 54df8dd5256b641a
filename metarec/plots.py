"""One look for every figure, and the figures that the book draws more than once."""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes

__all__ = ["plot_curves", "use_style"]

# Okabe & Ito's palette without its yellow, which is too pale on white paper.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#666666"]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]


def use_style() -> None:
    """Set matplotlib to the book's style: colour-blind safe, legible on a phone.

    Figures have a white ground. The site turns black and white over in the dark, so
    that hues keep their meaning and a shade does not: say "blue", not "dark".

    Plumbing: every chapter calls it once.
    """
    mpl.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.prop_cycle": cycler(color=_COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": "medium",
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "figure.figsize": (6.0, 3.6),
            "font.size": 11,
            "grid.alpha": 0.3,
            # A box, or a marker of the legend would read as one of the data.
            "legend.edgecolor": "0.8",
            "legend.framealpha": 0.9,
            "lines.linewidth": 2,
            "savefig.facecolor": "white",
        }
    )


def plot_curves(
    table: pd.DataFrame,
    ax: Axes | None = None,
    ylabel: str = "RMSE per user (stars)",
    labels: Sequence[str] | None = None,
) -> Axes:
    """Draw one error curve over K for each column of ``table`` (index: K).

    The values of K stand at even distances, since 0 to 15 on a linear axis would crowd
    the few ratings that matter. Each curve has a marker of its own, beside its colour;
    from the fifth on they are dashed.

    Plumbing: every chapter that compares methods over K.
    """
    ax = plt.subplots()[1] if ax is None else ax
    at = np.arange(len(table))
    lines = ["-"] * 4 + ["--"] * 3
    for column, label, marker, line in zip(
        table, labels or table.columns, _MARKERS * 3, lines * 3, strict=False
    ):
        ax.plot(at, table[column], line, marker=marker, label=label)
    ax.set_xticks(at, [str(k) for k in table.index])
    ax.set_xlabel("K, ratings in the support set")
    ax.set_ylabel(ylabel)
    ax.legend()
    return ax
