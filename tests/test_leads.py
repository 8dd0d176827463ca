"""Leads of sheets drawn in test_sheet.py."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from test_sheet import draw_sheet, resized

from cardium.imaging.leads import render_leads, thickened
from cardium.imaging.sheet import Sheet, find_sheet


def leads_of(pixels: np.ndarray, height: int = 64, width: int = 64) -> np.ndarray:
    return render_leads(pixels, find_sheet(pixels), height, width)


@pytest.mark.parametrize("layout", ["3x4+1", "6x2+1", "6x2"])
def test_thirteen_leads_black_with_a_white_trace(layout):
    leads = leads_of(draw_sheet(layout))
    assert leads.shape == (13, 64, 64)
    assert leads.dtype == np.uint8
    for lead in leads:
        # The trace goes from one end to the other, and most of the rest is nothing.
        assert (lead.max(axis=0) > 100).mean() > 0.95
        assert (lead == 0).mean() > 0.6
        assert lead.max() > 240


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (9, 5)])
def test_thickening_is_the_maximum_of_three_by_three(shape):
    raster = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    padded = np.pad(raster, 1)
    around = [padded[y : y + shape[0], x : x + shape[1]] for y in range(3) for x in range(3)]
    assert (thickened(raster) == np.max(around, axis=0)).all()


def test_any_size_can_be_asked_for():
    pixels = draw_sheet("3x4+1")
    assert leads_of(pixels, 32, 96).shape == (13, 32, 96)
    assert leads_of(pixels, 300, 700).shape == (13, 300, 700)


@pytest.mark.parametrize("grid", [(240, 190, 190), (250, 200, 140), (205, 205, 205)], ids=["pink", "orange", "grey"])
def test_the_grid_leaves_nothing(grid):
    plain = leads_of(draw_sheet("3x4+1", grid=None)).astype(int)
    gridded = leads_of(draw_sheet("3x4+1", grid=grid)).astype(int)
    assert np.abs(plain - gridded).mean() < 6
    # Above the first row's pulses there is grid only.
    blank = Sheet("grid", 0.0, (0, 0, 1106, 786), ((300, 135, 500, 165),) * 13, 0.0, ())
    assert render_leads(draw_sheet("3x4+1", grid=grid), blank, 32, 32).max() == 0


@pytest.mark.parametrize("factor", [3.0, 2.0, 0.5])
def test_leads_look_alike_at_any_resolution(factor):
    pixels = draw_sheet("3x4+1")
    once, again = leads_of(pixels).astype(int), leads_of(resized(pixels, factor)).astype(int)
    for lead, other in zip(once, again, strict=True):
        # The trace's height in each column, within two pixels nearly everywhere.
        assert (np.abs(lead.argmax(axis=0) - other.argmax(axis=0)) <= 2).mean() > 0.8


def test_thin_traces_survive():
    pixels = np.full((786, 1106, 3), 255, np.uint8)
    pixels[400, 100:1000] = 0
    box = (100, 200, 1000, 600)
    lead = render_leads(pixels, Sheet("grid", 0.0, box, (box,) * 13, 0.0, ()), 64, 64)[0]
    assert (lead.max(axis=0) > 90).all()
    assert (lead.max(axis=1) > 0).sum() <= 3


def test_a_spike_of_the_strip_survives():
    pixels = np.full((786, 1106, 3), 255, np.uint8)
    for x in range(100, 1000, 90):
        pixels[300:400, x : x + 2] = 0
    box = (80, 250, 1040, 450)
    lead = render_leads(pixels, Sheet("grid", 0.0, box, (box,) * 13, 0.0, ()), 64, 64)[12]
    assert (lead[20:40].max(axis=0) > 40).sum() >= 10


def test_a_turned_sheet_gives_the_same_leads():
    pixels = draw_sheet("3x4+1")
    leaning = np.asarray(Image.fromarray(pixels).rotate(2, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255)))
    once, again = leads_of(pixels).astype(int), leads_of(leaning).astype(int)
    assert np.mean(np.abs(once.argmax(axis=1) - again.argmax(axis=1)) <= 3) > 0.8


def test_a_blank_page_has_empty_leads():
    assert leads_of(np.full((300, 400, 3), 250, np.uint8)).max() == 0
