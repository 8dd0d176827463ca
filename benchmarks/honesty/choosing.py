"""How far the score of a chosen run is off, when all runs are equally good: its own, and that of the nested choice.

    python benchmarks/honesty/choosing.py [--repeats 500]

Runs that are all alike are tested on every fold in turn; validation, the fold after each, chooses. A record's logit is a shift
for its class, a part of its patient, of its own, of the run, and of the model that a held-out fold gave; the last is all that
differs between a run's answer on a record as a test and as validation. off: mean of the score less the truth. held: how often
the 95 % interval holds it (own: by the bootstrap, as before; nested: intervals.py). promoted: how often a champion is made,
before (own score, P(better) >= 0.8) and now (nested, first attempt); where the truth is 0.5 every one of them is wrong.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from cardium.evaluation.intervals import score_with_intervals
from cardium.evaluation.metrics import GroupBootstrap, balanced_accuracy_under, paired_difference, score
from cardium.evaluation.nested import Candidate, best, choose_by_fold
from cardium.evaluation.promotion import needed_in

FOLDS = 5
RESAMPLES = 1000
CLASSES = ["a", "b"]


class Cohort:
    """Patients of two classes, and runs that see them: `groups` of each class, `each` records a patient."""

    def __init__(self, groups: tuple[int, int], each: int, shift: float) -> None:
        patients = np.repeat([0, 1], groups)
        # Both classes in every fold.
        folds = np.concatenate([np.arange(count) % FOLDS for count in groups])
        self.group = np.repeat(np.arange(len(patients)), each)
        self.label, self.fold, self.shift = patients[self.group], folds[self.group], shift
        self.bootstrap = GroupBootstrap(self.group, self.label, RESAMPLES, 0)

    def truth(self) -> float:
        """The true balanced accuracy of every run."""
        from scipy.special import ndtr

        return float(ndtr(self.shift))

    def runs(self, rng: np.random.Generator, number: int) -> list[Candidate]:
        """Equally good runs. The variances of a logit's parts add up to 1."""
        n, patients = len(self.label), self.group.max() + 1
        shared = np.sqrt(0.2) * rng.normal(size=patients)[self.group] + np.sqrt(0.3) * rng.normal(size=n)
        found = []
        for run in range(number):
            own = np.sqrt(0.2) * rng.normal(size=patients)[self.group] + np.sqrt(0.2) * rng.normal(size=n)
            test, validation = (
                self.predictions(shared + own + np.sqrt(0.1) * rng.normal(size=n), (self.fold - back) % FOLDS)
                for back in (0, 1)
            )
            found.append(Candidate(f"run {run}", 1, validation, test))
        return found

    def predictions(self, noise: np.ndarray, test_fold: np.ndarray) -> pd.DataFrame:
        """A table of predictions, in the order of the records."""
        p = 1 / (1 + np.exp(-(self.shift * (2 * self.label - 1) + noise)))
        columns = {"record": np.arange(len(p)), "test_fold": test_fold, "group": self.group, "label": self.label}
        return pd.DataFrame({**columns, "p_a": 1 - p, "p_b": p})


def probabilities(table: pd.DataFrame) -> np.ndarray:
    """(n, 2) in the order of the records."""
    return table.sort_values("record")[["p_a", "p_b"]].to_numpy()


def chosen_by_all(cohort: Cohort, runs: list[Candidate]) -> Candidate:
    """The run with the best balanced accuracy over all validation records."""
    validated = {run.name: score(cohort.label, probabilities(run.validation))["balanced_accuracy"] for run in runs}
    name = best(validated, dict.fromkeys(validated, 1))
    return next(run for run in runs if run.name == name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=500)
    repeats = parser.parse_args().repeats
    print(f"{'patients':>9} {'runs':>5} {'truth':>6} | {'own: off':>9} {'held':>6} {'promoted':>9} | "
          f"{'nested: off':>12} {'held':>6} {'promoted':>9}")  # fmt: skip
    for groups, each in (((7, 29), 18), ((18, 18), 6), ((50, 55), 6)):
        for number in (1, 12):
            for shift in (0.0, 0.84):
                cohort, rng = Cohort(groups, each, shift), np.random.default_rng(number)
                truth, label, group = cohort.truth(), cohort.label, cohort.group
                guess = np.tile([1.0, 0.0], (len(label), 1))
                rows = []
                for _ in range(repeats):
                    runs = cohort.runs(rng, number)
                    own = probabilities(chosen_by_all(cohort, runs).test)
                    nested = probabilities(choose_by_fold(runs, CLASSES, 0.5)[0])
                    value, draws = balanced_accuracy_under(label, own, group, cohort.bootstrap)
                    low, high = np.quantile(draws, [0.025, 0.975])
                    p_own, p_nested = (
                        paired_difference(label, group, p, guess, cohort.bootstrap)["probability_better"] for p in (own, nested)
                    )
                    found = score_with_intervals(label, nested, group)["balanced_accuracy"]
                    rows.append([
                        value - truth, low <= truth <= high, p_own >= 0.8,
                        found["value"] - truth, found["low"] <= truth <= found["high"], p_nested >= needed_in(1, 0.975),
                    ])  # fmt: skip
                a = np.mean(np.array(rows, dtype=np.float64), axis=0)
                print(f"{'+'.join(map(str, groups)):>9} {number:5d} {truth:6.2f} | {a[0]:+9.3f} {a[1]:6.1%} {a[2]:9.1%} | "
                      f"{a[3]:+12.3f} {a[4]:6.1%} {a[5]:9.1%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
