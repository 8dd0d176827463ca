"""What a model's own attention layers say of an input: weights of frames, leads, places, channels or scales.

Read from the layers named `attention`, `attention1` ... and `spatial_attention`, and from the blocks that tell them by
`attention(feature_map)` (models/block_layers.py). They are the model's, not a method's: high attention is not yet importance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cardium.explain.opened_model import Array, OpenedModel

_NAMED = re.compile(r"(.*__)?(attention\d*|spatial_attention)$")

Of = Literal["frames", "leads", "rows", "places", "channels", "scales"]


@dataclass(frozen=True)
class Attention:
    """One layer's weights. of: what they weigh; values: float32, (n, frames), (n, 13), (n, rows), (n, h, w), (n, channels) or
    (n, scales), as the layer gave them (softmax: they add up to 1; sigmoid: each 0-1); of one record without n."""

    layer: str
    of: Of
    values: Array


def attention_of(model: OpenedModel, pixels: Array) -> list[Attention]:
    """The weights of every attention layer for pixels (n, ...); [] of a model without attention.

    Of networks that step through the rows of leads, the weights of a lead's rows are added (`leads`). Of those that step
    through the rows of channels' maps, the weights of a row are added over channels (`rows`, from top to bottom of each lead).
    """
    import keras

    layers, outputs = [], []
    for layer in model.model.layers:
        if _NAMED.match(layer.name) and not isinstance(layer, keras.layers.Dense):
            layers.append((layer, False))
            outputs.append(layer.output)
        elif callable(getattr(layer, "attention", None)):
            layers.append((layer, True))
            outputs.append(layer.input)
    if not outputs:
        return []
    graph = keras.Model(model.model.input, outputs)
    parts: list[list[Any]] = [[] for _ in layers]
    for at in range(0, len(pixels), model.at_once):
        outputs = graph(np.asarray(pixels[at : at + model.at_once], np.float32), training=False)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        for kept, output, (layer, block) in zip(parts, outputs, layers, strict=True):
            kept.append(layer.attention(output) if block else output)
    found = []
    for kept, (layer, block) in zip(parts, layers, strict=True):
        if block and isinstance(kept[0], list | tuple):
            for number in range(len(kept[0])):
                found.append(_named(model, layer, np.concatenate([np.asarray(one[number]) for one in kept]), block))
        else:
            found.append(_named(model, layer, np.concatenate([np.asarray(one) for one in kept]), block))
    return found


def _named(model: OpenedModel, layer: Any, values: NDArray[Any], block: bool) -> Attention:
    """What the weights of a layer are of, by their shape and by what the model reads."""
    values = values.astype(np.float32)
    if values.ndim == 4:
        return Attention(layer.name, "places", values[..., 0])
    if block:
        return Attention(layer.name, "scales" if hasattr(layer, "choose") else "channels", values)
    count = values.shape[1]
    if model.form in ("slices", "volume") and count == model.shape[0]:
        return Attention(layer.name, "frames", values)
    if model.form == "leads" and count == model.shape[0] * model.shape[1]:
        return Attention(layer.name, "leads", values.reshape(len(values), model.shape[0], -1).sum(axis=2))
    if model.form == "leads" and count % (height := model.shape[1] // 4) == 0 and not re.search(r"\d$", layer.name):
        return Attention(layer.name, "rows", values.reshape(len(values), -1, height).sum(axis=1))
    # attention_vgg's: places of a map that has the input's aspect.
    tall = max(1, round((count * model.shape[1] / model.shape[2]) ** 0.5))
    return Attention(layer.name, "places", values.reshape(len(values), tall, -1))
