"""A data set as it is named on a command line, and flags that say how to read it."""

import argparse
import re
from collections.abc import Callable
from inspect import getdoc
from typing import Any, get_args

from metarec.data import movielens
from metarec.data.custom import Duplicates, rating_data, read_csv
from metarec.data.table import RatingData

SOURCE_HELP = f"{', '.join(movielens.NAMES)} (or NAME=PATH where it is on disk), or a "
SOURCE_HELP += "file of ratings: text with separators, .parquet or .jsonl, perhaps "
SOURCE_HELP += "compressed (default: %(default)s)"
_FLAGS = ["columns", "scale", "sep", "encoding", "header", "duplicates", "not_rated"]
_FLAGS += ["time_format", "users", "items"]
# An argument as the errors write it, name=value.
_VALUE = r"(\{.*?\}|\w*\(.*?\)|'.*?'|\".*?\"|[\w.-]+)"
_ARGUMENT = re.compile(rf"\b({'|'.join(_FLAGS)})={_VALUE}")


def add_flags(add: Callable[..., Any], thing: Any, **flags: Any) -> None:
    """Add a flag for each named argument of ``thing``: its docstring is the help."""
    for name, how in flags.items():
        said = re.search(rf"^{name}\n((?: +.+\n)+)", getdoc(thing) or "", re.MULTILINE)
        words = said[1].replace("%", "%%").replace("`", "").split() if said else []
        add(f"--{name.replace('_', '-')}", help=" ".join(words), **how)


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a file is to be read: the arguments of `read_csv`."""
    add = parser.add_argument_group("for a file of your own").add_argument
    file, numbers = {"metavar": "FILE"}, {"nargs": "+", "type": float, "metavar": "N"}
    columns = {"nargs": "+", "metavar": "ROLE=NAME"}
    add_flags(add, rating_data, columns=columns, scale=numbers)
    sep = {"type": lambda word: word.replace(r"\t", "\t")}
    add_flags(add, read_csv, sep=sep, encoding={})
    text = "the first line is no names; columns are numbered from 0"
    add("--no-header", dest="header", action="store_false", default=None, help=text)
    more = {"duplicates": {"choices": get_args(Duplicates)}, "not_rated": numbers}
    add_flags(add, rating_data, **more, time_format={}, users=file, items=file)


def load_source(
    source: str, options: argparse.Namespace, progress: bool = True
) -> RatingData:
    """Load a data set by its name, or a file as the flags say.

    ``name=path`` takes the named set from a file or folder that is there already.

    Parameters
    ----------
    source
        Name of a data set, a file, or ``name=path``.
    options
        What ``add_reading_flags`` reads.
    progress
        Whether to show a progress bar on a terminal.

    Raises
    ------
    ValueError
        Where it cannot be read; the message names the flag that would help.
    OSError
        Where it cannot be read.
    """
    name, _, path = source.partition("=")
    given = {f: value for f in _FLAGS if (value := getattr(options, f)) is not None}
    if name in movielens.NAMES and given:
        why = f"--{next(iter(given)).replace('_', '-')} is for a file of your own: name"
        raise ValueError(f"{name} is read as it is; {why} the file before the flags")
    if name in movielens.NAMES:
        return movielens.load_movielens(name, path, progress)
    if "columns" in given:
        given["columns"] = dict(word.partition("=")[::2] for word in given["columns"])
    try:
        return read_csv(source, **given)
    except ValueError as error:
        raise ValueError(_ARGUMENT.sub(_flag, str(error))) from error


def _flag(argument: re.Match[str]) -> str:
    """Turn an argument like columns={'rating': None} into --columns rating=."""
    name, value = argument.groups()
    if name == "header":
        return "--no-header"
    if value[-1] in "})":
        value = re.sub(r"[{}(),']|None|RatingScale", "", value).replace(": ", "=")
    return f"--{name.replace('_', '-')} {value}"
