"""The kinds of arrays that a record becomes, and their shapes.

image   uint8 (height, width, 3): the whole picture stretched to the size, or the paper of an ECG sheet, aspect kept
leads   uint8 (13, height, width): the leads of an ECG sheet, 255 = trace
traces  uint8 (16, 96): the leads as signals: median heartbeats in millivolts and measurements (trace_format.py)
heart   uint8 (133, 512): all short-axis images of one patient: contours, measures and slices of the left ventricle
        (heart_format.py)
slices  uint8 (frames, height, width): a volume's slices, or the moments of a 4-D file; frames of zeros are padding
volume  the same, smaller, for convolutions along all three axes

A suffix after `_` distinguishes kinds of one form: `slices_published` has settings of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The leads of a sheet, in the order of every array that has an axis of leads.
LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6", "rhythm")
# Grey levels (0-255) that vary less than this over a whole picture or volume show nothing.
BLANK_STD = 2.0
FORMS = ("image", "leads", "traces", "heart", "slices", "volume")


@dataclass(frozen=True)
class Rendered:
    """A record as its model takes it.

    warnings: faults of the picture, in plain words; empty for none. layout, confidence: of the ECG sheet or the heart that was
    found in it; "" and 1.0 for other pictures.
    """

    array: NDArray[np.uint8]
    warnings: tuple[str, ...] = ()
    layout: str = ""
    confidence: float = 1.0


def family(kind: str) -> str:
    """The form of a kind, its name without the suffix: `slices_published` -> `slices`."""
    return kind.partition("_")[0]


def of_volumes(kind: str) -> bool:
    """Whether this kind is rendered from a volume's file, not from an image's."""
    return family(kind) in ("slices", "volume")


def of_sheets(kind: str, area: str) -> bool:
    """Whether this kind, of this `area` of a picture, is found on an ECG sheet first."""
    return not (of_volumes(kind) or of_patients(kind)) and (family(kind) != "image" or area == "paper")


def of_patients(kind: str) -> bool:
    """Whether a row of this kind is made from all files of a patient, not from one file."""
    return family(kind) == "heart"


def input_shape(kind: str, height: int, width: int, frames: int = 0) -> tuple[int, ...]:
    """The shape of one record's array. frames: number of slices of a volume, or of leads of a sheet (0: all 13)."""
    shapes = {"image": (height, width, 3), "leads": (frames or len(LEADS), height, width), "traces": (height, width)}
    shapes["heart"] = (height, width)
    return shapes.get(family(kind), (frames, height, width))
