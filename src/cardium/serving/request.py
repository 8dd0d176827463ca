"""A request's column of base64 texts -> the files' bytes. Nothing here knows HTTP.

What a client did wrong is a BadRequest. Its text names the row, and never a path of this machine.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

from cardium.config import Serve
from cardium.errors import CardiumError
from cardium.tracking.signature import COLUMN

_DATA_URL = re.compile(r"\s*data:[^,]{0,200},", re.IGNORECASE)


class BadRequest(CardiumError):  # noqa: N818
    """What a client can do wrong: the text says which row and what is wrong with it."""


def files_of(values: Sequence[Any], max_rows: int = Serve.max_rows, max_bytes: int = Serve.max_bytes) -> list[bytes]:
    """The column of base64 texts -> bytes. White space (Spark's line breaks) and a `data:...,` prefix are taken off.

    max_bytes: of one file. Raises BadRequest for an empty batch, for more than `max_rows`, and for the first row (from 0) that
    is no base64 text or too long.
    """
    if len(values) == 0:
        raise BadRequest("The batch is empty: send at least one file.")
    if len(values) > max_rows:
        raise BadRequest(f"The batch has {len(values)} files: send at most {max_rows} at once.")
    return [_file_of(value, row, max_bytes) for row, value in enumerate(values)]


def _file_of(value: Any, row: int, max_bytes: int) -> bytes:
    if not isinstance(value, str):
        kind = "nothing" if value is None or value != value else f"a value of type {type(value).__name__}"
        raise BadRequest(f"Row {row}: `{COLUMN}` is {kind}: send the file's bytes as base64 text.")
    if len(value) > max_bytes * 3 // 2:
        raise BadRequest(f"Row {row}: more than {max_bytes // 1_000_000} MB of base64 text.")
    prefix = _DATA_URL.match(value)
    text = "".join(value[prefix.end() if prefix else 0 :].split())
    if not text:
        raise BadRequest(f"Row {row}: `{COLUMN}` is empty.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"Row {row}: `{COLUMN}` is not base64 text.") from None
