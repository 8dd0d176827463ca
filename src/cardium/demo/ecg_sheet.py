"""A recording drawn as a paper sheet, as the ECG image collections show them, with the true places of its leads.

`draw_sheet` draws three kinds of pictures: a `report` as the device of the Mendeley collection prints it (header, pink frame,
dotted grid, calibration pulses, three rows of four leads or six rows of two, a rhythm strip, footer), at any scale of its
2213 x 1572; a `page` of the COVID-19 part (pink paper on a white page, thin trace, no header); and a `photo` of either one on
a grey table: turned a little, unevenly lit. `sheet_style` chooses among them by number alone, so that the paper
is independent of the class. 25 mm/s and 10 mm/mV everywhere.

The same bytes on every machine with the locked Pillow: a trace's outline is found in floating point by + - * / sqrt and
rounded to 1/64 pixel; what follows is whole numbers. Letters are Pillow's own font, laid out one by one (`Layout.BASIC`: the
other one depends on what else is installed); nothing is resized, a smaller sheet is drawn smaller.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardium.demo.draws import Array, RandomStream, direction
from cardium.demo.ecg_signal import CLASSES, LEADS, RATE, SECONDS, Recording

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]

WIDTH, HEIGHT = 2213, 1572  # a report at scale 1
MM = 7.88  # its pixels a millimetre
_FINE = 64  # parts of a pixel that a trace's outline is rounded to
_ACROSS = 4  # columns drawn in each pixel column

# Where the columns of leads begin and end and the rows' baselines: reports at scale 1, whose leads lie in the boxes that system
# 003 calls A, B, C and C2. The last row is the rhythm strip.
_COLUMNS = {
    "A": (150, 643, 1136, 1628, 2121),
    "B": (146, 640, 1134, 1630, 2125),
    "C": (150, 1136, 2121),
    "C2": (146, 1134, 2125),
}
_ROWS = {
    "A": (463, 764, 1065, 1367),
    "B": (458, 757, 1060, 1376),
    "C": (402, 574, 746, 917, 1089, 1261, 1433),
    "C2": (392, 566, 740, 914, 1088, 1262, 1436),
}
_FRAME = (68, 285, 2176, 1516)
# The leads as they are read across, by how many stand side by side.
_ACROSS_LEADS = {
    4: ("I", "aVR", "V1", "V4", "II", "aVL", "V2", "V5", "III", "aVF", "V3", "V6"),
    2: ("I", "V1", "II", "V2", "III", "V3", "aVR", "V4", "aVL", "V5", "aVF", "V6"),
}


@dataclass(frozen=True)
class SheetStyle:
    """The look of a sheet, independent of the patient's class.

    kind: report or page; photo: whether it lies on a table. layout: "A", "B", "C", "C2" (reports) or "E" (pages).
    size: pixels of a millimetre. quality: of the JPEG. width, height: the page's, of pages only (0: as large as the report).
    """

    kind: str
    layout: str
    size: float
    quality: int
    photo: bool = False
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class SheetTruth:
    """The true places on a drawn sheet; boxes are (left, top, right, bottom) in pixels, right and bottom exclusive.

    layout: "3x4+1" or "6x2+1". angle: degrees by which `Image.rotate` makes the picture upright; the boxes are those of the
    upright picture, of the same size. paper: the ruled area, or where it would be on a blank sheet. leads: 13 boxes, I II III
    aVR aVL aVF V1..V6 rhythm. rhythm: the lead that the strip shows. pixels_per_mm: 25 of these are a second, 10 a millivolt.
    """

    layout: str
    angle: float
    paper: Box
    leads: tuple[Box, ...]
    rhythm: str
    pixels_per_mm: float


# Reports are half of full size for the most part, to keep the demo small; the rest of each collection is as its own.
_HALF = 0.5 * MM
_REPORTS = (
    SheetStyle("report", "A", _HALF, 78),
    SheetStyle("report", "C", _HALF, 72),
    SheetStyle("report", "B", 0.62 * MM, 70),
    SheetStyle("report", "A", MM, 55),
    SheetStyle("report", "C2", _HALF, 80),
    SheetStyle("report", "B", _HALF, 66),
    SheetStyle("report", "A", _HALF, 84, photo=True),
    SheetStyle("report", "C", 0.75 * MM, 62),
    SheetStyle("report", "B", _HALF, 76),
    SheetStyle("report", "A", 0.56 * MM, 68),
    SheetStyle("page", "E", 3.02, 82, width=952, height=1232),
    SheetStyle("report", "C2", 0.58 * MM, 74),
)
_PAGES = (
    SheetStyle("report", "A", _HALF, 78),
    SheetStyle("page", "E", 2.86, 84, width=952, height=1232),
    SheetStyle("report", "B", 0.62 * MM, 70),
    SheetStyle("page", "E", 4.55, 78, width=1308, height=1012),
    SheetStyle("report", "C", _HALF, 74),
    SheetStyle("page", "E", 3.6, 84, photo=True, width=980, height=1240),
    SheetStyle("report", "A", MM, 55),
    SheetStyle("page", "E", 4.1, 80, width=1199, height=927),
    SheetStyle("report", "B", _HALF, 82),
    SheetStyle("report", "C2", 0.58 * MM, 68),
    SheetStyle("page", "E", 2.92, 80, width=961, height=1243),
    SheetStyle("report", "A", _HALF, 80, photo=True),
    SheetStyle("report", "B", 0.56 * MM, 72),
    SheetStyle("page", "E", 3.9, 76, width=1133, height=876),
    SheetStyle("page", "E", 3.4, 80, photo=True, width=940, height=1180),
    SheetStyle("report", "C", 0.66 * MM, 66),
)
STYLES = {"reports": _REPORTS, "pages": _PAGES}


def sheet_style(series: str, number: int, seed: int) -> SheetStyle:
    """The style of every class's sheet `number`. series: "reports" (as version 2) or "pages" (version 1: half are pages)."""
    styles = STYLES[series]
    return styles[(number + RandomStream(seed, 21).below(len(styles))) % len(styles)]


