"""Backbones: a table of keras.applications networks -> one flat graph from pixels 0-255 to the last feature map.

A new backbone is one row: its name here, its class in keras.applications, and the input scaling that its ImageNet
weights were trained with. `<backbone>_taps` is the same network read at its last three resolutions instead of at its end.
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
    # Channels of the three taps, finest first.
    tap_widths: tuple[int, int, int]
    # The layers that are tapped; empty: the last one at each of the network's last three resolutions.
    taps: tuple[str, ...] = ()
    min_side: int = 32


_ROWS = (
    Backbone(
        "mobilenet",
        "MobileNet",
        "tf",
        ("mobilenet_1_0_{side}_tf_no_top.h5", "mobilenet_1.0_no_top.weights.h5"),
        (256, 512, 1024),
    ),
    Backbone(
        "mobilenetv2",
        "MobileNetV2",
        "tf",
        ("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{side}_no_top.h5", "mobilenet_v2_1.0_no_top.weights.h5"),
        (192, 576, 1280),
    ),
    Backbone("vgg16", "VGG16", "caffe", ("vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",), (512, 512, 512)),
    Backbone("resnet50", "ResNet50", "caffe", ("resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",), (512, 1024, 2048)),
    Backbone(
        "resnet152v2", "ResNet152V2", "tf", ("resnet152v2_weights_tf_dim_ordering_tf_kernels_notop.h5",), (128, 256, 2048)
    ),
    Backbone(
        "densenet121", "DenseNet121", "torch", ("densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",), (256, 512, 1024)
    ),
    Backbone(
        "densenet201", "DenseNet201", "torch", ("densenet201_weights_tf_dim_ordering_tf_kernels_notop.h5",), (256, 896, 1920)
    ),
    Backbone(
        "inceptionv3",
        "InceptionV3",
        "tf",
        ("inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",),
        (288, 768, 2048),
        taps=("mixed2", "mixed7", "mixed10"),
        min_side=75,
    ),
    # These two bring their scaling along as layers. `build_backbone` puts ours in its place, which is the same and lies
    # outside, where `unit` can take its turn: the mean and deviation of PyTorch.
    Backbone("convnext_tiny", "ConvNeXtTiny", "torch", ("convnext_tiny_notop.h5",), (192, 384, 768)),
    Backbone(
        "efficientnetb0",
        "EfficientNetB0",
        "torch",
        ("efficientnetb0_notop.h5",),
        (40, 80, 192),
        # The outputs of blocks 3, 4 and 6: system 001's scales.
        taps=("block3b_add", "block4c_add", "block6d_add"),
    ),
)
BACKBONES = {row.name: row for row in _ROWS}


_TAPS = "_taps"


def get_backbone(name: str) -> Backbone:
    """The row of that name, with or without `_taps`. Raises CardiumError listing the names."""
    plain = name.removesuffix(_TAPS)
    if plain not in BACKBONES:
        raise unknown("backbone", name, sorted(BACKBONES))
    return BACKBONES[plain]


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
    `<backbone>_taps` gives the maps at strides 8, 16 and 32 (EfficientNet-B0: the outputs of blocks 3, 4 and 6) instead,
    resized to the middle one and concatenated: (n, h, w, sum of the row's `tap_widths`). What comes after begins with a 1x1
    convolution of each map, which commutes with bilinear resizing, so that nothing is lost by resizing first.
    Raises CardiumError for an unknown name and for images smaller than `min_side`.
    """
    import keras

    row = get_backbone(name)
    if min(height, width) < row.min_side:
        raise CardiumError(
            f"{name} needs images of at least {row.min_side} pixels a side; render is {height}x{width} (params.yaml)."
        )
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((height, width, 3), name="pixels")
    scheme = row.scaling if scaling == "native" else "unit"
    application = getattr(keras.applications, row.application)
    if row.name in _SCALE_BY_THEMSELVES:
        base = _with_our_scaling(application(include_top=False, weights=None, input_shape=(height, width, 3)), pixels, scheme)
    else:
        base = application(include_top=False, weights=None, input_tensor=scale_pixels(pixels, scheme))
    output = _tapped(base, row) if name.endswith(_TAPS) else base.output
    model = keras.Model(pixels, output, name=name)
    model.trainable = False
    return model


_SCALE_BY_THEMSELVES = ("convnext_tiny", "efficientnetb0")


def _with_our_scaling(base: keras.Model, pixels: Any, scheme: Scaling | Literal["unit"]) -> keras.Model:
    """The same network with `scale_pixels` in place of its own scaling layers, and its small sub-models spelt out.

    Keras builds EfficientNet without ImageNet's deviation unless it also downloads the weights, and keeps its mean in state
    that a plain `set_weights` does not refresh; ConvNeXt holds its stem and its downsampling as models within the model.
    """
    import keras

    def copy(layer: Any) -> Any:
        return layer if isinstance(layer, keras.Sequential) else layer.__class__.from_config(layer.get_config())

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        if isinstance(layer, keras.layers.Rescaling):
            return inputs[0]
        if isinstance(layer, keras.layers.Normalization):
            return scale_pixels(inputs[0], scheme)
        if isinstance(layer, keras.Sequential):
            tensor = inputs[0]
            for part in layer.layers:
                tensor = copy(part)(tensor)
            return tensor
        return layer(*inputs, **options)

    return keras.models.clone_model(base, input_tensors=pixels, clone_function=copy, call_function=call)


def _tapped(base: keras.Model, row: Backbone) -> Any:
    """The three taps of a network, resized to the middle one's resolution and concatenated."""
    import keras

    fine, middle, coarse = tap_outputs(base, row)
    height, width = middle.shape[1:3]
    # Half-pixel centres, as PyTorch's bilinear interpolation without aligned corners.
    resized = [
        keras.layers.Resizing(height, width, interpolation="bilinear", name=f"{which}_resized")(tap)
        for which, tap in (("fine", fine), ("coarse", coarse))
    ]
    return keras.layers.Concatenate(name="taps")([resized[0], middle, resized[1]])


def tap_outputs(base: keras.Model, row: Backbone) -> list[Any]:
    """The three maps that `<backbone>_taps` reads, finest first: tensors (n, h, w, C) of the graph of `base`."""
    import keras

    if row.taps:
        return [base.get_layer(name).output for name in row.taps]
    last: dict[tuple[int, int], Any] = {}
    for operation in base.operations:
        # Padding makes sizes of its own on the way from one resolution to the next.
        if isinstance(operation, keras.layers.InputLayer | keras.layers.ZeroPadding2D):
            continue
        shape = operation.output.shape
        if len(shape) == 4:
            last[shape[1:3]] = operation.output
    return [last[side] for side in sorted(last, key=lambda side: -side[0] * side[1])[-3:]]


def layers_of_backbone(model: keras.Model) -> list[Any]:
    """The application's own layers that hold weights, in graph order: the same order for every build of one backbone.

    `model` is a backbone, a whole model with a frozen backbone, or the application as Keras builds it.
    """
    import keras

    behind = {"scaling"}
    if "embedding" in {layer.name for layer in model.layers}:
        behind |= {layer.name for layer in model.layers if layer.trainable}
    # EfficientNet's own scaling is a layer with weights; ours is not (see build_backbone).
    return [
        layer
        for layer in model.layers
        if layer.weights and layer.name not in behind and not isinstance(layer, keras.layers.Normalization)
    ]
