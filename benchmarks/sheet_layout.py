"""How well sheets' leads are found, on real sheets: `python benchmarks/sheet_layout.py FOLDER [--other FOLDER] [--every N]`.

FOLDER holds one of the two published collections (Mendeley gwbz3fsgp8, v1 or v2), at any size, anywhere below it.

No file says which layout a sheet has, so the truth is read here by other means than the finder's, which work on these very
printouts alone:

- Reports of the one machine (all but the COVID pages) are printed at fixed places. Their calibration pulses stand at x 92 to
  140 of 2213, so the rows are the runs of ink there: 4, 6 or 7 of them, 80 pixels high. Columns are at the printed separators
  (x 644, 1136, 1627, or 1136 alone). Of v1's 1,115 distinct reports 958 read as 4 (A/B), 90 as 7 (C/C2) and 66 as 6 (D) rows.
  `HB (497)` is no 12-lead sheet but a rhythm report (three leads, twice): it has no truth, and the finder must warn of it.
- COVID pages (`Binder1_Page_*`) are one layout; rows and columns are fixed shares of the pink paper's rectangle, which is
  found by its colour.

Both were checked by eye on drawn boxes: every COVID page, every sheet with six rows, and samples of the rest.

Columns of the table. `layout`: sheets whose layout was named rightly. `drawn`: sheets whose mean IoU of 13 boxes with the
truth above (rows cut half-way between baselines) is at least 0.8. `published`: the same against the nearest of the boxes that
system 003 used for that layout (A or B, C or C2, D; E for pages of the size it was made for), scaled to the picture. Published
D is one table for sheets whose rows differ, and published E cuts columns up to 45 pixels beside their leads, so both say
less about the finder than about the tables. `clear`: neither paper nor boxes reach into header or footer. `warned`: sheets with
a warning. Then the same sheets resized and turned (IoU with the boxes of the sheet as it is), and pictures that are no whole
sheet.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cardium.imaging.sheet import Box, Pixels, find_sheet

Boxes = list[tuple[float, float, float, float]]

# System 003's boxes, on sheets of 2213 x 1572.
_A = ([(130, 640), (641, 1125), (1130, 1625), (1630, 2120)], [300, 600, 900, 1200], (130, 1205, 2120, 1450))
_B = ([(125, 625), (640, 1125), (1140, 1625), (1640, 2125)], [310, 605, 905, 1200], (125, 1205, 2125, 1495))
_HALVES = [(125, 1125), (1125, 2125)]
_C = (_HALVES, [300, 500, 680, 845, 1000, 1150, 1300], (125, 1300, 2125, 1490))
_C2 = (_HALVES, [290, 490, 650, 810, 1000, 1190, 1315], (125, 1315, 2125, 1550))
_D = (_HALVES, [410, 595, 815, 1035, 1235, 1350, 1490], None)
# On pages of 952 x 1232.
_E = ([(100, 300), (300, 500), (500, 700), (700, 900)], [110, 240.5, 350.5, 450.5], (100, 451, 900, 545))


def table_boxes(table: Any, scale: float) -> Boxes:
    """13 boxes, in the order of cardium.imaging.kinds.LEADS, from columns, row limits and a strip."""
    columns, rows, strip = table
    boxes = [(left, top, right, bottom) for left, right in columns for top, bottom in pairwise(rows)]
    boxes.append(strip or boxes[1])
    return [(scale * left, scale * top, scale * right, scale * bottom) for left, top, right, bottom in boxes]


def read_truth(pixels: Pixels) -> tuple[str, Boxes, list[Boxes], tuple[float, float]] | None:
    """Layout, drawn boxes, published variants, and the rows between header and footer; None where it cannot be read."""
    height, width = pixels.shape[:2]
    if abs(width / height - 2213 / 1572) > 0.01:
        return _page_truth(pixels)
    scale = width / 2213
    pulses = ((255 - pixels.max(axis=2)) > 128)[:, round(92 * scale) : round(140 * scale)].mean(axis=1) > 0.05
    # Rows that touch are separated by the pulse's height.
    edges = np.diff(np.concatenate([[0], pulses.astype(np.int8), [0]]))
    feet: list[float] = []
    for top, foot in zip(np.nonzero(edges == 1)[0] / scale, np.nonzero(edges == -1)[0] / scale, strict=True):
        if foot < 400 or foot - top < 60:
            continue
        feet += [foot] if foot - top < 105 else [top + 80, foot]
    cuts = [(above + below) / 2 for above, below in pairwise(feet)]
    if len(feet) == 4 and np.ptp(np.diff(feet)) < 20:
        quarters = [(130, 644), (644, 1136), (1136, 1627), (1627, 2120)]
        drawn = (quarters, [300, *cuts], (130, cuts[-1], 2120, feet[-1] + 100))
        return "3x4+1", table_boxes(drawn, scale), [table_boxes(t, scale) for t in (_A, _B)], (280 * scale, 1530 * scale)
    halves = [(130, 1136), (1136, 2120)]
    if len(feet) == 7:
        drawn = (halves, [feet[0] - 95, *cuts], (130, cuts[-1], 2120, feet[-1] + 70))
        return "6x2+1", table_boxes(drawn, scale), [table_boxes(t, scale) for t in (_C, _C2)], (280 * scale, 1530 * scale)
    if len(feet) == 6:
        rows = [max(404, feet[0] - 90), *cuts, min(feet[-1] + 70, 1516)]
        return "6x2", table_boxes((halves, rows, None), scale), [table_boxes(_D, scale)], (378 * scale, 1530 * scale)
    return None


def _page_truth(pixels: Pixels) -> tuple[str, Boxes, list[Boxes], tuple[float, float]] | None:
    tinted = np.ptp(pixels, axis=2) > 4
    rows = np.nonzero(tinted.mean(axis=1) > 0.35)[0]
    columns = np.nonzero(tinted[rows[0] : rows[-1]].mean(axis=0) > 0.2)[0] if rows.size else rows
    if columns.size == 0:
        return None
    top, left = float(rows[0]), float(columns[0])
    wide = float(columns[-1] + 1 - left)
    # Print below the paper tints its surroundings (JPEG), and the paper's shape is known.
    tall = 0.598 * wide
    xs = [left + share * wide for share in (0.03, 0.268, 0.509, 0.748, 0.989)]
    ys = [top, *(top + share * tall for share in (0.26, 0.519, 0.779)), top + tall]
    drawn = (list(pairwise(xs)), ys[:-1], (xs[0], ys[-2], xs[-1], ys[-1]))
    height, width = pixels.shape[:2]
    portrait = height > width
    return (
        "3x4+1",
        table_boxes(drawn, 1),
        [table_boxes(_E, width / 952)] if portrait else [],
        (top - 0.01 * tall, top + 1.01 * tall),
    )


def mean_iou(found: tuple[Box, ...] | Boxes | np.ndarray, true: tuple[Box, ...] | Boxes | np.ndarray) -> float:
    """Mean over the boxes of intersection / union."""
    a, b = np.asarray(found, float), np.asarray(true, float)
    across = np.clip(np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]), 0, None)
    along = np.clip(np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]), 0, None)
    area = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1]) + (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return float((across * along / (area - across * along)).mean())


def read(path: Path) -> Pixels:
    """uint8 (H, W, 3)."""
    return np.asarray(Image.open(path).convert("RGB"))


def turned(pixels: Pixels, degrees: float) -> Pixels:
    """Turned about its centre, same size, corners white."""
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255)))


def resized(pixels: Pixels, factor: float) -> Pixels:
    """Resized as scanners and viewers do."""
    size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def measure_sheets(paths: list[Path]) -> None:
    """Prints one line for each layout, and the sheets that were missed."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: list[float] = []
    missed: list[str] = []
    for path in paths:
        pixels = read(path)
        truth = read_truth(pixels)
        started = time.process_time()
        sheet = find_sheet(pixels)
        seconds.append(time.process_time() - started)
        if truth is None:
            missed.append(f"{path.name}: no truth could be read, found as {sheet.layout}, {sheet.warnings}")
            continue
        layout, drawn, published, (upper, lower) = truth
        kind = "E" if "Binder" in path.name else {"3x4+1": "A/B", "6x2+1": "C/C2", "6x2": "D"}[layout]
        drawn_iou = mean_iou(sheet.leads, drawn)
        published_iou = max((mean_iou(sheet.leads, boxes) for boxes in published), default=0.0)
        tops = [box[1] for box in (sheet.paper, *sheet.leads)]
        bottoms = [box[3] for box in (sheet.paper, *sheet.leads)]
        result = {
            "layout": sheet.layout == layout,
            "drawn": sheet.layout == layout and drawn_iou >= 0.8,
            "published": sheet.layout == layout and published_iou >= 0.8,
            "with_published": bool(published),
            "clear": min(tops) >= upper and max(bottoms) <= lower,
            "warned": bool(sheet.warnings),
            "doubted": sheet.confidence < 0.5,
        }
        for name in (kind, "all"):
            rows[name]["sheets"] += 1
            rows[name].update({key: int(value) for key, value in result.items()})
        if not (result["drawn"] and result["clear"]) or sheet.warnings:
            missed.append(
                f"{path.name}: {layout} found as {sheet.layout}, drawn {drawn_iou:.2f}, published {published_iou:.2f}, "
                f"paper rows {sheet.paper[1]}-{sheet.paper[3]} of {upper:.0f}-{lower:.0f}, {sheet.warnings}"
            )
    print(f"{'kind':6}{'sheets':>8}{'layout':>9}{'drawn':>9}{'published':>16}{'clear':>9}{'warned':>9}{'below 0.5':>11}")
    for name, row in sorted(rows.items(), key=lambda item: (item[0] == "all", item[0])):
        share = {key: f"{row[key] / row['sheets']:.1%}" for key in ("layout", "drawn", "clear", "warned", "doubted")}
        known = row["with_published"]
        of_known = f"{row['published'] / known:.1%} of {known}" if known else "-"
        print(
            f"{name:6}{row['sheets']:>8}{share['layout']:>9}{share['drawn']:>9}{of_known:>16}{share['clear']:>9}"
            f"{share['warned']:>9}{share['doubted']:>11}"
        )
    print(f"processor seconds a sheet: mean {np.mean(seconds):.3f}, 99 of 100 below {np.percentile(seconds, 99):.3f}")
    for line in missed[:40]:
        print(" ", line)


