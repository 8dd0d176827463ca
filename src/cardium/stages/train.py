"""train: one run folder from a bank or, end to end, from a rendering: whole model, history, validation predictions, run.json.

For every held-out fold a head is trained on the bank, or the whole model on pixels; fold by fold what was trained is kept
(`folds/<t>.npz`), so that `evaluate` can score each fold with a model that never saw it. `model.keras` holds the first
held-out fold's model; with `served: mean`, `served.keras` the mean of all folds' models, which then answers requests. With
`fine_tune: N` a second phase trains the last N layers of a backbone too, from pixels.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium import atomic, provenance
from cardium.config import RunSpec, Settings, Train
from cardium.data.manifest import read_fingerprint, read_manifest
from cardium.data.rendering import read_pixels, read_rows
from cardium.data.splits import Parts, read_parts
from cardium.errors import CardiumError, unknown
from cardium.evaluation.metrics import score
from cardium.imaging.augment import augment_batch
from cardium.imaging.spec import Augment, Render
from cardium.models import bank_of, create_head, create_model, reads_rendering, rendering_of
from cardium.models.fusion import create_fusion
from cardium.models.trained import set_trained, trained_weights
from cardium.models.weights import load_weights
from cardium.reporting.plots import learning_curves
from cardium.runs.predictions import prediction_rows, probability_columns
from cardium.training.bank import Bank, open_bank, restore_calibration
from cardium.training.fit import Examples, Fitted, class_weights, fit, optimization_of, predict
from cardium.training.schedule import schedule_of
from cardium.workspace import SERVED, RunId, Workspace, run_name

if TYPE_CHECKING:
    import keras
    import pandas


def run(settings: Settings, item: str) -> None:
    """Trains the line `item` of params.yaml's `runs` into models/<dataset>/<protocol>/<model>/."""
    if item not in settings.plan.runs:
        raise unknown("run", item, list(settings.plan.runs))
    spec = settings.plan.runs[item]
    train_run(
        settings, spec, settings.root / spec.reads, Workspace(settings.root).run(RunId(spec.dataset, spec.model, spec.protocol))
    )


@dataclass(frozen=True)
class Inputs:
    """What a run reads, opened. kind, size: of its rendering; rendered: its render.json; bank: None for end-to-end training.

    pixels: the rendering (N, ...), row = record; labels: (N,) class index of each record.
    """

    kind: str
    size: Render
    manifest: pandas.DataFrame
    manifest_sha256: str
    classes: list[str]
    labels: np.ndarray
    pixels: np.ndarray
    rendered: dict[str, Any]
    bank: Bank | None


@dataclass(frozen=True)
class Source:
    """What every fold of a run trains on. bank: None where training is end to end. labels: class index of each record.

    with_views: (N,) bool, the records that have augmented views in the bank; None: every one that is trained on. The others
    are always seen as they are.
    """

    bank: Bank | None
    pixels: np.ndarray
    labels: np.ndarray
    classes: list[str]
    train: Train
    augment: Augment
    seed: int
    with_views: np.ndarray | None = None


def read_inputs(settings: Settings, spec: RunSpec, reads: Path) -> Inputs:
    """Opens what `line` is trained from: the bank or the rendering in the folder `reads`, and its records.

    Raises CardiumError where they do not fit the model, or are not made yet.
    """
    workspace = Workspace(settings.root)
    name = run_name(spec.dataset, spec.model, spec.protocol)
    kind = spec.rendering
    if bank_of(spec.model) != spec.bank or not reads_rendering(spec.model, kind):
        frozen = f"features/{spec.dataset}/{spec.protocol}/{bank_of(spec.model)}"
        wanted = frozen if bank_of(spec.model) else f"processed/{spec.dataset}/{rendering_of(spec.model)}"
        raise CardiumError(f"params.yaml, runs.{name}.reads: {spec.model} reads `{wanted}`, not `{spec.reads}`.")
    manifest = read_manifest(workspace.manifest(spec.dataset))
    fingerprint = read_fingerprint(workspace.manifest(spec.dataset))
    classes = list(fingerprint["classes"])
    labels = manifest["label"].map({label: i for i, label in enumerate(classes)}).to_numpy(dtype=np.int64)
    pixels, rendered = read_pixels(workspace.rendering(spec.dataset, kind), manifest)
    bank = open_bank(reads, f"dvc repro features@{run_name(spec.dataset, spec.bank, spec.protocol)}") if spec.bank else None
    size = settings.datasets[spec.dataset].render[kind]
    return Inputs(kind, size, manifest, fingerprint["manifest_sha256"], classes, labels, pixels, rendered, bank)


