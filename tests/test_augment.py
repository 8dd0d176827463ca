"""Augmentation is Keras' own affine transform, drawn from a seed, and never touches what it is given."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.src.legacy.preprocessing.image import apply_affine_transform

from cardium.imaging.augment import affine_matrix, augment_batch, random_matrix, resample, vary_colour
from cardium.imaging.spec import Augment

RANGES = Augment(rotation=15.0, shift=0.1, shear=0.1, zoom=0.1, flip=True)


def image(height: int = 40, width: int = 32) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = 127 + 60 * np.sin(rows / 5) + 60 * np.cos(columns / 4)
    return np.stack([smooth, smooth * 0.8, 255 - smooth], axis=-1).clip(0, 255).astype(np.uint8)


@given(
    rotation=st.floats(-30, 30),
    shift=st.floats(-4, 4),
    shear=st.floats(-10, 10),
    zoom_y=st.floats(0.8, 1.2),
    zoom_x=st.floats(0.8, 1.2),
)
@settings(deadline=None, max_examples=40)
def test_it_moves_pixels_as_keras_does(rotation: float, shift: float, shear: float, zoom_y: float, zoom_x: float) -> None:
    # On a square: elsewhere this Keras turns about a point that is not the centre (it swaps the axes after centring).
    picture = image(36, 36)
    ours = resample(picture, affine_matrix(rotation, shift, -shift, shear, zoom_x, zoom_y, False, 36, 36))
    keras_way = apply_affine_transform(
        picture.astype("float32"), rotation, shift, -shift, shear, zoom_x, zoom_y, row_axis=0, col_axis=1, channel_axis=2
    )
    assert np.abs(ours.astype(float) - keras_way).max() <= 1.0


def test_a_flip_mirrors_columns() -> None:
    picture = image()
    np.testing.assert_array_equal(resample(picture, affine_matrix(0, 0, 0, 0, 1, 1, True, 40, 32)), picture[:, ::-1])


def test_no_range_changes_nothing() -> None:
    still = Augment(rotation=0, shift=0, shear=0, zoom=0, flip=False)
    picture = image()
    np.testing.assert_array_equal(resample(picture, random_matrix(still, 1, 2, 3, 40, 32)), picture)


def test_a_view_is_a_function_of_seed_view_and_record() -> None:
    pictures = np.stack([image(), image()])
    records = np.array([7, 8])
    once = augment_batch(pictures, records, RANGES, seed=1, view=2)
    np.testing.assert_array_equal(once, augment_batch(pictures, records, RANGES, seed=1, view=2))
    # Neither the batch nor its order matters.
    np.testing.assert_array_equal(once[1:], augment_batch(pictures[1:], records[1:], RANGES, seed=1, view=2))
    assert not np.array_equal(once[0], once[1])
    assert not np.array_equal(once, augment_batch(pictures, records, RANGES, seed=1, view=3))
    assert not np.array_equal(once, augment_batch(pictures, records, RANGES, seed=2, view=2))


@pytest.mark.parametrize("channels", ["grey", "colour"])
def test_grey_stays_grey(channels: str) -> None:
    picture = image()
    if channels == "grey":
        picture = np.repeat(picture[..., :1], 3, axis=-1)
    moved = resample(picture, random_matrix(RANGES, 1, 1, 1, 40, 32))
    assert (moved[..., 0] == moved[..., 1]).all() == (channels == "grey")
    assert moved.dtype == np.uint8


def test_colour_varies_without_touching_grey_ink() -> None:
    sheet = np.full((4, 6, 3), (250, 190, 200), np.uint8)
    sheet[1, :] = 20
    np.testing.assert_array_equal(vary_colour(sheet, 1.0, 1.0), sheet)
    faded = vary_colour(sheet, 1.0, 0.0)
    assert (faded[0, 0] == 250).all(), "without its colour the grid is as light as paper"
    np.testing.assert_array_equal(faded[1], sheet[1])
    assert (vary_colour(sheet, 0.5, 1.0)[1] == 10).all()
    assert vary_colour(sheet, 2.0, 1.0).max() == 255


def test_colour_leaves_the_affine_part_of_a_view_as_it_is() -> None:
    picture = np.repeat(image()[..., :1], 3, axis=-1)
    coloured = Augment(**{**asdict(RANGES), "grid": 0.5})
    plain = augment_batch(picture[None], np.array([3]), RANGES, seed=1, view=1)
    # A grey picture has no colour to vary: what is left is the affine view.
    np.testing.assert_array_equal(augment_batch(picture[None], np.array([3]), coloured, seed=1, view=1), plain)
    brighter = Augment(**{**asdict(RANGES), "brightness": 0.3})
    assert not np.array_equal(augment_batch(picture[None], np.array([3]), brighter, seed=1, view=1), plain)


def test_the_leads_of_a_sheet_move_together() -> None:
    leads = np.repeat(image(32, 32)[None, :, :, 0], 13, axis=0)
    moved = augment_batch(leads[None], np.array([5]), RANGES, seed=1, view=1)[0]
    assert moved.shape == leads.shape
    assert all(np.array_equal(moved[0], lead) for lead in moved)
    still = Augment(rotation=0, shift=0, shear=0, zoom=0, flip=False)
    np.testing.assert_array_equal(augment_batch(leads[None], np.array([5]), still, seed=1, view=1)[0], leads)
