"""How alike two pictures are once one is laid on the other: copies that were cropped, moved, turned, mirrored or inverted.

1. `normalise` makes a picture in which brightness does not matter: ranks of the grey levels, without their slow changes, of one
   local contrast. An inverted picture is the same with the other sign, and signs are not looked at.
2. `signatures` are short vectors that do not change where the content is moved: magnitudes of Fourier transforms. A picture's
   views, zoomed in, turned and mirrored, have such vectors too: the view that shows what a copy shows is its neighbour.
3. `similarity_aligned` takes the shift of a view from a cross-correlation and refines an affine map on what both pictures show,
   by enhanced correlation coefficients (Evangelidis and Psarakis 2008, IEEE PAMI 30:1858). What is left is compared block by
   block, and a quarter of the content may differ: a printed label is no other picture.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Array = NDArray[np.float32]
# An affine map, (2, 3): (y, x) of the moving picture from (y, x, 1) of the still one, both counted from the centres.
Affine = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """Sizes in pixels at which pictures of a kind are compared.

    side: of the pictures given. smooth: what the finest differences are blurred by. slow: of changes that are left out. coarse:
    side of the reduced picture that signatures are taken from, shifted: of the one that shifts are. levels: sides at which the
    map is refined, in turn.
    """

    side: int
    smooth: float
    slow: float
    coarse: int
    shifted: int
    levels: tuple[int, ...]


# Sheets share all but the course of thin lines.
PICTURES = Scale(64, 0.0, 3.0, 32, 32, (64,))
SHEETS = Scale(256, 1.0, 6.0, 64, 32, (32, 64, 128, 256))

# Views: of a pair either end may be the one that is zoomed in, or turned the other way.
_VIEWS = tuple(
    (across, zoom, degrees)
    for across in (1, -1)
    for zoom in (1.0, 1.1, 1.2, 1.3)
    for degrees in ((0.0, 5.0) if zoom == 1 else (-5.0, 0.0, 5.0))
)
VIEWS = len(_VIEWS)
# The share of a signature's frequencies that is kept.
_KEPT = 0.375
# How far a view is moved at most, as a share of the side; the correlation from which it is worth refining.
_MOVED, _HOPE = 0.19, 0.3
_STEPS = 12
# What an alignment reaches, at the latest after its first and its last but one level, if it is one of copies.
_FIRST, _LATER = 0.25, 0.6
# The least share of the frame that both pictures show, and the blocks along a side.
_SHOWN, _BLOCKS = 0.4, 8


def trim(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (H, W) without the flat rows and columns around it: padding, however wide, is none of its content."""
    levels = grey.astype(np.int16)
    rows, columns = (np.flatnonzero(np.ptp(levels, axis=axis) > 24) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return grey
    return grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def normalise(picture: NDArray[np.uint8], scale: Scale) -> Array:
    """uint8 (side, side) -> float32, about -1 to 1: what any rising change of brightness leaves as it is."""
    from scipy.ndimage import gaussian_filter

    counts = np.bincount(picture.ravel(), minlength=256)
    ranks = ((np.cumsum(counts) - counts / 2) / picture.size).astype(np.float32)[picture]
    if scale.smooth:
        ranks = gaussian_filter(ranks, scale.smooth)
    edges = ranks - gaussian_filter(ranks, scale.slow, mode="nearest")
    energy = gaussian_filter(edges * edges, scale.slow * 4 / 3, mode="nearest")
    # Half of the picture's own contrast is added: noise in what is empty is not made as strong as edges.
    return np.asarray(edges / np.sqrt(energy + np.mean(edges * edges) / 4 + 1e-12), dtype=np.float32)


def signatures(pictures: NDArray[np.floating[Any]], scale: Scale) -> Array:
    """(n, side, side), normalised -> float32 (n, D)."""
    return _spectra(np.stack([_reduced(picture, scale.coarse) for picture in pictures]))


def signatures_of_views(picture: NDArray[np.floating[Any]], scale: Scale) -> Array:
    """(side, side), normalised -> float32 (VIEWS, D): of the picture zoomed in, turned and mirrored, the first one as it is."""
    small = _reduced(picture, scale.coarse)
    return _spectra(np.stack([_view(small, view) for view in range(VIEWS)]))


def similarity_aligned(
    moving: NDArray[np.floating[Any]], still: NDArray[np.floating[Any]], views: Sequence[int], scale: Scale
) -> float:
    """How alike two normalised pictures are where both show the same, 0 to 1; 0 if they cannot be laid on each other.

    views: those of `moving` that `still` may be, the likeliest first.
    """
    found, start = _first_map(moving, still, views, scale)
    if found < _HOPE:
        return 0.0
    affine = start
    for number, side in enumerate(scale.levels):
        a, b = _reduced(still, side), _reduced(moving, side)
        if side < scale.side:
            a, b = _blurred(a), _blurred(b)
        # Where a map was found before, little is left to do.
        steps = _STEPS if not number else 6 if side < scale.side else 3
        reached, affine = _refine(a, b, _resized(affine, side / scale.side), steps)
        affine = _resized(affine, scale.side / side)
        if reached < (_FIRST if not number else _LATER):
            return 0.0
    return _compare_blocks(a, b, _resized(affine, scale.levels[-1] / scale.side))


def _reduced(picture: NDArray[np.floating[Any]], side: int) -> Array:
    times = len(picture) // side
    small = picture.astype(np.float32)
    return small.reshape(side, times, side, times).mean(axis=(1, 3)) if times > 1 else small


def _blurred(picture: Array) -> Array:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(picture, 1.0))