def measure_changes(paths: list[Path]) -> None:
    """Prints how alike the boxes of a changed sheet are to those of the sheet itself."""
    changes: dict[str, tuple[Callable[[Pixels], Pixels], float]] = {
        "x 2": (lambda pixels: resized(pixels, 2), 2),
        "x 0.5": (lambda pixels: resized(pixels, 0.5), 0.5),
        "x 0.8": (lambda pixels: resized(pixels, 0.8), 0.8),
        "+2 degrees": (lambda pixels: turned(pixels, 2), 1),
        "-2 degrees": (lambda pixels: turned(pixels, -2), 1),
        "grey": (lambda pixels: np.repeat(np.asarray(Image.fromarray(pixels).convert("L"))[..., None], 3, axis=2), 1),
        "photograph": (photograph, 1),
    }
    print(f"\n{'changed':14}{'sheets':>8}{'same layout':>13}{'IoU >= 0.8':>12}{'mean IoU':>10}{'warned':>9}")
    for name, (change, factor) in changes.items():
        same, ious, warned = [], [], []
        for path in paths:
            pixels = read(path)
            before, after = find_sheet(pixels), find_sheet(change(pixels))
            same.append(before.layout == after.layout)
            ious.append(mean_iou(np.asarray(after.leads), factor * np.asarray(before.leads)))
            warned.append(bool(after.warnings))
        print(
            f"{name:14}{len(paths):>8}{np.mean(same):>13.1%}{np.mean(np.array(ious) >= 0.8):>12.1%}{np.mean(ious):>10.3f}"
            f"{np.mean(warned):>9.1%}"
        )


