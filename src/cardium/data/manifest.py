"""The manifest, one row per readable record of a dataset, and its fingerprint.

Everybody writes and reads manifest.parquet, rejected.csv and fingerprint.json in processed/<dataset>/manifest/ through this
module.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cardium import atomic
from cardium.errors import CardiumError, harmless_cell

if TYPE_CHECKING:
    import pandas as pd

    from cardium.datasets import Collection, Rejected
    from cardium.datasets.measured import Measured

# Column -> pandas dtype. record: row number. path: below data/<dataset>. patient, series: "" where unknown, frame: -1.
# width, height, depth, mode, mean, std: as in datasets.Facts. copy_of: number of the first record with the same bytes, -1 for
# that first one itself. conflict: whether its bytes stand under two labels; one of them is wrong, so such a record takes part
# in nothing.
SCHEMA = {
    "record": "int64",
    "path": "str",
    "label": "str",
    "group": "str",
    "patient": "str",
    "series": "str",
    "frame": "int64",
    "sha256": "str",
    "bytes": "int64",
    "width": "int64",
    "height": "int64",
    "depth": "int64",
    "mode": "str",
    "format": "str",
    "mean": "float64",
    "std": "float64",
    "copy_of": "int64",
    "conflict": "bool",
}


def build(records: Sequence[Measured]) -> pd.DataFrame:
    """Builds the manifest from measured records in any order: columns as in SCHEMA, sorted by path (code points)."""
    import pandas as pd

    ordered = sorted(records, key=lambda record: record.found.path)
    hashes = [record.sha256 for record in ordered]
    first: dict[str, int] = {}
    copies = []
    for number, sha256 in enumerate(hashes):
        original = first.setdefault(sha256, number)
        copies.append(-1 if original == number else original)
    labels: dict[str, set[str]] = {}
    for record in ordered:
        labels.setdefault(record.sha256, set()).add(record.found.label)
    columns: dict[str, list[Any]] = {
        "record": list(range(len(ordered))),
        "path": [record.found.path for record in ordered],
        "label": [record.found.label for record in ordered],
        "group": groups([record.found.patient for record in ordered], hashes),
        "patient": [record.found.patient for record in ordered],
        "series": [record.found.series for record in ordered],
        "frame": [record.found.frame for record in ordered],
        "sha256": hashes,
        "bytes": [record.bytes for record in ordered],
        "width": [record.facts.width for record in ordered],
        "height": [record.facts.height for record in ordered],
        "depth": [record.facts.depth for record in ordered],
        "mode": [record.facts.mode for record in ordered],
        "format": [record.facts.format for record in ordered],
        "mean": [record.facts.mean for record in ordered],
        "std": [record.facts.std for record in ordered],
        "copy_of": copies,
        "conflict": [len(labels[sha256]) > 1 for sha256 in hashes],
    }
    return pd.DataFrame({name: pd.Series(columns[name], dtype=dtype) for name, dtype in SCHEMA.items()})


def groups(patients: Sequence[str], hashes: Sequence[str]) -> list[str]:
    """The group of each record: its patient, and all patients joined to it by files with the same bytes.

    A record without a patient ("") is grouped by its content. A group is named after its smallest patient, or after its content
    if it has none, so that its name does not depend on the file's path. Union-find over patients (or contents) and hashes.
    """
    keys = [
        ("patient", patient) if patient else ("content", f"sha256:{sha256[:16]}")
        for patient, sha256 in zip(patients, hashes, strict=True)
    ]
    parent: dict[tuple[str, str], tuple[str, str]] = {key: key for key in keys}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    owner: dict[str, tuple[str, str]] = {}
    for key, sha256 in zip(keys, hashes, strict=True):
        one, other = root(key), root(owner.setdefault(sha256, key))
        # A patient, the smallest one, is always the root where there is one.
        if one != other:
            keep, give = sorted((one, other), key=lambda kind_and_name: (kind_and_name[0] != "patient", kind_and_name[1]))
            parent[give] = keep
    return [root(key)[1] for key in keys]


def manifest_sha256(manifest: pd.DataFrame) -> str:
    """A hash of all that splits and labels depend on: every row's path, label, group and sha256, in row order."""
    digest = hashlib.sha256()
    for row in zip(manifest["path"], manifest["label"], manifest["group"], manifest["sha256"], strict=True):
        # JSON, since a path may hold any separator.
        digest.update((json.dumps(row) + "\n").encode())
    return digest.hexdigest()


def is_distinct(manifest: pd.DataFrame) -> pd.Series:
    """Which records take part under `honest`, bool: of identical files the first one, and none with a conflict."""
    return (manifest["copy_of"] == -1) & ~manifest["conflict"]


