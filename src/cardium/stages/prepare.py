"""manifest + data/<dataset> -> processed/<dataset>/<kind>/: every record rendered once, in row order (data/render_records.py).

montage.png   of volumes: the first one of each class, as stored and as rendered
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from cardium import atomic
from cardium.config import RenderingSpec, Settings
from cardium.data.manifest import manifest_sha256, read_manifest
from cardium.data.render_records import Record, RenderJob, render_record, write_rendering
from cardium.errors import unknown
from cardium.imaging.kinds import of_volumes
from cardium.imaging.render import shape_of
from cardium.workspace import Workspace


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
    records = list(zip(manifest["path"], manifest["sha256"], strict=True))
    out = workspace.rendering(spec.dataset, spec.kind)
    with atomic.replacing_folder(out) as folder:
        warned = write_rendering(job, records, manifest_sha256(manifest), folder)
        if of_volumes(job.kind):
            _draw_montage(job, _first_of_each_class(manifest["label"].tolist(), records), folder / "montage.png")
    shape = " x ".join(map(str, shape_of(job.kind, job.size)))
    print(f"rendered {len(records)} records as {job.kind} of {shape}")
    for words, count in warned.most_common(5):
        print(f"  {count}: {words}")
    print(f"wrote {out.relative_to(settings.root).as_posix()}")


def _first_of_each_class(labels: Sequence[str], records: Sequence[Record]) -> dict[str, Record]:
    first: dict[str, Record] = {}
    for label, record in zip(labels, records, strict=True):
        first.setdefault(label, record)
    return first


def _draw_montage(job: RenderJob, examples: Mapping[str, Record], out: Path) -> None:
    """Draws each volume twice: as stored, with its own range from black to white, and as its model takes it."""
    from cardium.reporting.plots import montage

    stored = dataclasses.replace(job, size=dataclasses.replace(job.size, order="stored", levels="range", sampling="even"))
    rows = []
    for name, record in sorted(examples.items()):
        rows += [
            (f"{name}\n{how}", render_record(one, record).array) for how, one in (("as stored", stored), ("as rendered", job))
        ]
    montage(rows, out, title=f"{job.where}: {job.kind}")
