"""Intervals of scores from few patients: labels, probabilities and groups in, every score of metrics.py with its interval out.

Records of one group (patient) resemble each other, so it is groups that are counted:

    a share       recall, precision and, by way of TP / (TP + FP + FN), F1: Wilson's interval (1927) with an effective sample
                  size, the records that would tell as much if they were independent, and Student's t of the groups' degrees
                  of freedom (Korn and Graubard 1998, Survey Methodology 24:193). Where groups show no variance, as at a share
                  of 1, the size is by how alike their scores are. Recall over groups of one record each is of independent
                  trials: the mid-P interval then, since Wilson's is too narrow near 0 and 1 (Agresti and Gottard 2007).
    a mean of     balanced accuracy, accuracy, macro and weighted means, roc_auc of several classes: MOVER (Zou and Donner
    scores        2008, Stat Med 27:1693), the parts' intervals combined as variances would be, with their correlation.
    roc_auc       Newcombe's score interval (2006, Stat Med 25:559, method 5), which does not close at 1. Its variance is scaled
                  to that of clustered data (Obuchowski 1997, Biometrics 53:567; DeLong et al. 1988 for groups of one record).
    loss, brier   t interval of the mean on the logarithmic scale, by the variance between groups.

The variance of shares and areas between few groups is drawn towards what groups whose scores are so alike lead to expect, that
of loss and Brier score towards what the probabilities themselves say of it: of a model that seldom errs, few records hold an
error. Groups are drawn within the class that most of their records have. calibration_error has no interval: on few records it
is above 0 for a perfectly calibrated model, and no interval about it holds that truth. benchmarks/honesty/coverage.py measures
how often each interval holds the true score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardium.evaluation.metrics import CLIP, Floats, Ints, decide, group_strata, score

# Halvings of [0, 1]: ends are exact to 1e-12.
_HALVINGS = 40
# What a group adds to a score's error is 0 below this, but for rounding.
_ROUNDING = 1e-12
# How far a variance between groups, as observed, is drawn towards what is expected of groups so alike: 0 not, 1 all the way.
# Where few groups err, what is observed is mostly too small. A third holds the goal in benchmarks/honesty/coverage.py.
_DRAWN = 1 / 3


@dataclass(frozen=True)
class _Estimate:
    """A score, the ends of its interval, and what each group (G,) adds to its error, by which estimates are correlated."""

    value: float
    low: float
    high: float
    influence: Floats


@dataclass(frozen=True)
class _Sample:
    """The records: labels (n,), probabilities (n, C), decisions (n,), each one's group (n,) as a number below `groups`, and
    the stratum of each group (G,). level: what an interval should cover."""

    labels: Ints
    probabilities: Floats
    decided: Ints
    group: Ints
    strata: Ints
    level: float

    def sums(self, values: ArrayLike) -> Floats:
        """(n,) values of records -> (G,) sums of groups."""
        return np.bincount(self.group, np.asarray(values, np.float64), len(self.strata)).astype(np.float64)


def score_with_intervals(
    labels: ArrayLike,
    probabilities: ArrayLike,
    groups: ArrayLike,
    threshold: float = 0.5,
    interval: float = 0.95,
    classes: Sequence[str] | None = None,
) -> dict[str, dict[str, float | None]]:
    """Every score of `metrics.score` as {"value", "low", "high"}.

    labels: (n,) class indices; probabilities: (n, C); groups: (n,) names; interval: what an interval should cover.
    None stands for what is not defined: a value as in `score`, and the ends of an interval without groups to tell.
    Raises ValueError as `score` does, and for another number of groups than records.
    """
    values = score(labels, probabilities, threshold, classes)
    y, p = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    names, index = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if len(index) != len(y):
        raise ValueError(f"{len(index)} groups for {len(y)} labels: every record needs its group.")
    sample = _Sample(y, p, decide(p, threshold), index.astype(np.int64), group_strata(index, y, len(names)), interval)
    shown = [str(c) for c in range(p.shape[1])] if classes is None else list(classes)
    result: dict[str, dict[str, float | None]] = {}
    for name, found in _estimates(sample, shown).items():
        ends = (found.low, found.high) if found is not None and name in values else (np.nan, np.nan)
        low, high = (float(end) if np.isfinite(end) else None for end in ends)
        result[name] = {"value": values.get(name), "low": low, "high": high}
    return result


def groups_per_class(labels: ArrayLike, groups: ArrayLike) -> dict[int, int]:
    """The number of groups of each class that there is among the (n,) labels."""
    y, names = np.asarray(labels), np.asarray(groups).astype(str)
    return {int(label): len(np.unique(names[y == label])) for label in np.unique(y)}


def wilson(share: float, size: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share in 0..1 of `size` > 0 trials; `quantile`: 1.96 for 95 %."""
    squared = quantile * quantile
    middle = (share + squared / (2 * size)) / (1 + squared / size)
    half = quantile / (1 + squared / size) * np.sqrt(share * (1 - share) / size + squared / (4 * size * size))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def mid_p(hits: int, size: int, level: float) -> tuple[float, float]:
    """The mid-P interval of `hits` of `size` independent trials: the ends at which half the probability of what was seen, and
    all of what is further off, add up to (1 - level) / 2 (Lancaster 1961)."""
    from scipy.special import betainc

    def low_end(hits: int) -> float:
        if hits == 0:
            return 0.0

        def tail(share: float) -> float:
            more = float(betainc(hits + 1, size - hits, share)) if hits < size else 0.0
            return (float(betainc(hits, size - hits + 1, share)) + more) / 2

        return _where_above(tail, (1 - level) / 2)

    return low_end(hits), 1.0 - low_end(size - hits)


