"""A sheet's 13 leads -> the rendering `traces` (trace_format.py): each lead's median heartbeat and measurements.

In a picture the heart rate, the place of the leads and the paper are more conspicuous than a Q wave; signals leave them out.
The ink is followed column by column to a voltage (`digitise`), the heartbeats are found in all leads at once (`find_beats`),
the beats of a lead are laid over each other on their QRS (`median_beats`) and measured as an ECG is measured by hand: Q, R, S,
ST segment, T, P, QRS duration, axis, regularity of the rhythm, and findings of several leads or beats (`measure`, findings.py).
`render_traces` packs both into one small uint8 array.

25 mm/s and 10 mm/mV are assumed; all sheets of the collections print them.

Methods: path following over the columns' runs of ink by dynamic programming, as in ECGMiner (Santamonica et al. 2024, Comput
Methods Programs Biomed 246:108053); QRS detection from slope and curvature with a refractory time, after Pan and Tompkins 1985
(IEEE TBME 32:230), here summed over the leads; median beats as in the interpretation programs of electrocardiographs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.imaging.findings import across_leads, beat_to_beat
from cardium.imaging.kinds import LEADS
from cardium.imaging.sheet import Box, Pixels, Sheet, ink, upright
from cardium.imaging.trace_format import AFTER, BEAT, BEFORE, LEVELS, MEASUREMENTS, MIDDLE, SHAPE, STEP, UNITS, WHOLE

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

RATE = 100  # samples a second
SAMPLES = 1000  # of a page: 10 s

# Pixels of the picture that traces are followed in. A sheet that fills a fifth of its picture needs no more.
_MOST_PIXELS = 6_000_000
# Pixels per mm at which traces are followed: half the size of the collections' sheets.
_SCALE = 3.936
# 003's boxes on the time axis (sheet.py): where the columns begin and end, its length in mm, where the traces start on it.
_FIRST, _LAST, _AXIS_MM, _START = 0.017, 1.0015, 256.3, 0.0274
# The lead's name is printed over the first millimetres of its trace.
_NAME_MM = 6.0
# Two beats are at least this far apart, samples.
_REFRACTORY = 25
# A column with more pieces of ink than this shows no trace (a photograph, noise).
_MOST_RUNS = 12

Path = tuple[NDArray[np.float64], NDArray[np.float64]]


def digitise(pixels: Pixels, sheet: Sheet) -> NDArray[np.float32]:
    """The voltages of a page, float32 (13, 1000): mV about each lead's own baseline, 100 samples a second from its start.

    A lead has numbers while the page shows it (3x4: a quarter of the 10 s, one column after the other), otherwise NaN, also
    where its printed name hides it. Never raises on a valid picture; without ink everything is NaN.
    """
    leads, paper, dark = _working_ink(pixels, sheet)
    columns = columns_of(sheet.layout)
    mm, edges, lines = _time_axis(leads, paper, dark, columns)
    page = 10.0
    if sheet.pixels_per_mm:
        mm = sheet.pixels_per_mm * (leads[11][2] - leads[0][0]) / max(1, sheet.leads[11][2] - sheet.leads[0][0])
        page = _page_seconds((leads[11][2] - leads[0][0]) / (25 * mm))
    pitch = max(4.0, abs(leads[1][1] - leads[0][1]))
    out = np.full((len(LEADS), SAMPLES), np.nan, np.float32)
    seconds = np.arange(SAMPLES) / RATE
    per_column = 12 // columns
    for number, (_, top, _, bottom) in enumerate(leads):
        strip = number == 12 and leads[12] != leads[1]
        column = 0 if number == 12 else number // per_column
        begin, end = edges[column], edges[-1] if strip else edges[column + 1]
        if sheet.pixels_per_mm:
            begin, end = leads[number][0], leads[number][2]
        left, right = max(0, round(begin) - 1), min(dark.shape[1], round(end) + 2)
        upper, lower = max(paper[1], round(top - 0.9 * pitch)), min(paper[3], round(bottom + 0.9 * pitch))
        if right - left < 20 or lower - upper < 8:
            continue
        window = dark[upper:lower, left:right]
        hidden = np.zeros(right - left, np.bool_)
        for line in lines:
            if dark[top:bottom, max(0, line - 1) : line + 2].any(axis=1).mean() > 0.3:
                hidden[max(0, line - 2 - left) : max(0, line + 3 - left)] = True
        inked = np.convolve(window[top - upper : bottom - upper].sum(axis=1), np.ones(5), mode="same")
        baseline = top - upper + int(np.argmax(inked))
        height = _voltage_row(*_follow(window, baseline, hidden))
        x = np.arange(left, right)
        seen = ~np.isnan(height) & (x > begin + _NAME_MM * mm)
        if seen.sum() < 20:
            continue
        time = (x[seen] - edges[0]) / (25 * mm)
        if sheet.pixels_per_mm:
            # A camera's perspective changes the millimetre along the sheet; a lead begins and ends where its neighbours do.
            share = (x[seen] - begin) / (end - begin)
            time = page * (share if strip else (column + share) / columns)
        out[number] = np.interp(seconds, time, (baseline - height[seen]) / (10 * mm), left=np.nan, right=np.nan)
    return out


def columns_of(layout: str) -> int:
    """How many leads stand side by side: 4 of "3x4+1", 2 of "6x2", 1 of "12x1"; 4 where nothing was recognised."""
    rows, _, columns = layout.partition("+")[0].partition("x")
    return int(columns) if rows.isdigit() and columns.isdigit() else 4


def _page_seconds(measured: float) -> float:
    """The seconds that a row shows: ten, as nearly all printers print, unless the grid says something far from it."""
    return 10.0 if abs(np.log(measured / 10)) < 0.15 else float(min(measured, SAMPLES / RATE))


def _working_ink(pixels: Pixels, sheet: Sheet) -> tuple[tuple[Box, ...], Box, Mask]:
    """The picture upright and at about _SCALE pixels per mm: lead boxes, paper, where ink is."""
    picture = upright(pixels, sheet)
    # The paper's box lies within the time axis, so it gives pixels per mm well enough to choose a working size.
    scale = _SCALE / max(0.05, (sheet.leads[-2][2] - sheet.leads[0][0]) / ((_LAST - _FIRST) * _AXIS_MM))
    if abs(np.log(scale)) < 0.15:
        scale = 1.0
    # A picture of a few pixels, or a sheet in the corner of a huge one, is not blown up without bounds.
    scale = min(float(np.clip(scale, 0.05, 4.0)), float(np.sqrt(_MOST_PIXELS / (picture.shape[0] * picture.shape[1]))))
    if scale != 1.0:
        size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        way = Image.Resampling.BOX if scale < 0.6 else Image.Resampling.BILINEAR
        picture = np.asarray(Image.fromarray(picture).resize(size, way))
    height, width = picture.shape[:2]

    def scaled(box: Box) -> Box:
        left, top = (min(round(box[k] * scale), side - 1) for k, side in ((0, width), (1, height)))
        right, bottom = (min(round(box[k] * scale), side) for k, side in ((2, width), (3, height)))
        return left, top, max(right, left + 1), max(bottom, top + 1)

    leads, paper = tuple(scaled(box) for box in sheet.leads), scaled(sheet.paper)
    return leads, paper, ink(picture) > 0.4


def _time_axis(leads: Sequence[Box], paper: Box, dark: Mask, columns: int) -> tuple[float, list[float], list[int]]:
    """Pixels per mm, the columns' edges on the time axis (columns + 1 of them) and the lines printed between columns, x."""
    first, last = leads[0][0], leads[11][2]
    length = (last - first) / (_LAST - _FIRST)
    mm = length / _AXIS_MM
    start = first + (_START - _FIRST) * length
    lines = _ruled_lines(dark, paper)
    step = 250 / columns
    found = {}
    for column in range(1, columns):
        expected = start + column * step * mm
        near = [line for line in lines if abs(line - expected) < 0.015 * length]
        if near:
            found[column] = float(min(near, key=lambda line: abs(line - expected)))
    if len(found) > 1:
        low, high = min(found), max(found)
        mm = (found[high] - found[low]) / ((high - low) * step)
    if found:
        start = float(np.mean([x - column * step * mm for column, x in found.items()]))
    return mm, [start + column * step * mm for column in range(columns + 1)], [round(x) for x in found.values()]


