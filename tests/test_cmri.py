"""The CAD collection's folders, as published, as users change them, and as systems litter them."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardium.datasets import Found, Rejected, get_collection, list_collections
from cardium.datasets.cmri import frame_number, scan
from cardium.datasets.scan import UNKNOWN, natural
from cardium.errors import CardiumError


def lay(folder: Path, *paths: str) -> Path:
    for path in paths:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    return folder


def found(folder: Path) -> dict[str, tuple]:
    return {e.path: (e.label, e.patient, e.series, e.frame) for e in scan(folder) if isinstance(e, Found)}


def rejected(folder: Path) -> dict[str, tuple]:
    return {e.path: (e.label, e.reason) for e in scan(folder) if isinstance(e, Rejected)}


def test_registry():
    assert "cmri" in list_collections()
    collection = get_collection("cmri")
    assert collection.classes == ("Normal", "Sick")
    assert sum(collection.published_counts.values()) == 63_425
    with pytest.raises(CardiumError, match=r"Unknown dataset `cmry`\. Did you mean `cmri`\? Known: chd, cmri, ecg4"):
        get_collection("cmry")


def test_published_layout_in_natural_order(tmp_path):
    lay(tmp_path, *(f"Sick/Directory_2/SR_1/IM0000{n}.jpg" for n in (1, 2)), "Normal/Directory_10/SR_2/IM00010.jpg")
    lay(tmp_path, "Normal/Directory_2/SR_10/IM00001.jpg", "Normal/Directory_2/SR_9/IM00001.jpg")
    result = found(tmp_path)
    assert result["Normal/Directory_2/SR_9/IM00001.jpg"] == ("Normal", "Normal/Directory_2", "SR_9", 1)
    assert result["Normal/Directory_10/SR_2/IM00010.jpg"] == ("Normal", "Normal/Directory_10", "SR_2", 10)
    assert [path.split("/IM")[0] for path in result] == [
        "Normal/Directory_2/SR_9",
        "Normal/Directory_2/SR_10",
        "Normal/Directory_10/SR_2",
        "Sick/Directory_2/SR_1",
        "Sick/Directory_2/SR_1",
    ]
    # The number is used in both classes: two patients.
    assert len({patient for _, patient, _, _ in result.values()}) == 3


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("CAD Cardiac MRI Dataset/normal/Directory_3/SR_1/IM00007.jpg", ("Normal", "Normal/Directory_3", "SR_1", 7)),
        ("a/b/SICK/directory_03/x/SR_1/IM00007.JPG", ("Sick", "Sick/Directory_3", "x/SR_1", 7)),
        ("Normal/train/Directory_5/SR_2/IM1.png", ("Normal", "Normal/Directory_5", "SR_2", 1)),
        ("Normal/Directory_12_SR_3_IM00045.jpg", ("Normal", "Normal/Directory_12", "SR_3", 45)),
        ("Sick/sick-directory-7-series4-IM00002.jpg", ("Sick", "Sick/Directory_7", "series4", 2)),
        ("Sick/Directory_7/IM00002.jpg", ("Sick", "Sick/Directory_7", "", 2)),
        ("Sick/patient007/SR_1/SC-HF-I-04-IM-0001-0087.png", ("Sick", "Sick/patient007", "SR_1", 87)),
        ("Sick/patient007/IM00087.png", ("Sick", "Sick/patient007", "", 87)),
        ("Sick/Directory_7 (2)/IM00002.jpg", ("Sick", "Sick/Directory_7", "", 2)),
        ("Sick/Directory_7 - Copy/SR_1/IM2.jpg", ("Sick", "Sick/Directory_7", "SR_1", 2)),
        ("Sick/Jose\u0301/IM2.jpg", ("Sick", "Sick/Jos\u00e9", "", 2)),
        ("Normal/IM00001.jpg", ("Normal", "", "", 1)),
        ("Normal/SR_4/IM00001.jpg", ("Normal", "", "SR_4", 1)),
        ("Normal/slice-04/IM00001.jpg", ("Normal", "", "slice-04", 1)),
        ("Sick/sax_2/IM00001.jpg", ("Sick", "", "sax_2", 1)),
        ("Normal/picture.jpg", ("Normal", "", "", -1)),
    ],
)
def test_other_layouts(tmp_path, path, expected):
    assert found(lay(tmp_path, path)) == {path: expected}


def test_what_is_no_record(tmp_path):
    lay(
        tmp_path, "Normal/Directory_1/SR_1/IM1.jpg", "Normal/.DS_Store", "Normal/Directory_1/._IM1.jpg", ".cache/Normal/IM1.jpg"
    )
    lay(tmp_path, "__MACOSX/Normal/IM1.jpg", "Sick/Directory_1/Thumbs.db", "README.txt", "Abnormal/Directory_1/notes.txt")
    lay(tmp_path, "Normal/Sick/IM1.jpg")
    assert list(found(tmp_path)) == ["Normal/Directory_1/SR_1/IM1.jpg"]
    outside = "outside of a class folder: neither Normal nor Sick is above it"
    assert rejected(tmp_path) == {
        "Normal/.DS_Store": ("", "hidden file"),
        "Normal/Directory_1/._IM1.jpg": ("", "hidden file"),
        ".cache/Normal/IM1.jpg": ("", "hidden file"),
        "__MACOSX/Normal/IM1.jpg": ("", "system file"),
        "Sick/Directory_1/Thumbs.db": ("", "system file"),
        "README.txt": ("", outside),
        "Abnormal/Directory_1/notes.txt": ("", outside),
        "Normal/Sick/IM1.jpg": ("", "inside folders of two classes"),
    }


@pytest.mark.parametrize("strange", ["Sick (2)", "Sick - Copy", "Norml", "sick_new"])
@pytest.mark.parametrize("name", ["IM1.jpg", "IM0001", "1.2.840.113"])
def test_a_folder_beside_the_classes_that_is_none_stops_the_scan(tmp_path, strange, name):
    lay(tmp_path, "a/Normal/Directory_1/IM1.jpg", "a/Sick/Directory_1/IM1.jpg", f"a/{strange}/Directory_2/{name}")
    with pytest.raises(CardiumError, match=re.escape(f"`a/{strange}` (1)")):
        found(tmp_path)
    (tmp_path / "a" / strange).rename(tmp_path / "a" / "notes")
    (tmp_path / "a/notes/Directory_2" / name).rename(tmp_path / "a/notes/Directory_2/list.csv")
    assert len(found(tmp_path)) == 2


def test_a_folder_that_is_a_link_is_lost_with_its_files(tmp_path):
    data = lay(tmp_path / "data", "Normal/Directory_1/IM1.jpg", "Sick/Directory_1/IM1.jpg")
    away = lay(tmp_path / "away", "SR_1/IM1.jpg", "SR_1/IM2.jpg", "SR_2/IM1.jpg", ".DS_Store")
    (data / "Sick/Directory_2").symlink_to(away)
    (data / "Sick/Directory_3").symlink_to("Directory_1")
    (data / "Sick/Directory_4").symlink_to("nowhere")
    lost = {entry.path: entry for entry in get_collection("cmri").scan(data) if isinstance(entry, Rejected)}
    assert lost["Sick/Directory_2"] == Rejected("Sick/Directory_2", "Sick", "link out of the data folder", 3)
    assert lost["Sick/Directory_3"].files == 0  # It is read in its own place.
    assert lost["Sick/Directory_4"] == Rejected("Sick/Directory_4", "Sick", "broken link", UNKNOWN)
    # A class that is a link is that class, lost.
    (data / "Normal").rename(tmp_path / "Normal")
    (data / "Normal").symlink_to(tmp_path / "Normal")
    lost = {entry.path: entry for entry in get_collection("cmri").scan(data) if isinstance(entry, Rejected)}
    assert lost["Normal"] == Rejected("Normal", "Normal", "link out of the data folder", 1)


@pytest.mark.parametrize("how", ["configured", "linked", "relative"])
def test_a_cache_that_projects_share_belongs_to_the_data(tmp_path, how):
    data = lay(tmp_path / "project" / "data" / "cmri", "Normal/Directory_1/IM1.jpg")
    lay(tmp_path / "shared", "files/md5/ab/cdef")
    dvc = tmp_path / "project" / ".dvc"
    dvc.mkdir()
    if how == "linked":
        (dvc / "cache").symlink_to(tmp_path / "shared")
    else:
        place = tmp_path / "shared" if how == "configured" else "../../shared"
        name = "config.local" if how == "configured" else "config"
        (dvc / name).write_text(f"[cache]\n    dir = {place}\n    type = symlink\n")
    (data / "Normal/Directory_1/IM2.jpg").symlink_to(tmp_path / "shared/files/md5/ab/cdef")
    assert [path.rsplit("/", 1)[1] for path in found(data)] == ["IM1.jpg", "IM2.jpg"]


def test_links_and_pipes(tmp_path):
    data = lay(tmp_path / "project" / "data" / "cmri", "Normal/Directory_1/IM1.jpg")
    lay(tmp_path, "secret.jpg", "elsewhere/IM1.jpg", "project/.dvc/cache/files/md5/ab/cdef")
    folder = data / "Normal" / "Directory_1"
    (folder / "IM2.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "IM3.jpg").symlink_to("IM1.jpg")
    (folder / "IM4.jpg").symlink_to("missing.jpg")
    (folder / "IM5.jpg").symlink_to("IM5.jpg")
    (folder / "IM6.jpg").symlink_to(tmp_path / "project/.dvc/cache/files/md5/ab/cdef")
    (folder / "SR_1").symlink_to(tmp_path / "elsewhere")
    (folder / "SR_2").symlink_to(data)
    os.mkfifo(folder / "IM7.jpg")
    assert sorted(path.rsplit("/", 1)[1] for path in found(data)) == ["IM1.jpg", "IM3.jpg", "IM6.jpg"]
    reasons = {path.rsplit("/", 1)[1]: reason for path, (_, reason) in rejected(data).items()}
    assert reasons == {
        "IM2.jpg": "link out of the data folder",
        "IM4.jpg": "broken link",
        "IM5.jpg": "broken link",
        "SR_1": "link out of the data folder",
        "SR_2": "link to a folder",
        "IM7.jpg": "not a regular file",
    }


def test_a_name_that_is_no_unicode(tmp_path):
    folder = lay(tmp_path, "Normal/Directory_1/IM1.jpg") / "Normal" / "Directory_1"
    (Path(os.fsdecode(os.fsencode(folder) + b"/IM\xff.jpg"))).write_bytes(b"x")
    ((path, (label, reason)),) = rejected(tmp_path).items()
    assert (label, reason) == ("Normal", "file name is not valid Unicode")
    path.encode("utf-8")


def test_frame_numbers():
    names = [
        "IM00012.jpg",
        "IM-0001-0087.png",
        "IMG_7.jpg",
        "Directory_3_SR_2_IM00009.jpg",
        "scan.jpg",
        "12",
        f"IM{10**25}.jpg",
    ]
    assert [frame_number(name) for name in names] == [12, 87, 7, 9, -1, 12, -1]


@given(st.lists(st.text(min_size=1, max_size=20), max_size=20))
def test_natural_order_is_total_and_frames_fit(names):
    backwards = names[::-1]
    assert sorted(names, key=natural) == sorted(backwards, key=natural)
    assert all(-1 <= frame_number(name) < 2**63 for name in names)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=20))
def test_natural_order_counts(numbers):
    assert [int(name[2:]) for name in sorted((f"IM{n}" for n in numbers), key=natural)] == sorted(numbers)
