"""A sheet's 13 leads -> one array of small black pictures with white traces, as system 003 takes them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from cardium.imaging.sheet import Pixels, Sheet, ink, upright

# Pixels of the working raster for one output pixel: the 3x3 maximum acts there, so that it thickens the trace by the same
# share of a lead at any resolution of the picture.
_FINE = 4
# Longest side of the picture that leads are cut from.
_LARGEST = 2240
# How much longer the raster of a lead is at most: a rhythm strip of ten seconds is stretched by four.
_LONGEST = 16


def render_leads(pixels: Pixels, sheet: Sheet, height: int, width: int) -> np.ndarray:
    """Renders the leads of a picture uint8 (H, W, 3) as uint8 (13, height, width), in the order of LEADS; 255 = trace.

    As in system 003: crop, grey, inverted, 3x3 maximum, resized (area average); but without the grid.
    """
    from scipy.ndimage import maximum_filter

    # Pictures of large cameras say no more of a lead than the published scans (2213 x 1572) do, and cost seconds.
    reduction = max(1.0, max(pixels.shape[:2]) / _LARGEST)
    if reduction > 1:
        size = (round(pixels.shape[1] / reduction), round(pixels.shape[0] / reduction))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    trace = np.rint(255 * ink(upright(pixels, sheet))).astype(np.uint8)
    out = np.empty((len(sheet.leads), height, width), np.uint8)
    for number, box in enumerate(sheet.leads):
        left, top = int(box[0] / reduction), int(box[1] / reduction)
        right, bottom = max(left + 1, round(box[2] / reduction)), max(top + 1, round(box[3] / reduction))
        crop = np.ascontiguousarray(trace[top:bottom, left:right])
        # A long lead (a strip) is shrunk more along time than a short one: it needs a longer raster to keep its spikes.
        stretch = min(max(1, round((right - left) / (bottom - top) / 2)), _LONGEST)
        fine = (_FINE * height, _FINE * stretch * width)
        # Where even the raster is coarser than the picture, thin lines are first made as thick as its pixels.
        thick = (max(1, round(crop.shape[0] / fine[0])), max(1, round(crop.shape[1] / fine[1])))
        raster = _resize(maximum_filter(crop, thick) if max(thick) > 1 else crop, *fine)
        out[number] = _resize(thickened(raster), height, width)
    return out


def thickened(raster: np.ndarray) -> np.ndarray:
    """The largest of each pixel's 3 x 3: scipy.ndimage.maximum_filter(raster, 3), several times as fast. uint8 (H, W)."""
    tall = raster.copy()
    np.maximum(tall[1:], raster[:-1], out=tall[1:])
    np.maximum(tall[:-1], raster[1:], out=tall[:-1])
    out = tall.copy()
    np.maximum(out[:, 1:], tall[:, :-1], out=out[:, 1:])
    np.maximum(out[:, :-1], tall[:, 1:], out=out[:, :-1])
    return out


def _resize(grey: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area average along an axis that shrinks, bilinear along one that grows."""
    image = Image.fromarray(grey)
    for size, shrinks in (((width, image.height), width < image.width), ((width, height), height < image.height)):
        image = image.resize(size, Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
    return np.asarray(image)
