"""Validation: one fault put into a sound project at a time must fail its own check, with the faulty rows named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from manifests import CLASSES, manifest, project

from cardium.config import Settings
from cardium.errors import CardiumError
from cardium.stages import split, validate

FOLDS = 4


def rows(patients: int = 6, images: int = 5) -> list[tuple[str, str, str, str]]:
    return [
        (f"{label}/Directory_{n}/SR_1/IM{i:05d}.jpg", label, f"{label}/Directory_{n}", f"{label} {n} {i}")
        for label in CLASSES
        for n in range(1, patients + 1)
        for i in range(images)
    ]


class Project:
    """A project folder as ingest and split leave it, which a test then damages."""

    def __init__(self, root: Path, records: pd.DataFrame) -> None:
        self.settings: Settings = project(root, records, folds=FOLDS)
        self.folder = root / "processed" / "cmri"
        split.run(self.settings, "cmri")

    def edit(self, change: Callable[[pd.DataFrame], Any]) -> None:
        """Changes the manifest behind the split's back."""
        path = self.folder / "manifest" / "manifest.parquet"
        records = pd.read_parquet(path)
        change(records)
        records.to_parquet(path, index=False)

    def validate(self) -> dict[str, Any]:
        """The report; the run may have failed."""
        try:
            validate.run(self.settings, "cmri")
        except CardiumError as error:
            self.error = str(error)
        else:
            self.error = ""
        report: dict[str, Any] = json.loads((self.folder / "validation" / "validation.json").read_text())
        return report

    def failed(self) -> dict[str, dict[str, Any]]:
        return {check["name"]: check for check in self.validate()["checks"] if not check["passed"]}


@pytest.fixture
def sound(tmp_path: Path) -> Project:
    return Project(tmp_path, manifest(rows()))


def where(check: dict[str, Any]) -> list[str]:
    return [row["where"] for row in check["rows"]]


# 30 files a class: int(0.2 n) = 6 are held out: the first patient's five and one of the second.
ALWAYS = {"published_groups"}


def test_sound_data_passes(sound, capsys):
    report = sound.validate()
    assert {check["name"] for check in report["checks"] if not check["passed"]} == ALWAYS
    assert (report["verdict"], report["failed"], sound.error) == ("warnings", {"critical": 0, "warning": 1, "info": 0}, "")
    assert (report["records"], report["groups"], report["classes"]) == (60, 12, {"Normal": 30, "Sick": 30})
    by_name = {check["name"]: check for check in report["checks"]}
    assert where(by_name["published_groups"]) == ["Normal/Directory_2", "Sick/Directory_2"]
    assert by_name["published_counts"]["severity"] == "info"
    assert by_name["published_counts"]["observed"] == "not the published collection: 60 of 63,425 images"
    # Every rotation is looked at, by group, by patient and by content.
    assert len(by_name["groups_across_splits"]["expectations"]) == 3 * FOLDS + 1
    assert all(check["expectations"] for check in report["checks"] if check["name"] != "published_counts")
    assert capsys.readouterr().out.strip().splitlines()[-1] == "wrote processed/cmri/validation"


def put(column: str, row: int, value: Any) -> Callable[[pd.DataFrame], None]:
    def change(records: pd.DataFrame) -> None:
        records.loc[row, column] = value

    return change


