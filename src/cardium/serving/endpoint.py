"""The application that answers a server's requests: an ASGI one, before MLflow's, which keeps /ping, /health and /version.

MLflow's own way to a prediction parses a body of any size and nesting with pandas, answers what it does not expect with 500 or
a traceback, and puts pieces of the request into its errors. Here a body is bounded while it comes in (Body) and parsed
(request.py), its files are read in processes that can be stopped (RenderPool), and classified. Whatever a client sends, the
answer is JSON: 200 with a row a file, or 4xx with `error_code` and `message` in MLflow's form.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from cardium.imaging.kinds import of_volumes
from cardium.parallel import cores
from cardium.serving.classifier import Classifier
from cardium.serving.incoming import Incoming, Message, Receive, Refused
from cardium.serving.render_pool import FILE, Reader, RenderPool, Request
from cardium.serving.request import (
    CSV,
    JSON,
    PARQUET,
    BadRequest,
    Body,
    Refusal,
    answered,
    column_of,
    failed,
    files_of,
    parquet_column,
)
from cardium.tracking.signature import example_file

Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_PATH = "/invocations"
_MLFLOWS = ("/ping", "/health", "/version")
# Requests that are worked on at once, and the bytes that are held of bodies coming in: so many of the largest.
_AT_ONCE, _BODIES = 64, 3
# Share of MLflow's time for a request after which files are answered with an error.
_SHARE = 0.9
# Processes that read pictures beside one a core: slow files are not all that is worked on.
_SPARE = 2

_BUSY = "The server is busy: try again in some seconds."


class Endpoint:
    """seconds: for one request, from its last byte to its answer.

    Raises CardiumError if the processes that read files do not start.
    """

    def __init__(self, classifier: Classifier, seconds: float) -> None:
        run, limits = classifier.run, classifier.limits
        self._classifier, self._seconds = classifier, _SHARE * seconds
        self._max_bytes = limits.request_bytes(run.rendering)
        readers: dict[str, Reader] = {
            FILE: classifier.reader,
            PARQUET: partial(parquet_column, max_rows=classifier.max_rows, max_bytes=self._max_bytes),
        }
        volumes = of_volumes(run.rendering)
        at_once = min(2, cores()) if volumes else cores()
        processes = at_once + (1 if volumes else _SPARE)
        example = example_file(run.rendering)
        seconds = limits.seconds(run.rendering)
        self._pool = RenderPool(readers, seconds, classifier.memory_of_a_file, example, processes, at_once)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="request")
        self._held = self._working = 0

    def close(self) -> None:
        """Ends the processes that read files."""
        self._pool.close()

    def before(self, app: App) -> App:
        """The application that answers in front of `app`."""

        async def answer(scope: Message, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or (scope["path"] in _MLFLOWS and scope["method"] in ("GET", "HEAD")):
                await app(scope, receive, send)
            else:
                await self._respond(scope, receive, send)

        return answer

    async def _respond(self, scope: Message, receive: Receive, send: Send) -> None:
        incoming = Incoming(scope, receive)
        try:
            content = await self._answer(scope, incoming)
        except ConnectionError:  # The client is gone.
            return
        except Exception as error:
            refused = _refused(error)
            if not refused.close:
                await incoming.drop()
            await _send_error(send, refused)
        else:
            await _send(send, 200, content)

    async def _answer(self, scope: Message, incoming: Incoming) -> bytes:
        """The answer's JSON. Raises Refused, BadRequest, and ConnectionError where nobody waits for it."""
        if scope["path"] != _PATH:
            raise Refused(404, f"There is nothing here: send files to {_PATH}.")
        if scope["method"] != "POST":
            raise Refused(405, "Send files with POST.")
        kind = _kind_of(incoming.headers)
        length = incoming.headers.get(b"content-length", "")
        if length.isdecimal() and int(length[:20]) > self._max_bytes:
            raise Refused(413, f"The request is too large: send at most {self._max_bytes // 1_000_000} MB at once.")
        body, held = Body(kind, self._max_bytes, self._classifier.max_rows), 0
        try:
            while incoming.more:
                piece = await incoming.piece()
                body.add(piece)
                held += len(piece)
                self._held += len(piece)
                if self._held > _BODIES * self._max_bytes:
                    raise Refused(429, _BUSY)
            if self._working >= _AT_ONCE:
                raise Refused(429, _BUSY)
            self._working += 1
            try:
                return await self._worked_on(body, kind, incoming)
            finally:
                self._working -= 1
        finally:
            self._held -= held

    async def _worked_on(self, body: Body, kind: str, incoming: Incoming) -> bytes:
        """What `_work` returns. Work whose client has gone is stopped."""
        request = Request(time.monotonic() + self._seconds)
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._work, body, kind, request)
        gone = asyncio.ensure_future(incoming.disconnected())
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        request.cancelled = not work.done()
        return await work

    def _work(self, body: Body, kind: str, request: Request) -> bytes:
        """Runs in a thread. Raises BadRequest."""
        values = self._values(body.whole(), kind, request)
        files = files_of(values, self._classifier.max_rows, self._classifier.max_bytes)
        values.clear()  # The texts are a third larger than the files.
        rows = self._classifier.classify(files, partial(self._pool.render, request))
        return json.dumps({"predictions": answered(rows)}).encode()

    def _values(self, whole: bytes | bytearray, kind: str, request: Request) -> list[Any]:
        if kind != PARQUET:
            return column_of(whole, kind, self._classifier.max_rows)
        values = self._pool.call(request, PARQUET, bytes(whole))
        if isinstance(values, Refusal):
            raise BadRequest(values.reason)
        return list(values)


def _kind_of(headers: dict[bytes, str]) -> str:
    """The body's type, from lower-case headers. Raises Refused for one that is not read."""
    kind, _, parameters = headers.get(b"content-type", "").partition(";")
    charset = parameters.strip().removeprefix("charset=").strip('"')
    if kind.strip() not in (JSON, CSV, PARQUET) or charset not in ("", "utf-8", "utf8"):
        raise Refused(
            415, f"The Content-Type is {'not read' if kind else 'missing'}: send {JSON} in UTF-8, {CSV} or {PARQUET}."
        )
    if headers.get(b"content-encoding", "identity") != "identity":
        raise Refused(415, "Bodies with a Content-Encoding are not read: send it as it is.")
    return kind.strip()


def _refused(error: Exception) -> Refused:
    """How a request is answered that raised this."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, BadRequest):
        return Refused(400, str(error))
    traceback.print_exception(error, file=sys.stderr)
    return Refused(500, failed(error))


async def _send_error(send: Send, error: Refused) -> None:
    code = "INTERNAL_ERROR" if error.status >= 500 else "BAD_REQUEST"
    content = json.dumps({"error_code": code, "message": str(error)}).encode()
    await _send(send, error.status, content, [(b"connection", b"close")] if error.close else [])


async def _send(send: Send, status: int, content: bytes, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
