"""How often a search announces a gain where all its settings are equal, and how often where one of them is better.

Patients (or sheets) have a class and a difficulty. A trial is right on a record with a probability that depends on both, by
draws that all trials share and by draws of its own (`alone`). Trials of equal settings have equal probabilities. As in a
search, a trial is cut short if its mean over the folds so far is below the median of the earlier ones; the best mean wins.

    python benchmarks/honesty/search_gain.py                   # 400 searches a cell, some minutes
    python benchmarks/honesty/search_gain.py --searches 2000

pair: the interval of the best trial and the run's own settings alone, as if no other had been tried.
bound: `tuning.gain.gain_of_best`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from cardium.evaluation.metrics import GroupBootstrap, paired_difference, score
from cardium.tuning.gain import gain_of_best


@dataclass(frozen=True)
class Collection:
    """groups: of each class. records: of each group. skill: the share of right decisions of an average trial."""

    name: str
    groups: tuple[int, ...]
    records: int
    skill: float


COLLECTIONS = (
    Collection("36 patients (7, 29) of 18 images", (7, 29), 18, 0.75),
    Collection("60 patients (30, 30) of 10 images", (30, 30), 10, 0.75),
    Collection("491 sheets (30, 86, 233, 142)", (30, 86, 233, 142), 1, 0.80),
)
FOLDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts the gains that searches announce.")
    parser.add_argument("--searches", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| data | trials | all equal: pair | all equal: bound | one is better by 0.10: bound |\n|---|---|---|---|---|")
    for collection in COLLECTIONS:
        for trials in (12, 30):
            rng = np.random.default_rng([options.seed, trials])
            rows = [announced(collection, trials, 0.0, rng, options.resamples) for _ in range(options.searches)]
            better = [announced(collection, trials, 0.10, rng, options.resamples)[1] for _ in range(options.searches // 4)]
            pair, bound = (np.mean([row[i] for row in rows]) for i in (0, 1))
            print(f"| {collection.name} | {trials} | {pair:.1%} | {bound:.1%} | {np.mean(better):.0%} |", flush=True)


def announced(
    collection: Collection, trials: int, better_by: float, rng: np.random.Generator, resamples: int, alone: float = 0.5
) -> tuple[bool, bool]:
    """One search: whether the pair's interval and the bound announce a gain. better_by: the skill that one trial has more."""
    labels = np.repeat(np.arange(len(collection.groups)), np.array(collection.groups) * collection.records)
    count = sum(collection.groups)
    groups = np.repeat(np.arange(count), collection.records)
    folds = (rng.permutation(count) % FOLDS)[groups]
    hard = rng.normal(size=count)[groups]
    shared = rng.normal(size=len(labels))
    classes = len(collection.groups)

    def trial(skill: float) -> np.ndarray:
        noise = np.sqrt(alone) * rng.normal(size=len(labels)) + np.sqrt(1 - alone) * shared
        # Of a trial's own there is a part that a whole patient shares: another network misses other patients.
        noise = np.sqrt(0.7) * noise + np.sqrt(0.3) * rng.normal(size=count)[groups]
        right = (hard + noise) / np.sqrt(2) < _quantile(skill)
        wrong = (labels + 1 + rng.integers(0, classes - 1, len(labels))) % classes
        return np.eye(classes)[np.where(right, labels, wrong)] * 0.8 + 0.2 / classes

    def scores(predictions: np.ndarray) -> list[float]:
        return [score(labels[folds == fold], predictions[folds == fold])["balanced_accuracy"] for fold in range(FOLDS)]

    own = trial(collection.skill)
    done = [(float(np.mean(scores(own))), own)]
    running = [np.cumsum(scores(own)) / np.arange(1, FOLDS + 1)]
    for number in range(1, trials):
        predictions = trial(collection.skill + (better_by if number == 1 else 0.0))
        means = np.cumsum(scores(predictions)) / np.arange(1, FOLDS + 1)
        cut = number >= trials // 4 and any(
            means[fold] < np.median([other[fold] for other in running]) for fold in range(FOLDS - 1)
        )
        running.append(means)
        if not cut:
            done.append((float(means[-1]), predictions))
    best = max(range(len(done)), key=lambda number: done[number][0])
    if best == 0:
        return False, False
    bootstrap = GroupBootstrap(groups, labels, resamples, int(rng.integers(2**31)))
    pair = paired_difference(labels, groups, done[best][1], own, bootstrap)
    known = [predictions for _, predictions in done[1:]]
    bound = gain_of_best(labels, groups, own, known, best - 1, bootstrap, threshold=0.5, interval=0.95, challengers=trials - 1)
    return pair["low"] > 0, bound["low"] > 0


def _quantile(share: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(min(share, 0.999))


if __name__ == "__main__":
    main()
