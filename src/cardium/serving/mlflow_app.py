"""Puts serving's own application before the one that `mlflow models serve` makes, and ends connections that send nothing.

MLflow has no place for that: its server imports mlflow.pyfunc.scoring_server.app, which loads the model and then makes a
FastAPI application of it. Loading runs the model's code, so this is where the application to come can be wrapped. Where MLflow
makes none any more, or makes it otherwise, `expected` is False and its own way to a prediction remains (served_model.py).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

_SERVERS_MODULE = "mlflow.pyfunc.scoring_server.app"
# uvicorn's ways to read HTTP.
_PROTOCOLS = (("httptools_impl", "HttpToolsProtocol"), ("h11_impl", "H11Protocol"))


def in_server() -> bool:
    """Whether this process is MLflow's scoring server."""
    return _SERVERS_MODULE in sys.modules


def expected() -> bool:
    """Whether MLflow's server is about to make its application, and waits for the model."""
    module = sys.modules.get(_SERVERS_MODULE)
    return module is not None and not hasattr(module, "app")


def wrap_next(around: Callable[[Any], Any]) -> None:
    """The next FastAPI application that is made answers through `around` it: ASGI application -> ASGI application."""
    fastapi: Any = importlib.import_module("fastapi")  # MLflow's own: whatever release its server brings along.
    made = fastapi.FastAPI

    def make(*args: Any, **options: Any) -> Any:
        fastapi.FastAPI = made
        app = made(*args, **options)
        build = app.build_middleware_stack  # What answers, made at the first request, MLflow's own middleware in it.
        app.build_middleware_stack = lambda: around(build())
        return app

    fastapi.FastAPI = make


def end_idle_connections(seconds: float) -> None:
    """uvicorn's connections on which no request is open for so many seconds are closed: it waits for headers without end."""
    for module, name in _PROTOCOLS:
        try:
            protocol = getattr(importlib.import_module(f"uvicorn.protocols.http.{module}"), name)
        except (ImportError, AttributeError):
            continue
        _watch(protocol, seconds)


def _watch(protocol: Any, seconds: float) -> None:
    made = protocol.connection_made

    def connection_made(self: Any, transport: Any) -> None:
        made(self, transport)
        self.loop.call_later(seconds, look, self, None)

    def look(self: Any, before: Any) -> None:
        if self.transport.is_closing():
            return
        cycle = getattr(self, "cycle", None)
        idle = cycle is None or cycle.response_complete
        if idle and (cycle is None or cycle is before):
            self.transport.close()
        else:
            self.loop.call_later(seconds, look, self, cycle if idle else None)

    protocol.connection_made = connection_made
