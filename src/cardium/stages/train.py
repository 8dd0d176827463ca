"""train: one run folder from a bank: whole model, history, validation predictions and run.json.

For every held-out fold a head is trained on the bank; fold by fold its weights are kept (`folds/<t>.npz`), so that
`evaluate` can score each fold with a model that never saw it. `model.keras` holds the first held-out fold's model.
With `fine_tune: N` a second phase trains the last N layers of the backbone too, from pixels.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium import atomic, provenance
from cardium.bank import Bank, open_bank, restore_calibration
from cardium.errors import CardiumError, unknown
from cardium.imaging.augment import augment_batch
from cardium.manifest import read_fingerprint, read_manifest
from cardium.metrics import score
from cardium.models import create_head, create_model, parse_name
from cardium.models.trained import set_trained, trained_weights
from cardium.models.weights import load_weights
from cardium.params import Dataset, Run, Settings
from cardium.plots import learning_curves
from cardium.predictions import prediction_rows, probability_columns
from cardium.rendering import read_pixels
from cardium.schedule import Schedule
from cardium.splits import Parts, read_parts
from cardium.training import Examples, Fitted, class_weights, fit, predict
from cardium.workspace import Workspace, run_name

if TYPE_CHECKING:
    import keras


def run(settings: Settings, item: str) -> None:
    """Trains the line `item` of params.yaml's `runs` into models/<dataset>/<model>/."""
    if item not in settings.runs:
        raise unknown("run", item, list(settings.runs))
    line = settings.runs[item]
    workspace = Workspace(settings.root)
    train_run(
        settings,
        line,
        workspace.bank(line.dataset, line.bank, line.protocol),
        workspace.run(line.dataset, line.model, line.protocol),
    )


@dataclass(frozen=True)
class _Source:
    """What every fold of a run trains on."""

    bank: Bank
    pixels: np.ndarray
    labels: np.ndarray
    classes: list[str]
    dataset: Dataset
    seed: int


