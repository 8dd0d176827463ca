"""A picture of a 12-lead ECG sheet -> where its paper and its 13 leads are, found from the pixels alone.

Every row of a printed ECG begins with a calibration pulse: a box as high as 1 mV, all at the same place along the paper. They
are what this looks for: vertical strokes of one height, one above the other, in pairs. Their feet are the rows' baselines,
their left edge and the end of the traces the time axis, their number the layout: four rows are 3x4 leads and a strip, seven
6x2 and a strip, six 6x2. A sheet without them is read from its rows alone: equally spaced lines that ink follows from one
end to the other. The lead boxes are those of system 003 (pixel tables, picked by class and file number in the original),
moved and scaled to the rows and the time axis that were found.

Nothing but pixels decides: no file name, no picture size. The same sheet at another size, or turned by a few degrees, has the
same boxes up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6", "rhythm")

NOTHING = "no ECG grid or traces found"
UNKNOWN = "the layout of the leads was not recognised"
PART = "part of the sheet is missing"
UPSIDE_DOWN = "looks upside down"
SIDEWAYS = "looks turned on its side"

# Longest side of the copy that is searched.
_SEARCHED = 1240
# Time axis in units of pulse's left edge (0) to the traces' end (1): where 003's columns begin and end.
_COLUMNS = {4: (0.017, 0.265, 0.5105, 0.756, 1.0015), 2: (0.017, 0.508, 1.0015)}
_LAYOUTS = {4: "3x4+1", 6: "6x2", 7: "6x2+1"}
# Length of the time axis over the distance of the first and the last row; a sheet half of which is cut away is outside.
_ASPECT = {4: (1.75, 2.65), 6: (1.6, 3.0), 7: (1.6, 2.4)}
# The time axis (10 s at 25 mm/s and the pulse) in heights of the pulse (10 mm).
_LENGTH_IN_PULSES = 25.3


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


@dataclass(frozen=True)
class _Pulses:
    """The calibration pulses: their left edge, height, and each row's baseline (their feet), in pixels of the mask."""

    left: float
    width: float
    height: float
    baselines: NDArray[np.float64]
    paired: bool


def find_sheet(pixels: Pixels) -> Sheet:
    """The sheet in a picture uint8 (H, W, 3) of any resolution; never raises on a valid picture."""
    height, width = pixels.shape[:2]
    reduction = max(height, width) / _SEARCHED
    small = pixels
    if reduction > 1:
        size = (max(1, round(width / reduction)), max(1, round(height / reduction)))
        small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    scale = height / small.shape[0]
    traces = ink(small)
    if min(small.shape[:2]) < 64 or not (traces > 0.5).any():
        return _plain_grid(height, width, (NOTHING,))
    angle = _angle(traces > 0.5)
    if angle:
        traces = _turn(traces, angle)
        small = np.asarray(Image.fromarray(small).rotate(angle, Image.Resampling.BILINEAR, fillcolor=(255, 255, 255)))
    mask = traces > 0.4

    pulses = _find_pulses(mask)
    turned = None if pulses else _find_pulses(mask[::-1, ::-1])
    if turned:
        found = _lay_out(mask[::-1, ::-1], small[::-1, ::-1], turned, scale, height, width, angle + 180.0)
        return _doubt(found, UPSIDE_DOWN) if found else _plain_grid(height, width, (UPSIDE_DOWN,))
    if pulses:
        found = _lay_out(mask, small, pulses, scale, height, width, angle)
        return found if found else _plain_grid(height, width, (PART,))
    return _plain_grid(height, width, (UNKNOWN,))


def _lay_out(mask: Mask, small: Pixels, pulses: _Pulses, scale: float, height: int, width: int, angle: float) -> Sheet | None:
    rows = pulses.baselines
    if len(rows) not in _LAYOUTS:
        return None
    span = float(rows[-1] - rows[0])
    end = _traces_end(mask, pulses)
    expected = pulses.left + _LENGTH_IN_PULSES * pulses.height
    low, high = _ASPECT[len(rows)]
    aspect = (end - pulses.left) / span
    warnings: tuple[str, ...] = ()
    confidence = 0.95 if pulses.paired else 0.75
    if aspect < low or aspect > high:
        return None
    length = end - pulses.left
    del expected
    columns = 4 if len(rows) == 4 else 2
    xs = [pulses.left + length * share for share in _COLUMNS[columns]]
    middles = (rows[1:] + rows[:-1]) / 2
    pitch = span / (len(rows) - 1)
    if columns == 4:
        middles = rows[:-1] + 0.46 * pitch
    top = rows[0] - (0.53 * pitch if columns == 4 else 0.55 * pitch)
    bottom = rows[-1] + (0.33 * pitch if columns == 4 else 0.40 * pitch)
    ys = [top, *middles, bottom]
    strip = len(rows) != 6
    lead_rows = len(rows) - strip

    def box(left: float, upper: float, right: float, lower: float) -> Box:
        return _box(left * scale, upper * scale, right * scale, lower * scale, height, width)

    leads = [box(xs[c], ys[r], xs[c + 1], ys[r + 1]) for c in range(columns) for r in range(lead_rows)]
    leads.append(box(xs[0], ys[-2], xs[-1], ys[-1]) if strip else leads[1])
    paper = box(xs[0], ys[0], xs[-1], ys[-1])
    return Sheet(_LAYOUTS[len(rows)], angle, paper, tuple(leads), confidence, warnings)


