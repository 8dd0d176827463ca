"""ImageCHD's table of defects and its volumes: labels, what is left out and why, and the way through ingest to validate."""

import csv
import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import openpyxl
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from cardium.config import Settings, resolve
from cardium.data import manifest as manifests
from cardium.data.splits import PUBLISHED_SPLITS, read_folds, read_parts, read_published
from cardium.datasets import Found, Rejected, chd, get_collection, measured
from cardium.datasets.chd import DEFECTS, PUBLISHED, TABLE, patient_of, read_table, rule, scan
from cardium.errors import CardiumError
from cardium.stages import ingest, split, validate
from cardium.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[1]
REAL = PROJECT.parent / "shared" / "real" / "imagechd" / TABLE


def table(path: Path, rows: dict, sheet: str = chd.SHEET, columns=("index", *DEFECTS), blank: int = 5) -> Path:
    """A table as published: patient -> its defects, or -> {defect: the cell's value}."""
    book = openpyxl.Workbook()
    page = book.active
    page.title = sheet
    page.append([*columns, *[None] * blank])
    for patient, defects in rows.items():
        flags = defects if isinstance(defects, dict) else dict.fromkeys(defects, 1)
        page.append([patient, *[flags.get(name) for name in columns[1:]]])
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def volume(seed: int, shape: tuple[int, ...] = (34, 36, 8), affine: np.ndarray | None = None, dtype=np.int16) -> bytes:
    voxels = np.random.default_rng(seed).integers(-1000, 1200, shape).astype(dtype)
    return gzip.compress(nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 2.0, 1.0]) if affine is None else affine).to_bytes(), 1)


def lay(folder: Path, patients: dict, **files: bytes) -> Path:
    """A collection: its table, and a volume for each of its patients."""
    table(folder / TABLE, patients)
    for patient in patients:
        (folder / f"ct_{patient}_image.nii.gz").write_bytes(volume(int(patient)))
    return folder


def settings_in(root: Path, **overrides) -> Settings:
    raw = yaml.safe_load((PROJECT / "params.yaml").read_text())
    if "chd" not in raw["datasets"]:
        raw["datasets"].append("chd")
    return resolve(raw, root, overrides)


def found(folder: Path) -> dict[str, tuple[str, str]]:
    return {entry.path: (entry.label, entry.patient) for entry in scan(folder) if isinstance(entry, Found)}


def rejected(folder: Path) -> dict[str, tuple[str, str]]:
    return {entry.path: (entry.label, entry.reason) for entry in scan(folder) if isinstance(entry, Rejected)}


@given(st.sets(st.sampled_from(DEFECTS)))
def test_the_rule(defects):
    label = rule(defects)
    if {"ToF", "TGA", "PA"} & defects:
        assert label == "Cyanotic"
    elif defects - {"ASD", "VSD", "PDA"}:
        assert label == ""
    else:
        assert label == ("Non-Cyanotic" if defects else "Normal")


def test_published_patients_are_the_systems():
    assert Counter(PUBLISHED.values()) == {"Cyanotic": 18, "Non-Cyanotic": 20, "Normal": 19}
    collection = get_collection("chd")
    assert collection.classes == ("Cyanotic", "Non-Cyanotic", "Normal")
    assert collection.kind == "volume"


def test_on_the_real_table_the_rule_gives_the_published_lists_but_for_1047():
    if not REAL.is_file():
        pytest.skip(f"no {REAL}: the real table is not here")
    defects = read_table(REAL)
    assert len(defects) == 110
    labels = {patient: rule(of) for patient, of in defects.items()}
    assert {patient for patient, label in PUBLISHED.items() if labels[patient] != label} == {"1047"}
    assert labels["1047"] == "Normal"
    assert Counter(labels.values()) == {**get_collection("chd").published_counts, "": 33}
    assert sum(not of for of in defects.values()) == 21
    assert sum(len(of) > 1 for of in defects.values()) == 38
    assert not any("AVSD" in of for of in defects.values())


