"""Fetch data sets into the cache and describe them: python -m metarec.data ml-100k.

The cache is METAREC_CACHE, or the user's cache folder. METAREC_DATA names a copy of
MovieLens-100K (zip, wheel or folder) to be used in place of a download.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

import pooch

from metarec.data import RatingData
from metarec.data.source import SOURCE_HELP, add_reading_flags, load_source


def describe(data: RatingData) -> str:
    """Say in a few lines of text what a data set holds.

    Parameters
    ----------
    data
        The ratings.
    """
    ratings = data.ratings
    per_user = ratings.groupby("user").size()
    lines = [
        f"{data.name}: {len(ratings):,} ratings on the scale {data.scale}",
        f"users    {data.n_users:,} ({per_user.min()} to {per_user.max()} ratings "
        f"each, median {per_user.median():g})",
        f"items    {data.n_items:,} ({ratings['item'].nunique():,} of them rated)",
        f"density  {len(ratings) / data.n_users / data.n_items:.2%}",
        f"mean     {ratings['rating'].astype('float64').mean():.3f}",
    ]
    if ratings["timestamp"].any():
        # Days of numpy, which hold any number of seconds.
        span = ratings["timestamp"].agg(["min", "max"]).to_numpy("datetime64[s]")
        first, last = span.astype("datetime64[D]")
        lines.append(f"span     {first} to {last}")
    # Ratings without a step are counted in ten bins.
    bins = 10 if data.scale.step is None and ratings["rating"].nunique() > 10 else None
    counts = ratings["rating"].value_counts(bins=bins).sort_index()
    for rating, n in counts.items():
        lines.append(f"  {rating!s:>8} {n:>9,} {round(40 * n / counts.max()) * '#'}")
    lines += [f"hash     {data.content_hash()}", data.citation]
    return "\n".join(lines).rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if a data set could not be read.

    Parameters
    ----------
    arguments
        Words of the command line; those of the process if not given.
    """
    parser = argparse.ArgumentParser("python -m metarec.data", description=__doc__)
    add, default = parser.add_argument, ["ml-100k"]
    add("sources", nargs="*", default=default, metavar="SOURCE", help=SOURCE_HELP)
    add_reading_flags(parser)
    add("--quiet", action="store_true", help="print errors only")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    if options.quiet:
        pooch.get_logger().setLevel("WARNING")
        logging.getLogger("metarec").setLevel("ERROR")
    for source in options.sources:
        try:
            data = load_source(source, options, progress=not options.quiet)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        if not options.quiet:
            print(describe(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