def _doubt(sheet: Sheet, warning: str) -> Sheet:
    return Sheet(sheet.layout, sheet.angle, sheet.paper, sheet.leads, min(sheet.confidence, 0.4), (*sheet.warnings, warning))


def _angle(mask: Mask) -> float:
    """Degrees that the picture must be turned by to be upright: the angle at which ink is gathered in fewest rows and columns."""
    y, x = np.nonzero(mask)
    step = max(1, len(x) // 30_000)
    y, x = y[::step].astype(np.float64), x[::step].astype(np.float64)
    height, width = mask.shape
    side = height + width

    def gathered(degrees: float) -> float:
        sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
        across = np.bincount((y * cosine - x * sine + side).astype(np.int64), minlength=1)
        along = np.bincount((x * cosine + y * sine + side).astype(np.int64), minlength=1)
        return float((across.astype(np.float64) ** 2).sum() + (along.astype(np.float64) ** 2).sum())

    still = gathered(0.0)
    coarse = max(np.arange(-8, 8.01, 0.5), key=lambda degrees: (gathered(degrees), -abs(degrees)))
    fine = max(coarse + np.arange(-0.5, 0.501, 0.1), key=lambda degrees: (gathered(degrees), -abs(degrees)))
    best = float(round(fine, 2))
    return best if abs(best) >= 0.15 and gathered(best) > 1.03 * still else 0.0


def _turn(traces: NDArray[np.float32], angle: float) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(traces).rotate(angle, Image.Resampling.BILINEAR, fillcolor=0))


def _find_pulses(mask: Mask) -> _Pulses | None:
    """The calibration pulses, or None.

    A stroke is a vertical run of ink; a column of the picture with three or more strokes of one length is a candidate, and the
    pulses are the longest such family whose strokes come twice, a little apart. (The letter I of leads I, II, III and II is
    such a family too, but a shorter one.)
    """
    height, width = mask.shape
    # One pixel to both sides: strokes that lean a little stay whole.
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    left = np.nonzero(mask.any(axis=0))[0]
    if left.size == 0:
        return None
    reach = min(width, int(left[0] + 0.3 * width))
    padded = np.zeros((reach, height + 2), np.int8)
    padded[:, 1:-1] = wide[:, :reach].T
    change = np.diff(padded, axis=1)
    column, begin = np.nonzero(change == 1)
    finish = np.nonzero(change == -1)[1]
    length = finish - begin
    keep = (length >= max(6, 0.01 * height)) & (length <= 0.14 * height)
    column, begin, finish, length = column[keep], begin[keep], finish[keep], length[keep]
    families: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]] = []
    bounds = np.searchsorted(column, np.arange(reach + 1))
    for x in range(reach):
        lengths = length[bounds[x] : bounds[x + 1]]
        if len(lengths) < 3:
            continue
        alike = np.abs(lengths[:, None] - lengths[None, :]) <= np.maximum(1.5, 0.08 * lengths[:, None])
        count = alike.sum(axis=1)
        for member in np.unique(alike[count >= 3], axis=0):
            families.append((x, begin[bounds[x] : bounds[x + 1]][member], finish[bounds[x] : bounds[x + 1]][member]))
    best: tuple[tuple[float, ...], _Pulses] | None = None
    for x, tops, feet in families:
        size = float(np.median(feet - tops))
        partner = 0
        for other, _, other_feet in families:
            gap = other - x
            if not 3 <= gap <= 1.1 * size:
                continue
            shared = np.abs(other_feet[:, None] - feet[None, :]).min(axis=0) <= 2
            if shared.sum() == len(feet) and gap > partner:
                partner = gap
        found = _Pulses(x + 1.0, float(partner), size, feet - 1.0, partner > 0)
        rank = (float(partner > 0), min(len(feet), 7), round(size / 4), -x)
        if best is None or rank > best[0]:
            best = rank, found
    return best[1] if best else None


def _traces_end(mask: Mask, pulses: _Pulses) -> float:
    """Where the traces end: the last column with ink in at least half of the rows."""
    rows = pulses.baselines
    reach = 0.4 * float(np.diff(rows).min())
    inside = np.zeros(mask.shape[1], np.int64)
    for baseline in rows:
        upper, lower = max(0, round(baseline - reach)), min(mask.shape[0], round(baseline + reach))
        inside += mask[upper:lower].any(axis=0)
    covered = np.nonzero(inside * 2 >= len(rows))[0]
    return float(covered[-1] + 1) if covered.size else float(mask.shape[1])


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
