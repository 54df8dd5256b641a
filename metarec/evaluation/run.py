"""Run methods over the folds, one file for each, so that a run can go on."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from metarec.data import RatingData
from metarec.evaluation.fold import Fold, Protocol
from metarec.evaluation.methods import fitted
from metarec.training import save_aside


def run_methods(
    data: RatingData,
    methods: Sequence[str],
    protocol: Protocol,
    store: Path,
    progress: bool = True,
    kinds: Sequence[str] = ("cold-start",),
) -> pd.DataFrame:
    """Judge each method on each fold; return the tidy table for `Leaderboard`.

    What is done is kept in ``store``, one file for each method, fold and kind of
    protocol, written aside and renamed: a run that was interrupted goes on, and methods
    and kinds can be added later. A method is fitted once for all kinds.
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
    kinds
        What is support and what is query: such as "whole-life", or "lists".

    Returns
    -------
    pd.DataFrame
        One row for each kind (column ``protocol``), method, fold, user and K.

    Raises
    ------
    ValueError
        If ``store`` belongs to other data or another protocol.

    Plumbing
    --------
    The command ``python -m metarec.evaluation``.
    """
    # As they come back from a file.
    settings = json.loads(json.dumps(asdict(protocol))) | {"data": data.content_hash()}
    mark = store / "settings.json"
    there = json.loads(mark.read_text()) if mark.exists() else settings
    if differ := sorted(name for name in settings if settings[name] != there.get(name)):
        text = f"{store} holds results under another {', '.join(differ)}: "
        raise ValueError(f"{text}name another folder or begin anew with --fresh")

    def path(kind: str, method: str, number: int) -> Path:
        slug = re.sub(r"[^a-z0-9]+", "-", method.lower()).strip("-")
        return store / f"{number}-{slug}-{kind}.csv"

    numbers = range(protocol.folds if protocol.split == "users" else 1)
    runs = list(product(numbers, methods))
    bar = tqdm(runs, desc="evaluation", unit="fit", disable=not progress)
    fold: Fold | None = None
    for number, method in bar:
        bar.set_postfix_str(f"fold {number}, {method}")
        if left := [k for k in kinds if not path(k, method, number).exists()]:
            # Methods of one fold come in a row, and share what it has fitted.
            if fold is None or fold.number != number:
                fold = Fold(data, number, protocol)
            tables = _judged(fold, method, left)
            # The mark is written before the first result, which is known to be of this
            # run however it ends; a run that fails earlier claims nothing.
            save_aside(mark, partial(Path.write_text, data=json.dumps(settings)))
            for kind, table in tables.groupby("protocol"):
                write = partial(table.to_csv, index=False)
                save_aside(path(str(kind), method, number), write)
    # One order of rows, whichever was run first.
    paths = [path(*key) for key in product(kinds, methods, numbers)]
    return pd.concat(map(pd.read_csv, paths), ignore_index=True)


def _judged(fold: Fold, method: str, kinds: Sequence[str]) -> pd.DataFrame:
    start = time.process_time()
    predictor = fitted(method, fold)
    fit_seconds = time.process_time() - start
    table = pd.concat(fold.judge(predictor, None, k).assign(protocol=k) for k in kinds)
    users = fold.histories.usable(fold.split.test)[:100]
    support = fold.histories.tasks(users, min(10, fold.histories.reserved)).support
    everything = torch.arange(fold.histories.n_items).expand(len(users), -1)
    start = time.process_time()
    with torch.no_grad():
        predictor.predict(support, everything)
    cost = 1000 * (time.process_time() - start) / len(users)
    return table.assign(method=method, fit_seconds=fit_seconds, ms_per_user=cost)
