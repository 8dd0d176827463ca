"""How many wrong labels the audit names, and how many right ones: `python benchmarks/label_issues.py [--dataset NAME]`.

Labels are flipped in a share of records that are drawn at random, the audit's probe is fitted and held out, and what is called
wrong is counted, on drawn vectors of three difficulties, a rare class and patients of many records; with --dataset, in a
project whose data are ingested, on the probe's own vectors of a real collection (its labels are taken for right).

`confident learning` is what the audit did before: every record whose largest probability above its class's mean is another
class's (Northcutt et al. 2021). If cleanlab can be imported, two of its filters are shown too.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardium.audit.label_issues import find_label_issues
from cardium.audit.probe import held_out

Drawn = tuple[NDArray[np.float32], NDArray[np.int64], list[str]]
Draw = Callable[[np.random.Generator], Drawn]


def classes_apart(records: int, classes: int, distance: float, each: int = 1, rare: float = 1.0) -> Draw:
    """Normal vectors around one centre a class and one a patient. each: records of a patient. rare: class 0's share kept."""

    def draw(rng: np.random.Generator) -> Drawn:
        patients = records // each
        label = np.arange(patients) % classes
        kept = (label != 0) | (rng.random(patients) < rare)
        of = np.repeat(np.flatnonzero(kept), each)
        centres = rng.normal(size=(classes, 40))
        centres *= distance / np.linalg.norm(centres, axis=1, keepdims=True)
        own = 0.6 * rng.normal(size=(patients, 40))
        vectors = centres[label[of]] + own[of] + 0.8 * rng.normal(size=(len(of), 40))
        return vectors.astype(np.float32), label[of].astype(np.int64), [f"p{number}" for number in of]

    return draw


def confident(labels: NDArray[np.int64], p: NDArray[np.float64]) -> NDArray[np.bool_]:
    least = np.array([p[labels == c, c].mean() for c in range(p.shape[1])])
    counted = np.where(p >= least, p, -1.0)
    return np.asarray((counted.max(axis=1) >= 0) & (counted.argmax(axis=1) != labels))


def ours(labels: NDArray[np.int64], p: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isin(np.arange(len(labels)), [issue.row for issue in find_label_issues(labels, p)])


def ways() -> dict[str, Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.bool_]]]:
    found: dict[str, Any] = {"confident learning": confident, "probably wrong": ours}
    try:
        filtered = importlib.import_module("cleanlab.filter").find_label_issues  # No dependency of the project.
    except ImportError:
        return found
    for name in ("prune_by_noise_rate", "both"):
        found[f"cleanlab, {name}"] = lambda labels, p, name=name: filtered(labels, p, filter_by=name, n_jobs=1)
    return found


def measure(title: str, draw: Draw, times: int, first: int, folds: int = 5) -> None:
    for share in (0.0, 0.02, 0.05):
        counted: dict[str, list[tuple[int, int, int, int]]] = defaultdict(list)
        accuracy = []
        for time in range(first, first + times):
            rng = np.random.default_rng(time)
            vectors, true, groups = draw(rng)
            classes = [str(c) for c in range(int(true.max()) + 1)]
            flipped = np.zeros(len(true), bool)
            flipped[rng.permutation(len(true))[: round(share * len(true))]] = True
            labels = np.where(flipped, (true + rng.integers(1, len(classes), len(true))) % len(classes), true)
            # A group of two classes cannot be dealt into folds: a flipped record is one of its own, as a wrong file is.
            owner = [f"{group} {row}" if flipped[row] else group for row, group in enumerate(groups)]
            repeats = held_out(vectors, labels, owner, classes, folds, 3, time, apart=True)
            p = np.mean(repeats, axis=0)
            accuracy.append(np.mean([(p.argmax(axis=1) == true)[true == c].mean() for c in range(len(classes))]))
            for way, find in ways().items():
                named = find(labels, p)
                counted[way].append(
                    (int((named & ~flipped).sum()), int((~flipped).sum()), int((named & flipped).sum()), int(flipped.sum()))
                )
        for way, numbers in counted.items():
            right, of_right, wrong, of_wrong = np.sum(numbers, axis=0)
            found = f"{wrong / of_wrong:.2f} | {wrong / max(1, wrong + right):.2f}" if of_wrong else "- | -"
            print(f"| {title} ({np.mean(accuracy):.2f}) | {share:.0%} | {way} | {right / of_right:.1%} | {found} |", flush=True)


def of_project(dataset: str) -> Draw:
    from cardium.audit.encoder import open_encoder
    from cardium.config import load
    from cardium.data.manifest import read_fingerprint, read_manifest
    from cardium.workspace import Workspace

    settings = load(Path.cwd())
    folder = Workspace(settings.root).manifest(dataset)
    manifest, fingerprint = read_manifest(folder), read_fingerprint(folder)
    encoder = open_encoder(settings, dataset, manifest, fingerprint["kind"] == "volume")
    once = (~manifest["conflict"] & (manifest["copy_of"] == -1)).to_numpy()
    numbers = {name: number for number, name in enumerate(fingerprint["classes"])}
    labels = manifest["label"][once].map(numbers).to_numpy(dtype=np.int64)
    return lambda _: (encoder.vectors[once], labels, manifest["group"][once].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed of the first draw; the bar was chosen on 0 to 19")
    parser.add_argument("--fresh", action="store_true", help="other numbers of classes, records and difficulties")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    print("| data (the probe's balanced accuracy) | flipped | way | right labels named | flips found | precision |")
    print("|---|---|---|---|---|---|")
    if given.dataset:
        measure(given.dataset, of_project(given.dataset), given.times, given.first)
        return
    fresh = {
        "3 classes, middling": classes_apart(300, 3, 3.2),
        "5 classes, middling": classes_apart(1200, 5, 3.0),
        "4 classes, rather hard": classes_apart(700, 4, 2.0),
        "3 classes, one rare": classes_apart(900, 3, 2.8, rare=0.15),
        "60 patients of 8": classes_apart(480, 2, 2.4, each=8),
    }
    seen = {
        "4 classes, easy": classes_apart(492, 4, 4.0),
        "4 classes, middling": classes_apart(492, 4, 2.6),
        "4 classes, hard": classes_apart(492, 4, 1.5),
        "2 classes, one rare": classes_apart(900, 2, 2.2, rare=0.2),
        "36 patients of 16": classes_apart(576, 2, 3.0, each=16),
    }
    for title, draw in (fresh if given.fresh else seen).items():
        measure(title, draw, given.times, given.first)


if __name__ == "__main__":
    main()
