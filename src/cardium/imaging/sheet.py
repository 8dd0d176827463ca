"""A picture of a 12-lead ECG sheet -> where its paper and its 13 leads are, found from the pixels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]
Pixels = NDArray[np.uint8]

LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6", "rhythm")


@dataclass(frozen=True)
class Sheet:
    """Where the leads are. Boxes are (left, top, right, bottom), right and bottom exclusive, in the upright picture.

    layout: "3x4+1", "6x2+1", "6x2" (no rhythm strip) or "grid" (not recognised: a plain grid over the picture).
    angle: degrees that `upright` turns the picture by, about its centre. leads: 13 boxes in the order of LEADS; without a
    rhythm strip the last is lead II's. confidence: 0-1. warnings: plain words for a user; empty when all is well.
    """

    layout: str
    angle: float
    paper: Box
    leads: tuple[Box, ...]
    confidence: float
    warnings: tuple[str, ...]


def find_sheet(pixels: Pixels) -> Sheet:
    """The sheet in a picture uint8 (H, W, 3) of any resolution; never raises on a valid picture."""
    height, width = pixels.shape[:2]
    return _plain_grid(height, width, ("the layout of the leads was not recognised",))


def _plain_grid(height: int, width: int, warnings: tuple[str, ...]) -> Sheet:
    """Three rows of four and a strip, where most sheets have them: below a header and above a footer."""
    left, right = round(0.055 * width), round(0.965 * width)
    top, bottom = round(0.19 * height), round(0.945 * height)
    columns = np.rint(np.linspace(left, right, 5)).astype(int).tolist()
    rows = np.rint(np.linspace(top, bottom, 5)).astype(int).tolist()
    boxes = [_box(columns[c], rows[r], columns[c + 1], rows[r + 1], height, width) for c in range(4) for r in range(3)]
    strip = _box(left, rows[3], right, rows[4], height, width)
    paper = _box(left, top, right, bottom, height, width)
    return Sheet("grid", 0.0, paper, (*boxes, strip), 0.0, warnings)


def _box(left: float, top: float, right: float, bottom: float, height: int, width: int) -> Box:
    """Rounded, inside the picture, at least one pixel."""
    x0, y0 = min(max(round(left), 0), width - 1), min(max(round(top), 0), height - 1)
    return x0, y0, min(max(round(right), x0 + 1), width), min(max(round(bottom), y0 + 1), height)


def upright(pixels: Pixels, sheet: Sheet) -> Pixels:
    """The picture turned by the sheet's angle about its centre, same size, bilinear, corners white; uint8 (H, W, 3)."""
    if sheet.angle == 0.0:
        return pixels
    turned = Image.fromarray(pixels).rotate(sheet.angle, Image.Resampling.BILINEAR, fillcolor=(255, 255, 255))
    return np.asarray(turned)


def render_paper(pixels: Pixels, sheet: Sheet, height: int, width: int) -> Pixels:
    """The paper area as uint8 (height, width, 3): aspect kept, centred, padded with the paper's own white.

    Header and footer are outside it: they print the patient's number, the date, the heart rate and the diagnosis.
    """
    left, top, right, bottom = sheet.paper
    crop = upright(pixels, sheet)[top:bottom, left:right]
    scale = min(height / crop.shape[0], width / crop.shape[1])
    inner = (max(1, min(width, round(crop.shape[1] * scale))), max(1, min(height, round(crop.shape[0] * scale))))
    resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(np.ascontiguousarray(crop)).resize(inner, resampling))
    white: NDArray[Any] = np.percentile(small.reshape(-1, 3), 90, axis=0)
    out = np.empty((height, width, 3), np.uint8)
    out[:] = np.rint(white).astype(np.uint8)
    y, x = (height - inner[1]) // 2, (width - inner[0]) // 2
    out[y : y + inner[1], x : x + inner[0]] = small
    return out


def ink(pixels: Pixels) -> NDArray[np.float32]:
    """How much trace there is in each pixel, float32 (H, W), 0 = paper or grid, 1 = the blackest line of the picture.

    Coloured grid lines are bright in at least one channel, so the brightest channel hides them; shading (photographs) goes
    by the division by the local paper white; grey grid lines go because they are fainter than half of the trace.
    """
    from scipy.ndimage import maximum_filter, uniform_filter

    brightest = pixels.max(axis=2)
    height, width = brightest.shape
    side = max(1, round(max(height, width) / 160))
    small = Image.fromarray(brightest).resize((-(-width // side), -(-height // side)), Image.Resampling.BOX)
    white = uniform_filter(maximum_filter(np.asarray(small, np.float32), 7, mode="nearest"), 7, mode="nearest")
    paper = np.asarray(Image.fromarray(white).resize((width, height), Image.Resampling.BILINEAR))
    dark = np.clip(1 - brightest / np.maximum(paper, 1), 0, 1).astype(np.float32)
    drawn = dark[dark > 0.12]
    if drawn.size < 16:
        return np.zeros_like(dark)
    black = max(float(np.percentile(drawn, 90)), 0.2)
    return np.clip((dark / black - 0.35) / 0.4, 0, 1)
