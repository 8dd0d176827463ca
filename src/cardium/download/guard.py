"""What an archive may hold and cost, asked before a byte of it is unpacked, whatever its format and whoever unpacks it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cardium.download.limits import DEFAULT_LIMITS, DownloadLimits
from cardium.errors import CardiumError

# Seconds between two looks at how much a program has written.
_LOOK = 0.5


@dataclass(frozen=True)
class Member:
    """A file or folder in an archive, as the archive lists it. path: with /. size: bytes unpacked, -1 if unknown.

    link: a link or a special file of any kind, or a copy by reference. stored: its bytes are in the archive uncompressed and in
    one piece.
    """

    path: str
    size: int
    folder: bool = False
    link: bool = False
    locked: bool = False
    stored: bool = False


def check(name: str, members: Sequence[Member], packed: int, free: int, limits: DownloadLimits = DEFAULT_LIMITS) -> None:
    """Raises CardiumError for an archive `name` that must not be unpacked. packed: its bytes; free: bytes left on the disk."""
    if len(members) > limits.max_members:
        raise CardiumError(f"{name} lists {len(members)} files, more than {limits.max_members}: unpack it by hand.")
    if not any(not member.folder for member in members):
        raise CardiumError(f"{name} holds no files: get it again.")
    seen: set[PurePosixPath] = set()
    for member in members:
        path = PurePosixPath(member.path)
        if _leads_out(member.path):
            raise CardiumError(f"{name} would write outside of its folder ({member.path!r}): unpack it by hand.")
        if len(path.parts) > limits.max_depth:
            raise CardiumError(f"{name} nests more than {limits.max_depth} folders: unpack it by hand.")
        if member.link:
            raise CardiumError(f"{name} holds a link or a special file ({member.path!r}): unpack it by hand.")
        if member.locked:
            raise CardiumError(f"{name} is locked by a password: unpack it by hand.")
        if member.size < 0:
            raise CardiumError(f"{name} does not say how large {member.path!r} is: unpack it by hand.")
        if path in seen and not member.folder:
            raise CardiumError(f"{name} lists {member.path!r} twice: unpack it by hand.")
        seen.add(path)
    total = sum(member.size for member in members)
    if total > limits.max_unpacked_bytes or total > limits.max_ratio * packed:
        raise CardiumError(f"{name}, {packed} bytes, says that it unpacks to {total}: that is a bomb, or unpack it by hand.")
    if total + limits.spare_bytes > free:
        raise CardiumError(f"{name} unpacks to {total / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB left: make room.")


def check_files(name: str, folder: Path) -> None:
    """Raises CardiumError for a link or a special file in what was unpacked: it would lead out once it is read."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            inner = path.relative_to(folder).as_posix()
            raise CardiumError(f"{name} holds a link or a special file ({inner!r}): unpack it by hand.")


def free_bytes(folder: Path) -> int:
    """The bytes left on the disk that `folder` is on, or will be."""
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    return shutil.disk_usage(there).free


def _leads_out(path: str) -> bool:
    parts = path.split("/")
    named = path and all(sign.isprintable() for sign in path) and not path.startswith(("/", "~"))
    return not named or "\\" in path or ".." in parts or parts[0].endswith(":") or path[1:2] == ":"


def run_watched(command: Sequence[str], too_much: Callable[[], str]) -> str:
    """Runs a program that unpacks and ends it as soon as `too_much` says what is too much. Returns why it failed, or ""."""
    with tempfile.TemporaryFile() as output:  # A pipe that nobody empties would stop it.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    process.wait(timeout=_LOOK)
                except subprocess.TimeoutExpired:
                    if why := too_much():
                        return why
                else:
                    break
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if not process.returncode:
            return too_much()
        output.seek(0)
        lines = output.read(100_000).decode("utf-8", "replace").strip().splitlines()
        reason = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
        return reason.strip()[:160] or f"it ended with {process.returncode}"


class Written(NamedTuple):
    """What a folder holds by now: its files and folders, the files' bytes, and how many folders stand in one another."""

    entries: int
    size: int
    depth: int


def written(folder: Path) -> Written:
    """Looks at what a program has written so far; not by recursion, since what it writes is a stranger's."""
    count = total = deepest = 0
    waiting = [(str(folder), 0)]
    while waiting:
        place, depth = waiting.pop()
        deepest = max(deepest, depth)
        try:
            entries = list(os.scandir(place))
        except OSError:  # Renamed by the program meanwhile, or deeper than the system names.
            continue
        for entry in entries:
            count += 1
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, depth + 1))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return Written(count, total, deepest)
