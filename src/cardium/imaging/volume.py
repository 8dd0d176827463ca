"""NIfTI bytes -> a volume in one orientation -> the frames (slices) that a model takes.

Reads `.nii` and `.nii.gz` (recognised by content), NIfTI-1 and -2, in either byte order. The header is checked before a voxel
is inflated: a small file with a large stated size is refused, and so is one that inflates beyond its stated size. Voxels are
converted block by block as they come, so a volume is in memory once: 2 bytes a voxel if its values are whole numbers that fit
into int16, as a CT's are, otherwise 4.

In every rendered frame real voxels have levels 1-255. Only the frames that fill up a short volume are 0, so that a model
recognises them by their maximum.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.errors import CardiumError, unknown
from cardium.imaging.decode import Undecodable
from cardium.imaging.kinds import BLANK_STD, Rendered

if TYPE_CHECKING:
    from cardium.imaging.spec import Render, Sides

ORDERS = ["canonical", "stored"]

_GZIP = b"\x1f\x8b"
# sizeof_hdr -> (magic of a file that holds its voxels itself, magic of a header beside an .img).
_MAGICS = {348: (b"n+1\0", b"ni1\0"), 540: (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")}
# Compressed bytes that are fed, and inflated ones that come back, at once.
_FED, _PIECE = 1 << 18, 1 << 20
# Members of a gzip file: a gigabyte in bgzip's blocks has fewer. Empty ones by the million would cost hours.
_MOST_MEMBERS = 20_000
# Voxels that are converted at once.
_BLOCK = 1 << 19
# mm. Micro-CT of tissue samples begins below the first; slices of a body scan, gaps included, stay far below the second. What
# lies outside is a header that counts in metres, or was never filled in.
_LEAST_SIZE, _MOST_SIZE = 0.05, 20.0
# NIfTI's unit codes that are not mm (2) or unsaid (0): metres and micrometres.
_TO_MM = {1: 1000.0, 3: 0.001}
# Share of the box of its edges that a voxel fills at least: a tilted gantry shears it a little; of three edges in one plane it
# fills nothing.
_LEAST_FILL = 0.05
# A CT of a chest shows lung and the air around the body: some voxels are below this, in Hounsfield units.
_AIR, _LEAST_AIR = -300.0, 0.001
# Fewer slices than this do not follow a heart through a chest, nor fewer moments a heartbeat.
_FEW = 10
# Voxels that percentiles are taken from.
_SAMPLED = 4_000_000
# Level of the padding beside the volume within a frame: as dark as air.
_DARK = 1


@dataclass(frozen=True)
class Volume:
    """A volume, or one slice of it over time.

    voxels: int16 or float32 (slices, rows, columns) in the file's own scaled units, a view. `canonical`: slices from inferior
    to superior, rows from anterior to posterior, columns from the patient's right to the left, as a radiologist is shown them.
    `stored`: slices [:, :, i] of the file, rows along its first axis. spacing: mm between neighbours along these three axes.
    stored: the file's own data type, such as `int16`. sequence: axis 0 is time (a 4-D file's; the middle slice of the third
    axis), and the first spacing is the file's own fourth one, in its units.
    """

    voxels: NDArray[Any]
    spacing: tuple[float, float, float]
    stored: str
    sequence: bool


def read_volume(data: bytes, max_voxels: int, max_bytes: int, order: str = "canonical", sides: Sides | None = None) -> Volume:
    """Reads the volume in the bytes of a NIfTI file; see `Volume` for `order`.

    max_voxels: of all moments of a 4-D file together. max_bytes: of the file, and of what it inflates to. sides: of the slices
    once they are turned; None: any.
    Raises Undecodable (`kind` or `kind: details`) for anything but such a volume: empty, another format, a header
    without voxels, truncated, damaged, a gzip bomb, too large, 2-D, 5-D, colour or complex voxels, NaN or infinite values, one
    value everywhere, no usable affine, absurd voxel sizes. Raises CardiumError for an unknown `order`.
    """
    if order not in ORDERS:
        raise unknown("order of voxels", order, ORDERS)
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    if not data:
        raise Undecodable("empty file")
    if len(data) > max_bytes:
        raise Undecodable(f"too many bytes: {len(data)}, limit {max_bytes}")
    content = _Content(_inflated(data, max_bytes) if data.startswith(_GZIP) else _pieces(data))
    header, length = _read_header(content)
    shape, moments = _shape(header, max_voxels)
    dtype = _dtype(header)
    slope, intercept = _scaling(header)
    affine = _affine(header)
    spacing = _voxel_sizes(affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(("L", "P", "S")))
    if sides is not None:
        width, height, depth = (shape[int(np.flatnonzero(turn[:, 0] == axis)[0])] for axis in range(3))
        if fault := sides.fault(width, height, depth):
            raise Undecodable(fault)
    offset = _offset(header, length)
    count = math.prod(shape) * moments
    if offset + count * dtype.itemsize > max_bytes:
        raise Undecodable(f"too many bytes: {offset + count * dtype.itemsize} inflated, limit {max_bytes}")
    content.skip(offset - length)
    values = _read_values(content, dtype, count, slope, intercept)
    content.drain()  # To the checksum at a gzip file's end.

    voxels = values.reshape((*shape, moments), order="F")
    if order == "canonical":
        voxels = apply_orientation(voxels, turn).transpose(3, 2, 1, 0)
        sizes = [0.0, 0.0, 0.0]
        for axis, (goes_to, _) in enumerate(turn):
            sizes[2 - int(goes_to)] = spacing[axis]
    else:
        voxels = voxels.transpose(3, 2, 0, 1)
        sizes = [spacing[2], spacing[0], spacing[1]]
    if moments == 1:
        return Volume(voxels[0], (sizes[0], sizes[1], sizes[2]), dtype.name, False)
    # A copy: the view would keep all slices in memory.
    middle = np.ascontiguousarray(voxels[:, voxels.shape[1] // 2])
    pause = float(header["pixdim"][4])
    return Volume(middle, (pause if math.isfinite(pause) and pause > 0 else 1.0, sizes[1], sizes[2]), dtype.name, True)


class _Content:
    """The bytes of an iterator of pieces, in order, a bounded number at a time."""

    def __init__(self, pieces: Iterator[bytes | memoryview]):
        self._pieces = pieces
        self._waiting = bytearray()

    def take(self, count: int) -> bytes:
        """The next `count` bytes; fewer where the content ends before."""
        while len(self._waiting) < count and (piece := next(self._pieces, None)) is not None:
            self._waiting += piece
        taken = bytes(self._waiting[:count])
        del self._waiting[:count]
        return taken

    def skip(self, count: int) -> None:
        while count > 0 and (taken := len(self.take(min(count, _PIECE)))):
            count -= taken

    def drain(self) -> None:
        for _ in self._pieces:
            pass


def _pieces(data: bytes) -> Iterator[bytes | memoryview]:
    view = memoryview(data)
    return (view[start : start + _PIECE] for start in range(0, len(data), _PIECE))


def _inflated(data: bytes, max_bytes: int) -> Iterator[bytes | memoryview]:
    """The content of a gzip file of one or several members, in pieces; never more than a piece is inflated ahead."""
    total, place, members = 0, 0, 0
    view = memoryview(data)
    while view[place : place + 2] == _GZIP:  # Whatever else follows a member is filling, as for gzip itself.
        members += 1
        if members > _MOST_MEMBERS:
            raise Undecodable(f"damaged gzip file: more than {_MOST_MEMBERS} members")
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            fed: bytes | memoryview = view[place : place + _FED]
            if not fed:
                raise Undecodable("truncated gzip file")
            place += len(fed)
            while fed and not member.eof:
                try:
                    piece = member.decompress(fed, _PIECE)
                except zlib.error:
                    raise Undecodable("damaged gzip file") from None
                total += len(piece)
                if total > max_bytes:
                    raise Undecodable(f"too many bytes: it inflates to more than the limit {max_bytes}")
                yield piece
                fed = member.unconsumed_tail
            place -= len(member.unused_data)


def _read_header(content: _Content) -> tuple[Any, int]:
    """(nibabel's header, its length in bytes)."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    block = content.take(348)
    if not block:
        raise Undecodable("empty file")
    size = next((n for n in _MAGICS if block[:4] in (n.to_bytes(4, "little"), n.to_bytes(4, "big"))), 0)
    if not size:
        raise Undecodable("not a NIfTI file")
    endian = "<" if block[:4] == size.to_bytes(4, "little") else ">"
    block += content.take(size - 348)
    if len(block) < size:
        raise Undecodable("truncated NIfTI file")
    single, pair = _MAGICS[size]
    magic = block[344:348] if size == 348 else block[4:12]
    if magic == pair:
        raise Undecodable("a NIfTI header without its voxels: an .hdr beside an .img")
    if magic != single:
        raise Undecodable("not a NIfTI file")
    kind = Nifti1Header if size == 348 else Nifti2Header
    header = kind(block, endian, check=False)
    _mend(header)
    return header, size


def _mend(header: Any) -> None:
    """Mends what nibabel reads all the same: a qfac that is neither 1 nor -1 is 1, sizes have no sign."""
    pixdim = header["pixdim"]
    if pixdim[0] not in (-1, 1):
        pixdim[0] = 1
    pixdim[1:4] = np.abs(pixdim[1:4])
    header["pixdim"] = pixdim


def _shape(header: Any, max_voxels: int) -> tuple[tuple[int, int, int], int]:
    """(the three sides, the moments in time: 1 for a volume)."""
    dimensions = [int(side) for side in header["dim"]]
    if not 1 <= dimensions[0] <= 7:
        raise Undecodable("damaged NIfTI header: no number of dimensions")
    sides = dimensions[1 : dimensions[0] + 1]
    if min(sides) < 1:
        raise Undecodable("volume without voxels")
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    shown = " x ".join(map(str, sides))
    if len(sides) > 4:
        raise Undecodable(f"{len(sides)}-D, neither a volume nor one over time: {shown}")
    if len(sides) < 3 or (len(sides) == 3 and sides[2] == 1):
        raise Undecodable(f"2-D, not a volume: {shown}")
    if min(sides[:2]) == 1:
        raise Undecodable(f"a line or a column of voxels, not a volume: {shown}")
    if math.prod(sides) > max_voxels:
        raise Undecodable(f"too many voxels: {shown}, limit {max_voxels}")
    return (sides[0], sides[1], sides[2]), sides[3] if len(sides) == 4 else 1


def _dtype(header: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except Exception:  # nibabel's own for a code that NIfTI has not
        raise Undecodable(f"unknown data type: code {int(header['datatype'])}") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        name = {"V": "colour", "c": "complex"}.get(dtype.kind, dtype.name)
        raise Undecodable(f"voxels that are no grey levels: {name}")
    return dtype


def _scaling(header: Any) -> tuple[float, float]:
    """(slope, intercept) of the file's values; (1, 0) where it has none: NIfTI's slope 0, or no number."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    if not math.isfinite(intercept):
        raise Undecodable("damaged NIfTI header: scl_inter is no number")
    return slope, intercept


def _affine(header: Any) -> NDArray[np.float64]:
    """Indices -> mm, (4, 4): the sform where it is usable, otherwise the qform."""
    with np.errstate(all="ignore"):
        affine = _usable_affine(header)
    if affine is None:
        raise Undecodable("no usable affine: neither sform nor qform says where right, front and top are")
    return affine


def _usable_affine(header: Any) -> NDArray[np.float64] | None:
    for code, read in (("sform_code", header.get_sform), ("qform_code", header.get_qform)):
        if int(header[code]) <= 0:
            continue
        try:
            affine = np.asarray(read(), dtype=np.float64)
        except Exception:  # nibabel's own for quaternions that are none
            continue
        affine[:3] *= _TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)
        if not np.isfinite(affine).all():
            continue
        edges = np.linalg.norm(affine[:3, :3], axis=0)
        if edges.min() > 0 and abs(np.linalg.det(affine[:3, :3] / edges)) >= _LEAST_FILL:
            return affine
    return None


def _voxel_sizes(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    sizes = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    if not all(_LEAST_SIZE <= size <= _MOST_SIZE for size in sizes):
        shown = " x ".join(f"{size:g}" for size in sizes)
        raise Undecodable(f"absurd voxel size: {shown} mm, from {_LEAST_SIZE:g} to {_MOST_SIZE:g} are possible")
    return sizes[0], sizes[1], sizes[2]


def _offset(header: Any, length: int) -> int:
    """The offset of the voxels, in bytes; 0, never filled in, stands for the first place behind the header."""
    offset = float(header["vox_offset"]) or float(header.single_vox_offset)
    if not (math.isfinite(offset) and offset == int(offset) and offset >= length):
        raise Undecodable("damaged NIfTI header: vox_offset")
    return int(offset)


def _read_values(content: _Content, dtype: np.dtype[Any], count: int, slope: float, intercept: float) -> NDArray[Any]:
    """The next `count` values, scaled: int16, or float32 from the first block on that int16 cannot hold. (count,)"""
    whole = dtype.kind in "iu" and all(abs(part) <= 2**16 and part == int(part) for part in (slope, intercept))
    first = content.take(min(count, _BLOCK) * dtype.itemsize)
    if len(first) < min(count, _BLOCK) * dtype.itemsize:  # Before `count` values are given room.
        raise Undecodable(f"truncated NIfTI file: voxels end before {count} of them")
    values: NDArray[Any] = np.empty(count, np.int16 if whole else np.float32)
    least, most = math.inf, -math.inf
    for start in range(0, count, _BLOCK):
        stop = min(count, start + _BLOCK)
        data = content.take((stop - start) * dtype.itemsize) if start else first
        if len(data) < (stop - start) * dtype.itemsize:
            raise Undecodable(f"truncated NIfTI file: voxels end before {count} of them")
        block = np.frombuffer(data, dtype)
        if dtype.kind == "f" and not np.isfinite(block).all():
            raise Undecodable("NaN or infinite values")
        low, high = (float(end) if dtype.kind == "f" else int(end) for end in (block.min(), block.max()))
        ends = [end * (int(slope) if whole else slope) + (int(intercept) if whole else intercept) for end in (low, high)]
        least, most = min(least, *ends), max(most, *ends)
        if values.dtype == np.int16 and not -(2**15) <= min(ends) <= max(ends) < 2**15:
            values = values.astype(np.float32)
        if values.dtype == np.int16:
            values[start:stop] = block.astype(np.int64) * int(slope) + int(intercept)
        elif max(map(abs, ends)) > float(np.finfo(np.float32).max):
            raise Undecodable("NaN or infinite values")
        else:
            values[start:stop] = block.astype(np.float64) * slope + intercept
    if least == most:
        raise Undecodable(f"constant: every voxel is {least:g}")
    return values


def render_volume(volume: Volume, size: Render, blank_std: float = BLANK_STD) -> Rendered:
    """Renders a volume to uint8 (frames, height, width), with warnings in plain words. size: see imaging.spec.Render.

    levels: `window` and `percentile` map the two ends to 1 and 255; `range` maps the volume's own extremes to 0 and 255, as
    system 002's original does, and then raises 0 to 1 (see the module's docstring).
    order: `canonical` keeps a slice's physical aspect and fills up beside it with the level of air; `stored` stretches it. The
    volume must have been read in the same order.
    sampling: `even` takes slices at the middles of `frames` equal stretches, `first` the first ones. Of fewer slices all are
    taken, and frames of zeros follow.
    Pillow widens the filter when it shrinks, in fixed-point arithmetic: the same bytes on every machine.
    Raises CardiumError for settings that make no frames.
    """
    _check_settings(size)
    taken = sample_slices(volume.voxels.shape[0], size.frames, size.sampling)
    low, high = _ends(volume, taken, size)
    out = np.zeros((size.frames, size.height, size.width), np.uint8)
    air = 0
    for place, number in enumerate(taken):
        frame = volume.voxels[number]
        air += int(np.count_nonzero(frame < _AIR))
        levels = _to_levels(frame, low, high, size.levels)
        out[place] = _fit(levels, volume.spacing[1:], size)
    real = out[: len(taken)]
    warnings = []
    if float(real.std()) < blank_std:
        warnings.append("the volume is blank")
    if size.levels == "window" and air < _LEAST_AIR * len(taken) * volume.voxels[0].size:
        warnings.append("values are not Hounsfield units")
    if len(volume.voxels) < _FEW:
        warnings.append("very few slices")
    return Rendered(out, tuple(warnings))


def sample_slices(there: int, frames: int, sampling: str) -> list[int]:
    """The numbers of the slices that become frames, ascending: at most `frames` of 0..there-1."""
    if sampling == "first" or there <= frames:
        return list(range(min(there, frames)))
    return [(2 * place + 1) * there // (2 * frames) for place in range(frames)]


def _check_settings(size: Render) -> None:
    if size.frames < 1:
        raise CardiumError("params.yaml: a rendering of volumes needs `frames`, 1 or more.")
    if size.levels == "range":
        return
    if len(size.window) != 2 or not size.window[0] < size.window[1]:
        raise CardiumError(f"params.yaml: `window` of a rendering of volumes is two ascending numbers, not {size.window}.")
    if size.levels == "percentile" and not 0 <= size.window[0] < size.window[1] <= 100:
        raise CardiumError(f"params.yaml: percentiles lie between 0 and 100, `window` is {size.window}.")


def _ends(volume: Volume, taken: list[int], size: Render) -> tuple[float, float]:
    """The values that become the darkest and the brightest level, in the volume's units."""
    voxels = volume.voxels
    if size.levels == "window":
        return size.window[0], size.window[1]
    if size.levels == "percentile":
        # Of evenly spread voxels of the slices that are shown: exact for all but very large volumes.
        step = math.ceil(math.sqrt(max(1.0, len(taken) * voxels[0].size / _SAMPLED)))
        low, high = np.percentile(np.stack([voxels[number, ::step, ::step] for number in taken]), size.window)
        if high > low:
            return float(low), float(high)
    return float(voxels.min()), float(voxels.max())


def _to_levels(frame: NDArray[Any], low: float, high: float, levels: str) -> NDArray[np.uint8]:
    """(rows, columns) of any number type -> uint8, 1-255."""
    # One value everywhere, as a single slice of a 4-D file may be, is dark.
    share = np.clip((frame.astype(np.float64) - low) / ((high - low) or 1.0), 0.0, 1.0)
    if levels == "range":
        return np.maximum(np.rint(255.0 * share), 1).astype(np.uint8)
    return np.rint(1.0 + 254.0 * share).astype(np.uint8)


def _fit(levels: NDArray[np.uint8], spacing: tuple[float, ...], size: Render) -> NDArray[np.uint8]:
    """uint8 (rows, columns) -> uint8 (height, width)."""
    rows, columns = size.height, size.width
    if size.order == "canonical":
        tall, wide = levels.shape[0] * spacing[0], levels.shape[1] * spacing[1]
        scale = min(size.height / tall, size.width / wide)
        rows, columns = (min(side, max(1, round(mm * scale))) for side, mm in ((rows, tall), (columns, wide)))
    if levels.shape != (rows, columns):
        levels = np.asarray(Image.fromarray(levels).resize((columns, rows), Image.Resampling.BILINEAR))
    frame = np.full((size.height, size.width), _DARK, np.uint8)
    top, left = (size.height - rows) // 2, (size.width - columns) // 2
    frame[top : top + rows, left : left + columns] = np.maximum(levels, 1)
    return frame
