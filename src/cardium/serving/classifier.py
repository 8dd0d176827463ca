"""A run folder as a classifier of image or volume files: bytes in; label, probabilities and the run behind them out.

The same class answers `mlflow models serve` (served_model.py), `cardium predict` and tests. Bytes go through the decoder and
the renderer that training used, so a file gives the same pixels here as there. Nothing here knows HTTP: what a client did
wrong is a BadRequest whose text names the row, and never a path of this machine.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium.errors import CardiumError
from cardium.imaging.decode import Undecodable
from cardium.imaging.kinds import Rendered, of_volumes
from cardium.imaging.render import render_file, shape_of
from cardium.imaging.spec import Limits, Render
from cardium.workspace import served_file

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from cardium.config import Settings

COLUMN = "image"
# One request: as many images as answer within the server's 60 s on two cores with the slowest network, with room to spare.
MAX_ROWS = 256
MAX_IMAGE_BYTES = 100_000_000
# A published CT has up to 160 MB as .nii.gz, and inflates to twice that; its slices pass one by one.
MAX_VOLUME_ROWS = 8
MAX_VOLUME_BYTES = 400_000_000
# Images are run in pieces, so that memory does not grow with the batch; a piece of volumes is one.
_PIECE = 32
_DATA_URL = re.compile(r"\s*data:[^,]{0,200},", re.IGNORECASE)


class BadRequest(CardiumError):  # noqa: N818
    """What a client can do wrong: the text says which row and what is wrong with it."""


class Classifier:
    """The model of a run folder, loaded once and warmed up; its methods may be called from many threads at once.

    model_version: of the registry, where it is known.
    Raises CardiumError if the folder holds no whole run.
    """

    def __init__(self, run_folder: Path, model_version: str | None = None) -> None:
        try:
            info = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
            self.classes: list[str] = [str(name) for name in info["classes"]]
            self.run = str(info["run"])
            rendering = dict(info["rendering"])
            self.kind = str(rendering.pop("kind"))
            self.size = Render(**rendering)
            self.shape = shape_of(self.kind, self.size)
        except FileNotFoundError:
            raise CardiumError(f"{run_folder} holds no run.json: give a run folder such as models/cmri/mobilenetv2.") from None
        except (ValueError, KeyError, TypeError):
            raise CardiumError(f"{run_folder}/run.json is not one that `cardium train` wrote: train the run again.") from None
        self.model_version = model_version
        volumes = of_volumes(self.kind)
        self.max_rows = MAX_VOLUME_ROWS if volumes else MAX_ROWS
        self.max_bytes = MAX_VOLUME_BYTES if volumes else MAX_IMAGE_BYTES
        self._piece = 1 if volumes else _PIECE
        self.threshold = float(info.get("settings", {}).get("evaluate.threshold", 0.5))
        self._forward = _load(served_file(run_folder), self.shape)
        self._forward(np.zeros((1, *self.shape), np.float32))

    def classify(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """A row an image: label, its probability, probabilities by class name, quality, run, model_version.

        quality: `ok`, or what makes the answer doubtful: no ECG sheet in the picture, a sheet upside down, a blank page, a
        volume whose values are no Hounsfield units.

        Raises BadRequest that names the first row (from 0) whose bytes are no image or no volume.
        """
        rows: list[dict[str, Any]] = []
        for start in range(0, len(images), self._piece):
            piece = images[start : start + self._piece]
            rendered = [self._rendered(data, start + i) for i, data in enumerate(piece)]
            probabilities = self.probabilities(np.stack([one.array for one in rendered]))
            rows += [self._row(p, one.warnings) for p, one in zip(probabilities, rendered, strict=True)]
        return rows

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, ...) as rendered -> float64 (n, C)."""
        return np.asarray(self._forward(pixels.astype(np.float32)), np.float64)

    def _rendered(self, data: bytes, row: int) -> Rendered:
        try:
            return render_file(data, self.kind, self.size, _limits(self.max_bytes))
        except Undecodable as error:
            raise BadRequest(f"Row {row}: {error}.") from None

    def _row(self, p: np.ndarray, warnings: Sequence[str]) -> dict[str, Any]:
        # As the scores decide: of two classes the last one if above the threshold, otherwise the likeliest.
        decided = int(p[1] > self.threshold) if len(p) == 2 else int(p.argmax())
        return {
            "label": self.classes[decided],
            "probability": float(p[decided]),
            "probabilities": {name: float(value) for name, value in zip(self.classes, p, strict=True)},
            "quality": "; ".join(warnings) or "ok",
            "run": self.run,
            "model_version": self.model_version,
        }


def limits_of(kind: str) -> Limits:
    """What one file may cost that is to be rendered so."""
    return _limits(MAX_VOLUME_BYTES if of_volumes(kind) else MAX_IMAGE_BYTES)


def _limits(max_bytes: int) -> Limits:
    """What a request may cost: a file's bytes, and what they decode to."""
    return Limits(50_000_000, max_bytes, 300_000_000, 3 * max_bytes)


