"""Records whose held-out probability contradicts their label: confident learning (Northcutt et al. 2021, JAIR 70:1373).

A class's threshold is the mean probability of that class over its own records. A record counts as of the class with the
largest probability above its threshold; if that is not its label's class, it is an issue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Issue:
    """A record whose label is contradicted.

    row: in the arrays given. suggested: class index. given, instead: the held-out probabilities of label and suggestion.
    """

    row: int
    suggested: int
    given: float
    instead: float


def find_label_issues(labels: NDArray[np.integer[Any]], probabilities: NDArray[np.float64]) -> list[Issue]:
    """Finds issues, the strongest contradiction first (by the margin between suggestion and label).

    labels: (n,); probabilities: (n, C), held out; rows of NaN take no part.
    """
    known = np.isfinite(probabilities).all(axis=1)
    classes = probabilities.shape[1]
    threshold = np.array(
        [probabilities[known & (labels == c), c].mean() if (known & (labels == c)).any() else np.inf for c in range(classes)]
    )
    confident = probabilities >= threshold
    counted = np.where(confident, probabilities, -1.0)
    suggested = counted.argmax(axis=1)
    rows = np.flatnonzero(known & confident.any(axis=1) & (suggested != labels))
    margin = probabilities[rows, suggested[rows]] - probabilities[rows, labels[rows]]
    return [
        Issue(int(row), int(suggested[row]), float(probabilities[row, labels[row]]), float(probabilities[row, suggested[row]]))
        for row in rows[np.argsort(-margin, kind="stable")]
    ]
