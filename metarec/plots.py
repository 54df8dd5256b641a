"""One look for every figure, and the figures that the book draws more than once."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

__all__ = ["plot_curves", "use_style"]

_STYLES = ["o-", "s-", "^-", "D-", "v--", "P--", "X--"]  # marker and line


def use_style() -> None:
    """Set matplotlib to the book's style: colour-blind safe, legible on a phone.

    Figures have a white ground. The site turns black and white over in the dark, so
    that hues keep their meaning and a shade does not: say "blue", not "dark".

    Plumbing
    --------
    Every chapter calls it once.
    """
    plt.style.use("metarec.book")  # the file book.mplstyle of this package


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

    Parameters
    ----------
    table
        One column for each curve, one row for each K.
    ax
        Axes to draw on; new ones if not given.
    ylabel
        Label of the vertical axis.
    labels
        Names in the legend; those of the columns if not given.

    Returns
    -------
    Axes
        The axes.

    Plumbing
    --------
    Every chapter that compares methods over K.
    """
    ax = plt.subplots()[1] if ax is None else ax
    at = np.arange(len(table))
    names = labels or table.columns
    for column, label, style in zip(table, names, _STYLES * 3, strict=False):
        ax.plot(at, table[column], style, label=label)
    ax.set_xticks(at, [str(k) for k in table.index])
    ax.set(xlabel="K, ratings in the support set", ylabel=ylabel)
    ax.legend()
    return ax
