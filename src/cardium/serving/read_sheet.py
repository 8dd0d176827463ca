"""`cardium read`: a picture of an ECG sheet -> its leads as numbers, and what was doubtful.

Of `sheet.jpg` a folder `sheet-read` is made: `sheet.csv` (seconds and a column of millivolts a lead, empty where the sheet does
not show the lead), the same as a WFDB record (`sheet.hea`, `sheet.dat`), `sheet.png` (the picture, upright, with the boxes of
the leads) and `sheet.json` (layout, confidence, scale, heart rate, warnings).
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardium.atomic import replacing_folder
from cardium.errors import CardiumError, system_reason
from cardium.imaging.decode import Undecodable, decode
from cardium.imaging.kinds import LEADS
from cardium.imaging.sheet import SIDEWAYS, Pixels, Sheet, find_sheet, upright
from cardium.imaging.traces import RATE, digitise, find_beats
from cardium.imaging.wfdb_format import wfdb_files

TURNED = "the picture lay on its side and was turned"
# A rate of fewer beats than this is chance.
_FEWEST_BEATS = 3


@dataclass(frozen=True)
class Reading:
    """What was read from a sheet.

    pixels: the picture as it was read. sheet: where the leads are. leads: mV, float32 (13, 1000), RATE a second, NaN where the
    sheet shows nothing. heart_rate: beats a minute, None if too few were found. doubts: what a reader should know, in plain
    words.
    """

    pixels: Pixels
    sheet: Sheet
    leads: NDArray[np.float32]
    heart_rate: int | None
    doubts: tuple[str, ...]


def read_sheet(pixels: Pixels) -> Reading:
    """Reads a picture uint8 (H, W, 3); one on its side is turned first, and the reading is of the turned picture."""
    sheet = find_sheet(pixels)
    doubts = list(sheet.warnings)
    if SIDEWAYS in doubts:
        ways = [np.ascontiguousarray(np.rot90(pixels, quarters)) for quarters in (1, 3)]
        sheets = [find_sheet(way) for way in ways]
        better = int(sheets[1].confidence > sheets[0].confidence)
        if sheets[better].layout != "grid":
            pixels, sheet = ways[better], sheets[better]
            doubts = [TURNED, *sheet.warnings]
    if sheet.layout == "grid":
        return Reading(pixels, sheet, np.full((len(LEADS), 1), np.nan, np.float32), None, tuple(doubts))
    leads = digitise(pixels, sheet)
    beats = find_beats(leads)
    rate = round(60 * RATE / float(np.median(np.diff(beats)))) if len(beats) >= _FEWEST_BEATS else None
    if rate is None:
        doubts.append("too few heartbeats were found for a rate")
    silent = [name for name, lead in zip(LEADS[:12], leads, strict=False) if np.isnan(lead).mean() > 0.95]
    if silent:
        doubts.append(f"no trace was followed in {', '.join(silent)}")
    return Reading(pixels, sheet, leads, rate, tuple(doubts))


def read_file(path: Path, folder: Path | None = None) -> str:
    """Reads a file, writes the folder (default: beside it) and says in a line what was found.

    Raises CardiumError for a file that is no picture, and for one on which no sheet was recognised.
    """
    try:
        pixels = decode(path.read_bytes()).pixels
    except OSError as error:
        raise CardiumError(f"{path}: {system_reason(error)}.") from None
    except Undecodable as error:
        raise CardiumError(f"{path}: {error}.") from None
    reading = read_sheet(pixels)
    if reading.sheet.layout == "grid":
        raise CardiumError(
            f"{path}: {'; '.join(reading.doubts)}. Give a scan or a photograph of one whole, upright 12-lead sheet."
        )
    name = re.sub(r"[^A-Za-z0-9_-]", "_", path.stem)
    target = (folder or path.parent) / f"{name}-read"
    with replacing_folder(target) as part:
        for file, content in reading_files(name, reading).items():
            (part / file).write_bytes(content)
    rate = f"{reading.heart_rate} beats a minute" if reading.heart_rate else "no heart rate"
    said = f"{path}: {reading.sheet.layout}, confidence {reading.sheet.confidence:.2f}, {rate} -> {target}"
    return "\n".join([said, *(f"  doubtful: {doubt}" for doubt in reading.doubts)])


def reading_files(name: str, reading: Reading) -> dict[str, bytes]:
    """All files of a reading by name."""
    from PIL import Image

    header, samples = wfdb_files(name, reading.leads, LEADS, RATE, [f"layout {reading.sheet.layout}", *reading.doubts])
    picture = io.BytesIO()
    Image.fromarray(with_boxes(reading.pixels, reading.sheet)).save(picture, "PNG")
    facts = {
        "layout": reading.sheet.layout,
        "confidence": reading.sheet.confidence,
        "angle": reading.sheet.angle,
        "leads": {lead: list(box) for lead, box in zip(LEADS, reading.sheet.leads, strict=True)},
        "heart_rate": reading.heart_rate,
        "samples_a_second": RATE,
        "doubts": list(reading.doubts),
    }
    return {
        f"{name}.csv": _csv(reading.leads).encode(),
        f"{name}.hea": header.encode(),
        f"{name}.dat": samples,
        f"{name}.png": picture.getvalue(),
        f"{name}.json": (json.dumps(facts, indent=1) + "\n").encode(),
    }


def _csv(leads: NDArray[np.float32]) -> str:
    rows = [",".join(("seconds", *LEADS))]
    for place, values in enumerate(leads.T.tolist()):
        rows.append(",".join((f"{place / RATE:.2f}", *("" if value != value else f"{value:.3f}" for value in values))))
    return "\n".join(rows) + "\n"


def with_boxes(pixels: Pixels, sheet: Sheet) -> Pixels:
    """The upright picture with the leads' boxes and names drawn in, uint8 (H, W, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(upright(pixels, sheet))
    draw = ImageDraw.Draw(image)
    line = max(2, image.width // 700)
    font = ImageFont.load_default(max(10, image.width // 70))
    for name, box in zip(LEADS, sheet.leads, strict=True):
        if name == "rhythm" and box == sheet.leads[1]:
            continue
        left, top, right, bottom = box
        draw.rectangle((left, top, right - 1, bottom - 1), outline=(0, 90, 200), width=line)
        draw.text((left + 2 * line, top + line), name, fill=(0, 90, 200), font=font)
    return np.asarray(image)
