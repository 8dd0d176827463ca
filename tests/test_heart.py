"""The left ventricle in cine images: against the phantoms' true masks, and when there is none to be found."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardium.demo import phantom
from cardium.imaging import heart as hearts
from cardium.imaging import heart_format
from cardium.imaging.heart import find_heart, render_heart, slice_positions

# A strongly and a weakly beating heart, the smallest wall and the thickest, pictures upright and lying.
PATIENTS = [one for one in phantom.cohort(16) if one.number in (2, 3, 6, 12)]


@functools.lru_cache
def drawn(number):
    """(positions, true pool areas (3, 8), true wall areas (3, 8)) of a phantom patient, areas on the scaled picture."""
    patient = next(one for one in PATIENTS if one.number == number)
    images, masks = [], []
    for level in range(phantom.SLICES):
        for frame in range(phantom.FRAMES):
            image, mask = phantom.phantom(patient, level, frame)
            images.append(image)
            masks.append(mask)
    zoom = (hearts.SIDE / max(images[0].shape)) ** 2
    shape = (phantom.SLICES, phantom.FRAMES)
    pool, wall = (np.reshape([mask[name].sum() * zoom for mask in masks], shape) for name in ("lv", "myocardium"))
    return [images[8 * level : 8 * level + 8] for level in range(phantom.SLICES)], pool, wall


@functools.lru_cache
def found(number):
    return find_heart(drawn(number)[0])


@pytest.mark.parametrize("number", [one.number for one in PATIENTS])
def test_measures_are_the_phantoms_own(number):
    _, pool, wall = drawn(number)
    heart = found(number)
    assert [(one.position, one.ed, one.es) for one in heart.slices] == [(level, 0, phantom.END_SYSTOLE) for level in range(3)]
    true = 1 - pool[:, phantom.END_SYSTOLE].sum() / pool[:, 0].sum()
    assert heart.measures["ejection_fraction"] == pytest.approx(true, abs=0.03)
    for one in heart.slices[:2]:  # At the tip of a dilated heart both ventricles may be taken for one.
        assert one.contours[0].pool == pytest.approx(pool[one.position, 0], rel=0.15)
        assert one.contours[1].pool == pytest.approx(pool[one.position, phantom.END_SYSTOLE], rel=0.18)
        assert one.contours[0].wall == pytest.approx(wall[one.position, 0], rel=0.45)
    assert heart.warnings == ()
    assert heart.confidence > 0.5


def test_neither_the_number_of_frames_nor_their_order_is_a_measure():
    positions, _, _ = drawn(2)
    two = find_heart([[frames[phantom.END_SYSTOLE], frames[0]] for frames in positions])
    for name, value in found(2).measures.items():
        assert two.measures[name] == pytest.approx(value, abs=0.02), name


def test_a_picture_on_its_side_shows_the_same_heart():
    turned = find_heart([[np.ascontiguousarray(frame.T) for frame in frames] for frames in drawn(12)[0]])
    assert turned.measures["ejection_fraction"] == pytest.approx(found(12).measures["ejection_fraction"], abs=0.02)
    assert turned.measures["wall_to_pool"] == pytest.approx(found(12).measures["wall_to_pool"], rel=0.05)


def test_slices_are_told_apart_by_the_body_around_the_heart():
    positions, _, _ = drawn(6)
    pictures = [frame for frames in positions for frame in frames]
    assert slice_positions(pictures, [""] * len(pictures)) == [list(range(at, at + 8)) for at in (0, 8, 16)]
    # A series of its own begins a slice of its own, whatever it shows.
    assert slice_positions(pictures[:4], ["a", "a", "b", "b"]) == [[0, 1], [2, 3]]


def test_what_shows_no_beating_ring_is_said():
    positions, _, _ = drawn(2)
    noise = np.random.default_rng(0).integers(0, 255, (2, 3, 200, 200), dtype=np.uint8)
    assert find_heart([[frames[0]] for frames in positions]).warnings == (hearts.NO_MOTION,)
    assert find_heart([]).warnings == (hearts.NO_MOTION,)
    assert hearts.NOT_SURE in find_heart([list(frames) for frames in noise]).warnings
    assert find_heart([[np.zeros((64, 64), np.uint8)] * 3]).warnings == (hearts.NO_RING,)
    few = find_heart(positions[:2])
    assert hearts.FEW_SLICES in few.warnings
    assert few.measures["ejection_fraction"] == pytest.approx(found(2).measures["ejection_fraction"], abs=0.06)
    # Another view among the slices takes no part: here the body without its heart.
    still = [np.roll(positions[0][0], (90, 90), (0, 1))] * 3
    mixed = find_heart([*positions, still])
    assert (len(mixed.slices), mixed.left_out) == (3, 1)
    assert mixed.measures == pytest.approx(found(2).measures, abs=0.05)


def test_the_hull_is_that_of_another_implementation():
    from scipy.spatial import ConvexHull

    rng = np.random.default_rng(3)
    radii = (10 + 4 * rng.random((2, heart_format.ANGLES))).astype(np.float32)
    angle = 2 * np.pi * np.arange(heart_format.ANGLES) / heart_format.ANGLES
    for ours, one in zip(hearts._hull(radii), radii, strict=True):
        points = np.stack([one * np.cos(angle), one * np.sin(angle)], axis=1)
        assert hearts.area(ours) == pytest.approx(ConvexHull(points).volume, rel=1e-3)
        assert (ours >= one - 1e-5).all()


def test_a_closed_path_is_the_cheapest_of_all():
    # Of all closed paths over four angles and three radii, counted one by one.
    from itertools import product

    rng = np.random.default_rng(5)
    cost = rng.random((3, 4, 3)).astype(np.float32)

    def price(one, path):
        steps = [abs(path[k] - path[k - 1]) for k in range(4)]
        return np.inf if max(steps) > 1 else sum(one[k, r] for k, r in enumerate(path)) + 0.15 * sum(steps)

    for one, path in zip(cost, hearts._closed_paths(cost), strict=True):
        best = min(price(one, list(each)) for each in product(range(3), repeat=4))
        # Twice around is not quite closed by force: it may miss the best closed path by a step, and no more.
        assert sum(one[k, r] for k, r in enumerate(path)) <= best + 0.3


VALUES = st.fixed_dictionaries({measure.name: st.floats(measure.low, measure.high) for measure in heart_format.MEASURES})


@given(values=VALUES, confidence=st.floats(0, 1))
def test_the_format_keeps_measures_to_a_step(values, confidence):
    array = heart_format.encode(values, confidence, np.zeros((2, 0, 64, 64), np.uint8), np.zeros((0, 4, 64), np.float32))
    kept = heart_format.measures_of(array)
    assert heart_format.was_found(array)
    assert heart_format.confidence_of(array) == pytest.approx(confidence, abs=1 / 255)
    for measure in heart_format.MEASURES:
        assert abs(measure.level(kept[measure.name]) - measure.level(values[measure.name])) <= 0.51


def test_the_rendering_holds_what_was_found():
    array = render_heart(found(2))
    assert (array.shape, array.dtype) == (heart_format.SHAPE, np.uint8)
    kept = heart_format.measures_of(array)
    assert kept["ejection_fraction"] == pytest.approx(found(2).measures["ejection_fraction"], abs=0.003)
    # The contours: of the wall outside of the pool, of the tile inside.
    endo, epi = array[1, :192].astype(float), array[2, :192].astype(float)
    assert (endo > 0).all()
    assert (epi > endo).all()
    picture = heart_format.drawn(array)
    assert picture.shape == (256, 3 * 128, 3)
    assert (picture.std(axis=2) > 0).any()
    nothing = render_heart(find_heart([]))
    assert not nothing.any()
    assert heart_format.measures_of(nothing) == {}


def test_the_normal_heart_stands_in_for_a_measured_one_alone():
    array = render_heart(found(2))
    normal = heart_format.normal_levels(array)
    assert heart_format.measures_of(normal)["ejection_fraction"] == pytest.approx(0.65, abs=0.01)
    np.testing.assert_array_equal(normal[1:], array[1:])


def test_of_many_slices_eight_are_kept():
    heart = found(2)
    many = hearts.Heart(heart.slices * 5, heart.measures, 1.0, (), 0)
    array = render_heart(many)
    assert (array[1].reshape(heart_format.SLICES, 64) > 0).all()
