"""File bytes -> pixels: the one decoder, used by ingest, prepare and the served model, so that they see the same image.

Reads JPEG, PNG and single-frame DICOM. Every limit is checked on the file's header, before a pixel is decoded, and nothing
global is changed (Pillow's and pydicom's settings stay as they are), so the decoder may run in a server's threads on bytes
from strangers.

How grey levels become 0-255:
- 8-bit images pass through untouched;
- deeper single-channel images (16-bit PNG, 12-bit DICOM without a window) are stretched between their own 0.5 and 99.5
  percentiles: scanners use an unknown small part of the 16-bit range, and full-range scaling would turn most of them black;
- a DICOM file's own window (VOI) is used where it has one;
- 16-bit PNGs with alpha or colours are stretched in the same way, all colours alike (deep_png.py);
- of a DICOM file the bits that are not stored, and its padding, take no part.
Transparency lies over black; dark ink on nothing lies over white, the paper that it was drawn on.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin

from cardium.errors import CardiumError
from cardium.imaging import channels
from cardium.imaging.deep_png import read_deep_png

if TYPE_CHECKING:
    from cardium.imaging.spec import Sides

Pixels = NDArray[np.uint8]

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"
_GREY = ("MONOCHROME1", "MONOCHROME2")
# The marker before each of a JPEG's scans, and how many go over the largest picture: programs write 1 to 10, and a preview's.
_SCAN, _SCANS = b"\xff\xda", 16
# Ink is darker than this, 0-255, and most of what is opaque in a drawing is ink.
_INK, _MOSTLY = 64, 0.9
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")


class Undecodable(CardiumError):  # noqa: N818 - the rooms' shared word
    """The error for bytes that are not an image that cardium reads. Its text is `kind` or `kind: details`, without paths."""

    @property
    def kind(self) -> str:
        return str(self).partition(":")[0]


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    pixels: uint8 (H, W, 3), upright. mode: Pillow's, or DICOM-<photometric interpretation>. format: JPEG, PNG or DICOM.
    """

    pixels: Pixels
    mode: str
    format: str


def decode(data: bytes, max_pixels: int = 50_000_000, max_bytes: int = 100_000_000, sides: Sides | None = None) -> Decoded:
    """Decodes an image, upright (EXIF orientation applied).

    Raises Undecodable for empty, truncated or damaged data, another format, more than `max_pixels` or `max_bytes`, other sides
    than `sides` allows (None: any), multi-frame DICOM, and DICOM with a compression that cannot be read here.
    """
    if not data:
        raise Undecodable("empty file")
    if len(data) > max_bytes:
        raise Undecodable(f"too many bytes: {len(data)}, limit {max_bytes}")
    if data[128:132] == b"DICM":
        return _decode_dicom(data, max_pixels, sides)
    if data.startswith(_JPEG):
        return _decode_pillow(data, "JPEG", max_pixels, sides)
    if data.startswith(_PNG):
        return _decode_pillow(data, "PNG", max_pixels, sides)
    raise Undecodable("not a JPEG, PNG or DICOM file")


def _decode_pillow(data: bytes, kind: str, max_pixels: int, sides: Sides | None) -> Decoded:
    # The plugin's class, not Image.open: that one tries further plugins (MPO) and checks size by a global of its own.
    plugin: Any = JpegImagePlugin.JpegImageFile if kind == "JPEG" else PngImagePlugin.PngImageFile
    try:
        image: ImageFile.ImageFile = plugin(BytesIO(data))
        _check_pixels(image.width, image.height, max_pixels, sides)
        if kind == "JPEG":
            _check_scans(data, image.width, image.height, max_pixels)
        image.load()
        mode = image.mode
        deep = read_deep_png(data) if kind == "PNG" else None
        pixels = _to_rgb(image) if deep is None else _deep_to_rgb(deep)
        orientation = _orientation(image)
    except Undecodable:
        raise
    except Exception as error:  # Pillow's plugins raise nearly every type on crafted bytes.
        raise _damaged(kind, error) from None
    return Decoded(np.ascontiguousarray(_upright(pixels, orientation)), mode, kind)


def _damaged(kind: str, error: Exception) -> Undecodable:
    if "truncated" in str(error).lower() or "end of file" in str(error).lower() or isinstance(error, EOFError):
        return Undecodable(f"truncated {kind} file")
    return Undecodable(f"damaged {kind} file")


def _check_pixels(width: int, height: int, max_pixels: int, sides: Sides | None) -> None:
    if width < 1 or height < 1:
        raise Undecodable("image without pixels")
    if width * height > max_pixels:
        raise Undecodable(f"too many pixels: {width} x {height}, limit {max_pixels}")
    if sides is not None and (fault := sides.fault(width, height)):
        raise Undecodable(fault)


