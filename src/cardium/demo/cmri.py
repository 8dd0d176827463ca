"""The look-alike of the CAD Cardiac MRI Dataset: short-axis cine images of drawn hearts, and the truth about them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardium.demo import phantom
from cardium.demo.make import Demo

if TYPE_CHECKING:
    from cardium.imaging.spec import Render

PATIENTS = 16
SEED = phantom.SEED


def files(patients: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yields (path, bytes) of each file, in the collection's layout.

    The layout is {Normal,Sick}/Directory_<patient>/SR_<series>/IM<frame>.jpg. A series is one slice level, its files one
    cardiac cycle; patients are numbered over both classes. The files are grey JPEGs of quality 90.
    Raises CardiumError for an odd number of patients.
    """
    for patient in phantom.cohort(patients, seed):
        for level in range(phantom.SLICES):
            for frame in range(phantom.FRAMES):
                image, _ = phantom.phantom(patient, level, frame)
                data = io.BytesIO()
                # Every setting of Pillow's that changes bytes is given, whatever its defaults are.
                Image.fromarray(image).save(data, format="JPEG", quality=90, optimize=False, progressive=False)
                name = f"{patient.label}/Directory_{patient.number}/SR_{level + 1}/IM{frame + 1:05d}.jpg"
                yield name, data.getvalue()


def masks(folder: Path, path: str, kind: str, size: Render) -> dict[str, NDArray[np.bool_]]:  # noqa: ARG001
    """`ventricle`: cavity and wall of the left ventricle, which alone make a heart Sick; see Demo."""
    directory, series, name = path.split("/")[-3:]
    number = int(directory.rpartition("_")[2])
    patient = next(one for one in phantom.cohort(PATIENTS, SEED) if one.number == number)
    _, parts = phantom.phantom(patient, int(series.rpartition("_")[2]) - 1, int(name[2:7]) - 1)
    whole = Image.fromarray((parts["lv"] | parts["myocardium"]).astype(np.uint8) * 255)
    return {"ventricle": np.asarray(whole.resize((size.width, size.height), Image.Resampling.BILINEAR)) >= 128}


DEMO = Demo(
    files=files,
    total=lambda patients: patients * phantom.SLICES * phantom.FRAMES,
    masks=masks,
    count=PATIENTS,
    seed=SEED,
    unit="patients",
    digest="c45331666af5965050f9db1d3e4a5b02267fb8c2315713da261f67a43b54ba30",
)
