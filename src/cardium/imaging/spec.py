"""What a renderer needs to know: the size and reading of an array, the ranges of its random views, and what a file may cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from cardium.ranges import Count, CountOrZero, Positive, Share, Side


@dataclass(frozen=True)
class Render:
    """The size of one kind of rendering: an image's, a lead's or a slice's pixels; rows and samples of traces.

    area: what of a picture becomes an image: `whole`, stretched to the size, or the `paper` of an ECG sheet, aspect kept.
    Of volumes: frames: how many slices (or moments of a 4-D file); order: turned by the affine, or as stored; levels: what
    becomes black and white: a `window` of Hounsfield units, two `percentile`s, or the volume's own `range`; window: these two
    numbers; sampling: slices spread evenly over the volume, or its first ones.
    """

    height: Side
    width: Side
    area: Literal["whole", "paper"] = "whole"
    frames: CountOrZero = 0
    order: Literal["canonical", "stored"] = "canonical"
    levels: Literal["window", "percentile", "range"] = "window"
    window: list[float] = field(default_factory=list)
    sampling: Literal["even", "first"] = "even"

    def as_dict(self) -> dict[str, Any]:
        """The fields that files hold: those of volumes only where it renders volumes."""
        table = dataclasses.asdict(self)
        return table if self.frames else {name: table[name] for name in ("height", "width", "area")}


@dataclass(frozen=True)
class Augment:
    """Ranges of random transforms: degrees, share of the side, radians-as-share (Keras' own units) and yes or no.

    brightness: share by which all levels vary; grid: share by which the colour of a sheet's grid varies.
    """

    rotation: float
    shift: Share
    shear: Share
    zoom: Share
    flip: bool
    brightness: Share = 0.0
    grid: Share = 0.0


@dataclass(frozen=True)
class Sides:
    """What sides a picture, or a volume's slices, may have: pixels, and the longer one over the shorter.

    `validate`, the audit and the served models judge by this: an area alone lets a line of a million pixels pass.
    """

    min_side: Count = 32
    max_side: Count = 4096
    max_aspect: Positive = 20.0

    def fault(self, width: int, height: int, depth: int | None = None) -> str:
        """What is wrong with these sides, in plain words; "" if nothing is. depth: a volume's number of slices."""
        shown = " x ".join(str(side) for side in (width, height, depth) if side is not None)
        slices = 2 if depth is None else depth
        if min(width, height) < self.min_side or max(width, height, slices) > self.max_side or slices < 2:
            return f"sides out of range: {shown}, from {self.min_side} to {self.max_side} are read"
        if max(width, height) > self.max_aspect * min(width, height):
            return f"sides out of range: {shown}, one is at most {self.max_aspect:g} times the other"
        return ""


@dataclass(frozen=True)
class Limits:
    """What one file may cost: an image's pixels and bytes, a volume's voxels and bytes; the sides of both, None for any."""

    max_pixels: Count
    max_bytes: Count
    max_voxels: Count
    max_volume_bytes: Count
    sides: Sides | None = None
