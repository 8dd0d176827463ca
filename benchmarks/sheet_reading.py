"""How often any printout is read right, on drawn ones: `python benchmarks/sheet_reading.py [--count N] [--picture FILE]`.

Printouts of demo/sheet_printer.py that the network never saw: by layout and by how they came to be a picture, how often the
layout is named rightly, which share of leads has a box with IoU >= 0.7 (between the lead's edges and half-way to the rows
above and below), which share of sheets is warned of, and which is confidently wrong (no warning, fewer than half of the leads).
Then how like the true voltages the digitised ones are (correlation of the median lead; median error). --picture
draws some of them with what was found.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cardium.demo.draws import RandomStream
from cardium.demo.ecg_signal import CLASSES, record
from cardium.demo.ecg_signal import RATE as TRUE_RATE
from cardium.demo.sheet_printer import PrintStyle, PrintTruth, draw_style, print_sheet
from cardium.imaging.kinds import LEADS
from cardium.imaging.sheet import Sheet, find_sheet
from cardium.imaging.traces import RATE, digitise

SIZES = ((1600, 1100), (1200, 620), (1000, 1300), (800, 420))
Box = tuple[float, float, float, float]


def true_boxes(truth: PrintTruth) -> dict[str, Box]:
    """The leads' boxes: between their edges, half-way to the rows above and below at their place."""
    rows: dict[str, Box] = {}
    lines = [
        (name, points[0][0], points[-1][0], points[:, 1].mean(), points[:, 0].mean()) for name, _, points in truth.baselines
    ]
    for name, left, right, level, middle in lines:
        if name == "strip":
            continue
        beside = [y for _, a, b, y, _ in lines if a - 1 <= middle <= b + 1]
        above, below = [y for y in beside if y < level - 1], [y for y in beside if y > level + 1]
        top = (max(above) + level) / 2 if above else None
        bottom = (min(below) + level) / 2 if below else None
        half = (bottom - level) if bottom is not None else (level - top) if top is not None else 50.0
        rows[name.removeprefix("-")] = (
            left,
            level - half if top is None else top,
            right,
            level + half if bottom is None else bottom,
        )
    return rows


def iou(one: Box, other: Box) -> float:
    across, along = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    if across <= 0 or along <= 0:
        return 0.0
    both = across * along
    return both / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both)


def in_picture(box: Box, sheet: Sheet, width: int, height: int) -> Box:
    """A box of the upright picture in the picture as it is: around the middles of its turned sides."""
    cosine, sine = np.cos(np.deg2rad(sheet.angle)), np.sin(np.deg2rad(sheet.angle))
    left, top, right, bottom = box
    sides = np.array(
        [(left, (top + bottom) / 2), (right, (top + bottom) / 2), ((left + right) / 2, top), ((left + right) / 2, bottom)]
    )
    x, y = sides[:, 0] - width / 2, sides[:, 1] - height / 2
    x, y = width / 2 + x * cosine - y * sine, height / 2 + x * sine + y * cosine
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def likeness(lead: NDArray[Any], true: NDArray[Any], start: float) -> tuple[float, float] | None:
    """Correlation with the true lead, the best within 180 ms (a printout begins anywhere), and the
    median error there in mV, both about their means."""
    seen = np.nonzero(~np.isnan(lead))[0]
    if len(seen) < 60:
        return None
    best = (-1.0, 0.0)
    for lag in range(-18, 19):
        at = np.clip(np.rint((start + (seen + lag) / RATE) * TRUE_RATE).astype(int), 0, len(true) - 1)
        a, b = lead[seen] - lead[seen].mean(), true[at] - true[at].mean()
        value = float((a * b).sum() / max(float(np.sqrt((a * a).sum() * (b * b).sum())), 1e-9))
        best = max(best, (value, float(np.median(np.abs(a - b)))))
    return best


def printout(number: int) -> tuple[NDArray[np.uint8], PrintTruth, PrintStyle, NDArray[Any]]:
    """The printout `number`: picture, truth, style, the patient's leads."""
    rng = RandomStream(9, number)
    style = draw_style(rng)
    leads = record(CLASSES[number % len(CLASSES)], 1 + number, 11).leads
    pixels, truth = print_sheet(leads, style, SIZES[number % len(SIZES)], rng)
    return pixels, truth, style, leads


