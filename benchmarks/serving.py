"""2,000 requests by 32 clients, one in ten malformed, to the service: errors and waits.

    python benchmarks/serving.py

The command ``python -m metarec.serve`` runs in a process of its own on this machine.
Each list is compared with that of the recommender in this process, and each malformed
request must get a sentence. Then the service is killed and started again, and asked
for the same lists. Writes benchmarks/results/serving.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import local

import numpy as np
import pandas as pd

from metarec.data import synthetic_population
from metarec.evaluation import write_table
from metarec.recommender import MetaRecommender
from metarec.training import TrainingConfig

HANGS = 120  # seconds after which something is wrong
GOOD = b'{"item": 3, "rating": 4.0}'
MALFORMED = {
    "null stars": b'{"ratings": [{"item": 3, "rating": null}]}',
    "a list as an item": b'{"ratings": [{"item": [3], "rating": 4}]}',
    "deep nesting": b'{"ratings": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"user": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
    "NaN": b'{"ratings": [{"item": 3, "rating": NaN}]}',
    "infinity": b'{"ratings": [{"item": 3, "rating": 1e999}]}',
    "unknown item": b'{"ratings": [{"item": "nowhere", "rating": 4}]}',
    "off the scale": b'{"ratings": [{"item": 3, "rating": 9}]}',
    "rated twice": b'{"ratings": [' + GOOD + b", " + GOOD + b"]}",
    "stars as text": b'{"ratings": [{"item": 3, "rating": "4"}]}',
    "a number as a list": b'{"ratings": 7}',
    "too many": b'{"ratings": [' + b", ".join([GOOD] * 1001) + b"]}",
    "a huge body": b'{"ratings": [' + b" " * 2**21 + b"]}",
    "a huge number": b'{"ratings": [{"item": ' + b"9" * 5000 + b', "rating": 4}]}',
    "a huge name": b'{"ratings": [{"item": "' + b"x" * 5000 + b'", "rating": 4}]}',
    "half a character": b'{"ratings": [{"item": "\\ud800", "rating": 4}]}',
    "no text": b"\xff\xfe\x00",
    "cut off": b'{"ratings": [',
    "nothing": b"",
    "a list of no length": b'{"n": 0}',
    "another field": b'{"stars": []}',
    "unknown of the user": b'{"user": {"height": 3}}',
}


@contextmanager
def running(model: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command until the block ends, and kill it."""
    command = [sys.executable, "-m", "metarec.serve", str(model), "--port", str(port)]
    path = os.pathsep.join(sys.path)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, **quiet)
    try:
        end = time.monotonic() + HANGS
        while True:
            try:
                if ask(port, "GET", "/health")[0] == 200:
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


kept = local()  # a client keeps its connection, as a browser does


def ask(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, object]:
    """Status and content of a reply; the connection is kept."""
    if getattr(kept, "port", None) != port:
        kept.port, kept.client = port, HTTPConnection("127.0.0.1", port, timeout=HANGS)
    try:
        headers = {"Content-Type": "application/json"}
        kept.client.request(method, path, body, headers)
        reply = kept.client.getresponse()
        return reply.status, json.loads(reply.read())
    except BaseException:
        kept.client.close()
        del kept.port
        raise


def users(n: int, n_items: int) -> list[dict[int, float]]:
    """Up to thirty ratings of each of n users."""
    rng = np.random.default_rng(0)
    found = []
    for size in rng.integers(0, 31, n):
        items = rng.choice(n_items, size, replace=False).tolist()
        found.append(dict(zip(items, rng.integers(1, 6, size).tolist(), strict=True)))
    return found


def wish(ratings: dict[int, float]) -> bytes:
    """The request for the list of a user."""
    rated = [{"item": item, "rating": stars} for item, stars in ratings.items()]
    return json.dumps({"ratings": rated}).encode()


def right(recommender: MetaRecommender, ratings: dict[int, float]) -> list[object]:
    """The list that the recommender makes in this process."""
    return recommender.adapt(ratings).recommend()["item_id"].tolist()


def load(port: int, recommender: MetaRecommender, n: int, clients: int) -> pd.DataFrame:
    """Ask n times, one in ten malformed: kind, status, whether it is right, seconds."""
    people, kinds = users(n, len(recommender.items)), list(MALFORMED)
    expected = [right(recommender, ratings) for ratings in people]

    def one(at: int) -> tuple[str, int, bool, float]:
        kind = kinds[at // 10 % len(kinds)] if at % 10 == 0 else "good"
        body = MALFORMED[kind] if at % 10 == 0 else wish(people[at])
        start = time.perf_counter()
        status, found = ask(port, "POST", "/recommend", body)
        seconds = time.perf_counter() - start
        if kind == "good":
            fine = status == 200 and [row["item"] for row in found] == expected[at]
        else:
            text = found["detail"]
            fine = status in (400, 413, 422) and 0 < len(text) < 300
        return kind, status, fine, seconds

    with ThreadPoolExecutor(clients) as pool:
        rows = list(pool.map(one, range(n)))
    return pd.DataFrame(rows, columns=["kind", "status", "right", "seconds"])


def trained(folder: Path) -> tuple[MetaRecommender, Path]:
    """A recommender of 2,000 items, and the file it is saved in."""
    data, _ = synthetic_population(n_users=600, n_items=2000, ratings_per_user=60)
    recommender = MetaRecommender(learner="bayesian", config=TrainingConfig(epochs=2))
    recommender.fit(data, progress=False).save(folder / "model")
    return recommender, folder / "model"


def main() -> None:
    """Serve, ask, kill, serve and ask again, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    out = Path(__file__).parent / "results" / "serving.csv"
    parser.add_argument("--out", type=Path, default=out)
    given = parser.parse_args()
    found = []
    with TemporaryDirectory() as folder:
        recommender, model = trained(Path(folder))
        port = free_port()
        for run in ("first", "after a kill"):
            with running(model, port):
                replies = load(port, recommender, given.requests, given.clients)
            good = replies["kind"] == "good"
            waits = np.percentile(1e3 * replies["seconds"][good], [50, 99])
            wrong = ~replies["right"]
            found.append(
                {
                    "run": run,
                    "requests": len(replies),
                    "clients": given.clients,
                    "malformed": int((~good).sum()),
                    "wrong_lists": int((wrong & good).sum()),
                    "without_a_sentence": int((wrong & ~good).sum()),
                    "status_500": int((replies["status"] >= 500).sum()),
                    "p50_ms": waits[0],
                    "p99_ms": waits[1],
                }
            )
    results = pd.DataFrame(found)
    print(results.to_string(index=False, float_format="%.1f"))
    notes = [
        "mf + maml + bayesian, 2,000 items, lists of ten from 0 to 30 ratings; clients "
        "and service share the machine; waits are those of well-formed requests",
        f"{platform.machine()}, {os.cpu_count()} processors",
    ]
    write_table(given.out, results, "python benchmarks/serving.py", notes)


if __name__ == "__main__":
    main()
