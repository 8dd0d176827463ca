"""The types of params.yaml: one dataclass a section, its fields the section's keys, with the range of every number.

`Settings` is all of the file after the profile and the overrides. `config.load` reads it, `config.plan` resolves what is run,
`config.json_schema` states the same types to editors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cardium.imaging.spec import Augment, Limits, Render
from cardium.ranges import (
    AtLeastHundred,
    AtLeastTen,
    AtLeastThree,
    AtLeastTwo,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Share,
)

if TYPE_CHECKING:
    from cardium.config.plan import Plan

Protocol = Literal["honest", "published"]
PROTOCOLS: tuple[Protocol, ...] = ("honest", "published")
# A table of the file as YAML gives it, before it is checked.
RawTable = dict[str, Any]


@dataclass(frozen=True)
class Deviation:
    """What a run sets otherwise than its dataset does.

    system: the published system whose settings (`systems`) are laid over the dataset's; "": none. train: own settings, laid
    over both. tuned: the file with what `cardium tune` found (`configs/tuned/<run>.yaml`), laid over all. reads: the kind
    of rendering that the model takes; "": the model's own.
    """

    system: str = ""
    train: dict[str, Any] = field(default_factory=dict)
    tuned: str = ""
    reads: str = ""


@dataclass(frozen=True)
class StudiedModel(Deviation):
    """A model of a study. protocols: that it is trained under; []: the study's. honest, published: under that one only."""

    protocols: list[Protocol] = field(default_factory=list)
    honest: Deviation = field(default_factory=Deviation)
    published: Deviation = field(default_factory=Deviation)


@dataclass(frozen=True)
class StudiedFusion:
    """Trained models joined into one. system, train: what its head is trained with, as for a run."""

    members: list[str]
    system: str = ""
    train: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudiedExplanation:
    """method: that says where a run looked. tests: whether all methods are tested on the run, or this one alone."""

    method: str
    tests: Literal["all", "own"] = "all"


@dataclass(frozen=True)
class Study:
    """What is run on one dataset: models x protocols, and what is made of them.

    models: name -> how it deviates. honest, published: how all models deviate under that protocol. fusions: `fused` trains
    a head on the members' penultimate vectors side by side, `fused_average` takes their mean probability. ensembles: name
    -> members, whose probabilities are averaged. explanations: `<model>` or `<model>-published` -> how it is explained.
    renderings: kinds to make beside those that the models read.
    """

    models: dict[str, StudiedModel]
    protocols: list[Protocol] = field(default_factory=lambda: ["honest"])  # type: ignore[arg-type]
    honest: Deviation = field(default_factory=Deviation)
    published: Deviation = field(default_factory=Deviation)
    fusions: dict[str, StudiedFusion] = field(default_factory=dict)
    ensembles: dict[str, list[str]] = field(default_factory=dict)
    explanations: dict[str, StudiedExplanation] = field(default_factory=dict)
    renderings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ingest:
    """max_bad: share of a class's files that may be unreadable. The others: as `imaging.spec.Limits`."""

    max_bad: Share
    max_pixels: Count
    max_bytes: Count
    max_voxels: Count
    max_volume_bytes: Count

    @property
    def limits(self) -> Limits:
        return Limits(self.max_pixels, self.max_bytes, self.max_voxels, self.max_volume_bytes)


@dataclass(frozen=True)
class Split:
    """folds: that the groups are dealt into. seed: of the dealing."""

    folds: AtLeastThree
    seed: int


@dataclass(frozen=True)
class Validate:
    """min_side, max_side: pixels. blank_std: grey levels. max_imbalance: of class sizes. label_tolerance: share of a count."""

    min_side: Count
    max_side: int
    blank_std: float
    max_imbalance: float
    label_tolerance: Share


@dataclass(frozen=True)
class ProtocolSettings:
    """scaling: of a backbone's input. padding: whether a network of slices skips the empty ones at the end or reads them."""

    scaling: Literal["native", "unit"]
    padding: Literal["masked", "read"]


