"""A picture of a 12-lead ECG sheet -> where its paper and its 13 leads are, found from the pixels alone.

Every row of a printed ECG begins with a calibration pulse: a box as high as 1 mV, all at the same place along the paper. The
search is for these pulses: vertical strokes of one height, one above the other, in pairs. Their feet are the rows' baselines,
their left edge and the end of the traces the time axis, their number the layout: four rows are 3x4 leads and a strip, seven
6x2 and a strip, six 6x2. A sheet without them is read from its rows alone: equally spaced lines that ink follows from one
end to the other. The lead boxes are those of system 003 (pixel tables, picked by class and file number in the original),
moved and scaled to the rows and the time axis that were found.

Nothing but pixels decides: no file name, no picture size. The same sheet at another size, or turned by a few degrees, has the
same boxes but for a few pixels. How often it is right on real sheets: benchmarks/sheet_layout.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.imaging import channels
from cardium.imaging.kinds import LEADS as LEADS
from cardium.imaging.lead_grid import BANDS, LeadGrid, find_grid, lit_part
from cardium.imaging.lead_map import HALF_TURN, NO_SHEET, see_leads
from cardium.imaging.paper_scale import pixels_per_mm

Box = tuple[int, int, int, int]
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

NOTHING = "no ECG grid or traces found"
UNKNOWN = "the layout of the leads was not recognised"
UNSURE = "the layout of the leads is uncertain"
PART = "part of the sheet is missing"
UPSIDE_DOWN = "looks upside down"
SIDEWAYS = "looks turned on its side"

# Longest side of the copy that is searched.
_SEARCHED = 1240
_SMALLEST = 64
# Darkness (1 = the blackest lines) above which ink is a trace; pulses may be printed fainter.
_TRACE = 0.5
_LEVELS = (0.55, 0.3)
# Quality of the rows: enough to lay the boxes on them; so good that nothing else needs to be tried.
_ENOUGH, _SURE = 0.65, 0.85
# How sure a lead map's grid must be; below the second, it says nothing.
_MAP_SURE, _SOME = 0.7, 0.1
# How sure the lead map must be that a picture is upside down.
_TURNED = 0.7
_READ = ("3x4", "3x4+1", "3x4+2", "3x4+3", "6x2", "6x2+1", "12x1")
# How far columns may lean, in pixels along for each pixel down.
_LEANS = (-0.02, -0.01, 0.01, 0.02)
# Paper is mostly white: the share of ink above which a picture is no sheet.
_INKED = 0.11
# Time axis in units of pulse's left edge (0) to the traces' end (1): where 003's columns begin and end.
_COLUMNS = {4: (0.017, 0.265, 0.5105, 0.756, 1.0015), 2: (0.017, 0.508, 1.0015)}
_LAYOUTS = {4: "3x4+1", 6: "6x2", 7: "6x2+1"}
# Length of the time axis over the distance of the first and the last row; a sheet half of which is cut away is outside.
_ASPECT = {4: (1.75, 2.65), 6: (1.6, 3.0), 7: (1.6, 2.4)}
# The time axis (10 s at 25 mm/s and the pulse) in heights of the pulse (10 mm).
_LENGTH_IN_PULSES = 25.3
# A row of nearly every printer: ten seconds at 25 mm/s.
_ROW_MM = 250
# Rows that end this near to the border, as a share of the width, may be cut off there: they are, where they are shorter
# than this, in mm by the grid or the pulses, or over the distance of two rows, by columns.
_BORDER = 0.03
_CUT_MM = 210
_CUT_SHAPE = {4: 5.6, 2: 8.0}
# Less paper above the middle of the first row, as a share of the distance of two rows, is a row that is cut.
_CUT_ABOVE = 0.4


@dataclass(frozen=True)
class Sheet:
    """The places of the leads. Boxes are (left, top, right, bottom), right and bottom exclusive, in the upright picture.

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
    pixels_per_mm: float = 0.0


