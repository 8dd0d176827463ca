"""The collections that cardium reads: one file each, which says how its folders, names and tables become records.

A new collection is a file here with a `COLLECTIONS`, and its name in `_MODULES`. What a collection scans may be images
(cmri), scanned sheets (ecg), or volumes (chd): `measure` is what reads one record's bytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cardium.errors import unknown

if TYPE_CHECKING:
    from cardium.imaging.spec import Limits

# Name -> the module whose COLLECTIONS holds it.
_MODULES = {
    "cmri": "cardium.datasets.cmri",
    "ecg4": "cardium.datasets.ecg",
    "ecg5": "cardium.datasets.ecg",
    "chd": "cardium.datasets.chd",
}


@dataclass(frozen=True)
class Found:
    """A file that should be a record.

    path: below the collection's folder, with /. patient: "" where the file's place does not tell it; such a file is a group
    of its own. series: "" where there is none. frame: its number within the series, -1 where unknown.
    """

    path: str
    label: str
    patient: str = ""
    series: str = ""
    frame: int = -1


@dataclass(frozen=True)
class Rejected:
    """A file that is no record. label: the class that lost it; "" where none did (system files, files outside of every class).

    reason: `kind` or `kind: details`; reports count by kind.
    """

    path: str
    label: str
    reason: str


@dataclass(frozen=True)
class Facts:
    """What was measured on one readable record.

    width, height: pixels; of a volume, those of its slices once it is turned (columns, rows), and depth is their number. mode:
    of the pixels, or the data type of a volume's voxels. mean, std: grey levels 0-255; of a volume, in the file's own units.
    """

    width: int
    height: int
    mode: str
    format: str
    mean: float
    std: float
    depth: int = 1


def measure_image(data: bytes, max_pixels: int, max_bytes: int) -> Facts:
    """Facts of an image file's bytes through the one decoder; raises imaging.decode.Undecodable."""
    from PIL import Image

    from cardium.imaging.decode import decode

    decoded = decode(data, max_pixels, max_bytes)
    # Whole-number histogram first: the same floats whatever the machine's way of summing.
    counts = Image.fromarray(decoded.pixels).convert("L").histogram()
    n = sum(counts)
    mean = sum(level * count for level, count in enumerate(counts)) / n
    variance = sum(count * (level - mean) ** 2 for level, count in enumerate(counts)) / n
    height, width = decoded.pixels.shape[:2]
    return Facts(width, height, decoded.mode, decoded.format, mean, variance**0.5)


def measure_volume(data: bytes, max_voxels: int, max_bytes: int) -> Facts:
    """Facts of a NIfTI volume's bytes; raises imaging.decode.Undecodable, for a sequence of volumes (4-D) too."""
    import numpy as np

    from cardium.imaging.decode import Undecodable
    from cardium.imaging.volume import read_volume

    volume = read_volume(data, max_voxels, max_bytes)
    if volume.sequence:
        raise Undecodable(f"4-D, not one volume: {len(volume.voxels)} moments")
    depth, height, width = volume.voxels.shape
    # Slice by slice: the volume is never held a second time, as floats.
    mean = float(np.mean([float(part.mean(dtype=np.float64)) for part in volume.voxels]))
    variance = float(np.mean([float(np.square(part - mean, dtype=np.float64).mean()) for part in volume.voxels]))
    return Facts(width, height, volume.stored, "NIfTI", mean, variance**0.5, depth)


@dataclass(frozen=True)
class Mendeley:
    """One version of a dataset at Mendeley Data."""

    dataset: str
    version: int


@dataclass(frozen=True)
class Collection:
    """One published collection under one labelling.

    classes: in class order, the order of every probability column. published_counts: files per class as its page states
    them, {} where unknown. page: where a person gets it by hand.
    scan(folder): walks the folder as laid out and yields a Found or a Rejected for every file below it (of a table of labels
    it yields the rows instead that have no file), opening no image; in a stable order; CardiumError where it cannot tell what a
    folder is. kind: what a record is. measure(data, max_pixels, max_bytes): reads one record; of volumes the limits are voxels
    and bytes; raises a CardiumError whose text is the reason it cannot.
    published_split: how the original divided it, a name in splits.PUBLISHED_SPLITS. published_labels: patient -> class, where
    the original names its patients. names_patients: whether the publisher says which patient a file is of. handle: its name at
    kagglehub, "" where it is not there. mendeley: folder -> what of Mendeley Data comes to lie in it ("": in the collection's
    own folder), {} where it is not there.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    published_counts: Mapping[str, int]
    page: str
    licence: str
    scan: Callable[[Path], Iterator[Found | Rejected]]
    published_split: str
    published_labels: Mapping[str, str] = field(default_factory=dict)
    names_patients: bool = True
    kind: Literal["image", "volume"] = "image"
    handle: str = ""
    mendeley: Mapping[str, Mendeley] = field(default_factory=dict)
    measure: Callable[[bytes, int, int], Facts] = measure_image

    def limits(self, limits: Limits) -> tuple[int, int]:
        """What of one record may be read: its pixels or voxels, and its bytes."""
        if self.kind == "volume":
            return limits.max_voxels, limits.max_volume_bytes
        return limits.max_pixels, limits.max_bytes


def list_collections() -> list[str]:
    return sorted(_MODULES)


def get_collection(name: str) -> Collection:
    """The collection called `name`; CardiumError with the known names for any other."""
    if name not in _MODULES:
        raise unknown("dataset", name, list_collections())
    collections: Mapping[str, Collection] = importlib.import_module(_MODULES[name]).COLLECTIONS
    return collections[name]
