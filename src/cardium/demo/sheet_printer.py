"""A recording on any printout: layouts, papers, fonts, cameras and mishaps that the collections' own printers never show.

`print_sheet` draws one picture and says where everything on it is. `draw_style` draws its options from a seed: the layout (3x4
with 0 to 3 strips, 6x2 with and without one, 12x1, 6x1, Cabrera's order), the grid's colour and kind, where the leads' names
and the pulses stand, how the columns are parted, speed and gain; then what a camera and a hand do to it: perspective, curl,
shadow, a table below, handwriting, redaction bars, a picture cut off, blur, grain, few pixels.

ecg_sheet.py draws the demo's collections, the same bytes on every machine; these pictures teach and test the reader of sheets
(imaging/lead_map.py) and need not be the same to the last bit. Letters are set in the fonts that matplotlib brings along.
"""

from __future__ import annotations

import functools
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from cardium.demo.draws import Array, RandomStream
from cardium.demo.ecg_signal import LEADS, RATE

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Pixels = NDArray[np.uint8]
Colour = tuple[float, float, float]

_LIMB, _CHEST = LEADS[:6], LEADS[6:]
_CABRERA = ("aVL", "I", "-aVR", "II", "aVF", "III")
# Layouts: how often each is drawn, rows, columns, strips.
_LAYOUTS = {
    "3x4": (14, 3, 4, 0),
    "3x4+1": (34, 3, 4, 1),
    "3x4+2": (8, 3, 4, 2),
    "3x4+3": (14, 3, 4, 3),
    "6x2": (8, 6, 2, 0),
    "6x2+1": (8, 6, 2, 1),
    "12x1": (7, 12, 1, 0),
    "6x1": (7, 6, 1, 0),
}
# Fine and bold lines or dots: red, pink, orange, brown, blue, green, grey, black.
_INKS: tuple[Colour, ...] = (
    (0.90, 0.45, 0.45), (0.95, 0.62, 0.72), (0.93, 0.62, 0.40), (0.62, 0.40, 0.36), (0.45, 0.52, 0.85), (0.45, 0.75, 0.55),
    (0.62, 0.62, 0.64), (0.30, 0.30, 0.32),
)  # fmt: skip


@dataclass(frozen=True)
class PrintStyle:
    """One printout's options; lengths in mm of its paper unless said otherwise.

    layout: a key of the table of layouts. cabrera: aVL, I, -aVR, II, aVF, III. speed: mm/s. gain: mm/mV. length: of a row.
    pitch: between rows. strip_pitch: the same between strips, as a share. margins: left, top, right, bottom of the rows (the
    paper's edge or where the picture was cut). scale: pixels a mm of the finished picture before a camera. turned: quarter
    turns, counter-clockwise.
    cut: the share of the page that is missing at the left, top, right, bottom.
    names: "above", "below", "left" or "none". pulses: "left", "right", "strip" or "none". parted: "", "ticks", "bars", "dots",
    "gap" or "joined". grid: "lines", "bold", "dots", "mixed" or "none". camera: a photograph rather than a screenshot or scan.
    """

    layout: str
    cabrera: bool
    speed: float
    gain: float
    length: float
    pitch: float
    strip_pitch: float
    margins: tuple[float, float, float, float]
    names: str
    font: int
    letter: float
    pulses: str
    parted: str
    grid: str
    grid_ink: Colour
    grid_strength: float
    paper: Colour
    pen: float
    ink: Colour
    tall: float
    wander: float
    camera: bool
    turned: int
    cut: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class PrintTruth:
    """Where everything is; points are float (n, 2), x and y in pixels of the finished picture.

    layout: the style's. turned: quarter turns. baselines: (name, columns of its layout (1, 2 or 4), points from its begin to
    its end) a lead, row by row, strips last, named "strip". edges: (kind, points down the edge), kind "begin", "between" or
    "end". names: (name, point) of printed names. pulses: a stroke through each pulse.
    """

    layout: str
    turned: int
    baselines: tuple[tuple[str, int, Array], ...]
    edges: tuple[tuple[str, Array], ...]
    names: tuple[tuple[str, Array], ...]
    pulses: tuple[Array, ...]


