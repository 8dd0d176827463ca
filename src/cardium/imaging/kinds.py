"""The kinds of arrays that a record becomes, their shapes, and what a renderer says of one.

image   uint8 (height, width, 3): the whole picture stretched to the size, or the paper of an ECG sheet, aspect kept
leads   uint8 (13, height, width): the leads of an ECG sheet, 255 = trace
traces  uint8 (16, 96): the leads as signals: median heartbeats in millivolts and measurements on them
slices  uint8 (frames, height, width): a volume's slices, or the moments of a 4-D file; frames of zeros are padding
volume  the same, smaller, for convolutions along all three axes

What follows a `_` tells kinds of one form apart: `slices_published` has settings of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEADS = 13
FORMS = ("image", "leads", "traces", "slices", "volume")


@dataclass(frozen=True)
class Rendered:
    """A record as its model takes it. warnings: what is wrong with the picture, in plain words; empty when all is well.

    layout, confidence: of the ECG sheet that was found in it; "" and 1.0 where none is looked for.
    """

    array: NDArray[np.uint8]
    warnings: tuple[str, ...] = ()
    layout: str = ""
    confidence: float = 1.0


def family(kind: str) -> str:
    """A kind without what tells it apart from others of its form: `slices_published` -> `slices`."""
    return kind.partition("_")[0]


def of_volumes(kind: str) -> bool:
    """Whether this kind is made from a volume's file, and not from an image's."""
    return family(kind) in ("slices", "volume")


def input_shape(kind: str, height: int, width: int, frames: int = 0) -> tuple[int, ...]:
    """The shape of one record's array. frames: slices of a volume, or leads of a sheet (13 by default)."""
    shapes = {"image": (height, width, 3), "leads": (frames or LEADS, height, width), "traces": (height, width)}
    return shapes.get(family(kind), (frames, height, width))
