"""YAML files, read as DVC reads them: YAML 1.2 through ruamel.yaml. Two readers of one file would disagree on its numbers.

YAML 1.1, which PyYAML reads, takes `010` for 8 and `yes` for true, and of a key that stands there twice the last one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cardium.errors import CardiumError


def read_yaml(path: Path) -> Any:
    """The content of a YAML file in UTF-8.

    Raises FileNotFoundError, and CardiumError in one line for a file that cannot be read, is no UTF-8 or no YAML, or has a key
    twice; the line is named where it is known.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CardiumError(f"{path.name} cannot be read ({error.strerror}).") from None
    return parse_yaml(data, path.name)


def parse_yaml(data: bytes, name: str) -> Any:
    """As `read_yaml`, of a file's bytes. name: for messages."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import YAMLError

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        found = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"byte 0x{data[error.start]:02x}"
        raise CardiumError(f"{name}, line {line}: not UTF-8 ({found}): save the file in UTF-8.") from None
    try:
        return YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        mark: Any = error.problem_mark
        key = str(error.problem).partition('"')[2].partition('"')[0]
        first = _first_line(text, key, mark.line, mark.column)
        raise CardiumError(f"{name}: the key `{key}` stands in line {first} and in line {mark.line + 1}: keep one.") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line_of = f", line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).strip().splitlines()
        raise CardiumError(f"{name}{line_of}: not valid YAML ({problem[0] if problem else 'unreadable'}).") from None
    except (ValueError, RecursionError) as error:  # A date that there is none of; nesting without an end.
        raise CardiumError(f"{name}: not valid YAML ({type(error).__name__}: {error}).") from None


def _first_line(text: str, key: str, line: int, column: int) -> int:
    """The line, from 1, of the nearest earlier `key` in the same column as the one in `line`, or in the same line (from 0)."""
    for number in range(line - 1, -1, -1):
        above = text.splitlines()[number]
        if above[column:].lstrip("\"'").startswith(key) and not above[:column].strip(" {,"):
            return number + 1
    return line + 1
