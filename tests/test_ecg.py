"""The ECG sheets' folders: both versions as published, Kaggle's copy, what users make of them; and the real sheets."""

import dataclasses
import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifests import manifest, project
from PIL import Image

from cardium.config import Settings
from cardium.data.manifest import build, conflicts, read_fingerprint, read_manifest
from cardium.data.splits import read_parts
from cardium.datasets import Facts, Found, Rejected, get_collection
from cardium.datasets.ecg import class_named
from cardium.datasets.measured import Measured
from cardium.errors import CardiumError
from cardium.stages import ingest, split, validate
from cardium.workspace import Workspace

REAL = Path(__file__).resolve().parents[2] / "shared" / "real"

V2 = {
    "MI": "ECG Images of Myocardial Infarction Patients (240x12=2880)/MI({}).jpg",
    "History": "ECG Images of Patient that have History of MI (172x12=2064)/PMI({}).jpg",
    "Abnormal": "ECG Images of Patient that have abnormal heartbeat (233x12=2796)/HB({}).jpg",
    "Normal": "Normal Person ECG Images (284x12=3408)/Normal({}).jpg",
}
V1 = {
    "MI": "ECG Images of Myocardial Infarction Patients (77)/MI ({}).jpg",
    "History": "ECG Images of Patient that have History of MI (203)/PMI  ({}).jpg",
    "Abnormal": "ECG Images of Patient that have abnormal heart beats (548)/HB   ({}).jpg",
    "Normal": "Normal Person ECG Images (859)/Normal ({}).jpg",
    "Covid": "ECG Images of COVID-19 Patients (250)/type_2/Binder1_Page_{}.jpg",
}


def lay(folder: Path, *paths: str) -> Path:
    for path in paths:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return folder


def scanned(folder: Path, dataset: str = "ecg4") -> dict[str, str]:
    """path -> its label, or the reason for which it is no record."""
    entries = list(get_collection(dataset).scan(folder))
    assert all(not entry.label for entry in entries if isinstance(entry, Rejected) and "class" in entry.reason), "no loss"
    return {entry.path: entry.label if isinstance(entry, Found) else entry.reason for entry in entries}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *((path.split("/")[0], label) for table in (V1, V2) for label, path in table.items()),
        ("MI", "MI"),
        ("HB", "Abnormal"),
        ("PMI", "History"),
        ("Abnormal_Heartbeat", "Abnormal"),
        ("abnormalheartbeats", "Abnormal"),
        ("HistoryOfMI", "History"),
        ("history-of-myocardial-infarction [12]", "History"),
        ("Previous MI", "History"),
        ("MyocardialInfarction", "MI"),
        ("NORMAL", "Normal"),
        ("covid19", "Covid"),
        ("Covid patients with MI", "Covid"),
        ("type_1", ""),
        ("train", ""),
        ("ECG_DATA", ""),
        ("ECG Images dataset of Cardiac and COVID-19 Patients", ""),
        ("Hisory of patients", ""),
        ("not normal", ""),
        *(
            (name, "")
            for name in ("noncovid", "NonCovid", "anormal", "Post MI", "PostMI", "Old MI", "Hx MI", "No MI", "prior MI")
        ),
        *(
            (name, "")
            for name in (
                "MI?",
                "r/o MI",
                "s/p MI",
                "MI (ruled out)",
                "MI [suspected]",
                "Family history of MI",
                "normal variant",
                "borderline normal",
                "pseudonormal",
                "normalized",
                "STEMI",
                "likely MI",
                "MI-like",
                "MI and Normal",
                "Normal or abnormal",
                "Abnormal (normal)",
                "verdächtig MI",
                "MI follow-up",
                "paranormal",
                "unMI",
            )
        ),
        ("Acute MI [77]", "MI"),
        ("v2 MI", "MI"),
        ("MI_train", "MI"),
        ("Arrhythmias (3 x 12 = 36)", "Abnormal"),
        ("myocardialinfarction", "MI"),
        ("Mild", ""),
        ("(MI)", ""),
        ("", ""),
    ],
)
def test_the_class_is_in_the_words(name, label):
    assert class_named(name) == label


@given(st.text(max_size=40))
def test_any_name_has_one_class_or_none(name):
    assert class_named(name) in ("", "MI", "History", "Abnormal", "Normal", "Covid")
    # What stands in brackets is a count, and never true.
    assert class_named(f"{name} (12x3=36)") == class_named(f"{name} ")


