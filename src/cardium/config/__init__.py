"""params.yaml -> validated, typed settings; an unknown key is an error that names the closest one.

The file holds the published numbers; the chosen profile's block is laid over them, then the overrides of one run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cardium.errors import CardiumError, closest, unknown
from cardium.imaging.spec import Augment, Limits, Render
from cardium.workspace import run_name

Protocol = Literal["honest", "published"]
# A table of the file as YAML gives it, before it is checked.
RawTable = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A line of `runs`: a model to train on a dataset under a protocol.

    reads: the folder that it trains from, below the project's root: a bank (`features/<dataset>/<protocol>/<backbone>`, the
    backbone stays frozen) or a rendering (`processed/<dataset>/<kind>`, trained end to end). system: the published system whose
    settings (`systems`) are laid over the dataset's `train`; "" for none. train: this run's own settings, laid over both.
    tuned: the file with what `cardium tune` found (`configs/tuned/<run>.yaml`), laid over all three; "" for none.
    """

    dataset: str
    model: str
    protocol: Protocol
    reads: str
    system: str = ""
    train: dict[str, Any] = field(default_factory=dict)
    tuned: str = ""

    @property
    def rendering(self) -> str:
        """The kind of rendering that is read; "" where a bank is."""
        return "" if self.bank else self.reads.rpartition("/")[2]

    @property
    def bank(self) -> str:
        """The backbone whose bank is read; "" where training is end to end."""
        return self.reads.rpartition("/")[2] if self.reads.startswith("features/") else ""


@dataclass(frozen=True)
class Rendering:
    """A line of `renderings`: a kind of array that a dataset's records become."""

    dataset: str
    kind: str


@dataclass(frozen=True)
class Bank:
    """A line of `banks`: a frozen backbone's features of a dataset's rendering, under a protocol's input scaling.

    `<backbone>_frames` reads slices, the others images.
    """

    dataset: str
    backbone: str
    protocol: Protocol
    rendering: str


@dataclass(frozen=True)
class Ensemble:
    """A line of `ensembles`: models of one dataset and protocol whose probabilities are averaged."""

    dataset: str
    protocol: Protocol
    members: list[str]


@dataclass(frozen=True)
class Fusion:
    """A line of `fusions`: three trained models of one dataset and protocol joined into one (system 004).

    model: `fused` trains a head on their penultimate vectors side by side, `fused_average` takes their mean probability.
    """

    dataset: str
    protocol: Protocol
    model: Literal["fused", "fused_average"]
    members: list[str]


@dataclass(frozen=True)
class Explanation:
    """A line of `explanations`: a trained run of which the pipeline says where it looked, and the method that says it.

    reads: the rendering that the run's model reads from its pixels on, `processed/<dataset>/<kind>`. tests: whether all methods
    are tested on the run, or this one alone.
    """

    run: str
    dataset: str
    model: str
    protocol: Protocol
    method: str
    reads: str
    tests: Literal["all", "own"]


@dataclass(frozen=True)
class Ingest:
    """max_bad: share of a class's files. The others: as `imaging.spec.Limits`."""

    max_bad: float
    max_pixels: int
    max_bytes: int
    max_voxels: int
    max_volume_bytes: int

    @property
    def limits(self) -> Limits:
        return Limits(self.max_pixels, self.max_bytes, self.max_voxels, self.max_volume_bytes)


@dataclass(frozen=True)
class Split:
    folds: int
    seed: int


@dataclass(frozen=True)
class Validate:
    min_side: int
    max_side: int
    blank_std: float
    max_imbalance: float
    label_tolerance: float


@dataclass(frozen=True)
class ProtocolSettings:
    """scaling: of a backbone's input. padding: whether a network of slices skips the empty ones at the end or reads them."""

    scaling: Literal["native", "unit"]
    padding: Literal["masked", "read"]


