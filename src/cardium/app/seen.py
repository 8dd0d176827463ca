"""A file's bytes -> what a champion takes and what the page shows of it; run in the processes of serving's RenderPool.

The picture that is shown holds nothing that is printed beside the leads of an ECG sheet: name, number, date and the machine's
own diagnosis stand there. Where the leads are not known for sure, so that nothing can be cut off, it is shown too small to be
read.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cardium.app.measured import Measured, measured_of
from cardium.config import Serve
from cardium.data.studies import is_archive, render_archive
from cardium.imaging.decode import Undecodable, decode
from cardium.imaging.heart_format import drawn, was_found
from cardium.imaging.kinds import Rendered, of_patients, of_sheets, of_volumes
from cardium.imaging.render import render, render_sheet
from cardium.imaging.spec import Render, Sides

if TYPE_CHECKING:
    from cardium.imaging.sheet import Sheet

Pixels = NDArray[np.uint8]

# What a picture shows, of which the page says what is drawn in it.
Shows = Literal["sheet", "small", "heart", "slices", "image"]
Sort = Literal["archive", "volume", "picture"]

# Pixels: the longest side of a sheet that is shown; of a picture that may bear a name, so that 3 mm high print is a pixel
# high; the shorter side of an image, which is enlarged from what the model takes.
_LARGEST, _UNREADABLE, _IMAGE = 1600, 120, 320
# Of a volume's slices so many are shown, in so many columns, of this side.
_SLICES, _COLUMNS, _SIDE = 18, 6, 160
_QUALITY = 82

# Grey level below which three quarters of a picture of no paper lie.
_DARK = 110

NO_SHEET = "no ECG sheet was recognised in this picture: if it is one, choose its dataset by hand"
ALONE = "no ECG sheet was recognised in this picture (if it is one, choose its dataset by hand), and one image shows no beat"
NO_READER = "no champion reads files of this kind"
_HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1")
TIFF = (b"II*\0", b"MM\0*")
PDF = "a PDF is not read: save its page as PNG or JPEG"
HEIC = "a HEIC photograph is not read: save it as JPEG"


@dataclass(frozen=True)
class Reads:
    """What a dataset's champion reads: a rendering of this kind and size, of files within these limits."""

    dataset: str
    kind: str
    size: Render
    limits: Serve
    sides: Sides

    @property
    def sort(self) -> Sort:
        """The sort of file that it is asked with first."""
        return "volume" if of_volumes(self.kind) else "archive" if of_patients(self.kind) else "picture"

    @property
    def takes(self) -> Literal["sheet", "study", "volume", "image"]:
        """What it takes, for the catalogue of words."""
        if self.sort == "picture":
            return "sheet" if self.of_sheets else "image"
        return "volume" if self.sort == "volume" else "study"

    @property
    def of_sheets(self) -> bool:
        """Whether it reads ECG sheets."""
        return of_sheets(self.kind, self.size.area)


@dataclass(frozen=True)
class Seen:
    """A file as it was read. dataset: whose champion takes it. rendered: None for one picture of a study that is not whole.

    picture: JPEG, b"" for none; width, height: its pixels. measured: what was measured on it, in the order of the page.
    """

    dataset: str
    rendered: Rendered | None
    shows: Shows = "image"
    picture: bytes = b""
    width: int = 0
    height: int = 0
    measured: tuple[Measured, ...] = field(default=())


def sort_of(data: bytes) -> Sort:
    """What sort of file bytes are, by how they begin: a zip archive, a NIfTI volume, or a picture (anything else)."""
    if is_archive(data):
        return "archive"
    nifti = data[:2] == b"\x1f\x8b" or data[344:347] in (b"n+1", b"ni1") or data[4:7] in (b"n+2", b"ni2")
    return "volume" if nifti else "picture"


def see(data: bytes, reads: Reads) -> Seen:
    """Reads a file as the champion of a dataset that was named. Raises Undecodable, whose text is the reason."""
    if of_patients(reads.kind):
        rendered = render_archive(data, reads.limits, reads.limits.of_file("image", reads.sides))
        shown = drawn(rendered.array, zoom=3) if was_found(rendered.array) else None
        return _shown(reads, rendered, "heart", shown)
    if of_volumes(reads.kind):
        from cardium.imaging.render import render_file

        rendered = render_file(data, reads.kind, reads.size, reads.limits.of_file(reads.kind, reads.sides))
        return _shown(reads, rendered, "slices", _tiles(rendered.array))
    pixels = _pixels(data, reads)
    if not reads.of_sheets:
        return _image(pixels, reads)
    from cardium.imaging.sheet import find_sheet

    return _sheet(pixels, find_sheet(pixels), reads)


def see_any(data: bytes, known: Sequence[Reads]) -> Seen:
    """Reads a file as the first champion that reads files of its kind; an ECG sheet is one where its leads are found.

    Where pictures are read as a patient's study alone, one picture is seen without a rendering. Raises Undecodable, whose text
    is the reason.
    """
    sort = sort_of(data)
    takes = [reads for reads in known if reads.sort == sort or (sort == "picture" and of_patients(reads.kind))]
    if not takes:
        raise Undecodable(NO_READER)
    if sort != "picture":
        return see(data, takes[0])
    pixels = _pixels(data, takes[0])
    sheets = [reads for reads in takes if reads.of_sheets]
    others = [reads for reads in takes if not reads.of_sheets]
    if sheets and not (others and _is_dark(pixels)):
        from cardium.imaging.sheet import SIDEWAYS, find_sheet

        found = find_sheet(pixels)
        if found.layout != "grid" or SIDEWAYS in found.warnings:
            return _sheet(pixels, found, sheets[0])
    if not others:
        raise Undecodable(NO_SHEET)
    if of_patients(others[0].kind):
        return Seen(others[0].dataset, None)
    return _image(pixels, others[0])


