"""A data set as it is named on a command line."""

import argparse
from functools import partial

from metarec.data import movielens
from metarec.data.custom import read_csv
from metarec.data.table import RatingData, RatingScale

LOADERS = {
    "ml-100k": movielens.load_movielens_100k,
    "ml-1m": movielens.load_movielens_1m,
    "ml-latest-small": movielens.load_movielens_small,
}
SOURCE_HELP = (
    f"{', '.join(LOADERS)} (or NAME=PATH where it is on disk), or a CSV file with a "
    "header (default: %(default)s)"
)


def add_csv_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --columns and --scale, which say how a CSV file is to be read."""
    add = partial(parser.add_argument, nargs="+")
    text = "for a CSV file: user=..., item=..., rating=..., timestamp=..."
    add("--columns", default=[], metavar="ROLE=NAME", help=text)
    text = "for a CSV file: lowest rating, highest rating, step (default: 1 5)"
    add("--scale", type=float, default=[1, 5], metavar="NUMBER", help=text)


def load_source(
    source: str, options: argparse.Namespace, progress: bool = True
) -> RatingData:
    """Load a data set by its name, or a CSV file as the options say.

    ``name=path`` takes the named set from a file or folder that is there already.

    Parameters
    ----------
    source
        Name of a data set, a CSV file, or ``name=path``.
    options
        What ``add_csv_arguments`` reads.
    progress
        Whether to show a progress bar on a terminal.

    Raises
    ------
    ValueError
        Where it cannot be read.
    OSError
        Where it cannot be read.
    """
    if not 2 <= len(options.scale) <= 3:
        raise ValueError("--scale takes LOW HIGH or LOW HIGH STEP")
    name, _, path = source.partition("=")
    if name in LOADERS:
        return LOADERS[name](path or None, progress=progress)
    columns = dict(pair.partition("=")[::2] for pair in options.columns)
    return read_csv(source, columns, RatingScale(*options.scale))