@pytest.mark.parametrize(
    ("name", "severity", "change", "offending"),
    [
        ("classes_known", "critical", put("label", 3, "sikc"), [3]),
        ("dimensions", "critical", put("width", 7, 31), [7]),
        ("dimensions", "critical", put("height", 8, 4097), [8]),
        ("modes", "warning", put("mode", 9, "what"), [9]),
        ("blank", "warning", put("std", 10, 1.9), [10]),
        ("copies_within_class", "warning", put("sha256", 3, "Normal 1 2"), [2, 3]),
        ("copies_across_classes", "warning", put("sha256", 12, "Sick 1 2"), [12, 32]),
        # As a faulty ingest would write it: two labels, and not marked.
        ("conflicts_left_out", "critical", put("sha256", 12, "Sick 1 2"), [12, 32]),
        # Marked after the split was made: it is still in published.csv.
        ("conflicts_left_out", "critical", put("conflict", 11, True), [11]),
        ("patients_known", "warning", put("patient", 13, ""), [13]),
        ("listed_once", "critical", put("path", 14, "Normal/Directory_1/SR_1/IM00000.jpg"), [0, 14]),
        # A group that the split does not know.
        ("one_fold", "critical", put("group", 15, "Normal/Directory_99"), [15]),
    ],
)
def test_a_fault_fails_its_check_and_names_its_rows(sound, name, severity, change, offending):
    sound.edit(change)
    failed = sound.failed()
    assert name in failed
    check = failed[name]
    paths = pd.read_parquet(sound.folder / "manifest" / "manifest.parquet")["path"]
    assert check["severity"] == severity
    assert where(check) == [paths[row] for row in offending]
    assert check["unexpected_count"] == len(offending)
    assert check["meaning"]
    assert check["remedy"]
    page = (sound.folder / "validation" / "validation.html").read_text()
    assert all(paths[row] in page for row in offending)
    if severity == "critical":
        assert name in sound.error
        assert "\n" not in sound.error
        assert "validation.html" in sound.error
    else:
        assert name not in sound.error


def test_limits_themselves_are_in_range(sound):
    def change(records: pd.DataFrame) -> None:
        records.loc[0, ["width", "height"]] = [32, 640]
        records.loc[8, ["width", "height"]] = [4096, 205]
        records.loc[1, "std"] = 2.0
        for row, mode in enumerate(["1", "LA", "I;16B", "CMYK", "DICOM-MONOCHROME2", "DICOM-YBR_FULL_422"], 2):
            records.loc[row, "mode"] = mode

    sound.edit(change)
    assert set(sound.failed()) == ALWAYS


def test_the_error_names_check_count_rows_and_page(sound):
    sound.edit(lambda records: put("sha256", 12, "Sick 1 2")(records))
    sound.validate()
    assert sound.error.startswith("cmri fails the check `conflicts_left_out` (No file of two classes takes part): 2 files (")
    assert "Normal/Directory_3/SR_1/IM00002.jpg: Normal" in sound.error
    assert "See processed/cmri/validation/validation.html." in sound.error


def honest(sound: Project) -> Path:
    return sound.folder / "split" / "honest.csv"


def test_a_group_in_two_folds_is_a_leak(sound):
    folds = pd.read_csv(honest(sound))
    other = (folds.loc[0, "fold"] + 1) % FOLDS
    with honest(sound).open("a") as file:
        file.write(f'"{folds.loc[0, "group"]}","Normal",{other}\n')
    failed = sound.failed()
    assert set(failed) == {"one_fold", "groups_across_splits", *ALWAYS}
    assert "Normal/Directory_1" in where(failed["groups_across_splits"])
    assert "one_fold" in sound.error
    assert "it also fails groups_across_splits" in sound.error


@pytest.mark.parametrize("column", ["patient", "sha256"])
def test_a_patient_or_content_torn_over_groups_is_a_leak(sound, column):
    # As a faulty ingest would write it: two records of one person, or of one content, in groups of different folds.
    folds = pd.read_csv(honest(sound)).set_index("group")["fold"]
    records = pd.read_parquet(sound.folder / "manifest" / "manifest.parquet")
    first = records.index[records["group"] == "Normal/Directory_1"][0]
    other = records.index[(records["label"] == "Normal") & (records["group"].map(folds) != folds["Normal/Directory_1"])][0]
    sound.edit(put(column, int(other), records.loc[first, column]))
    failed = sound.failed()
    assert "groups_across_splits" in failed
    assert {records.loc[first, "path"], records.loc[other, "path"]} <= set(where(failed["groups_across_splits"]))
    assert failed["groups_across_splits"]["severity"] == "critical"