@dataclass(frozen=True)
class _Rows:
    """The rows of a sheet, in pixels of the searched copy: their baselines and the time axis, from the pulses' left edge.

    pulse: the pulses' height, 0 if none were found.
    """

    baselines: NDArray[Any]
    left: float
    right: float
    pulse: float

    @property
    def length(self) -> float:
        return self.right - self.left

    @property
    def span(self) -> float:
        return float(self.baselines[-1] - self.baselines[0])

    @property
    def whole(self) -> bool:
        """As many rows as a layout has, as far apart as the length of the time axis asks for.

        Machines that space rows by their leads' height do so on sheets without a strip only.
        """
        gaps = np.diff(self.baselines)
        even = len(self.baselines) == 6 or bool((np.abs(gaps / gaps.mean() - 1) < 0.12).all())
        low, high = _ASPECT.get(len(self.baselines), (1.0, 0.0))
        return even and low <= self.length / self.span <= high


def find_sheet(pixels: Pixels) -> Sheet:
    """Finds the sheet in a picture uint8 (H, W, 3) of any resolution; never raises on a valid picture."""
    sheet = _find(pixels)
    if not sheet.warnings and _is_cut_off(sheet, pixels.shape[1]):
        return replace(sheet, confidence=min(sheet.confidence, 0.4), warnings=(PART,))
    return sheet


def _is_cut_off(sheet: Sheet, width: int) -> bool:
    """Whether rows that reach the picture's border are too short for ten seconds, or the first row is cut.

    Tight pictures of whole sheets are neither.
    """
    left, _, right, _ = sheet.paper
    rows, columns = (int(number) for number in sheet.layout.partition("+")[0].split("x"))
    middles = [(top + bottom) / 2 for _, top, _, bottom in sheet.leads[:rows]]
    pitch = (middles[-1] - middles[0]) / (rows - 1) if rows > 1 else 0.0
    if middles[0] < _CUT_ABOVE * pitch:
        return True
    return _at_border(left, right, width) and right - left < max(
        _CUT_MM * sheet.pixels_per_mm, _CUT_SHAPE.get(columns, 0.0) * pitch
    )


def _at_border(left: float, right: float, width: int) -> bool:
    return left <= _BORDER * width or right >= (1 - _BORDER) * width


def _find(pixels: Pixels) -> Sheet:
    height, width = pixels.shape[:2]
    search = _Search.of(pixels)
    if search is None:
        return _plain_grid(height, width, (NOTHING,))
    rows, quality = _best_by_pulses(search.dark)
    if rows and quality >= _SURE and _complete(rows, search.dark):
        return search.laid_out(rows, quality)
    upside_down = _find_upside_down(search, quality)
    if upside_down is not None:
        return upside_down
    by_map = _find_by_map(pixels)
    if by_map is not None and not by_map.warnings:
        return by_map
    by_ink = _find_by_ink(search)
    if by_map is None or by_map.confidence < _SOME:
        return by_ink
    # Both are unsure: where they agree, the sheet is found.
    if by_ink.layout == by_map.layout and not by_ink.warnings:
        return by_ink
    return replace(by_map, warnings=by_ink.warnings or by_map.warnings)


def _find_by_map(pixels: Pixels) -> Sheet | None:
    """The sheet as the lead map shows it; None where it shows none."""
    height, width = pixels.shape[:2]
    found = see_leads(pixels)
    if found.turned[NO_SHEET] > 0.9:
        return None
    turned = found.turned[HALF_TURN] > _TURNED
    if turned:
        pixels = np.ascontiguousarray(pixels[::-1, ::-1])
        found = see_leads(pixels)
    grid = find_grid(found)
    # A sheet that fills only a part of the picture is looked at again, larger.
    part = lit_part(found, height, width)
    if part is not None:
        left, top, right, bottom = part
        closer = find_grid(see_leads(np.ascontiguousarray(pixels[top:bottom, left:right])))
        if closer is not None and (grid is None or closer.sure > grid.sure):
            grid = replace(closer, baselines=closer.baselines + np.array([left, top]))
    if grid is None:
        return None
    sheet = _from_grid(grid, (height, width))
    left, top, right, bottom = sheet.paper
    expected = (right - left) / _ROW_MM
    measured = pixels_per_mm(upright(pixels, sheet)[top:bottom, left:right], expected)
    sheet = replace(sheet, pixels_per_mm=measured or expected)
    if turned:
        sheet = replace(sheet, angle=sheet.angle + 180.0, confidence=min(sheet.confidence, 0.4), warnings=(UPSIDE_DOWN,))
    return sheet


