"""`cardium app`: loads the champions, starts the processes that read files, and serves the page until it is interrupted.

All of that is done before the address is printed, so that the first file is answered as fast as the next.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Sequence
from urllib.parse import urlencode

import uvicorn

from cardium.app.answers import Answering
from cardium.app.champions import load_all
from cardium.app.web import is_loopback, make_app
from cardium.config import Settings
from cardium.errors import CardiumError, system_reason

TOKEN_VARIABLE = "CARDIUM_APP_TOKEN"
_SHORTEST_TOKEN = 16


def serve(settings: Settings, host: str, port: int, datasets: Sequence[str], models: Sequence[str]) -> None:
    """Loads the champions and serves the page until it is interrupted.

    port: 0 for any that is free. datasets: whose champions are asked for; models: those instead, run folders or MLflow models.
    Raises CardiumError where the address cannot be had and where there is no champion.
    """
    token = _token(host)
    with contextlib.closing(_bound(host, port)) as bound:
        champions, missing = load_all(settings, datasets, models)
        for champion in champions:
            print(f"{champion.dataset}: {champion.name}{' (trained on generated demo data)' if champion.generated else ''}")
        for dataset, reason in missing.items():
            print(f"{dataset}: left out: {reason}")
        answering = Answering(champions, settings)
        try:
            app = make_app(answering, list(missing), token, explains=True)
            # h11 bounds the headers; httptools does not.
            config = uvicorn.Config(
                app,
                http="h11",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=10,
                limit_concurrency=64,
            )
            print(f"Open {_address(host, bound.getsockname()[1], token)} in a browser; Ctrl-C ends it.", flush=True)
            uvicorn.Server(config).run(sockets=[bound])
        except KeyboardInterrupt:  # The way to end it.
            print("The page is closed; nothing was kept.")
        finally:
            answering.close()


def _address(host: str, port: int, token: str) -> str:
    """What a browser is given: of all addresses of this machine its name."""
    named = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{named}:{port}/" + (f"?{urlencode({'token': token})}" if token else "")


def _token(host: str) -> str:
    """The token that is asked for: none on a loopback address, unless one is set. Raises CardiumError for one that is short."""
    given = os.environ.get(TOKEN_VARIABLE, "")
    if given and len(given) < _SHORTEST_TOKEN:
        raise CardiumError(f"{TOKEN_VARIABLE} is too short for a token: give {_SHORTEST_TOKEN} characters or more.")
    return given or ("" if is_loopback(host) else secrets.token_urlsafe(24))


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises CardiumError where the address cannot be had."""
    if not 0 <= port <= 65535:
        raise CardiumError(f"--port: {port} is no port; give a number from 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen()  # At once: whoever comes while the models are loaded waits for them.
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        reason = system_reason(error)
        raise CardiumError(f"{host}:{port} cannot be had ({reason}): give another --port, or another --host.") from None
    return bound
