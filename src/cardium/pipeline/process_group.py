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
from typing import Any

# How long a signal is given before a harder one follows.
_PATIENCE = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (getattr(signal, "SIGKILL", signal.SIGTERM), 5.0))


def run_group(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> int:
    """Runs a command to its end and returns its exit code.

    If this process is interrupted meanwhile (KeyboardInterrupt), the command and all that it has started are interrupted
    too, and waited for, before the interruption goes on.
    """
    process = start_group(command, cwd, env)
    try:
        return process.wait()
    except BaseException:
        end_groups(process)
        raise


def start_group(command: Sequence[str], cwd: Path, env: Mapping[str, str], *, piped: bool = False) -> subprocess.Popen[Any]:
    """Starts a command as a group of its own. piped: what it writes, errors too, is lines of its `stdout`, not passed on."""
    pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    with _interruptible():
        return subprocess.Popen(
            list(command),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **(pipe if piped else {}),
        )


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


def end_groups(*processes: subprocess.Popen[Any]) -> None:
    """Ends groups: interrupted first, since DVC then leaves its lock files whole; a second interruption kills them."""
    if not hasattr(os, "killpg"):  # Windows: its console interrupts the group by itself.
        for process in processes:
            process.wait()
        return
    there = list(processes)
    try:
        for number, patience in _PATIENCE:
            there = [process for process in there if _signal(process, number)]
            until = time.monotonic() + patience
            while there and time.monotonic() < until:
                time.sleep(0.05)
                there = [process for process in there if process.poll() is None or _signal(process, 0)]
    except KeyboardInterrupt:
        for process in there:
            _signal(process, _PATIENCE[-1][0])


def _signal(process: subprocess.Popen[Any], number: int) -> bool:
    """Sends a signal to the group (0: none). Returns whether any of it is there."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
