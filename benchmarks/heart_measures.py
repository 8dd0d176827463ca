"""How well measuring the heart tells sick from normal patients: repeated grouped five-fold, and the phantoms' truth.

    python benchmarks/heart_measures.py FOLDER [--groups TABLE]    # a collection laid out as data/cmri
    python benchmarks/heart_measures.py --phantoms 16                             # measured against true masks

Every fold trains what `cine_net` is, a logistic model on the sum of three hinges (models/cine.py), with classes weighed alike;
nothing else is fitted or chosen in it. Folds hold whole patients, stratified by class or, with --groups, by disease: a CSV with
columns patient and group. Prints balanced accuracy by patient and AUC: mean over the repeats, the interval of a bootstrap over
patients (of the mean probabilities), and recall and AUC against normal of each group.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np

from cardium.config import Serve
from cardium.data.studies import studies_of_folder
from cardium.imaging.heart import find_heart, slice_positions
from cardium.imaging.heart_format import MEASURES
from cardium.imaging.study import read_study

SEED = 1337


def embedding(measures: dict[str, float]) -> float:
    """The sum that `cine_net` weighs, of measures by name."""
    from cardium.models.cine import BEYOND

    total = 0.0
    levels = {measure.name: measure for measure in MEASURES}
    for name, limit, unit in BEYOND:
        measure = levels[name]
        at, one = measure.level(limit), measure.level(unit)
        total += max(0.0, (measure.level(measures[name]) - at) / (one - at))
    return total


def cohort(folder: Path, groups: Path | None) -> None:
    """Measures every patient below `folder`."""
    group_of = {}
    if groups:
        with groups.open(newline="", encoding="utf-8") as file:
            group_of = {row["patient"]: row["group"] for row in csv.DictReader(file)}
    names, values, seconds, found = [], [], [], 0
    limits = Serve()
    for study in studies_of_folder(folder, limits):
        began = time.process_time()
        heart = read_study(study.files, limits.of_file("image"))
        seconds.append(time.process_time() - began)
        name = Path(study.name).relative_to(folder).as_posix()
        found += bool(heart.measures) and not heart.warnings
        names.append(name)
        values.append(embedding(heart.measures) if heart.measures else 0.0)
        shown = " ".join(f"{key} {value:.2f}" for key, value in heart.measures.items())
        print(f"{name}: {shown} confidence {heart.confidence:.2f} {'; '.join(heart.warnings)}", file=sys.stderr)
    sick = np.array([name.split("/")[0] == "Sick" for name in names])
    kind = np.array([group_of.get(name, name.split("/")[0]) for name in names])
    print(f"{len(names)} patients, heart found without a warning in {found}")
    print(f"CPU seconds a patient: median {np.median(seconds):.2f}, most {max(seconds):.2f}")
    table(np.array(values), sick, kind)


def table(values: np.ndarray, sick: np.ndarray, kind: np.ndarray, repeats: int = 20) -> None:
    """Prints the scores of repeated five-fold cross-validation. values, sick, kind: (n,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    all_of, balanced, areas = [], [], []
    for repeat in range(repeats):
        probabilities = np.zeros(len(values))
        for train, test in StratifiedKFold(5, shuffle=True, random_state=SEED + repeat).split(values, kind):
            model = LogisticRegression(class_weight="balanced").fit(values[train, None], sick[train])
            probabilities[test] = model.predict_proba(values[test, None])[:, 1]
        all_of.append(probabilities)
        balanced.append(_balanced(sick, probabilities > 0.5))
        areas.append(roc_auc_score(sick, probabilities))
    mean = np.mean(all_of, 0)
    rng = np.random.default_rng(SEED)
    draws: dict[str, list[float]] = {"balanced accuracy": [], "AUC": []}
    for _ in range(2000):  # Within the classes, g - 1 of g (Rao and Wu 1988), as `evaluate` does.
        at = np.concatenate([rng.choice(np.flatnonzero(sick == side), (sick == side).sum() - 1) for side in (False, True)])
        draws["balanced accuracy"].append(_balanced(sick[at], mean[at] > 0.5))
        draws["AUC"].append(roc_auc_score(sick[at], mean[at]))
    for name, each in (("balanced accuracy", balanced), ("AUC", areas)):
        low, high = np.quantile(draws[name], [0.025, 0.975])
        print(f"{name}: {np.mean(each):.3f} (deviation over repeats {np.std(each):.3f}) [{low:.3f}, {high:.3f}]")
    for name in sorted(set(kind)):
        own = kind == name
        right = np.mean([(p[own] > 0.5) == sick[own] for p in all_of])
        against = own | ~sick
        area = f", AUC against normal {roc_auc_score(sick[against], mean[against]):.3f}" if sick[own].all() else ""
        print(f"{name}: {own.sum()} patients, decided right {right:.2f}{area}")


def _balanced(sick: np.ndarray, decided: np.ndarray) -> float:
    return float((decided[sick].mean() + (~decided[~sick]).mean()) / 2)


def phantoms(count: int) -> None:
    """Compares what is measured in the phantoms with their masks."""
    from cardium.demo import phantom

    rows = []
    for patient in phantom.cohort(count):
        images, pools, walls = [], [], []
        for level in range(phantom.SLICES):
            for frame in range(phantom.FRAMES):
                image, masks = phantom.phantom(patient, level, frame)
                images.append(image)
                pools.append(masks["lv"].sum())
                walls.append(masks["myocardium"].sum())
        series = [str(k // phantom.FRAMES) for k in range(len(images))]
        heart = find_heart([[images[k] for k in position] for position in slice_positions(images, series)])
        pool, wall = (np.reshape(each, (phantom.SLICES, phantom.FRAMES)) for each in (pools, walls))
        scale = (max(images[0].shape) / 256) ** 2
        measured = np.array([[contour.pool * scale for contour in one.contours] for one in heart.slices])
        true = 1 - pool[:, phantom.END_SYSTOLE].sum() / pool[:, 0].sum()
        ratios = measured[:2] / pool[:2][:, [0, phantom.END_SYSTOLE]]
        wall_to_pool = wall[:, 0].sum() / pool[:, 0].sum()
        rows.append(
            (
                patient.label,
                true,
                heart.measures["ejection_fraction"],
                *ratios.mean(0),
                wall_to_pool,
                heart.measures["wall_to_pool"],
            )
        )
        print(f"{patient.number} {patient.label}: " + ", ".join(f"{value:.3f}" for value in rows[-1][1:]), file=sys.stderr)
    for label in phantom.CLASSES:
        own = np.array([row[1:] for row in rows if row[0] == label])
        error = np.abs(own[:, 0] - own[:, 1])
        print(
            f"{label}: ejection fraction {own[:, 0].min():.2f} to {own[:, 0].max():.2f}, mean error {error.mean():.3f}, most "
            f"{error.max():.3f}; pool over the true one, base and middle: end-diastole {own[:, 2].mean():.2f}, end-systole "
            f"{own[:, 3].mean():.2f}; wall to pool {own[:, 4].mean():.2f}, measured {own[:, 5].mean():.2f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--groups", type=Path, help="a CSV: patient (as its folder below FOLDER), group")
    parser.add_argument("--phantoms", type=int, default=0)
    asked = parser.parse_args()
    if asked.phantoms:
        phantoms(asked.phantoms)
    if asked.folder:
        cohort(asked.folder, asked.groups)
