"""System 000's collection, the CAD Cardiac MRI Dataset: `{Normal,Sick}/Directory_<patient>/<series>/IM00001.jpg`.

The class is the folder named Normal or Sick, in any case and below any wrapper folders. Below it the layout may be nested as
published, nested deeper, or flattened into the class folder with the folders' names in the file name.

A patient is `<class>/Directory_<n>`. The class is part of the key because the publisher numbers the folders of both classes and
a number may occur in both; joining two strangers would tie their classes together. If one person's images are filed under both
classes, the identical files among them join the two patients into one group (manifest.py). Under another naming the outermost
folder below the class is the patient's, unless it is called as a series is. A file whose path names no patient has none:
guessing one from a bare file name could split a real patient or join strangers; `ingest` stops over more than a few of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cardium.datasets.collection import Collection, Found, Rejected
from cardium.datasets.scan import Entry, check_folders, last_number, prefixes, walk

CLASSES = ("Normal", "Sick")

_BY_LOWER = {name.lower(): name for name in CLASSES}
_DIRECTORY = re.compile(r"directory[ _-]?0*([0-9]+)", re.IGNORECASE)
# A second folder of a patient: `Directory_3 (2)`, `Directory_3 - Copy`.
_DIRECTORY_AND_MORE = re.compile(rf"{_DIRECTORY.pattern}(?![0-9]).*", re.IGNORECASE | re.DOTALL)
_SERIES = re.compile(r"(?:series|sr)[ _-]?[0-9]+", re.IGNORECASE)
_SLICE = re.compile(r"(?:se|slice|sax|loc|level)[ _-]?[0-9]+", re.IGNORECASE)
_IMAGE = re.compile(r"im(?:age|g)?[ _-]?[0-9]+", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]+")


def scan(folder: Path) -> Iterator[Found | Rejected]:
    """Scans `folder` in natural order; see Collection.scan.

    Raises CardiumError for a folder of images beside the class folders that is none.
    """
    entries = list(walk(folder))
    folders = {part for entry in entries if not entry.litter for _, part in prefixes(entry.folders)}
    labels = {part: _BY_LOWER.get(part[-1].lower(), "") for part in folders}
    if any(labels.values()):
        check_folders(entries, labels, "cmri", ", ".join(CLASSES))
    yield from map(_judge, entries)


def _judge(entry: Entry) -> Found | Rejected:
    label = _label(entry.folders)
    if entry.litter or not entry.name:
        return Rejected(entry.path, "" if entry.litter else label or "", entry.litter or entry.fault, entry.files)
    if label is None:
        return Rejected(entry.path, "", f"outside of a class folder: neither {' nor '.join(CLASSES)} is above it")
    if label == "":
        return Rejected(entry.path, "", "inside folders of two classes")
    if entry.fault:
        return Rejected(entry.path, label, entry.fault)
    patient, series = _place(_below_class((*entry.folders, entry.name)), label)
    return Found(entry.path, label, patient, series, frame_number(entry.name))


def _label(folders: tuple[str, ...]) -> str | None:
    """The class whose folder is among `folders`; None for no class, "" for two."""
    found = {_BY_LOWER[part.lower()] for part in folders if part.lower() in _BY_LOWER}
    return None if not found else found.pop() if len(found) == 1 else ""


def _below_class(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The parts below the innermost class folder; the last one is the file's name."""
    last = max(i for i, part in enumerate(parts[:-1]) if part.lower() in _BY_LOWER)
    return parts[last + 1 :]


def _place(below: tuple[str, ...], label: str) -> tuple[str, str]:
    """(patient, series) of a file, from its folders below the class folder, or from its name if it has no such folders."""
    folders, name = below[:-1], below[-1]
    for i, part in enumerate(folders):
        if match := _DIRECTORY_AND_MORE.fullmatch(part):
            return f"{label}/Directory_{match[1]}", "/".join(folders[i + 1 :]) or _series_in(name)
    if match := _DIRECTORY.search(name):
        return f"{label}/Directory_{match[1]}", "/".join(folders) or _series_in(name)
    # Another naming in the published nesting: <patient>/<series>/<file>, or <patient>/<file>.
    if folders and not is_series(folders[0]):
        return f"{label}/{folders[0]}", "/".join(folders[1:]) or _series_in(name)
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
    return last_number(numbers[-1]) if numbers else -1


def is_series(folder: str) -> bool:
    """Whether a folder's name is that of a series or a slice, not of a patient: SR_12, series 3, slice-04."""
    return bool(_SERIES.fullmatch(folder) or _SLICE.fullmatch(folder))


def series_of(path: str) -> str:
    """The series of a file of one patient: its folders, or what its name says in none; "" where neither names one."""
    folder, _, name = path.rpartition("/")
    return folder or _series_in(name)


def patient_folder(path: str) -> str:
    """The part of a folder's path that names one patient, down to `Directory_<n>`; "" where none does.

    What follows the number, as in `Directory_3 (2)`, is left out: that is a second folder of the same patient.
    """
    parts = path.split("/")
    for at, part in enumerate(parts):
        if match := _DIRECTORY_AND_MORE.fullmatch(part):
            return "/".join([*parts[:at], part[: match.end(1)]])
    return ""


def patient_prefix(name: str) -> str:
    """What an image's name begins with, before its series and its number: SC-HF-I-09-IM-0001-0087.png -> SC-HF-I-09; or ""."""
    before = _IMAGE.split(_SERIES.sub("", name), maxsplit=1)
    return before[0].strip(" _-") if len(before) > 1 else ""


COLLECTIONS = {
    "cmri": Collection(
        name="cmri",
        title="CAD Cardiac MRI Dataset: short-axis cine images of 30 patients, Normal or Sick",
        classes=CLASSES,
        published_counts={"Normal": 37_564, "Sick": 25_861},
        page="https://www.kaggle.com/datasets/danialsharifrazi/cad-cardiac-mri-dataset",
        licence="as its Kaggle page states it; cardium passes none of its images on",
        scan=scan,
        published_split="first_fifth",
        recommended="cine_net",
        handle="danialsharifrazi/cad-cardiac-mri-dataset",
        demo="cardium.demo.cmri:DEMO",
        order=1,
    )
}
