"""A trained model opened up for explanations: the score of a class, its gradients at the pixels and at the last maps.

What is explained is a class's log-odds, log p / (1 - p), and not its probability: a confident model's probability has no slope,
and of a probability one does not know what speaks for the class and what against the others. Of two classes it is the
sigmoid's own input. It is computed from what goes into the last activation, where the model has one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cardium.imaging.kinds import family
from cardium.models.classifier import LAST

if TYPE_CHECKING:
    import keras

Array = NDArray[np.float32]

# Values of the inputs that go through a model at once: a batch of images, one volume.
_VALUES = 2**21
_MOST_AT_ONCE = 64
# A member's layers are named `<member>__<layer>` (models/fusion.py).
_CAM = re.compile(r"(.*__)?cam$")
# The least probability whose logarithm is taken, where a model is a mean of probabilities.
_LEAST = 1e-7


class OpenedModel:
    """A model of the zoo and what it reads: `kind` is the rendering (imaging/kinds.py), `area` of an image `whole` or `paper`.

    classes: how many. cams: the names of its last spatial maps: none, one, or one a member of an ensemble or a fused model.
    eager: without tracing, for a few calls of a deep network.
    """

    def __init__(self, model: keras.Model, kind: str, area: str = "whole", *, eager: bool = False) -> None:
        import keras
        import tensorflow as tf

        self.model = model
        self.name = str(model.name)
        self.form = family(kind)
        self.area = area
        self.shape: tuple[int, ...] = tuple(model.input_shape[1:])
        self.classes = int(model.output_shape[-1])
        self.cams = [layer.name for layer in model.layers if _CAM.match(layer.name)]
        before, self._last = _before_activation(model)
        outputs = [before, *(model.get_layer(name).output for name in self.cams)]
        self._graph = keras.Model(model.input, outputs)
        whole = tf.TensorSpec([None, *self.shape], tf.float32)
        numbers = tf.TensorSpec([None], tf.int32)

        def traced(function: Any, *signature: Any) -> Any:
            return function if eager else tf.function(function, input_signature=signature)

        self._forward = traced(self._log_odds_of_all, whole)
        self._at_pixels = traced(self._pixel_gradient, whole, numbers)
        self._at_cams = traced(self._cam_gradients, whole, numbers)

    @property
    def map_places(self) -> int:
        """How many places the largest of the last spatial maps tells apart: 0 without one; of one place, it says nothing."""
        shapes = [tuple(self.model.get_layer(name).output.shape[1:-1]) for name in self.cams]
        return max((int(np.prod([side or 2 for side in shape])) for shape in shapes), default=0)

    @property
    def places(self) -> tuple[int, ...]:
        """The shape of one record's attribution: its input's, without colours."""
        return self.shape[:-1] if self.form == "image" else self.shape

    @property
    def at_once(self) -> int:
        """Inputs that are worked on at the same time."""
        return int(max(1, min(_MOST_AT_ONCE, _VALUES // int(np.prod(self.shape)))))

    def scores(self, pixels: Array, target: NDArray[np.int64]) -> NDArray[np.float64]:
        """The log-odds of each record's class `target` (n,), of pixels (n, ...), 0-255."""
        return self._log_odds(pixels)[np.arange(len(pixels)), target]

    def probabilities(self, pixels: Array) -> NDArray[np.float64]:
        """(n, classes), which add up to 1."""
        odds = self._log_odds(pixels)
        shares: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(odds, -60, 60)))
        return shares / shares.sum(axis=1, keepdims=True)

    def pixel_gradients(self, pixels: Array, target: NDArray[np.int64]) -> Array:
        """The slope of the score at every input value: float32 (n, ...), of the input's shape, colours too."""
        parts = [np.asarray(self._at_pixels(*piece)) for piece in self._pieces(pixels, target)]
        return np.concatenate(parts)

    def cam_gradients(self, pixels: Array, target: NDArray[np.int64]) -> list[tuple[Array, Array]]:
        """Of each map in `cams`: its values and the slope of the score at them, float32 (n, ..., channels) both."""
        parts = [self._at_cams(*piece) for piece in self._pieces(pixels, target)]
        of_maps = []
        for number in range(len(self.cams)):
            values = np.concatenate([np.asarray(part[0][number]) for part in parts])
            of_maps.append((values, np.concatenate([np.asarray(part[1][number]) for part in parts])))
        return of_maps

    def filled(self, pixels: Array) -> NDArray[np.bool_]:
        """Which places hold anything: bool (n, *places). Frames of zeros fill up a short volume, and are none."""
        whole = np.ones((len(pixels), *self.places), np.bool_)
        if self.form in ("slices", "volume"):
            whole &= pixels.any(axis=(2, 3), keepdims=True)
        return whole

    def baseline(self, pixels: Array) -> Array:
        """The input with nothing in it, of the same shape: black (image, leads), the paper's own white, no voltage, air,
        a normal heart's measures.

        Padding frames of volumes stay zero: a network that skips them must go on doing so on the way from one to the other.
        """
        empty = np.zeros_like(pixels)
        if self.form == "image" and self.area == "paper":
            # As imaging/paper.py fills up beside the paper.
            empty += np.percentile(pixels, 90, axis=(1, 2), keepdims=True).astype(np.float32)
        elif self.form == "traces":
            from cardium.imaging.trace_format import MIDDLE

            empty += MIDDLE
        elif self.form == "heart":
            from cardium.imaging.heart_format import normal_levels

            return np.asarray(normal_levels(pixels), np.float32)
        elif self.form in ("slices", "volume"):
            empty += self.filled(pixels)  # Level 1, the darkest; 0 is kept for padding.
        return empty

    def _pieces(self, pixels: Array, target: NDArray[np.int64]) -> list[tuple[Array, NDArray[np.int32]]]:
        size = self.at_once
        chosen = np.asarray(target, np.int32)
        return [(np.asarray(pixels[at : at + size], np.float32), chosen[at : at + size]) for at in range(0, len(pixels), size)]

    def _log_odds(self, pixels: Array) -> NDArray[np.float64]:
        size = self.at_once
        parts = [
            np.asarray(self._forward(np.asarray(pixels[at : at + size], np.float32))) for at in range(0, len(pixels), size)
        ]
        return np.concatenate(parts).astype(np.float64)

    def _log_odds_of_all(self, pixels: Any) -> Any:
        return self._odds(self._outputs(pixels)[0])

    def _outputs(self, pixels: Any) -> list[Any]:
        outputs = self._graph(pixels, training=False)
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]

    def _odds(self, before: Any) -> Any:
        """What goes into the last activation, or the probabilities -> log-odds (n, classes)."""
        import tensorflow as tf

        if self._last is None:
            logits = tf.math.log(tf.maximum(before, _LEAST))
        else:
            logits = tf.matmul(before, tf.convert_to_tensor(self._last.kernel))
            if self._last.use_bias:
                logits += tf.convert_to_tensor(self._last.bias)
            if logits.shape[-1] == 1:  # The sigmoid says the last of two classes.
                return tf.concat([-logits, logits], axis=1)
        # Of each class against all others together.
        others = tf.where(tf.eye(self.classes, dtype=tf.bool)[None], -np.inf, logits[:, None, :])
        return logits - tf.reduce_logsumexp(others, axis=2)

    def _chosen(self, before: Any, target: Any) -> Any:
        import tensorflow as tf

        return tf.reduce_sum(tf.gather(self._odds(before), target, axis=1, batch_dims=1))

    def _pixel_gradient(self, pixels: Any, target: Any) -> Any:
        import tensorflow as tf

        pixels = tf.convert_to_tensor(pixels)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(pixels)
            score = self._chosen(self._outputs(pixels)[0], target)
        return tape.gradient(score, pixels)

    def _cam_gradients(self, pixels: Any, target: Any) -> Any:
        import tensorflow as tf

        pixels = tf.convert_to_tensor(pixels)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(pixels)  # Or nothing behind frozen layers would be recorded.
            before, *maps = self._outputs(pixels)
            score = self._chosen(before, target)
        slopes = tape.gradient(score, maps, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return maps, slopes


def _before_activation(model: keras.Model) -> tuple[Any, Any]:
    """(what goes into the layer whose activation gives the probabilities, that layer); (the probabilities, None) of a mean."""
    import keras

    names = {layer.name for layer in model.layers}
    name = next((name for name in LAST if name in names), model.layers[-1].name)
    layer = model.get_layer(name)
    if isinstance(layer, keras.layers.Dense) and layer.activation.__name__ in ("softmax", "sigmoid"):
        return layer.input, layer
    return model.output, None
