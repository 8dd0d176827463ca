"""Settings -> the plan: every run, bank and rendering that the studies come to, with the effective settings of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cardium.config.schema import Train
from cardium.workspace import Protocol, RunId, run_name

# DVC takes no list out of plan.yaml: dvc.yaml names so many members, the last one of fewer repeated.
MOST_MEMBERS = 8


@dataclass(frozen=True)
class RenderingSpec:
    """A kind of array that a dataset's records become."""

    dataset: str
    kind: str

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.kind}"


@dataclass(frozen=True)
class BankSpec:
    """A frozen backbone's features of a dataset's rendering, under a protocol's input scaling.

    backbone: as `models.bank_of` names it; `<backbone>_frames` reads slices, the others images.
    """

    dataset: str
    backbone: str
    protocol: Protocol
    rendering: str

    @property
    def name(self) -> str:
        return run_name(self.dataset, self.backbone, self.protocol)

    @property
    def folder(self) -> str:
        """Below the project's root."""
        return f"features/{self.dataset}/{self.protocol}/{self.backbone}"


@dataclass(frozen=True)
class RunSpec:
    """A model to train on a dataset under a protocol.

    rendering: the kind that its model takes. bank: the backbone whose bank it reads; "" where it is trained end to end.
    train: its effective settings. system: the published system that it takes settings over from; "" for none. tuned: the
    file with what a search found; "" for none. untuned: `train` without it.
    """

    id: RunId
    rendering: str
    bank: str
    train: Train
    system: str = ""
    tuned: str = ""
    untuned: Train = field(kw_only=True)

    @property
    def dataset(self) -> str:
        return self.id.dataset

    @property
    def model(self) -> str:
        return self.id.model

    @property
    def protocol(self) -> str:
        return self.id.protocol

    @property
    def name(self) -> str:
        return self.id.name

    @property
    def reads(self) -> str:
        """The folder that it trains from, below the project's root: its bank or its rendering."""
        if self.bank:
            return self.bank_spec.folder
        return f"processed/{self.dataset}/{self.rendering}"

    @property
    def bank_spec(self) -> BankSpec:
        """The bank that it reads."""
        return BankSpec(self.dataset, self.bank, self.protocol, self.rendering)  # type: ignore[arg-type]


@dataclass(frozen=True)
class JointSpec:
    """Trained models of one dataset and protocol made into one.

    kind: `fuse`: joined by their penultimate vectors or averaged (system 004); `ensemble`: averaged (system 000). train:
    what the head of a fusion is trained with; None for an ensemble.
    """

    id: RunId
    kind: Literal["fuse", "ensemble"]
    members: tuple[RunId, ...]
    train: Train | None = None

    @property
    def name(self) -> str:
        return self.id.name


@dataclass(frozen=True)
class ExplanationSpec:
    """A run of which the pipeline says where it looked, and the method that says it.

    rendering: the kind that its model takes. tests: whether all methods are tested on the run, or this one alone.
    """

    run: RunId
    method: str
    rendering: str
    tests: Literal["all", "own"]

    @property
    def name(self) -> str:
        return f"{self.run.name}-{self.method}"


@dataclass(frozen=True)
class Plan:
    """What is run, by name. joints: fusions first, then ensembles."""

    renderings: dict[str, RenderingSpec]
    banks: dict[str, BankSpec]
    runs: dict[str, RunSpec]
    joints: dict[str, JointSpec]
    explanations: dict[str, ExplanationSpec]

    @property
    def fusions(self) -> dict[str, JointSpec]:
        return {name: spec for name, spec in self.joints.items() if spec.kind == "fuse"}

    @property
    def ensembles(self) -> dict[str, JointSpec]:
        return {name: spec for name, spec in self.joints.items() if spec.kind == "ensemble"}

    def ids(self, dataset: str) -> list[RunId]:
        """Every run of a dataset, those made of others last."""
        specs: list[RunSpec | JointSpec] = [*self.runs.values(), *self.joints.values()]
        return [spec.id for spec in specs if spec.id.dataset == dataset]

    def verb_of(self, run: RunId) -> str:
        """The stage that makes a run: train, fuse or ensemble."""
        return self.joints[run.name].kind if run.name in self.joints else "train"
