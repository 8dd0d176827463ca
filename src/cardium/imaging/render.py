"""A file's bytes -> the array that a model takes, of one of the kinds in kinds.py; training and serving render through it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.errors import CardiumError
from cardium.imaging.decode import Undecodable, decode
from cardium.imaging.kinds import BLANK_STD, FORMS, Rendered, family, input_shape, of_patients, of_volumes

if TYPE_CHECKING:
    from cardium.imaging.sheet import Sheet
    from cardium.imaging.spec import Limits, Render


def shape_of(kind: str, size: Render) -> tuple[int, ...]:
    """The shape of one record's array. Raises CardiumError for an unknown kind, and for a size that does not fit it."""
    if family(kind) not in FORMS:
        raise CardiumError(f"params.yaml: unknown rendering `{kind}`: {', '.join(FORMS)}.")
    if kind == "traces":
        from cardium.imaging.trace_format import SHAPE

        if (size.height, size.width) != SHAPE:
            raise CardiumError(f"params.yaml: traces are {SHAPE[0]} x {SHAPE[1]}, not {size.height} x {size.width}.")
    if family(kind) == "heart":
        from cardium.imaging.heart_format import SHAPE as HEART

        if (size.height, size.width) != HEART:
            raise CardiumError(f"params.yaml: heart is {HEART[0]} x {HEART[1]}, not {size.height} x {size.width}.")
    return input_shape(kind, size.height, size.width, size.frames)


def render_file(data: bytes, kind: str, size: Render, limits: Limits, blank_std: float = BLANK_STD) -> Rendered:
    """Renders a file's bytes to the array of this kind and size.

    blank_std: grey levels (0-255) that vary less than this are reported as blank. Raises imaging.decode.Undecodable, whose text
    is the reason, for bytes that cannot be read or exceed the limits.
    """
    if of_patients(kind):
        raise Undecodable("one file shows no beat: give all short-axis images of a patient")
    if of_volumes(kind):
        from cardium.imaging.volume import read_volume, render_volume

        volume = read_volume(data, limits.max_voxels, limits.max_volume_bytes, size.order, limits.sides)
        return render_volume(volume, size, blank_std)
    return render(decode(data, limits.max_pixels, limits.max_bytes, limits.sides).pixels, kind, size, blank_std)


def content_sha256(data: bytes, kind: Literal["image", "volume"], limits: Limits) -> str:
    """A hash of a file's size and pixels or voxels, whatever its encoding. Raises imaging.decode.Undecodable."""
    shown: NDArray[Any]
    if kind == "volume":
        from cardium.imaging.volume import read_volume

        shown = read_volume(data, limits.max_voxels, limits.max_volume_bytes, sides=limits.sides).voxels
    else:
        shown = decode(data, limits.max_pixels, limits.max_bytes, limits.sides).pixels
    return hash_pixels(shown)


def hash_pixels(shown: NDArray[Any]) -> str:
    """A hash of an array's shape, type and values."""
    digest = hashlib.sha256(repr((shown.shape, str(shown.dtype))).encode())
    for part in shown:  # Row by row or slice by slice: no second copy of a volume.
        digest.update(part.tobytes())
    return digest.hexdigest()


def render(pixels: NDArray[np.uint8], kind: str, size: Render, blank_std: float = BLANK_STD) -> Rendered:
    """Renders a picture, uint8 (h, w, 3), to the array of this kind and size; see `render_file`."""
    shape_of(kind, size)
    if kind == "image" and size.area == "whole":
        blank = ("the picture is blank",) if float(pixels.std()) < blank_std else ()
        return Rendered(render_image(pixels, size.height, size.width), blank)
    from cardium.imaging.sheet import find_sheet

    return render_sheet(pixels, find_sheet(pixels), kind, size)


def render_sheet(pixels: NDArray[np.uint8], found: Sheet, kind: str, size: Render) -> Rendered:
    """Renders a picture, uint8 (h, w, 3), in which a sheet was found already: traces, leads or the paper as an image."""
    from cardium.imaging import leads, paper, trace_format, traces

    if kind == "traces":
        array = traces.render_traces(pixels, found)
        unread = () if trace_format.was_read(array) else (trace_format.UNREADABLE,)
        return Rendered(array, (*found.warnings, *unread), found.layout, found.confidence)
    if kind == "leads":
        array = leads.render_leads(pixels, found, size.height, size.width)
    else:
        array = paper.render_paper(pixels, found, size.height, size.width)
    return Rendered(array, found.warnings, found.layout, found.confidence)


def render_image(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Stretches uint8 (h, w, 3) to uint8 (height, width, 3), bilinear; the aspect is not kept, as in system 000.

    Pillow widens the filter for shrinking (antialiasing), in fixed-point arithmetic: the same bytes on every machine.
    Raises CardiumError for another shape or type.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise CardiumError(f"render_image takes uint8 (height, width, 3), got {pixels.dtype} {pixels.shape}.")
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
