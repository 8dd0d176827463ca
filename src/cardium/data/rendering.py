"""Reads rendered records (render_records.py): one memory-mapped array, checked against the manifest, and rows of it."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium.errors import CardiumError

if TYPE_CHECKING:
    import pandas

# Pages of records with at least so many bytes (volumes, not images) are returned to the system once they are read.
_LARGE = 1 << 22


def read_pixels(folder: Path, manifest: pandas.DataFrame) -> tuple[np.ndarray, dict[str, Any]]:
    """Opens a rendering: the array uint8 (N, ...), row = record, read-only and memory-mapped; and the content of render.json.

    Raises CardiumError if it is missing or has another number of records than the manifest.
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


def read_rows(pixels: np.ndarray, records: np.ndarray) -> np.ndarray:
    """Copies the rows `records` (int array) of an array from `read_pixels`.

    Pages of a mapped file count as this process' memory while they are mapped, and a rendering of volumes has gigabytes of
    them: the pages that were read are returned to the system, which keeps them in its cache as long as it can.
    """
    rows = np.asarray(pixels[records])
    mapped = getattr(pixels, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED") and pixels.nbytes > _LARGE * len(pixels):
        mapped.madvise(mmap.MADV_DONTNEED)
    return rows
