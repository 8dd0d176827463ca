"""What a served model takes and gives, as MLflow states it: one column of base64 text in, a row of answers a file out."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium.imaging.kinds import of_volumes

if TYPE_CHECKING:
    import pandas
    from mlflow.models import ModelSignature

COLUMN = "image"


def signature(classes: Sequence[str]) -> ModelSignature:
    """The columns of a request and of its answer; `probabilities` is an object with a number a class, `set` a list of them."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array, Object, Property

    probabilities = Object([Property(name, DataType.double) for name in classes])
    outputs: list[Any] = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "probability"),
        ColSpec(probabilities, "probabilities"),
        ColSpec(Array(DataType.string), "set", required=False),
        ColSpec(DataType.double, "set_coverage", required=False),
        ColSpec(DataType.string, "quality"),
        ColSpec(DataType.string, "run"),
        ColSpec(DataType.string, "model_version", required=False),
    ]
    return ModelSignature(inputs=Schema([ColSpec(DataType.string, COLUMN)]), outputs=Schema(outputs))


def input_example(kind: str = "image") -> pandas.DataFrame:
    """A request of one small file of the sort that the rendering `kind` is made from, the same bytes every time."""
    import pandas as pd

    data = _small_volume() if of_volumes(kind) else _small_image()
    return pd.DataFrame({COLUMN: [base64.b64encode(data).decode()]})


def _small_volume() -> bytes:
    """A ramp from air to bone, NIfTI."""
    import nibabel

    ramp = np.broadcast_to(np.linspace(-1000, 1000, 16), (16, 16, 16)).astype(np.int16)
    return bytes(nibabel.Nifti1Image(ramp, np.eye(4)).to_bytes())


def _small_image() -> bytes:
    """A ramp from black to light grey, PNG."""
    from io import BytesIO

    from PIL import Image

    ramp = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8
    file = BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    return file.getvalue()
