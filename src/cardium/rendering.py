"""Reads what `prepare` made: the rendered records as one memory-mapped array, checked against the manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium.errors import CardiumError

if TYPE_CHECKING:
    import pandas


def read_pixels(folder: Path, manifest: pandas.DataFrame) -> tuple[np.ndarray, dict[str, Any]]:
    """The array uint8 (N, ...), row = record, read-only and memory-mapped; and render.json.

    Raises CardiumError when it is missing or belongs to another manifest.
    """
    dataset = folder.parent.name
    command = f"cardium prepare --dataset {dataset}"
    try:
        rendered = json.loads((folder / "render.json").read_text(encoding="utf-8"))
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    except FileNotFoundError:
        raise CardiumError(f"processed/{dataset}/{folder.name}/ is missing: make it with `{command}`.") from None
    if len(pixels) != len(manifest):
        raise CardiumError(
            f"processed/{dataset}/{folder.name}/ has {len(pixels)} records, the manifest {len(manifest)}: run `{command}`."
        )
    return pixels, rendered
