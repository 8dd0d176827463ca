"""Sheets drawn here, with pulses, traces, header and footer at known places; real ones where they lie beside the repository."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cardium.demo.draws import RandomStream
from cardium.demo.ecg_signal import record
from cardium.demo.sheet_printer import draw_style, print_sheet
from cardium.imaging.kinds import LEADS
from cardium.imaging.paper import render_paper
from cardium.imaging.sheet import NOTHING, PART, SIDEWAYS, UNKNOWN, UPSIDE_DOWN, Sheet, find_sheet, upright

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "real"
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
# Where the drawn time axis begins and ends, and what frames the paper.
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 1060, 130, 760
_PULSE = 40
_SHEETS = {
    "3x4+1": [220, 370, 520, 670],
    "6x2+1": [190, 276, 362, 448, 534, 620, 706],
    "6x2": [200, 270, 390, 480, 590, 690],
}


def draw_sheet(
    layout: str, grid: tuple[int, int, int] | None = (240, 190, 190), pulses: bool = True, seed: int = 0
) -> np.ndarray:
    """A report as its machine prints it, (786, 1106, 3)."""
    image = Image.new("RGB", (1106, 786), _WHITE)
    draw = ImageDraw.Draw(image)
    random = np.random.default_rng(0)
    if grid:
        for x in range(34, 1088, 8):
            draw.line([(x, _TOP), (x, _BOTTOM)], fill=grid)
        for y in range(_TOP, _BOTTOM + 1, 8):
            draw.line([(34, y), (1087, y)], fill=grid)
    draw.text((500, 10), "ECG REPORT", fill=_BLACK)
    draw.line([(34, 60), (1076, 60)], fill=_BLACK, width=3)
    for line in range(3):
        draw.text((40, 70 + 16 * line), "ID 177096   HR 77   Sinus rhythm", fill=_BLACK)
    draw.text((40, 768), "0.67-25Hz 25mm/s 10mm/mV", fill=_BLACK)
    rows = _SHEETS[layout]
    columns = 4 if layout == "3x4+1" else 2
    for number, y in enumerate(rows):
        if pulses:
            feet = [(_LEFT - 4, y), (_LEFT, y), (_LEFT, y - _PULSE), (_LEFT + 9, y - _PULSE), (_LEFT + 9, y), (_LEFT + 13, y)]
            draw.line(feet, fill=_BLACK, width=2)
        x = np.arange(_LEFT + 20, _RIGHT)
        wave = 2 * np.sin(x / 17 + number) + random.normal(0, 0.5, len(x))
        beat = (x + 7 * number) % 83
        height = random.uniform(10, 26)
        wave -= height * np.maximum(0, 1 - np.abs(beat - 40) / 3) - 0.2 * height * np.maximum(0, 1 - np.abs(beat - 46) / 3)
        draw.line(list(zip(x.tolist(), (y + wave).tolist(), strict=True)), fill=_BLACK, width=2)
        draw.text((_LEFT + 22, y - 14), "II", fill=_BLACK)
    last = rows[-1] if layout == "6x2" else rows[-2]
    for column in range(1, columns):
        x0 = column_edges(layout)[column]
        draw.line([(x0, rows[0] - 25), (x0, last + 20)], fill=_BLACK, width=2)
    return np.asarray(image)


def column_edges(layout: str) -> list[float]:
    return np.linspace(_LEFT + 17, _RIGHT, 5 if layout == "3x4+1" else 3).tolist()


def true_boxes(layout: str) -> list[tuple[float, float, float, float]]:
    """Columns between separators, rows cut half-way between baselines."""
    rows, xs = _SHEETS[layout], column_edges(layout)
    pitch = (rows[-1] - rows[0]) / (len(rows) - 1)
    cuts = [(a + b) / 2 for a, b in pairwise(rows)]
    ys = [max(_TOP, rows[0] - 0.5 * pitch), *cuts, rows[-1] + 0.4 * pitch]
    strip = layout != "6x2"
    boxes = [(xs[c], ys[r], xs[c + 1], ys[r + 1]) for c in range(len(xs) - 1) for r in range(len(rows) - strip)]
    return [*boxes, (xs[0], ys[-2], xs[-1], ys[-1]) if strip else boxes[1]]


def mean_iou(found: object, true: object) -> float:
    a, b = np.asarray(found, float), np.asarray(true, float)
    across = np.clip(np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]), 0, None)
    along = np.clip(np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]), 0, None)
    area = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1]) + (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return float((across * along / (area - across * along)).mean())


def resized(pixels: np.ndarray, factor: float) -> np.ndarray:
    size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def turned(pixels: np.ndarray, degrees: float) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=_WHITE))


def whole(sheet: Sheet, pixels: np.ndarray) -> bool:
    """13 boxes of at least a pixel, all inside the picture."""
    height, width = pixels.shape[:2]
    return len(sheet.leads) == len(LEADS) == 13 and all(
        0 <= left < right <= width and 0 <= top < bottom <= height for left, top, right, bottom in (sheet.paper, *sheet.leads)
    )


@pytest.mark.parametrize("layout", _SHEETS)
@pytest.mark.parametrize(
    "grid", [(240, 190, 190), (250, 215, 170), (215, 215, 215), None], ids=["pink", "orange", "grey", "no"]
)
def test_every_layout_on_every_paper(layout, grid):
    pixels = draw_sheet(layout, grid)
    sheet = find_sheet(pixels)
    assert sheet.layout == layout
    assert sheet.angle == 0.0
    assert sheet.warnings == ()
    assert sheet.confidence > 0.8
    assert whole(sheet, pixels)
    assert mean_iou(sheet.leads, true_boxes(layout)) > 0.85


@pytest.mark.parametrize("layout", _SHEETS)
def test_header_and_footer_are_outside(layout):
    sheet = find_sheet(draw_sheet(layout))
    for _, top, _, bottom in (sheet.paper, *sheet.leads):
        assert top >= _TOP - 2
        assert bottom <= _BOTTOM + 2


@pytest.mark.parametrize("layout", _SHEETS)
@pytest.mark.parametrize("factor", [2.0, 0.5, 0.73])
def test_size_does_not_matter(layout, factor):
    pixels = draw_sheet(layout)
    sheet = find_sheet(resized(pixels, factor))
    assert sheet.layout == layout
    assert mean_iou(sheet.leads, factor * np.asarray(find_sheet(pixels).leads)) > 0.9


@pytest.mark.parametrize("layout", _SHEETS)
@pytest.mark.parametrize("degrees", [2.0, -2.0, 4.5])
def test_small_turns_are_undone(layout, degrees):
    pixels = draw_sheet(layout)
    leaning = turned(pixels, degrees)
    sheet = find_sheet(leaning)
    assert sheet.layout == layout
    assert sheet.angle == pytest.approx(-degrees, abs=0.25)
    assert mean_iou(sheet.leads, find_sheet(pixels).leads) > 0.85
    # The header's rule lies level again.
    ruled = upright(leaning, sheet)[:110, 150:950].max(axis=2) < 128
    assert ruled.mean(axis=1).max() > 0.7


def test_a_sheet_high_on_a_portrait_page():
    page = np.full((1500, 1200, 3), 255, np.uint8)
    page[90:876, 40:1146] = draw_sheet("3x4+1")
    sheet = find_sheet(page)
    assert sheet.layout == "3x4+1"
    assert mean_iou(sheet.leads, np.asarray(true_boxes("3x4+1")) + np.array([40, 90, 40, 90])) > 0.85


def test_a_photograph_on_a_table():
    table = np.full((1000, 1400, 3), 70, np.uint8)
    table[110:896, 150:1256] = draw_sheet("3x4+1")
    light = np.linspace(0.6, 1, 1400)[None, :, None] * np.array([1, 0.95, 0.85])
    noise = np.random.default_rng(0).normal(0, 4, table.shape)
    seen = np.clip(turned(table, 2) * light + noise, 0, 255).astype(np.uint8)
    sheet = find_sheet(seen)
    assert sheet.layout == "3x4+1"
    assert sheet.warnings == ()
    assert mean_iou(sheet.leads, np.asarray(true_boxes("3x4+1")) + np.array([150, 110, 150, 110])) > 0.8


def test_without_pulses_the_rows_are_enough_but_less_sure():
    sheet = find_sheet(draw_sheet("3x4+1", pulses=False))
    assert sheet.layout == "3x4+1"
    assert sheet.confidence < find_sheet(draw_sheet("3x4+1")).confidence
    assert mean_iou(sheet.leads, true_boxes("3x4+1")) > 0.8


def test_the_same_picture_has_the_same_sheet():
    assert find_sheet(draw_sheet("6x2+1")) == find_sheet(draw_sheet("6x2+1").copy())


def told(pixels: np.ndarray) -> tuple[str, ...]:
    """The warnings of a picture that must not be trusted."""
    sheet = find_sheet(np.ascontiguousarray(pixels))
    assert whole(sheet, pixels)
    assert sheet.confidence < 0.5
    assert sheet.warnings
    return sheet.warnings


@pytest.mark.parametrize("layout", ["3x4+1", "6x2+1"])
def test_half_a_sheet_is_told(layout):
    pixels = draw_sheet(layout)
    for half in (pixels[:, :553], pixels[:, 553:], pixels[:440], pixels[440:]):
        told(half)
    assert told(pixels[:, :553]) == (PART,)


def test_an_upside_down_sheet_is_told_and_its_leads_are_found():
    pixels = draw_sheet("3x4+1")[::-1, ::-1]
    assert told(pixels) == (UPSIDE_DOWN,)
    sheet = find_sheet(pixels)
    assert mean_iou(sheet.leads, true_boxes("3x4+1")) > 0.85
    again = find_sheet(upright(pixels, sheet))
    assert again.warnings == ()


def test_a_sheet_on_its_side_is_told():
    assert told(np.rot90(draw_sheet("3x4+1"))) == (SIDEWAYS,)


def test_six_rows_in_one_column_are_no_twelve_leads():
    pixels = draw_sheet("6x2").copy()
    x = round(column_edges("6x2")[1])
    pixels[:, x - 3 : x + 4] = pixels[:, x + 10 : x + 11]
    assert told(pixels) == (UNKNOWN,)


def test_no_sheet_at_all_is_told():
    draw = np.random.default_rng(0)
    blobs = np.kron(draw.integers(0, 256, (12, 12, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    for pixels in (
        np.full((400, 600, 3), 255, np.uint8),
        np.zeros((400, 600, 3), np.uint8),
        draw.integers(0, 256, (300, 400, 3), dtype=np.uint8),
        blobs,
        np.full((1, 1, 3), 128, np.uint8),
        np.full((3, 900, 3), 128, np.uint8),
    ):
        assert told(pixels) == (NOTHING,)


@pytest.mark.parametrize("shape", [(2, 2), (64, 64), (65, 3), (3, 2000), (70, 90), (128, 64)])
def test_any_picture_has_thirteen_boxes(shape):
    for seed in range(3):
        draw = np.random.default_rng(seed)
        told(draw.integers(0, 256, (*shape, 3), dtype=np.uint8))
        told((255 * (draw.random((*shape, 1)) > 0.03)).astype(np.uint8).repeat(3, axis=2))


def test_render_paper_keeps_the_aspect_and_pads_with_paper():
    pixels = draw_sheet("3x4+1")
    sheet = find_sheet(pixels)
    rendered = render_paper(pixels, sheet, 224, 224)
    assert rendered.shape == (224, 224, 3)
    assert rendered.dtype == np.uint8
    left, top, right, bottom = sheet.paper
    inked = np.nonzero((rendered.min(axis=2) < 200).any(axis=1))[0]
    height = 224 * (bottom - top) / (right - left)
    assert inked[0] >= 112 - height / 2 - 1
    assert inked[-1] <= 112 + height / 2 + 1
    assert (rendered[0] > 230).all()
    assert render_paper(pixels, sheet, 100, 400).shape == (100, 400, 3)


def real_sheets() -> list[tuple[str, str]]:
    import csv

    table = _SHARED / "ecg" / "files.csv"
    if not table.is_file():
        return []
    with table.open() as lines:
        return [(row["label"], row["image"]) for row in csv.DictReader(lines) if row["version"] == "v1"][::45]


def test_real_sheets_are_found():
    sheets = real_sheets()
    if not sheets:
        pytest.skip("no real sheets beside the repository (../shared/real/ecg)")
    for _, name in sheets:
        path = next((_SHARED / "ecg").rglob(name))
        sheet = find_sheet(np.asarray(Image.open(path).convert("RGB")))
        assert sheet.warnings == (), name
        assert sheet.layout != "grid"
        assert sheet.confidence > 0.9


def test_real_cardiac_mri_is_no_sheet():
    images = sorted((_SHARED / "cmr").rglob("*.png"))[::40]
    if not images:
        pytest.skip("no real cardiac MRI beside the repository (../shared/real/cmr)")
    for path in images:
        told(np.asarray(Image.open(path).convert("RGB")))


def printed(layout: str, seed: int, camera: bool) -> tuple[np.ndarray, dict[str, tuple[float, float]]]:
    """A printout, and where the middle of each lead's baseline is."""
    rng = RandomStream(seed, 6)
    style = replace(
        draw_style(rng), layout=layout, cabrera=False, camera=camera, length=240.0, pitch=_PITCH[layout], strip_pitch=1.0
    )
    style = replace(style, margins=(16.0, 24.0, 8.0, 18.0), wander=0.04, tall=1.0, gain=10.0)
    pixels, truth = print_sheet(record("Normal", 1 + seed, 8).leads, style, (1200, 800), rng)
    return pixels, {name: tuple(points.mean(axis=0)) for name, _, points in truth.baselines if name != "strip"}


