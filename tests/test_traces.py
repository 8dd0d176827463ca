"""Digitised traces against the signals that were drawn: sheets made here, beat by beat, at known voltages and times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cardium.imaging import trace_format, traces
from cardium.imaging.augment import augment_traces
from cardium.imaging.kinds import LEADS
from cardium.imaging.sheet import Sheet, find_sheet

# R, S, ST and T of every lead, mV.
SHAPES = {
    "I": (0.7, 0.1, 0.0, 0.2), "II": (1.0, 0.2, 0.0, 0.3), "III": (0.4, 0.3, 0.0, 0.1), "aVR": (0.05, 0.8, 0.0, -0.25),
    "aVL": (0.4, 0.2, 0.0, 0.1), "aVF": (0.7, 0.2, 0.0, 0.2), "V1": (0.2, 0.9, 0.0, 0.1), "V2": (0.4, 1.1, 0.3, 0.5),
    "V3": (0.7, 0.9, 0.3, 0.5), "V4": (1.2, 0.5, 0.0, 0.4), "V5": (1.2, 0.3, 0.0, 0.3), "V6": (1.0, 0.1, 0.0, 0.25),
}  # fmt: skip
RATE = 500


def signal(lead: str, times: list[float]) -> np.ndarray:
    """Ten seconds of a lead, mV, 500 samples a second, with beats at these seconds."""
    r, s, st, t = SHAPES[lead]
    x = np.arange(10 * RATE) / RATE

    def bump(centre: float, width: float) -> np.ndarray:
        return np.exp(-(((x - centre) / width) ** 2) / 2)

    out = np.zeros_like(x)
    for time in times:
        out += (
            0.1 * bump(time - 0.16, 0.02) + r * bump(time, 0.015) - s * bump(time + 0.045, 0.015) + t * bump(time + 0.26, 0.04)
        )
        out += (
            st
            / (1 + np.exp(np.clip(-(x - time - 0.06) / 0.006, -50, 50)))
            / (1 + np.exp(np.clip((x - time - 0.22) / 0.02, -50, 50)))
        )
    return out


def regular(rate: float) -> list[float]:
    return list(np.arange(0.3, 9.9, 60 / rate))


def draw_sheet(times: list[float], layout: str = "3x4+1", mm: float = 3.936) -> np.ndarray:
    """A page as the collections' machine prints it: coloured grid, pulses, lines between the columns, leads' names."""
    fine = 2  # drawn at twice the size, so that lines have soft edges
    k = mm * fine
    image = Image.new("RGB", (round(281 * k), round(200 * k)), "white")
    pen = ImageDraw.Draw(image)
    for line in np.arange(9, 276, 5):
        pen.line([(line * k, 36 * k), (line * k, 192 * k)], fill=(250, 215, 215), width=fine)
    for line in np.arange(37, 192, 5):
        pen.line([(9 * k, line * k), (276 * k, line * k)], fill=(250, 215, 215), width=fine)
    columns, rows = (4, 3) if layout == "3x4+1" else (2, 6)
    pitch, first = (38.1, 59.2) if columns == 4 else (21.8, 51.0)
    start, width = 19.3, 250 / columns
    stroke = round(0.6 * k)
    for row in range(rows + 1):
        y = first + row * pitch
        pen.line([(x * k, (y - up) * k) for x, up in ((12, 0), (13, 0), (13, 10), (15, 10), (15, 0), (16, 0))], "black", stroke)
        for column in range(1 if row == rows else columns):
            name = "II" if row == rows else LEADS[column * rows + row]
            samples = signal(name, times)
            begin, end = (0, 5000) if row == rows else (column * 5000 // columns, (column + 1) * 5000 // columns)
            x = start + np.arange(begin, end) / RATE * 25
            pen.line(list(zip(x * k, (y - 10 * samples[begin:end]) * k, strict=True)), "black", stroke)
            pen.text(((x[0] + 0.5) * k, (y - 5) * k), name, "black", font_size=3.2 * k)
    for column in range(1, columns):
        x = start + column * width
        pen.line([(x * k, (first - 6) * k), (x * k, (first + (rows - 0.4) * pitch) * k)], "black", stroke)
    return np.asarray(image.resize((image.width // fine, image.height // fine), Image.Resampling.BOX))


@pytest.fixture(scope="module")
def page() -> np.ndarray:
    return draw_sheet(regular(72))


@pytest.fixture(scope="module")
def sheet(page: np.ndarray) -> Sheet:
    return find_sheet(page)


def correlations(pixels: np.ndarray, times: list[float]) -> list[float]:
    found = traces.digitise(pixels, find_sheet(pixels))
    out = []
    for number, name in enumerate((*LEADS[:12], "II")):
        seen = ~np.isnan(found[number])
        assert seen.sum() > 180
        drawn = signal(name, times)[::5]
        # A sample is 10 ms, as long as half an R wave here: a pixel's error of the time axis is no error of the trace.
        out.append(max(float(np.corrcoef(found[number][seen], np.roll(drawn, k)[seen])[0, 1]) for k in (-2, -1, 0, 1, 2)))
    return out


@pytest.mark.parametrize(("layout", "mm"), [("3x4+1", 3.936), ("3x4+1", 7.872), ("6x2+1", 3.936), ("6x2+1", 5.5)])
def test_traces_follow_the_drawn_signals(layout: str, mm: float) -> None:
    times = regular(72)
    found = correlations(draw_sheet(times, layout, mm), times)
    assert min(found) > 0.9
    assert np.median(found) > 0.93


def test_a_lead_is_where_the_page_shows_it(page: np.ndarray, sheet: Sheet) -> None:
    found = traces.digitise(page, sheet)
    assert found.shape == (13, 1000)
    assert found.dtype == np.float32
    shown = ~np.isnan(found)
    assert shown[0, 40:240].all()
    assert not shown[0, 260:].any()
    assert shown[9, 790:980].all()
    assert not shown[9, :740].any()
    assert shown[12, 40:980].all()


@pytest.mark.parametrize("rate", [48, 75, 104, 150])
def test_rate_is_the_drawn_one(rate: int) -> None:
    pixels = draw_sheet(regular(rate))
    beats = traces.find_beats(traces.digitise(pixels, find_sheet(pixels)))
    assert 6000 / np.median(np.diff(beats)) == pytest.approx(rate, abs=2)
    assert len(beats) == pytest.approx(len(regular(rate)), abs=2)


def test_irregular_rhythm_is_told_from_a_regular_one() -> None:
    spread = []
    uneven = list(np.cumsum([0.4, 0.6, 1.1, 0.7, 0.55, 1.2, 0.8, 0.6, 1.0, 0.65, 0.9, 0.6]))
    for times in (regular(75), uneven):
        pixels = draw_sheet(times)
        found = traces.digitise(pixels, find_sheet(pixels))
        beats = traces.find_beats(found)
        spread.append(traces.measure(traces.median_beats(found, beats), beats, found[12])["RR_deviation"])
    assert spread[0] < 0.03
    assert spread[1] > 0.15


def test_waves_are_measured_in_millivolts(page: np.ndarray, sheet: Sheet) -> None:
    found = traces.digitise(page, sheet)
    beats = traces.find_beats(found)
    medians = traces.median_beats(found, beats)
    assert medians.shape == (13, traces.BEAT)
    values = traces.measure(medians, beats, found[12])
    assert tuple(values) == traces.MEASUREMENTS
    for lead in ("I", "II", "V4", "V5", "V6"):
        assert values[f"{lead}_R"] == pytest.approx(SHAPES[lead][0], abs=0.2)
    assert values["V2_S"] < values["V6_S"] - 0.4
    assert values["V3_ST"] - values["V6_ST"] == pytest.approx(0.3, abs=0.12)
    assert values["aVR_T"] < -0.1 < 0.1 < values["II_T"]
    assert values["rate"] == pytest.approx(np.log(72), abs=0.03)


def test_rendering_is_the_same_at_any_size_and_every_time(page: np.ndarray, sheet: Sheet) -> None:
    once = traces.render_traces(page, sheet)
    assert once.shape == traces.SHAPE
    assert once.dtype == np.uint8
    assert trace_format.was_read(once)
    np.testing.assert_array_equal(once, traces.render_traces(page, sheet))
    large = draw_sheet(regular(72), mm=7.872)
    other = traces.render_traces(large, find_sheet(large))
    assert np.abs(once.astype(int) - other)[:13].mean() < 2
    assert np.corrcoef(once[:13].ravel(), other[:13].ravel())[0, 1] > 0.88


def test_rendering_holds_beats_and_measurements(page: np.ndarray, sheet: Sheet) -> None:
    array = traces.render_traces(page, sheet)
    found = traces.digitise(page, sheet)
    beats = traces.find_beats(found)
    medians = traces.median_beats(found, beats)
    qrs = slice(traces.BEFORE - 5, traces.BEFORE + 6)
    np.testing.assert_allclose((array[:13, qrs] - 128.0) * traces.STEP, medians[:, qrs], atol=0.011)
    values = traces.measure(medians, beats, found[12])
    place = traces.MEASUREMENTS.index("V5_R")
    _, middle, unit = trace_format.UNITS[place]
    cell = float(array[13:].reshape(-1)[place])
    assert middle + unit * (cell - 128) / traces.LEVELS == pytest.approx(values["V5_R"], abs=unit / traces.LEVELS)


def test_rendering_hides_the_next_beats() -> None:
    pixels = draw_sheet(regular(150))
    array = traces.render_traces(pixels, find_sheet(pixels))
    assert (array[:13, traces.BEFORE + 30 :] == 128).all()
    assert (array[:13, traces.BEFORE - 5 : traces.BEFORE + 6] != 128).any()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (80, 80), (500, 700)])
def test_pictures_without_traces_are_grey_and_flagged(size: tuple[int, int]) -> None:
    blank = np.full((*size, 3), 255, np.uint8)
    array = traces.render_traces(blank, find_sheet(blank))
    assert not trace_format.was_read(array)
    assert (array.reshape(-1)[:-1] == 128).all()


def test_any_picture_gives_an_array() -> None:
    draw = np.random.default_rng(3)
    for height, width in ((64, 64), (90, 333), (400, 300)):
        for pixels in (draw.integers(0, 256, (height, width, 3), np.uint8), np.zeros((height, width, 3), np.uint8)):
            assert traces.render_traces(pixels, find_sheet(pixels)).shape == traces.SHAPE


def test_augmented_views_differ_but_keep_flag_and_beat(page: np.ndarray, sheet: Sheet) -> None:
    one = traces.render_traces(page, sheet)
    batch = np.stack([one, one])
    views = augment_traces(batch, np.random.default_rng(5), drop=0.0)
    np.testing.assert_array_equal(views, augment_traces(batch, np.random.default_rng(5), drop=0.0))
    assert views.dtype == np.uint8
    assert (views[0] != views[1]).any()
    assert trace_format.was_read(views[0])
    used = len(traces.MEASUREMENTS)
    np.testing.assert_array_equal(views[:, 13:].reshape(2, -1)[:, used:], batch[:, 13:].reshape(2, -1)[:, used:])
    assert np.corrcoef(views[0, 4], one[4])[0, 1] > 0.3
    np.testing.assert_array_equal(batch[0], one)


def test_augmenting_by_nothing_changes_nothing(page: np.ndarray, sheet: Sheet) -> None:
    batch = traces.render_traces(page, sheet)[None]
    same = augment_traces(
        batch, np.random.default_rng(0), gain=0, shift=0, stretch=0, noise=0, drop=0, jitter=0
    )  # fmt: skip
    np.testing.assert_array_equal(same, batch)
    flat = augment_traces(batch, np.random.default_rng(0), noise=0, drop=1)
    assert (flat[:, :13] == 128).all()


def test_network_reads_renderings_and_survives_saving(page: np.ndarray, sheet: Sheet, tmp_path: Path) -> None:
    import keras

    from cardium.models.traces import traces_net

    pixels = keras.Input(traces.SHAPE, name="pixels")
    network = keras.Model(pixels, traces_net(pixels, 4, 0.4))
    one = traces.render_traces(page, sheet)
    batch = np.stack([one, *augment_traces(one[None], np.random.default_rng(1))]).astype(np.float32)
    out = np.asarray(network(batch, training=False))
    assert out.shape == (2, 4)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)
    assert (out[0] != out[1]).any()
    assert network.get_layer("cam").output.shape[1:3] == (12, 24)
    assert network.get_layer("embedding").output.shape == (None, 360)
    network.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(out, np.asarray(keras.models.load_model(tmp_path / "model.keras")(batch, training=False)))
