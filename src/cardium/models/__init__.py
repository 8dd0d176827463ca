"""The model zoo: a name `<backbone>[_<block>]` -> a whole Keras model, or only its head for a bank of feature maps.

list_models("*_spatial")
create_model("resnet152v2_spatial", classes=2, height=128, width=128)
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cardium.errors import unknown
from cardium.models.attention import BLOCKS
from cardium.models.backbones import BACKBONES, build_backbone

if TYPE_CHECKING:
    import keras

__all__ = ["ModelName", "create_head", "create_model", "list_models", "parse_name"]


@dataclass(frozen=True)
class ModelName:
    """A model's name in its parts; `block` is empty for plain transfer."""

    backbone: str
    block: str = ""

    def __str__(self) -> str:
        return f"{self.backbone}_{self.block}" if self.block else self.backbone


def list_models(pattern: str = "*") -> list[str]:
    """The names of the zoo that match a shell pattern, sorted."""
    names = [*BACKBONES, *(f"{backbone}_{block}" for backbone in BACKBONES for block in BLOCKS)]
    return sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))


def parse_name(name: str) -> ModelName:
    """A model's name -> its parts. Raises CardiumError that lists the names of the zoo."""
    if name in BACKBONES:
        return ModelName(name)
    backbone, _, block = name.rpartition("_")
    if backbone in BACKBONES and block in BLOCKS:
        return ModelName(backbone, block)
    raise unknown("model", name, list_models())


def classify(feature_map: Any, block: str, classes: int, dropout: float) -> Any:
    """From the backbone's last map to probabilities (n, classes): block, global average, dropout, one dense layer.

    As system 000: no hidden layer; two classes share one sigmoid unit, whose probability is that of the last class.
    The last spatial map is named `cam`, the penultimate vector `embedding`, so that explanations find them by name.
    """
    from keras import layers

    weighted = BLOCKS[block](feature_map) if block else feature_map
    cam = layers.Identity(name="cam")(weighted)
    embedding = layers.GlobalAveragePooling2D(name="embedding")(cam)
    kept = layers.Dropout(dropout, name="dropout")(embedding)
    if classes == 2:
        positive = layers.Dense(1, activation="sigmoid", name="score")(kept)
        negative = layers.Rescaling(-1.0, offset=1.0, name="score_of_first_class")(positive)
        return layers.Concatenate(name="probabilities")([negative, positive])
    return layers.Dense(classes, activation="softmax", name="probabilities")(kept)


def create_model(
    name: str,
    *,
    classes: int,
    height: int,
    width: int,
    scaling: Literal["native", "unit"] = "native",
    dropout: float = 0.5,
    seed: int = 0,
) -> keras.Model:
    """The whole model: float32 pixels (n, height, width, 3), 0-255 -> probabilities (n, classes), one flat graph.

    Weights are random, a function of `seed`; `weights.load_imagenet` puts pretrained ones into the backbone, which is frozen.
    Raises CardiumError for a name that is not in the zoo.
    """
    import keras

    parts = parse_name(name)
    backbone = build_backbone(parts.backbone, height, width, scaling, seed)
    outputs = classify(backbone.output, parts.block, classes, dropout)
    return keras.Model(backbone.input, outputs, name=name)


def create_head(
    name: str, *, classes: int, map_shape: tuple[int, int, int], dropout: float = 0.5, seed: int = 0
) -> keras.Model:
    """What comes after the frozen backbone: its last map (n, h, w, C), float32 -> probabilities (n, classes).

    Its layers carry the same names as in the whole model, so weights move from one to the other by name.
    """
    import keras

    keras.utils.set_random_seed(seed)
    feature_map = keras.Input(map_shape, name="feature_map")
    outputs = classify(feature_map, parse_name(name).block, classes, dropout)
    return keras.Model(feature_map, outputs, name=f"{name}_head")