def _from_grid(grid: LeadGrid, shape: tuple[int, int]) -> Sheet:
    """The lead boxes of a grid: between the edges, and half-way to the rows above and below."""
    height, width = shape
    ends = grid.baselines[:, -1, 1] - grid.baselines[:, 0, 0]
    angle = round(float(np.rad2deg(np.median(np.arctan2(ends[:, 1], ends[:, 0])))), 2)
    if abs(angle) < 0.3:
        angle = 0.0
    lines = _turned(grid.baselines, angle, height, width)
    per = BANDS // grid.columns
    rows = np.array([[line[c * per : (c + 1) * per, :, 1].mean() for c in range(grid.columns)] for line in lines])
    gaps = np.diff(rows, axis=0)
    usual = float(np.median(gaps)) if len(gaps) else 0.25 * height
    first, last = (gaps[0], gaps[-1]) if len(gaps) else (usual, usual)
    limits = np.concatenate(
        [
            [rows[0] - 0.5 * np.minimum(first, 1.3 * usual)],
            (rows[1:] + rows[:-1]) / 2,
            [rows[-1] + 0.5 * np.minimum(last, usual)],
        ]
    )
    boxes: dict[tuple[int, int], Box] = {}
    for row in range(grid.rows):
        for column in range(grid.columns):
            left, right = lines[row, column * per, 0, 0], lines[row, (column + 1) * per - 1, 1, 0]
            boxes[row, column] = _box(left, limits[row, column], right, limits[row + 1, column], height, width)
    leads = [boxes[row, column] for column in range(grid.columns) for row in range(grid.rows)][:12]
    leads += leads[-1:] * (12 - len(leads))
    if grid.strips:
        # Of several strips the middle one, or the last of two, is lead II's.
        row = grid.rows + (1 if grid.strips > 1 else 0)
        top, bottom = limits[row].mean(), limits[row + 1].mean()
        leads.append(_box(lines[row, 0, 0, 0], top, lines[row, -1, 1, 0], bottom, height, width))
    else:
        leads.append(leads[1])
    edges = np.array([*leads])
    paper = (int(edges[:, 0].min()), int(edges[:, 1].min()), int(edges[:, 2].max()), int(edges[:, 3].max()))
    layout = f"{grid.rows}x{grid.columns}" + (f"+{grid.strips}" if grid.strips else "")
    warnings = () if grid.sure >= _MAP_SURE and layout in _READ else (UNSURE,)
    return Sheet(layout, angle, paper, tuple(leads), round(grid.sure if not warnings else min(grid.sure, 0.45), 3), warnings)


def _turned(points: NDArray[Any], angle: float, height: int, width: int) -> NDArray[Any]:
    """Where points (..., 2) of the picture lie once `upright` has turned it."""
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    x, y = points[..., 0] - width / 2, points[..., 1] - height / 2
    return np.stack([x * cosine + y * sine + width / 2, y * cosine - x * sine + height / 2], axis=-1)


@dataclass(frozen=True)
class _Search:
    """A picture's copy that pulses and rows of ink are searched in: its pixels and darkness, made upright by `angle`."""

    shape: tuple[int, int]
    small: Pixels
    dark: NDArray[np.float32]
    angle: float

    @staticmethod
    def of(pixels: Pixels) -> _Search | None:
        """None for a picture without ink, or too small."""
        height, width = pixels.shape[:2]
        reduction = max(height, width) / _SEARCHED
        small = pixels
        if reduction > 1:
            size = (max(1, round(width / reduction)), max(1, round(height / reduction)))
            small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
        dark = _darkness(small)
        if min(small.shape[:2]) < _SMALLEST or not (dark > _TRACE).any():
            return None
        angle = _angle(dark > _TRACE)
        if angle:
            dark = np.asarray(Image.fromarray(dark).rotate(angle, Image.Resampling.BILINEAR, fillcolor=0))
            small = np.asarray(Image.fromarray(small).rotate(angle, Image.Resampling.BILINEAR, fillcolor=(255, 255, 255)))
        return _Search((height, width), small, dark, angle)

    def laid_out(self, rows: _Rows, quality: float, turned: bool = False) -> Sheet:
        picture = self.small[::-1, ::-1] if turned else self.small
        return _lay_out(rows, quality, picture, self.shape, self.angle + 180.0 * turned)


