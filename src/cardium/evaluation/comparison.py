"""Two scored runs side by side: the difference on the same test records, paired, with its interval, and where they differ.

A comparison decides nothing: evaluation.promotion has the rule by which a run is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium.config import Settings
from cardium.errors import CardiumError
from cardium.evaluation.evaluation import Interval
from cardium.evaluation.intervals import score_with_intervals
from cardium.evaluation.metrics import GroupBootstrap, decide, paired_difference
from cardium.runs.predictions import by_patient, probability_columns, same_units

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Difference:
    """Balanced accuracies of two runs on the same cases, and `a` less `b`.

    unit: what a case is. difference, low, high: `a` less `b` with its interval. probability_better: of `a`, the share of
    resamples in which it is the better one.
    """

    unit: str
    cases: int
    groups: int
    a: Interval
    b: Interval
    difference: float
    low: float
    high: float
    probability_better: float


@dataclass(frozen=True)
class Compared:
    """Two runs compared. differences: by patient first where patients are known, then by record where both have records.

    differing: the cases that are decided differently, of the last of `differences`: case, group, reference label, what each
    predicts, and its probability. a_right, b_right: how many of these each has right.
    """

    a: str
    b: str
    interval: float
    differences: list[Difference]
    differing: pandas.DataFrame
    a_right: int
    b_right: int

    def to_json(self) -> dict[str, Any]:
        """The comparison as data, its cases a list."""
        rows = self.differing.to_dict("records")
        return {**{key: value for key, value in asdict(self).items() if key != "differing"}, "differing": rows}


def compare_runs(
    settings: Settings,
    classes: Sequence[str],
    names: tuple[str, str],
    tables: tuple[pandas.DataFrame, pandas.DataFrame],
    *,
    patients: bool,
) -> Compared:
    """Compares the test predictions `tables` of the runs `names`. patients: whether groups are patients.

    Raises CardiumError where no test record is in both.
    """
    differences = []
    a, b = tables
    alike = same_units(a, b)
    if patients:
        found, both = _difference(
            settings, classes, by_patient(a, classes), by_patient(b, classes), ["group", "label"], "patient"
        )
        differences.append(found)
    if alike and not (patients and len(a) == differences[0].cases):
        found, both = _difference(settings, classes, a, b, ["record"], "image" if patients else "record")
        differences.append(found)
    labels, own, other = _decided(settings, both, classes)
    differ = own != other
    shown = both[differ]
    differing = shown[["record", "group"]].reset_index(drop=True)
    for column, values in (("reference", labels), ("a", own), ("b", other)):
        differing[column] = np.asarray(classes, dtype=object)[values[differ]]
    for column, ending in (("a_probability", ""), ("b_probability", "_b")):
        values = shown[[f"{name}{ending}" for name in probability_columns(list(classes))]].to_numpy()
        differing[column] = values.max(axis=1).round(4) if len(values) else []
    right = (int((one[differ] == labels[differ]).sum()) for one in (own, other))
    return Compared(*names, settings.evaluate.interval, differences, differing, *right)


def _decided(settings: Settings, both: pandas.DataFrame, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and what each run decides, (n,) class indices."""
    columns, threshold = probability_columns(list(classes)), settings.evaluate.threshold
    own, other = (decide(both[[f"{name}{end}" for name in columns]].to_numpy(), threshold) for end in ("", "_b"))
    return both["label"].to_numpy(dtype=np.int64), own, other


def _difference(
    settings: Settings, classes: Sequence[str], a: pandas.DataFrame, b: pandas.DataFrame, key: list[str], unit: str
) -> tuple[Difference, pandas.DataFrame]:
    columns, how = probability_columns(list(classes)), settings.evaluate
    both = a.merge(b[[*key, *columns]], on=key, suffixes=("", "_b"))
    if both.empty:
        raise CardiumError("The two runs have no test record in common: they cannot be compared.")
    labels, groups = both["label"].to_numpy(dtype=np.int64), both["group"].to_numpy(dtype=str)
    p, q = both[columns].to_numpy(), both[[f"{column}_b" for column in columns]].to_numpy()
    bootstrap = GroupBootstrap(groups, labels, how.bootstrap, settings.seed)
    own, other = (
        Interval(**score_with_intervals(labels, one, groups, how.threshold, how.interval)["balanced_accuracy"])
        for one in (p, q)
    )
    paired = paired_difference(labels, groups, p, q, bootstrap, how.threshold, how.interval)
    return Difference(unit, len(both), len(np.unique(groups)), own, other, **paired), both


def comparison_text(compared: Compared) -> str:
    """Formats the comparison for a terminal, at most 120 columns wide."""
    last = compared.differences[-1]
    lines = [f"A: {compared.a}", f"B: {compared.b}", ""]
    lines.append(f"{'balanced accuracy':<18} {'A':<22} {'B':<22} {'A - B':<26} A better")
    for one in compared.differences:
        difference = f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
        heading = f"by {one.unit} ({one.cases:,})"
        lines.append(f"{heading:<18} {one.a.text:<22} {one.b.text:<22} {difference:<26} {one.probability_better:.2f}")
    first = compared.differences[0]
    told = "cannot be told apart" if first.low <= 0 <= first.high else f"{'A' if first.difference > 0 else 'B'} is better"
    lines += [
        "",
        f"By {first.unit} they differ by {first.difference:+.3f}, {compared.interval:.0%} interval {first.low:+.3f} to "
        f"{first.high:+.3f}: {told}.",
        f"They decide differently on {len(compared.differing):,} of {last.cases:,} {last.unit}s: A is right on "
        f"{compared.a_right}, B on {compared.b_right}.",
    ]
    return "\n".join(lines)
