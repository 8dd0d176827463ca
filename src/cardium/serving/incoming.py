"""A request's body as it comes in: in pieces, within a time, and dropped where it is refused. ASGI, of any server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

# Seconds that a body may pause for, and how long it may take: these and one for every so many bytes.
_PAUSE, _BYTES_A_SECOND = 10.0, 100_000
# Bytes of a refused body that are read and dropped, and the seconds that it may pause for.
_DROPPED, _PAUSE_OF_DROPPED = 1_000_000_000, 1.0


class Refused(Exception):  # noqa: N818
    """A request that is answered with an error of this status. close: whether the connection ends with it."""

    def __init__(self, status: int, message: str, close: bool = False) -> None:
        super().__init__(message)
        self.status, self.close = status, close


class Incoming:
    """A request as it comes in. headers: names and values in lower case. more: whether there is more of its body to come."""

    def __init__(self, scope: Message, receive: Receive) -> None:
        self.headers = {name.lower(): value.decode("latin-1").strip().lower() for name, value in scope["headers"]}
        self.more = True
        self._receive, self._begun, self._counted = receive, time.monotonic(), 0

    async def piece(self, pause: float = _PAUSE) -> bytes:
        """The next piece of the body. Raises Refused where it comes too slowly, ConnectionError where the client is gone."""
        left = self._begun + _PAUSE + self._counted / _BYTES_A_SECOND - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, min(pause, left)))
        except TimeoutError:
            raise Refused(408, "The request came too slowly.", close=True) from None
        if message["type"] == "http.disconnect":
            raise ConnectionError
        piece: bytes = message.get("body", b"")
        self.more = message.get("more_body", False)
        self._counted += len(piece)
        return piece

    async def drop(self) -> None:
        """Reads the rest of the body: many a client reads its answer only when it has sent all."""
        if b"expect" in self.headers:  # This one asked before it sends.
            return
        with contextlib.suppress(Refused, ConnectionError):
            while self.more and self._counted < _DROPPED:
                await self.piece(_PAUSE_OF_DROPPED)

    async def disconnected(self) -> None:
        """Returns when the client is gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
