"""Reads every distinct file once, for all that the audit needs of it: the hash of its content, the raster that it is compared
by, its encoding, two pictures of it without the heart, and of a sheet its layout and heart rate.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cardium.audit import registration
from cardium.audit.encoder import Encoder
from cardium.audit.shortcuts import Shortcut
from cardium.errors import CardiumError
from cardium.imaging.decode import Undecodable, decode
from cardium.imaging.kinds import LEADS
from cardium.imaging.leads import render_leads
from cardium.imaging.render import content_sha256, hash_pixels, render_image
from cardium.imaging.sheet import Sheet, find_sheet, ink, upright
from cardium.imaging.spec import Limits
from cardium.imaging.trace_format import LEVELS, MEASUREMENTS, MIDDLE, UNITS, was_read
from cardium.imaging.traces import render_traces
from cardium.parallel import in_chunks
from cardium.progress import progress

# Side of a raster's planes: a difference between pictures too small for it is noise.
SIDE = 64
# The share of a picture's sides that counts as border; a sheet's leads begin nearer to the edge.
_BORDER, _BORDER_OF_SHEETS = 0.10, 0.05
# Grey level of the removed part of a picture.
_OUT = 128
_CHUNK, _CHUNK_OF_SHEETS = 32, 8
# Slices that represent a volume where volumes are compared, and where only their border is looked at.
_SLICES = 8
# Longest side of a sheet whose ink is looked for as a whole; mean level below which its paper is dark.
_INKED, _DARK = 1100, 110

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class SurveyJob:
    """How the files of a folder are surveyed; picklable, for worker processes.

    where: the folder's name in messages, such as `data/ecg4`. again: what a user does about a file that cannot be read, for
    messages. sheets: whether the images are ECG sheets. height, width: of the pictures without the heart.
    """

    where: str
    again: str
    folder: Path
    kind: Literal["image", "volume"]
    sheets: bool
    limits: Limits
    height: int
    width: int


@dataclass(frozen=True)
class Surveyed:
    """The survey of one file.

    content: hash of its pixels or voxels, whatever its encoding. raster: uint8 (P, SIDE, SIDE): the picture in grey, or a
    sheet's 13 leads without grid and print; (0, SIDE, SIDE) of volumes, whose raster is made of their rendering.
    encoding: numbers that describe how the file was written. whole: uint8 (side, side), registration.Scale: the picture without
    padding, or all ink of a sheet; None of volumes. layout: of a sheet, as imaging.sheet.Sheet has it.

    Only if the pictures are asked for: border, outside: uint8 (height, width, 3): the outer part of the picture alone, and the
    part of a sheet outside of its leads alone. rate: beats a minute, read from a sheet's traces, 0 where none were.
    """

    content: str
    raster: NDArray[np.uint8]
    encoding: tuple[float, ...]
    whole: NDArray[np.uint8] | None = None
    border: NDArray[np.uint8] | None = None
    outside: NDArray[np.uint8] | None = None
    layout: str = ""
    rate: float = 0.0


@dataclass(frozen=True)
class Survey:
    """The survey of a dataset.

    content, encoding: of each file, by its sha256. first: the first record of every sha256, ascending. rasters: uint8
    (len(first), P, SIDE, SIDE). wholes: uint8 (len(first), side, side); None of volumes. pictured: the shortcuts that are found
    in the files' pictures; rows: the records that count once.
    """

    content: dict[str, str]
    encoding: dict[str, tuple[float, ...]]
    first: list[int]
    rasters: Pictures
    wholes: Pictures | None
    pictured: list[Shortcut]


def survey_dataset(job: SurveyJob, manifest: pd.DataFrame, once: NDArray[np.bool_], encoder: Encoder) -> Survey:
    """Surveys every distinct file of a dataset. once: (N,) the records that are probed where copies count once.

    Raises CardiumError for a file that cannot be read.
    """
    sha256, paths = manifest["sha256"].tolist(), manifest["path"].tolist()
    first = manifest.index[~manifest["sha256"].duplicated()].tolist()
    # The probed record of a sha256 is its first one, or a later one in its place.
    wanted = set(manifest["sha256"][once])
    content: dict[str, str] = {}
    encoding: dict[str, tuple[float, ...]] = {}
    border, outside = _MeanVectors(encoder), _MeanVectors(encoder)
    layout: dict[str, str] = {}
    rate: dict[str, float] = {}
    rasters: list[Pictures] = []
    wholes: list[Pictures] = []
    files = survey_files(job, [(paths[record], sha256[record] in wanted) for record in first])
    for record, one in zip(first, files, strict=True):
        name = sha256[record]
        content[name], encoding[name] = one.content, one.encoding
        layout[name], rate[name] = one.layout, one.rate
        if job.kind == "volume":
            slices = some_slices(encoder.pixels[record])
            rasters.append(np.stack([_small(frame, SIDE) for frame in slices]))
            if name in wanted:
                border.add(name, np.stack([border_only(frame) for frame in slices]))
        else:
            rasters.append(one.raster)
            if one.whole is not None:
                wholes.append(one.whole)
            if one.border is not None:
                border.add(name, one.border[None])
            if one.outside is not None:
                outside.add(name, one.outside[None])
    names = manifest["sha256"][once].tolist()
    meaning = f"the outer part of the {job.kind}s, the rest grey: table, coil, margin, marks"
    pictured = [Shortcut("border", "border pixels", meaning, border.of(names), "logistic")]
    if job.sheets:
        meaning = "what is printed around the leads: numbers, date, rate, sometimes the diagnosis; the leads grey"
        pictured.append(Shortcut("header_footer", "header and footer", meaning, outside.of(names), "logistic"))
        pictured += sheet_shortcuts([layout[name] for name in names], [rate[name] for name in names])
    return Survey(content, encoding, first, np.stack(rasters), np.stack(wholes) if wholes else None, pictured)


def sheet_shortcuts(layouts: Sequence[str], rates: Sequence[float]) -> list[Shortcut]:
    """What a sheet's reader finds beside its picture, of each record: the printed layout, and beats a minute, 0 if unknown."""
    printed = (np.array(layouts)[:, None] == np.unique(layouts)).astype(np.float32)
    how = "how the leads are printed: 3x4 or 6x2, with a rhythm strip or without"
    return [
        Shortcut("layout", "printed layout", how, printed),
        Shortcut("rate", "heart rate", "beats a minute alone, read from the traces", np.array(rates, np.float32)[:, None]),
    ]


