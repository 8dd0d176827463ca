"""Splits: whole groups, every class in every fold, the same in any order; and Keras' own order under `published`."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests import CLASSES, manifest, project
from PIL import Image

from cardium.config import Settings
from cardium.data.splits import (
    PUBLISHED_SPLITS,
    has_grown_from,
    honest_folds,
    published_validation,
    read_folds,
    read_parts,
    rotate,
)
from cardium.datasets import get_collection, list_collections
from cardium.errors import CardiumError
from cardium.stages import split as split_stage

# Names that break careless CSV and careless sorting.
NAMES = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0"), min_size=1, max_size=6)


@st.composite
def manifests(draw: st.DrawFn) -> pd.DataFrame:
    """Random patients of two classes with random images, some of them copies, within and across patients."""
    rows = []
    for label in CLASSES:
        names = draw(st.lists(NAMES, min_size=3, max_size=9, unique=True))
        for name in names:
            images = draw(st.integers(1, 6))
            for image in range(images):
                copied = draw(st.integers(0, 9)) == 0
                content = f"shared {draw(st.integers(0, 3))} {label}" if copied else f"{label} {name} {image}"
                rows.append((f"{label}/{name}/IM{image}.jpg", label, f"{label}/{name}", content))
    return manifest(rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records=manifests(), folds=st.integers(3, 5), seed=st.integers(0, 2**31))
def test_nothing_leaks_whatever_the_manifest(tmp_path_factory, records, folds, seed):
    settings_ = project(tmp_path_factory.mktemp("project"), records, folds, seed)
    groups_of = {label: records.loc[records["label"] == label, "group"].nunique() for label in CLASSES}
    if min(groups_of.values()) < folds:
        with pytest.raises(CardiumError, match=r"set split\.folds|the least that can be split is 3"):
            split_stage.run(settings_, "cmri")
        return
    split_stage.run(settings_, "cmri")
    folder = settings_.root / "processed" / "cmri" / "split"
    tested: Counter[int] = Counter()
    for test_fold in range(folds):
        parts = read_parts(folder, records, "honest", test_fold)
        sides = [parts.train, parts.validation, parts.test]
        everything = np.concatenate(sides)
        assert sorted(everything) == sorted(records.loc[records["copy_of"] == -1, "record"])
        for column in ("group", "patient", "sha256"):
            values = [set(records.loc[records["record"].isin(side), column]) for side in sides]
            assert sum(map(len, values)) == len(set().union(*values)), f"{column} on two sides"
        for side in sides:
            assert side.dtype == np.int64
            assert (np.diff(side) > 0).all()
            assert set(records.loc[records["record"].isin(side), "label"]) == set(CLASSES)
        tested.update(parts.test.tolist())
    assert set(tested.values()) == {1}, "out of fold: every record is tested exactly once"


def test_validation_is_the_fold_after_the_test_fold():
    fold = np.arange(4)
    assert rotate(fold, 4, 0).tolist() == ["test", "validation", "train", "train"]
    assert rotate(fold, 4, 3).tolist() == ["validation", "train", "train", "test"]


PATIENTS = [
    (f"{label}/Directory_{n}", label, 5 + 37 * n % 211)
    for label, count in zip(CLASSES, (16, 14), strict=True)
    for n in range(count)
]


def dealt(seed: int, shuffled: int | None = None) -> dict[str, int]:
    records = [(group, label) for group, label, size in PATIENTS for _ in range(size)]
    if shuffled is not None:
        random.Random(shuffled).shuffle(records)
    return honest_folds([group for group, _ in records], [label for _, label in records], CLASSES, 5, seed)


def test_folds_follow_from_the_seed_and_not_from_the_order_of_rows():
    assert dealt(1) == dealt(1, shuffled=0) == dealt(1, shuffled=1)
    partitions = set()
    for seed in range(20):
        folds = dealt(seed)
        partitions.add(frozenset(frozenset(group for group in folds if folds[group] == fold) for fold in range(5)))
    assert len(partitions) == 20, "another seed is another partition, not only other fold numbers"


def test_folds_never_change_between_releases():
    # Stored scores hang on these: a change here makes every run that was ever trained incomparable.
    assert [group for group, fold in dealt(1337).items() if fold == 0] == PINNED


PINNED = [
    "Normal/Directory_5",
    "Normal/Directory_7",
    "Normal/Directory_9",
    "Sick/Directory_10",
    "Sick/Directory_12",
    "Sick/Directory_8",
]


@settings(max_examples=15, deadline=None)
@given(st.data(), st.integers(3, 5), st.integers(0, 5))
def test_a_group_keeps_its_fold_when_data_grow_and_classes_stay_balanced(data, folds, seed):
    sizes = {
        (label, n): size
        for label in CLASSES
        for n, size in enumerate(data.draw(st.lists(st.integers(1, 30), min_size=folds, max_size=20)))
    }
    names = sorted(sizes)
    first = {name for name in names if name[1] < folds or data.draw(st.booleans())}

    def deal(of, kept=None):
        records = [(f"{label} {n}", label) for label, n in of for _ in range(sizes[label, n])]
        return honest_folds([group for group, _ in records], [label for _, label in records], CLASSES, folds, seed, kept)

    before = deal(first)
    after = deal(names, before)
    assert {group: after[group] for group in before} == before
    assert deal(names[::-1], before) == after
    for label in CLASSES:
        groups = Counter(after[f"{of} {n}"] for of, n in names if of == label)
        assert max(groups.values()) - min(groups[fold] for fold in range(folds)) <= 1
    # What is kept lacks a class in a fold: dealt anew.
    assert deal(first, dict.fromkeys(before, 0)) == before


def test_the_stage_keeps_folds_and_says_which_split_it_has_grown_from(tmp_path, capsys):
    def rows(patients: int) -> list[tuple[str, str, str, str]]:
        return [
            (f"{label}/{n}/{i}.jpg", label, f"{label}/{n}", f"{label} {n} {i}")
            for label in CLASSES
            for n in range(patients)
            for i in range(2)
        ]

    folder = tmp_path / "processed" / "cmri" / "split"

    def split(records: list[tuple[str, str, str, str]], **changed) -> tuple[dict[str, int], dict]:
        split_stage.run(project(tmp_path, manifest(records), **changed), "cmri")
        table = read_folds(folder)
        return dict(zip(table["group"], table["fold"], strict=True)), json.loads((folder / "split.json").read_text())

    before, first = split(rows(9))
    after, second = split(rows(12))
    assert {group: after[group] for group in before} == before
    assert "18 of 18 groups keep their fold, 6 are new" in capsys.readouterr().out
    assert (first["grown_from"], second["grown_from"]) == ([], [first["sha256"]])
    assert has_grown_from(folder, first["sha256"])
    assert has_grown_from(folder, second["sha256"])
    assert not has_grown_from(folder, "x")
    # Two patients of different folds turn out to be one: one of them changes its fold.
    one = "Sick/0"
    other = next(group for group in sorted(after) if group.startswith("Sick") and after[group] != after[one])
    joined = [*rows(12), (f"{one}/same.jpg", "Sick", one, "same"), (f"{other}/same.jpg", "Sick", other, "same")]
    last, third = split(joined)
    assert {group: fold for group, fold in last.items() if group not in (one, other)} == {
        group: fold for group, fold in after.items() if group not in (one, other)
    }
    assert third["grown_from"] == []
    assert split(rows(12), seed=2)[0] != after, "another seed deals anew"


def test_folds_are_balanced_in_groups_and_records():
    for seed in range(20):
        folds = dealt(seed)
        for label in CLASSES:
            groups = Counter(folds[group] for group, of, _ in PATIENTS if of == label)
            records = Counter(dict.fromkeys(range(5), 0))
            for group, of, size in PATIENTS:
                if of == label:
                    records[folds[group]] += size
            assert max(groups.values()) - min(groups.values()) <= 1
            assert max(records.values()) - min(records.values()) < 2 * max(size for _, of, size in PATIENTS if of == label)


def test_every_fold_has_every_class_where_sizes_are_lopsided():
    sizes = {"Normal": [4000, 1, 1, 1, 1], "Sick": [1, 1, 1, 900, 700]}
    records = [
        (f"{label}{i}", label) for label, counts in sizes.items() for i, count in enumerate(counts) for _ in range(count)
    ]
    folds = honest_folds([g for g, _ in records], [label for _, label in records], CLASSES, 5, 0)
    assert {(folds[f"{label}{i}"], label) for label in CLASSES for i in range(5)} == {(f, c) for f in range(5) for c in CLASSES}


def test_too_few_groups_says_how_many_and_what_would_work():
    groups = [f"n{i}" for i in range(9)] + [f"s{i}" for i in range(4)]
    labels = ["Normal"] * 9 + ["Sick"] * 4
    with pytest.raises(CardiumError, match=r"Normal 9, Sick 4; set split.folds in params.yaml to 4 or less"):
        honest_folds(groups, labels, CLASSES, 7, 0)
    assert set(honest_folds(groups, labels, CLASSES, 4, 0).values()) == {0, 1, 2, 3}, "the advice holds"
    with pytest.raises(CardiumError, match=r"Normal 9, Sick 0; the least .* 3 folds: add groups \(patients\) of Sick"):
        honest_folds(groups[:9], labels[:9], CLASSES, 5, 0)


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(CardiumError, match=r"Unknown class `sick`\. Did you mean `Sick`"):
        honest_folds(["a"], ["sick"], CLASSES, 3, 0)


# Capitals, brackets, spaces, numbers without padding, names that sort differently as paths than part by part.
ODD = [
    "Directory_1/SR_2/IM1.jpg",
    "Directory_1/SR_2/IM10.jpg",
    "Directory_1/SR_2/IM2.JPG",
    "Directory_1/SR_10/im00001.jpg",
    "Directory_1-b/SR_1/IM (3).jpeg",
    "Directory_1.old/x.png",
    "Directory_1/loose.jpg",
    "directory_2/[a] b/É.jpg",
    "Directory_10/SR 1/a b.jpg",
    "Directory_9/SR_1/a.jpg",
    "zz.jpg",
    "AA.jpg",
    "Directory_1 (copy)/SR_2/IM1.jpg",
    "_/-.jpg",
]
NUMBERED = [name.replace(".", f"{number}.", 1) for name in ODD for number in ("", " (2)", "_7", "_12", "B", "b")]


@pytest.mark.parametrize("count", [5, 33, 84])
@pytest.mark.parametrize("flat", [False, True])
def test_published_holds_out_what_keras_holds_out(tmp_path, count, flat):
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    rng = random.Random(count)
    paths = {"Normal": rng.sample(NUMBERED, count), "Sick": rng.sample(NUMBERED, count)}
    written = []
    for label, names in paths.items():
        for name in names:
            file = tmp_path / label / (name.replace("/", "_") if flat else name)
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(file)
            written.append(file.relative_to(tmp_path).as_posix())
    rng.shuffle(written)
    held_out = published_validation(written, [path.split("/")[0] for path in written])

    generator = ImageDataGenerator(validation_split=0.2)
    for subset, wanted in (("validation", held_out), ("training", ~held_out)):
        keras = generator.flow_from_directory(str(tmp_path), target_size=(8, 8), subset=subset, shuffle=False)
        assert set(keras.filenames) == {path for path, took in zip(written, wanted, strict=True) if took}
        assert keras.class_indices == {"Normal": 0, "Sick": 1}
    assert held_out.any()


@given(n=st.integers(0, 3000))
def test_published_share_rounds_as_keras_does(n):
    assert published_validation([f"a/{i:05d}" for i in range(n)], ["a"] * n).sum() == int(0.2 * n)


def test_every_collection_names_a_split_that_there_is():
    assert {get_collection(name).published_split for name in list_collections()} == set(PUBLISHED_SPLITS)


def test_kaggles_test_folder_is_the_test():
    paths = [
        f"ECG_DATA/{side}/{label}/{n}.jpg"
        for side, count in (("train", 40), ("TEST", 10))
        for label in "ab"
        for n in range(count)
    ]
    labels = [path.split("/")[2] for path in paths]
    parts = PUBLISHED_SPLITS["kaggle_folders"](paths, labels, 1)
    assert {path for path, part in zip(paths, parts, strict=True) if part == "test"} == {p for p in paths if "/TEST/" in p}
    assert Counter(zip(labels, parts, strict=True)) == {
        (label, part): count for label in "ab" for part, count in (("train", 34), ("validation", 6), ("test", 10))
    }
    assert parts != PUBLISHED_SPLITS["kaggle_folders"](paths, labels, 2), "validation is drawn from the seed"


@given(st.lists(st.integers(0, 200), min_size=2, max_size=4), st.integers(0, 5), st.booleans())
def test_without_kaggles_folders_a_fifth_of_each_class_is_the_test(counts, seed, tested):
    # A folder `test` alone is not Kaggle's copy: a user's own naming decides nothing.
    above = "test/" if tested else ""
    paths = [f"{above}{label}/{n}.jpg" for label, count in enumerate(counts) for n in range(count)]
    labels = [path.split("/")[-2] for path in paths]
    parts = PUBLISHED_SPLITS["kaggle_folders"](paths, labels, seed)
    for label, count in enumerate(counts):
        of = Counter(part for part, its in zip(parts, labels, strict=True) if its == str(label))
        assert (of["test"], of["validation"], of.total()) == (round(0.20 * count), round(0.12 * count), count)
    # The same files in another order are divided the same way.
    order = random.Random(seed).sample(range(len(paths)), len(paths))
    again = PUBLISHED_SPLITS["kaggle_folders"]([paths[i] for i in order], [labels[i] for i in order], seed)
    assert again == [parts[i] for i in order]


def test_random_tenths_are_the_originals_numbers_and_never_change():
    paths = [f"{n:04d}.jpg" for n in range(2_746)]
    parts = PUBLISHED_SPLITS["random_tenths"](paths, ["a"] * len(paths), 5)
    assert Counter(parts) == {"train": 2_196, "validation": 275, "test": 275}
    assert [n for n, part in enumerate(parts) if part == "test"][:5] == PINNED_TENTHS
    assert PUBLISHED_SPLITS["random_tenths"](paths[::-1], ["b"] * len(paths), 6) == parts[::-1], "of the paths alone"


PINNED_TENTHS = [3, 10, 15, 16, 23]


def test_a_test_part_of_its_own_is_read(tmp_path):
    _, folder, records = small(tmp_path)
    table = pd.read_csv(folder / "published.csv")
    table.loc[table["record"].isin([3, 20]), "part"] = "test"
    table.to_csv(folder / "published.csv", index=False)
    parts = read_parts(folder, records, "published", 0)
    assert parts.test.tolist() == [3, 20]
    assert len(parts.validation) == 4
    assert not {3, 20} & {*parts.train, *parts.validation}


def test_a_content_of_two_labels_takes_part_in_nothing(tmp_path, capsys):
    rows = [
        (f"{label}/{n}/{i}.jpg", label, f"{label}/{n}", f"{label} {n} {i}")
        for label in CLASSES
        for n in range(4)
        for i in range(3)
    ]
    rows += [("Normal/0/x.jpg", "Normal", "Normal/0", "both"), ("Normal/0/y.jpg", "Normal", "Normal/0", "both")]
    rows += [("Sick/9/x.jpg", "Sick", "Sick/9", "both"), ("Sick/8/z.jpg", "Sick", "Sick/8", "Sick 8")]
    records = manifest(rows)
    assert records.loc[records["conflict"], "path"].tolist() == ["Normal/0/x.jpg", "Normal/0/y.jpg", "Sick/9/x.jpg"]
    settings_ = project(tmp_path, records)
    split_stage.run(settings_, "cmri")
    assert "3 records whose image stands under two classes take part in neither" in capsys.readouterr().out
    folder = tmp_path / "processed" / "cmri" / "split"
    left_out = set(records.loc[records["conflict"], "record"])
    for protocol in ("honest", "published"):
        parts = read_parts(folder, records, protocol, 0)
        assert set(np.concatenate([parts.train, parts.validation, parts.test])) == set(records["record"]) - left_out
    assert json.loads((folder / "split.json").read_text())["conflicts"] == 3


def small(tmp_path: Path) -> tuple[Settings, Path, pd.DataFrame]:
    rows = [
        (f"{label}/Directory_{n}/IM{i}.jpg", label, f"{label}/Directory_{n}", f"{label} {n} {i}")
        for label in CLASSES
        for n in range(4)
        for i in range(3)
    ]
    # A copy within a patient: it stays out of every honest part.
    rows.append(("Normal/Directory_0/again.jpg", "Normal", "Normal/Directory_0", "Normal 0 0"))
    records = manifest(rows)
    settings_ = project(tmp_path, records)
    split_stage.run(settings_, "cmri")
    return settings_, tmp_path / "processed" / "cmri" / "split", records


def test_stage_writes_what_it_says(tmp_path, capsys):
    settings_, folder, _ = small(tmp_path)
    said = capsys.readouterr().out
    assert said.strip().splitlines()[-1] == "wrote processed/cmri/split"
    facts = json.loads((folder / "split.json").read_text())
    assert (facts["folds"], facts["seed"], facts["classes"]) == (4, 1337, CLASSES)
    assert sum(sum(line["records"].values()) for line in facts["honest"]) == 24
    assert all(line["groups"] == {"Normal": 1, "Sick": 1} for line in facts["honest"])
    assert facts["published"]["train"]["records"] == {"Normal": 11, "Sick": 10}
    assert facts["published"]["validation"]["records"] == {"Normal": 2, "Sick": 2}
    assert facts["published"]["groups_on_both_sides"] == 2
    assert read_folds(folder)["group"].is_unique
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    split_stage.run(settings_, "cmri")
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_published_parts(tmp_path):
    _, folder, records = small(tmp_path)
    parts = read_parts(folder, records, "published", 0)
    assert (parts.validation == parts.test).all()
    assert sorted(np.concatenate([parts.train, parts.test])) == records["record"].tolist()
    # By Keras' order: the first folder's first files, the copy (`again.jpg` follows capitals) not among them.
    assert records.loc[parts.test, "path"].tolist() == [
        "Normal/Directory_0/IM0.jpg",
        "Normal/Directory_0/IM1.jpg",
        "Sick/Directory_0/IM0.jpg",
        "Sick/Directory_0/IM1.jpg",
    ]


def test_read_parts_refuses_what_it_does_not_know(tmp_path):
    _, folder, records = small(tmp_path)
    with pytest.raises(CardiumError, match=r"Unknown test fold 4 of cmri \(honest\). Known: 0 to 3"):
        read_parts(folder, records, "honest", 4)
    with pytest.raises(CardiumError, match="Unknown test fold -1"):
        read_parts(folder, records, "honest", -1)
    with pytest.raises(CardiumError, match="0 alone"):
        read_parts(folder, records, "published", 1)
    with pytest.raises(CardiumError, match=r"Unknown protocol `honst`\. Did you mean `honest`"):
        read_parts(folder, records, "honst", 0)
    with pytest.raises(CardiumError, match="dvc repro split@cmri"):
        read_parts(tmp_path / "processed" / "cmri" / "nothing", records, "honest", 0)


def test_a_split_of_another_manifest_is_refused(tmp_path):
    _, folder, _ = small(tmp_path)
    more = manifest([("Normal/Directory_77/a.jpg", "Normal", "Normal/Directory_77", "new"), ("Sick/a.jpg", "Sick", "", "x")])
    for protocol in ("honest", "published"):
        with pytest.raises(CardiumError, match="another manifest"):
            read_parts(folder, more, protocol, 0)


def test_a_failed_split_leaves_the_old_one_whole(tmp_path):
    _, folder, records = small(tmp_path)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(CardiumError, match="cmri: 5 folds need 5 groups"):
        split_stage.run(project(tmp_path, records, folds=5), "cmri")
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}
    assert sorted(file.name for file in folder.parent.iterdir()) == ["manifest", "split"]
