"""Random numbers, angles and paint of generated data: the same bits on every machine.

Random numbers are PCG64's raw words, which NumPy guarantees never to change for a seed (unlike the methods of Generator).
Operations on arrays elsewhere follow phantom.py's rules.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class RandomStream:
    """A stream of random numbers that depends on `key` alone."""

    def __init__(self, *key: int) -> None:
        self._source = np.random.PCG64(list(key))

    def uniform(self, count: int) -> Array:
        """`count` numbers in [0, 1), multiples of 1/65536."""
        words: NDArray[np.uint64] = self._source.random_raw(count)  # type: ignore[assignment]
        return (words >> np.uint64(48)).astype(np.float64) / 65536.0

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.uniform(1)[0])

    def below(self, count: int) -> int:
        """A whole number in 0..count-1."""
        return int(float(self.uniform(1)[0]) * count)

    def noise(self, count: int) -> Array:
        """`count` numbers of mean 0 and deviation 1, nearly normal: sums of a word's four parts."""
        words: NDArray[np.uint64] = self._source.random_raw(count)  # type: ignore[assignment]
        total = words >> np.uint64(48)
        for shift in (32, 16, 0):
            total = total + ((words >> np.uint64(shift)) & np.uint64(65535))
        return (total.astype(np.float64) / 65536.0 - 2.0) * math.sqrt(3.0)


def raw_words(*key: int, count: int) -> NDArray[np.uint64]:
    """`count` random 64-bit words that depend on `key` alone."""
    words: NDArray[np.uint64] = np.random.PCG64(list(key)).random_raw(count)  # type: ignore[assignment]
    return words


def stratified(low: float, high: float, count: int, words: NDArray[np.uint64]) -> list[float]:
    """One number from each of `count` equal parts of [low, high), in random order, rounded to 1e-6; takes 2 * count words."""
    order = np.argsort(words[:count], kind="stable")
    within = [int(word) >> 48 for word in words[count:]]
    return [round(low + (high - low) * (int(part) + within[place] / 65536) / count, 6) for place, part in enumerate(order)]


def direction(angle: float) -> tuple[float, float]:
    """(cos, sin) of an angle in degrees, rounded so that they are the same with every mathematics library."""
    return round(math.cos(math.radians(angle)), 9), round(math.sin(math.radians(angle)), 9)


def paint(canvas: Array, inside: Array, level: Array | float, soft: float, opacity: float = 1.0) -> Array:
    """Lays `level` over `canvas` where `inside` (mm) is positive, with an edge `soft` mm wide: the pixel's partial volume."""
    cover = np.minimum(np.maximum(inside / soft + 0.5, 0.0), 1.0) * opacity
    return canvas + (level - canvas) * cover
