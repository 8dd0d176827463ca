"""Files of many requests -> renderings, in processes that are stopped when a file or its request takes too long.

A thread cannot be stopped while a codec works, and a damaged file can end the process that reads it. So each file is read in a
process beside the server: the kernel ends it after its seconds of CPU time, a bound on its memory makes it give up before the
machine does, and its request gets a Refusal. The request with the fewest files read is next: a batch of a hundred holds up no
single file.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cardium.errors import CardiumError
from cardium.imaging.decode import Undecodable
from cardium.parallel import exit_with_parent
from cardium.serving.request import BadRequest, Refusal

# Reads a file's bytes: picklable, raises Undecodable or BadRequest.
Reader = Callable[[bytes], Any]

# The reader of the files of a batch.
FILE = "file"

_STOPPED = Refusal("reading was stopped")

# Seconds: for a process to start; that a file's reading may outlive its request; between two looks at whether it does.
_START, _GRACE, _LOOK = 120.0, 1.0, 0.25


class Request:
    """The files of one request on their way through the pool. until: when it is over, by `time.monotonic`.

    begun: files whose reading has begun. running: those of them that are being read.
    """

    def __init__(self, until: float) -> None:
        self.until = until
        self.cancelled = False
        self.begun = self.running = 0
        self.jobs: deque[_Job] = deque()

    @property
    def over(self) -> bool:
        return self.cancelled or time.monotonic() > self.until


class _Job:
    """One file. task: the reader's name."""

    def __init__(self, request: Request, task: str, data: bytes) -> None:
        self.request, self.task, self.data = request, task, data
        self.answer: Future[Any] = Future()


class RenderPool:
    """readers: name -> what reads a file. seconds: of CPU time that one file may take. memory: bytes that it may take.

    example: a small file for the reader FILE, which is read once by every process before it counts as started. at_once: files
    of one request that are read at once, fewer than there are processes: a batch of slow files leaves room for others.
    Raises CardiumError if its processes do not start.
    """

    def __init__(
        self, readers: dict[str, Reader], seconds: float, memory: int, example: bytes, processes: int, at_once: int
    ) -> None:
        self._setup = (readers, seconds, memory, example, os.getpid())
        self._waiting: list[Request] = []
        self._changed = threading.Condition()
        self._at_once = at_once
        self._closed = False
        self._workers = [_Worker(self._setup) for _ in range(processes)]
        for worker in self._workers:
            worker.wait_until_started()
            threading.Thread(target=self._run, args=(worker,), daemon=True).start()

    def render(self, request: Request, files: Sequence[bytes | Refusal]) -> Iterator[Any]:
        """A Rendered or a Refusal for each file, in order, each as soon as it is there."""
        answers = self._submit(request, FILE, files)
        for number, answer in enumerate(answers):
            answers[number] = None
            yield answer if isinstance(answer, Refusal) else self._wait(request, answer)

    def call(self, request: Request, task: str, data: bytes) -> Any:
        """What the reader `task` says of `data`, or a Refusal."""
        return self.begin(request, task, data)()

    def begin(self, request: Request, task: str, data: bytes) -> Callable[[], Any]:
        """Hands `data` to the reader `task`, and returns what waits for its answer or a Refusal."""
        [answer] = self._submit(request, task, [data])
        return lambda: answer if isinstance(answer, Refusal) else self._wait(request, answer)

    def close(self) -> None:
        """Ends the processes. What waits is refused, so that nobody waits for it without end."""
        with self._changed:
            self._closed = True
            for request in self._waiting:
                while request.jobs:
                    request.jobs.popleft().answer.set_result(_STOPPED)
            self._changed.notify_all()
        for worker in self._workers:
            worker.stop()

    def _submit(self, request: Request, task: str, files: Sequence[bytes | Refusal]) -> list[Any]:
        with self._changed:
            jobs = [_STOPPED if self._closed or request.cancelled else self._job(request, task, one) for one in files]
            request.jobs.extend(job for job in jobs if isinstance(job, _Job))
            if request.jobs:
                self._waiting.append(request)
            self._changed.notify_all()
        return [job.answer if isinstance(job, _Job) else job for job in jobs]

    @staticmethod
    def _job(request: Request, task: str, one: bytes | Refusal) -> _Job | Refusal:
        return one if isinstance(one, Refusal) else _Job(request, task, one)

    def _wait(self, request: Request, answer: Future[Any]) -> Any:
        try:
            return answer.result(timeout=max(0.0, request.until - time.monotonic()))
        except TimeoutError:
            return Refusal("there was no time left for this file: send fewer at once")

    def _next(self) -> _Job | None:
        with self._changed:
            while not self._closed:
                for request in self._waiting:
                    while request.cancelled and request.jobs:  # Or who works on it would wait until its time is over.
                        request.jobs.popleft().answer.set_result(_STOPPED)
                self._waiting = [request for request in self._waiting if request.jobs and not request.over]
                ready = [request for request in self._waiting if request.running < self._at_once]
                if ready:
                    # Whoever has had the fewest files read is next: a single file goes before a batch that is on its way.
                    request = min(ready, key=lambda one: one.begun)
                    request.begun += 1
                    request.running += 1
                    return request.jobs.popleft()
                self._changed.wait()
        return None

    def _run(self, worker: _Worker) -> None:
        while (job := self._next()) is not None:
            try:
                answer = worker.work_on(job)
            except Exception:  # No process can be started: said here, answered, and tried again at the next file.
                traceback.print_exc()
                answer = Refusal("the server has no room to read it")
            if self._closed:  # A process may have been started anew meanwhile.
                worker.stop()
            job.data = b""
            job.answer.set_result(answer)
            with self._changed:
                job.request.running -= 1
                self._changed.notify_all()


