"""A manifest -> its split, and the files that splits.py reads.

honest.csv       group, label, fold: one fold per group
published.csv    record, part: the original's own split
split.json       the counts of both, their hash, and the hashes of the splits that this one has grown from
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cardium.atomic import replacing_folder, write_json
from cardium.data.manifest import is_distinct
from cardium.data.splits import LEFT_OUT, PUBLISHED_SPLITS, folds_it_had, group_classes, honest_folds, read_folds


@dataclass(frozen=True)
class Split:
    """Both splits of one manifest.

    rule: of the published split, a name in PUBLISHED_SPLITS. fold_of: group -> fold, class_of: group -> class. part: train,
    validation, test or none of each record of `taken`. distinct: the manifest's rows that take part under `honest`; taken:
    those without a conflict. grown_from: the hashes of earlier splits whose groups all have the fold that they had there.
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
    grown_from: list[str]

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


@dataclass(frozen=True)
class EarlierSplit:
    """The split that is there already. fold_of: group -> fold. sha256, grown_from: as in split.json."""

    fold_of: dict[str, int]
    sha256: str
    grown_from: list[str]

    @classmethod
    def read(cls, folder: Path, folds: int, seed: int) -> EarlierSplit | None:
        """The split in `folder`; None if there is none that can be read, or one of other `folds` or another `seed`."""
        try:
            facts = json.loads((folder / "split.json").read_text(encoding="utf-8"))
            if (facts["folds"], facts["seed"]) != (folds, seed):
                return None
            table = read_folds(folder)
            fold_of = dict(zip(table["group"], table["fold"].tolist(), strict=True))
            return cls(fold_of, str(facts["sha256"]), list(facts.get("grown_from", [])))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def make_split(
    manifest: pd.DataFrame, fingerprint: dict[str, Any], folds: int, seed: int, earlier: EarlierSplit | None = None
) -> Split:
    """Splits a manifest both ways. Groups of the `earlier` split keep their folds.

    A group that joins patients of several folds takes that of most of them. Raises CardiumError if a class has fewer groups
    than `folds`.
    """
    classes: list[str] = fingerprint["classes"]
    distinct = manifest[is_distinct(manifest)]
    groups, labels = distinct["group"].tolist(), distinct["label"].tolist()
    had = folds_it_had(distinct, earlier.fold_of) if earlier else {}
    kept = {group: max(sorted(of), key=lambda fold: of[fold]) for group, of in had.items() if of}
    fold_of = honest_folds(groups, labels, classes, folds, seed, kept)
    stayed = all(set(of) <= {fold_of[group]} for group, of in had.items())
    grown_from = [*earlier.grown_from, earlier.sha256] if earlier and stayed else []
    taken = manifest[~manifest["conflict"]]
    rule: str = fingerprint["published_split"]
    # If the original names its patients, the others take no part in its split.
    listed = taken if fingerprint["listed"] is None else taken[taken["patient"].isin(fingerprint["listed"])]
    drawn = PUBLISHED_SPLITS[rule](listed["path"].tolist(), listed["label"].tolist(), seed)
    part = pd.Series(drawn, index=listed.index, dtype="str").reindex(taken.index, fill_value=LEFT_OUT)
    return Split(classes, folds, seed, rule, fold_of, group_classes(groups, labels, classes), part, distinct, taken, grown_from)


def write_split(out: Path, dataset: str, split: Split, conflicts: int) -> dict[str, Any]:
    """Replaces the folder `out` by one with the three files. Returns what split.json holds. conflicts: records with one."""
    with replacing_folder(out) as folder:
        honest = [(group, split.class_of[group], fold) for group, fold in split.fold_of.items()]
        published = zip(split.taken["record"].tolist(), split.part.tolist(), strict=True)
        _write_csv(folder / "honest.csv", ["group", "label", "fold"], honest)
        _write_csv(folder / "published.csv", ["record", "part"], published)
        sha256 = _hash([folder / "honest.csv", folder / "published.csv"])
        facts = {
            "dataset": dataset,
            "folds": split.folds,
            "seed": split.seed,
            "classes": split.classes,
            "conflicts": conflicts,
            **_describe(split),
            "sha256": sha256,
            "grown_from": [earlier for earlier in split.grown_from if earlier != sha256],
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