def class_numbers(manifest: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """The class of each record as its index in `classes`: int64 (N,)."""
    return manifest["label"].map({name: number for number, name in enumerate(classes)}).to_numpy(dtype=np.int64)


def conflicts(manifest: pd.DataFrame) -> list[dict[str, Any]]:
    """Contents filed under two labels: [{sha256, records: [{path, label}, ...]}, ...], in order of their first path."""
    rows = manifest[manifest["conflict"]]
    return [
        {
            "sha256": sha256,
            "records": [{"path": path, "label": label} for path, label in zip(of["path"], of["label"], strict=True)],
        }
        for sha256, of in rows.groupby("sha256", sort=False)
    ]


def contradictions(collection: Collection, manifest: pd.DataFrame) -> list[dict[str, str]]:
    """Patients published under another class than their label: [{patient, label, published}, ...], by patient."""
    pairs = sorted(set(zip(manifest["patient"], manifest["label"], strict=True)))
    return [
        {"patient": patient, "label": label, "published": published}
        for patient, label in pairs
        if (published := collection.published_labels.get(patient, label)) != label
    ]


def fingerprint(
    collection: Collection, manifest: pd.DataFrame, rejected: Sequence[Rejected], generated: bool = False
) -> dict[str, Any]:
    """The content of fingerprint.json: the dataset in numbers, and the facts of the collection that later stages need.

    generated: whether the files are the collection's look-alike.
    """
    classes = collection.classes
    listed = collection.published_labels
    counts = {}
    for name in classes:
        rows = manifest[manifest["label"] == name]
        first = int((rows["copy_of"] == -1).sum())
        counts[name] = {"records": len(rows), "groups": int(rows["group"].nunique()), "distinct": first}
    sizes: Counter[str] = Counter()
    for width, height, depth in zip(manifest["width"], manifest["height"], manifest["depth"], strict=True):
        sizes[f"{width}x{height}" + (f"x{depth}" if collection.kind == "volume" else "")] += 1
    return {
        "dataset": collection.name,
        "generated": generated,
        "kind": collection.kind,
        "classes": list(classes),
        "records": len(manifest),
        "groups": int(manifest["group"].nunique()),
        "counts": counts,
        "published_counts": dict(collection.published_counts),
        "published_split": collection.published_split,
        # Patients named by the original that are there; null if it names nobody and every record takes part.
        "listed": sorted(set(listed) & set(manifest["patient"])) if listed else None,
        "published_patients": len(set(listed) & set(manifest["patient"])),
        "contradictions": contradictions(collection, manifest),
        "names_patients": collection.names_patients,
        "copies": int((manifest["copy_of"] != -1).sum()),
        "conflicts": conflicts(manifest),
        "unknown_patient": int((manifest["patient"] == "").sum()),
        "rejected": {
            "total": len(rejected),
            "by_reason": _most_first(Counter(kind(entry.reason) for entry in rejected)),
            "by_class": {name: sum(max(entry.files, 0) for entry in rejected if entry.label == name) for name in classes},
        },
        "sizes": _most_first(sizes),
        "modes": _most_first(Counter(manifest["mode"])),
        "formats": _most_first(Counter(manifest["format"])),
        "manifest_sha256": manifest_sha256(manifest),
    }


def kind(reason: str) -> str:
    """A reason without its details; reports count by it."""
    return reason.partition(":")[0]


def _most_first(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def write_manifest(
    folder: Path, collection: Collection, manifest: pd.DataFrame, rejected: Sequence[Rejected], generated: bool = False
) -> dict[str, Any]:
    """Replaces `folder` by one with the three files. Returns the fingerprint. generated: as of `fingerprint`."""
    facts = fingerprint(collection, manifest, rejected, generated)
    with atomic.replacing_folder(folder) as part:
        manifest.to_parquet(part / "manifest.parquet", index=False)
        write_rejected(part / "rejected.csv", rejected)
        atomic.write_json(part / "fingerprint.json", facts)
    return facts


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """Writes the columns path, label, reason, a line a file."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["path", "label", "reason"])
        writer.writerows([harmless_cell(text) for text in (entry.path, entry.label, entry.reason)] for entry in rejected)


def read_manifest(folder: Path) -> pd.DataFrame:
    """Reads manifest.parquet of `folder` (processed/<dataset>/manifest). Raises CardiumError if it is missing or damaged."""
    import pandas as pd

    path = folder / "manifest.parquet"
    if not path.is_file():
        raise _missing(folder, path.name)
    try:
        manifest = pd.read_parquet(path)
    except Exception as error:  # pyarrow's own errors, OSError, ValueError
        raise CardiumError(f"{path.name} of {folder.parent.name} is damaged: {_again(folder)}.") from error
    if list(manifest.columns) != list(SCHEMA):
        raise CardiumError(f"{path.name} of {folder.parent.name} is of another version of cardium: {_again(folder)}.")
    return manifest


def read_fingerprint(folder: Path) -> dict[str, Any]:
    """Reads fingerprint.json of `folder` (processed/<dataset>/manifest). Raises CardiumError if it is missing or damaged."""
    path = folder / "fingerprint.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(folder, path.name) from None
    except ValueError:
        raise CardiumError(f"{path.name} of {folder.parent.name} is damaged: {_again(folder)}.") from None
    if not isinstance(content, dict):
        raise CardiumError(f"{path.name} of {folder.parent.name} is damaged: {_again(folder)}.")
    return content


def _missing(folder: Path, name: str) -> CardiumError:
    return CardiumError(f"There is no {name} of {folder.parent.name} yet: {_again(folder)}.")


def _again(folder: Path) -> str:
    return f"run `cardium ingest --dataset {folder.parent.name}`"