@dataclass(frozen=True)
class Train:
    weights: Literal["imagenet", "none", "auto"]
    views: int
    epochs: int
    batch: int
    learning_rate: float
    dropout: float
    class_weights: Literal["balanced", "none"]
    stop_patience: int
    plateau_patience: int
    plateau_factor: float
    min_learning_rate: float
    optimizer: Literal["adam", "adamax", "adamw", "sgd"]
    weight_decay: float
    clip_norm: float
    label_smoothing: float
    step_epochs: list[int]
    step_factor: float
    keep: Literal["best", "last"]
    hidden: int
    augmented: bool
    augment_share: float
    served: Literal["first", "mean"]
    accumulate: int
    fine_tune: int
    fine_tune_epochs: int
    fine_tune_learning_rate: float


@dataclass(frozen=True)
class Dataset:
    render: dict[str, Render]
    augment: Augment
    train: Train


@dataclass(frozen=True)
class Features:
    batch: int
    engine: Literal["auto", "tensorflow", "openvino"]


@dataclass(frozen=True)
class Evaluate:
    """test_folds: `all`, or one fold held out. cross_validated: datasets for which it is always all."""

    test_folds: str
    cross_validated: list[str]
    bootstrap: int
    interval: float
    threshold: float


@dataclass(frozen=True)
class Audit:
    """backbone: whose vectors the probe takes. folds, repeats: of its held-out scores. records: that it looks at, at most."""

    backbone: str
    folds: int
    repeats: int
    records: int


@dataclass(frozen=True)
class Promote:
    confidence: float


@dataclass(frozen=True)
class Explain:
    """shown: records a row of the gallery. candidates: test records that they are chosen from. tested: records that the methods
    are tested on. steps to window: as explain.attribution.How. curve: steps of deletion and insertion.
    cascade: how often weights are shuffled from the last layer to the first."""

    shown: int
    candidates: int
    tested: int
    steps: int
    most_steps: int
    samples: int
    noise: float
    window: float
    curve: int
    cascade: int


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

    trials: int
    startup: int
    workers: int
    spaces: dict[str, dict[str, Dimension]]


@dataclass(frozen=True)
class Tracking:
    uri: str
    experiment: str


@dataclass(frozen=True)
class Settings:
    """All of params.yaml after the profile and the overrides; `datasets` holds the sections named after a dataset."""

    root: Path
    profile: str
    seed: int
    active: list[str]
    renderings: dict[str, Rendering]
    banks: dict[str, Bank]
    runs: dict[str, Run]
    fusions: dict[str, Fusion]
    ensembles: dict[str, Ensemble]
    explanations: dict[str, Explanation]
    recommended: dict[str, str]
    systems: dict[str, dict[str, Any]]
    ingest: Ingest
    split: Split
    validate: Validate
    protocols: dict[str, ProtocolSettings]
    datasets: dict[str, Dataset]
    features: Features
    evaluate: Evaluate
    audit: Audit
    promote: Promote
    explain: Explain
    tune: Tune
    tracking: Tracking
    overrides: dict[str, Any] = field(default_factory=dict)

    def rendering_of(self, line: Run) -> str:
        """The kind of rendering that a run's model takes: what it reads, or what its bank was made from."""
        if not line.bank:
            return line.rendering
        made = self.banks.get(run_name(line.dataset, line.bank, line.protocol))
        return made.rendering if made else rendering_of_bank(line.bank)

    def train_of(self, line: Run) -> Train:
        """What a run is trained with: its dataset's settings, its system's over them, its own, the tuned ones, the overrides.

        Raises CardiumError where the file with the tuned ones is missing or another model's.
        """
        where = f"runs.{run_name(line.dataset, line.model, line.protocol)}.train"
        return self._train(line.dataset, line.system, line.train, where, self.tuned_of(line), line.tuned)

    def tuned_of(self, line: Run) -> RawTable:
        """The settings that `cardium tune` found for a run whose line names their file; {} where it names none."""
        if not line.tuned:
            return {}
        return read_tuned(self.root, line)

    def train_of_system(self, dataset: str, system: str) -> Train:
        """What a published system's runs of a dataset are trained with, where they set nothing of their own."""
        return self._train(dataset, system, {}, f"systems.{system}")

    def _train(
        self, dataset: str, system: str, own: RawTable, where: str, tuned: RawTable | None = None, file: str = ""
    ) -> Train:
        base = dataclasses.asdict(self.datasets[dataset].train)
        for change, source in ((self.systems.get(system, {}), f"systems.{system}"), (own, where), (tuned or {}, file)):
            fixed = sorted({"views", "weights"} & change.keys())
            if fixed:
                raise CardiumError(
                    f"params.yaml, {source}.{fixed[0]}: a bank is shared by its runs: set {dataset}.train.{fixed[0]}."
                )
            base = _overlay(base, change, source)
        prefix = f"{dataset}.train."
        base |= {key.removeprefix(prefix): value for key, value in self.overrides.items() if key.startswith(prefix)}
        train: Train = _build(Train, base, where)
        return train

    def test_folds(self, dataset: str) -> list[int]:
        """The folds that are held out in turn: [t], or all of them."""
        if self.evaluate.test_folds == "all" or dataset in self.evaluate.cross_validated:
            return list(range(self.split.folds))
        return [int(self.evaluate.test_folds)]


