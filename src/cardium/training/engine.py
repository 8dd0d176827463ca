"""Compiles a frozen backbone into a fast function, with OpenVINO or TensorFlow, for one batch size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cardium.errors import CardiumError

if TYPE_CHECKING:
    import keras

# uint8 pixels (n, H, W, 3) -> float32 maps (n, h, w, C).
Forward = Callable[[np.ndarray], np.ndarray]


def compile_forward(model: keras.Model, batch: int, engine: str) -> tuple[Forward, str]:
    """Compiles the backbone and returns the function and a description of the engine.

    The function takes uint8 pixels (n <= batch, H, W, 3) and returns float32 maps (n, h, w, C).
    engine: `auto` uses TensorFlow on a GPU, and OpenVINO on a CPU if it is installed, because it folds batch norm into the
    convolutions. Both compute in float32, as the served model does, so that the scored model is the served one.
    `openvino_bfloat16` is faster on CPUs that multiply bfloat16; its features differ by about one percent.
    Raises CardiumError for an engine that is not installed.
    """
    import importlib.util

    import tensorflow as tf

    gpu = bool(tf.config.list_physical_devices("GPU"))
    installed = importlib.util.find_spec("openvino") is not None
    if engine.startswith("openvino") and not installed:
        raise CardiumError("params.yaml, features.engine: openvino is not installed here: set `auto` or `tensorflow`.")
    if engine.startswith("openvino") or (engine == "auto" and installed and not gpu):
        return _openvino(model, batch, "bf16" if engine == "openvino_bfloat16" else "f32")
    return _tensorflow(model, batch)


def _padded(images: np.ndarray, batch: int) -> np.ndarray:
    """Pads a short last batch, so that every call has the compiled shape."""
    if len(images) == batch:
        return images
    return np.concatenate([images, np.zeros((batch - len(images), *images.shape[1:]), images.dtype)])


def _openvino(model: keras.Model, batch: int, precision: str) -> tuple[Forward, str]:
    import contextlib
    import io
    import os

    # OpenVINO's converter would report its use over the network.
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    import openvino
    import tensorflow as tf

    signature = [tf.TensorSpec([batch, *model.input_shape[1:]], tf.float32, name="pixels")]
    traced = tf.function(lambda pixels: model(pixels, training=False), input_signature=signature)
    with contextlib.redirect_stdout(io.StringIO()):
        converted = openvino.convert_model(traced)
    core = openvino.Core()
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(converted, "CPU", hints)
    precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()

    def forward(images: np.ndarray) -> np.ndarray:
        maps = compiled(_padded(images, batch).astype(np.float32))[0]
        return np.array(maps[: len(images)])

    return forward, f"openvino {openvino.__version__.split('-')[0]} {precision}"


def _tensorflow(model: keras.Model, batch: int) -> tuple[Forward, str]:
    import tensorflow as tf

    gpu = bool(tf.config.list_physical_devices("GPU"))
    signature = [tf.TensorSpec([batch, *model.input_shape[1:]], tf.float32)]
    traced = tf.function(lambda pixels: model(pixels, training=False), input_signature=signature)

    def forward(images: np.ndarray) -> np.ndarray:
        return traced(tf.constant(_padded(images, batch), dtype=tf.float32)).numpy()[: len(images)]

    return forward, f"tensorflow {tf.__version__} {'gpu ' if gpu else ''}float32"
