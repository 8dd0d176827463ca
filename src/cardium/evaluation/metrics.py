"""Scores and their intervals from labels, probabilities and groups: plain arrays in, plain numbers out. numpy only.

Definitions are scikit-learn's with `zero_division=0` and all classes counted, for any number of classes C >= 2:

    decision            C = 2: the last class if its probability > threshold (strictly); C > 2: the largest probability
    accuracy, precision_<class>, recall_<class>, f1_<class>, their plain means precision_macro, recall_macro, f1_macro
                        and those weighted by the classes' records, precision_weighted, recall_weighted, f1_weighted
    balanced_accuracy   mean recall of the classes that occur among the labels
    loss                unweighted cross-entropy, probabilities clipped to [1e-7, 1 - 1e-7] as Keras does
    roc_auc             C = 2: of the last class; C > 2: plain mean of each class against the rest; needs all classes
    brier               C = 2: mean of (p(last) - y)^2; C > 2: mean over records of the sum over classes
    calibration_error   expected calibration error (Guo et al. 2017, arXiv:1706.04599): CALIBRATION_BINS bins of equal width
                        over the probability of the decided class, mean |accuracy - mean probability| weighted by records

intervals.py gives each its interval. Runs are compared by a bootstrap over whole groups: a resample is a row of weights, and
thousands of resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CALIBRATION_BINS = 15  # Guo et al. 2017, section 5
CLIP = 1e-7  # keras.config.epsilon()
# Two balanced accuracies nearer than this are equal; the difference is rounding in the last digits.
_TIE = 1e-12


def decide(probabilities: ArrayLike, threshold: float = 0.5) -> Ints:
    """(n, C) probabilities -> (n,) class indices. Ties of the largest go to the first class, as in numpy.argmax."""
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape[1] == 2:
        return (p[:, 1] > threshold).astype(np.int64)
    return p.argmax(axis=1).astype(np.int64)


def confusion(labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> Ints:
    """(C, C) counts of records: row = label, column = decision."""
    y, p = _checked(labels, probabilities)
    classes = p.shape[1]
    return np.bincount(y * classes + decide(p, threshold), minlength=classes**2).reshape(classes, classes).astype(np.int64)


def score(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5, classes: Sequence[str] | None = None
) -> dict[str, float]:
    """All scores of the module's docstring.

    labels: (n,) class indices; probabilities: (n, C), rows summing to 1; classes: names for keys (default: indices).
    A score that is not defined here (roc_auc without every class among the labels) has no key, so the result is NaN-free JSON.
    Raises ValueError on shapes that do not fit, labels out of range, and probabilities that are not finite.
    """
    y, p = _checked(labels, probabilities)
    n, number = p.shape
    names = [str(c) for c in range(number)] if classes is None else classes
    if len(names) != number:
        raise ValueError(f"{len(names)} class names for {number} columns of probabilities.")
    decided = decide(p, threshold)
    matrix = confusion(y, p, threshold).astype(np.float64)
    hits, actual, predicted = np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall, f1 = (_ratio(above, below, 0.0) for above, below in (
        (hits, predicted), (hits, actual), (2 * hits, actual + predicted)
    ))  # fmt: skip
    result = {
        "accuracy": float(hits.sum() / n),
        "balanced_accuracy": float(_balanced_accuracy(matrix[None])[0]),
        "loss": float(-np.log(np.clip(p[np.arange(n), y], CLIP, 1 - CLIP)).mean()),
    }
    for c, name in enumerate(names):
        result |= {f"precision_{name}": float(precision[c]), f"recall_{name}": float(recall[c]), f"f1_{name}": float(f1[c])}
    for metric, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        result |= {f"{metric}_macro": float(values.mean()), f"{metric}_weighted": float(actual @ values / n)}
    if (actual > 0).all():
        areas = [_roc_auc(y == c, p[:, c]) for c in (range(number) if number > 2 else [1])]
        result["roc_auc"] = float(np.mean(areas))
    squares = (p[:, 1] - y) ** 2 if number == 2 else ((p - np.eye(number)[y]) ** 2).sum(axis=1)
    result["brier"] = float(squares.mean())
    bins = _bin(p[np.arange(n), decided], CALIBRATION_BINS)
    # records * (accuracy - mean confidence) of a bin is a plain sum of (right - confidence).
    gaps = np.bincount(bins, weights=(decided == y) - p[np.arange(n), decided], minlength=CALIBRATION_BINS)
    result["calibration_error"] = float(np.abs(gaps).sum() / n)
    return result


def group_strata(index: Ints, labels: Ints, groups: int) -> Ints:
    """(n,) group numbers and (n,) labels -> (groups,) the class of most of a group's records; of equals the first."""
    counts = np.zeros((groups, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (index, labels), 1)
    return counts.argmax(axis=1).astype(np.int64)


class GroupBootstrap:
    """Resamples of whole groups (patients), drawn once and shared by all runs, so that comparisons between runs are paired.

    Groups are resampled within the class that most of their records have (ties: the first class), so no class is lost in a
    resample. Of a class's g groups, g - 1 are drawn with replacement and weigh g / (g - 1): the rescaled bootstrap of Rao & Wu
    (1988, JASA 83:231), whose variance is right for few groups, where drawing g of g is too narrow by (g - 1) / g. A class with
    a single group cannot vary: it stands in every resample, and intervals tell nothing about it (`single` is then True).

    names: (G,) sorted group names. weights: (resamples, G) float64, 0 where a group is not in the resample.
    """

    def __init__(self, groups: ArrayLike, labels: ArrayLike, resamples: int = 2000, seed: int = 0) -> None:
        y = np.asarray(labels, dtype=np.int64)
        self.names, index = np.unique(np.asarray(groups).astype(str), return_inverse=True)
        if len(y) == 0 or len(index) != len(y):
            raise ValueError(f"{len(index)} groups for {len(y)} labels: a bootstrap needs one group a record, and a record.")
        majority = group_strata(index, y, len(self.names))
        self.resamples, self.seed = resamples, seed
        self.weights: Floats = np.ones((resamples, len(self.names)))
        rng = np.random.default_rng(seed)
        for stratum in np.unique(majority):
            members = np.flatnonzero(majority == stratum)
            g = len(members)
            if g == 1:
                continue
            self.weights[:, members] = rng.multinomial(g - 1, np.full(g, 1 / g), size=resamples) * (g / (g - 1))

    def index(self, groups: ArrayLike) -> Ints:
        """(n,) group names -> (n,) columns of `weights`. Raises ValueError on a group the bootstrap was not drawn over."""
        given = np.asarray(groups).astype(str)
        position = np.searchsorted(self.names, given).clip(max=len(self.names) - 1)
        strange = self.names[position] != given
        if strange.any():
            raise ValueError(f"Group `{given[strange][0]}` is not among the {len(self.names)} groups of this bootstrap.")
        return position.astype(np.int64)


def balanced_accuracy_under(
    labels: ArrayLike, probabilities: ArrayLike, groups: ArrayLike, bootstrap: GroupBootstrap, threshold: float = 0.5
) -> tuple[float, Floats]:
    """The balanced accuracy, and (R,) its values under each of the bootstrap's resamples."""
    y, p = _checked(labels, probabilities)
    value = _balanced_accuracy(_confusions(y, p, np.zeros(len(y), dtype=np.int64), np.ones((1, 1)), threshold))[0]
    return float(value), _balanced_accuracy(_confusions(y, p, bootstrap.index(groups), bootstrap.weights, threshold))


def paired_difference(
    labels: ArrayLike,
    groups: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    bootstrap: GroupBootstrap,
    threshold: float = 0.5,
    interval: float = 0.95,
) -> dict[str, float]:
    """Balanced accuracy of `a` less that of `b` on the same records, both (n, C) probabilities.

    Both are scored on the same resamples. Returns difference, low, high (the interval), and probability_better: the share of
    the resamples in which `a` is the better one, ties counting one half.
    """
    value_a, draws_a = balanced_accuracy_under(labels, a, groups, bootstrap, threshold)
    value_b, draws_b = balanced_accuracy_under(labels, b, groups, bootstrap, threshold)
    draws = draws_a - draws_b
    low, high = _quantiles(draws, interval)
    better = float((draws > _TIE).mean() + 0.5 * (np.abs(draws) <= _TIE).mean())
    return {"difference": value_a - value_b, "low": float(low or 0.0), "high": float(high or 0.0), "probability_better": better}


def per_group(labels: ArrayLike, probabilities: ArrayLike, groups: ArrayLike) -> tuple[Ints, Floats, NDArray[np.str_]]:
    """Records -> patients: (m,) labels, (m, C) mean probabilities, (m,) group names, sorted by group and label.

    A group whose records have several labels counts once a label, as a (group, label) pair: joined copies of another class's
    patient must not outvote the rest of the group.
    """
    y, p = _checked(labels, probabilities)
    names, index = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    pairs, position = np.unique(index * p.shape[1] + y, return_inverse=True)
    sums = np.stack([np.bincount(position, weights=column, minlength=len(pairs)) for column in p.T], axis=1)
    means = sums / np.bincount(position, minlength=len(pairs))[:, None]
    return (pairs % p.shape[1]).astype(np.int64), means, names[pairs // p.shape[1]]


def roc_points(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Floats, Floats]:
    """The ROC curve from (0, 0) to (1, 1): (m,) false and (m,) true positive rates, both rising.

    C = 2: every distinct probability of the last class is a point. C > 2: true positive rates of the classes against the rest,
    averaged at the same false positive rates (Fawcett 2006). Raises ValueError if a class is not among the labels.
    """
    y, p = _checked(labels, probabilities)
    if len(np.unique(y)) < p.shape[1]:
        raise ValueError("A ROC curve needs every class among the labels.")
    if p.shape[1] == 2:
        return _roc(y == 1, p[:, 1])
    curves = [_roc(y == c, p[:, c]) for c in range(p.shape[1])]
    rates = np.unique(np.concatenate([false for false, _ in curves]))
    mean = np.mean([np.interp(rates, false, true) for false, true in curves], axis=0)
    # np.interp takes the top of a vertical step; the curve still has to start at the corner.
    return np.concatenate([[0.0], rates]), np.concatenate([[0.0], mean])


def calibration_curve(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5, bins: int = CALIBRATION_BINS
) -> tuple[Floats, Floats, Ints]:
    """What calibration_error averages: per bin that is not empty, mean probability of the decided class, accuracy, records."""
    y, p = _checked(labels, probabilities)
    decided = decide(p, threshold)
    confidence = p[np.arange(len(y)), decided]
    position = _bin(confidence, bins)
    count = np.bincount(position, minlength=bins)
    full = count > 0
    mean = np.bincount(position, weights=confidence, minlength=bins)[full] / count[full]
    accuracy = np.bincount(position, weights=(decided == y).astype(np.float64), minlength=bins)[full] / count[full]
    return mean, accuracy, count[full].astype(np.int64)


def coverage_curve(labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> tuple[Floats, Floats]:
    """What abstaining brings: (n,) shares of records that are answered, and (n,) the accuracy on them, the surest first.

    Sure is how probable the decided class is; records that are equally sure are answered together, or not at all
    (Geifman and El-Yaniv, arXiv:1705.08500: the complement of their risk).
    """
    y, p = _checked(labels, probabilities)
    decided = decide(p, threshold)
    sure = p[np.arange(len(y)), decided]
    order = np.argsort(-sure, kind="stable")
    answered = np.arange(1, len(y) + 1)
    accuracy = np.cumsum(decided[order] == y[order]) / answered
    last = np.append(np.flatnonzero(np.diff(sure[order])), len(y) - 1)
    return answered[last] / len(y), accuracy[last]


def _checked(labels: ArrayLike, probabilities: ArrayLike) -> tuple[Ints, Floats]:
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2 or y.shape != (len(p),) or len(y) == 0:
        raise ValueError(f"Labels {y.shape} and probabilities {p.shape}: expected (n,) and (n, C) with n >= 1, C >= 2.")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"Labels must be whole numbers from 0 to {p.shape[1] - 1}.")
    if not np.isfinite(p).all():
        broken = int((~np.isfinite(p).all(axis=1)).sum())
        raise ValueError(f"{broken} of {len(p)} records have a probability that is not finite.")
    return y.astype(np.int64), p


def _quantiles(draws: Floats, interval: float) -> tuple[float | None, float | None]:
    draws = draws[np.isfinite(draws)]
    if len(draws) == 0:
        return None, None
    low, high = np.quantile(draws, [(1 - interval) / 2, (1 + interval) / 2])
    return float(low), float(high)


def _ratio(above: Floats, below: Floats, undefined: float) -> Floats:
    return np.divide(above, below, out=np.full_like(above, undefined), where=below > 0)


def _confusions(y: Ints, p: Floats, index: Ints, weights: Floats, threshold: float) -> Floats:
    """(R, C, C): the confusion matrix of each of R resamples. index: (n,) columns of weights (R, G)."""
    groups, classes = weights.shape[1], p.shape[1]
    cells = np.bincount((index * classes + y) * classes + decide(p, threshold), minlength=groups * classes**2)
    return (weights @ cells.reshape(groups, classes**2).astype(np.float64)).reshape(-1, classes, classes)


def _balanced_accuracy(matrices: Floats) -> Floats:
    actual = matrices.sum(axis=2)
    recall = _ratio(np.diagonal(matrices, axis1=1, axis2=2).copy(), actual, 0.0)
    return _ratio(recall.sum(axis=1), (actual > 0).sum(axis=1).astype(np.float64), np.nan)


def _roc_auc(positive: NDArray[np.bool_], scores: Floats) -> float:
    """The area under the ROC curve: the share of (positive, negative) pairs in the right order, ties one half."""
    below = np.sort(scores[~positive])
    found = [np.searchsorted(below, scores[positive], side=side) for side in ("left", "right")]
    return float((found[0] + found[1]).mean() / (2 * len(below)))


def _bin(confidence: Floats, bins: int) -> Ints:
    """Bin m of (m / bins, (m + 1) / bins], as Guo et al. write them."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def _roc(positive: NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true = np.cumsum(positive[order])[last_of_tie]
    false = 1 + last_of_tie - true
    start: Any = [0.0]
    return np.concatenate([start, false / false[-1]]), np.concatenate([start, true / true[-1]])
