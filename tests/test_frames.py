"""Networks of volumes: what they compute against plain Keras, masks, the bank of slices against the whole model."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from cardium import models
from cardium.errors import CardiumError
from cardium.models import backbones, weights
from cardium.models.frame_layers import FilledFrames, FrameCNN, FramesAsImages, ImagesAsFrames
from cardium.models.trained import set_trained, trained_weights
from cardium.training import bank


def volumes(count: int, frames: int, height: int, width: int, filled: list[int]) -> np.ndarray:
    """uint8 slices 1-255 with frames of zeros behind `filled` ones."""
    slices = np.random.default_rng(3).integers(1, 256, (count, frames, height, width), dtype=np.uint8)
    for number, last in enumerate(filled):
        slices[number, last:] = 0
    return slices


def adaptive_average(maps: np.ndarray, grid: int) -> np.ndarray:
    """PyTorch's AdaptiveAvgPool2d, cell by cell."""
    n, h, w, c = maps.shape
    out = np.zeros((n, grid, grid, c))
    for i in range(grid):
        for j in range(grid):
            rows = slice(int(np.floor(i * h / grid)), int(np.ceil((i + 1) * h / grid)))
            columns = slice(int(np.floor(j * w / grid)), int(np.ceil((j + 1) * w / grid)))
            out[:, i, j] = maps[:, rows, columns].mean(axis=(1, 2))
    return out


