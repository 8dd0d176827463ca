"""Scores a trained run on its held-out folds, each with the weights that never saw it; `evaluate` and `promote` call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cardium.config import Settings
from cardium.data.manifest import class_numbers
from cardium.data.splits import Parts
from cardium.evaluation.metrics import score
from cardium.models.trained import set_trained
from cardium.runs.predictions import prediction_rows, probability_columns
from cardium.runs.reading import open_reader, predict_records
from cardium.runs.trained_run import TrainedRun

if TYPE_CHECKING:
    import pandas


def predict_test(
    settings: Settings, run: TrainedRun, manifest: pandas.DataFrame, parts_of: Callable[[int], Parts]
) -> pandas.DataFrame:
    """Predicts the test records of a trained run, in the predictions format. parts_of: test fold -> Parts.

    A run with a bank reads its plain view; any other reads pixels.
    """
    import pandas as pd

    labels = class_numbers(manifest, run.classes)
    model, inputs = open_reader(settings, run, manifest)
    tables = []
    for fold in run.test_folds:
        records = parts_of(fold).test
        set_trained(model, run.fold_weights(fold))
        probabilities = predict_records(model, inputs, records)
        tables.append(prediction_rows(manifest, records, fold, labels, probabilities, run.classes))
    return pd.concat(tables, ignore_index=True)


def score_predictions(table: pandas.DataFrame, classes: list[str], threshold: float) -> dict[str, float]:
    """Scores a prediction table; names as in `evaluation.metrics.score`."""
    return score(table["label"].to_numpy(), table[probability_columns(classes)].to_numpy(), threshold, classes)
