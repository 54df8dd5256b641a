"""Whatever holds a table as a pandas DataFrame: files by suffix, other tables."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

# What stands for "nothing" in a column of numbers; in one of labels "" alone does.
_EMPTY = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", r"\N"]
_PACKED = re.compile(r"\.(gz|bz2|zip|xz|zst)$")
_TEXT: dict[str, Any] = {"sep": ",", "encoding": "utf-8", "header": True}
_SEPARATORS = {"\t": "tab", ";": "semicolon", "::": "colon", "|": "pipe", ",": "comma"}


def to_frame(
    table: Any, labels: Sequence[Any] = ("user_id", "item_id"), **how: Any
) -> pd.DataFrame:
    """Turn whatever holds a table into a DataFrame.

    A file is read by its suffix: ``.parquet``, ``.jsonl`` (one JSON object a line),
    anything else as text with separators; ``.gz``, ``.bz2`` and ``.zip`` are unpacked.
    Labels in text stay as written, "007" as well as "7", unless every one of a column
    is a whole number written plainly; then they are numbers.

    Parameters
    ----------
    table
        A DataFrame (of pandas, polars or another library with ``to_pandas``), an Arrow
        table, the path of a file, or what ``pandas.DataFrame`` takes.
    labels
        For a text file, the columns that hold labels, by name or by position from 0.
    **how
        For a text file, sep, encoding and header, as in `read_csv`.

    Returns
    -------
    pd.DataFrame
        The table; a DataFrame is returned as it is.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For what is no table, with the likely cause.

    Plumbing
    --------
    The door of `rating_data` and `read_csv`.
    """
    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, str | Path):
        return _read_file(Path(table), labels, **(_TEXT | how))
    if hasattr(table, "to_pandas"):
        return pd.DataFrame(table.to_pandas())
    try:
        frame = pd.DataFrame(table)
    except (TypeError, ValueError):
        frame = pd.DataFrame()
    if frame.columns.empty:
        known = "a DataFrame (pandas, polars), an Arrow table or the path of a file"
        raise ValueError(f"{type(table).__name__} is no table: pass {known}")
    return frame


def column_of(frame: pd.DataFrame, column: Any) -> Any:
    """Find a column by its name or, failing that, by its position from 0."""
    if column in frame:
        return column
    at = int(column) if str(column).isdecimal() else len(frame.columns)
    return frame.columns[at] if at < len(frame.columns) else None


def _read_file(
    path: Path, labels: Sequence[Any], sep: str, encoding: str, header: bool
) -> pd.DataFrame:
    name = _PACKED.sub("", path.name.lower())
    # Of several characters pandas makes a pattern, for its slow engine alone.
    sep, engine = (sep, "c") if len(sep) == 1 else (re.escape(sep), "python")
    how: dict[str, Any] = {"sep": sep, "engine": engine, "encoding": encoding}
    how |= {"header": 0 if header else None, "keep_default_na": False}
    how["index_col"] = False  # else the first of too many values becomes an index
    try:
        if name.endswith((".parquet", ".pq")):
            return pd.read_parquet(path)
        if name.endswith((".jsonl", ".ndjson", ".json")):
            return pd.read_json(path, lines=True, dtype=False, encoding=encoding)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            warnings.simplefilter("error", pd.errors.ParserWarning)
            head = pd.read_csv(path, nrows=1, dtype=str, **how)
            named = {column_of(head, label) for label in labels} & {*head.columns}
            how["na_values"] = {c: [""] if c in named else _EMPTY for c in head}
            text: Any = dict.fromkeys(named, str)
            frame: pd.DataFrame = pd.read_csv(path, dtype=text, **how)
    except UnicodeDecodeError as error:
        # Where latin-1 has control characters, cp1252 has quotes and the euro.
        control = re.search(rb"[\x80-\x9f]", error.object)
        wide = error.object[:2] in (b"\xff\xfe", b"\xfe\xff")
        likely = "utf-16" if wide else "cp1252" if control else "latin-1"
        raise ValueError(f"{error}: perhaps pass encoding={likely!r}") from error
    except ImportError as error:
        raise ValueError(f"{error}: pip install metarec[large]") from error
    except (FileNotFoundError, ValueError):
        raise
    except Exception as error:  # what a file can be damaged by has no common name
        raise ValueError(f"this file cannot be read: {error}") from error
    for column in named:
        frame[column] = _as_written(frame[column])
    return frame


def _as_written(labels: pd.Series) -> pd.Series:
    """Numbers where each label is one, written as a number is, and text otherwise."""
    codes, found = pd.factorize(labels)
    numbers = pd.to_numeric(pd.Series(found), errors="coerce")
    if numbers.dtype != "int64" or (numbers.astype(str) != found).any():
        return labels  # "007", "1e4", "034500001X": one such label, and all are text
    return labels if (codes < 0).any() else numbers[codes].set_axis(labels.index)


def likely_cause(frame: pd.DataFrame) -> str:
    """Guess from the first line of a file why a column is not found in it."""
    names = [name for name in frame if isinstance(name, str)]
    first = names or [*frame.head(1).astype(str).to_numpy().ravel()]
    hints = []
    for sep, kind in _SEPARATORS.items():
        if len(first) == 1 and sep in first[0]:
            hints.append(f"this looks {kind}-separated: pass sep={sep!r}")
            first = first[0].split(sep)
    if names and pd.to_numeric(pd.Series(first), errors="coerce").notna().any():
        hints.append("the first line seems to hold values, no names: pass header=False")
    return "; ".join(hints)
