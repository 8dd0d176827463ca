"""Who trains, who chooses, who tests: folds of whole groups, and the original's own split.

honest: one integer fold per group, so a group cannot be torn apart. Test = fold t, validation = fold t + 1 (mod k), training =
the rest; of identical files only the first takes part. When data grow, a group keeps the fold it had: otherwise what was
trained or searched on would be tested on.
published: as the collection's original divided it, leaks included (PUBLISHED_SPLITS). Every file takes part, or every file that
the original is known to have used; the part of the others is `none`. If the original scored the files that chose its weights,
there is no part `test`, and validation serves as both.
A file whose content is filed under two labels takes part in neither.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardium.data.manifest import is_distinct
from cardium.errors import CardiumError, unknown
from cardium.workspace import PROTOCOLS

if TYPE_CHECKING:
    import pandas as pd

# Keras' own expression is int(0.2 * n): written with the same float, it rounds the same.
PUBLISHED_SHARE = 0.2
# The part of a record that the published split does not use.
LEFT_OUT = "none"
# Training, validation and test each need a fold.
LEAST_FOLDS = 3


@dataclass(frozen=True)
class Parts:
    """Record numbers of one split: sorted int64 arrays. Under `published` validation and test may be the same records."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def honest_folds(
    groups: Sequence[str],
    labels: Sequence[str],
    classes: Sequence[str],
    folds: int,
    seed: int,
    kept: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Deals whole groups into folds: group -> fold in 0..folds-1, in order of group name.

    groups, labels: of each record (distinct files only), the same length. kept: group -> fold, of groups that keep theirs. The
    result depends on these as sets, not on their order, and on nothing else but `folds` and `seed`. Where groups were lost and
    the kept folds would lack a class, all groups are dealt anew.

    Method: blocked randomisation. Within a class, groups are ordered by size and cut into blocks of `folds` groups; each block
    gives one group to each fold, in an order drawn from `seed`; the groups left over at the end go to the folds with the
    fewest records. So in every fold the number of groups of a class differs by at most one (with groups of one class each), and
    its number of records by less than two groups of the largest size. scikit-learn's StratifiedGroupKFold balances records
    alone: with 30 patients of unequal size in 5 folds it gives one fold up to three patients of a class more than another,
    although a score must hold for patients.

    Beside kept groups the others are dealt one by one, the largest first, each to the fold with the fewest groups of its class
    and, of equals, the fewest records: what held of groups goes on to hold.

    A group with records of several classes counts as of the rarest of them, by number of groups.
    Raises CardiumError, with the number of groups of every class, if some fold would lack a class.
    """
    sizes = _group_sizes(groups, labels, classes)
    dealt = _deal_beside(sizes, folds, seed, kept) if kept else {}
    if not kept or not _complete(sizes, classes, dealt, folds):
        dealt = _deal(sizes, folds, seed)
    if not _complete(sizes, classes, dealt, folds):
        raise _too_few_groups(sizes, classes, folds, seed)
    return dict(sorted(dealt.items()))


def published_validation(paths: Sequence[str], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Which files Keras' `flow_from_directory(subset="validation")` would hold out: bool (n,), in the order given.

    paths: posix, relative to one root, in the publisher's nested layout. Per class, files are in Keras' order (folders by
    their whole path as text, then names within a folder; code points, so `IM10` precedes `IM2`), and the **first**
    int(0.2 n) are validation. System 000 renamed the files into one flat folder first; the names it gave are published
    nowhere, so the order is that of the published layout.
    """
    held_out = np.zeros(len(paths), dtype=bool)
    of_class: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        of_class.setdefault(label, []).append(row)
    for rows in of_class.values():
        rows.sort(key=lambda row: posixpath.split(paths[row]))
        held_out[rows[: int(PUBLISHED_SHARE * len(rows))]] = True
    return held_out


def first_fifth(paths: Sequence[str], labels: Sequence[str], seed: int) -> list[str]:  # noqa: ARG001
    """System 000: `published_validation`; validation is the test as well. `seed` is not used."""
    return np.where(published_validation(paths, labels), "validation", "train").tolist()


