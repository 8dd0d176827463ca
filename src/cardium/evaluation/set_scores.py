"""How a run's prediction sets and probabilities fare on its test records: a function of its validation and test predictions.

A test fold's sets are fitted without its own records: those of the validation predictions are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from cardium.evaluation.evaluation import Interval, SetScores
from cardium.evaluation.metrics import score
from cardium.runs.prediction_sets import served_sets, sets_of
from cardium.runs.predictions import VALIDATION, probability_columns
from cardium.runs.temperature import tempered
from cardium.runs.trained_run import TrainedRun

if TYPE_CHECKING:
    import pandas

# (labels (n,), probabilities (n, C), groups (n,)) -> scores with intervals, as `metrics.score_with_intervals`.
Scored = Callable[[np.ndarray, np.ndarray, np.ndarray], Mapping[str, Interval]]


def score_sets(
    run: TrainedRun, predictions: pandas.DataFrame, coverage: float, scored: Scored, *, elsewhere: bool = False
) -> SetScores | None:
    """Scores the sets of `coverage` on test predictions; None where no validation record is left to fit them on.

    scored: gives shares their intervals. elsewhere: whether the predictions are of another collection.
    """
    served = served_sets(run, coverage)
    if served is None:
        return None
    columns = probability_columns(run.classes)
    inside = served.contain(predictions[columns].to_numpy()) if elsewhere else _inside(run, predictions, coverage)
    if inside is None:
        return None
    labels, groups = predictions["label"].to_numpy(), predictions["group"].to_numpy(dtype=str)
    covered = inside[np.arange(len(labels)), labels]
    size = inside.sum(axis=1)
    alone = size == 1

    def shares(hit: np.ndarray, of: np.ndarray) -> Mapping[str, Interval]:
        """The share of `hit` among the records `of`: a recall, were a miss another class."""
        decided = np.where(hit, labels, (labels + 1) % len(columns))[of]
        return scored(labels[of], np.eye(len(columns))[decided], groups[of])

    everyone = np.ones(len(labels), dtype=bool)
    of_class = shares(covered, everyone)
    nothing = Interval(None)
    return SetScores(
        wanted=coverage,
        covered={name: of_class[f"recall_{name}"] if c in labels else nothing for c, name in enumerate(run.classes)},
        single=shares(alone, everyone)["accuracy"],
        right=shares(covered, alone)["accuracy"] if alone.any() else nothing,
        size=float(size.mean()),
        floors={name: float(floor) for name, floor in zip(run.classes, served.floors, strict=True)},
        groups={name: int(count) for name, count in zip(run.classes, served.groups, strict=True)},
        too_few=served.too_few,
    )


def _inside(run: TrainedRun, predictions: pandas.DataFrame, coverage: float) -> np.ndarray | None:
    """Which classes are in each test record's set: bool (n, C), the rows those of `predictions`."""
    import pandas as pd

    held_out = pd.read_parquet(run.folder / VALIDATION)
    inside = np.zeros((len(predictions), len(run.classes)), dtype=bool)
    folds = predictions["test_fold"].to_numpy()
    p = predictions[probability_columns(run.classes)].to_numpy()
    for fold in np.unique(folds):
        of_fold = folds == fold
        others = held_out[~held_out["record"].isin(predictions["record"].to_numpy()[of_fold])]
        if others.empty:
            return None
        inside[of_fold] = sets_of(others, run.classes, coverage).contain(p[of_fold])
    return inside


def calibration_error_before(run: TrainedRun, predictions: pandas.DataFrame, threshold: float) -> float | None:
    """The expected calibration error of test predictions without their temperatures; None for a run that has none."""
    if not run.temperatures:
        return None
    p = predictions[probability_columns(run.classes)].to_numpy()
    folds = predictions["test_fold"].to_numpy()
    plain = np.empty_like(p)
    for fold, temperature in run.temperatures.items():
        plain[folds == fold] = tempered(p[folds == fold], 1 / temperature) if (folds == fold).any() else 0.0
    return score(predictions["label"].to_numpy(), plain, threshold)["calibration_error"]
