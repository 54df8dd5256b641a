"""Judge recommenders on users that they have not met.

Folds by user, one number per user, paired with a rival. Three goals: stars (RMSE),
lists (nDCG@10 of what is liked after the first K ratings, among all items) and clicks
(log-loss of what is liked). For stars three protocols: cold-start (support = a user's
first K ratings, query = all after the reserved ones), whole-life (the first 10, 25, 50
or 80 percent of a history of any length, and the rest) and last-20 (the first 0 to 400,
and the last 20). What is done is kept, so that a run that was interrupted goes on and
methods and protocols can be added later.

Files in OUT: errors.csv.xz (each user's error under each method), summary.csv,
summary.md, costs.csv, plot.png, rivals.csv if there are several, and parts/ with what
is done; another protocol than cold-start has a folder of its own in OUT. Examples:

    python -m metarec.evaluation --methods baselines "mf + maml + bayesian, 5 seeds"
    python -m metarec.evaluation --protocol whole-life last-20
    python -m metarec.evaluation --goal lists --rival popularity "naive-Bayes lift"
"""

import argparse
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from metarec.data import source
from metarec.data.custom import for_goal
from metarec.evaluation.fold import Protocol
from metarec.evaluation.leaderboard import Leaderboard
from metarec.evaluation.methods import JUDGED, SYSTEMS, known_methods
from metarec.evaluation.run import run_methods
from metarec.evaluation.tables import write_table
from metarec.plots import use_style
from metarec.tasks import ORDERS
from metarec.training import save_aside
from metarec.validation import PROTOCOLS

_COMMAND = "python -m metarec.evaluation"


def parser() -> argparse.ArgumentParser:
    """Describe the command."""
    how: Any = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    made = argparse.ArgumentParser(_COMMAND, description=__doc__, **how)
    add = made.add_argument
    add("--data", default="ml-100k", metavar="SOURCE", help=source.SOURCE_HELP)
    source.add_reading_flags(made)
    add("--goal", choices=JUDGED, default="stars", help="default: %(default)s")
    groups = "names, or baselines, systems, all (default: baselines; see --list)"
    add("--methods", nargs="+", default=["baselines"], metavar="METHOD", help=groups)
    add("--list", action="store_true", help="list the methods and stop")
    rival = "whom all are compared with; p-values of several are adjusted by Holm"
    add("--rival", nargs="+", metavar="METHOD", help=f"{rival} (default: by goal)")
    text = "what is support and what is query (default: cold-start)"
    kinds = [kind for kind in PROTOCOLS if kind not in JUDGED]
    add("--protocol", nargs="+", default=["cold-start"], choices=kinds, help=text)
    number, sizes = {"type": int}, {"nargs": "+", "type": int, "metavar": "K"}
    flags = {"split": {"choices": ("users", "time")}, "order": {"choices": ORDERS}}
    flags |= {"sizes": sizes, "folds": number, "reserved": number, "seed": number}
    source.add_flags(add, Protocol, **flags)
    add("--out", type=Path, help="folder for the results (default: leaderboard-<data>)")
    add("--fresh", action="store_true", help="forget earlier results")
    add("--quiet", action="store_true", help="no progress bar, no table")
    made.set_defaults(**asdict(Protocol()))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 with an error that says what to do.

    Parameters
    ----------
    arguments
        Words of the command line; those of the process if not given.
    """
    options = parser().parse_args(arguments)
    if options.list:
        print("\n".join(known_methods()))
        return 0
    torch.set_num_threads(1)  # the models are small: threads would wait for each other
    try:
        _evaluate(options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _evaluate(options: argparse.Namespace) -> None:
    first, baselines, rival, metric = JUDGED[options.goal]
    systems = [name for name, s in SYSTEMS.items() if s.goal == options.goal]
    groups = {"baselines": [*baselines], "systems": systems}
    groups["all"] = [*baselines, *systems]
    methods = [m for name in options.methods for m in groups.get(name, [name])]
    rivals = options.rival or [rival]
    methods = list(dict.fromkeys([*methods, *rivals]))
    for name in methods:
        if re.sub(r", \d+ seeds$", "", name) not in known_methods():
            raise ValueError(f"no method is called {name!r}: --list names them all")
    data = source.load_source(options.data, options, progress=not options.quiet)
    data = for_goal(data, options.goal)
    title = "leaderboard" if options.goal == "stars" else options.goal
    out = options.out or Path(f"{title}-{data.name}")
    if options.fresh:
        shutil.rmtree(out / "parts", ignore_errors=True)
    protocol = Protocol(*(getattr(options, each.name) for each in fields(Protocol)))
    kinds = options.protocol if options.goal == "stars" else [first]
    parts = out / "parts"
    table = run_methods(data, methods, protocol, parts, not options.quiet, kinds)
    command = f"{_COMMAND} {_arguments(options)}"
    notes = [
        f"{data.name}, hash {data.content_hash()[:16]}, {protocol}",
        f"difference, low, high: {metric} less that of {rivals[0]}, 95% interval",
        "seconds and ms: processor time of one thread",
    ]
    use_style()
    for kind, errors in table.groupby("protocol"):
        errors = errors.dropna(axis=1, how="all")
        folder = out if kind == first else out / str(kind)
        board = Leaderboard(errors, rivals[0], PROTOCOLS[str(kind)][0], metric)
        write_table(folder / "summary.csv", board.summary, command, notes)
        save_aside(folder / "summary.md", partial(Path.write_text, data=str(board)))
        write_table(folder / "costs.csv", board.costs.reset_index(), command, notes)
        if len(rivals) > 1:
            write_table(folder / "rivals.csv", board.against(rivals), command, notes)
        each = errors.set_index(["method", "fold", "user", "k"])
        each = each.drop(columns=["protocol", *board.costs])
        save_aside(folder / "errors.csv.xz", partial(each.to_csv, float_format="%.4f"))
        sizes = [k for k in errors["k"].unique() if k <= 10 or kind == "whole-life"]
        save_aside(folder / "plot.png", board.plot(max(sizes)).figure.savefig)  # type: ignore[union-attr]
        if not options.quiet:
            print(board)
            print(f"errors, summary and plot are in {folder}/")


def _arguments(options: argparse.Namespace) -> str:
    """What was asked for, without where it was put."""
    words = ["--data", Path(options.data).name, "--methods", *options.methods]
    if options.goal == "stars":
        words += ["--protocol", *options.protocol]
    default = parser().get_default
    for name in "goal rival order folds reserved seed split sizes".split():
        if (value := getattr(options, name)) != default(name):
            several = value if isinstance(value, list) else [value]
            words += [f"--{name}", *map(str, several)]
    return shlex.join(words)


if __name__ == "__main__":
    sys.exit(main())
