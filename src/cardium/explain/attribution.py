"""The methods: how much each place of an input counts for the score of a class. One signature for all, for all models.

`attribute(model, method, pixels, target, how)`: float32 of the input's shape, summed over colours. Positive speaks for the
class; of methods that give magnitudes only (saliency, smoothgrad) nothing is negative. A new method is a function with
`@register_method`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardium.errors import CardiumError, unknown
from cardium.explain.opened_model import Array, OpenedModel
from cardium.imaging.heart_format import CELLS

Targets = NDArray[np.int64]


@dataclass(frozen=True)
class How:
    """What the methods ask: steps of integrated gradients, and how many at most; samples of smoothgrad and their noise, as a
    share of 255; the side of occlusion's window as a share of the input's; the seed of what is random."""

    steps: int = 50
    most_steps: int = 450
    samples: int = 16
    noise: float = 0.1
    window: float = 0.125
    seed: int = 0


Method = Callable[[OpenedModel, Array, Targets, How], Array]
METHODS: dict[str, Method] = {}
# What a magnitude is, and no direction.
UNSIGNED = ("saliency", "smoothgrad")
# How far the sum of integrated gradients may be off, as a share of the difference of scores.
_COMPLETE = 0.05
_NEEDS_MAP = ("gradcam", "gradcam++")


def register_method(name: str) -> Callable[[Method], Method]:
    def register(method: Method) -> Method:
        METHODS[name] = method
        return method

    return register


def applicable(model: OpenedModel) -> list[str]:
    """The methods that this model has something to say to."""
    return [name for name in METHODS if model.cams or name not in _NEEDS_MAP]


def default_method(model: OpenedModel) -> str:
    """gradcam, where the model's map has more than one place to tell apart; otherwise integrated gradients."""
    return "gradcam" if model.map_places > 1 else "integrated_gradients"


def check_method(name: str, model: OpenedModel | None = None) -> None:
    """Raises CardiumError for an unknown method, and for one that `model` has no map for."""
    if name not in METHODS:
        raise unknown("method", name, list(METHODS))
    if model is not None and name not in applicable(model):
        raise CardiumError(
            f"{name} needs a spatial map, and {model.name} has none (no layer `cam`): use {', '.join(applicable(model))}."
        )


def attribute(model: OpenedModel, method: str, pixels: Array, target: Targets, how: How | None = None) -> Array:
    """How much each place counts for the class `target` (n,): float32 (n, *model.places), of pixels (n, ...), 0-255.

    A record's attribution does not depend on those beside it. Padding frames of volumes get none.
    Raises CardiumError for an unknown method, and for one that needs a map of a model without one.
    """
    check_method(method, model)
    values = METHODS[method](model, np.asarray(pixels, np.float32), np.asarray(target), how or How())
    return np.where(model.filled(pixels), values, np.float32(0)).astype(np.float32, copy=False)


# ------------------------------------------------------------------------------------------------------- from the last map


@register_method("gradcam")
def grad_cam(model: OpenedModel, pixels: Array, target: Targets, _: How) -> Array:
    """ReLU of the last map's channels, each weighted by the mean slope of the score at it.

    Selvaraju et al.: Grad-CAM, ICCV 2017, arXiv:1610.02391, equations 1 and 2. Where the first axis of the map is the input's
    own (frames, leads), which no convolution has mixed yet, each of its places has weights of its own: the mean is over the
    others. Of several members the maps are added.
    """

    def weighted(maps: Array, slopes: Array, axes: tuple[int, ...]) -> Array:
        return np.asarray((maps * slopes.mean(axis=axes, keepdims=True)).sum(axis=-1))

    return _of_maps(model, pixels, target, weighted)


@register_method("gradcam++")
def grad_cam_plus_plus(model: OpenedModel, pixels: Array, target: Targets, _: How) -> Array:
    """As Grad-CAM, but the places where a channel speaks for the class weigh the channel, not the mean over all places.

    Chattopadhay et al.: Grad-CAM++, WACV 2018, arXiv:1710.11063, equations 10 and 19, for exp(score) as the class's value.
    """

    def weighted(maps: Array, slopes: Array, axes: tuple[int, ...]) -> Array:
        # Scaled to its largest slope: the formula does not change, and powers of small numbers stay above zero.
        largest = np.abs(slopes).max(axis=(*axes, -1), keepdims=True) + np.float32(1e-30)
        g = (slopes / largest).astype(np.float64)
        below = 2 * g**2 + (maps * largest).sum(axis=axes, keepdims=True) * g**3
        alpha = np.divide(g**2, below, out=np.zeros_like(g), where=below != 0)
        weights = (alpha * np.maximum(g, 0)).sum(axis=axes, keepdims=True)
        return np.asarray((maps * weights).sum(axis=-1))

    return _of_maps(model, pixels, target, weighted)