# -------------------------------------------------------------------------------------------------------------------- scores


def _estimates(sample: _Sample, names: Sequence[str]) -> dict[str, _Estimate | None]:
    """Every score's estimate; None for one without an interval."""
    classes = range(len(names))
    actual, decided = sample.labels, sample.decided
    recall, precision, f1 = [], [], []
    for c in classes:
        hit, scores = (actual == c) & (decided == c), sample.probabilities[:, c]
        recall.append(_share(sample, hit, actual == c, scores))
        precision.append(_share(sample, hit, decided == c, scores))
        f1.append(_f1(_share(sample, hit, (actual == c) | (decided == c), scores)))
    counts = np.bincount(actual, minlength=len(names)).astype(np.float64)
    present = (counts > 0).astype(np.float64)
    by_records, evenly = counts / counts.sum(), np.full(len(names), 1 / len(names))
    result: dict[str, _Estimate | None] = {
        "accuracy": _mean(recall, by_records),
        "balanced_accuracy": _mean(recall, present / present.sum()),
        "loss": _positive_mean(sample, -np.log(np.clip(sample.probabilities, CLIP, 1 - CLIP)), -np.log(CLIP)),
    }
    for c, name in enumerate(names):
        result |= {f"precision_{name}": precision[c], f"recall_{name}": recall[c], f"f1_{name}": f1[c]}
    for metric, parts in (("precision", precision), ("recall", recall), ("f1", f1)):
        result |= {f"{metric}_macro": _mean(parts, evenly), f"{metric}_weighted": _mean(parts, by_records)}
    if present.all():
        areas = [_area(sample, c) for c in (classes if len(names) > 2 else [1])]
        result["roc_auc"] = areas[0] if len(areas) == 1 else _mean(areas, evenly, unknown=1.0)
    else:
        result["roc_auc"] = None
    square = (sample.probabilities**2).sum(axis=1, keepdims=True)
    most = 1.0 if len(names) == 2 else 2.0
    squares = (square - 2 * sample.probabilities + 1) * most / 2
    result |= {"brier": _positive_mean(sample, squares, most), "calibration_error": None}
    return result


