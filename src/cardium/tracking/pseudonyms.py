"""Patients' names as a logged model may carry them: keyed hashes, by which one who has the key knows a name again.

A model goes where its data must not: to a server, another hospital, a download. What it holds of patients is which fold each
was in, so that a later promotion scores it only on those that it has never seen, and whose the held-out predictions are. Both
need names to be told apart, and none to be read. The key stays in the store, as a tag of the dataset's experiment: without it,
nobody can try names (HMAC-SHA256, RFC 2104).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cardium.config import Settings
from cardium.runs.predictions import VALIDATION
from cardium.runs.trained_run import CALIBRATION
from cardium.tracking.store import experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "cardium.pseudonym_key"
# The file of a logged model that says in which fold each patient was: columns patient (a pseudonym), fold.
FOLDS = "folds.csv"
# Hex digits: two of a million patients are one in 10^12 cases.
_DIGITS = 20


def pseudonym_key(client: MlflowClient, settings: Settings, dataset: str) -> str:
    """The key of a dataset's pseudonyms, made at its first use. Call it while the store is locked (`connected`)."""
    experiment = experiment_id(client, settings, dataset)
    known = client.get_experiment(experiment).tags.get(KEY)
    if known:
        return str(known)
    client.set_experiment_tag(experiment, KEY, secrets.token_hex(32))
    # Another machine may have been first.
    return str(client.get_experiment(experiment).tags[KEY])


def pseudonym(key: str, name: str) -> str:
    """A name's pseudonym: 20 hex digits."""
    return hmac.new(bytes.fromhex(key), name.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:_DIGITS]


def without_names(run_folder: Path, place: Path, key: str) -> Path:
    """A copy of a run folder below `place` in whose tables groups have pseudonyms; returns it. Other files are hard links where
    the file system allows it."""
    import pandas as pd

    copy = place / run_folder.name
    shutil.copytree(run_folder, copy, copy_function=_link, ignore=shutil.ignore_patterns(VALIDATION, CALIBRATION))
    for name in (VALIDATION, CALIBRATION):
        if (run_folder / name).is_file():
            table = pd.read_parquet(run_folder / name)
            of = {group: pseudonym(key, str(group)) for group in table["group"].unique()}
            table.assign(group=table["group"].map(of)).to_parquet(copy / name, index=False)
    return copy


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # Another file system, or one without links.
        shutil.copy2(source, target)
    return target


def write_folds(split: Path, place: Path, key: str) -> Path:
    """Writes folds.csv below `place` from honest.csv, in order of pseudonyms; returns it."""
    import pandas as pd

    table = pd.read_csv(split, dtype={"group": str}, keep_default_na=False)
    folds = pd.DataFrame({"patient": [pseudonym(key, name) for name in table["group"]], "fold": table["fold"]})
    path = place / FOLDS
    folds.sort_values("patient").to_csv(path, index=False)
    return path


def folds_of(path: Path, key: str, names: Iterable[str]) -> Mapping[str, int]:
    """Name -> fold, of those of `names` that folds.csv knows."""
    import pandas as pd

    table = pd.read_csv(path, dtype={"patient": str})
    known = dict(zip(table["patient"], table["fold"], strict=True))
    found = {name: known.get(pseudonym(key, name)) for name in names}
    return {name: int(fold) for name, fold in found.items() if fold is not None}
