"""Writes a look-alike of a collection, in its publisher's own layout: data to try the project on without a download.

A collection names its look-alike (`Collection.demo`), a `Demo` in a file of this package: cmri.py, ecg.py, chd.py. The files
are the same bytes on every machine with the locked Pillow (phantom.py, ecg_sheet.py and uncompressed.py say how), because
data.dvc in the repository holds their hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cardium.errors import CardiumError
from cardium.progress import progress
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cardium.imaging.spec import Render

    Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Demo:
    """How a look-alike is generated.

    files(count, seed): yields (path, bytes) of each file. total(count): the number of these files.
    masks(folder, path, kind, size): the true masks of one record by name, bool of an attribution's shape, {} if none is known.
    folder: data/<dataset>; path: of the record below it; kind, size: of its rendering.
    count, seed: of the demo data that data.dvc tracks. unit: what `count` counts. digest: `folder_digest` of that data.
    encoder: the library whose version may change the bytes of the files, "" for none.
    """

    files: Callable[[int, int], Iterator[tuple[str, bytes]]]
    total: Callable[[int], int]
    masks: Callable[[Path, str, str, Render], Mapping[str, Mask]]
    count: int
    seed: int
    unit: str
    digest: str
    encoder: str = "Pillow"

    @property
    def files_per_patient(self) -> int:
        """How many files one more patient (of sheets and volumes: one more a class) adds, about."""
        return self.total(2) // 2


def write_demo(root: Path, dataset: str, demo: Demo, count: int | None = None, seed: int | None = None) -> int:
    """Writes `root`/data/<dataset>, whole or not at all. Returns how many files it wrote: 0 if they are there already.

    count, seed: None: those that data.dvc tracks. Raises CardiumError for a count that the generator cannot make, for a folder
    that cannot be written, and for a data/<dataset> with any other content: it never touches a user's data.
    """
    target = Workspace(root).data(dataset)
    count, seed = demo.count if count is None else count, demo.seed if seed is None else seed
    usual = (count, seed) == (demo.count, demo.seed)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        # Only the default demo's digest is known beforehand; another one is drawn again, without writing.
        there = folder_digest(target) if target.is_dir() else ""
        wanted = demo.digest if usual else _digest(_drawn(demo, dataset, count, seed))
        if there == wanted:
            print(f"data/{dataset}: the demo data is there already; nothing to do.")
            return 0
        raise CardiumError(
            f"data/{dataset} holds files other than this demo data, and they stay as they are: "
            f"to have the demo data instead, move data/{dataset} away first."
        )

    # Built outside data/, which DVC tracks as a whole: a killed run must leave nothing in it.
    part = Workspace(root).scratch() / f"demo-{dataset}-{uuid.uuid4().hex[:8]}"
    written = 0
    try:
        with contextlib.ExitStack() as clean:
            clean.callback(shutil.rmtree, part, ignore_errors=True)
            for name, data in _drawn(demo, dataset, count, seed):
                path = part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                written += 1
            digest = folder_digest(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            part.rename(target)
    except OSError as error:
        raise CardiumError(
            f"data/{dataset} cannot be written ({error.strerror or error}): check the disk and the rights."
        ) from None
    if usual and digest != demo.digest:
        print(f"warning: not the usual demo data{_blamed(demo)}.")
    print(f"data/{dataset}: {written} generated files of {count} {demo.unit}.")
    return written


def folder_digest(folder: Path) -> str:
    """sha256 (hex) over all files under `folder`, sorted by their POSIX paths: each path, length and content."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return _digest((name, (folder / name).read_bytes()) for name in names)


def _blamed(demo: Demo) -> str:
    """The probable cause of other bytes: another version of the library that writes the files."""
    if not demo.encoder:
        return ""
    from importlib.metadata import version

    return f": {demo.encoder} here is {version(demo.encoder)}, and requirements.lock has the tested version"


def _drawn(demo: Demo, dataset: str, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    return iter(progress(demo.files(count, seed), total=demo.total(count), desc=f"demo {dataset}", unit="file"))


def _digest(files: Iterable[tuple[str, bytes]]) -> str:
    total = hashlib.sha256()
    for name, data in sorted(files):
        total.update(f"{name}\0{len(data)}\0".encode() + data)
    return total.hexdigest()