_PITCH = {"3x4": 34.0, "3x4+1": 30.0, "3x4+2": 26.0, "3x4+3": 22.0, "6x2": 22.0, "6x2+1": 20.0, "12x1": 13.0}


@pytest.mark.parametrize("camera", [False, True], ids=["flat", "camera"])
def test_printouts_of_any_printer_are_read_or_warned_of(camera):
    right = wrong = 0
    for number, layout in enumerate(_PITCH):
        for seed in (100 + number, 200 + number)[: 1 + number % 2]:
            pixels, middles = printed(layout, seed, camera)
            sheet = find_sheet(pixels)
            assert whole(sheet, pixels)
            height, width = pixels.shape[:2]
            sine, cosine = np.sin(np.deg2rad(sheet.angle)), np.cos(np.deg2rad(sheet.angle))
            inside = 0
            for name, (left, top, right_edge, bottom) in zip(LEADS[:12], sheet.leads, strict=False):
                x, y = middles[name][0] - width / 2, middles[name][1] - height / 2
                x, y = x * cosine + y * sine + width / 2, y * cosine - x * sine + height / 2
                inside += left < x < right_edge and top < y < bottom
            found = sheet.layout == layout and inside >= 11
            right += found
            wrong += not sheet.warnings and inside < 6
    # Hard ones: rules beside the rows, dense grids, names anywhere. benchmarks/sheet_reading.py counts over many.
    assert right >= 7
    assert wrong <= 1


