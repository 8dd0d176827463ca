"""The look-alikes of the ECG collections: drawn paper sheets in the layouts of the two Mendeley versions, and their truth."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardium.demo.make import Demo
from cardium.errors import CardiumError, unknown
from cardium.imaging.kinds import LEADS, family
from cardium.parallel import in_chunks

if TYPE_CHECKING:
    from cardium.demo.ecg_sheet import SheetTruth
    from cardium.imaging.spec import Render

Mask = NDArray[np.bool_]
Sheet = tuple[str, int]  # the class and number of one drawn sheet
# Around the ink, mm: a map of a few dozen places cannot be sharper.
_AROUND = 2.0

# Folders and the beginnings of file names, as the two versions of the Mendeley collection have them.
_V2 = {
    "MI": ("ECG Images of Myocardial Infarction Patients (240x12=2880)", "MI"),
    "History": ("ECG Images of Patient that have History of MI (172x12=2064)", "PMI"),
    "Abnormal": ("ECG Images of Patient that have abnormal heartbeat (233x12=2796)", "HB"),
    "Normal": ("Normal Person ECG Images (284x12=3408)", "Normal"),
}
_V1 = {
    "MI": ("ECG Images of Myocardial Infarction Patients (77)", ("MI ",)),
    "History": ("ECG Images of Patient that have History of MI (203)", ("PMI ", "PMI  ")),
    "Abnormal": ("ECG Images of Patient that have abnormal heart beats (548)", ("HB ", "HB   ")),
    "Normal": ("Normal Person ECG Images (859)", ("Normal ",)),
}
_COVID = "ECG Images of COVID-19 Patients (250)"


def ecg4_paths(sheets: int, _: int) -> dict[Sheet, list[str]]:
    """Version 2's layout: the paths of each of `sheets` sheets a class.

    As published, some sheets occur several times (half of MI's, a quarter of History's and Normal's, under later numbers),
    and one MI sheet is filed under History too.
    """
    copied = {"MI": sheets // 2, "History": sheets // 4, "Normal": sheets // 4}
    paths: dict[Sheet, list[str]] = {}
    for label, (folder, name) in _V2.items():
        for number in range(1, sheets + 1):
            paths[label, number] = [f"{folder}/{name}({number}).jpg"]
            if number <= copied.get(label, 0):
                paths[label, number].append(f"{folder}/{name}({sheets + number}).jpg")
    folder, name = _V2["History"]
    paths["MI", 1].append(f"{folder}/{name}({sheets + copied['History'] + 1}).jpg")
    return paths


def ecg5_paths(sheets: int, seed: int) -> dict[Sheet, list[str]]:
    """Both versions side by side: `v1/` has all `sheets` sheets a class, `v2/` a quarter of them once more.

    As published, `MI(1).jpg` of v2 is a `PMI` of v1. COVID-19 sheets lie in a folder a kind; pages are named after one binder.
    """
    from cardium.demo.ecg_sheet import sheet_style

    paths: dict[Sheet, list[str]] = {}
    for number in range(1, sheets + 1):
        style = sheet_style(_SERIES["ecg5"], number, seed)
        if style.kind == "report":
            name = f"type_3/COVID  ({number}).jpg"
        else:
            name = f"type_{1 if style.height > style.width else 2}/Binder1_Page_{number:03d}.jpg"
        paths["Covid", number] = [f"v1/{_COVID}/{name}"]
    again = max(1, sheets // 4)
    for label, (folder, names) in _V1.items():
        for number in range(1, sheets + 1):
            # One to three spaces, as published.
            paths[label, number] = [f"v1/{folder}/{names[number % len(names)]}({number}).jpg"]
        folder, name = _V2[label]
        first = 2 if label == "MI" else 1
        for number in range(first, again + 1):
            paths[label, number].append(f"v2/{folder}/{name}({number}).jpg")
            if label == "MI":
                paths[label, number].append(f"v2/{folder}/{name}({again + number}).jpg")
    folder, name = _V2["MI"]
    paths["History", 1].append(f"v2/{folder}/{name}(1).jpg")
    return paths


_PATHS: dict[str, Callable[[int, int], dict[Sheet, list[str]]]] = {"ecg4": ecg4_paths, "ecg5": ecg5_paths}
_SERIES = {"ecg4": "reports", "ecg5": "pages"}


def ecg_files(dataset: str, sheets: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yields (path, bytes) of each file of `sheets` different sheets a class; copies of a sheet follow each other.

    Raises CardiumError for fewer than two sheets.
    """
    paths = _ecg_paths(dataset, sheets, seed)
    draw = functools.partial(_draw, _SERIES[dataset], seed)
    for some, drawn in in_chunks(draw, list(paths), chunk=4):
        for sheet, data in zip(some, drawn, strict=True):
            for path in paths[sheet]:
                yield path, data


def sheet_truth(dataset: str, path: str, count: int | None = None, seed: int | None = None) -> SheetTruth:
    """Where the leads of a demo file are, drawn anew, since no file states it. path: below data/<dataset>.

    Raises CardiumError for a dataset without sheets, and for a path that is not in its demo data.
    """
    from cardium.demo.ecg_sheet import draw_sheet, sheet_style
    from cardium.demo.ecg_signal import record

    if dataset not in _PATHS:
        raise unknown("demo dataset of sheets", dataset, list(_PATHS))
    demo = _DEMOS[dataset]
    count, seed = demo.count if count is None else count, demo.seed if seed is None else seed
    label, number = _sheet_of(dataset, path, count, seed)
    style = sheet_style(_SERIES[dataset], number, seed)
    return draw_sheet(record(label, number, seed), style, number, seed)[1]


def sheet_masks(dataset: str, folder: Path, path: str, kind: str, size: Render) -> dict[str, Mask]:
    """`traces` (of the paper only): the ink of the traces in their lead boxes, and 2 mm around it. `leads`: those that face the
    injured part, of new and old infarcts. See Demo.masks.
    """
    from cardium.demo.ecg_signal import FACING, record

    seed = _DEMOS[dataset].seed
    label, number = _sheet_of(dataset, path, _DEMOS[dataset].count, seed)
    facing = FACING.get(record(label, number, seed).kind, ()) if label in ("MI", "History") else ()
    faces = [name in facing for name in LEADS[:12]] if facing else []
    form = family(kind)
    if form == "image":
        return _paper_masks(folder / path, sheet_truth(dataset, path), faces, size)
    if not facing:
        return {}
    if form == "leads":
        mask = np.zeros((len(LEADS), size.height, size.width), np.bool_)
        mask[[*faces, sheet_truth(dataset, path).rhythm in facing]] = True
        return {"leads": mask}
    from cardium.imaging.trace_format import MEASUREMENTS

    mask = np.zeros((size.height, size.width), np.bool_)
    mask[: len(faces)][faces] = True
    # Measurements are named `<lead>_<what>`.
    cells = mask[len(LEADS) :].reshape(-1)
    cells[: len(MEASUREMENTS)] = [name.partition("_")[0] in facing for name in MEASUREMENTS]
    return {"leads": mask}


def _paper_masks(file: Path, truth: SheetTruth, faces: Sequence[bool], size: Render) -> dict[str, Mask]:
    """The masks of a whole sheet, processed as its pixels are: made upright, cut to the paper, fitted (imaging/paper.py)."""
    from scipy.ndimage import maximum_filter

    from cardium.imaging import sheet
    from cardium.imaging.decode import decode
    from cardium.imaging.paper import fit_to_paper

    pixels = decode(file.read_bytes(), 1 << 30, 1 << 30).pixels
    found = sheet.find_sheet(pixels)
    boxes = np.zeros(pixels.shape[:2], np.bool_)
    faced = boxes.copy()
    for place, (left, top, right, bottom) in enumerate(truth.leads):
        boxes[top:bottom, left:right] = True
        if place < len(faces) and faces[place]:
            faced[top:bottom, left:right] = True
    inked = sheet.ink(sheet.upright(pixels, found)) > 0.4
    around = maximum_filter(inked, max(1, round(2 * _AROUND * truth.pixels_per_mm)))
    masks = {"traces": boxes & around}
    if faces:
        masks["leads"] = faced
    return {name: fit_to_paper(mask, found, size) for name, mask in masks.items()}


def _sheet_of(dataset: str, path: str, count: int, seed: int) -> Sheet:
    """The sheet that a file shows. Raises CardiumError for a path that is not in the demo data."""
    for sheet, paths in _ecg_paths(dataset, count, seed).items():
        if path in paths:
            return sheet
    raise CardiumError(f"The demo data of {dataset} have no file {path}: give its path below data/{dataset}.")


def _ecg_paths(dataset: str, sheets: int, seed: int) -> dict[Sheet, list[str]]:
    if sheets < 2:
        raise CardiumError(f"Demo sheets come by two or more a class: {sheets} is too few.")
    return _PATHS[dataset](sheets, seed)


def _ecg_total(dataset: str, sheets: int) -> int:
    # The seed decides which folder a file lies in, not how many files there are.
    return sum(map(len, _ecg_paths(dataset, sheets, 0).values()))


def _draw(series: str, seed: int, sheets: Sequence[Sheet]) -> list[bytes]:
    """The JPEGs of some sheets."""
    from PIL import Image

    from cardium.demo.ecg_sheet import draw_sheet, sheet_style
    from cardium.demo.ecg_signal import record

    drawn = []
    for label, number in sheets:
        style = sheet_style(series, number, seed)
        pixels, _ = draw_sheet(record(label, number, seed), style, number, seed)
        data = io.BytesIO()
        # Every setting of Pillow's that changes bytes is given, whatever its defaults are.
        Image.fromarray(pixels).save(
            data, format="JPEG", quality=style.quality, subsampling=2, optimize=False, progressive=False
        )
        drawn.append(data.getvalue())
    return drawn


def _demo(dataset: str, count: int, seed: int, digest: str) -> Demo:
    return Demo(
        files=functools.partial(ecg_files, dataset),
        total=functools.partial(_ecg_total, dataset),
        masks=functools.partial(sheet_masks, dataset),
        count=count,
        seed=seed,
        unit="different sheets a class",
        digest=digest,
    )


ECG4 = _demo("ecg4", 24, 4004, "6aa3787be2d004585e211b391fcc055fb21a60490c33c68be4d4e7f7c30eaeb9")
ECG5 = _demo("ecg5", 16, 5005, "5d944f751c9d9077de392c84db390d4317d44831df3c9648491f5982dc48fc17")
_DEMOS = {"ecg4": ECG4, "ecg5": ECG5}
