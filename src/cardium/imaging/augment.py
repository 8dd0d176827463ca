"""Random views of an image for training: one affine resample each, as a function of (seed, view, record) alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cardium.params import Augment


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
    from scipy.ndimage import affine_transform

    def channel(plane: np.ndarray) -> np.ndarray:
        moved = affine_transform(plane.astype(np.float32), matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest")
        return np.rint(moved).astype(np.uint8)

    first = channel(pixels[..., 0])
    # Cardiac images are grey: three equal channels need one resample.
    if np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2]):
        return np.repeat(first[..., None], 3, axis=-1)
    return np.stack([first, channel(pixels[..., 1]), channel(pixels[..., 2])], axis=-1)


def augment_batch(pixels: np.ndarray, records: np.ndarray, settings: Augment, seed: int, view: int) -> np.ndarray:
    """The `view`-th random view of each of `pixels` (n, H, W, 3) uint8, whose record numbers are `records` (n,)."""
    height, width = pixels.shape[1:3]
    return np.stack(
        [
            resample(image, random_matrix(settings, seed, view, int(record), height, width))
            for image, record in zip(pixels, records, strict=True)
        ]
    )
