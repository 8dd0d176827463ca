"""Makes the bank of a spec from a dataset's rendering, with augmented views of training records only."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardium.config import BankSpec, Settings
from cardium.data.manifest import read_manifest
from cardium.data.rendering import read_pixels
from cardium.data.splits import read_parts
from cardium.models.backbones import FRAMES, build_backbone, build_image_encoder
from cardium.models.graph import graph_digest
from cardium.models.weights import load_weights
from cardium.training.bank import Bank, BankPlan, FrozenBackbone, calibrate, fill_bank, hash_records
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import pandas


def make_bank(settings: Settings, spec: BankSpec, folder: Path) -> Bank:
    """Computes the missing part of the bank of `spec` in `folder`, and returns the bank.

    Raises CardiumError if the rendering or the split is missing, or if the asked weights are not available.
    """
    workspace = Workspace(settings.root)
    dataset = settings.datasets[spec.dataset]
    render, train = dataset.render[spec.rendering], dataset.train
    manifest = read_manifest(workspace.manifest(spec.dataset))
    pixels, rendered = read_pixels(workspace.rendering(spec.dataset, spec.rendering), manifest)
    records = training_records(settings, spec, manifest)

    scaling = settings.protocols[spec.protocol].scaling
    build = build_image_encoder if spec.backbone.endswith(FRAMES) else build_backbone
    model = build(spec.backbone, render.height, render.width, scaling, settings.seed)
    weights = load_weights(model, spec.backbone, train.weights, settings.root)
    if weights.warning:
        print(f"warning: {weights.warning}")
    folder.mkdir(parents=True, exist_ok=True)
    plan = BankPlan(
        manifest_sha256=rendered["manifest_sha256"],
        pixels_sha256=rendered["pixels_sha256"],
        backbone=spec.backbone,
        scaling=scaling,
        height=render.height,
        width=render.width,
        weights_used=weights.used,
        weights_sha256=weights.sha256,
        seed=settings.seed,
        views=train.views,
        augment=asdict(dataset.augment),
        training_records=hash_records(records),
        architecture=graph_digest(model),
    )
    if weights.used == "random":
        calibrate(model, pixels, records, folder, plan.key())
    backbone = FrozenBackbone(model, weights, settings.features.batch, settings.features.engine)
    bank = fill_bank(folder, plan, backbone, pixels, records)
    print(
        f"{spec.backbone}: {bank.records} records, maps {'x'.join(map(str, bank.map_shape))}, "
        f"{len(records)} of them in {bank.views} augmented views, {weights.used} weights, {bank.engine}, {bank.seconds:.0f} s"
    )
    return bank


def training_records(settings: Settings, spec: BankSpec, manifest: pandas.DataFrame) -> np.ndarray:
    """Returns the sorted numbers of the records that are training records of at least one held-out fold."""
    folder = Workspace(settings.root).split(spec.dataset)
    folds = settings.test_folds(spec.dataset, spec.protocol)
    parts = [read_parts(folder, manifest, spec.protocol, fold).train for fold in folds]
    return np.unique(np.concatenate(parts))