@pytest.mark.parametrize("above", ["", "v2/", "ECG Images dataset of Cardiac and COVID-19 Patients/", "DL-MI-ECG/a (1)/"])
@pytest.mark.parametrize("table", [V1, V2])
def test_both_versions_below_any_wrapper(tmp_path, above, table):
    expected = {above + path.format(n): label for label, path in table.items() for n in (1, 2, 10)}
    lay(tmp_path, *expected)
    assert scanned(tmp_path, "ecg5") == expected
    covid = "of a class that this dataset has not: Covid; ecg4 has MI, History, Abnormal, Normal"
    assert scanned(tmp_path, "ecg4") == {path: covid if label == "Covid" else label for path, label in expected.items()}


def test_both_versions_together_and_kaggles_copy(tmp_path):
    merged = {
        f"{v}/{path.format(n)}": label for v, table in (("v1", V1), ("v2", V2)) for label, path in table.items() for n in (1, 2)
    }
    assert scanned(lay(tmp_path / "merged", *merged), "ecg5") == merged
    kaggle = {f"ECG_DATA/{part}/{path.format(3)}": label for part in ("train", "test") for label, path in V2.items()}
    assert scanned(lay(tmp_path / "kaggle", *kaggle)) == kaggle


def test_what_is_known_of_a_sheet(tmp_path):
    lay(tmp_path, V1["Covid"].format("036"), V1["MI"].format(7), V1["Normal"].format("x"))
    entries = {entry.path.rpartition("/")[2]: entry for entry in get_collection("ecg5").scan(tmp_path)}
    assert {name: (e.label, e.patient, e.series, e.frame) for name, e in entries.items()} == {
        "Binder1_Page_036.jpg": ("Covid", "", "type_2", 36),
        "MI (7).jpg": ("MI", "", "", 7),
        "Normal (x).jpg": ("Normal", "", "", -1),
    }


def test_a_stable_natural_order(tmp_path):
    lay(tmp_path, *(V2["MI"].format(n) for n in (10, 2, 1)))
    assert [path.rpartition("/")[2] for path in scanned(tmp_path)] == ["MI(1).jpg", "MI(2).jpg", "MI(10).jpg"]


def test_what_is_no_sheet(tmp_path):
    lay(tmp_path, V2["MI"].format(1), V2["Normal"].format(1), "README.txt", "sheet.jpg", "MI/Normal/a.jpg", "MI/.DS_Store")
    lay(tmp_path, "__MACOSX/Abnormal/a.jpg", "notes/list.csv", "History of MI/Thumbs.db")
    result = scanned(tmp_path)
    outside = "outside of a class folder: none of MI, History, Abnormal, Normal is above it"
    assert {path: reason for path, reason in result.items() if reason not in ("MI", "Normal")} == {
        "README.txt": outside,
        "sheet.jpg": outside,
        "notes/list.csv": outside,
        "MI/Normal/a.jpg": "inside folders of two classes",
        "MI/.DS_Store": "hidden file",
        "__MACOSX/Abnormal/a.jpg": "system file",
        "History of MI/Thumbs.db": "system file",
    }


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        # One class of four misspelt, at any depth, with and without folders of its own.
        (
            [V2["MI"].format(1), "Hisory patients (172)/PMI(1).jpg", "Hisory patients (172)/PMI(2).jpg"],
            "`Hisory patients (172)` (2)",
        ),
        (["v1/MI/1.jpg", "v1/Cvid/type_1/a.JPG"], "`v1/Cvid` (1)"),
        (["train/MI/1.jpg", "test/Norml/1.png"], "`test/Norml` (1)"),
        (["v1/MI/1.jpg", "Norml/1.jpg"], "`Norml` (1)"),
        # None is understood.
        (["a/x.jpg", "b/x.jpg", "b/y.jpg"], "`a` (1), `b` (2)"),
        (["w/a/x.jpg"], "`w/a` (1)"),
    ],
)
def test_a_folder_that_says_no_class_stops_the_scan(tmp_path, paths, named):
    lay(tmp_path, *paths)
    with pytest.raises(CardiumError, match="no class is read") as caught:
        scanned(tmp_path)
    said = str(caught.value)
    assert f"folders (images) {named};" in said
    assert "MI (myocardial infarction), History (history of MI), Abnormal (abnormal heartbeat), Normal (normal person)" in said
    assert "\n" not in said


def test_pictures_deeper_than_the_classes_are_only_left_out(tmp_path):
    lay(tmp_path, "v1/MI/1.jpg", "v1/MI/second/2.jpg", "v1/MI/second/third/3.jpg", "v1/notes/list.csv")
    assert Counter(scanned(tmp_path).values())["MI"] == 3
    lay(tmp_path, "MI of v2/1.jpg", "paper/a/b/figures/1.jpg")
    with pytest.raises(CardiumError, match=r"`paper` \(1\);"):
        scanned(tmp_path)


