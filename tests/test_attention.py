"""The attention blocks: what each computes against plain numpy, what it learns, and that it comes back from disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cardium import models
from cardium.errors import CardiumError
from cardium.models import backbones, block_layers
from cardium.models.attention import BLOCKS
from cardium.models.trained import set_trained, trained_weights

LAYERS = {
    "se": lambda: block_layers.SqueezeExcitation(ratio=16, name="block"),
    "cbam": lambda: block_layers.ChannelSpatialAttention(ratio=16, kernel=7, name="block"),
    "bottleneck": lambda: block_layers.Bottleneck(narrow=8, wide=24, name="block"),
    "msa": lambda: block_layers.MultiScaleAttention((8, 16, 24), filters=32, hidden=5, name="block"),
}


def maps(channels: int, side: int = 5, count: int = 3) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(count, side, side, channels)).astype("float32")


def built(layer: keras.layers.Layer, channels: int, side: int = 5) -> keras.Model:
    """The layer alone as a model, with random weights, biases and statistics too, so that nothing hides behind a zero."""
    inputs = keras.Input((side, side, channels))
    model = keras.Model(inputs, layer(inputs))
    rng = np.random.default_rng(11)
    for weight in model.weights:
        values = rng.normal(scale=0.5, size=weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return model


def arrays(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    return {weight.path.split("/", 1)[1]: weight.numpy().astype(np.float64) for weight in layer.weights}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def correlate(padded: np.ndarray, kernel: np.ndarray, side: int) -> np.ndarray:
    """A convolution of a padded map, one place after the other."""
    size = kernel.shape[0]
    out = np.zeros((len(padded), side, side, kernel.shape[-1]))
    for y in range(side):
        for x in range(side):
            out[:, y, x] = np.einsum("nijc,ijcd->nd", padded[:, y : y + size, x : x + size], kernel)
    return out


def test_squeeze_and_excitation_is_the_papers() -> None:
    layer = LAYERS["se"]()
    model, x = built(layer, 32), maps(32)
    w = arrays(layer)
    assert w["squeeze/kernel"].shape == (32, 2)
    squeezed = np.maximum(x.mean(axis=(1, 2)) @ w["squeeze/kernel"] + w["squeeze/bias"], 0)
    weights = sigmoid(squeezed @ w["excite/kernel"] + w["excite/bias"])
    np.testing.assert_allclose(layer.attention(x), weights, atol=1e-5)
    np.testing.assert_allclose(model.predict_on_batch(x), x * weights[:, None, None, :], atol=1e-5)


def test_cbam_is_the_papers() -> None:
    layer = LAYERS["cbam"]()
    model, x = built(layer, 32), maps(32)
    w = arrays(layer)

    def shared(vector: np.ndarray) -> np.ndarray:
        return np.maximum(vector @ w["squeeze/kernel"] + w["squeeze/bias"], 0) @ w["excite/kernel"] + w["excite/bias"]

    channels = sigmoid(shared(x.mean(axis=(1, 2))) + shared(x.max(axis=(1, 2))))
    weighted = x * channels[:, None, None, :]
    described = np.stack([weighted.mean(axis=3), weighted.max(axis=3)], axis=3)
    assert w["place/kernel"].shape == (7, 7, 2, 1)
    places = sigmoid(correlate(np.pad(described, ((0, 0), (3, 3), (3, 3), (0, 0))), w["place/kernel"], 5))
    told = layer.attention(x)
    np.testing.assert_allclose(told[0], channels, atol=1e-5)
    np.testing.assert_allclose(told[1], places, atol=1e-5)
    np.testing.assert_allclose(model.predict_on_batch(x), weighted * places, atol=1e-5)


def test_the_bottleneck_is_a_chain_of_four() -> None:
    layer = LAYERS["bottleneck"]()
    model, x = built(layer, 32), maps(32)
    w = arrays(layer)
    reduced = x @ w["reduce/kernel"][0, 0]
    normed = (reduced - w["norm/moving_mean"]) / np.sqrt(w["norm/moving_variance"] + 1e-5) * w["norm/gamma"] + w["norm/beta"]
    padded = np.pad(np.maximum(normed, 0), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = correlate(padded, w["expand/kernel"], 5) + w["expand/bias"]
    np.testing.assert_allclose(model.predict_on_batch(x), expected, atol=1e-4)


def test_multi_scale_attention_gives_each_scale_one_weight() -> None:
    layer = LAYERS["msa"]()
    model, x = built(layer, 48), maps(48)
    w = arrays(layer)
    parts = np.split(x, [8, 24], axis=3)
    projected = [part @ w[f"project{i}/kernel"][0, 0] + w[f"project{i}/bias"] for i, part in enumerate(parts)]
    means = np.concatenate([one.mean(axis=(1, 2)) for one in projected], axis=1)
    scores = np.maximum(means @ w["compare/kernel"] + w["compare/bias"], 0) @ w["choose/kernel"] + w["choose/bias"]
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert weights.std(axis=0).min() > 1e-3, "the weights must tell images apart, or the comparison says little"
    np.testing.assert_allclose(layer.attention(x), weights, atol=1e-5)
    expected = sum(weights[:, i, None, None, None] * one for i, one in enumerate(projected))
    np.testing.assert_allclose(model.predict_on_batch(x), expected, atol=1e-4)


def test_resizing_before_a_1x1_convolution_loses_nothing() -> None:
    """Why the bank may hold the taps at one resolution: the order of the two makes no difference."""
    resize = keras.layers.Resizing(4, 4, interpolation="bilinear")
    convolve = keras.layers.Conv2D(6, 1, bias_initializer="random_normal")
    for side in (8, 2):
        x = maps(5, side)
        np.testing.assert_allclose(resize(convolve(x)), convolve(resize(x)), atol=1e-5)


@pytest.mark.parametrize("block", LAYERS)
def test_a_block_comes_back_from_its_configuration(block: str) -> None:
    layer = LAYERS[block]()
    channels = 48 if block == "msa" else 32
    model, x = built(layer, channels), maps(channels)
    again = layer.__class__.from_config(layer.get_config())
    inputs = keras.Input(x.shape[1:])
    copy = keras.Model(inputs, again(inputs))
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(model.predict_on_batch(x), copy.predict_on_batch(x))


def test_load_model_knows_the_blocks_in_a_fresh_process(tmp_path: Path) -> None:
    inputs = keras.Input((4, 4, 32))
    keras.Model(inputs, BLOCKS["se"].apply(inputs, ())).save(tmp_path / "model.keras")
    code = (
        "import sys\nfrom pathlib import Path\nfrom cardium import models\n"
        "assert 'keras' not in sys.modules, 'naming models must stay quick'\n"
        f"print(type(models.load_model(Path({str(tmp_path / 'model.keras')!r})).get_layer('se')).__name__)"
    )
    source = str(Path(models.__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["SqueezeExcitation"]


def width_of(name: str) -> int:
    """Channels of a map that the model's head reads: the coarsest tap's, or the sum of the taps'."""
    widths = backbones.get_backbone(models.parse_name(name).backbone).tap_widths
    return sum(widths) if models.bank_of(name).endswith("_taps") else widths[-1]