def test_missing_and_foreign_rows_of_the_split(sound):
    lines = honest(sound).read_text().splitlines()
    honest(sound).write_text("\n".join([lines[0], *lines[2:], '"Nobody","Sick",0']) + "\n")
    published = sound.folder / "split" / "published.csv"
    lines = published.read_text().splitlines()
    published.write_text("\n".join([*lines[:-1], lines[1]]) + "\n")
    failed = sound.failed()
    # The dropped group's five files, record 0 twice and record 59 never in the published split, and the stranger.
    assert set(where(failed["one_fold"])) == {
        *(f"Normal/Directory_1/SR_1/IM{i:05d}.jpg" for i in range(5)),
        "Sick/Directory_6/SR_1/IM00004.jpg",
        "Nobody",
    }


def test_a_fold_without_a_class(sound):
    folds = pd.read_csv(honest(sound))
    folds.loc[folds["label"] == "Sick", "fold"] = 0
    folds.to_csv(honest(sound), index=False)
    failed = sound.failed()
    missing = {(row["where"], row["found"]) for row in failed["parts_have_classes"]["rows"]}
    assert ("test fold 1, test", "no record of Sick") in missing
    assert ("test fold 3, train", "no record of Normal") not in missing


def test_an_empty_class(sound):
    sound.edit(lambda records: records.__setitem__("label", "Normal"))
    failed = sound.failed()
    assert where(failed["classes_present"]) == ["Sick"]
    assert "balance" not in failed, "an absent class has no ratio"
    assert "`classes_present`" in sound.error


def test_imbalance(tmp_path):
    few = [row for row in rows() if row[1] == "Normal" or row[3].endswith(" 0")]
    many = [(f"Normal/Directory_1/SR_2/IM{i}.jpg", "Normal", "Normal/Directory_1", f"more {i}") for i in range(31)]
    lopsided = Project(tmp_path, manifest(few + many))
    failed = lopsided.failed()
    assert where(failed["balance"]) == ["Sick"]
    assert lopsided.error == ""


def test_copies_on_both_sides_of_the_published_split(tmp_path):
    late = ("Normal/Directory_6/SR_1/again.jpg", "Normal", "Normal/Directory_6", "Normal 1 0")
    failed = Project(tmp_path, manifest([*rows(), late])).failed()
    assert where(failed["published_copies"]) == ["Normal/Directory_1/SR_1/IM00000.jpg", late[0]]
    assert failed["published_copies"]["severity"] == "warning"
    assert "groups_across_splits" not in failed, "identical files join their patients"
    assert failed["copies_within_class"]["rows"][1]["found"] == "same bytes as Normal/Directory_1/SR_1/IM00000.jpg"


def test_where_the_publisher_names_no_patients_none_are_missed(sound):
    path = sound.folder / "manifest" / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"names_patients": False}))
    sound.edit(lambda records: records.__setitem__("patient", ""))
    check = next(check for check in sound.validate()["checks"] if check["name"] == "patients_known")
    assert (check["passed"], check["severity"], check["expectations"]) == (True, "info", [])
    assert check["observed"] == "the publisher names no patients: 12 groups of identical files"


def test_a_marked_conflict_is_a_warning(tmp_path):
    both = [(f"{label}/Directory_9/IM0.jpg", label, f"{label}/Directory_9", "both") for label in CLASSES]
    marked = Project(tmp_path, manifest([*rows(), *both]))
    failed = marked.failed()
    assert where(failed["copies_across_classes"]) == [path for path, *_ in both]
    assert failed["copies_across_classes"]["severity"] == "warning"
    assert set(failed) == {"copies_across_classes", *ALWAYS}
    assert marked.error == ""
    page = (marked.folder / "validation" / "validation.html").read_text()
    assert "files of two classes never" in page