def draw_style(rng: RandomStream, turned: float = 0.0, cut: float = 0.0) -> PrintStyle:
    """A style at random. turned: the share of pictures turned by a quarter, a half, three quarters. cut: of parts of sheets."""
    layout = _one_of(rng, {name: row[0] for name, row in _LAYOUTS.items()})
    _, rows, columns, strips = _LAYOUTS[layout]
    length = 250.0 * rng.between(0.8, 1.06)
    if columns == 1 and rng.below(3) == 0:
        length *= 0.6
    total = rows + strips
    # Twelve rows stand closer than three; screenshots are flatter than paper.
    tall = length * rng.between(0.36, 0.72)
    pitch = min(max(tall / total, 9.0), 48.0)
    tight = rng.below(3) > 0
    top = rng.between(0.3, 0.75) * pitch if tight else rng.between(0.5, 3.0) * pitch
    bottom = rng.between(0.3, 0.6) * pitch if tight else rng.between(0.5, 1.6) * pitch
    left = rng.between(1.0, 24.0) if rng.below(4) else rng.between(0.0, 60.0)
    right = rng.between(0.0, 12.0) if rng.below(4) else rng.between(0.0, 60.0)
    if rng.below(12) == 0:
        bottom += rng.between(0.5, 1.3) * length  # a portrait page
    grid_ink = _INKS[rng.below(len(_INKS))]
    warm = rng.between(0.0, 0.12)
    paper = {0: (1.0, 1.0 - warm, 1.0 - warm), 1: (1.0, 1.0, 1.0), 2: (1.0, 1.0 - warm / 2, 1.0 - warm)}[rng.below(3)]
    shade = rng.between(0.0, 0.35)
    return PrintStyle(
        layout=layout,
        cabrera=(columns < 4 and rng.below(4) == 0) or rng.below(25) == 0,
        speed=25.0 if rng.below(10) else 50.0,
        gain=(10.0, 10.0, 10.0, 10.0, 10.0, 5.0, 20.0)[rng.below(7)],
        length=length,
        pitch=pitch,
        strip_pitch=rng.between(0.7, 1.25),
        margins=(left, top, right, bottom),
        names=_one_of(rng, {"above": 5, "below": 3, "left": 2, "none": 1}),
        font=rng.below(64),
        letter=rng.between(2.2, 5.0) * (1.35 if rng.below(6) == 0 else 1.0),
        pulses=_one_of(rng, {"left": 11, "right": 3, "strip": 1, "none": 4}),
        parted=_one_of(rng, {"": 5, "ticks": 2, "bars": 2, "dots": 2, "gap": 2, "joined": 4}),
        grid=_one_of(rng, {"lines": 7, "bold": 2, "dots": 4, "mixed": 3, "none": 1}),
        grid_ink=grid_ink,
        grid_strength=rng.between(0.25, 1.0),
        paper=paper,
        pen=rng.between(0.18, 0.5),
        ink=(shade, shade, shade + (0.25 if rng.below(8) == 0 else 0.0)),
        tall=(1.0, 1.0, 1.0, 1.5, 2.2, 0.6)[rng.below(6)],
        wander=(0.02, 0.02, 0.05, 0.05, 0.15, 0.3)[rng.below(6)],
        camera=rng.below(5) > 1,
        turned=1 + rng.below(3) if rng.between(0, 1) < turned else 0,
        cut=_cut(rng) if rng.between(0, 1) < cut else (0.0, 0.0, 0.0, 0.0),
    )


def _cut(rng: RandomStream) -> tuple[float, float, float, float]:
    sides = [0.0, 0.0, 0.0, 0.0]
    sides[rng.below(4)] = rng.between(0.15, 0.6)
    if rng.below(3) == 0:
        sides[rng.below(4)] = rng.between(0.1, 0.35)
    return sides[0], sides[1], sides[2], sides[3]


