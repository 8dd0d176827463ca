"""Walks a collection's folder, and marks the files that no collection can use: files of the operating system, links to
elsewhere, named pipes, names that are not valid text. A folder that cannot be walked is lost with the files that it holds.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardium.errors import CardiumError

_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "lost+found", "System Volume Information", "$RECYCLE.BIN"}
_IMAGES = (".jpg", ".jpeg", ".png", ".dcm", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pdf")
# What a link out of the data folder is counted up to.
_MOST_FILES = 1_000_000
UNKNOWN = -1
_DIGITS = re.compile(r"[0-9]+")
# Largest number that a column of a manifest holds.
_MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True)
class Entry:
    """A file below a collection's folder, or a folder below it that is not walked.

    folders: from the collection's folder down. name: of the file; "" for such a folder itself. litter: why the file was
    never meant as an image, "" otherwise. fault: why it cannot be opened, "" otherwise. files: how many it stands for; of a
    folder those that it holds, UNKNOWN where nobody can tell, 0 where they are read in another place.
    """

    folders: tuple[str, ...]
    name: str
    litter: str = ""
    fault: str = ""
    files: int = 1

    @property
    def path(self) -> str:
        """The path below the collection's folder, with /; bytes that are not valid Unicode are escaped."""
        return _shown("/".join((*self.folders, self.name) if self.name else self.folders))


def walk(folder: Path) -> Iterator[Entry]:
    """Yields every file below `folder` in natural order (IM2 before IM10), without opening it or following links to folders."""
    yield from _walk(folder, (), _Homes(folder))


class _Homes:
    """Where a link of the data may lead: the data folder itself, and DVC's cache, which belongs to the project as data/ does.

    The cache may be one that several projects share, as the configuration of DVC says; that is read when a link leads out.
    """

    def __init__(self, folder: Path) -> None:
        self.data = folder.resolve()
        self._caches: list[Path] | None = None

    def hold(self, target: Path) -> bool:
        """Whether the real path `target` lies in one of them."""
        if target.is_relative_to(self.data):
            return True
        if self._caches is None:
            projects = [parent / ".dvc" for parent in self.data.parents if (parent / ".dvc").is_dir()]
            self._caches = [cache for project in projects for cache in _caches(project)]
        return any(target.is_relative_to(cache) for cache in self._caches)


def _caches(project: Path) -> list[Path]:
    """The folders of DVC's cache, of the project whose .dvc/ is `project`."""
    found = [(project / "cache").resolve()]
    try:
        from dvc.config import Config, ConfigError
    except ImportError:
        return found
    try:
        given = Config(str(project), validate=False).get("cache", {}).get("dir")
    except (ConfigError, OSError):
        return found
    return [*found, (project / str(given)).resolve()] if given else found


def _walk(folder: Path, above: tuple[str, ...], homes: _Homes) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: natural(entry.name))
    except OSError as error:
        litter = _litter(above)
        fault = "" if litter else f"folder cannot be read: {error.strerror}"
        yield Entry(above, "", litter=litter, fault=fault, files=0 if litter else UNKNOWN)
        return
    for entry in entries:
        parts = (*above, entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), parts, homes)
        elif litter := _litter(parts):
            yield Entry(above, entry.name, litter=litter)
        else:
            yield _judged(parts, Path(entry.path), homes)


def _litter(parts: tuple[str, ...]) -> str:
    """Why a file is an operating system's or an archiver's, or ""; such a file is not a lost image of a class."""
    if _SYSTEM_FOLDERS & set(parts):
        return "system file"
    if any(part.startswith(".") for part in parts):
        return "hidden file"
    return "system file" if parts and parts[-1].lower() in _SYSTEM_FILES else ""


