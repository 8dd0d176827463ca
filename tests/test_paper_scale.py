"""Pixels per millimetre of grids that are drawn here."""

from __future__ import annotations

import numpy as np
import pytest

from cardium.imaging.paper_scale import pixels_per_mm


def ruled(mm: float, bold: bool = True, fine: bool = True, height: int = 500, width: int = 900) -> np.ndarray:
    """Pink paper with a line every millimetre and a darker one every fifth, softened as a camera does."""
    pixels = np.full((height, width, 3), 250.0)
    for axis, size in ((0, height), (1, width)):
        place = np.arange(size)
        for step, dark, wanted in ((mm, 30, fine), (5 * mm, 60, bold)):
            away = np.abs(place / step - np.rint(place / step)) * step
            line = dark * wanted * np.clip(1.2 - away, 0, 1)
            shape = (size, 1, 1) if axis == 0 else (1, size, 1)
            pixels -= line.reshape(shape) * np.array([0.1, 1.0, 1.0])
    return np.clip(pixels + np.random.default_rng(0).normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("mm", [3.1, 4.37, 7.9])
@pytest.mark.parametrize("off", [0.85, 1.0, 1.2])
@pytest.mark.parametrize(("bold", "fine"), [(True, True), (False, True), (True, False)])
def test_a_grid_is_measured(mm, off, bold, fine):
    assert pixels_per_mm(ruled(mm, bold, fine), off * mm) == pytest.approx(mm, rel=0.02)


def test_paper_without_a_grid():
    blank = np.random.default_rng(1).normal(240, 3, (400, 700, 3)).astype(np.uint8)
    assert pixels_per_mm(blank, 4.0) is None
    assert pixels_per_mm(blank[:20, :30], 4.0) is None
