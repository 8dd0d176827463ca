"""Figures exist, show something, are the same twice, and leave nothing half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cardium.evaluation import metrics
from cardium.reporting import plots

RNG = np.random.default_rng(0)


def history(folds: int, phases: list[tuple[str, int]]) -> pd.DataFrame:
    rows = []
    for fold in range(folds):
        for phase, epochs in phases:
            for epoch in range(epochs):
                falling = 0.7 - 0.01 * epoch
                row = {"test_fold": fold, "phase": phase, "epoch": epoch, "loss": falling - 0.1, "accuracy": 0.6}
                row |= {"val_loss": falling, "val_accuracy": 1.2 - falling, "learning_rate": 1e-3, "seconds": 1.0}
                rows.append(row)
    return pd.DataFrame(rows)


def curve(strength: float):
    labels = np.arange(200) % 2
    scores = 1 / (1 + np.exp(-(RNG.normal(size=200) + strength * (labels - 0.5))))
    return labels, np.stack([1 - scores, scores], axis=1)


def rows(weak: bool = False) -> list[plots.Row]:
    return [
        plots.Row("cmri-resnet152v2_spatial", "honest", 0.71, 0.6, 0.82, weak=weak, reference=0.73),
        plots.Row("naive", "honest", 0.5, 0.5, 0.5, naive=True),
        plots.Row("cmri-resnet152v2_spatial-published", "published", 0.9, None, None),
    ]


def draw_all(folder: Path) -> dict[str, Path]:
    labels, p = curve(1.5)
    table = history(4, [("head", 8), ("fine_tune", 3)])
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "history.csv", index=False)
    out = {name: folder / "deep" / f"{name}.png" for name in ("history", "short", "confusion", "many", "roc", "bins", "board")}
    plots.learning_curves(folder / "history.csv", out["history"], "run")
    history(1, [("head", 1)]).to_csv(folder / "short.csv", index=False)
    plots.learning_curves(folder / "short.csv", out["short"])
    plots.confusion_matrix([("per image", [[30, 4], [0, 0]])], ["Normal", "Sick"], out["confusion"], "run")
    plots.confusion_matrix([("a", np.eye(5)), ("b", np.zeros((5, 5)))], ["A", "B", "C", "D", "A long name"], out["many"])
    curves = [(f"run {i}", *metrics.roc_points(labels, p), 0.8 - i / 100) for i in range(9)]
    plots.roc(curves, out["roc"], "cmri")
    plots.reliability(*metrics.calibration_curve(labels, p), 0.1, out["bins"], "run")
    plots.leaderboard(rows(), out["board"], "cmri")
    return out


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict[str, Path]:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
    return draw_all(tmp_path_factory.mktemp("one"))


@pytest.mark.filterwarnings("error::UserWarning")
def test_figures_are_readable_pngs_with_something_on_them(drawn):
    for name, path in drawn.items():
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"))
        assert image.format == "PNG", name
        assert 600 <= grey.shape[1] <= 1010, name
        assert 0.005 < (grey < 250).mean() < 0.9, name
        assert grey.min() < 60, f"{name}: text or lines are dark"


def test_no_text_runs_over_the_border(drawn):
    for name, path in drawn.items():
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"))
        # What ends at a border is cut there, or nearly: layouts keep a margin of white.
        for side in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
            assert (side > 250).all(), name


def test_nothing_but_the_figures_is_left(drawn):
    folder = next(iter(drawn.values())).parent
    assert sorted(folder.iterdir()) == sorted(drawn.values())


def test_same_input_same_bytes(drawn, tmp_path):
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
    for name, path in draw_all(tmp_path).items():
        assert path.read_bytes() == drawn[name].read_bytes(), name


def test_what_is_marked_shows(tmp_path):
    plots.leaderboard(rows(), tmp_path / "a.png")
    plots.leaderboard(rows(weak=True), tmp_path / "b.png")
    plots.leaderboard(rows()[:1], tmp_path / "c.png")
    assert len({(tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png")}) == 3


def test_a_failed_figure_leaves_the_old_one(tmp_path, monkeypatch):
    out = tmp_path / "a.png"
    out.write_bytes(b"old")
    from matplotlib.figure import Figure

    def fail(self, path, **_):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.leaderboard(rows(), out)
    assert out.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