def own_and_out(block: str, c: int) -> tuple[int, int] | None:
    """The parameters of a published block on c channels, and the channels that it gives; None for another block."""
    narrow = c // 16
    squeezing = c * narrow + narrow + narrow * c + c
    return {
        "": (0, c),
        "spatial": (c + 1, c),
        "se": (squeezing, c),
        "cbam": (squeezing + 7 * 7 * 2, c),
        "bottleneck": (c * 256 + 4 * 256 + 256 * 1024 * 9 + 1024, 1024),
        "msa": (c * 256 + 3 * 256 + 768 * 64 + 64 + 64 * 3 + 3, 256),
        # Four gates; the score's W; W2 on context and state.
        "lstm": (4 * (c * 128 + 128 * 128 + 128) + 128 * 128 + 256 * 128, 128),
    }.get(block)


@pytest.mark.parametrize("name", [name for name in models.list_models() if not models.parse_name(name).architecture])
def test_every_head_of_the_grid_has_its_parameters_and_a_gradient_for_each(name: str) -> None:
    block = models.parse_name(name).block
    c = width_of(name)
    # Of slices the head reads a vector each, four of them.
    shape = (4, c) if block == "lstm" else (2, 2, c)
    head = models.create_head(name, classes=4, map_shape=shape, seed=3)
    published = own_and_out(block, c)
    if published:
        own, out = published
        assert head.count_params() == own + out * 4 + 4
        assert block == "lstm" or head.get_layer("cam").output.shape == (None, 2, 2, out)
        assert head.get_layer("embedding").output.shape == (None, out)

    import tensorflow as tf

    with tf.GradientTape() as tape:
        probabilities = head(np.abs(maps(c, 2, 4)).reshape(-1, *shape), training=True)
        loss = -keras.ops.mean(keras.ops.log(probabilities[:, 0]))
    for weight, gradient in zip(head.trainable_weights, tape.gradient(loss, head.trainable_weights), strict=True):
        assert gradient is not None, weight.path
        assert np.abs(gradient).max() > 0, weight.path


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_what_a_head_has_learnt_moves_with_its_statistics(block: str) -> None:
    name = f"mobilenet_{block}"
    shape = (2, 2, width_of(name))
    head = models.create_head(name, classes=3, map_shape=shape, hidden=6, seed=1)
    head.compile("sgd", "sparse_categorical_crossentropy")
    x = np.abs(maps(shape[-1], 2))
    head.train_on_batch(x, np.array([0, 1, 2]))
    trained = trained_weights(head)
    assert len(trained) == len(head.weights)
    other = models.create_head(name, classes=3, map_shape=shape, hidden=6, seed=2)
    assert not np.array_equal(other.predict_on_batch(x), head.predict_on_batch(x))
    set_trained(other, trained)
    np.testing.assert_array_equal(other.predict_on_batch(x), head.predict_on_batch(x))


def test_moving_statistics_are_among_what_was_trained() -> None:
    head = models.create_head("mobilenet_bottleneck", classes=3, map_shape=(2, 2, 1024))
    norm = head.get_layer("bottleneck").norm
    norm.moving_mean.assign(np.full(256, 3.0))
    assert any(np.array_equal(value, np.full(256, 3.0)) for value in trained_weights(head).values())
    norm.trainable = False
    head.get_layer("bottleneck").trainable = False
    assert not any(key.startswith("bottleneck") for key in trained_weights(head))


def test_the_taps_of_efficientnet_are_blocks_3_4_and_6() -> None:
    row = backbones.get_backbone("efficientnetb0")
    whole = backbones.build_backbone("efficientnetb0", 224, 224)
    assert [tap.shape[1:] for tap in backbones.tap_outputs(whole, row)] == [(28, 28, 40), (14, 14, 80), (7, 7, 192)]
    assert backbones.build_backbone("efficientnetb0_taps", 224, 224).output_shape == (None, 14, 14, 312)


def test_the_head_of_the_taps_wants_the_taps() -> None:
    assert models.bank_of("resnet50_msa") == "resnet50_taps"
    assert models.bank_of("resnet50_cbam") == "resnet50"
    with pytest.raises(CardiumError, match=r"resnet50_msa reads the taps of resnet50, 3584 channels, not a map of 2048"):
        models.create_head("resnet50_msa", classes=2, map_shape=(2, 2, 2048))
