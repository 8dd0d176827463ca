"""Convolutional networks of their own: systems 001 and 004 on whole sheets, system 003 on the thirteen leads of a sheet.

Of each, `cam` is the map of the last convolution, before any pooling behind it, where it is finest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cardium.models.architectures import register_architecture
from cardium.models.classifier import classify_embedding, classify_vector

# Mean and deviation of the `leads` rendering (0-255), measured at 64x64 on 49 sheets of both collections (14.8, 47.6), so
# that a network begins with values about zero as with system 003's global z-score. Constants, and not statistics of the
# training set: a model scales alike in every fold.
LEADS_MEAN, LEADS_STD = 15.0, 48.0
# PyTorch's batch norm, where the published systems come from: a run has too few steps for Keras' momentum of 0.99.
_NORM = {"momentum": 0.9, "epsilon": 1e-5}


def scale_leads(pixels: Any) -> Any:
    """Pixels of leads (n, 13, h, w), 0-255 -> the same about zero: (x - mean) / std with fixed constants."""
    from keras import layers

    return layers.Rescaling(1 / LEADS_STD, offset=-LEADS_MEAN / LEADS_STD, name="scaling")(pixels)


def leads_as_channels(pixels: Any) -> Any:
    """Pixels of leads (n, 13, h, w) -> scaled, (n, h, w, 13)."""
    from keras import layers

    return layers.Permute((2, 3, 1), name="leads_last")(scale_leads(pixels))


@register_architecture("image", min_side=8)
def cnn_baseline(pixels: Any, classes: int, dropout: float) -> Any:
    """System 001's baseline: 3 x (convolution, batch norm, ReLU, max pooling), 32/64/128 filters, average, one dense layer."""
    from keras import layers

    tensor = layers.Rescaling(1 / 255, name="scaling")(pixels)
    for number, filters in enumerate((32, 64, 128), start=1):
        tensor = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{number}")(tensor)
        tensor = layers.BatchNormalization(**_NORM, name=f"norm{number}")(tensor)
        tensor = layers.ReLU(name=f"relu{number}")(tensor)
        if number < 3:
            tensor = layers.MaxPooling2D(name=f"pool{number}")(tensor)
    tensor = layers.Identity(name="cam")(tensor)
    pooled = layers.MaxPooling2D(name="pool3")(tensor)
    return classify_embedding(layers.GlobalAveragePooling2D(name="embedding")(pooled), classes, dropout)


@register_architecture("image", min_side=8)
def cnn_custom(pixels: Any, classes: int, dropout: float) -> Any:
    """System 004's own network: convolutions of 32/64/128 3x3 filters, ReLU, max pooling; dense 128; dropout; softmax.

    White paper is 0 and ink is up to 1. With paper at 1, whatever the sheet, the dense layer's first steps follow the paper
    alone and most of its units never fire again: on real sheets it then answers one class for all (docs/results.md).
    """
    from keras import layers

    scaled = layers.Rescaling(-1 / 255, offset=1.0, name="scaling")(pixels)
    return classify_vector(layers.Flatten(name="flat")(_convolved(scaled, (32, 64, 128))), classes, dropout, 128)


@register_architecture("leads", min_side=8)
def cnn2d(pixels: Any, classes: int, dropout: float) -> Any:
    """System 003's cnn2d, leads as channels: convolution 64, pooling, convolution 128, pooling, dense 64."""
    from keras import layers

    return classify_vector(layers.Flatten(name="flat")(extract_cnn2d(pixels)), classes, dropout, 64)


def extract_cnn2d(pixels: Any) -> Any:
    """What cnn2d and hybrid begin with: leads (n, 13, h, w) -> (n, h/4, w/4, 128)."""
    return _convolved(leads_as_channels(pixels), (64, 128))


def _convolved(tensor: Any, filters: Sequence[int]) -> Any:
    """Convolutions 3x3 with ReLU, each followed by 2x2 max pooling; the last one's map is named `cam`."""
    from keras import layers

    for number, width in enumerate(filters, start=1):
        tensor = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"conv{number}")(tensor)
        if number == len(filters):
            tensor = layers.Identity(name="cam")(tensor)
        tensor = layers.MaxPooling2D(name=f"pool{number}")(tensor)
    return tensor