def read_tuned(root: Path, line: Run) -> RawTable:
    """The settings in the file that `line.tuned` names, below the project's root.

    Raises CardiumError where it is missing, broken or another model's.
    """
    import yaml

    name = run_name(line.dataset, line.model, line.protocol)
    where, again = f"params.yaml, runs.{name}.tuned:", f"`cardium tune --dataset {line.dataset} --model {line.model}`"
    try:
        table = yaml.safe_load((root / line.tuned).read_text(encoding="utf-8"))
        dataset, model, settings = table["dataset"], table["model"], table["settings"]
        if not isinstance(settings, dict):
            raise TypeError
    except FileNotFoundError:
        raise CardiumError(f"{where} there is no {line.tuned}: make it with {again}.") from None
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        raise CardiumError(f"{where} {line.tuned} is not what `cardium tune` writes: make it again with {again}.") from None
    if (dataset, model) != (line.dataset, line.model):
        raise CardiumError(
            f"{where} {line.tuned} is {dataset}'s {model}: give `{run_name(dataset, model, 'honest')}` this line."
        )
    return settings


def rendering_of_bank(backbone: str) -> str:
    """The rendering that a bank is made from where no line of `banks` says it."""
    return "slices" if backbone.endswith("_frames") else "image"


# The sections of params.yaml named after a dataset; a new dataset adds its name here.
DATASETS = ("cmri", "ecg4", "ecg5", "chd")

# What each number must satisfy beyond its type, by the last part of its key.
_AT_LEAST = {
    "folds": 3, "epochs": 1, "batch": 1, "views": 1, "height": 8, "width": 8, "bootstrap": 10, "fine_tune": 0,
    "weight_decay": 0, "clip_norm": 0, "hidden": 0, "stop_patience": 1, "plateau_patience": 1, "fine_tune_epochs": 1,
    "min_side": 1, "max_pixels": 1, "max_bytes": 1, "max_voxels": 1, "max_volume_bytes": 1, "frames": 0, "accumulate": 1,
    "shown": 1, "candidates": 1, "tested": 1, "steps": 1, "most_steps": 1, "samples": 1, "curve": 1, "cascade": 2,
    "trials": 1, "startup": 1, "workers": 1, "repeats": 1, "records": 100,
}  # fmt: skip
_SHARE = {
    "max_bad",
    "dropout",
    "confidence",
    "interval",
    "threshold",
    "plateau_factor",
    "label_tolerance",
    "label_smoothing",
    "step_factor",
    "noise",
    "brightness",
    "augment_share",
    "grid",
    "shift",
    "zoom",
    "shear",
}
_POSITIVE = {"learning_rate", "fine_tune_learning_rate", "min_learning_rate"}


def load(root: Path, overrides: dict[str, Any] | None = None) -> Settings:
    """Reads and checks `root`/params.yaml.

    overrides: dotted keys -> values (`cmri.train.epochs`: 3), laid over the profile.
    Raises CardiumError in one line that names the key.
    """
    return resolve(_read(root), root, overrides or {})