class _MeanVectors:
    """One vector a name: the mean of the encoder's vectors over its pictures, which are given a few at a time."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._waiting: list[tuple[str, Pictures]] = []
        self._found: dict[str, NDArray[np.float32]] = {}

    def add(self, name: str, pictures: Pictures) -> None:
        """pictures: uint8 (n, h, w, 3), or grey (n, h, w)."""
        self._waiting.append((name, pictures if pictures.ndim == 4 else np.repeat(pictures[..., None], 3, axis=-1)))
        if sum(len(some) for _, some in self._waiting) >= 64:
            self._encode()

    def of(self, names: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of `names`, float32 (len(names), C)."""
        self._encode()
        return np.stack([self._found[name] for name in names])

    def _encode(self) -> None:
        if not self._waiting:
            return
        vectors = self._encoder.encode(np.concatenate([some for _, some in self._waiting]))
        start = 0
        for name, some in self._waiting:
            self._found[name] = vectors[start : start + len(some)].mean(axis=0)
            start += len(some)
        self._waiting = []


def survey_files(job: SurveyJob, items: Sequence[tuple[str, bool]]) -> Iterator[Surveyed]:
    """Surveys files, in order. items: (path below the folder, whether the pictures without the heart are wanted).

    Raises CardiumError for a file that cannot be read.
    """
    slow = job.sheets or job.kind == "volume"
    chunks = in_chunks(
        functools.partial(survey_chunk, job),
        items,
        1 if job.kind == "volume" else _CHUNK_OF_SHEETS if slow else _CHUNK,
        **({"few": 4 * _CHUNK_OF_SHEETS} if slow else {}),
    )
    files = (one for _, surveyed in chunks for one in surveyed)
    yield from progress(files, total=len(items), desc="files", unit="file")


def survey_chunk(job: SurveyJob, items: Sequence[tuple[str, bool]]) -> list[Surveyed]:
    """Surveys some files. Runs in a worker process."""
    return [_survey(job, path, wanted) for path, wanted in items]


