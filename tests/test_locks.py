"""Two commands at once: the second says for whom it waits and goes on; what killed ones leave behind holds nobody up."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from test_processes import dvc, until

from cardium.errors import CardiumError
from cardium.pipeline import experiment
from cardium.pipeline.dvc import environment, reproduce
from cardium.pipeline.turn import turn, wait_for_dvc
from cardium.workspace import RunId

# A stage that says that it began, and ends when it may.
PIPELINE = """
stages:
  slow:
    cmd: echo once >> began.txt && while [ ! -e go ]; do sleep 0.05; done && touch out.txt
    outs: [out.txt]
"""
COMMAND = "import pathlib, sys; from cardium.pipeline import dvc; print(dvc.reproduce(pathlib.Path.cwd(), []))"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    dvc(tmp_path, "init", "--no-scm", "-q")
    return tmp_path


def begin(root: Path, *arguments: str) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *arguments], cwd=root, env=environment(root), **pipes)


@pytest.mark.parametrize("first", [["-c", COMMAND, "train"], ["-m", "dvc", "repro", "-q"]], ids=["cardium", "dvc"])
def test_the_second_of_two_commands_waits_and_finds_the_work_done(root: Path, first: list[str]) -> None:
    with begin(root, *first) as one:
        try:
            until((root / "began.txt").exists)
            with begin(root, "-c", COMMAND) as two:
                assert two.stderr is not None
                waiting = two.stderr.readline()
                (root / "go").touch()
                made, said = two.communicate(timeout=60)
            one.communicate(timeout=60)
        finally:
            (root / "go").touch()
    assert waiting.startswith("Waiting for `")
    assert ("train" if "train" in first else "dvc") in waiting
    assert f"(process {one.pid})" in waiting
    assert one.returncode == two.returncode == 0, said
    assert made == "False\n"
    assert (root / "began.txt").read_text() == "once\n"


def test_a_turn_is_told_and_handed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waited = []

    def second() -> None:
        with turn(tmp_path) as late:
            waited.append(late)

    said = ""

    def told() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return "Waiting for `" in said

    with turn(tmp_path) as late:
        assert not late
        thread = threading.Thread(target=second)
        thread.start()
        until(told)
        assert waited == []
    thread.join(timeout=60)
    assert waited == [True]
    with turn(tmp_path, "another"), turn(tmp_path):
        pass


@pytest.mark.parametrize("left", ["", '{"write": {"/x": {"pid": 99999999', "living"], ids=["empty", "cut off", "reused"])
def test_what_a_killed_dvc_left_is_taken_away(root: Path, left: str) -> None:
    (root / "go").touch()
    with subprocess.Popen(["sleep", "60"]) as other:  # It has the number of a process that was DVC.
        names = {"pid": other.pid, "cmd": "dvc repro"}
        table = {"write": {str(root / "out.txt"): names}, "read": {str(root / "data"): [names]}}
        (root / ".dvc/tmp/rwlock").write_text(json.dumps(table) if left == "living" else left)
        try:
            assert reproduce(root, [])
        finally:
            other.kill()


def test_a_list_that_somebody_writes_at_the_moment_is_left_alone(root: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (root / ".dvc/tmp/rwlock").write_text("")
    with (root / ".dvc/tmp/rwlock.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        wait_for_dvc(root)
        assert (root / ".dvc/tmp/rwlock").exists()
    wait_for_dvc(root)
    assert not (root / ".dvc/tmp/rwlock").exists()


def test_an_experiment_that_two_commands_ask_for_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from run_folders import make_project

    from cardium import tracking
    from cardium.stages import train as stage

    settings = make_project(tmp_path)
    trained, logged = [], []
    begun, go = threading.Event(), threading.Event()

    def train_run(settings: Any, spec: Any, reads: Path, out: Path) -> None:
        trained.append(out)
        begun.set()
        assert go.wait(60)
        out.mkdir(parents=True)
        (out / "run.json").write_text(json.dumps({"id": "first"}))

    def ask() -> None:
        experiment.train(settings.root, RunId("cmri", "mobilenetv2"), {"cmri.train.epochs": 1})

    monkeypatch.setattr(stage, "train_run", train_run)
    monkeypatch.setattr(experiment, "make_input", lambda *_: tmp_path)
    monkeypatch.setattr(tracking, "log_run", lambda _, out: logged.append(json.loads((out / "run.json").read_text())["id"]))
    said: list[str] = []
    monkeypatch.setattr("cardium.pipeline.turn._say", said.append)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    until(lambda: said)
    go.set()
    for thread in threads:
        thread.join(timeout=60)
    assert len(trained) == 1
    assert set(logged) == {"first"}


def test_the_check_of_data_is_no_news_unless_it_stops(root: Path) -> None:
    noted = "; ".join(f"echo {what} tracked@data >> $CARDIUM_JOURNAL" for what in ("began", "ended"))
    checked = f"stages:\n  tracked:\n    cmd: {noted}\n    always_changed: true\n"
    (root / "dvc.yaml").write_text(checked)
    reproduce(root, [])
    assert not reproduce(root, [])
    (root / "dvc.yaml").write_text(checked.replace("echo ended", "exit 1; echo"))
    with pytest.raises(CardiumError, match="tracked@data stopped for the reason above"):
        reproduce(root, [])


def test_a_stage_that_fails_is_reported_as_ever(root: Path) -> None:
    (root / "dvc.yaml").write_text(PIPELINE.replace("echo once", "exit 3; echo once"))
    with pytest.raises(CardiumError, match="stopped for the reason above"):
        reproduce(root, [])
