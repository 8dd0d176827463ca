"""Opens a trained run for prediction: a model that takes the weights of any held-out fold, and its input array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cardium.config import Settings
from cardium.data.rendering import read_pixels, read_rows
from cardium.models import create_head, load_model
from cardium.runs.trained_run import TrainedRun
from cardium.training.bank import open_bank
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import keras
    import pandas

_BATCH = 128
# Values that a batch holds at most (float32: 256 MB): of whole volumes a batch is one.
_VALUES = 2**26


def open_reader(settings: Settings, run: TrainedRun, manifest: pandas.DataFrame) -> tuple[keras.Model, np.ndarray]:
    """Opens the model of a run and the array (N, ...) that it reads.

    A run scored from its bank gives its head and the bank's plain view. Any other gives the whole model and the rendering.
    Raises CardiumError if the bank or the rendering is missing.
    """
    if run.scored_from == "bank":
        bank = open_bank(settings.root / run.bank, "dvc repro features")
        head = create_head(run.run.model, classes=len(run.classes), map_shape=bank.map_shape, dropout=0.0, hidden=run.hidden)
        return head, bank.view(0)
    pixels, _ = read_pixels(Workspace(settings.root).rendering(run.run.dataset, run.rendering), manifest)
    return load_model(run.model_file), pixels


def predict_records(model: keras.Model, inputs: np.ndarray, records: np.ndarray) -> np.ndarray:
    """Predicts rows `records` (n,) of `inputs` (N, ...) batch by batch: float64 (n, C)."""
    batch = max(1, min(_BATCH, _VALUES // int(np.prod(inputs.shape[1:]))))
    parts = [
        np.asarray(model.predict_on_batch(read_rows(inputs, records[at : at + batch]).astype(np.float32)))
        for at in range(0, len(records), batch)
    ]
    return np.concatenate(parts).astype(np.float64)
