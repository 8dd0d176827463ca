"""A collection of one's own from a table: data/<name>/records.csv names each file, its class, its patient and its series.

    path,label,patient,series
    a/0001.png,Normal,p17,cine

`path` is below data/<name>, with /. `patient` and `series` may be missing; without `patient` only identical files are a group.
Other columns are left alone. Each file that the table names is a record; files that it does not name are rejected, and counted.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from cardium.datasets.collection import Collection, Found, Rejected
from cardium.datasets.scan import last_number, natural, walk
from cardium.errors import CardiumError, closest, first_line

RECORDS = "records.csv"
Content = Literal["image", "sheet", "volume"]
# The model to begin with, where none is named.
_RECOMMENDED = {"image": "mobilenetv2", "sheet": "traces_net", "volume": "mobilenetv2_lstm"}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Row(NamedTuple):
    """A line of the table. patient, series: "" where it names none."""

    path: str
    label: str
    patient: str
    series: str


def table_collection(
    name: str, folder: Path, classes: Sequence[str], content: Content = "image", title: str = "", recommended: str = ""
) -> Collection:
    """The collection of `folder`/records.csv. classes: in class order; none: the table's labels in natural order.

    Without a table that can be read it has the classes that are given, and `scan` says what is wrong. Raises CardiumError for a
    name that cannot stand in the names of runs.
    """
    if not _NAME.fullmatch(name):
        raise CardiumError(f"params.yaml: a dataset cannot be called `{name}`: use lower-case letters, digits and _.")
    labels, patients = _told(folder / RECORDS, _stamp(folder / RECORDS))
    return Collection(
        name=name,
        title=title or f"{name}, a collection of one's own",
        classes=tuple(classes) or labels,
        published_counts={},
        page=f"docs/own_data.md (data/{name}/{RECORDS})",
        licence="its owner's",
        scan=partial(scan, dataset=name, classes=tuple(classes)),
        published_split="first_fifth",
        recommended=recommended or _RECOMMENDED[content],
        content=content,
        names_patients=patients,
        patients_by=f"fill the column `patient` of {RECORDS}",
        order=200,
    )


def scan(folder: Path, dataset: str, classes: Sequence[str]) -> Iterator[Found | Rejected]:
    """Yields the table's files in its order, then the others; see Collection.scan.

    classes: those that are allowed; (): any. Raises CardiumError for a table that is missing, damaged, of one class, or that
    names a class that is not allowed, or one path twice.
    """
    rows = read_table(folder / RECORDS)
    known = list(classes) or sorted({row.label for row in rows}, key=natural)
    if len(known) < 2:
        raise CardiumError(f"data/{dataset}/{RECORDS} has one class, {known[0]}: a classifier needs two.")
    entries = {entry.path: entry for entry in walk(folder)}
    seen: set[str] = set()
    for line, row in enumerate(rows, start=2):
        where = f"data/{dataset}/{RECORDS}, line {line}"
        if row.label not in known:
            raise CardiumError(
                f"{where}: unknown class `{row.label}`.{closest(row.label, known)} The classes are {', '.join(known)} "
                f"(params.yaml, collections.{dataset}.classes)."
            )
        if row.path in seen:
            raise CardiumError(f"{where}: {row.path} stands there twice: a file is one record.")
        seen.add(row.path)
        entry = entries.get(row.path)
        if entry is None or not entry.name:
            yield Rejected(row.path, row.label, "in the table, and no file")
        elif entry.litter or entry.fault:
            yield Rejected(row.path, row.label, entry.litter or entry.fault)
        else:
            stem = entry.name.rpartition(".")[0] or entry.name
            yield Found(row.path, row.label, row.patient, row.series, last_number(stem))
    for path, entry in entries.items():
        if path not in seen and path != RECORDS:
            yield Rejected(path, "", entry.litter or entry.fault or "not in the table", entry.files)


def read_table(path: Path) -> list[Row]:
    """The rows of a table. Raises CardiumError in one line that names the line."""
    where = f"data/{path.parent.name}/{path.name}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            for column in ("path", "label"):
                if header.count(column) != 1:
                    fault = "no column" if column not in header else "two columns"
                    raise CardiumError(f"{where} has {fault} `{column}`: its first line is path,label,patient,series.")
            rows = [_row(header, cells, f"{where}, line {reader.line_num}") for cells in reader if any(cells)]
    except FileNotFoundError:
        raise CardiumError(f"There is no {where}: write it with the columns path,label,patient,series.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CardiumError(f"{where} cannot be read as CSV in UTF-8: {first_line(error)}.") from None
    if not rows:
        raise CardiumError(f"{where} has no rows: it names a file a line, path,label,patient,series.")
    return rows


def _row(header: Sequence[str], cells: Sequence[str], where: str) -> Row:
    if len(cells) != len(header):
        raise CardiumError(f"{where}: {len(cells)} values for {len(header)} columns: quote values that hold a comma.")
    values = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    for column in ("path", "label"):
        if not values[column]:
            raise CardiumError(f"{where}: `{column}` is empty.")
    path = PurePosixPath(values["path"])
    if path.is_absolute() or ".." in path.parts or "\\" in values["path"]:
        raise CardiumError(f"{where}: `{values['path']}` is no path below the table's folder, with / between its parts.")
    return Row(path.as_posix(), values["label"], values.get("patient", ""), values.get("series", ""))


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when a file does; (-1, -1) without one."""
    try:
        about = path.stat()
    except OSError:
        return -1, -1
    return about.st_size, about.st_mtime_ns


@functools.lru_cache(maxsize=8)
def _told(path: Path, _: tuple[int, int]) -> tuple[tuple[str, ...], bool]:
    """The labels of a table in natural order, and whether it names a patient; none where it cannot be read."""
    try:
        rows = read_table(path)
    except CardiumError:
        return (), False
    return tuple(sorted({row.label for row in rows}, key=natural)), any(row.patient for row in rows)
