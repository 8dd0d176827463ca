"""features: the bank of one frozen backbone, from the rendered pixels; views 1..V for training records only."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardium.config import Bank as BankLine
from cardium.config import Settings
from cardium.data.manifest import read_manifest
from cardium.data.rendering import read_pixels
from cardium.data.splits import read_parts
from cardium.errors import unknown
from cardium.models.backbones import FRAMES, build_backbone, build_image_encoder
from cardium.models.weights import load_weights
from cardium.training.bank import Bank, BankPlan, calibrate, fill_bank, hash_records
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import pandas


def run(settings: Settings, item: str) -> None:
    """Makes or completes the bank of the line `item` in params.yaml's `banks`."""
    if item not in settings.banks:
        raise unknown("bank", item, list(settings.banks))
    line = settings.banks[item]
    folder = Workspace(settings.root).bank(line.dataset, line.backbone, line.protocol)
    make_bank(settings, line, folder)
    print(f"Wrote {folder.relative_to(settings.root)}/. Next: cardium train --dataset {line.dataset} --model {line.backbone}")


def make_bank(settings: Settings, line: BankLine, folder: Path) -> Bank:
    """The bank of `line` in `folder`, computed as far as it is not there yet."""
    workspace = Workspace(settings.root)
    dataset = settings.datasets[line.dataset]
    render, train = dataset.render[line.rendering], dataset.train
    manifest = read_manifest(workspace.manifest(line.dataset))
    pixels, rendered = read_pixels(workspace.rendering(line.dataset, line.rendering), manifest)
    records = training_records(settings, line, manifest)

    scaling = settings.protocols[line.protocol].scaling
    build = build_image_encoder if line.backbone.endswith(FRAMES) else build_backbone
    model = build(line.backbone, render.height, render.width, scaling, settings.seed)
    weights = load_weights(model, line.backbone, train.weights, settings.root)
    if weights.warning:
        print(f"warning: {weights.warning}")
    folder.mkdir(parents=True, exist_ok=True)
    plan = BankPlan(
        manifest_sha256=rendered["manifest_sha256"],
        pixels_sha256=rendered["pixels_sha256"],
        backbone=line.backbone,
        scaling=scaling,
        height=render.height,
        width=render.width,
        weights_used=weights.used,
        weights_sha256=weights.sha256,
        seed=settings.seed,
        views=train.views,
        augment=asdict(dataset.augment),
        training_records=hash_records(records),
    )
    if weights.used == "random":
        calibrate(model, pixels, records, folder, plan.key())
    bank = fill_bank(
        folder,
        plan,
        weights.as_dict(),
        model,
        pixels,
        records,
        settings.features.batch,
        settings.features.engine,
        settings.seed,
    )
    print(
        f"{line.backbone}: {bank.info['records']} records, maps {'x'.join(map(str, bank.map_shape))}, "
        f"{len(records)} of them in {bank.views} augmented views, {weights.used} weights, "
        f"{bank.info['engine']}, {bank.info['seconds']:.0f} s"
    )
    return bank


def training_records(settings: Settings, line: BankLine, manifest: pandas.DataFrame) -> np.ndarray:
    """The records that are training records for at least one held-out fold, sorted."""
    folder = Workspace(settings.root).split(line.dataset)
    # Under `published` there is one split only.
    folds = settings.test_folds(line.dataset) if line.protocol == "honest" else [0]
    parts = [read_parts(folder, manifest, line.protocol, fold).train for fold in folds]
    return np.unique(np.concatenate(parts))