def _check_scans(data: bytes, width: int, height: int, max_pixels: int) -> None:
    """Refuses a JPEG that goes over its pixels more often than `_SCANS` times over the largest picture's: each scan costs time.

    Bytes of a scan are stuffed, so that its marker stands nowhere else but in a preview.
    """
    scans = data.count(_SCAN)
    if scans * width * height > _SCANS * max_pixels:
        raise Undecodable(f"too many scans: {scans} of {width} x {height}, limit {_SCANS * max_pixels // (width * height)}")


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_to_rgb(stretch(np.asarray(image)))
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return _laid(rgba[..., :3], rgba[..., 3])
    return np.asarray(image.convert("RGB"))


def _laid(colours: Pixels, alpha: Pixels) -> Pixels:
    """Colours (H, W, 3) of opacity `alpha` (H, W), laid over black, or over white where all that is opaque is dark ink."""
    over = (colours.astype(np.uint16) * alpha[..., None] + 127) // 255
    weight = float(alpha.sum(dtype=np.int64))
    dark = float(alpha[channels.brightest(colours) < _INK].sum(dtype=np.int64))
    if weight and not alpha.all() and dark >= _MOSTLY * weight:
        over += 255 - alpha[..., None].astype(np.uint16)
    return over.astype(np.uint8)


