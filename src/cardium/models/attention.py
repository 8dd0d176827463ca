"""Attention blocks: each takes the backbone's last map (n, h, w, C) and returns a map of the same shape.

A new block is one function with `@register_block`; it combines with every backbone by name (`<backbone>_<block>`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Block = Callable[[Any], Any]
BLOCKS: dict[str, Block] = {}


def register_block(block: Block) -> Block:
    """Registers a function under its own name as a block."""
    BLOCKS[block.__name__] = block
    return block


@register_block
def spatial(feature_map: Any) -> Any:
    """System 000's spatial attention: one sigmoid map from a 1x1 convolution, multiplied into all channels, no residual."""
    import keras

    attention = keras.layers.Conv2D(1, 1, activation="sigmoid", name="spatial_attention")(feature_map)
    return keras.layers.Multiply(name="spatial_weighted")([feature_map, attention])
