"""Several trained models as one flat graph: their features fused behind one new head (system 004), or their mean (000, 004)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from cardium.errors import CardiumError, unknown
from cardium.models.architectures import register_architecture
from cardium.models.classifier import classify_vector

if TYPE_CHECKING:
    import keras
    import numpy as np

# System 004's members, each with the width of its hidden layer (0: the architecture's own).
FUSED_MEMBERS = {"cnn_custom": 0, "mobilenetv2": 128, "vgg16": 256}


def create_fusion(
    members: Sequence[keras.Model],
    *,
    names: Sequence[str] = (),
    mode: Literal["features", "average"],
    classes: int,
    dropout: float = 0.5,
    hidden: int = 256,
    seed: int = 0,
) -> keras.Model:
    """Trained members, frozen, in one flat graph: the members' `pixels` -> `probabilities` (n, classes).

    features: the members' `embedding`s side by side -> dense `hidden` -> dropout -> softmax; what is behind them is new and
    random, a function of `seed`; `create_fusion_head` makes it alone. average: the mean of the members' probabilities.
    names: what the members are called, their models' own names if empty. Their layers keep their weights, and their names
    behind the member's, as `prefixed` puts them.
    Raises CardiumError for an unknown mode, for fewer than two members, and for members of different inputs.
    """
    import keras

    if mode not in ("features", "average"):
        raise unknown("fusion", mode, ["features", "average"])
    keras.utils.set_random_seed(seed)
    pixels = keras.Input(members[0].input_shape[1:] if members else (), name="pixels")
    if mode == "features":
        outputs = _fused_features(pixels, members, names, classes, dropout, hidden)
    else:
        merged = merge_members(pixels, members, names)
        outputs = keras.layers.Average(name="probabilities")([copy.output for copy in merged])
    return keras.Model(pixels, outputs, name="fused" if mode == "features" else "average")


def create_fusion_head(
    widths: Sequence[int], *, classes: int, dropout: float = 0.5, hidden: int = 256, seed: int = 0
) -> keras.Model:
    """What `create_fusion` trains: the members' embeddings side by side (n, sum of widths) -> probabilities (n, classes).

    Its layers carry the same names as in the whole model, so weights move from one to the other by name.
    """
    import keras

    keras.utils.set_random_seed(seed)
    features = keras.Input((sum(widths),), name="features")
    return keras.Model(features, classify_vector(features, classes, dropout, hidden), name="fused_head")


def prefixed(member: str, layer: str) -> str:
    """The name that a member's layer (or `<layer>|<number>`, see trained.py) has in the fused model."""
    return f"{member}__{layer}"


def weights_in_fusion(fused: keras.Model, member: str, trained: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a member has learnt (see trained.py), under the names that it has in `fused`, for `set_trained(fused, ...)`.

    Without the layers behind the member's embedding, which a fusion of features leaves out.
    """
    there = {layer.name for layer in fused.layers}
    named = {prefixed(member, key): value for key, value in trained.items()}
    return {key: value for key, value in named.items() if key.rsplit("|", 1)[0] in there}


def merge_members(pixels: Any, members: Sequence[keras.Model], names: Sequence[str] = ()) -> list[keras.Model]:
    """Frozen copies of the members on one input `pixels`, with their weights, layers named by `prefixed`.

    A name that comes again gets a number: `mobilenetv2__cam`, `mobilenetv2_2__cam`.
    Raises CardiumError for fewer than two members and for members of another input.
    """
    if len(members) < 2:
        raise CardiumError(f"A fusion takes two members or more, not {len(members)}: name them in params.yaml.")
    called = list(names) or [member.name for member in members]
    merged = []
    for number, (member, name) in enumerate(zip(members, called, strict=True)):
        if member.input_shape != pixels.shape:
            raise CardiumError(
                f"{name} reads pixels {member.input_shape[1:]}, {called[0]} {pixels.shape[1:]}: "
                "members must share one rendering; train them again with the same `render`."
            )
        again = called[:number].count(name)
        merged.append(_renamed(pixels, member, f"{name}_{again + 1}" if again else name))
    return merged


def _renamed(pixels: Any, member: keras.Model, name: str) -> keras.Model:
    """A frozen copy of `member` on `pixels`, with its weights, its layers named behind `name`."""
    import keras

    def copy(operation: Any) -> Any:
        configuration = operation.get_config()
        return operation.__class__.from_config({**configuration, "name": prefixed(name, configuration["name"])})

    merged = keras.models.clone_model(member, input_tensors=pixels, clone_function=copy)
    for layer in member.layers:
        if layer.weights:
            merged.get_layer(prefixed(name, layer.name)).set_weights(layer.get_weights())
    merged.trainable = False
    return merged


def _fused_features(
    pixels: Any, members: Sequence[keras.Model], names: Sequence[str], classes: int, dropout: float, hidden: int
) -> Any:
    from keras import layers

    merged = merge_members(pixels, members, names)
    embeddings = [next(layer.output for layer in copy.layers if layer.name.endswith("__embedding")) for copy in merged]
    return classify_vector(layers.Concatenate(name="features")(embeddings), classes, dropout, hidden)


@register_architecture("image", min_side=32, cam=False)
def fused(pixels: Any, classes: int, dropout: float) -> Any:
    """System 004's fused model with members that have learnt nothing: its form. The trained one is made by `create_fusion`."""
    from cardium.models import create_model

    height, width = pixels.shape[1:3]
    members = [
        create_model(name, classes=classes, height=height, width=width, dropout=dropout, hidden=hidden)
        for name, hidden in FUSED_MEMBERS.items()
    ]
    return _fused_features(pixels, members, (), classes, dropout, 256)