def kaggle_folders(paths: Sequence[str], labels: Sequence[str], seed: int) -> list[str]:
    """Systems 001 and 004: with folders `train` and `test` (Kaggle's ECG_DATA) the files below `test` are the test, and 15 % of
    each class's other files validation; without them 20 % of each class are the test and 12 % validation.

    The original's draw is not published: here `seed` and the path decide.
    """
    parts = ["train"] * len(paths)
    sides = [_innermost(path, ("train", "test")) for path in paths]
    given = {"train", "test"} <= set(sides)
    of_class: dict[str, list[int]] = {}
    for row, (side, label) in enumerate(zip(sides, labels, strict=True)):
        if given and side == "test":
            parts[row] = "test"
        else:
            of_class.setdefault(label, []).append(row)
    for rows in of_class.values():
        rows.sort(key=lambda row: _draw(seed, paths[row]))
        tested = 0 if given else round(0.20 * len(rows))
        for row in rows[:tested]:
            parts[row] = "test"
        for row in rows[tested : tested + round((0.15 if given else 0.12) * len(rows))]:
            parts[row] = "validation"
    return parts


def random_tenths(paths: Sequence[str], labels: Sequence[str], seed: int) -> list[str]:  # noqa: ARG001
    """System 003: 80 % training, 10 % validation, 10 % test of all files at random, regardless of class, seed 1234.

    Of 2,746 files 2,196, 275 and 275. The original drew with torch's generator, which only torch can repeat. This draw
    is numpy's (RandomState, whose stream is frozen) over files sorted by path: the same shares, other files. `seed` is unused.
    """
    order = np.random.RandomState(1234).permutation(len(paths))
    trained = int(0.8 * len(paths))
    held_out = (len(paths) - trained) // 2
    part = np.full(len(paths), "test", dtype="<U10")
    by_path = np.array(sorted(range(len(paths)), key=lambda row: paths[row]), dtype=np.int64)
    part[by_path[order[:trained]]] = "train"
    part[by_path[order[trained : trained + held_out]]] = "validation"
    return part.tolist()


def listed_patients(paths: Sequence[str], labels: Sequence[str], seed: int) -> list[str]:  # noqa: ARG001
    """System 002: 80 % training, 20 % validation, stratified, by scikit-learn's `train_test_split(test_size=0.2,
    stratify=labels, random_state=42)` as in the original; validation is the test as well. Of its 57 patients: 45 and 12.

    paths: of the volumes of the patients that the original names. Its program's order of them is not published; here it is the
    order of the volumes' names. Files of one name (packed and plain, in two folders) belong to one patient and stay together.
    If a class has too few patients to be held out, all are trained on. `seed` is unused.
    """
    from sklearn.model_selection import train_test_split

    names = [path.rpartition("/")[2].partition(".")[0].lower() for path in paths]
    label_of = dict(zip(names, labels, strict=True))
    try:
        _, held_out = train_test_split(
            sorted(label_of), test_size=PUBLISHED_SHARE, stratify=[label_of[name] for name in sorted(label_of)], random_state=42
        )
    except ValueError:
        held_out = []
    return np.where(np.isin(names, held_out), "validation", "train").tolist()


def _innermost(path: str, names: Sequence[str]) -> str:
    """The innermost folder of `path` with one of `names`, in any case; "" for none."""
    return next((folder for folder in reversed(path.lower().split("/")[:-1]) if folder in names), "")


# A collection's published_split -> (paths, labels, split.seed) -> the part of each record: train, validation or test.
PUBLISHED_SPLITS: dict[str, Callable[[Sequence[str], Sequence[str], int], list[str]]] = {
    "first_fifth": first_fifth,
    "kaggle_folders": kaggle_folders,
    "random_tenths": random_tenths,
    "listed_patients": listed_patients,
}


def rotate(fold: NDArray[np.int64], folds: int, test_fold: int) -> NDArray[np.str_]:
    """The part of each record if `test_fold` is held out, (n,): `test`, `validation` (the fold after it) or `train`."""
    validation_fold = (test_fold + 1) % folds
    return np.where(fold == test_fold, "test", np.where(fold == validation_fold, "validation", "train"))


