"""The tracking store: where it lies, how it is reached within seconds, how this project's processes take turns at it.

with connected(settings) as client:
    client.search_experiments()
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cardium.atomic import cannot_write
from cardium.config import Settings
from cardium.errors import CardiumError, first_line, masked, printable
from cardium.process_environment import variables_restored, variables_set
from cardium.tracking.local_store import database_of, is_sqlite_error, make_ready, other_version, sqlite_uri, unusable
from cardium.tracking.mlflow_run import create_once
from cardium.tracking.moved import ARTIFACTS, bring_along
from cardium.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

# One process at a time writes to the store from this project; logging the largest model takes seconds.
_LOCK_SECONDS = 600
# MLflow's own defaults (7 retries of 120 s) would hold a pipeline for a quarter of an hour when the server hangs.
_MLFLOW = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_PROBE_SECONDS = 3.0
# The port of a database's server where its URI names none.
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
# The package that brings a database's driver, by the module that MLflow misses.
_DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}


class StoreAway(CardiumError):  # noqa: N818
    """The tracking store cannot be reached, or not written to."""

    def __init__(self, uri: str, why: str) -> None:
        why = masked(why, uri)
        super().__init__(f"MLflow at {printable(uri)} does not answer ({why}): nothing lost, run `cardium sync` later.")


def tracking_uri(settings: Settings) -> str:
    """MLFLOW_TRACKING_URI, else tracking.uri of params.yaml, else mlflow.db in the project's root. Never relative to cwd."""
    return _absolute(os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking.uri or "sqlite:///mlflow.db", settings.root)


def registry_uri(settings: Settings) -> str:
    """MLFLOW_REGISTRY_URI, else the tracking store. Never relative to cwd."""
    given = os.environ.get("MLFLOW_REGISTRY_URI")
    return _absolute(given, settings.root) if given else tracking_uri(settings)


def _absolute(uri: str, root: Path) -> str:
    database = database_of(uri)
    if database is None or database.is_absolute():
        return uri
    _, question, query = uri.partition("?")
    return sqlite_uri(root / database) + question + query


def experiment_name(settings: Settings, dataset: str) -> str:
    """One experiment a dataset, so that its runs are one page: `cardium-cmri`. The registered model has the same name."""
    return f"{settings.tracking.experiment}-{dataset}"


def experiment_id(client: MlflowClient, settings: Settings, dataset: str, *, pages: bool = False) -> str:
    """The dataset's experiment, made if missing. A local store keeps its artifacts in the project's mlruns/.

    pages: the one beside it that holds audits and reports, which no comparison of runs should meet.
    """
    name = experiment_name(settings, dataset) + ("-pages" if pages else "")
    known = client.get_experiment_by_name(name)
    if known is not None:
        if known.lifecycle_stage != "active":
            client.restore_experiment(known.experiment_id)
        return str(known.experiment_id)
    place = None
    if tracking_uri(settings).startswith("sqlite:"):
        place = (settings.root / ARTIFACTS / name).as_uri()
    # The UI's word for what this is not: its pages for language models.
    tags = {"mlflow.experimentKind": "custom_model_development"}

    def found() -> str | None:
        made = client.get_experiment_by_name(name)
        return str(made.experiment_id) if made else None

    return str(create_once(lambda: client.create_experiment(name, artifact_location=place, tags=tags), found))


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[MlflowClient]:
    """A client of the tracking store and registry, with the store locked against this project's other processes.

    Makes a local store at first use: under the lock, and beside its place. MLflow's process-wide settings are put back at the
    end. Raises StoreAway within seconds if the store cannot be reached, CardiumError for what a store cannot do: one that is
    read-only, damaged, of another version, without its driver. Within the block every error of MLflow's becomes one of these.
    """
    uri, registry = tracking_uri(settings), registry_uri(settings)
    for address in dict.fromkeys([uri, registry]):
        probe(address)
    quick = {key: value for key, value in _MLFLOW.items() if key not in os.environ}
    with variables_set(quick), store_lock(settings), _quiet(), _process_wide_uris(uri, registry):
        try:
            client = _opened(settings, uri, registry)
        except CardiumError:
            raise
        except Exception as error:  # sqlalchemy's, urllib3's: MLflow lets its backends' errors through
            raise in_words(error, uri) or StoreAway(uri, f"{type(error).__name__}: {first_line(error)}") from None
        try:
            yield client
        except CardiumError:
            raise
        except Exception as error:
            told = in_words(error, uri)
            if told is None and isinstance(error, OSError):
                told = cannot_write(error, settings.root / ARTIFACTS, "run `cardium sync`")
            if told is None:
                raise
            raise told from None


def _opened(settings: Settings, uri: str, registry: str) -> MlflowClient:
    """A client whose stores have answered once; local ones are made first where they are missing."""
    for address in dict.fromkeys([uri, registry]):
        database = database_of(address)
        if database is not None:
            make_ready(address, database, settings.root / ARTIFACTS)
            bring_along(database, settings.root)
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client = mlflow.MlflowClient(uri, registry_uri=registry)
        client.search_experiments(max_results=1)
        if registry != uri:
            client.search_registered_models(max_results=1)
    except MlflowException as error:
        raise in_words(error, uri) or StoreAway(uri, first_line(error)) from None
    return client


