"""A process that has imported what stages import, and forks each stage's process from itself: it starts at once, and no import
is paid twice.

`cardium repro` starts one where several stages will run (`fork_server`). A stage's command, which DVC starts as ever, hands
its arguments, environment, folder and output over to it (`run_there`), waits, and ends with the same exit code. Only on Linux:
elsewhere a fork of a process with these libraries is not safe. Nothing of it computes before the fork, so no library has
started threads of its own that a fork would lose.

The words between them, a socket in a folder of the command's own: a request is one JSON object and two file descriptors, the
answer {"pid": of the fork}, later {"code": its exit code}; the socket closes when the fork is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from cardium.errors import CardiumError
from cardium.parallel import exit_with, started

# Where the server listens, for the stages of the command that started it.
SOCKET = "CARDIUM_FORK_SERVER"
# The hidden verb that is the server.
VERB = "fork-server"
_TENSORFLOW = "tensorflow"
# What stages spend their start on, each longer than a tenth of a second.
IMPORTS = ("pandas", "scipy.stats", "sklearn.linear_model", "PIL.Image", "cardium.config", "mlflow", _TENSORFLOW)
_MOST_BYTES = 4_000_000


@contextlib.contextmanager
def fork_server(root: Path, env: Mapping[str, str], folder: Path, imports: Sequence[str] = IMPORTS) -> Iterator[dict[str, str]]:
    """Starts a server that ends with the block; yields the environment for the commands that may use it.

    folder: an empty one of this command's own. imports: modules that the server imports first. Stages that begin before it is
    ready start as ever.
    """
    from cardium.pipeline.process_group import end_groups, start_group

    if sys.platform != "linux":
        yield dict(env)
        return
    place = folder / "fork-server"
    command = [sys.executable, "-m", "cardium", VERB, str(place), str(os.getpid()), *imports]
    process = start_group(command, root, {**env, "PYTHONUNBUFFERED": "1"})
    try:
        yield {**env, SOCKET: str(place)}
    finally:
        process.terminate()
        end_groups(process)


def run_there(arguments: Sequence[str]) -> int | None:
    """Runs `cardium ARGUMENTS` in a fork of the server; returns its exit code, None where no server is ready.

    An interruption is passed on to the fork, and waited for.
    """
    place = os.environ.get(SOCKET, "")
    if not place or not Path(place).exists():
        return None
    request = {"arguments": list(arguments), "environment": dict(os.environ), "folder": str(Path.cwd()), "client": os.getpid()}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(place)
            sys.stdout.flush()
            sys.stderr.flush()
            data = json.dumps(request).encode() + b"\n"
            sent = socket.send_fds(connection, [data], [1, 2])
            connection.sendall(data[sent:])
            answers = connection.makefile("r", encoding="utf-8")
            begun = _answer(answers)
        except OSError:
            return None
        if begun is None:
            return None
        try:
            ended = _answer(answers)
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError):
                os.kill(begun["pid"], signal.SIGINT)
            ended = _answer(answers)
        _answer(answers)  # Until it is gone.
    if ended is None:
        raise CardiumError(
            "The process of this stage was killed, most likely for want of memory: close other programs, run it again."
        )
    return int(ended["code"])


def _answer(answers: TextIO) -> dict[str, Any] | None:
    """The next answer; None where the other side is gone."""
    try:
        line = answers.readline()
    except OSError:
        return None
    return json.loads(line) if line else None


def serve(place: Path, parent: int, imports: Sequence[str], main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Imports, then forks a process for each request, which calls `main` with its arguments, until `parent` is gone."""
    for name in imports:
        if name == _TENSORFLOW:
            from cardium.tensorflow_import import import_tensorflow

            import_tensorflow()
        else:
            importlib.import_module(name)
    # A fork's garbage collector would otherwise write to all that it shares with the server, and so copy it.
    gc.collect()
    gc.freeze()
    # Whoever looks for the socket finds one that is listened to.
    hidden = place.with_suffix(".new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(hidden))
    listener.listen()
    hidden.rename(place)
    while started(parent):
        _bury()
        # No thread watches the parent: a fork takes no threads along, and may find their locks held.
        if not select.select([listener], [], [], 0.5)[0]:
            continue
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _run(connection, main)
        connection.close()
    sys.exit()


def _bury() -> None:
    """Waits for the forks that have ended, whose processor time is this process' children's then."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run(connection: socket.socket, main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Becomes the process of one request."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    data, descriptors, _, _ = socket.recv_fds(connection, _MOST_BYTES, 2)
    while not data.endswith(b"\n"):
        more = connection.recv(_MOST_BYTES)
        if not more:
            os._exit(1)
        data += more
    request = json.loads(data)
    for target, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.environ.pop(SOCKET, None)
    os.chdir(request["folder"])
    sys.argv = ["cardium", *request["arguments"]]
    exit_with(request["client"])
    code = [1]
    # Last of what a process does at its end: who waits goes on when nothing is left to be done.
    atexit.register(lambda: connection.sendall(json.dumps({"code": code[0]}).encode() + b"\n"))
    connection.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    code[0] = main(request["arguments"])
    sys.exit(code[0])