def test_three_parts_of_a_published_split(sound):
    published = sound.folder / "split" / "published.csv"
    table = pd.read_csv(published)
    # Validation and test are one side: nobody is trained on there.
    table.loc[table["record"].isin(range(3)), "part"] = "test"
    table.to_csv(published, index=False)
    failed = sound.failed()
    assert where(failed["published_groups"]) == ["Normal/Directory_2", "Sick/Directory_2"]
    assert failed["published_parts"]["rows"] == [{"where": "published, test", "found": "no record of Sick"}]


@pytest.mark.parametrize(("normal", "passes"), [(1.019, True), (0.981, True), (1.021, False), (0.97, False)])
def test_counts_against_the_published_ones(normal, passes):
    from cardium.data.quality import _published_counts, run_checks

    counts = [round(37_564 * normal), 25_861]
    table = pd.DataFrame({"label": CLASSES, "records": counts, "published": [37_564, 25_861]})
    table["deviation"] = (table["records"] - table["published"]).abs() / table["published"]
    check = _published_counts(table, 0.02)
    [outcome] = run_checks([check], {"classes": table})
    assert check.severity == "warning"
    assert outcome.passed == passes
    assert [name for name, _ in outcome.rows] == ([] if passes else ["Normal"])


def test_rejected_files_are_a_note(sound):
    (sound.folder / "manifest" / "rejected.csv").write_text("path,label,reason\nSick/<i>x</i>.jpg,Sick,truncated: ends early\n")
    report = sound.validate()
    check = next(check for check in report["checks"] if check["name"] == "rejected")
    assert (check["passed"], check["severity"], check["unexpected_count"]) == (False, "info", 1)
    assert check["rows"] == [{"where": "Sick/<i>x</i>.jpg", "found": "truncated: ends early"}]
    assert check["observed"] == "1 of 61 files left out (1.6%)"
    assert sound.error == ""
    assert "&lt;i&gt;x" in (sound.folder / "validation" / "validation.html").read_text()


def test_long_lists_are_cut_on_the_page_and_in_the_json(tmp_path):
    records = manifest(rows(patients=6, images=200))
    records["std"] = 0.0
    report = (long := Project(tmp_path, records)).validate()
    check = next(check for check in report["checks"] if check["name"] == "blank")
    assert (check["unexpected_count"], len(check["rows"])) == (2400, 1000)
    page = (long.folder / "validation" / "validation.html").read_text()
    assert "The first 20 of 2,400" in page
    assert page.count("standard deviation 0.00") == 20


def test_the_page_stands_by_itself_and_does_not_change(sound):
    validate.run(sound.settings, "cmri")
    files = [sound.folder / "validation" / name for name in ("validation.json", "validation.html")]
    before = [file.read_bytes() for file in files]
    validate.run(sound.settings, "cmri")
    assert before == [file.read_bytes() for file in files]
    page = before[1].decode()
    assert not re.search(r"https?://|<script|<link|<img|@import|url\(", page)
    assert str(sound.settings.root) not in page
    for check in json.loads(before[0])["checks"]:
        assert f'id="{check["name"]}"' in page


def test_a_broken_expectation_is_not_a_pass():
    from cardium.data.quality import Check, gxe, run_checks

    broken = Check("x", "X", "info", "", "", [("t", gxe.ExpectColumnValuesToBeUnique(column="none"))], lambda row: ("", ""))
    with pytest.raises(RuntimeError, match="could not compute"):
        run_checks([broken], {"t": pd.DataFrame({"a": np.arange(3)})})


def test_no_split_yet(sound):
    (sound.folder / "split" / "split.json").unlink()
    with pytest.raises(CardiumError, match="no split of cmri yet: run `cardium split --dataset cmri`"):
        validate.run(sound.settings, "cmri")
