"""Run a student's code where it can neither hang, crash nor change the grader.

Where the system can fork, each check runs in a child process with a time limit: an
endless loop is killed even if it catches every exception, ``sys.exit`` ends the child
alone, and what the code changes is gone with it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import NamedTuple

from classroom.compare import Wrong

EXTRA_MEMORY = 4 * 2**30  # bytes that a check may take beyond what is in use


class Outcome(NamedTuple):
    """How a check ended (passed, wrong, missing, error or stopped), and why."""

    status: str
    message: str = ""


def outcome_of(check: Callable[[], None]) -> Outcome:
    """Run a check here and now; no exception leaves this function."""
    said = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            warnings.simplefilter("ignore")
            check()
    except Wrong as mistake:
        return Outcome("wrong", str(mistake))
    except NotImplementedError as missing:
        return Outcome("missing", str(missing) or "not done yet")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Outcome("error", _describe(error))
    return Outcome("passed")


def isolated_outcome_of(check: Callable[[], None], seconds: float) -> Outcome:
    """Run a check in a child process, for at most ``seconds``."""
    if not hasattr(os, "fork"):
        return outcome_of(check)
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks beside threads
        child = os.fork()
    if child == 0:
        _answer(check, write)
    os.close(write)
    try:
        told = _read_until(read, time.monotonic() + seconds)
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if told is None:
        return Outcome(
            "stopped", f"stopped after {seconds:.0f} seconds: does a loop never end?"
        )
    try:
        return Outcome(*json.loads(told))
    except (ValueError, TypeError):
        return Outcome("error", "the code ended the Python process that ran it")


def _answer(check: Callable[[], None], write: int) -> None:
    """The child's side: run, write the outcome, and be gone."""
    try:
        _limit_memory()
        sys.stdin = io.StringIO()  # nobody answers an input()
        os.write(write, json.dumps(outcome_of(check)).encode()[:60_000])
    finally:
        os._exit(0)


def _limit_memory() -> None:
    with contextlib.suppress(Exception):
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        most = used + EXTRA_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read_until(descriptor: int, end: float) -> bytes | None:
    """All that is written until the other side closes; None if time runs out first."""
    told = b""
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return None
        if not (chunk := os.read(descriptor, 65_536)):
            return told
        told += chunk


def _describe(error: BaseException) -> str:
    """The exception, and the line of the notebook that it comes from."""
    text = f"{type(error).__name__}: {error}"[:1000]
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "ipykernel" in f.filename or f.filename[:1] == "<"]
    if own and own[-1].line:
        text += f"\n(in your line `{own[-1].line.strip()}`)"
    return text
