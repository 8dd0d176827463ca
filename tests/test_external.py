"""Scores on another collection: what the dataset has already is left out, the rest is scored by the served model."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from run_folders import CLASSES, SIDE, make_project, run_folder
from sklearn.metrics import balanced_accuracy_score

from cardium.config import Settings
from cardium.config.schema import StudiedModel, Study
from cardium.data.manifest import read_fingerprint
from cardium.errors import CardiumError
from cardium.evaluation import external
from cardium.imaging.render import render_image
from cardium.stages import ingest
from cardium.workspace import Workspace

RUN = "cmri-mobilenetv2"


def picture(path: Path, seed: int, compress_level: int = 6) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=compress_level)
    return pixels


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    """A project with eight images and one trained run of them."""
    settings = make_project(tmp_path / "project")
    for number in range(8):
        picture(settings.root / f"data/cmri/{CLASSES[number % 2]}/Directory_{number}/SR_1/IM1.png", number)
    settings = dataclasses.replace(
        settings,
        active=["cmri"],
        studies={"cmri": Study({"mobilenetv2": StudiedModel()})},
        evaluate=dataclasses.replace(settings.evaluate, test_folds="0"),
    )
    ingest.run(settings, "cmri")
    places = Workspace(settings.root)
    places.split("cmri").mkdir(parents=True)
    (places.split("cmri") / "split.json").write_text(json.dumps({"sha256": "b" * 64, "folds": 4}))
    manifest = read_fingerprint(places.manifest("cmri"))["manifest_sha256"]
    run_folder(settings, data={"manifest_sha256": manifest, "split_sha256": "b" * 64}, test_folds=[0])
    return settings


@pytest.fixture
def other(project: Settings, tmp_path: Path) -> Path:
    """Another collection: 12 new images, and everything that must not count."""
    folder = tmp_path / "other hospital"
    for number in range(12):
        picture(folder / f"{CLASSES[number % 2]}/Directory_{100 + number}/SR_1/IM1.png", 100 + number)
    shutil.copy(project.root / "data/cmri/Normal/Directory_0/SR_1/IM1.png", folder / "Normal/Directory_100/SR_1/IM2.png")
    picture(folder / "Sick/Directory_101/SR_1/IM2.png", 1, compress_level=1)
    shutil.copy(folder / "Normal/Directory_102/SR_1/IM1.png", folder / "Normal/Directory_102/SR_1/IM9.png")
    picture(folder / "Normal/Directory_300/SR_1/IM1.png", 300)
    picture(folder / "Sick/Directory_301/SR_1/IM1.png", 300)
    (folder / "Sick/Directory_101/SR_1/IM3.png").write_bytes(b"no image")
    return folder


def excluded(out: Path) -> dict[str, str]:
    with (out / "excluded.csv").open(newline="") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def test_the_others_own_records_are_scored_and_no_others(
    project: Settings, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = external.evaluate_external(project, "cmri", other)
    assert out == project.root / "reports/cmri/external/other-hospital"
    assert excluded(out) == {
        "Normal/Directory_100/SR_1/IM2.png": "the dataset has this file",
        "Sick/Directory_101/SR_1/IM2.png": "the dataset has these pixels",
        "Normal/Directory_102/SR_1/IM9.png": "copy within this collection",
        "Normal/Directory_300/SR_1/IM1.png": "filed under two classes",
        "Sick/Directory_301/SR_1/IM1.png": "filed under two classes",
        "Sick/Directory_101/SR_1/IM3.png": "not a JPEG, PNG or DICOM file",
    }
    table = pd.read_parquet(out / "predictions" / f"{RUN}.parquet")
    assert len(table) == 12
    model = keras.models.load_model(project.root / "models/cmri/honest/mobilenetv2/model.keras")
    paths = sorted(path for path in other.rglob("*.png") if path.relative_to(other).as_posix() not in excluded(out))
    pixels = np.stack([render_image(np.asarray(Image.open(path)), SIDE, SIDE) for path in paths])
    expected = model.predict(pixels.astype("float32"), verbose=0)
    np.testing.assert_allclose(table[["p_Normal", "p_Sick"]].to_numpy(), expected, atol=1e-5)
    written = json.loads((out / "external.json").read_text())
    score = balanced_accuracy_score(table["label"], (expected[:, 1] > 0.5).astype(int))
    assert written["runs"][RUN]["image"]["balanced_accuracy"]["value"] == pytest.approx(score)
    assert written["external"]["records"] == {"Normal": 6, "Sick": 6}
    said = capsys.readouterr().out
    assert "12 records (Normal 6, Sick 6), 6 files left out" in said
    assert f"{score:.3f} [" in said
    assert not (project.root / ".cardium/external/cmri/other-hospital").exists()
    assert (out / "leaderboard.csv").read_text().splitlines()[1].startswith(f"{RUN},{score:.6f}")


def gone(other: Path) -> None:
    shutil.rmtree(other)


def nothing_known(other: Path) -> None:
    for name in CLASSES:
        (other / name).rename(other / f"{name}-ish")


def one_class(other: Path) -> None:
    shutil.rmtree(other / "Sick")


@pytest.mark.parametrize(
    ("change", "message"),
    [(gone, "There is no folder"), (nothing_known, "holds no record of Normal, Sick"), (one_class, "too few records")],
)
def test_what_cannot_be_scored_is_one_line(
    project: Settings, other: Path, change: Callable[[Path], None], message: str
) -> None:
    change(other)
    with pytest.raises(CardiumError, match=message) as error:
        external.evaluate_external(project, "cmri", other)
    assert "\n" not in str(error.value)
    assert not (project.root / "reports/cmri/external").exists()


def test_a_run_that_is_not_trained_names_its_command(project: Settings, other: Path) -> None:
    shutil.rmtree(project.root / "models")
    with pytest.raises(CardiumError, match=r"dvc repro train@cmri-mobilenetv2"):
        external.evaluate_external(project, "cmri", other)
