"""The types of params.yaml: one dataclass a section, its fields the section's keys, with the range of every number.

`config.load` reads the file into them, `config.json_schema` states the same types to editors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from cardium.imaging.kinds import of_patients, of_sheets, of_volumes
from cardium.imaging.spec import Augment, Limits, Render, Sides
from cardium.ranges import (
    AtLeastHundred,
    AtLeastTen,
    AtLeastThree,
    AtLeastTwo,
    Count,
    CountOrZero,
    Coverage,
    NotNegative,
    Positive,
    Seed,
    Share,
)
from cardium.workspace import Protocol

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
    seed: Seed


@dataclass(frozen=True)
class Validate:
    """The sides of pictures and slices: as `imaging.spec.Sides`. blank_std: grey levels. max_imbalance: of class sizes.
    label_tolerance: share of a count."""

    min_side: Count
    max_side: Count
    max_aspect: Positive
    blank_std: float
    max_imbalance: float
    label_tolerance: Share

    @property
    def sides(self) -> Sides:
        return Sides(self.min_side, self.max_side, self.max_aspect)


@dataclass(frozen=True)
class ProtocolSettings:
    """scaling: of a backbone's input. padding: whether a network of slices skips the empty ones at the end or reads them.

    calibration: whether a model's logits are divided by a temperature that is fitted on validation.
    """

    scaling: Literal["native", "unit"]
    padding: Literal["masked", "read"]
    calibration: Literal["temperature", "none"] = "none"


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
    served: Literal["first", "mean", "all"]
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
class OwnCollection:
    """A collection of the project's own, data/<name>/records.csv (datasets/of_table.py).

    classes: in class order; []: the table's labels, sorted. content: what its records are. title: in words. recommended: the
    model to begin with; "" for the one of its content. settings: as a dataset's section, laid over that of its content.
    """

    classes: list[str] = field(default_factory=list)
    content: Literal["image", "sheet", "volume"] = "image"
    title: str = ""
    recommended: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Features:
    """batch: records to a forward pass. engine: what runs the frozen backbone."""

    batch: Count
    engine: Literal["auto", "tensorflow", "openvino", "openvino_bfloat16"]


@dataclass(frozen=True)
class Evaluate:
    """test_folds: `all`, or one fold held out. cross_validated: datasets for which it is always all.

    bootstrap: resamples of whole groups, by which runs are compared. least_groups: of a class, below which intervals are warned
    of and nothing is promoted.
    compared, tolerance: test records of a run whose scored and served probabilities may differ by so much; 0: none is compared.
    """

    test_folds: str
    cross_validated: list[str]
    bootstrap: AtLeastTen
    interval: Share
    least_groups: AtLeastTwo
    threshold: Share
    compared: CountOrZero
    tolerance: Share


@dataclass(frozen=True)
class Audit:
    """backbone: whose vectors the probe takes. folds, repeats: of its held-out scores. records: that it looks at, at most."""

    backbone: str
    folds: AtLeastThree
    repeats: Count
    records: AtLeastHundred


@dataclass(frozen=True)
class Promote:
    """confidence: the probability of being better that replaces a champion. better: that of a first champion, and of calling a
    run better, if it is the only attempt on its split. attempts: on one split, after which new patients are asked for."""

    confidence: Share
    better: Share
    attempts: Count


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
class Serve:
    """What one request to a served model may cost: its files and bytes, and of each file its bytes and what they decode to.

    max_rows, max_sheet_rows, max_volume_rows: files, by their kind. max_seconds, max_volume_seconds: of a core, to read one; a
    patient's study is read as long as a volume.
    max_study_files, max_study_bytes: of one patient, where a model takes a patient's files together.
    max_volume_bytes: of a volume as it is sent; max_inflated_bytes: of the same, inflated. coverage: of the prediction sets.
    abstain: whether the label is `unsure` where the set is not that one class. false_alarms: the share of the collection's own
    pictures that may be called unlike it; 0: none is. A model logged before these were in params.yaml
    is served with the defaults.
    """

    max_rows: Count = 256
    max_sheet_rows: Count = 96
    max_volume_rows: Count = 8
    max_request_bytes: Count = 200_000_000
    max_volume_request_bytes: Count = 700_000_000
    max_seconds: Positive = 2.0
    max_volume_seconds: Positive = 60.0
    max_pixels: Count = 17_000_000
    max_bytes: Count = 100_000_000
    max_voxels: Count = 300_000_000
    max_volume_bytes: Count = 400_000_000
    max_inflated_bytes: Count = 1_200_000_000
    coverage: Coverage = 0.9
    abstain: bool = False
    false_alarms: Share = 0.01
    max_study_files: Count = 4_000
    max_study_bytes: Count = 400_000_000

    def rows(self, kind: str, area: str) -> int:
        """How many files a request may hold for a model that reads the rendering `kind` of this `area`."""
        if of_patients(kind):
            return self.max_volume_rows
        if of_volumes(kind):
            return self.max_volume_rows
        return self.max_sheet_rows if of_sheets(kind, area) else self.max_rows

    def request_bytes(self, kind: str) -> int:
        """How many bytes a request's body may have."""
        return self.max_volume_request_bytes if of_volumes(kind) else self.max_request_bytes

    def seconds(self, kind: str) -> float:
        """How long a core may read one file, of a patient all of its images."""
        return self.max_volume_seconds if of_volumes(kind) or of_patients(kind) else self.max_seconds

    def of_file(self, kind: str, sides: Sides) -> Limits:
        """What one file may cost that is rendered as `kind`."""
        # Of a patient it is an archive.
        max_bytes = self.max_volume_bytes if of_volumes(kind) else self.max_study_bytes if of_patients(kind) else self.max_bytes
        return Limits(self.max_pixels, max_bytes, self.max_voxels, self.max_inflated_bytes, sides)


@dataclass(frozen=True)
class Tracking:
    """uri: of the MLflow store; "": mlflow.db beside params.yaml. experiment: what experiments and models are named after."""

    uri: str
    experiment: str