@register_architecture("leads", "volume", min_side=8, options=("rendering",))
def cnn3d(pixels: Any, classes: int, dropout: float, rendering: str = "leads") -> Any:
    """System 003's cnn3d, leads (or a volume's slices) as depth: five convolutions, kernels 3, 3, 2, 2, 2, padding 1, each
    ReLU and pooling 2."""
    from keras import layers

    scaled = scale_leads(pixels) if rendering == "leads" else layers.Rescaling(1 / 128, offset=-1.0, name="scaling")(pixels)
    tensor = layers.Reshape((*pixels.shape[1:], 1), name="depth")(scaled)
    for number, (filters, kernel) in enumerate(((64, 3), (128, 3), (256, 2), (512, 2), (512, 2)), start=1):
        # PyTorch's padding of 1 lets a map grow by one under a kernel of 2.
        tensor = layers.ZeroPadding3D(1, name=f"pad{number}")(tensor)
        tensor = layers.Conv3D(filters, kernel, activation="relu", name=f"conv{number}")(tensor)
        if number == 5:
            tensor = layers.Identity(name="cam")(tensor)
        tensor = layers.MaxPooling3D(name=f"pool{number}")(tensor)
    dense = layers.Dense(128, activation="relu", name="dense")(layers.Flatten(name="flat")(tensor))
    return classify_vector(dense, classes, dropout, 64)


@register_architecture("leads", min_side=8)
def time_distributed_cnn(pixels: Any, classes: int, dropout: float) -> Any:
    """System 003's time_distributed_cnn, one lead a step: each through the same convolutions 64 and 128; dense 64."""
    from keras import layers

    steps = convolved_steps(layers.Reshape((*pixels.shape[1:], 1), name="steps")(scale_leads(pixels)), (64, 128))
    return classify_vector(layers.Flatten(name="flat")(steps), classes, dropout, 64)


def convolved_steps(steps: Any, filters: Sequence[int]) -> Any:
    """Steps (n, T, h, w, C), each through the same 3x3 convolutions with ReLU and 2x2 max pooling.

    A kernel of one step's depth is what sharing a layer over time comes to, in one operation. The last convolution's map
    (n, T, h', w', filters) is named `cam`.
    """
    from keras import layers

    for number, width in enumerate(filters, start=1):
        steps = layers.Conv3D(width, (1, 3, 3), padding="same", activation="relu", name=f"conv{number}")(steps)
        if number == len(filters):
            steps = layers.Identity(name="cam")(steps)
        steps = layers.MaxPooling3D((1, 2, 2), name=f"pool{number}")(steps)
    return steps


@register_architecture("leads", min_side=32)
def attention_vgg(pixels: Any, classes: int, dropout: float) -> Any:
    """System 003's attention_vgg, leads as channels: three scales, each weighted by what the whole has found.

    Jetley et al.: Learn to Pay Attention, arXiv:1804.02391, in its variant of attention before pooling. Layers `attention1`
    to `attention3` give the weights (n, h * w) of each scale's places, which add up to 1.
    """
    from keras import layers

    tensor = leads_as_channels(pixels)
    local = []
    blocks = ((64, 2, 0), (128, 2, 0), (256, 3, 1), (512, 3, 2), (512, 3, 3))
    for number, (filters, repeats, scale) in enumerate(blocks, start=1):
        for repeat in range(1, repeats + 1):
            tensor = _conv_norm_relu(tensor, filters, f"block{number}_{repeat}")
        if scale:
            local.append(tensor)
            tensor = layers.MaxPooling2D(name=f"pool{scale}")(tensor)
    tensor = layers.MaxPooling2D(name="pool4")(_conv_norm_relu(tensor, 512, "block6_1"))
    tensor = layers.Identity(name="cam")(_conv_norm_relu(tensor, 512, "block6_2"))
    tensor = layers.MaxPooling2D(name="pool5")(tensor)
    whole = layers.Conv2D(512, tensor.shape[1:3], name="global")(tensor)

    local[0] = layers.Conv2D(512, 1, use_bias=False, name="project1")(local[0])
    attended = [_attended(one, whole, number) for number, one in enumerate(local, start=1)]
    return classify_embedding(layers.Concatenate(name="embedding")(attended), classes, dropout)


def _conv_norm_relu(tensor: Any, filters: int, name: str) -> Any:
    from keras import layers

    tensor = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(tensor)
    tensor = layers.BatchNormalization(**_NORM, name=f"{name}_norm")(tensor)
    return layers.ReLU(name=f"{name}_relu")(tensor)


def _attended(local: Any, whole: Any, number: int) -> Any:
    """Local features (n, h, w, 512) weighted by their agreement with the global ones (n, 1, 1, 512) and summed: (n, 512)."""
    from keras import layers

    height, width, channels = local.shape[1:]
    both = layers.Add(name=f"compatibility{number}")([local, whole])
    scores = layers.Conv2D(1, 1, use_bias=False, name=f"score{number}")(both)
    weights = layers.Softmax(name=f"attention{number}")(layers.Reshape((height * width,), name=f"places{number}")(scores))
    places = layers.Reshape((height * width, channels), name=f"local{number}")(local)
    return layers.Dot(axes=1, name=f"attended{number}")([weights, places])