def measure(count: int) -> None:
    """Prints the table."""
    table: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    seconds = []
    for number in range(count):
        pixels, truth, style, _ = printout(number)
        height, width = pixels.shape[:2]
        started = time.process_time()
        sheet = find_sheet(pixels)
        seconds.append(time.process_time() - started)
        true = true_boxes(truth)
        found = dict(zip(LEADS, sheet.leads, strict=True)) if sheet.layout != "grid" else {}
        good = sum(
            name in found and iou(in_picture(found[name], sheet, width, height), box) >= 0.7 for name, box in true.items()
        )
        for row in (truth.layout, "photograph" if style.camera else "scan or screenshot", "all"):
            table[row]["sheets"] += 1
            table[row]["layout"] += sheet.layout == truth.layout
            table[row]["leads"] += good / len(true)
            table[row]["warned"] += bool(sheet.warnings)
            table[row]["wrong"] += not sheet.warnings and good < len(true) / 2
    print(f"{'':20}{'sheets':>8}{'layout':>9}{'leads':>9}{'warned':>9}{'confidently wrong':>20}")
    for row, values in sorted(table.items(), key=lambda item: (item[0] == "all", item[0])):
        n = values["sheets"]
        shares = "".join(f"{values[key] / n:>9.1%}" for key in ("layout", "leads", "warned"))
        print(f"{row:20}{n:>8.0f}{shares}{values['wrong']:>20.0f}")
    print(f"processor seconds a sheet: mean {np.mean(seconds):.3f}")


def measure_signals(count: int) -> None:
    """Prints how like the truth the voltages are, on flat pictures and photographs whose layout was found."""
    table: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in range(count):
        pixels, truth, style, leads = printout(number)
        sheet = find_sheet(pixels)
        if sheet.layout != truth.layout or style.cabrera or (style.speed, style.gain) != (25.0, 10.0):
            continue
        if abs(style.length / 250 - 1) > 0.1 or style.tall != 1.0:
            continue
        read = digitise(pixels, sheet)
        values = [likeness(read[k], leads[k], 0.15) for k in range(12)]
        seen = [value for value in values if value is not None]
        if seen:
            table["photograph" if style.camera else "scan or screenshot"].append(
                (float(np.median([c for c, _ in seen])), float(np.median([e for _, e in seen])))
            )
    print(f"{'':20}{'sheets':>8}{'correlation':>13}{'error mV':>10}")
    for row, pairs in table.items():
        c, e = np.array(pairs).T
        print(f"{row:20}{len(pairs):>8}{np.median(c):>13.2f}{np.median(e):>10.3f}")


def draw_picture(path: Path, numbers: list[int]) -> None:
    """Printouts side by side with the boxes that were found."""
    tiles = []
    for number in numbers:
        pixels, *_ = printout(number)
        sheet = find_sheet(pixels)
        image = Image.fromarray(pixels)
        draw = ImageDraw.Draw(image)
        for box in sheet.leads:
            left, top, right, bottom = in_picture(box, sheet, image.width, image.height)
            draw.rectangle((left, top, right, bottom), outline=(0, 90, 200), width=max(2, image.width // 400))
        image.thumbnail((560, 360))
        tile = Image.new("RGB", (560, 380), (255, 255, 255))
        tile.paste(image, (0, 20))
        said = f"{sheet.layout}, confidence {sheet.confidence:.2f}" + "".join(f"; {warning}" for warning in sheet.warnings)
        ImageDraw.Draw(tile).text((4, 4), said, fill=(0, 0, 0))
        tiles.append(tile)
    whole = Image.new("RGB", (1130, 390 * -(-len(tiles) // 2)), (255, 255, 255))
    for place, tile in enumerate(tiles):
        whole.paste(tile, (570 * (place % 2), 390 * (place // 2)))
    whole.quantize(96).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--picture", type=Path, help="draw these instead (--numbers)")
    parser.add_argument("--numbers", type=int, nargs="+", default=[0, 1, 2, 3])
    arguments = parser.parse_args()
    if arguments.picture:
        draw_picture(arguments.picture, arguments.numbers)
        return
    measure(arguments.count)
    measure_signals(arguments.count)


if __name__ == "__main__":
    main()
