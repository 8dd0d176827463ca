"""Walks a collection's folder, and marks the files that no collection can use: files of the operating system, links to
elsewhere, named pipes, names that are not valid text.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
_DIGITS = re.compile(r"[0-9]+")
# Largest number that a column of a manifest holds.
_MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True)
class Entry:
    """A file below a collection's folder, or a folder below it that cannot be read.

    folders: from the collection's folder down. name: of the file; "" for an unreadable folder itself. litter: why the file was
    never meant as an image, "" otherwise. fault: why it cannot be opened, "" otherwise.
    """

    folders: tuple[str, ...]
    name: str
    litter: str = ""
    fault: str = ""

    @property
    def path(self) -> str:
        """The path below the collection's folder, with /; bytes that are not valid Unicode are escaped."""
        return _shown("/".join((*self.folders, self.name) if self.name else self.folders))


def walk(folder: Path) -> Iterator[Entry]:
    """Yields every file below `folder` in natural order (IM2 before IM10), without opening it or following links to folders."""
    real = folder.resolve()
    # DVC may keep the data as links into its cache, which belongs to the project as data/ does.
    homes = [real, *(cache for parent in real.parents if (cache := parent / ".dvc" / "cache").is_dir())]
    yield from _walk(folder, (), homes)


def _walk(folder: Path, above: tuple[str, ...], homes: list[Path]) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: natural(entry.name))
    except OSError as error:
        yield Entry(above, "", fault=f"folder cannot be read: {error.strerror}")
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), (*above, entry.name), homes)
        elif litter := _litter((*above, entry.name)):
            yield Entry(above, entry.name, litter=litter)
        else:
            yield Entry(above, entry.name, fault=_fault((*above, entry.name), Path(entry.path), homes))


def _litter(parts: tuple[str, ...]) -> str:
    """Why a file is an operating system's or an archiver's, or ""; such a file is not a lost image of a class."""
    if "__MACOSX" in parts:
        return "system file"
    if any(part.startswith(".") for part in parts):
        return "hidden file"
    return "system file" if parts[-1].lower() in _SYSTEM_FILES else ""


def _fault(parts: tuple[str, ...], file: Path, homes: list[Path]) -> str:
    """Why `file` must not be opened, or "". A named pipe would hang its reader; a link may lead anywhere."""
    path = "/".join(parts)
    if _shown(path) != path:
        return "file name is not valid Unicode"
    try:
        if file.is_symlink():
            target = file.resolve(strict=True)
            if not any(target.is_relative_to(home) for home in homes):
                return "link out of the data folder"
        kind = file.stat().st_mode
    except (OSError, RuntimeError):  # RuntimeError: a loop of links.
        return "broken link" if file.is_symlink() else "cannot be read"
    if stat.S_ISDIR(kind):
        return "link to a folder"
    return "" if stat.S_ISREG(kind) else "not a regular file"


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key that compares numbers as numbers: IM2 < IM10. The name itself decides ties (IM1 and IM01)."""
    pieces = re.split(r"([0-9]+)", name)
    return (*((0, int(piece)) if piece.isdigit() and piece.isascii() else (1, piece) for piece in pieces), (1, name))


def last_number(text: str) -> int:
    """The last number in `text`; -1 for none, and for a number too large for a column."""
    numbers = _DIGITS.findall(text)
    number = int(numbers[-1]) if numbers else -1
    return number if number <= _MAX_NUMBER else -1


def _shown(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