def test_records_of_a_wrapped_archive_with_everything_that_lies_in_it(tmp_path):
    top = tmp_path / "ImageCHD_dataset"
    patients = {1001: ["ASD", "VSD"], 1002: ["ToF", "ASD"], 1003: [], 1004: ["DORV", "ASD"], 1005: {"VSD": 0}, 1009: []}
    table(top / "info" / TABLE.upper(), patients)
    for name in ("ct_1001_image.nii.gz", "CT_1002_image.NII", "ct_01003_image.nii.gz", "ct_1004_image.nii.gz"):
        (top / name).write_bytes(b"x")
    for name in (
        "ct_1001_label.nii.gz",
        "ct_1005_image.nii.gz",
        "ct_7777_image.nii.gz",
        "readme.txt",
        ".DS_Store",
        "heart.nii",
    ):
        (top / name).write_bytes(b"x")
    assert found(tmp_path) == {
        "ImageCHD_dataset/ct_1001_image.nii.gz": ("Non-Cyanotic", "1001"),
        "ImageCHD_dataset/CT_1002_image.NII": ("Cyanotic", "1002"),
        "ImageCHD_dataset/ct_01003_image.nii.gz": ("Normal", "1003"),
        "ImageCHD_dataset/ct_1005_image.nii.gz": ("Normal", "1005"),
    }
    assert {path.rpartition("/")[2]: said for path, said in rejected(tmp_path).items()} == {
        "ct_1001_label.nii.gz": ("", "a label map, not a volume"),
        "ct_1004_image.nii.gz": ("", "excluded by the label rule: ASD, DORV"),
        "ct_7777_image.nii.gz": ("", "no row in the label table"),
        "ct_1009_image.nii.gz": ("", "no such file, though the label table has its row"),
        "readme.txt": ("", "not called ct_<id>_image.nii.gz"),
        "heart.nii": ("", "not called ct_<id>_image.nii.gz"),
        ".DS_Store": ("", "hidden file"),
    }
    assert "ImageCHD_dataset/ct_1009_image.nii.gz" in rejected(tmp_path)


def test_a_volume_that_leads_out_of_the_folder_is_a_loss_of_its_class(tmp_path):
    lay(tmp_path / "data", {1001: ["ToF"], 1002: []})
    (tmp_path / "data/ct_1001_image.nii.gz").rename(tmp_path / "elsewhere.nii.gz")
    (tmp_path / "data/ct_1001_image.nii.gz").symlink_to(tmp_path / "elsewhere.nii.gz")
    assert rejected(tmp_path / "data")["ct_1001_image.nii.gz"] == ("Cyanotic", "link out of the data folder")


def test_where_the_table_may_lie(tmp_path):
    lay(tmp_path / "a" / "b", {1001: ["ToF"]})
    expected = {"a/b/ct_1001_image.nii.gz": ("Cyanotic", "1001")}
    assert found(tmp_path) == expected
    for place in (".", "a", "a/b/c"):
        (tmp_path / place).mkdir(exist_ok=True)
        shutil.move(next(tmp_path.rglob(TABLE)), tmp_path / place / TABLE)
        assert found(tmp_path) == expected, place
    # A copy of the same bytes is no doubt, another name is one only where there are two.
    shutil.copy(tmp_path / "a/b/c" / TABLE, tmp_path / TABLE)
    assert found(tmp_path) == expected
    (tmp_path / TABLE).unlink()
    (tmp_path / "a/b/c" / TABLE).rename(tmp_path / "labels.xlsx")
    (tmp_path / "~$labels.xlsx").write_bytes(b"lock")
    assert found(tmp_path) == expected
    table(tmp_path / "other.xlsx", {1001: []})
    with pytest.raises(CardiumError, match=r"no imageCHD_dataset_info\.xlsx lies with the volumes"):
        list(scan(tmp_path))
    (tmp_path / "labels.xlsx").rename(tmp_path / TABLE)
    table(tmp_path / "a" / TABLE, {1001: []})
    with pytest.raises(CardiumError, match="are different tables of labels"):
        list(scan(tmp_path))


