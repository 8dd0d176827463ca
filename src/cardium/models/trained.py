"""The weights that training changed, by layer name: they move between a head, the whole model and a fold's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import numpy as np


def trained_weights(model: keras.Model) -> dict[str, np.ndarray]:
    """All weights of the layers of `model` that learn, by `<layer>|<number>`, the number counting in `layer.weights`.

    With a layer's trainable weights go those that training moves without a gradient: batch norm's moving statistics, which are
    all that a batch norm without scale and offset has.
    """
    import keras

    def learns(layer: keras.layers.Layer) -> bool:
        return bool(layer.trainable_weights) or (layer.trainable and isinstance(layer, keras.layers.BatchNormalization))

    return {
        f"{layer.name}|{i}": weight.numpy() for layer in model.layers if learns(layer) for i, weight in enumerate(layer.weights)
    }


def set_trained(model: keras.Model, trained: dict[str, np.ndarray]) -> None:
    """Puts what `trained_weights` gave into the layers of the same names of `model`."""
    for name, value in trained.items():
        layer, number = name.rsplit("|", 1)
        model.get_layer(layer).weights[int(number)].assign(value)