def files_of(values: Sequence[Any], max_rows: int = MAX_ROWS, max_bytes: int = MAX_IMAGE_BYTES) -> list[bytes]:
    """The column of base64 texts -> bytes. White space (Spark's line breaks) and a `data:...,` prefix are taken off.

    Raises BadRequest that names the first row (from 0) that is no base64 text.
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


def _load(path: Path, shape: tuple[int, ...]) -> Any:
    """model.keras as one traced function of any batch size: each new size would cost seconds otherwise."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    from cardium.models import load_model

    if not path.is_file():
        raise CardiumError(f"{path.parent.name}: no {path.name} in the run folder: train the run again.")
    model = load_model(path)

    @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.float32)])  # type: ignore[untyped-decorator]
    def forward(pixels: Any) -> Any:
        return model(pixels, training=False)

    return forward


def model_version_of(model_folder: Path) -> str | None:
    """The registry's version of a downloaded MLflow model: MLflow writes it beside the model."""
    import yaml

    try:
        return str(yaml.safe_load((model_folder / "registered_model_meta").read_text(encoding="utf-8"))["model_version"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None


def signature(classes: Sequence[str]) -> ModelSignature:
    """What the served model takes and gives, as MLflow states it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Object, Property

    probabilities = Object([Property(name, DataType.double) for name in classes])
    outputs: list[Any] = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "probability"),
        ColSpec(probabilities, "probabilities"),
        ColSpec(DataType.string, "quality"),
        ColSpec(DataType.string, "run"),
        ColSpec(DataType.string, "model_version", required=False),
    ]
    return ModelSignature(inputs=Schema([ColSpec(DataType.string, COLUMN)]), outputs=Schema(outputs))


def input_example(kind: str = "image") -> Any:
    """A request of one small file of the kind that this rendering is made from, the same bytes every time."""
    import pandas as pd

    data = _small_volume() if of_volumes(kind) else _small_image()
    return pd.DataFrame({COLUMN: [base64.b64encode(data).decode()]})


def _small_volume() -> bytes:
    """A ramp from air to bone, NIfTI."""
    import nibabel

    ramp = np.broadcast_to(np.linspace(-1000, 1000, 16), (16, 16, 16)).astype(np.int16)
    return bytes(nibabel.Nifti1Image(ramp, np.eye(4)).to_bytes())


def _small_image() -> bytes:
    from io import BytesIO

    from PIL import Image

    ramp = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8
    file = BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    return file.getvalue()


def load_classifier(settings: Settings, model: str) -> Classifier:
    """model: a run folder (path), or an MLflow model (`models:/cardium-cmri@champion`, `runs:/<id>/model`).

    Raises CardiumError if there is none.
    """
    if ":/" not in model:
        folder = Path(model).expanduser()
        if not folder.is_absolute() and not folder.exists():
            folder = settings.root / folder
        if not folder.is_dir():
            raise CardiumError(f"There is no model `{model}`: give a run folder or models:/<name>@champion.")
        return Classifier(folder)
    from mlflow.exceptions import MlflowException

    from cardium import tracking

    if not tracking.store_exists(settings):
        raise CardiumError(f"There is no model `{model}` (nothing is logged to MLflow yet): run `cardium promote` first.")
    with tracking.connected(settings):
        import mlflow

        try:
            downloaded = Path(mlflow.artifacts.download_artifacts(model))
        except (MlflowException, OSError) as error:
            reason = str(error).splitlines()[0].removeprefix("RESOURCE_DOES_NOT_EXIST: ")
            raise CardiumError(f"There is no model `{model}` ({reason[:160]}): run `cardium promote` first.") from None
    return Classifier(tracking.run_folder_of(downloaded), model_version_of(downloaded))


def predict_files(settings: Settings, files: Sequence[Path], model: str) -> list[dict[str, Any]]:
    """`cardium predict`: a row a file, in order: {"file", "label", "probability", "probabilities", "quality",
    "run", "model_version"}.

    A file that cannot be read or is no image gets {"file", "error"}; the others are classified. model: as in `load_classifier`.
    Raises CardiumError if there is no such model.
    """
    classifier = load_classifier(settings, model)
    rows: list[dict[str, Any]] = []
    for file in files:
        try:
            row = classifier.classify([Path(file).read_bytes()])[0]
        except OSError as error:
            row = {"error": (error.strerror or str(error)).lower()}
        except BadRequest as error:
            row = {"error": str(error).removeprefix("Row 0: ").removesuffix(".")}
        rows.append({"file": str(file), **row})
    return rows


def prediction_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of `predict_files` as plain text: file, label, probability of each class, doubts; then the run behind them."""
    width = max(len(str(row["file"])) for row in rows)
    lines = []
    for row in rows:
        if "error" in row:
            lines.append(f"{row['file']!s:<{width}}  error: {row['error']}")
            continue
        shares = "  ".join(f"{name} {value:.3f}" for name, value in row["probabilities"].items())
        doubts = "" if row["quality"] == "ok" else f"  DOUBTFUL: {row['quality']}"
        lines.append(f"{row['file']!s:<{width}}  {row['label']}  ({shares}){doubts}")
    behind = next((row for row in rows if "run" in row), None)
    if behind is not None:
        version = f", version {behind['model_version']}" if behind["model_version"] else ""
        lines.append(f"By {behind['run']}{version}. Not for diagnosis.")
    return "\n".join(lines)
