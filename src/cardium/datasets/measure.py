"""Measures one record's bytes: its size, its encoding, its grey levels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """Measurements of one readable record.

    width, height: in pixels; of a volume, the columns and rows of its slices once it is turned. depth: the number of slices.
    mode: of the pixels, or the data type of a volume's voxels. mean, std: grey levels 0-255; of a volume, in the file's units.
    """

    width: int
    height: int
    mode: str
    format: str
    mean: float
    std: float
    depth: int = 1


def measure_image(data: bytes, max_pixels: int, max_bytes: int) -> Facts:
    """Measures an image file's bytes through the one decoder. Raises imaging.decode.Undecodable."""
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
    """Measures a NIfTI file's bytes. Raises imaging.decode.Undecodable, also for a sequence of volumes (4-D)."""
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
