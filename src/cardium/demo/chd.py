"""The look-alike of ImageCHD: CT volumes of drawn chests, the table of their defects, and the truth about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardium.demo import thorax
from cardium.demo.make import Demo
from cardium.demo.uncompressed import nifti, xlsx
from cardium.errors import CardiumError
from cardium.parallel import in_chunks

if TYPE_CHECKING:
    from cardium.imaging.spec import Render

Mask = NDArray[np.bool_]
# The label table's name and sheet as published, and the number of its empty columns after the named ones.
CHD_TABLE, _SHEET, _EMPTY = "imageCHD_dataset_info.xlsx", "classification dataset", 5
# A patient of the table whose volume is not there.
_MISSING, _MISSING_FLAGS = 1135, ("ASD",)


def chd_files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yields (path, bytes) of the label table and of ct_<id>_image.nii.gz of `count` patients a class, in ImageCHD's layout.

    Beside them: three patients that the label rule excludes, a row without a volume, and 1047, whose VSD is an explicit 0.
    Raises CardiumError for fewer than two patients.
    """
    patients = thorax.cohort(count, seed)
    flags = {patient.id: patient.flags for patient in patients} | {_MISSING: _MISSING_FLAGS}
    header = ("index", *thorax.FLAGS, *[None] * _EMPTY)
    rows: list[tuple[str | int | None, ...]] = [header]
    for number, has in sorted(flags.items()):
        values: list[int | None] = [1 if name in has else None for name in thorax.FLAGS]
        if number == thorax.EXPLICIT_ZERO:
            values[thorax.FLAGS.index("VSD")] = 0
        rows.append((number, *values, *[None] * _EMPTY))
    yield CHD_TABLE, xlsx(_SHEET, rows)
    for some, drawn in in_chunks(_draw_volumes, patients, chunk=4):
        for patient, data in zip(some, drawn, strict=True):
            yield _volume_name(patient), data


def volume_truth(path: str, count: int | None = None, seed: int | None = None) -> dict[str, Mask]:
    """Where heart and defect are in a demo volume, in the file's own voxel order: `thorax.truth`, drawn anew, since no file
    states it. path: below data/chd.

    Raises CardiumError for a path that is not in the demo data.
    """
    return thorax.truth(_patient_of(path, count, seed))


def volume_masks(folder: Path, path: str, kind: str, size: Render) -> dict[str, Mask]:  # noqa: ARG001
    """`heart`: chambers, walls and great vessels. `defect`: the hole, the duct or the vessels that make the class, if any.

    The masks are processed as the volumes are: written as NIfTI, read, turned, sampled and fitted. See Demo.masks.
    """
    from cardium.imaging.volume import read_volume, render_volume

    patient = _patient_of(path)
    masks = thorax.truth(patient)
    # Between 0 and 1000, whatever the levels of the rendering are.
    plain = replace(size, levels="window", window=[0.0, 1000.0])
    found = {}
    for name in ("heart", "defect"):
        if masks[name].any():
            data = nifti(masks[name].astype(np.int16) * 1000, thorax.affine(patient))
            found[name] = render_volume(read_volume(data, 1 << 30, 1 << 32, size.order), plain).array >= 128
    return found


def _patient_of(path: str, count: int | None = None, seed: int | None = None) -> thorax.Patient:
    for patient in thorax.cohort(DEMO.count if count is None else count, DEMO.seed if seed is None else seed):
        if _volume_name(patient) == path:
            return patient
    raise CardiumError(f"The demo data of chd have no volume {path}: give its path below data/chd.")


def _volume_name(patient: thorax.Patient) -> str:
    return f"ct_{patient.id}_image.nii.gz"


def _draw_volumes(patients: Sequence[thorax.Patient]) -> list[bytes]:
    """The .nii.gz files of some patients."""
    return [nifti(thorax.volume(patient), thorax.affine(patient)) for patient in patients]


DEMO = Demo(
    files=chd_files,
    # The table, and the patients that the label rule excludes.
    total=lambda count: 3 * count + 4,
    masks=volume_masks,
    count=10,
    seed=2002,
    unit="patients a class",
    digest="9ca2bf9804deb839d4aa285016ea391506362947361816ffde126c7c8da24788",
    encoder="",  # No library writes the volumes' bytes: they differ only if this package's code does.
)
