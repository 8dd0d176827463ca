"""The engine of this machine: files are read by a process a core, the network runs in this one.

Two chunks are on their way at once: while the network answers one, the files of the next are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cardium.batch.package import Model
from cardium.batch.source import Item
from cardium.parallel import cores

# Chunks that are read and answered at once, and that wait beside them.
_AT_ONCE, _READY = 2, 1


def answers(
    model: Model, place: str, chunks: Sequence[Sequence[Item]], master: str
) -> Iterator[tuple[Sequence[Item], list[dict[str, Any]]]]:
    """Yields (chunk, its rows) in order. What is left is let go where the caller stops early. master: none, ""."""
    del master
    worker = model.worker(cores())
    threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="score")
    flying: deque[tuple[Sequence[Item], Future[list[dict[str, Any]]]]] = deque()
    try:
        for chunk in chunks:
            flying.append((chunk, threads.submit(worker.answers, Path(place), chunk)))
            if len(flying) >= _AT_ONCE + _READY:
                done, future = flying.popleft()
                yield done, future.result()
        while flying:
            done, future = flying.popleft()
            yield done, future.result()
    finally:
        worker.close()
        threads.shutdown(wait=True, cancel_futures=True)
