"""The zoo: every name builds, learns, saves and loads; scaling agrees with Keras; weights are found, or said to be missing."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from cardium import models
from cardium.errors import CardiumError
from cardium.models import backbones, weights
from cardium.models.trained import set_trained, trained_weights

SHARED = Path(__file__).resolve().parents[2] / "shared" / "weights"


def side_of(name: str) -> int:
    return max(32, backbones.get_backbone(models.parse_name(name).backbone).min_side)


def pixels(side: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, side, side, 3)).astype("float32")


@pytest.mark.parametrize("name", models.list_models())
def test_every_model_learns_and_comes_back_from_disk_bit_for_bit(name: str, tmp_path: Path) -> None:
    side = side_of(name)
    model = models.create_model(name, classes=2, height=side, width=side, seed=1)
    weights.calibrate_batch_norm(model, pixels(side, 4))
    batch = pixels(side)
    # The last spatial map and the penultimate vector are found by name.
    assert model.get_layer("cam").output.shape == model.get_layer("embedding").input.shape
    assert len(model.get_layer("embedding").output.shape) == 2

    # The backbone is frozen; each weight behind it must move when the model learns.
    before = trained_weights(model)
    frozen = weights.sha256_of_weights([w.numpy() for layer in model.layers if not layer.trainable for w in layer.weights])
    assert before, "something must be trainable"
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    model.train_on_batch(batch, np.array([0, 1]))
    for key, value in trained_weights(model).items():
        assert not np.array_equal(value, before[key]), f"{key} got no gradient"
    assert frozen == weights.sha256_of_weights(
        [w.numpy() for layer in model.layers if not layer.trainable for w in layer.weights]
    )

    probabilities = model.predict_on_batch(batch)
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    model.save(tmp_path / "model.keras")
    # Safe mode refuses Lambda layers and code; no class of ours is needed either, and no model is nested in another.
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    np.testing.assert_array_equal(probabilities, loaded.predict_on_batch(batch))
    for layer in loaded.layers:
        assert not isinstance(layer, keras.Model | keras.layers.Lambda), layer.name
        assert layer.__class__.__module__.startswith("keras."), layer.name


@pytest.mark.parametrize("name", models.list_models("mobilenetv2*"))
def test_more_classes_than_two_get_a_softmax(name: str) -> None:
    model = models.create_model(name, classes=5, height=32, width=32, seed=1)
    probabilities = model.predict_on_batch(pixels(32))
    assert probabilities.shape == (2, 5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_the_head_on_a_map_is_the_end_of_the_whole_model() -> None:
    whole = models.create_model("mobilenetv2_spatial", classes=2, height=32, width=32, seed=1)
    weights.calibrate_batch_norm(whole, pixels(32, 8))
    head = models.create_head("mobilenetv2_spatial", classes=2, map_shape=(1, 1, 1280), seed=9)
    set_trained(whole, trained_weights(head))
    map_layer = whole.get_layer("spatial_attention").input
    feature_map = keras.Model(whole.input, map_layer).predict_on_batch(pixels(32))
    np.testing.assert_allclose(head.predict_on_batch(feature_map), whole.predict_on_batch(pixels(32)), atol=1e-6)


@pytest.mark.parametrize(
    ("scaling", "reference"),
    [
        ("tf", keras.applications.mobilenet_v2.preprocess_input),
        ("torch", keras.applications.densenet.preprocess_input),
        ("caffe", keras.applications.vgg16.preprocess_input),
        ("none", keras.applications.efficientnet.preprocess_input),
        ("unit", lambda x: x / 255),
    ],
)
def test_scaling_is_keras_own_preprocessing(scaling: str, reference: object) -> None:
    inputs = keras.Input((5, 7, 3))
    scaled = backbones.scale_pixels(inputs, scaling)  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype("float32")
    ours = image if scaled is inputs else keras.Model(inputs, scaled).predict_on_batch(image)
    np.testing.assert_allclose(ours, reference(image.copy()), atol=2e-4)  # type: ignore[operator]


@pytest.mark.parametrize("row", backbones.BACKBONES.values(), ids=lambda row: row.name)
def test_each_row_uses_its_own_application_and_scaling(row: backbones.Backbone) -> None:
    module = {
        "MobileNetV2": keras.applications.mobilenet_v2,
        "ResNet152V2": keras.applications.resnet_v2,
        "DenseNet201": keras.applications.densenet,
        "InceptionV3": keras.applications.inception_v3,
    }[row.application]
    inputs = keras.Input((4, 4, 3))
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype("float32")
    ours = keras.Model(inputs, backbones.scale_pixels(inputs, row.scaling)).predict_on_batch(image)
    np.testing.assert_allclose(ours, module.preprocess_input(image.copy()), atol=2e-4)


def test_published_scaling_differs_from_native() -> None:
    native = backbones.build_backbone("mobilenetv2", 32, 32, "native", seed=1).get_layer("scaling")
    unit = backbones.build_backbone("mobilenetv2", 32, 32, "unit", seed=1).get_layer("scaling")
    assert native.offset == -1.0
    assert unit.offset == 0.0


def test_random_weights_are_a_function_of_the_seed() -> None:
    def build(seed: int) -> list[np.ndarray]:
        return backbones.build_backbone("mobilenetv2", 32, 32, seed=seed).get_weights()

    assert weights.sha256_of_weights(build(1)) == weights.sha256_of_weights(build(1))
    assert weights.sha256_of_weights(build(1)) != weights.sha256_of_weights(build(2))


def test_an_unknown_model_lists_the_names() -> None:
    with pytest.raises(
        CardiumError, match=r"Unknown model `resnet152`\. Did you mean `resnet152v2`\? Known: densenet201, .*mobilenetv2"
    ):
        models.create_model("resnet152", classes=2, height=32, width=32)


def test_images_too_small_for_a_backbone_are_refused() -> None:
    with pytest.raises(CardiumError, match=r"inceptionv3 needs images of at least 75 pixels"):
        backbones.build_backbone("inceptionv3", 64, 64)


def test_a_weights_file_is_found_and_fills_the_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDIUM_WEIGHTS", str(tmp_path))
    source = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    source.save_weights(tmp_path / "mobilenetv2.weights.h5")
    model = models.create_model("mobilenetv2_spatial", classes=2, height=64, width=64, seed=5)
    found = weights.load_weights(model, "mobilenetv2", "imagenet", tmp_path)
    assert (found.used, found.file) == ("imagenet", "mobilenetv2.weights.h5")
    scaled = pixels(64) / 127.5 - 1
    map_of_ours = keras.Model(model.input, model.get_layer("spatial_attention").input).predict_on_batch(pixels(64))
    np.testing.assert_allclose(map_of_ours, source.predict_on_batch(scaled), atol=1e-12, rtol=1e-4)


def test_a_weights_file_of_another_network_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDIUM_WEIGHTS", str(tmp_path))
    (tmp_path / "mobilenetv2.weights.h5").write_bytes(b"not a file of weights")
    model = backbones.build_backbone("mobilenetv2", 32, 32)
    with pytest.raises(CardiumError, match=r"does not hold the weights of mobilenetv2"):
        weights.load_weights(model, "mobilenetv2", "auto", tmp_path)


def test_without_weights_auto_warns_and_imagenet_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("URL fetch failure on https://host: None -- [Errno -2] Name or service not known")

    monkeypatch.delenv("CARDIUM_WEIGHTS", raising=False)
    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    model = type("Model", (), {"input_shape": (None, 32, 32, 3)})()
    found = weights.load_weights(model, "mobilenetv2", "auto", tmp_path)
    assert found.used == "random"
    assert "random weights" in found.warning
    assert "Name or service not known" in found.warning
    with pytest.raises(CardiumError, match=r"No ImageNet weights for mobilenetv2: no file in weights .*set `weights: none`"):
        weights.load_weights(model, "mobilenetv2", "imagenet", tmp_path)


def test_calibration_keeps_random_features_alive() -> None:
    model = backbones.build_backbone("mobilenetv2", 32, 32, seed=1)
    dead = float(np.std(model.predict_on_batch(pixels(32, 8))))
    weights.calibrate_batch_norm(model, pixels(32, 16))
    alive = float(np.std(model.predict_on_batch(pixels(32, 8))))
    assert dead < 1e-6 < 0.05 < alive
    # Measured once, they stay: the layers are frozen again.
    statistics = weights.batch_norm_statistics(model)
    model(pixels(32, 4), training=True)
    for before, after in zip(statistics, weights.batch_norm_statistics(model), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real weights of ../shared/weights")
def test_real_weights_give_features_that_are_not_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDIUM_WEIGHTS", str(SHARED))
    model = backbones.build_backbone("mobilenetv2", 96, 96)
    found = weights.load_weights(model, "mobilenetv2", "auto", Path())
    assert found.used == "imagenet"
    assert json.dumps(found.as_dict())
    plain = np.zeros((1, 96, 96, 3), "float32")
    edge = plain.copy()
    edge[:, :, 48:] = 255
    first, second = model.predict_on_batch(plain), model.predict_on_batch(edge)
    assert np.isfinite(first).all()
    assert np.abs(first - second).mean() > 0.05
