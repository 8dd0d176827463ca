"""Scores trained runs on another collection of the same classes -> reports/<dataset>/external/<name>/.

    external.json     as metrics.json, for the records of the other collection; and what was excluded
    excluded.csv      path, reason: copies of the dataset's own records (bytes or pixels), copies within, conflicts
    leaderboard.csv   one row per run: external score with interval beside the internal one
    predictions/      one table per run

The other collection is read by the dataset's own importer and is never trained on. Each run predicts with the model that it
would be served with.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cardium import atomic
from cardium.config import Settings
from cardium.data.manifest import class_numbers, manifest_sha256
from cardium.data.units import unit_table
from cardium.datasets import get_collection
from cardium.errors import CardiumError, harmless_cell
from cardium.evaluation.evaluation import Evaluation, Interval, OtherCollection, RunScores
from cardium.evaluation.other_collection import read_other_collection, render_for
from cardium.evaluation.table import EvaluatedRun, find_runs, score_runs
from cardium.progress import progress
from cardium.runs.data_version import DataVersion
from cardium.runs.predictions import prediction_rows
from cardium.runs.reading import predict_records
from cardium.workspace import Workspace

FILE = "external.json"
# Of `other` records fewer than this a score says nothing.
_LEAST_RECORDS = 10


def evaluate_external(settings: Settings, dataset: str, folder: Path, name: str = "") -> Path:
    """Scores every trained honest run of `dataset` on the collection in `folder`; returns the report's folder.

    name: of the report; "" for the folder's name. Raises CardiumError if the folder is missing, if too few records or not all
    classes are left after the exclusions, and if a run is not trained.
    """
    from cardium.models import load_model

    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise CardiumError(f"There is no folder {folder}: give one that is laid out as data/{dataset} is.")
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-") or "external"
    places = Workspace(settings.root)
    classes = list(get_collection(dataset).classes)
    data = DataVersion.now(places, dataset)
    runs = [run for run in find_runs(settings, dataset, data) if run.run.protocol == "honest"]
    if not runs:
        raise CardiumError(f"params.yaml names no honest run of `{dataset}`: add a model to its study.")

    kept, excluded = read_other_collection(settings, dataset, folder)
    counts = {label: int((kept["label"] == label).sum()) for label in classes}
    shown = ", ".join(f"{label} {count}" for label, count in counts.items())
    print(f"{name}: {len(kept)} records ({shown}), {len(excluded)} files left out")
    if len(kept) < _LEAST_RECORDS or min(counts.values()) == 0:
        raise CardiumError(
            f"{folder} has too few records of its own to score on: {counts} after {len(excluded)} were left out."
        )

    scratch = places.scratch() / "external" / dataset / name
    arrays: dict[str, np.ndarray] = {}
    evaluated = []
    for run in progress(runs, total=len(runs), desc="external", unit="run"):
        key = json.dumps([run.rendering, run.size.as_dict()])
        if key not in arrays:
            arrays[key] = render_for(settings, folder, kept, run, scratch)
        units = unit_table(kept, run.rendering)
        records, labels = np.arange(len(units)), class_numbers(units, classes)
        probabilities = predict_records(load_model(run.served_file), arrays[key], records)
        predictions = prediction_rows(units, records, 0, labels, probabilities, classes)
        evaluated.append(dataclasses.replace(EvaluatedRun.of(run, predictions), test_folds=[0]))
    scored = score_runs(settings, dataset, classes, evaluated, data, patients=False, elsewhere=True)
    elsewhere = OtherCollection(name, manifest_sha256(kept), counts, len(excluded))
    evaluation = dataclasses.replace(scored, external=elsewhere)
    internal = _internal(places, dataset)
    out = places.root / "reports" / dataset / "external" / name
    with atomic.replacing_folder(out) as part:
        atomic.write_json(part / FILE, evaluation.to_json())
        with (part / "excluded.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["path", "reason"])
            writer.writerows([harmless_cell(path), harmless_cell(reason)] for path, reason in sorted(excluded.items()))
        atomic.write_text(part / "leaderboard.csv", _leaderboard(evaluation, internal))
        (part / "predictions").mkdir()
        for one in evaluated:
            one.predictions.to_parquet(part / "predictions" / f"{one.name}.parquet", index=False)
    shutil.rmtree(scratch, ignore_errors=True)
    print(text(evaluation, internal))
    print(f"Written: {out.relative_to(settings.root).as_posix()}")
    return out


def text(evaluation: Evaluation, internal: Mapping[str, RunScores]) -> str:
    """Formats internal and external balanced accuracy with intervals, and external accuracy: one line per run, best first."""
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
    """Reads the runs of the last evaluation; {} if there is none."""
    folder = places.evaluation(dataset)
    return Evaluation.read(folder, dataset).runs if folder.is_dir() else {}