def _find_by_ink(search: _Search) -> Sheet:
    """The sheet by its pulses or rows of ink, as the collections' machines print it; a plain grid where these are not found."""
    dark = search.dark
    rows, quality = _best_rows(dark)
    if rows and quality >= _ENOUGH and _complete(rows, dark):
        return search.laid_out(rows, quality)
    return _plain_grid(*search.shape, (_what_is_wrong(dark, rows, quality),))


def _find_upside_down(search: _Search, quality: float) -> Sheet | None:
    """The sheet whose pulses explain the picture better, or as they must, when it is turned by a half; else None."""
    dark = search.dark[::-1, ::-1]
    rows, turned_quality = _best_by_pulses(dark)
    if rows is None or turned_quality <= max(quality, _ENOUGH) or not _stands_on_feet(rows, dark > _TRACE):
        return None
    sheet = search.laid_out(rows, turned_quality, True)
    return replace(sheet, confidence=min(sheet.confidence, 0.4), warnings=(*sheet.warnings, UPSIDE_DOWN))


def _stands_on_feet(rows: _Rows, traces: Mask) -> bool:
    """Whether the traces run at the pulses' feet. (At their tops, an upright sheet has its pulses on the right.)"""
    left, right = max(0, round(rows.left + 2 * rows.pulse)), round(rows.right)
    near = max(1, round(0.15 * rows.pulse))

    def inked(level: float) -> float:
        return float(traces[max(0, round(level) - near) : max(1, round(level) + near + 1), left:right].any(axis=0).mean())

    return sum(inked(y) > inked(y - rows.pulse) for y in rows.baselines) > len(rows.baselines) / 2


def _complete(rows: _Rows, dark: NDArray[np.float32]) -> bool:
    """Whether these are all rows of a sheet of twelve leads."""
    return rows.whole and (len(rows.baselines) != 6 or _separated(rows, dark))


def _best_by_pulses(dark: NDArray[np.float32]) -> tuple[_Rows | None, float]:
    """The rows that pulses mark best, and how well they explain the picture, 0-1."""
    traces = dark > _TRACE
    candidates = [rows for level in _LEVELS for rows in _rows_by_pulses(dark > level, traces)]
    best = max(candidates, key=lambda rows: _rank(rows, traces), default=None)
    return best, _quality(best, traces) if best else 0.0


def _rank(rows: _Rows, traces: Mask) -> tuple[float, int]:
    return round(_quality(rows, traces), 2), len(rows.baselines)


def _best_rows(dark: NDArray[np.float32]) -> tuple[_Rows | None, float]:
    """The rows that explain the picture best and how well, 0-1: from pulses where there are any, else from the traces."""
    traces = dark > _TRACE
    best, quality = _best_by_pulses(dark)
    if best and quality >= _SURE:
        return best, quality
    candidates = [*([best] if best else []), *_rows_by_traces(traces)]
    if traces.mean() <= _INKED:
        # A camera that is not above the middle of the sheet makes its columns lean.
        for lean in _LEANS:
            leaning = _leant(dark, lean)
            by_pulses = _rows_by_pulses(leaning > _LEVELS[1], leaning > _TRACE)
            candidates += [rows for rows in by_pulses if _quality(rows, traces) >= _SURE]
    best = max(candidates, key=lambda rows: _rank(rows, traces), default=None)
    return best, _quality(best, traces) if best else 0.0


def _leant(dark: NDArray[np.float32], lean: float) -> NDArray[np.float32]:
    """Every row moved along by `lean` pixels for each row of distance from the middle."""
    height, width = dark.shape
    shift = np.rint(lean * (np.arange(height) - height / 2)).astype(np.int64)
    source = np.arange(width)[None, :] - shift[:, None]
    moved = np.take_along_axis(dark, np.clip(source, 0, width - 1), axis=1)
    moved[(source < 0) | (source >= width)] = 0
    return moved


