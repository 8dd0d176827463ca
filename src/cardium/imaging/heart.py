"""Short-axis cine images of one patient -> the left ventricle: its axis, its contours at both ends of the beat, its measures.

positions = slice_positions(images, series)      # which images show one slice, from the pixels
heart = find_heart([images[p] for p in positions])
heart.measures["ejection_fraction"], heart.warnings

A left ventricle is a bright pool that beats inside a closed dark ring, at one place in all slices. `find_heart` scores every
place of every slice by that, takes the one best axis through the stack, and draws the pool's edge (endocardium) and the wall's
outer edge (epicardium) as closed paths of least cost in polar coordinates (dynamic programming, as Gupta et al. 1993 and
Pednekar et al. 2006 did for cine MRI). The papillary muscles belong to the pool, as clinics draw it: it is the convex hull.

All lengths are pixels of the picture whose longer side is 256, all measures are ratios: no pixel spacing is needed. How many
slices and frames there are, and which, enters no measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardium.imaging.heart_format import ANGLES, SLICES, TILE, ZOOM, encode

Picture = NDArray[np.uint8]
Array = NDArray[np.float32]

SIDE = 256  # of the longer side, to which every picture is scaled
_STEP = 0.5
_RADII = np.arange(0, 80, _STEP, dtype=np.float32)
_THETA = 2 * np.pi * np.arange(ANGLES) / ANGLES
_COS, _SIN = np.cos(_THETA).astype(np.float32), np.sin(_THETA).astype(np.float32)

# Pictures of one slice differ by less of their brightness than those of two; the limit is never beyond these.
_SAME_SLICE = (0.06, 0.18)
# Of the ring score: radii that a pool may have, and what a larger one is worth.
_POOLS = np.arange(0, 62, 2, dtype=np.float32)
_LARGER = 0.002
# The least ring score of a slice that shows a ventricle, and the lead over the second axis that makes a place sure.
_RING, _MARGIN = 0.12, 0.03
_FEW = 3  # slices below which a heart is measured with a warning

FEW_SLICES = "fewer than three slices show two moments of the beat"
NOT_SURE = "the heart was not found for sure: two places fit nearly alike"
NO_RING = "no short-axis view: nothing beats inside a closed dark ring"
NO_MOTION = "no slice shows two moments of the beat"
NEGATIVE = "the pool grows where it should shrink: its ejection fraction is not to be trusted"


@dataclass(frozen=True)
class Contour:
    """The pool and the wall in one frame: radii (ANGLES,) float32 from (y, x), angle 0 to the right, then down."""

    y: float
    x: float
    endo: Array
    epi: Array

    @property
    def pool(self) -> float:
        return area(self.endo)

    @property
    def wall(self) -> float:
        return area(self.epi) - area(self.endo)


@dataclass(frozen=True)
class Slice:
    """One slice position: its number among those given, its frames at end-diastole and end-systole, and their contours.

    pictures: float32 (2, H, W), end-diastole first, scaled to SIDE.
    """

    position: int
    ed: int
    es: int
    pictures: Array
    contours: tuple[Contour, Contour]


@dataclass(frozen=True)
class Heart:
    """measures: by the names of heart_format.MEASURES, {} where nothing was found. confidence: 0 to 1, by how far the second
    axis lies behind. left_out: how many positions show no beating ring, or have one frame only."""

    slices: tuple[Slice, ...]
    measures: dict[str, float]
    confidence: float
    warnings: tuple[str, ...]
    left_out: int


# ------------------------------------------------------------------------------------------------------ which slice it is


def slice_positions(pictures: Sequence[Picture], series: Sequence[str]) -> list[list[int]]:
    """Which pictures show one slice: indices, in order, from grey uint8 (h, w) in the order in which they were taken.

    A new slice begins with another series, with another size, or where the body around the heart is another: pictures of one
    slice differ little, of two slices much, and the limit lies between the two.
    """
    from scipy import ndimage

    apart: list[float] = []
    before: Array | None = None
    for i, picture in enumerate(pictures):
        small = ndimage.gaussian_filter(picture.astype(np.float32), 1)[::2, ::2]
        if before is None or before.shape != small.shape or series[i] != series[i - 1]:
            apart.append(np.inf)
        else:
            brighter = np.maximum(small, before)
            body = brighter > 10
            difference = np.median(np.abs(small - before)[body]) / np.median(brighter[body]) if body.any() else np.inf
            apart.append(float(difference))
        before = small
    limit = _between(np.array([value for value in apart if np.isfinite(value)]))
    positions: list[list[int]] = []
    for i, value in enumerate(apart):
        if value < limit:
            positions[-1].append(i)
        else:
            positions.append([i])
    return positions


def _between(differences: NDArray[np.float64]) -> float:
    """The limit between differences of pictures of one slice and of two: half way between two groups, in their logarithms."""
    least, most = _SAME_SLICE
    logs = np.log(np.maximum(differences, 1e-4))
    if not logs.size:
        return most
    limit = (logs.min() + logs.max()) / 2
    for _ in range(20):
        above = logs > limit
        if above.all() or not above.any():
            return most
        limit = (logs[above].mean() + logs[~above].mean()) / 2
    return float(np.clip(np.exp(limit), least, most))


# ------------------------------------------------------------------------------------------------------------- the whole


def find_heart(positions: Sequence[Sequence[Picture]]) -> Heart:
    """Finds and measures the left ventricle.

    positions: of each slice its frames, grey uint8 (h, w), in the order of the stack.
    """
    usable = _usable(positions)
    if not usable:
        return Heart((), {}, 0.0, (NO_MOTION,), len(positions))
    frames = [_scaled(positions[k]) for k in usable]
    pairs = np.stack([f[_farthest(f)] for f in frames])
    axis = _find_axis(pairs)
    ring = axis.scores >= _RING
    if not ring.any():
        return Heart((), {}, 0.0, (NO_RING,), len(positions))
    keep = np.flatnonzero(ring)
    numbers, frames, pairs = [usable[k] for k in keep], [frames[k] for k in keep], pairs[keep]
    y, x = axis.y[keep], axis.x[keep]
    radius = _pool_radii(pairs, y, x)
    ends = _ends_of_beat(frames, y, x, radius)
    pictures = np.stack([f[list(end)] for f, end in zip(frames, ends, strict=True)])
    contours = _contours(pictures, y, x, radius)
    slices = tuple(Slice(numbers[k], ends[k][0], ends[k][1], pictures[k], contours[k]) for k in range(len(keep)))
    measures = _measure(slices)
    warnings = []
    if len(slices) < _FEW:
        warnings.append(FEW_SLICES)
    if axis.margin < _MARGIN:
        warnings.append(NOT_SURE)
    if measures["ejection_fraction"] < 0:
        warnings.append(NEGATIVE)
    return Heart(
        slices, measures, float(np.clip(axis.margin / (4 * _MARGIN), 0, 1)), tuple(warnings), len(positions) - len(keep)
    )


def render_heart(heart: Heart) -> Picture:
    """A heart as the array of heart_format.py, uint8 (133, 512); of more than eight slices eight, evenly spread."""
    count = min(len(heart.slices), SLICES)
    chosen = [heart.slices[round(at)] for at in np.linspace(0, len(heart.slices) - 1, count)] if count else []
    tiles = np.zeros((2, count, TILE, TILE), np.uint8)
    contours = np.zeros((count, 4, ANGLES), np.float32)
    for number, one in enumerate(chosen):
        middle = one.contours[0]
        bright = max(float(np.percentile(_tile(one.pictures[0], middle), 99)), 1.0)
        for moment, contour in enumerate(one.contours):
            tile = _tile(one.pictures[moment], middle)
            tiles[moment, number] = np.clip(tile * 255 / bright, 0, 255)
            contours[number, 2 * moment : 2 * moment + 2] = [_about(contour, middle, r) for r in (contour.endo, contour.epi)]
    return encode(heart.measures, heart.confidence, tiles, contours)


def _tile(picture: Array, middle: Contour) -> Array:
    """The surroundings of a ventricle, float32 (TILE, TILE)."""
    from scipy import ndimage

    at = (np.arange(TILE) - (TILE - 1) / 2) * ZOOM
    places = np.meshgrid(middle.y + at, middle.x + at, indexing="ij")
    tile: Array = ndimage.map_coordinates(picture, places, order=1, mode="constant")
    return tile


def _about(contour: Contour, middle: Contour, radii: Array) -> Array:
    """A contour's radii as seen from another middle."""
    y, x = contour.y + radii * _SIN - middle.y, contour.x + radii * _COS - middle.x
    angle = np.arctan2(y, x) % (2 * np.pi)
    order = np.argsort(angle)
    return np.interp(_THETA, angle[order], np.hypot(y, x)[order], period=2 * np.pi).astype(np.float32)


