"""Files that are either whole or not there: written under a temporary name, then renamed into place.

In a project the temporary files lie in .cardium/parts/: what a killed process leaves there is no part of any stage's outputs.
A temporary name holds its process: the first write of a later one takes away what a process that is gone has left.
A folder changes places with the one that it replaces, in one step where the system can: no kill finds neither in place.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cardium.errors import CardiumError

# What a user can do about a write that was refused.
_MENDED_BY = {
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room in your quota",
    errno.EFBIG: "raise the limit on a file's size (`ulimit -f unlimited`)",
    errno.EROFS: "mount its file system writable",
    errno.EACCES: "give yourself the right to it",
    errno.EPERM: "give yourself the right to it",
}
_NUMBER, _SHORT = re.compile(r"errno\s*=?\s*(\d+)", re.IGNORECASE), re.compile(r"\d+ requested and \d+ written")
# `.<stem>.<machine>-<pid>-<start>-<random>.part<suffix>`; before, `.<stem>.<random>.part<suffix>`.
_PART = re.compile(r"\..*\.(?:([0-9a-f]{6})-(\d+)-(\d*)-)?[0-9a-f]{8}\.part(?:\.[^.]*)?(?:\.home)?")
# A link beside a folder that was put out of the way in two steps: where it came from.
_HOME = ".home"
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of <linux/fs.h>
# After this long, a name that does not tell whether its process lives counts as left behind.
_LEFT_BEHIND_SECONDS = 7 * 24 * 3600
# The folders that were swept, each with the process that did: a worker inherits them and is another process.
_swept: set[tuple[int, Path]] = set()


def beside(path: Path) -> Path:
    """A temporary name in `path`'s own folder (a rename is atomic within one file system only), with its suffix."""
    from cardium.parallel import started

    pid = os.getpid()
    process = f"{_machine()}-{pid}-{started(pid) or ''}"
    return path.with_name(f".{path.stem}.{process}-{uuid.uuid4().hex[:8]}.part{path.suffix}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write a file to; renamed to `path` when the block ends well, removed when it does not.

    Raises CardiumError where the disk, a limit or a permission forbids it, in this function or in the block.
    """
    with refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _part_of(path)
        try:
            yield part
            _rename(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """As `replacing`, for a folder: whatever stood at `path` is replaced as a whole when the block ends well."""
    with refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _part_of(path)
        part.mkdir()
        try:
            yield part
            # After it, `part` is the old one.
            if not (path.is_dir() and _exchange(part, path)):
                _replace_in_two_steps(part, path)
        finally:
            _remove(part)


def _exchange(one: Path, other: Path) -> bool:
    """Lets two folders change places at once; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or an old C library
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


def _replace_in_two_steps(part: Path, path: Path) -> None:
    """Renames `part` to `path`. Killed between the steps it leaves a link to where the old one belongs, for `_sweep`."""
    old = _out_of_the_way(path, part)
    try:
        _rename(part, path)
    except BaseException:
        if old.exists() and not path.exists():
            old.replace(path)
        raise
    finally:
        if path.exists():
            _remove(old)
            _remove(_home_of(old))


def _home_of(old: Path) -> Path:
    return old.with_name(old.name + _HOME)


def cannot_write(error: OSError, path: Path, then: str = "run the same command again") -> CardiumError | None:
    """The one line for an error of a write to `path` that a user can mend; None for any other error.

    then: what to do once it is mended.
    """
    number = error.errno
    if number is None:  # h5py's and numpy's
        said = _NUMBER.search(str(error))
        number = int(said.group(1)) if said else errno.ENOSPC if _SHORT.search(str(error)) else None
    if number not in _MENDED_BY:
        return None
    place = path if error.filename is None or number == errno.ENOSPC else error.filename
    # It may be a file that the block reads.
    what = "read or written" if number in (errno.EACCES, errno.EPERM) else "written"
    return CardiumError(f"{place} cannot be {what} ({os.strerror(number)}): {_MENDED_BY[number]}, then {then}.")


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turns what the disk, a limit or a permission refuses in the block, which writes to `path`, into one line."""
    try:
        yield
    except OSError as error:
        told = cannot_write(error, path)
        if told is None:
            raise
        raise told from error


def preallocated(path: Path, offset: int = 0, size: int = -1) -> None:
    """Has the disk keep room for `size` bytes of a file from `offset` on (default: all of it).

    A full disk under a memory map ends the process by SIGBUS, with no word. Here it is a CardiumError.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    size = path.stat().st_size - offset if size < 0 else size
    if size:
        with refusals(path), path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), offset, size)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON in its own key order, with a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _out_of_the_way(path: Path, part: Path) -> Path:
    """Renames what stands at `path` to a temporary name: beside `part`, or beside itself where that is another mount's."""
    old = part.with_name(beside(path).name)
    if path.exists():
        try:
            _home_of(old).symlink_to(path.absolute())
            path.replace(old)
        except OSError as error:
            _remove(_home_of(old))
            if error.errno != errno.EXDEV:
                raise
            old = beside(path)
            _home_of(old).symlink_to(path.absolute())
            path.replace(old)
    return old