def test_links_and_pipes_are_of_their_class(tmp_path):
    folder = lay(tmp_path / "data", "MI/1.jpg") / "MI"
    (folder / "2.jpg").symlink_to(lay(tmp_path, "secret.jpg") / "secret.jpg")
    lost = [entry for entry in get_collection("ecg4").scan(tmp_path / "data") if isinstance(entry, Rejected)]
    assert lost == [Rejected("MI/2.jpg", "MI", "link out of the data folder")]


# ------------------------------------------------------------------------------------------------ through the stages


def settings_of(root: Path) -> Settings:
    return dataclasses.replace(project(root, manifest([("Normal/a.jpg", "Normal", "", "x")]), folds=3), root=root)


def sheet(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(path, "PNG")


def test_copies_and_conflicts_through_ingest_and_split(tmp_path, capsys):
    data = tmp_path / "data/ecg5"
    for c, label in enumerate(("MI", "History", "Abnormal", "Normal", "Covid")):
        for n in range(10):
            sheet(data / "v1" / V1[label].format(n), 100 * c + n)
    for label in ("MI", "Normal"):
        for n in range(10):
            (data / "v2" / V2[label].format(n)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data / "v1" / V1[label].format(n), data / "v2" / V2[label].format(n))
    # One sheet of a class stands under another, too.
    shutil.copy(data / "v1" / V1["MI"].format(4), data / "v1" / V1["History"].format(44))
    settings = settings_of(tmp_path)
    ingest.run(settings, "ecg5")
    said = capsys.readouterr().out
    assert "conflict: one image under two classes, left out of training, validation and test: MI: v1/" in said
    assert f"MI ({4}).jpg and 1 more; History: v1/" in said
    assert "only identical images are one group" in said

    records = read_manifest(Workspace(tmp_path).manifest("ecg5"))
    facts = read_fingerprint(Workspace(tmp_path).manifest("ecg5"))
    assert len(records) == 71
    assert set(records["patient"]) == {""}
    assert records["group"].nunique() == 50
    assert sorted(records.loc[records["conflict"], "path"]) == sorted(
        ["v1/" + V1["MI"].format(4), "v2/" + V2["MI"].format(4), "v1/" + V1["History"].format(44)]
    )
    [conflict] = facts["conflicts"]
    assert {record["label"] for record in conflict["records"]} == {"MI", "History"}
    assert conflict["sha256"] == hashlib.sha256((data / "v1" / V1["MI"].format(4)).read_bytes()).hexdigest()

    split.run(settings, "ecg5")
    folder = Workspace(tmp_path).split("ecg5")
    left_out = set(records.loc[records["conflict"], "record"])
    for fold in range(3):
        parts = read_parts(folder, records, "honest", fold)
        taken = np.concatenate([parts.train, parts.validation, parts.test])
        assert len(taken) == len(set(taken)) == 49
        assert not left_out & set(taken)
    parts = read_parts(folder, records, "published", 0)
    taken = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(taken) == sorted(set(records["record"]) - left_out)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (54, 7, 7)

    validate.run(settings, "ecg5")
    said = capsys.readouterr().out
    assert "warning: 3 files against `No file stands under two classes`" in said
    assert "critical" not in said


def test_real_sheets(tmp_path):
    """The second version is mostly copies of 491 sheets; one that is an infarction there is the first's history of one."""
    if not (REAL / "lay_out.py").is_file():
        pytest.skip(f"no {REAL}: the shared real images are not here")
    for version in ("v1", "v2"):
        command = [sys.executable, REAL / "lay_out.py", f"ecg-{version}", tmp_path / version]
        subprocess.run(command, check=True, capture_output=True)
    v2 = built(tmp_path / "v2", "ecg4")
    first = v2[v2["copy_of"] == -1]
    assert v2["label"].value_counts().to_dict() == dict(get_collection("ecg4").published_counts)
    assert first["label"].value_counts().to_dict() == {"MI": 30, "History": 86, "Abnormal": 233, "Normal": 142}
    assert (v2["group"].nunique(), v2["conflict"].sum()) == (491, 0)
    merged = built(tmp_path, "ecg5")
    assert len(merged) == 928 + 1245
    [conflict] = conflicts(merged)
    assert Counter(record["label"] for record in conflict["records"]) == {"History": 1, "MI": 8}
    assert {"PMI  (15).jpg", "MI(1).jpg"} <= {record["path"].rpartition("/")[2] for record in conflict["records"]}


def built(folder: Path, dataset: str) -> pd.DataFrame:
    facts = Facts(1106, 786, "RGB", "JPEG", 200.0, 40.0)
    records = []
    for entry in get_collection(dataset).scan(folder):
        assert isinstance(entry, Found), entry
        data = (folder / entry.path).read_bytes()
        records.append(Measured(entry, hashlib.sha256(data).hexdigest(), len(data), facts))
    return build(records)
