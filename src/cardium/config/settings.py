"""All of params.yaml after the profile and the overrides, as one value; and how it comes to a plan."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cardium.config.check import build, check_train, overlay
from cardium.config.plan import MOST_MEMBERS, ExplanationSpec, JointSpec, Plan, RenderingSpec, RunSpec
from cardium.config.schema import (
    Audit,
    Dataset,
    Deviation,
    Evaluate,
    Explain,
    Features,
    Ingest,
    OwnCollection,
    Promote,
    ProtocolSettings,
    RawTable,
    Serve,
    Split,
    StudiedModel,
    Study,
    Tracking,
    Train,
    Tune,
    Validate,
)
from cardium.download.limits import DownloadLimits
from cardium.errors import CardiumError, closest
from cardium.imaging.kinds import of_patients
from cardium.imaging.spec import Limits
from cardium.models import bank_of, parse_name, reads_rendering, rendering_of
from cardium.ranges import Seed
from cardium.workspace import PROTOCOLS, RunId, run_name
from cardium.yaml_file import read_yaml


@dataclass(frozen=True)
class Settings:
    """All of params.yaml after the profile and the overrides.

    active: the datasets that the pipeline runs. studies: of the chosen profile, a dataset each. datasets: a dataset's
    settings by its name.
    """

    root: Path
    profile: str
    seed: Seed
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
    serve: Serve
    download: DownloadLimits
    tracking: Tracking
    collections: dict[str, OwnCollection] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def plan(self) -> Plan:
        """What these settings come to: every run, bank and rendering with its effective settings."""
        return make_plan(self)

    @property
    def limits(self) -> Limits:
        """What a file of the manifest may cost: `ingest`'s limits, and the sides that `validate` asks for."""
        return dataclasses.replace(self.ingest.limits, sides=self.validate.sides)

    def test_folds(self, dataset: str, protocol: str = "honest") -> list[int]:
        """The folds that are held out in turn: [t], or all of them; [0] under `published`, which has one split only."""
        if protocol != "honest":
            return [0]
        if self.evaluate.test_folds == "all" or dataset in self.evaluate.cross_validated:
            return list(range(self.split.folds))
        return [int(self.evaluate.test_folds)]


# --------------------------------------------------------------------------------------------------------- settings -> plan


def make_plan(settings: Settings) -> Plan:
    """The plan of the active datasets' studies. Raises CardiumError in one line that names the place in params.yaml."""
    plan = Plan({}, {}, {}, {}, {})
    for dataset in settings.active:
        study, where = settings.studies[dataset], f"params.yaml, studies.{settings.profile}.{dataset}"
        for model in study.models:
            try:
                parse_name(model)
            except CardiumError as error:
                raise CardiumError(f"{where}.models: {error}") from None
        for protocol in PROTOCOLS:
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
    if of_patients(kind) and run.protocol != "honest":
        raise CardiumError(
            f"params.yaml, {run.name}: {run.model} is of whole patients, which the original's split may tear apart: give it "
            "`protocols: [honest]`."
        )
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
    if len({of_patients(plan.runs[member.name].rendering) for member in members}) > 1:
        raise CardiumError(f"{where}: models of images and models of whole patients have no records in common.")
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
