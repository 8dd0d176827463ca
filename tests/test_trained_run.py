"""run.json: what is written is what is read, byte for byte, of every kind of run; what is none says so in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardium.errors import CardiumError
from cardium.imaging.spec import Render
from cardium.runs.data_version import DataVersion
from cardium.runs.trained_run import NotTrainedError, Seconds, TrainedRun
from cardium.workspace import RunId

MADE = """\
  "id": "0123456789abcdef0123456789abcdef",
  "commit": "cccccccccccccccccccccccccccccccccccccccc",
  "dirty": true,
  "versions": {
    "python": "3.11.7",
    "keras": "3.10.0"
  },
  "created": "2026-11-20T10:00:00+00:00",
"""
COST = """\
  "parameters": 2259265,
  "trainable_parameters": 1281,
  "model_bytes": 9400000,
  "seconds": {
    "features": 30.5,
    "train": 4.0
  },
  "phases": [
    {
      "test_fold": 0,
      "phase": "head",
      "epochs": 12,
      "best_epoch": 9,
      "val_loss": 0.6180339887498949
    }
  ],
  "validation": {
    "accuracy": 0.75,
    "balanced_accuracy": 0.7
  }"""
DATA = """\
  "data": {
    "dvc_md5": "0123456789abcdef0123456789abcdef.dir",
    "manifest_sha256": "m",
    "split_sha256": "s"
  },
"""
FOLDS = """\
  "test_folds": [
    0
  ],
  "folds": 4,
"""
CLASSES = """\
  "classes": [
    "Normal",
    "Sick"
  ],