def _judged(parts: tuple[str, ...], file: Path, homes: _Homes) -> Entry:
    """The entry of what is no folder itself. A named pipe would hang its reader; a link may lead anywhere."""
    above, name, path = parts[:-1], parts[-1], "/".join(parts)
    if _shown(path) != path:
        return Entry(above, name, fault="file name is not valid Unicode")
    try:
        target = file.resolve(strict=True) if file.is_symlink() else file
        kind = target.stat().st_mode
    except (OSError, RuntimeError):  # RuntimeError: a loop of links.
        if not file.is_symlink():
            return Entry(above, name, fault="cannot be read")
        # Without a suffix it may have been a folder.
        named = any(Path(text).suffix for text in (name, file.readlink()))
        return Entry(above, name, fault="broken link") if named else Entry(parts, "", fault="broken link", files=UNKNOWN)
    out = target is not file and not homes.hold(target)
    if stat.S_ISDIR(kind):
        if not out:
            return Entry(parts, "", fault="link to a folder", files=0 if target.is_relative_to(homes.data) else _count(target))
        return Entry(parts, "", fault="link out of the data folder", files=_count(target))
    if out:
        return Entry(above, name, fault="link out of the data folder")
    return Entry(above, name, fault="" if stat.S_ISREG(kind) else "not a regular file")


def _count(folder: Path) -> int:
    """The files below a folder, but the system's; UNKNOWN where a part of it cannot be read, and for too many."""
    unread: list[OSError] = []
    count = 0
    for place, _, names in os.walk(folder, onerror=unread.append):
        inner = Path(place).relative_to(folder).parts
        count += sum(not _litter((*inner, name)) for name in names)
        if unread or count > _MOST_FILES:
            return UNKNOWN
    return UNKNOWN if unread else count


def check_folders(entries: Sequence[Entry], labels: Mapping[tuple[str, ...], str], dataset: str, known: str) -> None:
    """Raises CardiumError for folders of images beside class folders, or right below data/<dataset>, that name no class.

    A misspelt class, or a second folder of one (`Sick (2)`), would be lost in silence. labels: of every folder, "" for none.
    known: the classes in words.
    """
    holds_class = {part for folder, label in labels.items() if label for _, part in prefixes(folder)}
    depths = {len(folder) for folder, label in labels.items() if label}
    strange: Counter[tuple[str, ...]] = Counter()
    for entry in entries:
        if entry.litter or not entry.files or not (_is_image(entry.name) if entry.name else entry.fault):
            continue
        for depth, part in prefixes(entry.folders):
            innermost = depth == len(entry.folders)
            if part not in holds_class and (depth in depths or (innermost and (depth == 1 or not depths))):
                strange[part] += max(1, entry.files)
                break
            if labels[part]:
                break
    if not strange:
        return
    listed = ", ".join(f"`{'/'.join(folder)}` ({count})" for folder, count in list(strange.items())[:6])
    more = f" and {len(strange) - 6} more" if len(strange) > 6 else ""
    raise CardiumError(
        _shown(
            f"{dataset}: no class is read from the names of the folders (images) {listed}{more}; the classes are {known}:"
            " rename these folders or take them out."
        )
    )


def prefixes(folders: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields (depth, folder) of every folder above a file, the outermost first."""
    return ((depth, folders[:depth]) for depth in range(1, len(folders) + 1))


def _is_image(name: str) -> bool:
    """Whether a file is called as an image is; DICOM files often have a number in place of a suffix."""
    suffix = Path(name).suffix
    return name.lower().endswith(_IMAGES) or ((not suffix or suffix[1:].isdigit()) and bool(_DIGITS.search(name)))


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key that compares numbers as numbers: IM2 < IM10. The name itself decides ties (IM1 and IM01)."""
    pieces = re.split(r"([0-9]+)", name)
    return (*((0, int(piece)) if piece.isdigit() and piece.isascii() else (1, piece) for piece in pieces), (1, name))


def taken_order(series: str, frame: int, name: str) -> tuple[Any, ...]:
    """A sort key that puts the files of one patient into the order in which they were taken."""
    return natural(series), frame, natural(name)


def last_number(text: str) -> int:
    """The last number in `text`; -1 for none, and for a number too large for a column."""
    numbers = _DIGITS.findall(text)
    number = int(numbers[-1]) if numbers else -1
    return number if number <= _MAX_NUMBER else -1


def _shown(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
