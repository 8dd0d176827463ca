"""A run that was exported to another format: how it is opened, and what its folder holds.

    export.json         the format, the model's files, what the parity check found
    run.json            as of the run; validation.parquet with numbers in place of patients
    README.md           the model card
    model.keras | saved_model/ | model.xml, model.bin

In every format the model takes float32 pixels (n, ...), 0-255, as rendered, and gives float32 probabilities (n, classes).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cardium.errors import CardiumError
from cardium.workspace import MODEL

FILE = "export.json"
# Float32 pixels (n, ...) -> probabilities (n, C).
Forward = Callable[[np.ndarray], np.ndarray]
# Format -> its file that is opened.
FORMATS = {"keras": MODEL, "saved_model": "saved_model", "openvino": "model.xml"}


def format_of(folder: Path) -> str:
    """The format of an exported run's folder, "" for a run folder. Raises CardiumError for a damaged export.json."""
    try:
        table = json.loads((folder / FILE).read_text(encoding="utf-8"))
        found = str(table["format"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError):
        found = "?"
    if found not in FORMATS:
        raise CardiumError(f"{folder}/{FILE} is damaged: export the run again.")
    return found


def model_files(folder: Path, served: Path) -> list[Path]:
    """The files of the model that answers: of an export all of its format's, otherwise `served` alone."""
    form = format_of(folder)
    if form == "openvino":
        return [folder / "model.xml", folder / "model.bin"]
    if form == "saved_model":
        return sorted(path for path in (folder / "saved_model").rglob("*") if path.is_file())
    return [served]


def open_exported(folder: Path, form: str) -> Forward:
    """The function of a model in `saved_model` or `openvino`. Raises CardiumError where its files are missing or no such."""
    place = folder / FORMATS[form]
    if not place.exists():
        raise CardiumError(f"{folder.name}: no {place.name} in it: export the run again.")
    try:
        return _openvino(place) if form == "openvino" else _saved_model(place)
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise CardiumError(f"{place} cannot be opened ({type(error).__name__}): export the run again.") from None


def _saved_model(place: Path) -> Forward:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(place))
    signature = loaded.signatures["serving_default"]

    def forward(pixels: np.ndarray) -> np.ndarray:
        [found] = signature(tf.constant(pixels, tf.float32)).values()
        return np.asarray(found)

    forward.loaded = loaded  # type: ignore[attr-defined]  # Its variables live as long as the function.
    return forward


def _openvino(place: Path) -> Forward:
    # OpenVINO would report its use over the network.
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    import openvino

    # As exact as training and serving: CPUs that have bfloat16 would use it.
    compiled: Any = openvino.Core().compile_model(place, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def forward(pixels: np.ndarray) -> np.ndarray:
        # A request of its own: the classifier asks from several threads.
        request = compiled.create_infer_request()
        return np.array(request.infer([pixels.astype(np.float32)])[compiled.output(0)])

    return forward
