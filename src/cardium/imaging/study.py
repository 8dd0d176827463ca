"""All short-axis files of one patient -> the rendering `heart` (heart_format.py): training and serving read a study here.

Which of the files show one slice, which slices show a beating ring and which two moments are the ends of the beat, the pixels
tell (heart.py); the files are given in the order in which they were taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardium.imaging.decode import Undecodable, decode
from cardium.imaging.heart import Heart, find_heart, render_heart, slice_positions
from cardium.imaging.kinds import Rendered
from cardium.imaging.spec import Limits

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class StudyFile:
    """A file of a study: its name for messages, and its series, "" where unknown."""

    name: str
    data: bytes
    series: str = ""


def read_study(files: Sequence[StudyFile], limits: Limits) -> Heart:
    """Decodes the files and finds the heart in them. Raises Undecodable that names the first file that cannot be read."""
    pictures: list[Picture] = []
    for file in files:
        try:
            pictures.append(_grey(decode(file.data, limits.max_pixels, limits.max_bytes, limits.sides).pixels))
        except Undecodable as error:
            raise Undecodable(f"{file.name}: {error}") from None
    positions = slice_positions(pictures, [file.series for file in files])
    return find_heart([[pictures[at] for at in position] for position in positions])


def render_study(files: Sequence[StudyFile], limits: Limits) -> Rendered:
    """The rendering `heart` of a study, uint8 (133, 512). Raises Undecodable as `read_study` does."""
    heart = read_study(files, limits)
    return Rendered(render_heart(heart), heart.warnings, f"{len(heart.slices)} slices", heart.confidence)


def _grey(pixels: Picture) -> Picture:
    """uint8 (h, w, 3) -> (h, w). Cine images are grey, filed as three colours."""
    if (pixels[..., :1] == pixels).all():
        return np.ascontiguousarray(pixels[..., 0])
    return np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
