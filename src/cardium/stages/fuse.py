"""fuse: joins trained models of one dataset into one (system 004) -> a run folder with one servable model.

`fused` trains a head on the members' concatenated penultimate vectors, fold by fold, on members that never saw the held-out
fold. `fused_average` averages their probabilities; nothing is trained. `folds/<t>.npz` holds the weights of the whole joint
model for held-out fold t, including the members' own.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from cardium import atomic
from cardium.config import JointSpec, Settings
from cardium.errors import unknown
from cardium.evaluation.scoring import score_predictions
from cardium.models import load_model
from cardium.models.fusion import create_fusion, weights_in_fusion
from cardium.models.saving import save_model
from cardium.models.trained import set_trained
from cardium.reporting.plots import learning_curves
from cardium.runs.fused_head import train_heads
from cardium.runs.input_kind import read_input_kind
from cardium.runs.members import joint_run, read_members
from cardium.runs.predictions import VALIDATION, mean_predictions
from cardium.runs.trained_run import Seconds, TrainedRun, write_fold_weights
from cardium.workspace import MODEL


def run(settings: Settings, item: str) -> None:
    """Builds the fusion `item` of the plan into its run folder."""
    if item not in settings.plan.fusions:
        raise unknown("fusion", item, list(settings.plan.fusions))
    spec = settings.plan.fusions[item]
    fuse_run(settings, spec, settings.root / spec.id.folder)


def fuse_run(settings: Settings, spec: JointSpec, out: Path) -> TrainedRun:
    """Joins the members of `spec` into the run folder `out`.

    Raises CardiumError if a member is missing, or if members differ in data, split, folds or rendering.
    """
    import pandas as pd

    began = time.perf_counter()
    members = read_members(settings.root, spec.members)
    classes, folds = members[0].classes, members[0].test_folds
    train = spec.train
    assert train is not None
    whole = create_fusion(
        [load_model(member.model_file) for member in members],
        mode="features" if spec.id.model == "fused" else "average",
        classes=len(classes),
        dropout=train.dropout,
        hidden=train.hidden,
        seed=settings.seed,
    )
    weights: dict[int, dict[str, np.ndarray]] = {fold: {} for fold in folds}
    for fold in folds:
        for member in members:
            weights[fold] |= weights_in_fusion(whole, member.run.model, member.fold_weights(fold))
    heads = train_heads(settings, spec, members) if spec.id.model == "fused" else None
    if heads:
        table = heads.predictions
        for fold in folds:
            weights[fold] |= heads.weights[fold]
    else:
        table = mean_predictions([pd.read_parquet(member.folder / VALIDATION) for member in members], classes)
    set_trained(whole, weights[folds[0]])

    with atomic.replacing_folder(out) as part:
        save_model(whole, part / MODEL)
        if kind := read_input_kind(members[0].folder):
            kind.write(part)
        write_fold_weights(part, weights)
        if heads:
            pd.DataFrame(heads.history).to_csv(part / "history.csv", index=False)
            learning_curves(part / "history.csv", part / "history.png", title=spec.name)
        table.to_parquet(part / VALIDATION, index=False)
        joint = joint_run(settings.root, spec.id, "fuse", members)
        train_seconds = (heads.seconds if heads else 0.0) + sum(member.seconds.train for member in members)
        made = replace(
            joint,
            folder=out,
            settings={**joint.settings, **{f"train.{key}": value for key, value in asdict(train).items()}},
            overrides=settings.overrides,
            parameters=whole.count_params(),
            trainable_parameters=sum(int(value.size) for value in weights[folds[0]].values()),
            model_bytes=(part / MODEL).stat().st_size,
            seconds=Seconds(joint.seconds.features, round(train_seconds, 1)),
            phases=heads.phases if heads else [],
            temperatures=heads.temperatures if heads else {},
            validation=score_predictions(table, classes, settings.evaluate.threshold),
        )
        made.write(part)
    print(
        f"{spec.name}: {len(members)} models fused, validation balanced accuracy {made.validation['balanced_accuracy']:.3f}, "
        f"{time.perf_counter() - began:.0f} s"
    )
    print(f"Wrote {out.relative_to(settings.root)}/. Next: cardium evaluate --dataset {spec.id.dataset}")
    return made
