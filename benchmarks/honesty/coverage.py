"""How often a 95 % interval holds the true score, by simulation with a known truth; before (bootstrap) and now (intervals.py).

    python benchmarks/honesty/coverage.py [--repeats 1000] [--quick] [--sharp calibrated]

A cell: groups of each class, records a group (about so many, unequal), how alike a group's records are (the correlation of
their scores), the true recall, the same of every class. A record's logits are normal: a shift for its own class, a part that
its group shares, a part of its own. True scores come from 400,000 independent records. `before` is the bootstrap's interval of
balanced accuracy, `point` how often that was a point; then each score's interval now. The last rows say how many cells lie
below, within and above the goal of 93 to 97 %. About 12 minutes on an idle core.

Loss and Brier score depend on how sure a model is. Of two classes `--sharp calibrated` makes the probabilities true ones,
`--sharp twice` doubles the logits of these; nothing else changes. Without it a model of a high recall is not sure enough.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from cardium.evaluation.intervals import score_with_intervals
from cardium.evaluation.metrics import GroupBootstrap, balanced_accuracy_under, score

SHOWN = ("balanced_accuracy", "recall_0", "accuracy", "precision_0", "f1_macro", "roc_auc", "loss", "brier")
GOAL = (0.93, 0.97)
RESAMPLES = 1000


@dataclass(frozen=True)
class Cell:
    """groups: of each class. each: records a group. alike: the correlation of a group's records. recall: the true one."""

    groups: tuple[int, ...]
    each: int
    alike: float
    recall: float

    def text(self) -> str:
        return f"{'+'.join(map(str, self.groups)):>13}  {self.each:>4}  {self.alike:>5.1f}  {self.recall:>6.2f}"


def cells(quick: bool) -> list[Cell]:
    """The cells: few patients with one or several images each, and the sheets of a collection of four classes."""
    found = []
    recalls = (0.7, 0.95) if quick else (0.7, 0.8, 0.9, 0.95, 0.97)
    for groups in ((7, 29), (10, 10)) if quick else ((3, 3), (5, 5), (7, 28), (7, 29), (10, 10), (20, 40)):
        for each, alike in ((1, 0.0), (15, 0.3)) if quick else ((1, 0.0), (6, 0.3), (15, 0.1), (15, 0.3), (15, 0.6)):
            found += [Cell(groups, each, alike, recall) for recall in recalls]
    found += [Cell((30, 86, 233, 142), 1, 0.0, recall) for recall in ((0.8,) if quick else (0.6, *recalls))]
    return found


def predictions(
    rng: np.random.Generator, labels: np.ndarray, groups: np.ndarray, classes: int, alike: float, shift: float, sharp: str = ""
) -> np.ndarray:
    """(n, C) probabilities of records: labels (n,), groups (n,) numbers."""
    shared = rng.normal(size=(groups.max() + 1, classes))[groups]
    own = rng.normal(size=(len(labels), classes))
    logits = shift * np.eye(classes)[labels] + np.sqrt(alike) * shared + np.sqrt(1 - alike) * own
    if sharp:
        # Two logits that differ by d, normal about +-shift with variance 2, speak for a class by shift * d.
        logits *= shift * {"calibrated": 1, "twice": 2}[sharp]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def shift_for(recall: float, classes: int) -> float:
    """The shift of the own class's logit at which its recall is `recall`."""
    noise = np.random.default_rng(1).normal(size=(400_000, classes))
    lead = noise[:, 1:].max(axis=1) - noise[:, 0]
    return float(np.quantile(lead, recall))


def truth_of(cell: Cell, labels: np.ndarray, shift: float, sharp: str = "") -> dict[str, float]:
    """The scores of records without end, with the cell's shares of the classes."""
    rng, classes = np.random.default_rng(2), len(cell.groups)
    many = np.repeat(labels, 1 + 400_000 // len(labels))
    return score(many, predictions(rng, many, np.arange(len(many)), classes, cell.alike, shift, sharp))


def coverage(cell: Cell, repeats: int, sharp: str = "") -> dict[str, float]:
    """The share of the intervals that hold the truth: `before` is balanced accuracy by the bootstrap, then each score's."""
    rng, classes = np.random.default_rng(hash_of(cell)), len(cell.groups)
    of_group = np.repeat(np.arange(classes), cell.groups)
    sizes = rng.integers(max(1, cell.each // 2), cell.each + cell.each // 2 + 1, len(of_group)) if cell.each > 1 else 1
    groups = np.repeat(np.arange(len(of_group)), sizes)
    labels = of_group[groups]
    shift = shift_for(cell.recall, classes)
    truth = truth_of(cell, labels, shift, sharp)
    bootstrap = GroupBootstrap(groups, labels, RESAMPLES, 0)
    held = dict.fromkeys(("before", "point", *SHOWN), 0)
    for _ in range(repeats):
        p = predictions(rng, labels, groups, classes, cell.alike, shift, sharp)
        low, high = np.quantile(balanced_accuracy_under(labels, p, groups, bootstrap)[1], [0.025, 0.975])
        held["before"] += low <= truth["balanced_accuracy"] <= high
        held["point"] += low == high
        found = score_with_intervals(labels, p, groups)
        for name in SHOWN:
            # An interval without ends claims nothing: the precision of a class that nothing was decided for.
            low, high = found[name]["low"], found[name]["high"]
            held[name] += low is None or low <= truth[name] <= high
    return {name: count / repeats for name, count in held.items()}


def hash_of(cell: Cell) -> list[int]:
    """A seed of the cell's own."""
    return [*cell.groups, cell.each, round(100 * cell.alike), round(100 * cell.recall)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="nine cells instead of all")
    parser.add_argument("--sharp", choices=("calibrated", "twice"), default="")
    asked = parser.parse_args()
    short = ("before", "point", "bal.acc", "recall", "acc.", "prec.", "F1", "AUC", "loss", "brier")
    print(f"{'groups':>13}  each  alike  recall  " + "  ".join(f"{name:>7}" for name in short))
    rows, enough = [], []
    for cell in cells(asked.quick):
        found = coverage(cell, asked.repeats, asked.sharp if len(cell.groups) == 2 else "")
        rows.append(list(found.values()))
        enough.append(min(cell.groups) >= 5)
        print(cell.text() + "  " + "  ".join(f"{value:7.3f}" for value in rows[-1]), flush=True)
    table = np.array(rows)[np.array(enough)]
    print(f"\ncells of five groups a class or more: {len(table)}")
    for text, values in (
        ("mean", table.mean(axis=0)), ("least", table.min(axis=0)), ("most", table.max(axis=0)),
        ("below 93 %", (table < GOAL[0]).mean(axis=0)), ("within", ((table >= GOAL[0]) & (table <= GOAL[1])).mean(axis=0)),
        ("above 97 %", (table > GOAL[1]).mean(axis=0)),
    ):  # fmt: skip
        print(f"{text:<36}" + "  ".join(f"{value:7.3f}" for value in values))


if __name__ == "__main__":
    main()
