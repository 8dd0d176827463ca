"""How often prediction sets hold the true class of new patients, class by class, where the truth is known.

Patients have a class, a place of their own among features, and records about it. Five folds of patients are dealt within the
classes. For each fold a logistic regression is trained on three others and its temperature fitted on the fourth, as `train`
does. New patients are answered by the first fold's model, by the mean of the five, and by one trained on four fifths (`all`),
with sets that are fitted on:

folds      the validation records of all folds, each by its own model: what is served
own        the answering model's own validation records: exact, but of a fifth of the patients
records    as folds, but every record counted for itself, as if patients did not matter

    python benchmarks/honesty/conformal.py                 # 200 collections a row, some minutes
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cardium.runs.prediction_sets import PredictionSets
from cardium.runs.temperature import fit_temperature, tempered

FOLDS = 5
FEATURES = 6


@dataclass(frozen=True)
class Collection:
    """patients: of each class. records: of each patient. apart: the distance between classes. alike: how much of a record's
    place is its patient's."""

    name: str
    patients: tuple[int, ...]
    records: int
    apart: float
    alike: float = 0.8


COLLECTIONS = (
    Collection("36 patients (7, 29) of 18 images", (7, 29), 18, 1.6),
    Collection("60 patients (30, 30) of 10 images", (30, 30), 10, 1.6),
    Collection("200 patients (60, 140) of 5 images", (60, 140), 5, 1.6),
    Collection("491 sheets (30, 86, 233, 142)", (30, 86, 233, 142), 1, 2.2),
)
Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
Model = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures the coverage of prediction sets on new patients.")
    parser.add_argument("--collections", type=int, default=200)
    parser.add_argument("--coverage", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(f"| data | fitted on | answered by | least of {options.coverage:.2f} (by class) | classes in a set | one class |")
    print("|---|---|---|---|---|---|")
    for collection in COLLECTIONS:
        rng = np.random.default_rng(options.seed)
        found = [simulate(collection, options.coverage, rng) for _ in range(options.collections)]
        for fitted, answered in found[0]:
            covered, size, single = (np.mean([one[fitted, answered][i] for one in found], axis=0) for i in range(3))
            by_class = ", ".join(f"{share:.3f}" for share in covered)
            print(
                f"| {collection.name} | {fitted} | {answered} | {min(covered):.3f} ({by_class}) | {size:.2f} | {single:.0%} |"
            )


def simulate(
    collection: Collection, coverage: float, rng: np.random.Generator, new: int = 300
) -> dict[tuple[str, str], tuple[np.ndarray, float, float]]:
    """One collection: (fitted on, answered by) -> share covered by class, classes in a set, share of sets of one class."""
    classes = [str(c) for c in range(len(collection.patients))]
    centres = collection.apart * rng.normal(size=(len(classes), FEATURES)) / np.sqrt(2 * FEATURES) * np.sqrt(2)
    x, labels, groups = _draw(collection, collection.patients, centres, rng)
    unseen, truth, _ = _draw(collection, (new,) * len(classes), centres, rng, records=1)
    fold = np.concatenate([rng.permutation(np.arange(count) % FOLDS) for count in collection.patients])[groups]

    models, held_out = [], np.zeros((len(labels), len(classes)))
    for test in range(FOLDS):
        validation = (test + 1) % FOLDS
        model, there = _trained(x, labels, (fold != test) & (fold != validation), len(classes)), fold == validation
        p = model(x[there])
        temperature = fit_temperature(p, labels[there], groups[there])
        held_out[there] = tempered(p, temperature)
        models.append((model, temperature))
    first = fold == 1
    folds = PredictionSets.fitted(held_out, labels, groups, classes, coverage)
    by_record = PredictionSets.fitted(held_out, labels, np.arange(len(labels)), classes, coverage)
    own = PredictionSets.fitted(held_out[first], labels[first], groups[first], classes, coverage)
    each = [tempered(model(unseen), temperature) for model, temperature in models]
    # Retrained on all but the first fold's validation part.
    whole = _trained(x, labels, ~first, len(classes))
    part = whole(x[first])
    temperature = fit_temperature(part, labels[first], groups[first])
    retrained = tempered(whole(unseen), temperature)
    of_part = PredictionSets.fitted(tempered(part, temperature), labels[first], groups[first], classes, coverage)

    def answered(sets: PredictionSets, p: np.ndarray) -> tuple[np.ndarray, float, float]:
        inside = sets.contain(p)
        covered = inside[np.arange(len(truth)), truth]
        size = inside.sum(axis=1)
        return (
            np.array([covered[truth == c].mean() for c in range(len(classes))]),
            float(size.mean()),
            float((size == 1).mean()),
        )

    return {
        ("folds", "first"): answered(folds, each[0]),
        ("folds", "mean"): answered(folds, np.mean(each, axis=0)),
        ("folds", "all"): answered(folds, retrained),
        ("own", "first"): answered(own, each[0]),
        ("own", "all"): answered(of_part, retrained),
        ("records", "first"): answered(by_record, each[0]),
    }


def _draw(
    collection: Collection, patients: tuple[int, ...], centres: np.ndarray, rng: np.random.Generator, records: int = 0
) -> Drawn:
    """Features (n, F), labels (n,) and patients (n,)."""
    count = sum(patients)
    groups = np.repeat(np.arange(count), records or collection.records)
    labels = np.repeat(np.arange(len(patients)), patients)[groups]
    own = np.sqrt(collection.alike) * rng.normal(size=(count, FEATURES))[groups]
    return centres[labels] + own + np.sqrt(1 - collection.alike) * rng.normal(size=(len(groups), FEATURES)), labels, groups


def _trained(x: np.ndarray, labels: np.ndarray, rows: np.ndarray, classes: int) -> Model:
    """Features (n, F) -> probabilities (n, C), too sure of themselves as networks are."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=100.0, class_weight="balanced", max_iter=300).fit(x[rows], labels[rows])

    def predict(features: np.ndarray) -> np.ndarray:
        p = np.full((len(features), classes), 1e-9)
        p[:, model.classes_] = model.predict_proba(features)
        return tempered(p, 0.6)

    return predict


if __name__ == "__main__":
    main()
