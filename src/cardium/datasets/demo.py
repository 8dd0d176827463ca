"""Generated look-alikes of the collections, in their publishers' own layouts: data to try the project on without a download.

`make_demo` writes data/<dataset>; a later dataset adds its generator to DEMOS. The files are the same bytes on every machine
with the locked Pillow (phantom.py says how), because data.dvc in the repository holds their hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cardium.datasets import phantom
from cardium.errors import CardiumError, unknown
from cardium.progress import progress
from cardium.workspace import Workspace

PATIENTS = 16
SEED = phantom.SEED


def cmri_files(patients: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """The CAD collection's layout, {Normal,Sick}/Directory_<patient>/SR_<series>/IM<frame>.jpg: (path, bytes) of each file.

    A series is one slice level, its files one cardiac cycle; patients are numbered over both classes. Grey JPEGs, quality 90.
    """
    from PIL import Image

    for patient in phantom.cohort(patients, seed):
        for level in range(phantom.SLICES):
            for frame in range(phantom.FRAMES):
                image, _ = phantom.phantom(patient, level, frame)
                data = io.BytesIO()
                # Everything that Pillow's defaults decide and that changes bytes is said here.
                Image.fromarray(image).save(data, format="JPEG", quality=90, optimize=False, progressive=False)
                name = f"{patient.label}/Directory_{patient.number}/SR_{level + 1}/IM{frame + 1:05d}.jpg"
                yield name, data.getvalue()


@dataclass(frozen=True)
class Demo:
    """One collection's generator: files(patients, seed) yields (path, bytes); `digest` is what the default call comes to."""

    files: Callable[[int, int], Iterator[tuple[str, bytes]]]
    files_per_patient: int
    digest: str


DEMOS = {
    "cmri": Demo(
        files=cmri_files,
        files_per_patient=phantom.SLICES * phantom.FRAMES,
        digest="c45331666af5965050f9db1d3e4a5b02267fb8c2315713da261f67a43b54ba30",
    )
}


def make_demo(root: Path, dataset: str = "cmri", patients: int = PATIENTS, seed: int = SEED) -> int:
    """Writes `root`/data/<dataset>, whole or not at all. Returns how many files it wrote: 0 if they lie there already.

    Raises CardiumError for an unknown dataset, an odd number of patients, a folder that cannot be written, and a data/<dataset>
    that holds anything else: a user's data is never touched.
    """
    demo = _demo(dataset)
    target = Workspace(root).data(dataset)
    usual = (patients, seed) == (PATIENTS, SEED)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        # Only the default demo's digest is known beforehand; another one is drawn again, without writing.
        there = folder_digest(target) if target.is_dir() else ""
        wanted = demo.digest if usual else _digest(_drawn(demo, dataset, patients, seed))
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
            for name, data in _drawn(demo, dataset, patients, seed):
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
        from PIL import __version__

        print(f"warning: not the usual demo data: Pillow here is {__version__}, and requirements.lock has the tested version.")
    print(f"data/{dataset}: {written} generated images of {patients} patients.")
    return written


def demo_digest(dataset: str = "cmri") -> str:
    """What `folder_digest` of the default demo data comes to: a constant."""
    return _demo(dataset).digest


def folder_digest(folder: Path) -> str:
    """sha256 (hex) over all files under `folder`, sorted by their POSIX paths: each path, length and content."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return _digest((name, (folder / name).read_bytes()) for name in names)


def _demo(dataset: str) -> Demo:
    if dataset not in DEMOS:
        raise unknown("demo dataset", dataset, list(DEMOS))
    return DEMOS[dataset]


def _drawn(demo: Demo, dataset: str, patients: int, seed: int) -> Iterator[tuple[str, bytes]]:
    total = demo.files_per_patient * patients
    return iter(progress(demo.files(patients, seed), total=total, desc=f"demo {dataset}", unit="image"))


def _digest(files: Iterator[tuple[str, bytes]]) -> str:
    total = hashlib.sha256()
    for name, data in sorted(files):
        total.update(f"{name}\0{len(data)}\0".encode() + data)
    return total.hexdigest()
