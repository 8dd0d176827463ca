"""Decoded pixels -> the array that a model takes. Training (prepare) and serving render through the same function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.errors import CardiumError


def render_image(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) -> uint8 (height, width, 3): stretched to the size (aspect not kept, as system 000 does it), bilinear.

    Pillow widens the filter when it shrinks (antialiasing), in fixed-point arithmetic: the same bytes on every machine.
    Raises CardiumError for another shape or type.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise CardiumError(f"render_image takes uint8 (height, width, 3), got {pixels.dtype} {pixels.shape}.")
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