def read_parts(split_folder: Path, manifest: pd.DataFrame, protocol: str, test_fold: int) -> Parts:
    """Reads the stored split: the record numbers to train on, to choose by and to test on.

    manifest: columns record, group, copy_of, conflict. test_fold: 0..folds-1 under `honest`; 0 under `published`, which has one
    split.
    Raises CardiumError for an unknown protocol or fold, a missing split, or one that was made from another manifest.
    """
    import json

    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, list(PROTOCOLS))
    try:
        folds = int(json.loads((split_folder / "split.json").read_text(encoding="utf-8"))["folds"])
        table = read_folds(split_folder) if protocol == "honest" else read_published(split_folder)
    except FileNotFoundError as error:
        raise CardiumError(
            f"There is no split at {error.filename}: run `dvc repro split@{split_folder.parent.name}`."
        ) from None
    choices = folds if protocol == "honest" else 1
    if not 0 <= test_fold < choices:
        known = f"0 to {folds - 1}" if protocol == "honest" else "0 alone: under `published` there is one split"
        raise CardiumError(f"Unknown test fold {test_fold} of {split_folder.parent.name} ({protocol}). Known: {known}.")
    record = manifest["record"].to_numpy(dtype=np.int64)
    taken = ~manifest["conflict"].to_numpy(dtype=bool)
    if protocol == "honest":
        fold_of = dict(zip(table["group"], table["fold"], strict=True))
        taken = is_distinct(manifest).to_numpy()
        record, groups = record[taken], manifest["group"].to_numpy()[taken]
        if not set(groups) <= set(fold_of):
            raise _stale(split_folder)
        part = rotate(np.array([fold_of[group] for group in groups], dtype=np.int64), folds, test_fold)
    else:
        record = record[taken]
        part_of = dict(zip(table["record"], table["part"], strict=True))
        if set(part_of) != set(record.tolist()):
            raise _stale(split_folder)
        part = np.array([part_of[number] for number in record.tolist()], dtype=str)
    train, validation, test = (np.sort(record[part == name]) for name in ("train", "validation", "test"))
    if protocol == "published" and not len(test):
        test = validation
    if not (len(train) and len(validation) and len(test)):
        raise CardiumError(
            f"{split_folder.parent.name} ({protocol}): {len(train)} records to train on, {len(validation)} to choose by and"
            f" {len(test)} to test on are too few;"
            f" add data to data/{split_folder.parent.name}."
        )
    return Parts(train, validation, test)


def read_folds(split_folder: Path) -> pd.DataFrame:
    """Reads honest.csv: columns group (str), label (str), fold (int64), one row per group."""
    import pandas as pd

    # Groups are names of folders: "NA", "" and "007" stay what they are.
    kinds = {"group": str, "label": str, "fold": np.int64}
    return pd.read_csv(split_folder / "honest.csv", dtype=kinds, keep_default_na=False)


def folds_it_had(manifest: pd.DataFrame, fold_of: Mapping[str, int]) -> dict[str, Counter[int]]:
    """The folds that the patients of today's groups had: group -> fold -> names, in order of group; groups with none are new.

    manifest: columns group, patient. fold_of: group -> fold, of an earlier split. A group that today joins patients of several
    groups (identical files were found) may have had several folds.
    """
    names: dict[str, set[str]] = {}
    for group, patient in zip(manifest["group"], manifest["patient"], strict=True):
        names.setdefault(str(group), {str(group)}).update({str(patient)} - {""})
    return {group: Counter(int(fold_of[name]) for name in of if name in fold_of) for group, of in sorted(names.items())}


def has_grown_from(split_folder: Path, sha256: str) -> bool:
    """Whether the stored split is the one with this hash, or that one with groups added: no group has changed its fold."""
    import json

    split = json.loads((split_folder / "split.json").read_text(encoding="utf-8"))
    return sha256 in {split["sha256"], *split.get("grown_from", [])}


def read_published(split_folder: Path) -> pd.DataFrame:
    """Reads published.csv: columns record (int64), part (train | validation | test | none), of records without conflict."""
    import pandas as pd

    return pd.read_csv(split_folder / "published.csv", dtype={"record": np.int64, "part": str}, keep_default_na=False)


def group_class(sizes: dict[str, int], groups_of: dict[str, int]) -> str:
    """The class that a group counts as: the rarest of its records' classes, by number of groups; then by name."""
    return min(sizes, key=lambda label: (groups_of[label], label))


def group_classes(groups: Sequence[str], labels: Sequence[str], classes: Sequence[str]) -> dict[str, str]:
    """Maps each group to the class that it counts as; see `group_class`."""
    sizes = _group_sizes(groups, labels, classes)
    groups_of = _groups_per_class(sizes, classes)
    return {group: group_class(per_class, groups_of) for group, per_class in sizes.items()}


