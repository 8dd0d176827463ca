"""Printouts: the same for the same seed, and with everything where their truth says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cardium.demo.draws import RandomStream
from cardium.demo.ecg_signal import record
from cardium.demo.sheet_printer import draw_style, print_sheet, print_something_else

_SIZE = (900, 600)
_LEADS = record("Normal", 1, 5).leads
_ROWS = {
    "3x4": (12, 0),
    "3x4+1": (12, 1),
    "3x4+2": (12, 2),
    "3x4+3": (12, 3),
    "6x2": (12, 0),
    "6x2+1": (12, 1),
    "12x1": (12, 0),
    "6x1": (6, 0),
}


def printed(seed: int, **changes):
    rng = RandomStream(seed, 4)
    style = replace(draw_style(rng), **changes)
    return *print_sheet(_LEADS, style, _SIZE, rng), style


def test_the_seed_is_all_that_decides():
    one, again, other = (printed(seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.shape == (600, 900, 3)
    assert one.dtype == np.uint8


def test_every_layout_is_drawn_once_in_a_while():
    assert {draw_style(RandomStream(seed, 4)).layout for seed in range(150)} == set(_ROWS)


@pytest.mark.parametrize("layout", _ROWS)
def test_leads_and_edges_are_where_they_belong(layout):
    _, truth, _ = printed(11, layout=layout, camera=False, cut=(0.0,) * 4)
    leads, strips = _ROWS[layout]
    names = [name for name, _, _ in truth.baselines]
    assert len(names) == leads + strips
    assert names.count("strip") == strips
    assert len(set(names) - {"strip"}) == leads
    # Of neighbours in a row the one ends where the other begins.
    lines = {name: points for name, _, points in truth.baselines if name != "strip"}
    if layout.startswith("3x4"):
        assert lines["I"][-1, 0] == pytest.approx(lines["aVR"][0, 0], abs=12)
        assert lines["III"][:, 1].mean() > lines["II"][:, 1].mean() > lines["I"][:, 1].mean()
    assert {kind for kind, _ in truth.edges} == ({"begin", "end"} if "x1" in layout else {"begin", "between", "end"})


@pytest.mark.parametrize("camera", [False, True])
def test_traces_run_along_the_baselines_in_any_perspective(camera):
    for seed in range(40, 44):
        flat = {
            "grid": "none",
            "tall": 0.6,
            "wander": 0.02,
            "ink": (0.0, 0.0, 0.0),
            "pen": 0.4,
            "layout": "3x4+1",
            "cut": (0.0,) * 4,
        }
        pixels, truth, _ = printed(seed, camera=camera, **flat)
        dark = 255 - pixels.max(axis=2).astype(float)
        shares = []
        for _, _, points in truth.baselines:
            for x, y in points[4:-4:3]:
                if 8 <= x < 892 and 8 <= y < 592:
                    near = dark[int(y) - 7 : int(y) + 8, int(x) - 1 : int(x) + 2]
                    around = np.median(dark[max(0, int(y) - 30) : int(y) + 30, int(x) - 1 : int(x) + 2])
                    shares.append(near.max() > around + 30)
        assert np.mean(shares) > 0.8


def test_turned_and_cut_printouts():
    upright = printed(7, turned=0)[0]
    assert np.array_equal(printed(7, turned=1)[0], np.rot90(upright))
    whole, part = printed(8, camera=False, cut=(0.0,) * 4)[1], printed(8, camera=False, cut=(0.5, 0.0, 0.0, 0.0))[1]
    assert min(points[0, 0] for _, _, points in whole.baselines) >= 0
    assert min(points[0, 0] for _, _, points in part.baselines) < 0


def test_something_else_is_a_picture():
    pictures = [print_something_else(_SIZE, RandomStream(seed, 5)) for seed in range(6)]
    assert all(picture.shape == (600, 900, 3) and picture.std() > 2 for picture in pictures)
