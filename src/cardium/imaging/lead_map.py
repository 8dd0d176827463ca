"""A picture -> where a small network sees leads, their edges, names and pulses: the lead map."""

from __future__ import annotations

import functools
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.errors import CardiumError
from cardium.imaging import channels

Pixels = NDArray[np.uint8]

# Of lead_map.npz: new weights are a change of this module, and so of the stages that depend on it.
_SHA256 = "952a123775cc17319e750eb44c4e14b9d0f1f4989819023a7486b2c051a25a00"
# Longest side of the picture that the network looks at; its sides are filled up to multiples of the network's stride.
LONGEST = 640
STRIDE = 64
CELL = 8
CHANNELS = (
    "quarter", "half", "full", "begin", "between", "end", "pulse",
    "I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6",
)  # fmt: skip

# Straight level lines at least this dark (of 255) are erased, those of a black grid too.
_RULE = 60
# Places of LeadMap.turned.
UPRIGHT, HALF_TURN, NO_SHEET = 0, 2, 4


def shrunk(pixels: Pixels) -> Pixels:
    """The picture with LONGEST as its longest side."""
    height, width = pixels.shape[:2]
    factor = LONGEST / max(height, width)
    if factor == 1:
        return pixels
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX if factor < 1 else Image.Resampling.BILINEAR))


def darkness(pixels: Pixels) -> NDArray[np.uint8]:
    """How much darker than the paper around it each pixel's brightest and darkest channel is: uint8 (H, W, 2), 255 = black.

    Sides are filled up with paper (0) to multiples of STRIDE.
    """
    from scipy.ndimage import maximum_filter, uniform_filter

    height, width = pixels.shape[:2]
    out = np.zeros((-(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE, 2), np.uint8)
    for place, channel in enumerate((channels.brightest(pixels), channels.darkest(pixels))):
        small = Image.fromarray(channel).resize((-(-width // 6), -(-height // 6)), Image.Resampling.BOX)
        white = uniform_filter(maximum_filter(np.asarray(small, np.float32), 7, mode="nearest"), 7, mode="nearest")
        paper = np.asarray(Image.fromarray(white).resize((width, height), Image.Resampling.BILINEAR))
        out[:height, :width, place] = 255 * np.clip(1 - channel / np.maximum(paper, 1), 0, 1)
    return out


def without_rules(seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture's darkness without straight level lines: rules under a header and frames look like leads without a heartbeat.

    No trace is straight for a quarter of the picture's width.
    """
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    length = max(3, seen.shape[1] // 4)
    # A line that leans a little is on one of two rows at a time.
    thick = maximum_filter1d(seen[..., 0], 3, axis=0)
    ruled = maximum_filter1d(minimum_filter1d(thick, length, axis=1), length, axis=1)
    return np.where(ruled[..., None] > _RULE, 0, seen)


@dataclass(frozen=True)
class LeadMap:
    """What the network sees in a picture; a cell is CELL pixels of the picture with LONGEST as its longest side.

    seen: float32 (len(CHANNELS), rows, columns), probabilities 0-1 that a cell is crossed by: the baseline of a lead that is a
    quarter, a half or the whole of its row; the edge before a row's first lead, between leads, after its last; a pulse; the
    printed name of a lead. turned: probabilities that the picture must be turned clockwise by 0, 1, 2, 3 quarters, and that it
    is no sheet. scale: pixels of the picture for one cell.
    """

    seen: NDArray[np.float32]
    turned: NDArray[np.float32]
    scale: float

    def channel(self, name: str) -> NDArray[np.float32]:
        return self.seen[CHANNELS.index(name)]


def see_leads(pixels: Pixels) -> LeadMap:
    """The lead map of a picture uint8 (H, W, 3)."""
    small = shrunk(pixels)
    out, turned = _forward(without_rules(darkness(small)).astype(np.float32) / np.float32(255))
    rows, columns = -(-small.shape[0] // CELL), -(-small.shape[1] // CELL)
    seen = 1 / (1 + np.exp(-np.clip(out[:rows, :columns], -30, 30)))
    odds = np.exp(turned - turned.max())
    scale = CELL * max(pixels.shape[:2]) / LONGEST
    return LeadMap(np.ascontiguousarray(seen.transpose(2, 0, 1)), odds / odds.sum(), scale)


@functools.lru_cache(maxsize=1)
def _weights() -> dict[str, NDArray[np.float32]]:
    """The weights that benchmarks/train_lead_map.py made. Raises CardiumError if the file is another one or is missing."""
    path = Path(__file__).with_name("lead_map.npz")
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise CardiumError(f"{path} is not the file that this version reads sheets with: install cardium again.")
    with np.load(io.BytesIO(data)) as file:
        return {name: file[name].astype(np.float32) for name in file.files}


def _forward(image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A U-Net (Ronneberger et al. 2015) of five scales; batch norm is folded into the convolutions."""
    c = _convolved(_convolved(image, "stem", 4), "c1", 2)
    d = _convolved(_convolved(c, "d1", 2), "d2")
    e = _convolved(_convolved(d, "e1", 2), "e2")
    f = _convolved(_convolved(e, "f1", 2), "f2")
    up = _convolved(np.concatenate([_doubled(_convolved(f, "fr")), e], axis=2), "ue")
    up = _convolved(np.concatenate([_doubled(_convolved(up, "er")), d], axis=2), "ud")
    up = _convolved(np.concatenate([_doubled(_convolved(up, "dr")), _convolved(c, "cr")], axis=2), "uc")
    weights = _weights()
    turned = f.max(axis=(0, 1)) @ weights["turn_w"] + weights["turn_b"]
    return up @ weights["out_w"][0, 0] + weights["out_b"], turned


def _convolved(x: NDArray[np.float32], name: str, stride: int = 1) -> NDArray[np.float32]:
    """A convolution with TensorFlow's padding "same", and ReLU."""
    kernel, bias = _weights()[f"{name}_w"], _weights()[f"{name}_b"]
    size, _, depth, count = kernel.shape
    before = (size - stride) // 2
    padded = np.pad(x, ((before, size - stride - before), (before, size - stride - before), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))[::stride, ::stride]
    rows, columns = windows.shape[:2]
    flat = np.ascontiguousarray(windows.transpose(0, 1, 3, 4, 2)).reshape(rows * columns, size * size * depth)
    out = flat @ kernel.reshape(size * size * depth, count) + bias
    return np.maximum(out, 0, out=out).reshape(rows, columns, count)


def _doubled(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x.repeat(2, axis=0).repeat(2, axis=1)