def area(radii: NDArray[np.float32]) -> float:
    """The area inside a contour, square pixels."""
    return float(0.5 * np.sin(2 * np.pi / ANGLES) * (radii * np.roll(radii, -1)).sum())


def _usable(positions: Sequence[Sequence[Picture]]) -> list[int]:
    """The positions with two frames or more, of the size that most of them have."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for k, frames in enumerate(positions):
        if len(frames) > 1:
            sizes.setdefault(frames[0].shape, []).append(k)
    return max(sizes.values(), key=len) if sizes else []


def _scaled(frames: Sequence[Picture]) -> Array:
    """float32 (F, H, W), the longer side SIDE pixels."""
    from PIL import Image

    height, width = frames[0].shape
    zoom = SIDE / max(height, width)
    if zoom == 1:
        return np.stack(frames).astype(np.float32)
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    how = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(f).resize(size, how)) for f in frames]).astype(np.float32)


def _smooth(pictures: Array, sigma: float) -> Array:
    """Gaussian blur of the last two axes."""
    from scipy import ndimage

    blurred: Array = ndimage.gaussian_filter(pictures, (0,) * (pictures.ndim - 2) + (sigma, sigma))
    return blurred


def _farthest(frames: Array) -> list[int]:
    """The two frames that differ most where the slice changes most."""
    if len(frames) == 2:
        return [0, 1]
    small = _smooth(frames, 2)[:, ::4, ::4].reshape(len(frames), -1)
    changes = small.std(0)
    small = small[:, changes >= np.quantile(changes, 0.97)]
    apart = np.abs(small[:, None] - small[None]).mean(2)
    first, second = np.unravel_index(apart.argmax(), apart.shape)
    return [int(first), int(second)] if first != second else [0, 1]


# -------------------------------------------------------------------------------------------------------------- the axis


@dataclass(frozen=True)
class _Axis:
    """A place a slice, (S,); its score; how far the best axis elsewhere lies behind, in the mean score."""

    y: Array
    x: Array
    scores: Array
    margin: float


def _ring_scores(picture: Array, y: Array, x: Array) -> Array:
    """How much each place (n,) looks like the middle of a pool of each radius in _POOLS: float32 (n, len(_POOLS)).

    The contrast between the disc's mean and the darkest point just outside in 16 directions, the worst of which count twice,
    less the disc's own deviation.
    """
    height, width = picture.shape
    angle = 2 * np.pi * np.arange(16) / 16
    rows = np.clip(np.rint(y[:, None, None] + np.sin(angle)[:, None] * _POOLS).astype(np.int32), 0, height - 1)
    columns = np.clip(np.rint(x[:, None, None] + np.cos(angle)[:, None] * _POOLS).astype(np.int32), 0, width - 1)
    rays = picture[rows, columns]
    weight = (_POOLS + 1)[:, None]
    total = np.cumsum(rays.sum(1) * weight[:, 0], 1)
    squares = np.cumsum((rays * rays).sum(1) * weight[:, 0], 1)
    count = 16 * np.cumsum(weight[:, 0])
    scores = np.full((len(y), len(_POOLS)), -1, np.float32)
    for k in range(2, len(_POOLS) - 3):
        mean = total[:, k - 1] / count[k - 1]
        spread = np.sqrt(np.maximum(squares[:, k - 1] / count[k - 1] - mean * mean, 0))
        contrast = np.sort(np.clip((mean[:, None] - rays[:, :, k + 1 : k + 4].min(2)) / (mean[:, None] + 1e-3), -1, 0.6), 1)
        scores[:, k] = (contrast[:, :5].mean(1) + contrast.mean(1)) / 2 - 1.3 * spread / (mean + 1e-3) + _LARGER * _POOLS[k]
    return scores


def _find_axis(pairs: Array, step: int = 4) -> _Axis:
    """The axis of the left ventricle through slices (S, 2, H, W): the path of the highest ring scores where the slices beat."""
    blurred = _smooth(pairs, 1.0)
    moved = np.abs(_smooth(pairs[:, 0], 1.5) - _smooth(pairs[:, 1], 1.5))
    moved = np.minimum(moved / (np.percentile(moved, 99.5, axis=(1, 2), keepdims=True) + 1e-3), 1)
    # A small ventricle moves near its middle, a dilated one far from it.
    near, far = _smooth(moved, 9), _smooth(moved, 20)
    beats = np.maximum(near / (near.max((1, 2), keepdims=True) + 1e-6), far / (far.max((1, 2), keepdims=True) + 1e-6))
    together = beats.mean(0)
    height, width = together.shape
    edge = 12
    rows, columns = np.mgrid[edge : height - edge : step, edge : width - edge : step]
    inside = together[rows, columns] > 0.35 * together.max()
    y, x = rows[inside].astype(np.float32), columns[inside].astype(np.float32)
    if len(y) == 0:
        middle = np.full(len(pairs), height / 2, np.float32), np.full(len(pairs), width / 2, np.float32)
        return _Axis(*middle, np.full(len(pairs), -1, np.float32), 0.0)
    share = np.sqrt(beats[:, rows[inside], columns[inside]] / (beats.max((1, 2))[:, None] + 1e-6))
    ring = np.stack([_ring_scores(a, y, x).max(1) + _ring_scores(b, y, x).max(1) for a, b in blurred])
    scores = ring * share
    apart = ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2).astype(np.float32)
    path = _best_path(scores, 0.01 * apart)
    elsewhere = scores - 10 * (apart[path] < 14**2)
    second = _best_path(elsewhere, 0.01 * apart)
    number = np.arange(len(pairs))
    first_mean = _path_score(scores, path, apart)
    second_mean = _path_score(elsewhere, second, apart)
    return _Axis(y[path], x[path], scores[number, path], first_mean - second_mean)


def _path_score(scores: Array, path: NDArray[np.intp], apart: Array) -> float:
    return float((scores[np.arange(len(path)), path].sum() - 0.01 * apart[path[1:], path[:-1]].sum()) / len(path))


def _best_path(scores: Array, cost: Array) -> NDArray[np.intp]:
    """The places (S,) of the highest sum of scores (S, n), less what a step between places costs (n, n)."""
    best, back = scores[0], []
    for row in scores[1:]:
        reached = best[None] - cost
        came = reached.argmax(1)
        back.append(came)
        best = reached[np.arange(len(came)), came] + row
    path = [int(best.argmax())]
    for came in back[::-1]:
        path.append(int(came[path[-1]]))
    return np.array(path[::-1])


def _pool_radii(pairs: Array, y: Array, x: Array) -> Array:
    """The radius of the larger pool of each slice (S,): the best ring scores of both frames, alike in neighbouring slices."""
    dy, dx = np.mgrid[-3:4:3, -3:4:3].astype(np.float32)
    scores = []
    for k, pair in enumerate(_smooth(pairs, 1.0)):
        a, b = (_ring_scores(frame, y[k] + dy.ravel(), x[k] + dx.ravel()).max(0) for frame in pair)
        scores.append(np.maximum(a + np.maximum.accumulate(b), b + np.maximum.accumulate(a)))
    apart = np.abs(_POOLS[:, None] - _POOLS)
    return _POOLS[_best_path(np.array(scores, np.float32), 0.035 * apart)]


def _ends_of_beat(frames: Sequence[Array], y: Array, x: Array, radius: Array) -> list[tuple[int, int]]:
    """(end-diastole, end-systole) of each slice: the moments of the largest and the smallest pool.

    Slices with equally many frames beat together, so their bright areas are added up before.
    """
    curves: dict[int, list[tuple[int, Array]]] = {}
    for k, taken in enumerate(frames):
        rows, columns = np.mgrid[: taken.shape[1], : taken.shape[2]]
        away = np.hypot(rows - y[k], columns - x[k])
        disc = _smooth(taken, 0.7)[:, away < 1.15 * radius[k] + 2]
        bright = np.percentile(disc, 90)
        dark = np.percentile(disc, 5)
        size = np.clip((disc - dark) / (bright - dark + 1e-3), 0, 1).sum(1)
        curves.setdefault(len(taken), []).append((k, size.astype(np.float32)))
    ends = [(0, 1)] * len(frames)
    for curve in curves.values():
        total = np.sum([size for _, size in curve], 0)
        for k, _ in curve:
            ends[k] = int(total.argmax()), int(total.argmin())
    return ends


# ------------------------------------------------------------------------------------------------------------ the contours


def _rays(pictures: Array, y: Array, x: Array) -> Array:
    """Pictures (S, H, W) in polar coordinates about (y, x) (S,): float32 (S, ANGLES, len(_RADII)), bilinear."""
    count, height, width = pictures.shape
    rows = np.clip(y[:, None, None] + _SIN[:, None] * _RADII, 0, height - 1.001)
    columns = np.clip(x[:, None, None] + _COS[:, None] * _RADII, 0, width - 1.001)
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    down, right = rows - top, columns - left
    k = np.arange(count)[:, None, None]
    above = pictures[k, top, left] * (1 - right) + pictures[k, top, left + 1] * right
    below = pictures[k, top + 1, left] * (1 - right) + pictures[k, top + 1, left + 1] * right
    return (above * (1 - down) + below * down).astype(np.float32)


def _closed_paths(cost: Array, turn: float = 0.15) -> NDArray[np.intp]:
    """The closed paths of least cost through (S, ANGLES, R): indices (S, ANGLES); neighbours differ by one at most.

    turn: what such a step costs. Twice around, of which the middle is taken: there both ends are the same to the path.
    """
    slices, angles, _ = cost.shape
    order = np.arange(-angles // 2, angles + angles // 2) % angles
    best, back = cost[:, order[0]].astype(np.float32), []
    for angle in order[1:]:
        inward, outward = np.full_like(best, np.inf), np.full_like(best, np.inf)
        inward[:, :-1] = best[:, 1:] + turn
        outward[:, 1:] = best[:, :-1] + turn
        came = np.where(inward < best, np.int8(1), np.int8(0))
        lowest = np.minimum(best, inward)
        came = np.where(outward < lowest, np.int8(-1), came)
        back.append(came)
        best = np.minimum(lowest, outward) + cost[:, angle]
    number = np.arange(slices)
    path = np.empty((slices, len(order)), np.intp)
    path[:, -1] = best.argmin(1)
    for step in range(len(order) - 1, 0, -1):
        path[:, step - 1] = path[:, step] + back[step - 1][number, path[:, step]]
    return path[:, angles // 2 : angles // 2 + angles]


def _ahead(values: Array, length: float) -> tuple[Array, Array]:
    """Of values along the last axis: their sum before each place, and over `length` pixels from it on."""
    before = np.cumsum(values, -1, dtype=np.float32) * _STEP
    before = np.concatenate([np.zeros_like(before[..., :1]), before[..., :-1]], -1)
    there = np.minimum(np.arange(values.shape[-1]) + int(length / _STEP), values.shape[-1] - 1)
    return before, before[..., there] - before


def _contours(pictures: Array, y: Array, x: Array, radius: Array) -> list[tuple[Contour, Contour]]:
    """The contours of (S, 2, H, W), end-diastole first."""
    blurred = _smooth(pictures, 0.7)
    diastole, systole = blurred[:, 0], blurred[:, 1]
    rays = _rays(diastole, y, x)
    bright = _within(rays, np.maximum(3, 0.6 * radius)[:, None], 65)
    dark = _wall_level(rays, radius)
    y, x, endo = _endocardium(diastole, y, x, bright, dark, 1.35 * radius + 4, rounds=3)
    rays = _rays(diastole, y, x)
    bright, dark = _within(rays, 0.8 * endo, 50), _beside(rays, endo)
    y, x, endo = _endocardium(diastole, y, x, bright, dark, 1.35 * radius + 4, rounds=2)
    endo = _hull(endo)
    wall = _wall(diastole, y, x, endo, bright)
    # Blood and wall are as bright at end-systole; its pool lies within the one of end-diastole.
    most = endo.max(1) + 2
    sy, sx, small = _endocardium(systole, y, x, bright, dark, most, rounds=3)
    dark = _beside(_rays(systole, sy, sx), small)
    sy, sx, small = _endocardium(systole, sy, sx, bright, dark, most, rounds=2)
    small = _hull(small)
    thick = _wall(systole, sy, sx, small, bright)
    return [
        (
            Contour(float(y[k]), float(x[k]), endo[k], endo[k] + wall[k]),
            Contour(float(sy[k]), float(sx[k]), small[k], small[k] + thick[k]),
        )
        for k in range(len(y))
    ]


def _within(rays: Array, reach: Array, percent: float) -> Array:
    """A percentile of the levels within `reach` (S, 1) or (S, ANGLES) of the middle: (S,)."""
    inside = np.broadcast_to(reach[:, :, None], (*rays.shape[:2], 1)) > _RADII
    levels: Array = np.array([np.percentile(one[take], percent) for one, take in zip(rays, inside, strict=True)], np.float32)
    return levels


def _wall_level(rays: Array, radius: Array) -> Array:
    """The wall's level before the pool's edge is known: the median over the directions of the darkest level beside it: (S,)."""
    beside = (radius[:, None] < _RADII) & (radius[:, None] + 7 > _RADII)
    darkest = np.where(beside[:, None], rays, np.inf).min(2)
    return np.median(darkest, 1).astype(np.float32)


def _beside(rays: Array, endo: Array) -> Array:
    """The wall's level: a low percentile of what lies 1 to 4 pixels outside of the pool's edge: (S,)."""
    ring = (endo[:, :, None] + 1 < _RADII) & (endo[:, :, None] + 4 > _RADII)
    return np.array([np.percentile(one[take], 35) for one, take in zip(rays, ring, strict=True)], np.float32)


def _endocardium(
    pictures: Array, y: Array, x: Array, bright: Array, dark: Array, most: Array, rounds: int
) -> tuple[Array, Array, Array]:
    """The pool's edge, radii (S, ANGLES), and its middle: a path with blood within and wall for 4 pixels beyond.

    most: the largest radius (S,). After every round but the last the middle moves to the pool's centroid.
    """
    for last in [False] * (rounds - 1) + [True]:
        rays = _rays(pictures, y, x)
        blood = np.clip((rays - ((bright + dark) / 2)[:, None, None]) / (bright - dark + 1e-3)[:, None, None], -0.5, 0.5)
        within, beyond = _ahead(blood, 4)
        cost = 1.2 * beyond - within
        cost[np.broadcast_to((most[:, None] < _RADII)[:, None], cost.shape)] = 1e3
        cost[..., _RADII < 1.5] += 0.5
        endo = _RADII[_closed_paths(cost)]
        if not last:
            dy, dx = _centroid(endo)
            y, x = y + dy, x + dx
    return y, x, endo


def _wall(pictures: Array, y: Array, x: Array, endo: Array, bright: Array) -> Array:
    """The wall's thickness (S, ANGLES): as far as the level stays that of muscle, and about as thick in all directions."""
    rays = _rays(_smooth(pictures, 0.7), y, x)
    thickness = np.arange(0, 24, _STEP, dtype=np.float32)
    start = np.rint(endo / _STEP).astype(np.intp)
    along = np.minimum(start[:, :, None] + np.arange(len(thickness)), len(_RADII) - 1)
    levels = np.take_along_axis(rays, along, 2)
    band = levels[:, :, int(1.5 / _STEP) : int(4 / _STEP)]
    muscle = np.median(band, (1, 2))[:, None, None].astype(np.float32)
    # Fat and the other ventricle are brighter than muscle, lung is darker.
    brighter = (levels - muscle) / (0.5 * (bright[:, None, None] - muscle) + 1e-3)
    darker = (muscle - levels) / (0.45 * muscle + 1e-3)
    other = np.clip(np.maximum(brighter, darker), 0, 1).astype(np.float32) - np.float32(0.5)
    other[..., : int(1.5 / _STEP)] = -0.5
    within, beyond = _ahead(other, 3)
    cost = within - 1.2 * beyond
    cost[..., thickness < 2] = 1e3
    cost[..., -int(3 / _STEP) :] = 1e3
    first = thickness[_closed_paths(cost)]
    usual = np.median(first, 1)[:, None, None].astype(np.float32)
    return thickness[_closed_paths(cost + np.float32(0.01) * (thickness - usual) ** 2)]


