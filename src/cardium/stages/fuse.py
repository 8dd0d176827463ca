"""fuse: three trained models of one dataset as one (system 004), as a run folder and one servable model.

`fused`: a head on the members' penultimate vectors side by side, trained fold by fold on members that never saw the held-out
fold; the members stay as they are. `fused_average`: the mean of their probabilities, nothing to train. `folds/<t>.npz` holds
the weights of the whole fused model for held-out fold t, the members' own included.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cardium import atomic, provenance
from cardium.config import JointSpec, Settings, Train
from cardium.data.manifest import read_manifest
from cardium.data.splits import read_parts
from cardium.errors import unknown
from cardium.evaluation.metrics import score
from cardium.evaluation.scoring import fold_weights, predict_arrays, reader_of
from cardium.models import load_model
from cardium.models.fusion import create_fusion, create_fusion_head, weights_in_fusion
from cardium.models.trained import set_trained, trained_weights
from cardium.reporting.plots import learning_curves
from cardium.runs.members import common_info, common_settings, read_members
from cardium.runs.predictions import mean_predictions, prediction_rows, probability_columns
from cardium.training.fit import Examples, class_weights, fit, optimization_of, predict
from cardium.training.schedule import schedule_of
from cardium.workspace import Workspace


def run(settings: Settings, item: str) -> None:
    """Builds the fusion `item` of the plan into its run folder."""
    if item not in settings.plan.fusions:
        raise unknown("fusion", item, list(settings.plan.fusions))
    spec = settings.plan.fusions[item]
    fuse_run(settings, spec, settings.root / spec.id.folder)


def fuse_run(settings: Settings, spec: JointSpec, out: Path) -> dict[str, Any]:
    """Joins the members of `spec` into the run folder `out` and returns its run.json.

    Raises CardiumError when a member is missing or members come from different data, splits, folds or renderings.
    """
    import pandas as pd

    began = time.perf_counter()
    name, folders = spec.name, [settings.root / member.folder for member in spec.members]
    members = read_members(folders, spec.id.dataset, spec.id.protocol)
    first = members[0]
    classes, folds = first["classes"], first["test_folds"]
    assert spec.train is not None
    train = spec.train
    whole = create_fusion(
        [load_model(folder / "model.keras") for folder in folders],
        mode="features" if spec.id.model == "fused" else "average",
        classes=len(classes),
        dropout=train.dropout,
        hidden=train.hidden,
        seed=settings.seed,
    )
    fold_of: dict[int, dict[str, np.ndarray]] = {}
    for fold in folds:
        fold_of[fold] = {}
        for model, folder in zip([member.model for member in spec.members], folders, strict=True):
            fold_of[fold] |= weights_in_fusion(whole, model, fold_weights(folder, fold))
    history: list[dict[str, Any]] = []
    phases: list[dict[str, Any]] = []
    if spec.id.model == "fused":
        table, seconds = _train_heads(settings, spec, name, train, folders, members, fold_of, history, phases)
    else:
        table = mean_predictions([pd.read_parquet(folder / "validation.parquet") for folder in folders], classes)
        seconds = 0.0
    set_trained(whole, fold_of[folds[0]])

    with atomic.replacing_folder(out) as part:
        whole.save(part / "model.keras")
        (part / "folds").mkdir()
        for fold, weights in fold_of.items():
            np.savez(part / "folds" / f"{fold}.npz", allow_pickle=False, **weights)
        if history:
            pd.DataFrame(history).to_csv(part / "history.csv", index=False)
            learning_curves(part / "history.csv", part / "history.png", title=name)
        table.to_parquet(part / "validation.parquet", index=False)
        columns = probability_columns(classes)
        info = {
            **provenance.stamp(settings.root),
            "run": name,
            "model": spec.id.model,
            "kind": "fuse",
            **common_info(members),
            "bank": "",
            "scored_from": "pixels",
            "settings": {
                **common_settings(members),
                **{f"train.{key}": value for key, value in asdict(train).items()},
            },
            "overrides": settings.overrides,
            "parameters": whole.count_params(),
            "trainable_parameters": sum(int(value.size) for value in fold_of[folds[0]].values()),
            "model_bytes": (part / "model.keras").stat().st_size,
            "seconds": {
                "features": round(sum(member["seconds"]["features"] for member in members), 1),
                "train": round(seconds + sum(member["seconds"]["train"] for member in members), 1),
            },
            "phases": phases,
            "validation": score(table["label"].to_numpy(), table[columns].to_numpy(), settings.evaluate.threshold, classes),
        }
        atomic.write_json(part / "run.json", info)
    print(
        f"{name}: {len(members)} models fused, validation balanced accuracy {info['validation']['balanced_accuracy']:.3f}, "
        f"{time.perf_counter() - began:.0f} s"
    )
    print(f"Wrote {out.relative_to(settings.root)}/. Next: cardium evaluate --dataset {spec.id.dataset}")
    return info


def _train_heads(
    settings: Settings,
    spec: JointSpec,
    name: str,
    train: Train,
    folders: list[Path],
    members: list[dict[str, Any]],
    fold_of: dict[int, dict[str, np.ndarray]],
    history: list[dict[str, Any]],
    phases: list[dict[str, Any]],
) -> tuple[Any, float]:
    """Trains the head for every held-out fold: fills `fold_of`, `history` and `phases`; validation predictions and seconds."""
    import keras
    import pandas as pd

    workspace = Workspace(settings.root)
    manifest = read_manifest(workspace.manifest(spec.id.dataset))
    classes = members[0]["classes"]
    labels = manifest["label"].map({label: i for i, label in enumerate(classes)}).to_numpy(dtype=np.int64)
    readers = [reader_of(settings, folder, member, manifest) for folder, member in zip(folders, members, strict=True)]
    embedders = [keras.Model(model.input, model.get_layer("embedding").output) for model, _ in readers]
    widths = [embedder.output_shape[-1] for embedder in embedders]
    head = create_fusion_head(widths, classes=len(classes), dropout=train.dropout, hidden=train.hidden, seed=settings.seed)
    pristine = head.get_weights()
    state = workspace.scratch() / "training" / hashlib.sha256(name.encode()).hexdigest()[:16]
    tables, seconds = [], 0.0
    for fold in fold_of:
        parts = read_parts(workspace.split(spec.id.dataset), manifest, spec.id.protocol, fold)
        vectors = {}
        for part, records in (("train", parts.train), ("validation", parts.validation)):
            columns = []
            for (model, inputs), embedder, folder in zip(readers, embedders, folders, strict=True):
                set_trained(model, fold_weights(folder, fold))
                columns.append(predict_arrays(embedder, inputs, records))
            vectors[part] = np.concatenate(columns, axis=1).astype(np.float32)
        print(f"{name}, fold {fold} held out: {len(parts.train)} training, {len(parts.validation)} validation records")
        balanced = class_weights(labels[parts.train], len(classes))
        head.set_weights(pristine)
        validation = Examples(_rows(vectors["validation"]), labels[parts.validation])
        fitted = fit(
            head,
            Examples(_rows(vectors["train"]), labels[parts.train]),
            validation,
            schedule=schedule_of(train, train.learning_rate),
            epochs=train.epochs,
            batch=train.batch,
            weights=balanced if train.class_weights == "balanced" else np.ones(len(classes)),
            seed=settings.seed + fold,
            state_folder=state / f"fold{fold}",
            # The members' vectors are the data: with other members, another training.
            key=hashlib.sha256(vectors["train"].tobytes() + json.dumps(asdict(train)).encode()).hexdigest(),
            how=optimization_of(train),
        )
        fold_of[fold] |= trained_weights(head)
        history += [{"test_fold": fold, "phase": "head", **row} for row in fitted.history]
        phases.append({"test_fold": fold, "phase": "head", **fitted.summary()})
        seconds += fitted.seconds
        probabilities = predict(head, validation, train.batch)
        tables.append(prediction_rows(manifest, parts.validation, fold, labels, probabilities, classes))
    shutil.rmtree(state, ignore_errors=True)
    return pd.concat(tables, ignore_index=True), seconds


def _rows(vectors: np.ndarray) -> Any:
    return lambda _, at: vectors[at]
