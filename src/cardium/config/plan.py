"""Settings -> the plan: every run, bank and rendering that the studies come to, with the effective settings of each."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cardium.config.check import build, check_train, overlay
from cardium.config.schema import Deviation, Protocol, RawTable, StudiedModel, Study, Train
from cardium.errors import CardiumError, closest
from cardium.models import bank_of, reads_rendering, rendering_of
from cardium.workspace import RunId, run_name
from cardium.yaml_file import read_yaml

if TYPE_CHECKING:
    from cardium.config.settings import Settings

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
            return f"features/{self.dataset}/{self.protocol}/{self.bank}"
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


# --------------------------------------------------------------------------------------------------------- settings -> plan


def make_plan(settings: Settings) -> Plan:
    """The plan of the active datasets' studies. Raises CardiumError in one line that names the place in params.yaml."""
    plan = Plan({}, {}, {}, {}, {})
    for dataset in settings.active:
        study, where = settings.studies[dataset], f"params.yaml, studies.{settings.profile}.{dataset}"
        for protocol in ("honest", "published"):
            for model, studied in study.models.items():
                if protocol in (studied.protocols or study.protocols):
                    _add_run(plan, run_spec(settings, RunId(dataset, model, protocol)), where)
        for kind in study.renderings:
            _add_rendering(settings, plan, RenderingSpec(dataset, kind), f"{where}.renderings")
        for protocol in study.protocols:
            _add_joints(settings, plan, dataset, protocol, where)
    for run in plan.runs.values():
        _add_rendering(settings, plan, RenderingSpec(run.dataset, run.rendering), f"params.yaml, {run.name}")
        if run.bank:
            known = plan.banks.setdefault(run.bank_spec.name, run.bank_spec)
            if known != run.bank_spec:
                raise CardiumError(
                    f"params.yaml, {run.name}: another run has its bank of {known.rendering}, this one of {run.rendering}: "
                    "let them read one rendering."
                )
    for dataset in settings.active:
        _add_explanations(settings, plan, dataset)
    ordered = sorted(plan.renderings.items(), key=lambda item: settings.active.index(item[1].dataset))
    return dataclasses.replace(plan, renderings=dict(ordered))


def run_spec(settings: Settings, run: RunId) -> RunSpec:
    """What a run comes to, in the study or beside it.

    Raises CardiumError for a name that is no model's, for a rendering that the model does not take or the dataset has no
    size for, and where the file with tuned settings is missing or another model's.
    """
    study = settings.studies.get(run.dataset, Study({}))
    model = study.models.get(run.model, StudiedModel())
    deviations: tuple[Deviation, ...] = (getattr(model, run.protocol), model, getattr(study, run.protocol))
    system, tuned, reads = (
        next((value for deviation in deviations if (value := getattr(deviation, name))), "")
        for name in ("system", "tuned", "reads")
    )
    if run.model == "fused":
        raise CardiumError("fused is made of trained models: name them under `fusions` in a study of params.yaml.")
    render = settings.datasets[run.dataset].render
    kind = reads or rendering_of(run.model)
    if not reads and kind not in render:  # Of several that the model takes, one that the dataset has.
        kind = next((own for own in render if reads_rendering(run.model, own)), kind)
    if not reads_rendering(run.model, kind):
        raise CardiumError(f"params.yaml, {run.name}: {run.model} takes {rendering_of(run.model)}, not {kind}.")
    if kind not in render:
        raise CardiumError(f"{run.model} takes {kind}, and params.yaml has no {run.dataset}.render.{kind}.")
    own: RawTable = {}
    for deviation in reversed(deviations):
        own |= deviation.train
    untuned = train_settings(settings, run.dataset, system, own, run.name)
    train = untuned
    if tuned:
        found = read_tuned(settings.root, run, tuned)
        train = train_settings(settings, run.dataset, system, overlay(own, found), tuned)
    return RunSpec(run, kind, bank_of(run.model), train, system, tuned, untuned=untuned)


def train_settings(settings: Settings, dataset: str, system: str, own: RawTable, where: str) -> Train:
    """A dataset's `train` with a system's settings, a run's own and the command line's laid over it, in this order."""
    check_train(own, where)
    prefix = f"{dataset}.train."
    given = {key.removeprefix(prefix): value for key, value in settings.overrides.items() if key.startswith(prefix)}
    base = asdict(settings.datasets[dataset].train) | settings.systems.get(system, {}) | own | given
    train: Train = build(Train, base, where)
    return train


