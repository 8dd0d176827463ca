"""Random views of a record for training, as a function of (seed, view, record) alone.

An image gets one affine resample; an ECG sheet's brightness and the colour of its grid vary too. The planes of leads are moved
and scaled together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardium.imaging.kinds import LEADS
from cardium.imaging.trace_format import BEAT, BEFORE, LEVELS, MEASUREMENTS, MIDDLE, STEP

if TYPE_CHECKING:
    from cardium.imaging.spec import Augment


def affine_matrix(
    rotation: float,
    shift_x: float,
    shift_y: float,
    shear: float,
    zoom_x: float,
    zoom_y: float,
    flip: bool,
    height: int,
    width: int,
) -> np.ndarray:
    """The 3x3 matrix from output to input coordinates (row, column, 1), about the image's centre.

    rotation and shear in degrees, shifts in pixels, zooms as factors (below 1 enlarges), composed in (x, y) as Keras'
    ImageDataGenerator does: rotation, shift, shear, zoom; the flip is applied to the result.
    """
    theta, phi = np.deg2rad(rotation), np.deg2rad(shear)
    rotate = np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]])
    move = np.array([[1, 0, shift_x], [0, 1, shift_y], [0, 0, 1]])
    slant = np.array([[1, -np.sin(phi), 0], [0, np.cos(phi), 0], [0, 0, 1]])
    scale = np.diag([zoom_x, zoom_y, 1])
    to_centre = np.array([[1, 0, width / 2 - 0.5], [0, 1, height / 2 - 0.5], [0, 0, 1]])
    from_centre = np.array([[1, 0, 0.5 - width / 2], [0, 1, 0.5 - height / 2], [0, 0, 1]])
    matrix = to_centre @ rotate @ move @ slant @ scale @ from_centre
    if flip:
        matrix = matrix @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]])
    # Arrays are indexed (row, column), that is (y, x).
    return matrix[np.ix_([1, 0, 2], [1, 0, 2])]


def random_matrix(settings: Augment, seed: int, view: int, record: int, height: int, width: int) -> np.ndarray:
    """The affine matrix of one record in one view; a pure function of its arguments."""
    draw = np.random.default_rng([seed, view, record])
    rotation = draw.uniform(-settings.rotation, settings.rotation)
    shift_x = draw.uniform(-settings.shift, settings.shift) * width
    shift_y = draw.uniform(-settings.shift, settings.shift) * height
    shear = draw.uniform(-settings.shear, settings.shear)
    zoom_x, zoom_y = draw.uniform(1 - settings.zoom, 1 + settings.zoom, 2)
    flip = bool(settings.flip and draw.random() < 0.5)
    return affine_matrix(rotation, shift_x, shift_y, shear, zoom_x, zoom_y, flip, height, width)


def resample(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Applies an affine matrix to (H, W, 3) uint8 pixels: bilinear, edges repeated outwards; uint8 out."""
    # Cardiac images are grey: three equal channels need one resample.
    if np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2]):
        return np.repeat(_resample_channels(pixels[..., :1], matrix), 3, axis=-1)
    return _resample_channels(pixels, matrix)


def _resample_channels(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    from scipy.ndimage import affine_transform

    moved = [
        affine_transform(pixels[..., c].astype(np.float32), matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest")
        for c in range(pixels.shape[-1])
    ]
    return np.rint(np.stack(moved, axis=-1)).astype(np.uint8)


def vary_colour(pixels: np.ndarray, brightness: float, grid: float) -> np.ndarray:
    """Multiplies the levels of uint8 (H, W, 3) by `brightness`, and its colour (the distance from grey) by `grid`; uint8 out.

    The traces of an ECG sheet are black, its grid is coloured: scaling colour alone fades or strengthens the grid.
    """
    levels = pixels.astype(np.float32)
    lightest = levels.max(axis=2, keepdims=True)
    varied = (lightest + (levels - lightest) * grid) * brightness
    return np.rint(np.clip(varied, 0, 255)).astype(np.uint8)


def augment_batch(pixels: np.ndarray, records: np.ndarray, settings: Augment, seed: int, view: int) -> np.ndarray:
    """The `view`-th random view of each record; same shape, uint8.

    pixels: uint8, images (n, H, W, 3), leads (n, 13, H, W) or traces (n, 16, 96); `settings` does not apply to traces. records:
    (n,) their numbers.
    """
    if pixels.ndim == 3:
        views = [
            augment_traces(one[None], np.random.default_rng([seed, view, int(number)]))
            for one, number in zip(pixels, records, strict=True)
        ]
        return np.concatenate(views)
    images = pixels.ndim == 4 and pixels.shape[-1] == 3
    return np.stack(
        [
            (_augment_image if images else _augment_planes)(record, settings, (seed, view, int(number)))
            for record, number in zip(pixels, records, strict=True)
        ]
    )


def _augment_image(image: np.ndarray, settings: Augment, key: tuple[int, int, int]) -> np.ndarray:
    height, width = image.shape[:2]
    view = resample(image, random_matrix(settings, *key, height, width))
    if not (settings.brightness or settings.grid):
        return view
    # A generator of its own: the affine's numbers stay what they are without colour.
    draw = np.random.default_rng([*key, 1])
    brightness = draw.uniform(1 - settings.brightness, 1 + settings.brightness)
    return vary_colour(view, brightness, draw.uniform(1 - settings.grid, 1 + settings.grid))


def _augment_planes(planes: np.ndarray, settings: Augment, key: tuple[int, int, int]) -> np.ndarray:
    height, width = planes.shape[1:]
    matrix = random_matrix(settings, *key, height, width)
    return np.moveaxis(_resample_channels(np.moveaxis(planes, 0, -1), matrix), -1, 0)


def augment_traces(
    batch: NDArray[np.uint8],
    draw: np.random.Generator,
    *,
    gain: float = 0.25,
    shift: int = 2,
    stretch: float = 0.08,
    noise: float = 0.03,
    drop: float = 0.1,
    jitter: float = 0.4,
) -> NDArray[np.uint8]:
    """A random view of traces, uint8 (n, 16, 96); same shape, uint8. It depends on the batch and on `draw`'s state alone.

    gain: beats are scaled by up to this share, all leads alike. shift: samples, to both sides. stretch: of time about the
    QRS, as a share. noise: mV, standard deviation, per sample. drop: probability that a lead's beat becomes flat. jitter:
    standard deviation of the noise on the measurements, in their units, independent in every cell.
    """
    out = batch.copy()
    leads = len(LEADS)
    x = np.arange(BEAT, dtype=np.float64)
    for number, record in enumerate(batch):
        scale = 1 + draw.uniform(-gain, gain)
        moved = draw.integers(-shift, shift + 1)
        at = np.clip(BEFORE + (x - BEFORE - moved) * (1 + draw.uniform(-stretch, stretch)), 0, BEAT - 1)
        beats = record[:leads].astype(np.float64) - MIDDLE
        beats = scale * np.stack([np.interp(at, x, beat) for beat in beats])
        beats += draw.normal(0, noise / STEP, beats.shape)
        beats[draw.random(leads) < drop] = 0.0
        out[number, :leads] = np.clip(np.rint(MIDDLE + beats), 0, 255).astype(np.uint8)
        cells = out[number, leads:].reshape(-1)
        count = len(MEASUREMENTS)
        varied = cells[:count] + draw.normal(0, LEVELS * jitter, count)
        cells[:count] = np.clip(np.rint(varied), 0, 255).astype(np.uint8)
    return out
