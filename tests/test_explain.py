"""Explanations: the methods against sums done by hand, every model of the zoo, the tests of the methods, what is written."""

from __future__ import annotations

import dataclasses
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from cardium import config, models
from cardium.datasets import demos
from cardium.demo import chd, cmri, ecg
from cardium.errors import CardiumError
from cardium.explain import faithfulness, places
from cardium.explain.attention_weights import attention_of
from cardium.explain.attribution import METHODS, How, applicable, attribute, stretched
from cardium.explain.files import explain_files
from cardium.explain.opened_model import OpenedModel
from cardium.explain.places import Looked, text_line, where
from cardium.explain.selection import pick, pick_tested
from cardium.imaging import heart_format
from cardium.imaging.kinds import family
from cardium.imaging.render import render_file
from cardium.imaging.spec import Render
from cardium.imaging.trace_format import SHAPE
from cardium.models.architectures import ARCHITECTURES
from cardium.models.fusion import create_fusion
from cardium.models.weights import calibrate_batch_norm
from cardium.provenance import new_id
from cardium.runs.data_version import DataVersion
from cardium.runs.trained_run import TrainedRun
from cardium.stages import explain, ingest, prepare, split
from cardium.workspace import RunId

PROJECT = Path(__file__).resolve().parents[1]
RUN = RunId("cmri", "mobilenetv2")
RNG = np.random.default_rng(5)
QUICK = How(steps=2, most_steps=2, samples=2, window=0.5)


def linear(kind: str, shape: tuple[int, ...]) -> tuple[OpenedModel, np.ndarray]:
    """A model of two classes whose log-odds of the last one are a weighted sum of the input: it, and the weights."""
    inputs = keras.Input(shape)
    score = layers.Dense(1, activation="sigmoid", name="score")(layers.Flatten()(inputs))
    other = layers.Rescaling(-1.0, offset=1.0)(score)
    model = keras.Model(inputs, layers.Concatenate(name="probabilities")([other, score]))
    weights = RNG.normal(scale=1e-3, size=(int(np.prod(shape)), 1)).astype("float32")
    model.get_layer("score").set_weights([weights, np.array([0.3], "float32")])
    return OpenedModel(model, kind), weights.reshape(shape)


def levels(*shape: int) -> np.ndarray:
    return RNG.integers(1, 256, shape).astype("float32")


# ---------------------------------------------------------------------------------------------------- known answers


def test_of_a_weighted_sum_every_method_says_the_weights() -> None:
    model, weights = linear("image", (6, 4, 3))
    pixels = levels(2, 6, 4, 3)
    for target, sign in ((1, 1), (0, -1)):
        asked = np.array([target, target])
        np.testing.assert_allclose(
            model.scores(pixels, asked), sign * ((pixels * weights).sum(axis=(1, 2, 3)) + 0.3), rtol=1e-4
        )
        found = attribute(model, "integrated_gradients", pixels, asked, How(steps=3))
        np.testing.assert_allclose(found, sign * (pixels * weights).sum(axis=-1), rtol=1e-3, atol=1e-4)
        for method in ("saliency", "smoothgrad"):
            found = attribute(model, method, pixels, asked)
            np.testing.assert_allclose(found, np.broadcast_to(np.abs(weights).sum(axis=-1), (2, 6, 4)), rtol=1e-3)
        # Windows of one row and one column: what is lost when a place is emptied is what it added.
        found = attribute(model, "occlusion", pixels, asked, How(window=0.1))
        np.testing.assert_allclose(found, sign * (pixels * weights).sum(axis=-1), rtol=1e-2, atol=2e-4)


def test_occlusion_shares_a_window_out_and_takes_the_mean_of_windows() -> None:
    model, weights = linear("image", (4, 4, 3))
    pixels = levels(1, 4, 4, 3)
    gone = (pixels * weights).sum(axis=-1)[0]
    expected, covered = np.zeros((4, 4)), np.zeros((4, 4))
    for top in range(3):
        for left in range(3):
            window = (slice(top, top + 2), slice(left, left + 2))
            expected[window] += gone[window].sum() / 4
            covered[window] += 1
    found = attribute(model, "occlusion", pixels, np.array([1]), How(window=0.5))
    np.testing.assert_allclose(found[0], expected / covered, rtol=1e-2, atol=2e-4)


