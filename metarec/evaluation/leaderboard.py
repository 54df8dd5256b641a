"""The leaderboard: per-user errors of many methods, compared with one rival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from metarec.evaluation.methods import RIVAL
from metarec.metrics import bootstrap_means, holm

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_KEYS = ["fold", "user"]
_NAMES = {"rmse": "RMSE (stars)", "ndcg": "nDCG@10", "log_loss": "log-loss (nats)"}
# What must stand in a table, and what in it is no measure.
_NEEDED = {"rmse": {"mae", "n"}, "ndcg": {"recall"}, "log_loss": {"auc"}}
_OTHER = ["k", "n", "n_relevant", *_KEYS, "fit_seconds", "ms_per_user"]


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
    metric
        What methods are compared by: rmse, ndcg or log_loss.

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
    metric: str = "rmse"

    def __post_init__(self) -> None:
        """Refuse a table that cannot be paired."""
        needed = {"method", "k", self.metric, *_KEYS, *_NEEDED[self.metric]}
        if missing := needed - set(self.errors):
            raise ValueError(f"the table of errors has no column {sorted(missing)}")
        if self.rival not in self.methods:
            raise ValueError(f"the rival {self.rival!r} was not run: {self.methods}")
        # A hole in this table is a method that was not judged on somebody: no pair.
        wide = self.errors.pivot_table(self.metric, [*_KEYS, "k"], "method")
        if wide.isna().any(axis=None):
            short = ", ".join(wide.columns[wide.isna().any()])
            text = f"{short}: not judged on the same folds, users and K as the rest: "
            raise ValueError(f"{text}finish the run or leave them out")

    @property
    def methods(self) -> list[str]:
        """The methods, in the order in which they were run."""
        return list(self.errors["method"].unique())

    def per_user(self, k: int, metric: str | None = None) -> pd.DataFrame:
        """One row for each user, one column for each method.

        Parameters
        ----------
        k
            Support size K.
        metric
            Column of the errors; what methods are compared by if not given.

        Returns
        -------
        pd.DataFrame
            One row for each user, one column for each method.
        """
        rows = self.errors[self.errors["k"] == k]
        return rows.pivot_table(metric or self.metric, _KEYS, "method")[self.methods]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row for each method and K.

        The measures of each user (rmse, mae, unclipped; or those of `rank_catalogue` or
        of clicks), averaged over users, then folds; ``sd_folds``: of the first;
        ``pooled_rmse``: over all ratings of all users; difference, low, high: the first
        less that of the rival and its 95% bootstrap interval, paired over users,
        stratified by fold and conditional on the fitted models. Errors below 0 are
        better than the rival, and nDCG above.
        """
        errors = self.errors
        metrics = errors.select_dtypes("number").columns.drop(_OTHER, errors="ignore")
        of_fold = errors.groupby(["k", "method", "fold"])[[*metrics]].mean()
        by_size = of_fold.groupby(["k", "method"])
        table = by_size.mean()
        table.insert(1, "sd_folds", by_size[self.metric].std())
        if self.metric == "rmse":
            both = errors.assign(square=errors["n"] * errors["rmse"] ** 2)
            both = both.groupby(["k", "method"])[["square", "n"]].sum()
            table = table.assign(pooled_rmse=(both["square"] / both["n"]) ** 0.5)
        table = table.join(self._against(self.rival).drop(columns="p"))
        rows = pd.MultiIndex.from_product([sorted({*errors["k"]}), self.methods])
        return table.loc[rows].swaplevel().reset_index(names=["method", "k"])

    def against(self, rivals: Sequence[str]) -> pd.DataFrame:
        """Compare every other method with several rivals, each with its interval.

        ``p``: twice the share of resamples on the far side of 0; ``p_holm``: adjusted
        for the number of rivals, within a method and K.

        Parameters
        ----------
        rivals
            The methods to compare with.

        Returns
        -------
        pd.DataFrame
            One row for each method, K and rival.
        """
        tables = [self._against(rival).assign(rival=rival) for rival in rivals]
        table = pd.concat(tables).reset_index()
        table = table[~table["method"].isin(rivals)]
        return table.assign(p_holm=table.groupby(["k", "method"])["p"].transform(holm))

    def _against(self, rival: str) -> pd.DataFrame:
        """Difference, low, high and p of each K and method."""
        error = self.errors.pivot_table(self.metric, _KEYS, ["k", "method"])
        theirs = error.xs(rival, axis=1, level="method")
        gaps = error - theirs[error.columns.get_level_values("k")].to_numpy()
        # One set of resamples serves all methods and sizes: they stay paired. A user
        # who is too short for some k has no part in the mean there.
        values = np.hstack([gaps.fillna(0.0), gaps.notna()])
        fold = gaps.index.get_level_values("fold").to_numpy()
        means, present = np.hsplit(bootstrap_means(values, fold), 2)
        means /= np.where(present, present, np.nan)
        low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
        p = 2 * np.minimum((means <= 0).mean(0), (means >= 0).mean(0))
        table = pd.DataFrame({"difference": gaps.mean(), "low": low, "high": high})
        # As many resamples say no less than one in so many.
        return table.assign(p=p.clip(1 / len(means), 1))

    def wide(self, column: str | None = None) -> pd.DataFrame:
        """Methods down, K across.

        Parameters
        ----------
        column
            Column of the summary; what methods are compared by if not given.

        Returns
        -------
        pd.DataFrame
            One row for each method, one column for each K.
        """
        table = self.summary.pivot_table(column or self.metric, "method", "k")
        return table.loc[self.methods]

    @property
    def costs(self) -> pd.DataFrame:
        """Mean fit_seconds and ms_per_user of each method (see `run_methods`)."""
        columns = ["fit_seconds", "ms_per_user"]
        return self.errors.groupby("method")[columns].mean().loc[self.methods]

    def to_markdown(self) -> str:
        """Write the measure over K, bold where the interval says better than the rival.

        Returns
        -------
        str
            The table.
        """
        cells = self.wide().map("{:.4f}".format)
        higher = self.metric == "ndcg"
        better = self.wide("low") > 0 if higher else self.wide("high") < 0
        cells = cells.mask(better, "**" + cells + "**")
        rows = [[_NAMES[self.metric], *map(self.label.format, cells)]]
        rows += [["---"] * (len(cells.T) + 1)]
        rows += cells.reset_index().to_numpy().tolist()
        text = "".join(f"| {' | '.join(row)} |\n" for row in rows)
        side = "above" if higher else "below"
        return f"{text}\nBold: better than {self.rival}, 95% interval {side} 0.\n"

    __str__ = to_markdown

    def plot(self, k: int, methods: Sequence[str] | None = None) -> Axes:
        """Draw each method's difference to the rival at one K with its interval.

        Parameters
        ----------
        k
            Support size K.
        methods
            Methods to draw; all if not given.

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

        ax = plt.subplots(figsize=(6.5, 1.2 + 0.22 * len(rows)))[1]
        at = np.arange(len(rows))
        gap = rows["difference"].to_numpy()
        spread = np.abs(np.stack([rows["low"] - gap, rows["high"] - gap]))
        ax.errorbar(gap, at, xerr=spread, fmt="o", markersize=4, linewidth=1.5)
        ax.axvline(0, color="black", linewidth=1)
        ax.set_yticks(at, rows.index.tolist(), fontsize=9)
        name, at_k = _NAMES[self.metric], self.label.format(k)
        ax.set_xlabel(f"{name} less that of {self.rival} at {at_k}")
        return ax