def source_of(settings: Settings, spec: RunSpec, inputs: Inputs, train: Train, with_views: np.ndarray | None = None) -> Source:
    """What folds are trained on, with the settings `train`."""
    augment = settings.datasets[spec.dataset].augment
    return Source(inputs.bank, inputs.pixels, inputs.labels, inputs.classes, train, augment, settings.seed, with_views)


def train_run(settings: Settings, spec: RunSpec, reads: Path, out: Path) -> dict[str, Any]:
    """Trains a run from the bank or the rendering in the folder `reads` into the folder `out` and returns its run.json.

    A killed training goes on after its last finished epoch; `out` appears when everything in it is there.
    """
    import keras
    import tensorflow as tf

    began = time.perf_counter()
    tf.config.experimental.enable_op_determinism()
    workspace = Workspace(settings.root)
    name = run_name(spec.dataset, spec.model, spec.protocol)
    inputs = read_inputs(settings, spec, reads)
    kind, size, manifest, bank = inputs.kind, inputs.size, inputs.manifest, inputs.bank
    classes, labels = inputs.classes, inputs.labels
    train = spec.train
    source = source_of(settings, spec, inputs, train)
    split_folder = workspace.split(spec.dataset)
    split_sha256 = json.loads((split_folder / "split.json").read_text(encoding="utf-8"))["sha256"]
    folds = settings.test_folds(spec.dataset) if spec.protocol == "honest" else [0]

    whole = whole_model(settings, spec, source, size)
    # Where the backbone is frozen, what is trained is a head on the bank's maps; otherwise the whole model.
    learner = new_head(spec, source, settings.seed) if bank else whole
    pristine = {id(model): model.get_weights() for model in ([whole, learner] if train.fine_tune or not bank else [learner])}
    history: list[dict[str, Any]] = []
    phases: list[dict[str, Any]] = []
    validation = []
    fold_weights: dict[int, dict[str, np.ndarray]] = {}
    key = _training_key(settings, spec, bank.info if bank else inputs.rendered, split_sha256)
    state = workspace.scratch() / "training" / hashlib.sha256(str(out).encode()).hexdigest()[:16]
    seconds = 0.0
    for fold in folds:
        parts = read_parts(split_folder, manifest, spec.protocol, fold)
        print(f"{name}, fold {fold} held out: {len(parts.train)} training, {len(parts.validation)} validation records")
        # Every fold starts from the weights as they came; the graph that they live in is traced once.
        for model in (whole, learner):
            if id(model) in pristine:
                model.set_weights(pristine[id(model)])
        fitted, probabilities, weights = train_fold(source, parts, fold, learner, whole, state, key)
        for phase, result in fitted:
            history += [{"test_fold": fold, "phase": phase, **row} for row in result.history]
            phases.append({"test_fold": fold, "phase": phase, **result.summary()})
            seconds += result.seconds
        validation.append(prediction_rows(manifest, parts.validation, fold, labels, probabilities, classes))
        fold_weights[fold] = weights

    import pandas as pd

    table = pd.concat(validation, ignore_index=True)
    columns = probability_columns(classes)
    set_trained(whole, fold_weights[folds[0]])
    with atomic.replacing_folder(out) as part:
        whole.save(part / "model.keras")
        if source.train.served == "mean" and not bank and len(folds) > 1:
            _mean_of_folds(settings, spec, source, size, fold_weights).save(part / SERVED)
        (part / "folds").mkdir()
        for fold, weights in fold_weights.items():
            np.savez(part / "folds" / f"{fold}.npz", allow_pickle=False, **weights)
        pd.DataFrame(history).to_csv(part / "history.csv", index=False)
        table.to_parquet(part / "validation.parquet", index=False)
        learning_curves(part / "history.csv", part / "history.png", title=name)
        shown = workspace.rendering(spec.dataset, kind) / "montage.png"
        if shown.is_file():  # What a network of volumes sees, beside what it made of it.
            shutil.copyfile(shown, part / shown.name)
        info = {
            **provenance.stamp(settings.root),
            "run": name,
            "dataset": spec.dataset,
            "model": spec.model,
            "protocol": spec.protocol,
            "kind": "train",
            "classes": classes,
            "rendering": {"kind": kind, **size.as_dict()},
            "weights": bank.info["weights"] if bank else _FROM_SCRATCH,
            "bank": reads.relative_to(settings.root).as_posix() if bank else "",
            "scored_from": "bank" if bank and not train.fine_tune else "pixels",
            "settings": effective_settings(settings, spec),
            "overrides": settings.overrides,
            "tuned": spec.tuned,
            "test_folds": folds,
            "folds": settings.split.folds,
            "data": {
                "dvc_md5": provenance.dvc_md5(settings.root),
                "manifest_sha256": inputs.manifest_sha256,
                "split_sha256": split_sha256,
            },
            "engine": bank.info["engine"] if bank else f"tensorflow {tf.__version__}",
            "parameters": whole.count_params(),
            "trainable_parameters": int(sum(np.prod(v.shape) for v in whole.trainable_variables)),
            "model_bytes": (part / "model.keras").stat().st_size,
            "seconds": {"features": round(bank.info["seconds"], 1) if bank else 0.0, "train": round(seconds, 1)},
            "phases": phases,
            "validation": score(table["label"].to_numpy(), table[columns].to_numpy(), settings.evaluate.threshold, classes),
            "warnings": _warnings(spec, bank, folds),
        }
        atomic.write_json(part / "run.json", info)
    shutil.rmtree(state, ignore_errors=True)
    keras.utils.clear_session()
    print(
        f"{name}: validation balanced accuracy {info['validation']['balanced_accuracy']:.3f} over {len(folds)} fold(s), "
        f"{time.perf_counter() - began:.0f} s"
    )
    print(f"Wrote {out.relative_to(settings.root)}/. Next: cardium evaluate --dataset {spec.dataset}")
    return info


