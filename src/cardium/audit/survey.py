"""Distinct files -> what the audit needs of each, in one reading: the hash of its content, the raster that it is compared by,
how it is encoded, and two pictures of it without the heart.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.errors import CardiumError
from cardium.imaging.decode import Undecodable, decode
from cardium.imaging.leads import render_leads
from cardium.imaging.render import content_sha256, hash_pixels, render_image
from cardium.imaging.sheet import find_sheet, upright
from cardium.imaging.spec import Limits
from cardium.parallel import in_chunks
from cardium.progress import progress

# Side of a raster's planes: pictures whose difference is smaller than this shows differ by noise alone.
SIDE = 64
# The outer part of a picture, as a share of its sides, that counts as border; a sheet's leads begin nearer to the edge.
_BORDER, _BORDER_OF_SHEETS = 0.10, 0.05
# Level of what is taken out of a picture.
_OUT = 128
_CHUNK, _CHUNK_OF_SHEETS = 32, 8


@dataclass(frozen=True)
class Work:
    """What a worker needs. where: the folder for messages. height, width: of the pictures without the heart."""

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
    """One file.

    content: hash of what it shows, whatever its encoding. raster: uint8 (P, SIDE, SIDE): the picture in grey, or a sheet's 13
    leads without grid and print; (0, SIDE, SIDE) of volumes, whose raster is made of their rendering. encoding: numbers that
    say how the file was written. border, outside: uint8 (height, width, 3), only the outer part of the picture, and only what
    is outside of a sheet's leads; None where not asked for.
    """

    content: str
    raster: NDArray[np.uint8]
    encoding: tuple[float, ...]
    border: NDArray[np.uint8] | None = None
    outside: NDArray[np.uint8] | None = None


def survey(work: Work, items: Sequence[tuple[str, bool]]) -> Iterator[Surveyed]:
    """Surveys the files `items`: (path below the folder, whether the pictures without the heart are wanted), in order.

    Raises CardiumError for a file that cannot be read any more.
    """
    slow = work.sheets or work.kind == "volume"
    chunks = in_chunks(
        functools.partial(survey_chunk, work),
        items,
        1 if work.kind == "volume" else _CHUNK_OF_SHEETS if slow else _CHUNK,
        **({"few": 4 * _CHUNK_OF_SHEETS} if slow else {}),
    )
    files = (one for _, surveyed in chunks for one in surveyed)
    yield from progress(files, total=len(items), desc="files", unit="file")


def survey_chunk(work: Work, items: Sequence[tuple[str, bool]]) -> list[Surveyed]:
    """Some files. Runs in a worker process."""
    return [_survey(work, path, wanted) for path, wanted in items]


def _survey(work: Work, path: str, wanted: bool) -> Surveyed:
    try:
        data = (work.folder / path).read_bytes()
        if work.kind == "volume":
            content = content_sha256(data, work.kind, work.limits)
            return Surveyed(content, np.empty((0, SIDE, SIDE), np.uint8), (float(data[:2] == b"\x1f\x8b"),))
        pixels = decode(data, work.limits.max_pixels, work.limits.max_bytes).pixels
    except OSError as error:
        raise CardiumError(f"{work.where}/{path} cannot be read ({error.strerror}): {work.again}.") from None
    except Undecodable as error:
        raise CardiumError(f"{work.where}/{path}: {error}: {work.again}.") from None
    outside: NDArray[np.uint8] | None = None
    if work.sheets:
        sheet = find_sheet(pixels)
        raster = render_leads(pixels, sheet, SIDE, SIDE)
        if wanted:
            outside = upright(pixels, sheet).copy()
            left, top, right, bottom = sheet.paper
            outside[top:bottom, left:right] = _OUT
            outside = render_image(outside, work.height, work.width)
    else:
        grey = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        raster = np.asarray(grey)[None]
    share = _BORDER_OF_SHEETS if work.sheets else _BORDER
    border = border_only(render_image(pixels, work.height, work.width), share) if wanted else None
    return Surveyed(hash_pixels(pixels), raster, _encoding(data), border, outside)


def border_only(picture: NDArray[np.uint8], share: float = _BORDER) -> NDArray[np.uint8]:
    """A copy of uint8 (h, w, ...) with everything grey but the outer `share` of its sides."""
    height, width = picture.shape[:2]
    rows, columns = max(1, round(share * height)), max(1, round(share * width))
    out = picture.copy()
    out[rows : height - rows, columns : width - columns] = _OUT
    return out


def _encoding(data: bytes) -> tuple[float, ...]:
    """How an image was written: JPEG's quantisation (mean of its tables), subsampling, progressive; what else it carries."""
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
