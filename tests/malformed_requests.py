"""Requests to a served model that are wrong in some way, as a hypothesis strategy, and what no answer to them may hold.

Wrong HTTP, wrong tables, wrong texts, wrong files: pictures, DICOM, volumes that were cut, overwritten or lie about their size.
Every text that a request brings along holds CANARY, by which an echo is recognised.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import json
import re
import struct
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

CANARY = "Kanarienvogel"
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
# Paths, tracebacks, libraries' names and types.
LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|/(?:home|tmp|usr|work|root|opt|lib)/|stack_trace|mlflow|pandas|numpy|pyarrow|keras"
    r"|tensorflow|DataFrame|NoneType|<class|Error\(|Exception|0x[0-9a-f]{6}|" + CANARY
)


@dataclass(frozen=True)
class Sent:
    """A request as it is put on the wire."""

    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": JSON})
    method: str = "POST"
    path: str = "/invocations"


@dataclass(frozen=True)
class Answer:
    """status 0: the connection ended without one."""

    status: int
    text: str
    seconds: float

    def fault(self) -> str:
        """What an answer must not be; "" if it is none of that."""
        if self.status == 0 or self.status >= 500:
            return f"status {self.status}"
        leak = LEAKS.search(self.text)
        if leak and self.text.strip() != "Invalid HTTP request received.":
            return f"it holds {leak.group()!r}"
        if self.status == 200 and "predictions" in self.text:
            rows = json.loads(self.text)["predictions"]
            if not rows or not all("label" in row or list(row) == ["error"] for row in rows):
                return "a row without an answer or an error"
        return ""


def send(port: int, sent: Sent, seconds: float = 60) -> Answer:
    """Sends a request to a server of this machine."""
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.putrequest(sent.method, sent.path, skip_accept_encoding=True)
        for name, value in {"Content-Length": str(len(sent.body)), **sent.headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        if sent.body:
            connection.send(sent.body)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        return Answer(answer.status, text, time.monotonic() - begun)
    except (http.client.HTTPException, OSError):
        return Answer(0, "", time.monotonic() - begun)
    finally:
        connection.close()


def table(*files: bytes | str) -> bytes:
    """A request's body, of files or of texts."""
    texts = [base64.b64encode(one).decode() if isinstance(one, bytes) else one for one in files]
    return json.dumps({"dataframe_split": {"columns": ["image"], "data": [[one] for one in texts]}}).encode()


# -------------------------------------------------------------------------------------------------------------- good files


