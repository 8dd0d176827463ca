"""The zoo: every backbone builds, learns, saves and loads; scaling agrees with Keras; weights are found, or said to be missing.

Each backbone is built whole with another block; tests/test_attention.py has the whole grid's heads, tests/test_architectures.py
the networks without a backbone. Nothing here names every backbone or block: the tests follow the registries.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from cardium import models
from cardium.errors import CardiumError
from cardium.models import backbones, create_model, load_model, weights
from cardium.models.attention import BLOCKS
from cardium.models.saving import save_model
from cardium.models.trained import set_trained, trained_weights

SHARED = Path(__file__).resolve().parents[2] / "shared" / "weights"


def side_of(name: str) -> int:
    return max(32, backbones.get_backbone(models.parse_name(name).backbone).min_side)


def pixels(side: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, side, side, 3)).astype("float32")


# Every backbone once, every block at least once; the odd ones have a hidden layer too.
assert len(backbones.BACKBONES) > len(BLOCKS)
WHOLE = [
    f"{backbone}_{block}" if block else backbone
    for backbone, block in zip(sorted(backbones.BACKBONES), itertools.cycle(["", *BLOCKS]), strict=False)
]


@pytest.mark.parametrize(("number", "name"), enumerate(WHOLE))
def test_every_backbone_learns_and_comes_back_from_disk_bit_for_bit(number: int, name: str, tmp_path: Path) -> None:
    side, hidden = side_of(name), 6 * (number % 2)
    model = models.create_model(name, classes=2, height=side, width=side, hidden=hidden, seed=1)
    weights.calibrate_batch_norm(model, pixels(side, 4))
    batch = pixels(side)
    # The last spatial map and the penultimate vector are found by name.
    assert model.get_layer("cam").output.shape == model.get_layer("average" if hidden else "embedding").input.shape
    assert model.get_layer("embedding").output.shape == (None, hidden or model.get_layer("cam").output.shape[-1])

    # The backbone is frozen; each weight behind it must move when the model learns.
    before = trained_weights(model)
    frozen = weights.sha256_of_weights([w.numpy() for layer in model.layers if not layer.trainable for w in layer.weights])
    assert before, "something must be trainable"
    assert {key.split("|")[0] for key in before}.isdisjoint(layer.name for layer in model.layers if not layer.trainable)
    # Eagerly throughout: tracing the deep ones would take most of the suite's time.
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(), run_eagerly=True)
    model.train_on_batch(batch, np.array([0, 1]))
    after = trained_weights(model)
    if not hidden and not name.endswith("msa"):
        # A ReLU of a few units may be silent on two images; test_attention.py sees to the gradients behind one.
        for key, value in after.items():
            assert not np.array_equal(value, before[key]), f"{key} got no gradient"
    assert any(not np.array_equal(value, before[key]) for key, value in after.items())
    assert frozen == weights.sha256_of_weights(
        [w.numpy() for layer in model.layers if not layer.trainable for w in layer.weights]
    )

    probabilities = np.asarray(model(batch, training=False))
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    model.save(tmp_path / "model.keras")
    # Safe mode refuses Lambda layers and code; no model is nested in another, and no class but the blocks' is ours.
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True, compile=False)
    np.testing.assert_array_equal(probabilities, loaded(batch, training=False))
    for layer in loaded.layers:
        assert not isinstance(layer, keras.Model | keras.layers.Lambda), layer.name
        ours = layer.__class__.__module__ == "cardium.models.block_layers"
        assert layer.name in BLOCKS if ours else layer.__class__.__module__.startswith("keras."), layer.name


def module_of(application: str) -> types.ModuleType:
    """The public module of keras.applications that has this class and its `preprocess_input`."""
    modules = [one for one in vars(keras.applications).values() if isinstance(one, types.ModuleType)]
    return next(one for one in modules if hasattr(one, application) and hasattr(one, "preprocess_input"))


def end_of_stage(source: keras.Model, tap: keras.KerasTensor) -> keras.KerasTensor:
    """A tap of `source` behind its stage's closing norm.

    ConvNeXt keeps that norm in the small model that leads to the next stage; in ours that model is spelt out.
    """
    for layer in source.layers:
        if isinstance(layer, keras.Sequential) and layer.input_shape == tap.shape:
            for part in layer.layers:
                if part(tap).shape[1:3] != tap.shape[1:3]:
                    break
                tap = part(tap)
            break
    return tap


@pytest.mark.parametrize("row", backbones.BACKBONES.values(), ids=lambda row: row.name)
def test_keras_own_network_says_the_same_with_the_same_weights(
    row: backbones.Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaling, the order of the weights and the taps at once, against the application as Keras builds it."""
    side = row.min_side
    application = getattr(keras.applications, row.application)
    keras.utils.set_random_seed(4)
    source = application(include_top=False, weights=None, input_shape=(side, side, 3))
    rng = np.random.default_rng(4)
    for layer in source.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Statistics that keep the signal alive, each layer's its own, so that a mix-up would show.
            layer.moving_variance.assign(rng.uniform(0.8, 1.2, layer.moving_variance.shape))
            layer.beta.assign(rng.normal(scale=0.1, size=layer.beta.shape))
        elif layer.__class__.__name__ == "LayerScale":
            layer.gamma.assign(rng.uniform(0.1, 0.5, layer.gamma.shape))
        elif isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            # EfficientNet: what Keras' two layers come to with the downloaded weights. It leaves the second out without them.
            mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
            layer.adapt_mean.assign(mean)
            layer.adapt_variance.assign(std**2)
            layer.finalize_state()
    monkeypatch.setattr(weights, "find_file", lambda *_: None)
    monkeypatch.setattr(weights, "_downloaded", lambda *_: source)

    image = pixels(side)
    outputs = [end_of_stage(source, tap) for tap in backbones.tap_outputs(source, row)]
    theirs = keras.Model(source.input, [source.output, *outputs])
    preprocessed = module_of(row.application).preprocess_input(image.copy())
    last, *taps = (np.asarray(one) for one in theirs(preprocessed, training=False))
    assert tuple(tap.shape[-1] for tap in taps) == row.tap_widths
    assert np.isfinite(last).all()
    assert np.ptp(last) > 1e-4, "a dead network proves nothing"

    def close(ours: np.ndarray, expected: np.ndarray) -> None:
        np.testing.assert_allclose(ours, expected, atol=1e-3 * np.abs(expected).max())

    plain = backbones.build_backbone(row.name, side, side, seed=8)
    assert weights.load_weights(plain, row.name, "imagenet", Path()).used == "imagenet"
    close(plain(image, training=False), last)
    tapped = backbones.build_backbone(f"{row.name}_taps", side, side, seed=8)
    weights.load_weights(tapped, f"{row.name}_taps", "imagenet", Path())
    height, width = taps[1].shape[1:3]
    resized = [np.asarray(keras.ops.image.resize(tap, (height, width), interpolation="bilinear")) for tap in taps]
    ours = np.split(np.asarray(tapped(image, training=False)), np.cumsum(row.tap_widths)[:-1], axis=3)
    for one, expected in zip(ours, resized, strict=True):
        close(one, expected)


