"""Inputs that once failed, each with its right answer: generated here by kind, and the reported files where they lie beside."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from cardium.errors import CardiumError
from cardium.imaging.decode import Undecodable, decode, stretch
from cardium.imaging.volume import read_volume

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
RNG = np.random.default_rng(17)


def case(name: str) -> bytes:
    found = next(iter((CASES / name).glob("case.*")), None)
    if found is None:
        pytest.skip("../shared/cases is not here")
    return found.read_bytes()


def dicom(
    values: np.ndarray, *, stored: int = 16, high: int | None = None, leave_out: tuple[str, ...] = (), **changes: object
) -> bytes:
    """A single-frame grey DICOM file of these stored values."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    if "TransferSyntaxUID" not in leave_out:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored = 8 * values.dtype.itemsize, stored
    dataset.HighBit = stored - 1 if high is None else high
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.PixelData = values.tobytes()
    out = BytesIO()
    dataset.save_as(out, implicit_vr=False, little_endian=True, enforce_file_format=not leave_out)
    return out.getvalue()


def grey(data: bytes) -> np.ndarray:
    return decode(data).pixels[..., 0]


HEART = RNG.integers(100, 900, (24, 30)).astype(np.int16)


@pytest.mark.parametrize(("padding", "limit"), [(-32768, None), (-2000, -1900), (-1900, -2000)])
def test_padding_is_black_and_takes_no_part_in_the_window(padding: int, limit: int | None) -> None:
    filled = HEART.copy()
    filled[:, :6] = padding
    changes = {"PixelPaddingValue": padding} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        found = grey(dicom(filled, PhotometricInterpretation=photometric, **changes))
        expected = stretch(HEART[:, 6:])
        np.testing.assert_array_equal(found[:, 6:], expected if photometric == "MONOCHROME2" else 255 - expected)
        assert not found[:, :6].any()
    # A picture of padding alone is what it is.
    assert grey(dicom(np.full((8, 8), -32768, np.int16), PixelPaddingValue=-32768)).shape == (8, 8)


def with_padding(data: bytes, vr: str, value: int) -> bytes:
    """The file with a PixelPaddingValue of this value representation, whatever the pixels' is."""
    dataset = dcmread(BytesIO(data))
    dataset.add_new(0x00280120, vr, value)
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("signed", "stored", "word", "vr", "value"),
    [
        (True, 16, -2000, "US", 2**16 - 2000),
        (False, 16, 2**16 - 1, "SS", -1),
        # More bits than are stored.
        (False, 12, 2**16 - 2000, "SS", -2000),
        (False, 12, 2**16 - 2000, "US", 2**16 - 2000),
        (True, 12, -32768, "SS", -32768),
    ],
)
def test_padding_in_words_of_another_sign_or_of_more_bits(signed: bool, stored: int, word: int, vr: str, value: int) -> None:
    filled = HEART.astype(np.int16 if signed else np.uint16)
    filled[:, :6] = word
    found = grey(with_padding(dicom(filled, stored=stored), vr, value))
    np.testing.assert_array_equal(found[:, 6:], stretch(HEART[:, 6:]))
    assert not found[:, :6].any()


def test_a_slope_of_nothing_is_damage() -> None:
    for slope in (0, -0.0):
        with pytest.raises(Undecodable, match=r"its RescaleSlope is -?0"):
            decode(dicom(HEART, RescaleSlope=slope))
    # Without an intercept, or with an empty one, it counts all the same.
    for more in ({}, {"RescaleIntercept": None}, {"RescaleIntercept": 7}):
        np.testing.assert_array_equal(grey(dicom(HEART, RescaleSlope=-1, **more)), 255 - grey(dicom(HEART)))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shift", [0, 2, 4])
def test_only_the_stored_bits_count_wherever_they_lie(signed: bool, shift: int) -> None:
    values = RNG.integers(-2048 if signed else 0, 2048 if signed else 4096, (24, 30))
    kind = np.int16 if signed else np.uint16
    expected = grey(dicom(values.astype(kind)))
    raw = ((values & 0xFFF) << shift).astype(np.uint16)
    overlay = (RNG.integers(0, 2, values.shape) << ((shift + 12) % 16)).astype(np.uint16)
    found = grey(dicom((raw | overlay).view(kind), stored=12, high=11 + shift))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "NumberOfFrames"])
def test_an_empty_element_is_its_default(name: str) -> None:
    np.testing.assert_array_equal(grey(dicom(HEART, **{name: None})), grey(dicom(HEART)))


def test_a_file_that_does_not_name_its_transfer_syntax_is_read_as_it_is_written() -> None:
    np.testing.assert_array_equal(grey(dicom(HEART, leave_out=("TransferSyntaxUID",))), grey(dicom(HEART)))