def png_of(width: int, height: int, depth: int = 8, colour: int = 0, rows: bytes | None = None) -> bytes:
    """A PNG by its header's numbers; rows: what is deflated in it, by default zeros for the whole picture, 20 MB at most."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    content = rows if rows is not None else bytes(min(height * (1 + width * channels * depth // 8), 20_000_000))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    packed = chunk(b"IDAT", zlib.compress(content, 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + packed + chunk(b"IEND", b"")


def _pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    out = []
    for kind, options in (("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("GIF", {}), ("TIFF", {}), ("BMP", {})):
        file = io.BytesIO()
        Image.fromarray(blocks).save(file, kind, **options)
        out.append(file.getvalue())
    return [*out, png_of(40, 40, 16, 2), png_of(40, 40, 16, 4), png_of(40, 40, 4, 3)]


def _dicom() -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = MRImageStorage, "1.2.3"
    made.SOPClassUID, made.SOPInstanceUID, made.PatientName = MRImageStorage, "1.2.3", CANARY
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 40, 50, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.RescaleSlope, made.WindowCenter, made.WindowWidth = "2", "400", "800"
    made.PixelData = np.arange(2000, dtype=np.uint16).tobytes()
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _volume() -> bytes:
    import nibabel

    ramp = np.broadcast_to(np.linspace(-1000, 1000, 12), (40, 36, 12)).astype(np.int16)
    return bytes(nibabel.Nifti1Image(ramp, np.eye(4)).to_bytes())


_VOLUME = _volume()
FILES = [*_pictures(), _dicom(), _VOLUME, gzip.compress(_VOLUME)]


# ------------------------------------------------------------------------------------------------------------- wrong files


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file that was cut, overwritten in places, or has something put in."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.one_of(st.integers(0, min(len(data), 400)), st.integers(0, len(data))))
        change = draw(st.binary(min_size=1, max_size=8))
        way = draw(st.sampled_from(["over", "in", "cut", "out"]))
        if way == "over":
            data[place : place + len(change)] = change
        elif way == "in":
            data[place:place] = change * draw(st.sampled_from([1, 1, 1000]))
        elif way == "out":
            del data[place : place + draw(st.integers(1, 40))]
        else:
            del data[place:]
    return bytes(data)


_SIDES = st.one_of(st.sampled_from([1, 8, 31, 33, 100, 4096, 4097, 20_000, 10**6, 2**31 - 1]), st.integers(1, 70_000))
# A picture that is there costs its client megabytes: the large ones only claim to be.
lying = st.builds(
    lambda width, height, depth, colour: png_of(width, height, depth, colour, None if width * height < 10**6 else b"\0" * 999),
    _SIDES,
    _SIDES,
    st.sampled_from([8, 16]),
    st.sampled_from([0, 2, 3, 4, 6]),
)
# Small files of long lines, and of as much as may be.
bombs = st.sampled_from(
    [(50, 1_000_000), (1_000_000, 50), (100, 20_000), (20_000, 100), (4096, 32), (4096, 205), (205, 4096)]
).map(lambda sides: png_of(*sides)) | st.sampled_from(
    [gzip.compress(_VOLUME + bytes(3_000_000)), gzip.compress(gzip.compress(bytes(10**6)))]
)
wrong_files = st.one_of(damaged(), damaged(), lying, bombs, st.binary(max_size=200))


# ----------------------------------------------------------------------------------------------------------- wrong requests

_texts = st.one_of(
    st.just(CANARY),
    st.text(max_size=30).map(lambda text: CANARY + text),
    wrong_files.map(lambda data: base64.b64encode(data).decode()),
    st.sampled_from(
        ["", " ", "A", "====", "data:,", "data:" + CANARY + ",AAAA", "A A " * 5000, "../../etc/passwd", "/etc/passwd"]
    ),
)
_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        _texts,
        st.sampled_from([10**400, -(2**63), 2**64, 1e308, float("nan"), float("inf")]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.just(CANARY) | st.just("image"), inner, max_size=3)
    ),
    max_leaves=8,
)
_columns = st.lists(st.sampled_from(["image", CANARY, "image ", "Image", 0, None]), max_size=3) | _values
_rows = st.lists(st.lists(_texts | _values, max_size=3), max_size=4) | _values
_tables = st.one_of(
    st.builds(lambda columns, data: {"dataframe_split": {"columns": columns, "data": data}}, _columns, _rows),
    st.builds(
        lambda rows: {"dataframe_split": {"columns": ["image"], "data": [[one] for one in rows]}}, st.lists(_texts, max_size=4)
    ),
    st.builds(
        lambda rows: {"dataframe_records": rows}, st.lists(st.dictionaries(st.just("image"), _values), max_size=3) | _values
    ),
    st.builds(lambda key, value: {key: value}, st.sampled_from(["inputs", "instances", "dataframe_split", CANARY]), _values),
    st.dictionaries(st.sampled_from(["inputs", "instances", "params", "dataframe_records", CANARY]), _values, max_size=3),
    _values,
)
_nested = st.builds(
    lambda depth, opening, closing: opening * depth + (closing * depth if closing else ""),
    st.sampled_from([10, 500, 990, 1100, 3000, 50_000]),
    st.sampled_from(["[", '{"inputs":', '{"a":[']),
    st.sampled_from(["", "]", "}"]),
)
_numbers = st.sampled_from(
    [
        '{"inputs": [' + "1" * 5000 + "]}",
        '{"inputs": [' + "1" * 500_000 + "]}",
        '{"inputs": [' + "1," * 30_000 + "1]}",
        '{"inputs": [-' + "9" * 4301 + "e99]}",
        '{"inputs": ["\\ud800"]}',
        '{"inputs": ["\\u0000", "' + "\\u0041" * 1000 + '"]}',
        '{"inputs": NaN}',
        '{"image": "a", "image": "b"}',
    ]
)


@st.composite
def _overwritten(draw: st.DrawFn) -> bytes:
    """A good body with other bytes in it."""
    body = bytearray(table(draw(st.sampled_from(FILES))))
    place = draw(st.one_of(st.integers(0, 60), st.integers(0, len(body))))
    body[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=6))
    return bytes(body)


_json_bodies = st.one_of(
    _tables.map(lambda value: json.dumps(value).encode()),
    st.lists(wrong_files, min_size=1, max_size=4).map(lambda files: table(*files)),
    _overwritten(),
    (_nested | _numbers).map(str.encode),
    st.binary(max_size=60),
)
_csv_bodies = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        ["", "image", "image\n", "image\n\n\n", "image,image\nAAAA,AAAA\n", '"image\nAAAA', "a;b\n1;2\n", "\ufeffimage\nAAAA\n"]
    ).map(str.encode),
    st.lists(_texts, max_size=4).map(lambda texts: "\n".join(["image", *texts]).encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"image," * 20_000, b"\n" * 100_000, b"image\n" + b'"' * 999, b"image\n" + b"AAAA\n" * 400, b"\xff\xfeimage"]
    ),
)


def _parquet(columns: dict[str, list[Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


@st.composite
def _parquet_bodies(draw: st.DrawFn) -> bytes:
    whole = draw(
        st.sampled_from(
            [
                {"image": [CANARY, "AAAA"]},
                {"image": [1, 2]},
                {"image": [[1], [2]]},
                {CANARY: ["AAAA"]},
                {"image": []},
                {"image": ["A" * 10**6] * 256},
            ]
        )
    )
    body = bytearray(_parquet(whole))
    if draw(st.booleans()):
        place = draw(st.integers(0, len(body)))
        body[place : place + 4] = draw(st.binary(max_size=8))
    return bytes(body)


_types = st.sampled_from(
    [
        "",
        "text/plain",
        "image/png",
        "application/json; charset=latin-1",
        "application/json; q=" + CANARY,
        "application/" + CANARY,
        "é" * 9,
    ]
)


@st.composite
def malformed(draw: st.DrawFn) -> Sent:
    """A request that is wrong, mostly in what it brings."""
    way = draw(st.sampled_from(["json"] * 12 + ["csv"] * 3 + ["parquet", "http"]))
    if way == "csv":
        return Sent(draw(_csv_bodies), {"Content-Type": CSV})
    if way == "parquet":
        return Sent(draw(_parquet_bodies()), {"Content-Type": PARQUET})
    body = draw(_json_bodies)
    if way == "json":
        return Sent(body)
    wrong = draw(st.sampled_from(["type", "no type", "encoding", "method", "path", "header"]))
    if wrong == "type":
        return Sent(body, {"Content-Type": draw(_types)})
    if wrong == "no type":
        return Sent(body, {})
    if wrong == "encoding":
        return Sent(gzip.compress(body), {"Content-Type": JSON, "Content-Encoding": "gzip"})
    if wrong == "method":
        return Sent(body, method=draw(st.sampled_from(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", CANARY.upper()])))
    if wrong == "path":
        return Sent(
            body,
            path="/" + draw(st.sampled_from(["", "docs", "openapi.json", CANARY, "invocations/", "%2e%2e/%ff", "?" + CANARY])),
        )
    return Sent(body, {"Content-Type": JSON, draw(st.sampled_from(["Expect", "Transfer-Encoding", "X-" + CANARY])): CANARY})
