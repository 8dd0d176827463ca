"""A trained run as its run.json describes it: what was trained, on which data, with which settings, and its validation scores.

trained = TrainedRun.read(workspace.run(RunId("cmri", "mobilenetv2")))
trained.validation["balanced_accuracy"], trained.fold_weights(0)

This is the only reader and writer of run.json. Files of older versions are read too; missing keys take the defaults below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cardium import atomic
from cardium.errors import CardiumError
from cardium.imaging.spec import Render
from cardium.models.weights import WeightsUsed
from cardium.provenance import Provenance
from cardium.runs.data_version import DataVersion
from cardium.workspace import MODEL, RunId, served_file

# How a run came about: trained from data, or made of trained runs.
RunKind = Literal["train", "fuse", "ensemble"]
# What a run's predictions are computed from: its backbone's bank, or pixels.
Source = Literal["bank", "pixels"]

FILE = "run.json"
# What the model that `served: all` trains says of its calibration records, in the predictions format.
CALIBRATION = "calibration.parquet"

_NO_WEIGHTS = WeightsUsed("", "")
_NOT_SAID = Provenance("", False, {}, "")

# Each kind's keys, in the order of the file.
_MADE = ("id", "commit", "dirty", "versions", "created", "environment", "run")
_COST = ("parameters", "trainable_parameters", "model_bytes", "seconds", "phases", "validation", "temperatures", "retrained")
_OF_MEMBERS = (
    "model", "kind", "dataset", "protocol", "members", "member_ids", "classes", "rendering", "weights", "test_folds", "folds",
    "data", "warnings",
)  # fmt: skip
_KEYS: dict[RunKind, tuple[str, ...]] = {
    "train": (
        *_MADE, "dataset", "model", "protocol", "kind", "classes", "rendering", "weights", "bank", "scored_from", "settings",
        "overrides", "tuned", "test_folds", "folds", "data", "engine", *_COST, "warnings",
    ),
    "fuse": (*_MADE, *_OF_MEMBERS, "bank", "scored_from", "settings", "overrides", *_COST),
    "ensemble": (*_MADE, *_OF_MEMBERS, "settings", "overrides", *_COST),
}  # fmt: skip


class NotTrainedError(CardiumError):
    """Raised for a folder without a run.json."""


@dataclass(frozen=True)
class Phase:
    """One training phase of one held-out fold.

    phase: `head`, `whole` or `fine_tune`. val_loss: of the epoch whose weights were kept.
    """

    test_fold: int
    phase: str
    epochs: int
    best_epoch: int
    val_loss: float


@dataclass(frozen=True)
class Seconds:
    """The cost of a run: computing its bank, and training, without interruptions."""

    features: float = 0.0
    train: float = 0.0


@dataclass(frozen=True)
class Retrained:
    """The model that `served: all` trains anew to answer requests.

    records: trained on. calibration: held-out ones, on which its temperature was fitted. epochs: by phase.
    """

    records: int
    calibration: int
    epochs: dict[str, int]
    temperature: float


@dataclass(frozen=True)
class TrainedRun:
    """A trained, fused or averaged run.

    id: unique to this training; training again gives another one.
    kind: how it was made; a fused or averaged run has `members`.
    rendering, size: the kind of array that the model reads, and its size.
    test_folds: the folds that were held out in turn, of `folds` in all.
    folder: where the run's files are; not part of run.json.
    bank: the folder of its bank below the project's root, "" without one.
    settings: the settings it was trained with, flat, by dotted names (`train.learning_rate`).
    overrides: the settings that differed from params.yaml.
    tuned: the file with tuned settings that it took, "" for none.
    engine: the software that computed the bank, or that trained the model.
    validation: scores by name, over the validation records of all held-out folds.
    retrained: the model that answers requests, where it is none of the folds'.
    temperatures: by held-out fold, what its model's logits were divided by; {} for a run that was not calibrated itself.
    members, member_ids: names and ids of the runs that it is made of.
    """

    id: str
    run: RunId
    kind: RunKind
    classes: list[str]
    rendering: str
    size: Render
    test_folds: list[int]
    data: DataVersion
    folder: Path = field(compare=False)
    folds: int = 0
    weights: WeightsUsed = _NO_WEIGHTS
    bank: str = ""
    scored_from: Source = "pixels"
    settings: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    tuned: str = ""
    engine: str = ""
    parameters: int = 0
    trainable_parameters: int = 0
    model_bytes: int = 0
    seconds: Seconds = Seconds()
    phases: list[Phase] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)
    temperatures: dict[int, float] = field(default_factory=dict)
    retrained: Retrained | None = None
    warnings: list[str] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    member_ids: list[str] = field(default_factory=list)
    provenance: Provenance = _NOT_SAID

    @classmethod
    def read(cls, folder: Path) -> TrainedRun:
        """Reads the run in `folder`.

        Raises NotTrainedError if there is no run.json, and CardiumError if it is damaged or not one of a run.
        """
        try:
            table = json.loads((folder / FILE).read_text(encoding="utf-8"))
            return cls.from_json(table, folder)
        except FileNotFoundError:
            raise NotTrainedError(f"{folder.name}: no run.json in it: not a run folder, or its training did not end.") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CardiumError(f"{folder.name}: run.json is not one that `cardium train` wrote: train the run again.") from None

    @classmethod
    def from_json(cls, table: Mapping[str, Any], folder: Path) -> TrainedRun:
        """Builds a run from the content of its run.json; unknown keys are ignored.

        Raises KeyError, TypeError or ValueError if the content does not describe a run.
        """
        if not isinstance(table["id"], str) or not isinstance(table["classes"], list):
            raise TypeError("id is a text and classes are a list")
        kind = table.get("kind", "train")
        if kind not in get_args(RunKind):
            raise ValueError(f"no kind of run: {kind}")
        size = dict(table["rendering"])
        rendering = str(size.pop("kind"))
        seconds = table.get("seconds") or {}
        return cls(
            id=table["id"],
            run=RunId(str(table["dataset"]), str(table["model"]), str(table["protocol"])),
            kind=kind,
            classes=[str(name) for name in table["classes"]],
            rendering=rendering,
            size=Render(**size),
            test_folds=[int(fold) for fold in table["test_folds"]],
            data=DataVersion.from_json(table["data"]),
            folder=folder,
            folds=int(table.get("folds", 0)),
            weights=WeightsUsed(**{"asked": "", "used": "", **(table.get("weights") or {})}),
            bank=table.get("bank", ""),
            scored_from=table.get("scored_from", "pixels"),
            settings=dict(table.get("settings", {})),
            overrides=dict(table.get("overrides", {})),
            tuned=table.get("tuned", ""),
            engine=table.get("engine", ""),
            parameters=int(table.get("parameters", 0)),
            trainable_parameters=int(table.get("trainable_parameters", 0)),
            model_bytes=int(table.get("model_bytes", 0)),
            seconds=Seconds(float(seconds.get("features", 0.0)), float(seconds.get("train", 0.0))),
            phases=[Phase(**phase) for phase in table.get("phases", [])],
            validation=dict(table.get("validation", {})),
            retrained=Retrained(**table["retrained"]) if table.get("retrained") else None,
            temperatures={int(fold): float(value) for fold, value in (table.get("temperatures") or {}).items()},
            warnings=list(table.get("warnings", [])),
            members=list(table.get("members", [])),
            member_ids=list(table.get("member_ids", [])),
            provenance=Provenance.from_json(table),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the content of run.json; its keys and their order depend on the kind of run."""
        weights = asdict(self.weights)
        if self.kind != "train":
            del weights["warning"]  # The members' own are among the warnings.
        content = {
            "id": self.id,
            **self.provenance.as_dict(),
            "run": self.name,
            "dataset": self.run.dataset,
            "model": self.run.model,
            "protocol": self.run.protocol,
            "kind": self.kind,
            "classes": self.classes,
            "rendering": {"kind": self.rendering, **self.size.as_dict()},
            "weights": weights,
            "bank": self.bank,
            "scored_from": self.scored_from,
            "settings": self.settings,
            "overrides": self.overrides,
            "tuned": self.tuned,
            "members": self.members,
            "member_ids": self.member_ids,
            "test_folds": self.test_folds,
            "folds": self.folds,
            "data": self.data.to_json(),
            "engine": self.engine,
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "model_bytes": self.model_bytes,
            "seconds": asdict(self.seconds),
            "phases": [asdict(phase) for phase in self.phases],
            "validation": self.validation,
            "retrained": asdict(self.retrained) if self.retrained else None,
            "temperatures": {str(fold): value for fold, value in self.temperatures.items()},
            "warnings": self.warnings,
        }
        # Files of older versions have none of these, and get none.
        optional = ("environment", "temperatures", "retrained")
        return {key: content[key] for key in _KEYS[self.kind] if key not in optional or content[key]}

    def write(self, folder: Path) -> None:
        """Writes run.json into `folder`."""
        atomic.write_json(folder / FILE, self.to_json())

    @property
    def name(self) -> str:
        """The run's name, such as `cmri-mobilenetv2`."""
        return self.run.name

    @property
    def threshold(self) -> float:
        """The probability above which the second of two classes is decided."""
        return float(self.settings.get("evaluate.threshold", 0.5))

    @property
    def hidden(self) -> int:
        """The width of the head's hidden layer, 0 without one."""
        return int(self.settings.get("train.hidden", 0))

    @property
    def mean_epochs(self) -> float | None:
        """Epochs trained, averaged over the held-out folds; None for a run that was not trained itself."""
        folds = {phase.test_fold for phase in self.phases}
        return sum(phase.epochs for phase in self.phases) / len(folds) if folds else None

    @property
    def model_file(self) -> Path:
        """The file of the first held-out fold's model."""
        return self.folder / MODEL

    @property
    def served_file(self) -> Path:
        """The file of the model that answers requests: the folds' mean if there is one, otherwise `model_file`."""
        return served_file(self.folder)

    @property
    def served_by(self) -> str:
        """In words, which model answers requests, and what it was trained on beside those that were scored."""
        if self.retrained:
            return f"a model trained anew on all records but {self.retrained.calibration}, which fitted its temperature"
        if self.served_file != self.model_file:
            return f"the mean of the {len(self.test_folds)} folds' models"
        if self.kind != "train":
            return "its members' models with the first fold held out" if len(self.test_folds) > 1 else "its members' models"
        return f"the model with fold {self.test_folds[0]} held out" if len(self.test_folds) > 1 else "the model that was scored"

    @property
    def has_folds(self) -> bool:
        """Whether the weights of every held-out fold are stored here. An ensemble has only its members'."""
        return (self.folder / "folds").is_dir()

    def fold_weights(self, fold: int) -> dict[str, np.ndarray]:
        """Loads the weights that were trained with `fold` held out, in the form `models.trained.set_trained` takes."""
        with np.load(self.folder / "folds" / f"{fold}.npz") as stored:
            return {name: stored[name] for name in stored.files}


def write_fold_weights(folder: Path, weights: Mapping[int, Mapping[str, np.ndarray]]) -> None:
    """Writes the weights of every held-out fold into a run folder, for `TrainedRun.fold_weights`."""
    (folder / "folds").mkdir()
    for fold, arrays in weights.items():
        np.savez(folder / "folds" / f"{fold}.npz", allow_pickle=False, **arrays)
