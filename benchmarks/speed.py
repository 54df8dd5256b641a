"""Time and weigh meta-learning against other ways to write it, all in one run.

    python benchmarks/speed.py

Four tables, in benchmarks/results/:

speed.csv         one meta-training epoch: MF, MLP (head, all weights), attention; 1 and
                  5 steps; second and first order; a per-task autograd loop,
                  learn2learn, higher, vmap(grad), metarec, torch.compile and, for a
                  head, the adjoint by hand
speed_users.csv   adaptation and the best 10 of 1,682 items, for one user and for all
speed_memory.csv  peak memory of one meta-batch of all users, a process for each way
speed_growth.csv  time as users, items, steps and the meta-batch grow

Every way has the same tasks and parameters. Meta-gradients are checked equal before
anything is timed. All ways run in turn, round after round, and a ratio is the median of
the ratios within rounds. One thread. About a quarter of an hour; --only runs one part.

learn2learn and higher are timed where they can be imported. higher installs by pip.
learn2learn 0.2.0 does not build on Python 3.11, but the part of it that is timed is
plain Python. These commands put both into a folder:

    pip install --no-deps --target rivals higher==0.2.1
    pip download --no-deps --no-binary :all: learn2learn==0.2.0
    tar xf learn2learn-0.2.0.tar.gz
    mkdir -p rivals/learn2learn/algorithms
    touch rivals/learn2learn/__init__.py rivals/learn2learn/algorithms/__init__.py
    cp learn2learn-0.2.0/learn2learn/algorithms/{maml,base_learner}.py \
        rivals/learn2learn/algorithms/
    cp -r learn2learn-0.2.0/learn2learn/utils rivals/learn2learn/
    PYTHONPATH=rivals python benchmarks/speed.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from speed_parts import QUICK, Size, growth, memory, peak, training, users
from speed_ways import QUERY, K, missing

from metarec.evaluation import write_table

PARTS = {"training": training, "users": users, "memory": memory, "growth": growth}
NOTES = {
    "training": [
        "way: metarec is inner_loop with the closed gradient for a head, and with one "
        "pass backward for all tasks for any other weights",
        "adjoint: the closed form with its way back by hand, for a head, second order",
        "times_x: how many times faster than x, median of the ratios within rounds",
        "warm_up_s: the first call on one meta-batch, which compiles where it must",
        "torch.compile: second order alone, as each case is compiled anew",
    ],
    "users": [
        "ms a user: median and 95th percentile; all_users_ms: sum, or all at once",
    ],
    "memory": [
        "peak_mb: what one meta-gradient, all users in one batch, adds to the peak "
        "resident memory of a process",
    ],
    "growth": ["5 steps, 943 users, 1682 items, meta-batch 32, but for what varies"],
}


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n") if info.exists() else []
    names = [x.split(":")[1].strip() for x in lines if x.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def compiler() -> str | None:
    """The C++ compiler that torch.compile needs, if there is one."""
    return os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), None)


def main(words: list[str] | None = None) -> None:
    """Measure and write the tables."""
    text = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(description=text[0])
    parser.add_argument("--rounds", type=int, default=5, help="times all ways run")
    parser.add_argument("--only", choices=PARTS, help="one part instead of all")
    parser.add_argument(
        "--no-compile", action="store_true", help="leave torch.compile out"
    )
    parser.add_argument("--quick", action="store_true", help="tiny, to see it run")
    out = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=out, help="folder of the tables")
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # a child of `memory`
    arguments = parser.parse_args(words)
    if arguments.peak:
        print(peak(*json.loads(arguments.peak)))
        return
    torch.set_num_threads(1)
    # A warm-up is that of a machine which has not compiled this before.
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    fresh = tempfile.TemporaryDirectory()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = fresh.name
    absent = missing()
    if arguments.no_compile:
        absent["torch.compile"] = "left out by --no-compile"
    elif compiler() is None:
        absent["torch.compile"] = "no C++ compiler"
    size = QUICK if arguments.quick else Size(rounds=arguments.rounds)
    size = replace(size, compile_too="torch.compile" not in absent)
    notes = [
        f"{size.users} users, meta-batch {size.batch}, K = {K}, {QUERY} query ratings, "
        f"one thread, {size.rounds} rounds",
        f"{processor()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.machine()}",
    ]
    left_out = [f"not timed: {name}, {why}" for name, why in absent.items()]
    for part in [arguments.only] if arguments.only else PARTS:
        table = PARTS[part](size)
        with pd.option_context("display.width", 120):
            print(table.to_string(index=False, float_format="%.2f"))
        name = "speed.csv" if part == "training" else f"speed_{part}.csv"
        about = notes + NOTES[part] + (left_out if part == "training" else [])
        write_table(arguments.out / name, table, "python benchmarks/speed.py", about)


if __name__ == "__main__":
    main()
