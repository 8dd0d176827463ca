"""An evaluation as its metrics.json describes it: the test scores of a dataset's runs with their intervals.

evaluation = Evaluation.read(workspace.evaluation("cmri"), "cmri")
for row in evaluation.ranked():
    print(row.name, row.image["balanced_accuracy"].text)
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cardium import atomic
from cardium.errors import CardiumError
from cardium.runs.data_version import DataVersion
from cardium.runs.trained_run import Seconds
from cardium.workspace import PROTOCOLS, RunId, suffix

FILE = "metrics.json"
NAIVE = "naive"
# The run that validation chooses, scored fold by fold: nested.py.
CHOSEN = "chosen"


@dataclass(frozen=True)
class Interval:
    """A score with its interval. None if it is not defined, or if there is no telling."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """The score as text: `0.712 [0.650, 0.771]`, `0.712` without an interval, `-` without a value."""
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Parity:
    """Scored predictions against those of the saved model, by its way of serving.

    difference: the largest of a probability. decisions: the number of records that are decided otherwise.
    """

    records: int
    difference: float
    decisions: int


@dataclass(frozen=True)
class SetScores:
    """How a run's prediction sets fare on test records (set_scores.py), and with which floors they are served.

    wanted: the share of each class's records that should have it in their sets. covered: the share that has, by class.
    single: the share of records whose set is one class. right: of these, the share whose class it is. size: classes in a set,
    on average. floors, groups: the served ones, by class (runs/prediction_sets.py). too_few: classes of too few groups for a
    floor; they are in every set.
    """

    wanted: float
    covered: dict[str, Interval]
    single: Interval
    right: Interval
    size: float
    floors: dict[str, float]
    groups: dict[str, int]
    too_few: list[str]

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> SetScores:
        """Builds them from their table in metrics.json."""
        covered = {name: Interval(**share) for name, share in table["covered"].items()}
        shares = {name: Interval(**table[name]) for name in ("single", "right")}
        return cls(**{**table, "covered": covered, **shares})


@dataclass(frozen=True)
class RunScores:
    """The scores of one run: a row of metrics.json.

    kind: `train`, `fuse`, `ensemble`; `naive` or `chosen`, which are no runs of their own.
    weights: the pretrained weights in one word.
    unit: what a record is: of a model of whole patients, a patient.
    chosen_on_test: whether the test records also chose the weights.
    image, patient: scores by name, per record and per group (mean probability over a group's records).
    folds: balanced accuracy per record of each held-out fold. choices: of the chosen row, the run chosen for each.
    confusion, patient_confusion: counts; rows are true classes, columns decisions.
    published_*: the original's scores.
    seconds, epochs: None if nothing was trained; epochs are averaged over held-out folds.
    run_id: the id in its run.json; None for a row that is no run.
    parity: whether it is served as it was scored; None where that was not asked.
    calibration_error_before: per record, without the temperatures; None for a run that has none.
    sets: None for a run without held-out records to fit them on.
    """

    name: str
    model: str
    protocol: str
    kind: str
    weights: str = ""
    unit: Literal["image", "patient"] = "image"
    records: int = 0
    groups: int = 0
    test_folds: list[int] = field(default_factory=list)
    chosen_on_test: bool = False
    image: dict[str, Interval] = field(default_factory=dict)
    patient: dict[str, Interval] = field(default_factory=dict)
    folds: dict[str, float] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    patient_confusion: list[list[int]] = field(default_factory=list)
    published_balanced_accuracy: float | None = None
    published_accuracy: float | None = None
    seconds: Seconds | None = None
    epochs: float | None = None
    parameters: int | None = None
    trainable_parameters: int | None = None
    model_bytes: int | None = None
    validation_balanced_accuracy: float | None = None
    warnings: list[str] = field(default_factory=list)
    run_id: str | None = None
    parity: Parity | None = None
    calibration_error_before: float | None = None
    sets: SetScores | None = None

    @property
    def balanced_accuracy(self) -> Interval:
        """The balanced accuracy per record, by which runs are ranked."""
        return self.image["balanced_accuracy"]

    @property
    def is_naive(self) -> bool:
        """Whether this is a naive row: the class shares as probabilities, without a model."""
        return self.kind == NAIVE

    @property
    def is_run(self) -> bool:
        """Whether a model stands behind this row."""
        return self.kind not in (NAIVE, CHOSEN)

    @property
    def between_folds(self) -> float | None:
        """The standard deviation of the held-out folds' balanced accuracies; None for fewer than two folds."""
        return statistics.stdev(self.folds.values()) if len(self.folds) > 1 else None

    @classmethod
    def from_json(cls, name: str, table: Mapping[str, Any]) -> RunScores:
        """Builds the row `name` from its table. Raises KeyError or TypeError if the table is not one of a row."""
        known = {key: value for key, value in table.items() if key in cls.__dataclass_fields__}
        for part in ("image", "patient"):
            known[part] = {metric: Interval(**score) for metric, score in (table.get(part) or {}).items()}
        seconds = table.get("seconds")
        known["seconds"] = Seconds(**seconds) if seconds else None
        known["parity"] = Parity(**table["parity"]) if table.get("parity") else None
        known["sets"] = SetScores.from_json(table["sets"]) if table.get("sets") else None
        return cls(**{**known, "name": name})

    def to_json(self) -> dict[str, Any]:
        """Returns the row's table in metrics.json, without its name, which is the key."""
        table = asdict(self)
        del table["name"]
        # Files of older versions have none of these, and get none.
        for name, none in {"parity": None, "calibration_error_before": None, "sets": None, "unit": "image"}.items():
            if table[name] == none:
                del table[name]
        return {**table, "seconds": table["seconds"] or {}}


@dataclass(frozen=True)
class OtherCollection:
    """The other collection of an external evaluation. records: by class. excluded: the number of files left out."""

    name: str
    manifest_sha256: str
    records: dict[str, int]
    excluded: int


@dataclass(frozen=True)
class Evaluation:
    """The test scores of a dataset's runs.

    interval: what an interval should cover. patients: whether groups are patients.
    runs: by name, in the plan's order, chosen and naive rows last. external: set for an evaluation on another collection.
    """

    dataset: str
    classes: list[str]
    interval: float
    threshold: float
    data: DataVersion
    runs: dict[str, RunScores]
    patients: bool = True
    external: OtherCollection | None = None

    @classmethod
    def read(cls, folder: Path, dataset: str) -> Evaluation:
        """Reads the last evaluation of `dataset` from its folder.

        Raises CardiumError if there is none, or if it is damaged.
        """
        try:
            return cls.from_json(json.loads((folder / FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise CardiumError(f"{dataset} has not been evaluated yet: run `cardium evaluate --dataset {dataset}`.") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CardiumError(f"{dataset}'s evaluation is damaged: run `dvc repro -f evaluate@{dataset}`.") from None

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Evaluation:
        """Builds an evaluation from metrics.json or external.json. Raises KeyError or TypeError for other content."""
        external = table.get("external")
        return cls(
            dataset=table["dataset"],
            classes=list(table["classes"]),
            interval=table["interval"],
            threshold=table["threshold"],
            data=DataVersion.from_json(table["data"]),
            runs={name: RunScores.from_json(name, row) for name, row in table["runs"].items()},
            patients=table.get("patients", True),
            external=OtherCollection(**external) if external else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the content of metrics.json."""
        table = {
            "dataset": self.dataset,
            "classes": self.classes,
            "interval": self.interval,
            "threshold": self.threshold,
            # DVC's hash is of all datasets, and would change the file where another one's data change.
            "data": {key: value for key, value in self.data.to_json().items() if key != "dvc_md5"},
            "patients": self.patients,
            "runs": {name: row.to_json() for name, row in self.runs.items()},
        }
        return {**table, "external": asdict(self.external)} if self.external else table

    def write(self, folder: Path) -> None:
        """Writes metrics.json into `folder`."""
        atomic.write_json(folder / FILE, self.to_json())

    def ranked(self) -> list[RunScores]:
        """Returns the rows in leaderboard order: honest first, then by balanced accuracy per record, then by name."""

        def place(row: RunScores) -> tuple[int, float, str]:
            return PROTOCOLS.index(row.protocol), -(row.balanced_accuracy.value or 0.0), row.name

        return sorted(self.runs.values(), key=place)

    def to_expect(self, row: RunScores) -> Interval:
        """Returns a row's balanced accuracy per patient where patients are known, otherwise per record."""
        return (row.patient if self.patients else row.image)["balanced_accuracy"]

    def summary(self) -> dict[str, float | None]:
        """Returns the numbers that all datasets have in common, for `dvc metrics show`; metrics.json has all of every run.

        balanced_accuracy, low, high: to expect of the run that validation chooses. best, best_published: the highest of a run
        under each protocol. chance: chance level.
        """
        chosen = self.runs.get(CHOSEN)
        expected = self.to_expect(chosen) if chosen else Interval(None)
        best = {
            protocol: max(
                (self.to_expect(row).value or 0.0 for row in self.runs.values() if row.is_run and row.protocol == protocol),
                default=None,
            )
            for protocol in PROTOCOLS
        }
        scores = {"balanced_accuracy": expected.value, "low": expected.low, "high": expected.high}
        scores |= {"best": best["honest"], "best_published": best["published"], "chance": 1 / len(self.classes)}
        return {name: rounded(value) for name, value in scores.items()}

    def served_as_scored(self) -> str:
        """States in a sentence how far saved models say what was scored; "" if that was not asked."""
        found = [(row.parity, row.name) for row in self.runs.values() if row.parity is not None]
        if not found:
            return ""
        most, name = max(found, key=lambda one: one[0].difference)
        records, changed = sum(parity.records for parity, _ in found), sum(parity.decisions for parity, _ in found)
        return (
            f"Served as scored: on {records} records of {len(found)} runs the saved models' probabilities differ by up to "
            f"{most.difference:.5f} ({name}), {changed} decisions differ."
        )

    def under_other_protocol(self, row: RunScores) -> RunScores | None:
        """Returns the same model's row under the other protocol, None if it was not run."""
        other = "honest" if row.protocol == "published" else "published"
        return self.runs.get(NAIVE + suffix(other) if row.is_naive else RunId(self.dataset, row.model, other).name)


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Rounds a score for a table; None stays None."""
    return None if value is None else round(float(value), digits)
