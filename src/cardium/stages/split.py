"""manifest -> split: honest.csv (group, label, fold), published.csv (record, part) and split.json (their counts and hash)."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cardium.atomic import replacing_folder, write_json
from cardium.config import Settings
from cardium.data.manifest import is_distinct, read_fingerprint, read_manifest
from cardium.data.splits import LEFT_OUT, PUBLISHED_SPLITS, group_classes, honest_folds
from cardium.errors import CardiumError
from cardium.workspace import Workspace


def run(settings: Settings, item: str) -> None:
    """Splits dataset `item` both ways. Raises CardiumError where it has too few groups of a class for `split.folds`."""
    space = Workspace(settings.root)
    manifest = read_manifest(space.manifest(item))
    fingerprint = read_fingerprint(space.manifest(item))
    classes: list[str] = fingerprint["classes"]
    out = space.split(item)
    first = manifest[is_distinct(manifest)]
    groups, labels = first["group"].tolist(), first["label"].tolist()
    try:
        fold_of = honest_folds(groups, labels, classes, settings.split.folds, settings.split.seed)
    except CardiumError as error:
        raise CardiumError(f"{item}: {error}") from None
    class_of = group_classes(groups, labels, classes)
    taken = manifest[~manifest["conflict"]]
    rule = PUBLISHED_SPLITS[fingerprint["published_split"]]
    # Where the original names its patients, the others take no part in its split.
    listed = taken if fingerprint["listed"] is None else taken[taken["patient"].isin(fingerprint["listed"])]
    drawn = rule(listed["path"].tolist(), listed["label"].tolist(), settings.split.seed)
    part = pd.Series(drawn, index=listed.index, dtype="str").reindex(taken.index, fill_value=LEFT_OUT)
    parts = {name: taken[part == name] for name in ("train", "validation", "test")}

    with replacing_folder(out) as folder:
        write_csv(folder / "honest.csv", ["group", "label", "fold"], [(g, class_of[g], f) for g, f in fold_of.items()])
        write_csv(folder / "published.csv", ["record", "part"], zip(taken["record"].tolist(), part.tolist(), strict=True))
        fold = first["group"].map(fold_of)
        left_out = taken[part == LEFT_OUT]
        held_out = taken[~part.isin(["train", LEFT_OUT])]
        facts: dict[str, Any] = {
            "dataset": item,
            "folds": settings.split.folds,
            "seed": settings.split.seed,
            "classes": classes,
            "conflicts": int(manifest["conflict"].sum()),
            "honest": [{"fold": number, **_counts(first[fold == number], classes)} for number in range(settings.split.folds)],
            # Without a part `test` of its own, validation is the test.
            "published": {
                "rule": fingerprint["published_split"],
                **{name: _counts(rows, classes) for name, rows in parts.items() if len(rows) or name != "test"},
                **({"left_out": _counts(left_out, classes)} if len(left_out) else {}),
                "groups_on_both_sides": len(set(parts["train"]["group"]) & set(held_out["group"])),
            },
            "sha256": _hash([folder / "honest.csv", folder / "published.csv"]),
        }
        write_json(folder / "split.json", facts)

    print(f"{item}: {len(fold_of)} groups with {len(first)} distinct records in {settings.split.folds} folds")
    for line in facts["honest"]:
        counts = ", ".join(f"{label} {line['groups'][label]} groups, {line['records'][label]} records" for label in classes)
        print(f"  fold {line['fold']}: {counts}")
    print(
        f"{item}: the published split holds out {len(held_out)} of {len(taken) - len(left_out)} records;"
        f" {facts['published']['groups_on_both_sides']} groups are on both sides of it"
    )
    if len(left_out):
        print(f"{item}: {len(left_out)} records are not the original's: they take no part in the published split")
    if facts["conflicts"]:
        print(f"{item}: {facts['conflicts']} records whose image stands under two classes take part in neither")
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
