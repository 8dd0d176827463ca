"""Reads the files that a scan found: each file's hash, its length and the facts of the record in it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cardium.datasets.collection import Collection, Found, Rejected
from cardium.datasets.measure import Facts
from cardium.errors import CardiumError
from cardium.parallel import FEW, in_chunks

if TYPE_CHECKING:
    from cardium.imaging.spec import Limits

# Files to a chunk: small enough for a lively progress bar, large enough that passing it between processes costs nothing.
_CHUNK = 64
# Volumes are large: one at a time in a process. Few of them are worth a process only if they have so many bytes.
_FEW_BYTES = 100_000_000


@dataclass(frozen=True)
class Measured:
    """A record that was found and could be read. sha256: of the file's bytes. bytes: length of the file."""

    found: Found
    sha256: str
    bytes: int
    facts: Facts


def measure_all(collection: Collection, folder: Path, limits: Limits, found: Sequence[Found]) -> Iterator[Measured | Rejected]:
    """Yields what `measure_files` returns for each of `found`, in order, computed on all cores."""
    chunk, few = _CHUNK, FEW
    if collection.kind == "volume":
        sizes = sum((folder / entry.path).stat().st_size for entry in found if (folder / entry.path).is_file())
        chunk, few = 1, 2 if sizes > _FEW_BYTES else len(found) + 1
    for _, results in in_chunks(functools.partial(measure_files, collection, folder, limits), found, chunk, few=few):
        yield from results


def measure_files(collection: Collection, folder: Path, limits: Limits, found: Sequence[Found]) -> list[Measured | Rejected]:
    """Reads, hashes and measures some files; a file that cannot be read comes back as Rejected. Runs in a worker process.

    folder: that `collection` was scanned from.
    """
    return [_measure(collection, folder, limits, entry) for entry in found]


def _measure(collection: Collection, folder: Path, limits: Limits, entry: Found) -> Measured | Rejected:
    path = folder / entry.path
    most, max_bytes = collection.limits(limits)
    try:
        size = path.stat().st_size
        if size > max_bytes:  # Before it is read into memory.
            return Rejected(entry.path, entry.label, f"too many bytes: {size}, limit {max_bytes}")
        data = path.read_bytes()
        facts = collection.measure(data, most, max_bytes)
    except OSError as error:
        return Rejected(entry.path, entry.label, f"cannot be read: {error.strerror or type(error).__name__}")
    except MemoryError:
        return Rejected(entry.path, entry.label, "needs more memory than there is")
    except CardiumError as error:
        return Rejected(entry.path, entry.label, str(error))
    return Measured(entry, hashlib.sha256(data).hexdigest(), len(data), facts)
