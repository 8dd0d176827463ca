"""How often equal runs are promoted, and how far the champion's printed score drifts over twenty challengers.

    python benchmarks/honesty/promoting.py [--repeats 200]

The runs of choosing.py challenge one after the other, all equally good (truth 0.8). A challenger takes over where its score is
higher and P(better) >= 0.8. promoted: the share of comparisons that do. "better": the share of successions in which at least
one was called better, before (P >= 0.8 was the only word) and now (1 - 0.975 spent over the attempts). own, printed: the
champion's own score after all challengers, and the nested choice among all attempts, less the truth.
"""

from __future__ import annotations

import argparse

import numpy as np
from choosing import CLASSES, Cohort, probabilities

from cardium.evaluation.metrics import paired_difference, score
from cardium.evaluation.nested import choose_by_fold
from cardium.evaluation.promotion import needed_in

CHALLENGERS = 20
SERVED, BETTER = 0.8, 0.975


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    print(
        f"{'patients':>9} {'promoted':>9} {chr(34) + 'better' + chr(34) + ': before':>17} {'now':>6} {'own':>7} {'printed':>8}"
    )
    for groups, each in (((7, 29), 18), ((18, 18), 6), ((50, 55), 6)):
        cohort, rng = Cohort(groups, each, 0.84), np.random.default_rng(0)
        rows = []
        for _ in range(repeats):
            runs = cohort.runs(rng, CHALLENGERS + 1)
            champion, taken, called = runs[0], 0, False
            for attempt, challenger in enumerate(runs[1:], start=2):
                a, b = probabilities(challenger.test), probabilities(champion.test)
                found = paired_difference(cohort.label, cohort.group, a, b, cohort.bootstrap)
                if found["difference"] > 0 and found["probability_better"] >= SERVED:
                    champion, taken = challenger, taken + 1
                    called |= found["probability_better"] >= needed_in(attempt, BETTER)
            own = score(cohort.label, probabilities(champion.test))["balanced_accuracy"]
            printed = score(cohort.label, probabilities(choose_by_fold(runs, CLASSES, 0.5)[0]))["balanced_accuracy"]
            rows.append([taken / CHALLENGERS, taken > 0, called, own - cohort.truth(), printed - cohort.truth()])
        a = np.mean(np.array(rows, dtype=np.float64), axis=0)
        print(f"{'+'.join(map(str, groups)):>9} {a[0]:9.1%} {a[1]:17.1%} {a[2]:6.1%} {a[3]:+7.3f} {a[4]:+8.3f}", flush=True)


if __name__ == "__main__":
    main()
