"""Backbones: a table of keras.applications networks -> one flat graph from pixels 0-255 to the last feature map.

A new backbone is one row: its name here, its class in keras.applications, the input scaling that its ImageNet weights were
trained with, the names of its weight files and the channels of its taps. The tests loop over the table and compare each row
with Keras' own network. `<backbone>_taps` is the same network read at its last three resolutions instead of at its end.
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
    """One row: `application` is the class in keras.applications; `min_side` the least input height and width in pixels.

    scales_itself: whether Keras builds the application with scaling layers of its own. `build_backbone` replaces them by
    `scaling`, which computes the same and can be exchanged for `unit`.
    """

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
    scales_itself: bool = False


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
    Backbone(
        "xception", "Xception", "tf", ("xception_weights_tf_dim_ordering_tf_kernels_notop.h5",), (728, 1024, 2048), min_side=71
    ),
    Backbone("convnext_tiny", "ConvNeXtTiny", "torch", ("convnext_tiny_notop.h5",), (192, 384, 768), scales_itself=True),
    Backbone(
        "efficientnetb0",
        "EfficientNetB0",
        "torch",
        ("efficientnetb0_notop.h5",),
        (40, 80, 192),
        # The outputs of blocks 3, 4 and 6: system 001's scales.
        taps=("block3b_add", "block4c_add", "block6d_add"),
        scales_itself=True,
    ),
)
BACKBONES = {row.name: row for row in _ROWS}


_TAPS = "_taps"
# ... or one vector of every slice of a volume.
FRAMES = "_frames"


def get_backbone(name: str) -> Backbone:
    """The row of that name, with or without `_taps`. Raises CardiumError listing the names."""
    plain = name.removesuffix(_TAPS).removesuffix(FRAMES)
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

    row = _fitting(name, height, width)
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((height, width, 3), name="pixels")
    output = _last_map(row, pixels, scaling)
    if name.endswith(_TAPS):
        output = _tapped(keras.Model(pixels, output), row)
    model = keras.Model(pixels, output, name=name)
    model.trainable = False
    return model


def _fitting(name: str, height: int, width: int) -> Backbone:
    row = get_backbone(name)
    if min(height, width) < row.min_side:
        raise CardiumError(
            f"{name} needs images of at least {row.min_side} pixels a side; render is {height}x{width} (params.yaml)."
        )
    return row


def _last_map(row: Backbone, images: Any, scaling: Literal["native", "unit"]) -> Any:
    """The application's last map of a Keras tensor of images (n, h, w, 3), 0-255."""
    import keras

    scheme: Scaling | Literal["unit"] = row.scaling if scaling == "native" else "unit"
    application = getattr(keras.applications, row.application)
    if row.scales_itself:
        base = application(include_top=False, weights=None, input_shape=images.shape[1:])
        return _with_our_scaling(base, images, scheme)
    return application(include_top=False, weights=None, input_tensor=scale_pixels(images, scheme)).output


def build_frame_encoder(
    name: str, frames: int, height: int, width: int, scaling: Literal["native", "unit"] = "native", seed: int = 0
) -> keras.Model:
    """A frozen backbone on every frame: float32 pixels (n, frames, height, width), 0-255 -> vectors (n, frames, C).

    One flat graph. A vector is the average of its frame's last map, `cam` (n, frames, h, w, C); frames without content have
    zeros. Raises as `build_backbone` does.
    """
    import keras
    from keras import layers

    from cardium.models.frame_layers import FilledFrames, FramesAsImages, ImagesAsFrames

    row = _fitting(name, height, width)
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((frames, height, width), name="pixels")
    maps = _last_map(row, FramesAsImages(name="images")(pixels), scaling)
    cam = ImagesAsFrames(name="cam")([maps, FilledFrames(name="filled")(pixels)])
    rows, columns, channels = cam.shape[2:]
    averages = layers.AveragePooling3D((1, rows, columns), name="average_map")(cam)
    model = keras.Model(pixels, layers.Reshape((frames, channels), name="average")(averages), name=f"{name}{FRAMES}")
    model.trainable = False
    return model


def build_image_encoder(
    name: str, height: int, width: int, scaling: Literal["native", "unit"] = "native", seed: int = 0
) -> keras.Model:
    """What `build_frame_encoder` does to one frame: float32 pixels (n, height, width, 3) -> vectors (n, C)."""
    import keras
    from keras import layers

    backbone = build_backbone(name, height, width, scaling, seed)
    model = keras.Model(backbone.input, layers.GlobalAveragePooling2D(name="average")(backbone.output), name=f"{name}{FRAMES}")
    model.trainable = False
    return model


def _with_our_scaling(base: keras.Model, pixels: Any, scheme: Scaling | Literal["unit"]) -> Any:
    """The last map of the same network, `scale_pixels` in place of its own scaling layers, its small sub-models spelt out.

    Keras builds EfficientNet without ImageNet's deviation unless it also downloads the weights, and keeps its mean in state
    that a plain `set_weights` does not refresh; ConvNeXt holds its stem and its downsampling as models within the model.
    """
    import keras

    def copy(layer: Any) -> Any:
        return layer if isinstance(layer, keras.Sequential) else layer.__class__.from_config(layer.get_config())

    # The clone's own output hangs on `pixels` only where they are a model's input, and here they may be slices made images.
    made: list[Any] = []

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        made.append(called(layer, *inputs, **options))
        return made[-1]

    def called(layer: Any, *inputs: Any, **options: Any) -> Any:
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

    keras.models.clone_model(base, input_tensors=pixels, clone_function=copy, call_function=call)
    return made[-1]


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
