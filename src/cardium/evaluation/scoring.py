"""Scores a trained run on its held-out folds, each with the weights that never saw it; `evaluate` and `promote` call it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium.config import Settings
from cardium.data.rendering import read_pixels, read_rows
from cardium.data.splits import Parts
from cardium.models import create_head, load_model
from cardium.models.trained import set_trained
from cardium.runs.predictions import prediction_rows
from cardium.training.bank import open_bank
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import keras
    import pandas

_BATCH = 128
# Values that a batch holds at most (float32: 256 MB): of whole volumes a batch is one.
_VALUES = 2**26


def predict_test(
    settings: Settings, run_folder: Path, info: dict[str, Any], manifest: pandas.DataFrame, parts_of: Callable[[int], Parts]
) -> pandas.DataFrame:
    """Test predictions of a trained run (`info` is its run.json), in the predictions format.

    A frozen run's head reads the bank's plain view; any other reads pixels. parts_of: test fold -> Parts.
    """
    import pandas as pd

    labels = manifest["label"].map({label: i for i, label in enumerate(info["classes"])}).to_numpy(dtype=np.int64)
    model, inputs = reader_of(settings, run_folder, info, manifest)
    tables = []
    for fold in info["test_folds"]:
        records = parts_of(fold).test
        set_trained(model, fold_weights(run_folder, fold))
        probabilities = predict_arrays(model, inputs, records)
        tables.append(prediction_rows(manifest, records, fold, labels, probabilities, info["classes"]))
    return pd.concat(tables, ignore_index=True)


def reader_of(
    settings: Settings, run_folder: Path, info: dict[str, Any], manifest: pandas.DataFrame
) -> tuple[keras.Model, np.ndarray]:
    """A model that takes a fold's weights, and the array (N, ...) that it reads: the bank and its head, or pixels and all."""
    if info["scored_from"] == "bank":
        bank = open_bank(settings.root / info["bank"], "dvc repro features")
        head = create_head(
            info["model"],
            classes=len(info["classes"]),
            map_shape=bank.map_shape,
            dropout=0.0,
            hidden=int(info["settings"].get("train.hidden", 0)),
        )
        return head, bank.view(0)
    pixels, _ = read_pixels(Workspace(settings.root).rendering(info["dataset"], info["rendering"]["kind"]), manifest)
    return load_model(run_folder / "model.keras"), pixels


def fold_weights(run_folder: Path, fold: int) -> dict[str, np.ndarray]:
    """What was trained while `fold` was held out, as `models.trained.set_trained` takes it."""
    with np.load(run_folder / "folds" / f"{fold}.npz") as stored:
        return {name: stored[name] for name in stored.files}


def predict_arrays(model: keras.Model, inputs: np.ndarray, records: np.ndarray) -> np.ndarray:
    """Outputs (n, C) float64 for rows `records` of `inputs`, read batch by batch."""
    batch = max(1, min(_BATCH, _VALUES // int(np.prod(inputs.shape[1:]))))
    parts = [
        np.asarray(model.predict_on_batch(read_rows(inputs, records[at : at + batch]).astype(np.float32)))
        for at in range(0, len(records), batch)
    ]
    return np.concatenate(parts).astype(np.float64)