def _share(sample: _Sample, hit: NDArray[np.bool_], counted: NDArray[np.bool_], scores: Floats) -> _Estimate:
    """The share of `hit` among the `counted` records, by whose `scores` they were hit; all (n,)."""
    hits, trials = sample.sums(hit), sample.sums(counted)
    there, total = trials > 0, trials.sum()
    influence = np.zeros(len(there))
    if not there.any():
        return _Estimate(0.0, np.nan, np.nan, influence)
    value = float(hits.sum() / total)
    influence[there] = _centred(((hits - value * trials) / total)[there], sample.strata[there])
    if trials.max() == 1 and len(np.unique(sample.strata[there])) == 1:
        return _Estimate(value, *mid_p(int(hits.sum()), int(total), sample.level), influence)
    variance, freedom = _variance(influence[there], sample.strata[there])
    expected = _design_effect(scores[counted], sample.group[counted])
    if variance == 0:
        # Groups without a difference tell nothing of one: what is expected of them stands in its place.
        size = float(total / expected)
    else:
        effect = max(1.0, variance * total / (value * (1 - value)))
        size = float(total / max(effect, _between(effect, expected)))
    if len(np.unique(sample.strata[there])) == 1:
        # What a variance is drawn towards is as good as certain: of its own logarithm two thirds are left.
        freedom /= (1 - _DRAWN) ** 2
    quantile = _student(freedom, sample.level)
    return _Estimate(value, *wilson(value, size, quantile), influence)


def _f1(jaccard: _Estimate) -> _Estimate:
    """2 TP / (2 TP + FP + FN) of TP / (TP + FP + FN): a rising function, so ends go to ends."""
    value, low, high = (2 * end / (1 + end) for end in (jaccard.value, jaccard.low, jaccard.high))
    return _Estimate(value, low, high, jaccard.influence * 2 / (1 + jaccard.value) ** 2)


def _mean(parts: Sequence[_Estimate], weights: Floats, unknown: float = 0.0) -> _Estimate:
    """The weighted sum of estimates by MOVER. A part without an interval is taken as it is.

    unknown: the correlation of two parts where the groups show no error of one of them.
    """
    value = float(sum(weight * part.value for weight, part in zip(weights, parts, strict=True)))
    influences = np.array([part.influence for part in parts])
    lengths = np.sqrt((influences**2).sum(axis=1))
    scale = np.outer(lengths, lengths)
    correlation = np.divide(influences @ influences.T, scale, out=np.full_like(scale, unknown), where=scale > 0)
    np.fill_diagonal(correlation, 1.0)
    below = weights * np.nan_to_num([part.value - part.low for part in parts])
    above = weights * np.nan_to_num([part.high - part.value for part in parts])
    low, high = (np.sqrt(max(0.0, float(side @ correlation @ side))) for side in (below, above))
    return _Estimate(value, max(0.0, value - low), min(1.0, value + high), weights @ influences)


def _positive_mean(sample: _Sample, penalties: Floats, most: float) -> _Estimate:
    """The mean of what records are charged. penalties: (n, C) above 0: what each would be charged if it were of class c;
    most: what a record can be charged."""
    n = len(penalties)
    values = penalties[np.arange(n), sample.labels]
    sums, records = sample.sums(values), sample.sums(np.ones(n))
    value = float(values.mean())
    influence = _centred((sums - value * records) / n, sample.strata)
    variance, freedom = _variance(influence, sample.strata)
    # Where a model seldom errs, few records tell what its errors cost: its own probabilities say how much it can vary.
    mean = (sample.probabilities * penalties).sum(axis=1, keepdims=True)
    own = float((sample.probabilities * (penalties - mean) ** 2).sum()) / n**2
    expected = own * _design_effect(values, sample.group)
    variance = max(variance, _between(variance, expected))
    if value <= 0:
        return _Estimate(value, value, value, influence)
    # e^50 is beyond any end: no sum of probabilities is charged more than `most`.
    spread = float(np.exp(min(50.0, _student(freedom, sample.level) * np.sqrt(variance) / value)))
    return _Estimate(value, value / spread, min(most, value * spread), influence)