def _survey(job: SurveyJob, path: str, wanted: bool) -> Surveyed:
    try:
        data = (job.folder / path).read_bytes()
        if job.kind == "volume":
            content = content_sha256(data, job.kind, job.limits)
            return Surveyed(content, np.empty((0, SIDE, SIDE), np.uint8), (float(data[:2] == b"\x1f\x8b"),))
        pixels = decode(data, job.limits.max_pixels, job.limits.max_bytes, job.limits.sides).pixels
    except OSError as error:
        raise CardiumError(f"{job.where}/{path} cannot be read ({error.strerror}): {job.again}.") from None
    except Undecodable as error:
        raise CardiumError(f"{job.where}/{path}: {error}: {job.again}.") from None
    outside: NDArray[np.uint8] | None = None
    layout, rate = "", 0.0
    if job.sheets:
        sheet = find_sheet(pixels)
        raster = render_leads(pixels, sheet, SIDE, SIDE)
        whole = _whole_sheet(pixels, sheet)
        layout = sheet.layout
        if wanted:
            rate = _heart_rate(render_traces(pixels, sheet))
            outside = upright(pixels, sheet).copy()
            left, top, right, bottom = sheet.paper
            outside[top:bottom, left:right] = _OUT
            outside = render_image(outside, job.height, job.width)
    else:
        grey = np.asarray(Image.fromarray(pixels).convert("L"))
        raster = _small(grey, SIDE)[None]
        whole = _small(registration.trim(grey), registration.PICTURES.side)
    share = _BORDER_OF_SHEETS if job.sheets else _BORDER
    border = border_only(render_image(pixels, job.height, job.width), share) if wanted else None
    return Surveyed(hash_pixels(pixels), raster, _encoding(data), whole, border, outside, layout, rate)


def some_slices(volume: Pictures) -> Pictures:
    """`_SLICES` of a volume's slices (T, H, W), evenly spread over those that are not padding."""
    filled = np.flatnonzero(volume.any(axis=(1, 2)))
    places = filled if len(filled) else np.zeros(1, np.int64)
    return np.asarray(volume[places[np.linspace(0, len(places) - 1, _SLICES).round().astype(int)]])


def _whole_sheet(pixels: Pictures, sheet: Sheet) -> Pictures:
    """All ink of a sheet, upright and without the margin around it; light ink on dark paper is taken as dark on light."""
    if pixels.mean() < _DARK:
        pixels = 255 - pixels
        sheet = find_sheet(pixels)
    turned = Image.fromarray(upright(pixels, sheet))
    turned.thumbnail((_INKED, _INKED), Image.Resampling.BOX)
    trace = np.rint(255 * ink(np.asarray(turned))).astype(np.uint8)
    return _small(registration.trim(trace), registration.SHEETS.side)


def _heart_rate(traces: NDArray[np.uint8]) -> float:
    """Beats a minute of the rendering `traces` (trace_format.py); 0 if no heartbeats were read."""
    if not was_read(traces):
        return 0.0
    place = MEASUREMENTS.index("rate")
    _, middle, unit = UNITS[place]
    return float(np.exp(middle + unit * (float(traces[len(LEADS) :].ravel()[place]) - MIDDLE) / LEVELS))


def _small(grey: Pictures, side: int) -> Pictures:
    return np.asarray(Image.fromarray(grey).resize((side, side), Image.Resampling.BOX))


def border_only(picture: NDArray[np.uint8], share: float = _BORDER) -> NDArray[np.uint8]:
    """A copy of uint8 (h, w, ...), all grey except for the outer `share` of its sides."""
    height, width = picture.shape[:2]
    rows, columns = max(1, round(share * height)), max(1, round(share * width))
    out = picture.copy()
    out[rows : height - rows, columns : width - columns] = _OUT
    return out


def _encoding(data: bytes) -> tuple[float, ...]:
    """Numbers that describe an encoding: JPEG's quantisation (mean of its tables), subsampling, progressive, metadata."""
    try:
        with Image.open(BytesIO(data), formats=("JPEG", "PNG")) as image:
            tables = getattr(image, "quantization", {}) or {}
            mean = float(np.mean([np.mean(table) for table in tables.values()])) if tables else 0.0
            layers = getattr(image, "layer", None)
            sampling = float(layers[0][1] * 10 + layers[0][2]) if layers else 0.0
            known = ("exif", "icc_profile", "dpi", "jfif", "comment", "adobe")
            carried = [float(name in image.info) for name in known]
            return (mean, sampling, float(bool(image.info.get("progressive"))), float(len(tables)), *carried)
    except (OSError, ValueError):  # DICOM
        return (0.0,) * 10
