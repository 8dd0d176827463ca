"""The networks without a backbone, and fusion: published sizes, what they compute against numpy, gradients, save and load."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from cardium import models
from cardium.errors import CardiumError
from cardium.imaging import heart_format
from cardium.imaging.trace_format import SHAPE
from cardium.models import fusion
from cardium.models.architectures import ARCHITECTURES
from cardium.models.sequence import attended_lstm
from cardium.models.trained import set_trained, trained_weights


def batch_for(model: keras.Model, count: int = 4) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, *model.input_shape[1:])).astype("float32")


def frames_of(name: str) -> int:
    """Slices of a volume; of leads and images the architecture's own number."""
    return 3 if models.rendering_of(name) in ("slices", "volume") else 0


def size_of(name: str) -> tuple[int, int]:
    """A small height and width that the architecture takes, not square."""
    fixed = {"traces": SHAPE, "heart": heart_format.SHAPE}
    if models.rendering_of(name) in fixed:
        return fixed[models.rendering_of(name)]
    side = max(16, ARCHITECTURES[name].min_side)
    return side, side + 4


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_learns_and_comes_back_from_disk_bit_for_bit(name: str, tmp_path: Path) -> None:
    import tensorflow as tf

    height, width = size_of(name)
    model = models.create_model(name, classes=5, height=height, width=width, seed=1, frames=frames_of(name))
    shapes = {
        "image": (height, width, 3),
        "leads": (13, height, width),
        "traces": (height, width),
        "heart": (height, width),
        "slices": (3, height, width),
        "volume": (3, height, width),
    }
    assert model.input_shape[1:] == shapes[models.rendering_of(name)]
    assert models.bank_of(name) == ""
    assert len(model.get_layer("embedding").output.shape) == 2
    assert ARCHITECTURES[name].cam == any(layer.name == "cam" for layer in model.layers)
    if ARCHITECTURES[name].cam:
        assert len(model.get_layer("cam").output.shape) >= 4

    batch = batch_for(model)
    with tf.GradientTape() as tape:
        probabilities = model(batch, training=False)
        loss = -keras.ops.mean(keras.ops.log(probabilities[:, 1] + 1e-9))
    assert model.trainable_weights
    for weight, gradient in zip(model.trainable_weights, tape.gradient(loss, model.trainable_weights), strict=True):
        assert gradient is not None, weight.path
        assert np.abs(gradient).max() > 0, weight.path

    assert probabilities.shape == (4, 5)
    np.testing.assert_allclose(np.sum(probabilities, axis=1), 1, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    np.testing.assert_array_equal(probabilities, loaded(batch, training=False))
    for layer in loaded.layers:
        assert not isinstance(layer, keras.Model | keras.layers.Lambda), layer.name
    other = models.create_model(name, classes=5, height=height, width=width, seed=2)
    trained = trained_weights(model)
    set_trained(other, trained)
    for key, value in trained_weights(other).items():
        np.testing.assert_array_equal(value, trained[key])


def conv(k: int, inputs: int, filters: int, bias: int = 1) -> int:
    return k * inputs * filters + bias * filters


PUBLISHED = {
    # 13 leads of 64x64, five classes; by hand from the layers of system 003.
    "cnn2d": conv(9, 13, 64) + conv(9, 64, 128) + conv(1, 16 * 16 * 128, 64) + conv(1, 64, 5),
    "cnn3d": conv(27, 1, 64)
    + conv(27, 64, 128)
    + conv(8, 128, 256)
    + conv(8, 256, 512)
    + conv(8, 512, 512)
    + conv(1, 512 * 1 * 2 * 2, 128)
    + conv(1, 128, 64)
    + conv(1, 64, 5),
    # LSTM: four gates of [64 inputs, 128 states, bias] each; W and W2 without bias.
    "attention_lstm": 4 * 128 * (64 + 128 + 1) + 128 * 128 + 256 * 128 + conv(1, 128, 5),
    "hybrid": conv(9, 13, 64)
    + conv(9, 64, 128)
    + 4 * 128 * (16 + 128 + 1)
    + 128 * 128
    + 256 * 128
    + conv(1, 128, 64)
    + conv(1, 64, 5),
    # Eight steps of 104x64 and thirteen of 64x64 flatten to the same number.
    "time_distributed_cnn": conv(9, 1, 64) + conv(9, 64, 128) + conv(1, 8 * 26 * 16 * 128, 64) + conv(1, 64, 5),
    # Batch norm: four numbers a channel.
    "attention_vgg": sum(
        conv(9, a, b, 0) + 4 * b
        for a, b in [(13, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512)]
        + [(512, 512)] * 7
    )
    + conv(4, 512, 512)
    + 256 * 512
    + 3 * 512
    + conv(1, 3 * 512, 5),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_networks_of_system_003_have_their_published_sizes(name: str) -> None:
    assert models.create_model(name, classes=5, height=64, width=64).count_params() == PUBLISHED[name]


def test_the_networks_on_whole_sheets_have_their_sizes() -> None:
    baseline = models.create_model("cnn_baseline", classes=4, height=224, width=224)
    convolutions = sum(conv(9, a, b, 0) + 4 * b for a, b in ((3, 32), (32, 64), (64, 128)))
    assert baseline.count_params() == convolutions + conv(1, 128, 4)
    custom = models.create_model("cnn_custom", classes=4, height=224, width=224)
    convolutions = sum(conv(9, a, b) for a, b in ((3, 32), (32, 64), (64, 128)))
    assert custom.count_params() == convolutions + conv(1, 28 * 28 * 128, 128) + conv(1, 128, 4)


@pytest.mark.parametrize(("name", "steps"), [("attention_lstm", 13 * 64), ("hybrid", 2048)])
def test_the_sequences_are_as_long_as_published(name: str, steps: int) -> None:
    model = models.create_model(name, classes=5, height=64, width=64)
    assert model.get_layer("steps").output.shape == (None, steps, 64 if name == "attention_lstm" else 16)
    assert model.get_layer("attention").output.shape == (None, steps)


def test_hybrid_reads_one_channels_rows_after_anothers() -> None:
    model = models.create_model("hybrid", classes=3, height=16, width=16)
    batch = batch_for(model, 1)
    pooled, steps = keras.Model(model.input, [model.get_layer("pool2").output, model.get_layer("steps").output])(batch)
    np.testing.assert_array_equal(steps[0, 4 * 7 + 2], pooled[0, 2, :, 7])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def luong_in_numpy(steps: np.ndarray, weights: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One sequence (T, F) -> the attention vector and the attention (T,), gate by gate."""
    kernel, recurrent, bias = weights["lstm|0"], weights["lstm|1"], weights["lstm|2"]
    units = recurrent.shape[0]
    h = c = np.zeros(units)
    states = []
    for x in steps:
        i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    scores = np.array([(state @ weights["attention_projection|0"]) @ h for state in states])
    attention = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    context = (attention[:, None] * np.array(states)).sum(axis=0)
    return np.tanh(np.concatenate([context, h]) @ weights["embedding|0"]), attention


def test_attention_lstm_is_luongs_in_plain_numpy() -> None:
    model = models.create_model("attention_lstm", classes=5, height=4, width=6, seed=3)
    batch = batch_for(model, 2)
    names = ("steps", "attention", "embedding", "probabilities")
    steps, attention, embedding, probabilities = keras.Model(model.input, [model.get_layer(n).output for n in names])(batch)
    # Leads' rows one after another: lead 2, row 1 is step 2 * 4 + 1.
    assert (batch[0, 2, 1] > 15).tolist() == (np.asarray(steps)[0, 9] > 0).tolist()
    weights = {key: value.astype(np.float64) for key, value in trained_weights(model).items()}
    for one in range(2):
        vector, expected = luong_in_numpy(np.asarray(steps)[one].astype(np.float64), weights)
        np.testing.assert_allclose(attention[one], expected, atol=1e-5)
        np.testing.assert_allclose(embedding[one], vector, atol=1e-4)
        logits = vector @ weights["probabilities|0"] + weights["probabilities|1"]
        np.testing.assert_allclose(probabilities[one], np.exp(logits) / np.exp(logits).sum(), atol=1e-4)


def test_masked_steps_move_nothing_and_get_no_attention() -> None:
    steps, mask = keras.Input((7, 3)), keras.Input((7,), dtype="bool")
    masked = keras.Model([steps, mask], attended_lstm(steps, 4, mask=mask))
    short = keras.Input((5, 3))
    plain = keras.Model(short, attended_lstm(short, 4))
    plain.set_weights(masked.get_weights())
    x = np.random.default_rng(1).normal(size=(2, 7, 3)).astype("float32")
    seen = np.array([[True] * 5 + [False] * 2] * 2)
    np.testing.assert_allclose(masked([x, seen]), plain(x[:, :5]), atol=1e-6)
    attention = keras.Model(masked.inputs, masked.get_layer("attention").output)([x, seen])
    assert np.abs(np.asarray(attention)[:, 5:]).max() < 1e-6


def test_time_distributed_cnn_sees_every_lead_with_the_same_eyes() -> None:
    model = models.create_model("time_distributed_cnn", classes=3, height=8, width=8, seed=2)
    batch = batch_for(model, 1)
    scaled, cam = (keras.Model(model.input, model.get_layer(name).output)(batch) for name in ("scaling", "cam"))
    kernels = {name: model.get_layer(name).get_weights() for name in ("conv1", "conv2")}
    for lead in (0, 7, 12):
        tensor = np.asarray(scaled)[:, lead, :, :, None]
        for number, name in enumerate(kernels):
            kernel, bias = kernels[name]
            tensor = keras.ops.relu(keras.ops.conv(tensor, kernel[0], padding="same") + bias)
            if number == 0:
                tensor = keras.ops.max_pool(tensor, 2)
        np.testing.assert_allclose(cam[:, lead], tensor, atol=1e-4)


def test_attention_vgg_weighs_places_as_the_paper_says() -> None:
    model = models.create_model("attention_vgg", classes=3, height=32, width=32, seed=2)
    names = ("block5_3_relu", "global", "attention3", "embedding")
    local, whole, attention, embedding = (
        np.asarray(one) for one in keras.Model(model.input, [model.get_layer(n).output for n in names])(batch_for(model, 2))
    )
    assert local.shape[1:3] == (8, 8)
    kernel = model.get_layer("score3").get_weights()[0][0, 0, :, 0]
    scores = ((local + whole) @ kernel).reshape(2, 64)
    expected = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(attention, expected, atol=1e-5)
    weighted = (expected[:, :, None] * local.reshape(2, 64, 512)).sum(axis=1)
    np.testing.assert_allclose(embedding[:, 1024:], weighted, atol=1e-4)


@pytest.mark.parametrize("name", ["attention_vgg", "cnn2d", "cnn_custom"])
def test_pixels_too_few_are_refused(name: str) -> None:
    least = ARCHITECTURES[name].min_side
    with pytest.raises(CardiumError, match=rf"{name} needs \w+ of at least {least} pixels a side; render is {least - 1}x64"):
        models.create_model(name, classes=5, height=least - 1, width=64)


def test_an_architecture_has_no_head_for_a_bank() -> None:
    with pytest.raises(CardiumError, match="cnn2d is trained from its pixels and has no head"):
        models.create_head("cnn2d", classes=5, map_shape=(2, 2, 8))


def test_two_classes_keep_the_single_sigmoid_unit() -> None:
    model = models.create_model("cnn2d", classes=2, height=8, width=8)
    assert model.get_layer("score").output.shape == (None, 1)
    np.testing.assert_allclose(np.sum(model(batch_for(model)), axis=1), 1, atol=1e-6)


def small_members() -> list[keras.Model]:
    """Three image models, one of them twice, and one whose graph holds batch norm and an attention block."""
    options = {"classes": 3, "height": 32, "width": 32}
    return [
        models.create_model("cnn_custom", seed=1, **options),
        models.create_model("mobilenet_se", seed=2, hidden=5, **options),
        models.create_model("cnn_custom", seed=3, **options),
    ]


def test_averaged_members_say_the_mean_of_what_each_says(tmp_path: Path) -> None:
    members = small_members()
    batch = batch_for(members[0])
    apart = [np.asarray(member(batch, training=False)) for member in members]
    assert not np.array_equal(apart[0], apart[2])
    whole = fusion.create_fusion(members, mode="average", classes=3)
    np.testing.assert_allclose(whole(batch, training=False), np.mean(apart, axis=0), atol=1e-6)
    assert not whole.trainable_weights
    assert whole.get_layer("cnn_custom__cam").output.shape == whole.get_layer("cnn_custom_2__cam").output.shape
    assert whole.get_layer("mobilenet_se__embedding").output.shape == (None, 5)
    whole.save(tmp_path / "model.keras")
    loaded = models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(batch, training=False), whole(batch, training=False))
    assert not any(isinstance(layer, keras.Model) for layer in loaded.layers)


def test_a_fused_head_on_embeddings_is_the_end_of_the_whole_fusion() -> None:
    members = small_members()
    batch = batch_for(members[0])
    names = ["a", "b", "c"]
    whole = fusion.create_fusion(members, names=names, mode="features", classes=3, hidden=7, seed=1)
    embeddings = [np.asarray(keras.Model(m.input, m.get_layer("embedding").output)(batch, training=False)) for m in members]
    head = fusion.create_fusion_head([one.shape[1] for one in embeddings], classes=3, hidden=7, seed=9)
    assert set(trained_weights(whole)) == set(trained_weights(head)), "the members are frozen; the head alone learns"
    set_trained(whole, trained_weights(head))
    together = np.concatenate(embeddings, axis=1)
    np.testing.assert_allclose(whole(batch, training=False), head(together, training=False), atol=1e-5)
    # What another fold taught a member goes into its place by name.
    other = models.create_model("cnn_custom", classes=3, height=32, width=32, seed=8)
    taught = fusion.weights_in_fusion(whole, "a", trained_weights(other))
    # All but the member's own last layer, which the fusion of features does without.
    assert {f"a__{key}" for key in trained_weights(other)} - set(taught) == {"a__probabilities|0", "a__probabilities|1"}
    set_trained(whole, taught)
    changed = keras.Model(whole.input, whole.get_layer("a__embedding").output)(batch)
    np.testing.assert_allclose(changed, keras.Model(other.input, other.get_layer("embedding").output)(batch), atol=1e-5)
    np.testing.assert_array_equal(whole.get_layer("a__conv1").get_weights()[0], other.get_layer("conv1").get_weights()[0])


def test_fusion_refuses_what_does_not_fit() -> None:
    one, other = (models.create_model("cnn_custom", classes=3, height=side, width=side) for side in (32, 16))
    with pytest.raises(CardiumError, match=r"Unknown fusion `feature`\. Did you mean `features`"):
        fusion.create_fusion([one, one], mode="feature", classes=3)  # type: ignore[arg-type]
    with pytest.raises(CardiumError, match="takes two members or more, not 1"):
        fusion.create_fusion([one], mode="average", classes=3)
    with pytest.raises(CardiumError, match="must share one rendering"):
        fusion.create_fusion([one, other], mode="average", classes=3)


def test_system_004s_own_network_learns_from_ink_on_white_paper() -> None:
    """With paper at 1 it answered one class for all sheets; see docs/results.md."""
    import keras

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    pixels = np.full((64, 64, 64, 3), 255, np.float32)
    for sheet, label in zip(pixels, labels, strict=True):
        # A thin line, high or low: 1 of 64 rows.
        sheet[rng.integers(4, 28) + 32 * label] = 0
    model = models.create_model("cnn_custom", classes=2, height=64, width=64, seed=0, dropout=0.0)
    scaled = keras.Model(model.input, model.get_layer("scaling").output)(np.full((1, 64, 64, 3), 255, np.float32))
    assert not np.asarray(scaled).any(), "paper is nothing"
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    for _ in range(12):
        model.train_on_batch(pixels, labels)
    assert (model.predict(pixels, verbose=0).argmax(1) == labels).mean() > 0.95
