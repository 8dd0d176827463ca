"""Attributions as pictures: an input of any rendering and its attribution laid out flat, for plots.py to draw.

An image is itself. Leads lie side by side with their names, and so do the heartbeats of traces, as lines over their columns'
attribution; of a volume the slices with the most attribution are shown, in their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardium.explain.attribution import UNSIGNED
from cardium.explain.opened_model import Array, OpenedModel
from cardium.imaging.heart_format import drawn
from cardium.imaging.kinds import LEADS
from cardium.reporting.plots import Overlay

# Methods that speak of single pixels: their pictures are smoothed a little, or nobody would see a point of one pixel.
_FINE = ("integrated_gradients", "saliency", "smoothgrad")
_SMOOTHED = 0.008
# The share of places that may be beyond the ends of the colours: one bright pixel would make all others pale.
_BEYOND = 0.3
_COLUMNS = 5  # of leads
_SLICES = 6
_BEAT_SIZE = (64, 192)
_GAP = 2


def overlay_of(model: OpenedModel, method: str, pixels: NDArray[Any], values: Array, caption: str = "") -> Overlay:
    """The picture of one record: pixels (...), 0-255, its attribution (places), scaled to its own largest magnitude."""
    if model.form == "heart":  # What counts are measures; the picture shows where they were taken.
        picture = drawn(pixels.astype(np.uint8))
        return Overlay(picture, np.zeros(picture.shape[:2], np.float32), False, caption=caption)
    signed = method not in UNSIGNED and bool((values < 0).any())
    shown = _smoothed(values) if method in _FINE and model.form != "traces" else values
    if model.form == "traces":
        shown = shown[: len(LEADS)]  # Measurements, which are not in the picture, would make the beats pale.
    magnitudes = np.abs(shown)[shown != 0]
    largest = float(np.percentile(magnitudes, 100 - _BEYOND)) if magnitudes.size else 0.0
    heat = np.clip(shown / largest, -1, 1).astype(np.float32) if largest > 0 else np.zeros_like(shown)
    if model.form == "image":
        return Overlay(pixels.astype(np.uint8), heat, signed, caption=caption)
    if model.form == "leads":
        grey, laid, labels = _tiled(255 - pixels.astype(np.uint8), heat, list(LEADS), _COLUMNS)
    elif model.form == "traces":
        grey, laid, labels = _tiled(*_beats(pixels, heat), list(LEADS), 3)
    else:
        numbers = most_told(values)
        names = [f"slice {number}" for number in numbers]
        grey, laid, labels = _tiled(pixels[numbers].astype(np.uint8), heat[numbers], names, 3)
    return Overlay(grey, laid, signed, labels, caption)


def most_told(values: Array) -> list[int]:
    """The frames of a volume with the largest positive attribution, in order; the middle ones where none has any."""
    sums = np.maximum(values, 0).sum(axis=(1, 2), dtype=np.float64)
    if not sums.any():
        sums = -np.abs(np.arange(len(sums)) - (len(sums) - 1) / 2)
    return sorted(np.argsort(-sums, kind="stable")[: min(_SLICES, len(sums))].tolist())


def _smoothed(values: Array) -> Array:
    from scipy.ndimage import gaussian_filter

    sigma = max(0.8, _SMOOTHED * max(values.shape[-2:]))
    return np.asarray(gaussian_filter(values, (*(0 for _ in values.shape[:-2]), sigma, sigma)))


def _beats(pixels: NDArray[Any], heat: Array) -> tuple[NDArray[np.uint8], Array]:
    """The heartbeats of traces (16, 96) as pictures (13, h, w): black lines on white, and their columns' attribution."""
    from cardium.imaging.trace_format import MIDDLE

    height, width = _BEAT_SIZE
    count = len(LEADS)
    pictures = np.full((count, height, width), 255, np.uint8)
    wide = width // pixels.shape[1]
    for number in range(count):
        # 50 levels are a millivolt; what is beyond 1.2 mV touches the edge.
        rows = np.clip(height / 2 - (pixels[number].astype(np.float32) - MIDDLE) / 60 * (height / 2 - 2), 1, height - 2)
        fine = np.interp(np.arange(width), np.arange(pixels.shape[1]) * wide + wide / 2, rows)
        before = np.concatenate([fine[:1], fine[:-1]])
        for column, (low, high) in enumerate(zip(np.minimum(before, fine), np.maximum(before, fine), strict=True)):
            pictures[number, int(low) : int(high) + 3, column] = 0
    columns = np.repeat(heat[:count], wide, axis=1)[:, None, :]
    return pictures, np.repeat(columns, height, axis=1)


def _tiled(
    pictures: NDArray[np.uint8], heat: Array, names: list[str], columns: int
) -> tuple[NDArray[np.uint8], Array, list[tuple[float, float, str]]]:
    """Pictures (k, h, w) side by side with white gaps, their attribution the same way, and (x, y, name) of each."""
    count, height, width = pictures.shape
    rows = -(-count // columns)
    shape = (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP)
    grey, laid = np.full(shape, 255, np.uint8), np.zeros(shape, np.float32)
    labels = []
    for place in range(count):
        row, column = divmod(place, columns)
        top, left = row * (height + _GAP), column * (width + _GAP)
        grey[top : top + height, left : left + width] = pictures[place]
        laid[top : top + height, left : left + width] = heat[place]
        labels.append((float(left), float(top), names[place]))
    return grey, laid, labels