def test_an_archive_that_was_not_unpacked(tmp_path):
    (tmp_path / "ImageCHD_dataset.rar").write_bytes(b"Rar!")
    table(tmp_path / TABLE, {1001: []})
    with pytest.raises(CardiumError, match=r"ImageCHD_dataset\.rar is not unpacked.*unar.*cardium download chd"):
        list(scan(tmp_path))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({1001: {"ASD": 2}}, r"row 2, ASD: a flag is 1, 0 or blank, not `2`"),
        ({1001: [], 1002: {"PA": "yes"}}, r"row 3, PA: a flag is 1, 0 or blank, not `yes`"),
        ({1001: {"ASD": 0.5}}, "not `0.5`"),
        ({1001: [], "1001": ["ASD"]}, "row 3: patient 1001 has a row already"),
        ({"anna": []}, "row 2: `anna` is no patient's number"),
        ({None: ["ASD"]}, "row 2: `None` is no patient's number"),
        ({-3: []}, "`-3` is no patient's number"),
        ({}, "has no patients"),
    ],
)
def test_a_table_that_leaves_doubt_is_refused_in_one_line(tmp_path, rows, message):
    with pytest.raises(CardiumError, match=message) as error:
        read_table(table(tmp_path / TABLE, rows))
    assert "\n" not in str(error.value)


