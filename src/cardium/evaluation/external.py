"""Trained runs scored on another collection of the same classes -> reports/<dataset>/external/<name>/.

    external.json     metrics.json's form, over the records of the other collection; what was left out and why
    excluded.csv      path, reason: copies of the dataset's own records (bytes or pixels), copies within, conflicts
    leaderboard.csv   a row a run: external score with interval beside the internal one
    predictions/      one table a run

The other folder is read by the dataset's own importer and is never trained on. Each run answers with the model that it would
be served with.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cardium import atomic
from cardium.config import Settings
from cardium.data.manifest import build, class_numbers, manifest_sha256, read_manifest
from cardium.data.render_records import RenderJob, render_records
from cardium.datasets import Collection, Found, get_collection
from cardium.datasets.measured import Measured, measure_all
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import Evaluation, Interval, OtherCollection, RunScores
from cardium.evaluation.table import EvaluatedRun, find_runs, score_runs
from cardium.imaging.decode import Undecodable
from cardium.imaging.render import content_sha256
from cardium.imaging.spec import Limits
from cardium.parallel import in_chunks
from cardium.progress import progress
from cardium.runs.data_version import DataVersion
from cardium.runs.predictions import prediction_rows
from cardium.runs.reading import predict_records
from cardium.runs.trained_run import TrainedRun
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import pandas

FILE = "external.json"
_CHUNK = 32
# Of `other` records fewer than this a score says nothing.
_LEAST_RECORDS = 10


def evaluate_external(settings: Settings, dataset: str, folder: Path, name: str = "") -> Path:
    """Scores every trained honest run of `dataset` on the collection in `folder`; returns the report's folder.

    Raises CardiumError for a folder that is not there or holds no record of a known class, one in which nothing is left after
    the exclusions or a class is missing, and for runs that are not trained.
    """
    from cardium.models import load_model

    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise CardiumError(f"There is no folder {folder}: give one that is laid out as data/{dataset} is.")
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-") or "external"
    places = Workspace(settings.root)
    own = read_manifest(places.manifest(dataset))
    classes = list(get_collection(dataset).classes)
    data = DataVersion.now(places, dataset)
    runs = [run for run in find_runs(settings, dataset, data) if run.run.protocol == "honest"]
    if not runs:
        raise CardiumError(f"params.yaml names no honest run of `{dataset}`: add a model to its study.")

    manifest, excluded = _ingest(settings, dataset, folder)
    kind = get_collection(dataset).kind
    excluded |= _known_records(settings, kind, places.data(dataset), own, folder, manifest, excluded)
    kept = manifest[~manifest["path"].isin(list(excluded))].drop(columns="record").reset_index(drop=True)
    kept.insert(0, "record", np.arange(len(kept)))
    counts = {label: int((kept["label"] == label).sum()) for label in classes}
    shown = ", ".join(f"{label} {count}" for label, count in counts.items())
    print(f"{name}: {len(kept)} records ({shown}), {len(excluded)} files left out")
    if len(kept) < _LEAST_RECORDS or min(counts.values()) == 0:
        raise CardiumError(
            f"{folder} has too few records of its own to score on: {counts} after {len(excluded)} were left out."
        )

    scratch = places.scratch() / "external" / dataset / name
    labels, records = class_numbers(kept, classes), np.arange(len(kept))
    arrays: dict[str, np.ndarray] = {}
    evaluated = []
    for run in progress(runs, total=len(runs), desc="external", unit="run"):
        key = json.dumps([run.rendering, run.size.as_dict()])
        if key not in arrays:
            arrays[key] = _render(settings, folder, kept, run, scratch)
        probabilities = predict_records(load_model(run.served_file), arrays[key], records)
        predictions = prediction_rows(kept, records, 0, labels, probabilities, classes)
        evaluated.append(dataclasses.replace(EvaluatedRun.of(run, predictions), test_folds=[0]))
    scored = score_runs(settings, dataset, classes, evaluated, data, patients=False)
    elsewhere = OtherCollection(name, manifest_sha256(kept), counts, len(excluded))
    evaluation = dataclasses.replace(scored, external=elsewhere)
    internal = _internal(places, dataset)
    out = places.root / "reports" / dataset / "external" / name
    with atomic.replacing_folder(out) as part:
        atomic.write_json(part / FILE, evaluation.to_json())
        with (part / "excluded.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["path", "reason"])
            writer.writerows(sorted(excluded.items()))
        atomic.write_text(part / "leaderboard.csv", _leaderboard(evaluation, internal))
        (part / "predictions").mkdir()
        for one in evaluated:
            one.predictions.to_parquet(part / "predictions" / f"{one.name}.parquet", index=False)
    shutil.rmtree(scratch, ignore_errors=True)
    print(text(evaluation, internal))
    print(f"Written: {out.relative_to(settings.root).as_posix()}")
    return out


def text(evaluation: Evaluation, internal: Mapping[str, RunScores]) -> str:
    """Internal and external balanced accuracy with intervals, and external accuracy, a line a run, best external first."""
    width = max(len(run) for run in evaluation.runs)
    lines = [
        f"{'run':<{width}}  {'internal, out of fold':<23}  {'external':<23}  accuracy   (balanced accuracy, external accuracy)"
    ]
    for row in _best_first(evaluation):
        inner = internal[row.name].balanced_accuracy.text if row.name in internal else "-"
        outer, accuracy = row.balanced_accuracy.text, row.image["accuracy"].value
        lines.append(f"{row.name:<{width}}  {inner:<23}  {outer:<23}  {accuracy:8.3f}")
    return "\n".join(lines)


def _leaderboard(evaluation: Evaluation, internal: Mapping[str, RunScores]) -> str:
    lines = ["run,external,external_low,external_high,internal,internal_low,internal_high,accuracy,f1_macro"]
    for row in _best_first(evaluation):
        outer = row.balanced_accuracy
        inner = internal[row.name].balanced_accuracy if row.name in internal else Interval(None)
        values = [outer.value, outer.low, outer.high, inner.value, inner.low, inner.high]
        values += [row.image[metric].value for metric in ("accuracy", "f1_macro")]
        lines.append(",".join([row.name, *("" if value is None else f"{value:.6f}" for value in values)]))
    return "\n".join(lines) + "\n"


def _best_first(evaluation: Evaluation) -> list[RunScores]:
    return sorted(evaluation.runs.values(), key=lambda row: -(row.balanced_accuracy.value or 0.0))


def _internal(places: Workspace, dataset: str) -> dict[str, RunScores]:
    """The runs of the last evaluation; empty where there is none."""
    folder = places.evaluation(dataset)
    return Evaluation.read(folder, dataset).runs if folder.is_dir() else {}


def _ingest(settings: Settings, dataset: str, folder: Path) -> tuple[pandas.DataFrame, dict[str, str]]:
    """The other collection's manifest, and what of it is no record to score: path -> reason."""
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
    settings: Settings,
    kind: Literal["image", "volume"],
    own_folder: Path,
    own: pandas.DataFrame,
    folder: Path,
    manifest: pandas.DataFrame,
    excluded: Mapping[str, str],
) -> dict[str, str]:
    """Which of the other records the dataset itself has, by bytes or by decoded pixels: path -> reason."""
    known = set(own["sha256"])
    result = {
        path: "the dataset has this file"
        for path, sha256 in zip(manifest["path"], manifest["sha256"], strict=True)
        if sha256 in known and path not in excluded
    }
    rest = [path for path in manifest["path"] if path not in excluded and path not in result]
    mine = [path for path, copy_of in zip(own["path"], own["copy_of"], strict=True) if copy_of == -1]
    hashes: dict[str, list[str]] = {}
    for name, root, paths in (("own", own_folder, mine), ("other", folder, rest)):
        work = functools.partial(pixel_hashes, root, kind, settings.ingest.limits)
        chunk = 1 if kind == "volume" else _CHUNK
        chunks = progress(in_chunks(work, paths, chunk), total=-(-len(paths) // chunk), desc=f"pixels, {name}", unit="chunk")
        hashes[name] = [sha256 for _, part in chunks for sha256 in part]
    seen = set(hashes["own"])
    return result | {
        path: "the dataset has these pixels" for path, sha256 in zip(rest, hashes["other"], strict=True) if sha256 in seen
    }


def pixel_hashes(folder: Path, kind: Literal["image", "volume"], limits: Limits, paths: Sequence[str]) -> list[str]:
    """`content_sha256` of some files. Runs in a worker process."""
    hashes = []
    for path in paths:
        try:
            hashes.append(content_sha256((folder / path).read_bytes(), kind, limits))
        except (OSError, Undecodable) as error:
            raise CardiumError(f"{folder / path} cannot be read any more ({error}): run `cardium ingest` again.") from None
    return hashes


def _render(settings: Settings, folder: Path, manifest: pandas.DataFrame, run: TrainedRun, scratch: Path) -> np.ndarray:
    """The records as a run's model takes them, memory-mapped."""
    job = RenderJob(
        where=str(folder),
        again="evaluate it again",
        folder=folder,
        kind=run.rendering,
        size=run.size,
        limits=settings.ingest.limits,
    )
    out = scratch / f"{run.rendering}-{run.size.height}x{run.size.width}"
    records = list(zip(manifest["path"], manifest["sha256"], strict=True))
    render_records(job, records, manifest_sha256(manifest), out)
    pixels: np.ndarray = np.load(out / "pixels.npy", mmap_mode="r")
    return pixels