@pytest.mark.parametrize(("height", "width"), [(32, 32), (22, 38)])
def test_the_frame_network_is_what_keras_own_layers_compute(height: int, width: int) -> None:
    frames = volumes(2, 5, height, width, [5, 2]).astype("float32")
    layer = FrameCNN((8, 16), grid=8, at_once=3)
    found = layer(frames)
    plain = keras.Sequential(
        [
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
        ]
    )
    images = frames.reshape(-1, height, width, 1)
    plain(images)
    plain.set_weights(layer.get_weights())
    wanted = adaptive_average(plain(images).numpy(), 8).reshape(found.shape)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_gradients_computed_anew_are_those_of_the_whole(at_once: int) -> None:
    frames = tf.constant(volumes(2, 5, 16, 20, [5, 4]).astype("float32"))
    layer = FrameCNN((3, 4), grid=4, at_once=at_once)
    layer(frames)
    weighted = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 4, 4, 4)).astype("float32"))

    def gradients(compute):
        with tf.GradientTape() as tape:
            tape.watch(frames)
            loss = tf.reduce_sum(weighted * compute(frames))
        return tape.gradient(loss, [frames, *layer.trainable_variables])

    whole = gradients(
        lambda x: tf.reshape(layer._encode(tf.reshape(x, (-1, 16, 20, 1)), *[w.value for w in layer.weights]), (2, 5, 4, 4, 4))
    )
    # Traced, as Keras trains.
    for found, wanted in zip(tf.function(gradients)(layer), whole, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_masked_padding_changes_nothing_and_read_padding_does() -> None:
    slices = volumes(2, 9, 16, 16, [4, 4]).astype("float32")
    for name, padding, same in (
        ("cnn_lstm", "masked", True),
        ("cnn_lstm", "read", False),
        ("mobilenetv2_lstm", "masked", True),
    ):
        side = 32 if name == "mobilenetv2_lstm" else 16
        given = np.repeat(np.repeat(slices, side // 16, axis=2), side // 16, axis=3)
        answers = []
        for frames in (9, 4):
            model = models.create_model(name, classes=3, height=side, width=side, frames=frames, seed=2, padding=padding)
            answers.append(model(given[:, :frames]).numpy())
        assert np.allclose(*answers, atol=1e-6) is same, (name, padding)


def test_the_last_step_is_read_in_the_order_of_the_slices() -> None:
    slices = volumes(1, 5, 16, 16, [5]).astype("float32")
    model = models.create_model("cnn_lstm", classes=3, height=16, width=16, frames=5, seed=2)
    assert not np.allclose(model(slices), model(slices[:, ::-1]), atol=1e-5)


def test_filled_frames_are_those_with_anything_in_them() -> None:
    slices = volumes(3, 4, 8, 8, [4, 2, 0])
    slices[0, 1] = 0
    slices[0, 1, 3, 3] = 1
    wanted = slices.reshape(3, 4, -1).max(axis=2) > 0
    np.testing.assert_array_equal(FilledFrames()(slices.astype("float32")), wanted)


def test_frames_become_images_and_come_back() -> None:
    slices = volumes(2, 3, 8, 10, [3, 1]).astype("float32")
    images = FramesAsImages()(slices)
    assert images.shape == (6, 8, 10, 3)
    back = ImagesAsFrames()([images, FilledFrames()(slices)])
    np.testing.assert_array_equal(back[..., 0], slices)


@pytest.mark.parametrize("name", ["vgg16", "convnext_tiny"])
def test_a_bank_of_slices_and_its_head_say_what_the_whole_model_says(name: str, tmp_path: Path) -> None:
    side, frames = 32, 4
    slices = volumes(3, frames, side, side, [4, 2, 3])
    encoder = backbones.build_image_encoder(name, side, side, seed=7)
    plan = bank.BankPlan("m", "p", f"{name}_frames", "native", side, side, "random", "", 7, 0, {}, "")
    frozen = bank.FrozenBackbone(encoder, weights.WeightsUsed("", "random"), 3, "tensorflow")
    filled = bank.fill_bank(tmp_path, plan, frozen, slices, np.arange(3))
    assert filled.map_shape == (frames, encoder.output_shape[-1])
    vectors = filled.view(0)
    assert not vectors[1, 2:].any()
    assert vectors[1, :2].any()

    whole = models.create_model(f"{name}_lstm", classes=3, height=side, width=side, frames=frames, seed=7)
    assert models.bank_of(f"{name}_lstm") == f"{name}_frames"
    head = models.create_head(f"{name}_lstm", classes=3, map_shape=filled.map_shape, seed=9)
    set_trained(whole, trained_weights(head))
    np.testing.assert_allclose(head(vectors.astype("float32")), whole(slices.astype("float32")), atol=2e-3)
    assert whole.get_layer("cam").output.shape[1] == frames
    for layer in whole.layers:
        assert not isinstance(layer, keras.Model | keras.layers.Lambda), layer.name
    whole.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(models.load_model(tmp_path / "model.keras")(slices), whole(slices))


def test_accumulated_gradients_are_one_step_of_the_larger_batch() -> None:
    from cardium.training.fit import Optimization, _optimizer

    inputs = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    labels = np.array([0, 1, 1, 0])
    learnt = []
    for accumulate, batch in ((4, 1), (1, 4)):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), layers.Dense(2, activation="softmax")])
        model.compile(_optimizer(0.1, Optimization("sgd", accumulate=accumulate)), "sparse_categorical_crossentropy")
        for start in range(0, 4, batch):
            model.train_on_batch(inputs[start : start + batch], labels[start : start + batch])
        learnt.append(model.get_weights())
    for one, other in zip(*learnt, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_model_is_refused_a_rendering_that_it_does_not_take() -> None:
    assert models.reads_rendering("cnn_lstm", "slices_published")
    assert models.reads_rendering("cnn3d", "volume")
    assert models.reads_rendering("cnn3d", "leads")
    with pytest.raises(CardiumError, match="cnn_lstm takes slices, not image"):
        models.create_model("cnn_lstm", classes=3, height=16, width=16, rendering="image")
    with pytest.raises(CardiumError, match="at least 32 pixels"):
        models.create_model("mobilenetv2_lstm", classes=3, height=16, width=16, frames=2)


def test_the_zoo_has_every_backbone_on_slices() -> None:
    assert models.list_models("*_lstm") == sorted(
        [*(f"{name}_lstm" for name in backbones.BACKBONES), "attention_lstm", "cnn_lstm"]
    )


def test_pretrained_weights_fit_a_whole_model_of_fewer_frames_than_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    source.save_weights(tmp_path / "mobilenet.weights.h5")
    monkeypatch.setenv("CARDIUM_WEIGHTS", str(tmp_path))
    model = models.create_model("mobilenet_lstm", classes=3, height=32, width=32, frames=3, seed=5)
    assert weights.load_weights(model, "mobilenet_frames", "imagenet", tmp_path).used == "imagenet"
    given = [weight for layer in backbones.layers_of_backbone(source) for weight in layer.get_weights()]
    held = [weight for layer in backbones.layers_of_backbone(model) for weight in layer.get_weights()]
    assert len(given) == len(held)
    assert all(np.array_equal(one, other) for one, other in zip(given, held, strict=True))
