"""What one request to a served model may cost: how many files, and of each its bytes and what they decode to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cardium.imaging.kinds import of_volumes
from cardium.imaging.spec import Limits

if TYPE_CHECKING:
    from cardium.config import Settings


@dataclass(frozen=True)
class ServingLimits:
    """The limits of one request, and of one file in it.

    max_rows: as many images as answer within the server's 60 s on two cores with the slowest network, with room to spare.
    max_volume_rows: the same of volumes. max_pixels, max_bytes: of an image. max_voxels: of a volume. max_volume_bytes: of a
    volume as it is sent; a published CT has up to 160 MB as .nii.gz. max_inflated_bytes: of a volume once it is inflated.
    """

    max_rows: int = 256
    max_volume_rows: int = 8
    max_pixels: int = 50_000_000
    max_bytes: int = 100_000_000
    max_voxels: int = 300_000_000
    max_volume_bytes: int = 400_000_000
    max_inflated_bytes: int = 1_200_000_000

    def rows(self, kind: str) -> int:
        """How many files a request may hold for a model that reads the rendering `kind`."""
        return self.max_volume_rows if of_volumes(kind) else self.max_rows

    def of_file(self, kind: str) -> Limits:
        """What one file may cost that is rendered as `kind`."""
        max_bytes = self.max_volume_bytes if of_volumes(kind) else self.max_bytes
        return Limits(self.max_pixels, max_bytes, self.max_voxels, self.max_inflated_bytes)


def serving_limits(settings: Settings) -> ServingLimits:
    """The limits that params.yaml sets."""
    return getattr(settings, "serve", ServingLimits())