"""
TRAINED = f"""\
{{
{MADE}  "run": "cmri-mobilenetv2-published",
  "dataset": "cmri",
  "model": "mobilenetv2",
  "protocol": "published",
  "kind": "train",
{CLASSES}  "rendering": {{
    "kind": "image",
    "height": 128,
    "width": 96,
    "area": "whole"
  }},
  "weights": {{
    "asked": "auto",
    "used": "random",
    "file": "",
    "sha256": "",
    "warning": "mobilenetv2 has random weights"
  }},
  "bank": "features/cmri/published/mobilenetv2",
  "scored_from": "bank",
  "settings": {{
    "seed": 1337,
    "train.hidden": 256,
    "train.step_epochs": [
      3
    ],
    "evaluate.threshold": 0.4
  }},
  "overrides": {{
    "cmri.train.epochs": 12
  }},
  "tuned": "configs/tuned/cmri-mobilenetv2.yaml",
{FOLDS}{DATA}  "engine": "openvino 2025.3.0 bf16",
{COST},
  "warnings": [
    "mobilenetv2 has random weights"
  ]
}}
"""
OF_MEMBERS = f"""\
  "dataset": "chd",
  "protocol": "honest",
  "members": [
    "chd-cnn_lstm",
    "chd-mobilenetv2_lstm"
  ],
  "member_ids": [
    "a1",
    "b2"
  ],
{CLASSES}  "rendering": {{
    "kind": "slices",
    "height": 128,
    "width": 128,
    "area": "whole",
    "frames": 48,
    "order": "canonical",
    "levels": "window",
    "window": [
      -200.0,
      600.0
    ],
    "sampling": "even"
  }},
  "weights": {{
    "asked": "auto",
    "used": "imagenet+random",
    "file": "",
    "sha256": ""
  }},
{FOLDS}{DATA}  "warnings": [],
"""
FUSED = f"""\
{{
{MADE}  "run": "chd-fused",
  "model": "fused",
  "kind": "fuse",
{OF_MEMBERS}  "bank": "",
  "scored_from": "pixels",
  "settings": {{
    "train.epochs": 20
  }},
  "overrides": {{}},
{COST}
}}
"""
ENSEMBLE = f"""\
{{
{MADE}  "run": "chd-ensemble",
  "model": "ensemble",
  "kind": "ensemble",
{OF_MEMBERS}  "settings": {{}},
  "overrides": {{}},
{COST}
}}
"""


def read(folder: Path, text: str) -> TrainedRun:
    (folder / "run.json").write_text(text, encoding="utf-8")
    return TrainedRun.read(folder)


@pytest.mark.parametrize("text", [TRAINED, FUSED, ENSEMBLE], ids=["train", "fuse", "ensemble"])
def test_what_is_read_is_written_byte_for_byte(text: str, tmp_path: Path) -> None:
    run = read(tmp_path, text)
    (tmp_path / "again").mkdir()
    run.write(tmp_path / "again")
    assert (tmp_path / "again" / "run.json").read_text(encoding="utf-8") == text
    assert TrainedRun.read(tmp_path / "again") == run


def test_every_field_has_its_type(tmp_path: Path) -> None:
    run = read(tmp_path, TRAINED)
    assert run.run == RunId("cmri", "mobilenetv2", "published")
    assert (run.name, run.kind, run.rendering, run.size) == (
        "cmri-mobilenetv2-published", "train", "image", Render(128, 96),
    )  # fmt: skip
    assert run.data == DataVersion("0123456789abcdef0123456789abcdef.dir", "m", "s")
    assert (run.threshold, run.hidden, run.seconds) == (0.4, 256, Seconds(30.5, 4.0))
    assert (run.phases[0].phase, run.phases[0].epochs) == ("head", 12)
    assert run.weights.warning == "mobilenetv2 has random weights"
    assert run.provenance.versions["keras"] == "3.10.0"
    volumes = read(tmp_path, ENSEMBLE)
    assert (volumes.size.frames, volumes.size.window) == (48, [-200.0, 600.0])
    assert (volumes.members, volumes.weights.used) == (["chd-cnn_lstm", "chd-mobilenetv2_lstm"], "imagenet+random")


def test_an_older_file_is_read_with_defaults_and_unknown_keys_are_passed_over(tmp_path: Path) -> None:
    least: dict[str, Any] = {
        "id": "x", "run": "cmri-mobilenetv2", "dataset": "cmri", "model": "mobilenetv2", "protocol": "honest",
        "classes": ["Normal", "Sick"], "rendering": {"kind": "image", "height": 24, "width": 24}, "test_folds": [0],
        "data": {"manifest_sha256": "m"}, "of_tomorrow": 1,
    }  # fmt: skip
    run = read(tmp_path, json.dumps(least))
    assert (run.kind, run.scored_from, run.threshold, run.hidden, run.phases) == ("train", "pixels", 0.5, 0, [])
    assert run.data == DataVersion("", "m", "")


def test_the_files_of_a_run(tmp_path: Path) -> None:
    run = read(tmp_path, TRAINED)
    assert (run.folder, run.model_file, run.has_folds) == (tmp_path, tmp_path / "model.keras", False)
    assert run.served_file == run.model_file
    (tmp_path / "served.keras").touch()
    assert run.served_file == tmp_path / "served.keras"
    (tmp_path / "folds").mkdir()
    np.savez(tmp_path / "folds" / "2.npz", **{"score|0": np.arange(3.0)})
    assert run.has_folds
    assert run.fold_weights(2)["score|0"].tolist() == [0, 1, 2]
    assert run == dataclasses.replace(run, folder=Path("elsewhere")), "the same run, wherever its folder is"


def test_what_is_no_run_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "mobilenetv2"
    with pytest.raises(
        NotTrainedError, match=r"^mobilenetv2: no run.json in it: not a run folder, or its training did not end"
    ):
        TrainedRun.read(folder)
    folder.mkdir()
    whole = json.loads(TRAINED)
    broken: list[Any] = [
        [], 3, None, {}, {**whole, "id": 3}, {**whole, "classes": "Sick"}, {**whole, "rendering": {"kind": "image"}},
        {**whole, "kind": "guess"}, {**whole, "test_folds": None}, {**whole, "data": 1}, {**whole, "phases": [{"epochs": 1}]},
        {key: value for key, value in whole.items() if key != "rendering"},
    ]  # fmt: skip
    for text in ["", "{", *(json.dumps(table) for table in broken)]:
        with pytest.raises(CardiumError, match=r"^mobilenetv2: run.json is not one that `cardium train` wrote: train the run"):
            read(folder, text)