def test_gradients_are_the_slopes_that_differences_show() -> None:
    inputs = keras.Input((4, 4, 3))
    x = layers.Dense(5, activation="tanh")(layers.Flatten()(layers.Rescaling(1 / 255)(inputs)))
    model = OpenedModel(keras.Model(inputs, layers.Dense(3, activation="softmax", name="probabilities")(x)), "image")
    pixels, target = levels(1, 4, 4, 3), np.array([2])
    probability = model.model.predict_on_batch(pixels)[0, 2]
    assert model.scores(pixels, target)[0] == pytest.approx(np.log(probability / (1 - probability)), rel=1e-4)
    found = model.pixel_gradients(pixels, target)[0]
    for place in ((0, 0, 0), (1, 2, 1), (3, 3, 2)):
        moved = np.repeat(pixels, 2, axis=0)
        moved[0][place] += 4
        moved[1][place] -= 4
        high, low = model.scores(moved, np.array([2, 2]))
        assert found[place] == pytest.approx((high - low) / 8, rel=2e-2)


def small_convolution() -> tuple[OpenedModel, np.ndarray, np.ndarray]:
    """1x1 convolution to `cam`, ReLU, average over places, a sigmoid: all of Grad-CAM can be done by hand."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4, 6, 3))
    cam = layers.Identity(name="cam")(layers.Conv2D(5, 1, activation="relu", name="conv")(inputs))
    score = layers.Dense(1, activation="sigmoid", name="score")(layers.GlobalAveragePooling2D()(cam))
    other = layers.Rescaling(-1.0, offset=1.0)(score)
    model = keras.Model(inputs, layers.Concatenate(name="probabilities")([other, score]))
    kernel = RNG.normal(scale=0.02, size=(1, 1, 3, 5)).astype("float32")
    last = np.array([[0.9], [-1.1], [0.4], [0.2], [-0.3]], "float32")
    model.get_layer("conv").set_weights([kernel, np.zeros(5, "float32")])
    model.get_layer("score").set_weights([last, np.zeros(1, "float32")])
    return OpenedModel(model, "image"), kernel[0, 0], last[:, 0]


def test_grad_cam_is_the_papers() -> None:
    model, kernel, last = small_convolution()
    pixels = levels(2, 4, 6, 3)
    maps = np.maximum(pixels @ kernel, 0)
    for target, sign in ((1, 1), (0, -1)):
        expected = np.maximum((maps * sign * last / 24).sum(axis=-1), 0)
        assert expected.max() > 0
        found = attribute(model, "gradcam", pixels, np.array([target, target]))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_grad_cam_plus_plus_is_the_papers() -> None:
    model, kernel, last = small_convolution()
    pixels = levels(2, 4, 6, 3)
    maps = np.maximum(pixels @ kernel, 0)
    slope = last / 24  # the same at every place
    expected = np.zeros(maps.shape[:3])
    for row, one in enumerate(maps):
        for channel in range(5):
            alpha = slope[channel] ** 2 / (2 * slope[channel] ** 2 + one[..., channel].sum() * slope[channel] ** 3)
            expected[row] += 24 * alpha * max(slope[channel], 0) * one[..., channel]
    found = attribute(model, "gradcam++", pixels, np.array([1, 1]))
    ratio = found[expected > 0] / expected[expected > 0]
    # The paper's weights but for one scale a picture, which an overlay does not show.
    for row in range(2):
        own = found[row][expected[row] > 0] / expected[row][expected[row] > 0]
        np.testing.assert_allclose(own, own[0], rtol=1e-3)
    assert (ratio > 0).all()


def test_integrated_gradients_take_more_points_until_they_add_up() -> None:
    inputs = keras.Input((2, 2, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    # Flat but for a ramp between 0.45 and 0.55 of the way: two points see nothing of it.
    x = layers.Flatten()(
        layers.ReLU()(layers.Rescaling(10.0, offset=-4.5)(x)) - layers.ReLU()(layers.Rescaling(10.0, offset=-5.5)(x))
    )
    score = layers.Dense(1, activation="sigmoid", name="score", kernel_initializer="ones")(x)
    both = layers.Concatenate(name="probabilities")([layers.Rescaling(-1.0, offset=1.0)(score), score])
    model = OpenedModel(keras.Model(inputs, both), "image")
    pixels, target = np.full((1, 2, 2, 3), 255, "float32"), np.array([1])
    few = attribute(model, "integrated_gradients", pixels, target, How(steps=2, most_steps=2))
    assert faithfulness.completeness_error(model, few, pixels, target) == pytest.approx(1.0)
    many = attribute(model, "integrated_gradients", pixels, target, How(steps=2, most_steps=500))
    assert faithfulness.completeness_error(model, many, pixels, target) < 0.05
    # Cutting steps into three keeps the points: the same as asking for so many at once.
    at_once = attribute(model, "integrated_gradients", pixels, target, How(steps=162, most_steps=162))
    np.testing.assert_allclose(many, at_once, rtol=1e-4)


def test_a_map_is_laid_over_its_input_from_middle_to_middle() -> None:
    np.testing.assert_allclose(stretched(np.array([[0.0, 4.0]]), 1, 4), [[0, 1, 3, 4]])
    np.testing.assert_allclose(stretched(np.array([[2.0]]), 1, 3), [[2, 2, 2]])
    ramp = np.arange(5.0)[None]
    np.testing.assert_allclose(stretched(ramp, 1, 5), ramp)


# ---------------------------------------------------------------------------------------------------- the whole zoo

# Every architecture, a backbone on images and on slices, the joined models of small members, and of every block its head: to a
# block it is all the same what made the map that it reads.
ZOO = [*(set(ARCHITECTURES) - {"fused"}), "mobilenet_spatial", "mobilenet_lstm", "fused", "ensemble"]
HEADS = {"mobilenet_se": 1024, "mobilenet_cbam": 1024, "mobilenet_bottleneck": 1024, "efficientnetb0_msa": 312}
FRAMES = 3


@lru_cache
def tiny(name: str) -> OpenedModel:
    """The model on the smallest input that it takes."""
    if name in HEADS:
        return OpenedModel(models.create_head(name, classes=3, map_shape=(4, 4, HEADS[name]), seed=1), "image")
    if name in ("fused", "ensemble"):
        members = [models.create_model(one, classes=3, height=16, width=16, seed=1) for one in ("cnn_custom", "cnn_baseline")]
        joined = create_fusion(members, mode="features" if name == "fused" else "average", classes=3)
        return OpenedModel(joined, "image")
    kind = models.rendering_of(name)
    height = width = max(8, ARCHITECTURES[name].min_side) if name in ARCHITECTURES else 32
    if kind in ("traces", "heart"):
        height, width = SHAPE if kind == "traces" else heart_format.SHAPE
    frames = FRAMES if family(kind) == "slices" else 0
    model = models.create_model(name, classes=3, height=height, width=width, seed=1, frames=frames)
    backbone = bool(models.parse_name(name).backbone)
    if backbone:
        calibrate_batch_norm(model, levels(4, *model.input_shape[1:]))
    # Tracing a deep network costs more than a few calls; stepping through an LSTM in Python costs more than tracing it.
    return OpenedModel(model, kind, eager=backbone or name == "attention_vgg")


def records(model: OpenedModel, count: int) -> np.ndarray:
    pixels = levels(count, *model.shape)
    if model.form == "slices":
        pixels[:, -1] = 0  # padding
    return pixels


@pytest.mark.parametrize("name", sorted([*ZOO, *HEADS]))
def test_every_method_explains_every_model(name: str) -> None:
    model = tiny(name)
    pixels, target = records(model, 1), np.array([2])
    np.testing.assert_allclose(
        model.probabilities(pixels), np.asarray(model.model(pixels, training=False)), rtol=1e-3, atol=1e-5
    )
    known = applicable(model)
    assert set(known) == set(METHODS) - (set() if model.cams else {"gradcam", "gradcam++"})
    members = {"attention_lstm": 0, "cine_net": 0, "fused": 2, "ensemble": 2}
    assert len(model.cams) == members.get(name, 1)
    for method in known:
        found = attribute(model, method, pixels, target, QUICK)
        assert (found.dtype, found.shape) == (np.float32, (1, *model.places)), method
        assert np.isfinite(found).all(), method
        if method in ("gradcam", "gradcam++", "saliency", "smoothgrad"):
            assert (found >= 0).all(), method
        if model.form == "slices":
            assert not found[:, -1].any(), f"{method}: padding counts for nothing"
        if method not in ("gradcam", "gradcam++"):
            assert found.any(axis=tuple(range(1, found.ndim))).all(), method
    for attention in attention_of(model, pixels):
        assert np.isfinite(attention.values).all()


def test_a_models_own_attention_has_its_names() -> None:
    expected = {
        "mobilenet_spatial": ("places", (2, 1, 1)),
        "mobilenet_se": ("channels", (2, 1024)),
        "attention_lstm": ("leads", (2, 13)),
        "hybrid": ("rows", (2, 2)),
        "mobilenet_lstm": ("frames", (2, FRAMES)),
    }
    for name, (of, shape) in expected.items():
        model = tiny(name)
        pixels = records(model, 2)
        (found,) = attention_of(model, pixels)
        assert (found.of, found.values.shape) == (of, shape), name
        if of in ("leads", "rows", "frames"):
            np.testing.assert_allclose(found.values.sum(axis=1), 1, rtol=1e-4)
        if of == "frames":
            assert not found.values[:, -1].any(), "padding gets no attention"
        if of == "channels":
            layer = model.model.get_layer("se")
            inner = keras.Model(model.model.input, layer.input)(pixels, training=False)
            np.testing.assert_allclose(found.values, layer.attention(inner), rtol=1e-5)
    assert [(one.of, one.values.shape) for one in attention_of(tiny("mobilenet_cbam"), levels(2, 4, 4, 1024))] == [
        ("channels", (2, 1024)),
        ("places", (2, 4, 4)),
    ]
    scales = attention_of(tiny("efficientnetb0_msa"), levels(2, 4, 4, 312))
    assert [(one.of, one.values.shape) for one in scales] == [("scales", (2, 3))]
    vgg = attention_of(tiny("attention_vgg"), levels(1, 13, 32, 32))
    assert [one.values.shape for one in vgg] == [(1, 32, 32), (1, 16, 16), (1, 8, 8)]


def test_frames_of_a_volume_are_weighted_each_for_itself() -> None:
    """Of a network that reads one frame only, the map lies in that frame."""
    inputs = keras.Input((3, 8, 8))
    frames = layers.Reshape((3, 8, 8, 1))(inputs)
    cam = layers.Identity(name="cam")(layers.Conv3D(2, (1, 3, 3), padding="same", kernel_initializer="ones")(frames))
    second = layers.GlobalAveragePooling3D()(layers.Cropping3D(((1, 1), (0, 0), (0, 0)))(cam))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="probabilities")(second))
    model.get_layer("probabilities").set_weights([np.array([[1, 0, 0], [1, 0, 0]], "float32") / 255, np.zeros(3, "float32")])
    opened = OpenedModel(model, "slices")
    pixels = levels(1, 3, 8, 8)
    found = attribute(opened, "gradcam", pixels, np.array([0]))
    assert found[0, 1].all()
    assert not found[0, [0, 2]].any()
    assert where(opened, found[0]).slices == pytest.approx([0, 1, 0])


def test_a_method_that_does_not_apply_says_which_do() -> None:
    model = tiny("attention_lstm")
    with pytest.raises(CardiumError, match=r"gradcam needs a spatial map, and attention_lstm has none.*integrated_gradients"):
        attribute(model, "gradcam", levels(1, *model.shape), np.array([0]))
    with pytest.raises(CardiumError, match=r"Unknown method `gradcm`\. Did you mean `gradcam`"):
        attribute(model, "gradcm", levels(1, *model.shape), np.array([0]))


# ---------------------------------------------------------------------------------------------------- tests of methods


def test_curves_tell_a_true_attribution_from_dice_and_from_its_opposite() -> None:
    model, weights = linear("image", (8, 8, 3))
    pixels, target = levels(2, 8, 8, 3), np.array([1, 1])
    true = (pixels * weights).sum(axis=-1)
    area = {}
    for name, values in (("true", true), ("opposite", -true), ("dice", RNG.random(true.shape).astype("float32"))):
        curves = faithfulness.deletion_and_insertion(model, values, pixels, target, 8)
        area[name] = (np.trapezoid(curves.deletion, curves.shares), np.trapezoid(curves.insertion, curves.shares))
        whole, empty = model.probabilities(pixels)[:, 1].mean(), model.probabilities(np.zeros_like(pixels))[:, 1].mean()
        assert (curves.deletion[0], curves.deletion[-1]) == (pytest.approx(whole), pytest.approx(empty))
        assert (curves.insertion[0], curves.insertion[-1]) == (pytest.approx(empty), pytest.approx(whole))
    assert area["true"][0] < area["dice"][0] < area["opposite"][0]
    assert area["true"][1] > area["dice"][1] > area["opposite"][1]


def test_completeness_is_that_of_the_sum() -> None:
    model, weights = linear("leads", (13, 4, 4))
    pixels, target = levels(2, 13, 4, 4), np.array([1, 1])
    true = pixels * weights
    assert faithfulness.completeness_error(model, true, pixels, target) < 1e-3
    assert faithfulness.completeness_error(model, 1.5 * true, pixels, target) == pytest.approx(0.5, abs=1e-3)


def test_shuffled_weights_unmask_a_method_that_shows_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "edges", lambda model, pixels, target, how: np.abs(np.diff(pixels[..., 0], append=0)))
    model, _ = linear("image", (16, 16, 3))
    before = [weight.numpy() for weight in model.model.weights]
    pixels, target = levels(2, 16, 16, 3), np.array([1, 1])
    tested = faithfulness.assess(model, ["saliency", "edges"], pixels, target, How(), points=4, stages=2)
    rows = {one.method: one.row for one in tested}
    assert list(rows) == ["saliency", "edges", "random"]
    assert rows["edges"]["randomised_all"] == pytest.approx(1)
    assert abs(rows["saliency"]["randomised_all"]) < 0.2
    for one, weight in zip(before, model.model.weights, strict=True):
        np.testing.assert_array_equal(one, weight.numpy())


def test_shuffling_goes_from_the_last_layer_to_the_first() -> None:
    model, _, _ = small_convolution()
    last, first = model.model.get_layer("score"), model.model.get_layer("conv")
    held = first.get_weights()[0].copy(), last.get_weights()[0].copy()
    with faithfulness.shuffled_from_the_top(model, 2, seed=0) as shares:
        assert next(shares) == 0.5
        assert not np.array_equal(last.get_weights()[0], held[1])
        np.testing.assert_array_equal(first.get_weights()[0], held[0])
        assert next(shares) == 1.0
        assert not np.array_equal(first.get_weights()[0], held[0])
        np.testing.assert_array_equal(np.sort(first.get_weights()[0], axis=None), np.sort(held[0], axis=None))
    np.testing.assert_array_equal(first.get_weights()[0], held[0])


def test_the_share_inside_a_mask() -> None:
    values = np.zeros((2, 4, 4), "float32")
    values[0, 0, 0], values[0, 3, 3], values[0, 1, 1] = 3, 1, -9
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    row = faithfulness.inside(values, [{"heart": mask}, {}])
    assert row == {"inside_heart": 0.75, "area_heart": 0.25, "pointing_heart": 1.0}
    assert faithfulness.inside(values[1:], [{"heart": mask}])["pointing_heart"] == 0
    assert faithfulness.inside(values, []) == {}


# ---------------------------------------------------------------------------------------------------- the demo's truth


def test_the_ventricle_lies_where_it_is_drawn() -> None:
    size = Render(96, 96)
    from cardium.demo import phantom

    patient = phantom.cohort(cmri.PATIENTS)[4]
    path = f"{patient.label}/Directory_{patient.number}/SR_2/IM00001.jpg"
    mask = demos.true_masks(Path(), "cmri", path, "image", size)["ventricle"]
    image, masks = phantom.phantom(patient, 1, 0)
    drawn = np.asarray(Image.fromarray(masks["lv"].astype(np.uint8) * 255).resize((96, 96))) > 127
    assert (mask & drawn).sum() == drawn.sum(), "the cavity is part of it"
    assert 0.02 < mask.mean() < 0.15
    shown = np.asarray(Image.fromarray(image).resize((96, 96)))
    assert shown[mask & drawn].mean() > 1.5 * shown[mask & ~drawn].mean(), "bright blood in a dark wall"


def test_the_heart_of_a_volume_goes_the_way_of_its_voxels() -> None:
    from cardium.demo import thorax
    from cardium.demo.uncompressed import nifti

    usual = chd.DEMO
    settings = config.load(PROJECT)
    size = dataclasses.replace(settings.datasets["chd"].render["slices"], frames=12, height=48, width=48)
    for patient in thorax.cohort(usual.count, usual.seed)[:2]:
        masks = demos.true_masks(Path(), "chd", f"ct_{patient.id}_image.nii.gz", "slices", size)
        shown = render_file(nifti(thorax.volume(patient), thorax.affine(patient)), "slices", size, settings.ingest.limits).array
        heart = masks["heart"]
        assert heart.shape == shown.shape
        turned = [shown[heart[::-1]], shown[heart[:, ::-1]], shown[heart[:, :, ::-1]]]
        assert shown[heart].mean() > 1.15 * max(one.mean() for one in turned), "contrast fills the heart and nothing beside it"
        assert ("defect" in masks) == (patient.kind != "none")


def test_the_leads_of_an_infarct_are_those_that_face_it() -> None:
    from cardium.demo.ecg_signal import FACING, LEADS, record

    path = next(paths[0] for (label, number), paths in ecg.ecg4_paths(24, 4004).items() if (label, number) == ("MI", 3))
    kind = record("MI", 3, ecg.ECG4.seed).kind
    leads = demos.true_masks(Path(), "ecg4", path, "leads", Render(8, 8))["leads"]
    assert {name for name, mask in zip(LEADS, leads, strict=False) if mask.all()} == set(FACING[kind])
    traces = demos.true_masks(Path(), "ecg4", path, "traces", Render(*SHAPE))["leads"]
    assert {name for name, mask in zip(LEADS, traces, strict=False) if mask.all()} == set(FACING[kind])
    normal = next(paths[0] for (label, _), paths in ecg.ecg4_paths(24, 4004).items() if label == "Normal")
    assert demos.true_masks(Path(), "ecg4", normal, "leads", Render(8, 8)) == {}


def test_the_traces_of_a_sheet_are_its_ink(tmp_path: Path) -> None:
    from cardium.demo.ecg_sheet import draw_sheet, sheet_style
    from cardium.demo.ecg_signal import record

    seed = ecg.ECG4.seed
    (path,) = (paths[0] for sheet, paths in ecg.ecg4_paths(24, seed).items() if sheet == ("MI", 13))
    drawn, _ = draw_sheet(record("MI", 13, seed), sheet_style("reports", 13, seed), 13, seed)
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    Image.fromarray(drawn).save(file, "PNG")
    size = Render(224, 224, "paper")
    masks = demos.true_masks(tmp_path, "ecg4", path, "image", size)
    shown = render_file(file.read_bytes(), "image", size, config.load(PROJECT).ingest.limits).array.min(axis=2)
    white = np.percentile(shown, 90)
    dark = shown < white - 90
    assert dark.sum() > 200
    assert masks["traces"][dark].mean() > 0.8, "what is black is trace"
    assert 0.02 < masks["leads"].mean() < masks["traces"].mean() + 0.4


# ---------------------------------------------------------------------------------------------------- words


def test_a_place_is_said_in_ninths_and_no_finding_is_claimed() -> None:
    model, _ = linear("image", (9, 9, 3))
    values = np.zeros((9, 9), "float32")
    values[0:3, 6:9] = 1
    values[4, 4] = 1
    values[8, 0] = -50
    looked = where(model, values)
    assert (looked.region, looked.region_share) == ("upper right", pytest.approx(0.9))
    assert text_line("gradcam", "Sick", 0.9149, looked) == (
        "Sick, probability 0.91. Looked at, by gradcam: the upper right ninth of the picture (90%). No clinical finding."
    )
    nothing = where(model, np.zeros((9, 9), "float32"))
    assert nothing == Looked()
    assert "nowhere (nothing speaks for it)" in text_line("gradcam", "Sick", 0.5, nothing)


def test_leads_are_named_where_a_method_tells_them_apart() -> None:
    model, _ = linear("leads", (13, 4, 4))
    values = np.zeros((13, 4, 4), "float32")
    values[7] = 3  # V2
    values[1] = 1
    looked = where(model, values)
    assert (looked.leads["V2"], looked.leads["II"]) == (0.75, 0.25)
    assert "leads V2 (75%), II (25%)" in text_line("occlusion", "MI", 0.8, looked)
    assert where(model, np.ones((13, 4, 4), "float32")).leads == {}, "a map without leads names none"
    traces, _ = linear("traces", SHAPE)
    values = np.zeros(SHAPE, "float32")
    values[6] = 1  # V1's heartbeat
    values[13, 0] = 96
    looked = where(traces, values)
    assert looked.leads["V1"] == pytest.approx(0.5)
    assert looked.measurements["all"] == pytest.approx(0.5)
    assert list(looked.measurements)[1] == "rate", "the first measurement"


def test_boxes_of_leads_fit_the_rendered_paper() -> None:
    from cardium.demo.ecg_sheet import draw_sheet, sheet_style
    from cardium.demo.ecg_signal import record
    from cardium.imaging.sheet import find_sheet

    pixels, _ = draw_sheet(record("Normal", 2, 4004), sheet_style("reports", 2, 4004), 2, 4004)
    boxes = places.lead_boxes(find_sheet(pixels), pixels.shape[:2], Render(96, 128, "paper"))
    assert len(boxes) == 13
    assert all(box.any() for box in boxes.values())
    middle = {name: np.argwhere(box).mean(axis=0) for name, box in boxes.items()}
    assert middle["I"][0] < middle["II"][0] < middle["III"][0] < middle["rhythm"][0]
    assert middle["I"][1] < middle["V1"][1]


# ---------------------------------------------------------------------------------------------------- what is shown


def test_the_gallery_takes_each_patient_once_before_twice() -> None:
    right = np.array([True, True, True, True, False])
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.99])
    groups = np.array(["a", "a", "b", "c", "a"])
    assert pick(right, confidence, groups, 2) == {
        "right, most confident": [0, 2],
        "right, least confident": [3, 1],
        "wrong, most confident": [4],
    }
    labels = np.array([0, 0, 0, 1, 1])
    assert pick_tested(right, labels, groups, 3).tolist() == [0, 2, 3]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> config.Settings:
    """A project with eight patients, 24x24 pixels, and a run whose network says Sick where the picture is bright."""
    root = tmp_path_factory.mktemp("explain")
    rng = np.random.default_rng(0)
    for patient in range(12):
        label = "Sick" if patient % 2 else "Normal"
        for frame in range(3):
            file = root / "data" / "cmri" / label / f"Directory_{patient}" / "SR_1" / f"IM{frame:05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            level = 90 + 60 * (patient % 2) * (patient != 3)
            Image.fromarray(rng.integers(level, level + 60, (40, 40), dtype=np.uint8)).save(file)
    plain = config.load(PROJECT)
    dataset = dataclasses.replace(plain.datasets["cmri"], render={"image": Render(24, 24), "heart": Render(133, 512)})
    quick = dataclasses.replace(plain.explain, shown=2, tested=2, steps=4, most_steps=4, samples=2, curve=4, cascade=2)
    settings = dataclasses.replace(plain, root=root, active=["cmri"], datasets={"cmri": dataset}, explain=quick)
    for stage, item in ((ingest, "cmri"), (split, "cmri"), (prepare, "cmri-image")):
        stage.run(settings, item)
    inputs = keras.Input((24, 24, 3), name="pixels")
    cam = layers.Identity(name="cam")(layers.Conv2D(2, 3, padding="same", activation="relu")(layers.Rescaling(1 / 255)(inputs)))
    embedding = layers.GlobalAveragePooling2D(name="embedding")(cam)
    score = layers.Dense(1, activation="sigmoid", name="score")(embedding)
    both = layers.Concatenate(name="probabilities")([layers.Rescaling(-1.0, offset=1.0)(score), score])
    model = keras.Model(inputs, both, name="mobilenetv2")
    kernel = np.zeros((3, 3, 3, 2), "float32")
    kernel[1, 1, :, 0] = 1 / 3
    model.get_layer(model.layers[2].name).set_weights([kernel, np.zeros(2, "float32")])
    model.get_layer("score").set_weights([np.array([[20.0], [0.0]], "float32"), np.array([-12.0], "float32")])
    folder = root / RUN.folder
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    data = json.loads((root / "processed/cmri/manifest/fingerprint.json").read_text())
    trained = TrainedRun(
        id=new_id(),
        run=RUN,
        kind="train",
        classes=["Normal", "Sick"],
        rendering="image",
        size=Render(24, 24),
        test_folds=[0, 1],
        data=DataVersion("", data["manifest_sha256"], ""),
        folder=folder,
        settings={"evaluate.threshold": 0.5},
    )
    trained.write(folder)
    return settings


def test_a_run_is_explained_on_records_of_its_test_fold(project: config.Settings, capsys: pytest.CaptureFixture[str]) -> None:
    folder = explain.explain_run(project, RUN, "gradcam", test_all=True)
    assert folder == project.root / "reports/cmri/explanations/cmri-mobilenetv2/gradcam"
    told = json.loads((folder / "explanations.json").read_text())
    assert (told["method"], told["run"], told["score"]) == ("gradcam", "cmri-mobilenetv2", "log-odds of the class")
    import pandas as pd

    manifest = pd.read_parquet(project.root / "processed/cmri/manifest/manifest.parquet")
    folds = pd.read_csv(project.root / "processed/cmri/split/honest.csv").set_index("group")["fold"]
    for entry in told["records"]:
        row = manifest.iloc[entry["record"]]
        assert (row["path"], row["label"], folds[row["group"]]) == (entry["path"], entry["label"], 0)
        assert entry["decided"] == max(entry["probabilities"], key=entry["probabilities"].get)
        assert entry["group"].startswith("right") == (entry["decided"] == entry["label"])
        assert entry["text"].endswith("No clinical finding.")
        assert Image.open(folder / entry["overlay"]).format == "PNG"
    assert Image.open(folder / "gallery.png").width > 400
    table = pd.read_csv(folder / "faithfulness.csv").set_index("method")
    assert list(table.index) == [*METHODS, "random"]
    assert table["completeness"].notna().tolist() == [name == "integrated_gradients" for name in table.index]
    faithful = json.loads((folder / "faithfulness.json").read_text())["methods"]
    assert len(faithful["gradcam"]["curve"]) == 5
    assert (folder / "faithfulness.png").is_file()
    assert not [name for name in table.columns if name.startswith("inside")], "no truth is known of data that is no demo"
    said = capsys.readouterr().out
    assert "Wrote reports/cmri/explanations/cmri-mobilenetv2/gradcam/. Next: " in said
    again = explain.explain_run(project, RUN, "gradcam")
    assert json.loads((again / "explanations.json").read_text()) == told, "the same every time"
    faithful_again = json.loads((again / "faithfulness.json").read_text())["methods"]
    assert list(faithful_again) == ["gradcam", "random"]
    assert faithful_again["gradcam"] == faithful["gradcam"]


def test_files_are_explained_and_a_broken_one_is_named(project: config.Settings, tmp_path: Path) -> None:
    good, bad = tmp_path / "bright.png", tmp_path / "broken.png"
    Image.fromarray(np.full((40, 40), 250, np.uint8)).save(good)
    bad.write_bytes(b"no image")
    rows = explain_files(project, RUN, "occlusion", [str(good), str(bad)])
    assert rows[0]["text"].startswith("Sick, probability ")
    assert Path(rows[0]["overlay"]).is_file()
    assert rows[1]["file"] == str(bad)
    assert rows[1]["error"]
    # A name that is no UTF-8.
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/IM\xff.png")
    Path(odd).write_bytes(good.read_bytes())
    asked = explain_files(project, RUN, "occlusion", [odd], of_class="Normal")
    assert asked[0]["text"].startswith("Normal, probability 0.0")
    with pytest.raises(CardiumError, match=r"None of the files can be explained .*broken\.png: .*give JPEG, PNG or DICOM"):
        explain_files(project, RUN, "", [str(bad)])


def test_mistakes_are_one_line(project: config.Settings) -> None:
    def run(model: str = "mobilenetv2", method: str = "gradcam", **options: Any) -> None:
        explain.explain_run(project, RunId("cmri", model, options.pop("protocol", "honest")), method, **options)

    with pytest.raises(
        CardiumError, match=r"cmri-densenet201 is not trained yet: .*`cardium train --dataset cmri --model dense"
    ):
        run("densenet201")
    with pytest.raises(CardiumError, match=r"cmri-ensemble is not trained yet: .*`dvc repro ensemble@cmri-ensemble`"):
        run("ensemble")
    with pytest.raises(CardiumError, match=r"--protocol published"):
        run("vgg16", protocol="published")
    with pytest.raises(CardiumError, match=r"Unknown method `grad-cam`"):
        run(method="grad-cam")
    with pytest.raises(CardiumError, match=r"Unknown class `Ill`.*Normal, Sick"):
        run(of_class="Ill")


def test_a_map_of_one_place_is_not_offered() -> None:
    from types import SimpleNamespace
    from typing import cast

    from cardium.explain.attribution import default_method
    from cardium.explain.opened_model import OpenedModel

    def default(places: int) -> str:
        return default_method(cast(OpenedModel, SimpleNamespace(map_places=places)))

    assert [default(places) for places in (0, 1, 9)] == ["integrated_gradients", "integrated_gradients", "gradcam"]