@pytest.mark.parametrize("layout", ["3x4", "3x4+1", "3x4+2"])
def test_a_printout_that_is_cut_off_is_told_and_one_that_fills_the_picture_is_not(layout):
    pixels, _ = printed(layout, 100 + list(_PITCH).index(layout), camera=False)
    left, _, right, _ = find_sheet(pixels).paper
    assert PART not in find_sheet(np.ascontiguousarray(pixels[:, left:right])).warnings
    for share in (0.5, 0.65):
        kept = round(share * (right - left))
        for part in (pixels[:, left : left + kept], pixels[:, right - kept : right]):
            assert find_sheet(np.ascontiguousarray(part)).warnings


def test_pulses_on_the_right_are_no_upside_down_sheet():
    pixels = draw_sheet("3x4+1", pulses=False).copy()
    for y in _SHEETS["3x4+1"]:
        pixels[y - _PULSE : y, [1065, 1066, 1073, 1074]] = 0
        pixels[y - _PULSE : y - _PULSE + 2, 1065:1075] = 0
        pixels[y - 1 : y + 1, 1060:1066] = 0
    sheet = find_sheet(pixels)
    assert UPSIDE_DOWN not in sheet.warnings
    assert sheet.layout == "3x4+1"
    assert mean_iou(sheet.leads, true_boxes("3x4+1")) > 0.8
