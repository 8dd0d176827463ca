"""params.yaml -> validated, typed settings; an unknown key is an error that names the closest one.

The file holds the published numbers; the chosen profile's block is laid over them, then the overrides of one run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cardium.errors import CardiumError, closest

Protocol = Literal["honest", "published"]
# A table of the file as YAML gives it, before it is checked.
RawTable = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A line of `runs`: a model to train on a dataset under a protocol, reading one bank."""

    dataset: str
    model: str
    bank: str
    protocol: Protocol


@dataclass(frozen=True)
class Bank:
    """A line of `banks`: a frozen backbone's features of a dataset, under a protocol's input scaling."""

    dataset: str
    backbone: str
    protocol: Protocol


@dataclass(frozen=True)
class Ensemble:
    """A line of `ensembles`: models of one dataset and protocol whose probabilities are averaged."""

    dataset: str
    protocol: Protocol
    members: list[str]


@dataclass(frozen=True)
class Ingest:
    max_bad: float
    max_pixels: int
    max_bytes: int


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
    scaling: Literal["native", "unit"]


@dataclass(frozen=True)
class Render:
    kind: Literal["image"]
    height: int
    width: int


@dataclass(frozen=True)
class Augment:
    """Ranges of random transforms: degrees, share of the side, radians-as-share (Keras' own units) and yes or no."""

    rotation: float
    shift: float
    shear: float
    zoom: float
    flip: bool


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
    fine_tune: int
    fine_tune_epochs: int
    fine_tune_learning_rate: float


@dataclass(frozen=True)
class Dataset:
    render: Render
    augment: Augment
    train: Train


@dataclass(frozen=True)
class Features:
    batch: int
    engine: Literal["auto", "tensorflow", "openvino"]


@dataclass(frozen=True)
class Evaluate:
    test_folds: str
    bootstrap: int
    interval: float
    threshold: float


@dataclass(frozen=True)
class Promote:
    confidence: float


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
    runs: dict[str, Run]
    banks: dict[str, Bank]
    ensembles: dict[str, Ensemble]
    ingest: Ingest
    split: Split
    validate: Validate
    protocols: dict[str, ProtocolSettings]
    datasets: dict[str, Dataset]
    features: Features
    evaluate: Evaluate
    promote: Promote
    tracking: Tracking
    overrides: dict[str, Any] = field(default_factory=dict)

    def test_folds(self) -> list[int]:
        """The folds that are held out in turn: [t], or all of them."""
        if self.evaluate.test_folds == "all":
            return list(range(self.split.folds))
        return [int(self.evaluate.test_folds)]


# The sections of params.yaml named after a dataset; a new dataset adds its name here.
DATASETS = ("cmri",)

# What each number must satisfy beyond its type, by the last part of its key.
_AT_LEAST = {
    "folds": 3, "epochs": 1, "batch": 1, "views": 1, "height": 8, "width": 8, "bootstrap": 10, "fine_tune": 0,
    "stop_patience": 1, "plateau_patience": 1, "fine_tune_epochs": 1, "min_side": 1, "max_pixels": 1, "max_bytes": 1,
}  # fmt: skip
_SHARE = {
    "max_bad",
    "dropout",
    "confidence",
    "interval",
    "threshold",
    "plateau_factor",
    "label_tolerance",
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
    return resolve(raw, root, overrides or {})


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
    table["datasets"] = {name: table.pop(name) for name in DATASETS if name in table}
    table["root"] = root
    table["overrides"] = overrides
    settings = _build(Settings, table, "")
    _check_runs(settings)
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
            if f.name not in value and f.default_factory is dataclasses.MISSING:
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
    """The tables of runs, banks and ensembles name each other rightly."""
    from cardium.workspace import run_name

    folds = settings.evaluate.test_folds
    if folds != "all" and not (folds.isdigit() and int(folds) < settings.split.folds):
        raise CardiumError(
            f"params.yaml, evaluate.test_folds: `{folds}` is neither all nor a fold from 0 to {settings.split.folds - 1}."
        )
    lines: list[tuple[str, str, str, Run | Bank | Ensemble]] = []
    lines += [("runs", name, run.model, run) for name, run in settings.runs.items()]
    lines += [("banks", name, bank.backbone, bank) for name, bank in settings.banks.items()]
    lines += [("ensembles", name, "ensemble", ensemble) for name, ensemble in settings.ensembles.items()]
    for table, name, model, line in lines:
        if line.dataset not in settings.datasets:
            raise CardiumError(f"params.yaml, {table}.{name}: dataset `{line.dataset}` has no section in params.yaml.")
        expected = run_name(line.dataset, model, line.protocol)
        if table != "ensembles" and name != expected:
            raise CardiumError(f"params.yaml, {table}.{name}: by its content this line's name is `{expected}`.")
    for name, ensemble in settings.ensembles.items():
        for member in ensemble.members:
            run = run_name(ensemble.dataset, member, ensemble.protocol)
            if run not in settings.runs:
                raise CardiumError(f"params.yaml, ensembles.{name}: member `{member}` has no line `{run}` in runs.")
