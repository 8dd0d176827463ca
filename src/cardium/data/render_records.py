"""Renders the records of a folder, each once and in row order, into a folder that rendering.py reads.

    pixels.npy    uint8 (N, ...), to be memory-mapped by its readers
    quality.csv   record, path, layout, confidence, warnings: the renderer's findings on each ECG sheet, heart or volume
    render.json   kind, size, the manifest's hash and the pixels' own

pixels.npy is written as a stream (header, then chunk after chunk), not through a memory map, whose dirty pages would count as
this process' memory: the memory that it takes does not depend on N.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cardium import atomic
from cardium.errors import CardiumError, harmless_cell
from cardium.imaging.decode import Undecodable
from cardium.imaging.kinds import Rendered, of_patients, of_sheets, of_volumes
from cardium.imaging.render import render_file, shape_of
from cardium.imaging.spec import Limits, Render
from cardium.imaging.study import StudyFile, render_study
from cardium.parallel import in_chunks
from cardium.progress import progress
from cardium.provenance import made_by

_CHUNK = 32
# A sheet takes as long as many images: its layout has to be found.
_CHUNK_OF_SHEETS = 8

_LIBRARIES = ("nibabel", "numpy", "pillow", "pydicom", "scipy")


class Record(NamedTuple):
    """A file to render: its path below the folder, and the hash of its bytes."""

    path: str
    sha256: str


class StudyRecord(NamedTuple):
    """All files of a patient, rendered into one row: the patient, a hash of all, (path, sha256, series) of each in order."""

    path: str
    sha256: str
    files: tuple[tuple[str, str, str], ...]


# What becomes one row.
Rendering = Record | StudyRecord


@dataclass(frozen=True)
class RenderJob:
    """How the records of a folder are rendered; picklable, for worker processes.

    where: the folder's name in messages, such as `data/ecg4`. again: what a user does about a file that changed, for messages.
    """

    where: str
    again: str
    folder: Path
    kind: str
    size: Render
    limits: Limits


def render_records(job: RenderJob, records: Sequence[Rendering], manifest_hash: str, out: Path) -> Counter[str]:
    """Renders `records` into the folder `out`, whole or not at all; see `write_rendering`."""
    with atomic.replacing_folder(out) as part:
        return write_rendering(job, records, manifest_hash, part)


def write_rendering(job: RenderJob, records: Sequence[Rendering], manifest_hash: str, folder: Path) -> Counter[str]:
    """Writes pixels.npy, quality.csv and render.json of `records` into `folder`. Returns how often each warning was given.

    Copies, records of one hash, are rendered once. Raises CardiumError for a file that cannot be read or has changed.
    """
    shape = (len(records), *shape_of(job.kind, job.size))
    digest = hashlib.sha256()
    warned: Counter[str] = Counter()
    with (
        (folder / "pixels.npy").open("w+b") as file,
        (folder / "quality.csv").open("w", newline="", encoding="utf-8") as table,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["record", "path", "layout", "confidence", "warnings"])
        size, few = _chunks(job)
        first: dict[str, Rendering] = {}
        for record in records:
            first.setdefault(record.sha256, record)
        chunks = in_chunks(functools.partial(render_chunk, job), list(first.values()), size, **few)
        written = _write_rows(file, digest, records, (one for _, rendered in chunks for one in rendered))
        for number, (record, quality) in enumerate(progress(written, total=len(records), desc="prepare", unit="image")):
            layout, confidence, warnings = quality
            writer.writerow([number, harmless_cell(record.path), layout, f"{confidence:.3f}", "; ".join(warnings)])
            warned.update(warnings)
    about = {"kind": job.kind, **job.size.as_dict()}
    hashes = {"manifest_sha256": manifest_hash, "pixels_sha256": digest.hexdigest()}
    atomic.write_json(folder / "render.json", {**about, **hashes})
    return warned


def renderer() -> dict[str, str]:
    """The code and the libraries that render: a rendering that no stage of the pipeline watches is kept with them."""
    return made_by("imaging", "data/render_records.py", libraries=_LIBRARIES)


def render_chunk(job: RenderJob, records: Sequence[Rendering]) -> list[Rendered]:
    """Renders some records. Runs in a worker process."""
    return [render_record(job, record) for record in records]


def render_record(job: RenderJob, record: Rendering) -> Rendered:
    """Renders one record. Raises CardiumError if its file cannot be read or decoded, or has another hash."""
    try:
        if isinstance(record, StudyRecord):
            files = [StudyFile(path, _read(job, path, sha256), series) for path, sha256, series in record.files]
            return render_study(files, job.limits)
        return render_file(_read(job, record.path, record.sha256), job.kind, job.size, job.limits)
    except Undecodable as error:  # The limits in params.yaml were lowered since ingest.
        raise CardiumError(f"{job.where}/{record.path}: {error}: {job.again}.") from None


def check_record(job: RenderJob, record: Rendering) -> None:
    """Raises CardiumError if a file of the record cannot be read or has another hash."""
    files = record.files if isinstance(record, StudyRecord) else [record]
    for path, sha256, *_ in files:
        _read(job, path, sha256)


def _read(job: RenderJob, path: str, sha256: str) -> bytes:
    try:
        data = (job.folder / path).read_bytes()
    except OSError as error:
        raise CardiumError(f"{job.where}/{path} cannot be read ({error.strerror}): {job.again}.") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CardiumError(f"{job.where}/{path} has changed since ingest: {job.again}.")
    return data


def _chunks(job: RenderJob) -> tuple[int, dict[str, int]]:
    """Records to a chunk, and the number of records from which on processes are started: the slower a record, the fewer."""
    if of_volumes(job.kind) or of_patients(job.kind):
        return 1, {"few": 2}
    if of_sheets(job.kind, job.size.area):
        return _CHUNK_OF_SHEETS, {"few": 4 * _CHUNK_OF_SHEETS}
    return _CHUNK, {}


def _write_rows(
    file: BinaryIO, digest: Any, records: Sequence[Rendering], rendered: Iterator[Rendered]
) -> Iterator[tuple[Rendering, tuple[str, float, tuple[str, ...]]]]:
    """Writes each record's pixels and then yields it with its (layout, confidence, warnings).

    rendered: one array a hash, in the order of the hashes' first records.
    """
    begin = file.tell()
    row_of: dict[str, int] = {}
    qualities: list[tuple[str, float, tuple[str, ...]]] = []
    for number, record in enumerate(records):
        original = row_of.get(record.sha256)
        if original is None:
            row_of[record.sha256] = number
            one = next(rendered)
            data = one.array.tobytes()
            qualities.append((one.layout, one.confidence, one.warnings))
        else:
            # The first one's row is in the file already: nothing is kept in memory for copies.
            file.seek(begin + original * len(data))
            data = file.read(len(data))
            file.seek(0, 2)
            qualities.append(qualities[original])
        file.write(data)
        digest.update(data)
        yield record, qualities[-1]
