"""Drawn ECG sheets: true boxes that hold the leads, true scale, and paper that says nothing of the class."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from cardium.demo.ecg_sheet import STYLES, SheetStyle, SheetTruth, draw_sheet, sheet_style
from cardium.demo.ecg_signal import CLASSES, LEADS, Recording, record

ALL = [(series, place) for series, styles in STYLES.items() for place in range(len(styles))]


def drawn(style: SheetStyle, number: int = 1, label: str = "MI", seed: int = 2) -> tuple[np.ndarray, SheetTruth]:
    return draw_sheet(record(label, number, seed), style, number, seed)


def flat(value: float = 0.0) -> Recording:
    """A recording whose leads are all the same straight line, in mV."""
    return Recording("Normal", "sinus", np.full((12, 5000), value), (0.5, 1.5, 2.5))


@pytest.mark.parametrize(("series", "place"), ALL)
def test_boxes_lie_on_the_paper_and_hold_their_leads(series: str, place: int) -> None:
    style = STYLES[series][place]
    pixels, truth = drawn(style, place)
    height, width = pixels.shape[:2]
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert truth.layout == ("6x2+1" if style.layout.startswith("C") else "3x4+1")
    assert (truth.angle != 0.0) == style.photo
    left, top, right, bottom = truth.paper
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert len(truth.leads) == 13
    if truth.angle:
        pixels = np.asarray(Image.fromarray(pixels).rotate(truth.angle, Image.Resampling.BILINEAR))
    dark = pixels.min(axis=2) < 0.55 * np.median(pixels[top:bottom, left:right].min(axis=2))
    for box in truth.leads:
        assert left <= box[0] < box[2] <= right
        assert top <= box[1] < box[3] <= bottom
        crossed = dark[box[1] : box[3], box[0] : box[2]].any(axis=0)
        assert crossed.mean() > 0.9, "a trace runs through the whole box"


def test_leads_are_in_the_agreed_places() -> None:
    _, truth = drawn(STYLES["reports"][3])
    boxes = dict(zip(LEADS, truth.leads, strict=False))
    assert boxes["I"][1] == boxes["aVR"][1] == boxes["V1"][1] == boxes["V4"][1]
    assert boxes["I"][0] == boxes["II"][0] == boxes["III"][0] < boxes["aVL"][0] < boxes["V2"][0] < boxes["V5"][0]
    assert boxes["I"][3] == boxes["II"][1] < boxes["III"][1] < truth.leads[12][1]
    # System 003's boxes A of a full-size sheet, to within the device's own play.
    for name, published in {"I": (130, 300, 640, 600), "V3": (1130, 900, 1625, 1200)}.items():
        assert np.abs(np.subtract(boxes[name], published)).max() < 40
    _, truth = drawn(STYLES["reports"][1])
    boxes = dict(zip(LEADS, truth.leads, strict=False))
    assert boxes["I"][1] == boxes["V1"][1] < boxes["II"][1] == boxes["V2"][1] < boxes["aVF"][1] == boxes["V6"][1]


@pytest.mark.parametrize("style", [STYLES["reports"][3], STYLES["pages"][3]])
def test_ten_millimetres_a_millivolt(style: SheetStyle) -> None:
    places = []
    for value in (0.0, 0.5):
        pixels, truth = draw_sheet(flat(value), style, 1, 1)
        left, top, right, bottom = truth.leads[12]
        middle = pixels[top:bottom, (left + right) // 2 + 3].astype(int).min(axis=1)
        places.append(np.flatnonzero(middle < 110).mean())
    assert places[0] - places[1] == pytest.approx(5.0 * truth.pixels_per_mm, abs=0.7)


def test_a_spike_lies_at_its_second() -> None:
    recording = flat()
    recording.leads[:, 2000] = 1.5
    pixels, truth = draw_sheet(recording, STYLES["reports"][3], 1, 1)
    left, top, right, bottom = truth.leads[12]
    baseline = np.flatnonzero(pixels[top:bottom, left + 600].astype(int).min(axis=1) < 110).mean() + top
    row = pixels[int(baseline - 6 * truth.pixels_per_mm), left:right].astype(int).min(axis=1)
    assert np.flatnonzero(row < 110).mean() == pytest.approx(4.0 * 25 * truth.pixels_per_mm, abs=3)


def test_same_call_same_bytes() -> None:
    for style in (STYLES["pages"][1], STYLES["reports"][6]):
        one, truth = drawn(style, 5)
        drawn(STYLES["reports"][0], 5)
        again, second = drawn(style, 5)
        assert np.array_equal(one, again)
        assert truth == second


def test_sizes_and_kinds_vary() -> None:
    for series, styles in STYLES.items():
        found = {sheet_style(series, number, 9) for number in range(len(styles))}
        assert found == set(styles)
    everything = [*STYLES["reports"], *STYLES["pages"]]
    assert {style.layout for style in everything} == {"A", "B", "C", "C2", "E"}
    assert any(style.photo and style.height > style.width for style in everything), "a portrait photograph"
    assert drawn(STYLES["reports"][3])[0].shape == (1572, 2213, 3)
    assert drawn(STYLES["reports"][0])[0].shape == (786, 1107, 3)


# --- paper says nothing of the class ---


def _paper_features(label: str, number: int) -> list[float]:
    """Size, bytes, brightness and the header's and margins' pixels: all that is not the leads."""
    style = sheet_style("pages", number, 8)
    pixels, truth = drawn(style, number, label, 8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="JPEG", quality=style.quality)
    outside = Image.fromarray(pixels)
    outside.paste((255, 255, 255), truth.paper)
    small = np.asarray(outside.convert("L").resize((24, 12), Image.Resampling.BOX)).astype(float)
    left, top, right, bottom = truth.paper
    # The paper's own colour, under traces and grid.
    wash = np.percentile(pixels[top:bottom, left:right].reshape(-1, 3)[::7], 80, axis=0)
    return [*pixels.shape[:2], len(data.getvalue()), style.quality, *wash, small.mean(), small.std(), *small.ravel()]


def _guessed(features: np.ndarray, labels: np.ndarray, styles: np.ndarray) -> float:
    """Balanced accuracy, cross-validated over the styles, of logistic regression on what differs within a style."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    within = features.copy()
    for style in np.unique(styles):
        within[styles == style] -= features[styles == style].mean(axis=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=500))
    return float((cross_val_predict(model, within, labels, cv=GroupKFold(6), groups=styles) == labels).mean())


def test_nothing_on_the_paper_tells_the_class() -> None:
    numbers = 24
    features = np.array([_paper_features(label, number) for label in CLASSES for number in range(1, numbers + 1)])
    labels = np.repeat(np.arange(len(CLASSES)), numbers)
    styles = np.tile(np.arange(numbers), len(CLASSES))
    # Sizes and qualities are the same in every class, one by one.
    for column in (0, 1, 3):
        assert len({tuple(features[labels == k, column]) for k in range(len(CLASSES))}) == 1
    # 0.31: what guessing among five passes once in five hundred times for 120 sheets.
    assert _guessed(features, labels, styles) < 0.31
    planted = features.copy()
    planted[:, 2] *= 1.0 + 0.15 * labels
    assert _guessed(planted, labels, styles) > 0.31, "larger files of one class would be found"
