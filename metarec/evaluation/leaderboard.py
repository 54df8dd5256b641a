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

    ``errors`` is tidy: columns method, fold, user, k, rmse, mae, n (see `cold_start`;
    unclipped where it was measured), one row for each method, user and K, so that
    anybody can compute another statistic. All are compared with the rival, paired over
    users.

    Parameters
    ----------
    errors
        Columns method, fold, user, k, rmse, mae, n: one row for each method, user and
        K.
    rival
        The method that all are compared with.
    label
        What k says, for headings.

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
    label: str = "K = {}"

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

        rmse, mae, unclipped: of each user, averaged over users, then folds;
        ``sd_folds``: of rmse; ``pooled_rmse``: over all ratings of all users;
        difference, low, high: rmse less that of the rival and its 95% bootstrap
        interval, paired over users, stratified by fold and conditional on the fitted
        models. Below 0 is better than the rival.
        """
        errors = self.errors
        rmse = errors.pivot_table("rmse", _KEYS, ["k", "method"])
        rival = rmse.xs(self.rival, axis=1, level="method")
        gaps = rmse - rival[rmse.columns.get_level_values("k")].to_numpy()
        # One set of resamples serves all methods and sizes: they stay paired. A user
        # who is too short for some k has no part in the mean there.
        values = np.hstack([gaps.fillna(0.0), gaps.notna()])
        fold = gaps.index.get_level_values("fold").to_numpy()
        means, present = np.hsplit(bootstrap_means(values, fold), 2)
        means /= np.where(present, present, np.nan)
        low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
        metrics = [m for m in ("rmse", "mae", "unclipped") if m in errors]
        of_fold = errors.groupby(["k", "method", "fold"])[metrics].mean()
        by_size = of_fold.groupby(["k", "method"])
        table = by_size.mean()
        table.insert(1, "sd_folds", by_size["rmse"].std())
        pooled = errors.groupby(["k", "method"])[["rmse", "n"]].apply(_pooled)
        table = table.assign(pooled_rmse=pooled, difference=gaps.mean())
        table = table.assign(low=low, high=high)
        rows = pd.MultiIndex.from_product([rival.columns, self.methods])
        return table.loc[rows].swaplevel().reset_index(names=["method", "k"])

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
        rows = [["RMSE", *map(self.label.format, cells)], ["---"] * (len(cells.T) + 1)]
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
        at_k = self.label.format(k)
        ax.set_xlabel(f"RMSE less that of {self.rival} at {at_k} (stars)")
        return ax


def _pooled(rows: pd.DataFrame) -> float:
    return float(np.average(rows["rmse"] ** 2, weights=rows["n"]) ** 0.5)