def _resized(affine: Affine, factor: float) -> Affine:
    return np.column_stack([affine[:, :2], affine[:, 2] * factor])


def _matrix(view: int) -> NDArray[np.float64]:
    across, zoom, degrees = _VIEWS[view]
    cosine, sine = np.cos(np.radians(degrees)) / zoom, np.sin(np.radians(degrees)) / zoom
    return np.array([[cosine, -sine * across], [sine, cosine * across]])


@functools.cache
def _warp(side: int, view: int) -> csr_matrix:
    """A view of a picture of side^2 pixels as a sparse matrix, bilinear."""
    from scipy.sparse import csr_matrix

    grid = np.indices((side, side)).reshape(2, -1) - (side - 1) / 2
    places = np.clip(_matrix(view) @ grid + (side - 1) / 2, 0, side - 1)
    low = np.minimum(places.astype(int), side - 2)
    down, right = places - low
    first = low[0] * side + low[1]
    columns = np.concatenate([first, first + 1, first + side, first + side + 1])
    weights = np.concatenate([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
    rows = np.tile(np.arange(side * side), 4)
    return csr_matrix((weights.astype(np.float32), (rows, columns)), shape=(side * side, side * side))


def _view(picture: Array, view: int) -> Array:
    return np.asarray((_warp(len(picture), view) @ picture.ravel()).reshape(picture.shape), dtype=np.float32)


def _spectra(pictures: Array) -> Array:
    """(n, S, S) -> (n, D): roots of the low frequencies' magnitudes, of one length a picture before the root."""
    side = pictures.shape[-1]
    window = np.hanning(side + 2)[1:-1]
    shown = pictures * np.sqrt(np.outer(window, window)).astype(np.float32)
    magnitude = np.abs(np.fft.rfft2(shown - shown.mean(axis=(1, 2), keepdims=True)))
    kept = int(_KEPT * side)
    low = np.concatenate([magnitude[:, :kept, :kept], magnitude[:, -kept + 1 :, :kept]], axis=1).reshape(len(pictures), -1)
    length = np.linalg.norm(low, axis=1, keepdims=True)
    return np.asarray(np.sqrt(low / np.maximum(length, 1e-9)), dtype=np.float32)


def _first_map(
    moving: NDArray[np.floating[Any]], still: NDArray[np.floating[Any]], views: Sequence[int], scale: Scale
) -> tuple[float, Affine]:
    """The view and the shift of the largest correlation, and that correlation."""
    side = scale.shifted
    own, other = _reduced(moving, scale.coarse), _reduced(still, scale.coarse)
    shown = [_view(own, view) for view in views]
    if side < scale.coarse:
        shown, other = [_reduced(_blurred(one), side) for one in shown], _reduced(_blurred(other), side)
    stack = np.stack(shown)
    stack, other = stack - stack.mean(axis=(1, 2), keepdims=True), other - other.mean()
    length = np.sqrt(np.square(stack).sum(axis=(1, 2), keepdims=True) * np.square(other).sum()) + 1e-9
    surface = np.fft.irfft2(np.fft.rfft2(other) * np.conj(np.fft.rfft2(stack)), other.shape) / length
    reach = round(_MOVED * side)
    near = np.abs(np.roll(surface, (reach, reach), (1, 2))[:, : 2 * reach + 1, : 2 * reach + 1])
    best, down, right = np.unravel_index(int(near.argmax()), near.shape)
    matrix = _matrix(views[int(best)])
    shift = -matrix @ np.array([down - reach, right - reach]) * scale.side / side
    return float(near.max()), np.column_stack([matrix, shift])


@functools.cache
def _line(side: int) -> Array:
    """Coordinates of a side's pixels from its middle, to the powers 0, 1 and 2: (3, side)."""
    line = np.arange(side) - (side - 1) / 2
    return np.stack([np.ones(side), line, line * line]).astype(np.float32)


def _shown(affine: Affine, side: int, margin: int) -> NDArray[np.bool_]:
    """(side, side): which pixels of the still picture the moving one shows, its outermost `margin` left out."""
    line, reach = _line(side)[1], np.float32((side - 1) / 2 - margin)
    by_row, by_column, shift = affine.astype(np.float32).T[:, :, None]
    down, across = ((by_row[k] * line)[:, None] + (by_column[k] * line + shift[k])[None] for k in (0, 1))
    return np.asarray((np.abs(down) < reach) & (np.abs(across) < reach))


def _plane(picture: NDArray[np.floating[Any]]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture, dtype=np.float32))


def _look_up(planes: Sequence[Image.Image], affine: Affine, side: int) -> Array:
    """Planes of side^2 pixels where the map shows their places, bilinear: (K, side, side); 0 outside of them."""
    (down, down_across, down_shift), (across_down, across, shift) = affine.tolist()
    # Pillow counts pixels along x first, from the corner, to their middles.
    middle = side / 2
    data = (
        across, across_down, shift + middle - (across + across_down) * middle,
        down_across, down, down_shift + middle - (down_across + down) * middle,
    )  # fmt: skip
    way = Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    return np.stack([np.asarray(plane.transform((side, side), *way)) for plane in planes])


# The map's six numbers are slopes (down, across) times (y, x, 1): the powers of y and of x of the latter.
_POWERS = ((1, 0), (0, 1), (0, 0))


def _moments(plane: Array) -> NDArray[np.float64]:
    """(3, 3): sums over a plane (side, side) times powers of y and of x."""
    line = _line(len(plane))
    return np.asarray((line @ plane).astype(np.float64) @ line.T.astype(np.float64))


def _refine(still: Array, moving: Array, affine: Affine, steps: int) -> tuple[float, Affine]:
    """The correlation of |still| and the moved picture where both are shown, and the map that reached it."""
    side = len(still)
    plane, *slope_planes = (_plane(plane) for plane in (moving, *np.gradient(moving)))
    best: tuple[float, Affine] = 0.0, affine
    for step in range(steps):
        shown = _shown(affine, side, 1).astype(np.float32)
        count = int(shown.sum())
        if count < _SHOWN * side**2:
            break
        a, b = still * shown, _look_up([plane], affine, side)[0] * shown
        a, b = a - shown * np.float32(a.sum() / count), b - shown * np.float32(b.sum() / count)
        length, product, squared = float(np.sqrt(np.vdot(a, a))), float(np.vdot(a, b)), float(np.vdot(b, b))
        found = abs(product) / (length * np.sqrt(squared) + 1e-9)
        gained, best = found - best[0], (found, affine) if found > best[0] else best
        if gained < 1e-3 or step == steps - 1:
            break
        sign = np.sign(product)
        slopes = _look_up(slope_planes, affine, side) * shown
        # Sums of products of two of the six are moments of the products of two slopes; no plane is made for each of the six.
        square = {(i, j): _moments(slopes[i] * slopes[j]) for i, j in ((0, 0), (0, 1), (1, 1))}
        mean, of_a, of_b = (
            np.array([moments[power] for moments in map(_moments, given) for power in _POWERS])
            for given in (slopes, slopes * a, slopes * b)
        )
        hessian = np.block(
            [
                [
                    np.array([[square[min(i, j), max(i, j)][p + r, q + t] for r, t in _POWERS] for p, q in _POWERS])
                    for j in (0, 1)
                ]
                for i in (0, 1)
            ]
        ) - np.outer(mean, mean / count)
        hessian[np.diag_indices(6)] += 1e-6 * np.trace(hessian) + 1e-12
        by_b, by_a = np.linalg.solve(hessian, np.stack([of_b, sign * of_a], axis=1)).T
        toward = float(sign * product - sign * of_a @ by_b)
        weight = (squared - of_b @ by_b) / toward if toward > 0 else np.sqrt(squared) / (length + 1e-9)
        affine = affine + (weight * by_a - by_b).reshape(2, 3)
    return best


def _compare_blocks(still: Array, moving: Array, affine: Affine) -> float:
    """The correlation that blocks with three quarters of the shown content reach, 0 to 1."""
    side = len(still)
    width, margin = side // _BLOCKS, max(2, side // 32)
    shown = _shown(affine, side, margin)
    shown[: margin + 1], shown[-margin - 1 :], shown[:, : margin + 1], shown[:, -margin - 1 :] = False, False, False, False
    moved = np.where(shown, _look_up([_plane(moving)], affine, side)[0], 0)

    def cut(values: NDArray[Any]) -> NDArray[np.float64]:
        blocks = values.reshape(_BLOCKS, width, _BLOCKS, width).transpose(0, 2, 1, 3)
        return blocks.reshape(_BLOCKS**2, width**2).astype(np.float64)

    mask, a, b = cut(shown), cut(np.where(shown, still, 0)), cut(moved)
    kept = mask.mean(axis=1) >= 0.6
    if kept.mean() < 0.75 * _SHOWN:
        return 0.0
    mask, a, b = mask[kept], a[kept], b[kept]
    count = mask.sum(axis=1, keepdims=True)
    a, b = ((one - one.sum(axis=1, keepdims=True) / count) * mask for one in (a, b))
    content = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    if content.sum() < 1e-6:
        return 0.0
    alike = (a * b).sum(axis=1)
    alike = np.sign(alike.sum()) * alike / np.maximum(content, 1e-9)
    order = np.argsort(alike)
    reached = np.cumsum(content[order]) / content.sum()
    return max(0.0, float(alike[order][np.searchsorted(reached, 0.25)]))
