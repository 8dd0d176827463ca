"""What happens to the folds when data grow: groups that change their fold, and how even the folds stay.

    python benchmarks/honesty/folds.py [--repeats 200]

Collections of patients of unequal size grow by a tenth, five times. `anew` deals all groups each time; `kept` keeps the folds
of those that were there. moved: groups that were there and changed their fold, at the first growth; hold-out seen: groups of
the hold-out (fold 0) that had been trained or validated on. groups, records: how far a class's largest fold exceeds its least
after the last growth, in groups (the most of all repeats) and as a share of the class's records (the mean).
"""

from __future__ import annotations

import argparse

import numpy as np

from cardium.data.splits import honest_folds

FOLDS = 5
COHORTS = {"36 patients": (7, 29, 18), "105 patients": (50, 55, 30), "491 sheets": (30, 86, 233, 142, 1)}


def records_of(sizes: dict[str, tuple[str, int]]) -> tuple[list[str], list[str]]:
    """group -> (class, records): the group and the class of each record."""
    rows = [(group, label) for group, (label, size) in sizes.items() for _ in range(size)]
    return [group for group, _ in rows], [label for _, label in rows]


def excess(sizes: dict[str, tuple[str, int]], fold_of: dict[str, int], label: str) -> tuple[int, float]:
    """By how much the largest fold exceeds the smallest: in groups, and as a share of the class's records."""
    groups, records = np.zeros(FOLDS), np.zeros(FOLDS)
    for group, (of, size) in sizes.items():
        if of == label:
            groups[fold_of[group]] += 1
            records[fold_of[group]] += size
    return int(np.ptp(groups)), float(np.ptp(records) / records.sum())


def grow(rng: np.random.Generator, sizes: dict[str, tuple[str, int]], counts: tuple[int, ...], most: int, step: int) -> None:
    """Adds a tenth of each class's groups, at least one."""
    for number, count in enumerate(counts):
        for extra in range(count if step == 0 else max(1, round(0.1 * count))):
            size = int(rng.integers(1, most + 1))
            sizes[f"{number}-{rng.integers(10**9)}-{step}-{extra}"] = (f"class {number}", size)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    print(f"{'':<14} {'':<6} {'moved':>8} {'hold-out seen':>14} {'groups':>7} {'records':>8}")
    for name, (*counts, most) in COHORTS.items():
        classes = [f"class {number}" for number in range(len(counts))]
        for how in ("anew", "kept"):
            moved, seen, groups, records = [], [], [], []
            for repeat in range(repeats):
                rng, sizes = np.random.default_rng(repeat), {}
                grow(rng, sizes, tuple(counts), most, 0)
                folds = first = honest_folds(*records_of(sizes), classes, FOLDS, repeat)
                for step in range(1, 6):
                    grow(rng, sizes, tuple(counts), most, step)
                    folds = honest_folds(*records_of(sizes), classes, FOLDS, repeat, folds if how == "kept" else None)
                    if step == 1:
                        moved.append(np.mean([folds[group] != fold for group, fold in first.items()]))
                        seen.append(
                            np.mean([first[group] != 0 for group, fold in folds.items() if fold == 0 and group in first])
                        )
                found = [excess(sizes, folds, label) for label in classes]
                groups.append(max(one for one, _ in found))
                records.append(max(share for _, share in found))
            shares = f"{np.mean(moved):8.1%} {np.mean(seen):14.1%} {max(groups):7d} {np.mean(records):8.1%}"
            print(f"{name:<14} {how:<6} {shares}", flush=True)


if __name__ == "__main__":
    main()
