"""Layers between a volume's slices (or a sequence's frames) and networks of single images.

Slices are uint8 levels of which 0 is kept for padding: a frame without any level above 0 is none (imaging/volume.py).
Importing this module imports Keras and registers the classes, so that saved models with them can be loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops


@keras.saving.register_keras_serializable(package="cardium")
class FilledFrames(layers.Layer):  # type: ignore[misc]
    """Frames (n, T, ...) -> bool (n, T): which hold anything but zeros."""

    def call(self, frames: Any) -> Any:
        return ops.any(ops.not_equal(frames, 0), axis=tuple(range(2, len(frames.shape))))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape[:2]

    def compute_output_spec(self, frames: Any) -> Any:
        return keras.KerasTensor(frames.shape[:2], dtype="bool")


@keras.saving.register_keras_serializable(package="cardium")
class FramesAsImages(layers.Layer):  # type: ignore[misc]
    """Frames (n, T, h, w) -> images (n * T, h, w, 3), three equal channels."""

    def call(self, frames: Any) -> Any:
        images = ops.reshape(frames, (-1, *frames.shape[2:], 1))
        return ops.repeat(images, 3, axis=-1)

    def compute_output_shape(self, shape: Any) -> Any:
        return (None, *shape[2:], 3)


@keras.saving.register_keras_serializable(package="cardium")
class ImagesAsFrames(layers.Layer):  # type: ignore[misc]
    """Maps of images (n * T, ...) -> of frames (n, T, ...), those of frames without content zero. Inputs: maps, bool (n, T)."""

    def call(self, inputs: Any) -> Any:
        maps, filled = inputs
        frames = ops.reshape(maps, (-1, filled.shape[1], *maps.shape[1:]))
        shape = (-1, filled.shape[1], *(1 for _ in maps.shape[1:]))
        return ops.where(ops.reshape(filled, shape), frames, ops.zeros_like(frames))

    def compute_output_shape(self, shapes: Any) -> Any:
        maps, filled = shapes
        return (filled[0], filled[1], *maps[1:])

    def compute_output_spec(self, inputs: Any) -> Any:
        return keras.KerasTensor(self.compute_output_shape([one.shape for one in inputs]), dtype=inputs[0].dtype)


@keras.saving.register_keras_serializable(package="cardium")
class FrameCNN(layers.Layer):  # type: ignore[misc]
    """Frames (n, T, h, w), 0-255 -> maps (n, T, grid, grid, filters[1]): system 002's network of one frame.

    Each frame for itself: /255, 3x3 convolution, ReLU, 2x2 max pooling, 3x3 convolution, ReLU, average over a grid of cells
    (PyTorch's adaptive pooling: cell i of h places goes from floor(i h / grid) to ceil((i + 1) h / grid)).

    `at_once` frames are in memory at a time, and the backward pass computes them anew: 200 frames of 512x512 would otherwise
    keep several gigabytes of maps for their gradient.
    """

    def __init__(self, filters: Sequence[int] = (8, 16), grid: int = 8, at_once: int = 8, **options: Any) -> None:
        super().__init__(**options)
        self.filters = (int(filters[0]), int(filters[1]))
        self.grid = grid
        self.at_once = at_once

    def build(self, shape: Any) -> None:
        first, second = self.filters
        self.kernel1 = self.add_weight(name="kernel1", shape=(3, 3, 1, first), initializer="glorot_uniform")
        self.bias1 = self.add_weight(name="bias1", shape=(first,), initializer="zeros")
        self.kernel2 = self.add_weight(name="kernel2", shape=(3, 3, first, second), initializer="glorot_uniform")
        self.bias2 = self.add_weight(name="bias2", shape=(second,), initializer="zeros")
        self.rows = _cells(int(shape[2]) // 2, self.grid)
        self.columns = _cells(int(shape[3]) // 2, self.grid)
        self.built = True

    def call(self, frames: Any) -> Any:
        count = ops.shape(frames)[1]
        images = ops.reshape(frames, (-1, *frames.shape[2:], 1))
        weights = [tf.convert_to_tensor(weight) for weight in (self.kernel1, self.bias1, self.kernel2, self.bias2)]
        maps = _in_pieces(self._encode, self.at_once, images, weights)
        return ops.reshape(maps, (-1, count, self.grid, self.grid, self.filters[1]))

    def _encode(self, images: Any, kernel1: Any, bias1: Any, kernel2: Any, bias2: Any) -> Any:
        maps = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(images / 255.0, kernel1, 1, "SAME"), bias1))
        maps = tf.nn.max_pool2d(maps, 2, 2, "VALID")
        maps = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(maps, kernel2, 1, "SAME"), bias2))
        narrow = tf.einsum("nhwc,gh->ngwc", maps, tf.constant(self.rows))
        return tf.einsum("ngwc,kw->ngkc", narrow, tf.constant(self.columns))

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], shape[1], self.grid, self.grid, self.filters[1])

    def compute_output_spec(self, frames: Any) -> Any:
        return keras.KerasTensor(self.compute_output_shape(frames.shape), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": list(self.filters), "grid": self.grid, "at_once": self.at_once}


def _cells(places: int, grid: int) -> np.ndarray:
    """(grid, places) float32: row i averages over its cell."""
    means = np.zeros((grid, places), np.float32)
    for cell in range(grid):
        begin, end = cell * places // grid, -(-(cell + 1) * places // grid)
        means[cell, begin:end] = 1 / (end - begin)
    return means


def _in_pieces(function: Callable[..., Any], at_once: int, images: Any, weights: list[Any]) -> Any:
    """function(images, *weights) of `at_once` images at a time, one after another; the gradient computes each piece anew."""

    def piece_of(all_images: Any, number: Any) -> Any:
        return all_images[number * at_once : (number + 1) * at_once]

    def pieces(all_images: Any) -> Any:
        return (tf.shape(all_images)[0] + at_once - 1) // at_once

    @tf.custom_gradient
    def run(all_images: Any, *held: Any) -> tuple[Any, Callable[[Any], Any]]:
        outputs = tf.TensorArray(tf.float32, size=pieces(all_images), infer_shape=False)

        def forward(number: Any, written: Any) -> tuple[Any, Any]:
            return number + 1, written.write(number, function(piece_of(all_images, number), *held))

        count = pieces(all_images)
        _, outputs = tf.while_loop(lambda number, _: number < count, forward, (0, outputs), parallel_iterations=1)
        shape = function(all_images[:1], *held).shape[1:]
        result = tf.ensure_shape(outputs.concat(), (None, *shape))

        def gradient(upstream: Any) -> tuple[Any, ...]:
            grads = tf.TensorArray(tf.float32, size=count, infer_shape=False)

            def backward(number: Any, written: Any, *sums: Any) -> tuple[Any, ...]:
                piece = piece_of(all_images, number)
                with tf.GradientTape() as tape:
                    tape.watch([piece, *held])
                    value = function(piece, *held)
                of_piece, *of_weights = tape.gradient(value, [piece, *held], output_gradients=piece_of(upstream, number))
                return number + 1, written.write(number, of_piece), *(a + b for a, b in zip(sums, of_weights, strict=True))

            start = (0, grads, *(tf.zeros_like(weight) for weight in held))
            _, grads, *sums = tf.while_loop(lambda number, *_: number < count, backward, start, parallel_iterations=1)
            return tf.ensure_shape(grads.concat(), all_images.shape), *sums

        return result, gradient

    return run(images, *weights)
