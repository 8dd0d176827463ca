"""The local store, one SQLite file: where it lies, made whole or not at all, judged before MLflow opens it.

MLflow makes its tables in the database's own place, by some eighty migrations in seconds; killed meanwhile, it can never open
that database again. So the database is made beside its place and renamed into it.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote, unquote

from cardium.errors import CardiumError, first_line, printable

_SCHEME = "sqlite:///"
# SQLite keeps what a killed writer left undone in files beside the database: they belong to that database and no other.
_JOURNALS = ("-journal", "-wal", "-shm")
# The rows that MLflow itself puts into a new store: the experiment `Default` and a workspace.
_OWN_ROWS = {"experiments": 1, "workspaces": 1, "alembic_version": 1}


def sqlite_uri(path: Path) -> str:
    """The URI of a database's file, as SQLAlchemy reads it: a `?` or `%` in a folder's name means no query and no escape.

    Raises CardiumError where the installed SQLAlchemy cannot open such a path.
    """
    text = str(path)
    if not {"?", "%"} & set(text):
        return _SCHEME + text
    if _unescapes():
        # Without a plain `/`: MLflow would make the escaped folders too.
        return _SCHEME + quote(text, safe="")
    if "?" in text:
        raise CardiumError(f"{path}: a `?` in a folder's name ends a database's URI: rename the folder.")
    return _SCHEME + text


def database_of(uri: str) -> Path | None:
    """The file of a local store's URI, relative to the current folder where the URI is; None for any other URI."""
    if not uri.startswith(_SCHEME):
        return None
    path = uri.removeprefix(_SCHEME).partition("?")[0]
    return Path((unquote(path) if _unescapes() else path).removeprefix("file:"))


def make_ready(uri: str, database: Path, artifacts: Path) -> None:
    """Makes the store at `database` where there is none, or one without a run that MLflow cannot open.

    artifacts: the folder below which MLflow's own experiment `Default` keeps its files. Call it under the store's lock. Raises
    CardiumError for a file that is no store, a store that was not made to the end, and one of another version of MLflow.
    """
    if not database.is_file():
        _make(database, artifacts)
        return
    try:
        # Opened by its file name: this leaves a broken file as it is.
        with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
            counts = _counts(connection)
            found = _revision(connection) if "alembic_version" in counts else None
    except sqlite3.Error as error:
        raise unusable(database, error) from None
    if found == _newest() and {"runs", "experiments", "registered_models"} <= counts.keys():
        return
    if all(count <= _OWN_ROWS.get(name, 0) for name, count in counts.items()):
        _make(database, artifacts)
    elif found is None or "runs" not in counts:
        raise CardiumError(
            f"{database} is no store that MLflow made to its end: move it away, then run `cardium sync`, which logs all anew."
        )
    else:
        raise other_version(uri)


def other_version(uri: str) -> CardiumError:
    """The error for a store whose tables are of another version of MLflow."""
    return CardiumError(
        f"The MLflow store {printable(uri)} is of another version of MLflow than {version('mlflow')}: back it up, then run "
        f"`mlflow db upgrade '{printable(uri)}'` (the URI in full); if it is of a newer version, install that one."
    )


def unusable(database: Path, error: BaseException) -> CardiumError:
    """The error for a database that SQLite cannot read or write. `error`: SQLite's, or one that has its words."""
    words = str(error)
    if "readonly" in words or "unable to open" in words:
        what, do = "cannot be written to", "make the file and its folder writable for you"
    elif "full" in words:
        what, do = "cannot grow: the disk is full", "make room"
    elif "locked" in words:
        what, do = "is held by another program", "wait until that has ended"
    elif "not a database" in words or "malformed" in words:
        what, do = "is damaged, or no SQLite database", "put a backup in its place, or move it away"
    else:
        what, do = f"cannot be used ({first_line(error)[:160]})", "see to that"
    return CardiumError(f"MLflow's database {database} {what}: {do}, then run `cardium sync`.")


def is_sqlite_error(error: BaseException) -> bool:
    """Whether SQLite refused something, however deep MLflow and SQLAlchemy have wrapped its error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, sqlite3.Error) or "(sqlite3." in str(seen):
            return True
        seen = seen.__cause__
    return False


def _make(database: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    part = database.with_name(f"{database.name}.part")
    _remove(part)
    try:
        store = SqlAlchemyStore(sqlite_uri(part), artifacts.as_uri())
        store.engine.dispose()
        for suffix in _JOURNALS:  # of a database that was deleted or is replaced: they would be played into the new one
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        part.replace(database)
    finally:
        _remove(part)


def _remove(database: Path) -> None:
    for suffix in ("", *_JOURNALS):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    """The tables, and how many rows each has; at most two are counted."""
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    counted = {}
    for name in names:
        quoted = name.replace('"', '""')
        counted[name] = len(connection.execute(f'SELECT 1 FROM "{quoted}" LIMIT 2').fetchall())
    return counted


def _revision(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


@functools.cache
def _newest() -> str:
    """The revision of the tables that the installed MLflow makes."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    return str(_get_latest_schema_revision())


@functools.cache
def _unescapes() -> bool:
    """Whether SQLAlchemy unescapes a database's name in a URI: from 2.1 on."""
    major, minor = version("sqlalchemy").split(".")[:2]
    return (int(major), int(minor)) >= (2, 1)
