"""Work on many small items over all cores, in order and with bounded memory; processes that end with the one above them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from cardium.errors import CardiumError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Below this many items, starting processes takes longer than the work.
FEW = 400

# What a process that is asked to end is given for it.
_PATIENCE = 10.0


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def started(pid: int) -> str | None:
    """Returns when a process of this machine started, in the system's count.

    "" if the system does not say; None if the process is gone. A process that has ended but was not waited for is gone too.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return ""
    return None if fields[0] in "ZX" else fields[19]


def exit_with_parent(parent: int) -> None:
    """Ends this process when its parent is gone, so that a killed command leaves no workers behind."""
    _end_when(lambda: os.getppid() != parent)


def exit_with(pid: int) -> None:
    """Ends this process when the process `pid` of this machine is gone, whatever stands between them."""
    begun = started(pid)
    _end_when(lambda: begun is None or started(pid) != begun)


def _end_when(gone: Callable[[], bool]) -> None:
    """Watches from a thread, and ends this process as a `kill` would, so that it can tidy up."""

    def watch() -> None:
        while not gone():
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PATIENCE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin_worker(parent: int) -> None:
    """A pool's worker leaves an interruption to its parent, and leaves with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent(parent)


def in_chunks(
    work: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    chunk: int,
    workers: int | None = None,
    few: int = FEW,
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Yields (chunk, work(chunk)) for `items` cut into chunks, in order, computed by `workers` processes (default: the cores).

    At most two chunks a worker are in flight, so a slow consumer holds the workers back and memory stays bounded. `work`
    must be picklable. An exception of `work` is raised here; a worker that was killed is a CardiumError. Fewer than `few` items
    are done in this process.
    """
    chunks = [items[start : start + chunk] for start in range(0, len(items), chunk)]
    workers = min(workers or cores(), len(chunks))
    if workers <= 1 or len(items) < few:
        for some in chunks:
            yield some, work(some)
        return
    # Spawned, not forked: a fork beside running threads (TensorFlow's, a progress bar's) may never wake.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(os.getpid(),))
    flying: deque[tuple[Sequence[Item], Future[Result]]] = deque()
    try:
        for some in chunks:
            flying.append((some, pool.submit(work, some)))
            if len(flying) >= 2 * workers:
                done, future = flying.popleft()
                yield done, future.result()
        while flying:
            done, future = flying.popleft()
            yield done, future.result()
    except BrokenProcessPool:
        raise CardiumError(
            "A worker process was killed, most likely for want of memory: close other programs, run it again."
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
