"""manifest + data/<dataset> -> processed/<dataset>/<kind>/: every record rendered once, in row order.

    pixels.npy    uint8 (N, ...), to be memory-mapped by its readers
    quality.csv   record, path, layout, confidence, warnings: what the renderer says of each ECG sheet or volume
    render.json   kind, size, the manifest's hash and the pixels' own
    montage.png   of volumes: the first one of each class, as stored and as rendered

pixels.npy is written as a stream (header, then chunk after chunk), not through a memory map, whose dirty pages would count as
this process' memory: the stage's size does not depend on N.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cardium import atomic
from cardium.config import RenderingSpec, Settings
from cardium.data.manifest import manifest_sha256, read_manifest
from cardium.errors import CardiumError, unknown
from cardium.imaging.decode import Undecodable
from cardium.imaging.kinds import Rendered, of_volumes
from cardium.imaging.render import render_file, shape_of
from cardium.imaging.spec import Limits, Render
from cardium.parallel import in_chunks
from cardium.progress import progress
from cardium.workspace import Workspace

_CHUNK = 32
# A sheet takes as long as many images: its layout is looked for.
_CHUNK_OF_SHEETS = 8
_AGAIN = "run `cardium ingest --dataset"

# (path below data/<dataset>, sha256)
Record = tuple[str, str]


@dataclass(frozen=True)
class Work:
    """What a worker needs to render records of a folder. dataset: its name for messages, such as `data/ecg4`."""

    where: str
    again: str
    folder: Path
    kind: str
    size: Render
    limits: Limits


def run(settings: Settings, item: str) -> None:
    """Makes the rendering `item` of the plan."""
    if item not in settings.plan.renderings:
        raise unknown("rendering", item, list(settings.plan.renderings))
    prepare_rendering(settings, settings.plan.renderings[item])


def prepare_rendering(settings: Settings, spec: RenderingSpec) -> None:
    """Renders every record of a dataset into processed/. Raises CardiumError where a file is not the one that ingest hashed."""
    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(spec.dataset))
    size = settings.datasets[spec.dataset].render[spec.kind]
    work = Work(
        where=f"data/{spec.dataset}",
        again=f"{_AGAIN} {spec.dataset}`",
        folder=workspace.data(spec.dataset),
        kind=spec.kind,
        size=size,
        limits=settings.ingest.limits,
    )
    out = workspace.rendering(spec.dataset, spec.kind)
    records = list(zip(manifest["path"], manifest["sha256"], strict=True))
    firsts = manifest.drop_duplicates("label")
    examples = dict(zip(firsts["label"], zip(firsts["path"], firsts["sha256"], strict=True), strict=True))
    warned = render_records(work, records, manifest_sha256(manifest), out, examples)
    shape = " x ".join(map(str, shape_of(spec.kind, size)))
    print(f"rendered {len(records)} records as {spec.kind} of {shape}")
    for words, count in warned.most_common(5):
        print(f"  {count}: {words}")
    print(f"wrote {out.relative_to(settings.root).as_posix()}")


def render_records(
    work: Work, records: Sequence[Record], manifest_hash: str, out: Path, examples: Mapping[str, Record] | None = None
) -> Counter[str]:
    """Renders `records` into the folder `out`, whole or not at all; returns how often each warning was given.

    Copies, records of one hash, are rendered once. examples: name -> volume to show in the montage.
    """
    shape = (len(records), *shape_of(work.kind, work.size))
    digest = hashlib.sha256()
    warned: Counter[str] = Counter()
    with atomic.replacing_folder(out) as part:
        with (
            (part / "pixels.npy").open("w+b") as file,
            (part / "quality.csv").open("w", newline="", encoding="utf-8") as table,
        ):
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            writer = csv.writer(table, lineterminator="\n")
            writer.writerow(["record", "path", "layout", "confidence", "warnings"])
            size, few = _chunks(work)
            first: dict[str, Record] = {}
            for record in records:
                first.setdefault(record[1], record)
            chunks = in_chunks(functools.partial(render_chunk, work), list(first.values()), size, **few)
            written = _written(file, digest, records, (one for _, rendered in chunks for one in rendered))
            for number, ((path, _), said) in enumerate(progress(written, total=len(records), desc="prepare", unit="image")):
                layout, confidence, warnings = said
                writer.writerow([number, path, layout, f"{confidence:.3f}", "; ".join(warnings)])
                warned.update(warnings)
        if examples and of_volumes(work.kind):
            _show(work, examples, part / "montage.png")
        about = {"kind": work.kind, **work.size.as_dict()}
        atomic.write_json(
            part / "render.json", {**about, "manifest_sha256": manifest_hash, "pixels_sha256": digest.hexdigest()}
        )
    return warned


def _show(work: Work, examples: Mapping[str, Record], out: Path) -> None:
    """What windowing and turning do: each volume as stored, black to white its own range, and as its model takes it."""
    from cardium.reporting.plots import montage

    plain = dataclasses.replace(work, size=dataclasses.replace(work.size, order="stored", levels="range", sampling="even"))
    rows = []
    for name, record in sorted(examples.items()):
        rows += [(f"{name}\n{how}", _render(of, record).array) for how, of in (("as stored", plain), ("as rendered", work))]
    montage(rows, out, title=f"{work.where}: {work.kind}")


def _chunks(work: Work) -> tuple[int, dict[str, int]]:
    """Records to a chunk, and below how many no process is started for them: the longer a record takes, the fewer."""
    if of_volumes(work.kind):
        return 1, {"few": 2}
    if work.kind != "image" or work.size.area == "paper":
        return _CHUNK_OF_SHEETS, {"few": 4 * _CHUNK_OF_SHEETS}
    return _CHUNK, {}


def _written(
    file: BinaryIO, digest: Any, records: Sequence[Record], rendered: Iterator[Rendered]
) -> Iterator[tuple[Record, tuple[str, float, tuple[str, ...]]]]:
    """Writes each record's pixels and then yields it with what was said of it. rendered: of each hash, at its first record."""
    begin = file.tell()
    row_of: dict[str, int] = {}
    said: list[tuple[str, float, tuple[str, ...]]] = []
    for number, record in enumerate(records):
        original = row_of.get(record[1])
        if original is None:
            row_of[record[1]] = number
            one = next(rendered)
            data = one.array.tobytes()
            said.append((one.layout, one.confidence, one.warnings))
        else:
            # The first one's row is in the file already: nothing is kept in memory for copies.
            file.seek(begin + original * len(data))
            data = file.read(len(data))
            file.seek(0, 2)
            said.append(said[original])
        file.write(data)
        digest.update(data)
        yield record, said[-1]


def render_chunk(work: Work, records: Sequence[Record]) -> list[Rendered]:
    """Some records, rendered. Runs in a worker process."""
    return [_render(work, record) for record in records]


def _render(work: Work, record: Record) -> Rendered:
    path, sha256 = record
    try:
        data = (work.folder / path).read_bytes()
    except OSError as error:
        raise CardiumError(f"{work.where}/{path} cannot be read ({error.strerror}): {work.again}.") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CardiumError(f"{work.where}/{path} has changed since ingest: {work.again}.")
    try:
        return render_file(data, work.kind, work.size, work.limits)
    except Undecodable as error:  # The limits in params.yaml were lowered since ingest.
        raise CardiumError(f"{work.where}/{path}: {error}: {work.again}.") from None
