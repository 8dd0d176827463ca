"""The ruled paper of a sheet -> pixels per millimetre, from the rhythm of its grid.

The picture's darkness is summed along rows and along columns of small tiles, so that perspective blurs little; the tiles'
autocorrelations are added up. Ruled paper repeats itself every millimetre, every five, or both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardium.imaging import channels

Pixels = NDArray[np.uint8]
Array = NDArray[np.float64]

_TILES = 4
# Lines of a tile that are added up.
_LINES = 100
# How much of its variance a grid's profile must repeat.
_REPEATS = 0.12


def pixels_per_mm(pixels: Pixels, expected: float) -> float | None:
    """Pixels per millimetre of the grid in a picture uint8 (H, W, 3); None where no grid is seen.

    expected: about what it should be, from the length of a row. Between 0.7 and 1.4 of it is looked for.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < 12 * expected or expected < 1.2:
        return None
    # A grid is faint in the channel that hides it best; the traces are dark in all of them and are cut off.
    darkest = channels.darkest(pixels)
    found = []
    for axis in (0, 1):
        long = width if axis == 0 else height
        tiles = [
            block
            for band in np.array_split(darkest, _TILES, axis=axis)
            for block in np.array_split(band, _TILES if long > 60 * expected else 1, axis=1 - axis)
        ]
        found.append(_period([_repeats(tile, axis, expected) for tile in tiles], expected))
    seen = [(strength, period) for strength, period in found if strength > _REPEATS]
    if not seen:
        return None
    # Both ways along the paper are alike; the one that shows it better counts.
    return max(seen)[1]


def _repeats(tile: NDArray[np.uint8], axis: int, expected: float) -> Array:
    """The autocorrelation of a tile's profile at 0, 1, ... pixels, up to eight millimetres; 1 at 0."""
    if tile.shape[axis] > _LINES:
        # Not every n-th line, which could miss the dots of a dotted grid.
        tile = tile.take((np.arange(_LINES) * 0.6180339887 % 1 * tile.shape[axis]).astype(np.int64), axis=axis)
    level, white = np.percentile(tile[:, ::3], (25, 90))
    profile = np.clip(tile, level, white).mean(axis=axis)
    count = round(8 * expected) + 2
    if profile.size < 2 * count:
        return np.zeros(count)
    window = max(3, round(6 * expected)) | 1
    padded = np.pad(profile, window // 2, mode="reflect")
    profile = profile - np.convolve(padded, np.ones(window) / window, mode="valid")
    spectrum = np.fft.rfft(profile, 2 * profile.size)
    values = np.fft.irfft(np.abs(spectrum) ** 2)[:count]
    values = values / np.arange(profile.size, profile.size - count, -1)
    return values / values[0] if values[0] > 1e-9 else np.zeros(count)


def _period(tiles: list[Array], expected: float) -> tuple[float, float]:
    """How strongly, and every how many pixels of a millimetre, the tiles repeat: by five millimetres, else by one."""
    values = np.mean(tiles, axis=0)
    five, at_five = _peak(values, 3.5 * expected, 7.0 * expected)
    one, at_one = _peak(values, 0.7 * expected, 1.4 * expected)
    if one > _REPEATS and at_one > 0:
        # The fifth line from here, more exactly than the first.
        exact, at = _peak(values, 4.6 * at_one, 5.4 * at_one)
        return max(one, exact), (at / 5 if exact > 0.5 * one else at_one)
    return five, at_five / 5


def _peak(values: Array, low: float, high: float) -> tuple[float, float]:
    """The highest inner maximum between two lags: its value above the lowest value before it, its place."""
    first, last = max(1, int(low)), min(values.size - 2, int(np.ceil(high)))
    best = (0.0, 0.0)
    for lag in range(first, last + 1):
        a, b, c = values[lag - 1], values[lag], values[lag + 1]
        if b >= a and b > c:
            depth = b - float(values[max(0, lag // 2) : lag].min(initial=b))
            bend = a - 2 * b + c
            place = lag + (0.5 * (a - c) / bend if bend < 0 else 0.0)
            best = max(best, (float(min(b, depth)), float(place)))
    return best
