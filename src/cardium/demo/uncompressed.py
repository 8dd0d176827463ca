"""NIfTI and xlsx files written byte by byte, without compressing: the same bytes on every machine.

How well a zlib compresses differs between its versions and relatives (zlib-ng, which some Pythons are built with), and so do a
.nii.gz and an .xlsx made with them. Deflate and zip both allow stored data, whose bytes their formats fix; a demo's volumes are
small enough for that. Names, times and program versions, which libraries put into such files, are left out.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

# The most that one stored block of deflate holds.
_BLOCK = 65_535
# NIfTI-1's codes.
_INT16, _SCANNER, _MILLIMETRES = 4, 1, 2


def gzip_stored(data: bytes) -> bytes:
    """`data` as a gzip file (RFC 1952) of stored blocks, without name and time, of an unknown operating system."""
    parts = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    for start in range(0, max(1, len(data)), _BLOCK):
        piece = data[start : start + _BLOCK]
        last = start + _BLOCK >= len(data)
        parts += [struct.pack("<BHH", last, len(piece), len(piece) ^ 0xFFFF), piece]
    parts.append(struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF))
    return b"".join(parts)


def nifti(voxels: NDArray[np.int16], affine: NDArray[np.float64]) -> bytes:
    """A .nii.gz: int16 (columns, rows, slices) and the affine from their indices to mm, NIfTI's RAS+, as its sform and qform.

    affine: its axes must be the scanner's own, each in either direction: a quaternion represents these exactly.
    Raises ValueError for any other.
    """
    scale = affine[:3, :3]
    if np.any(scale[~np.eye(3, dtype=bool)] != 0) or np.any(np.diag(scale) == 0):
        raise ValueError("the affine turns axes; only axes along the scanner's own are written")
    right, front, up = (bool(value > 0) for value in np.diag(scale))
    # A quaternion cannot mirror, so a mirrored third axis is qfac's; then two axes point against the scanner's, or none.
    mirrored = (right + front + up) % 2 == 0
    quaternion = {
        (True, True, True): (0.0, 0.0, 0.0),
        (True, False, False): (1.0, 0.0, 0.0),
        (False, True, False): (0.0, 1.0, 0.0),
        (False, False, True): (0.0, 0.0, 1.0),
    }[right, front, up != mirrored]
    header = struct.pack("<i35sB", 348, b"", 0)
    header += struct.pack("<8h", 3, *voxels.shape, 1, 1, 1, 1)
    header += struct.pack("<3f4h", 0.0, 0.0, 0.0, 0, _INT16, 16, 0)
    header += struct.pack("<8f", -1.0 if mirrored else 1.0, *np.abs(np.diag(scale)), 0.0, 0.0, 0.0, 0.0)
    # Where the voxels begin; values as they are.
    header += struct.pack("<3fhBB", 352.0, 1.0, 0.0, 0, 0, _MILLIMETRES)
    header += struct.pack("<4f2i80s24s", 0.0, 0.0, 0.0, 0.0, 0, 0, b"", b"")
    header += struct.pack("<2h6f", _SCANNER, _SCANNER, *quaternion, *affine[:3, 3])
    header += struct.pack("<12f", *affine[:3].reshape(-1)) + struct.pack("<16s4s4s", b"", b"n+1\0", b"")
    return gzip_stored(header + voxels.astype("<i2").tobytes(order="F"))


_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_MAIN = "application/vnd.openxmlformats-officedocument.spreadsheetml"


def xlsx(sheet: str, rows: Sequence[Sequence[str | int | None]]) -> bytes:
    """A workbook of one sheet (ECMA-376): texts, whole numbers, and None for an empty cell; at most 26 columns."""
    relation = f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" Type="{_OFFICE}/'
    types = (
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{_MAIN}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_MAIN}.worksheet+xml"/>'
    )
    lines = "".join(
        f'<row r="{number}">' + "".join(_cell(column, number, value) for column, value in enumerate(row)) + "</row>"
        for number, row in enumerate(rows, start=1)
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">{types}</Types>',
        "_rels/.rels": f'{relation}officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><sheets>'
        f'<sheet name="{escape(sheet)}" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'{relation}worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{_SHEET}"><sheetData>{lines}</sheetData></worksheet>',
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, text in parts.items():
            # The first day that a zip file can say; the system, which else is the one that writes.
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, 0o600 << 16
            archive.writestr(member, _XML + text)
    return data.getvalue()


def _cell(column: int, row: int, value: str | int | None) -> str:
    place = f"{chr(ord('A') + column)}{row}"
    if value is None:
        return f'<c r="{place}"/>'
    if isinstance(value, int):
        return f'<c r="{place}"><v>{value}</v></c>'
    return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