def draw_sheet(recording: Recording, style: SheetStyle, number: int, seed: int) -> tuple[Pixels, SheetTruth]:
    """Draws a sheet: the picture, uint8 (H, W, 3), and its truth.

    (seed, class, number) decide offsets, header, paper, light and angle.
    """
    rng = RandomStream(seed, 22, CLASSES.index(recording.label), number)
    plan = _plan(style, rng)
    pixels = _paper(plan, rng)
    cover = np.zeros((plan.height + 2, plan.width), dtype=np.int32)
    _traces(cover, recording, plan)
    np.cumsum(cover, axis=0, out=cover)
    ink = np.minimum(cover[: plan.height], _FINE * _ACROSS) * 255 // (_FINE * _ACROSS)
    ink = np.maximum(ink, _letters(recording, plan, rng))
    at = np.nonzero(ink)
    level = plan.ink
    mixed = pixels[at].astype(np.int32)
    pixels[at] = (mixed + (level - mixed) * ink[at][:, None] // 255).astype(np.uint8)
    truth = plan.truth
    if style.photo:
        # How much of the table is seen makes the picture's size, which is the same in every class.
        table = RandomStream(seed, 23, number)
        pixels, truth = _photographed(pixels, truth, (table.between(0.035, 0.07), table.between(0.035, 0.07)), rng)
    return pixels, truth


@dataclass(frozen=True)
class _Plan:
    """The places of everything on one sheet, in its own pixels, before it is photographed."""

    style: SheetStyle
    width: int
    height: int
    scale: float  # of a report's measures at scale 1
    columns: tuple[float, ...]
    rows: tuple[float, ...]
    pulse: float  # left edge of the calibration pulses
    pen: float  # radius of the trace
    ink: int
    truth: SheetTruth

    def place(self, value: float) -> int:
        """A report's measure at scale 1 in this sheet's pixels."""
        return _round(value * self.scale)


def _plan(style: SheetStyle, rng: RandomStream) -> _Plan:
    rhythm = ("II", "II", "II", "II", "III", "V1")[rng.below(6)]
    if style.kind == "report":
        scale = style.size / MM
        width, height = _round(WIDTH * scale), _round(HEIGHT * scale)
        # The device sets the leads where it likes, by some pixels.
        dx, dy = rng.between(-8, 8), rng.between(-9, 9)
        columns = tuple((x + dx) * scale for x in _COLUMNS[style.layout])
        # Rows are not quite evenly far from each other.
        loose = 6.0
        rows = tuple((y + dy + rng.between(-loose, loose)) * scale for y in _ROWS[style.layout])
        paper = (_FRAME[0] * scale, _FRAME[1] * scale, _FRAME[2] * scale, _FRAME[3] * scale)
        pulse, pen, ink = (97 + dx) * scale, max(1.7 * scale, 0.62), 8
    else:
        scale = style.size / MM
        width, height = style.width, style.height
        length = 250 * style.size
        left = (width - length - 6.5 * style.size) / 2 + rng.between(-0.35, 0.35) * (width - length - 13.0 * style.size) / 2
        start = left + 6.5 * style.size
        top = (0.085 if height > width else 0.20) * height + rng.between(-0.015, 0.03) * height
        columns = tuple(start + length * part / 4 for part in range(5))
        distance = rng.between(37.5, 40.0) * style.size
        rows = tuple(top + 19.0 * style.size + distance * row for row in range(4))
        paper = (left - 0.8 * style.size, top, columns[-1] + 2.0 * style.size, rows[-1] + 15.0 * style.size)
        pulse, pen, ink = left, max(0.17 * style.size, 0.5), 28
    box = _whole(paper)
    # A lead's box reaches half-way to the next row.
    limits = [box[1] + max(1, _round((rows[0] - box[1]) * 0.06))]
    limits += [_round((one + two) / 2) for one, two in itertools.pairwise(rows)]
    limits.append(min(box[3], _round(rows[-1] + (rows[-1] - rows[-2]) * 0.5)) if style.kind == "report" else box[3])
    edges = [_round(x) for x in columns]
    boxes: dict[str, Box] = {}
    across = len(edges) - 1
    for place, name in enumerate(_ACROSS_LEADS[across]):
        row, column = divmod(place, across)
        boxes[name] = (edges[column], limits[row], edges[column + 1], limits[row + 1])
    strip = (edges[0], limits[-2], edges[-1], limits[-1])
    layout = "3x4+1" if len(rows) == 4 else "6x2+1"
    truth = SheetTruth(layout, 0.0, box, (*(boxes[name] for name in LEADS), strip), rhythm, style.size)
    return _Plan(style, width, height, scale, columns, rows, pulse, pen, ink, truth)


def _paper(plan: _Plan, rng: RandomStream) -> Pixels:
    """The blank page with its ruled area."""
    left, top, right, bottom = plan.truth.paper
    # Sheets of six rows often come on blank paper, without a frame.
    grids = ("blank", "blank", "dots", "lines") if plan.truth.layout == "6x2+1" else ("dots", "dots", "lines", "squares")
    grid = grids[rng.below(4)] if plan.style.kind == "report" else "lines"
    bright = 255 - rng.below(4)
    if plan.style.kind == "page":
        wash, fine, bold = (252, 244 - rng.below(10), 245 - rng.below(8)), (243, 217, 221), (232, 188, 196)
    elif grid == "dots":
        wash, fine, bold = (bright, bright, bright), (218, 205, 214), (232, 216, 214)
    elif grid == "squares":
        wash, fine, bold = (bright, bright - 2, bright - 1), (240, 236, 240), (214, 206, 210)
    else:
        wash, fine, bold = (bright, bright - 4, bright - 4), (247, 226, 226), (240, 198, 198)
    pixels = np.full((plan.height, plan.width, 3), bright, dtype=np.uint8)
    if grid == "blank":
        return pixels
    rows, columns = bottom - top, right - left
    size = plan.truth.pixels_per_mm
    offset_x, offset_y = rng.between(0, 5), rng.between(0, 5)
    thin, thick = max(0.14 * size, 0.55), max(0.22 * size, 0.9)
    fine_x, fine_y = _ruling(columns, size, offset_x, thin), _ruling(rows, size, offset_y, thin)
    bold_x, bold_y = _ruling(columns, 5 * size, offset_x / 5, thick), _ruling(rows, 5 * size, offset_y / 5, thick)
    if grid == "dots":
        light = fine_y[:, None] * fine_x[None, :] // 255
    else:
        light = np.maximum(fine_y[:, None], fine_x[None, :])
    heavy = np.maximum(bold_y[:, None], bold_x[None, :])
    if grid == "squares":  # two lines beside each other, as embossed
        light = light * 2 // 3
    area = pixels[top:bottom, left:right]
    for channel in range(3):
        plain = wash[channel] + (fine[channel] - wash[channel]) * light // 255
        area[..., channel] = (plain + (bold[channel] - plain) * heavy // 255).astype(np.uint8)
    if plan.style.kind == "report":
        line = max(1, plan.place(4))
        frame = np.array((244, 160, 160), dtype=np.uint8)
        pixels[top : top + line, left:right] = frame
        pixels[bottom - line : bottom, left:right] = frame
        pixels[top:bottom, left : left + line] = frame
        pixels[top:bottom, right - line : right] = frame
    return pixels


def _ruling(count: int, step: float, offset: float, thickness: float) -> NDArray[np.int32]:
    """The coverage of each of `count` pixels by lines every `step` pixels, 0..255; `offset` in steps."""
    place = np.arange(count) / step + offset
    away = np.abs(place - np.floor(place) - 0.5) * step  # from half a step beside the line
    away = 0.5 * step - away
    share = np.minimum(np.maximum(thickness / 2 + 0.5 - away, 0.0), min(thickness, 1.0))
    return np.floor(share * 255.0 + 0.5).astype(np.int32)


def _traces(cover: NDArray[np.int32], recording: Recording, plan: _Plan) -> None:
    """Adds all leads, pulses and separators as steps down each column; the running sum of these is the coverage."""
    across = len(plan.columns) - 1
    per_second, per_mv = 25.0 * plan.truth.pixels_per_mm, 10.0 * plan.truth.pixels_per_mm
    # The four (two) columns follow each other in time, and the strip below shows all of it.
    for place, name in enumerate(_ACROSS_LEADS[across]):
        row, column = divmod(place, across)
        begin, end = plan.columns[column], plan.columns[column + 1]
        lead = recording.leads[LEADS.index(name)]
        _stroke(cover, _line(lead, column * SECONDS / across, begin, end, plan.rows[row], per_second, per_mv), plan.pen)
    strip = recording.leads[LEADS.index(plan.truth.rhythm)]
    _stroke(cover, _line(strip, 0.0, plan.columns[0], plan.columns[-1], plan.rows[-1], per_second, per_mv), plan.pen)
    for baseline in plan.rows:
        _pulse(cover, plan, baseline, per_mv)
    if plan.style.kind == "report":
        half = max(2.0 * plan.scale, 0.5)
        top, bottom = plan.rows[0] - 5 * plan.truth.pixels_per_mm, plan.rows[-2] + 5 * plan.truth.pixels_per_mm
        for x in plan.columns[1:-1]:
            _block(cover, x - half, top, x + half, bottom)


def _line(
    lead: Array, start: float, begin: float, end: float, baseline: float, per_second: float, per_mv: float
) -> tuple[int, Array]:
    """A lead's first column (in parts of a pixel) and its height at each of the columns from there, in pixels."""
    first, last = math.ceil(begin * _ACROSS), math.floor(end * _ACROSS)
    x = (np.arange(first, last) + 0.5) / _ACROSS
    place = np.minimum(np.maximum((start + (x - begin) / per_second) * RATE, 0.0), lead.size - 1.001)
    left = np.floor(place)
    index = left.astype(np.int64)
    value = lead[index] + (lead[index + 1] - lead[index]) * (place - left)
    return first, baseline - value * per_mv


def _stroke(cover: NDArray[np.int32], line: tuple[int, Array], radius: float) -> None:
    """Adds the cover of a round pen that follows the line: its highest and lowest edge over all its places near a column."""
    first, y = line
    reach = int(radius * _ACROSS)
    padded = np.concatenate([y[:1].repeat(reach), y, y[-1:].repeat(reach)])
    high, low = y - radius, y + radius
    for step in range(-reach, reach + 1):
        half = math.sqrt(max(radius * radius - (step / _ACROSS) * (step / _ACROSS), 0.0))
        near = padded[reach + step : reach + step + y.size]
        high, low = np.minimum(high, near - half), np.maximum(low, near + half)
    _fill(cover, first + np.arange(y.size), high, low)


def _fill(cover: NDArray[np.int32], columns: NDArray[np.int64], high: Array, low: Array) -> None:
    """Adds vertical bars, one a column (in parts of a pixel), from `high` to `low`; off the sheet they are cut."""
    bottom = (cover.shape[0] - 2) * _FINE
    inside = (columns >= 0) & (columns < cover.shape[1] * _ACROSS)
    x = columns[inside] // _ACROSS
    for edge, sign in ((high[inside], 1), (low[inside], -1)):
        fine = np.minimum(np.maximum(np.floor(edge * _FINE + 0.5), 0.0), float(bottom)).astype(np.int64)
        row, part = fine // _FINE, fine % _FINE
        np.add.at(cover, (row, x), (sign * (_FINE - part)).astype(np.int32))
        np.add.at(cover, (row + 1, x), (sign * part).astype(np.int32))


def _block(cover: NDArray[np.int32], left: float, top: float, right: float, bottom: float) -> None:
    columns = np.arange(_round(left * _ACROSS), max(_round(right * _ACROSS), _round(left * _ACROSS) + 1))
    _fill(cover, columns, np.full(columns.size, top), np.full(columns.size, bottom))


def _pulse(cover: NDArray[np.int32], plan: _Plan, baseline: float, height: float) -> None:
    """The calibration pulse: one millivolt, before each row."""
    size, pen = plan.truth.pixels_per_mm, plan.pen
    foot, wide = (1.2 * size, 2.3 * size) if plan.style.kind == "report" else (0.3 * size, 5.0 * size)
    x = plan.pulse
    _block(cover, x, baseline - pen, x + foot, baseline + pen)
    _block(cover, x + foot - pen, baseline - height, x + foot + pen, baseline + pen)
    _block(cover, x + foot - pen, baseline - height - pen, x + foot + wide + pen, baseline - height + pen)
    _block(cover, x + foot + wide - pen, baseline - height, x + foot + wide + pen, baseline + pen)
    if plan.style.kind == "report":
        _block(cover, x + foot + wide, baseline - pen, x + 2 * foot + wide, baseline + pen)


def _letters(recording: Recording, plan: _Plan, rng: RandomStream) -> NDArray[np.int32]:
    """Draws lead names, header and footer: 0..255, of the sheet's shape."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (plan.width, plan.height))
    draw = ImageDraw.Draw(image)

    def write(x: float, y: float, size: int, text: str) -> None:
        """Text from x on, on a baseline at y, all in this sheet's pixels."""
        font = _font(max(size, 6))
        at = _round(x)
        for letter in text:
            draw.text((at, _round(y)), letter, fill=255, font=font, anchor="ls")
            at += _round(font.getlength(letter))

    across = len(plan.columns) - 1
    report = plan.style.kind == "report"
    size = plan.truth.pixels_per_mm
    letter = _round(3.2 * size) if report else _round(3.4 * size)
    up, aside = (0.6 * size, 0.2 * size) if report else (1.4 * size, 0.8 * size)
    for place, name in enumerate(_ACROSS_LEADS[across]):
        row, column = divmod(place, across)
        write(plan.columns[column] + aside, plan.rows[row] - up, letter, name)
    write(plan.columns[0] + aside, plan.rows[-1] - up, letter, plan.truth.rhythm)
    # The number, date and place say nothing of the class, as on no real sheet.
    number, sex = 160000 + rng.below(18000), ("Male", "Female", "Female", "Male")[rng.below(4)]
    day = f"{2019 + rng.below(2)}-{1 + rng.below(12):02d}-{1 + rng.below(28):02d}"
    clock = f"{1 + rng.below(12):02d}:{rng.below(60):02d}:{rng.below(60):02d} {('AM', 'PM')[rng.below(2)]}"
    years = f"{18 + rng.below(70)}" if rng.below(3) == 0 else ""
    department = rng.below(2) == 0
    cut = ("0.67~25Hz", "0.67~35Hz", "0.5~100Hz")[rng.below(3)]
    if report:
        text = plan.place(29)

        def head(x: float, y: float, words: str) -> None:
            write(plan.place(x), plan.place(y), text, words)

        write(plan.place(985), plan.place(63), plan.place(47), "ECG REPORT")
        fields = [
            (68, f"ID : {number}"),
            (290, f"{years} Years"),
            (443, sex),
            (612, "cm"),
            (755, "kg"),
            (905, "/"),
            (958, "mmHg"),
        ]
        fields += [(1100, "Race:Unknown"), (1332, "Room No.:")]
        if not department:
            fields.append((1522, "Department:"))
        for x, words in fields:
            head(x, 95, words)
        second = ["Exam.Room:", "Medication:"]
        for place, words in enumerate((["Department:"] if department else []) + second):
            head(68 + 200 * place, 127, words)
        draw.rectangle((plan.place(68), plan.place(137), plan.place(2155), max(plan.place(140), plan.place(137))), fill=255)
        draw.rectangle((plan.place(68), plan.place(145), plan.place(2155), max(plan.place(147), plan.place(145))), fill=255)
        head(68, 172, "Diagnosis Information:")
        for place, words in enumerate(("Technician :", "Ref-Phys. :", "Report Confirmed by:")):
            head(1555, 205 + 33 * place, words)
        line = "4*2.5s+1r" if across == 4 else "2*5s+1r"
        foot = plan.place(24)
        write(plan.place(68), plan.place(1555), foot, f"{cut}  AC50  25mm/s  10mm/mV  {line}  HR {recording.rate}  SE-3 V1.0")
        write(plan.place(1790), plan.place(1555), foot, f"{day}  {clock}")
    elif rng.below(2):
        write(plan.columns[0], plan.truth.paper[3] - 0.6 * size, _round(2.2 * size), f"25 mm/s  10 mm/mV  {cut}")
    return np.asarray(image, dtype=np.uint8).astype(np.int32)


@functools.lru_cache(maxsize=64)
def _font(size: int) -> FreeTypeFont:
    """Pillow's own font, letter by letter as every installation sets it."""
    from PIL import ImageFont

    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def _photographed(
    pixels: Pixels, truth: SheetTruth, edges: tuple[float, float], rng: RandomStream
) -> tuple[Pixels, SheetTruth]:
    """The sheet on a grey table, turned by up to 2.5 degrees, with light that falls from one side, and grain.

    edges: the table's width left and right, above and below, as shares of the sheet's own.
    """
    height, width = pixels.shape[:2]
    edge_x, edge_y = _round(width * edges[0]), _round(height * edges[1])
    table = 95 + rng.below(90)
    whole = np.full((height + 2 * edge_y, width + 2 * edge_x, 3), table, dtype=np.uint8)
    whole[edge_y : edge_y + height, edge_x : edge_x + width] = pixels
    angle = round(rng.between(-2.5, 2.5), 3)
    rows, columns = whole.shape[:2]
    # Turned by -angle about the centre, bilinear: each pixel asks where it came from.
    cos, sin = direction(angle)
    x = (np.arange(columns) - (columns - 1) / 2)[None, :]
    y = (np.arange(rows) - (rows - 1) / 2)[:, None]
    from_x, from_y = x * cos + y * sin + (columns - 1) / 2, y * cos - x * sin + (rows - 1) / 2
    # Whole numbers from here, 1/64 of a pixel: nothing is left to round differently.
    from_x = np.floor(np.minimum(np.maximum(from_x, 0.0), columns - 1.02) * 64.0 + 0.5).astype(np.int32)
    from_y = np.floor(np.minimum(np.maximum(from_y, 0.0), rows - 1.02) * 64.0 + 0.5).astype(np.int32)
    part_x, part_y = from_x & 63, from_y & 63
    corner = (from_y >> 6) * columns + (from_x >> 6)
    # Light: brightest at one place, darker away from it; and the camera's grain.
    lamp_x, lamp_y = rng.between(-0.8, 0.8) * columns, rng.between(-0.8, 0.8) * rows
    fall = rng.between(0.10, 0.28) / float(columns * columns + rows * rows)
    light = rng.between(0.90, 1.0) / (1.0 + fall * ((x - lamp_x) * (x - lamp_x) + (y - lamp_y) * (y - lamp_y)) * 2.0)
    grain = rng.between(1.5, 4.0) * rng.noise(rows * columns).reshape(rows, columns)
    warm = (1.0, rng.between(0.97, 1.0), rng.between(0.92, 1.0))
    out = np.zeros_like(whole)
    for channel in range(3):
        plane = whole[..., channel].astype(np.int32).reshape(-1)
        above = plane[corner] * (64 - part_x) + plane[corner + 1] * part_x
        below = plane[corner + columns] * (64 - part_x) + plane[corner + columns + 1] * part_x
        value = (above * (64 - part_y) + below * part_y) * (light * (warm[channel] / 4096.0)) + grain
        out[..., channel] = np.minimum(np.maximum(np.floor(value + 0.5), 0.0), 255.0).astype(np.uint8)

    def moved(box: Box) -> Box:
        return box[0] + edge_x, box[1] + edge_y, box[2] + edge_x, box[3] + edge_y

    return out, replace(truth, angle=angle, paper=moved(truth.paper), leads=tuple(moved(box) for box in truth.leads))


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def _whole(box: tuple[float, float, float, float]) -> Box:
    return _round(box[0]), _round(box[1]), _round(box[2]), _round(box[3])
