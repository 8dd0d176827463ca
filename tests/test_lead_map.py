"""The network's arithmetic against loops, and what it sees on printouts whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from cardium.demo.draws import RandomStream
from cardium.demo.ecg_signal import record
from cardium.demo.sheet_printer import draw_style, print_sheet, print_something_else
from cardium.imaging import lead_map
from cardium.imaging.lead_map import CELL, LONGEST, NO_SHEET, darkness, see_leads


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2), (6, 4)])
def test_convolution_against_loops(monkeypatch, size, stride):
    random = np.random.default_rng(size)
    x = random.normal(size=(8, 12, 3)).astype(np.float32)
    kernel, bias = random.normal(size=(size, size, 3, 5)).astype(np.float32), random.normal(size=5).astype(np.float32)
    monkeypatch.setattr(lead_map, "_weights", lambda: {"a_w": kernel, "a_b": bias})
    # TensorFlow's "same": as many zeros as are needed, the odd one behind.
    before = max(size - stride, 0) // 2
    expected = np.zeros((8 // stride, 12 // stride, 5))
    for row, column in np.ndindex(expected.shape[:2]):
        for i, j in np.ndindex(size, size):
            y, z = row * stride + i - before, column * stride + j - before
            if 0 <= y < 8 and 0 <= z < 12:
                expected[row, column] += x[y, z] @ kernel[i, j]
    np.testing.assert_allclose(lead_map._convolved(x, "a", stride), np.maximum(expected + bias, 0), atol=1e-4)


def test_darkness_is_of_the_paper_around():
    pixels = np.full((120, 200, 3), 200, np.uint8)
    pixels[:, 100:] = 100
    pixels[60] = 0
    seen = darkness(pixels)
    assert seen.shape == (128, 256, 2)
    assert not seen[120:].any()
    assert not seen[:, 200:].any()
    assert (seen[60, :200] == 255).all()
    assert not seen[20:40, 10:50].any()
    assert not seen[20:40, 160:190].any()


def printed(seed: int, size: tuple[int, int] = (960, 640)):
    rng = RandomStream(seed, 1)
    return print_sheet(record("Normal", 1 + seed, 3).leads, draw_style(rng), size, rng)


def test_baselines_are_seen_where_they_are_printed():
    on, off = [], []
    for seed in range(6):
        pixels, truth = printed(seed)
        found = see_leads(pixels)
        assert found.scale == CELL * 960 / LONGEST
        seen = np.maximum.reduce([found.channel(name) for name in ("quarter", "half", "full")])
        near = np.zeros_like(seen, dtype=np.bool_)
        for _, _, points in truth.baselines:
            cells = np.floor(points / found.scale).astype(int)
            inside = (cells >= 0).all(axis=1) & (cells[:, 0] < seen.shape[1]) & (cells[:, 1] < seen.shape[0])
            x, y = cells[inside].T
            on.append(seen[y, x].mean())
            for dy, dx in np.ndindex(7, 7):
                near[np.clip(y + dy - 3, 0, seen.shape[0] - 1), np.clip(x + dx - 3, 0, seen.shape[1] - 1)] = True
        off.append(seen[~near].mean())
    assert np.mean(on) > 0.6
    assert np.mean(off) < 0.06


def test_a_picture_of_something_else_is_told_apart():
    sheets = [see_leads(printed(seed)[0]).turned[NO_SHEET] for seed in range(20, 25)]
    others = [see_leads(print_something_else((640, 448), RandomStream(seed, 2))).turned[NO_SHEET] for seed in range(6)]
    assert np.median(sheets) < 0.2 < 0.6 < np.median(others)
