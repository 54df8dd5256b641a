"""Run methods over the folds, one file for each, so that a run can go on."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from metarec.data import RatingData
from metarec.evaluation.fold import Fold
from metarec.evaluation.methods import fitted
from metarec.training import save_aside


@dataclass(frozen=True)
class Protocol:
    """Settings of one evaluation: what a result depends on beside data and method.

    Parameters
    ----------
    folds
        Number of folds of the users.
    order
        Order of a user's ratings, one of `ORDERS`.
    reserved
        Ratings from which the support is cut.
    seed
        Seed of everything that is drawn.

    Plumbing
    --------
    The command ``python -m metarec.evaluation``.
    """

    folds: int = 5
    order: str = "time"
    reserved: int = 15
    seed: int = 0


def run_methods(
    data: RatingData,
    methods: Sequence[str],
    protocol: Protocol,
    store: Path,
    progress: bool = True,
) -> pd.DataFrame:
    """Judge each method on each fold; return the tidy table for `Leaderboard`.

    What is done is kept in ``store``, one file for each method and fold, written aside
    and renamed: a run that was interrupted goes on, and methods can be added later.
    Beside the errors stand ``fit_seconds`` and ``ms_per_user`` (processor time; the
    latter to adapt to 10 ratings, or ``reserved`` if that is less, and score all
    items).

    Parameters
    ----------
    data
        The ratings.
    methods
        Names of methods, of `known_methods`.
    protocol
        The settings.
    store
        Folder in which results are kept.
    progress
        Whether to show a progress bar on a terminal.

    Returns
    -------
    pd.DataFrame
        One row for each method, fold, user and K.

    Raises
    ------
    ValueError
        If ``store`` belongs to other data or another protocol.

    Plumbing
    --------
    The command ``python -m metarec.evaluation``.
    """
    _claim(store, data, protocol)
    parts = {
        (number, method): store / f"{number}-{_slug(method)}.csv"
        for number in range(protocol.folds)
        for method in methods
    }
    bar = tqdm(total=len(parts), desc="evaluation", unit="fit", disable=not progress)
    fold: Fold | None = None
    for (number, method), path in parts.items():
        bar.set_postfix_str(f"fold {number}, {method}")
        if not path.exists():
            # Methods of one fold come in a row, and share what it has fitted.
            if fold is None or fold.number != number:
                fold = Fold(data, number, **asdict(protocol))
            table = _judged(fold, method)
            save_aside(path, partial(table.to_csv, index=False))
        bar.update()
    bar.close()
    # One order of rows, whichever was run first.
    paths = [parts[n, m] for m in methods for n in range(protocol.folds)]
    return pd.concat(map(pd.read_csv, paths), ignore_index=True)


def _judged(fold: Fold, method: str) -> pd.DataFrame:
    start = time.process_time()
    predictor = fitted(method, fold)
    fit_seconds = time.process_time() - start
    table = fold.judge(predictor)
    k = min(10, fold.histories.reserved)
    users = fold.histories.usable(fold.split.test)[:100]
    support = fold.histories.tasks(users, k).support
    everything = torch.arange(fold.histories.n_items).expand(len(users), -1)
    start = time.process_time()
    with torch.no_grad():
        predictor.predict(support, everything)
    cost = 1000 * (time.process_time() - start) / len(users)
    return table.assign(method=method, fit_seconds=fit_seconds, ms_per_user=cost)


def _claim(store: Path, data: RatingData, protocol: Protocol) -> None:
    """Mark the folder as this run's, or refuse one that is another's."""
    store.mkdir(parents=True, exist_ok=True)
    mark = store / "settings.json"
    mine = {"data": data.content_hash(), **asdict(protocol)}
    if mark.exists():
        theirs = json.loads(mark.read_text())
        if differ := sorted(k for k in mine if mine[k] != theirs.get(k)):
            raise ValueError(
                f"{store} holds results under another {', '.join(differ)}: name "
                "another folder or begin anew with --fresh"
            )
    # The mark is written first: results of a killed run are known to be of this run.
    save_aside(mark, partial(Path.write_text, data=json.dumps(mine)))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
