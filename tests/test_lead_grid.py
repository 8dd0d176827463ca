"""Grids of leads from perfect maps of pictures in any perspective."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardium.imaging.lead_grid import find_grid
from cardium.imaging.lead_map import CHANNELS, LeadMap

_LAYOUTS = {
    "3x4": (3, 4, 0),
    "3x4+1": (3, 4, 1),
    "3x4+2": (3, 4, 2),
    "3x4+3": (3, 4, 3),
    "6x2": (6, 2, 0),
    "6x2+1": (6, 2, 1),
    "12x1": (12, 1, 0),
}
_HEIGHT, _WIDTH = 56, 80


def drawn(layout: str, corners: np.ndarray) -> tuple[LeadMap, np.ndarray]:
    """A map with lines two cells wide, and where each row begins and ends; corners: of the sheet in the map, clockwise."""
    rows, columns, strips = _LAYOUTS[layout]
    seen = np.zeros((len(CHANNELS), _HEIGHT, _WIDTH), np.float32)

    def place(u: float, v: float) -> np.ndarray:
        """Bilinear between the corners: u along, v down."""
        top, bottom = corners[0] + u * (corners[1] - corners[0]), corners[3] + u * (corners[2] - corners[3])
        return top + v * (bottom - top)

    def mark(channel: str, point: np.ndarray) -> None:
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                x, y = int(point[0]) + dx, int(point[1]) + dy
                if 0 <= x < _WIDTH and 0 <= y < _HEIGHT:
                    value = np.exp(-((x + 0.5 - point[0]) ** 2 + (y + 0.5 - point[1]) ** 2) / 1.28)
                    seen[CHANNELS.index(channel), y, x] = max(seen[CHANNELS.index(channel), y, x], value)

    levels = (np.arange(rows + strips) + 0.5) / (rows + strips)
    for row, v in enumerate(levels):
        kind = {4: "quarter", 2: "half", 1: "full"}[columns] if row < rows else "full"
        for u in np.linspace(0, 1, 200):
            mark(kind, place(u, v))
        for part in range((columns if row < rows else 1) + 1):
            count = columns if row < rows else 1
            edge = "begin" if part == 0 else "end" if part == count else "between"
            for dv in np.linspace(-0.4, 0.4, 9) / (rows + strips):
                mark(edge, place(part / count, v + dv))
    ends = np.array([[place(0, v), place(1, v)] for v in levels])
    return LeadMap(seen, np.array([1, 0, 0, 0, 0], np.float32), 1.0), ends


def layout_of(grid) -> str:
    return f"{grid.rows}x{grid.columns}" + (f"+{grid.strips}" if grid.strips else "")


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(_LAYOUTS)), st.lists(st.floats(-3, 3), min_size=8, max_size=8))
def test_every_layout_in_any_perspective(layout, moved):
    corners = np.array([[8, 4], [72, 4], [72, 52], [8, 52]], float) + np.array(moved).reshape(4, 2)
    found, ends = drawn(layout, corners)
    grid = find_grid(found)
    assert grid is not None
    assert layout_of(grid) == layout
    assert np.abs(grid.baselines[:, 0, 0] - ends[:, 0]).max() < 2.5
    assert np.abs(grid.baselines[:, -1, 1] - ends[:, 1]).max() < 2.5
    assert grid.sure > 0.6


@pytest.mark.parametrize("layout", ["3x4", "3x4+1", "3x4+3", "6x2", "6x2+1"])
def test_two_sheets_in_one_picture_are_none(layout):
    corners = np.array([[8, 4], [72, 4], [72, 30], [8, 30]], float)
    found, _ = drawn(layout, corners)
    below, _ = drawn(layout, corners + np.array([0, 25]))
    both = find_grid(LeadMap(np.maximum(found.seen, below.seen), found.turned, 1.0))
    assert both is None or both.sure < 0.6 or layout_of(both) not in _LAYOUTS


def test_an_empty_map_has_no_grid():
    assert find_grid(LeadMap(np.zeros((len(CHANNELS), 40, 60), np.float32), np.ones(5, np.float32) / 5, 1.0)) is None
