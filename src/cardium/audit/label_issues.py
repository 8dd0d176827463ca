"""Records whose label is probably wrong, by the probe's held-out probabilities.

The model: a label is the true class with probability 1 - e, otherwise any other class, each as often. The true class follows
the probe's probabilities, sharpened or softened by one exponent (temperature scaling, Guo et al. 2017, ICML), times the
classes' shares, since the probe is fitted to balanced classes. Exponent and e are those under which the given labels are
likeliest; what is left for a label is its probability of being wrong. So a probe that is often sure and wrong is believed less,
and clean labels give an e of 0.

Confident learning (Northcutt et al. 2021, JAIR 70:1373) counts every confident contradiction instead. Where the probe errs, it
calls up to a quarter of clean labels wrong, with each of its filters (benchmarks/label_issues.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The probability of being wrong from which a label is named.
_WRONG = 0.8
# What is tried: exponents, and shares of wrong labels beside none.
_EXPONENTS = np.geomspace(0.2, 3.0, 30)
_NOISE = np.geomspace(0.002, 0.3, 25)
# Logarithm of the likelihood that wrong labels must gain over none.
_GAIN = 2.0


@dataclass(frozen=True)
class Issue:
    """A record whose label is probably wrong.

    row: in the arrays given. suggested: class index. given, instead: the held-out probabilities of label and suggestion. wrong:
    the probability that the label is wrong.
    """

    row: int
    suggested: int
    given: float
    instead: float
    wrong: float


def able_from(classes: int) -> float:
    """The probe's balanced accuracy from which it can judge labels: half of the way from chance to always right."""
    return (1 + 1 / classes) / 2


def find_label_issues(labels: NDArray[np.integer[Any]], probabilities: NDArray[np.float64]) -> list[Issue]:
    """Finds issues, the most probable first.

    labels: (n,); probabilities: (n, C), held out, of a probe of balanced classes; rows of NaN take no part.
    """
    known = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    if not len(known):
        return []
    own, p = labels[known], probabilities[known]
    wrong = probability_wrong(own, p)
    others = p.copy()
    others[np.arange(len(own)), own] = -1
    suggested = others.argmax(axis=1)
    # Beyond what floating point tells apart the probe's own margin decides.
    margin = others.max(axis=1) - p[np.arange(len(own)), own]
    order = np.lexsort((-margin, -wrong.round(6)))
    return [
        Issue(int(known[i]), int(suggested[i]), float(p[i, own[i]]), float(p[i, suggested[i]]), float(wrong[i]))
        for i in order[wrong[order] >= _WRONG]
    ]


def probability_wrong(labels: NDArray[np.integer[Any]], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability that each label is wrong, (n,); all 0 where no share of wrong labels makes the labels likelier."""
    classes = probabilities.shape[1]
    rows = np.arange(len(labels))
    share = np.bincount(labels, minlength=classes) / len(labels)
    levels = np.log(np.clip(probabilities, 1e-12, 1.0))
    none, best = -np.inf, -np.inf
    wrong = np.zeros(len(labels))
    for exponent in _EXPONENTS:
        weighed = np.exp(exponent * levels) * share
        right = weighed[rows, labels] / weighed.sum(axis=1)
        none = max(none, float(np.log(right + 1e-300).sum()))
        for noise in _NOISE:
            flipped = noise * (1 - right) / (classes - 1)
            observed = (1 - noise) * right + flipped
            likely = float(np.log(observed).sum())
            if likely > best:
                best, wrong = likely, flipped / observed
    return wrong if best > none + _GAIN else np.zeros(len(labels))
