"""train: trains one run from a bank or, end to end, from a rendering -> its run folder.

For every held-out fold a head is trained on the bank, or the whole model on pixels. The weights of every fold are kept
(`folds/<t>.npz`), so that `evaluate` can score each fold with a model that never saw it. `model.keras` is the first held-out
fold's model. `served.keras`, where there is one, answers requests: with `served: mean` the mean of all folds' models, with
`served: all` a model that is trained anew on all records but the first fold's validation part, which fits its temperature.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium import atomic
from cardium.config import RunSpec, Settings
from cardium.data.splits import Parts, has_grown_from, read_parts
from cardium.errors import unknown
from cardium.evaluation.scoring import score_predictions
from cardium.models.saving import save_model
from cardium.models.trained import set_trained
from cardium.models.weights import WeightsUsed
from cardium.provenance import Provenance, new_id
from cardium.reporting.plots import learning_curves
from cardium.runs.data_version import DataVersion
from cardium.runs.input_kind import fit_input_kind
from cardium.runs.predictions import VALIDATION, prediction_rows
from cardium.runs.temperature import Calibrated, calibrate
from cardium.runs.trained_run import CALIBRATION, Phase, Retrained, Seconds, TrainedRun, write_fold_weights
from cardium.training.bank import Bank
from cardium.training.fit import Checkpoint, Fitted
from cardium.training.fold import (
    FoldModels,
    Inputs,
    TrainedFold,
    build_models,
    mean_of_folds,
    read_inputs,
    source_of,
    train_fold,
    typical_rates,
)
from cardium.workspace import MODEL, SERVED, Workspace

if TYPE_CHECKING:
    import pandas

# An architecture of its own has no pretrained weights to be had.
_FROM_SCRATCH = WeightsUsed("none", "scratch")


def run(settings: Settings, item: str) -> None:
    """Trains the run `item` of the plan into its run folder."""
    if item not in settings.plan.runs:
        raise unknown("run", item, list(settings.plan.runs))
    spec = settings.plan.runs[item]
    train_run(settings, spec, settings.root / spec.reads, settings.root / spec.id.folder)


def train_run(settings: Settings, spec: RunSpec, reads: Path, out: Path) -> TrainedRun:
    """Trains a run from the bank or the rendering in the folder `reads` into the folder `out`.

    A killed training continues after its last finished epoch. `out` appears when it is complete.
    """
    import keras
    import pandas as pd
    import tensorflow as tf

    began = time.perf_counter()
    tf.config.experimental.enable_op_determinism()
    workspace = Workspace(settings.root)
    data = DataVersion.now(workspace, spec.dataset)
    inputs = read_inputs(settings, spec, reads)
    bank, classes = inputs.bank, inputs.classes
    source = source_of(settings, spec, inputs, spec.train)
    models = build_models(settings, spec, source, whole=True)
    whole = models.whole
    assert whole is not None
    folds = settings.test_folds(spec.dataset, spec.protocol)
    history: list[dict[str, Any]] = []
    fitted_folds: list[dict[str, Fitted]] = []
    phases: list[Phase] = []
    validation = []
    weights: dict[int, dict[str, np.ndarray]] = {}
    temperatures: dict[int, float] = {}
    seconds = 0.0
    state = workspace.scratch() / "training" / hashlib.sha256(str(out).encode()).hexdigest()[:16]
    checkpoint = Checkpoint(state, _training_key(settings, spec, inputs, data))
    for fold in folds:
        parts = read_parts(workspace.split(spec.dataset), inputs.manifest, spec.protocol, fold)
        print(f"{spec.name}, fold {fold} held out: {len(parts.train)} training, {len(parts.validation)} validation records")
        models.reset()
        trained = train_fold(source, models, parts, fold, checkpoint)
        fitted_folds.append(trained.phases)
        for phase, fitted in trained.phases.items():
            history += [{"test_fold": fold, "phase": phase, **row} for row in fitted.history]
            phases.append(Phase(fold, phase, **fitted.summary()))
            seconds += fitted.seconds
        scaled = _calibrated(settings, spec, inputs, parts, trained)
        weights[fold] = scaled.weights
        if scaled.temperature is not None:
            temperatures[fold] = scaled.temperature
        rows = prediction_rows(inputs.manifest, parts.validation, fold, inputs.labels, scaled.probabilities, classes)
        validation.append(rows)

    table = pd.concat(validation, ignore_index=True)
    retrained = None
    if spec.train.served == "all" and spec.protocol == "honest":
        retrained = _retrain(settings, spec, inputs, models, fitted_folds, checkpoint)
        seconds += retrained.seconds
    with atomic.replacing_folder(out) as part:
        if retrained:
            set_trained(whole, retrained.weights)
            save_model(whole, part / SERVED)
            retrained.predictions.to_parquet(part / CALIBRATION, index=False)
        set_trained(whole, weights[folds[0]])
        save_model(whole, part / MODEL)
        if spec.train.served == "mean" and not bank and len(folds) > 1:
            save_model(mean_of_folds(settings, spec, source, weights), part / SERVED)
        write_fold_weights(part, weights)
        pd.DataFrame(history).to_csv(part / "history.csv", index=False)
        table.to_parquet(part / VALIDATION, index=False)
        learning_curves(part / "history.csv", part / "history.png", title=spec.name)
        if spec.rendering == "image":
            kind = fit_input_kind(inputs.pixels, inputs.manifest["group"].to_numpy(dtype=str), settings.seed)
            if kind:
                kind.write(part)
        shown = workspace.rendering(spec.dataset, spec.rendering) / "montage.png"
        if shown.is_file():  # What a network of volumes sees, beside what it made of it.
            shutil.copyfile(shown, part / shown.name)
        provenance = Provenance.now(settings.root)
        made = TrainedRun(
            id=new_id(),
            run=spec.id,
            kind="train",
            classes=classes,
            rendering=spec.rendering,
            size=inputs.size,
            test_folds=folds,
            data=data,
            folder=out,
            folds=settings.split.folds,
            weights=bank.weights if bank else _FROM_SCRATCH,
            bank=reads.relative_to(settings.root).as_posix() if bank else "",
            scored_from="bank" if bank and not spec.train.fine_tune else "pixels",
            settings=effective_settings(settings, spec),
            overrides=settings.overrides,
            tuned=spec.tuned,
            engine=bank.engine if bank else f"tensorflow {tf.__version__}",
            parameters=whole.count_params(),
            trainable_parameters=int(sum(np.prod(v.shape) for v in whole.trainable_variables)),
            model_bytes=(part / MODEL).stat().st_size,
            seconds=Seconds(round(bank.seconds, 1) if bank else 0.0, round(seconds, 1)),
            phases=phases,
            validation=score_predictions(table, classes, settings.evaluate.threshold),
            temperatures=temperatures,
            retrained=retrained.made if retrained else None,
            warnings=[*_warnings(settings, spec, bank, folds), *provenance.warnings],
            provenance=provenance,
        )
        made.write(part)
    shutil.rmtree(state, ignore_errors=True)
    keras.utils.clear_session()
    print(
        f"{spec.name}: validation balanced accuracy {made.validation['balanced_accuracy']:.3f} over {len(folds)} fold(s), "
        f"{time.perf_counter() - began:.0f} s"
    )
    where = out.relative_to(settings.root).as_posix()
    scored = f"--run {where}" if where.startswith("experiments/") else f"--dataset {spec.dataset}"
    print(f"Wrote {where}/. Next: cardium evaluate {scored}")
    return made


@dataclass(frozen=True)
class _Served:
    """A model trained anew. weights: as `models.trained` names them. predictions: of its calibration records."""

    made: Retrained
    weights: dict[str, np.ndarray]
    predictions: pandas.DataFrame
    seconds: float


def _retrain(
    settings: Settings,
    spec: RunSpec,
    inputs: Inputs,
    models: FoldModels,
    fitted: Sequence[Mapping[str, Fitted]],
    checkpoint: Checkpoint,
) -> _Served:
    """Trains on all records but the first fold's validation part, with the epochs and rates that the folds came to.

    fitted: of each held-out fold, by phase.
    """
    split, folds = Workspace(settings.root).split(spec.dataset), settings.test_folds(spec.dataset)
    of_folds = [read_parts(split, inputs.manifest, spec.protocol, fold) for fold in folds]
    first = of_folds[0]
    parts = Parts(np.union1d(first.train, first.test), first.validation, np.empty(0, dtype=np.int64))
    # A bank has augmented views of training records alone.
    with_views = np.zeros(len(inputs.labels), dtype=bool)
    for one in of_folds:
        with_views[one.train] = True
    rates = {phase: typical_rates([phases[phase] for phases in fitted]) for phase in fitted[0]}
    print(f"{spec.name}, to serve: {len(parts.train)} training, {len(parts.validation)} calibration records")
    models.reset()
    source = source_of(settings, spec, inputs, spec.train, with_views)
    # A number that no fold has: the seed and the stored state are its own.
    trained = train_fold(source, models, parts, settings.split.folds, checkpoint, replayed=rates)
    scaled = _calibrated(settings, spec, inputs, parts, trained)
    rows = prediction_rows(inputs.manifest, parts.validation, folds[0], inputs.labels, scaled.probabilities, inputs.classes)
    epochs = {phase: len(of_phase) for phase, of_phase in rates.items()}
    made = Retrained(len(parts.train), len(parts.validation), epochs, scaled.temperature or 1.0)
    return _Served(made, scaled.weights, rows, sum(one.seconds for one in trained.phases.values()))


def _calibrated(settings: Settings, spec: RunSpec, inputs: Inputs, parts: Parts, trained: TrainedFold) -> Calibrated:
    """A trained fold after what its protocol does with its probabilities, on its validation records."""
    at, method = parts.validation, settings.protocols[spec.protocol].calibration
    groups = inputs.manifest["group"].to_numpy()[at]
    return calibrate(trained.weights, trained.probabilities, inputs.labels[at], groups, method)


def _warnings(settings: Settings, spec: RunSpec, bank: Bank | None, folds: list[int]) -> list[str]:
    """Lists what a reader of the run's scores must know."""
    import yaml

    found = [bank.weights.warning] if bank and bank.weights.warning else []
    if spec.tuned and len(folds) > 1:
        found.append(f"tuned on the records of every fold but {folds[0]}: its scores on them are optimistic")
    if spec.tuned:
        searched = yaml.safe_load((settings.root / spec.tuned).read_text(encoding="utf-8")).get("data") or {}
        if not has_grown_from(Workspace(settings.root).split(spec.dataset), str(searched.get("split_sha256"))):
            found.append(
                f"{spec.tuned} was found on other folds than today's: it may have seen the records that this run is tested on; "
                f"search again with `cardium tune --dataset {spec.dataset} --model {spec.model}`"
            )
    return found


