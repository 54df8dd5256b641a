"""The leaderboard: per-user errors of many methods, compared with one rival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from metarec.evaluation.methods import RIVAL
from metarec.metrics import bootstrap_means
from metarec.training import save_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_KEYS = ["fold", "user"]


@dataclass(frozen=True)
class Leaderboard:
    """Errors of each test user under each method, and what follows from them.

    ``errors`` is tidy: columns method, fold, user, k, rmse, mae, n (see `cold_start`),
    one row for each method, user and K, so that anybody can compute another statistic.
    All are compared with the rival, paired over users.

    Parameters
    ----------
    errors
        Columns method, fold, user, k, rmse, mae, n: one row for each method, user and
        K.
    rival
        The method that all are compared with.

    Raises
    ------
    ValueError
        If a column or the rival is missing, or if a method was not judged on the
        rival's users.

    Built in
    --------
    leaderboard
    """

    errors: pd.DataFrame
    rival: str = RIVAL

    def __post_init__(self) -> None:
        """Refuse a table that cannot be paired."""
        if missing := {"method", "k", "rmse", "mae", "n", *_KEYS} - set(self.errors):
            raise ValueError(f"the table of errors has no column {sorted(missing)}")
        if self.rival not in set(self.errors["method"]):
            raise ValueError(
                f"the rival {self.rival!r} was not run: it is among none of "
                f"{', '.join(self.errors['method'].unique())}"
            )
        # A hole in this table is a method that was not judged on somebody: no pair.
        wide = self.errors.pivot_table("n", [*_KEYS, "k"], "method")
        if wide.isna().any(axis=None):
            short = wide.columns[wide.isna().any()].tolist()
            raise ValueError(
                f"{', '.join(short)}: not judged on the same folds, users and K as the "
                "rest, so nothing can be paired: finish the run or leave them out"
            )

    def __str__(self) -> str:
        """RMSE over K as a table."""
        return self.to_markdown()

    @property
    def methods(self) -> list[str]:
        """The methods, in the order in which they were run."""
        return list(self.errors["method"].unique())

    def per_user(self, k: int, metric: str = "rmse") -> pd.DataFrame:
        """One row for each user, one column for each method.

        Parameters
        ----------
        k
            Support size K.
        metric
            Column of the errors.

        Returns
        -------
        pd.DataFrame
            One row for each user, one column for each method.
        """
        rows = self.errors[self.errors["k"] == k]
        return rows.pivot_table(metric, _KEYS, "method")[self.methods]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row for each method and K.

        rmse and mae: of each user, averaged over users, then folds; ``sd_folds``: of
        rmse; ``pooled_rmse``: over all ratings of all users; difference, low, high:
        rmse less that of the rival and its 95% bootstrap interval, paired over users,
        stratified by fold and conditional on the fitted models. Below 0 is better than
        the rival.
        """
        tables = {k: self.per_user(k) for k in sorted(self.errors["k"].unique())}
        each = {k: table.sub(table[self.rival], axis=0) for k, table in tables.items()}
        gaps = pd.concat(each, axis=1)
        fold = gaps.index.get_level_values("fold").to_numpy()
        # One set of resamples serves all methods and sizes: they stay paired.
        means = bootstrap_means(gaps.to_numpy(), fold)
        ends = pd.DataFrame(np.quantile(means, [0.025, 0.975], axis=0).T, gaps.columns)
        parts = []
        for k, table in tables.items():
            by_fold = table.groupby("fold").mean()
            count = self.per_user(k, "n")
            square = (count * table.pow(2)).sum() / count.sum()
            columns = {
                "k": k,
                "rmse": by_fold.mean(),
                "sd_folds": by_fold.std(),
                "mae": self.per_user(k, "mae").groupby("fold").mean().mean(),
                "pooled_rmse": square.pow(0.5),
                "difference": gaps[k].mean(),
                "low": ends.loc[k, 0],
                "high": ends.loc[k, 1],
            }
            parts.append(pd.DataFrame(columns, index=table.columns).reset_index())
        return pd.concat(parts, ignore_index=True)

    def wide(self, column: str = "rmse") -> pd.DataFrame:
        """Methods down, K across.

        Parameters
        ----------
        column
            Column of the summary.

        Returns
        -------
        pd.DataFrame
            One row for each method, one column for each K.
        """
        return self.summary.pivot_table(column, "method", "k").loc[self.methods]

    @property
    def costs(self) -> pd.DataFrame:
        """Mean fit_seconds and ms_per_user of each method (see `run_methods`)."""
        columns = ["fit_seconds", "ms_per_user"]
        return self.errors.groupby("method")[columns].mean().loc[self.methods]

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Write RMSE over K, bold where the interval of the difference is below 0.

        Parameters
        ----------
        path
            The file to write; none if not given.

        Returns
        -------
        str
            The table.
        """
        cells = self.wide().map("{:.4f}".format)
        cells = cells.mask(self.wide("high") < 0, "**" + cells + "**")
        rows = [["RMSE", *(f"K={k}" for k in cells)], ["---"] * (cells.shape[1] + 1)]
        rows += cells.reset_index().to_numpy().tolist()
        text = "".join(f"| {' | '.join(row)} |\n" for row in rows)
        text += f"\nBold: better than {self.rival}, 95% interval below 0.\n"
        if path is not None:
            save_aside(Path(path), partial(Path.write_text, data=text))
        return text

    def plot(
        self, k: int, methods: Sequence[str] | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draw each method's difference to the rival at one K with its interval.

        Parameters
        ----------
        k
            Support size K.
        methods
            Methods to draw; all if not given.
        ax
            Axes to draw on; new ones if not given.

        Returns
        -------
        Axes
            The axes.
        """
        rows = self.summary[self.summary["k"] == k].set_index("method")
        rows = rows.loc[list(methods) if methods is not None else self.methods]
        rows = rows.sort_values("difference", ascending=False)
        # Here, since most who judge do not draw, and matplotlib takes a second to load.
        import matplotlib.pyplot as plt

        if ax is None:
            ax = plt.subplots(figsize=(6.5, 1.2 + 0.22 * len(rows)))[1]
        at = np.arange(len(rows))
        gap = rows["difference"].to_numpy()
        spread = np.abs(np.stack([rows["low"] - gap, rows["high"] - gap]))
        ax.errorbar(gap, at, xerr=spread, fmt="o", markersize=4, linewidth=1.5)
        ax.axvline(0, color="black", linewidth=1)
        ax.set_yticks(at, rows.index.tolist(), fontsize=9)
        ax.set_xlabel(f"RMSE less that of {self.rival} at K = {k} (stars)")
        return ax
