"""manifest -> split: honest.csv (group, label, fold), published.csv (record, part) and split.json (their counts and hash)."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cardium.atomic import replacing_folder, write_json
from cardium.errors import CardiumError
from cardium.manifest import read_fingerprint, read_manifest
from cardium.params import Settings
from cardium.splits import group_classes, honest_folds, published_validation
from cardium.workspace import Workspace


def run(settings: Settings, item: str) -> None:
    """Splits dataset `item` both ways. Raises CardiumError where it has too few groups of a class for `split.folds`."""
    space = Workspace(settings.root)
    manifest = read_manifest(space.manifest(item))
    classes: list[str] = read_fingerprint(space.manifest(item))["classes"]
    out = space.split(item)
    distinct = manifest[manifest["copy_of"] == -1]
    groups, labels = distinct["group"].tolist(), distinct["label"].tolist()
    try:
        fold_of = honest_folds(groups, labels, classes, settings.split.folds, settings.split.seed)
    except CardiumError as error:
        raise CardiumError(f"{item}: {error}") from None
    class_of = group_classes(groups, labels, classes)
    held_out = published_validation(manifest["path"].tolist(), manifest["label"].tolist())

    with replacing_folder(out) as folder:
        write_csv(folder / "honest.csv", ["group", "label", "fold"], [(g, class_of[g], f) for g, f in fold_of.items()])
        part = np.where(held_out, "validation", "train").tolist()
        write_csv(folder / "published.csv", ["record", "part"], zip(manifest["record"].tolist(), part, strict=True))
        fold = distinct["group"].map(fold_of)
        both = manifest.assign(part=part).groupby("group")["part"].nunique()
        facts: dict[str, Any] = {
            "dataset": item,
            "folds": settings.split.folds,
            "seed": settings.split.seed,
            "classes": classes,
            "honest": [
                {"fold": number, **_counts(distinct[fold == number], classes)} for number in range(settings.split.folds)
            ],
            "published": {
                "train": _counts(manifest[~held_out], classes),
                "validation": _counts(manifest[held_out], classes),
                "groups_on_both_sides": int((both > 1).sum()),
            },
            "sha256": _hash([folder / "honest.csv", folder / "published.csv"]),
        }
        write_json(folder / "split.json", facts)

    print(f"{item}: {len(fold_of)} groups with {len(distinct)} distinct records in {settings.split.folds} folds")
    for line in facts["honest"]:
        counts = ", ".join(f"{label} {line['groups'][label]} groups, {line['records'][label]} records" for label in classes)
        print(f"  fold {line['fold']}: {counts}")
    print(
        f"{item}: the published split holds out {int(held_out.sum())} of {len(manifest)} records;"
        f" {facts['published']['groups_on_both_sides']} groups are on both sides of it"
    )
    print(f"wrote {out.relative_to(settings.root).as_posix()}")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Text is always quoted, so that a folder's name may hold a comma, a quote or a line break."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _counts(records: pd.DataFrame, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Groups and records of every class; a group with records of two classes counts in both."""
    of = {label: records[records["label"] == label] for label in classes}
    return {
        "groups": {label: int(rows["group"].nunique()) for label, rows in of.items()},
        "records": {label: len(rows) for label, rows in of.items()},
    }


def _hash(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