def _deep_to_rgb(deep: NDArray[np.uint16]) -> Pixels:
    """16-bit channels (H, W, 2 to 4), the last of 2 and 4 the opacity -> uint8 (H, W, 3)."""
    transparent = deep.shape[2] in (2, 4)
    channels = np.ascontiguousarray(deep[..., : deep.shape[2] - transparent], np.uint16)
    if (channels == channels[..., :1]).all():  # Grey, whatever it is filed as.
        channels = channels[..., :1]
    levels = stretch(channels)
    colours = np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels
    if not transparent:
        return colours
    return _laid(colours, (deep[..., -1].astype(np.uint32) * 255 // 65535).astype(np.uint8))


def stretch(values: NDArray[Any], shown: NDArray[np.bool_] | None = None) -> Pixels:
    """Stretches grey values of any type and shape to uint8: the 0.5 percentile and below become 0, the 99.5 and above 255.

    If the percentiles coincide, the extremes are used; an image of one value becomes 0. NaN and infinities become 0.
    shown: which values decide the percentiles; None: all.
    """
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:  # By a table: a large image is never held as floats.
        low, high = _ends(values if shown is None else values[shown])
        least, most = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
        table = _linear(np.arange(least, most + 1, dtype=np.float64), low, high)
        return table[values.astype(np.int32) - least]
    levels = values.astype(np.float64)
    finite = np.isfinite(levels)
    if not finite.all():
        if not finite.any():
            return np.zeros(values.shape, np.uint8)
        levels = np.where(finite, levels, levels[finite].min())
    return _linear(levels, *_ends(levels if shown is None else levels[shown]))


def _ends(levels: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(levels, [0.5, 99.5])
    return (float(low), float(high)) if high > low else (float(levels.min()), float(levels.max()))


def _linear(levels: NDArray[np.float64], low: float, high: float) -> Pixels:
    if not high > low:
        return np.zeros(levels.shape, np.uint8)
    return np.rint(np.clip((levels - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.uint8)


def _grey_to_rgb(grey: Pixels) -> Pixels:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # A good image with broken EXIF data is a good image.
        return 1
    return value if isinstance(value, int) else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes an EXIF orientation 1-8 (EXIF 2.3, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _decode_dicom(data: bytes, max_pixels: int, sides: Sides | None) -> Decoded:
    try:
        return _read_dicom(data, max_pixels, sides)
    except Undecodable:
        raise
    except Exception as error:  # pydicom too raises nearly every type on crafted bytes.
        raise _damaged("DICOM", error) from None


def _read_dicom(data: bytes, max_pixels: int, sides: Sides | None) -> Decoded:
    from pydicom import dcmread
    from pydicom.filereader import read_dataset
    from pydicom.pixels import pixel_array
    from pydicom.uid import UID

    # File meta information alone: a deflated data set would be inflated, without any bound, by the first look at it.
    start = BytesIO(data)
    start.seek(132)
    meta = read_dataset(start, is_implicit_VR=False, is_little_endian=True, stop_when=_data_begin)
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if syntax == _DEFLATED:
        raise Undecodable("DICOM deflated as a whole is not read")

    dataset = dcmread(BytesIO(data))
    _drop_empty(dataset)
    if not syntax:
        syntax = _syntax_of(dataset)
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    if "PixelData" not in dataset:
        raise Undecodable("DICOM without an image")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    _check_pixels(columns, rows, max_pixels, sides)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise Undecodable(f"multi-frame DICOM: {frames} frames")
    photometric = str(dataset.PhotometricInterpretation)
    if photometric not in _GREY + _COLOUR:
        raise Undecodable("DICOM of an unknown photometric interpretation")
    if UID(syntax).is_compressed:
        _check_encoded(dataset, syntax, rows, columns)
    try:
        values = _whole_words(dataset) if photometric in _GREY and not UID(syntax).is_compressed else pixel_array(dataset)
    except (RuntimeError, NotImplementedError):
        if not UID(syntax).is_compressed:
            raise
        raise Undecodable(f"DICOM compression without a decoder here: {_syntax_name(syntax)}") from None
    if values.shape[:2] != (rows, columns):
        raise Undecodable("damaged DICOM file")
    if photometric in _GREY:
        words, values = values, _stored(dataset, values)
        padding = _padding(dataset, values, words)
        grey = _grey_levels(dataset, values, None if padding is None else ~padding)
        pixels = _grey_to_rgb(grey if padding is None else np.where(padding, np.uint8(0), grey))
    else:
        pixels = _colour_levels(dataset, values, photometric)
    return Decoded(np.ascontiguousarray(pixels), f"DICOM-{photometric.replace(' ', '_')}", "DICOM")


# Optional elements: present and empty is as good as absent (DICOM PS3.5, 7.4.5).
_OPTIONAL = (
    "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "ModalityLUTSequence", "VOILUTSequence", "HighBit",
)  # fmt: skip


def _drop_empty(dataset: Any) -> None:
    """Takes optional elements out that hold nothing, and tables of grey levels without a table."""
    for keyword in _OPTIONAL:
        if keyword in dataset:
            element = dataset[keyword]
            if element.is_empty or (element.VR == "SQ" and "LUTData" not in element.value[0]):
                del dataset[keyword]


def _syntax_of(dataset: Any) -> str:
    """The transfer syntax of a file that does not name one, from how it could be read: DICOM's default is implicit little."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    if dataset.get_item("PixelData") is not None and dataset["PixelData"].is_undefined_length:
        raise Undecodable("DICOM that is compressed and does not say how")
    return str(ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian)


def _whole_words(dataset: Any) -> NDArray[Any]:
    """Pixels that are not compressed with all of their allocated bits: pydicom keeps the low ones, wherever HighBit is."""
    from pydicom.pixels import pixel_array

    bits, high = dataset.BitsStored, dataset.get("HighBit")
    try:
        dataset.BitsStored = dataset.BitsAllocated
        dataset.HighBit = int(dataset.BitsAllocated) - 1
        return np.asarray(pixel_array(dataset))
    finally:
        dataset.BitsStored = bits
        dataset.HighBit = int(bits) - 1 if high is None else high


def _stored(dataset: Any, values: NDArray[Any]) -> NDArray[Any]:
    """The stored bits of each value alone: shifted down to bit 0, other bits (an old overlay's) cleared, the sign kept."""
    bits, allocated = int(dataset.BitsStored), values.dtype.itemsize * 8
    if values.dtype.kind not in "iu" or not 0 < bits < allocated:
        return values
    shift = min(max(int(dataset.get("HighBit", bits - 1)) - bits + 1, 0), allocated - bits)
    # To the top, where the sign is, and down again: right shifts of signed numbers keep it.
    up = allocated - bits - shift
    return (values << up) >> (allocated - bits)


def _padding(dataset: Any, values: NDArray[Any], words: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where a picture is filled up and shows nothing (DICOM PS3.3 C.7.5.1.1.2), (H, W); None where all of it is picture.

    words: as they stand in the file, before the bits that are not stored were cleared. A padding that needs these bits
    (-2000 in 12 unsigned ones) is found there.
    """
    if "PixelPaddingValue" not in dataset:
        return None
    ends = [_number_of(dataset.PixelPaddingValue, values)]
    ends += [_number_of(dataset.PixelPaddingRangeLimit, values)] if "PixelPaddingRangeLimit" in dataset else []
    bits, signed = int(dataset.BitsStored), values.dtype.kind == "i"
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    where = words if min(ends) > high or max(ends) < low else values
    found: NDArray[np.bool_] = (where >= min(ends)) & (where <= max(ends))
    return None if not found.any() or found.all() else found


def _number_of(value: Any, values: NDArray[Any]) -> int:
    """A padding value as the pixels have it: written unsigned it may mean a negative number, and the other way round."""
    number, bits = int(value), values.dtype.itemsize * 8
    if values.dtype.kind == "u" and number < 0:
        return number + 2**bits
    return number - 2**bits if values.dtype.kind == "i" and number >= 2 ** (bits - 1) else number


def _data_begin(tag: Any, vr: str | None, length: int) -> bool:  # noqa: ARG001 - pydicom calls it with three
    return bool(tag.group != 2)


def _check_encoded(dataset: Any, syntax: str, rows: int, columns: int) -> None:
    """Raises Undecodable if the compressed frame's own header, which the codec uses, differs from the data set's."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == _RLE:
        raw = rows * columns * int(dataset.SamplesPerPixel) * (int(dataset.BitsAllocated) // 8)
        if len(frame) > 2 * raw + 4096:  # RLE grows by 1/128 at most, and unpacks to up to 64 times its length.
            raise Undecodable("damaged DICOM file")
        return
    try:
        with Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            size = image.size
    except OSError:  # JPEG-LS, lossless JPEG and video: no codec here reads them either.
        raise Undecodable(f"DICOM compression without a decoder here: {_syntax_name(syntax)}") from None
    if size != (columns, rows):
        raise Undecodable("damaged DICOM file")


def _syntax_name(syntax: str) -> str:
    from pydicom.uid import UID

    name = UID(syntax).name
    return name if name != syntax else "unknown transfer syntax"


def _grey_levels(dataset: Any, values: NDArray[Any], shown: NDArray[np.bool_] | None = None) -> Pixels:
    """Modality (rescale), then VOI (window), then the photometric interpretation: DICOM PS3.3 C.11.1, C.11.2, C.7.6.3.1.2.

    shown: (H, W), what is picture and no padding; a window that the levels decide goes by that alone.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi

    slope = float(dataset.get("RescaleSlope", 1))
    if slope == 0 or not np.isfinite(slope):  # It would make every picture flat.
        raise Undecodable(f"damaged DICOM file: its RescaleSlope is {slope:g}")
    intercept = float(dataset.get("RescaleIntercept", 0))
    if slope != 1 or intercept:
        # pydicom applies one only beside the other; what is missing or empty is its default.
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    plain = slope == 1 and intercept == 0
    plain = plain and "ModalityLUTSequence" not in dataset
    levels = apply_modality_lut(values, dataset)
    window = _window(dataset)
    if dataset.get("VOILUTSequence"):
        table = dataset.VOILUTSequence[0].LUTDescriptor
        indexed = np.rint(levels).astype(np.int32)
        grey = _linear(apply_voi(indexed, dataset).astype(np.float64), 0.0, float(2 ** int(table[2]) - 1))
    elif window is not None:
        grey = _windowed(levels.astype(np.float64), *window, str(dataset.get("VOILUTFunction") or "LINEAR"))
    elif plain and values.dtype == np.uint8 and int(dataset.BitsStored) == 8:
        grey = values
    else:
        grey = stretch(levels, shown)
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def _window(dataset: Any) -> tuple[float, float] | None:
    """The first window (centre, width), if there is a usable one."""
    centre, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centre is None or width is None:
        return None
    first_centre = float(centre[0] if isinstance(centre, list) or hasattr(centre, "append") else centre)
    first_width = float(width[0] if isinstance(width, list) or hasattr(width, "append") else width)
    if not (np.isfinite(first_centre) and np.isfinite(first_width)) or first_width < 1:
        return None
    return first_centre, first_width


def _windowed(levels: NDArray[np.float64], centre: float, width: float, function: str) -> Pixels:
    """DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3 with the output range 0-255."""
    if function.upper() == "SIGMOID":
        return np.rint(255.0 / (1.0 + np.exp(np.clip(-4.0 * (levels - centre) / width, -60.0, 60.0)))).astype(np.uint8)
    if function.upper() == "LINEAR_EXACT":
        return _linear(levels, centre - width / 2.0, centre + width / 2.0)
    if width == 1:  # A threshold: the formula below would divide by zero.
        return np.where(levels <= centre - 0.5, 0, 255).astype(np.uint8)
    return _linear(levels, centre - 0.5 - (width - 1.0) / 2.0, centre - 0.5 + (width - 1.0) / 2.0)


def _colour_levels(dataset: Any, values: NDArray[Any], photometric: str) -> Pixels:
    from pydicom.pixels import apply_color_lut

    bits = int(dataset.BitsStored)
    if photometric == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
        bits = values.dtype.itemsize * 8
    if values.ndim != 3 or values.shape[2] < 3:
        raise Undecodable("damaged DICOM file")
    values = values[..., :3]
    return values if values.dtype == np.uint8 and bits == 8 else _linear(values.astype(np.float64), 0.0, float(2**bits - 1))
