"""Vectors of all records from one light frozen backbone, and the same backbone for other pictures.

The vectors come from the pipeline's bank if there is one, otherwise from a plain view in the project's scratch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cardium import atomic
from cardium.config import Settings
from cardium.data.manifest import is_distinct, manifest_sha256
from cardium.data.render_records import RenderJob, render_records, renderer
from cardium.data.rendering import read_pixels
from cardium.data.units import unit_records
from cardium.imaging.spec import Render
from cardium.models.backbones import FRAMES, build_image_encoder
from cardium.models.graph import graph_digest
from cardium.models.weights import load_weights
from cardium.training.bank import Bank, BankPlan, FrozenBackbone, calibrate, fill_bank, hash_records
from cardium.training.engine import compile_forward
from cardium.workspace import Workspace

# Bytes of feature maps averaged at once.
_AT_ONCE = 1 << 28


@dataclass(frozen=True)
class Encoder:
    """A backbone and its vectors of all records.

    vectors: float32 (N, C), row = record: the backbone's last map, averaged over a picture, of volumes over the slices too.

    pixels: the rendering that they were made from. encode: uint8 (n, height, width, 3), any n -> float32 (n, C). source: the
    bank's folder, below the project's root.
    """

    backbone: str
    weights: str
    source: str
    rendering: str
    size: Render
    vectors: NDArray[np.float32]
    pixels: NDArray[np.uint8]
    encode: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def open_encoder(settings: Settings, dataset: str, manifest: pd.DataFrame, volumes: bool) -> Encoder:
    """Opens the vectors of all records, computing them if needed. Raises CardiumError for files that changed since ingest."""
    backbone = settings.audit.backbone + (FRAMES if volumes else "")
    spec = settings.plan.banks.get(f"{dataset}-{backbone}")
    kind = spec.rendering if spec else "slices" if volumes else "image"
    size = settings.datasets[dataset].render[kind]
    pixels, pixels_sha256 = _rendering(settings, dataset, kind, size, manifest)
    model = build_image_encoder(settings.audit.backbone, size.height, size.width, "native", settings.seed)
    weights = load_weights(model, settings.audit.backbone, settings.datasets[dataset].train.weights, settings.root)
    if weights.warning:
        print(f"warning: {weights.warning}")
    distinct = manifest["record"].to_numpy(dtype=np.int64)[is_distinct(manifest).to_numpy()]
    places = Workspace(settings.root)
    scratch = places.scratch() / "audit" / dataset / backbone
    plan = BankPlan(
        manifest_sha256=manifest_sha256(manifest),
        pixels_sha256=pixels_sha256,
        backbone=f"{settings.audit.backbone}{FRAMES}",
        scaling="native",
        height=size.height,
        width=size.width,
        weights_used=weights.used,
        weights_sha256=weights.sha256,
        seed=settings.seed,
        views=0,
        augment={},
        training_records=hash_records(distinct),
        architecture=graph_digest(model),
    )
    scratch.mkdir(parents=True, exist_ok=True)
    if weights.used == "random":
        calibrate(model, pixels, distinct, scratch, plan.key())
    # A random backbone's bank has statistics of its own, measured on its training records.
    bank = _existing(places.bank(dataset, backbone, "honest"), plan) if weights.used != "random" else None
    batch = settings.features.batch
    if bank is None:
        frozen = FrozenBackbone(model, weights, batch, settings.features.engine)
        bank = fill_bank(scratch, plan, frozen, pixels, distinct[:0])
    forward, _ = compile_forward(model, batch, settings.features.engine)

    def encode(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = [forward(pictures[start : start + batch]) for start in range(0, len(pictures), batch)]
        return np.concatenate(parts).astype(np.float32)

    source = bank.folder.relative_to(settings.root).as_posix()
    return Encoder(backbone, weights.used, source, kind, size, _averaged(bank, volumes), pixels, encode)


def _rendering(
    settings: Settings, dataset: str, kind: str, size: Render, manifest: pd.DataFrame
) -> tuple[NDArray[np.uint8], str]:
    """The records as the backbone takes them, and their hash: the pipeline's rendering, or the same in the scratch."""
    places = Workspace(settings.root)
    wanted = {"kind": kind, **size.as_dict(), "manifest_sha256": manifest_sha256(manifest)}
    made = places.scratch() / "audit" / dataset / kind
    for folder in (places.rendering(dataset, kind), made):
        info = _json(folder / "render.json")
        # The pipeline's own is made anew with its code.
        current = folder != made or _json(folder / "made_by.json") == renderer()
        if current and {key: info.get(key) for key in wanted} == wanted:
            pixels, _ = read_pixels(folder, manifest)
            return pixels, str(info["pixels_sha256"])
    again = f"run `cardium ingest --dataset {dataset}`"
    job = RenderJob(f"data/{dataset}", again, places.data(dataset), kind, size, settings.limits)
    render_records(job, unit_records(manifest, kind), wanted["manifest_sha256"], made)
    atomic.write_json(made / "made_by.json", renderer())
    return np.load(made / "pixels.npy", mmap_mode="r"), json.loads((made / "render.json").read_text())["pixels_sha256"]


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def _existing(folder: Path, plan: BankPlan) -> Bank | None:
    """The pipeline's bank, if its plain view was made from the same pixels with the same weights."""
    info = _json(folder / "bank.json")
    same = ("manifest_sha256", "pixels_sha256", "scaling", "height", "width", "weights_sha256")
    if not info.get("complete") or any(info["plan"][key] != getattr(plan, key) for key in same):
        return None
    return Bank(folder, info)


def _averaged(bank: Bank, volumes: bool) -> NDArray[np.float32]:
    """Averages view 0 over the places of a map, of volumes over the slices that are not padding: float32 (N, C)."""
    view = bank.view(0)
    rows = max(1, _AT_ONCE // max(1, int(np.prod(view.shape[1:])) * 4))
    out = np.empty((len(view), view.shape[-1]), np.float32)
    for start in range(0, len(view), rows):
        maps = view[start : start + rows].astype(np.float32)
        flat = maps.reshape(len(maps), -1, maps.shape[-1])
        # A slice of padding has zeros throughout.
        filled = flat.any(axis=2).sum(axis=1) if volumes else np.full(len(maps), flat.shape[1])
        out[start : start + rows] = flat.sum(axis=1) / np.maximum(filled, 1)[:, None]
    return out
