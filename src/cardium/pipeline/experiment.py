"""`cardium train`: the pipeline's own run, or, with overrides, an experiment beside it that leaves the pipeline untouched."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

from cardium import atomic, config
from cardium.config import RenderingSpec, RunSpec, Settings, run_spec
from cardium.errors import CardiumError
from cardium.pipeline import dvc
from cardium.pipeline.turn import turn
from cardium.tensorflow_import import import_tensorflow
from cardium.workspace import RunId, Workspace

# Settings of a dataset that change its bank, and not only what is trained on it.
_BANK_SETTINGS = ("weights", "views")


def train(root: Path, run: RunId, overrides: dict[str, Any]) -> None:
    """Trains a run, making first what is missing before it.

    Without overrides, a run of the plan is trained as its DVC stage, into models/. Anything else is an experiment:
    experiments/<run>/<overrides>/, the same folder contract, logged to MLflow with its overrides.
    """
    from cardium import tracking

    plain = config.load(root)
    if run.protocol not in plain.protocols:
        raise CardiumError(f"--protocol: `{run.protocol}` is not one of {', '.join(plain.protocols)}.")
    used = run_spec(plain, run).train
    changed = {key: value for key, value in overrides.items() if getattr(used, key.rpartition(".")[2]) != value}
    # Whichever run is asked for takes the run that `mlflow run` has opened; what is made on the way does not.
    os.environ[tracking.REQUESTED] = run.name
    if not changed and run.name in plain.plan.runs:
        _train_stage(plain, run)
        return
    # The protocol is no setting of a dataset, but it departs from the default all the same.
    departs = {"protocol": run.protocol} if run.protocol != "honest" else {}
    settings = dataclasses.replace(config.load(root, changed), overrides={**changed, **departs})
    spec = run_spec(settings, run)
    out = Workspace(root).experiment(run.name, _slug(changed))
    from cardium.stages.train import train_run

    if changed:
        print(f"{run.name} with {', '.join(f'{key}={value}' for key, value in changed.items())}")
    before = _json(out / "run.json").get("id")
    with turn(root, f"{run.name}-{out.name}") as waited:
        if waited and _json(out / "run.json").get("id") != before:
            print(f"Nothing to do: {out.relative_to(root).as_posix()}/ is what the command waited for has just trained.")
        else:
            train_run(settings, spec, make_input(plain, settings, spec), out)
        tracking.log_run(settings, out)


def evaluate(settings: Settings, folder: Path) -> None:
    """Scores an experiment on the test records, checks that it is served as it is scored, and shows both to MLflow.

    Raises CardiumError for a folder that holds no experiment, or one of other data than now.
    """
    from cardium import tracking
    from cardium.evaluation.experiments import evaluate_experiment, experiment_name
    from cardium.evaluation.scoring import predict_test
    from cardium.runs.trained_run import TrainedRun

    folder = folder if folder.is_absolute() or folder.exists() else settings.root / folder
    name, run = experiment_name(settings, folder), TrainedRun.read(folder)  # Its errors come before anything is made.
    dvc.reproduce(settings.root, [f"split@{run.run.dataset}"])
    import_tensorflow()
    print(f"Scoring {name} on the test records.", flush=True)
    evaluation, trained, predictions = evaluate_experiment(settings, folder, predict_test)
    if settings.evaluate.compared:
        from cardium.data.manifest import read_manifest
        from cardium.serving.parity import ServedAsScored

        manifest = read_manifest(Workspace(settings.root).manifest(run.run.dataset))
        ServedAsScored()(settings, trained, manifest, predictions)
    tracking.log_run(settings, folder)
    tracking.log_experiment(settings, folder)
    row = evaluation.runs[name]
    by_patient = f"{row.patient['balanced_accuracy'].text} by patient, " if evaluation.patients else ""
    where = folder.resolve().relative_to(settings.root.resolve()).as_posix()
    print(f"{name}: balanced accuracy {by_patient}{row.balanced_accuracy.text} by record.")
    print(f"Written: {where}/evaluation/. It stands on the leaderboard. Next: cardium compare {where} {run.name}")
    print(f"To put it forward: cardium promote --run {where}")


def make_input(plain: Settings, settings: Settings, spec: RunSpec) -> Path:
    """The folder that a run beside the pipeline reads, made as far as it is missing: its bank or its rendering.

    plain: params.yaml as it is; settings: with overrides.
    """
    rendering = RenderingSpec(spec.dataset, spec.rendering)
    if rendering.name in plain.plan.renderings:
        dvc.reproduce(settings.root, [f"prepare@{rendering.name}"])
    else:
        _prepare(settings, rendering)
    import_tensorflow()
    return _bank(plain, settings, spec) if spec.bank else settings.root / spec.reads


def _prepare(settings: Settings, rendering: RenderingSpec) -> None:
    """A rendering that no run of the plan reads, made where it is missing or of other data or another size."""
    from cardium.data.manifest import read_fingerprint
    from cardium.data.render_records import renderer
    from cardium.stages.prepare import prepare_rendering

    dvc.reproduce(settings.root, [f"validate@{rendering.dataset}"])
    places = Workspace(settings.root)
    wanted = read_fingerprint(places.manifest(rendering.dataset))["manifest_sha256"]
    size = settings.datasets[rendering.dataset].render[rendering.kind].as_dict()
    there = _json(places.rendering(rendering.dataset, rendering.kind) / "render.json")
    # No stage watches the code of this one.
    made_by = places.scratch() / "renderings" / f"{rendering.name}.json"
    if _json(made_by) != renderer() or any(
        there.get(name) != value for name, value in {**size, "manifest_sha256": wanted}.items()
    ):
        prepare_rendering(settings, rendering)
        atomic.write_json(made_by, renderer())


def _json(path: Path) -> dict[str, Any]:
    import json

    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _train_stage(settings: Settings, run: RunId) -> None:
    from cardium import tracking

    if not dvc.reproduce(settings.root, [f"train@{run.name}"]):
        print(f"Nothing to do: {run.folder}/ is as data, code and settings are.")
        tracking.log_run(settings, settings.root / run.folder)


def _bank(plain: Settings, settings: Settings, spec: RunSpec) -> Path:
    """The bank that the experiment reads: the pipeline's where it fits, otherwise one of its own in the scratch folder."""
    bank, places = spec.bank_spec, Workspace(settings.root)
    before, now = plain.datasets[spec.dataset].train, settings.datasets[spec.dataset].train
    unchanged = all(getattr(before, name) == getattr(now, name) for name in _BANK_SETTINGS)
    if plain.plan.banks.get(bank.name) == bank and unchanged:
        dvc.reproduce(settings.root, [f"features@{bank.name}"])
        return settings.root / bank.folder
    from cardium.training.make_bank import make_bank

    folder = places.scratch() / "banks" / f"{bank.name}-{now.weights}-{now.views}"
    with turn(settings.root, folder.name):
        make_bank(settings, bank, folder)
    return folder


def _slug(overrides: dict[str, Any]) -> str:
    """A folder name that says what was overridden, whatever their order; long ones end in a hash."""
    words = ",".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in sorted(overrides.items())) or "as-params"
    return words if len(words) <= 80 else f"{words[:60]}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
