"""Scores a trained run on its held-out folds, each with the weights that never saw it; `evaluate` and `promote` call it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium.bank import open_bank
from cardium.models import create_head
from cardium.models.trained import set_trained
from cardium.params import Settings
from cardium.predictions import prediction_rows
from cardium.rendering import read_pixels
from cardium.splits import Parts
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import keras
    import pandas

_BATCH = 128


def predict_test(
    settings: Settings, run_folder: Path, info: dict[str, Any], manifest: pandas.DataFrame, parts_of: Callable[[int], Parts]
) -> pandas.DataFrame:
    """Test predictions of a trained run (`info` is its run.json), in the predictions format.

    A frozen run's head reads the bank's plain view; a fine-tuned run reads pixels. parts_of: test fold -> Parts.
    """
    import pandas as pd

    labels = manifest["label"].map({label: i for i, label in enumerate(info["classes"])}).to_numpy(dtype=np.int64)
    if info["scored_from"] == "bank":
        bank = open_bank(settings.root / info["bank"], "dvc repro features")
        model = create_head(info["model"], classes=len(info["classes"]), map_shape=bank.map_shape, dropout=0.0)
        inputs = bank.view(0)
    else:
        model = load_model(run_folder / "model.keras")
        inputs, _ = read_pixels(Workspace(settings.root).rendering(info["dataset"], info["rendering"]["kind"]), manifest)
    tables = []
    for fold in info["test_folds"]:
        records = parts_of(fold).test
        with np.load(run_folder / "folds" / f"{fold}.npz") as stored:
            set_trained(model, {name: stored[name] for name in stored.files})
        probabilities = predict_arrays(model, inputs, records)
        tables.append(prediction_rows(manifest, records, fold, labels, probabilities, info["classes"]))
    return pd.concat(tables, ignore_index=True)


def load_model(path: Path) -> keras.Model:
    """A saved whole model, for prediction only."""
    import keras

    return keras.models.load_model(path, compile=False)


def predict_arrays(model: keras.Model, inputs: np.ndarray, records: np.ndarray) -> np.ndarray:
    """Probabilities (n, C) float64 of rows `records` of `inputs`, read batch by batch."""
    parts = [
        np.asarray(model.predict_on_batch(inputs[records[at : at + _BATCH]].astype(np.float32)))
        for at in range(0, len(records), _BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)
