"""The local store: whole after a kill, told in one line where it is not, where its URI says whatever a folder is called."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folders import evaluation, make_project, run_folder

from cardium import tracking
from cardium.errors import CardiumError
from cardium.stages import promote
from cardium.tracking import local_store, store

SOURCE = Path(__file__).resolve().parents[1] / "src"


@pytest.fixture
def settings(tmp_path: Path, empty_store: Path) -> Any:
    made = make_project(tmp_path / "project")
    shutil.copy(empty_store, made.root / "mlflow.db")
    return made


def changed(database: Path, *commands: str) -> Path:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for command in commands:
            connection.execute(command)
    return database


A_RUN = "INSERT INTO runs (run_uuid, status, lifecycle_stage, experiment_id) VALUES ('a', 'FINISHED', 'active', 0)"


def test_a_kill_while_the_store_is_made_leaves_nothing_in_its_place(tmp_path: Path) -> None:
    settings = make_project(tmp_path / "project")
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(SOURCE)!r})
from pathlib import Path
from cardium import config, tracking
from mlflow.store.db import utils
utils._upgrade_db = lambda engine: os.kill(os.getpid(), signal.SIGKILL)
with tracking.connected(config.load(Path({str(settings.root)!r}))):
    pass
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == -9
    assert (settings.root / "mlflow.db.part").is_file(), "the kill came in time"
    assert not tracking.store_exists(settings)
    with tracking.connected(settings) as client:
        assert [one.name for one in client.search_experiments()] == ["Default"]
    assert {path.name for path in settings.root.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db.store.lock"}


@pytest.mark.parametrize(
    "cut_short",
    [
        lambda database: changed(database, "DROP TABLE alembic_version", "DROP TABLE model_versions"),
        lambda database: (database.write_bytes(b""), database.with_name("mlflow.db-journal").write_bytes(b"of another")),
    ],
    ids=["some tables", "an empty file"],
)
def test_a_store_without_a_run_that_mlflow_cannot_open_is_made_anew(settings: Any, cut_short: Callable[[Path], Any]) -> None:
    cut_short(settings.root / "mlflow.db")
    folder = run_folder(settings, real=False)
    assert tracking.log_run(settings, folder)
    assert tracking.sync(settings)["known"] == ["models/cmri/honest/mobilenetv2"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda database: changed(database, A_RUN, "DROP TABLE alembic_version"), "move it away, then run `cardium sync`"),
        (
            lambda database: changed(database, A_RUN, "UPDATE alembic_version SET version_num = 'a'"),
            "mlflow db upgrade 'sqlite:",
        ),
        (lambda database: database.write_bytes(b"no database" * 99), "no SQLite database: put a backup in its place"),
        (
            lambda database: (database.unlink(), changed(database, "CREATE TABLE mine (a)", "INSERT INTO mine VALUES (1)")),
            "no store that MLflow made",
        ),
    ],
    ids=["a run and no version", "another version", "damaged", "something else"],
)
def test_a_store_that_holds_something_is_left_as_it_is(
    settings: Any, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], Any], says: str
) -> None:
    database = settings.root / "mlflow.db"
    spoil(database)
    before = database.read_bytes()
    folder = run_folder(settings, real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    assert tracking.log_run(settings, folder) is None
    [line] = capsys.readouterr().err.splitlines()
    assert says in line
    for verb in (lambda: tracking.sync(settings), lambda: promote.run(settings, "cmri")):
        with pytest.raises(CardiumError, match="MLflow") as caught:
            verb()
        assert not isinstance(caught.value, tracking.StoreAway), "promote must not pass over it"
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
    assert database.read_bytes() == before


def test_a_store_that_cannot_be_written_to_is_one_line(settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_folder(settings, real=False)
    evaluation(settings, {"cmri-mobilenetv2": 0.9})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///file:{settings.root}/mlflow.db?mode=ro&uri=true")
    failed = tracking.sync(settings)["failed"]
    assert failed
    assert all("cannot be written to" in line and "\n" not in line for line in failed)
    with pytest.raises(CardiumError) as caught:
        promote.run(settings, "cmri")
    assert "\n" not in str(caught.value)
    with pytest.raises(CardiumError, match="cannot be written to"), tracking.connected(settings) as client:
        client.create_experiment("new")


@pytest.mark.parametrize("name", ["what?x", "a%20b", "a#b ä"])
def test_a_folders_name_is_no_part_of_the_uris_grammar(tmp_path: Path, empty_store: Path, name: str) -> None:
    settings = make_project(tmp_path / name)
    shutil.copy(empty_store, settings.root / "mlflow.db")
    folder = run_folder(settings, real=False)
    run_id = tracking.log_run(settings, folder)
    with contextlib.closing(sqlite3.connect(settings.root / "mlflow.db")) as connection:
        assert (run_id,) in connection.execute("SELECT run_uuid FROM runs").fetchall()
    assert list((settings.root / "mlruns").glob("cardium-cmri/*/artifacts/run.json"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_path_survives_its_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (Path("/a/what?x/m.db"), Path("/a%20b/%3F/m.db"), Path("/a b/m.db")):
        assert local_store.database_of(local_store.sqlite_uri(path)) == path
    # Before SQLAlchemy 2.1 nothing is unescaped.
    monkeypatch.setattr(local_store, "_unescapes", lambda: False)
    assert local_store.database_of(local_store.sqlite_uri(Path("/a%20b/m.db"))) == Path("/a%20b/m.db")
    with pytest.raises(CardiumError, match="rename the folder"):
        local_store.sqlite_uri(Path("/what?x/m.db"))


def test_a_driver_that_is_missing_and_a_server_that_is_away_are_told_apart(
    settings: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(store, "_PROBE_SECONDS", 0.5)
    folder = run_folder(settings, real=False)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        uri = f"postgresql://me:secret@127.0.0.1:{listening.getsockname()[1]}/mlflow?password=secret"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert tracking.log_run(settings, folder) is None
        assert "does not answer" in (away := capsys.readouterr().err)
        listening.listen()
        assert tracking.log_run(settings, folder) is None
        assert "uv pip install 'psycopg" in (missing := capsys.readouterr().err)
    assert "secret" not in away + missing
    assert "me:" not in away + missing


def test_the_environment_is_left_as_it_was(settings: Any) -> None:
    before = dict(os.environ)
    with tracking.connected(settings):
        assert os.environ["MLFLOW_REGISTRY_URI"]
    assert dict(os.environ) == before
