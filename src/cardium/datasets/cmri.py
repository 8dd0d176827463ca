"""System 000's collection, the CAD Cardiac MRI Dataset: how `{Normal,Sick}/Directory_<patient>/<series>/IM00001.jpg`
becomes records.

The class is the folder named Normal or Sick, in any case and below any wrapper folders. Below it the layout may be nested as
published, nested deeper, or flattened into the class folder with the folders' names in the file name.

A patient is `<class>/Directory_<n>`: the class is part of the key because the publisher numbers the folders of both classes and
nothing says that a number occurs only once; joining two strangers would tie their classes together. Should one person's images
really stand under both classes, the identical files among them join the two patients into one group (manifest.py). A file
whose place tells no patient has none: guessing one from a bare name could tear a real patient apart or glue strangers together.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from cardium.datasets import Collection, Found, Rejected

CLASSES = ("Normal", "Sick")

_BY_LOWER = {name.lower(): name for name in CLASSES}
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
_DIRECTORY = re.compile(r"directory[ _-]?0*([0-9]+)", re.IGNORECASE)
_SERIES = re.compile(r"(?:series|sr)[ _-]?[0-9]+", re.IGNORECASE)
_IMAGE = re.compile(r"im(?:age|g)?[ _-]?[0-9]+", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]+")
_MAX_FRAME = 2**63 - 1


def scan(folder: Path) -> Iterator[Found | Rejected]:
    """Every file below `folder`, in natural order (IM2 before IM10); see Collection.scan. Links to folders are not followed."""
    real = folder.resolve()
    # DVC may keep the data as links into its cache, which is as much the project's own as data/ is.
    homes = [real, *(cache for parent in real.parents if (cache := parent / ".dvc" / "cache").is_dir())]
    yield from _scan(folder, (), homes)


def _scan(folder: Path, above: tuple[str, ...], homes: list[Path]) -> Iterator[Found | Rejected]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: natural(entry.name))
    except OSError as error:
        yield Rejected(_shown("/".join(above)), _label(above) or "", f"folder cannot be read: {error.strerror}")
        return
    for entry in entries:
        parts = (*above, entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from _scan(Path(entry.path), parts, homes)
        else:
            yield _judge(parts, Path(entry.path), homes)


def _judge(parts: tuple[str, ...], file: Path, homes: list[Path]) -> Found | Rejected:
    path = "/".join(parts)
    label = _label(parts[:-1])
    # What an operating system or an archiver leaves is no lost image of the class: no label.
    if "__MACOSX" in parts:
        return Rejected(_shown(path), "", "system file")
    if any(part.startswith(".") for part in parts):
        return Rejected(_shown(path), "", "hidden file")
    if parts[-1].lower() in _SYSTEM_FILES:
        return Rejected(_shown(path), "", "system file")
    if label is None:
        return Rejected(_shown(path), "", f"outside of a class folder: neither {' nor '.join(CLASSES)} is above it")
    if label == "":
        return Rejected(_shown(path), "", "inside folders of two classes")
    if _shown(path) != path:
        return Rejected(_shown(path), label, "file name is not valid Unicode")
    if reason := _no_file(file, homes):
        return Rejected(path, label, reason)
    patient, series = _place(_below_class(parts), label)
    return Found(path, label, patient, series, frame_number(parts[-1]))


def _label(folders: tuple[str, ...]) -> str | None:
    """The class whose folder is among `folders`; None for no class, "" for two."""
    found = {_BY_LOWER[part.lower()] for part in folders if part.lower() in _BY_LOWER}
    return None if not found else found.pop() if len(found) == 1 else ""


def _below_class(parts: tuple[str, ...]) -> tuple[str, ...]:
    """What stands below the innermost class folder; the last part is the file's name."""
    last = max(i for i, part in enumerate(parts[:-1]) if part.lower() in _BY_LOWER)
    return parts[last + 1 :]


def _no_file(file: Path, homes: list[Path]) -> str:
    """Why `file` is nothing to open, or "". A named pipe would hang its reader; a link may lead anywhere."""
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


def _place(below: tuple[str, ...], label: str) -> tuple[str, str]:
    """(patient, series) of a file from its folders below the class folder, or from its name where it has none of them."""
    folders, name = below[:-1], below[-1]
    for i, part in enumerate(folders):
        if match := _DIRECTORY.fullmatch(part):
            return f"{label}/Directory_{match[1]}", "/".join(folders[i + 1 :]) or _series_in(name)
    if match := _DIRECTORY.search(name):
        return f"{label}/Directory_{match[1]}", "/".join(folders) or _series_in(name)
    # Another naming in the published nesting, <patient>/<series>/<file>: one level alone may be a patient's or a series'.
    if len(folders) >= 2 and not _SERIES.fullmatch(folders[0]):
        return f"{label}/{folders[0]}", "/".join(folders[1:])
    return "", "/".join(folders) or _series_in(name)


def _series_in(name: str) -> str:
    match = _SERIES.search(_DIRECTORY.sub(" ", name))
    return match[0] if match else ""


def frame_number(name: str) -> int:
    """The number of an image within its series: IM00012.jpg -> 12; otherwise the name's last number; -1 without one."""
    stem = name.rpartition(".")[0] or name
    named = _IMAGE.findall(stem)
    numbers = _DIGITS.findall(named[-1] if named else stem)
    # In `IM-0001-0087` the image's number is the last, not the one beside IM.
    if named and (rest := _DIGITS.findall(stem.rpartition(named[-1])[2])):
        numbers = rest
    number = int(numbers[-1]) if numbers else -1
    return number if number <= _MAX_FRAME else -1


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key in which numbers count as numbers: IM2 < IM10. The name itself settles ties (IM1 and IM01)."""
    pieces = re.split(r"([0-9]+)", name)
    return (*((0, int(piece)) if piece.isdigit() and piece.isascii() else (1, piece) for piece in pieces), (1, name))


def _shown(path: str) -> str:
    """`path` in a form that every file can hold: bytes of a name that are no Unicode as escapes."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


COLLECTION = Collection(
    name="cmri",
    title="CAD Cardiac MRI Dataset: short-axis cine images of 30 patients, Normal or Sick",
    classes=CLASSES,
    published_counts={"Normal": 37_564, "Sick": 25_861},
    page="https://www.kaggle.com/datasets/danialsharifrazi/cad-cardiac-mri-dataset",
    licence="as its Kaggle page states it; cardium passes none of its images on",
    scan=scan,
    handle="danialsharifrazi/cad-cardiac-mri-dataset",
)
