"""export: the same answers from another format, or nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from run_folders import SIDE, make_project, run_folder

from cardium.batch.package import Model
from cardium.errors import CardiumError
from cardium.runs.trained_run import TrainedRun
from cardium.serving import export
from cardium.serving.classifier import Classifier
from cardium.serving.export import export_run
from cardium.tracking.signature import example_file

FORMATS = ("keras", "saved_model", "openvino")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = make_project(tmp_path_factory.mktemp("export") / "project")
    run_folder(settings, "mobilenetv2")
    place = settings.root / "processed" / "cmri" / "image"
    place.mkdir(parents=True)
    np.save(place / "pixels.npy", np.random.default_rng(0).integers(0, 255, (40, SIDE, SIDE, 3), dtype=np.uint8))
    return settings


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_answers_as_its_run(settings: Any, form: str) -> None:
    if form == "openvino":
        pytest.importorskip("openvino")
    own = Classifier(settings.root / "models/cmri/honest/mobilenetv2")
    made = export_run(settings, "models/cmri/honest/mobilenetv2", form)
    assert (made.records, made.folder) == (32, Path("exports/cmri-mobilenetv2") / form)
    assert made.difference < 1e-5
    folder = settings.root / made.folder
    other = Classifier(folder)
    file = example_file()
    [expected], [found] = own.classify([file]), other.classify([file])
    assert {**found, "probability": 0, "probabilities": 0} == {**expected, "probability": 0, "probabilities": 0}
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
    assert len(other.probabilities(np.zeros((3, SIDE, SIDE, 3), np.uint8))) == 3
    card = (folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "image-classification"
    assert "| classes, in order | Normal, Sick |" in card
    assert "cmri/0" not in "".join(pd.read_parquet(folder / "validation.parquet")["group"])
    assert json.loads((folder / "export.json").read_text())["parity"]["records"] == 32
    # A batch tells the formats apart, and sends all files of one.
    key = Model(folder, None, settings.serve, settings.validate.sides).key(TrainedRun.read(folder))
    assert key != Model(own.run.folder, None, settings.serve, settings.validate.sides).key(own.run) or form == "keras"
    Model(folder, None, settings.serve, settings.validate.sides).pack(folder.parent / "packed.zip")
    shutil.unpack_archive(folder.parent / "packed.zip", folder.parent / f"packed-{form}")
    sent = Classifier(folder.parent / f"packed-{form}" / "run").classify([file])
    assert sent[0]["probabilities"] == found["probabilities"]


def test_what_says_something_else_does_not_appear(settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(export, "_opened", lambda *_: lambda pixels: np.tile([[0.2, 0.8]], (len(pixels), 1)))
    with pytest.raises(CardiumError, match="the exported model says something else: of 32 records") as caught:
        export_run(settings, "models/cmri/honest/mobilenetv2", "keras", out)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(export, "_opened", lambda *_: lambda pixels: np.full((len(pixels), 2), np.nan))
    with pytest.raises(CardiumError, match="says something else"):
        export_run(settings, "models/cmri/honest/mobilenetv2", "keras", out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "form", "says"),
    [
        ("models/cmri/honest/mobilenetv2", "onnx", "--to onnx is not there yet"),
        ("models/cmri/honest/mobilenetv2", "kears", "Unknown format `kears`. Did you mean `keras`"),
        ("models/cmri/honest/nothing", "keras", "There is no model"),
    ],
)
def test_what_cannot_be_exported_is_one_line(settings: Any, model: str, form: str, says: str) -> None:
    with pytest.raises(CardiumError, match=says) as caught:
        export_run(settings, model, form)
    assert "\n" not in str(caught.value)


def test_a_folder_of_something_else_is_left_alone(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(CardiumError, match="is no export: give another folder"):
        export_run(settings, "models/cmri/honest/mobilenetv2", "keras", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "x"
    made = export_run(settings, "models/cmri/honest/mobilenetv2", "keras", tmp_path / "e")
    with pytest.raises(CardiumError, match="is an export itself"):
        export_run(settings, str(made.folder), "keras")
    (tmp_path / "e" / "export.json").write_text("{}")
    with pytest.raises(CardiumError, match="is damaged"):
        Classifier(tmp_path / "e")
