"""What a download may cost and how patient it is: section `download` of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass

from cardium.ranges import Count, CountOrZero, NotNegative, Positive, Share


@dataclass(frozen=True)
class DownloadLimits:
    """Limits of a download. Its defaults are those of params.yaml.

    connect_seconds: to connect to a server. read_seconds: between two pieces of its answer. files_at_once: connections.
    attempts: how often a connection that brings nothing is tried before the user is asked to. pause_seconds: between two
    attempts, longer after each.
    max_unpacked_bytes, max_members: of an archive. max_depth: folders in one another. max_ratio: of unpacked to packed
    bytes; beyond it an archive is a bomb.
    spare_bytes: kept free on the disk beside what is unpacked.
    max_missing: the share of a class's published files that may be missing. sampled_images, sampled_volumes: files a class that
    are decoded before a download is accepted. max_unreadable: the share of these that may fail.
    """

    connect_seconds: Positive = 5.0
    read_seconds: Positive = 60.0
    files_at_once: Count = 6
    attempts: Count = 4
    pause_seconds: NotNegative = 0.5
    max_unpacked_bytes: Count = 300_000_000_000
    max_members: Count = 100_000
    max_depth: Count = 32
    max_ratio: Count = 200
    spare_bytes: CountOrZero = 100_000_000
    max_missing: Share = 0.02
    sampled_images: Count = 20
    sampled_volumes: Count = 3
    max_unreadable: Share = 0.05

    def sampled(self, kind: str) -> int:
        """Files a class to decode of a collection whose records are of `kind`, `image` or `volume`."""
        return self.sampled_volumes if kind == "volume" else self.sampled_images


DEFAULT_LIMITS = DownloadLimits()
