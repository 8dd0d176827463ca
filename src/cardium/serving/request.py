"""A request's body -> the files' bytes, with work bounded by what the body may hold. Nothing here knows HTTP.

What a client did wrong is a BadRequest, or a Refusal of one file. Their texts hold nothing of the request, no path, and no
name of a library's.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cardium.config import Serve
from cardium.errors import CardiumError
from cardium.tracking.signature import COLUMN

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"

_DATA_URL = re.compile(r"\s*data:[^,]{0,200},", re.IGNORECASE)
_SPACE = b" \t\n\r\v\f"
# What opens or parts values. Base64 has none of them, so a body that has many is no table of files: numbers by the million
# would hold a parser for a minute.
_MARKS = b',:[{"'
_MARKS_OF_A_FILE, _MARKS_BESIDE = 64, 4096
# Bytes of the line that names a CSV body's columns.
_LONGEST_HEADER = 4096
_FORMATS = ("dataframe_split", "dataframe_records", "inputs", "instances")
_ONE_OF = "send a JSON object with one of `dataframe_split`, `dataframe_records`, `inputs`, `instances`"


class BadRequest(CardiumError):  # noqa: N818
    """What a client can do wrong with a whole request."""


@dataclass(frozen=True)
class Refusal:
    """A file of a request that gets no answer. reason: in plain words."""

    reason: str


class Body:
    """The bytes of a request as they come in. It holds no more than `max_bytes`, and of text no more marks than files need."""

    def __init__(self, kind: str, max_bytes: int, max_rows: int) -> None:
        self._kind, self._max_bytes = kind, max_bytes
        self._marks = _MARKS_BESIDE + _MARKS_OF_A_FILE * max_rows
        self._pieces = bytearray()

    def add(self, piece: bytes) -> None:
        """Raises BadRequest as soon as it is too much; what was held is let go."""
        if len(self._pieces) + len(piece) > self._max_bytes:
            self._pieces = bytearray()
            raise BadRequest(f"The request is too large: send at most {self._max_bytes // 1_000_000} MB at once.")
        if self._kind != PARQUET:
            self._marks -= sum(piece.count(mark) for mark in _MARKS)
            if self._marks < 0:
                self._pieces = bytearray()
                raise BadRequest("The request has far more values than files: send only the files, each as one base64 text.")
        self._pieces += piece

    def whole(self) -> bytearray:
        """The body. It is let go of here."""
        whole, self._pieces = self._pieces, bytearray()
        return whole


def column_of(body: bytes | bytearray, kind: str, max_rows: int) -> list[Any]:
    """The column `image` of a JSON or CSV body, as values of any type. Raises BadRequest."""
    if not body:
        raise BadRequest(f"The request is empty: {_ONE_OF}.")
    column = _csv_column(body, max_rows) if kind == CSV else _json_column(body)
    _check_rows(len(column), max_rows)
    return column


def _check_rows(rows: int, max_rows: int) -> None:
    if rows == 0:
        raise BadRequest("The batch is empty: send at least one file.")
    if rows > max_rows:
        raise BadRequest(f"The batch has {rows} files: send at most {max_rows} at once.")


def _json_column(body: bytes | bytearray) -> list[Any]:
    try:
        table = json.loads(body)
    except (ValueError, RecursionError):  # No JSON, no UTF-8, a number of thousands of digits, nested without end.
        raise BadRequest(f"The request is not JSON: {_ONE_OF}.") from None
    given = [name for name in _FORMATS if name in table] if isinstance(table, dict) else []
    if len(given) != 1:
        raise BadRequest(f"The request holds {'no table' if not given else 'several tables'} of files: {_ONE_OF}.")
    content = table[given[0]]
    if given[0] == "dataframe_split":
        return _of_split(content)
    if given[0] == "dataframe_records":
        return _of_records(content, given[0])
    if isinstance(content, dict):  # {"image": [...]}
        if COLUMN not in content:
            raise no_column()
        content = content[COLUMN]
    elif isinstance(content, list) and any(isinstance(value, dict) for value in content):
        return _of_records(content, given[0])
    return content if isinstance(content, list) else [content]


def failed(error: Exception) -> str:
    """The words for a request on which the model itself failed.

    The error's text may hold paths of this machine; its type says where to look.
    """
    return f"The model failed on this request ({type(error).__name__})."


def no_column() -> BadRequest:
    """The error of a table without the column of files."""
    return BadRequest(f"There is no column `{COLUMN}`.")


def _of_records(content: Any, name: str) -> list[Any]:
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise BadRequest(f"`{name}` is no list of objects, one a file.")
    if content and not any(COLUMN in row for row in content):
        raise no_column()
    return [row.get(COLUMN) for row in content]


def _of_split(content: Any) -> list[Any]:
    columns, data = (content.get("columns"), content.get("data")) if isinstance(content, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(data, list):
        raise BadRequest("`dataframe_split` is no object with the lists `columns` and `data`.")
    if columns.count(COLUMN) != 1:
        raise no_column() if COLUMN not in columns else BadRequest(f"The column `{COLUMN}` stands twice.")
    if not all(isinstance(row, list) and len(row) == len(columns) for row in data):
        raise BadRequest("`data` of `dataframe_split` is no list of rows, each with a value for every column.")
    place = columns.index(COLUMN)
    return [row[place] for row in data]


def _csv_column(body: bytes | bytearray, max_rows: int) -> list[Any]:
    import pandas as pd

    try:
        # By itself first: pandas takes a minute for a line of some ten thousand names that are alike.
        [names] = csv.reader([bytes(body[:_LONGEST_HEADER]).decode("utf-8-sig", "replace").splitlines()[0]])
        if names.count(COLUMN) != 1:
            raise no_column()
        table = pd.read_csv(
            io.BytesIO(body), dtype=str, usecols=[COLUMN], nrows=max_rows + 1, encoding="utf-8-sig", keep_default_na=False
        )
        return table[COLUMN].tolist()
    except BadRequest:
        raise
    except Exception:  # Nearly every type, and its texts hold pieces of the request.
        raise BadRequest(f"The request is not CSV with a column `{COLUMN}`.") from None


def parquet_column(body: bytes | bytearray, max_rows: int, max_bytes: int) -> list[Any]:
    """The column `image` of a Parquet body. Raises BadRequest. Run where it may be stopped, and where memory is bounded.

    max_bytes: of all its values together; a value that stands in many rows is one until it is known to be small enough.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(body), read_dictionary=[COLUMN])
        rows, names = file.metadata.num_rows, file.schema_arrow.names
        if names.count(COLUMN) != 1:
            raise no_column()
        _check_rows(rows, max_rows)
        column = file.read(columns=[COLUMN], use_threads=False).column(0)
        if pa.types.is_dictionary(column.type):
            lengths = [
                pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py() or 0 for chunk in column.chunks
            ]
            if sum(lengths) > max_bytes:
                raise BadRequest(f"The request is too large: send at most {max_bytes // 1_000_000} MB at once.")
        return list(column.to_pylist())
    except BadRequest:
        raise
    except Exception:
        raise BadRequest(f"The request is not Parquet with a column `{COLUMN}` of texts.") from None