def test_a_whole_model_of_the_taps_takes_the_weights_that_made_its_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    source = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    monkeypatch.setattr(weights, "find_file", lambda *_: None)
    monkeypatch.setattr(weights, "_downloaded", lambda *_: source)
    bank = backbones.build_backbone("mobilenet_taps", 32, 32, seed=1)
    whole = models.create_model("mobilenet_msa", classes=3, height=32, width=32, seed=2)
    made = weights.load_weights(bank, "mobilenet_taps", "imagenet", Path())
    assert weights.load_weights(whole, "mobilenet", "imagenet", Path()).sha256 == made.sha256
    inside = keras.Model(whole.input, whole.get_layer("taps").output)
    np.testing.assert_array_equal(inside(pixels(32)), bank(pixels(32)))
    # A bank of random weights hands its statistics to the whole model, whose block may have batch norm of its own.
    bottleneck = models.create_model("mobilenet_bottleneck", classes=3, height=32, width=32)
    plain = backbones.build_backbone("mobilenet", 32, 32)
    weights.calibrate_batch_norm(plain, pixels(32, 4))
    weights.set_batch_norm_statistics(bottleneck, weights.batch_norm_statistics(plain))
    for given, set_ in zip(weights.batch_norm_statistics(plain), weights.batch_norm_statistics(bottleneck), strict=True):
        np.testing.assert_array_equal(given, set_)


@pytest.mark.parametrize("name", ["mobilenetv2", "mobilenetv2_msa"])
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


def test_a_models_file_is_the_same_bytes_whenever_and_wherever_it_is_saved(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from cardium.models import create_model
from cardium.models.saving import save_model
other = [object() for _ in range(int(sys.argv[2]))]
save_model(create_model("traces_net", classes=3, height=16, width=96, seed=1), Path(sys.argv[1]))
"""
    paths = [tmp_path / "a.keras", tmp_path / "b.keras"]
    for number, path in enumerate(paths):
        subprocess.run([sys.executable, "-c", code, str(path), str(1000 * number)], check=True)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    model = create_model("traces_net", classes=3, height=16, width=96, seed=1)
    signals = np.random.default_rng(0).integers(0, 256, (2, 16, 96)).astype("float32")
    np.testing.assert_array_equal(load_model(paths[0]).predict_on_batch(signals), model.predict_on_batch(signals))


@pytest.mark.parametrize("damage", ["cut", "emptied", "another file", "flipped"])
def test_a_damaged_model_is_one_line(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    save_model(create_model("traces_net", classes=3, height=16, width=96), path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + b"?" * 9000 + whole[middle + 9000 :]
    path.write_bytes({"cut": whole[:middle], "emptied": b"", "another file": b"{}", "flipped": flipped}[damage])
    with pytest.raises(CardiumError, match=r"model\.keras is damaged, or no model of this version") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_an_unknown_model_lists_the_names() -> None:
    with pytest.raises(
        CardiumError,
        match=r"Unknown model `resnet152`\. Did you mean `resnet152v2`\? Known: attention_lstm, .* more, which",
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
@pytest.mark.parametrize(("name", "application"), [("mobilenet", "MobileNet"), ("mobilenetv2", "MobileNetV2")])
def test_real_weights_give_features_that_are_not_noise(name: str, application: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDIUM_WEIGHTS", str(SHARED))
    model = backbones.build_backbone(name, 96, 96)
    found = weights.load_weights(model, name, "auto", Path())
    assert found.used == "imagenet"
    assert json.dumps(found.as_dict())
    plain = np.zeros((1, 96, 96, 3), "float32")
    edge = plain.copy()
    edge[:, :, 48:] = 255
    first, second = model.predict_on_batch(plain), model.predict_on_batch(edge)
    assert np.isfinite(first).all()
    assert np.abs(first - second).mean() > 0.05
    independent = getattr(keras.applications, application)(include_top=False, weights=None, input_shape=(96, 96, 3))
    independent.load_weights(SHARED / found.file)
    np.testing.assert_allclose(second, independent.predict_on_batch(edge / 127.5 - 1), atol=1e-3)
