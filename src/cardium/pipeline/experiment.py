"""`cardium train`: the pipeline's own run, or, with overrides, an experiment beside it that leaves the pipeline untouched."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

from cardium import config
from cardium.config import Bank, Run, Settings
from cardium.errors import CardiumError
from cardium.models import bank_of, rendering_of
from cardium.pipeline import dvc
from cardium.tensorflow_import import import_tensorflow
from cardium.workspace import RunId, Workspace, run_name

# Settings of a dataset that change its bank, and not only what is trained on it.
_BANK_SETTINGS = ("train.weights", "train.views")


def train(root: Path, dataset: str, model: str, protocol: str, overrides: dict[str, Any]) -> None:
    """Trains `model`, making first what is missing before it.

    Without overrides, a line of params.yaml's `runs` is trained as its DVC stage, into models/. Anything else is an
    experiment: experiments/<run>/<overrides>/, the same folder contract, logged to MLflow with its overrides.
    """
    plain = config.load(root)
    if protocol not in plain.protocols:
        raise CardiumError(f"--protocol: `{protocol}` is not one of {', '.join(plain.protocols)}.")
    name = run_name(dataset, model, protocol)
    line = line_of(plain, dataset, model, protocol)
    used = plain.train_of(line)
    changed = {key: value for key, value in overrides.items() if getattr(used, key.rpartition(".")[2]) != value}
    # Whichever run is asked for takes the run that `mlflow run` has opened; what is made on the way does not.
    os.environ["CARDIUM_MLFLOW_RUN"] = name
    if not changed and name in plain.runs:
        _train_stage(plain, name)
        return
    # The protocol is no setting of a dataset, but it departs from the default all the same.
    departs = {"protocol": protocol} if protocol != "honest" else {}
    settings = dataclasses.replace(config.load(root, changed), overrides={**changed, **departs})
    source = make_input(plain, settings, line)
    out = Workspace(root).experiment(name, _slug(changed))
    from cardium import tracking
    from cardium.stages.train import train_run

    if changed:
        print(f"{name} with {', '.join(f'{key}={value}' for key, value in changed.items())}")
    train_run(settings, line, source, out)
    tracking.log_run(settings, out)


def line_of(settings: Settings, dataset: str, model: str, protocol: str) -> Run:
    """The run's line of params.yaml, or the one it would have. Raises CardiumError where the model cannot be trained there."""
    known = settings.runs.get(run_name(dataset, model, protocol))
    kind = settings.rendering_of(known) if known else rendering_of(model)
    if kind not in settings.datasets[dataset].render:
        raise CardiumError(f"{model} takes {kind}, and params.yaml has no {dataset}.render.{kind}.")
    if model == "fused":
        raise CardiumError(f"{model} is made of trained models: name them in params.yaml's `fusions` and run `dvc repro`.")
    bank = bank_of(model)
    reads = f"features/{dataset}/{protocol}/{bank}" if bank else f"processed/{dataset}/{kind}"
    return known or Run(dataset, model, protocol, reads)  # type: ignore[arg-type]


def make_input(plain: Settings, settings: Settings, line: Run) -> Path:
    """The folder that a run beside the pipeline reads, made as far as it is missing: its bank or its rendering.

    plain: params.yaml as it is; settings: with overrides.
    """
    kind = plain.rendering_of(line)
    dvc.reproduce(settings.root, [f"prepare@{line.dataset}-{kind}"])
    import_tensorflow()
    return _bank(plain, settings, line, kind) if bank_of(line.model) else settings.root / line.reads


def _train_stage(settings: Settings, name: str) -> None:
    from cardium import tracking

    line = settings.runs[name]
    if not dvc.reproduce(settings.root, [f"train@{name}"]):
        folder = Workspace(settings.root).run(RunId(line.dataset, line.model, line.protocol))
        print(f"Nothing to do: {folder.relative_to(settings.root)}/ is as data, code and settings are.")
        tracking.log_run(settings, folder)


def _bank(plain: Settings, settings: Settings, line: Run, kind: str) -> Path:
    """The bank that the experiment reads: the pipeline's where it fits, otherwise one of its own in the scratch folder."""
    dataset, backbone, protocol = line.dataset, line.bank, line.protocol
    name = run_name(dataset, backbone, protocol)
    workspace = Workspace(settings.root)
    unchanged = all(_value(plain, f"{dataset}.{key}") == _value(settings, f"{dataset}.{key}") for key in _BANK_SETTINGS)
    if name in settings.banks and unchanged:
        dvc.reproduce(settings.root, [f"features@{name}"])
        return workspace.bank(dataset, backbone, protocol)
    from cardium.stages.features import make_bank

    train_settings = settings.datasets[dataset].train
    folder = workspace.scratch() / "banks" / f"{name}-{train_settings.weights}-{train_settings.views}"
    make_bank(settings, Bank(dataset, backbone, protocol, kind), folder)
    return folder


def _value(settings: Settings, key: str) -> Any:
    """The setting under a dotted key such as `cmri.train.epochs`."""
    dataset, section, name = key.split(".")
    return getattr(getattr(settings.datasets[dataset], section), name)


def _slug(overrides: dict[str, Any]) -> str:
    """A folder name that says what was overridden, whatever their order; long ones end in a hash."""
    words = ",".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in sorted(overrides.items())) or "as-params"
    return words if len(words) <= 80 else f"{words[:60]}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
