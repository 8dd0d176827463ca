"""What a served model takes and gives, as MLflow states it: one column of base64 text in, a row of answers a file out."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium.imaging.heart_format import MEASURES
from cardium.imaging.kinds import of_patients, of_volumes

if TYPE_CHECKING:
    import pandas
    from mlflow.models import ModelSignature

COLUMN = "image"


def signature(classes: Sequence[str], kind: str = "image") -> ModelSignature:
    """The columns of a request and of its answer; `probabilities` is an object with a number a class, `set` a list of them.

    kind: of the model's rendering. Of whole patients the answer has `measures`.
    A file that cannot be read has an `error` and nothing else.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array, Object, Property

    probabilities = Object([Property(name, DataType.double) for name in classes])
    outputs: list[Any] = [
        ColSpec(DataType.string, "label", required=False),
        ColSpec(DataType.double, "probability", required=False),
        ColSpec(probabilities, "probabilities", required=False),
        ColSpec(Array(DataType.string), "set", required=False),
        ColSpec(DataType.double, "set_coverage", required=False),
        ColSpec(DataType.string, "quality", required=False),
        ColSpec(DataType.string, "run", required=False),
        ColSpec(DataType.string, "model_version", required=False),
        ColSpec(DataType.string, "data", required=False),
        ColSpec(DataType.string, "error", required=False),
    ]
    if of_patients(kind):
        measures = Object([Property(measure.name, DataType.double, required=False) for measure in MEASURES])
        outputs.append(ColSpec(measures, "measures", required=False))
    return ModelSignature(inputs=Schema([ColSpec(DataType.string, COLUMN)]), outputs=Schema(outputs))


def input_example(kind: str = "image") -> pandas.DataFrame:
    """A request of one small file of the sort that the rendering `kind` is made from, the same bytes every time."""
    import pandas as pd

    return pd.DataFrame({COLUMN: [base64.b64encode(example_file(kind)).decode()]})


def example_file(kind: str = "image") -> bytes:
    """A small file of the sort that the rendering `kind` is made from."""
    if of_patients(kind):
        return _small_study()
    return _small_volume() if of_volumes(kind) else _small_image()


def _small_volume() -> bytes:
    """A ramp from air to bone, NIfTI."""
    import nibabel

    ramp = np.broadcast_to(np.linspace(-1000, 1000, 32), (32, 32, 32)).astype(np.int16)
    return bytes(nibabel.Nifti1Image(ramp, np.eye(4)).to_bytes())


def _small_image() -> bytes:
    """A ramp from black to light grey, PNG."""
    from io import BytesIO

    from PIL import Image

    ramp = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 4
    file = BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    return file.getvalue()


def _small_study() -> bytes:
    """A zip of two pictures."""
    from io import BytesIO
    from zipfile import ZipFile, ZipInfo

    file = BytesIO()
    with ZipFile(file, "w") as archive:
        for number in (1, 2):
            archive.writestr(ZipInfo(f"IM{number}.png"), _small_image())
    return file.getvalue()
