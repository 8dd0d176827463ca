"""The model zoo: a name -> a whole Keras model, or only its head for a bank of feature maps.

A name is `<backbone>[_<block>]`, a frozen backbone with what is trained behind it, `<backbone>_lstm`, the same on every slice
of a volume, or an architecture's.

list_models("*_spatial")
create_model("resnet152v2_spatial", classes=2, height=128, width=128)
create_model("attention_vgg", classes=5, height=64, width=64)
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cardium.errors import CardiumError, first_line, unknown
from cardium.imaging.kinds import family, input_shape
from cardium.models import cine, cnn, fusion, sequence, traces  # noqa: F401  each registers its architectures
from cardium.models.architectures import ARCHITECTURES, build_architecture
from cardium.models.attention import BLOCKS
from cardium.models.backbones import BACKBONES, FRAMES, build_backbone, build_frame_encoder, get_backbone
from cardium.models.classifier import classify_map
from cardium.models.sequence import classify_frames
from cardium.process_environment import check_keras

if TYPE_CHECKING:
    import keras

__all__ = [
    "ModelName",
    "bank_of",
    "create_head",
    "create_model",
    "is_spatial",
    "list_models",
    "load_model",
    "parse_name",
    "reads_rendering",
    "rendering_of",
]


# The block that turns a backbone into an encoder of frames.
_SEQUENCE = "lstm"


@dataclass(frozen=True)
class ModelName:
    """A model's name in its parts: backbone and block (empty for plain transfer), or an architecture alone."""

    backbone: str
    block: str = ""
    architecture: str = ""

    def __str__(self) -> str:
        if self.architecture:
            return self.architecture
        return f"{self.backbone}_{self.block}" if self.block else self.backbone


def list_models(pattern: str = "*") -> list[str]:
    """The names of the zoo that match a shell pattern, sorted: backbones, each with each block, and the architectures."""
    blocks = [*BLOCKS, _SEQUENCE]
    names = [*BACKBONES, *(f"{backbone}_{block}" for backbone in BACKBONES for block in blocks), *ARCHITECTURES]
    return sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))


def parse_name(name: str) -> ModelName:
    """A model's name -> its parts. Raises CardiumError that lists the names of the zoo."""
    if name in ARCHITECTURES:
        return ModelName("", architecture=name)
    if name in BACKBONES:
        return ModelName(name)
    backbone, _, block = name.rpartition("_")
    if backbone in BACKBONES and (block in BLOCKS or block == _SEQUENCE):
        return ModelName(backbone, block)
    raise unknown("model", name, list_models())


def rendering_of(name: str) -> str:
    """The kind of array that the model reads: `image`, `leads`, `traces`, `slices` or `volume`; of several the first."""
    return _renderings(name)[0]


def reads_rendering(name: str, kind: str) -> bool:
    """Whether the model takes arrays of this kind: `slices_published` is of the family `slices`."""
    return family(kind) in _renderings(name)


def _renderings(name: str) -> tuple[str, ...]:
    parts = parse_name(name)
    if parts.architecture:
        return ARCHITECTURES[name].renderings
    return ("slices",) if parts.block == _SEQUENCE else ("image",)


def bank_of(name: str) -> str:
    """The bank that the model's head reads, as `build_backbone` names it; empty for what is trained from the rendering."""
    parts = parse_name(name)
    if parts.architecture:
        return ""
    if parts.block == _SEQUENCE:
        return f"{parts.backbone}{FRAMES}"
    return f"{parts.backbone}_taps" if parts.block and BLOCKS[parts.block].taps else parts.backbone


def is_spatial(name: str) -> bool:
    """Whether the head's output depends on where in the feature map a feature lies.

    False for heads that commute with global average pooling: a plain one, which pools first, and channel attention (`se`).
    Such a head learns the same from the pooled vectors (n, 1, 1, C) as from the maps (n, h, w, C).
    """
    parts = parse_name(name)
    return bool(parts.architecture) or parts.block == _SEQUENCE or (bool(parts.block) and BLOCKS[parts.block].spatial)


