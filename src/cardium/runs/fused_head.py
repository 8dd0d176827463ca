"""Trains the head of a fused model on its members' penultimate vectors, concatenated, fold by fold.

The vectors of each held-out fold come from members that never saw that fold. The members' weights do not change.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium.config import JointSpec, Settings
from cardium.data.manifest import class_numbers, read_manifest
from cardium.data.splits import read_parts
from cardium.models.fusion import create_fusion_head
from cardium.models.trained import set_trained, trained_weights
from cardium.runs.predictions import prediction_rows
from cardium.runs.reading import open_reader, predict_records
from cardium.runs.temperature import calibrate
from cardium.runs.trained_run import Phase, TrainedRun
from cardium.training.fit import Checkpoint, Examples, fit, predict, recipe_of
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import keras
    import pandas


@dataclass(frozen=True)
class TrainedHeads:
    """The heads of all held-out folds.

    weights: fold -> the head's weights, as `models.trained` names them. predictions: on the validation records, in the
    predictions format. history: one row per epoch. seconds: training time over all folds. temperatures: by fold, {} without
    calibration.
    """

    weights: dict[int, dict[str, np.ndarray]]
    predictions: pandas.DataFrame
    history: list[dict[str, Any]]
    phases: list[Phase]
    seconds: float
    temperatures: dict[int, float]


@dataclass(frozen=True)
class _Member:
    """An opened member. `reader` takes a fold's weights; `embedder` shares its layers and returns the penultimate vector."""

    run: TrainedRun
    reader: keras.Model
    embedder: keras.Model
    inputs: np.ndarray

    def vectors(self, fold: int, records: np.ndarray) -> np.ndarray:
        """Computes the penultimate vectors (n, C) float64 of `records` (n,), with the weights that never saw `fold`."""
        set_trained(self.reader, self.run.fold_weights(fold))
        return predict_records(self.embedder, self.inputs, records)


def train_heads(settings: Settings, spec: JointSpec, members: list[TrainedRun]) -> TrainedHeads:
    """Trains one head per held-out fold of the members.

    A killed training continues after its last finished epoch.
    """
    import pandas as pd

    train = spec.train
    assert train is not None
    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(spec.id.dataset))
    classes, folds = members[0].classes, members[0].test_folds
    labels = class_numbers(manifest, classes)
    opened = [_open(settings, member, manifest) for member in members]
    widths = [member.embedder.output_shape[-1] for member in opened]
    head = create_fusion_head(widths, classes=len(classes), dropout=train.dropout, hidden=train.hidden, seed=settings.seed)
    at_first = head.get_weights()
    state = workspace.scratch() / "training" / hashlib.sha256(spec.name.encode()).hexdigest()[:16]
    weights: dict[int, dict[str, np.ndarray]] = {}
    history: list[dict[str, Any]] = []
    temperatures: dict[int, float] = {}
    method = settings.protocols[spec.id.protocol].calibration
    groups = manifest["group"].to_numpy()
    phases, tables, seconds = [], [], 0.0
    for fold in folds:
        parts = read_parts(workspace.split(spec.id.dataset), manifest, spec.id.protocol, fold)
        of_training, of_validation = (
            np.concatenate([member.vectors(fold, records) for member in opened], axis=1).astype(np.float32)
            for records in (parts.train, parts.validation)
        )
        print(f"{spec.name}, fold {fold} held out: {len(parts.train)} training, {len(parts.validation)} validation records")
        head.set_weights(at_first)
        # The members' vectors are the data: with other members, another training.
        key = hashlib.sha256(of_training.tobytes() + json.dumps(asdict(train)).encode()).hexdigest()
        validation = _examples(of_validation, labels[parts.validation])
        fitted = fit(
            head,
            _examples(of_training, labels[parts.train]),
            validation,
            recipe=recipe_of(train, labels[parts.train], len(classes), settings.seed + fold),
            checkpoint=Checkpoint(state / f"fold{fold}", key),
        )
        history += [{"test_fold": fold, "phase": "head", **row} for row in fitted.history]
        phases.append(Phase(fold, "head", **fitted.summary()))
        seconds += fitted.seconds
        probabilities = predict(head, validation, train.batch)
        scaled = calibrate(trained_weights(head), probabilities, labels[parts.validation], groups[parts.validation], method)
        weights[fold] = scaled.weights
        if scaled.temperature is not None:
            temperatures[fold] = scaled.temperature
        tables.append(prediction_rows(manifest, parts.validation, fold, labels, scaled.probabilities, classes))
    shutil.rmtree(state, ignore_errors=True)
    return TrainedHeads(weights, pd.concat(tables, ignore_index=True), history, phases, seconds, temperatures)


def _open(settings: Settings, run: TrainedRun, manifest: pandas.DataFrame) -> _Member:
    import keras

    reader, inputs = open_reader(settings, run, manifest)
    return _Member(run, reader, keras.Model(reader.input, reader.get_layer("embedding").output), inputs)


def _examples(vectors: np.ndarray, labels: np.ndarray) -> Examples:
    return Examples(lambda _, at: vectors[at], labels)
