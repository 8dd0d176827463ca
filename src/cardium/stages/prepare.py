"""manifest + data/<dataset> -> processed/<dataset>/<kind>/: every record rendered once, in row order (data/render_records.py).

montage.png   of volumes: the first one of each class, as stored and as rendered; of hearts: contours of both moments
measures.csv  of hearts: what was measured of each patient (imaging/heart_format.py)
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cardium import atomic
from cardium.config import RenderingSpec, Settings
from cardium.data.manifest import manifest_sha256, read_manifest
from cardium.data.render_records import Rendering, RenderJob, render_record, write_rendering
from cardium.data.units import unit_records, unit_table
from cardium.errors import unknown
from cardium.imaging.kinds import of_patients, of_volumes
from cardium.imaging.render import shape_of
from cardium.workspace import Workspace

# Patients of a class in the montage.
_DRAWN = 3


def run(settings: Settings, item: str) -> None:
    """Makes the rendering `item` of the plan."""
    if item not in settings.plan.renderings:
        raise unknown("rendering", item, list(settings.plan.renderings))
    prepare_rendering(settings, settings.plan.renderings[item])


def prepare_rendering(settings: Settings, spec: RenderingSpec) -> None:
    """Renders every record of a dataset into processed/. Raises CardiumError for a file that changed since ingest."""
    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(spec.dataset))
    job = RenderJob(
        where=f"data/{spec.dataset}",
        again=f"run `cardium ingest --dataset {spec.dataset}`",
        folder=workspace.data(spec.dataset),
        kind=spec.kind,
        size=settings.datasets[spec.dataset].render[spec.kind],
        limits=settings.limits,
    )
    records, labels = unit_records(manifest, spec.kind), unit_table(manifest, spec.kind)["label"].tolist()
    out = workspace.rendering(spec.dataset, spec.kind)
    with atomic.replacing_folder(out) as folder:
        warned = write_rendering(job, records, manifest_sha256(manifest), folder)
        if of_volumes(job.kind):
            _draw_montage(job, _first_of_each_class(labels, records), folder / "montage.png")
        elif of_patients(job.kind):
            _write_measures(folder, records, labels)
    shape = " x ".join(map(str, shape_of(job.kind, job.size)))
    print(f"rendered {len(records)} {'patients' if of_patients(job.kind) else 'records'} as {job.kind} of {shape}")
    for words, count in warned.most_common(5):
        print(f"  {count}: {words}")
    print(f"wrote {out.relative_to(settings.root).as_posix()}")


def _first_of_each_class(labels: Sequence[str], records: Sequence[Rendering]) -> dict[str, Rendering]:
    first: dict[str, Rendering] = {}
    for label, record in zip(labels, records, strict=True):
        first.setdefault(label, record)
    return first


def _draw_montage(job: RenderJob, examples: Mapping[str, Rendering], out: Path) -> None:
    """Draws each volume twice: as stored, with its own range from black to white, and as its model takes it."""
    from cardium.reporting.plots import montage

    stored = dataclasses.replace(job, size=dataclasses.replace(job.size, order="stored", levels="range", sampling="even"))
    rows = []
    for name, record in sorted(examples.items()):
        rows += [
            (f"{name}\n{how}", render_record(one, record).array) for how, one in (("as stored", stored), ("as rendered", job))
        ]
    montage(rows, out, title=f"{job.where}: {job.kind}")


def _write_measures(folder: Path, records: Sequence[Rendering], labels: Sequence[str]) -> None:
    """Writes measures.csv, and draws the first patients of each class with the contours."""
    from cardium.imaging import heart_format
    from cardium.reporting.plots import hearts

    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    names = [measure.name for measure in heart_format.MEASURES]
    with (folder / "measures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["patient", "label", "confidence", *names])
        for record, label, array in zip(records, labels, pixels, strict=True):
            found = heart_format.measures_of(array)
            sure = f"{heart_format.confidence_of(array):.3f}"
            writer.writerow([record.path, label, sure, *(f"{found[name]:.3f}" if found else "" for name in names)])
    shown: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        if heart_format.was_found(pixels[row]):
            shown.setdefault(label, []).append(row)
    rows = [row for label in sorted(shown) for row in shown[label][:_DRAWN]]
    if rows:
        hearts([(records[row].path, heart_format.drawn(pixels[row])) for row in rows], folder / "montage.png")