def test_other_sheets_and_columns_are_refused(tmp_path):
    with pytest.raises(CardiumError, match="no sheet `classification dataset`, but `Sheet1`"):
        read_table(table(tmp_path / "a.xlsx", {1001: []}, sheet="Sheet1"))
    with pytest.raises(CardiumError, match="lacks the columns ToF, PAS"):
        read_table(table(tmp_path / "b.xlsx", {1: []}, columns=("index", *(n for n in DEFECTS if n not in ("ToF", "PAS")))))
    with pytest.raises(CardiumError, match="has a column `HLHS` that the label rule does not know"):
        read_table(table(tmp_path / "c.xlsx", {1: []}, columns=("index", *DEFECTS, "HLHS")))
    with pytest.raises(CardiumError, match="has two columns `ASD`"):
        read_table(table(tmp_path / "d.xlsx", {1: []}, columns=("index", *DEFECTS, "asd")))
    book = openpyxl.load_workbook(table(tmp_path / "e.xlsx", {1: []}))
    book[chd.SHEET].cell(2, len(DEFECTS) + 3).value = 1
    book.save(tmp_path / "e.xlsx")
    with pytest.raises(CardiumError, match="row 2: 1 stands in a column without a name"):
        read_table(tmp_path / "e.xlsx")
    (tmp_path / "f.xlsx").write_bytes(b"no spreadsheet")
    with pytest.raises(CardiumError, match=r"f\.xlsx cannot be read as a table"):
        read_table(tmp_path / "f.xlsx")
    whole = (tmp_path / "a.xlsx").read_bytes()
    (tmp_path / "g.xlsx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CardiumError, match=r"g\.xlsx cannot be read as a table"):
        read_table(tmp_path / "g.xlsx")


def test_a_spreadsheet_that_inflates_to_anything_is_not_opened(tmp_path, monkeypatch):
    table(tmp_path / TABLE, {1001: []})
    monkeypatch.setattr(chd, "_MAX_INFLATED", 1000)
    with pytest.raises(CardiumError, match="inflates to more than"):
        read_table(tmp_path / TABLE)


def test_ways_to_write_the_same_flags(tmp_path):
    rows = {1001: {"ASD": 1.0, "VSD": "1", "PA": "0", "PDA": " ", "CA": 0.0}, "1002": {"TGA": True}, 1003.0: {}, None: {}}
    columns = ("Index", *[name.upper() for name in DEFECTS])
    path = table(tmp_path / "t.xlsx", {key: {n.upper(): v for n, v in of.items()} for key, of in rows.items()}, columns=columns)
    assert read_table(path) == {"1001": {"ASD", "VSD"}, "1002": {"TGA"}, "1003": set()}


@given(st.dictionaries(st.integers(1, 10**9 - 1), st.sets(st.sampled_from(DEFECTS)), min_size=1, max_size=6))
def test_whatever_is_written_is_read(tmp_path_factory, rows):
    path = table(tmp_path_factory.mktemp("table") / TABLE, rows)
    assert read_table(path) == {str(patient): defects for patient, defects in rows.items()}


@pytest.fixture
def root(tmp_path):
    """Fifteen patients: five a class, of which four are published ones, and one who is published as something else."""
    listed = {label: [p for p in PUBLISHED if PUBLISHED[p] == label and p != "1047"][:4] for label in chd.CLASSES}
    defects = {"Cyanotic": ["ToF", "DORV"], "Non-Cyanotic": ["VSD"], "Normal": []}
    patients = {int(p): defects[label] for label, of in listed.items() for p in of}
    patients |= {2001: ["PA"], 2002: ["ASD"], 2003: [], 1047: {"VSD": 0}}
    lay(tmp_path / "data/chd", dict(sorted(patients.items())))
    return tmp_path


def results(root: Path) -> tuple[pd.DataFrame, dict, dict[str, str]]:
    folder = Workspace(root).manifest("chd")
    with (folder / "rejected.csv").open(newline="", encoding="utf-8") as handle:
        reasons = {line["path"]: line["reason"] for line in csv.DictReader(handle)}
    return manifests.read_manifest(folder), manifests.read_fingerprint(folder), reasons


def test_through_ingest_split_and_validate(root, capsys):
    settings = settings_in(root, **{"split.folds": 3, "evaluate.test_folds": "0"})
    ingest.run(settings, "chd")
    said = capsys.readouterr().out
    assert "Normal: 6 volumes, 6 of them distinct, in 6 groups" in said
    assert "13 of the 57 patients of the published experiments" in said
    assert "patient 1047 is Normal by the table, but was published as Non-Cyanotic" in said
    assert "image" not in said
    records, fingerprint, _ = results(root)
    assert {name: str(dtype) for name, dtype in records.dtypes.items()} == manifests.SCHEMA
    assert records["group"].tolist() == records["patient"].tolist()
    row = records[records["patient"] == "2001"].iloc[0]
    assert (row["width"], row["height"], row["depth"], row["mode"], row["format"]) == (34, 36, 8, "int16", "NIfTI")
    voxels = np.asarray(nib.load(root / "data/chd/ct_2001_image.nii.gz").dataobj, dtype=np.float64)
    assert row["mean"] == pytest.approx(voxels.mean(), rel=1e-9)
    assert row["std"] == pytest.approx(voxels.std(), rel=1e-9)
    assert fingerprint["kind"] == "volume"
    assert fingerprint["published_patients"] == 13
    assert fingerprint["contradictions"] == [{"patient": "1047", "label": "Normal", "published": "Non-Cyanotic"}]
    assert fingerprint["sizes"] == {"34x36x8": 16}

    split.run(settings, "chd")
    said = capsys.readouterr().out
    assert "the published split holds out 3 of 13 records" in said
    assert "3 records are not the original's" in said
    folder = Workspace(root).split("chd")
    assert len(read_folds(folder)) == 16
    part = dict(zip(records["patient"], read_published(folder)["part"], strict=True))
    assert {patient for patient, its in part.items() if its == "none"} == {"2001", "2002", "2003"}
    parts = read_parts(folder, records, "published", 0)
    assert parts.validation.tolist() == parts.test.tolist()
    assert set(records["label"][parts.test]) == set(chd.CLASSES)
    assert not set(parts.train) & set(parts.test)
    assert len(parts.train) + len(parts.test) == 13
    honest = np.concatenate([read_parts(folder, records, "honest", fold).test for fold in range(3)])
    assert sorted(honest) == list(range(16))

    validate.run(settings, "chd")
    report = json.loads((Workspace(root).validation("chd") / "validation.json").read_text())
    failed = {check["name"]: check["rows"] for check in report["checks"] if not check["passed"]}
    assert report["verdict"] == "passed", failed
    assert failed == {}
    page = (Workspace(root).validation("chd") / "validation.html").read_text()
    assert "volumes by class" in page
    assert "image" not in page.partition("<body")[2].lower()


def test_the_published_split_is_scikit_learns():
    patients = [*sorted(PUBLISHED), "1047"][:-1]
    labels = [PUBLISHED[patient] for patient in patients]
    order = np.random.default_rng(3).permutation(len(patients))
    paths = [f"a/b/ct_{patients[i]}_image.nii.gz" for i in order]
    parts = PUBLISHED_SPLITS["listed_patients"](paths, [labels[i] for i in order], 1)
    train, held_out = train_test_split(patients, test_size=0.2, stratify=labels, random_state=42)
    assert {patient_of(path) for path, part in zip(paths, parts, strict=True) if part == "validation"} == set(held_out)
    assert {patient_of(path) for path, part in zip(paths, parts, strict=True) if part == "train"} == set(train)
    assert Counter(parts) == {"train": 45, "validation": 12}


def test_files_of_one_patient_stay_together_and_too_few_are_all_trained_on():
    paths = [f"{folder}/ct_{patient}_image.nii" + end for patient in PUBLISHED for folder, end in (("a", ""), ("b", ".gz"))]
    parts = PUBLISHED_SPLITS["listed_patients"](paths, [PUBLISHED[patient_of(path)] for path in paths], 1)
    assert parts[::2] == parts[1::2]
    assert Counter(parts) == {"train": 90, "validation": 24}
    few = [f"ct_{patient}_image.nii" for patient in ("1001", "1002", "1010")]
    assert PUBLISHED_SPLITS["listed_patients"](few, ["Non-Cyanotic", "Non-Cyanotic", "Cyanotic"], 1) == ["train"] * 3
    assert PUBLISHED_SPLITS["listed_patients"]([], [], 1) == []


def test_without_a_published_patient_the_honest_split_is_made_all_the_same(tmp_path):
    patients = {2000 + n: ([["ToF"], ["ASD"], []][n % 3]) for n in range(9)}
    lay(tmp_path / "data/chd", patients)
    settings = settings_in(tmp_path, **{"split.folds": 3, "evaluate.test_folds": "0"})
    ingest.run(settings, "chd")
    split.run(settings, "chd")
    validate.run(settings, "chd")
    records, fingerprint, _ = results(tmp_path)
    assert fingerprint["listed"] == []
    folder = Workspace(tmp_path).split("chd")
    assert set(read_published(folder)["part"]) == {"none"}
    assert len(read_parts(folder, records, "honest", 0).train) == 3
    with pytest.raises(CardiumError, match=r"chd \(published\): 0 records to train on"):
        read_parts(folder, records, "published", 0)


def test_copies_join_patients_and_one_volume_under_two_classes_takes_part_in_nothing(root):
    folder = root / "data/chd"
    shutil.copy(folder / "ct_2001_image.nii.gz", folder / "ct_1010_image.nii.gz")  # Both Cyanotic.
    shutil.copy(folder / "ct_2002_image.nii.gz", folder / "ct_2003_image.nii.gz")  # Non-Cyanotic and Normal.
    settings = settings_in(root, **{"split.folds": 3, "evaluate.test_folds": "0"})
    ingest.run(settings, "chd")
    split.run(settings, "chd")
    validate.run(settings, "chd")
    records, fingerprint, _ = results(root)
    group = dict(zip(records["patient"], records["group"], strict=True))
    assert group["1010"] == group["2001"]
    assert fingerprint["copies"] == 2
    assert set(records.loc[records["conflict"], "patient"]) == {"2002", "2003"}
    assert len(fingerprint["conflicts"]) == 1
    published = read_published(Workspace(root).split("chd"))
    assert not set(records.loc[records["conflict"], "record"]) & set(published["record"])


def test_nothing_that_lies_there_stops_the_run(root):
    """Each unreadable volume is listed with its reason; the others become records."""
    folder = root / "data/chd"
    names = {path.name.split("_")[1]: path for path in folder.glob("ct_*")}
    names["1010"].write_bytes(names["1010"].read_bytes()[:-500])
    names["1012"].write_bytes(b"")
    names["1015"].write_bytes(volume(1, (34, 36)))
    names["1001"].write_bytes(volume(2, (34, 36, 8, 3)))
    nan = np.full((34, 36, 8), np.nan, np.float32)
    names["1002"].write_bytes(nib.Nifti1Image(nan, np.eye(4)).to_bytes())
    names["1003"].write_bytes(nib.Nifti1Image(np.zeros((34, 36, 8), np.int16), np.eye(4)).to_bytes())
    names["1005"].write_bytes(volume(3, affine=np.diag([1e-3, 1e-3, 1e-3, 1.0])))
    names["1007"].unlink()
    (folder / "ct_9999_image.nii.gz").write_bytes(volume(4))
    (folder / "ct_1001_label.nii.gz").write_bytes(b"x")
    ingest.run(settings_in(root, **{"ingest.max_bad": 1.0}), "chd")
    records, fingerprint, reasons = results(root)
    assert len(records) == 16 - 8
    kinds = {path.split("_")[1] + path.split("_")[2][0]: manifests.kind(reason) for path, reason in reasons.items()}
    assert kinds == {
        "1010i": "truncated gzip file",
        "1012i": "empty file",
        "1015i": "2-D, not a volume",
        "1001i": "4-D, not one volume",
        "1002i": "NaN or infinite values",
        "1003i": "constant",
        "1005i": "absurd voxel size",
        "1007i": "no such file, though the label table has its row",
        "9999i": "no row in the label table",
        "1001l": "a label map, not a volume",
    }
    assert fingerprint["rejected"]["by_class"] == {"Cyanotic": 3, "Non-Cyanotic": 2, "Normal": 2}
    with pytest.raises(CardiumError, match=r"3 of 5 files of class Cyanotic cannot be used"):
        ingest.run(settings_in(root), "chd")


def test_limits_are_those_of_volumes(root):
    settings = settings_in(root, **{"ingest.max_voxels": 34 * 36 * 8, "ingest.max_pixels": 1, "ingest.max_bytes": 1})
    ingest.run(settings, "chd")
    assert len(results(root)[0]) == 16
    with pytest.raises(CardiumError, match="too many voxels"):
        ingest.run(settings_in(root, **{"ingest.max_voxels": 34 * 36 * 8 - 1}), "chd")
    with pytest.raises(CardiumError, match="too many bytes"):
        ingest.run(settings_in(root, **{"ingest.max_volume_bytes": 1000}), "chd")


def test_both_cores_give_what_one_gives(root, monkeypatch):
    settings = settings_in(root)
    ingest.run(settings, "chd")
    alone = (Workspace(root).manifest("chd") / "manifest.parquet").read_bytes()
    monkeypatch.setattr(measured, "_FEW_BYTES", 1)
    asked = []
    in_chunks = measured.in_chunks
    monkeypatch.setattr(measured, "in_chunks", lambda *a, few: asked.append((a[2], few)) or in_chunks(*a, workers=2, few=few))
    ingest.run(settings, "chd")
    assert asked == [(1, 2)]
    assert (Workspace(root).manifest("chd") / "manifest.parquet").read_bytes() == alone


def test_no_volumes_at_all(tmp_path):
    table(tmp_path / "data/chd" / TABLE, {1001: []})
    with pytest.raises(CardiumError, match="data/chd holds no volume of Cyanotic, Non-Cyanotic, Normal") as error:
        ingest.run(settings_in(tmp_path), "chd")
    assert "ct_1001_image.nii.gz: no such file" in str(error.value)
    assert "image in" not in str(error.value)


def test_values_in_other_units_are_no_blank_volumes_and_odd_sides_stop(root):
    """Values from 0 to 1 vary by less than grey levels may; a side below validate.min_side is another kind of volume."""
    folder = root / "data/chd"
    small = np.random.default_rng(5).random((34, 36, 8)).astype(np.float32)
    (folder / "ct_2001_image.nii.gz").write_bytes(nib.Nifti1Image(small, np.eye(4)).to_bytes())
    settings = settings_in(root, **{"split.folds": 3, "evaluate.test_folds": "0"})
    ingest.run(settings, "chd")
    split.run(settings, "chd")
    validate.run(settings, "chd")
    (folder / "ct_2002_image.nii.gz").write_bytes(volume(7, (36, 20, 8)))
    ingest.run(settings, "chd")
    split.run(settings, "chd")
    with pytest.raises(CardiumError, match=r"`dimensions` .*1 file \(ct_2002_image\.nii\.gz: 36 × 20 × 8 voxels\)"):
        validate.run(settings, "chd")
