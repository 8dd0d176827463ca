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

from cardium.config import Settings
from cardium.errors import CardiumError
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


class StoreAway(CardiumError):  # noqa: N818
    """The tracking store cannot be reached, or not written to."""

    def __init__(self, uri: str, why: str) -> None:
        super().__init__(f"MLflow at {without_password(uri)} does not answer ({why}): nothing lost, run `cardium sync` later.")


def tracking_uri(settings: Settings) -> str:
    """MLFLOW_TRACKING_URI, else tracking.uri of params.yaml, else mlflow.db in the project's root. Never relative to cwd."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking.uri or "sqlite:///mlflow.db"
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{settings.root / uri.removeprefix('sqlite:///')}"
    return uri


def experiment_name(settings: Settings, dataset: str) -> str:
    """One experiment a dataset, so that its runs are one page: `cardium-cmri`. The registered model has the same name."""
    return f"{settings.tracking.experiment}-{dataset}"


def experiment_id(client: MlflowClient, settings: Settings, dataset: str) -> str:
    """The dataset's experiment, made if missing. A local store keeps its artifacts in the project's mlruns/."""
    name = experiment_name(settings, dataset)
    known = client.get_experiment_by_name(name)
    if known is not None:
        if known.lifecycle_stage != "active":
            client.restore_experiment(known.experiment_id)
        return str(known.experiment_id)
    place = None
    if tracking_uri(settings).startswith("sqlite:"):
        place = (settings.root / "mlruns" / name).as_uri()
    # The UI's word for what this is not: its pages for language models.
    tags = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=place, tags=tags))


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[MlflowClient]:
    """A client of the tracking store and registry, with the store locked against this project's other processes.

    Creates the store at first use: under the lock, since creating it from several processes at once breaks it for good.
    MLflow's process-wide settings are put back at the end. Raises StoreAway within seconds if the store cannot be reached.
    """
    uri = tracking_uri(settings)
    probe(uri)
    with _environment({key: value for key, value in _MLFLOW.items() if key not in os.environ}), store_lock(settings):
        import mlflow
        from mlflow.exceptions import MlflowException

        with _quiet(), _process_wide_uri(uri):
            try:
                client = mlflow.MlflowClient(uri, registry_uri=uri)
                client.search_experiments(max_results=1)
            except (MlflowException, OSError) as error:
                raise StoreAway(uri, first_line(error)) from None
            except Exception as error:  # sqlalchemy's, urllib3's: MLflow lets its backends' errors through
                raise StoreAway(uri, f"{type(error).__name__}: {first_line(error)}") from None
            try:
                yield client
            except MlflowException as error:
                if "API request to" in str(error):
                    raise StoreAway(uri, "it stopped answering") from None
                raise


@contextlib.contextmanager
def store_lock(settings: Settings, name: str = "store", seconds: float = _LOCK_SECONDS) -> Iterator[None]:
    """Holds the lock `name` of the store. The system frees it when the process dies, however it dies.

    The lock of a local store lies beside the database, so two clones that share the database share the lock. Raises StoreAway
    if the store's folder is missing, CardiumError if another process holds the lock for more than `seconds`.
    """
    import filelock

    uri = tracking_uri(settings)
    database = _database(uri)
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
    database = _database(tracking_uri(settings))
    return database is None or database.is_file()


def probe(uri: str) -> None:
    """Raises StoreAway if an HTTP server does not answer within seconds; MLflow itself would try for minutes."""
    if not uri.startswith(("http://", "https://")):
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


@contextlib.contextmanager
def errors_as_warnings() -> Iterator[None]:
    """Turns any error into one line on stderr: what is logged is a view, and the files are whole without it."""
    try:
        yield
    except CardiumError as error:
        print(f"warning: {error}", file=sys.stderr)
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        print(f"warning: MLflow could not log this ({reason}): nothing lost, run `cardium sync` later.", file=sys.stderr)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 200 characters; its type where it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def without_password(uri: str) -> str:
    """The URI as it may be printed."""
    parts = urlsplit(uri)
    return uri.replace(f"{parts.username}:{parts.password}@", "") if parts.password else uri


def _database(uri: str) -> Path | None:
    """The file of a local store; None for a server."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def _process_wide_uri(uri: str) -> Iterator[None]:
    """Sets the process' store, which Model.log and the artifact repositories ask for; puts it and its variable back."""
    import mlflow
    from mlflow.tracking._tracking_service import utils

    variable, before = os.environ.get("MLFLOW_TRACKING_URI"), utils._tracking_uri
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
        if variable is not None:
            os.environ["MLFLOW_TRACKING_URI"] = variable
        elif before is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)


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
