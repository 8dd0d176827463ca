"""Files written byte by byte are what every reader of their format reads."""

from __future__ import annotations

import gzip
import io
import itertools

import nibabel
import numpy as np
import openpyxl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cardium.demo.uncompressed import gzip_stored, nifti, xlsx


@given(st.binary(max_size=300))
@example(b"")
@example(b"\x00" * 65_535)
@example(b"ab" * 65_536)
def test_stored_gzip_is_gzip(data: bytes) -> None:
    stored = gzip_stored(data)
    assert gzip.decompress(stored) == data
    assert 0 < len(stored) - len(data) <= 18 + 5 * (1 + len(data) // 65_535)


@pytest.mark.parametrize("signs", itertools.product((1, -1), repeat=3))
def test_nibabel_reads_the_volume_its_affine_and_its_quaternion(signs: tuple[int, int, int]) -> None:
    voxels = np.arange(-60, 60, dtype=np.int16).reshape(4, 5, 6)
    affine = np.diag([*np.multiply(signs, (2.5, 2.25, 3.0)), 1.0])
    affine[:3, 3] = (-12.5, 40.0, -900.0)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(nifti(voxels, affine)))
    assert np.array_equal(np.asanyarray(image.dataobj), voxels)
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(image.get_sform(), affine)
    assert np.array_equal(image.get_qform(), affine)
    assert image.header.get_zooms() == (2.5, 2.25, 3.0)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header["sform_code"] == image.header["qform_code"] == 1


@pytest.mark.parametrize("affine", [np.diag([1.0, 1.0, 0.0, 1.0]), np.eye(4)[[1, 0, 2, 3]]])
def test_turned_and_flat_affines_are_not_written(affine: np.ndarray) -> None:
    with pytest.raises(ValueError, match="affine"):
        nifti(np.zeros((2, 2, 2), np.int16), affine)


def test_openpyxl_reads_the_table() -> None:
    rows = [("index", "A & <b>", None), (1001, None, 1), (1047, 0, None)]
    data = xlsx("a sheet", rows)
    book = openpyxl.load_workbook(io.BytesIO(data))
    assert book.sheetnames == ["a sheet"]
    assert list(book["a sheet"].iter_rows(values_only=True)) == rows
    assert xlsx("a sheet", rows) == data