def _of_maps(
    model: OpenedModel, pixels: Array, target: Targets, weighted: Callable[[Array, Array, tuple[int, ...]], Array]
) -> Array:
    total = np.zeros((len(pixels), *model.places), np.float32)
    # Piece by piece: the maps of a whole gallery of volumes would be gigabytes.
    for at in range(0, len(pixels), model.at_once):
        rows = slice(at, at + model.at_once)
        for maps, slopes in model.cam_gradients(pixels[rows], target[rows]):
            apart = _keeps_first_axis(model, maps.shape[1:-1])
            axes = tuple(range(2 if apart else 1, maps.ndim - 1))
            total[rows] += _on_input(model, np.maximum(weighted(maps, slopes, axes), 0))
    return total


def _keeps_first_axis(model: OpenedModel, places: tuple[int, ...]) -> bool:
    """Whether the map's first axis is still the input's frames or leads, one by one."""
    if model.form == "traces":
        return True
    return len(places) == 3 and places[0] == model.shape[0]


def _on_input(model: OpenedModel, maps: NDArray[Any]) -> Array:
    """Maps (n, ...) at their coarse places -> (n, *places): linear between the middles of places.

    Where leads are a network's channels, its map has no place for a lead: every lead gets the same one. A map of traces lies
    over the heartbeats' rows, and the measurements below them have none.
    """
    if model.form == "traces":
        out = np.zeros((len(maps), *model.places), np.float32)
        out[:, : maps.shape[1]] = stretched(maps, 2, model.places[1])
        return out
    if maps.ndim == len(model.places):
        maps = np.repeat(maps[:, None], model.places[0], axis=1)
    for axis, size in enumerate(model.places, start=1):
        maps = stretched(maps, axis, size)
    return maps.astype(np.float32)


