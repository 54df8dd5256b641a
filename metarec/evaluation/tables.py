"""Tables of results that say where they come from."""

import platform
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch

import metarec
from metarec.training import save_aside


def write_table(
    path: Path, table: pd.DataFrame, command: str, notes: Sequence[str] = ()
) -> None:
    """Write a CSV with its provenance in comment lines, aside and renamed.

    The command, the commit of the code, the versions, then ``notes``.

    Parameters
    ----------
    path
        The file to write.
    table
        The results.
    command
        The command that makes the table.
    notes
        Further lines of the provenance.

    Plumbing
    --------
    The leaderboard and the benchmarks.
    """
    versions = f"metarec {metarec.__version__}, torch {torch.__version__}"
    code = f"code: {_commit()}; {versions}, Python {platform.python_version()}"
    head = [f"made by: {command}", code, *notes]
    text = "".join(f"# {line}\n" for line in head)
    text += table.to_csv(index=False, float_format="%.5f")
    save_aside(path, partial(Path.write_text, data=text))
    print(f"wrote {path}: {len(table)} rows")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table of results without its provenance lines.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    pd.DataFrame
        The table.

    Plumbing
    --------
    The chapters that read a committed table.
    """
    return pd.read_csv(path, comment="#")


def _commit() -> str:
    """The commit of the working copy, and whether the package differs from it."""
    where = {"cwd": Path(metarec.__file__).parent, "stderr": subprocess.DEVNULL}
    git = partial(subprocess.check_output, text=True, **where)
    try:
        commit = git(["git", "rev-parse", "--short=12", "HEAD"]).strip()
        changed = " with changes" if git(["git", "status", "--porcelain", "."]) else ""
    except (OSError, subprocess.CalledProcessError):
        return "not under version control"
    return f"commit {commit}{changed}"