def effective_settings(settings: Settings, spec: RunSpec) -> dict[str, Any]:
    """Lists the settings that this run is trained with, flat, by dotted names."""
    dataset = settings.datasets[spec.dataset]
    flat: dict[str, Any] = {"seed": settings.seed, "profile": settings.profile, "protocol": spec.protocol}
    flat |= {"system": spec.system, **asdict(settings.protocols[spec.protocol])}
    for section, values in (
        ("render", dataset.render[spec.rendering].as_dict()),
        ("augment", asdict(dataset.augment)),
        ("train", asdict(spec.train)),
        ("split", asdict(settings.split)),
    ):
        flat |= {f"{section}.{key}": value for key, value in values.items()}
    flat["evaluate.test_folds"] = "all" if len(settings.test_folds(spec.dataset)) > 1 else settings.evaluate.test_folds
    flat["evaluate.threshold"] = settings.evaluate.threshold
    return flat


def _training_key(settings: Settings, spec: RunSpec, inputs: Inputs, data: DataVersion) -> str:
    """Hashes everything in which an interrupted training and its continuation must agree."""
    made_from = inputs.bank.info if inputs.bank else inputs.rendered
    origin = [made_from.get(name) for name in ("key", "engine", "manifest_sha256", "pixels_sha256")]
    determined = [effective_settings(settings, spec), spec.model, origin, data.split_sha256]
    return hashlib.sha256(json.dumps(determined, sort_keys=True).encode()).hexdigest()