def train_run(settings: Settings, line: Run, bank_folder: Path, out: Path) -> dict[str, Any]:
    """Trains a run into the folder `out` and returns its run.json.

    A killed training goes on after its last finished epoch; `out` appears when everything in it is there.
    """
    import keras
    import tensorflow as tf

    began = time.perf_counter()
    tf.config.experimental.enable_op_determinism()
    workspace = Workspace(settings.root)
    dataset = settings.datasets[line.dataset]
    name = run_name(line.dataset, line.model, line.protocol)
    manifest = read_manifest(workspace.manifest(line.dataset))
    fingerprint = read_fingerprint(workspace.manifest(line.dataset))
    classes = list(fingerprint["classes"])
    labels = manifest["label"].map({label: i for i, label in enumerate(classes)}).to_numpy(dtype=np.int64)
    pixels, _ = read_pixels(workspace.rendering(line.dataset, dataset.render.kind), manifest)
    bank = open_bank(bank_folder, f"dvc repro features@{run_name(line.dataset, line.bank, line.protocol)}")
    source = _Source(bank, pixels, labels, classes, dataset, settings.seed)
    split_folder = workspace.split(line.dataset)
    split_sha256 = json.loads((split_folder / "split.json").read_text(encoding="utf-8"))["sha256"]
    folds = settings.test_folds() if line.protocol == "honest" else [0]

    whole = _whole_model(settings, line, source)
    pristine = whole.get_weights() if dataset.train.fine_tune else []
    head = _new_head(line, source, settings.seed)
    history: list[dict[str, Any]] = []
    phases: list[dict[str, Any]] = []
    validation = []
    fold_weights: dict[int, dict[str, np.ndarray]] = {}
    key = _training_key(settings, line, bank, split_sha256)
    state = workspace.scratch() / "training" / hashlib.sha256(str(out).encode()).hexdigest()[:16]
    seconds = 0.0
    for fold in folds:
        parts = read_parts(split_folder, manifest, line.protocol, fold)
        print(f"{name}, fold {fold} held out: {len(parts.train)} training, {len(parts.validation)} validation records")
        fitted, probabilities, weights = _train_fold(line, source, parts, fold, head, whole, pristine, state, key)
        for phase, result in fitted:
            history += [{"test_fold": fold, "phase": phase, **row} for row in result.history]
            best = result.history[result.best_epoch]
            phases.append(
                {
                    "test_fold": fold,
                    "phase": phase,
                    "epochs": len(result.history),
                    "best_epoch": result.best_epoch,
                    "val_loss": best["val_loss"],
                }
            )
            seconds += result.seconds
        validation.append(prediction_rows(manifest, parts.validation, fold, labels, probabilities, classes))
        fold_weights[fold] = weights

    import pandas as pd

    table = pd.concat(validation, ignore_index=True)
    columns = probability_columns(classes)
    set_trained(whole, fold_weights[folds[0]])
    with atomic.replacing_folder(out) as part:
        whole.save(part / "model.keras")
        (part / "folds").mkdir()
        for fold, weights in fold_weights.items():
            np.savez(part / "folds" / f"{fold}.npz", allow_pickle=False, **weights)
        pd.DataFrame(history).to_csv(part / "history.csv", index=False)
        table.to_parquet(part / "validation.parquet", index=False)
        learning_curves(part / "history.csv", part / "history.png", title=name)
        info = {
            **provenance.stamp(settings.root),
            "run": name,
            "dataset": line.dataset,
            "model": line.model,
            "protocol": line.protocol,
            "kind": "train",
            "classes": classes,
            "rendering": asdict(dataset.render),
            "weights": bank.info["weights"],
            "bank": bank_folder.relative_to(settings.root).as_posix(),
            "scored_from": "pixels" if dataset.train.fine_tune else "bank",
            "settings": effective_settings(settings, line),
            "overrides": settings.overrides,
            "test_folds": folds,
            "folds": settings.split.folds,
            "data": {
                "dvc_md5": provenance.dvc_md5(settings.root),
                "manifest_sha256": fingerprint["manifest_sha256"],
                "split_sha256": split_sha256,
            },
            "engine": bank.info["engine"],
            "parameters": whole.count_params(),
            "trainable_parameters": int(sum(np.prod(v.shape) for v in whole.trainable_variables)),
            "model_bytes": (part / "model.keras").stat().st_size,
            "seconds": {"features": round(bank.info["seconds"], 1), "train": round(seconds, 1)},
            "phases": phases,
            "validation": score(table["label"].to_numpy(), table[columns].to_numpy(), settings.evaluate.threshold, classes),
            "warnings": [bank.info["weights"]["warning"]] if bank.info["weights"]["warning"] else [],
        }
        atomic.write_json(part / "run.json", info)
    shutil.rmtree(state, ignore_errors=True)
    keras.utils.clear_session()
    print(
        f"{name}: validation balanced accuracy {info['validation']['balanced_accuracy']:.3f} over {len(folds)} fold(s), "
        f"{time.perf_counter() - began:.0f} s"
    )
    print(f"Wrote {out.relative_to(settings.root)}/. Next: cardium evaluate --dataset {line.dataset}")
    return info


def effective_settings(settings: Settings, line: Run) -> dict[str, Any]:
    """The settings that this run was trained with, flat, under dotted names."""
    dataset = settings.datasets[line.dataset]
    flat: dict[str, Any] = {"seed": settings.seed, "profile": settings.profile, "protocol": line.protocol}
    flat["scaling"] = settings.protocols[line.protocol].scaling
    for section, values in (
        ("render", dataset.render),
        ("augment", dataset.augment),
        ("train", dataset.train),
        ("split", settings.split),
    ):
        flat |= {f"{section}.{key}": value for key, value in asdict(values).items()}
    flat["evaluate.test_folds"] = settings.evaluate.test_folds
    flat["evaluate.threshold"] = settings.evaluate.threshold
    return flat


def _training_key(settings: Settings, line: Run, bank: Bank, split_sha256: str) -> str:
    """What an interrupted training must agree in with the one that would go on with it."""
    determined = [effective_settings(settings, line), line.model, bank.info["key"], bank.info["engine"], split_sha256]
    return hashlib.sha256(json.dumps(determined, sort_keys=True).encode()).hexdigest()