def _is_dark(pixels: Pixels) -> bool:
    """Whether a picture is grey and mostly dark, as a slice of a body is and no paper: the search for leads is spared."""
    grey = bool((pixels[..., :1] == pixels).all())
    return grey and float(np.percentile(pixels[..., 0], 75)) < _DARK


def zipped(files: Sequence[tuple[str, bytes]]) -> bytes:
    """Files of one patient, (name, bytes), as the archive that a model of whole patients takes."""
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for number, (name, data) in enumerate(files):
            # Two files of one name, from two folders, are two.
            archive.writestr(name if name not in archive.namelist() else f"{number}/{name}", data)
    return target.getvalue()


def _pixels(data: bytes, reads: Reads) -> Pixels:
    if data.startswith(b"%PDF"):
        raise Undecodable(PDF)
    if data[4:12] in _HEIC:
        raise Undecodable(HEIC)
    limits = reads.limits.of_file("image", reads.sides)
    if data[:4] in TIFF:
        data = _png_of_tiff(data, limits.max_pixels)
    return decode(data, limits.max_pixels, limits.max_bytes, limits.sides).pixels


def _png_of_tiff(data: bytes, max_pixels: int) -> bytes:
    """The first page of a TIFF file as PNG, which the decoder reads. Raises Undecodable."""
    from PIL import TiffImagePlugin

    try:
        image = TiffImagePlugin.TiffImageFile(BytesIO(data))
        if image.width * image.height > max_pixels:
            raise Undecodable(f"too many pixels: {image.width} x {image.height}, limit {max_pixels}")
        target = BytesIO()
        image.save(target, "PNG", compress_level=0)
    except Undecodable:
        raise
    except Exception:  # Pillow's plugins raise nearly every type on crafted bytes.
        raise Undecodable("damaged TIFF file") from None
    return target.getvalue()


def _sheet(pixels: Pixels, found: Sheet, reads: Reads) -> Seen:
    rendered = render_sheet(pixels, found, reads.kind, reads.size)
    if found.warnings:
        return _shown(reads, rendered, "small", _fitted(pixels, _UNREADABLE))
    from cardium.serving.read_sheet import with_boxes

    left, top, right, bottom = found.paper
    shown = np.where(_beside_leads(found, pixels.shape[0], pixels.shape[1])[..., None], 255, with_boxes(pixels, found))
    return _shown(reads, rendered, "sheet", _fitted(shown.astype(np.uint8)[top:bottom, left:right], _LARGEST))


def _beside_leads(found: Sheet, height: int, width: int) -> NDArray[np.bool_]:
    """What of the upright picture lies above or below all leads at its place along the paper, (height, width): a header may
    reach down there beside leads that lie aslant."""
    upper, lower = np.full(width, height), np.zeros(width, np.int64)
    for left, top, right, bottom in found.leads:
        upper[left:right] = np.minimum(upper[left:right], top)
        lower[left:right] = np.maximum(lower[left:right], bottom)
    rows = np.arange(height)[:, None]
    return (rows < upper) | (rows >= lower)


def _image(pixels: Pixels, reads: Reads) -> Seen:
    """A picture is shown as its model takes it, in its own proportions: print on it is seldom readable then."""
    from PIL import Image

    rendered = render(pixels, reads.kind, reads.size)
    height, width = pixels.shape[:2]
    scale = _IMAGE / min(height, width)
    sides = (min(4 * _IMAGE, round(width * scale)), min(4 * _IMAGE, round(height * scale)))
    shown = Image.fromarray(rendered.array).resize(sides, Image.Resampling.BICUBIC)
    return _shown(reads, rendered, "image", np.asarray(shown))


def _fitted(pixels: Pixels, longest: int) -> Pixels:
    """The picture, made smaller where its longer side is above `longest`."""
    from PIL import Image

    scale = longest / max(pixels.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(pixels)
    sides = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(sides, Image.Resampling.BOX))


def _tiles(frames: Pixels) -> Pixels:
    """Slices (T, h, w), of which frames of zeros are padding -> evenly chosen ones side by side, uint8 (H, W)."""
    from PIL import Image

    real = frames[frames.reshape(len(frames), -1).any(axis=1)]
    if not len(real):
        real = frames[:1]
    chosen = real[np.unique(np.linspace(0, len(real) - 1, min(_SLICES, len(real))).round().astype(int))]
    columns = min(_COLUMNS, len(chosen))
    canvas = Image.new("L", (columns * _SIDE, -(-len(chosen) // columns) * _SIDE))
    for number, frame in enumerate(chosen):
        row, column = divmod(number, columns)
        canvas.paste(Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), (column * _SIDE, row * _SIDE))
    return np.asarray(canvas)


def _shown(reads: Reads, rendered: Rendered, shows: Shows, pixels: Any) -> Seen:
    # Of leads that are not known for sure nothing is measured.
    measured = measured_of(rendered.array, reads.kind) if shows != "small" else ()
    if pixels is None:
        return Seen(reads.dataset, rendered, shows, measured=measured)
    from PIL import Image

    target = BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=_QUALITY)
    height, width = pixels.shape[:2]
    return Seen(reads.dataset, rendered, shows, target.getvalue(), width, height, measured)
