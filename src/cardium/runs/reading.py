"""A trained run opened for prediction: a model that takes the weights of any held-out fold, and the array that it reads."""

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
    """A model that takes a fold's weights, and the array (N, ...) that it reads: a head and its bank, or all of it and pixels.

    Raises CardiumError where the bank or the rendering is missing.
    """
    if run.scored_from == "bank":
        bank = open_bank(settings.root / run.bank, "dvc repro features")
        head = create_head(run.run.model, classes=len(run.classes), map_shape=bank.map_shape, dropout=0.0, hidden=run.hidden)
        return head, bank.view(0)
    pixels, _ = read_pixels(Workspace(settings.root).rendering(run.run.dataset, run.rendering), manifest)
    return load_model(run.model_file), pixels


def predict_records(model: keras.Model, inputs: np.ndarray, records: np.ndarray) -> np.ndarray:
    """The outputs (n, C) float64 for rows `records` (n,) of `inputs` (N, ...), read batch by batch."""
    batch = max(1, min(_BATCH, _VALUES // int(np.prod(inputs.shape[1:]))))
    parts = [
        np.asarray(model.predict_on_batch(read_rows(inputs, records[at : at + batch]).astype(np.float32)))
        for at in range(0, len(records), batch)
    ]
    return np.concatenate(parts).astype(np.float64)