def _centroid(radii: Array) -> tuple[Array, Array]:
    """(y, x) of the centroids of contours (S, ANGLES), from their middles."""
    x, y = radii * _COS, radii * _SIN
    cross = x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y
    six = 3 * cross.sum(1) + 1e-6
    return ((y + np.roll(y, -1, 1)) * cross).sum(1) / six, ((x + np.roll(x, -1, 1)) * cross).sum(1) / six


def _hull(radii: Array) -> Array:
    """The convex hulls of contours (S, ANGLES), in the same form."""
    # The hull lies where a ray meets the chord between two points, one on each side of it, that is farthest out.
    hulls = radii.copy()
    for left in range(1, ANGLES // 2):
        before = np.roll(radii, left, 1)  # the point `left` angles back
        for right in range(1, ANGLES // 2 - left):
            after = np.roll(radii, -right, 1)
            span = np.sin(2 * np.pi * (left + right) / ANGLES)
            a, b = np.sin(2 * np.pi * left / ANGLES), np.sin(2 * np.pi * right / ANGLES)
            hulls = np.maximum(hulls, before * after * span / (before * a + after * b + 1e-6))
    return hulls.astype(np.float32)


# ------------------------------------------------------------------------------------------------------------ the measures


def _measure(slices: Sequence[Slice]) -> dict[str, float]:
    """The measures (heart_format.MEASURES) of the contours."""
    pool = np.array([[c.pool for c in one.contours] for one in slices])
    wall = np.array([one.contours[0].wall for one in slices])
    # Slices at the ends (the valve, the tip) are the least certain: sectors count where the pool is at least half the largest.
    middle = [one for one, size in zip(slices, pool[:, 0], strict=True) if size >= 0.5 * pool[:, 0].max()]
    radius = np.array([np.sqrt(one.contours[0].pool / np.pi) for one in middle])
    thick = np.array([_sectors(one.contours[0].epi - one.contours[0].endo) for one in middle])
    thick_systole = np.array([_sectors(one.contours[1].epi - one.contours[1].endo) for one in middle])
    shorter = np.array([1 - _sectors(one.contours[1].endo) / _sectors(one.contours[0].endo) for one in middle])
    change = np.sort(1 - pool[:, 1] / np.maximum(pool[:, 0], 1e-6))
    return {
        "ejection_fraction": float(1 - pool[:, 1].sum() / pool[:, 0].sum()),
        "worst_slice": float(change[min(1, len(change) - 1)]),
        "end_systole": float(pool[:, 1].sum() / (pool[:, 0] + wall).sum()),
        "wall_to_pool": float(wall.sum() / pool[:, 0].sum()),
        "wall_to_radius": float((thick.mean(1) / radius).mean()),
        "thickest": float(np.median(thick.max(1) / radius)),
        "thickening": float(thick_systole.mean() / thick.mean() - 1),
        "shortening": float(shorter.mean()),
        "worst_sector": float(np.quantile(shorter, 0.1)),
    }


def _sectors(radii: Array) -> Array:
    """The means of eight sectors of a contour's (ANGLES,) values."""
    return radii.reshape(8, -1).mean(1)