def _area(sample: _Sample, c: int) -> _Estimate:
    """The area under the ROC curve of class c against the rest."""
    positive, scores = sample.labels == c, sample.probabilities[:, c]
    above, below = np.sort(scores[positive]), np.sort(scores[~positive])
    m, n = len(above), len(below)
    # Of each positive the share of negatives below it, of each negative the share of positives above it; ties one half.
    placed = np.empty(len(scores))
    found = [np.searchsorted(below, scores[positive], side=side) for side in ("left", "right")]
    placed[positive] = (found[0] + found[1]) / (2 * n)
    found = [np.searchsorted(above, scores[~positive], side=side) for side in ("left", "right")]
    placed[~positive] = 1 - (found[0] + found[1]) / (2 * m)
    value = float(placed[positive].mean())
    influence = _centred(sample.sums((placed - value) / np.where(positive, m, n)), sample.strata)
    variance, freedom = _variance(influence, sample.strata)
    quantile = _student(freedom, sample.level)
    if np.bincount(sample.group).max() == 1:
        quantile = _normal(sample.level)
    if variance > 0:
        sizes = [one / _design_effect(scores[side], sample.group[side]) for one, side in ((m, positive), (n, ~positive))]
        scale = _between(variance, _area_variance(value, *sizes)) / _area_variance(value, m, n)
    else:
        m, n = (len(np.unique(sample.group[side])) for side in (positive, ~positive))
        scale = 1.0

    def off(area: float) -> float:
        return abs(area - value) - quantile * float(np.sqrt(scale * _area_variance(area, m, n)))

    low = value * (1 - _where_above(lambda way: off(value * (1 - way)), 0.0))
    high = value + (1 - value) * _where_above(lambda way: off(value + (1 - value) * way), 0.0)
    return _Estimate(value, low, high, influence)


def _area_variance(area: float, m: float, n: float) -> float:
    """The variance of an area under the curve from m positives and n negatives, by its value alone: Hanley and McNeil (1982)
    with Newcombe's mean sample size."""
    more = (m + n) / 2 - 1
    return area * (1 - area) / (m * n) * (1 + more * (1 - area) / (2 - area) + more * area / (1 + area))


def _between(observed: float, expected: float) -> float:
    return float(observed ** (1 - _DRAWN) * expected**_DRAWN)


def _design_effect(scores: Floats, group: Ints) -> float:
    """How many records of these groups tell as much as one independent record, at least 1.

    1 + (m - 1) r, m the mean group size as a record sees it, r the correlation of the scores' ranks within a group (analysis
    of variance; Donald and Donner 1987). scores: (n,); group: (n,) numbers.
    """
    _, group = np.unique(group, return_inverse=True)
    ranks = np.unique(scores, return_inverse=True)[1].astype(np.float64)
    sizes = np.bincount(group).astype(np.float64)
    n, groups = len(scores), len(sizes)
    if groups in (1, n):
        return n / groups
    means = np.bincount(group, weights=ranks) / sizes
    seen = float((sizes**2).sum()) / n
    between = float((sizes * (means - ranks.mean()) ** 2).sum()) / (groups - 1)
    within = float(((ranks - means[group]) ** 2).sum()) / (n - groups)
    total = between + ((n - seen) / (groups - 1) - 1) * within
    # Scores that are all the same say nothing of how alike the groups' records are: as alike as can be, then.
    correlation = max(0.0, (between - within) / total) if total > 0 else 1.0
    return 1 + (seen - 1) * correlation


# ------------------------------------------------------------------------------------------------------------------- variance


def _variance(influence: Floats, strata: Ints) -> tuple[float, float]:
    """The variance of a sum over groups that were drawn within strata, and its degrees of freedom by Satterthwaite.

    influence, strata: (G,). A stratum of one group has no variance of its own: what it adds is taken for its deviation.
    """
    variances, freedoms = list[float](), list[int]()
    for stratum in np.unique(strata):
        own = _centred(influence, strata)[strata == stratum]
        variances.append(len(own) / max(1, len(own) - 1) * float((own**2).sum()))
        freedoms.append(max(1, len(own) - 1))
    total = sum(variances)
    if total == 0:
        return 0.0, float(sum(freedoms))
    return total, total**2 / sum(one**2 / free for one, free in zip(variances, freedoms, strict=True))


def _where_above(function: Callable[[float], float], level: float) -> float:
    """Where in [0, 1] a function passes `level` from below, by halving; 1 where it does not."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) > level else (middle, high)
    return high


def _centred(influence: Floats, strata: Ints) -> Floats:
    """(G,) deviations from the mean of each stratum; a stratum of one group keeps what it has."""
    _, place, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=influence) / sizes
    deviations = influence - np.where(sizes > 1, means, 0.0)[place]
    return np.where(np.abs(deviations) < _ROUNDING, 0.0, deviations)


def _student(freedom: float, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(max(1.0, freedom), (1 + level) / 2))


def _normal(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
