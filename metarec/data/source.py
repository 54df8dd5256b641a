"""A data set as it is named on a command line, and flags that say how to read it."""

import argparse
import re
from typing import Any, get_args

from metarec.data import movielens
from metarec.data.custom import Duplicates, read_csv
from metarec.data.table import RatingData

SOURCE_HELP = f"{', '.join(movielens.NAMES)} (or NAME=PATH where it is on disk), or a "
SOURCE_HELP += "file of ratings: text with separators, .parquet or .jsonl, perhaps "
SOURCE_HELP += "compressed (default: %(default)s)"
_FLAGS = ["columns", "scale", "sep", "encoding", "header", "duplicates", "not_rated"]
_FLAGS += ["time_format", "users", "items"]
# An argument as the errors write it, name=value.
_VALUE = r"(\{.*?\}|\w*\(.*?\)|'.*?'|\".*?\"|[\w.-]+)"
_ARGUMENT = re.compile(rf"\b({'|'.join(_FLAGS)})={_VALUE}")


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a file is to be read: the arguments of `read_csv`."""
    add = parser.add_argument_group("for a file of your own").add_argument
    text = "column of a user, item, rating or timestamp, by name or by number from 0; "
    text += "rating= (no name) says that there are no stars, and a row is a click"
    add("--columns", nargs="+", metavar="ROLE=NAME", help=text)
    numbers: Any = {"nargs": "+", "type": float, "metavar": "NUMBER"}
    add("--scale", **numbers, help="lowest rating, highest rating, step (default: 1 5)")
    text = r"what stands between columns, \t for a tab (default: ,)"
    add("--sep", type=lambda word: word.replace(r"\t", "\t"), help=text)
    add("--encoding", help="of the characters (default: utf-8)")
    text = "the first line is no names; columns are numbered from 0"
    add("--no-header", dest="header", action="store_false", default=None, help=text)
    text = "of pairs that are rated again (default: error)"
    add("--duplicates", choices=get_args(Duplicates), help=text)
    add("--not-rated", **numbers, help="numbers among the ratings that mean: none")
    text = "s, ms, us or ns since 1970, or a format of dates such as %%d.%%m.%%Y"
    add("--time-format", metavar="FORMAT", help=text)
    add("--users", metavar="FILE", help="table with a column user_id")
    add("--items", metavar="FILE", help="table with a column item_id")


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
        flag = f"--{next(iter(given)).replace('_', '-')}"
        why = f"{flag} is for a file of your own: name the file before the flags"
        raise ValueError(f"{name} is read as it is, and {why}")
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