def _warnings(spec: RunSpec, bank: Bank | None, folds: list[int]) -> list[str]:
    """What a reader of the run's scores must know."""
    found = [bank.info["weights"]["warning"]] if bank and bank.info["weights"]["warning"] else []
    if spec.tuned and len(folds) > 1:
        found.append(f"tuned on the records of every fold but {folds[0]}: its scores on them are optimistic")
    return found


def _mean_of_folds(
    settings: Settings, spec: RunSpec, source: Source, size: Render, fold_weights: dict[int, dict[str, np.ndarray]]
) -> keras.Model:
    """One graph whose probabilities are the mean of the folds' models: together they have learnt from every record."""
    models = []
    for weights in fold_weights.values():
        model = whole_model(settings, spec, source, size)
        set_trained(model, weights)
        models.append(model)
    names = [f"fold{fold}" for fold in fold_weights]
    return create_fusion(models, names=names, mode="average", classes=len(source.classes))


# An architecture of its own has no pretrained weights to be had.
_FROM_SCRATCH = {"asked": "none", "used": "scratch", "file": "", "sha256": "", "warning": ""}


def effective_settings(settings: Settings, spec: RunSpec) -> dict[str, Any]:
    """The settings that this run was trained with, flat, under dotted names."""
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


def _training_key(settings: Settings, spec: RunSpec, made_from: dict[str, Any], split_sha256: str) -> str:
    """What an interrupted training must agree in with the one that would go on with it. made_from: bank.json or render.json."""
    origin = [made_from.get(name) for name in ("key", "engine", "manifest_sha256", "pixels_sha256")]
    determined = [effective_settings(settings, spec), spec.model, origin, split_sha256]
    return hashlib.sha256(json.dumps(determined, sort_keys=True).encode()).hexdigest()


def whole_model(settings: Settings, spec: RunSpec, source: Source, size: Render) -> keras.Model:
    """The run's model from pixels on, its backbone with the very weights that made the bank."""
    model = create_model(
        spec.model,
        classes=len(source.classes),
        height=size.height,
        width=size.width,
        scaling=settings.protocols[spec.protocol].scaling,
        dropout=source.train.dropout,
        hidden=source.train.hidden,
        seed=settings.seed,
        frames=size.frames,
        rendering=spec.rendering,
        padding=settings.protocols[spec.protocol].padding,
    )
    if source.bank is None:
        return model
    made_with = source.bank.info["weights"]
    again = f"dvc repro -f features@{run_name(spec.dataset, spec.bank, spec.protocol)}"
    if made_with["used"] == "imagenet":
        found = load_weights(model, spec.bank, "imagenet", settings.root)
        if found.sha256 != made_with["sha256"]:
            raise CardiumError(
                f"The bank was made with other weights than {found.file} holds now: make it again with `{again}`."
            )
    elif not restore_calibration(model, source.bank.folder, source.bank.info["key"]):
        raise CardiumError(f"The bank's calibration.npz is missing: make it again with `{again}`.")
    return model