def photograph(pixels: Pixels) -> Pixels:
    """As a hand-held camera in a warm room sees the sheet: shading from one corner, a yellow tint, blur and noise."""
    height, width = pixels.shape[:2]
    light = 0.62 + 0.38 * (np.linspace(0, 1, width)[None, :] + np.linspace(0, 1, height)[:, None]) / 2
    lit = pixels * light[..., None] * np.array([1.0, 0.96, 0.85])
    noise = np.random.default_rng(0).normal(0, 4, pixels.shape)
    soft = Image.fromarray(np.clip(lit + noise, 0, 255).astype(np.uint8))
    return turned(np.asarray(soft.resize((width * 4 // 5, height * 4 // 5)).resize((width, height))), 1.2)


def bad_pictures(paths: list[Path], others: list[Path]) -> Iterator[tuple[str, Pixels]]:
    """Pictures that are no whole, upright sheet."""
    for path in paths:
        pixels = read(path)
        width = pixels.shape[1]
        leads = find_sheet(pixels).leads
        low, high = min(box[1] for box in leads), max(box[3] for box in leads)
        middle = (low + high) // 2
        yield "left half cut away", pixels[:, width // 2 :]
        yield "right half cut away", pixels[:, : width // 2]
        yield "top half cut away", pixels[middle:]
        yield "bottom half cut away", pixels[:middle]
        yield "upside down", pixels[::-1, ::-1]
        yield "on its side", np.rot90(pixels)
    draw = np.random.default_rng(0)
    for size in ((786, 1106), (300, 400), (1572, 2213)):
        yield "blank page", np.full((*size, 3), 255, np.uint8)
        yield "blank page", np.clip(draw.normal(235, 3, (*size, 3)), 0, 255).astype(np.uint8)
        yield "noise", draw.integers(0, 256, (*size, 3), dtype=np.uint8)
    try:
        from sklearn.datasets import load_sample_images

        for image in load_sample_images().images:
            for piece in (image, image[:300, :400], image[::2, ::2], image[100:, 100:]):
                yield "photograph of something else", piece
    except ImportError:
        pass
    for path in others:
        yield "other picture (--other)", read(path)


def measure_bad(paths: list[Path], others: list[Path]) -> None:
    """Prints which share of pictures that are no sheet is told so, and how."""
    told: dict[str, Counter[str]] = defaultdict(Counter)
    for name, pixels in bad_pictures(paths, others):
        sheet = find_sheet(np.ascontiguousarray(pixels))
        told[name]["pictures"] += 1
        told[name]["told"] += bool(sheet.warnings) and sheet.confidence < 0.5
        told[name]["; ".join(sheet.warnings) or f"(no warning: {sheet.layout}, {sheet.confidence:.1f})"] += 1
    print(f"\n{'no sheet':30}{'pictures':>9}{'told':>8}")
    for name, counts in told.items():
        print(f"{name:30}{counts['pictures']:>9}{counts['told'] / counts['pictures']:>8.0%}  ", end="")
        print(", ".join(f"{text} {n}" for text, n in counts.most_common() if text not in ("pictures", "told")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--other", type=Path, help="a folder of pictures that are no ECG sheets")
    parser.add_argument("--every", type=int, default=1, help="measure every n-th sheet")
    parser.add_argument("--changed", type=int, default=60, help="how many sheets to resize and turn")
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    paths = paths[:: arguments.every]
    if not paths:
        raise SystemExit(f"no sheets below {arguments.folder}")
    others: list[Path] = []
    if arguments.other:
        others = sorted(path for path in arguments.other.rglob("*") if path.suffix.lower() in (".jpg", ".png"))[:200]
    measure_sheets(paths)
    some = paths[:: max(1, len(paths) // max(1, arguments.changed))]
    measure_changes(some)
    measure_bad(some, others)


if __name__ == "__main__":
    main()
