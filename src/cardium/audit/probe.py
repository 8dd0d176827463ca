"""The cheap classifier of the audit: held-out probabilities over several repeats, and the interval of their balanced accuracy.

Two classifiers: scikit-learn's logistic regression on standardised vectors, and a decision tree for a few numbers such as a
file's size, whose relation to the label need not be a straight one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cardium.data.splits import honest_folds
from cardium.errors import CardiumError
from cardium.evaluation.metrics import GroupBootstrap, balanced_accuracy_under
from cardium.progress import progress

Kind = Literal["logistic", "tree"]
# The least share of the records that a leaf of the tree holds.
_LEAF = 0.02


@dataclass(frozen=True)
class Score:
    """A balanced accuracy: its mean over the repeats, and its values (resamples,) under a bootstrap of groups and repeats."""

    value: float
    draws: NDArray[np.float64]

    def interval(self, share: float) -> tuple[float, float]:
        low, high = np.quantile(self.draws, [(1 - share) / 2, (1 + share) / 2])
        return float(low), float(high)

    def as_dict(self, share: float) -> dict[str, float]:
        low, high = self.interval(share)
        return {"value": round(self.value, 4), "low": round(low, 4), "high": round(high, 4)}


def count_folds(groups: Sequence[str], labels: Sequence[str], classes: Sequence[str], most: int) -> int:
    """The largest number of folds, up to `most`, that all have every class; 0 if there is none above 1."""
    for folds in range(most, 1, -1):
        try:
            honest_folds(groups, labels, classes, folds, 0)
        except CardiumError:
            continue
        return folds
    return 0


def held_out(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer[Any]],
    groups: Sequence[str],
    classes: Sequence[str],
    folds: int,
    repeats: int,
    seed: int,
    *,
    apart: bool,
    kind: Kind = "logistic",
    what: str = "",
) -> list[NDArray[np.float64]]:
    """Every record's probabilities by classifiers that were not fitted to it: `repeats` arrays (n, classes).

    apart: whole groups are dealt into folds, as by splits.honest_folds; otherwise records, at random within each class. what:
    the name of the progress bar; "" for none.
    """
    out = [np.zeros((len(labels), len(classes))) for _ in range(repeats)]
    tasks = []
    for repeat in range(repeats):
        fold = _folds(labels, groups, classes, folds, seed + repeat, apart)
        tasks += [(repeat, np.flatnonzero(fold != held), np.flatnonzero(fold == held)) for held in range(folds)]
    for repeat, fitted, held in progress(tasks, total=len(tasks), desc=what, unit="fit") if what else tasks:
        model = _classifier(kind, seed + repeat, len(fitted))
        model.fit(vectors[fitted], labels[fitted])
        out[repeat][np.ix_(held, model.classes_)] = model.predict_proba(vectors[held])
    return out


def _folds(
    labels: NDArray[np.integer[Any]], groups: Sequence[str], classes: Sequence[str], folds: int, seed: int, apart: bool
) -> NDArray[np.integer[Any]]:
    if apart:
        dealt = honest_folds(groups, [classes[label] for label in labels], classes, folds, seed)
        return np.array([dealt[group] for group in groups], dtype=np.int64)
    from sklearn.model_selection import StratifiedKFold

    fold = np.zeros(len(labels), dtype=np.int64)
    cut = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
    for number, (_, held) in enumerate(cut):
        fold[held] = number
    return fold


def _classifier(kind: Kind, seed: int, records: int) -> Any:
    if kind == "tree":
        from sklearn.tree import DecisionTreeClassifier

        leaf = max(3, round(_LEAF * records))
        return DecisionTreeClassifier(min_samples_leaf=leaf, class_weight="balanced", random_state=seed)
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return _Named(make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300, class_weight="balanced")))


class _Named:
    """A pipeline with `classes_`, as scikit-learn's classifiers have it; it computes in float64, where the solver converges."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    def fit(self, vectors: NDArray[Any], labels: NDArray[np.integer[Any]]) -> None:
        self.pipeline.fit(vectors.astype(np.float64), labels)
        self.classes_ = self.pipeline.classes_

    def predict_proba(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        probabilities: NDArray[np.float64] = self.pipeline.predict_proba(vectors.astype(np.float64))
        return probabilities


def score(
    labels: NDArray[np.integer[Any]], groups: Sequence[str], repeats: Sequence[NDArray[np.float64]], bootstrap: GroupBootstrap
) -> Score:
    """The repeats' mean balanced accuracy, and its spread.

    Every resample draws whole groups within their class (metrics.GroupBootstrap) and, with replacement, as many repeats as
    there are, so that both the patients and their dealing vary. Scores of one bootstrap are paired by its groups.
    """
    scored = [balanced_accuracy_under(labels, probabilities, list(groups), bootstrap) for probabilities in repeats]
    draws = np.stack([under for _, under in scored])
    rng = np.random.default_rng(bootstrap.seed)
    weights = rng.multinomial(len(repeats), np.full(len(repeats), 1 / len(repeats)), size=draws.shape[1]) / len(repeats)
    return Score(float(np.mean([value for value, _ in scored])), (weights.T * draws).sum(axis=0))
