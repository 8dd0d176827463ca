"""The score to expect of the run that validation chooses: chosen anew for every held-out fold, by that fold's validation alone.

Where every fold is held out in turn, a record that one model is tested on has validated another. The best run by all validation
records is then chosen by its own test records, and its score is too high. Here each held-out fold t has a choice of its own, by
the validation records of the models that were trained without t, and the chosen run's predictions of t are taken (nested
cross-validation: Stone 1974; Varma and Simon 2006, BMC Bioinformatics 7:91). Nothing is trained for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cardium.evaluation.metrics import score
from cardium.runs.predictions import by_patient, probability_columns, same_units

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Candidate:
    """A run to choose from: its predictions of validation and test records, in the predictions format."""

    name: str
    parameters: int
    validation: pandas.DataFrame
    test: pandas.DataFrame


def best(validated: Mapping[str, float], parameters: Mapping[str, int]) -> str:
    """The name with the highest validation score and, of equals, the fewest parameters."""
    # Rounded: two runs with the same decisions may differ in the last bit.
    return min(validated, key=lambda name: (-round(validated[name], 9), parameters[name], name))


def choose_by_fold(
    candidates: Sequence[Candidate], classes: Sequence[str], threshold: float
) -> tuple[pandas.DataFrame, dict[int, str]]:
    """The chosen runs' test predictions, fold by fold, and the name chosen for each held-out fold.

    candidates: at least one, all tested on the same records and folds. Runs are compared by balanced accuracy per record; where
    some are of whole patients, all are compared, and the result is, per patient.
    """
    import pandas as pd

    if not all(same_units(candidates[0].test, one.test) for one in candidates):
        candidates = [
            replace(one, validation=by_patient(one.validation, classes), test=by_patient(one.test, classes))
            for one in candidates
        ]
    columns, parameters = probability_columns(list(classes)), {one.name: one.parameters for one in candidates}
    parts, chosen = [], {}
    for fold in sorted(set(candidates[0].test["test_fold"])):
        validated = {}
        for one in candidates:
            rows = one.validation[one.validation["test_fold"] == fold]
            labels = rows["label"].to_numpy(dtype=np.int64)
            validated[one.name] = score(labels, rows[columns].to_numpy(), threshold)["balanced_accuracy"]
        name = best(validated, parameters)
        tested = next(one.test for one in candidates if one.name == name)
        parts.append(tested[tested["test_fold"] == fold])
        chosen[int(fold)] = name
    return pd.concat(parts, ignore_index=True), chosen
