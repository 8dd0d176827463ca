"""Manifests of a few rows and the project folders around them, for the tests of splits and of validation."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import yaml

from cardium.config import Settings, resolve
from cardium.data.manifest import build, fingerprint
from cardium.datasets import Facts, Found, get_collection
from cardium.datasets.measured import Measured

CLASSES = ["Normal", "Sick"]
PROJECT = Path(__file__).resolve().parents[1]


def project(root: Path, records: pd.DataFrame, folds: int = 4, seed: int = 1337) -> Settings:
    """A project folder with this manifest of dataset cmri, as ingest leaves it."""
    folder = root / "processed" / "cmri" / "manifest"
    folder.mkdir(parents=True, exist_ok=True)
    records.to_parquet(folder / "manifest.parquet", index=False)
    (folder / "rejected.csv").write_text("path,label,reason\n")
    (folder / "fingerprint.json").write_text(json.dumps(fingerprint(get_collection("cmri"), records, [])))
    raw = yaml.safe_load((PROJECT / "params.yaml").read_text())
    return resolve(raw, root, {"split.folds": folds, "split.seed": seed, "evaluate.test_folds": "all"})


def manifest(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    """(path, label, patient, content) -> a manifest as ingest builds it."""
    facts = Facts(64, 64, "L", "JPEG", 90.0, 40.0)
    return build([Measured(Found(path, label, patient), content, 1000, facts) for path, label, patient, content in rows])
