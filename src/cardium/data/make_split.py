"""A manifest -> its split, and the files that splits.py reads.

honest.csv       group, label, fold: one fold per group
published.csv    record, part: the original's own split
split.json       the counts of both, and their hash
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cardium.atomic import replacing_folder, write_json
from cardium.data.manifest import is_distinct
from cardium.data.splits import LEFT_OUT, PUBLISHED_SPLITS, group_classes, honest_folds


@dataclass(frozen=True)
class Split:
    """Both splits of one manifest.

    rule: of the published split, a name in PUBLISHED_SPLITS. fold_of: group -> fold, class_of: group -> class. part: train,
    validation, test or none of each record of `taken`. distinct: the manifest's rows that take part under `honest`; taken:
    those without a conflict.
    """

    classes: list[str]
    folds: int
    seed: int
    rule: str
    fold_of: dict[str, int]
    class_of: dict[str, str]
    part: pd.Series
    distinct: pd.DataFrame
    taken: pd.DataFrame

    @property
    def left_out(self) -> pd.DataFrame:
        """Records that take no part in the published split."""
        return self.taken[self.part == LEFT_OUT]

    @property
    def held_out(self) -> pd.DataFrame:
        """Records that the published split does not train on."""
        return self.taken[~self.part.isin(["train", LEFT_OUT])]

    def of_part(self, name: str) -> pd.DataFrame:
        """Records of one part of the published split."""
        return self.taken[self.part == name]


def make_split(manifest: pd.DataFrame, fingerprint: dict[str, Any], folds: int, seed: int) -> Split:
    """Splits a manifest both ways. Raises CardiumError if a class has fewer groups than `folds`."""
    classes: list[str] = fingerprint["classes"]
    distinct = manifest[is_distinct(manifest)]
    groups, labels = distinct["group"].tolist(), distinct["label"].tolist()
    fold_of = honest_folds(groups, labels, classes, folds, seed)
    taken = manifest[~manifest["conflict"]]
    rule: str = fingerprint["published_split"]
    # If the original names its patients, the others take no part in its split.
    listed = taken if fingerprint["listed"] is None else taken[taken["patient"].isin(fingerprint["listed"])]
    drawn = PUBLISHED_SPLITS[rule](listed["path"].tolist(), listed["label"].tolist(), seed)
    part = pd.Series(drawn, index=listed.index, dtype="str").reindex(taken.index, fill_value=LEFT_OUT)
    return Split(classes, folds, seed, rule, fold_of, group_classes(groups, labels, classes), part, distinct, taken)


def write_split(out: Path, dataset: str, split: Split, conflicts: int) -> dict[str, Any]:
    """Replaces the folder `out` by one with the three files. Returns what split.json holds. conflicts: records with one."""
    with replacing_folder(out) as folder:
        honest = [(group, split.class_of[group], fold) for group, fold in split.fold_of.items()]
        published = zip(split.taken["record"].tolist(), split.part.tolist(), strict=True)
        _write_csv(folder / "honest.csv", ["group", "label", "fold"], honest)
        _write_csv(folder / "published.csv", ["record", "part"], published)
        facts = {
            "dataset": dataset,
            "folds": split.folds,
            "seed": split.seed,
            "classes": split.classes,
            "conflicts": conflicts,
            **_describe(split),
            "sha256": _hash([folder / "honest.csv", folder / "published.csv"]),
        }
        write_json(folder / "split.json", facts)
    return facts


def _describe(split: Split) -> dict[str, Any]:
    fold = split.distinct["group"].map(split.fold_of)
    parts = {name: split.of_part(name) for name in ("train", "validation", "test")}
    trained, held_out = set(parts["train"]["group"]), set(split.held_out["group"])
    return {
        "honest": [{"fold": number, **_counts(split.distinct[fold == number], split.classes)} for number in range(split.folds)],
        # Without a part `test` of its own, validation is the test.
        "published": {
            "rule": split.rule,
            **{name: _counts(rows, split.classes) for name, rows in parts.items() if len(rows) or name != "test"},
            **({"left_out": _counts(split.left_out, split.classes)} if len(split.left_out) else {}),
            "groups_on_both_sides": len(trained & held_out),
        },
    }


def _counts(records: pd.DataFrame, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Groups and records of every class; a group with records of two classes counts in both."""
    of = {label: records[records["label"] == label] for label in classes}
    return {
        "groups": {label: int(rows["group"].nunique()) for label, rows in of.items()},
        "records": {label: len(rows) for label, rows in of.items()},
    }


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Text is always quoted, so that a folder's name may hold a comma, a quote or a line break."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _hash(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