def create_model(
    name: str,
    *,
    classes: int,
    height: int,
    width: int,
    scaling: Literal["native", "unit"] = "native",
    dropout: float = 0.5,
    hidden: int = 0,
    seed: int = 0,
    frames: int = 0,
    rendering: str = "",
    padding: Literal["masked", "read"] = "masked",
) -> keras.Model:
    """The whole model: float32 `pixels`, 0-255, -> `probabilities` (n, classes), one flat graph.

    pixels: (n, height, width, 3), or as `imaging.kinds.input_shape` says for other renderings. rendering: the kind, the model's
    first one by default. frames: slices of a volume, leads of a sheet (13 by default). padding: what becomes of empty slices.
    scaling, hidden: of backbones only, an architecture has its own. hidden: the width of a ReLU layer between the average
    over places and the dropout, 0 for none.
    Weights are random, a function of `seed`; `weights.load_weights` puts pretrained ones into the backbone, which is frozen.
    Raises CardiumError for a name that is not in the zoo, for pixels too few for it, and where Keras' settings would change
    the model (`process_environment.check_keras`).
    """
    check_keras()
    import keras

    parts = parse_name(name)
    kind = family(rendering or rendering_of(name))
    if not reads_rendering(name, kind):
        raise CardiumError(f"{name} takes {' or '.join(_renderings(name))}, not {kind}.")
    if parts.architecture:
        keras.utils.set_random_seed(seed)
        pixels = keras.Input(input_shape(kind, height, width, frames), name="pixels")
        outputs = build_architecture(name, pixels, classes, dropout, rendering=kind, padding=padding)
        return keras.Model(pixels, outputs, name=name)
    if parts.block == _SEQUENCE:
        encoder = build_frame_encoder(parts.backbone, frames, height, width, scaling, seed)
        return keras.Model(encoder.input, classify_frames(encoder.output, classes, dropout), name=name)
    backbone = build_backbone(bank_of(name), height, width, scaling, seed)
    outputs = classify_map(_blocked(backbone.output, parts), classes, dropout, hidden)
    return keras.Model(backbone.input, outputs, name=name)


def create_head(
    name: str,
    *,
    classes: int,
    map_shape: tuple[int, ...],
    dropout: float = 0.5,
    hidden: int = 0,
    seed: int = 0,
) -> keras.Model:
    """What comes after the frozen backbone: a map (n, h, w, C) of `bank_of(name)`, float32 -> probabilities (n, classes).

    `<backbone>_lstm` takes vectors of frames (n, T, C), zeros for padding; map_shape is then (T, C).

    Its layers carry the same names as in the whole model, so weights move from one to the other by name.
    Raises CardiumError for an architecture, which has no head, and for a map of another width than the taps'.
    """
    import keras

    parts = parse_name(name)
    if parts.architecture:
        raise CardiumError(f"{name} is trained from its pixels and has no head for a bank: use create_model.")
    keras.utils.set_random_seed(seed)
    feature_map = keras.Input(map_shape, name="feature_map")
    if parts.block == _SEQUENCE:
        return keras.Model(feature_map, classify_frames(feature_map, classes, dropout), name=f"{name}_head")
    outputs = classify_map(_blocked(feature_map, parts), classes, dropout, hidden)
    return keras.Model(feature_map, outputs, name=f"{name}_head")


def _blocked(feature_map: keras.KerasTensor, parts: ModelName) -> keras.KerasTensor:
    """The backbone's map behind its block; the map itself without one."""
    if not parts.block:
        return feature_map
    block, widths = BLOCKS[parts.block], get_backbone(parts.backbone).tap_widths
    if block.taps and feature_map.shape[-1] != sum(widths):
        raise CardiumError(
            f"{parts} reads the taps of {parts.backbone}, {sum(widths)} channels, not a map of {feature_map.shape[-1]}: "
            f"its bank is {parts.backbone}_taps."
        )
    return block.apply(feature_map, widths)


def load_model(path: Path) -> keras.Model:
    """A saved model, for prediction only, in any process: it makes the blocks' own layers known to Keras first.

    Raises CardiumError where Keras' settings would change the model, and for a file that is no model or a damaged one.
    """
    check_keras()
    import keras

    from cardium.models import block_layers, frame_layers  # noqa: F401  register them

    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # zipfile's, h5py's, json's, Keras' own
        raise CardiumError(
            f"{path} is damaged, or no model of this version ({first_line(error)}): have it back with `dvc checkout`, or train "
            "the run again."
        ) from error