def print_sheet(leads: Array, style: PrintStyle, size: tuple[int, int], rng: RandomStream) -> tuple[Pixels, PrintTruth]:
    """Prints leads, mV, float (12, samples) in the order of ecg_signal.LEADS, RATE a second, at least ten seconds.

    Gives the picture, uint8 (height, width, 3) of `size` = (width, height), and the truth.
    """
    page = _Page(style, size, rng)
    _draw_leads(page, leads, rng)
    _draw_writing(page, rng)
    canvas = _coloured(page, rng)
    view = _View(page, style, size, rng)
    picture = view.taken(canvas)
    picture = _finished(picture, style, rng)
    moved = [(name, columns, view.seen(points)) for name, columns, points in page.baselines]
    edges = [(kind, view.seen(points)) for kind, points in page.edges]
    names = [(name, view.seen(point)) for name, point in page.names]
    pulses = [view.seen(points) for points in page.pulses]
    pixels = np.asarray(picture)
    if style.turned:
        pixels = np.ascontiguousarray(np.rot90(pixels, style.turned))
    return pixels, PrintTruth(style.layout, style.turned, tuple(moved), tuple(edges), tuple(names), tuple(pulses))


def print_something_else(size: tuple[int, int], rng: RandomStream) -> Pixels:
    """A picture without a sheet, uint8 (height, width, 3): colours that run into each other, a page of text, forms."""
    width, height = size
    kind = rng.below(3)
    if kind == 0:
        side = 4 + rng.below(30)
        colours = (rng.uniform(side * side * 3) * 255).astype(np.uint8).reshape(side, side, 3)
        return np.asarray(Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC))
    image = Image.new("RGB", size, (240, 240, 240))
    draw = ImageDraw.Draw(image)
    font = _font(rng.below(12), 10 + rng.below(12))
    for y in range(10, height, int(font.size * 1.6)):
        words = " ".join(_WORDS[rng.below(len(_WORDS))] for _ in range(2 + rng.below(8)))
        draw.text((10 + rng.below(100), y), words, fill=(20, 20, 20), font=font)
    if kind == 2:
        for _ in range(8):
            x, y, grey = rng.below(width), rng.below(height), rng.below(255)
            box = (x, y, x + rng.below(300), y + rng.below(200))
            draw.rectangle(box, outline=(0, 0, 0), fill=(grey, grey, grey) if rng.below(2) else None)
    return np.asarray(image)


class _Page:
    """The flat paper while it is drawn: masks of ink in its own pixels, `scale` a mm, and the truth in these."""

    def __init__(self, style: PrintStyle, size: tuple[int, int], rng: RandomStream) -> None:
        _, rows, self.columns, self.strips = _LAYOUTS[style.layout]
        self.style, self.rows = style, rows
        left, top, right, bottom = style.margins
        loose = 0.06 if rng.below(3) else 0.0
        steps = [style.pitch * (1 + rng.between(-loose, loose)) for _ in range(rows - 1)]
        steps += [style.pitch * style.strip_pitch * (1 + rng.between(-loose, loose)) for _ in range(self.strips)]
        self.wide, self.high = left + style.length + right, top + sum(steps) + bottom
        # About as many pixels as the finished picture has.
        self.scale = min(1.0 * max(size) / max(self.wide, self.high), 9.0)
        self.left, self.length = left * self.scale, style.length * self.scale
        self.y = (top + np.concatenate([[0.0], np.cumsum(steps)])) * self.scale
        self.pitch = style.pitch * self.scale
        self.shape = (max(8, round(self.high * self.scale)), max(8, round(self.wide * self.scale)))
        # Traces are drawn at twice the size and made half, which softens their edges.
        self.traces = Image.new("L", (2 * self.shape[1], 2 * self.shape[0]))
        self.writing = Image.new("L", (self.shape[1], self.shape[0]))
        self.baselines: list[tuple[str, int, Array]] = []
        self.edges: list[tuple[str, Array]] = []
        self.names: list[tuple[str, Array]] = []
        self.pulses: list[Array] = []


def _names(style: PrintStyle, rows: int, columns: int, rng: RandomStream) -> list[list[str]]:
    limb = list(_CABRERA if style.cabrera else _LIMB)
    ordered = [*limb, *_CHEST]
    if rows == 6 and columns == 1:
        ordered = limb if rng.below(2) else list(_CHEST)
    return [[ordered[column * rows + row] for column in range(columns)] for row in range(rows)]