def in_words(error: BaseException, uri: str) -> CardiumError | None:
    """The one line for an error of the store at `uri`, of MLflow's or of its files; None for an error of another kind."""
    from mlflow.exceptions import MlflowException

    words, database = str(error), database_of(uri)
    if isinstance(error, ImportError):
        module = str(getattr(error, "name", "") or first_line(error))
        package = _DRIVERS.get(module, module)
        return CardiumError(
            f"The MLflow store {printable(uri)} needs a driver that is not installed: `uv pip install '{package}'` into this "
            "environment, then run `cardium sync`."
        )
    if database is not None and is_sqlite_error(error):
        return unusable(database, error)
    if "out-of-date database schema" in words or "Can't locate revision" in words:
        return other_version(uri)
    if isinstance(error, MlflowException):
        if "API request to" in words:
            return StoreAway(uri, "it stopped answering")
        return CardiumError(
            f"MLflow at {printable(uri)} refused this ({masked(first_line(error), uri)}): nothing lost; see to that, then run "
            "`cardium sync`."
        )
    return None


@contextlib.contextmanager
def store_lock(settings: Settings, name: str = "store", seconds: float = _LOCK_SECONDS) -> Iterator[None]:
    """Holds the lock `name` of the store. The system frees it when the process dies, however it dies.

    The lock of a local store lies beside the database, so two clones that share the database share the lock. Raises StoreAway
    if the store's folder is missing, CardiumError if another process holds the lock for more than `seconds`.
    """
    import filelock

    uri = tracking_uri(settings)
    database = database_of(uri)
    if database is not None:
        if not database.parent.is_dir():
            raise StoreAway(uri, "its folder does not exist")
        path = database.with_name(f"{database.name}.{name}.lock")
    else:
        path = Workspace(settings.root).scratch() / f"mlflow.{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise CardiumError(
            f"Another process holds {path.name} for more than {seconds:g} s: wait until it has ended, then run this again."
        ) from None
    except OSError as error:
        raise StoreAway(uri, first_line(error)) from None
    try:
        yield
    finally:
        lock.release()


def store_exists(settings: Settings) -> bool:
    """False for a local store that nothing has been logged to: looking into it would create it."""
    database = database_of(tracking_uri(settings))
    return database is None or database.is_file()


def probe(uri: str) -> None:
    """Raises StoreAway if a server does not answer within seconds; MLflow itself would try for minutes."""
    scheme = uri.partition("://")[0].partition("+")[0]
    if scheme in _PORTS:
        _probe_port(uri, _PORTS[scheme])
    if scheme not in ("http", "https"):
        return
    import requests

    try:
        requests.get(uri.rstrip("/") + "/health", timeout=_PROBE_SECONDS)
    except requests.RequestException as error:
        raise StoreAway(
            uri, {"ConnectTimeout": "no connection", "ReadTimeout": "no reply"}.get(type(error).__name__, "connection refused")
        ) from None
    except ValueError as error:
        raise StoreAway(uri, first_line(error)) from None


def _probe_port(uri: str, port: int) -> None:
    import socket

    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or port
    except ValueError:  # what SQLAlchemy may still read
        return
    if not host:  # a socket of this machine
        return
    try:
        socket.create_connection((host, port), timeout=_PROBE_SECONDS).close()
    except OSError as error:
        raise StoreAway(uri, error.strerror or first_line(error)) from None


@contextlib.contextmanager
def errors_as_warnings() -> Iterator[None]:
    """Turns any error into one line on stderr: what is logged is a view, and the files are whole without it."""
    try:
        yield
    except CardiumError as error:
        print(f"warning: {error}", file=sys.stderr)
    except Exception as error:
        reason = masked(f"{type(error).__name__}: {first_line(error)}")
        print(f"warning: MLflow could not log this ({reason}): nothing lost, run `cardium sync` later.", file=sys.stderr)


@contextlib.contextmanager
def _process_wide_uris(uri: str, registry: str) -> Iterator[None]:
    """Sets the process' store and registry, which Model.log and the artifact repositories ask for; puts them and their
    variables back."""
    import mlflow
    from mlflow.tracking._model_registry import utils as of_registry
    from mlflow.tracking._tracking_service import utils as of_tracking

    before, registry_before = of_tracking._tracking_uri, of_registry._registry_uri
    with variables_restored("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(registry)
        # MLflow remembers where a run's files lie by the run alone; a project's copy has the same runs.
        getattr(of_tracking, "_artifact_repos_cache", {}).clear()
        try:
            yield
        finally:
            mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
            mlflow.set_registry_uri(registry_before)  # type: ignore[arg-type]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences MLflow, which tells of tables it creates and of type hints it misses; ours say what a user can act on."""
    import warnings

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "mlflow.store.db.utils")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
