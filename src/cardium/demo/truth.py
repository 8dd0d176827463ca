"""Where the truth of a demo record lies in its rendering: masks of what makes its class, for the pointing game.

cmri   `ventricle`: cavity and wall of the left ventricle, which alone make a heart Sick
ecg    `traces` (paper only): the ink of the traces in their lead boxes, and 2 mm around; `leads`: those that face the injured
       part, of infarcts, new and old
chd    `heart`: chambers, walls and great vessels; `defect`: the hole, the duct or the vessels that make the class, if any
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.demo import make
from cardium.errors import CardiumError
from cardium.explain.places import fit_to_paper
from cardium.imaging.kinds import LEADS as LEAD_COUNT
from cardium.imaging.kinds import family

if TYPE_CHECKING:
    import pandas

    from cardium.imaging.spec import Render

Mask = NDArray[np.bool_]
# Around the ink, mm: a map of a few dozen places cannot be sharper.
_AROUND = 2.0


def is_demo(root: Path, dataset: str, manifest: pandas.DataFrame) -> bool:
    """Whether data/<dataset> is the demo's, byte by byte."""
    if dataset not in make.DEMOS:
        return False
    usual = make.DEMOS[dataset]
    folder = root / "data" / dataset
    # Real collections are larger: they are told without reading them.
    if len(manifest) > usual.total(usual.count) or not folder.is_dir():
        return False
    return make.folder_digest(folder) == usual.digest


def true_masks(data: Path, dataset: str, path: str, kind: str, size: Render) -> Mapping[str, Mask]:
    """The masks of a demo record by name, bool of the attribution's shape; {} where none is known.

    data: the folder data/<dataset>; path: of the record below it.
    """
    if dataset == "cmri":
        return _ventricle(path, size)
    if dataset == "chd":
        return _heart(path, size)
    return _sheet(data, dataset, path, family(kind), size)


def _ventricle(path: str, size: Render) -> dict[str, Mask]:
    from cardium.demo import phantom

    folder, series, name = path.split("/")[-3:]
    number = int(folder.rpartition("_")[2])
    patient = next(one for one in phantom.cohort(make.PATIENTS, phantom.SEED) if one.number == number)
    _, masks = phantom.phantom(patient, int(series.rpartition("_")[2]) - 1, int(name[2:7]) - 1)
    whole = Image.fromarray((masks["lv"] | masks["myocardium"]).astype(np.uint8) * 255)
    return {"ventricle": np.asarray(whole.resize((size.width, size.height), Image.Resampling.BILINEAR)) >= 128}


def _heart(path: str, size: Render) -> dict[str, Mask]:
    """The masks go the volumes' own way: written as NIfTI, read, turned, sampled and fitted."""
    from cardium.demo import thorax
    from cardium.demo.uncompressed import nifti
    from cardium.imaging.volume import read_volume, render_volume

    masks = make.volume_truth(path)
    usual = make.DEMOS["chd"]
    number = int(path.split("_")[1])
    patient = next(one for one in thorax.cohort(usual.count, usual.seed) if one.id == number)
    found = {}
    for name in ("heart", "defect"):
        if not masks[name].any():
            continue
        data = nifti(masks[name].astype(np.int16) * 1000, thorax.affine(patient))
        volume = read_volume(data, 1 << 30, 1 << 32, size.order)
        # Between 0 and 1000, whatever the levels of the rendering are.
        levels = render_volume(volume, _plain(size)).array
        found[name] = levels >= 128
    return found


def _plain(size: Render) -> Render:
    from dataclasses import replace

    return replace(size, levels="window", window=[0.0, 1000.0])


def _sheet(data: Path, dataset: str, path: str, form: str, size: Render) -> dict[str, Mask]:
    from cardium.demo.ecg_signal import FACING, LEADS, record

    label, number = _sheet_number(dataset, path)
    kind = record(label, number, make.DEMOS[dataset].seed).kind
    facing = [name in FACING.get(kind, ()) for name in LEADS] if label in ("MI", "History") else []
    if form == "leads":
        mask = np.zeros((LEAD_COUNT, size.height, size.width), np.bool_)
        if facing:
            rhythm = make.sheet_truth(dataset, path).rhythm
            mask[[*facing, rhythm in FACING[kind]]] = True
            return {"leads": mask}
        return {}
    if form == "traces":
        if not facing:
            return {}
        mask = np.zeros((size.height, size.width), np.bool_)
        mask[: len(facing)][facing] = True
        # Measurements are named `<lead>_<what>`.
        from cardium.imaging.traces import MEASUREMENTS

        cells = mask[LEAD_COUNT:].reshape(-1)
        cells[: len(MEASUREMENTS)] = [name.partition("_")[0] in FACING[kind] for name in MEASUREMENTS]
        return {"leads": mask}
    return _paper(data / path, dataset, path, facing, size)


def _sheet_number(dataset: str, path: str) -> tuple[str, int]:
    usual = make.DEMOS[dataset]
    layout = make.ecg4_paths if dataset == "ecg4" else make.ecg5_paths
    for sheet, paths in layout(usual.count, usual.seed).items():
        if path in paths:
            return sheet
    raise CardiumError(f"The demo data of {dataset} have no file {path}: give its path below data/{dataset}.")


def _paper(file: Path, dataset: str, path: str, facing: list[bool], size: Render) -> dict[str, Mask]:
    """The masks of a whole sheet, taken the way of its pixels: made upright, cut to the paper, fitted (imaging/sheet.py)."""
    from scipy.ndimage import maximum_filter

    from cardium.imaging import sheet
    from cardium.imaging.decode import decode

    pixels = decode(file.read_bytes(), 1 << 30, 1 << 30).pixels
    truth = make.sheet_truth(dataset, path)
    found = sheet.find_sheet(pixels)
    boxes = np.zeros(pixels.shape[:2], np.bool_)
    faced = boxes.copy()
    for place, (left, top, right, bottom) in enumerate(truth.leads):
        boxes[top:bottom, left:right] = True
        if facing and place < len(facing) and facing[place]:
            faced[top:bottom, left:right] = True
    inked = sheet.ink(sheet.upright(pixels, found)) > 0.4
    around = maximum_filter(inked, max(1, round(2 * _AROUND * truth.pixels_per_mm)))
    masks = {"traces": boxes & around}
    if facing:
        masks["leads"] = faced
    return {name: fit_to_paper(mask, found, size) for name, mask in masks.items()}
