"""A project folder that was moved or copied: its local store still says where its artifacts lay, in full paths.

Rewritten, so that runs are read and written below this project's mlruns/ and never in another project's.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

# The folder of a project's artifacts.
ARTIFACTS = "mlruns"
# Where a store says where files lie. `experiments` decide where new ones go.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def bring_along(database: Path, root: Path) -> None:
    """Rewrites what the store at `database` says of artifacts that came along with the folder, in one transaction.

    A place is rewritten if it was below another folder's mlruns/ and is now below `root`/mlruns, or is gone there. That of an
    experiment is rewritten, too, if that other folder is a project: new runs must not be written into it. Nothing is done for
    a database outside of `root`. Prints one line if anything was rewritten. Call it under the store's lock.
    """
    if root not in database.parents:
        return
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        found = [
            (table, column, row, new)
            for table, column in _PLACES
            for row, uri in _outside(connection, table, column, root)
            if (new := _brought(uri, root, of_experiment=table == "experiments")) is not None
        ]
        for table, column, row, new in found:
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (new, row))
    if any(row for _, _, row, _ in found):  # 0 is MLflow's own experiment, which holds nothing of cardium's
        print(
            f"note: this project was moved or copied: {len(found)} places in {database.name} now name its own {ARTIFACTS}/.",
            file=sys.stderr,
        )


def local_path(uri: str) -> Path | None:
    """The path of an artifact's URI; None where it is on a server."""
    if uri.startswith("/"):
        return Path(uri)
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


def _outside(connection: sqlite3.Connection, table: str, column: str, root: Path) -> list[tuple[int, str]]:
    """Rows of paths that do not lie below the project's artifacts."""
    own = (root / ARTIFACTS).as_uri() + "/"
    rows = connection.execute(
        f"SELECT rowid, {column} FROM {table} WHERE (substr({column}, 1, 5) = 'file:' OR substr({column}, 1, 1) = '/')"
        f" AND substr({column}, 1, ?) != ?",
        (len(own), own),
    )
    return [(int(row), str(uri)) for row, uri in rows]


def _brought(uri: str, root: Path, *, of_experiment: bool) -> str | None:
    """Where the artifacts of `uri` are to be looked for now; None where they are rightly elsewhere."""
    old = local_path(uri)
    if old is None or ARTIFACTS not in old.parts or (root / ARTIFACTS) in old.parents:
        return None
    # From the right: a folder above the project may be called so, too.
    cut = len(old.parts) - 1 - old.parts[::-1].index(ARTIFACTS)
    other, inner = Path(*old.parts[:cut]), old.parts[cut + 1 :]
    if not inner or (other.exists() and other.samefile(root)):
        return None
    new = root.joinpath(ARTIFACTS, *inner)
    anothers = of_experiment and (other / "params.yaml").is_file()
    return new.as_uri() if new.exists() or not old.exists() or anothers else None
