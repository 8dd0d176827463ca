"""The web application: its addresses, what an upload may cost, and who is let in.

Nothing that was sent is written anywhere: uploads are held in memory until their page has been made. Without a token nobody but
this machine is answered: a request has to name it by a loopback name, so that no page from elsewhere can reach it (DNS
rebinding). With a token a request has to bring it, in a cookie that the page sets.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from cardium.app import page
from cardium.app.answers import MOST_ANSWERS, Answer, Answering, TooMany, Upload, Work
from cardium.app.catalogue import Language, language_of
from cardium.errors import harmless
from cardium.serving.incoming import Incoming, Message, Receive, Refused

_COOKIE = "cardium-token"
# Uploads that are worked on at once; bytes that are held of uploads coming in, in the largest one's.
_AT_ONCE, _BODIES = 4, 2
_BYTES_OF_A_TOKEN = 4096
_FIELDS = 8

_SECURITY = {
    # No script and no style but this server's own files, no address but this server.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
# Why a request is refused, by its status: a word of the catalogue.
_REASONS = {400: "no_form", 403: "elsewhere", 404: "not_here", 405: "not_here", 408: "too_slow", 413: "too_large", 429: "busy"}


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, which nobody else reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def make_app(answering: Answering, missing: Sequence[str] = (), token: str = "", explains: bool = False) -> FastAPI:
    """The application. missing: datasets without a champion. token: what is asked for, "" for nothing, on a loopback address.

    explains: whether an answer can be asked which regions influenced it.
    """
    app = FastAPI(title="cardium", docs_url=None, redoc_url=None, openapi_url=None)
    champions = list(answering.champions.values())
    limits = {"most": MOST_ANSWERS, "megabytes": answering.max_bytes // 1_000_000}
    desk = _Desk(answering)

    def refused(words: Language, status: int, reason: str = "") -> Response:
        text = reason or words.word(_REASONS[status], answers=MOST_ANSWERS, megabytes=limits["megabytes"])
        return HTMLResponse(page.error(words, text), status)

    @app.get("/", response_class=HTMLResponse)
    async def _form(request: Request) -> Response:
        return HTMLResponse(page.form(_language(request), champions, missing, limits, explains))

    @app.get("/answer")
    async def _back(request: Request) -> Response:
        return RedirectResponse(f"/?lang={_language(request).code}", 303)

    @app.post("/answer", response_class=HTMLResponse)
    async def _answers(request: Request) -> Response:
        words = _language(request)
        incoming = Incoming(request.scope, request.receive)
        try:
            found, seconds = await desk.answers(request, incoming)
            return HTMLResponse(page.answers(words, found, seconds))
        except ConnectionError:  # The client is gone.
            return Response(status_code=400)
        except TooMany:
            return refused(words, 400, words.word("too_many", answers=MOST_ANSWERS))
        except _NoFiles:
            return refused(words, 400, words.word("no_files"))
        except Refused as error:
            if not error.close:
                await incoming.drop()
            return refused(words, error.status)

    @app.get("/style.css")
    async def _style() -> Response:
        return Response(page.style(), media_type="text/css")

    @app.get("/page.js")
    async def _script() -> Response:
        return Response(page.script(), media_type="text/javascript")

    @app.get("/health")
    async def _health() -> Response:
        return PlainTextResponse("ok")

    @app.post("/enter", response_class=HTMLResponse)
    async def _enter(request: Request) -> Response:
        words = _language(request)
        try:
            given = await _form_of(Incoming(request.scope, request.receive), request, _BYTES_OF_A_TOKEN)
        except (Refused, ConnectionError):
            return refused(words, 400)
        if not _same(str(given.get("token", "")), token):
            return HTMLResponse(page.enter(words, wrong=True), 401)
        return _with_token(RedirectResponse(f"/?lang={words.code}", 303), token)

    @app.exception_handler(HTTPException)
    async def _wrong(request: Request, error: HTTPException) -> Response:
        status = error.status_code if error.status_code in _REASONS else 400
        return refused(_language(request), status)

    @app.exception_handler(Exception)
    async def _failed(request: Request, _: Exception) -> Response:
        words = _language(request)
        return HTMLResponse(page.error(words, words.word("failed")), 500, dict(_SECURITY))

    app.add_middleware(_Gate, token=token)
    return app


class _NoFiles(Exception):  # noqa: N818
    """A form without a file."""


class _Desk:
    """Takes in uploads, so many and so large at once, and has them answered in threads."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="answer")
        self._working = self._held = 0

    async def answers(self, request: Request, incoming: Incoming) -> tuple[list[Answer], float]:
        """The answers to a form, and the seconds that they took once all of it was there.

        Raises Refused, ConnectionError where the client is gone, TooMany, _NoFiles.
        """
        if self._working >= _AT_ONCE or self._held > _BODIES * self._answering.max_bytes:
            raise Refused(429, "busy")
        length = request.headers.get("content-length", "")
        most = self._answering.max_bytes
        if length.isdecimal() and int(length[:20]) > most:
            raise Refused(413, "too large")
        size = int(length[:20]) if length.isdecimal() else most
        self._working += 1
        self._held += size
        try:
            given = await _form_of(incoming, request, most, self._answering.max_files)
            begun = time.monotonic()
            files = [one for one in given.getlist("files") if isinstance(one, UploadFile)]
            uploads = [Upload(_name(one.filename), one.file.read()) for one in files]
            uploads = [one for one in uploads if one.name or one.data]  # A form without a file has an empty one.
            dataset, look = str(given.get("dataset", "")), given.get("look") == "yes"
            await given.close()
            if not uploads:
                raise _NoFiles
            if dataset and dataset not in self._answering.champions:
                raise Refused(400, "no such dataset")
            return await self._worked_on(uploads, dataset, look, incoming), time.monotonic() - begun
        finally:
            self._working -= 1
            self._held -= size

    async def _worked_on(self, uploads: list[Upload], dataset: str, look: bool, incoming: Incoming) -> list[Answer]:
        """The answers. Work whose client has gone is stopped."""
        work = Work()
        ask = partial(self._answering.answer, uploads, dataset, look, work)
        answers = asyncio.get_running_loop().run_in_executor(self._threads, ask)
        gone = asyncio.ensure_future(incoming.disconnected())
        await asyncio.wait((answers, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not answers.done():
            work.cancel()
        return await answers


class _InMemory(MultiPartParser):
    spool_max_size = 0  # Of any size: never to a disk.


async def _form_of(incoming: Incoming, request: Request, max_bytes: int, max_files: int = 0) -> FormData:
    """The form that a request holds; its files stay in memory. Raises Refused, and ConnectionError where the client is gone."""

    async def pieces() -> AsyncIterator[bytes]:
        held = 0
        while incoming.more:
            piece = await incoming.piece()
            held += len(piece)
            if held > max_bytes:
                raise Refused(413, "too large")
            yield piece
        yield b""

    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    parser: Any
    if kind == "multipart/form-data":
        parser = _InMemory(request.headers, pieces(), max_files=max_files, max_fields=_FIELDS, max_part_size=_BYTES_OF_A_TOKEN)  # type: ignore[arg-type]
    elif kind == "application/x-www-form-urlencoded":
        parser = FormParser(request.headers, pieces(), max_fields=_FIELDS, max_part_size=_BYTES_OF_A_TOKEN)  # type: ignore[arg-type]
    else:
        raise Refused(400, "no form")
    try:
        form: FormData = await parser.parse()
    except MultiPartException as error:
        raise Refused(400, error.message) from None
    return form


class _Gate:
    """In front of the application: who is let in, and what every answer tells the browser."""

    def __init__(self, app: Any, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Message, receive: Receive, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in _SECURITY.items() if name.encode() not in own]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        answer = self._turned_away(scope, receive)
        await (answer or self._app)(scope, receive, secured)

    def _turned_away(self, scope: Message, receive: Receive) -> Any:
        """What a request is answered that is not let in; None for one that is."""
        request = Request(scope, receive)
        words = _language(request)
        host = request.headers.get("host", "")
        if not self._token and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return HTMLResponse(page.error(words, words.word("elsewhere")), 403)
        if request.method not in ("GET", "HEAD") and not _of_this_page(request, host):
            return HTMLResponse(page.error(words, words.word("elsewhere")), 403)
        if not self._token or request.url.path in ("/style.css", "/page.js", "/health", "/enter"):
            return None
        if _same(request.cookies.get(_COOKIE, ""), self._token):
            return None
        given = request.query_params.get("token", "")
        if request.method == "GET" and _same(given, self._token):
            return _with_token(RedirectResponse("/?" + urlencode({"lang": words.code}), 303), self._token)
        return HTMLResponse(page.enter(words, wrong=bool(given)), 401)


def _of_this_page(request: Request, host: str) -> bool:
    """Whether a form was sent from a page of this server, by what the browser says of it; others than browsers say nothing."""
    site, origin = request.headers.get("sec-fetch-site", ""), request.headers.get("origin", "")
    return site in ("", "same-origin", "none") and (not origin or origin == "null" or urlsplit(origin).netloc == host)


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _with_token(response: Response, token: str) -> Response:
    response.set_cookie(_COOKIE, token, httponly=True, samesite="lax")
    return response


def _language(request: Request) -> Language:
    return Language(language_of(request.query_params.get("lang", ""), request.headers.get("accept-language", "")))


def _name(given: str | None) -> str:
    """A file's name without the folders that some browsers send, and without what acts on a terminal."""
    return harmless((given or "").replace("\\", "/").rpartition("/")[2])[:200]