def deep_png(pixels: np.ndarray, filters: list[int]) -> bytes:
    """A 16-bit PNG of uint16 (H, W, 2, 3 or 4), each row under its filter."""
    height, width, channels = pixels.shape
    step = 2 * channels
    octets = pixels.astype(">u2").view(np.uint8).reshape(height, width * step).astype(int)
    above, rows = np.zeros(width * step, int), []
    for row, kind in zip(octets, filters, strict=True):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        near = [np.abs(above - corner), np.abs(left - corner), np.abs(left + above - 2 * corner)]
        paeth = np.where((near[0] <= near[1]) & (near[0] <= near[2]), left, np.where(near[1] <= near[2], above, corner))
        guess = [np.zeros_like(row), left, above, (left + above) // 2, paeth][kind]
        rows.append(bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes())
        above = row

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = {2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")


@given(st.integers(2, 4), st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_deep_channels_keep_all_their_bits(channels: int, filters: list[int], seed: int) -> None:
    """As a 16-bit grey picture of the same levels; Pillow itself keeps the high byte."""
    draw = np.random.default_rng(seed)
    levels = draw.integers(0, 700, (len(filters), 9), dtype=np.uint16)
    plain = Image.fromarray(levels)
    out = BytesIO()
    plain.save(out, "PNG")
    planes = [levels] * (1 if channels == 2 else 3) + ([np.full_like(levels, 65535)] if channels != 3 else [])
    data = deep_png(np.stack(planes, axis=2), filters)
    np.testing.assert_array_equal(decode(data).pixels, decode(out.getvalue()).pixels)


@pytest.mark.parametrize("cut", [30, 60, 90])
def test_a_broken_deep_png_is_said(cut: int) -> None:
    data = deep_png(RNG.integers(0, 65536, (9, 9, 3), dtype=np.uint16), [0, 1, 2, 3, 4, 3, 2, 1, 0])
    with pytest.raises(CardiumError, match="PNG"):
        decode(data[:cut])


def test_dark_ink_on_nothing_lies_on_paper_and_a_picture_on_black() -> None:
    ink = np.zeros((40, 60, 4), np.uint8)
    ink[20, :, 3] = 255
    out = BytesIO()
    Image.fromarray(ink).save(out, "PNG")
    found = decode(out.getvalue()).pixels
    assert not found[20].any()
    assert (np.delete(found, 20, axis=0) == 255).all()
    ink[20, :, :3] = 180
    out = BytesIO()
    Image.fromarray(ink).save(out, "PNG")
    assert not np.delete(decode(out.getvalue()).pixels, 20, axis=0).any()


@pytest.mark.parametrize(("field", "value"), [("qfac", 0.0), ("pixdim", -2.0), ("vox_offset", 0.0)])
@pytest.mark.parametrize("form", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_headers_that_nibabel_reads_are_read(tmp_path: Path, form: type, field: str, value: float) -> None:
    image = form(RNG.integers(0, 500, (12, 14, 16)).astype(np.int16), np.diag([2.0, 1.5, 3.0, 1.0]))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 0)
    header = type(image.header)(image.to_bytes()[: image.header.sizeof_hdr], check=False)
    data = bytearray(image.to_bytes())
    pixdim = header["pixdim"].copy()
    if field == "qfac":
        pixdim[0] = value
    elif field == "pixdim":
        pixdim[2] = value
    else:
        header["vox_offset"] = value
    header["pixdim"] = pixdim
    data[: len(header.binaryblock)] = header.binaryblock
    path = tmp_path / "volume.nii"
    path.write_bytes(data)
    # An offset that was never filled in makes nibabel take the header's bytes for voxels: the image itself is right there.
    expected = image if field == "vox_offset" else nibabel.load(path)
    found = read_volume(bytes(data), 10**8, 10**9, "stored")
    np.testing.assert_array_equal(found.voxels, np.asarray(expected.dataobj).transpose(2, 0, 1))


def test_the_reported_files_have_their_right_answers() -> None:
    padded = grey(case("dicom-pixel-padding"))
    assert len(np.unique(padded)) > 100, "the heart has its levels"
    for name in ("dicom-highbit-15-stored-12", "dicom-rescale-empty", "j2k-overlay-in-high-bits"):
        assert len(np.unique(grey(case(name)))) > 50, name
    np.testing.assert_array_equal(decode(case("png-16-grey-alpha")).pixels, decode(case("png-16-grey")).pixels)
    assert decode(case("png-black-ink-transparent")).pixels.mean() > 200
    read = read_volume(case("nii-qfac-0"), 10**8, 10**9, "stored").voxels
    np.testing.assert_array_equal(read, np.asarray(nibabel.load(CASES / "nii-qfac-0" / "case.nii").dataobj).transpose(2, 0, 1))
    data = case("nii-vox-offset-0")
    behind = np.frombuffer(data, np.int16, offset=352).reshape((12, 14, 16), order="F")
    np.testing.assert_array_equal(read_volume(data, 10**8, 10**9, "stored").voxels, behind.transpose(2, 0, 1))


@pytest.mark.parametrize("fault", ["formula", "merged"])
def test_a_cell_that_passes_for_blank_stops_the_table_of_labels(tmp_path: Path, fault: str) -> None:
    from openpyxl import Workbook

    from cardium.datasets.chd import DEFECTS, SHEET, read_table

    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = SHEET
    sheet.append(["index", *DEFECTS])
    sheet.append([1001, *[None] * len(DEFECTS)])
    sheet.append([1002, *[None] * len(DEFECTS)])
    path = tmp_path / "imageCHD_dataset_info.xlsx"
    if fault == "formula":
        sheet["C2"] = "=1"
    else:
        sheet["C2"] = 1
        sheet.merge_cells("C2:C3")
    book.save(path)
    message = {"formula": "formulas without saved values in C2", "merged": "merged cells C2:C3"}[fault]
    with pytest.raises(CardiumError, match=message):
        read_table(path)


def test_the_reported_table_names_its_cells() -> None:
    from cardium.datasets.chd import read_table

    path = CASES / "xlsx-formula" / "imageCHD_dataset_info.xlsx"
    if not path.is_file():
        pytest.skip("../shared/cases is not here")
    with pytest.raises(CardiumError, match=r"formulas without saved values in [A-Z]+\d"):
        read_table(path)
