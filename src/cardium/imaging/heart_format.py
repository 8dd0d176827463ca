"""The format of the rendering `heart`: what its cells hold, for models, overlays and answers.

An array is uint8 (133, 512), of up to eight slices of one patient, evenly spread over those that were measured.

    row 0        255 where a heart was found and 0 where not, then MEASURES, then the confidence: one cell each
    rows 1-4     contours: 64 angles a slice, radii in quarters of a pixel: pool and wall at end-diastole, then at end-systole
    rows 5-68    the slices at end-diastole, 64 x 64 each, about the ventricle's middle; a pixel is 1.5 of the scaled picture's
    rows 69-132  the same at end-systole, about the same place

heart.py makes the measures; how it finds them may change without a change of this format.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

SLICES, TILE, ANGLES = 8, 64, 64
SHAPE = (1 + 4 + 2 * TILE, SLICES * TILE)
ZOOM = 1.5  # pixels of the scaled picture to a pixel of a tile
_QUARTERS = 4.0


@dataclass(frozen=True)
class Measure:
    """A number that the heart is described by.

    low, high: what levels 0 and 255 stand for; of a ratio its logarithm is even. normal: a healthy adult's, about.
    """

    name: str
    low: float
    high: float
    normal: float
    says: str
    ratio: bool = False

    def level(self, value: float) -> float:
        """The level, 0 to 255, not rounded."""
        low, high = (math.log(self.low), math.log(self.high)) if self.ratio else (self.low, self.high)
        value = math.log(max(value, 1e-6)) if self.ratio else value
        return 255 * min(max((value - low) / (high - low), 0.0), 1.0)

    def value(self, level: float) -> float:
        """The value that a level stands for."""
        if self.ratio:
            return float(self.low * (self.high / self.low) ** (level / 255))
        return float(self.low + (self.high - self.low) * level / 255)


MEASURES = (
    Measure("ejection_fraction", -0.2, 1.0, 0.65, "share of the pool, over all slices, that end-systole is without"),
    Measure("worst_slice", -0.5, 1.0, 0.6, "the same of the slice that empties least but one"),
    Measure("end_systole", 0.0, 0.8, 0.18, "pool at end-systole over the whole ventricle at end-diastole"),
    Measure("wall_to_pool", 0.2, 5.0, 0.75, "area of the wall over that of the pool, end-diastole", ratio=True),
    Measure("wall_to_radius", 0.05, 2.0, 0.33, "thickness of the wall over the pool's radius, end-diastole", ratio=True),
    Measure("thickest", 0.05, 2.0, 0.45, "the same of the thickest eighth of the wall", ratio=True),
    Measure("thickening", -0.5, 2.0, 0.9, "growth of the wall's thickness until end-systole"),
    Measure("shortening", -0.2, 1.0, 0.43, "shortening of the pool's radius"),
    Measure("worst_sector", -0.5, 1.0, 0.3, "the same of the tenth of all sectors that shorten least"),
)
CELLS = {measure.name: number for number, measure in enumerate(MEASURES, start=1)}
_CONFIDENCE = 1 + len(MEASURES)


def encode(measures: dict[str, float], confidence: float, tiles: Picture, contours: NDArray[np.float32]) -> Picture:
    """The array (133, 512). measures: {} for none. tiles: (2, S, 64, 64), contours: (S, 4, 64) pixels of the scaled picture."""
    array = np.zeros(SHAPE, np.uint8)
    if measures:
        array[0, 0] = 255
        for measure in MEASURES:
            array[0, CELLS[measure.name]] = round(measure.level(measures[measure.name]))
        array[0, _CONFIDENCE] = round(255 * min(max(confidence, 0.0), 1.0))
    for number in range(len(contours)):
        columns = slice(number * TILE, (number + 1) * TILE)
        array[1:5, columns] = np.clip(np.rint(contours[number] * _QUARTERS), 0, 255)
        array[5 : 5 + TILE, columns] = tiles[0, number]
        array[5 + TILE :, columns] = tiles[1, number]
    return array


def normal_levels(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Arrays (..., 133, 512) with a normal heart's measures in place of their own; the rest stays as it is."""
    normal = array.copy()
    for measure in MEASURES:
        normal[..., 0, CELLS[measure.name]] = round(measure.level(measure.normal))
    return normal


def was_found(array: Picture) -> bool:
    """Whether an array holds a heart."""
    return bool(array[0, 0])


def measures_of(array: Picture) -> dict[str, float]:
    """The measures of an array, to the step of its levels; {} where no heart was found."""
    if not was_found(array):
        return {}
    return {measure.name: measure.value(float(array[0, CELLS[measure.name]])) for measure in MEASURES}


def confidence_of(array: Picture) -> float:
    """How sure the axis is, 0 to 1."""
    return float(array[0, _CONFIDENCE]) / 255


def drawn(array: Picture, zoom: int = 2) -> Picture:
    """The slices with both contours, uint8 RGB (2 * 64 * zoom, S * 64 * zoom, 3): end-diastole above, end-systole below."""
    from PIL import Image, ImageDraw

    count = max(1, int((array[1:5].reshape(4, SLICES, TILE).max((0, 2)) > 0).sum()))
    side = TILE * zoom
    canvas = Image.new("RGB", (count * side, 2 * side))
    angle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    for number in range(count):
        columns = slice(number * TILE, (number + 1) * TILE)
        for moment in (0, 1):
            tile = Image.fromarray(array[5 + moment * TILE : 5 + (moment + 1) * TILE, columns]).convert("RGB")
            tile = tile.resize((side, side), Image.Resampling.BILINEAR)
            pen = ImageDraw.Draw(tile)
            for row, colour in ((1, (255, 80, 80)), (2, (80, 255, 80))):
                radius = array[row + 2 * moment, columns] / _QUARTERS / ZOOM * zoom
                if radius.any():
                    points = [(side / 2 + r * np.cos(a), side / 2 + r * np.sin(a)) for r, a in zip(radius, angle, strict=True)]
                    pen.line([*points, points[0]], fill=colour, width=1)
            canvas.paste(tile, (number * side, moment * side))
    return np.asarray(canvas)