def new_head(spec: RunSpec, source: Source, seed: int) -> keras.Model:
    """What the run trains on its bank."""
    assert source.bank is not None
    return create_head(
        spec.model,
        classes=len(source.classes),
        map_shape=source.bank.map_shape,
        dropout=source.train.dropout,
        hidden=source.train.hidden,
        seed=seed,
    )


def train_fold(
    source: Source,
    parts: Parts,
    fold: int,
    learner: keras.Model,
    whole: keras.Model | None,
    state: Path | None,
    key: str,
    show: Callable[[str], None] = print,
) -> tuple[list[tuple[str, Fitted]], np.ndarray, dict[str, np.ndarray]]:
    """One held-out fold: its phases' results, validation probabilities, and the weights that were trained.

    learner: the head where there is a bank, otherwise `whole` itself, which a bank without fine-tuning does not need.
    state: the folder that keeps how far it has come, as `training.fit` does; None: none.
    """
    train, bank = source.train, source.bank
    labels = source.labels[parts.train]
    balanced = class_weights(labels, len(source.classes))
    weights = balanced if train.class_weights == "balanced" else np.ones(len(source.classes))
    seed = source.seed + fold
    views = [bank.view(number) for number in range(bank.views + 1)] if bank else []

    def augmented(records: np.ndarray, epoch: int) -> np.ndarray:
        """Which records (n,) an epoch shows augmented: bool (n,), a function of seed, epoch and record."""
        chosen = np.ones(len(records), dtype=bool)
        if train.augment_share < 1:
            chosen = np.random.default_rng([seed, epoch, 1]).random(len(source.labels))[records] < train.augment_share
        return chosen

    def maps(records: np.ndarray, epoch: int) -> np.ndarray:
        if epoch < 0:
            return views[0][records].astype(np.float32)
        shown = views[1 + epoch % (len(views) - 1)][records].astype(np.float32)
        plain = ~augmented(records, epoch)
        if source.with_views is not None:
            plain |= ~source.with_views[records]
        if plain.any():
            shown[plain] = views[0][records[plain]]
        return shown

    def images(records: np.ndarray, epoch: int) -> np.ndarray:
        plain = read_rows(source.pixels, records)
        if epoch < 0 or not (bank or train.augmented):
            return plain.astype(np.float32)
        # A second phase's views go on where the bank's end.
        shown = augment_batch(plain, records, source.augment, seed, len(views) + epoch).astype(np.float32)
        if train.augment_share < 1:
            left = ~augmented(records, epoch)
            shown[left] = plain[left]
        return shown

    def phase(
        name: str, model: keras.Model, inputs: Callable[[np.ndarray, int], np.ndarray], rate: float, epochs: int
    ) -> tuple[Fitted, np.ndarray]:
        validation = Examples(lambda _, at: inputs(parts.validation[at], -1), source.labels[parts.validation])
        fitted = fit(
            model,
            Examples(lambda epoch, at: inputs(parts.train[at], epoch), labels),
            validation,
            schedule=schedule_of(train, rate),
            epochs=epochs,
            batch=train.batch,
            weights=weights,
            seed=seed,
            state_folder=state / f"fold{fold}-{name}" if state else None,
            key=key,
            how=optimization_of(train),
            show=show,
        )
        return fitted, predict(model, validation, train.batch)

    if bank is None:
        fitted, probabilities = phase("whole", learner, images, train.learning_rate, train.epochs)
        return [("whole", fitted)], probabilities, trained_weights(learner)
    fitted, probabilities = phase("head", learner, maps, train.learning_rate, train.epochs)
    trained = trained_weights(learner)
    if not train.fine_tune:
        return [("head", fitted)], probabilities, trained
    assert whole is not None
    set_trained(whole, trained)
    unfreeze(whole, learner, train.fine_tune)
    tuned, probabilities = phase("fine_tune", whole, images, train.fine_tune_learning_rate, train.fine_tune_epochs)
    return [("head", fitted), ("fine_tune", tuned)], probabilities, trained_weights(whole)


def unfreeze(model: keras.Model, head: keras.Model, last: int) -> None:
    """Makes the last `last` layers of the backbone trainable; batch norm layers stay frozen. `head` tells which are not its."""
    import keras

    behind = {layer.name for layer in head.layers}
    backbone = [layer for layer in model.layers if layer.name not in behind and not isinstance(layer, keras.layers.InputLayer)]
    for layer in backbone[-last:]:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
