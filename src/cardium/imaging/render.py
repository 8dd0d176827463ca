"""Decoded pixels -> the array that a model takes. Training (prepare) and serving render through the same function.

image   uint8 (height, width, 3): the whole picture stretched to the size, or the paper of an ECG sheet, aspect kept
leads   uint8 (13, height, width): the leads of an ECG sheet, 255 = trace
    traces  uint8 (16, 96): the leads as signals: median heartbeats in millivolts and measurements on them
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.errors import CardiumError

if TYPE_CHECKING:
    from cardium.params import Render

LEADS = 13
# Grey levels (0-255) that vary less than this over a whole picture show nothing.
_BLANK_STD = 2.0


@dataclass(frozen=True)
class Rendered:
    """A record as its model takes it. warnings: what is wrong with the picture, in plain words; empty when all is well.

    layout, confidence: of the ECG sheet that was found in it; "" and 1.0 where none is looked for.
    """

    array: NDArray[np.uint8]
    warnings: tuple[str, ...] = ()
    layout: str = ""
    confidence: float = 1.0


def shape_of(kind: str, size: Render) -> tuple[int, ...]:
    """The shape of one record's array. Raises CardiumError for an unknown kind."""
    if kind == "image":
        return (size.height, size.width, 3)
    if kind == "leads":
        return (LEADS, size.height, size.width)
    if kind == "traces":
        from cardium.imaging.traces import SHAPE

        if (size.height, size.width) != SHAPE:
            raise CardiumError(f"params.yaml: traces are {SHAPE[0]} x {SHAPE[1]}, not {size.height} x {size.width}.")
        return SHAPE
    raise CardiumError(f"params.yaml: unknown rendering `{kind}`: image, leads or traces.")


def render(pixels: NDArray[np.uint8], kind: str, size: Render) -> Rendered:
    """uint8 (h, w, 3) -> the array of this kind and size; see the module's docstring."""
    shape_of(kind, size)
    if kind == "image" and size.area == "whole":
        blank = ("the picture is blank",) if float(pixels.std()) < _BLANK_STD else ()
        return Rendered(render_image(pixels, size.height, size.width), blank)
    from cardium.imaging import leads, sheet, traces

    found = sheet.find_sheet(pixels)
    if kind == "traces":
        array = traces.render_traces(pixels, found)
        unread = () if traces.was_read(array) else (traces.UNREADABLE,)
        return Rendered(array, (*found.warnings, *unread), found.layout, found.confidence)
    if kind == "leads":
        array = leads.render_leads(pixels, found, size.height, size.width)
    else:
        array = sheet.render_paper(pixels, found, size.height, size.width)
    return Rendered(array, found.warnings, found.layout, found.confidence)


def render_image(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) -> uint8 (height, width, 3): stretched to the size (aspect not kept, as system 000 does it), bilinear.

    Pillow widens the filter when it shrinks (antialiasing), in fixed-point arithmetic: the same bytes on every machine.
    Raises CardiumError for another shape or type.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise CardiumError(f"render_image takes uint8 (height, width, 3), got {pixels.dtype} {pixels.shape}.")
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
