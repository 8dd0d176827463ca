"""Backbones: a table of keras.applications networks -> one flat graph from pixels 0-255 to the last feature map.

A new backbone is one row: its name here, its class in keras.applications, and the input scaling that its ImageNet
weights were trained with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cardium.errors import CardiumError, unknown

if TYPE_CHECKING:
    import keras

Scaling = Literal["tf", "torch", "caffe", "none"]
# ImageNet's channel statistics (RGB, 0-255), as keras.applications.imagenet_utils uses them.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class Backbone:
    """One row: `application` is the class in keras.applications; `min_side` the least input height and width in pixels."""

    name: str
    application: str
    scaling: Scaling
    # Names under which its ImageNet weights without top may lie in a weights folder, Keras' own download name first.
    files: tuple[str, ...]
    min_side: int = 32


_ROWS = (
    Backbone(
        "mobilenetv2",
        "MobileNetV2",
        "tf",
        ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{side}_no_top.h5", "mobilenet_v2_1.0_no_top.weights.h5"),
    ),
    Backbone("resnet152v2", "ResNet152V2", "tf", ("resnet152v2_weights_tf_dim_ordering_tf_kernels_notop.h5",)),
    Backbone("densenet201", "DenseNet201", "torch", ("densenet201_weights_tf_dim_ordering_tf_kernels_notop.h5",)),
    Backbone("inceptionv3", "InceptionV3", "tf", ("inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",), min_side=75),
)
BACKBONES = {row.name: row for row in _ROWS}


def get_backbone(name: str) -> Backbone:
    """The row of that name. Raises CardiumError listing the names."""
    if name not in BACKBONES:
        raise unknown("backbone", name, sorted(BACKBONES))
    return BACKBONES[name]


def scale_pixels(pixels: Any, scaling: Scaling | Literal["unit"]) -> Any:
    """Scales a Keras tensor of pixels (n, H, W, 3), 0-255, RGB, inside the graph.

    `unit` is x/255, what system 000 feeds every backbone. The others are what ImageNet weights expect
    (keras.applications.imagenet_utils.preprocess_input). Layers of Keras alone, so that a saved model loads anywhere.
    """
    import keras
    import numpy as np

    if scaling == "none":
        return pixels
    if scaling == "unit":
        return keras.layers.Rescaling(1 / 255, name="scaling")(pixels)
    if scaling == "tf":
        return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")(pixels)
    if scaling == "torch":
        scale = [1 / std for std in _STD]
        offset = [-mean / std for mean, std in zip(_MEAN, _STD, strict=True)]
        return keras.layers.Rescaling(scale, offset=offset, name="scaling")(pixels)
    # caffe: RGB -> BGR less the mean. A frozen 1x1 convolution swaps the channels without a Lambda layer.
    swap = keras.layers.Conv2D(3, 1, trainable=False, name="scaling")
    scaled = swap(pixels)
    swap.set_weights(
        [np.eye(3, dtype="float32")[:, ::-1].reshape(1, 1, 3, 3).copy(), -np.array(_CAFFE_MEAN_BGR, dtype="float32")]
    )
    return scaled


def build_backbone(
    name: str, height: int, width: int, scaling: Literal["native", "unit"] = "native", seed: int = 0
) -> keras.Model:
    """A frozen backbone with random weights, a function of `seed`: float32 pixels (n, height, width, 3), 0-255 -> its last map.

    One flat graph: `pixels` -> scaling -> the application's layers. Batch norm layers stay in inference mode.
    """
    import keras

    row = get_backbone(name)
    if min(height, width) < row.min_side:
        raise CardiumError(
            f"{name} needs images of at least {row.min_side} pixels a side; render is {height}x{width} (params.yaml)."
        )
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((height, width, 3), name="pixels")
    scaled = scale_pixels(pixels, row.scaling if scaling == "native" else "unit")
    application = getattr(keras.applications, row.application)
    base = application(include_top=False, weights=None, input_tensor=scaled)
    model = keras.Model(pixels, base.output, name=name)
    model.trainable = False
    return model


def layers_of_backbone(model: keras.Model) -> list[Any]:
    """The application's own layers that hold weights, in graph order: the same order for every build of one backbone."""
    return [layer for layer in model.layers if layer.weights and layer.name != "scaling"]