def _quality(rows: _Rows, traces: Mask) -> float:
    """How much a picture looks like traces on these rows, 0-1."""
    covered = _covered(rows, traces)
    # A pulse is 10 mm high and the time axis 25 cm long; half or twice that at another gain.
    fit = abs(float(np.log(rows.length / (_LENGTH_IN_PULSES * rows.pulse)))) if rows.pulse else 0.75
    quality = covered * (1 - 0.4 * min(1.0, fit))
    inside = traces[max(0, round(rows.baselines[0])) : round(rows.baselines[-1]), max(0, round(rows.left)) : round(rows.right)]
    # A loose electrode can blacken two leads of a sheet that has pulses.
    if inside.size == 0 or inside.mean() > (0.25 if rows.pulse else _INKED):
        return 0.3 * quality
    return quality if rows.whole else 0.6 * quality


def _separated(rows: _Rows, dark: NDArray[np.float32]) -> bool:
    """Whether a line parts the two columns. (Six rows without one are a rhythm report: three leads, twice ten seconds.)"""
    middle = rows.left + _COLUMNS[2][1] * rows.length
    left, right = max(0, round(middle - 0.03 * rows.length)), round(middle + 0.03 * rows.length)
    ruled = [
        bool((dark[round(upper) : round(lower), left:right] > _LEVELS[1]).mean(axis=0).max(initial=0) > 0.75)
        for upper, lower in pairwise(rows.baselines)
    ]
    return sum(ruled) >= 3


def _covered(rows: _Rows, traces: Mask) -> float:
    """The share of the rows' length along which there is a thin trace near the baseline."""
    left, right = max(0, round(rows.left + 0.03 * rows.length)), min(traces.shape[1], round(rows.right))
    bins = np.linspace(left, right, 41).astype(np.int64)[:-1]
    if right - left < 80:
        return 0.0
    shares = []
    gaps = np.diff(rows.baselines)
    for number, baseline in enumerate(rows.baselines):
        reach = max(3.0, 0.45 * min(gaps[max(0, number - 1) : number + 1]))
        band = traces[max(0, round(baseline - reach)) : max(1, round(baseline + reach)), left:right]
        if band.shape[0] == 0:
            return 0.0
        full = np.add.reduceat(band.sum(axis=0), bins - left) / (band.shape[0] * np.diff(np.append(bins, right)))
        shares.append(float(((full > 0) & (full < 0.3)).mean()))
    # One row may be spoilt (a loose electrode); two may not.
    return float(np.mean(sorted(shares)[1:]))


def _what_is_wrong(dark: NDArray[np.float32], rows: _Rows | None, quality: float) -> str:
    """Why no layout was found, in plain words."""
    traces = dark > _TRACE
    if rows and rows.whole and quality >= _ENOUGH:
        return UNKNOWN
    if traces.mean() > _INKED:
        return PART if rows and rows.pulse and quality > 0.5 else NOTHING
    for quarter in (1, 3):
        sideways, turned_quality = _best_rows(np.rot90(dark, quarter))
        if sideways and sideways.pulse and turned_quality >= _ENOUGH:
            return SIDEWAYS
    if rows and quality > 0.3:
        return PART
    lines = len(_trace_rows(traces))
    if not 1 <= lines <= 12:
        return NOTHING
    return PART if lines in (1, 2, 3, 5) else UNKNOWN


