"""What every model ends in: from a map or a vector to probabilities, under the layer names that explanations look for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# The dense layer behind which probabilities come: of two classes, of more.
LAST = ("score", "probabilities")


def classify_map(feature_map: Any, classes: int, dropout: float, hidden: int = 0) -> Any:
    """From a last map (n, h, w, C) to probabilities (n, classes): global average, dropout, one dense layer.

    hidden: the width of a ReLU layer between the average and the dropout, 0 for none (as system 000).
    The last spatial map is named `cam`, the penultimate vector `embedding`.
    """
    from keras import layers

    cam = layers.Identity(name="cam")(feature_map)
    if not hidden:
        return classify_embedding(layers.GlobalAveragePooling2D(name="embedding")(cam), classes, dropout)
    return classify_vector(layers.GlobalAveragePooling2D(name="average")(cam), classes, dropout, hidden)


def classify_vector(features: Any, classes: int, dropout: float, hidden: int) -> Any:
    """From features (n, F) through a ReLU layer of `hidden` units, the `embedding`, to probabilities (n, classes)."""
    from keras import layers

    return classify_embedding(layers.Dense(hidden, activation="relu", name="embedding")(features), classes, dropout)


def classify_embedding(embedding: Any, classes: int, dropout: float) -> Any:
    """From the penultimate vector (n, F) to probabilities (n, classes): dropout and one dense layer.

    Two classes share one sigmoid unit, whose probability is that of the last class (system 000).
    """
    from keras import layers

    kept = layers.Dropout(dropout, name="dropout")(embedding)
    if classes == 2:
        positive = layers.Dense(1, activation="sigmoid", name="score")(kept)
        negative = layers.Rescaling(-1.0, offset=1.0, name="score_of_first_class")(positive)
        return layers.Concatenate(name="probabilities")([negative, positive])
    return layers.Dense(classes, activation="softmax", name="probabilities")(kept)


def with_temperature(trained: Mapping[str, np.ndarray], temperature: float) -> dict[str, np.ndarray]:
    """Divides a model's logits by `temperature`: the weights of its last dense layer among `trained` (see trained.py)."""
    return {
        name: (value / value.dtype.type(temperature)) if name.rsplit("|", 1)[0] in LAST else value
        for name, value in trained.items()
    }
