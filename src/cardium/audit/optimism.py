"""How much a score gains if files are split instead of patients: the same probe under both ways, and the gap.

random: every file, copies and all, dealt at random class by class, as published experiments do it.
grouped: groups kept apart and copies counted once, as protocol `honest` does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardium.audit.probe import Score, count_folds, held_out, score
from cardium.evaluation.metrics import GroupBootstrap


@dataclass(frozen=True)
class Optimism:
    """The probe's scores under both ways.

    random, grouped: balanced accuracies. gap: the first less the second, over the same resamples of groups.

    probabilities: (n, classes), of the grouped way, the mean over the repeats; NaN in rows that it leaves out.
    """

    random: Score
    grouped: Score
    gap: Score
    folds: int
    probabilities: NDArray[np.float64]

    def as_dict(self, share: float) -> dict[str, Any]:
        return {name: getattr(self, name).as_dict(share) for name in ("random", "grouped", "gap")}


def measure_optimism(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer[Any]],
    groups: Sequence[str],
    once: NDArray[np.bool_],
    classes: Sequence[str],
    folds: int,
    repeats: int,
    resamples: int,
    seed: int,
) -> Optimism | None:
    """Measures the gap between the two ways; None if some class has too few groups.

    vectors: (n, C) of all records that may take part. once: bool (n,), those that take part if copies count once.
    """
    own = [group for group, taken in zip(groups, once, strict=True) if taken]
    folds = count_folds(own, [classes[label] for label in labels[once]], classes, folds)
    if not folds:
        return None
    bootstrap = GroupBootstrap(list(groups), labels, resamples, seed)
    settled: dict[str, Any] = {"classes": classes, "folds": folds, "repeats": repeats, "seed": seed}
    at_random = held_out(vectors, labels, groups, **settled, apart=False, what="files at random")
    apart = held_out(vectors[once], labels[once], own, **settled, apart=True, what="groups apart")
    random = score(labels, groups, at_random, bootstrap)
    grouped = score(labels[once], own, apart, bootstrap)
    probabilities = np.full((len(labels), len(classes)), np.nan)
    probabilities[once] = np.mean(apart, axis=0)
    gap = Score(random.value - grouped.value, random.draws - grouped.draws)
    return Optimism(random, grouped, gap, folds, probabilities)
