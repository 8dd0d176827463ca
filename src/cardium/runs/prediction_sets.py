"""Prediction sets: the classes that an answer cannot rule out, so that a wanted share of each class's patients has its own.

A class is in the set where its probability reaches the class's floor. The floor is the quantile of the probabilities that
held-out records of that class gave their own class: class-conditional (Mondrian) split conformal prediction (Vovk 2013, Machine
Learning 92:349; Sadinle, Lei and Wasserman 2019, JASA 114:223). Records of one patient resemble each other, so each patient
counts once, spread over its records, and the unseen patient's share lies beyond every floor: the coverage holds for any number
of patients (Lee, Barber and Willett 2023, arXiv:2306.06342). A class of too few has the floor 0: it is in every set.

Held-out records are the validation records of all folds, each by the model that was not trained on it (cross-conformal, Vovk
2015). The guarantee is for one model and records that chose nothing in it; benchmarks/honesty/conformal.py measures what holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cardium.runs.predictions import VALIDATION, probability_columns
from cardium.runs.trained_run import TrainedRun

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class PredictionSets:
    """coverage: the share of each class's records that should have it in their sets. floors: (C,). groups: (C,) counted."""

    classes: list[str]
    coverage: float
    floors: np.ndarray
    groups: np.ndarray

    @classmethod
    def fitted(
        cls, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: Sequence[str], coverage: float
    ) -> PredictionSets:
        """Fits the floors on held-out records: probabilities (n, C), labels (n,), groups (n,)."""
        floors, counts = np.zeros(len(classes)), np.zeros(len(classes), dtype=np.int64)
        for c in range(len(classes)):
            own = labels == c
            floors[c], counts[c] = _floor(probabilities[own, c], groups[own], coverage)
        return cls(list(classes), coverage, floors, counts)

    def contain(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities (n, C) -> bool (n, C): which classes each record's set holds; none where nothing fits."""
        return np.asarray(probabilities >= self.floors)

    def names(self, probabilities: np.ndarray) -> list[str]:
        """The set of one record with probabilities (C,), in the order of the classes."""
        return [name for name, there in zip(self.classes, self.contain(probabilities[None])[0], strict=True) if there]

    @property
    def too_few(self) -> list[str]:
        """The classes of fewer groups than a floor takes; they are in every set."""
        return [name for name, count in zip(self.classes, self.groups, strict=True) if count < least_groups(self.coverage)]


def sets_of(held_out: pandas.DataFrame, classes: Sequence[str], coverage: float) -> PredictionSets:
    """Fits the sets on predictions of held-out records, in the predictions format."""
    p = held_out[probability_columns(list(classes))].to_numpy()
    labels, groups = held_out["label"].to_numpy(), held_out["group"].to_numpy(dtype=str)
    return PredictionSets.fitted(p, labels, groups, classes, coverage)


def served_sets(run: TrainedRun, coverage: float) -> PredictionSets | None:
    """The sets that a run is served with: of its validation predictions. None for a run without them."""
    import pandas as pd

    path = run.folder / VALIDATION
    return sets_of(pd.read_parquet(path), run.classes, coverage) if path.is_file() else None


def least_groups(coverage: float) -> int:
    """The groups of a class that a floor takes: 9 for a coverage of 0.9."""
    return math.ceil(round(1 / (1 - coverage), 9)) - 1


def _floor(own: np.ndarray, groups: np.ndarray, coverage: float) -> tuple[float, int]:
    """The floor of one class and its number of groups. own: (n,) the probabilities that its records gave it."""
    names, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < least_groups(coverage):
        return 0.0, len(names)
    order = np.argsort(-own, kind="stable")
    reached = np.cumsum((1 / sizes[index])[order]) / (len(names) + 1)
    return float(own[order][np.argmax(reached >= coverage - 1e-12)]), len(names)
