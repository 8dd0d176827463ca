"""Generated look-alikes of the collections, in their publishers' own layouts: data to try the project on without a download.

`make_demo` writes data/<dataset>; a later dataset adds its generator to DEMOS. The files are the same bytes on every machine
with the locked Pillow (phantom.py, ecg_sheet.py and uncompressed.py say how), because data.dvc in the repository holds their
hash.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cardium.demo import phantom
from cardium.errors import CardiumError, unknown
from cardium.parallel import in_chunks
from cardium.progress import progress
from cardium.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cardium.demo import thorax
    from cardium.demo.ecg_sheet import SheetTruth

PATIENTS = 16
SEED = phantom.SEED
Sheet = tuple[str, int]  # class and number: what one drawn ECG sheet is known by


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


# Folders and the beginnings of file names, as the two versions of the Mendeley collection have them.
_V2 = {
    "MI": ("ECG Images of Myocardial Infarction Patients (240x12=2880)", "MI"),
    "History": ("ECG Images of Patient that have History of MI (172x12=2064)", "PMI"),
    "Abnormal": ("ECG Images of Patient that have abnormal heartbeat (233x12=2796)", "HB"),
    "Normal": ("Normal Person ECG Images (284x12=3408)", "Normal"),
}
_V1 = {
    "MI": ("ECG Images of Myocardial Infarction Patients (77)", ("MI ",)),
    "History": ("ECG Images of Patient that have History of MI (203)", ("PMI ", "PMI  ")),
    "Abnormal": ("ECG Images of Patient that have abnormal heart beats (548)", ("HB ", "HB   ")),
    "Normal": ("Normal Person ECG Images (859)", ("Normal ",)),
}
_COVID = "ECG Images of COVID-19 Patients (250)"


def ecg4_paths(sheets: int, _: int) -> dict[Sheet, list[str]]:
    """Version 2's layout: the files of each of `sheets` sheets a class.

    As published, some sheets lie there several times (half of MI's, a quarter of History's and Normal's, under later numbers),
    and one MI sheet lies under History too.
    """
    copied = {"MI": sheets // 2, "History": sheets // 4, "Normal": sheets // 4}
    paths: dict[Sheet, list[str]] = {}
    for label, (folder, name) in _V2.items():
        for number in range(1, sheets + 1):
            paths[label, number] = [f"{folder}/{name}({number}).jpg"]
            if number <= copied.get(label, 0):
                paths[label, number].append(f"{folder}/{name}({sheets + number}).jpg")
    folder, name = _V2["History"]
    paths["MI", 1].append(f"{folder}/{name}({sheets + copied['History'] + 1}).jpg")
    return paths


def ecg5_paths(sheets: int, seed: int) -> dict[Sheet, list[str]]:
    """Both versions side by side: `v1/` has all `sheets` sheets a class, `v2/` a quarter of them once more.

    As published, `MI(1).jpg` of v2 is a `PMI` of v1. COVID-19's lie in folders by their kind, pages named as of one binder.
    """
    from cardium.demo.ecg_sheet import sheet_style

    paths: dict[Sheet, list[str]] = {}
    for number in range(1, sheets + 1):
        style = sheet_style(_SERIES["ecg5"], number, seed)
        if style.kind == "report":
            name = f"type_3/COVID  ({number}).jpg"
        else:
            name = f"type_{1 if style.height > style.width else 2}/Binder1_Page_{number:03d}.jpg"
        paths["Covid", number] = [f"v1/{_COVID}/{name}"]
    again = max(1, sheets // 4)
    for label, (folder, names) in _V1.items():
        for number in range(1, sheets + 1):
            # One to three spaces, by publisher's whim.
            paths[label, number] = [f"v1/{folder}/{names[number % len(names)]}({number}).jpg"]
        folder, name = _V2[label]
        first = 2 if label == "MI" else 1
        for number in range(first, again + 1):
            paths[label, number].append(f"v2/{folder}/{name}({number}).jpg")
            if label == "MI":
                paths[label, number].append(f"v2/{folder}/{name}({again + number}).jpg")
    folder, name = _V2["MI"]
    paths["History", 1].append(f"v2/{folder}/{name}(1).jpg")
    return paths


_PATHS: dict[str, Callable[[int, int], dict[Sheet, list[str]]]] = {"ecg4": ecg4_paths, "ecg5": ecg5_paths}
_SERIES = {"ecg4": "reports", "ecg5": "pages"}


def ecg_files(dataset: str, sheets: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of each file of `sheets` different sheets a class; copies of a sheet follow each other.

    Raises CardiumError for fewer than two sheets.
    """
    paths = _ecg_paths(dataset, sheets, seed)
    draw = functools.partial(_draw, _SERIES[dataset], seed)
    for some, drawn in in_chunks(draw, list(paths), chunk=4):
        for sheet, data in zip(some, drawn, strict=True):
            for path in paths[sheet]:
                yield path, data


def sheet_truth(dataset: str, path: str, count: int | None = None, seed: int | None = None) -> SheetTruth:
    """Where the leads of a demo file are (`path` below data/<dataset>): drawn anew, for it is written nowhere.

    Raises CardiumError for a dataset without sheets and a path that its demo data have not.
    """
    from cardium.demo.ecg_sheet import draw_sheet, sheet_style
    from cardium.demo.ecg_signal import record

    if dataset not in _PATHS:
        raise unknown("demo dataset of sheets", dataset, list(_PATHS))
    demo = DEMOS[dataset]
    seed = demo.seed if seed is None else seed
    for (label, number), paths in _ecg_paths(dataset, demo.count if count is None else count, seed).items():
        if path in paths:
            style = sheet_style(_SERIES[dataset], number, seed)
            return draw_sheet(record(label, number, seed), style, number, seed)[1]
    raise CardiumError(f"The demo data of {dataset} have no file {path}: give its path below data/{dataset}.")


def _ecg_paths(dataset: str, sheets: int, seed: int) -> dict[Sheet, list[str]]:
    if sheets < 2:
        raise CardiumError(f"Demo sheets come by two or more a class: {sheets} is too few.")
    return _PATHS[dataset](sheets, seed)


def _ecg_total(dataset: str, sheets: int) -> int:
    # Which styles a seed draws moves files between folders, not their number.
    return sum(map(len, _ecg_paths(dataset, sheets, 0).values()))


def _draw(series: str, seed: int, sheets: Sequence[Sheet]) -> list[bytes]:
    """The JPEGs of some sheets."""
    from PIL import Image

    from cardium.demo.ecg_sheet import draw_sheet, sheet_style
    from cardium.demo.ecg_signal import record

    drawn = []
    for label, number in sheets:
        style = sheet_style(series, number, seed)
        pixels, _ = draw_sheet(record(label, number, seed), style, number, seed)
        data = io.BytesIO()
        # Everything that Pillow's defaults decide and that changes bytes is said here.
        Image.fromarray(pixels).save(
            data, format="JPEG", quality=style.quality, subsampling=2, optimize=False, progressive=False
        )
        drawn.append(data.getvalue())
    return drawn


# The label table's name and sheet as published, and its empty columns after the named ones.
CHD_TABLE, _CHD_SHEET, _CHD_EMPTY = "imageCHD_dataset_info.xlsx", "classification dataset", 5
# A patient of the table whose volume is not there.
_CHD_MISSING, _CHD_MISSING_FLAGS = 1135, ("ASD",)


def chd_files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """ImageCHD's layout, the label table and ct_<id>_image.nii.gz: (path, bytes) of each file of `count` patients a class.

    Beside them three patients whom the label rule excludes, a row without a volume, and 1047, whose VSD is an explicit 0.
    Raises CardiumError for fewer than two patients.
    """
    from cardium.demo import thorax
    from cardium.demo.uncompressed import xlsx

    patients = thorax.cohort(count, seed)
    flags = {patient.id: patient.flags for patient in patients} | {_CHD_MISSING: _CHD_MISSING_FLAGS}
    header = ("index", *thorax.FLAGS, *[None] * _CHD_EMPTY)
    rows: list[tuple[str | int | None, ...]] = [header]
    for number, has in sorted(flags.items()):
        values: list[int | None] = [1 if name in has else None for name in thorax.FLAGS]
        if number == thorax.EXPLICIT_ZERO:
            values[thorax.FLAGS.index("VSD")] = 0
        rows.append((number, *values, *[None] * _CHD_EMPTY))
    yield CHD_TABLE, xlsx(_CHD_SHEET, rows)
    for some, drawn in in_chunks(_draw_volumes, patients, chunk=4):
        for patient, data in zip(some, drawn, strict=True):
            yield _volume_name(patient), data


def volume_truth(path: str, count: int | None = None, seed: int | None = None) -> dict[str, NDArray[np.bool_]]:
    """Where heart and defect are in a demo volume (`path` below data/chd), in the file's own voxel order: `thorax.truth`, drawn
    anew, for it is written nowhere.

    Raises CardiumError for a path that the demo data have not.
    """
    from cardium.demo import thorax

    demo = DEMOS["chd"]
    for patient in thorax.cohort(demo.count if count is None else count, demo.seed if seed is None else seed):
        if _volume_name(patient) == path:
            return thorax.truth(patient)
    raise CardiumError(f"The demo data of chd have no volume {path}: give its path below data/chd.")


def _volume_name(patient: thorax.Patient) -> str:
    return f"ct_{patient.id}_image.nii.gz"


def _draw_volumes(patients: Sequence[thorax.Patient]) -> list[bytes]:
    """The .nii.gz files of some patients."""
    from cardium.demo import thorax
    from cardium.demo.uncompressed import nifti

    return [nifti(thorax.volume(patient), thorax.affine(patient)) for patient in patients]


@dataclass(frozen=True)
class Demo:
    """One collection's generator. files(count, seed) yields (path, bytes), total(count) of them; `count` and `seed` are the
    default call's, `unit` says what is counted, `digest` what the default call comes to."""

    files: Callable[[int, int], Iterator[tuple[str, bytes]]]
    total: Callable[[int], int]
    count: int
    seed: int
    unit: str
    digest: str

    @property
    def files_per_patient(self) -> int:
        """How many files one more patient (of sheets and volumes: one more a class) adds, about."""
        return self.total(2) // 2


DEMOS = {
    "cmri": Demo(
        files=cmri_files,
        total=lambda patients: patients * phantom.SLICES * phantom.FRAMES,
        count=PATIENTS,
        seed=SEED,
        unit="patients",
        digest="c45331666af5965050f9db1d3e4a5b02267fb8c2315713da261f67a43b54ba30",
    ),
    **{
        name: Demo(
            files=functools.partial(ecg_files, name),
            total=functools.partial(_ecg_total, name),
            count=count,
            seed=seed,
            unit="different sheets a class",
            digest=digest,
        )
        for name, count, seed, digest in (
            ("ecg4", 24, 4004, "6aa3787be2d004585e211b391fcc055fb21a60490c33c68be4d4e7f7c30eaeb9"),
            ("ecg5", 16, 5005, "5d944f751c9d9077de392c84db390d4317d44831df3c9648491f5982dc48fc17"),
        )
    },
    "chd": Demo(
        files=chd_files,
        # The table, and the patients whom the label rule excludes.
        total=lambda count: 3 * count + 4,
        count=10,
        seed=2002,
        unit="patients a class",
        digest="9ca2bf9804deb839d4aa285016ea391506362947361816ffde126c7c8da24788",
    ),
}


def make_demo(root: Path, dataset: str = "cmri", count: int | None = None, seed: int | None = None) -> int:
    """Writes `root`/data/<dataset>, whole or not at all. Returns how many files it wrote: 0 if they lie there already.

    count: patients (cmri), different sheets a class (ecg4, ecg5) or patients a class (chd); None, like the seed: as data.dvc
    has it. Raises CardiumError for an unknown dataset, an odd number of patients, fewer than two sheets or patients a class, a
    folder that cannot be written, and a data/<dataset> that holds anything else: a user's data is never touched.
    """
    demo = _demo(dataset)
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
        from PIL import __version__

        # No library writes the volumes' bytes: theirs differ only where this package's code does.
        blamed = "" if dataset == "chd" else f": Pillow here is {__version__}, and requirements.lock has the tested version"
        print(f"warning: not the usual demo data{blamed}.")
    print(f"data/{dataset}: {written} generated files of {count} {demo.unit}.")
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


def _drawn(demo: Demo, dataset: str, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    return iter(progress(demo.files(count, seed), total=demo.total(count), desc=f"demo {dataset}", unit="file"))


def _digest(files: Iterator[tuple[str, bytes]]) -> str:
    total = hashlib.sha256()
    for name, data in sorted(files):
        total.update(f"{name}\0{len(data)}\0".encode() + data)
    return total.hexdigest()
