"""The one decoder: every mode, every limit, and bytes from strangers."""

import io
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels import apply_voi_lut
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, RLELossless

from cardium.errors import CardiumError
from cardium.imaging.decode import Undecodable, decode, stretch
from cardium.imaging.render import render_image

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "real" / "cad_cmri_samples"
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encode(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims any size, with no pixels behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def dicom(values: np.ndarray, photometric: str = "MONOCHROME2", bits: int | None = None, **elements) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, "1.2.3"
    colour = values.ndim == 3 and values.shape[2] == 3
    dataset.Rows, dataset.Columns = values.shape[:2] if colour or values.ndim == 2 else values.shape[1:]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = values.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.PixelData = values.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def reason(data: bytes, **limits) -> str:
    with pytest.raises(Undecodable) as caught:
        decode(data, **limits)
    assert isinstance(caught.value, CardiumError)
    assert "/" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_8_bit_png_passes_through_untouched(mode):
    image = Image.fromarray(COLOUR).convert(mode)
    decoded = decode(encode(image))
    assert (decoded.mode, decoded.format) == (mode, "PNG")
    assert decoded.pixels.dtype == np.uint8
    np.testing.assert_array_equal(decoded.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_modes_agree_with_pillow(mode):
    data = encode(Image.fromarray(COLOUR).convert(mode), "JPEG", quality=90)
    decoded = decode(data)
    assert (decoded.mode, decoded.format) == (mode, "JPEG")
    np.testing.assert_array_equal(decoded.pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_real_images_of_the_collection_pass_through_untouched():
    if not SAMPLES.is_dir():
        pytest.skip(f"no {SAMPLES}: the shared real images are not here")
    files = sorted(SAMPLES.glob("*.jpg"))
    assert files
    for file in files:
        pixels = decode(file.read_bytes()).pixels
        for channel in range(3):
            np.testing.assert_array_equal(pixels[..., channel], np.asarray(Image.open(file)))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_over_black(mode):
    alpha = RNG.integers(0, 256, GREY.shape, dtype=np.uint8)
    alpha[0] = 255
    image = Image.fromarray(COLOUR).convert("L" if mode == "LA" else "RGB")
    opaque = np.asarray(image.convert("RGB"))
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == mode
    pixels = decode(encode(image)).pixels
    np.testing.assert_array_equal(pixels[0], opaque[0])
    expected = opaque.astype(float) * alpha[..., None] / 255
    assert np.abs(pixels - expected).max() <= 0.5 + 1e-9


def test_palette_and_key_colour_transparency():
    image = Image.fromarray(GREY).convert("P")
    pixels = decode(encode(image, transparency=int(np.asarray(image)[3, 4]))).pixels
    assert not pixels[3, 4].any()
    keyed = decode(encode(Image.fromarray(GREY), transparency=44)).pixels[..., 0]
    np.testing.assert_array_equal(keyed, np.where(GREY == 44, 0, GREY))


def test_16_bit_png_is_stretched_between_its_percentiles():
    values = RNG.integers(100, 1500, (40, 50)).astype(np.uint16)  # a scanner's 11 bits in 16
    decoded = decode(encode(Image.fromarray(values)))
    assert decoded.mode.startswith("I")
    grey = decoded.pixels[..., 0].astype(float)
    assert grey.min() == 0
    assert grey.max() == 255
    low, high = np.percentile(values, [0.5, 99.5])
    expected = np.clip((values - low) / (high - low), 0, 1) * 255
    assert np.abs(grey - expected).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(decoded.pixels[..., 0], decoded.pixels[..., 2])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float32])
def test_stretch_is_the_same_for_every_type(dtype):
    values = RNG.integers(0, 3000, (31, 17))
    np.testing.assert_array_equal(stretch(values.astype(dtype)), stretch(values.astype(np.float64)))


def test_stretch_of_odd_values():
    assert not stretch(np.full((4, 4), 7, np.uint16)).any()
    one = np.zeros((100, 100), np.uint16)
    one[5, 5] = 9  # beyond both percentiles: the extremes are used
    assert stretch(one)[5, 5] == 255
    odd = np.array([[np.nan, np.inf], [0.0, 1.0]])
    assert stretch(odd).tolist() == [[0, 0], [0, 255]]
    assert not stretch(np.full((2, 2), np.nan)).any()


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured_as_pillow_does(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(COLOUR), format, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    pixels = decode(data).pixels
    np.testing.assert_array_equal(pixels, np.asarray(upright))
    assert pixels.flags.c_contiguous


def test_broken_exif_does_not_cost_the_image():
    data = encode(Image.fromarray(COLOUR), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(data).pixels.shape == COLOUR.shape


def test_bad_bytes_have_short_reasons():
    png, jpeg = encode(Image.fromarray(COLOUR)), encode(Image.fromarray(COLOUR), "JPEG")
    assert reason(b"") == "empty file"
    assert reason(b"hello, I am no image") == "not a JPEG, PNG or DICOM file"
    assert reason(encode(Image.fromarray(COLOUR), "TIFF")) == "not a JPEG, PNG or DICOM file"
    assert reason(encode(Image.fromarray(COLOUR), "GIF")) == "not a JPEG, PNG or DICOM file"
    assert reason(jpeg[: len(jpeg) // 2]) == "truncated JPEG file"
    assert reason(png[: len(png) // 2]) == "truncated PNG file"
    assert reason(jpeg[:20]).endswith("JPEG file")
    assert reason(png[:8] + b"\0" * 40).endswith("PNG file")
    assert reason(png, max_bytes=100).startswith("too many bytes: ")


def test_bombs_are_refused_by_their_header(monkeypatch):
    def load(self):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert reason(png_header(60_000, 60_000)) == "too many pixels: 60000 x 60000, limit 50000000"
    assert reason(png_header(2**31 - 1, 2**31 - 1)).startswith("too many pixels")
    assert reason(encode(Image.fromarray(COLOUR), "JPEG"), max_pixels=599) == "too many pixels: 30 x 20, limit 599"
    bomb = dicom(np.zeros((2, 2), np.uint16), Rows=60_000, Columns=60_000)
    assert reason(bomb) == "too many pixels: 60000 x 60000, limit 50000000"


def test_a_jpeg_of_many_scans_is_refused_before_any_of_them():
    plain = encode(Image.fromarray(COLOUR), "JPEG", progressive=True)
    last = plain.rindex(b"\xff\xda")
    many = plain[:last] + 90 * plain[last:-2] + plain[last:]
    assert decode(many, max_pixels=20_000).pixels.shape == (20, 30, 3)
    assert reason(many, max_pixels=3000) == "too many scans: 100 of 30 x 20, limit 80"
    # What programs write passes at the largest size that is allowed.
    assert decode(plain, max_pixels=600).pixels.shape == (20, 30, 3)


def test_text_bomb_in_a_png():
    data = encode(Image.fromarray(GREY))
    body = b"k\0\0" + zlib.compress(b"\0" * 200_000_000, 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    assert reason(data[:33] + chunk + data[33:]) == "damaged PNG file"


def test_nothing_global_changes():
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    decode(encode(Image.fromarray(COLOUR), "JPEG"))
    decode(dicom(GREY))
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)


def test_threads_decode_the_same():
    jobs = [
        encode(Image.fromarray(COLOUR), "JPEG"),
        encode(Image.fromarray(COLOUR)),
        dicom(GREY),
        b"junk",
        png_header(9**5, 9**5),
    ]

    def outcome(data):
        try:
            return decode(data).pixels.tobytes()
        except Undecodable as error:
            return str(error)

    expected = [outcome(job) for job in jobs]
    results: list[list] = []
    threads = [threading.Thread(target=lambda: results.append([outcome(job) for job in jobs * 5])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected * 5] * 8


SEEDS = [
    encode(Image.fromarray(COLOUR), "JPEG"),
    encode(Image.fromarray(COLOUR)),
    encode(Image.fromarray(GREY.astype(np.uint16) * 200)),
    dicom(GREY.astype(np.uint16), WindowCenter=100, WindowWidth=50),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, len(SEEDS) - 1),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=12),
    st.integers(0, 4000),
)
def test_whatever_the_bytes_there_is_an_image_or_a_reason(seed, changes, cut):
    data = bytearray(SEEDS[seed])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        decoded = decode(bytes(data[: len(data) - cut % len(data)]), max_pixels=10_000, max_bytes=100_000)
    except Undecodable as error:
        decoded = None
        text = str(error)
    if decoded is None:
        assert 0 < len(text) < 120
    else:
        height, width, channels = decoded.pixels.shape
        assert height * width <= 10_000
        assert (decoded.pixels.dtype, channels) == (np.uint8, 3)


@given(st.binary(max_size=300))
def test_random_bytes_are_no_image(data):
    with pytest.raises(Undecodable):
        decode(data)


# DICOM


def test_dicom_8_bit_passes_through_and_monochrome1_is_inverted():
    decoded = decode(dicom(GREY))
    assert (decoded.mode, decoded.format) == ("DICOM-MONOCHROME2", "DICOM")
    np.testing.assert_array_equal(decoded.pixels, np.repeat(GREY[..., None], 3, axis=2))
    inverted = decode(dicom(GREY, "MONOCHROME1"))
    np.testing.assert_array_equal(inverted.pixels[..., 0], 255 - GREY)
    np.testing.assert_array_equal(decode(dicom(COLOUR, "RGB")).pixels, COLOUR)


def test_dicom_without_a_window_is_stretched():
    values = RNG.integers(50, 900, (30, 40)).astype(np.uint16)
    pixels = decode(dicom(values, bits=12)).pixels
    np.testing.assert_array_equal(pixels[..., 0], stretch(values))
    shifted = decode(dicom(values, bits=12, RescaleSlope="2", RescaleIntercept="-1000")).pixels
    np.testing.assert_array_equal(shifted, pixels)  # a linear rescale changes no percentile window


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_dicom_window_agrees_with_pydicom(function):
    values = RNG.integers(0, 4096, (30, 40)).astype(np.uint16)
    data = dicom(
        values,
        bits=12,
        WindowCenter=[1500, 10],
        WindowWidth=[800, 20],
        VOILUTFunction=function,
        RescaleSlope="1.5",
        RescaleIntercept="-200",
    )
    dataset = pydicom.dcmread(io.BytesIO(data))
    windowed = apply_voi_lut(values * 1.5 - 200, dataset)
    lowest, highest = -200.0, 4095 * 1.5 - 200  # pydicom's output range is the stored bits', rescaled
    expected = (windowed - lowest) / (highest - lowest) * 255
    assert np.abs(decode(data).pixels[..., 0] - expected).max() <= 0.5 + 1e-6


def test_dicom_voi_table_of_signed_values():
    values = RNG.integers(-100, 100, (10, 12)).astype(np.int16)
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "SS", [256, -128, 8])
    table.add_new("LUTData", "OW", np.arange(255, -1, -1, dtype=np.uint16).tobytes())
    pixels = decode(dicom(values, VOILUTSequence=[table])).pixels
    np.testing.assert_array_equal(pixels[..., 0], 255 - (values + 128))


def test_dicom_that_is_refused():
    assert reason(dicom(np.zeros((3, 8, 8), np.uint16), NumberOfFrames=3)) == "multi-frame DICOM: 3 frames"
    whole = dicom(np.zeros((64, 64), np.uint16))
    assert reason(whole[:-3000]).endswith("DICOM file")
    assert reason(whole[:140]).startswith(("DICOM", "damaged", "truncated"))
    assert reason(b"\0" * 128 + b"DICM")
    assert reason(dicom(GREY, "HSV")) == "DICOM of an unknown photometric interpretation"


def test_dicom_compressions():
    values = RNG.integers(0, 4096, (16, 16)).astype(np.uint16)
    dataset = pydicom.dcmread(io.BytesIO(dicom(values, bits=12)))
    dataset.compress(RLELossless)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    np.testing.assert_array_equal(decode(buffer.getvalue()).pixels[..., 0], stretch(values))

    for syntax in ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.70"):  # JPEG-LS, lossless JPEG
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        assert reason(buffer.getvalue()).startswith("DICOM compression without a decoder here: JPEG")

    deflated = pydicom.dcmread(io.BytesIO(dicom(values)))
    deflated.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    buffer = io.BytesIO()
    deflated.save_as(buffer)
    assert reason(buffer.getvalue()) == "DICOM deflated as a whole is not read"


def test_dicom_with_a_jpeg_inside():
    from pydicom.encaps import encapsulate

    def wrapped(image: Image.Image) -> bytes:
        dataset = pydicom.dcmread(io.BytesIO(dicom(GREY)))
        dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.50")
        dataset.PixelData = encapsulate([encode(image, "JPEG", quality=95)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        return buffer.getvalue()

    expected = decode(encode(Image.fromarray(GREY), "JPEG", quality=95)).pixels
    np.testing.assert_array_equal(decode(wrapped(Image.fromarray(GREY))).pixels, expected)
    # The data set says 30 x 20; a codec would believe the JPEG.
    assert reason(wrapped(Image.new("L", (3000, 3000)))) == "damaged DICOM file"


# Rendering


def test_render_is_pillows_antialiased_resize_and_keeps_what_fits():
    pixels = RNG.integers(0, 256, (240, 200, 3), dtype=np.uint8)
    rendered = render_image(pixels, 128, 96)
    assert (rendered.shape, rendered.dtype) == ((128, 96, 3), np.uint8)
    np.testing.assert_array_equal(rendered, render_image(pixels.copy(), 128, 96))
    np.testing.assert_array_equal(render_image(pixels, 240, 200), pixels)
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[::2] = 255
    shrunk = render_image(stripes, 64, 64)[4:-4]
    assert np.abs(shrunk.astype(int) - 127).max() <= 2, "without antialiasing the stripes would stay black or white"


def test_render_refuses_other_arrays():
    with pytest.raises(CardiumError, match="uint8"):
        render_image(np.zeros((4, 4, 3), np.float32), 8, 8)
    with pytest.raises(CardiumError, match="uint8"):
        render_image(np.zeros((4, 4), np.uint8), 8, 8)
