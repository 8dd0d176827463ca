"""Predictions as a table: one row per (record, held-out fold), in the same form for validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cardium.errors import CardiumError

if TYPE_CHECKING:
    import pandas

# A run folder's predictions of the validation records of every held-out fold.
VALIDATION = "validation.parquet"


def prediction_rows(
    manifest: pandas.DataFrame,
    records: np.ndarray,
    test_fold: int,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: list[str],
) -> pandas.DataFrame:
    """Builds the rows for `records` (n,): record, test_fold, group, label (class index), p_<class>.

    labels: (N,) class indices of all records of the manifest. probabilities: (n, C), scaled here to sum to one.
    """
    import pandas as pd

    table = pd.DataFrame(
        {
            "record": records.astype(np.int64),
            "test_fold": np.full(len(records), test_fold, dtype=np.int64),
            "group": manifest["group"].to_numpy()[records],
            "label": labels[records],
        }
    )
    shares = probabilities / probabilities.sum(axis=1, keepdims=True)
    for column, label in enumerate(classes):
        table[f"p_{label}"] = shares[:, column]
    return table


def probability_columns(classes: list[str]) -> list[str]:
    """Returns the names of the probability columns, in class order."""
    return [f"p_{label}" for label in classes]


def mean_predictions(tables: list[pandas.DataFrame], classes: list[str]) -> pandas.DataFrame:
    """Averages prediction tables of the same rows. Raises CardiumError if their rows differ."""
    columns = probability_columns(classes)
    ordered = [table.sort_values(["test_fold", "record"], ignore_index=True) for table in tables]
    first = ordered[0]
    for table in ordered[1:]:
        if not table[["record", "test_fold", "label"]].equals(first[["record", "test_fold", "label"]]):
            raise CardiumError(
                "The members were scored on different records: an ensemble's members must come from the same split."
            )
    mean = first.copy()
    mean[columns] = np.mean([table[columns].to_numpy() for table in ordered], axis=0)
    return mean


def same_units(table: pandas.DataFrame, other: pandas.DataFrame) -> bool:
    """Whether a record is the same in two tables of one dataset, an image or a patient: then it is of one group in both."""
    both = table[["record", "group"]].merge(other[["record", "group"]], on="record")
    return not both.empty and bool((both["group_x"] == both["group_y"]).all())


def by_patient(table: pandas.DataFrame, classes: Sequence[str]) -> pandas.DataFrame:
    """Predictions -> a row a patient and held-out fold: the mean probability of the patient's rows, numbered anew."""
    key = ["test_fold", "group", "label"]
    mean = table.groupby(key, as_index=False, sort=True)[probability_columns(list(classes))].mean()
    mean.insert(0, "record", range(len(mean)))
    return mean