def _draw_leads(page: _Page, leads: Array, rng: RandomStream) -> None:
    style, scale = page.style, page.scale
    draw = ImageDraw.Draw(page.traces)
    pen = max(1, round(2 * style.pen * scale))
    per_second, per_mv = style.speed * scale, style.gain * scale
    names = _names(style, page.rows, page.columns, rng)
    spacing = page.length / page.columns
    font = _font(style.font, max(5, round(style.letter * scale)))
    writing = ImageDraw.Draw(page.writing)
    offset = rng.between(0.0, 0.3)
    # Where a name begins beside the lead's begin on its baseline, mm.
    aside = {
        "above": (0.6, -1.0 - rng.between(0.4, 3.0)),
        "below": (rng.between(-0.5, 1.5), style.letter + rng.between(0.3, 4.0)),
        "left": (-style.letter * rng.between(0.8, 1.6), 0.5 * style.letter + rng.between(-1, 3)),
    }.get(style.names)
    gap = rng.between(0.5, 2.5) * scale if style.parted == "gap" else 0.0
    sway = [rng.between(0.1, 0.5) for _ in range(2)]
    swing = rng.between(0, 6.3)
    rough = 0.012 if rng.below(4) else rng.between(0.01, 0.06)
    cells = [(names[row][column], row, column, page.columns) for row in range(page.rows) for column in range(page.columns)]
    strip = (LEADS[1], LEADS[6], LEADS[10])
    if rng.below(3) == 0:
        strip = (LEADS[6], LEADS[1], LEADS[10])
    cells += [(strip[k], page.rows + k, 0, 1) for k in range(page.strips)]
    before: dict[int, tuple[float, float]] = {}
    for name, row, column, columns in cells:
        wide = page.length / columns
        begin, end = page.left + column * wide, page.left + (column + 1) * wide - (gap if column < columns - 1 else 0)
        lead = leads[LEADS.index(name.removeprefix("-"))] * (-1.0 if name.startswith("-") else 1.0)
        x = np.arange(begin, end, 0.5)
        time = offset + (x - page.left) / per_second
        # A row that is longer than the recording begins again.
        place = (time * RATE) % (lead.size - 2)
        low = place.astype(np.int64)
        volts = lead[low] + (lead[low + 1] - lead[low]) * (place - low)
        strength = style.tall * math.exp(0.35 * float(rng.noise(1)[0]))
        if columns > 1 and rng.below(40) == 0:
            strength *= 3.0
        volts = volts * strength + rough * rng.noise(x.size) * rng.between(0.3, 1.0)
        if rng.below(30) == 0:
            volts = volts + rng.between(0.05, 0.15) * np.sin(time * 314.0)
        slow = style.wander * (
            np.sin(sway[0] * 6.3 * time + swing + row) + 0.5 * np.sin(sway[1] * 6.3 * time + 2 * row + column)
        )
        if rng.below(14) == 0 and columns > 1:
            slow = slow + rng.between(-0.45, 0.45) * page.pitch / per_mv
        slow = slow + rng.between(-0.04, 0.04)
        level = page.y[row] - slow * per_mv
        y = level - volts * per_mv
        points = np.stack([x, y], axis=1)
        if style.parted == "joined" and row in before:
            points = np.concatenate([[before[row]], points])
        draw.line([tuple(p) for p in (2 * points).tolist()], fill=255, width=pen, joint=None)
        before[row] = (float(x[-1]), float(y[-1]))
        page.baselines.append(("strip" if row >= page.rows else name, columns, np.stack([x, level], axis=1)[::6]))
        printed = rng.below(12) > 0 if row < page.rows else rng.below(5) > 0
        if aside and printed:
            at = (begin + aside[0] * scale, page.y[row] + aside[1] * scale)
            if style.names == "above" and rng.below(2):
                at = (at[0], at[1] - 0.18 * page.pitch)
            writing.text(at, name, fill=255, font=font, anchor="ls")
            box = writing.textbbox(at, name, font=font, anchor="ls")
            page.names.append((name, np.array([[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]])))
    reach = np.linspace(-0.42, 0.42, 12) * page.pitch
    for row in range(page.rows + page.strips):
        columns = page.columns if row < page.rows else 1
        for column in range(columns + 1):
            kind = "begin" if column == 0 else "end" if column == columns else "between"
            edge, level = page.left + column * page.length / columns, float(page.y[row])
            page.edges.append((kind, np.stack([np.full(12, edge), level + reach], axis=1)))
            if kind == "between" and style.parted == "ticks":
                half = min(0.4 * page.pitch, 5 * scale)
                draw.line([(2 * edge, 2 * (level - half)), (2 * edge, 2 * (level + half))], fill=255, width=pen)
    if style.parted in ("dots", "bars"):
        step = max(2, round(0.8 * scale))
        for column in range(1, page.columns):
            edge = page.left + column * spacing
            top, foot = round(page.y[0] - rng.between(0.1, 0.5) * page.pitch), round(page.y[page.rows - 1] + 0.4 * page.pitch)
            if style.parted == "bars":
                draw.line([(2 * edge, 2 * top), (2 * edge, 2 * foot)], fill=255, width=pen)
                continue
            for begin in range(top, foot, step):
                draw.line([(2 * edge, 2 * begin), (2 * edge, 2 * begin + step)], fill=255, width=max(1, pen // 2))
    _draw_pulses(page, draw, pen, rng)


def _draw_pulses(page: _Page, draw: ImageDraw.ImageDraw, pen: int, rng: RandomStream) -> None:
    style, scale = page.style, page.scale
    if style.pulses == "none":
        return
    wide, foot, space = rng.between(1.8, 5.5) * scale, rng.between(0.3, 1.6) * scale, rng.between(0.2, 4.0) * scale
    high = style.gain * scale
    thin = max(1, pen - rng.below(2))
    for row in range(page.rows + page.strips):
        if style.pulses == "strip" and row < page.rows:
            continue
        y = page.y[row]
        x = page.left - space - wide - 2 * foot
        if style.pulses == "right":
            x = page.left + page.length + space
        corners = [
            (x, y),
            (x + foot, y),
            (x + foot, y - high),
            (x + foot + wide, y - high),
            (x + foot + wide, y),
            (x + 2 * foot + wide, y),
        ]
        draw.line([(2 * a, 2 * b) for a, b in corners], fill=255, width=thin)
        page.pulses.append(np.array([[x + foot + wide * s, y - high / 2] for s in (0.0, 0.5, 1.0)]))


_WORDS = (
    "Vent. rate", "PR interval", "QRS duration", "ms", "BPM", "Normal sinus rhythm", "Abnormal ECG", "ID:", "Name:", "Sex: M",
    "Age 67", "QT/QTc 392/457", "P-R-T axes", "Unconfirmed", "Referred by:", "Technician", "Room", "25mm/s", "10mm/mV", "40Hz",
    "0.05-150 Hz", "Date 12-Mar-2014 09:31:22", "Left axis deviation", "HR 71", "12SL v237", "AC 50", "Loc: 3", "F 60~",
)  # fmt: skip


def _draw_writing(page: _Page, rng: RandomStream) -> None:
    """Header and footer, pen strokes, redaction bars (drawn later as white or black blocks)."""
    draw = ImageDraw.Draw(page.writing)
    scale = page.scale
    font = _font(rng.below(64), max(5, round(rng.between(2.2, 3.6) * scale)))
    step = font.size * 1.35
    top = page.y[0] - 0.7 * page.pitch
    if top > 2 * step and rng.below(5):
        for line in range(rng.below(max(1, int(top / step))) + 1):
            for place in range(1 + rng.below(4)):
                x = rng.between(0.0, 0.9) * page.shape[1] if rng.below(2) else place * 0.25 * page.shape[1] + 2 * scale
                draw.text((x, line * step), _WORDS[rng.below(len(_WORDS))], fill=255, font=font)
    below = page.y[-1] + rng.between(0.3, 0.6) * page.pitch
    if below + step < page.shape[0] and rng.below(3):
        for _ in range(1 + rng.below(5)):
            draw.text((rng.between(0.0, 0.9) * page.shape[1], below), _WORDS[rng.below(len(_WORDS))], fill=255, font=font)
    if below + 6 * step < page.shape[0] and rng.below(2):
        for line in range(1, int((page.shape[0] - below) / step / 1.5)):
            draw.text(
                (rng.between(0.0, 0.5) * page.shape[1], below + 1.5 * line * step),
                " ".join(_WORDS[rng.below(len(_WORDS))] for _ in range(4)),
                fill=255,
                font=font,
            )
    _draw_rules(page, draw, top, below, rng)
    for _ in range(rng.below(4) if rng.below(5) == 0 else 0):
        x, y = rng.between(0, page.shape[1]), rng.between(0, page.shape[0])
        angle, points = rng.between(0, 6.3), []
        bend = rng.between(-0.5, 0.5)
        for _ in range(10 + rng.below(30)):
            points.append((x, y))
            x, y = x + 2 * scale * math.cos(angle), y + 2 * scale * math.sin(angle)
            angle += bend + rng.between(-0.4, 0.4)
        draw.line(points, fill=200, width=max(1, round(0.5 * scale)))


def _draw_rules(page: _Page, draw: ImageDraw.ImageDraw, top: float, below: float, rng: RandomStream) -> None:
    """Straight lines under a header or above a footer, and frames around the rows."""
    height, width = page.shape
    thick = max(1, round(rng.between(0.15, 1.0) * page.scale))
    for low, high in ((0.0, top), (below, float(height))):
        for _ in range(1 + rng.below(2) if high - low > 3 * page.scale and rng.below(3) == 0 else 0):
            y = rng.between(low, high)
            begin, end = (0.0, 1.0) if rng.below(2) else (rng.between(0, 0.4), rng.between(0.5, 1.0))
            draw.line([(begin * width, y), (end * width, y)], fill=120 + rng.below(136), width=thick)
    if rng.below(7) == 0:
        aside = rng.between(0.0, 3.0) * page.scale
        box = (max(0.0, page.left - 4 * aside), max(0.0, top + aside), page.left + page.length + 2 * aside, below + aside)
        draw.rectangle(box, outline=100 + rng.below(156), width=thick)


def _coloured(page: _Page, rng: RandomStream) -> Image.Image:
    """Paper, grid and ink as one picture."""
    style, scale = page.style, page.scale
    height, width = page.shape
    grid = np.zeros((height, width), np.float32)
    if style.grid != "none":
        fine_x, fine_y = _ruling(width, scale, rng, 0.16), _ruling(height, scale, rng, 0.16)
        phase = rng.between(0, 5)
        bold = rng.between(0.2, 0.45)
        bold_x, bold_y = _ruling(width, 5 * scale, rng, bold, phase, scale), _ruling(height, 5 * scale, rng, bold, phase, scale)
        if style.grid in ("dots", "mixed"):
            light = 1.8 * fine_x[None, :] * fine_y[:, None]
        elif style.grid == "lines":
            light = np.maximum(fine_x[None, :], fine_y[:, None])
        else:
            light = grid
        heavy = np.maximum(bold_x[None, :], bold_y[:, None])
        if style.grid == "dots":
            heavy = np.maximum(fine_x[None, :] * bold_y[:, None], bold_x[None, :] * fine_y[:, None]) * 2.0
        part = rng.between(0.3, 1.0)
        grid = np.clip(np.maximum(part * light, heavy), 0, 1).astype(np.float32) * style.grid_strength
    trace = np.asarray(page.traces.reduce(2), np.float32)[:height, :width] / 255
    letters = np.asarray(page.writing, np.float32) / 255
    trace = np.clip(trace * rng.between(0.8, 1.3), 0, 1)
    ink = np.maximum(trace, letters * rng.between(0.7, 1.0))
    out = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        paper = style.paper[channel] * (1 - grid) + style.grid_ink[channel] * grid
        out[..., channel] = paper * (1 - ink) + style.ink[channel] * ink
    if rng.below(12) == 0:
        x, y = round(rng.between(0, 0.8) * width), round(rng.between(0, max(page.y[0] - 0.6 * page.pitch, 1.0)))
        out[y : y + round(7 * scale), x : x + round(30 * scale)] = float(rng.below(2))
    return Image.fromarray((255 * out).astype(np.uint8))


def _ruling(
    count: int, step: float, rng: RandomStream, thick: float, phase: float | None = None, mm: float = 0.0
) -> NDArray[np.float32]:
    """The coverage of each of `count` pixels by lines every `step` pixels."""
    thickness = max(thick * (mm or step), 0.45)
    at = np.arange(count) + (rng.between(0, step) if phase is None else phase * step / 5)
    away = np.abs(at / step - np.rint(at / step)) * step
    return np.clip(thickness / 2 + 0.5 - away, 0, min(1.0, thickness)).astype(np.float32)


class _View:
    """How the finished picture's pixels come from the page: cut off, turned, in perspective, bent."""

    def __init__(self, page: _Page, style: PrintStyle, size: tuple[int, int], rng: RandomStream) -> None:
        width, height = size
        rows, columns = page.shape
        self.size = size
        # The part of the page that is seen.
        ratio = width / height
        left, top, right, bottom = style.cut
        wide, high = columns * (1 - left - right), rows * (1 - top - bottom)
        if style.camera and not any(style.cut):
            wide, high = wide * rng.between(0.97, 1.15), high * rng.between(0.97, 1.15)
        # A whole page fits into the picture; of a page that is cut, the picture shows less still.
        if (wide / high < ratio) != any(style.cut):
            wide = high * ratio
        else:
            high = wide / ratio
        x, y = (columns * (1 + left - right) - wide) / 2, (rows * (1 + top - bottom) - high) / 2
        if style.camera:
            x, y = x + rng.between(-0.03, 0.03) * wide, y + rng.between(-0.03, 0.03) * high
        corners = np.array([[x, y], [x + wide, y], [x + wide, y + high], [x, y + high]])
        middle = corners.mean(axis=0)
        self.bend = (0.0, 0.0, 0.0, 0.0)
        if style.camera:
            spread = 0.07 if rng.below(3) else 0.02
            corners = corners + np.array(
                [[rng.between(-spread, spread) * wide, rng.between(-spread, spread) * high] for _ in range(4)]
            )
            keystone = rng.between(-0.12, 0.12) * wide
            corners[:2, 0] += (keystone, -keystone)
            angle = math.radians(rng.between(-7, 7) if rng.below(2) else rng.between(-2, 2))
            turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
            corners = (corners - middle) @ turn + middle
            if rng.below(2):
                self.bend = (
                    rng.between(-0.03, 0.03) * rows,
                    rng.between(0.5, 1.6) / columns,
                    rng.between(0, 6.3),
                    rng.between(-0.01, 0.01) * columns,
                )
        elif rng.below(3) == 0:
            angle = math.radians(rng.between(-1.5, 1.5))
            turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
            corners = (corners - middle) @ turn + middle
        target = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
        self.forth = _homography(target, corners)
        self.back = np.linalg.inv(self.forth)
        self.page_size = (columns, rows)
        table = rng.between(0.15, 0.9)
        self.table = tuple(round(255 * table * rng.between(0.85, 1.0)) for _ in range(3)) if style.camera else (255, 255, 255)

    def _bent(self, points: NDArray[Any]) -> Array:
        high, often, phase, across = self.bend
        if not high:
            return np.zeros(points.shape)
        wave = np.sin(6.283 * often * points[..., 0] + phase + 0.6 * points[..., 1] / self.page_size[1])
        return np.stack([across * np.sin(6.283 * often * points[..., 0]), high * wave], axis=-1)

    def seen(self, points: NDArray[Any]) -> Array:
        """Points of the page in the finished picture."""
        flat = points.astype(np.float64)
        for _ in range(4):
            flat = points - self._bent(flat)
        return _mapped(self.back, flat)

    def taken(self, canvas: Image.Image) -> Image.Image:
        width, height = self.size
        # Around the page there is table: PIL fills from outside with black, so a border of table is laid around first.
        edge = round(0.35 * max(canvas.size))
        whole = Image.new("RGB", (canvas.width + 2 * edge, canvas.height + 2 * edge), self.table)
        whole.paste(canvas, (edge, edge))
        xs, ys = np.linspace(0, width, 13).round().astype(int), np.linspace(0, height, 9).round().astype(int)
        corners = np.stack(np.meshgrid(xs, ys), axis=-1).astype(float)
        source = _mapped(self.forth, corners)
        source = source + self._bent(source) + edge
        mesh = []
        for row in range(8):
            for column in range(12):
                quad = (*source[row, column], *source[row + 1, column], *source[row + 1, column + 1], *source[row, column + 1])
                mesh.append(((int(xs[column]), int(ys[row]), int(xs[column + 1]), int(ys[row + 1])), quad))
        return whole.transform((width, height), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _finished(picture: Image.Image, style: PrintStyle, rng: RandomStream) -> Image.Image:
    """Light, colour, blur, grain, few pixels, JPEG."""
    width, height = picture.size
    if rng.below(5) == 0:
        part = rng.between(0.45, 0.9)
        picture = picture.resize((round(part * width), round(part * height)), Image.Resampling.BOX).resize(
            (width, height), Image.Resampling.BICUBIC
        )
    elif rng.below(2):
        picture = picture.filter(ImageFilter.GaussianBlur(rng.between(0.2, 1.0)))
    values = np.asarray(picture, np.float32)
    if style.camera:
        x, y = np.linspace(-1, 1, width, dtype=np.float32)[None, :], np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        light: NDArray[Any] = rng.between(0.6, 1.05) * (1 + rng.between(-0.2, 0.2) * x + rng.between(-0.2, 0.2) * y)
        if rng.below(3) == 0:
            side = np.clip(
                (x * rng.between(-1, 1) + y * rng.between(-1, 1) + rng.between(-0.5, 0.5)) * rng.between(3, 15), 0, 1
            )
            light = light * (1 - rng.between(0.1, 0.45) * side)
        cast = np.array([1.0, rng.between(0.9, 1.02), rng.between(0.75, 1.02)], np.float32)
        values = values * light[..., None] * cast
        grain = rng.between(0.5, 6.0)
        values = values + grain * rng.noise(width * height).astype(np.float32).reshape(height, width, 1)
    if rng.below(6) == 0:
        values = np.repeat(values.mean(axis=2, keepdims=True), 3, axis=2)
    picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=35 + rng.below(60))
    return Image.open(stream).convert("RGB")


def _homography(source: Array, target: Array) -> Array:
    """The 3x3 matrix that takes four points to four points."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solved = np.linalg.solve(np.array(rows), target.reshape(-1))
    return np.append(solved, 1.0).reshape(3, 3)


def _mapped(matrix: NDArray[Any], points: NDArray[Any]) -> Array:
    x, y = points[..., 0], points[..., 1]
    over = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    return np.stack(
        [
            (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]) / over,
            (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]) / over,
        ],
        axis=-1,
    )


def _one_of(rng: RandomStream, weights: dict[str, int]) -> str:
    place = rng.below(sum(weights.values()))
    for name, weight in weights.items():
        place -= weight
        if place < 0:
            return name
    raise AssertionError


@functools.lru_cache(maxsize=1)
def _font_files() -> tuple[Path, ...]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    wanted = (
        "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "STIXGeneral", "STIXGeneralBol", "cmr10", "cmss10",
        "DejaVuSansMono", "DejaVuSans-Oblique", "STIXGeneralItalic", "cmb10",
    )  # fmt: skip
    return tuple(folder / f"{name}.ttf" for name in wanted)


@functools.lru_cache(maxsize=256)
def _font(number: int, size: int) -> FreeTypeFont:
    from PIL import ImageFont

    files = _font_files()
    return ImageFont.truetype(str(files[number % len(files)]), size, layout_engine=ImageFont.Layout.BASIC)