def files_of(values: Sequence[Any], max_rows: int = Serve.max_rows, max_bytes: int = Serve.max_bytes) -> list[bytes | Refusal]:
    """The column of base64 texts -> bytes. White space (Spark's line breaks) and a `data:...,` prefix are taken off.

    max_bytes: of one file. What is no base64 text, or too long, is refused alone. Raises BadRequest for an empty batch and for
    more than `max_rows`.
    """
    _check_rows(len(values), max_rows)
    return [_file_of(value, max_bytes) for value in values]


def answered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of an answer. Where no file has one, raises BadRequest with the first one's error."""
    if not all("error" in row for row in rows):
        return rows
    others = f" The other {len(rows) - 1} have no answer either." if len(rows) > 1 else ""
    raise BadRequest(f"Row 0: {rows[0]['error']}.{others}")


def _file_of(value: Any, max_bytes: int) -> bytes | Refusal:
    if not isinstance(value, str):
        nothing = value is None or value != value
        return Refusal(f"`{COLUMN}` is {'nothing' if nothing else 'no text'}: send the file's bytes as base64 text")
    if len(value) > max_bytes * 3 // 2:
        return Refusal(f"more than {max_bytes // 1_000_000} MB of base64 text")
    prefix = _DATA_URL.match(value)
    try:
        # Bytes, as a text's own `split` would make an object of every piece between two spaces.
        text = value[prefix.end() if prefix else 0 :].encode("ascii").translate(None, _SPACE)
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return Refusal(f"`{COLUMN}` is not base64 text")
    return data or Refusal(f"`{COLUMN}` is empty")
