"""The engine of a Ray cluster: an actor a core, each with the model, that read the files from where they lie.

All machines of the cluster mount the files under the same path. The model and cardium's code are sent along (package.py); the
actors' Python needs the libraries of requirements.lock. A lost actor is started anew by Ray, with what it was at.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cardium.batch.package import Model
from cardium.batch.source import Item
from cardium.errors import CardiumError, first_line
from cardium.parallel import cores

# Chunks that an actor has before it: the one that it is at, and the next.
_EACH = 2
# Tries at a chunk whose actor was lost.
_TRIES = 3


def answers(
    model: Model, place: str, chunks: Sequence[Sequence[Item]], master: str
) -> Iterator[tuple[Sequence[Item], list[dict[str, Any]]]]:
    """Yields (chunk, its rows) as they come. master: the cluster's address, "" for one of its own on this machine's cores.

    Raises CardiumError where Ray does not start, or a chunk's actor is lost again and again.
    """
    import ray

    own = {"include_dashboard": False, "num_cpus": cores()} if not master else {"address": master}
    try:
        ray.init(**own, log_to_driver=False, logging_level="ERROR")
        with tempfile.TemporaryDirectory(prefix="cardium-score-") as folder:
            packed = Path(folder) / "model.zip"
            model.pack(packed)
            sent = ray.put(packed.read_bytes())
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=_TRIES)(_reader())
        count = min(len(chunks), int(ray.cluster_resources().get("CPU", 1)))
        free = deque(one for one in [actor.remote(sent) for _ in range(count)] for _ in range(_EACH))
        flying: dict[Any, tuple[Any, Sequence[Item]]] = {}
        waiting = deque(chunks)
        while waiting or flying:
            while waiting and free:
                one, chunk = free.popleft(), waiting.popleft()
                flying[one.answers.remote(place, [tuple(item) for item in chunk])] = (one, chunk)
            [done], _ = ray.wait(list(flying), num_returns=1)
            one, chunk = flying.pop(done)
            free.append(one)
            yield chunk, ray.get(done)
    except (ray.exceptions.RayError, ConnectionError, ValueError, OSError) as error:
        raise CardiumError(
            f"Ray gave up ({first_line(error)}): see to that, then run the same command again, which goes on."
        ) from None
    finally:
        ray.shutdown()


def _reader() -> Any:
    """The actors' class. Within a function: it is sent as it is, where one of a module would have to be there."""

    class Reader:
        def __init__(self, packed: bytes) -> None:
            import io
            import sys
            import tempfile
            import zipfile

            self.folder = tempfile.TemporaryDirectory(prefix="cardium-score-")
            zipfile.ZipFile(io.BytesIO(packed)).extractall(self.folder.name)
            sys.path.insert(0, f"{self.folder.name}/code")
            from cardium.batch.package import worker_of

            self.worker = worker_of(self.folder.name)

        def answers(self, place: str, items: Any) -> Any:
            from pathlib import Path

            from cardium.batch.source import Item

            return self.worker.answers(Path(place), [Item(*item) for item in items])

    return Reader
