"""Run one of nbgrader's own commands in a course."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path


class NbgraderError(RuntimeError):
    """Nbgrader refused, or took too long; its own last words are the message."""


def nbgrader(course: Path, *arguments: str, seconds: float | None = None) -> None:
    """Run ``nbgrader *arguments``; kill it, and its kernel, after ``seconds``.

    Raises ``NbgraderError``.
    """
    # Nbgrader calls `alembic` by name, which stands beside this Python.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "nbgrader", *arguments],
            cwd=course,
            env={**os.environ, "PATH": path},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            failed = process.wait(seconds) != 0
        except subprocess.TimeoutExpired:
            raise NbgraderError(f"stopped after {seconds:.0f} seconds") from None
        finally:
            _end(process)
        if failed:
            said.seek(0)
            raise NbgraderError(said.read().decode(errors="replace")[-2000:])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and the kernel that it started, if they are still there."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
