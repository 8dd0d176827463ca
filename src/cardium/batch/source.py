"""What is to be scored: a folder, or a table with a column `path` -> items with their sizes and times. No file is opened.

A file's size and time tell whether the answer that an earlier command wrote of it still holds.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cardium.data.studies import is_litter, patients_of_folder
from cardium.errors import CardiumError, first_line, unknown

COLUMN = "path"
_TABLES = (".csv", ".parquet")


class Item(NamedTuple):
    """What has one answer: a file, or a patient of a model of patients.

    path: its name in the answers. files: of a patient, below `base`, a folder below the source's place; () where the path is
    the file. bytes: of all files together; modified: the latest of their times, nanoseconds since 1970.
    Both are -1 where there is none.
    """

    path: str
    files: tuple[str, ...] = ()
    base: str = ""
    bytes: int = -1
    modified: int = -1


@dataclass(frozen=True)
class Source:
    """place: the folder that all paths are below, or its address where Spark reads it. repeated: rows of a table whose path
    stood there before."""

    place: str
    items: list[Item]
    repeated: int = 0


def read_source(given: Path, of_patients: bool) -> Source:
    """The items of a folder (all below it but what systems leave there, in order of their paths) or of a table's column `path`.

    Paths in a table are relative to the table's folder. of_patients: an item is a patient, as `cardium predict` finds them in a
    folder; a zip or a folder in a table. Raises CardiumError for what is neither, for a table without the column, and where
    nothing is found.
    """
    given = given.expanduser()
    if given.is_dir():
        items = list(_patients(given) if of_patients else _files(given, ""))
        if not items:
            raise CardiumError(f"{given} holds no files to score.")
        return Source(str(given.resolve()), items)
    if not given.is_file():
        raise CardiumError(f"There is no {given}: give a folder, or a CSV or Parquet table with a column `{COLUMN}`.")
    if given.suffix.lower() not in _TABLES:
        raise CardiumError(f"{given.name} is no table: give a folder, or a .csv or .parquet file with a column `{COLUMN}`.")
    paths = _column(given)
    distinct = list(dict.fromkeys(paths))
    if not distinct:
        raise CardiumError(f"{given.name} has no rows: there is nothing to score.")
    named = [_patient(given.parent, path) if of_patients else Item(path) for path in distinct]
    return Source(str(given.parent.resolve()), [_measured(given.parent, item) for item in named], len(paths) - len(distinct))


def _files(folder: Path, below: str) -> Iterator[Item]:
    """In order of their paths; a folder that is a link is not entered, a pipe or device no file."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = f"{below}{entry.name}"
        if is_litter(path):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(folder / entry.name, f"{path}/")
        elif entry.is_file():
            about = entry.stat()
            yield Item(path, bytes=about.st_size, modified=about.st_mtime_ns)


def _patients(folder: Path) -> Iterator[Item]:
    for own, paths in patients_of_folder(folder).items():
        yield _measured(folder, Item(own or ".", () if paths == [own] else tuple(paths)))


def _patient(place: Path, path: str) -> Item:
    """The item of a zip, or of a folder that holds one patient."""
    if not (place / path).is_dir():
        return Item(path)
    patients = list(patients_of_folder(place / path).values())
    return Item(path, tuple(patients[0]), path) if len(patients) == 1 else Item(path)


def _measured(place: Path, item: Item) -> Item:
    sizes, times = [], []
    for path in item.files or (item.path,):
        try:
            about = (place / item.base / path).stat()
        except (OSError, ValueError):  # ValueError: a name with a zero byte.
            return item
        if not stat.S_ISREG(about.st_mode):
            return item
        sizes.append(about.st_size)
        times.append(about.st_mtime_ns)
    return item._replace(bytes=sum(sizes), modified=max(times))


def _column(table: Path) -> list[str]:
    import pandas as pd

    try:
        if table.suffix.lower() == ".csv":
            read = pd.read_csv(table, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        else:
            read = pd.read_parquet(table)
    except Exception as error:  # pandas' and pyarrow's are of nearly every type.
        raise CardiumError(f"{table.name} cannot be read as a table: {first_line(error)}.") from None
    if COLUMN not in read:
        raise unknown("column", COLUMN, [str(name) for name in read.columns])
    return _texts(table, read[COLUMN])


def _texts(table: Path, values: Iterable[object]) -> list[str]:
    texts = []
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value:
            raise CardiumError(f"{table.name}: `{COLUMN}` of row {row} is {'empty' if value in ('', None) else 'no text'}.")
        texts.append(value)
    return texts
