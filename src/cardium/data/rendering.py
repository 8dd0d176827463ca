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

# Bytes of a record from which on its pages are let go of once it is read: a volume's, not an image's.
_LARGE = 1 << 22


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


def read_rows(pixels: np.ndarray, records: np.ndarray) -> np.ndarray:
    """A copy of the rows `records` (int array) of what `read_pixels` gives.

    Pages of a mapped file count as this process' memory while they are mapped, and a rendering of volumes has gigabytes of
    them: those that were read are given back to the system, which keeps them in its cache as long as it likes.
    """
    rows = np.asarray(pixels[records])
    mapped = getattr(pixels, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED") and pixels.nbytes > _LARGE * len(pixels):
        mapped.madvise(mmap.MADV_DONTNEED)
    return rows