def _group_sizes(groups: Sequence[str], labels: Sequence[str], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """group -> class -> records, groups in order of name."""
    sizes: dict[str, dict[str, int]] = {}
    for group, label in zip(groups, labels, strict=True):
        if label not in classes:
            raise unknown("class", label, list(classes))
        per_class = sizes.setdefault(group, {})
        per_class[label] = per_class.get(label, 0) + 1
    return dict(sorted(sizes.items()))


def _groups_per_class(sizes: dict[str, dict[str, int]], classes: Iterable[str]) -> dict[str, int]:
    return {label: sum(label in per_class for per_class in sizes.values()) for label in classes}


def _deal(sizes: dict[str, dict[str, int]], folds: int, seed: int) -> dict[str, int]:
    groups_of = _groups_per_class(sizes, {label for per_class in sizes.values() for label in per_class})
    strata: dict[str, list[str]] = {}
    for group, per_class in sizes.items():
        strata.setdefault(group_class(per_class, groups_of), []).append(group)
    dealt: dict[str, int] = {}
    records = [0] * folds
    for label in sorted(strata):
        ordered = sorted(strata[label], key=lambda group: (-sum(sizes[group].values()), _draw(seed, group)))
        for start in range(0, len(ordered), folds):
            block = sorted(ordered[start : start + folds], key=lambda group: _draw(seed, group))
            order = list(range(folds))
            if len(block) < folds:
                order.sort(key=lambda fold: (records[fold], fold))
            for group, fold in zip(block, order, strict=False):
                dealt[group] = fold
            for group in block:
                records[dealt[group]] += sum(sizes[group].values())
    return dealt


def _deal_beside(sizes: dict[str, dict[str, int]], folds: int, seed: int, kept: Mapping[str, int]) -> dict[str, int]:
    """Deals the groups that are not `kept` to the emptiest folds."""
    groups_of = _groups_per_class(sizes, {label for per_class in sizes.values() for label in per_class})
    class_of = {group: group_class(per_class, groups_of) for group, per_class in sizes.items()}
    dealt = {group: kept[group] for group in sizes if group in kept}
    records, filled = [0] * folds, Counter[tuple[int, str]]()

    def put(group: str, fold: int) -> None:
        dealt[group] = fold
        records[fold] += sum(sizes[group].values())
        filled[fold, class_of[group]] += 1

    for group, fold in list(dealt.items()):
        put(group, fold)
    new = [group for group in sizes if group not in dealt]
    for group in sorted(new, key=lambda group: (-sum(sizes[group].values()), _draw(seed, group))):
        put(group, min(range(folds), key=lambda fold: (filled[fold, class_of[group]], records[fold], fold)))
    return dealt


def _draw(seed: int, group: str) -> bytes:
    """A group's place in the shuffle: a hash, the same in every release of every library."""
    return hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogateescape")).digest()


def _complete(sizes: dict[str, dict[str, int]], classes: Sequence[str], dealt: dict[str, int], folds: int) -> bool:
    """Whether every fold has a group of every class."""
    there = {(fold, label) for group, fold in dealt.items() for label in sizes[group]}
    return len(there) == folds * len(classes)


def _too_few_groups(sizes: dict[str, dict[str, int]], classes: Sequence[str], folds: int, seed: int) -> CardiumError:
    counts = _groups_per_class(sizes, classes)
    fewer = range(folds - 1, LEAST_FOLDS - 1, -1)
    largest = next((k for k in fewer if _complete(sizes, classes, _deal(sizes, k, seed), k)), None)
    listed = ", ".join(f"{label} {count}" for label, count in counts.items())
    if largest is None:
        short = ", ".join(label for label, count in counts.items() if count < LEAST_FOLDS) or "the rarest class"
        todo = f"the least that can be split is {LEAST_FOLDS} folds: add groups (patients) of {short}"
    else:
        todo = f"set split.folds in params.yaml to {largest} or less, or add groups"
    return CardiumError(f"{folds} folds need {folds} groups (patients) of every class, but the groups are: {listed}; {todo}.")


def _stale(split_folder: Path) -> CardiumError:
    dataset = split_folder.parent.name
    return CardiumError(f"The split at {split_folder} was made from another manifest: run `dvc repro split@{dataset}`.")