def _part_of(path: Path) -> Path:
    """A temporary name for `path`: in the project's .cardium/parts/ if a rename from there is atomic, otherwise beside it."""
    _sweep(path.parent)
    parts = _parts(path.parent.absolute())
    if parts is None:
        return beside(path)
    _sweep(parts)
    return beside(parts / path.name)


def _parts(folder: Path) -> Path | None:
    """.cardium/parts/ of the project around `folder`, made if missing; None without one that is on the folder's device."""
    for root in (folder, *folder.parents):
        if (root / "params.yaml").is_file() and (root / "dvc.yaml").is_file():
            parts = root / ".cardium" / "parts"
            try:
                parts.mkdir(parents=True, exist_ok=True)
                usable = parts.stat().st_dev == folder.stat().st_dev and os.access(parts, os.W_OK | os.X_OK)
            except OSError:
                return None
            return parts if usable else None
    return None


def _rename(part: Path, path: Path) -> None:
    """Renames `part` to `path`, by way of a copy beside `path` where they are of two mounts of one device."""
    try:
        part.replace(path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        near = beside(path)
        try:
            if part.is_dir():
                shutil.copytree(part, near)
            else:
                shutil.copy2(part, near)
            near.replace(path)
        finally:
            _remove(near)


def _sweep(folder: Path) -> None:
    """Removes the temporary files and folders in `folder` whose process is gone, once a process."""
    done = (os.getpid(), folder.absolute())
    if done in _swept:
        return
    _swept.add(done)
    with contextlib.suppress(OSError):
        left = [entry for entry in folder.iterdir() if _is_left_behind(entry)]
        for entry in left:
            _bring_home(entry)
        for entry in left:
            _remove(entry)


def _bring_home(entry: Path) -> None:
    """Puts an old folder back that a process moved away and was killed before it had the new one in its place."""
    if entry.name.endswith(_HOME) and entry.is_symlink():
        home, old = entry.readlink(), entry.with_name(entry.name.removesuffix(_HOME))
        if old.exists() and not home.exists():
            old.replace(home)


def _is_left_behind(entry: Path) -> bool:
    from cardium.parallel import started

    found = _PART.fullmatch(entry.name)
    if found is None:
        return False
    machine, pid, start = found.groups()
    if machine == _machine():
        return started(int(pid)) != start
    # Of another machine or container that shares this folder, or of a version that did not write its process down.
    with contextlib.suppress(OSError):
        return time.time() - entry.lstat().st_mtime > _LEFT_BEHIND_SECONDS
    return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@functools.cache
def _machine() -> str:
    """Six hex digits for where a pid means something: this machine, and in it this container."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:6]