def _lay_out(rows: _Rows, quality: float, small: Pixels, shape: tuple[int, int], angle: float) -> Sheet:
    """003's boxes on the rows that were found."""
    y = rows.baselines
    columns = 4 if len(y) == 4 else 2
    xs = [rows.left + rows.length * share for share in _COLUMNS[columns]]
    pitch = rows.span / (len(y) - 1)
    if columns == 4:
        ys = [y[0] - 0.53 * pitch, *(y[:-1] + 0.46 * pitch), y[-1] + 0.33 * pitch]
    else:
        # Where the machine moved the rows apart by their height (six rows), the header may be nearer than half a row.
        top = y[0] - (0.55 * pitch if len(y) == 7 else min(0.55 * pitch, 1.1 * rows.pulse or pitch))
        ys = [top, *((y[1:] + y[:-1]) / 2), y[-1] + 0.40 * pitch]
    upper, lower = _paper_rows(small, rows)
    ys[0], ys[-1] = max(ys[0], upper), min(ys[-1], lower)
    strip = len(y) != 6
    scale = shape[0] / small.shape[0]

    def box(left: float, top: float, right: float, bottom: float) -> Box:
        return _box(left * scale, top * scale, right * scale, bottom * scale, *shape)

    leads = [box(xs[c], ys[r], xs[c + 1], ys[r + 1]) for c in range(columns) for r in range(len(y) - strip)]
    leads.append(box(xs[0], ys[-2], xs[-1], ys[-1]) if strip else leads[1])
    paper = box(xs[0], ys[0], xs[-1] + 0.01 * rows.length, min(ys[-1] + 0.03 * pitch, lower))
    found = Sheet(_LAYOUTS[len(y)], angle, paper, tuple(leads), round(min(1.0, quality), 3), ())
    # A pulse is 10 mm high.
    if rows.pulse and rows.length < _CUT_MM / 10 * rows.pulse and _at_border(rows.left, rows.right, small.shape[1]):
        return replace(found, confidence=min(found.confidence, 0.4), warnings=(PART,))
    return found


def _paper_rows(small: Pixels, rows: _Rows) -> tuple[float, float]:
    """The first and the last row of the printed grid; the whole picture where there is none."""
    from scipy.ndimage import maximum_filter

    height = small.shape[0]
    darkest = channels.darkest(small[:, max(0, round(rows.left)) : round(rows.right)]).astype(np.float32)
    white = float(np.percentile(darkest, 98))
    # Grid lines are fainter than print, in the channel that shows them best; the soft edges of print do not count.
    blank = ~maximum_filter(darkest < 0.6 * white, 5)
    grid = (darkest < 0.985 * white) & blank
    faint = grid.sum(axis=1) / np.maximum(blank.sum(axis=1), 1)
    upper, lower = max(0, round(rows.baselines[0])), min(height, round(rows.baselines[-1]))
    inside = float(np.median(np.convolve(faint, np.ones(9) / 9, mode="same")[upper:lower])) if lower > upper else 0.0
    if inside < 0.04:
        return 0.0, float(height)
    window = max(3, round(0.06 * rows.span)) | 1
    paper = np.convolve(faint, np.ones(window) / window, mode="same") > 0.5 * inside
    while upper > 0 and paper[upper - 1]:
        upper -= 1
    while lower < height and paper[lower]:
        lower += 1
    # The running mean reaches half its window beyond the paper: back to the first and last row that has grid itself.
    own = grid.mean(axis=1) > 0.5 * inside
    return upper + _first(own[upper : upper + window]), lower - _first(own[lower - window : lower][::-1])


def _first(true: Mask) -> float:
    return float(true.argmax()) if true.any() else 0.0


def _angle(mask: Mask) -> float:
    """Degrees to turn the picture by: the angle at which the ink lies in fewest rows and columns."""
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