class _Worker:
    """One process of the pool, started anew when it was ended."""

    _starting = threading.Lock()

    def __init__(self, setup: tuple[Any, ...]) -> None:
        self._setup = setup
        self._start()

    def _start(self) -> None:
        # Spawned, not forked: a fork beside running threads (TensorFlow's) may never wake.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, *self._setup), daemon=True)
        with self._starting:
            self._process.start()
        theirs.close()
        self._started = False

    def wait_until_started(self) -> None:
        """Raises CardiumError if the process does not come up."""
        if self._started:
            return
        try:
            if not self._pipe.poll(_START):
                raise EOFError
            self._pipe.recv()
        except (EOFError, OSError):
            self.stop()
            raise CardiumError("A process that reads files did not start: look for its error above.") from None
        self._started = True

    def work_on(self, job: _Job) -> Any:
        if not self._process.is_alive():
            self._start()
        self.wait_until_started()
        begun = time.monotonic()
        try:
            self._pipe.send(job.task)
            self._pipe.send_bytes(job.data)
            while not self._pipe.poll(_LOOK):
                if job.request.over and time.monotonic() - begun > _GRACE:
                    self._process.kill()
                    break
            return self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            slow = self._process.exitcode == -signal.SIGPROF
            self._start()  # At once: a process is a second in coming.
            return Refusal("it takes too long to read" if slow else "it cannot be read")

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _work(pipe: Connection, readers: dict[str, Reader], seconds: float, memory: int, example: bytes, parent: int) -> None:
    """What a process of the pool does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_with_parent(parent)
    _answer(readers[FILE], example)
    _bound_memory(memory)
    pipe.send(True)
    while True:
        try:
            read, data = readers[pipe.recv()], pipe.recv_bytes()
        except EOFError:
            return
        # Of CPU time: a busy machine refuses nothing. SIGPROF ends the process, whatever library it is in.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = _answer(read, data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(answer)


def _answer(read: Reader, data: bytes) -> Any:
    try:
        return read(data)
    except (Undecodable, BadRequest) as error:
        return Refusal(str(error))
    except MemoryError:
        return Refusal("it needs too much memory")
    except Exception:  # A fault of ours, or of a library: told to whoever runs the server, and not to the client.
        traceback.print_exc(file=sys.stderr)
        return Refusal("it cannot be read")


def _bound_memory(memory: int) -> None:
    """Bounds this process' address space to what it has and `memory` more, where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
