"""The attention blocks that are layers of their own; each tells its weights of one map by `attention(feature_map)`.

Importing this module imports Keras and registers the classes, so that saved models with a block can be loaded.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="cardium")
class SqueezeExcitation(layers.Layer):  # type: ignore[misc]
    """Map (n, h, w, C) -> the same, each channel weighted: average over places -> C/ratio, ReLU -> C, sigmoid.

    Hu, Shen, Sun: Squeeze-and-Excitation Networks, arXiv:1709.01507.
    """

    def __init__(self, ratio: int = 16, **options: Any) -> None:
        super().__init__(**options)
        self.ratio = ratio

    def build(self, shape: tuple[int | None, ...]) -> None:
        channels = int(shape[-1] or 0)
        narrow = max(1, channels // self.ratio)
        self.squeeze = layers.Dense(narrow, activation="relu", name="squeeze")
        self.excite = layers.Dense(channels, activation="sigmoid", name="excite")
        self.squeeze.build((None, channels))
        self.excite.build((None, narrow))
        self.built = True

    def attention(self, feature_map: Any) -> Any:
        """The weight of each channel, (n, C), 0-1."""
        return self.excite(self.squeeze(ops.mean(feature_map, axis=(1, 2))))

    def call(self, feature_map: Any) -> Any:
        return feature_map * self.attention(feature_map)[:, None, None, :]

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ratio": self.ratio}


@keras.saving.register_keras_serializable(package="cardium")
class ChannelSpatialAttention(layers.Layer):  # type: ignore[misc]
    """Map (n, h, w, C) -> the same, weighted by channel and then by place: the convolutional block attention module.

    Channels: average and maximum over places go through one shared C/ratio -> C network and are added before the sigmoid.
    Places: average and maximum over the weighted channels -> one kernel x kernel filter without bias -> sigmoid.
    Woo, Park, Lee, Kweon: CBAM, arXiv:1807.06521, equations 2 and 3.
    """

    def __init__(self, ratio: int = 16, kernel: int = 7, **options: Any) -> None:
        super().__init__(**options)
        self.ratio = ratio
        self.kernel = kernel

    def build(self, shape: tuple[int | None, ...]) -> None:
        channels = int(shape[-1] or 0)
        narrow = max(1, channels // self.ratio)
        self.squeeze = layers.Dense(narrow, activation="relu", name="squeeze")
        self.excite = layers.Dense(channels, name="excite")
        self.place = layers.Conv2D(1, self.kernel, padding="same", activation="sigmoid", use_bias=False, name="place")
        self.squeeze.build((None, channels))
        self.excite.build((None, narrow))
        self.place.build((None, None, None, 2))
        self.built = True

    def attention(self, feature_map: Any) -> tuple[Any, Any]:
        """The weights of the channels (n, C) and of the places (n, h, w, 1), 0-1."""
        average = self.excite(self.squeeze(ops.mean(feature_map, axis=(1, 2))))
        maximum = self.excite(self.squeeze(ops.max(feature_map, axis=(1, 2))))
        channels = ops.sigmoid(average + maximum)
        weighted = feature_map * channels[:, None, None, :]
        described = ops.concatenate(
            [ops.mean(weighted, axis=3, keepdims=True), ops.max(weighted, axis=3, keepdims=True)], axis=3
        )
        return channels, self.place(described)

    def call(self, feature_map: Any) -> Any:
        channels, places = self.attention(feature_map)
        return feature_map * channels[:, None, None, :] * places

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ratio": self.ratio, "kernel": self.kernel}


@keras.saving.register_keras_serializable(package="cardium")
class Bottleneck(layers.Layer):  # type: ignore[misc]
    """Map (n, h, w, C) -> (n, h, w, wide): 1x1 to `narrow` channels, batch norm, ReLU, 3x3 to `wide`. No attention in it."""

    def __init__(self, narrow: int = 256, wide: int = 1024, **options: Any) -> None:
        super().__init__(**options)
        self.narrow = narrow
        self.wide = wide

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.reduce = layers.Conv2D(self.narrow, 1, use_bias=False, name="reduce")
        # PyTorch's batch norm, where the published system comes from: a run has too few steps for Keras' momentum of 0.99.
        self.norm = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="norm")
        self.expand = layers.Conv2D(self.wide, 3, padding="same", name="expand")
        self.reduce.build(shape)
        self.norm.build((*shape[:-1], self.narrow))
        self.expand.build((*shape[:-1], self.narrow))
        self.built = True

    def call(self, feature_map: Any, training: bool | None = None) -> Any:
        return self.expand(ops.relu(self.norm(self.reduce(feature_map), training=training)))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.wide)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "narrow": self.narrow, "wide": self.wide}


@keras.saving.register_keras_serializable(package="cardium")
class MultiScaleAttention(layers.Layer):  # type: ignore[misc]
    """Taps (n, h, w, sum of widths) -> (n, h, w, filters): each tap 1x1 to `filters`, then added with one weight per scale.

    The weights: averages over places of all scales -> `hidden`, ReLU -> softmax over the scales (system 001, figure 3).
    """

    def __init__(self, widths: tuple[int, ...], filters: int = 256, hidden: int = 64, **options: Any) -> None:
        super().__init__(**options)
        self.widths = tuple(widths)
        self.filters = filters
        self.hidden = hidden

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.project = [layers.Conv2D(self.filters, 1, name=f"project{i}") for i in range(len(self.widths))]
        self.compare = layers.Dense(self.hidden, activation="relu", name="compare")
        self.choose = layers.Dense(len(self.widths), activation="softmax", name="choose")
        for layer, width in zip(self.project, self.widths, strict=True):
            layer.build((*shape[:-1], width))
        self.compare.build((None, self.filters * len(self.widths)))
        self.choose.build((None, self.hidden))
        self.built = True

    def _projected(self, taps: Any) -> list[Any]:
        starts = [sum(self.widths[:i]) for i in range(len(self.widths))]
        parts = [taps[..., start : start + width] for start, width in zip(starts, self.widths, strict=True)]
        return [layer(part) for layer, part in zip(self.project, parts, strict=True)]

    def _weights(self, maps: list[Any]) -> Any:
        return self.choose(self.compare(ops.concatenate([ops.mean(one, axis=(1, 2)) for one in maps], axis=1)))

    def attention(self, taps: Any) -> Any:
        """The weight of each scale, finest first, (n, scales); they add up to 1."""
        return self._weights(self._projected(taps))

    def call(self, taps: Any) -> Any:
        maps = self._projected(taps)
        weights = self._weights(maps)
        return sum(one * weights[:, i, None, None, None] for i, one in enumerate(maps))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "widths": self.widths, "filters": self.filters, "hidden": self.hidden}