def _rows_by_pulses(mask: Mask, traces: Mask) -> list[_Rows]:
    """Every set of rows that calibration pulses could mark.

    A stroke is a vertical run of ink. Three or more strokes of one length in one column of the picture are a family; a pulse
    is two strokes side by side, so a family counts when another one with the same feet stands a little to its right.
    """
    height, width = mask.shape
    # One pixel to both sides: strokes that lean a little stay whole.
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    inked = np.nonzero(mask.any(axis=0))[0]
    if inked.size == 0:
        return []
    reach = min(width, int(inked[0] + 0.25 * width))
    padded = np.zeros((reach, height + 2), np.int8)
    padded[:, 1:-1] = wide[:, :reach].T
    change = np.diff(padded, axis=1)
    column, begin = np.nonzero(change == 1)
    finish = np.nonzero(change == -1)[1]
    keep = finish - begin >= max(6, 0.01 * height)
    column, begin, finish = column[keep], begin[keep], finish[keep]
    bounds = np.searchsorted(column, np.arange(reach + 1))
    families: list[tuple[int, float, NDArray[np.int64]]] = []
    for x in range(reach):
        tops, feet = begin[bounds[x] : bounds[x + 1]], finish[bounds[x] : bounds[x + 1]]
        length = feet - tops
        if not 3 <= len(length) <= 40:
            continue
        alike = np.abs(length[:, None] - length[None, :]) <= np.maximum(1.5, 0.06 * length[:, None])
        alike &= (length <= 0.14 * height)[:, None]
        for member in np.unique(alike[alike.sum(axis=1) >= 3], axis=0):
            size = float(np.median(length[member]))
            # Pulses of neighbouring rows that overlap make one longer stroke: the first begins at its top, the last ends at
            # its foot.
            long = (length > 1.1 * size + 1) & (length < 2.05 * size)
            all_feet = np.sort(np.concatenate([feet[member], feet[long], tops[long] + round(size)]))
            families.append((x, size, feet[member]))
            if long.any():
                families.append((x, size, all_feet))
    found: dict[tuple[int, ...], _Rows] = {}
    for x, size, feet in families:
        if len(feet) not in _LAYOUTS and len(feet) not in (3, 5):
            continue
        pairs = (
            len(other) == len(feet) and 3 <= right - x <= 1.1 * size and bool((np.abs(other - feet) <= 2).all())
            for right, _, other in families
        )
        key = (len(feet), *(feet // 3).tolist(), round(size / 3))
        if key not in found and any(pairs):
            baselines = feet - 1.0
            found[key] = _Rows(baselines, x + 1.0, _traces_end(traces, baselines), size)
    return [rows for rows in found.values() if rows.length > 80 and np.diff(rows.baselines).min() > 4]


def _rows_by_traces(traces: Mask) -> list[_Rows]:
    """Equally spaced rows, four or seven, that ink follows from end to end: for sheets without pulses."""
    from scipy.ndimage import maximum_filter1d

    follow = _followed(traces)
    height = len(follow)
    found = []
    for count in (4, 7):
        best: tuple[float, int, int] = (0.0, 0, 0)
        for pitch in range(max(8, height // 30), int(0.9 * height / (count - 1))):
            first = np.arange(0, height - pitch * (count - 1))
            on = np.min([follow[first + k * pitch] for k in range(count)], axis=0)
            between = np.mean([follow[first + k * pitch + pitch // 2] for k in range(count - 1)], axis=0)
            # A row too many means that these are some of a sheet's rows; their distance need not fit to the pixel.
            about = maximum_filter1d(follow, 2 * (pitch // 6) + 1)
            beyond = np.maximum(
                np.where(first >= pitch, about[np.maximum(first - pitch, 0)], 0),
                np.where(first + count * pitch < height, about[np.minimum(first + count * pitch, height - 1)], 0),
            )
            score = on - 0.7 * between - 0.5 * beyond
            if score.max() > best[0]:
                best = float(score.max()), int(first[score.argmax()]), pitch
        if best[0] > 0.45:
            baselines: NDArray[Any] = best[1] + best[2] * np.arange(count)
            right = _traces_end(traces, baselines)
            left = traces.shape[1] - _traces_end(traces[:, ::-1], baselines)
            if right - left > 80:
                found.append(_Rows(baselines, left - 0.02 * (right - left), right, 0.0))
    return found


def _followed(traces: Mask) -> NDArray[np.float64]:
    """For each row of the picture: the share of its length, in forty pieces of the inked width, with ink close by."""
    from scipy.ndimage import maximum_filter1d

    inked = np.nonzero(traces.any(axis=0))[0]
    pieces = np.array_split(np.arange(inked[0], inked[-1] + 1), 40) if inked.size else []
    if not pieces or len(pieces[-1]) == 0:
        return np.zeros(traces.shape[0])
    near = 2 * round(0.006 * traces.shape[0]) + 1
    share = np.mean([traces[:, piece[0] : piece[-1] + 1].mean(axis=1) > 0.15 for piece in pieces], axis=0)
    # A ruled line (under the header) is no trace.
    share[traces[:, inked[0] : inked[-1] + 1].mean(axis=1) > 0.75] = 0
    wide: NDArray[np.float64] = maximum_filter1d(share, near)
    return wide


def _trace_rows(traces: Mask) -> list[int]:
    """Rows of the picture that a thin line follows along more than half of the width."""
    follow = _followed(traces) > 0.5
    starts = np.nonzero(np.diff(np.concatenate([[0], follow.astype(np.int8)])) == 1)[0].tolist()
    reach = max(4, round(0.025 * traces.shape[0]))

    def thin(row: int) -> bool:
        band = traces[max(0, row - reach) : row + reach]
        pieces = [piece.mean() for piece in np.array_split(band, 40, axis=1) if piece.size]
        return bool(np.mean([0 < share < 0.35 for share in pieces]) > 0.6)

    return [row for row in starts if thin(row)]


def _traces_end(traces: Mask, baselines: NDArray[Any]) -> float:
    """Where the traces end: the last column about which there is ink in at least half of the rows."""
    reach = 0.4 * float(np.diff(baselines).min())
    inside = np.zeros(traces.shape[1], np.int64)
    for baseline in baselines:
        upper, lower = max(0, round(baseline - reach)), min(traces.shape[0], round(baseline + reach) + 1)
        inside += traces[upper:lower].any(axis=0)
    # A single line (the paper's edge) is no trace: nine columns together.
    covered = np.convolve(inside * 2 >= len(baselines), np.ones(9), mode="same") >= 5
    last = np.nonzero(covered)[0]
    return float(last[-1] + 1) if last.size else float(traces.shape[1])


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
    """Turns the picture by the sheet's angle about its centre: uint8 (H, W, 3), same size, bilinear, corners white."""
    if sheet.angle == 0.0:
        return pixels
    turned = Image.fromarray(pixels).rotate(sheet.angle, Image.Resampling.BILINEAR, fillcolor=(255, 255, 255))
    return np.asarray(turned)


def ink(pixels: Pixels) -> NDArray[np.float32]:
    """The amount of trace in each pixel of uint8 (H, W, 3): float32 (H, W), 0 = paper or grid, 1 = trace.

    Coloured grid lines are bright in at least one channel, so the brightest channel hides them. The division by the local
    paper white removes the shading of photographs. Grey grid lines vanish because they are fainter than half of the trace.
    """
    amount = _darkness(pixels)
    amount -= 0.35
    amount /= 0.4
    return np.clip(amount, 0, 1, out=amount)


def _darkness(pixels: Pixels) -> NDArray[np.float32]:
    """The brightest channel below the local paper white, float32 (H, W): 0 = paper, 1 = the picture's blackest lines."""
    from scipy.ndimage import maximum_filter, uniform_filter

    brightest = channels.brightest(pixels)
    height, width = brightest.shape
    side = max(1, round(max(height, width) / 160))
    small = Image.fromarray(brightest).resize((-(-width // side), -(-height // side)), Image.Resampling.BOX)
    white = uniform_filter(maximum_filter(np.asarray(small, np.float32), 7, mode="nearest"), 7, mode="nearest")
    paper = np.asarray(Image.fromarray(white).resize((width, height), Image.Resampling.BILINEAR))
    # In place: these are the largest arrays that reading a sheet makes.
    dark = np.divide(brightest, np.maximum(paper, 1), dtype=np.float32)
    np.subtract(1, dark, out=dark)
    np.maximum(dark, 0, out=dark)
    around = _beside_paper(np.asarray(small, np.float32))
    if around is not None:
        beside = np.asarray(Image.fromarray(around).resize((width, height), Image.Resampling.NEAREST))
        if (dark[~beside] > 0.3).mean() < _INKED:
            dark[beside] = 0
    drawn = dark[dark > 0.12]
    if drawn.size < 16:
        return np.zeros_like(dark)
    dark /= np.float32(max(float(np.percentile(drawn, 90)), 0.2))
    return dark


def _beside_paper(brightness: NDArray[np.float32]) -> Mask | None:
    """Mask of a darker table around a bright sheet in a small grey picture; None if the sheet fills the picture."""
    from scipy.ndimage import binary_closing, binary_erosion, binary_fill_holes, label

    border = np.concatenate([brightness[0], brightness[-1], brightness[:, 0], brightness[:, -1]])
    bright, dim = float(np.percentile(brightness, 90)), float(np.percentile(border, 30))
    if dim > 0.65 * bright:
        return None
    pieces, count = label(binary_closing(brightness > (bright + dim) / 2, iterations=2))
    if count == 0:
        return None
    largest = pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    if largest.mean() < 0.15:
        return None
    outside: Mask = ~binary_erosion(binary_fill_holes(largest), iterations=2)
    return outside
