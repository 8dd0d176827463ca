"""pipeline/fork_server.py: a fork says, returns and ends as the command itself does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardium.parallel import started
from cardium.pipeline import fork_server
from cardium.pipeline.dvc import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are served on Linux alone")
ROOT = Path(__file__).resolve().parents[1]
# What a stage's command does, with any verb.
_CLIENT = """
import sys
from cardium.errors import CardiumError
from cardium.pipeline.fork_server import run_there
try:
    sys.exit(run_there(sys.argv[1:]))
except CardiumError as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("server")
    with fork_server.fork_server(ROOT, environment(ROOT), folder, imports=()) as env:
        until = time.monotonic() + 60
        while not Path(env[fork_server.SOCKET]).exists():
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.05)
        yield env


def client(env: dict[str, str], *arguments: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", _CLIENT, *arguments],
        env=env,
        cwd=cwd,
        stdout=pipe,
        stderr=pipe,
        text=True,
        # A shell's background job, which this may be, is told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_fork_prints_where_its_client_does_and_ends_as_the_command_does(env: dict[str, str], tmp_path: Path) -> None:
    asked, refused = client(env, "models", "*_spatial"), client(env, "models", "no such name")
    out, err = asked.communicate()
    alone = subprocess.run([sys.executable, "-m", "cardium", "models", "*_spatial"], cwd=ROOT, capture_output=True, text=True)
    assert (out, err, asked.returncode) == (alone.stdout, alone.stderr, alone.returncode)
    _, err = refused.communicate()
    assert refused.returncode == 1
    assert err.startswith("error: ")
    # The folder and the environment are the client's: no project lies here.
    elsewhere = client({**env, "CARDIUM_ROOT": str(tmp_path)}, "params", cwd=tmp_path)
    _, err = elsewhere.communicate()
    assert elsewhere.returncode == 1
    assert str(tmp_path) in err or "params.yaml" in err


def server_of(place: str) -> int | None:
    """The process that serves at this place; None without one."""
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and place.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                # A fork has the same arguments; its parent has them, too.
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if place.encode() not in Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0"):
                    return int(folder.name)
        except OSError:
            continue
    return None


def forks(server: int) -> list[int]:
    """The processes that a server has forked and that are there."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [int(child) for child in children if started(int(child)) is not None]


def held(env: dict[str, str], folder: Path) -> tuple[subprocess.Popen[str], int]:
    """A client whose fork is held up, and the server."""
    # A FIFO that nobody writes holds the command up for as long as it is let.
    os.mkfifo(folder / "sheet.png")
    asked = client(env, "read", str(folder / "sheet.png"))
    server = server_of(env[fork_server.SOCKET])
    assert server
    until = time.monotonic() + 30
    while not forks(server):
        assert time.monotonic() < until
        time.sleep(0.02)
    time.sleep(0.3)
    return asked, server


def test_a_fork_that_is_killed_is_said_and_not_run_again(env: dict[str, str], tmp_path: Path) -> None:
    asked, server = held(env, tmp_path)
    os.kill(forks(server)[0], signal.SIGKILL)
    _, err = asked.communicate(timeout=60)
    assert asked.returncode == 1
    assert "was killed" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_fork_ends_with_its_client(env: dict[str, str], tmp_path: Path, number: signal.Signals) -> None:
    asked, server = held(env, tmp_path)
    asked.send_signal(number)
    asked.communicate(timeout=60)
    assert asked.returncode != 0
    until = time.monotonic() + 30
    while forks(server):
        assert time.monotonic() < until, "the fork is still there"
        time.sleep(0.05)
    # The server goes on.
    again = client(env, "models", "cnn2d")
    assert again.communicate()[0].split()[0] == "cnn2d"


def test_a_server_ends_with_the_command_that_started_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cardium.pipeline.dvc import environment\n"
        "from cardium.pipeline.fork_server import fork_server\n"
        "root = Path(sys.argv[1])\n"
        "with fork_server(root, environment(root), Path(sys.argv[2]), imports=()): time.sleep(60)\n"
    )
    command = subprocess.Popen([sys.executable, "-c", code, str(ROOT), str(tmp_path)], env=environment(ROOT))
    place = tmp_path / "fork-server"
    until = time.monotonic() + 60
    while not place.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    command.kill()
    command.wait()
    while server_of(str(place)):
        assert time.monotonic() < until, "the server is still there"
        time.sleep(0.05)


def test_without_a_server_the_command_runs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(fork_server.SOCKET, raising=False)
    assert fork_server.run_there(["models"]) is None
    monkeypatch.setenv(fork_server.SOCKET, str(tmp_path / "not yet there"))
    assert fork_server.run_there(["models"]) is None
    (tmp_path / "left").touch()
    monkeypatch.setenv(fork_server.SOCKET, str(tmp_path / "left"))
    assert fork_server.run_there(["models"]) is None
