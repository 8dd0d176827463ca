"""16-bit PNGs of several channels with all their bits: Pillow keeps the high byte of each, which leaves three levels of a scan.

Grey with alpha is read through Pillow as the 8-bit picture of four channels that its bytes also are. Colour is unfiltered here
(PNG specification, 3rd edition, 9.2), which takes seconds a megapixel: larger pictures keep the high byte.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

_SIGNATURE = 8
_GREY_ALPHA, _RGB, _RGBA = 4, 2, 6
_CHANNELS = {_GREY_ALPHA: 2, _RGB: 3, _RGBA: 4}
# Pixels of colour that are unfiltered in Python.
_MOST = 1_000_000


def read_deep_png(data: bytes) -> NDArray[np.uint16] | None:
    """A 16-bit PNG of several channels -> uint16 (H, W, 2, 3 or 4); None for any other PNG, and for a large one of colours.

    The caller has checked the size. Raises what zlib, struct and Pillow raise for damaged data.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if depth != 16 or colour not in _CHANNELS or (interlaced and colour != _GREY_ALPHA):
        return None
    if colour == _GREY_ALPHA:
        return _grey_alpha(data)
    if width * height > _MOST:
        return None
    channels = _CHANNELS[colour]
    rows = _inflated(data, height * (1 + 2 * channels * width))
    return _unfiltered(rows, height, 2 * channels * width, 2 * channels).view(">u2").reshape(height, width, channels)


def _grey_alpha(data: bytes) -> NDArray[np.uint16]:
    header = data[12:16] + data[16:24] + bytes([8, _RGBA]) + data[26:29]
    same = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    with PngImagePlugin.PngImageFile(BytesIO(same)) as image:
        octets = np.asarray(image).astype(np.uint16)
    return np.asarray(octets[..., ::2] << 8 | octets[..., 1::2], np.uint16)


def _inflated(data: bytes, size: int) -> bytes:
    """The picture's rows, each behind its filter: exactly `size` bytes, and no more are inflated."""
    packed, at = [], _SIGNATURE
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IDAT":
            packed.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    rows = zlib.decompressobj().decompress(b"".join(packed), size)
    if len(rows) != size:
        raise EOFError("truncated PNG")
    return rows


def _unfiltered(rows: bytes, height: int, width: int, step: int) -> NDArray[np.uint8]:
    """Filtered rows -> bytes (height, width). step: bytes a pixel."""
    out = np.zeros((height + 1, width), np.uint8)
    for number in range(height):
        kind = rows[number * (width + 1)]
        row = np.frombuffer(rows, np.uint8, width, number * (width + 1) + 1)
        above = out[number]
        if kind == 0:
            out[number + 1] = row
        elif kind == 1:
            out[number + 1] = np.cumsum(row.reshape(-1, step), axis=0, dtype=np.uint8).reshape(-1)
        elif kind == 2:
            out[number + 1] = row + above
        elif kind in (3, 4):
            out[number + 1] = np.frombuffer(_sequential(kind, row.tobytes(), above.tobytes(), step), np.uint8)
        else:
            raise ValueError(f"PNG filter {kind}")
    return out[1:]


def _sequential(kind: int, row: bytes, above: bytes, step: int) -> bytearray:
    """A row under the filters that need the pixel to the left first: Average (3) and Paeth (4)."""
    left = bytearray(step) + bytearray(len(row))
    for at, value in enumerate(row):
        a, b = left[at], above[at]
        if kind == 3:
            guess = (a + b) // 2
        else:
            c = above[at - step] if at >= step else 0
            pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
            guess = a if pa <= pb and pa <= pc else b if pb <= pc else c
        left[at + step] = (value + guess) & 255
    return left[step:]
