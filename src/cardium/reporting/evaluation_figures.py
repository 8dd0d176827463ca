"""Draws an evaluation: the leaderboard, confusion matrix and reliability of each run, ROC curves per protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardium.evaluation import metrics
from cardium.evaluation.evaluation import Evaluation
from cardium.evaluation.leaderboard import HEADINGS
from cardium.evaluation.table import arrays
from cardium.reporting import plots
from cardium.workspace import suffix

if TYPE_CHECKING:
    import pandas


def draw_evaluation(evaluation: Evaluation, predictions: Mapping[str, pandas.DataFrame], folder: Path) -> None:
    """Draws leaderboard.png and figures/ into `folder`. predictions: run name -> predictions table."""
    classes = evaluation.classes
    rows = [
        plots.Row(
            name=row.name,
            group=HEADINGS[row.protocol],
            value=row.balanced_accuracy.value or 0.0,
            low=row.balanced_accuracy.low,
            high=row.balanced_accuracy.high,
            weak="random" in row.weights,
            naive=row.is_naive,
            reference=row.published_balanced_accuracy,
        )
        for row in evaluation.ranked()
    ]
    title = f"{evaluation.dataset}: balanced accuracy per image"
    plots.leaderboard(rows, folder / "leaderboard.png", title, evaluation.interval)
    curves: dict[str, list[tuple[str, np.ndarray, np.ndarray, float]]] = {}
    figures = folder / "figures"
    for row in evaluation.ranked():
        if not row.is_run:
            continue
        labels, probabilities, _ = arrays(predictions[row.name], classes)
        matrices = [("per image", row.confusion)]
        if evaluation.patients:
            matrices.append(("per patient", row.patient_confusion))
        title = f"{row.name}: test records"
        plots.confusion_matrix(matrices, classes, figures / f"confusion-{row.name}.png", title)
        bins = metrics.calibration_curve(labels, probabilities, evaluation.threshold)
        error = row.image["calibration_error"].value
        assert error is not None  # Defined on any records.
        plots.reliability(*bins, error, figures / f"reliability-{row.name}.png", title)
        area = row.image["roc_auc"].value
        if area is not None:
            curves.setdefault(row.protocol, []).append((row.name, *metrics.roc_points(labels, probabilities), area))
    for protocol, own in curves.items():
        plots.roc(own, figures / f"roc{suffix(protocol)}.png", f"{evaluation.dataset}, {protocol}: test records")
