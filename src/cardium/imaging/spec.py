"""What a renderer needs to know: the size and reading of an array, the ranges of its random views, and what a file may cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from cardium.ranges import Count, CountOrZero, Share, Side


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
class Limits:
    """What one file may cost: an image's pixels and bytes, a volume's voxels and bytes."""

    max_pixels: Count
    max_bytes: Count
    max_voxels: Count
    max_volume_bytes: Count
