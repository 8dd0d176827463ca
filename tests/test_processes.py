"""A command that is ended takes all that it started along, politely or not, and leaves DVC able to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardium import cli
from cardium.parallel import started
from cardium.pipeline.dvc import environment

# A stage as `cardium stage` runs one, with a pool at work; every process writes its id down.
STAGE = """
import os, pathlib, sys, time
from cardium.cli import ended_by_signals
from cardium.parallel import in_chunks
from cardium.pipeline.stages import end_with_command

def work(items):
    (pathlib.Path("pids") / str(os.getpid())).touch()
    time.sleep(0.3)

if __name__ == "__main__":
    end_with_command()
    with ended_by_signals():
        try:
            (pathlib.Path("pids") / str(os.getpid())).touch()
            for _ in in_chunks(work, range(1000), 1, workers=2):
                pass
        except KeyboardInterrupt:
            pathlib.Path("tidied").touch()
            sys.exit(130)
"""
COMMAND = """
import pathlib, sys
from cardium import cli
from cardium.pipeline import dvc
if "background" in sys.argv:  # As a shell starts `command &` in a script.
    import signal
    signal.signal(signal.SIGINT, signal.SIG_IGN)
cli._VERBS["models"] = ("", cli._nothing, lambda _: dvc.reproduce(pathlib.Path.cwd(), [], jobs=2))
sys.exit(cli.main(["models"]))
"""
PIPELINE = "stages:\n  sleep:\n    cmd: python stage.py\n    outs: [out.txt]\n"
TWO = "  too:\n    cmd: python stage.py # as well\n    outs: [too.txt]\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "pids").mkdir()
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "command.py").write_text(COMMAND)
    dvc(tmp_path, "init", "--no-scm", "-q")
    return tmp_path


def dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, check=True).stdout


def until(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def at_work(root: Path) -> list[int]:
    """The stage and its workers, as far as they are alive."""
    return [int(path.name) for path in (root / "pids").iterdir() if started(int(path.name)) is not None]


@pytest.fixture
def command(root: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A `cardium` command whose stage and both workers are at work; with `two`, both stages side by side."""
    options = getattr(request, "param", [])
    if "two" in options:
        (root / "dvc.yaml").write_text(PIPELINE + TWO)
    arguments = [sys.executable, "command.py", *options]
    with subprocess.Popen(arguments, cwd=root, env=environment(root), stderr=subprocess.PIPE, text=True) as process:
        until(lambda: len(at_work(root)) == 3 * (1 + ("two" in options)))
        yield process
        process.kill()
        for pid in at_work(root):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("command", [[], ["background"], ["two"]], indirect=True)
def test_a_killed_command_ends_dvc_its_stage_and_its_workers(root: Path, command: subprocess.Popen[str]) -> None:
    command.terminate()
    _, said = command.communicate(timeout=60)
    assert command.returncode == 128 + signal.SIGTERM
    assert "interrupted: nothing half-written is left" in said
    assert at_work(root) == []
    assert (root / "tidied").exists(), "it was asked, and not only killed"
    (root / "dvc.yaml").write_text(PIPELINE.replace("python stage.py", "touch out.txt"))
    dvc(root, "repro", "-q")
    assert (root / "out.txt").exists(), "no lock is left"


@pytest.mark.parametrize("command", [["two"]], indirect=True)
def test_a_command_that_cannot_say_so_is_followed_all_the_same(root: Path, command: subprocess.Popen[str]) -> None:
    command.kill()
    until(lambda: at_work(root) == [])
    assert (root / "tidied").exists()


def test_a_killed_stage_leaves_no_workers(root: Path) -> None:
    with subprocess.Popen([sys.executable, "stage.py"], cwd=root, env=environment(root)) as stage:
        until(lambda: len(at_work(root)) == 3)
        stage.kill()
    until(lambda: at_work(root) == [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_that_a_library_swallows_ends_the_process_all_the_same(number: signal.Signals) -> None:
    code = """
import signal
import time
signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background job inherits that it is ignored.
from cardium import cli
def swallowing(_):
    while True:
        try:
            print("at work", flush=True)
            time.sleep(0.1)
        except KeyboardInterrupt:
            pass
cli._PATIENCE = 1.0
cli._VERBS["models"] = (None, cli._nothing, swallowing)
cli.main(["models"])
"""
    source = str(Path(cli.__file__).parents[1])
    inherited = {**os.environ, "PYTHONPATH": source}
    with subprocess.Popen([sys.executable, "-c", code], env=inherited, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        process.send_signal(number)
        process.stdout.read()
    assert process.returncode == 128 + number
