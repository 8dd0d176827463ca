"""The paper of an ECG sheet -> the rendering `image`: cut out of the upright picture, fitted to a size with its aspect kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.imaging.sheet import Mask, Pixels, Sheet, upright

if TYPE_CHECKING:
    from cardium.imaging.spec import Render


def render_paper(pixels: Pixels, sheet: Sheet, height: int, width: int) -> Pixels:
    """The paper of a picture uint8 (H, W, 3) as uint8 (height, width, 3): aspect kept, centred, padded with paper white.

    Header and footer are outside of it: they print the patient's number, the date, the heart rate and the diagnosis.
    """
    left, top, right, bottom = sheet.paper
    crop = upright(pixels, sheet)[top:bottom, left:right]
    scale, place, inner = _fit(crop.shape[0], crop.shape[1], height, width)
    resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(np.ascontiguousarray(crop)).resize(inner, resampling))
    white: NDArray[Any] = np.percentile(small.reshape(-1, 3), 90, axis=0)
    out = np.empty((height, width, 3), np.uint8)
    out[:] = np.rint(white).astype(np.uint8)
    out[place] = small
    return out


def fit_to_paper(mask: Mask, sheet: Sheet, size: Render) -> Mask:
    """A mask (H, W) of the upright picture, fitted as `render_paper` fits the picture; False around the paper."""
    left, top, right, bottom = sheet.paper
    crop = Image.fromarray(mask[top:bottom, left:right].astype(np.uint8) * 255)
    _, place, inner = _fit(crop.height, crop.width, size.height, size.width)
    out = np.zeros((size.height, size.width), np.bool_)
    out[place] = np.asarray(crop.resize(inner, Image.Resampling.BOX)) >= 128
    return out


def _fit(rows: int, columns: int, height: int, width: int) -> tuple[float, tuple[slice, slice], tuple[int, int]]:
    """How (rows, columns) fits into (height, width): the scale, the place that it takes, and its (width, height) there."""
    scale = min(height / rows, width / columns)
    inner = (max(1, min(width, round(columns * scale))), max(1, min(height, round(rows * scale))))
    y, x = (height - inner[1]) // 2, (width - inner[0]) // 2
    return scale, (slice(y, y + inner[1]), slice(x, x + inner[0])), inner