def _whole_model(settings: Settings, line: Run, source: _Source) -> keras.Model:
    """The run's model from pixels on, its backbone with the very weights that made the bank."""
    render, train = source.dataset.render, source.dataset.train
    model = create_model(
        line.model,
        classes=len(source.classes),
        height=render.height,
        width=render.width,
        scaling=settings.protocols[line.protocol].scaling,
        dropout=train.dropout,
        seed=settings.seed,
    )
    made_with = source.bank.info["weights"]
    again = f"dvc repro -f features@{run_name(line.dataset, line.bank, line.protocol)}"
    if made_with["used"] == "imagenet":
        found = load_weights(model, parse_name(line.model).backbone, "imagenet", settings.root)
        if found.sha256 != made_with["sha256"]:
            raise CardiumError(
                f"The bank was made with other weights than {found.file} holds now: make it again with `{again}`."
            )
    elif not restore_calibration(model, source.bank.folder, source.bank.info["key"]):
        raise CardiumError(f"The bank's calibration.npz is missing: make it again with `{again}`.")
    return model


def _new_head(line: Run, source: _Source, seed: int) -> keras.Model:
    dropout = source.dataset.train.dropout
    return create_head(line.model, classes=len(source.classes), map_shape=source.bank.map_shape, dropout=dropout, seed=seed)


def _train_fold(
    line: Run,
    source: _Source,
    parts: Parts,
    fold: int,
    head: keras.Model,
    whole: keras.Model,
    pristine: list[np.ndarray],
    state: Path,
    key: str,
) -> tuple[list[tuple[str, Fitted]], np.ndarray, dict[str, np.ndarray]]:
    """One held-out fold: its phases' results, validation probabilities, and the weights that were trained."""
    train = source.dataset.train
    views = [source.bank.view(number) for number in range(source.bank.views + 1)]
    labels = source.labels[parts.train]
    balanced = class_weights(labels, len(source.classes))
    weights = balanced if train.class_weights == "balanced" else np.ones(len(source.classes))
    seed = source.seed + fold

    def maps(records: np.ndarray, epoch: int) -> np.ndarray:
        view = 0 if epoch < 0 else 1 + epoch % source.bank.views
        return views[view][records].astype(np.float32)

    # Every fold begins with weights of its own; the graph that they live in is traced once.
    head.set_weights(_new_head(line, source, seed).get_weights())
    validation = Examples(lambda _, at: maps(parts.validation[at], -1), source.labels[parts.validation])
    fitted = fit(
        head,
        Examples(lambda epoch, at: maps(parts.train[at], epoch), labels),
        validation,
        schedule=_schedule(source.dataset, train.learning_rate),
        epochs=train.epochs,
        batch=train.batch,
        weights=weights,
        seed=seed,
        state_folder=state / f"fold{fold}-head",
        key=key,
    )
    trained = trained_weights(head)
    if not train.fine_tune:
        return [("head", fitted)], predict(head, validation, train.batch), trained

    # Every fold starts from the backbone as it came, not from the one that the fold before has tuned.
    whole.set_weights(pristine)
    set_trained(whole, trained)
    unfreeze(whole, head, train.fine_tune)

    def images(records: np.ndarray, epoch: int) -> np.ndarray:
        plain = source.pixels[records]
        if epoch < 0:
            return plain.astype(np.float32)
        # The second phase's views go on where the bank's end.
        return augment_batch(plain, records, source.dataset.augment, seed, source.bank.views + 1 + epoch).astype(np.float32)

    from_pixels = Examples(lambda _, at: images(parts.validation[at], -1), source.labels[parts.validation])
    tuned = fit(
        whole,
        Examples(lambda epoch, at: images(parts.train[at], epoch), labels),
        from_pixels,
        schedule=_schedule(source.dataset, train.fine_tune_learning_rate),
        epochs=train.fine_tune_epochs,
        batch=train.batch,
        weights=weights,
        seed=seed,
        state_folder=state / f"fold{fold}-fine_tune",
        key=key,
    )
    return [("head", fitted), ("fine_tune", tuned)], predict(whole, from_pixels, train.batch), trained_weights(whole)


def _schedule(dataset: Dataset, learning_rate: float) -> Schedule:
    train = dataset.train
    return Schedule(learning_rate, train.stop_patience, train.plateau_patience, train.plateau_factor, train.min_learning_rate)


def unfreeze(model: keras.Model, head: keras.Model, last: int) -> None:
    """Makes the last `last` layers of the backbone trainable; batch norm layers stay frozen. `head` tells which are not its."""
    import keras

    behind = {layer.name for layer in head.layers}
    backbone = [layer for layer in model.layers if layer.name not in behind and not isinstance(layer, keras.layers.InputLayer)]
    for layer in backbone[-last:]:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