def _read(root: Path) -> RawTable:
    import yaml

    path = root / "params.yaml"
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CardiumError(f"There is no params.yaml in {root}: restore it with `git checkout params.yaml`.") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise CardiumError(f"params.yaml{line}: not valid YAML ({getattr(error, 'problem', error)}).") from None
    if not isinstance(raw, dict):
        raise CardiumError("params.yaml: expected a table of settings.")
    return raw


# The tables of `lines` that the file's own tables are aliases of: `runs: *demo_runs`.
_CHOSEN = ("renderings", "banks", "runs", "fusions", "ensembles", "explanations")


def choose_profile(root: Path, profile: str) -> None:
    """Writes `profile` into `root`/params.yaml: the line `profile:` and the aliases of what is run; nothing else changes.

    Raises CardiumError for an unknown profile, and where the file does not have these lines any more.
    """
    from cardium import atomic

    path = root / "params.yaml"
    profiles = _read(root).get("profiles") or {}
    if profile not in profiles:
        raise unknown("profile", profile, list(profiles))
    text, count = re.subn(r"^profile:.*$", f"profile: {profile}", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for table in _CHOSEN:
        text, found = re.subn(rf"^{table}: \*\w+$", f"{table}: *{profile}_{table}", text, flags=re.MULTILINE)
        count += found
    if count != 1 + len(_CHOSEN):
        raise CardiumError(
            f"params.yaml has tables of its own where `{profile}` would put aliases (`runs: *{profile}_runs`): edit it by hand."
        )
    atomic.write_text(path, text)


def resolve(raw: RawTable, root: Path, overrides: dict[str, Any]) -> Settings:
    """params.yaml's table -> Settings; see `load`."""
    table = dict(raw)
    profiles = table.pop("profiles", {})
    profile = table.get("profile")
    if profile not in profiles:
        raise CardiumError(f"params.yaml, profile: `{profile}` is not one of {', '.join(profiles)}.")
    table = _overlay(table, profiles[profile], f"profiles.{profile}")
    for key, value in overrides.items():
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        table = _overlay(table, nested, "override")
    table.pop("lines", None)  # The tables that `runs` and the rest are aliases of.
    table["active"] = table.pop("datasets", None)
    table["datasets"] = {name: table.pop(name) for name in DATASETS if name in table}
    table["root"] = root
    table["overrides"] = overrides
    settings = _build(Settings, table, "")
    _check_runs(settings)
    _check_explanations(settings)
    _check_spaces(settings)
    return settings


def _overlay(base: RawTable, change: RawTable, where: str) -> RawTable:
    result = dict(base)
    for key, value in (change or {}).items():
        if key not in base:
            raise CardiumError(f"params.yaml, {where}: unknown key `{key}`.{closest(str(key), [str(k) for k in base])}")
        both = isinstance(value, dict) and isinstance(base[key], dict)
        result[key] = _overlay(base[key], value, f"{where}.{key}") if both else value
    return result


def _build(kind: Any, value: Any, where: str) -> Any:
    """`value` checked against the type `kind`, tables becoming dataclasses; `where` is the key's path for messages."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise CardiumError(f"params.yaml, {where}: expected a table, got {value!r}.")
        hints = typing.get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind)]
        for key in value:
            if key not in names:
                hint = closest(str(key), [*names, *DATASETS])
                raise CardiumError(f"params.yaml: unknown key `{_dotted(where, key)}`.{hint}")
        for f in dataclasses.fields(kind):
            if f.name not in value and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise CardiumError(f"params.yaml: `{_dotted(where, f.name)}` is missing.")
        return kind(**{key: _build(hints[key], item, _dotted(where, key)) for key, item in value.items()})  # type: ignore[operator]
    if origin is Literal:
        choices = typing.get_args(kind)
        # YAML reads a bare `none` as text but `null` and `~` as nothing.
        if value not in choices:
            hint = closest(str(value), [str(c) for c in choices])
            raise CardiumError(f"params.yaml, {where}: `{value}` is not one of {', '.join(map(str, choices))}.{hint}")
        return value
    if origin is dict:
        if not isinstance(value, dict):
            raise CardiumError(f"params.yaml, {where}: expected a table, got {value!r}.")
        inner = typing.get_args(kind)[1]
        return {str(key): _build(inner, item, _dotted(where, key)) for key, item in value.items()}
    if origin is list:
        if not isinstance(value, list):
            raise CardiumError(f"params.yaml, {where}: expected a list, got {value!r}.")
        return [_build(typing.get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if kind is Any or kind is Path or isinstance(kind, types.UnionType):
        return value
    return _number(kind, value, where)


def _number(kind: Any, value: Any, where: str) -> Any:
    name = where.rsplit(".", 1)[-1]
    if kind is str and name == "test_folds" and isinstance(value, int):
        value = str(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        value = float(value)
    if kind is float and isinstance(value, str):
        with contextlib.suppress(ValueError):  # YAML 1.1 reads 1e-4, without a point, as text.
            value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise CardiumError(f"params.yaml, {where}: expected {_WORDS.get(kind, kind.__name__)}, got {value!r}.")
    if name in _AT_LEAST and value < _AT_LEAST[name]:
        raise CardiumError(f"params.yaml, {where}: {value} is too small; the least is {_AT_LEAST[name]}.")
    if name in _SHARE and not 0 <= value <= 1:
        raise CardiumError(f"params.yaml, {where}: {value} is not between 0 and 1.")
    if name in _POSITIVE and not value > 0:
        raise CardiumError(f"params.yaml, {where}: {value} is not above 0.")
    return value


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _dotted(where: str, key: Any) -> str:
    """The key's path as it stands in the file, where a dataset's section has no table around it."""
    return f"{where}.{key}" if where and where != "datasets" else str(key)


def _check_runs(settings: Settings) -> None:
    """The tables of renderings, banks, runs, fusions and ensembles name each other rightly."""
    folds = settings.evaluate.test_folds
    if folds != "all" and not (folds.isdigit() and int(folds) < settings.split.folds):
        raise CardiumError(
            f"params.yaml, evaluate.test_folds: `{folds}` is neither all nor a fold from 0 to {settings.split.folds - 1}."
        )
    lines: list[tuple[str, str, str, Run | Bank | Fusion | Ensemble]] = []
    lines += [("runs", name, run.model, run) for name, run in settings.runs.items()]
    lines += [("banks", name, bank.backbone, bank) for name, bank in settings.banks.items()]
    lines += [("fusions", name, fusion.model, fusion) for name, fusion in settings.fusions.items()]
    lines += [("ensembles", name, "ensemble", ensemble) for name, ensemble in settings.ensembles.items()]
    for table, name, model, line in lines:
        _check_dataset(settings, f"{table}.{name}", line.dataset)
        expected = run_name(line.dataset, model, line.protocol)
        if name != expected:
            raise CardiumError(f"params.yaml, {table}.{name}: by its content this line's name is `{expected}`.")
    for name, rendering in settings.renderings.items():
        _check_dataset(settings, f"renderings.{name}", rendering.dataset)
        if rendering.kind not in settings.datasets[rendering.dataset].render:
            raise CardiumError(
                f"params.yaml, renderings.{name}: {rendering.dataset}.render has no size for `{rendering.kind}`."
            )
    for name, run in settings.runs.items():
        if run.system and run.system not in settings.systems:
            raise unknown(f"system of params.yaml, runs.{name}:", run.system, list(settings.systems))
        # Raises where a system's or the run's own settings are none; `tune` may still have to make the tuned ones.
        settings.train_of(dataclasses.replace(run, tuned=""))
        _check_reads(settings, name, run)
    made: dict[str, Fusion | Ensemble] = {**settings.fusions, **settings.ensembles}
    for name, joined in made.items():
        for member in joined.members:
            run_of_member = run_name(joined.dataset, member, joined.protocol)
            if run_of_member not in settings.runs:
                table = "fusions" if name in settings.fusions else "ensembles"
                raise CardiumError(f"params.yaml, {table}.{name}: member `{member}` has no line `{run_of_member}` in runs.")


def _check_explanations(settings: Settings) -> None:
    """Each line of `explanations` names a run that there is, and the rendering that its model reads."""
    for name, line_of in settings.explanations.items():
        run_of_line = run_name(line_of.dataset, line_of.model, line_of.protocol)
        _check_dataset(settings, f"explanations.{name}", line_of.dataset)
        if (name, line_of.run) != (f"{run_of_line}-{line_of.method}", run_of_line):
            raise CardiumError(
                f"params.yaml, explanations.{name}: by its content this line's name is `{run_of_line}-{line_of.method}`, "
                f"its run `{run_of_line}`."
            )
        if run_of_line not in {**settings.runs, **settings.fusions, **settings.ensembles}:
            raise CardiumError(f"params.yaml, explanations.{name}: there is no line `{run_of_line}` in runs.")
        explained = settings.runs.get(run_of_line)
        kind = settings.rendering_of(explained) if explained else "image"
        if line_of.reads != f"processed/{line_of.dataset}/{kind}":
            raise CardiumError(f"params.yaml, explanations.{name}.reads: its model reads `processed/{line_of.dataset}/{kind}`.")


def _check_dataset(settings: Settings, where: str, dataset: str) -> None:
    if dataset not in settings.datasets:
        raise CardiumError(f"params.yaml, {where}: dataset `{dataset}` has no section in params.yaml.")
    if dataset not in settings.active:
        raise CardiumError(f"params.yaml, {where}: dataset `{dataset}` is not among `datasets`.")


def _check_reads(settings: Settings, name: str, run: Run) -> None:
    """A run reads a bank that `banks` makes or a rendering that `renderings` makes."""
    parts = run.reads.split("/")
    if run.bank:
        known = [f"features/{b.dataset}/{b.protocol}/{b.backbone}" for b in settings.banks.values()]
    else:
        known = [f"processed/{r.dataset}/{r.kind}" for r in settings.renderings.values()]
    if run.reads not in known or parts[1] != run.dataset or (run.bank and parts[2] != run.protocol):
        table = "banks" if run.bank else "renderings"
        fitting = [path for path in known if path.split("/")[1] == run.dataset]
        raise CardiumError(
            f"params.yaml, runs.{name}.reads: no line of `{table}` makes `{run.reads}`.{closest(run.reads, fitting)}"
        )


def _check_spaces(settings: Settings) -> None:
    """Every value that a search may come to is one that `train` takes."""
    base = dataclasses.asdict(next(iter(settings.datasets.values())).train)
    for space, dimensions in settings.tune.spaces.items():
        for name, dimension in dimensions.items():
            where = f"tune.spaces.{space}.{name}"
            if [dimension.low != dimension.high, bool(dimension.choices), bool(dimension.sets)].count(True) != 1:
                raise CardiumError(f"params.yaml, {where}: give `low` and `high`, or `choices`, or `sets`.")
            if dimension.low > dimension.high or (dimension.log and dimension.low <= 0):
                raise CardiumError(f"params.yaml, {where}: `low` must be below `high`, and above 0 with `log`.")
            if name == "block" and dimension.choices:
                if not all(isinstance(choice, str) for choice in dimension.choices):
                    raise CardiumError(f'params.yaml, {where}: blocks are names, "" for none.')
                continue
            for tried in _tried(name, dimension):
                if {"views", "weights"} & tried.keys():
                    raise CardiumError(
                        f"params.yaml, {where}: a bank is shared by its runs: views and weights are not searched."
                    )
                _build(Train, _overlay(base, tried, where), where)


def _tried(name: str, dimension: Dimension) -> list[RawTable]:
    """The settings at the ends of a dimension, or all of them."""
    if dimension.sets:
        return list(dimension.sets.values())
    ends: list[Any] = [int(v) if dimension.whole else v for v in (dimension.low, dimension.high)]
    return [{name: value} for value in dimension.choices or ends]
