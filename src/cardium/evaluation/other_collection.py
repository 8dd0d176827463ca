"""Reads another collection of a dataset's classes with the dataset's own importer, without records that the dataset has."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cardium.config import Settings
from cardium.data.manifest import build, manifest_sha256, read_manifest
from cardium.data.render_records import RenderJob, render_records
from cardium.data.units import unit_records
from cardium.datasets import Collection, Found, get_collection
from cardium.datasets.measured import Measured, measure_all
from cardium.errors import CardiumError
from cardium.imaging.decode import Undecodable
from cardium.imaging.render import content_sha256
from cardium.imaging.spec import Limits
from cardium.parallel import in_chunks
from cardium.progress import progress
from cardium.runs.trained_run import TrainedRun
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import pandas

# Records whose pixels a worker process hashes at once.
_CHUNK = 32


def read_other_collection(settings: Settings, dataset: str, folder: Path) -> tuple[pandas.DataFrame, dict[str, str]]:
    """Reads the collection in `folder`; returns its manifest and the excluded files (path -> reason).

    The manifest holds the records that the dataset lacks, numbered from 0. Excluded are unreadable files, copies of the
    dataset's own records (bytes or pixels), copies within the collection, and conflicts.
    Raises CardiumError if no record of a known class can be read.
    """
    manifest, excluded = _read_manifest(settings, dataset, folder)
    excluded |= _known_records(settings, dataset, folder, manifest, excluded)
    kept = manifest[~manifest["path"].isin(list(excluded))].drop(columns="record").reset_index(drop=True)
    kept.insert(0, "record", np.arange(len(kept)))
    return kept, excluded


def _read_manifest(settings: Settings, dataset: str, folder: Path) -> tuple[pandas.DataFrame, dict[str, str]]:
    """Builds the collection's manifest, and lists the files that cannot be scored: path -> reason."""
    collection: Collection = get_collection(dataset)
    excluded: dict[str, str] = {}
    found = []
    for entry in collection.scan(folder):
        if isinstance(entry, Found):
            found.append(entry)
        else:
            excluded[entry.path] = entry.reason
    if not found:
        raise CardiumError(
            f"{folder} holds no record of {', '.join(collection.classes)}: see {collection.page} for the layout."
        )
    measured: list[Measured] = []
    results = measure_all(collection, folder, settings.ingest.limits, found)
    for result in progress(results, total=len(found), desc="ingest", unit="file"):
        if isinstance(result, Measured):
            measured.append(result)
        else:
            excluded[result.path] = result.reason
    if not measured:
        raise CardiumError(f"{folder} holds no record that can be read: the first reason is {next(iter(excluded.values()))}.")
    manifest = build(measured)
    for path, conflict, copy_of in zip(manifest["path"], manifest["conflict"], manifest["copy_of"], strict=True):
        if conflict:
            excluded[path] = "filed under two classes"
        elif copy_of != -1:
            excluded[path] = "copy within this collection"
    return manifest, excluded


def _known_records(
    settings: Settings, dataset: str, folder: Path, manifest: pandas.DataFrame, excluded: Mapping[str, str]
) -> dict[str, str]:
    """Finds the records that the dataset itself has, by bytes or by decoded pixels: path -> reason."""
    places, kind = Workspace(settings.root), get_collection(dataset).kind
    own = read_manifest(places.manifest(dataset))
    known = set(own["sha256"])
    result = {
        path: "the dataset has this file"
        for path, sha256 in zip(manifest["path"], manifest["sha256"], strict=True)
        if sha256 in known and path not in excluded
    }
    rest = [path for path in manifest["path"] if path not in excluded and path not in result]
    mine = [path for path, copy_of in zip(own["path"], own["copy_of"], strict=True) if copy_of == -1]
    hashes: dict[str, list[str]] = {}
    for name, root, paths in (("own", places.data(dataset), mine), ("other", folder, rest)):
        work = functools.partial(pixel_hashes, root, kind, settings.ingest.limits)
        chunk = 1 if kind == "volume" else _CHUNK
        chunks = progress(in_chunks(work, paths, chunk), total=-(-len(paths) // chunk), desc=f"pixels, {name}", unit="chunk")
        hashes[name] = [sha256 for _, part in chunks for sha256 in part]
    seen = set(hashes["own"])
    return result | {
        path: "the dataset has these pixels" for path, sha256 in zip(rest, hashes["other"], strict=True) if sha256 in seen
    }


def pixel_hashes(folder: Path, kind: Literal["image", "volume"], limits: Limits, paths: Sequence[str]) -> list[str]:
    """Computes `content_sha256` of files, in a worker process."""
    hashes = []
    for path in paths:
        try:
            hashes.append(content_sha256((folder / path).read_bytes(), kind, limits))
        except (OSError, Undecodable) as error:
            raise CardiumError(f"{folder / path} cannot be read any more ({error}): run `cardium ingest` again.") from None
    return hashes


def render_for(settings: Settings, folder: Path, manifest: pandas.DataFrame, run: TrainedRun, scratch: Path) -> np.ndarray:
    """Renders the records as the run's model reads them: a memory-mapped array (N, ...)."""
    job = RenderJob(
        where=str(folder),
        again="evaluate it again",
        folder=folder,
        kind=run.rendering,
        size=run.size,
        limits=settings.ingest.limits,
    )
    out = scratch / f"{run.rendering}-{run.size.height}x{run.size.width}"
    render_records(job, unit_records(manifest, run.rendering), manifest_sha256(manifest), out)
    pixels: np.ndarray = np.load(out / "pixels.npy", mmap_mode="r")
    return pixels