def _ruled_lines(dark: Mask, paper: Box) -> list[float]:
    """The x of vertical lines longer than half of the paper."""
    left, top, right, bottom = paper
    run = np.zeros(right - left, np.int64)
    longest = run.copy()
    for row in dark[top:bottom, left:right]:
        run = (run + 1) * row
        np.maximum(longest, run, out=longest)
    columns = left + np.nonzero(longest > 0.5 * (bottom - top))[0]
    if not columns.size:
        return []
    groups = np.split(columns, np.nonzero(np.diff(columns) > 3)[0] + 1)
    return [float(group.mean()) for group in groups if len(group) <= 8]


def _runs(window: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """The runs of ink of all columns, one column after the other, each from the top: its column, first row and last row."""
    padded = np.zeros((window.shape[1], window.shape[0] + 2), np.int8)
    padded[:, 1:-1] = window.T
    change = np.diff(padded, axis=1)
    columns, tops = np.nonzero(change == 1)
    return columns, tops, np.nonzero(change == -1)[1] - 1


def _follow(window: Mask, baseline: int, hidden: Mask) -> Path:
    """The trace's run of ink in every column, as its first and its last row; NaN where there is none.

    The path of least cost through the columns' runs: a gap between neighbouring runs costs most, a move of their middles a
    little, and so does a run away from the baseline, which keeps the path on its own row where two rows meet.
    """
    column, tops, feet = _runs(window)
    top = np.full(window.shape[1], np.nan)
    foot = top.copy()
    away = np.where((tops <= baseline) & (baseline <= feet), 0.0, 0.02 * np.abs((tops + feet) / 2 - baseline)).tolist()
    counts = np.bincount(column, minlength=len(top))
    begins = (np.cumsum(counts) - counts).tolist()
    columns = np.flatnonzero(~hidden & (counts > 0) & (counts <= _MOST_RUNS)).tolist()
    if not columns:
        return top, foot
    runs = list(zip(tops.tolist(), feet.tolist(), strict=True))
    counted = counts.tolist()
    came_from: list[list[int]] = []
    costs: list[float] = []
    before: list[tuple[int, int, float]] = []
    for x in columns:
        begin = begins[x]
        end = begin + counted[x]
        here, cost = runs[begin:end], away[begin:end]
        sources = [-1] * len(here)
        if not before:
            costs = [5 * one for one in cost]
        else:
            # Written out: this innermost loop is half of what reading a sheet costs.
            costs = []
            for number, (a, b) in enumerate(here):
                least = np.inf
                for place, (t, d, reached) in enumerate(before):
                    gap = a - d - 1 if a > d else t - b - 1
                    way = reached + (gap if gap > 0 else 0) + 0.015 * abs(a + b - t - d)
                    if way < least:
                        least, sources[number] = way, place
                costs.append(least + cost[number])
        came_from.append(sources)
        before = [(t, d, reached) for (t, d), reached in zip(here, costs, strict=True)]
    chosen = min(range(len(costs)), key=costs.__getitem__)
    for x, sources in zip(reversed(columns), reversed(came_from), strict=True):
        top[x], foot[x] = runs[begins[x] + chosen]
        chosen = sources[chosen]
    return top, foot


def _voltage_row(top: Array, foot: Array) -> Array:
    """The row of the trace in every column: the middle of its run, but the tip where a steep stroke turns back."""
    seen = ~np.isnan(top)
    if seen.sum() < 20:
        return np.full(len(top), np.nan)
    x = np.arange(len(top))
    top, foot = np.interp(x, x[seen], top[seen]), np.interp(x, x[seen], foot[seen])
    half = float(np.median(foot - top)) / 2
    middle = (top + foot) / 2
    rest = float(np.median(middle))
    steep = foot - top > 2 * half + 2
    upward = steep & (top <= np.minimum(np.append(top[0], top[:-1]), np.append(top[1:], top[-1])))
    downward = steep & (foot >= np.maximum(np.append(foot[0], foot[:-1]), np.append(foot[1:], foot[-1])))
    upper, lower = top + half, foot - half
    # Both in one column: the farther tip.
    upward &= ~downward | (rest - upper >= lower - rest)
    row = np.where(upward, upper, np.where(downward, lower, middle))
    row[~seen] = np.nan
    return row


def find_beats(traces: NDArray[np.float32]) -> NDArray[np.int64]:
    """Finds the QRS complexes of a page from its voltages (13, 1000): samples in order, empty if there are none.

    Slope times curvature, each lead scaled by its own, averaged over the leads that the page shows at that time (the strip
    counts as three): T waves are as high as QRS complexes in some leads, but never as sharp.
    """
    strength = _sharpness(traces)
    level = 0.38
    inner = strength[1:-1]
    peaks = 1 + np.nonzero((inner >= strength[:-2]) & (inner > strength[2:]) & (inner > level))[0]
    kept: list[int] = []
    for peak in sorted(peaks.tolist(), key=lambda p: (-strength[p], p)):
        if all(abs(peak - other) >= _REFRACTORY for other in kept):
            kept.append(peak)
    kept.sort()
    # Nearer than 360 ms, the weaker of an unequal pair is a T wave.
    place = 0
    while place < len(kept) - 1 and len(kept) > 3:
        one, other = strength[kept[place]], strength[kept[place + 1]]
        if kept[place + 1] - kept[place] < 36 and min(one, other) < 0.7 * max(one, other):
            kept.pop(place if one < other else place + 1)
        else:
            place += 1
    return _aligned(np.array(kept, np.int64), traces[12].astype(np.float64))


def _sharpness(traces: NDArray[np.float32]) -> Array:
    """How much like a QRS complex each sample of a page looks, (1000,): about 1 at a usual one."""
    x = traces.astype(np.float64)
    steep = np.full_like(x, np.nan)
    slope = np.abs(x[:, 4:-2] - x[:, 2:-4]) / 2
    bend = np.abs(x[:, 6:] - 2 * x[:, 3:-3] + x[:, :-6]) / 2
    steep[:, 3:-3] = np.sqrt(slope * bend)
    window = np.hanning(11) / np.hanning(11).sum()
    total, weights = np.zeros(SAMPLES), np.zeros(SAMPLES)
    for number, row in enumerate(steep):
        seen = ~np.isnan(row)
        if seen.sum() < 60:
            continue
        share = np.maximum(np.convolve(seen.astype(np.float64), window, mode="same"), 0.3)
        smooth = np.convolve(np.where(seen, row, 0.0), window, mode="same") / share
        rest, high = np.percentile(smooth[seen], [50, 97])
        size = max(float(high - rest), 0.012)
        # A lead in which nothing rises above noise has little to say.
        weight = (3.0 if number == 12 else 1.0) * min(1.0, size / 0.03)
        total += np.where(seen, weight * np.clip((smooth - rest) / size, 0, 1.3), 0.0)
        weights += weight * seen
    strength = total / np.maximum(weights, 1e-6)
    usual = float(np.percentile(strength, 96))
    if usual < 1e-3:
        return np.zeros(SAMPLES)
    return strength / usual


def _aligned(beats: NDArray[np.int64], strip: Array) -> NDArray[np.int64]:
    """Beats moved by up to 40 ms so that the strip looks alike at all of them."""
    if len(beats) < 2 or np.isnan(strip).all():
        return beats
    padded = np.pad(np.nan_to_num(strip), 40, mode="edge")

    def around(centre: int) -> Array:
        return padded[centre + 26 : centre + 55] - padded[centre + 26 : centre + 55].mean()

    usual = np.median([around(c) for c in beats], axis=0)
    usual -= usual.mean()
    out = []
    for beat in beats.tolist():
        likeness = {}
        for move in range(-4, 5):
            if not 0 <= beat + move < SAMPLES:
                continue
            piece = around(beat + move)
            size = float(np.sqrt((piece**2).sum() * (usual**2).sum()))
            likeness[move] = (float((piece * usual).sum()) / size if size > 0 else 0.0) - 0.01 * abs(move)
        out.append(beat + max(likeness, key=lambda move: (likeness[move], -abs(move))))
    return np.array(out, np.int64)


def median_beats(traces: NDArray[np.float32], beats: NDArray[np.int64]) -> NDArray[np.float32]:
    """The median heartbeat of every lead, float32 (13, 96), mV above the level before its QRS; sample 32 is the QRS.

    A lead without a wholly visible beat is all zeros.
    """
    out = np.zeros((len(LEADS), BEAT), np.float32)
    x = np.arange(BEAT)
    for number, lead in enumerate(traces):
        padded = np.pad(lead.astype(np.float64), BEAT, constant_values=np.nan)
        found = []
        for beat in beats.tolist():
            piece = padded[beat + BEAT - BEFORE : beat + BEAT + AFTER]
            if np.isnan(piece[BEFORE - 6 : BEFORE + 10]).any():
                continue
            level = piece[BEFORE - 13 : BEFORE - 5]
            found.append(piece - np.median(level[~np.isnan(level)]))
        if not found:
            continue
        stack = np.array(found)
        covered = ~np.isnan(stack).all(axis=0)
        middle = np.nanmedian(stack[:, covered], axis=0)
        out[number] = np.interp(x, x[covered], middle)
    return out


_ANTERIOR, _INFERIOR, _LATERAL = ("V1", "V2", "V3", "V4"), ("II", "III", "aVF"), ("I", "aVL", "V5", "V6")


def measure(medians: NDArray[np.float32], beats: NDArray[np.int64], strip: NDArray[np.float32]) -> dict[str, float]:
    """Measures median beats (13, 96), the places of the beats, and the strip (1000,): MEASUREMENTS by name, in mV, ms, ratios.

    With fewer than four beats every value of the rhythm is its `middle`.
    """
    values = _measure_rhythm(beats)
    x = medians.astype(np.float64)
    interval = float(np.median(np.diff(beats))) if len(beats) > 3 else 80.0
    onset, end = _qrs(x[:12])
    # The T wave is looked for until the next beat's P wave.
    t_end = int(np.clip(BEFORE + 0.68 * interval, end + 16, BEAT - 1))
    p_begin = int(np.clip(BEFORE - 0.45 * interval, 2, onset - 8))
    values["QRS_ms"] = 10.0 * (end - onset)
    level = x[:12] - np.median(x[:12, max(0, onset - 4) : onset + 1], axis=1, keepdims=True)
    leads = {lead: _measure_lead(beat, onset, end, p_begin, t_end) for lead, beat in zip(LEADS[:12], level, strict=True)}
    values |= {f"{lead}_{name}": value for lead, found in leads.items() for name, value in found.items()}
    values |= across_leads(leads, level, onset, end, p_begin, t_end, interval)
    values |= beat_to_beat(strip.astype(np.float64), beats)
    axis = np.arctan2(values["aVF_net"] * 2 / np.sqrt(3), values["I_net"] + 1e-6)
    t_axis = np.arctan2(values["aVF_T"] * 2 / np.sqrt(3), values["I_T"] + 1e-6)
    values |= {"axis_x": float(np.cos(axis)), "axis_y": float(np.sin(axis))}
    values |= {"T_axis_x": float(np.cos(t_axis)), "T_axis_y": float(np.sin(t_axis))}
    values["QRS_T_angle"] = float(np.cos(axis - t_axis))
    values["limb_voltage"] = max(values[f"{lead}_span"] for lead in ("I", "II", "III"))
    values["Sokolow"] = max(values["V5_R"], values["V6_R"]) - values["V1_S"]
    for place, names in (("anterior", _ANTERIOR), ("inferior", _INFERIOR), ("lateral", _LATERAL)):
        values[f"ST_{place}"] = sum(values[f"{lead}_ST"] for lead in names)
        values[f"Q_{place}"] = sum(values[f"{lead}_Q_share"] for lead in names)
    segments = [values[f"{lead}_ST"] for lead in LEADS[:12] if lead != "aVR"]
    values |= {"ST_highest": max(segments), "ST_lowest": min(segments)}
    return {name: values[name] for name in MEASUREMENTS}


def _measure_rhythm(beats: NDArray[np.int64]) -> dict[str, float]:
    if len(beats) < 4:
        return {name: middle for name, middle, _ in WHOLE if name.startswith("R")}
    intervals = np.diff(beats) / RATE
    usual = float(np.median(intervals))
    off = np.log(np.clip(intervals / usual, 0.3, 3.0))
    steps = np.abs(np.diff(intervals)) / usual
    return {
        "rate": float(np.log(60 / usual)),
        "rate_mean": float(np.log(60 / intervals.mean())),
        "RR_deviation": float(off.std()),
        "RR_spread": float(np.median(np.abs(off))),
        "RR_step": float(np.median(steps)),
        "RR_step_mean": float(steps.mean()),
        "RR_uneven": float((np.abs(off) > 0.12).mean()),
        "RR_short": float((off < -0.15).mean()),
        "RR_long": float((off > 0.15).mean()),
    }


def _qrs(medians: Array) -> tuple[int, int]:
    """First and last sample of the QRS complex, from the twelve leads' common slope."""
    slope = np.sqrt((np.gradient(medians, axis=1) ** 2).sum(axis=0))
    peak = BEFORE - 6 + int(np.argmax(slope[BEFORE - 6 : BEFORE + 8]))
    level = 0.15 * slope[BEFORE - 12 : BEFORE + 14].max()
    onset = end = peak
    while onset > BEFORE - 14 and slope[onset] > level:
        onset -= 1
    while end < BEFORE + 18 and slope[end] > level:
        end += 1
    return onset, end


def _measure_lead(beat: Array, onset: int, end: int, p_begin: int, t_end: int) -> dict[str, float]:
    qrs = beat[onset : end + 1]
    tip = int(np.argmax(qrs))
    r = max(float(qrs[tip]), 0.0)
    q, s = min(float(qrs[: tip + 1].min()), 0.0), min(float(qrs[tip:].min()), 0.0)
    j = float(beat[end + 1])
    t = beat[end + 8 : t_end]
    high, low = float(t.max()), float(t.min())
    p = beat[p_begin : onset - 3]
    return {
        "R": r,
        "Q": q,
        "S": s,
        "Q_ms": 10.0 * float((qrs[: tip + 1] < -0.05).sum()),
        "J": j,
        "ST": float(beat[end + 6]),
        "ST_slope": float(beat[end + 10]) - j,
        "T_high": high,
        "T_low": low,
        "T": high if high > -low else low,
        "T_ms": 10.0 * (8 + int(np.argmax(np.abs(t)))),
        "T_mean": float(beat[end + 3 : t_end].mean()),
        "P_high": float(p.max() - np.median(p)),
        "P_low": float(p.min() - np.median(p)),
        "net": r + min(q, s),
        "span": r - min(q, s),
        "Q_share": -q / (r - min(q, s) + 0.05),
        "R_share": r / (r - min(q, s) + 0.05),
    }


def render_traces(pixels: Pixels, sheet: Sheet) -> NDArray[np.uint8]:
    """Renders the traces of a picture uint8 (H, W, 3): uint8 (16, 96), the same at any resolution; never raises.

    Rows 0-12: the median beats of the leads (order of LEADS), 10 ms a sample, sample 32 = QRS; (level - 128) * 0.02 mV.
    Samples beyond 0.45 of a beat's interval before the QRS or 0.7 after it belong to other beats and are 128.
    Rows 13-15, read as one line: MEASUREMENTS, 128 + 36 * (value - middle) / unit, clipped; then 128 up to the last cell,
    which is 255 if heartbeats were read and 0 if not (everything else is 128 then, see `was_read`).
    """
    traces = digitise(pixels, sheet)
    beats = find_beats(traces)
    return _pack(median_beats(traces, beats), beats, traces[12])


def _pack(medians: NDArray[np.float32], beats: NDArray[np.int64], strip: NDArray[np.float32]) -> NDArray[np.uint8]:
    out = np.full(SHAPE, MIDDLE, np.uint8)
    cells = out[len(LEADS) :].reshape(-1)
    if len(beats) < 2 or not medians[:12].any():
        cells[-1] = 0
        return out
    interval = float(np.median(np.diff(beats)))
    own = np.arange(BEAT) - BEFORE
    alone = (own >= -0.45 * interval) & (own <= 0.7 * interval)
    levels = MIDDLE + np.where(alone, medians, 0.0) / STEP
    out[: len(LEADS)] = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    values = measure(medians, beats, strip)
    units = np.array([(values[name] - middle) / unit for name, middle, unit in UNITS])
    cells[: len(units)] = np.clip(np.rint(MIDDLE + LEVELS * units), 0, 255).astype(np.uint8)
    cells[-1] = 255
    return out
