"""One command at a time: who comes second says for whom it waits, and goes on when that one has ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cardium import atomic
from cardium.parallel import started
from cardium.workspace import Workspace

_PAUSE = 0.2


@contextlib.contextmanager
def turn(root: Path, name: str = "pipeline") -> Iterator[bool]:
    """Holds the turn `name` of the project in `root` while the block runs; yields whether it had to be waited for.

    A turn ends with its process, however that ends. It cannot be taken twice by one process.
    """
    import filelock

    lock = Workspace(root).scratch() / "turns" / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    holder = lock.with_suffix(".json")
    held = filelock.FileLock(lock)
    waited = False
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        waited = True
        _say(_described(_json(holder)))
        held.acquire(poll_interval=_PAUSE)
    try:
        command = shlex.join([Path(sys.argv[0]).name.replace("__main__.py", "cardium"), *sys.argv[1:]])
        atomic.write_json(holder, {"pid": os.getpid(), "cmd": command})
        yield waited
    finally:
        holder.unlink(missing_ok=True)
        held.release()


def at_work(root: Path) -> list[str]:
    """The commands that hold a turn of the project now, described."""
    import filelock

    found = []
    for lock in sorted((Workspace(root).scratch() / "turns").glob("*.lock")):
        try:
            with filelock.FileLock(lock, timeout=0):
                continue
        except filelock.Timeout:
            found.append(_described(_json(lock.with_suffix(".json"))))
    return list(dict.fromkeys(found))


def wait_for_dvc(root: Path) -> None:
    """Waits until no other `dvc` command is at work in the project, and takes away what killed ones have left in its way.

    DVC itself gives up after three seconds, or at once where another one's stage is running.
    """
    said = ""
    while at_work := _dvc_at_work(root):
        if not said:
            said = at_work
            _say(at_work)
        time.sleep(_PAUSE)


def _say(whom: str) -> None:
    print(f"Waiting for {whom}, which is at work in this project.", file=sys.stderr, flush=True)


def _described(info: Any) -> str:
    """`command` (process 123), as far as it is known."""
    info = info if isinstance(info, dict) else {}
    return f"`{info.get('cmd', 'another command')}`" + (f" (process {info['pid']})" if "pid" in info else "")


def _dvc_at_work(root: Path) -> str:
    """The `dvc` command that would be in the way, described; "" for none."""
    folder = root / ".dvc" / "tmp"
    with _flock(folder / "lock") as free:
        if not free:
            pid = _text(folder / "lock").strip()
            return _described({"cmd": "dvc", **({"pid": pid} if pid else {})})
    with _flock(folder / "rwlock.lock") as free:
        return _check_rwlock(folder / "rwlock") if free else ""


def _check_rwlock(path: Path) -> str:
    """The living `dvc` command that DVC's list of readers and writers names; without one, the list is taken away.

    A killed command leaves an empty list, over which DVC stops, or its own number, which another process may have by now.
    The caller holds the lock of the list, so nobody is writing it.
    """
    text = _text(path)
    try:
        lists = json.loads(text)
        infos = [*lists.get("write", {}).values(), *(info for many in lists.get("read", {}).values() for info in many)]
        named = [(int(info["pid"]), str(info["cmd"])) for info in infos]
    except (ValueError, TypeError, AttributeError, KeyError):
        named = [(int(pid), "dvc") for pid in re.findall(r'"pid": (\d+)', text)]
    alive = [(pid, command) for pid, command in named if _is_dvc(pid)]
    if alive:
        pid, command = alive[0]
        return _described({"pid": pid, "cmd": command if command.startswith("dvc") else f"dvc {command}"})
    path.unlink(missing_ok=True)
    return ""


def _is_dvc(pid: int) -> bool:
    """Whether a process is there and is DVC; where the system does not say what it is, it may be."""
    if started(pid) is None:
        return False
    try:
        return b"dvc" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists()


@contextlib.contextmanager
def _flock(path: Path) -> Iterator[bool]:
    """Tries a lock of DVC's, held while the block runs; yields False where somebody else holds it."""
    try:
        import fcntl
    except ImportError:  # Windows, where DVC locks in another way.
        yield True
        return
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        yield True
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(file)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError:
        return {}