def read_tuned(root: Path, run: RunId, file: str) -> RawTable:
    """The settings in the file that a run's `tuned` names, below the project's root.

    Raises CardiumError where it is missing, broken or another model's.
    """
    where, again = f"params.yaml, {run.name}, tuned:", f"`cardium tune --dataset {run.dataset} --model {run.model}`"
    try:
        table = read_yaml(root / file)
        dataset, model, settings = table["dataset"], table["model"], table["settings"]
        if not isinstance(settings, dict):
            raise TypeError
    except FileNotFoundError:
        raise CardiumError(f"{where} there is no {file}: make it with {again}.") from None
    except (CardiumError, KeyError, TypeError):
        raise CardiumError(f"{where} {file} is not what `cardium tune` writes: make it again with {again}.") from None
    if (dataset, model) != (run.dataset, run.model):
        raise CardiumError(f"{where} {file} is {dataset}'s {model}: give `{run_name(dataset, model, 'honest')}` this line.")
    return dict(settings)


def _add_run(plan: Plan, spec: RunSpec, where: str) -> None:
    if spec.name in plan.runs:
        raise CardiumError(f"{where}.models: {spec.model} stands there twice.")
    plan.runs[spec.name] = spec


def _add_rendering(settings: Settings, plan: Plan, spec: RenderingSpec, where: str) -> None:
    if spec.kind not in settings.datasets[spec.dataset].render:
        raise CardiumError(f"{where}: {spec.dataset}.render has no size for `{spec.kind}`.")
    plan.renderings.setdefault(spec.name, spec)


def _add_joints(settings: Settings, plan: Plan, dataset: str, protocol: str, where: str) -> None:
    study = settings.studies[dataset]
    for model, fusion in study.fusions.items():
        if model not in ("fused", "fused_average"):
            raise CardiumError(f"{where}.fusions: `{model}` is neither fused nor fused_average.")
        members = _members(plan, dataset, protocol, fusion.members, f"{where}.fusions.{model}")
        train = train_settings(settings, dataset, fusion.system, fusion.train, f"{where}.fusions.{model}.train")
        spec = JointSpec(RunId(dataset, model, protocol), "fuse", members, train)
        plan.joints[spec.name] = spec
    for model, names in study.ensembles.items():
        if model in study.models or model in study.fusions:
            raise CardiumError(f"{where}.ensembles: `{model}` is another run's name already.")
        members = _members(plan, dataset, protocol, names, f"{where}.ensembles.{model}")
        spec = JointSpec(RunId(dataset, model, protocol), "ensemble", members)
        plan.joints[spec.name] = spec


def _members(plan: Plan, dataset: str, protocol: str, names: list[str], where: str) -> tuple[RunId, ...]:
    members = tuple(RunId(dataset, name, protocol) for name in names)
    if not 2 <= len(members) <= MOST_MEMBERS:
        raise CardiumError(f"{where}: {len(members)} members; give two to {MOST_MEMBERS}.")
    for member in members:
        if member.name not in plan.runs:
            own = [run.model for run in plan.runs.values() if (run.dataset, run.protocol) == (dataset, protocol)]
            raise CardiumError(
                f"{where}: member `{member.model}` is not trained: there is no run {member.name}.{closest(member.model, own)}"
            )
    return members


def _add_explanations(settings: Settings, plan: Plan, dataset: str) -> None:
    for name, explained in settings.studies[dataset].explanations.items():
        run = RunId.parse(f"{dataset}-{name}")
        if run.name in plan.runs:
            kind = plan.runs[run.name].rendering
        elif run.name in plan.joints:
            kind = plan.runs[plan.joints[run.name].members[0].name].rendering
        else:
            known = [one.name.removeprefix(f"{dataset}-") for one in plan.ids(dataset)]
            raise CardiumError(
                f"params.yaml, studies.{settings.profile}.{dataset}.explanations: there is no run {run.name}."
                f"{closest(name, known)}"
            )
        spec = ExplanationSpec(run, explained.method, kind, explained.tests)
        plan.explanations[spec.name] = spec