def stretched(values: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    """`values` with `size` places along `axis`, linear between the middles of the given places, constant beyond the ends."""
    there = values.shape[axis]
    if there == size:
        return values
    at = np.clip((np.arange(size) + 0.5) * there / size - 0.5, 0, there - 1)
    low = np.minimum(at.astype(np.int64), max(0, there - 2))
    share = (at - low).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = size
    above = np.take(values, np.minimum(low + 1, there - 1), axis=axis)
    return np.take(values, low, axis=axis) * (1 - share.reshape(shape)) + above * share.reshape(shape)


# ---------------------------------------------------------------------------------------------------------- from gradients


@register_method("integrated_gradients")
def integrated_gradients(model: OpenedModel, pixels: Array, target: Targets, how: How) -> Array:
    """The mean slope on the straight way from the baseline to the input, times what was moved.

    Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017, arXiv:1703.01365, equation 3. It adds up to the
    difference of the scores of input and baseline, but for what the points between them miss. They are the midpoints of
    `how.steps` equal steps; while the sum is off by more than 5 % (the paper's advice), each step is cut into three, which
    keeps the points that there are, up to `how.most_steps`.
    """
    start = model.baseline(pixels)
    out = np.zeros_like(pixels)
    wanted = model.scores(pixels, target) - model.scores(start, target)
    for row in range(len(pixels)):
        moved = pixels[row] - start[row]
        total = np.zeros(moved.shape, np.float64)
        steps = how.steps
        shares = (np.arange(steps) + 0.5) / steps
        while True:
            for at in range(0, len(shares), model.at_once):
                some = shares[at : at + model.at_once].astype(np.float32)
                points = start[row] + some.reshape(-1, *(1 for _ in moved.shape)) * moved
                total += model.pixel_gradients(points, np.repeat(target[row], len(points))).sum(axis=0, dtype=np.float64)
            out[row] = moved * total / steps
            missed = abs(float(out[row].sum(dtype=np.float64)) - wanted[row])
            if missed <= _COMPLETE * abs(wanted[row]) or 3 * steps > how.most_steps:
                break
            steps *= 3
            shares = (np.arange(steps) + 0.5)[np.arange(steps) % 3 != 1] / steps
    return _over_colours(model, out)


@register_method("saliency")
def saliency(model: OpenedModel, pixels: Array, target: Targets, _: How) -> Array:
    """The magnitude of the score's slope at each value, added over colours.

    Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks, arXiv:1312.6034 (which takes the largest of the colours).
    """
    return _over_colours(model, np.abs(model.pixel_gradients(pixels, target)))


@register_method("smoothgrad")
def smooth_grad(model: OpenedModel, pixels: Array, target: Targets, how: How) -> Array:
    """Saliency of the mean slope over `how.samples` noisy copies of the input.

    Smilkov et al.: SmoothGrad, arXiv:1706.03825. The noise is normal, `how.noise` of the range 0-255 wide.
    """
    out = np.zeros_like(pixels)
    filled = model.filled(pixels)
    for row in range(len(pixels)):
        there = filled[row][..., None] if model.form == "image" else filled[row]
        # A record's noise is its own, whatever is beside it.
        rng = np.random.default_rng([how.seed, zlib.crc32(pixels[row].tobytes())])
        for at in range(0, how.samples, model.at_once):
            count = min(model.at_once, how.samples - at)
            noise = rng.standard_normal((count, *pixels.shape[1:]), np.float32) * np.float32(255 * how.noise)
            copies = pixels[row] + np.where(there, noise, np.float32(0))
            out[row] += model.pixel_gradients(copies, np.repeat(target[row], count)).sum(axis=0)
    return _over_colours(model, np.abs(out / how.samples))


def _over_colours(model: OpenedModel, values: Array) -> Array:
    return np.asarray(values.sum(axis=-1) if model.form == "image" else values)


# ------------------------------------------------------------------------------------------------------------ from looking


@register_method("occlusion")
def occlusion(model: OpenedModel, pixels: Array, target: Targets, how: How) -> Array:
    """How much the score falls when a window is emptied (set to the baseline), shared out over the window, mean over windows.

    Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014, arXiv:1311.2901. Windows of pictures and
    traces overlap by half, those of a heart are its measures; those of a volume lie side by side and span several slices.
    """
    start = model.baseline(pixels)
    windows = list(_windows(model, how.window))
    whole = model.scores(pixels, target)
    out = np.zeros((len(pixels), *model.places), np.float32)
    for row in range(len(pixels)):
        covered = np.zeros(model.places, np.float32)
        filled = model.filled(pixels[row : row + 1])[0]
        # What holds nothing loses nothing: of a volume's padding most windows need not be looked at.
        looked = [window for window in windows if filled[window].any()]
        for at in range(0, len(looked), model.at_once):
            some = looked[at : at + model.at_once]
            emptied = np.repeat(pixels[row][None], len(some), axis=0)
            for copy, window in zip(emptied, some, strict=True):
                copy[window] = start[row][window]
            falls = whole[row] - model.scores(emptied, np.repeat(target[row], len(some)))
            for window, fall in zip(some, falls, strict=True):
                out[row][window] += fall / filled[window].size
                covered[window] += 1
        out[row] /= np.maximum(covered, 1)
    return out


def _windows(model: OpenedModel, share: float) -> Iterator[tuple[slice, ...]]:
    """The windows of occlusion over `model.places`, in order."""
    if model.form == "heart":
        yield from ((slice(0, 1), slice(cell, cell + 1)) for cell in CELLS.values())
        return
    sides, steps = [], []
    for axis, size in enumerate(model.places):
        if model.form in ("leads", "traces") and axis == 0:
            side = step = 1  # One lead, or one row of measurements.
        elif model.form in ("leads", "slices", "volume"):
            # Twice as coarse: the windows of many leads or slices are many, and each costs a pass over all of them.
            side = step = max(1, round(size * min(1.0, 2 * share)))
        else:
            side = max(1, round(size * share))
            step = max(1, side // 2)
        sides.append(side)
        steps.append(step)
    starts = [
        sorted({*range(0, max(1, size - side), step), max(0, size - side)})
        for size, side, step in zip(model.places, sides, steps, strict=True)
    ]
    for corner in product(*starts):
        yield tuple(slice(at, at + side) for at, side in zip(corner, sides, strict=True))