@dataclass(frozen=True)
class Train:
    """How a model is trained; params.yaml says what each number means."""

    weights: Literal["imagenet", "none", "auto"]
    views: Count
    epochs: Count
    batch: Count
    learning_rate: Positive
    dropout: Share
    class_weights: Literal["balanced", "none"]
    stop_patience: Count
    plateau_patience: Count
    plateau_factor: Share
    min_learning_rate: Positive
    optimizer: Literal["adam", "adamax", "adamw", "sgd"]
    weight_decay: NotNegative
    clip_norm: NotNegative
    label_smoothing: Share
    step_epochs: list[int]
    step_factor: Share
    keep: Literal["best", "last"]
    hidden: CountOrZero
    augmented: bool
    augment_share: Share
    served: Literal["first", "mean"]
    accumulate: Count
    fine_tune: CountOrZero
    fine_tune_epochs: Count
    fine_tune_learning_rate: Positive


@dataclass(frozen=True)
class Dataset:
    """A dataset's settings: its kind of record's with its own laid over. render: kind of rendering -> its size."""

    render: dict[str, Render]
    augment: Augment
    train: Train


@dataclass(frozen=True)
class Features:
    """batch: records to a forward pass. engine: what runs the frozen backbone."""

    batch: Count
    engine: Literal["auto", "tensorflow", "openvino", "openvino_bfloat16"]


@dataclass(frozen=True)
class Evaluate:
    """test_folds: `all`, or one fold held out. cross_validated: datasets for which it is always all."""

    test_folds: str
    cross_validated: list[str]
    bootstrap: AtLeastTen
    interval: Share
    threshold: Share


@dataclass(frozen=True)
class Audit:
    """backbone: whose vectors the probe takes. folds, repeats: of its held-out scores. records: that it looks at, at most."""

    backbone: str
    folds: AtLeastThree
    repeats: Count
    records: AtLeastHundred


@dataclass(frozen=True)
class Promote:
    """confidence: the probability of being better that replaces a champion."""

    confidence: Share


@dataclass(frozen=True)
class Explain:
    """shown: records a row of the gallery. candidates: test records that they are chosen from. tested: records that the methods
    are tested on. steps to window: as explain.attribution.How. curve: steps of deletion and insertion.
    cascade: how often weights are shuffled from the last layer to the first."""

    shown: Count
    candidates: Count
    tested: Count
    steps: Count
    most_steps: Count
    samples: Count
    noise: Share
    window: float
    curve: Count
    cascade: AtLeastTwo


@dataclass(frozen=True)
class Dimension:
    """What a search may set one thing to: a number from `low` to `high`, one of `choices`, or one of `sets` of settings.

    log: drawn evenly over the logarithm. whole: whole numbers only. sets: name -> settings that go together.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: list[Any] = field(default_factory=list)
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tune:
    """trials: how many, in all. startup: those drawn at random first, none of which is cut short. workers: processes.

    spaces: kind of model -> setting -> what it may be; `block` is the attention block and no setting.
    """

    trials: Count
    startup: Count
    workers: Count
    spaces: dict[str, dict[str, Dimension]]


@dataclass(frozen=True)
class Tracking:
    """uri: of the MLflow store; "": mlflow.db beside params.yaml. experiment: what experiments and models are named after."""

    uri: str
    experiment: str


@dataclass(frozen=True)
class Settings:
    """All of params.yaml after the profile and the overrides.

    active: the datasets that the pipeline runs. studies: of the chosen profile, a dataset each. datasets: a dataset's
    settings by its name.
    """

    root: Path
    profile: str
    seed: int
    active: list[str]
    studies: dict[str, Study]
    systems: dict[str, dict[str, Any]]
    protocols: dict[str, ProtocolSettings]
    datasets: dict[str, Dataset]
    ingest: Ingest
    split: Split
    validate: Validate
    features: Features
    evaluate: Evaluate
    audit: Audit
    promote: Promote
    explain: Explain
    tune: Tune
    tracking: Tracking
    overrides: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def plan(self) -> Plan:
        """What these settings come to: every run, bank and rendering with its effective settings."""
        from cardium.config.plan import make_plan

        return make_plan(self)

    def test_folds(self, dataset: str) -> list[int]:
        """The folds that are held out in turn: [t], or all of them."""
        if self.evaluate.test_folds == "all" or dataset in self.evaluate.cross_validated:
            return list(range(self.split.folds))
        return [int(self.evaluate.test_folds)]
