"""Work on many small items over all cores, in order and with bounded memory."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from cardium.errors import CardiumError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Below this many items, starting processes takes longer than the work.
FEW = 400


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
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
