"""Whether a run is served as it was scored: its scored predictions against those of its saved model on the same records' files.

A head is scored on its backbone's bank, float16 features that another engine may have computed. Served is the saved model, on
pixels that come out of the decoder. Both ways are taken here for some test records of the first held-out fold, whose model is
saved, and where `served: all` trained another model to serve, for some of its calibration records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cardium.config import Settings
from cardium.data.render_records import RenderJob, render_record
from cardium.data.units import unit_records
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import Parity
from cardium.evaluation.metrics import decide
from cardium.runs.predictions import probability_columns
from cardium.runs.trained_run import CALIBRATION, TrainedRun
from cardium.serving.classifier import Classifier
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import pandas


def compare_served(settings: Settings, run: TrainedRun, manifest: pandas.DataFrame, predictions: pandas.DataFrame) -> Parity:
    """Compares a run's test predictions with what its saved model says of `evaluate.compared` of their files.

    predictions: of `scoring.predict_test`. Raises CardiumError if a file is missing or has changed since ingest, and if a
    probability differs by more than `evaluate.tolerance`.
    """
    import keras
    import pandas as pd

    job = RenderJob(
        where=f"data/{run.run.dataset}",
        again=f"run `cardium ingest --dataset {run.run.dataset}`",
        folder=Workspace(settings.root).data(run.run.dataset),
        kind=run.rendering,
        size=run.size,
        limits=settings.ingest.limits,
    )
    asked = [(run.model_file, predictions[predictions["test_fold"] == run.test_folds[0]])]
    if run.retrained:
        asked.append((run.served_file, pd.read_parquet(run.folder / CALIBRATION)))
    scored, served, records = [], [], unit_records(manifest, run.rendering)
    for file, table in asked:
        some = table.iloc[np.unique(np.linspace(0, len(table) - 1, settings.evaluate.compared).round().astype(int))]
        classifier = Classifier(run.folder, file=file)
        scored.append(some[probability_columns(run.classes)].to_numpy())
        served += [classifier.probabilities(render_record(job, records[at]).array[None]) for at in some["record"]]
        keras.backend.clear_session()
    found = parity_of(np.concatenate(scored), np.concatenate(served), run.threshold)
    if found.difference > settings.evaluate.tolerance:
        raise CardiumError(_unlike(run, found, settings.evaluate.tolerance))
    return found


def parity_of(scored: np.ndarray, served: np.ndarray, threshold: float) -> Parity:
    """Compares two arrays of probabilities (n, C) of the same records."""
    decisions = int((decide(scored, threshold) != decide(served, threshold)).sum())
    return Parity(len(scored), float(np.abs(scored - served).max()), decisions)


def _unlike(run: TrainedRun, found: Parity, tolerance: float) -> str:
    says = (
        f"{run.name} is not served as it is scored: of {found.records} records a probability differs by up to "
        f"{found.difference:.4f} ({found.decisions} decided otherwise), and evaluate.tolerance is {tolerance:g}"
    )
    if "bf16" in run.engine:
        return f"{says}: its bank is of bfloat16; set `features.engine: auto`, or raise the tolerance to what you accept."
    return f"{says}: make the rendering and the bank again and train anew, `dvc repro -f train@{run.name}`."
