"""A command with everything that it starts in turn: they run as one group, and end together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# How long a signal is given before a harder one follows.
_PATIENCE = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (getattr(signal, "SIGKILL", signal.SIGTERM), 5.0))


def run_group(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> int:
    """Runs a command to its end and returns its exit code.

    If this process is interrupted meanwhile (KeyboardInterrupt), the command and all that it has started are interrupted
    too, and waited for, before the interruption goes on.
    """
    with _interruptible():
        process = subprocess.Popen(list(command), cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        _end(process)
        raise


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Lets a process that is started meanwhile be interrupted: a shell's background job inherits that it must not be."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread()
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the group: interrupted first, since DVC then leaves its lock files whole; a second interruption kills it."""
    if not hasattr(os, "killpg"):  # Windows: its console interrupts the group by itself.
        process.wait()
        return
    try:
        for number, patience in _PATIENCE:
            if not _signal(process, number):
                return
            until = time.monotonic() + patience
            while time.monotonic() < until:
                if process.poll() is not None and not _signal(process, 0):
                    return
                time.sleep(0.05)
    except KeyboardInterrupt:
        _signal(process, _PATIENCE[-1][0])


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Sends a signal to the group (0: none). Returns whether any of it is there."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
