"""docs/params.schema.json is what the types say, takes the committed params.yaml, and refuses what cardium refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cardium.config.json_schema import comments_of, schema_text

ROOT = Path(__file__).resolve().parents[1]
RAW: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs" / "params.schema.json").read_text())


def test_the_committed_schema_is_what_the_types_say() -> None:
    written = (ROOT / "docs" / "params.schema.json").read_text()
    assert written == schema_text(ROOT), "write it with `python -m cardium.config.json_schema > docs/params.schema.json`"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert (ROOT / "params.yaml").read_text().startswith("# yaml-language-server: $schema=docs/params.schema.json\n")


def test_it_takes_the_committed_params() -> None:
    jsonschema.validate(RAW, SCHEMA, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.epochs", 0),
        ("train.dropout", 1.5),
        ("train.epoch", 3),
        ("train.weights", "imagnet"),
        ("spilt", {}),
        ("cmri", {"train": {"learning_rate": 0}}),
        ("profiles.demo.split", {"folds": 2}),
        ("studies.demo.cmri.protocols", ["onest"]),
        ("studies.demo.ecg4.models", [{"vgg16": {"trian": {}}}]),
        ("studies.demo.ecg4.fusions", {"fused": {}}),
    ],
)
def test_it_refuses_what_cardium_refuses(path: str, value: Any) -> None:
    table = copy.deepcopy(RAW)
    inner = table
    *parts, last = path.split(".")
    for part in parts:
        inner = inner[part]
    inner[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(table, SCHEMA, jsonschema.Draft202012Validator)


def test_what_a_key_means_is_its_comment() -> None:
    meanings = comments_of('# All.\na: 1   # one # two\n"b":\n  # Above.\n  c: 2\n\n# Apart.\n\n  d: "x"\n')
    assert meanings == {"a": "one # two", "b.c": "Above."}
    assert SCHEMA["$defs"]["TrainChange"]["properties"]["views"]["description"].startswith("augmented views in the bank")
