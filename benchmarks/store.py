"""Sort ten million ratings of a CSV and of a Parquet file into a store: time, memory.

    python benchmarks/store.py

The ratings are those of 100,000 users of benchmarks/crowd.py in random order, so that
there is something to sort. Each file is read in a process of its own, which reports its
seconds and its peak of resident memory, Python and PyTorch included. Writes
benchmarks/results/store.csv.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pandas as pd
from crowd import draw

from metarec.evaluation import write_table
from metarec.scale import write_store


def measure(source: Path) -> None:
    """Write the store beside its source, in this process, and print what it took."""
    start, before = time.perf_counter(), time.process_time()
    store = write_store(f"{source}.store", source)
    seconds, processor = time.perf_counter() - start, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "source": source.suffix[1:],
        "source_mb": source.stat().st_size / 1e6,
        "users": store.n_users,
        "ratings": len(store.item),
        "store_mb": Path(store.item.filename).stat().st_size / 1e6,
        "seconds": seconds,
        "processor_s": processor,
        "peak_gb": peak / (1e9 if sys.platform == "darwin" else 1e6),
    }
    print(json.dumps(found))


def main() -> None:
    """Draw the ratings, measure both ways in child processes and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=100_000)
    out = Path(__file__).parent / "results" / "store.csv"
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        return measure(given.measure)
    found = []
    with TemporaryDirectory() as folder:
        drawn = Path(folder, "drawn.parquet")
        draw(drawn, given.users)
        for suffix in ("csv", "parquet"):
            source = drawn.with_name(f"ratings.{suffix}")
            mixed = f"SELECT * FROM '{drawn}' ORDER BY hash(timestamp, user)"
            with duckdb.connect() as engine:
                engine.sql(f"COPY ({mixed}) TO '{source}'")
            command = [sys.executable, __file__, "--measure", str(source)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    results = pd.DataFrame(found)
    print(results.to_string(index=False, float_format="%.2f"))
    notes = [
        "ratings in random order, sorted user after user; two threads and 400 MB for "
        "the engine; seconds are those of the clock, processor_s those of both threads "
        "together; peak_gb: most resident memory of the process",
        f"{platform.machine()}, duckdb {duckdb.__version__}, numpy {np.__version__}",
    ]
    write_table(given.out, results, "python benchmarks/store.py", notes)


if __name__ == "__main__":
    main()
