"""Attention blocks: each takes the backbone's last map (n, h, w, C), or its taps, and returns a map (n, h, w, D).

A new block is one function with `@register_block()`; it combines with every backbone by name (`<backbone>_<block>`).
Blocks that are more than a chain of Keras' layers are layers of their own, in `block_layers.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Block:
    """`apply(feature_map, widths)` -> map; widths: the channels of the taps, if `taps`: then it reads `<backbone>_taps`.

    spatial: whether its output depends on where in the map a feature lies. If not, it commutes with global average pooling:
    the average of its map is the block applied to the map's average.
    """

    apply: Callable[[Any, tuple[int, ...]], Any]
    taps: bool
    spatial: bool = True


BLOCKS: dict[str, Block] = {}


def register_block(*, taps: bool = False, spatial: bool = True) -> Callable[[Callable[[Any, tuple[int, ...]], Any]], Any]:
    """Registers a function under its own name as a block."""

    def register(apply: Callable[[Any, tuple[int, ...]], Any]) -> Any:
        BLOCKS[apply.__name__] = Block(apply, taps, spatial)
        return apply

    return register


@register_block()
def spatial(feature_map: Any, _: tuple[int, ...] = ()) -> Any:
    """System 000's spatial attention: one sigmoid map from a 1x1 convolution, multiplied into all channels, no residual."""
    import keras

    attention = keras.layers.Conv2D(1, 1, activation="sigmoid", name="spatial_attention")(feature_map)
    return keras.layers.Multiply(name="spatial_weighted")([feature_map, attention])


@register_block(spatial=False)
def se(feature_map: Any, _: tuple[int, ...] = ()) -> Any:
    """Channel attention of system 001: squeeze and excitation, ratio 16 (Hu et al., arXiv:1709.01507)."""
    from cardium.models.block_layers import SqueezeExcitation

    return SqueezeExcitation(ratio=16, name="se")(feature_map)


@register_block()
def cbam(feature_map: Any, _: tuple[int, ...] = ()) -> Any:
    """System 001's CBAM: channels (ratio 16), then places (7x7) (Woo et al., arXiv:1807.06521)."""
    from cardium.models.block_layers import ChannelSpatialAttention

    return ChannelSpatialAttention(ratio=16, kernel=7, name="cbam")(feature_map)


@register_block()
def bottleneck(feature_map: Any, _: tuple[int, ...] = ()) -> Any:
    """System 001's bottleneck: 1x1 to 256 channels, batch norm, ReLU, 3x3 to 1024."""
    from cardium.models.block_layers import Bottleneck

    return Bottleneck(narrow=256, wide=1024, name="bottleneck")(feature_map)


@register_block(taps=True)
def msa(feature_map: Any, widths: tuple[int, ...]) -> Any:
    """System 001's multi-scale attention over the three taps: each 1x1 to 256, one weight per scale."""
    from cardium.models.block_layers import MultiScaleAttention

    return MultiScaleAttention(widths=widths, filters=256, hidden=64, name="msa")(feature_map)
