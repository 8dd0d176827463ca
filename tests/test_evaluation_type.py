"""metrics.json: what is written is what is read, byte for byte; what is none says so; the leaderboard's order and summary."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from cardium.errors import CardiumError
from cardium.evaluation.evaluation import Evaluation, Interval, OtherCollection, RunScores
from cardium.runs.data_version import DataVersion
from cardium.runs.trained_run import Seconds

SCORE = """{
          "value": 0.75,
          "low": 0.5,
          "high": null
        }"""
TEXT = f"""\
{{
  "dataset": "cmri",
  "classes": [
    "Normal",
    "Sick"
  ],
  "interval": 0.95,
  "threshold": 0.5,
  "data": {{
    "manifest_sha256": "m",
    "split_sha256": "s"
  }},
  "patients": true,
  "runs": {{
    "cmri-mobilenetv2": {{
      "model": "mobilenetv2",
      "protocol": "honest",
      "kind": "train",
      "weights": "imagenet",
      "records": 95,
      "groups": 16,
      "test_folds": [
        0
      ],
      "chosen_on_test": false,
      "image": {{
        "balanced_accuracy": {SCORE},
        "roc_auc": {SCORE}
      }},
      "patient": {{
        "balanced_accuracy": {SCORE}
      }},
      "folds": {{
        "0": 0.75
      }},
      "choices": {{}},
      "confusion": [
        [
          3,
          1
        ],
        [
          0,
          4
        ]
      ],
      "patient_confusion": [],
      "published_balanced_accuracy": 0.7815,
      "published_accuracy": 0.7618,
      "seconds": {{
        "features": 30.5,
        "train": 4.25
      }},
      "epochs": 6.5,
      "parameters": 2000000,
      "trainable_parameters": 1281,
      "model_bytes": 9400000,
      "validation_balanced_accuracy": 0.7,
      "warnings": [],
      "run_id": "0123456789abcdef"
    }},
    "naive": {{
      "model": "naive",
      "protocol": "honest",
      "kind": "naive",
      "weights": "",
      "records": 95,
      "groups": 16,
      "test_folds": [
        0
      ],
      "chosen_on_test": false,
      "image": {{}},
      "patient": {{}},
      "folds": {{}},
      "choices": {{}},
      "confusion": [],
      "patient_confusion": [],
      "published_balanced_accuracy": null,
      "published_accuracy": null,
      "seconds": {{}},
      "epochs": null,
      "parameters": null,
      "trainable_parameters": null,
      "model_bytes": null,
      "validation_balanced_accuracy": null,
      "warnings": [
        "a class has one patient only"
      ],
      "run_id": null
    }}
  }}
}}
"""


def row(name: str, protocol: str, value: float, kind: str = "train") -> RunScores:
    scores = {"balanced_accuracy": Interval(value, value - 0.123456, 1.0), "roc_auc": Interval(None)}
    model = name.removeprefix("cmri-").removesuffix("-published")
    return RunScores(name, model, protocol, kind, image=scores, patient=scores)


def evaluation(*rows: RunScores) -> Evaluation:
    return Evaluation("cmri", ["Normal", "Sick"], 0.95, 0.5, DataVersion("", "m", "s"), {one.name: one for one in rows})


def test_what_is_read_is_written_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(TEXT, encoding="utf-8")
    read = Evaluation.read(tmp_path, "cmri")
    (tmp_path / "again").mkdir()
    read.write(tmp_path / "again")
    assert (tmp_path / "again" / "metrics.json").read_text(encoding="utf-8") == TEXT
    assert Evaluation.read(tmp_path / "again", "cmri") == read
    first = read.runs["cmri-mobilenetv2"]
    assert (first.name, first.balanced_accuracy, first.seconds) == (
        "cmri-mobilenetv2", Interval(0.75, 0.5, None), Seconds(30.5, 4.25),
    )  # fmt: skip
    assert read.runs["naive"].is_naive


def test_another_collection_is_said_last() -> None:
    elsewhere = OtherCollection("hospital", "e", {"Normal": 6, "Sick": 7}, 2)
    table = dataclasses.replace(evaluation(row("cmri-a", "honest", 0.7)), external=elsewhere)
    assert list(table.to_json())[-1] == "external"
    assert Evaluation.from_json(json.loads(json.dumps(table.to_json()))) == table


def test_what_is_no_evaluation_says_so(tmp_path: Path) -> None:
    with pytest.raises(CardiumError, match="cmri has not been evaluated yet: run `cardium evaluate --dataset cmri`"):
        Evaluation.read(tmp_path, "cmri")
    for text in ("", "[]", "{}", TEXT[:-3], TEXT.replace('"kind"', '"kinds"')):
        (tmp_path / "metrics.json").write_text(text, encoding="utf-8")
        with pytest.raises(CardiumError, match="cmri's evaluation is damaged: run `dvc repro -f evaluate@cmri`"):
            Evaluation.read(tmp_path, "cmri")


def test_an_older_file_and_a_newer_one_are_read() -> None:
    table = json.loads(TEXT)
    del table["patients"], table["runs"]["naive"]["seconds"], table["runs"]["naive"]["published_accuracy"]
    table["runs"]["naive"]["of_tomorrow"] = 1
    read = Evaluation.from_json(table)
    assert read.patients
    assert (read.runs["naive"].seconds, read.runs["naive"].published_accuracy) == (None, None)


def test_the_order_of_the_leaderboard_its_summary_and_the_other_protocol() -> None:
    table = evaluation(
        row("cmri-a-published", "published", 0.9), row("cmri-b", "honest", 0.6), row("cmri-a", "honest", 0.8),
        row("cmri-c", "honest", 0.8), row("naive", "honest", 0.5, "naive"), row("naive-published", "published", 0.5, "naive"),
    )  # fmt: skip
    assert [one.name for one in table.ranked()] == [
        "cmri-a", "cmri-c", "cmri-b", "naive", "cmri-a-published", "naive-published",
    ]  # fmt: skip
    assert table.summary() == {
        "balanced_accuracy": None, "low": None, "high": None, "best": 0.8, "best_published": 0.9, "chance": 0.5,
    }  # fmt: skip
    others = {name: table.under_other_protocol(one) for name, one in table.runs.items()}
    assert {name: other.name if other else None for name, other in others.items()} == {
        "cmri-a-published": "cmri-a", "cmri-b": None, "cmri-a": "cmri-a-published", "cmri-c": None,
        "naive": "naive-published", "naive-published": "naive",
    }  # fmt: skip


def test_a_score_as_text() -> None:
    assert Interval(0.7124, 0.65, 0.7711).text == "0.712 [0.650, 0.771]"
    assert (Interval(0.7124, None, None).text, Interval(None, None, None).text) == ("0.712", "-")
